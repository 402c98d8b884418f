/*
 * MSRs: which pass, which are answered here, which do not exist. The table below is the whole policy;
 * what it does not list raises #GP, as an MSR that the processor does not have.
 */
#include "arch/x86/asm.h"
#include "arch/x86/fault.h"
#include "arch/x86/registers.h"
#include "hv/hv_msr.h"
#include "partition/exits.h"
#include "partition/policy.h"
#include "partition/vtl.h"

enum msr_rule {
	MSR_OPEN, /* read and written without an exit: switched with the VP, or harmless */
	MSR_READ, /* the processor's value is read, if it has one; a write raises #GP */
	MSR_READ_DROP, /* the same, but a write is dropped: stock kernels write back what they read */
	MSR_ZERO_DROP, /* reads as 0, a write is dropped: what QEMU's own processor does */
};

static const struct {
	uint32_t first, last;
	enum msr_rule rule;
} rules[] = {
	/* Switched by VMLOAD/VMSAVE or the control block. */
	{MSR_SYSENTER_CS, MSR_SYSENTER_EIP, MSR_OPEN},
	{MSR_STAR, MSR_SFMASK, MSR_OPEN},
	{MSR_FS_BASE, MSR_KERNEL_GS_BASE, MSR_OPEN},
	{MSR_PAT, MSR_PAT, MSR_OPEN},
	/* Not used by Parapet, so the guest's value may stay in the processor. */
	{MSR_TSC_AUX, MSR_TSC_AUX, MSR_OPEN},
	{MSR_SPEC_CTRL, MSR_PRED_CMD, MSR_OPEN},
	{MSR_XSS, MSR_XSS, MSR_OPEN},
	/* The timer of the guest's own APIC: an interrupt in the guest is all it can cause. */
	{0x6e0, 0x6e0, MSR_OPEN}, /* TSC deadline */
	/* Descriptions of the processor. Linux writes 0 to the microcode revision before reading it. */
	{MSR_UCODE_REVISION, MSR_UCODE_REVISION, MSR_READ_DROP},
	{MSR_MTRR_CAP, MSR_MTRR_CAP, MSR_READ},
	{0x17, 0x17, MSR_READ}, /* platform id */
	{0xce, 0xce, MSR_READ}, /* platform information */
	{0x10a, 0x10a, MSR_READ}, /* architectural capabilities */
	{MSR_MISC_ENABLE, MSR_MISC_ENABLE, MSR_READ_DROP},
	{0xc0010055, 0xc0010055, MSR_ZERO_DROP}, /* interrupt pending and C1E */
	{0xc0010140, 0xc0010141, MSR_READ}, /* OSVW */
	{0xc0011029, 0xc0011029, MSR_READ_DROP}, /* DE_CFG: LFENCE serialises */
	{0xc0011020, 0xc0011023, MSR_READ_DROP}, /* load/store and cache configuration: errata */
	{0xc001102a, 0xc001102a, MSR_READ_DROP}, /* bus unit */
	{MSR_SYSCFG, MSR_SYSCFG, MSR_READ_DROP},
	{MSR_HWCR, MSR_HWCR, MSR_READ_DROP},
	{MSR_TOP_MEM, MSR_TOP_MEM, MSR_READ},
	{MSR_TOP_MEM2, MSR_TOP_MEM2, MSR_READ},
	{0xc0010016, 0xc0010019, MSR_READ_DROP}, /* I/O range registers */
	{0xc001001b, 0xc001001c, MSR_ZERO_DROP},
	{0xc0010058, 0xc0010058, MSR_READ}, /* where PCI configuration is memory-mapped */
	{0xc0010061, 0xc0010068, MSR_READ}, /* P-states */
	/* Machine checks: banks read, but what they are armed for stays as the firmware left it. */
	{MSR_MCG_CAP, MSR_MCG_CTL, MSR_READ_DROP},
	{MSR_MC_FIRST, MSR_MC_FIRST + 0x7f, MSR_READ_DROP},
	/* Last-branch records and performance counters are not offered; kernels probe them. */
	{MSR_DEBUG_CTL, MSR_DEBUG_CTL, MSR_ZERO_DROP},
	{0x1db, 0x1de, MSR_ZERO_DROP},
	{0xc0010000, 0xc0010007, MSR_ZERO_DROP},
	{0xc1, 0xc2, MSR_ZERO_DROP},
	{0x186, 0x187, MSR_ZERO_DROP},
};

