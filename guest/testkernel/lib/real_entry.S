/*
 * From long mode to real mode and back: real_enter(page), with the 16-bit part copied to that page
 * below 64 KiB. Interrupts stay disabled. Nothing else may enter.
 */
#include "layout.h"

	.text
	.code64
	.globl real_enter
real_enter:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	pushfq
	cli
	movq %rsp, stack_saved
	sidt idt_saved
	movl %edi, %ebx
	pushq $SEGMENT_CODE32
	pushq $1f
	lretq

	.code32
1:	movw $SEGMENT_DATA, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $stack32_top, %esp
	movl %cr0, %eax
	andl $~CR0_PG, %eax
	movl %eax, %cr0
	movl $MSR_EFER, %ecx
	rdmsr
	andl $~EFER_LME, %eax
	wrmsr
	lidt idt_real
	pushl $SEGMENT_CODE16
	pushl %ebx
	lretl

	.code16
	.globl real_start, real_handler, real_undefined, real_data, real_end
	.balign 16
real_start:
	movw $SEGMENT_DATA16, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	leaw 4096(%bx), %sp
	movl %cr0, %eax
	andl $~CR0_PE, %eax
	movl %eax, %cr0
	pushw $0
	leaw (1f - real_start)(%bx), %ax
	pushw %ax
	lretw
1:	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	leaw (real_data - real_start)(%bx), %si
	movl (%si), %edi
1:	int $0x60
	decl %edi
	jnz 1b
	movl %cr0, %eax
	movl %eax, 12(%si)
	movw $0xffff, %ax
	movw %ax, %es
	movl %es:0x10, %eax
	movl %eax, 16(%si)
	movl %ebx, %edi
	xorl %eax, %eax
	cpuid
	movl %ebx, 8(%si)
	movl %edi, %ebx
	vmmcall
	movl %cr0, %eax
	orl $CR0_PE, %eax
	movl %eax, %cr0
	ljmpl $SEGMENT_CODE32, $real_leave
real_handler:
	incl %cs:4(%si)
	iretw
/* An instruction of three bytes that there is none of. */
real_undefined:
	incl %cs:20(%si)
	pushw %bp
	movw %sp, %bp
	addw $3, 2(%bp)
	popw %bp
	iretw
	.balign 8
real_data:
	.skip 24
real_end:

	.code32
real_leave:
	movw $SEGMENT_DATA, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $MSR_EFER, %ecx
	rdmsr
	orl $EFER_LME, %eax
	wrmsr
	movl %cr0, %eax
	orl $CR0_PG, %eax
	movl %eax, %cr0
	ljmpl $SEGMENT_CODE64, $1f

	.code64
1:	movq stack_saved, %rsp
	lidt idt_saved
	popfq
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	.section .data
	.balign 8
idt_real:
	.word 0x3ff
	.long 0

	.section .bss
	.balign 16
stack_saved:
	.skip 8
idt_saved:
	.skip 16
	.skip 256
stack32_top:

	.section .note.GNU-stack, "", @progbits
