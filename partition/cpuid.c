/* CPUID: the processor as it is, without what the guest may not use, with what Parapet offers. */
#include "arch/x86/asm.h"
#include "arch/x86/registers.h"
#include "hv/hv_cpuid.h"
#include "hv/hv_msr.h"
#include "partition/exits.h"

#define LEAF_HV_FIRST 0x40000000u
#define LEAF_HV_LAST  0x4fffffffu

/* Bits that are cleared; a leaf that is not listed passes as it is. */
struct mask {
	uint32_t leaf;
	uint32_t eax, ebx, ecx, edx;
};

static const struct mask hidden[] = {
	/* VMX; x2APIC, whose ICR would need a second mediation. */
	{.leaf = 1, .ecx = 1u << 5 | 1u << 21},
	/* SGX, and its leaf. */
	{.leaf = 7, .ebx = 1u << 2},
	/* SVM and SKINIT; performance counter extensions, whose MSRs are closed; IBS, LWP, watchdog. */
	{.leaf = 0x80000001,
		.ecx = 1u << 2 | 1u << 10 | 1u << 12 | 1u << 13 | 1u << 15 | 1u << 23 | 1u << 24 |
			1u << 28},
	/* SVM's own leaf; SEV and SME. */
	{.leaf = 0x8000000a, .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u},
	{.leaf = 0x8000001f, .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u},
	/* IBS, and the second version of performance monitoring. */
	{.leaf = 0x8000001b, .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u},
	{.leaf = 0x80000022, .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u},
};

/* Feature bits that mirror the guest's own CR4, which the processor here does not run with. */
static void mirror_cr4(struct vp *vp, uint32_t leaf, struct cpuid_result *result)
{
	struct vp_system_state state;

	vp->partition->ops->system_read(vp->platform, &state);
	if (leaf == 1) {
		result->ecx &= ~(1u << 27);
		result->ecx |= (uint32_t)(state.cr4 >> 18 & 1) << 27; /* OSXSAVE */
		result->ecx |= 1u << 31; /* a hypervisor is there */
	} else {
		result->ecx &= ~(1u << 4);
		result->ecx |= (uint32_t)(state.cr4 >> 22 & 1) << 4; /* OSPKE */
	}
}

void exit_handle_cpuid(struct vp *vp)
{
	uint64_t *gpr = vp->platform->registers.gpr;
	uint32_t leaf = (uint32_t)gpr[INSN_RAX];
	uint32_t subleaf = (uint32_t)gpr[INSN_RCX];
	struct cpuid_result result;

	if (leaf >= LEAF_HV_FIRST && leaf <= LEAF_HV_LAST) {
		result = hv_cpuid(vp, leaf);
	} else {
		result = asm_cpuid(leaf, subleaf);
		for (size_t i = 0; i < ARRAY_SIZE(hidden); i++) {
			if (hidden[i].leaf == leaf) {
				result.eax &= ~hidden[i].eax;
				result.ebx &= ~hidden[i].ebx;
				result.ecx &= ~hidden[i].ecx;
				result.edx &= ~hidden[i].edx;
			}
		}
		if (leaf == 1 || (leaf == 7 && subleaf == 0)) {
			mirror_cr4(vp, leaf, &result);
		}
		if (leaf == 0x80000007 && hv_shows_invariant_tsc()) {
			result.edx |= 1u << 8;
		}
	}
	gpr[INSN_RAX] = result.eax;
	gpr[INSN_RBX] = result.ebx;
	gpr[INSN_RCX] = result.ecx;
	gpr[INSN_RDX] = result.edx;
	vp_skip_instruction(vp);
}
