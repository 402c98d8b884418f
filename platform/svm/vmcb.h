/*
 * The virtual machine control block, bit for bit (AMD64 APM volume 2, appendix B), and the exit
 * codes (appendix C). Layout only.
 */
#ifndef PARAPET_SVM_VMCB_H
#define PARAPET_SVM_VMCB_H

#include <parapet/types.h>

struct vmcb_segment {
	uint16_t selector;
	uint16_t attributes;
	uint32_t limit;
	uint64_t base;
};

struct vmcb {
	/* Control area. */
	uint32_t intercept_cr;
	uint32_t intercept_dr;
	uint32_t intercept_exceptions;
	uint32_t intercept1;
	uint32_t intercept2;
	uint32_t intercept3;
	uint8_t reserved0[0x3c - 0x18];
	uint16_t pause_threshold;
	uint16_t pause_count;
	uint64_t iopm_base;
	uint64_t msrpm_base;
	uint64_t tsc_offset;
	uint32_t asid;
	uint8_t tlb_control;
	uint8_t reserved1[3];
	uint64_t interrupt_control;
	uint64_t interrupt_shadow;
	uint64_t exit_code;
	uint64_t exit_info1;
	uint64_t exit_info2;
	uint64_t exit_interrupt;
	uint64_t nested_control;
	uint8_t reserved2[0xa8 - 0x98];
	uint64_t event_injection;
	uint64_t nested_cr3;
	uint64_t lbr_control;
	uint32_t clean;
	uint32_t reserved3;
	uint64_t next_rip;
	uint8_t fetched_count;
	uint8_t fetched_bytes[15];
	uint8_t reserved4[0x400 - 0xe0];

	/* State save area. */
	struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	uint8_t reserved5[0x4cb - 0x4a0];
	uint8_t cpl;
	uint32_t reserved6;
	uint64_t efer;
	uint8_t reserved7[0x548 - 0x4d8];
	uint64_t cr4;
	uint64_t cr3;
	uint64_t cr0;
	uint64_t dr7;
	uint64_t dr6;
	uint64_t rflags;
	uint64_t rip;
	uint8_t reserved8[0x5d8 - 0x580];
	uint64_t rsp;
	uint64_t s_cet;
	uint64_t ssp;
	uint64_t isst;
	uint64_t rax;
	uint64_t star;
	uint64_t lstar;
	uint64_t cstar;
	uint64_t sfmask;
	uint64_t kernel_gs_base;
	uint64_t sysenter_cs;
	uint64_t sysenter_esp;
	uint64_t sysenter_eip;
	uint64_t cr2;
	uint8_t reserved9[0x668 - 0x648];
	uint64_t pat;
	uint8_t reserved10[0x1000 - 0x670];
};

_Static_assert(offsetof(struct vmcb, iopm_base) == 0x40, "APM volume 2, table B-1");
_Static_assert(offsetof(struct vmcb, asid) == 0x58, "APM volume 2, table B-1");
_Static_assert(offsetof(struct vmcb, exit_code) == 0x70, "APM volume 2, table B-1");
_Static_assert(offsetof(struct vmcb, nested_control) == 0x90, "APM volume 2, table B-1");
_Static_assert(offsetof(struct vmcb, event_injection) == 0xa8, "APM volume 2, table B-1");
_Static_assert(offsetof(struct vmcb, next_rip) == 0xc8, "APM volume 2, table B-1");
_Static_assert(offsetof(struct vmcb, es) == 0x400, "APM volume 2, table B-2");
_Static_assert(offsetof(struct vmcb, cpl) == 0x4cb, "APM volume 2, table B-2");
_Static_assert(offsetof(struct vmcb, efer) == 0x4d0, "APM volume 2, table B-2");
_Static_assert(offsetof(struct vmcb, cr4) == 0x548, "APM volume 2, table B-2");
_Static_assert(offsetof(struct vmcb, rip) == 0x578, "APM volume 2, table B-2");
_Static_assert(offsetof(struct vmcb, rsp) == 0x5d8, "APM volume 2, table B-2");
_Static_assert(offsetof(struct vmcb, rax) == 0x5f8, "APM volume 2, table B-2");
_Static_assert(offsetof(struct vmcb, cr2) == 0x640, "APM volume 2, table B-2");
_Static_assert(offsetof(struct vmcb, pat) == 0x668, "APM volume 2, table B-2");
_Static_assert(sizeof(struct vmcb) == 4096, "one page");

