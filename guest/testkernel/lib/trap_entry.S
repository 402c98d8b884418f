/*
 * One stub for each vector, the common way into trap_dispatch, and trap_catch. Nothing else may
 * enter.
 */
#include "layout.h"

	.text
	.balign 16
	.globl trap_stubs
trap_stubs:
	vector = 0
	.rept 256
	.balign 16
	/* These push an error code themselves; the others get a zero. */
	.if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21 && \
		vector != 29 && vector != 30
	pushq $0
	.endif
	pushq $vector
	jmp trap_common
	vector = vector + 1
	.endr
	.balign 16

trap_common:
	pushq %rax
	pushq %rbx
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %rbp
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	cld
	movq %rsp, %rdi
	call trap_dispatch
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rbp
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rbx
	popq %rax
	addq $16, %rsp
	iretq

/* int trap_catch(void (*function)(void *), void *argument) */
	.globl trap_catch, trap_catch_resume
trap_catch:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	pushfq
	pushq %gs:CPU_CATCH_STACK
	subq $8, %rsp
	movq %rsp, %gs:CPU_CATCH_STACK
	movq %rdi, %rax
	movq %rsi, %rdi
	call *%rax
	movl $-1, %eax
trap_catch_resume:
	addq $8, %rsp
	popq %gs:CPU_CATCH_STACK
	popfq
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	.section .note.GNU-stack, "", @progbits
