/*
 * INIT, SIPI and NMI among the VPs: the guest's commands never reach the machine, each target carries
 * them out for itself. One word per VP holds what INIT and SIPI have led to, so that neither their
 * order nor any of them is lost.
 */
#include "arch/x86/asm.h"
#include "arch/x86/registers.h"
#include "hv/hv_vsm.h"
#include "partition/policy.h"
#include "partition/vtl.h"
#include "partition/wakeup.h"

bool start_is_denied(const struct vp *from)
{
	return from->active_vtl == VTL0 && hv_startup_is_denied();
}

/*
 * TLFS, "VTL Interrupt Management": INIT and SIPI of VTL0 are dropped where there is a VTL1; and
 * everywhere if VTL1 says so.
 */
static bool is_dropped(struct vp *from, struct vp *target)
{
	if (!vtl_vp_enabled(target) && !start_is_denied(from)) {
		return false;
	}
	vp_deny(from, COUNTER_DENIED_INTERRUPT, target->id);
	return true;
}

void start_request_init(struct vp *from, struct vp *target)
{
	if (is_dropped(from, target)) {
		return;
	}
	if (target->id == 0 &&
		VP_START_STATE(atomic_u32_load(&target->start, memory_order_relaxed)) ==
			VP_START_RUNNING) {
		/* INIT of the boot processor runs the firmware again: the machine's reset. */
		end_guest(from, BLOCK_END_RESET, APIC_MODE_INIT);
	}
	/* Relaxed: a time stamp for reports, read by the target afterwards. The request begins here. */
	atomic_u64_store(&target->start_tsc, asm_rdtsc(), memory_order_relaxed);
	/* Relaxed: nothing is read of what the word says. */
	uint32_t word = atomic_u32_load(&target->start, memory_order_relaxed);

	do {
		/* A claim lasts as long as it takes to copy a context; its owner waits for nobody. */
		while (VP_START_STATE(word) == VP_START_CLAIMED) {
			asm_pause();
			word = atomic_u32_load(&target->start, memory_order_relaxed);
		}
		/* Release pairs with the acquire in start_serve. */
	} while (!atomic_u32_compare_exchange(
		&target->start, &word, VP_START_INIT, memory_order_acq_rel));
	run_request_post(&from->partition->run, target->id, REQUEST_START);
}

void start_request_sipi(struct vp *from, struct vp *target, uint8_t page)
{
	/* Acquire and release pair with start_serve's, which may be carrying out the INIT now. */
	uint32_t word = atomic_u32_load(&target->start, memory_order_acquire);
	uint64_t now = asm_rdtsc();

	if (is_dropped(from, target)) {
		return;
	}
	while (VP_START_STATE(word) == VP_START_INIT || VP_START_STATE(word) == VP_START_WAIT) {
		if (atomic_u32_compare_exchange(&target->start, &word,
			    VP_START_SIPI | (uint32_t)page << 8 |
				    (VP_START_STATE(word) == VP_START_WAIT ? VP_START_INIT_DONE
									   : 0),
			    memory_order_acq_rel)) {
			if (!from->partition->block->ap_first_request_tsc) {
				/* Relaxed: see start_request_init. */
				from->partition->block->ap_first_request_tsc =
					atomic_u64_load(&target->start_tsc, memory_order_relaxed);
			}
			trace_write(&from->trace, now, TRACE_AP_REQUEST, target->id,
				(uint64_t)page << PAGE_BITS);
			run_request_post(&from->partition->run, target->id, REQUEST_START);
			return;
		}
	}
	/* A processor that is not waiting ignores it (Intel SDM volume 3, 8.4.4.1). */
}

void start_request_nmi(struct vp *from, struct vp *target)
{
	run_request_post(&from->partition->run, target->id, REQUEST_NMI);
}

static void reset(struct vp *vp)
{
	vp->partition->ops->vp_init(vp->platform);
	lapic_reset(vp);
	vp->nmi_pending = false;
	vp->nmi_masked = false;
	vp->nmi_stepping = false;
	vp->halted = false;
	vp->entered = false;
}

void start_park(struct vp *vp)
{
	reset(vp);
	/*
	 * Release pairs with the acquires of whoever sends a SIPI (start_request_sipi) or starts the VP by call
	 * (vtl_start_vp). Without it what they write for the start could be undone by the reset above.
	 */
	atomic_u32_store(&vp->start, VP_START_WAIT | (vp->vtl1.entered ? VP_START_VTL1_RUNS : 0),
		memory_order_release);
}

static void carry_out_init(struct vp *vp)
{
	reset(vp);
	vp_count_event(vp, COUNTER_INIT_RECEIVED);
	trace_write(&vp->trace, asm_rdtsc(), TRACE_AP_INIT, vp->id, 0);
}

static void carry_out_sipi(struct vp *vp, uint32_t page)
{
	struct vp_system_state state;

	vp->partition->ops->system_read(vp->platform, &state);
	state.cs.selector = (uint16_t)(page << 8);
	state.cs.base = (uint64_t)page << PAGE_BITS;
	vp->partition->ops->system_write(vp->platform, &state);
	vp->platform->registers.rip = 0;
	wakeup_by_sipi(vp);
	vp_count_event(vp, COUNTER_SIPI_RECEIVED);
	/* Relaxed: see start_request_sipi. */
	vp->block->ap_request_tsc = atomic_u64_load(&vp->start_tsc, memory_order_relaxed);
	trace_write(&vp->trace, asm_rdtsc(), TRACE_AP_STARTED, vp->id, (uint64_t)page << PAGE_BITS);
}

bool start_serve(struct vp *vp)
{
	/* Acquire pairs with the release of whoever asked. */
	uint32_t word = atomic_u32_load(&vp->start, memory_order_acquire);

	for (;;) {
		switch (VP_START_STATE(word)) {
		case VP_START_RUNNING:
			return true;
		case VP_START_WAIT:
			if (!wakeup_check(vp)) {
				return false;
			}
			/* An INIT that came meanwhile goes first: the loop carries it out. */
			if (atomic_u32_compare_exchange(
				    &vp->start, &word, VP_START_RUNNING, memory_order_acq_rel)) {
				return true;
			}
			break;
		case VP_START_INIT:
			carry_out_init(vp);
			if (atomic_u32_compare_exchange(
				    &vp->start, &word, VP_START_WAIT, memory_order_acq_rel)) {
				word = VP_START_WAIT;
			}
			break;
		case VP_START_SIPI:
			if (atomic_u32_compare_exchange(
				    &vp->start, &word, VP_START_RUNNING, memory_order_acq_rel)) {
				if (!(word & VP_START_INIT_DONE)) {
					carry_out_init(vp);
				}
				carry_out_sipi(vp, VP_START_PAGE(word));
				return true;
			}
			break;
		case VP_START_CLAIMED:
			return false; /* a request follows */
		case VP_START_CONTEXT: {
			/* The context was written before the word; an INIT that takes it back comes later. */
			uint32_t next = vp->start_vtl == VTL0 ? VP_START_RUNNING
							      : VP_START_WAIT | VP_START_VTL1_RUNS;
			bool vtl0 = vtl_start_in_context(vp);

			if (!vtl0) {
				atomic_u32_compare_exchange(
					&vp->start, &word, next, memory_order_acq_rel);
				return true; /* in VTL1; VTL0 waits on */
			}
			if (atomic_u32_compare_exchange(
				    &vp->start, &word, next, memory_order_acq_rel)) {
				wakeup_by_sipi(vp); /* to the mailbox it is the same */
				return true;
			}
			break;
		}
		}
	}
}
