/*
 * Where one level leaves and where it comes back: the general registers are shared, so each side puts its
 * own away first. Nothing else may enter.
 */
#include "layout.h"

	.text
	.code64
/*
 * void vtl_switch(struct vtl_registers *registers, uint64_t address): all registers as they are in the
 * structure, the call of a sequence in the hypercall page, and all registers back into it.
 */
	.globl vtl_switch
vtl_switch:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	pushq %rdi
	pushq %rsi
	movq (%rdi), %rax
	movq 8(%rdi), %rcx
	movq 16(%rdi), %rdx
	movq 24(%rdi), %rbx
	movq 32(%rdi), %rsi
	movq 48(%rdi), %rbp
	movq 56(%rdi), %r8
	movq 64(%rdi), %r9
	movq 72(%rdi), %r10
	movq 80(%rdi), %r11
	movq 88(%rdi), %r12
	movq 96(%rdi), %r13
	movq 104(%rdi), %r14
	movq 112(%rdi), %r15
	movq 40(%rdi), %rdi
	call *(%rsp)
	pushq %rdi
	movq 16(%rsp), %rdi
	movq %rax, (%rdi)
	movq %rcx, 8(%rdi)
	movq %rdx, 16(%rdi)
	movq %rbx, 24(%rdi)
	movq %rsi, 32(%rdi)
	popq 40(%rdi)
	movq %rbp, 48(%rdi)
	movq %r8, 56(%rdi)
	movq %r9, 64(%rdi)
	movq %r10, 72(%rdi)
	movq %r11, 80(%rdi)
	movq %r12, 88(%rdi)
	movq %r13, 96(%rdi)
	movq %r14, 104(%rdi)
	movq %r15, 112(%rdi)
	cld
	addq $16, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

/* VTL1's first instruction on a processor: VTL0's registers become the first structure. */
	.globl vtl1_entry
vtl1_entry:
	pushq %r15
	pushq %r14
	pushq %r13
	pushq %r12
	pushq %r11
	pushq %r10
	pushq %r9
	pushq %r8
	pushq %rbp
	pushq %rdi
	pushq %rsi
	pushq %rbx
	pushq %rdx
	pushq %rcx
	pushq %rax
	movq %rsp, %rdi
	xorl %ebp, %ebp
	/* The ABI wants the stack aligned at a call. */
	andq $-16, %rsp
	call vtl1_main
1:	hlt
	jmp 1b

/* void vtl_switch_vmmcall(uint64_t value, uint64_t control) */
	.globl vtl_switch_vmmcall
vtl_switch_vmmcall:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rdi, %rcx
	movq %rsi, %rax
	vmmcall
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	.section .note.GNU-stack, "", @progbits
