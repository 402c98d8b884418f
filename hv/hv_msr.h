/* Synthetic MSRs of the Hyper-V TLFS that Parapet offers; the others from 0x40000000 do not exist. */
#ifndef PARAPET_HV_MSR_H
#define PARAPET_HV_MSR_H

#include "partition/partition.h"

#define HV_MSR_GUEST_OS_ID    0x40000000
#define HV_MSR_HYPERCALL      0x40000001
#define HV_MSR_VP_INDEX	      0x40000002
#define HV_MSR_TIME_REF_COUNT 0x40000020
#define HV_MSR_REFERENCE_TSC  0x40000021
#define HV_MSR_TSC_FREQUENCY  0x40000022
#define HV_MSR_APIC_FREQUENCY 0x40000023
#define HV_MSR_EOI	      0x40000070
#define HV_MSR_ICR	      0x40000071
#define HV_MSR_TPR	      0x40000072
#define HV_MSR_VP_ASSIST_PAGE 0x40000073
#define HV_MSR_SCONTROL	      0x40000080
#define HV_MSR_SVERSION	      0x40000081
#define HV_MSR_SIEFP	      0x40000082
#define HV_MSR_SIMP	      0x40000083
#define HV_MSR_EOM	      0x40000084
#define HV_MSR_SINT0	      0x40000090
#define HV_MSR_TSC_INVARIANT  0x40000118

static inline bool hv_msr_is_ours(uint32_t index)
{
	return index >= 0x40000000 && index <= 0x40000fff;
}

/* Has a VTL's guest said who it is? Only then may it make hypercalls. */
bool hv_guest_is_identified(enum vtl vtl);

/* Has the guest asked for the invariant TSC bit in CPUID? */
bool hv_shows_invariant_tsc(void);

/* The active VTL's. False: the MSR does not exist, or the value is not allowed (#GP). */
bool hv_msr_read(struct vp *vp, uint32_t index, uint64_t *value);
bool hv_msr_write(struct vp *vp, uint32_t index, uint64_t value);

/* The same of a VTL that need not be the active one; not those of its local APIC. */
bool hv_msr_get(struct vp *vp, enum vtl vtl, uint32_t index, uint64_t *value);
bool hv_msr_set(struct vp *vp, enum vtl vtl, uint32_t index, uint64_t value);

/*
 * An MSR that names a page, enabled by bit 0, goes from `before` to `value`: where the page moves, it
 * begins as zeros. False: that is no place for it.
 */
bool hv_page_move(struct vp *vp, enum vtl vtl, uint64_t before, uint64_t value);

/* hv_synic.c: the synthetic interrupt controller's. */
bool hv_synic_owns(uint32_t index);
bool hv_synic_get(struct vp *vp, enum vtl vtl, uint32_t index, uint64_t *value);
bool hv_synic_set(struct vp *vp, enum vtl vtl, uint32_t index, uint64_t value);

#endif
