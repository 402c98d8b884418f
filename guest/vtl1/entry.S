/*
 * VTL1: counts that it was entered, looks whether the debug registers that are its own are as it left
 * them, makes a hypercall if VTL0 asks for one, and returns. It has no stack, no descriptor tables, and
 * keeps VTL0's registers but RAX, RCX, and R8 to R10; an exception here ends the guest.
 *
 * From VTL0: R9 the hypercall's input value, or 0; RDX its input's address. To VTL0: R9 the result.
 */
#include "vtl1.h"

#define MSR_GUEST_OS_ID	  0x40000000
#define CALL_VTL_RETURN	  0x12
#define RETURN_FAST	  1

	.text
	.globl vtl1_entry
vtl1_entry:
	movl $VTL1_DR7, %eax
	movq %rax, %dr7
	movl $VTL1_DR6, %eax
	movq %rax, %dr6
1:	incq %gs:RECORD_ENTRIES
	movl $VTL1_DR7, %ecx
	movq %dr7, %rax
	cmpq %rcx, %rax
	jne 2f
	movl $VTL1_DR6, %ecx
	movq %dr6, %rax
	cmpq %rcx, %rax
	je 3f
2:	incq %gs:RECORD_CHANGED
3:	testq %r9, %r9
	jz 4f
	/* Who makes hypercalls has said who it is: any number will do. */
	movq %rdx, %r10
	movl $MSR_GUEST_OS_ID, %ecx
	movl $1, %eax
	xorl %edx, %edx
	wrmsr
	movq %r10, %rdx
	movq %r9, %rcx
	xorl %r8d, %r8d
	vmmcall
	movq %rax, %r9
4:	movl $RETURN_FAST, %eax
	movl $CALL_VTL_RETURN, %ecx
	vmmcall
	jmp 1b

	.section .note.GNU-stack, "", @progbits
