/*
 * The processors: what each one owns, how they start and how they are given work. A processor that
 * has nothing to do halts and is woken by an interrupt.
 */
#ifndef TK_CPU_H
#define TK_CPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "trap.h"

#define VECTOR_WAKE 0xf0

enum cpu_state {
	CPU_ABSENT, /* never started, or stopped by INIT */
	CPU_IDLE,
	CPU_WORKING,
};

struct tss {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint64_t reserved1;
	uint64_t ist[7];
	uint64_t reserved2;
	uint16_t reserved3;
	uint16_t io_map;
} __attribute__((packed));

/* Reached through GS. The first three are known to assembly (layout.h). */
struct cpu {
	struct cpu *self;
	uint64_t stack_top;
	uint64_t catch_stack;
	uint32_t number;
	uint32_t apic_id;
	struct trap_record trap; /* the last caught exception */
	_Atomic enum cpu_state state;
	_Atomic uint32_t starts; /* times it came up */
	void (*_Atomic function)(void *);
	void *argument;
	struct tss tss;
	uint64_t gdt[8];
	_Alignas(16) uint8_t stack[CPU_STACK_SIZE];
	_Alignas(16) uint8_t ist_stacks[3][4096];
};

/* Number 0 is the first processor; the others follow in the MADT's order. */
extern struct cpu cpus[CPU_COUNT_MAX];

static inline struct cpu *cpu_self(void)
{
	struct cpu *self;

	__asm__ volatile("mov %%gs:0, %0" : "=r"(self));
	return self;
}

/* Fills in what a processor's own memory holds before it runs: tables and stacks, not loaded. */
void cpu_prepare(struct cpu *cpu, uint32_t number, uint32_t apic_id);

/* Descriptor tables of the first processor. Called once, by boot. */
void cpu_first_start(void);

/*
 * Reads the MADT and enables this processor's APIC; the others are known then, but not started.
 * Returns how many there are in all.
 */
uint32_t cpu_all_find(void);

/*
 * Reads the MADT, enables this processor's APIC and starts all others with INIT and SIPI. Returns
 * how many there are in all. Bails out when one does not come.
 */
uint32_t cpu_all_start(void);
uint32_t cpu_count(void);

/* INIT, SIPI, SIPI to one processor. Says whether it came up within two seconds. */
bool cpu_start(struct cpu *cpu);

/* Waits until a processor that was started has nothing to do; says whether that came to be. */
bool cpu_idle_wait(struct cpu *cpu, uint64_t us);

/* The page that a SIPI vector names, with the trampoline in it. */
uint64_t cpu_trampoline_get(void);

/* Has an idle processor run a function; returns at once. Never on the calling processor. */
void cpu_call_start(struct cpu *cpu, void (*function)(void *), void *argument);

/* Says whether it comes back within so many microseconds. */
bool cpu_call_done(struct cpu *cpu, uint64_t us);

/* Waits until it has come back. Bails out after ten seconds. */
void cpu_call_wait(struct cpu *cpu);

static inline void cpu_call(struct cpu *cpu, void (*function)(void *), void *argument)
{
	cpu_call_start(cpu, function, argument);
	cpu_call_wait(cpu);
}

#endif
