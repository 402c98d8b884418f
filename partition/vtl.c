/* VTL1 of a VP: enabling, starting, switching. See vtl.h. */
#include "arch/x86/asm.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "partition/guest_access.h"
#include "partition/policy.h"
#include "partition/vtl.h"
#include "partition/vtl_apic.h"
#include "partition/vtl_context.h"

#define RETURN_FAST 1ull

#define ASSIST_ENABLE 1ull

/* Why VTL1 was entered (TLFS, HV_VTL_ENTRY_REASON). */
enum entry_reason {
	ENTRY_VTL_CALL = 1,
	ENTRY_INTERRUPT = 2, /* intercepts too: they come with one */
};

/* The beginning of the VP assist page: HV_VP_VTL_CONTROL is behind the first eight bytes. */
struct assist_page {
	uint32_t apic_assist;
	uint32_t reserved1;
	uint32_t entry_reason;
	uint8_t vina_asserted;
	uint8_t reserved2[3];
	uint64_t return_rax;
	uint64_t return_rcx;
};

_Static_assert(offsetof(struct assist_page, entry_reason) == 8, "TLFS, HV_VP_ASSIST_PAGE");
_Static_assert(offsetof(struct assist_page, return_rax) == 16, "TLFS, HV_VP_VTL_CONTROL");
_Static_assert(sizeof(struct assist_page) == 32, "TLFS, HV_VP_VTL_CONTROL");

/* MOV RAX, RCX; MOV ECX, call code; VMMCALL; RET. 64-bit code. */
const uint8_t vtl_hypercall_code[VTL_CODE_BYTES] = {
	0x0f, 0x01, 0xd9, 0xc3, /* VMMCALL; RET */
	0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, /* VTL call: */
	0x48, 0x89, 0xc8, 0xb9, 0x11, 0x00, 0x00, 0x00, 0x0f, 0x01, 0xd9, 0xc3, /**/
	0xcc, 0xcc, 0xcc, 0xcc, /* VTL return: */
	0x48, 0x89, 0xc8, 0xb9, 0x12, 0x00, 0x00, 0x00, 0x0f, 0x01, 0xd9, 0xc3, /**/
	0xcc, 0xcc, 0xcc, 0xcc, /**/
};

void vtl_init_vp(struct vp *vp)
{
	vp->vtl[VTL1].platform = vp->partition->ops->vp_create(vp->id, VTL1);
	vp->start_context = memory_take(sizeof(*vp->start_context), sizeof(uint64_t));
	vtl_apic_reset(&vp->vtl1.apic);
	for (uint32_t i = 0; i < VTL_SINTS; i++) {
		vp->vtl0_synic.sint[i] = VTL_SINT_MASKED;
		vp->vtl1.synic.sint[i] = VTL_SINT_MASKED;
	}
}

enum vtl_status vtl_enable_partition(struct partition *partition)
{
	uint32_t before = 0;

	/* Relaxed: a yes or no that nothing hangs on; a VP's VTL1 has its own phase. */
	return partition->options.vsm &&
			atomic_u32_compare_exchange(
				&partition->vtl1_enabled, &before, 1, memory_order_relaxed)
		? VTL_OK
		: VTL_BAD_STATE;
}

bool vtl_partition_enabled(const struct partition *partition)
{
	/* Relaxed, as where it is set: it stands for itself, and is never taken back. */
	return atomic_u32_load(&partition->vtl1_enabled, memory_order_relaxed);
}

bool vtl_vp_enabled(const struct vp *vp)
{
	/* Acquire pairs with the release of vtl_enable_vp: the context is there. */
	return atomic_u32_load(&vp->vtl1.phase, memory_order_acquire) == VTL1_ENABLED;
}

enum vtl_status vtl_enable_vp(struct vp *target, const struct hv_initial_context *context)
{
	uint32_t before = VTL1_OFF;

	if (!vtl_partition_enabled(target->partition)) {
		return VTL_BAD_STATE;
	}
	if (!vtl_context_is_valid(target->partition, VTL1, context)) {
		return VTL_BAD_CONTEXT;
	}
	/* Relaxed: whoever wins writes what only an enabled VTL1 is looked at for. */
	if (!atomic_u32_compare_exchange(
		    &target->vtl1.phase, &before, VTL1_ENABLING, memory_order_relaxed)) {
		return VTL_BAD_STATE;
	}
	vtl_context_load(target->partition->ops, target->vtl[VTL1].platform, context);
	/* Release pairs with vtl_vp_enabled. */
	atomic_u32_store(&target->vtl1.phase, VTL1_ENABLED, memory_order_release);
	return VTL_OK;
}

enum vtl_status vtl_start_vp(
	struct vp *target, enum vtl vtl, const struct hv_initial_context *context)
{
	/* Acquire and release pair with start_serve's, which owns the context in VP_START_CONTEXT. */
	uint32_t word = atomic_u32_load(&target->start, memory_order_acquire);

	if (!target->start_context) {
		return VTL_BAD_STATE;
	}
	if (!vtl_context_is_valid(target->partition, vtl, context)) {
		return VTL_BAD_CONTEXT;
	}
	do {
		if (VP_START_STATE(word) != VP_START_WAIT) {
			return VTL_BAD_STATE;
		}
	} while (!atomic_u32_compare_exchange(
		&target->start, &word, VP_START_CLAIMED, memory_order_acq_rel));
	target->start_vtl = vtl;
	*target->start_context = *context;
	atomic_u32_store(&target->start, VP_START_CONTEXT, memory_order_release);
	run_request_post(&target->partition->run, target->id, REQUEST_START);
	return VTL_OK;
}

