/* The core's header and first instructions: RDI is the hand-over's address, the stack is the shim's. */
#include "arch/x86/layout.h"

	.section .image_header, "ax"
	.quad	0x45524f4354524150
	.quad	core_entry
	.quad	image_text_end
	.quad	image_rodata_end
	.quad	image_file_end
	.quad	image_end

	.text
	.code64
	.globl	core_entry
core_entry:
	mov	$boot_stack_top, %rsp
	xor	%ebp, %ebp
	push	%rbp
	push	%rbp
	call	core_main
1:	cli
	hlt
	jmp	1b

	.section .bss, "aw", @nobits
	.align	16
	.skip	65536
boot_stack_top:

	.section .note.GNU-stack, "", @progbits
