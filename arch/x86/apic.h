/*
 * The local APIC of the processor that runs this, as the machine has it (xAPIC, memory-mapped).
 * Raw access only: what a guest may do with its APIC is partition/lapic.c's business.
 */
#ifndef PARAPET_ARCH_X86_APIC_H
#define PARAPET_ARCH_X86_APIC_H

#include <parapet/types.h>

struct cpu;

/*
 * Finds the page (MSR_APIC_BASE). Once, on the boot processor, before anything else here. False if the
 * APIC is not an xAPIC that is switched on.
 */
bool apic_init(void);

/* Guest-physical address of the APIC page. */
uint64_t apic_base(void);

uint32_t apic_read(uint32_t offset);
void apic_write(uint32_t offset, uint32_t value);

/* The xAPIC id of this processor. */
uint32_t apic_id(void);

/* Sends a command; the destination register is left as it was found (a guest can read it). */
void apic_send(uint32_t destination, uint32_t command);

/*
 * Sends an NMI to the processor unless one of ours is on its way to it already; it will be taken
 * after whatever the caller wrote before is visible.
 */
void apic_kick(struct cpu *target);

/*
 * For a processor that may lose an NMI or an interrupt which arrives just as its guest exits (QEMU up
 * to 10: do_vmexit changes the word of pending interrupts while others set bits in it). Both do no
 * harm where nothing was lost.
 *
 * With NMIs blocked (GIF clear), before the next entry or idle wait: a kick that was sent and is not
 * pending any more becomes pending again, one that is being sent is waited for. Without this nobody
 * would ever kick the processor again.
 */
void apic_find_lost_kick(void);
/* After an exit: what waits in the local APIC is shown to the processor again. */
void apic_find_lost_interrupt(void);

/* NMI to all others, without marks: only for the end of Parapet itself. */
void apic_send_nmi_others(void);

/* INIT, INIT, SIPI to every other processor of the machine, in parallel. `page` is below 1 MiB. */
void apic_start_others(hpa_t page, uint64_t tsc_hz);

/* The state after an INIT: registers at their reset values, software-disabled, nothing in service. */
void apic_reset(void);

#endif
