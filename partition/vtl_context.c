/* Initial contexts of VPs. See vtl_context.h. */
#include "arch/x86/asm.h"
#include "arch/x86/registers.h"
#include "partition/policy.h"
#include "partition/vtl_context.h"

#define CR0_KNOWN                                                                                  \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
		CR0_PG)
#define CR4_OLD 0x7ffull /* what every 64-bit processor with SSE has */

#define SEGMENT_LONG	(1u << 9)
#define SEGMENT_DEFAULT (1u << 10)
#define RFLAGS_KNOWN	0x3f7fd7ull

struct vp_segment vtl_segment_in(const struct hv_segment *segment)
{
	return (struct vp_segment){.selector = segment->selector,
		.attributes = (uint16_t)((segment->attributes & 0xff) |
			(segment->attributes >> 4 & 0xf00)),
		.limit = segment->limit,
		.base = segment->base};
}

struct hv_segment vtl_segment_out(const struct vp_segment *segment)
{
	return (struct hv_segment){.selector = segment->selector,
		.attributes = (uint16_t)((segment->attributes & 0xff) |
			(segment->attributes & 0xf00) << 4),
		.limit = segment->limit,
		.base = segment->base};
}

static uint64_t cr4_known(void)
{
	struct cpuid_result one = asm_cpuid(1, 0);
	struct cpuid_result seven = asm_cpuid(7, 0);
	uint64_t known = CR4_OLD;

	known |= seven.ecx & (1u << 2) ? 1ull << 11 : 0; /* UMIP */
	known |= seven.ecx & (1u << 16) ? CR4_LA57 : 0;
	known |= seven.ebx & (1u << 0) ? 1ull << 16 : 0; /* FSGSBASE */
	known |= one.ecx & (1u << 17) ? CR4_PCIDE : 0;
	known |= one.ecx & (1u << 26) ? 1ull << 18 : 0; /* OSXSAVE */
	known |= seven.ebx & (1u << 7) ? CR4_SMEP : 0;
	known |= seven.ebx & (1u << 20) ? CR4_SMAP : 0;
	known |= seven.ecx & (1u << 3) ? CR4_PKE : 0;
	return known;
}

bool vtl_control_is_valid(const struct partition *partition, enum vtl vtl, uint64_t cr0,
	uint64_t cr3, uint64_t cr4, uint64_t efer)
{
	bool paging = cr0 & CR0_PG;
	bool is_long = paging && (efer & EFER_LME);

	if ((cr0 & ~CR0_KNOWN) || (paging && !(cr0 & CR0_PE)) ||
		((cr0 & CR0_NW) && !(cr0 & CR0_CD)) || (vtl != VTL0 && !(cr0 & CR0_PE))) {
		return false;
	}
	if ((cr4 & ~cr4_known()) || (efer & ~msr_efer_known()) || cr3 >> partition->physical_bits) {
		return false;
	}
	return !(efer & EFER_LMA) == !is_long && (!is_long || (cr4 & CR4_PAE));
}

bool vtl_context_is_valid(
	const struct partition *partition, enum vtl vtl, const struct hv_initial_context *context)
{
	struct vp_segment cs = vtl_segment_in(&context->cs);

	if (!vtl_control_is_valid(
		    partition, vtl, context->cr0, context->cr3, context->cr4, context->efer) ||
		(context->rflags & ~RFLAGS_KNOWN) ||
		!partition->ops->msr_takes(MSR_PAT, context->pat)) {
		return false;
	}
	if ((context->efer & EFER_LMA) && (cs.attributes & SEGMENT_LONG)
			? !partition->ops->msr_takes(MSR_SYSENTER_EIP, context->rip) /* canonical */
			: context->rip >> 32) {
		return false;
	}
	return !(context->efer & EFER_LMA) || !(cs.attributes & SEGMENT_LONG) ||
		!(cs.attributes & SEGMENT_DEFAULT);
}

void vtl_context_load(const struct platform_ops *ops, struct platform_vp *vp,
	const struct hv_initial_context *context)
{
	struct vp_system_state state = {
		.cr0 = context->cr0 | CR0_ET,
		.cr3 = context->cr3,
		.cr4 = context->cr4,
		.efer = context->efer,
		.es = vtl_segment_in(&context->es),
		.cs = vtl_segment_in(&context->cs),
		.ss = vtl_segment_in(&context->ss),
		.ds = vtl_segment_in(&context->ds),
		.fs = vtl_segment_in(&context->fs),
		.gs = vtl_segment_in(&context->gs),
		.gdtr = {.limit = context->gdtr.limit, .base = context->gdtr.base},
		.idtr = {.limit = context->idtr.limit, .base = context->idtr.base},
		.ldtr = vtl_segment_in(&context->ldtr),
		.tr = vtl_segment_in(&context->tr),
	};

	/* The level that SS says (AMD64 APM volume 2, 15.5.1: the control block has it twice). */
	state.cpl = state.ss.attributes >> 5 & 3;
	ops->system_write(vp, &state);
	ops->msr_write(vp, MSR_PAT, context->pat);
	vp->registers.rip = context->rip;
	vp->registers.gpr[INSN_RSP] = context->rsp;
	vp->registers.rflags = context->rflags | RFLAGS_FIXED;
}
