/*
 * Where the machine's boot loader (QEMU -kernel, GRUB) starts Parapet: Multiboot v1, 32-bit protected
 * mode. Goes to long mode with the shim's own text read-only and executable, everything else below
 * 4 GiB writable and not executable, and calls shim_main().
 */
#include "arch/x86/layout.h"

#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 0x00000003	/* modules on page boundaries, memory map */

	.section .multiboot, "a"
	.align	4
	.long	MULTIBOOT_MAGIC
	.long	MULTIBOOT_FLAGS
	.long	-(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

	.section .text.entry, "ax"
	.code32
	.globl	shim_entry
shim_entry:
	cli
	cld
	mov	$shim_stack_top, %esp
	mov	%eax, %edi			/* magic */
	mov	%ebx, %esi			/* information */

	/* Long mode and no-execute pages, or a word on the console. */
	mov	$0x80000000, %eax
	cpuid
	cmp	$0x80000001, %eax
	jb	no_long_mode
	mov	$0x80000001, %eax
	cpuid
	test	$(1 << 29), %edx
	jz	no_long_mode
	test	$(1 << 20), %edx
	jz	no_long_mode

	/* Four page directories for 4 GiB in 2 MiB pages: writable, not executable. */
	mov	$shim_directories, %ebx
	mov	$0x183, %eax			/* present, writable, large, global: address 0 */
	and	$0xfffffeff, %eax		/* not global */
	mov	$2048, %ecx
1:	mov	%eax, (%ebx)
	movl	$0x80000000, 4(%ebx)		/* NX */
	add	$0x200000, %eax
	add	$8, %ebx
	loop	1b

	/* The first 2 MiB in 4 KiB pages, so that the text can be told apart. */
	mov	$shim_table, %ebx
	mov	$3, %eax
	mov	$512, %ecx
2:	mov	%eax, (%ebx)
	movl	$0x80000000, 4(%ebx)
	add	$0x1000, %eax
	add	$8, %ebx
	loop	2b
	mov	$shim_text_start, %eax
3:	cmp	$shim_text_end, %eax
	jae	4f
	mov	%eax, %ebx
	shr	$9, %ebx			/* 8 bytes for each 4 KiB */
	lea	1(%eax), %edx			/* present, read-only */
	mov	%edx, shim_table(%ebx)
	movl	$0, shim_table+4(%ebx)
	add	$0x1000, %eax
	jmp	3b
4:	movl	$(shim_table + 3), shim_directories
	movl	$0, shim_directories+4

	mov	$shim_directories + 3, %eax
	mov	%eax, shim_pointers
	add	$0x1000, %eax
	mov	%eax, shim_pointers+8
	add	$0x1000, %eax
	mov	%eax, shim_pointers+16
	add	$0x1000, %eax
	mov	%eax, shim_pointers+24
	movl	$(shim_pointers + 3), shim_root

	mov	%cr4, %eax
	or	$0x20, %eax
	mov	%eax, %cr4
	mov	$shim_root, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x900, %eax			/* LME, NXE */
	wrmsr
	mov	%cr0, %eax
	or	$0x80010000, %eax		/* PG, WP */
	mov	%eax, %cr0
	lgdt	shim_gdt_pointer
	ljmp	$SELECTOR_CODE, $shim_entry64

no_long_mode:
	mov	$no_long_mode_text, %esi
5:	lodsb
	test	%al, %al
	jz	6f
	mov	%al, %bl
	mov	$0x3fd, %dx
7:	in	%dx, %al
	test	$0x20, %al
	jz	7b
	mov	%bl, %al
	mov	$0x3f8, %dx
	out	%al, %dx
	jmp	5b
6:	cli
	hlt
	jmp	6b

	.code64
shim_entry64:
	mov	$SELECTOR_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	/* A string copied by `rep` wants DF clear; the arguments are in EDI and ESI. */
	mov	%edi, %edi
	mov	%esi, %esi
	xor	%ebp, %ebp
	call	shim_main
8:	cli
	hlt
	jmp	8b

	/* void shim_jump(uint64_t cr3, uint64_t entry, uint64_t stack, uint64_t tree): in pages that both have. */
	.globl	shim_jump, shim_jump_end
	.align	4096
shim_jump:
	mov	%rdi, %cr3
	mov	%rdx, %rsp
	mov	%rcx, %rdi
	xor	%ebp, %ebp
	push	%rbp
	push	%rbp
	jmp	*%rsi
shim_jump_end:

	.section .rodata
no_long_mode_text:
	.asciz	"Parapet needs a 64-bit processor with no-execute pages\r\n"
	.align	8
shim_gdt:
	.quad	0
	.quad	0x00af9b000000ffff
	.quad	0x00cf93000000ffff
shim_gdt_pointer:
	.word	3 * 8 - 1
	.long	shim_gdt

	.globl	shim_core_start, shim_core_end
	.align	4096
shim_core_start:
	.incbin	SHIM_CORE_IMAGE
shim_core_end:

	.section .bss, "aw", @nobits
	.align	4096
shim_root:
	.skip	4096
shim_pointers:
	.skip	4096
shim_directories:
	.skip	4 * 4096
shim_table:
	.skip	4096
	.skip	32768
shim_stack_top:

	.section .note.GNU-stack, "", @progbits
