/*
 * Where the machine's other processors begin: a page below 1 MiB, in real mode, then straight into
 * Parapet. The page is copied to its place and patched (ap_start.c) before any of them runs, and is
 * mapped read-only and executable in page tables made for this alone. All processors go through it
 * at the same time: nothing is written, and each finds its own stack by its APIC id.
 */
#include "arch/x86/layout.h"

#define PAGE_CODE32 0x18
#define OFFSET(label) (label - ap_page_start)

	.section .rodata
	.globl	ap_page_start, ap_page_end, ap_page_code32, ap_page_code64
	.globl	ap_page_gdt, ap_page_gdt_base, ap_page_far32, ap_page_far64, ap_page_cr3

	.code16
	.align	16
ap_page_start:
	cli
	cld
	mov	%cs, %ax
	mov	%ax, %ds
	xor	%ebx, %ebx
	mov	%ax, %bx
	shl	$4, %ebx		/* EBX: where this page is */
	lgdtl	OFFSET(ap_page_gdt_pointer)
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	*OFFSET(ap_page_far32)

	.code32
ap_page_code32:
	mov	$SELECTOR_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%cr4, %eax
	or	$0x20, %eax		/* PAE */
	mov	%eax, %cr4
	mov	OFFSET(ap_page_cr3)(%ebx), %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x900, %eax		/* LME, NXE */
	wrmsr
	mov	%cr0, %eax
	and	$0x9fffffff, %eax	/* caches on */
	or	$0x80010000, %eax	/* PG, WP */
	mov	%eax, %cr0
	ljmpl	*OFFSET(ap_page_far64)(%ebx)

	.code64
ap_page_code64:
	movabs	$ap_entry, %rax
	jmp	*%rax

	.align	8
ap_page_gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* SELECTOR_CODE */
	.quad	0x00cf93000000ffff	/* SELECTOR_DATA */
	.quad	0x00cf9b000000ffff	/* PAGE_CODE32 */
ap_page_gdt_pointer:
	.word	4 * 8 - 1
ap_page_gdt_base:
	.long	0			/* patched: ap_page_gdt's address */
	.align	8
ap_page_far32:
	.long	0			/* patched */
	.word	PAGE_CODE32
	.align	8
ap_page_far64:
	.long	0			/* patched */
	.word	SELECTOR_CODE
	.align	8
ap_page_cr3:
	.long	0			/* patched: below 4 GiB */
ap_page_end:

	.text
	.code64
ap_entry:
	mov	$1, %eax
	cpuid
	shr	$24, %ebx
	mov	$cpu_of_apic, %rdi
	mov	(%rdi,%rbx,8), %rdi
	test	%rdi, %rdi
	jz	ap_unknown		/* not in the hand-over: it sleeps for ever */
	mov	CPU_STACK_TOP(%rdi), %rsp
	xor	%ebp, %ebp
	push	%rbp			/* ends backtraces, aligns the stack */
	push	%rbp
	call	ap_main
ap_unknown:
	cli
	hlt
	jmp	ap_unknown

	.section .note.GNU-stack, "", @progbits
