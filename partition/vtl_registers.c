/*
 * Registers of a VP's VTLs by their TLFS names (HV_REGISTER_NAME), for HvCallGetVpRegisters and its
 * pair. A table says where each is; what the levels share is the active one's. Values are checked as the
 * instruction that writes the register would.
 */
#include "arch/x86/asm.h"
#include "arch/x86/fault.h"
#include "arch/x86/registers.h"
#include "partition/policy.h"
#include "partition/vtl.h"
#include "partition/vtl_apic.h"
#include "partition/vtl_context.h"
#include "partition/vtl_names.h"

#define SEGMENT_COUNT 8

/* HV_X64_PENDING_INTERRUPTION_REGISTER and HV_X64_PENDING_EXCEPTION_EVENT. */
#define PENDING			    1ull
#define PENDING_TYPE(value)	    ((value) >> 1 & 7)
#define INTERRUPTION_HAS_ERROR	    (1ull << 4)
#define INTERRUPTION_TYPE_EXCEPTION 3
#define EVENT_HAS_ERROR		    (1ull << 8)
#define EVENT_TYPE_EXCEPTION	    0
#define PENDING_VECTOR(value)	    ((uint32_t)((value) >> 16 & 0xffff))
#define PENDING_ERROR(value)	    ((uint32_t)((value) >> 32))

#define STATE_SHADOW	 1ull
#define STATE_NMI_MASKED 2ull

#define RFLAGS_KNOWN 0x3f7fd7ull
#define XCR0_X87     1ull
#define SEGMENT_LONG (1u << 9)

/* Names of MSRs that the platform keeps for each VTL. */
static const struct {
	uint32_t name;
	uint32_t index;
} msrs[] = {
	{0x00080002, MSR_KERNEL_GS_BASE},
	{0x00080004, MSR_PAT},
	{0x00080005, MSR_SYSENTER_CS},
	{0x00080006, MSR_SYSENTER_EIP},
	{0x00080007, MSR_SYSENTER_ESP},
	{0x00080008, MSR_STAR},
	{0x00080009, MSR_LSTAR},
	{0x0008000a, MSR_CSTAR},
	{0x0008000b, MSR_SFMASK},
	{0x0008007b, MSR_TSC_AUX},
};

/* The index of the MSR of that name; 0 if it is not in the table. */
static uint32_t find_msr(uint32_t name)
{
	for (size_t i = 0; i < ARRAY_SIZE(msrs); i++) {
		if (msrs[i].name == name) {
			return msrs[i].index;
		}
	}
	return 0;
}

/* RSP is each VTL's own; the other general registers are in the active one's context. */
static uint64_t *general(struct vp *vp, enum vtl vtl, uint32_t index)
{
	struct platform_vp *platform = index == INSN_RSP ? vp->vtl[vtl].platform : vp->platform;

	return &platform->registers.gpr[index];
}

static struct vp_segment *segment(struct vp_system_state *state, uint32_t index)
{
	struct vp_segment *const segments[SEGMENT_COUNT] = {&state->es, &state->cs, &state->ss,
		&state->ds, &state->fs, &state->gs, &state->ldtr, &state->tr};

	return segments[index];
}