void msr_open(const struct platform_ops *ops)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		for (uint32_t msr = rules[i].first; msr <= rules[i].last; msr++) {
			if (rules[i].rule == MSR_OPEN) {
				ops->open_msr(msr, true, true);
			}
		}
	}
	ops->open_msr(MSR_TSC, true, false);
}

/* MTRRs have no effect on a guest under nested paging: each VP keeps what it writes. */
static uint64_t *mtrr(struct vp *vp, uint32_t index)
{
	if (index >= MSR_MTRR_PHYS_FIRST && index <= MSR_MTRR_PHYS_LAST) {
		return &vp->mtrr_variable[index - MSR_MTRR_PHYS_FIRST];
	}
	if (index == MSR_MTRR_FIX_64K) {
		return &vp->mtrr_fixed[0];
	}
	if (index == MSR_MTRR_FIX_16K_80 || index == MSR_MTRR_FIX_16K_A0) {
		return &vp->mtrr_fixed[1 + index - MSR_MTRR_FIX_16K_80];
	}
	if (index >= MSR_MTRR_FIX_4K_FIRST && index <= MSR_MTRR_FIX_4K_LAST) {
		return &vp->mtrr_fixed[3 + index - MSR_MTRR_FIX_4K_FIRST];
	}
	if (index == MSR_MTRR_DEF_TYPE) {
		return &vp->mtrr_def_type;
	}
	return NULL;
}

void msr_init_vp(struct vp *vp)
{
	for (uint32_t index = MSR_MTRR_PHYS_FIRST; index <= MSR_MTRR_DEF_TYPE; index++) {
		uint64_t *shadow = mtrr(vp, index);

		if (shadow && !fault_safe_rdmsr(index, shadow)) {
			*shadow = 0;
		}
	}
}

static bool read_special(struct vp *vp, uint32_t index, uint64_t *value)
{
	const struct platform_ops *ops = vp->partition->ops;
	struct vp_system_state state;

	switch (index) {
	case MSR_TSC:
		*value = asm_rdtsc() + ops->tsc_offset(vp->platform);
		return true;
	case MSR_TSC_ADJUST:
		*value = vp->vtl[vp->active_vtl].tsc_adjust;
		return asm_cpuid(7, 0).ebx & (1u << 1);
	case MSR_APIC_BASE:
		*value = asm_rdmsr(MSR_APIC_BASE);
		return true;
	case MSR_EFER:
		ops->system_read(vp->platform, &state);
		*value = state.efer;
		return true;
	default: {
		const uint64_t *shadow = mtrr(vp, index);

		if (shadow) {
			*value = *shadow;
		}
		return shadow;
	}
	}
}

uint64_t msr_efer_known(void)
{
	struct cpuid_result features = asm_cpuid(0x80000001, 0);

	return EFER_SCE | EFER_LME | EFER_LMA | (features.edx & (1u << 20) ? EFER_NXE : 0) |
		(features.edx & (1u << 25) ? EFER_FFXSR : 0);
}

/* AMD64 APM volume 2, 3.1.7: reserved bits, and LME while paging is on. LMA is the processor's. */
static bool write_efer(struct vp *vp, uint64_t value)
{
	const struct platform_ops *ops = vp->partition->ops;
	struct vp_system_state state;

	ops->system_read(vp->platform, &state);
	if ((value & ~msr_efer_known()) ||
		((state.cr0 & CR0_PG) && ((value ^ state.efer) & EFER_LME))) {
		return false;
	}
	state.efer = (value & ~EFER_LMA) | (state.efer & EFER_LMA);
	ops->system_write(vp->platform, &state);
	return true;
}

