/*
 * The wakeup mailbox from the guest's side (ACPI 6.6, section 5.2.12.19): commands as a kernel gives
 * them, and the way of a processor from its first instruction to cpu.h's idle loop and back.
 * Nothing that judges may enter.
 */
#ifndef TK_WAKE_H
#define TK_WAKE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "acpi.h"
#include "cpu.h"

#define WAKE_COMMAND_NONE   0u
#define WAKE_COMMAND_WAKEUP 1u
#define WAKE_COMMAND_TEST   2u

/* What a stock kernel's wait is, and more: a processor that has not come by then never will. */
#define WAKE_LIMIT_US 10000000u

struct wake_mailbox {
	_Atomic uint16_t command;
	uint16_t reserved;
	uint32_t apic_id;
	uint64_t vector;
	uint8_t os[2032];
	uint8_t firmware[2048];
};
_Static_assert(sizeof(struct wake_mailbox) == 4096, "ACPI 6.6, table 5.46");

/* A processor's state at its first instruction, as wake_entry.S stores it. */
struct wake_state {
	uint64_t cr0, cr2, cr3, cr4, efer;
	uint64_t rflags;
	uint64_t cs, ss, ds, es, fs, gs, tr, ldtr;
	uint64_t rsp;
	uint64_t dr7;
};

extern struct wake_state wake_states[256]; /* by APIC id */

/* The two vectors: in the kernel's image, and a copy below 1 MiB that first writes to itself. */
uint64_t wake_vector_high(void);
uint64_t wake_vector_low(void);

/* How many processors have come through the low vector. */
uint32_t wake_low_count(void);

/* Finds the mailbox. False when the machine has none. */
bool wake_find(struct acpi_wakeup *found);
volatile struct wake_mailbox *wake_mailbox(void);

/* Writes a command as a kernel does: id, vector, then the command. */
void wake_command_write(uint32_t apic_id, uint64_t vector, uint16_t command);

/* Has the command been taken within so many microseconds? */
bool wake_command_taken(uint64_t us);

/* Marks a processor as not there, so that cpu_idle_wait tells when it has come. */
void wake_expect(struct cpu *cpu);

/* Starts one and waits for it. */
bool wake_cpu(struct cpu *cpu, uint64_t vector);

/* Has an idle processor go offline; does not wait. */
void wake_offline_start(struct cpu *cpu);

/* Asks whether a processor is offline and ready, for so long. */
bool wake_test(struct cpu *cpu, uint64_t us);

/*
 * The calling processor goes offline; returns when it has been woken again, has become idle, and
 * another has had it call wake_self_return.
 */
void wake_self_offline(void);
void wake_self_return(void *argument);

#endif
