/*
 * Entry points of the 32 exceptions and of the 224 interrupts behind them, the window in which one of
 * those is taken, the idle instruction pair, and the segment reload.
 *
 * In .text.guarded is what could not survive a breakpoint of the guest's: see interrupt_handle.
 */
#include "arch/x86/layout.h"

	.section .text.guarded, "ax", @progbits
	.code64

.macro entry vector, has_error
	.align 16
	.if !\has_error
	push	$0
	.endif
	push	$\vector
	jmp	interrupt_common
.endm

	.align 16
	.globl	interrupt_entries
interrupt_entries:
	.set	vector, 0
	.rept	32
	.if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
	entry	vector, 1
	.else
	entry	vector, 0
	.endif
	.set	vector, vector + 1
	.endr

interrupt_common:
	push	%rax
	push	%rbx
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rbp
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	cld
	mov	%rsp, %rdi
	/* A frame for backtraces: as if the interrupted instruction had called us. */
	mov	%rsp, %rbx
	and	$-16, %rsp
	call	interrupt_handle
	mov	%rbx, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rbp
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rbx
	pop	%rax
	add	$16, %rsp
	iretq

	/*
	 * uint64_t interrupt_window(void): takes one external interrupt, if there is any, and returns
	 * its vector, else -1. Nothing runs for it: its entry point drops what the processor has pushed
	 * and goes on behind the window, with interrupts off, as the gate leaves them. NMIs leave RDX
	 * alone. The room below is for interrupts that look like exceptions (interrupt.c).
	 */
	.globl	interrupt_window
	.globl	interrupt_window_open
	.globl	interrupt_window_end
	.globl	interrupt_window_low
interrupt_window:
	sub	$24, %rsp
	mov	%rsp, %rdx
	mov	$-1, %rax
	sti
interrupt_window_open:
	nop
	cli
interrupt_window_end:
	add	$24, %rsp
	ret
	/*
	 * uint64_t interrupt_idle_window(void): the same, asleep until one comes; an NMI ends it too
	 * (interrupt_handle moves RIP to the end). Called with GIF clear, which it sets.
	 */
	.globl	interrupt_idle_window
	.globl	interrupt_idle_window_open
	.globl	interrupt_idle_window_end
interrupt_idle_window:
	sub	$24, %rsp
	mov	%rsp, %rdx
	mov	$-1, %rax
interrupt_idle_window_open:
	stgi
	sti
	hlt
interrupt_idle_window_end:
	cli
	add	$24, %rsp
	ret
	/* From an exception's entry point, by IRET: RAX holds the vector. */
interrupt_window_low:
	add	$24, %rsp
	ret

	/* Only the windows have interrupts enabled. */
	.align 16
	.globl	interrupt_external_entries
interrupt_external_entries:
	.set	vector, 32
	.rept	224
	.align 16
	mov	$vector, %eax
	jmp	interrupt_taken
	.set	vector, vector + 1
	.endr
interrupt_taken:
	lea	24(%rdx), %rsp
	ret

	.text
	/* void interrupt_idle(void) */
	.globl	interrupt_idle
	.globl	interrupt_idle_end
interrupt_idle:
	stgi
	hlt
interrupt_idle_end:
	ret

	/* void cpu_switch_stack(void *top, void (*entry)(void *), void *argument) */
	.globl	cpu_switch_stack
cpu_switch_stack:
	mov	%rdi, %rsp
	mov	%rdx, %rdi
	xor	%ebp, %ebp
	push	%rbp			/* ends backtraces, aligns the stack */
	push	%rbp
	call	*%rsi
	ud2

	.globl	cpu_load_segments
cpu_load_segments:
	pop	%rax
	push	$SELECTOR_CODE
	push	%rax
	mov	$SELECTOR_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	lretq

	.section .note.GNU-stack, "", @progbits