#define INTERCEPT1_INTR	    (1u << 0)
#define INTERCEPT1_NMI	    (1u << 1)
#define INTERCEPT1_INIT	    (1u << 3)
#define INTERCEPT1_CPUID    (1u << 18)
#define INTERCEPT1_RSM	    (1u << 19)
#define INTERCEPT1_IRET	    (1u << 20)
#define INTERCEPT1_INVD	    (1u << 22)
#define INTERCEPT1_HLT	    (1u << 24)
#define INTERCEPT1_INVLPGA  (1u << 26)
#define INTERCEPT1_IOIO	    (1u << 27)
#define INTERCEPT1_MSR	    (1u << 28)
#define INTERCEPT1_SHUTDOWN (1u << 31)
#define INTERCEPT2_VMRUN    (1u << 0)
#define INTERCEPT2_VMMCALL  (1u << 1)
#define INTERCEPT2_VMLOAD   (1u << 2)
#define INTERCEPT2_VMSAVE   (1u << 3)
#define INTERCEPT2_STGI	    (1u << 4)
#define INTERCEPT2_CLGI	    (1u << 5)
#define INTERCEPT2_SKINIT   (1u << 6)

#define INTERCEPT_DR_READ(set)	((uint32_t)(set)) /* a bit for each register */
#define INTERCEPT_DR_WRITE(set) ((uint32_t)(set) << 16)

#define NESTED_CONTROL_NP (1ull << 0)

#define TLB_CONTROL_NOTHING	     0
#define TLB_CONTROL_FLUSH_ALL	     1
#define TLB_CONTROL_FLUSH_NON_GLOBAL 7 /* of the ASID */
#define TLB_CONTROL_FLUSH_ASID	     3 /* CPUID 0x8000000A EDX bit 6 */

#define EVENT_VALID	     (1ull << 31)
#define EVENT_HAS_ERROR	     (1ull << 11)
#define EVENT_TYPE_SHIFT     8
#define EVENT_TYPE_MASK	     (7ull << EVENT_TYPE_SHIFT)
#define EVENT_TYPE_INTERRUPT (0ull << EVENT_TYPE_SHIFT)
#define EVENT_TYPE_NMI	     (2ull << EVENT_TYPE_SHIFT)
#define EVENT_TYPE_EXCEPTION (3ull << EVENT_TYPE_SHIFT)
#define EVENT_TYPE_SOFTWARE  (4ull << EVENT_TYPE_SHIFT)
#define EVENT_VECTOR_MASK    0xffull

#define INTERRUPT_SHADOW (1ull << 0)

#define EXIT_READ_DR0  0x20
#define EXIT_WRITE_DR0 0x30
#define EXIT_EXCEPTION 0x40 /* plus the vector */
#define EXIT_INTR      0x60
#define EXIT_NMI       0x61
#define EXIT_INIT      0x63
#define EXIT_CPUID     0x72
#define EXIT_RSM       0x73
#define EXIT_IRET      0x74
#define EXIT_INVD      0x76
#define EXIT_HLT       0x78
#define EXIT_INVLPGA   0x7a
#define EXIT_IOIO      0x7b
#define EXIT_MSR       0x7c
#define EXIT_SHUTDOWN  0x7f
#define EXIT_VMRUN     0x80
#define EXIT_VMMCALL   0x81
#define EXIT_VMLOAD    0x82
#define EXIT_VMSAVE    0x83
#define EXIT_STGI      0x84
#define EXIT_CLGI      0x85
#define EXIT_SKINIT    0x86
#define EXIT_NPF       0x400
#define EXIT_INVALID   0xffffffffffffffffull

#define IOIO_IN		(1ull << 0)
#define IOIO_STRING	(1ull << 2)
#define IOIO_REP	(1ull << 3)
#define IOIO_SIZE_SHIFT 4

#define NPF_WRITE (1ull << 1)
#define NPF_FETCH (1ull << 4)
#define NPF_WALK  (1ull << 33)

#define SVM_FEATURE_NPT	       (1u << 0) /* CPUID 0x8000000A EDX */
#define SVM_FEATURE_NRIP       (1u << 3)
#define SVM_FEATURE_FLUSH_ASID (1u << 6)

#endif