static uint64_t xgetbv(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

static void xsetbv(uint64_t value)
{
	__asm__ volatile("xsetbv" ::"a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(0));
}

/* Parapet has CR4.OSXSAVE set for as long as it looks at XCR0. */
static uint64_t xcr0(bool write, uint64_t value)
{
	uint64_t cr4 = asm_read_cr4();

	asm_write_cr4(cr4 | 1ull << 18);
	if (write) {
		xsetbv(value);
	} else {
		value = xgetbv();
	}
	asm_write_cr4(cr4);
	return value;
}

static bool has_xsave(void)
{
	return asm_cpuid(1, 0).ecx & (1u << 26);
}

/* AMD64 APM volume 2, 11.5.2: x87 always, AVX with SSE; the rest as the processor has it. */
static bool xcr0_is_valid(uint64_t value)
{
	struct cpuid_result leaf = asm_cpuid(0xd, 0);
	uint64_t known = (uint64_t)leaf.edx << 32 | leaf.eax;

	return (value & XCR0_X87) && !(value & ~known) && !((value & 4) && !(value & 2)) &&
		((value & 0xe0) == 0 || (value & 0xe6) == 0xe6) &&
		((value & 0x18) == 0 || (value & 0x18) == 0x18);
}

static bool get_system(struct vp *vp, enum vtl vtl, uint32_t name, struct hv_register_value *value)
{
	struct vp_system_state state;

	vp->partition->ops->system_read(vp->vtl[vtl].platform, &state);
	if (name - NAME_SEGMENT < SEGMENT_COUNT) {
		struct hv_segment out = vtl_segment_out(segment(&state, name - NAME_SEGMENT));

		__builtin_memcpy(value, &out, sizeof(out));
		return true;
	}
	switch (name) {
	case NAME_CR0:
		value->low = state.cr0;
		return true;
	case NAME_CR2: /* shared */
		vp->partition->ops->system_read(vp->platform, &state);
		value->low = state.cr2;
		return true;
	case NAME_CR3:
		value->low = state.cr3;
		return true;
	case NAME_CR4:
		value->low = state.cr4;
		return true;
	case NAME_EFER:
		value->low = state.efer;
		return true;
	case NAME_IDTR:
	case NAME_GDTR: {
		const struct vp_segment *table = name == NAME_IDTR ? &state.idtr : &state.gdtr;
		struct hv_table out = {.limit = (uint16_t)table->limit, .base = table->base};

		__builtin_memcpy(value, &out, sizeof(out));
		return true;
	}
	default:
		return false;
	}
}

bool vtl_register_get(struct vp *vp, enum vtl vtl, uint32_t name, struct hv_register_value *value)
{
	const struct platform_ops *ops = vp->partition->ops;
	struct platform_vp *platform = vp->vtl[vtl].platform;

	*value = (struct hv_register_value){0};
	if (!platform) {
		return false;
	}
	if (name - NAME_GENERAL < 16) {
		value->low = *general(vp, vtl, name - NAME_GENERAL);
		return true;
	}
	if (name - NAME_DR0 < 4) {
		value->low =
			ops->debug_read(platform, (enum regs_name)(REGS_DR0 + name - NAME_DR0));
		return true;
	}
	if (find_msr(name)) {
		return ops->msr_read(platform, find_msr(name), &value->low);
	}
	switch (name) {
	case NAME_RIP:
		value->low = platform->registers.rip;
		return true;
	case NAME_RFLAGS:
		value->low = platform->registers.rflags;
		return true;
	case NAME_DR6:
		value->low = ops->debug_read(platform, REGS_DR6);
		return true;
	case NAME_DR7:
		value->low = ops->debug_read(platform, REGS_DR7);
		return true;
	case NAME_CR8:
		value->low = vtl == VTL1 ? vtl_apic_read(vp, APIC_TPR) >> 4
					 : lapic_read(vp, APIC_TPR) >> 4;
		return true;
	case NAME_XCR0:
		value->low = has_xsave() ? xcr0(false, 0) : 0;
		return has_xsave();
	case NAME_XSS:
		return fault_safe_rdmsr(MSR_XSS, &value->low);
	case NAME_TSC:
		value->low = asm_rdtsc() + ops->tsc_offset(platform);
		return true;
	case NAME_APIC_BASE:
		value->low = asm_rdmsr(MSR_APIC_BASE);
		return true;
	case NAME_INTERRUPT_STATE:
		value->low = (ops->interrupt_shadow(platform) ? STATE_SHADOW : 0) |
			(vtl == VTL0 && vp->nmi_masked ? STATE_NMI_MASKED : 0);
		return true;
	default:
		return get_system(vp, vtl, name, value);
	}
}

/* --- to set one ------------------------------------------------------------------------------------- */

/* What a change of these made stale goes at the next entry. */
static void write_state(struct vp *vp, enum vtl vtl, const struct vp_system_state *state)
{
	vp->partition->ops->system_write(vp->vtl[vtl].platform, state);
	flush_own(&vp->partition->flush, vp->id, vtl, FLUSH_FULL_ALL);
}

static bool set_control(
	struct vp *vp, enum vtl vtl, struct vp_system_state *state, uint64_t *field, uint64_t value)
{
	*field = value;
	/* LMA is what follows from the others (AMD64 APM volume 2, 14.6). */
	state->efer = (state->cr0 & CR0_PG) && (state->efer & EFER_LME) ? state->efer | EFER_LMA
									: state->efer & ~EFER_LMA;
	if (!vtl_control_is_valid(
		    vp->partition, vtl, state->cr0, state->cr3, state->cr4, state->efer)) {
		return false;
	}
	write_state(vp, vtl, state);
	return true;
}

/* AMD64 APM volume 2, 3.1.1, 3.1.3 and 14.6: what may not change while the VTL runs in long mode. */
static bool may_change(const struct vp_system_state *state, uint32_t name, uint64_t value)
{
	if (name == NAME_CR0) {
		bool starts_paging = (value & CR0_PG) && !(state->cr0 & CR0_PG);
		bool stops_paging = !(value & CR0_PG) && (state->cr0 & CR0_PG);
		bool cs_long = state->cs.attributes & SEGMENT_LONG;

		/* Into long mode from a segment that becomes 64-bit at once, or out of 64-bit code. */
		return !(starts_paging && (state->efer & EFER_LME) && cs_long) &&
			!(stops_paging && (state->efer & EFER_LMA) && cs_long) &&
			!(stops_paging && (state->cr4 & CR4_PCIDE));
	}
	if (!(state->efer & EFER_LMA)) {
		return !(value & CR4_PCIDE);
	}
	return !((state->cr4 ^ value) & CR4_LA57) &&
		!((value & CR4_PCIDE) && !(state->cr4 & CR4_PCIDE) && (state->cr3 & 0xfff));
}

bool vtl_control_write(struct vp *vp, uint32_t name, uint64_t value)
{
	struct vp_system_state state;

	vp->partition->ops->system_read(vp->platform, &state);
	if (name == NAME_CR0) {
		value |= CR0_ET;
	}
	return may_change(&state, name, value) &&
		set_control(vp, vp->active_vtl, &state, name == NAME_CR0 ? &state.cr0 : &state.cr4,
			value);
}

static bool set_system(
	struct vp *vp, enum vtl vtl, uint32_t name, const struct hv_register_value *value)
{
	struct vp_system_state state;

	vp->partition->ops->system_read(vp->vtl[vtl].platform, &state);
	if (name - NAME_SEGMENT < SEGMENT_COUNT) {
		struct hv_segment in;

		__builtin_memcpy(&in, value, sizeof(in));
		*segment(&state, name - NAME_SEGMENT) = vtl_segment_in(&in);
		state.cpl = state.ss.attributes >> 5 & 3;
		vp->partition->ops->system_write(vp->vtl[vtl].platform, &state);
		return true;
	}
	switch (name) {
	case NAME_CR0:
		return set_control(vp, vtl, &state, &state.cr0, value->low | CR0_ET);
	case NAME_CR2:
		vp->partition->ops->system_read(vp->platform, &state);
		state.cr2 = value->low;
		vp->partition->ops->system_write(vp->platform, &state);
		return true;
	case NAME_CR3:
		return set_control(vp, vtl, &state, &state.cr3, value->low);
	case NAME_CR4:
		return set_control(vp, vtl, &state, &state.cr4, value->low);
	case NAME_EFER:
		return set_control(vp, vtl, &state, &state.efer, value->low);
	case NAME_IDTR:
	case NAME_GDTR: {
		struct vp_segment *table = name == NAME_IDTR ? &state.idtr : &state.gdtr;
		struct hv_table in;

		__builtin_memcpy(&in, value, sizeof(in));
		*table = (struct vp_segment){.limit = in.limit, .base = in.base};
		vp->partition->ops->system_write(vp->vtl[vtl].platform, &state);
		return true;
	}
	default:
		return false;
	}
}

/* An exception that VTL0 is to find, in place of the instruction that was intercepted. */
static bool set_pending(
	struct vp *vp, enum vtl vtl, bool pending, uint32_t vector, bool has_error, uint32_t error)
{
	const struct platform_ops *ops = vp->partition->ops;
	struct platform_vp *platform = vp->vtl[vtl].platform;

	if (vtl == vp->active_vtl || (pending && (vector >= 32 || vector == VECTOR_NMI))) {
		return false;
	}
	ops->drop_event(platform);
	return !pending ||
		ops->inject(platform, VP_EVENT_EXCEPTION, (uint8_t)vector, has_error, error);
}

static bool set_interrupt_state(struct vp *vp, enum vtl vtl, uint64_t value)
{
	const struct platform_ops *ops = vp->partition->ops;

	/* A shadow can be taken away, not made; the mask of NMIs is Parapet's own record. */
	if ((value & ~(STATE_SHADOW | STATE_NMI_MASKED)) ||
		((value & STATE_SHADOW) && !ops->interrupt_shadow(vp->vtl[vtl].platform)) ||
		!!(value & STATE_NMI_MASKED) != (vtl == VTL0 && vp->nmi_masked)) {
		return false;
	}
	if (!(value & STATE_SHADOW)) {
		ops->clear_interrupt_shadow(vp->vtl[vtl].platform);
	}
	return true;
}

static bool set_debug(struct vp *vp, enum vtl vtl, enum regs_name name, uint64_t value)
{
	if ((name == REGS_DR6 || name == REGS_DR7) && value >> 32) {
		return false;
	}
	vp->partition->ops->debug_write(vp->vtl[vtl].platform, name, value);
	return true;
}

static bool set_cr8(struct vp *vp, enum vtl vtl, uint64_t value)
{
	if (value > 15) {
		return false;
	}
	if (vtl == VTL1) {
		vtl_apic_write(vp, APIC_TPR, (uint32_t)value << 4);
	} else {
		lapic_write(vp, APIC_TPR, (uint32_t)value << 4);
	}
	return true;
}

bool vtl_register_set(
	struct vp *vp, enum vtl vtl, uint32_t name, const struct hv_register_value *value)
{
	const struct platform_ops *ops = vp->partition->ops;
	struct platform_vp *platform = vp->vtl[vtl].platform;
	uint64_t low = value->low;

	if (!platform) {
		return false;
	}
	if (name - NAME_GENERAL < 16) {
		*general(vp, vtl, name - NAME_GENERAL) = low;
		return true;
	}
	if (name - NAME_DR0 < 4) {
		return set_debug(vp, vtl, (enum regs_name)(REGS_DR0 + name - NAME_DR0), low);
	}
	if (find_msr(name)) {
		return ops->msr_write(platform, find_msr(name), low);
	}
	switch (name) {
	case NAME_RIP:
		/* The instruction that has been passed ends a shadow and the protection of RF. */
		platform->registers.rip = low;
		ops->clear_interrupt_shadow(platform);
		return true;
	case NAME_RFLAGS:
		if (low & ~RFLAGS_KNOWN) {
			return false;
		}
		platform->registers.rflags = low | RFLAGS_FIXED;
		return true;
	case NAME_DR6:
		return set_debug(vp, vtl, REGS_DR6, low);
	case NAME_DR7:
		return set_debug(vp, vtl, REGS_DR7, low);
	case NAME_CR8:
		return set_cr8(vp, vtl, low);
	case NAME_XCR0:
		if (!has_xsave() || !xcr0_is_valid(low)) {
			return false;
		}
		xcr0(true, low);
		return true;
	case NAME_XSS:
		return fault_safe_wrmsr(MSR_XSS, low);
	case NAME_TSC:
		ops->set_tsc_offset(platform, low - asm_rdtsc());
		return true;
	case NAME_APIC_BASE:
		return low == asm_rdmsr(MSR_APIC_BASE);
	case NAME_INTERRUPT_STATE:
		return set_interrupt_state(vp, vtl, low);
	case NAME_PENDING_INTERRUPTION:
		return (!(low & PENDING) || PENDING_TYPE(low) == INTERRUPTION_TYPE_EXCEPTION) &&
			set_pending(vp, vtl, low & PENDING, PENDING_VECTOR(low),
				low & INTERRUPTION_HAS_ERROR, PENDING_ERROR(low));
	case NAME_PENDING_EVENT0:
		return (!(low & PENDING) || PENDING_TYPE(low) == EVENT_TYPE_EXCEPTION) &&
			set_pending(vp, vtl, low & PENDING, PENDING_VECTOR(low),
				low & EVENT_HAS_ERROR, PENDING_ERROR(low));
	default:
		return set_system(vp, vtl, name, value);
	}
}
