/* A VP of the machine of threads: kicks, entry, the wait for lock holders. See sim_machine.h. */
#include "platform/sim/sim_machine.h"

#include <sched.h>

#ifdef PARAPET_SIM
void atomic_relax(void)
{
	static _Thread_local uint32_t looks;

	if (++looks % 64 == 0)
		sched_yield();
	__builtin_ia32_pause();
}
#endif

void sim_kick(void *platform, vp_id_t target)
{
	struct sim *sim = platform;

	/* Relaxed: a kick carries nothing. */
	atomic_u32_store(&sim->vp[target].kicked, 1, memory_order_relaxed);
}

const struct run_ops sim_ops = {.kick = sim_kick};

static bool sim_invalidate(
	void *platform, vp_id_t id, enum vtl vtl, const struct flush_entry *entry)
{
	struct sim_vp *vp = platform;

	(void)id;
	sim_note(vp, EVENT_RANGE, entry->range.base.value);
	if (sim_random(vp, 16) == 0)
		return false; /* does not pay, says this platform now and then */
	sim_tlb_invalidate(&vp->tlb[vtl], &entry->range, entry->flags & FLUSH_ALL_SPACES,
		(uint32_t)(entry->space >> PAGE_BITS) - 1);
	return true;
}

bool sim_kick_arrives(struct sim_vp *vp)
{
	if (atomic_u32_load(&vp->kicked, memory_order_relaxed) == 0) {
		vp->kick_delay = 0;
		return false;
	}
	if (vp->kick_delay == 0)
		vp->kick_delay = 1 + sim_random(vp, 32);
	return --vp->kick_delay == 0;
}

/* Kicks that have arrived in VTL2 are gone; from now on they stay pending. */
static void sim_hold_off_kicks(struct sim_vp *vp)
{
	atomic_u32_exchange(&vp->kicked, 0, memory_order_relaxed);
}

void sim_wait_for_holders(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;

	while (tlblock_is_suspended(&sim->tlblock, vp->id, vtl) && !sim_stopping(vp)) {
		sim_hold_off_kicks(vp);
		run_idle_begin(&sim->run, vp->id);
		sim_note(vp, EVENT_IDLE, 0);
		if (tlblock_is_suspended(&sim->tlblock, vp->id, vtl)) {
			while (atomic_u32_load(&vp->kicked, memory_order_relaxed) == 0 &&
				atomic_u32_load(&sim->stop, memory_order_relaxed) == 0)
				sched_yield(); /* no progress: the watchdog looks */
		}
		run_idle_end(&sim->run, vp->id);
	}
}

bool sim_enter(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;
	struct flush_sink sink = {.invalidate = sim_invalidate, .platform = vp};
	uint32_t full;

	tlblock_release_own(&sim->tlblock, vp->id);
	sim_note(vp, EVENT_UNLOCK, 0);
	sim_wait_for_holders(vp, vtl);
	sim_hold_off_kicks(vp);
	vp->entered = sim_judge_now(&sim->judge);
	run_enter_begin(&sim->run, vp->id, vtl);
	full = flush_drain(&sim->flush, vp->id, vtl, &sink);
	if (run_requests_pending(&sim->run, vp->id) || sim_random(vp, 64) == 0) {
		run_enter_withdraw(&sim->run, vp->id);
		sim_note(vp, EVENT_WITHDRAW, full);
		vp->withdrawn++;
		vp->requests += run_requests_take(&sim->run, vp->id) != 0;
		return false;
	}
	if (full) {
		sim_note(vp, EVENT_FULL, full);
		sim_tlb_invalidate_full(&vp->tlb[vtl], full);
		if (full & FLUSH_FULL_ALL)
			sim_nested_flush(&vp->nested[vtl]);
	}
	flush_entered(&sim->flush, vp->id, vtl);
	sim_note(vp, EVENT_ENTER, vtl);
	return true;
}