/* --- switching ------------------------------------------------------------------------------------ */

/* VTL1 active: its assist page; NULL if it has none. */
static struct assist_page *assist_page(struct vp *vp)
{
	uint64_t value = vp->vtl[VTL1].assist_page;

	return value & ASSIST_ENABLE
		? guest_ram(vp, GPA(value & PAGE_MASK), sizeof(struct assist_page),
			  ACCESS_READ | ACCESS_WRITE)
		: NULL;
}

static void switch_to(struct vp *vp, enum vtl vtl)
{
	vp->partition->ops->switch_vtl(vp->platform, vp->vtl[vtl].platform);
	vp->platform = vp->vtl[vtl].platform;
	vp->active_vtl = vtl;
}

static void enter_vtl1(struct vp *vp, enum entry_reason reason)
{
	struct assist_page *page;

	/* What wakes VTL1 ends a HLT of VTL0 too: waking early is always allowed. */
	vp->halted = false;
	switch_to(vp, VTL1);
	vp_count_event(vp, COUNTER_VTL1_ENTRIES);
	page = assist_page(vp);
	if (page) {
		page->entry_reason = reason;
		page->return_rax = vp->platform->registers.gpr[INSN_RAX];
		page->return_rcx = vp->platform->registers.gpr[INSN_RCX];
		if (vp->vtl1.vina & VTL_VINA_AUTO_RESET) {
			page->vina_asserted = 0;
		}
	}
	/* No lock is kept into an entry: who waits for it would wait for an exit of VTL1's. */
	guest_release(vp);
}

bool vtl_call(struct vp *vp, uint64_t control)
{
	if (vp->active_vtl != VTL0 || control || !vtl_vp_enabled(vp)) {
		return false;
	}
	vp_skip_instruction(vp);
	enter_vtl1(vp, ENTRY_VTL_CALL);
	return true;
}

bool vtl_return(struct vp *vp, uint64_t control)
{
	if (vp->active_vtl != VTL1 || (control & ~RETURN_FAST)) {
		return false;
	}
	/* VTL1 goes on behind this instruction when it is next entered. */
	vp_skip_instruction(vp);
	tlblock_release(&vp->partition->tlblock, vp->id, VTL0, VTL1);

	const struct assist_page *page = control & RETURN_FAST ? NULL : assist_page(vp);

	if (page) {
		vp->platform->registers.gpr[INSN_RAX] = page->return_rax;
		vp->platform->registers.gpr[INSN_RCX] = page->return_rcx;
	}
	switch_to(vp, VTL0);
	return true;
}

void vtl_enter_for_intercept(struct vp *vp)
{
	enter_vtl1(vp, ENTRY_INTERRUPT);
}

bool vtl_start_in_context(struct vp *vp)
{
	enum vtl vtl = vp->start_vtl;
	const struct platform_ops *ops = vp->partition->ops;

	ops->drop_event(vp->vtl[vtl].platform);
	ops->clear_interrupt_shadow(vp->vtl[vtl].platform);
	vtl_context_load(ops, vp->vtl[vtl].platform, vp->start_context);
	flush_own(&vp->partition->flush, vp->id, vtl, FLUSH_FULL_ALL);
	if (vtl == VTL1) {
		enter_vtl1(vp, ENTRY_INTERRUPT);
	}
	return vtl == VTL0;
}

/* --- the run loop --------------------------------------------------------------------------------- */

void vtl_choose(struct vp *vp)
{
	if (vp->active_vtl == VTL0 && vtl_apic_wants_in(vp)) {
		enter_vtl1(vp, ENTRY_INTERRUPT);
	}
}

/* TLFS, "Virtual Interrupt Notification Assist": could VTL0 take an interrupt, and is it to be told? */
static bool wants_notification(struct vp *vp)
{
	const struct platform_vp *vtl0 = vp->vtl[VTL0].platform;

	if (!(vp->vtl1.vina & VTL_VINA_ENABLED) || !(vtl0->registers.rflags & RFLAGS_IF) ||
		vp->partition->ops->interrupt_shadow(vtl0)) {
		return false;
	}

	const struct assist_page *page = assist_page(vp);
	bool wanted = page && !page->vina_asserted;

	guest_release(vp); /* the entry follows */
	return wanted;
}

void vtl_before_entry(struct vp *vp)
{
	if (vp->protect_suspended) {
		vp->protect_suspended = false;
		protect_note_ended(&vp->partition->protect, vp->id);
	}
	vp->partition->ops->offer_interrupt(vp->platform, vtl_apic_offer(vp));
	vp->partition->ops->notify_interrupts(vp->platform, wants_notification(vp));
}

void vtl_after_exit(struct vp *vp)
{
	const struct platform_ops *ops = vp->partition->ops;

	vtl_apic_offered(vp, ops->interrupt_taken(vp->platform) != 0);
	vtl_apic_set_cr8(vp, ops->cr8_read(vp->platform));
}

void vtl_handle_interrupt(struct vp *vp)
{
	struct assist_page *page = assist_page(vp);

	if (page) {
		page->vina_asserted = 1;
		vtl_apic_raise(vp, (uint8_t)(vp->vtl1.vina & VTL_VINA_VECTOR));
	}
}
