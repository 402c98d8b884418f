/*
 * Numbers that both C and assembly need. Static assertions in cpu.c keep the offsets true. Nothing
 * that only one of the two languages uses may enter.
 */
#ifndef TK_LAYOUT_H
#define TK_LAYOUT_H

#define SEGMENT_CODE32 0x08
#define SEGMENT_DATA   0x10
#define SEGMENT_CODE64 0x18
#define SEGMENT_CODE16 0x20
#define SEGMENT_DATA16 0x28
#define SEGMENT_TSS    0x30

#define CPU_COUNT_MAX  64
#define CPU_STACK_SIZE 16384

/* struct cpu */
#define CPU_SELF	0
#define CPU_STACK_TOP	8
#define CPU_CATCH_STACK 16

#define MSR_EFER    0xc0000080
#define MSR_GS_BASE 0xc0000101
#define EFER_LME    0x100
#define CR0_PE	    0x1
#define CR0_PG	    0x80000000
#define CR4_PAE	    0x20

#define APIC_BASE_ADDRESS 0xfee00000
#define APIC_ID		  0x20

#endif
