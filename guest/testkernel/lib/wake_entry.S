/*
 * The first instructions of a processor that the mailbox has started: keep what it was started with,
 * then join the others. Nothing else may enter.
 */
#include "layout.h"

#define STATE_SIZE 128

	.text
	.code64
	.globl wake_entry
/*
 * The tables a processor starts on let it write nowhere in the kernel's image: registers hold what
 * is to be kept until it is on the kernel's own tables. No instruction up to there changes a flag.
 */
wake_entry:
	movq %rsp, %r8
	movq %cr3, %r9
	movq %cr0, %r10
	movq %cr4, %r11
	movq %cr2, %r12
	movq %dr7, %r13
	movl $page_tables, %eax
	movq %rax, %cr3
	/* The id is in the top byte; shifting would change flags. */
	movl $APIC_BASE_ADDRESS + APIC_ID, %eax
	movl (%rax), %ebx
	bswapl %ebx
	movzbl %bl, %ebx
	movq wake_flag_stacks(, %rbx, 8), %rsp
	pushfq
	popq %r14
	shlq $7, %rbx
	leaq wake_states(%rbx), %rdi
	movq %r10, (%rdi)
	movq %r12, 8(%rdi)
	movq %r9, 16(%rdi)
	movq %r11, 24(%rdi)
	movl $MSR_EFER, %ecx
	rdmsr
	movl %eax, 32(%rdi)
	movl %edx, 36(%rdi)
	movq %r14, 40(%rdi)
	xorl %eax, %eax
	movw %cs, %ax
	movq %rax, 48(%rdi)
	movw %ss, %ax
	movq %rax, 56(%rdi)
	movw %ds, %ax
	movq %rax, 64(%rdi)
	movw %es, %ax
	movq %rax, 72(%rdi)
	movw %fs, %ax
	movq %rax, 80(%rdi)
	movw %gs, %ax
	movq %rax, 88(%rdi)
	str %ax
	movq %rax, 96(%rdi)
	sldt %ax
	movq %rax, 104(%rdi)
	movq %r8, 112(%rdi)
	movq %r13, 120(%rdi)

	lgdt boot_gdt_pointer
	pushq $SEGMENT_CODE64
	pushq $1f
	lretq
1:	movw $SEGMENT_DATA, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	xorl %eax, %eax
	movw %ax, %fs
	movw %ax, %gs
	jmp start64_ap

/*
 * Copied below 1 MiB: writes to its own page through the initial tables, as a trampoline does, with
 * a locked instruction, and without changing a flag.
 */
	.globl wake_low_start, wake_low_counter, wake_low_end
	.balign 16
wake_low_start:
	movl wake_low_counter(%rip), %eax
	leal 1(%rax), %eax
	xchgl %eax, wake_low_counter(%rip)
	movl $wake_entry, %eax
	jmp *%rax
	.balign 8
wake_low_counter:
	.quad 0
wake_low_end:

/* void wake_jump(uint64_t vector): leaves for the reset vector. */
	.globl wake_jump
wake_jump:
	cli
	jmp *%rdi

	.section .bss
	.balign 64
	.globl wake_states
wake_states:
	.skip 256 * STATE_SIZE

	.section .note.GNU-stack, "", @progbits
