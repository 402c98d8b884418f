/*
 * Hypercalls whose registers C cannot name: XMM input, and the call from 32-bit code. Nothing else may
 * enter.
 */
#include "layout.h"

	.text
	.code64
/* uint64_t hv_call_fast_enter(uint64_t value, const uint64_t *words) */
	.globl hv_call_fast_enter
hv_call_fast_enter:
	movups 16(%rsi), %xmm0
	movups 32(%rsi), %xmm1
	movups 48(%rsi), %xmm2
	movups 64(%rsi), %xmm3
	movups 80(%rsi), %xmm4
	movups 96(%rsi), %xmm5
	movq %rdi, %rcx
	movq (%rsi), %rdx
	movq 8(%rsi), %r8
	movl $0x5a5a5a5a, %eax
	movl $hv_page, %esi
	jmp *%rsi

/*
 * uint64_t hv_call_32_enter(const uint64_t words[3]): EDX:EAX, EBX:ECX and EDI:ESI, through the page, with
 * interrupts disabled. What 64-bit code keeps in registers is on the stack meanwhile.
 */
	.globl hv_call_32_enter
hv_call_32_enter:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movl (%rdi), %eax
	movl 4(%rdi), %edx
	movl 8(%rdi), %ecx
	movl 12(%rdi), %ebx
	movl 16(%rdi), %esi
	movl 20(%rdi), %edi
	movl $hv_page, %ebp
	pushq $SEGMENT_CODE32
	pushq $1f
	lretq
	.code32
1:	call *%ebp
	ljmpl $SEGMENT_CODE64, $1f
	.code64
1:	movl %eax, %eax
	shlq $32, %rdx
	orq %rdx, %rax
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	.section .note.GNU-stack, "", @progbits
