/* CPUID leaves from 0x40000000 (Hyper-V TLFS, chapter "Feature and Interface Discovery"). */
#ifndef PARAPET_HV_CPUID_H
#define PARAPET_HV_CPUID_H

#include "arch/x86/asm.h"
#include "partition/partition.h"

/* What a guest reads; leaves that are not defined are zero. */
struct cpuid_result hv_cpuid(struct vp *vp, uint32_t leaf);

#endif
