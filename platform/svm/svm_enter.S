/*
 * void svm_enter(uint64_t vmcb, uint64_t *gpr, uint64_t host_vmcb)
 *
 * Runs the guest of the control block at physical address `vmcb` until it exits. gpr: its general
 * registers in hardware order; RAX and RSP live in the control block. host_vmcb: where this
 * processor's own FS, GS, TR, LDTR and system-call registers are kept meanwhile (VMSAVE's part).
 * Called and left with GIF clear. Vector registers are the guest's at all times.
 */
	/* While TR and GS are the guest's, a #DB of the guest's making could not be survived here. */
	.section .text.guarded, "ax", @progbits
	.code64
	.globl	svm_enter
svm_enter:
	push	%rbp
	mov	%rsp, %rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rdx
	push	%rsi

	mov	%rdi, %rax
	mov	1*8(%rsi), %rcx
	mov	2*8(%rsi), %rdx
	mov	3*8(%rsi), %rbx
	mov	5*8(%rsi), %rbp
	mov	7*8(%rsi), %rdi
	mov	8*8(%rsi), %r8
	mov	9*8(%rsi), %r9
	mov	10*8(%rsi), %r10
	mov	11*8(%rsi), %r11
	mov	12*8(%rsi), %r12
	mov	13*8(%rsi), %r13
	mov	14*8(%rsi), %r14
	mov	15*8(%rsi), %r15
	mov	6*8(%rsi), %rsi

	vmload	%rax
	vmrun	%rax
	.globl	svm_exited
svm_exited:
	vmsave	%rax

	/* RAX and RSP are ours again; everything else is still the guest's. */
	xchg	%rsi, (%rsp)
	mov	%rcx, 1*8(%rsi)
	mov	%rdx, 2*8(%rsi)
	mov	%rbx, 3*8(%rsi)
	mov	%rbp, 5*8(%rsi)
	mov	%rdi, 7*8(%rsi)
	mov	%r8, 8*8(%rsi)
	mov	%r9, 9*8(%rsi)
	mov	%r10, 10*8(%rsi)
	mov	%r11, 11*8(%rsi)
	mov	%r12, 12*8(%rsi)
	mov	%r13, 13*8(%rsi)
	mov	%r14, 14*8(%rsi)
	mov	%r15, 15*8(%rsi)
	pop	%rcx
	mov	%rcx, 6*8(%rsi)

	pop	%rax
	vmload	%rax
	cld
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	ret

	.section .note.GNU-stack, "", @progbits
