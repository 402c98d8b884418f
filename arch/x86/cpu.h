/*
 * One processor of the machine, as Parapet runs on it: descriptor tables, stacks, and what it was
 * doing when something went wrong. Found through GS while Parapet runs.
 */
#ifndef PARAPET_ARCH_X86_CPU_H
#define PARAPET_ARCH_X86_CPU_H

#include <parapet/types.h>
#include "arch/x86/layout.h"
#include "core/atomic.h"

struct __attribute__((packed)) tss {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint64_t reserved1;
	uint64_t ist[7];
	uint64_t reserved2;
	uint16_t reserved3;
	uint16_t io_map;
};

_Static_assert(sizeof(struct tss) == 104, "AMD64 APM volume 2, 12.2.5");

/* Entries of tss.ist, counted from 1 as the IDT does. */
enum ist {
	IST_NONE,
	IST_NMI,
	IST_DF,
	IST_MC,
	IST_DB,
	IST_COUNT,
};

struct cpu {
	struct cpu *self;
	void *stack_top;
	uint32_t id; /* dense: 0 is the processor that the machine booted on */
	uint32_t apic_id; /* xAPIC id */
	void *context; /* the run loop's, for fault reports */
	struct atomic_u32 kick_mark; /* a kick is under way to this processor: CPU_KICK_ below */
	uint8_t task_priority_low; /* what CR8 does not hold of the APIC's task priority */
	uint64_t outside_nmis; /* NMIs that were no kick; counted by the NMI handler */
	uint64_t debug_traps; /* #DB in Parapet itself: a guest's breakpoints, ignored */
	struct atomic_u32 online; /* 1 once this processor runs Parapet's C code */
	uint64_t gdt[6];
	struct tss tss;
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct cpu, stack_top) == CPU_STACK_TOP, "used by ap_start.S");

/*
 * A kick is an NMI between processors. Its mark tells it from an NMI that comes from outside, and the
 * turn, which the rest of the word counts, one kick from the next.
 */
#define CPU_KICK_CLAIMED 1u /* somebody sends the NMI, or has */
#define CPU_KICK_SENT	 2u /* and has: it is pending, unless the processor has lost it */
#define CPU_KICK_TURN	 4u

/*
 * For whoever kicks: false if somebody else does already. Acquire-release pairs with the exchange of
 * cpu_take_kick: whoever finds the mark set may leave it at that, because the NMI that takes it away is
 * still to come. *mark: what cpu_note_kick_sent wants after the NMI.
 */
static inline bool cpu_claim_kick(struct cpu *cpu, uint32_t *mark)
{
	uint32_t before =
		atomic_u32_fetch_or(&cpu->kick_mark, CPU_KICK_CLAIMED, memory_order_acq_rel);

	*mark = before | CPU_KICK_CLAIMED;
	return !(before & CPU_KICK_CLAIMED);
}

static inline void cpu_note_kick_sent(struct cpu *cpu, uint32_t mark)
{
	/*
	 * Relaxed, pairs with the look of cpu_kick_is_sent: it stands for itself. It fails if the NMI
	 * has been taken already.
	 */
	atomic_u32_compare_exchange(
		&cpu->kick_mark, &mark, mark | CPU_KICK_SENT, memory_order_relaxed);
}

/*
 * Own processor, NMIs blocked: has a kick been sent and not been taken? One that is claimed and not sent
 * yet may have lost its NMI already, and nobody would look again before the next exit: waits for
 * whoever claimed it to say so, who waits for nobody meanwhile.
 */
static inline bool cpu_kick_is_sent(const struct cpu *cpu)
{
	uint32_t mark;

	for (;;) {
		/*
		 * Relaxed, pairs with the exchange of cpu_note_kick_sent: the mark stands for itself. A
		 * kick that is claimed after this look has its NMI still to come.
		 */
		mark = atomic_u32_load(&cpu->kick_mark, memory_order_relaxed);
		if ((mark & (CPU_KICK_CLAIMED | CPU_KICK_SENT)) != CPU_KICK_CLAIMED) {
			return mark & CPU_KICK_SENT;
		}
		atomic_relax();
	}
}

/* For the NMI handler: takes the mark away. False: there is none, the NMI comes from outside. */
static inline bool cpu_take_kick(struct cpu *cpu)
{
	uint32_t mark = atomic_u32_load(&cpu->kick_mark, memory_order_relaxed);

	do {
		if (!(mark & CPU_KICK_CLAIMED)) {
			return false;
		}
		/* Acquire: what the kick is about was written before its mark (cpu_claim_kick). */
	} while (!atomic_u32_compare_exchange(&cpu->kick_mark, &mark,
		(mark | CPU_KICK_CLAIMED | CPU_KICK_SENT) + 1, memory_order_acq_rel));
	return true;
}

static inline struct cpu *cpu_this(void)
{
	struct cpu *cpu;
	__asm__ volatile("mov %%gs:0, %0" : "=r"(cpu));
	return cpu;
}

/* Is this QEMU's own software processor? It differs from the manual here and there. */
bool cpu_is_tcg(void);

/* Takes a struct cpu and its stacks from Parapet's memory, and registers it. */
struct cpu *cpu_create(uint32_t id, uint32_t apic_id);

/* Those created so far, by dense number or by APIC id; NULL if there is none. */
struct cpu *cpu_by_id(uint32_t id);
struct cpu *cpu_by_apic_id(uint32_t apic_id);
uint32_t cpu_count(void);

/* Leaves the stack it is called on for good: `entry`, which does not return, starts on the other. */
void cpu_switch_stack(void *top, void (*entry)(void *), void *argument) __attribute__((noreturn));

/* Loads this processor's descriptor tables, its GS base, and the control registers Parapet wants. */
void cpu_activate(struct cpu *cpu);

#endif
