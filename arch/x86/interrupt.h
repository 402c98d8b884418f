/*
 * Exceptions and NMIs that hit Parapet itself. External interrupts are the guest's: they are enabled
 * for one instruction only, to be taken on its behalf.
 */
#ifndef PARAPET_ARCH_X86_INTERRUPT_H
#define PARAPET_ARCH_X86_INTERRUPT_H

#include <parapet/types.h>

/* What interrupt.S leaves on the stack. */
struct interrupt_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector;
	uint64_t error;
	uint64_t rip, cs, rflags, rsp, ss;
};

void interrupt_init(void);
void interrupt_load_idt(void);

/* Reloads CS and the data segments with Parapet's selectors (interrupt.S). */
void cpu_load_segments(void);

/*
 * Called with GIF clear: sets it and sleeps until an NMI. There is no window: one that is pending or
 * comes before the HLT makes the HLT be skipped (interrupt_handle moves RIP past it).
 */
void interrupt_idle(void);

/*
 * Takes one external interrupt that is pending at this processor, without EOI, and gives its vector;
 * false if there is none. Called with GIF set and interrupts off, and leaves them so. Vectors 1, 2 and
 * 18, which only an 8259 programmed to collide with #DB, NMI or #MC can deliver, are not told apart
 * from those.
 */
bool interrupt_take(uint8_t *vector);

/*
 * The same, asleep until an interrupt or an NMI comes; false: it was an NMI. Called with GIF clear and
 * interrupts off; sets GIF. An NMI that is pending or comes before the HLT ends it at once.
 */
bool interrupt_idle_take(uint8_t *vector);

/* Called by interrupt.S. */
void interrupt_handle(struct interrupt_frame *frame);

#endif
