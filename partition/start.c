/*
 * INIT, SIPI and NMI among the VPs: the guest's commands never reach the machine, each target carries
 * them out for itself. One word per VP holds what INIT and SIPI have led to, so that neither their
 * order nor any of them is lost.
 */
#include "arch/x86/asm.h"
#include "arch/x86/registers.h"
#include "partition/policy.h"
#include "partition/wakeup.h"

void start_request_init(struct vp *from, struct vp *target)
{
	if (target->id == 0 &&
		VP_START_STATE(atomic_u32_load(&target->start, memory_order_relaxed)) ==
			VP_START_RUNNING) {
		/* INIT of the boot processor runs the firmware again: the machine's reset. */
		end_guest(from, BLOCK_END_RESET, APIC_MODE_INIT);
	}
	/* Relaxed: a time stamp for reports, read by the target afterwards. The request begins here. */
	atomic_u64_store(&target->start_tsc, asm_rdtsc(), memory_order_relaxed);
	/* Release pairs with the acquire in start_serve. */
	atomic_u32_store(&target->start, VP_START_INIT, memory_order_release);
	run_request_post(&from->partition->run, target->id, REQUEST_START);
}

void start_request_sipi(struct vp *from, struct vp *target, uint8_t page)
{
	/* Acquire and release pair with start_serve's, which may be carrying out the INIT now. */
	uint32_t word = atomic_u32_load(&target->start, memory_order_acquire);
	uint64_t now = asm_rdtsc();

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
	/* Release pairs with the acquires of whoever sends a SIPI. */
	atomic_u32_store(&vp->start, VP_START_WAIT, memory_order_release);
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
		}
	}
}
