/*
 * What a VP keeps for its VTL1: plain structures, embedded in struct vp. The code is in vtl*.c; hv/ reads
 * and writes the registers named as such, on the VP's own processor.
 */
#ifndef PARAPET_PARTITION_VTL_STATE_H
#define PARAPET_PARTITION_VTL_STATE_H

#include "core/atomic.h"
#include "parapet/types.h"

#define VTL_APIC_WORDS 4 /* 256 vectors */
#define VTL_SINTS      16

/* HV_X64_MSR_SINTx, HV_X64_MSR_SCONTROL and HV_X64_MSR_SIMP. */
#define VTL_SINT_VECTOR	    0xffull
#define VTL_SINT_MASKED	    (1ull << 16)
#define VTL_SINT_AUTO_EOI   (1ull << 17)
#define VTL_SINT_POLLING    (1ull << 18)
#define VTL_SCONTROL_ENABLE 1ull
#define VTL_SIMP_ENABLE	    1ull

/* VTL1's local APIC, in software; the processor's own is VTL0's (vtl_apic.c). */
struct vtl_apic {
	/* Written by senders, cleared by the VP. */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u64 irr[VTL_APIC_WORDS];
	/* Written by the VP, read by senders. */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u32 svr;
	struct atomic_u32 ldr;
	struct atomic_u32 dfr;
	/* The VP's own. */
	uint64_t isr[VTL_APIC_WORDS];
	uint8_t offered; /* to the processor, and not in irr meanwhile; or 0 */
	uint32_t icr_high;
	uint32_t icr_low;
	uint32_t tpr;
};

/*
 * VTL1's synthetic interrupt controller (TLFS, "Synthetic Interrupt Controller"): its MSRs, which hv/
 * checks and stores here, and the message that waits for a free slot.
 */
struct vtl_synic {
	uint64_t scontrol;
	uint64_t siefp;
	uint64_t simp;
	uint64_t sint[VTL_SINTS];
	bool waiting;
	uint64_t message[256 / sizeof(uint64_t)];
};

/* Which accesses to registers by VTL0 VTL1 wants to hear of (TLFS, "Secure Register Intercepts"). */
struct vtl_intercepts {
	uint64_t control; /* HvRegisterCrInterceptControl */
	uint64_t cr0_mask;
	uint64_t cr4_mask;
	uint64_t misc_enable_mask;
};

enum vtl1_phase {
	VTL1_OFF,
	VTL1_ENABLING, /* somebody writes its initial context */
	VTL1_ENABLED,
};

struct vtl1 {
	struct atomic_u32 phase; /* enum vtl1_phase */
	struct vtl_apic apic;
	struct vtl_synic synic;
	struct vtl_intercepts intercepts;
	uint64_t vina; /* HvRegisterVsmVina */
	bool entered; /* ever; this VP's own to look at */
};

#endif
