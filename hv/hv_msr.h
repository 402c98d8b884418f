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
#define HV_MSR_TSC_INVARIANT  0x40000118

static inline bool hv_msr_is_ours(uint32_t index)
{
	return index >= 0x40000000 && index <= 0x40000fff;
}

/* Has the guest said who it is? Only then may it make hypercalls. */
bool hv_guest_is_identified(void);

/* Has the guest asked for the invariant TSC bit in CPUID? */
bool hv_shows_invariant_tsc(void);

/* False: the MSR does not exist, or the value is not allowed (#GP). */
bool hv_msr_read(struct vp *vp, uint32_t index, uint64_t *value);
bool hv_msr_write(struct vp *vp, uint32_t index, uint64_t value);

#endif
