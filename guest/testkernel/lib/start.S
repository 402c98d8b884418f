/*
 * The way in: 32-bit Multiboot entry of the first processor and real-mode entry of the others, both
 * to 64-bit C. Nothing else may enter.
 */
#include "layout.h"

#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 0x3 /* modules page-aligned, memory map wanted */

	.section .multiboot, "a"
	.balign 4
	.long MULTIBOOT_MAGIC
	.long MULTIBOOT_FLAGS
	.long -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

	.text
	.code32
	.globl start32
start32:
	cli
	cld
	movl %eax, boot_magic
	movl %ebx, boot_info
	movl $first_stack_top, %esp

	/* The first 4 GiB, one to one, in 2 MiB pages, everything allowed. */
	movl $page_tables + 0x1000 + 0x7, page_tables
	movl $page_tables + 0x2000 + 0x7, %eax
	movl $page_tables + 0x1000, %edi
	movl $4, %ecx
1:	movl %eax, (%edi)
	addl $0x1000, %eax
	addl $8, %edi
	loop 1b
	movl $0x87, %eax
	movl $page_tables + 0x2000, %edi
	movl $2048, %ecx
1:	movl %eax, (%edi)
	addl $0x200000, %eax
	addl $8, %edi
	loop 1b

	lgdt boot_gdt_pointer
	ljmp $SEGMENT_CODE32, $1f
1:	call long_mode_enable
	ljmp $SEGMENT_CODE64, $start64

/* Every processor comes here from the trampoline in low memory, without a stack of its own yet. */
	.globl start32_ap
start32_ap:
	movw $SEGMENT_DATA, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $1f, %esi
	jmp long_mode_enable_for_esi
1:	ljmp $SEGMENT_CODE64, $start64_ap

long_mode_enable:
	popl %esi
long_mode_enable_for_esi:
	movw $SEGMENT_DATA, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	xorl %eax, %eax
	movw %ax, %fs
	movw %ax, %gs
	movl %cr4, %eax
	orl $CR4_PAE, %eax
	movl %eax, %cr4
	movl $page_tables, %eax
	movl %eax, %cr3
	movl $MSR_EFER, %ecx
	rdmsr
	orl $EFER_LME, %eax
	wrmsr
	movl %cr0, %eax
	orl $CR0_PG | CR0_PE, %eax
	movl %eax, %cr0
	jmp *%esi

	.code64
start64:
	movabsq $first_stack_top, %rsp
	xorl %ebp, %ebp
	call boot_enter
1:	hlt
	jmp 1b

	.globl start64_ap
start64_ap:
	movl $APIC_BASE_ADDRESS + APIC_ID, %eax
	movl (%rax), %eax
	shrl $24, %eax
	movq cpu_by_apic_id(, %rax, 8), %rdi
	movq CPU_STACK_TOP(%rdi), %rsp
	xorl %ebp, %ebp
	call cpu_enter
1:	hlt
	jmp 1b

/* Copied to a page below 1 MiB and started there in real mode. Position-independent. */
	.code16
	.globl trampoline_start, trampoline_end
	.balign 16
trampoline_start:
	cli
	lgdtl %cs:(1f - trampoline_start)
	movl $CR0_PE, %eax
	movl %eax, %cr0
	ljmpl $SEGMENT_CODE32, $start32_ap
	.balign 8
1:	.word boot_gdt_end - boot_gdt - 1
	.long boot_gdt
trampoline_end:

	.section .data
	.balign 8
	.globl boot_gdt
boot_gdt:
	.quad 0
	.quad 0x00cf9b000000ffff /* 32-bit code */
	.quad 0x00cf93000000ffff /* data */
	.quad 0x00af9b000000ffff /* 64-bit code */
	.quad 0x00009b000000ffff /* 16-bit code, base 0 */
	.quad 0x000093000000ffff /* 16-bit data, base 0 */
boot_gdt_end:
	.globl boot_gdt_pointer
boot_gdt_pointer:
	.word boot_gdt_end - boot_gdt - 1
	.long boot_gdt

	.section .bss
	.balign 4096
	.globl page_tables
page_tables:
	.skip 6 * 4096
first_stack:
	.skip CPU_STACK_SIZE
first_stack_top:

	.section .note.GNU-stack, "", @progbits