static bool write_special(struct vp *vp, uint32_t index, uint64_t value)
{
	const struct platform_ops *ops = vp->partition->ops;
	uint64_t offset = ops->tsc_offset(vp->platform);

	switch (index) {
	case MSR_TSC: /* this VP's alone, as on the bare machine */
		value -= asm_rdtsc();
		vp->vtl[vp->active_vtl].tsc_adjust += value - offset;
		ops->set_tsc_offset(vp->platform, value);
		return true;
	case MSR_TSC_ADJUST:
		if (!(asm_cpuid(7, 0).ebx & (1u << 1))) {
			return false;
		}
		ops->set_tsc_offset(
			vp->platform, offset + value - vp->vtl[vp->active_vtl].tsc_adjust);
		vp->vtl[vp->active_vtl].tsc_adjust = value;
		return true;
	case MSR_APIC_BASE:
		/* Parapet needs the APIC where it is, switched on. Writing the same is allowed. */
		return value == asm_rdmsr(MSR_APIC_BASE);
	case MSR_EFER:
		return write_efer(vp, value);
	default: {
		uint64_t *shadow = mtrr(vp, index);

		if (shadow) {
			*shadow = value;
		}
		return shadow;
	}
	}
}

static bool find_rule(uint32_t index, enum msr_rule *rule)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		if (index >= rules[i].first && index <= rules[i].last) {
			*rule = rules[i].rule;
			return true;
		}
	}
	return false;
}

static bool msr_read(struct vp *vp, uint32_t index, uint64_t *value)
{
	enum msr_rule rule;

	if (hv_msr_is_ours(index)) {
		return hv_msr_read(vp, index, value);
	}
	if (read_special(vp, index, value) ||
		vp->partition->ops->msr_read(vp->platform, index, value)) {
		return true;
	}
	if (!find_rule(index, &rule)) {
		return false;
	}
	*value = 0;
	return rule == MSR_ZERO_DROP || fault_safe_rdmsr(index, value);
}

static bool msr_write(struct vp *vp, uint32_t index, uint64_t value)
{
	enum msr_rule rule;
	uint64_t before;

	if (hv_msr_is_ours(index)) {
		return hv_msr_write(vp, index, value);
	}
	if (write_special(vp, index, value)) {
		return true;
	}
	if (!find_rule(index, &rule)) {
		return false;
	}
	/* Open, but watched for VTL1: the processor's own register is not the guest's now. */
	if (vp->partition->ops->msr_read(vp->platform, index, &before)) {
		return vp->partition->ops->msr_write(vp->platform, index, value);
	}
	/* An open MSR comes here only if the processor's bitmap does not cover it. */
	return rule == MSR_OPEN ? fault_safe_wrmsr(index, value) : rule != MSR_READ;
}

void exit_handle_msr(struct vp *vp)
{
	uint64_t *gpr = vp->platform->registers.gpr;
	uint32_t index = vp->exit.msr.index;
	uint64_t value = (gpr[INSN_RDX] & 0xffffffff) << 32 | (gpr[INSN_RAX] & 0xffffffff);

	if (vtl_intercept_msr(vp, index, vp->exit.msr.write, value)) {
		return;
	}

	bool done = vp->exit.msr.write ? msr_write(vp, index, value) : msr_read(vp, index, &value);

	if (!done) {
		vp_deny(vp, COUNTER_DENIED_MSR, index);
		vp_inject_exception(vp, VECTOR_GP, true, 0);
		return;
	}
	if (!vp->exit.msr.write) {
		gpr[INSN_RAX] = (uint32_t)value;
		gpr[INSN_RDX] = value >> 32;
	}
	vp_skip_instruction(vp);
}
