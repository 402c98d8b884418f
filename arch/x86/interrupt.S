/* Entry points of all 32 exceptions, the idle instruction pair, and the segment reload. */
#include "arch/x86/layout.h"

	.text
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

	/* void interrupt_idle(void) */
	.globl	interrupt_idle
	.globl	interrupt_idle_end
interrupt_idle:
	stgi
	hlt
interrupt_idle_end:
	ret

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
