/* What guests and VTL2 do on the machine of threads, and the judge of its flushes. */
#include "platform/sim/sim_machine.h"

static struct sim_place sim_random_place(struct sim_vp *vp)
{
	return (struct sim_place){
		.space = sim_random(vp, SIM_SPACES),
		.gig = sim_random(vp, SIM_GIGS),
		.region = sim_random(vp, SIM_REGIONS),
		.page = sim_random(vp, SIM_PAGES),
	};
}

/* Where most of the traffic is: one page of each VP's, so that those who race do race. */
static struct sim_place sim_hot_place(struct sim_vp *vp, vp_id_t owner)
{
	return (struct sim_place){
		.gig = 0,
		.region = owner % SIM_REGIONS,
		.page = sim_random(vp, 2),
	};
}

/* Uses a translation: `oldest` was read before the access began. */
static void sim_judge(struct sim_vp *vp, uint64_t oldest, uint64_t entry)
{
	vp->accesses++;
	if (sim_entry_version(entry) >= oldest)
		return;
	sim_note(vp, EVENT_STALE, sim_entry_version(entry));
	sim_fail(vp->sim, "an access through a translation whose flush had returned");
}

/* False: it has faulted. */
static bool sim_access(struct sim_vp *vp, enum vtl vtl, struct sim_place place)
{
	uint64_t oldest = sim_table_oldest(&vp->sim->table[vtl], place);
	const struct sim_tlb_entry *found = sim_tlb_find(&vp->tlb[vtl], place);

	if (!found) {
		struct sim_translation translation = sim_table_walk(&vp->sim->table[vtl], place);

		sim_note(vp, EVENT_FILL, sim_entry_version(translation.entry));
		sim_tlb_fill(&vp->tlb[vtl], place, translation);
		found = sim_tlb_find(&vp->tlb[vtl], place);
	}
	sim_judge(vp, oldest, found->translation.entry);
	return !vp->sim->permissions || sim_protect_touch(vp, vtl, place);
}

/* Accesses memory until kicked or done; may halt at the end, which only a kick (or the end) ends.
 */
static void sim_guest_run(struct sim_vp *vp, enum vtl vtl)
{
	uint32_t accesses = 1 + sim_random(vp, sim_random(vp, 16) == 0 ? 4000 : 40);
	struct sim_place favourite = sim_hot_place(vp, sim_random(vp, vp->sim->run.vp_count));
	/* A guest that never leaves of its own. VP 0 does, and kicks the others with its flushes.
	 */
	struct sim_place place = favourite;
	bool forever = vp->id != 0 && sim_random(vp, 64) == 0;

	vp->kick_delay = 0;
	while (forever || accesses-- != 0) {
		uint32_t where = sim_random(vp, 8);

		/* The favourite, pages next to it (by pointers to tables kept), anything. */
		if (where < 2)
			place = sim_random_place(vp);
		else if (where < 4)
			place.page = sim_random(vp, SIM_PAGES);
		else
			place = favourite;
		if (!sim_access(vp, vtl, place))
			return;
		if (sim_kick_arrives(vp) || sim_stopping(vp))
			return;
	}
	if (sim_random(vp, 32) != 0)
		return;
	for (uint32_t spins = 0; spins < 2000 && !sim_kick_arrives(vp) && !sim_stopping(vp);
		spins++)
		atomic_relax();
}

/*
 * Out. Now and then the exit carries an address that has been translated: then the lock is taken
 * before the exit is published, and the address used afterwards.
 */
static void sim_exit(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;
	struct sim_place place = sim_random_place(vp);
	const struct sim_tlb_entry *kept = NULL;

	vp->stays++;
	if (sim_random(vp, 4) == 0)
		kept = sim_tlb_find(&vp->tlb[vtl], place);
	if (kept) {
		tlblock_take(&sim->tlblock, vp->id, vtl, VTL2);
		sim_note(vp, EVENT_LOCK, 0);
	}
	run_exited(&sim->run, vp->id);
	sim_note(vp, EVENT_EXIT, 0);
	for (uint32_t uses = sim_random(vp, 50); kept && uses; uses--) {
		/* Whose flush has "returned" only when the caller runs on: judged by the same word.
		 */
		sim_judge(vp, sim_table_oldest(&sim->table[vtl], place), kept->translation.entry);
	}
}

/* VTL2 emulates an instruction: walks under the lock and uses what it found. */
static void sim_emulate(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;
	struct sim_place place = sim_random_place(vp);
	struct sim_translation translation;

	tlblock_take(&sim->tlblock, vp->id, vtl, VTL2);
	sim_note(vp, EVENT_LOCK, 0);
	translation = sim_table_walk(&sim->table[vtl], place);
	for (uint32_t uses = 1 + sim_random(vp, 100); uses; uses--)
		sim_judge(vp, sim_table_oldest(&sim->table[vtl], place), translation.entry);
	if (sim->permissions)
		sim_protect_emulate(vp, vtl, place);
}

/* The guest changes an entry that it owns and asks for the flush of what it was. */
static void sim_flush(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;
	struct sim_place place =
		sim_random(vp, 4) ? sim_hot_place(vp, vp->id) : sim_random_place(vp);
	uint64_t permissions = sim_random(vp, 4) * SIM_WRITE & (SIM_WRITE | SIM_EXECUTE);
	uint32_t vps = sim->run.vp_count;
	uint32_t owner = (place.gig == SIM_GIG_LARGE ? place.space : place.region) % vps;
	bool global = place.gig == SIM_GIG_GLOBAL;
	struct flush_request request = {
		.set = vpset_make_all(&sim->map),
		.vtl = vtl,
		.caller = vtl,
		.space = (place.space + 1ull) << PAGE_BITS,
	};
	uint32_t page_bits = PAGE_BITS;
	uint64_t version;
	uint64_t range;

	if (owner != vp->id)
		return;
	range = sim_place_gva(place).value;
	if (place.gig == SIM_GIG_LARGE) {
		page_bits = 30;
		version = sim_table_change_gig(&sim->table[vtl], place, permissions);
		range = place.gig * SIZE_1G | 1ull << 12 | 1ull << 11;
		request.flags = FLUSH_EXTENDED;
	} else if (sim_random(vp, 4) == 0) {
		page_bits = 21;
		version = sim_table_change_region(&sim->table[vtl], place, permissions);
		range = (place.gig * SIZE_1G + place.region * SIZE_2M) | 1ull << 11;
		request.flags = FLUSH_EXTENDED;
	} else {
		version = sim_table_change_page(&sim->table[vtl], place, permissions);
	}
	sim_note(vp, EVENT_CHANGE, version);
	request.ranges = &range;
	request.range_count = 1;
	if (global)
		request.flags |= FLUSH_ALL_SPACES;
	if (sim_random(vp, 4) == 0) {
		request.range_count = 0;
		request.flags = global ? FLUSH_ALL_SPACES : FLUSH_NON_GLOBAL;
	}
	vp->flushes++;
	sim_note(vp, EVENT_FLUSH, (1ull << vps) - 1);
	tlblock_release_own(&sim->tlblock, vp->id);
	if (flush_request(&sim->flush, vp->id, &request) == FLUSH_SUSPENDED) {
		sim_note(vp, EVENT_SUSPENDED, 0);
		vp->suspended++;
		sim_wait_for_holders(vp, vtl);
	}
	if (atomic_u32_load(&sim->stop, memory_order_relaxed))
		return;
	/* Its own entry drains its own queue: for others the flush has returned, it is back in
	 * VTL0. */
	sim_note(vp, EVENT_RETURNED, version);
	sim_table_retire(&sim->table[vtl], place, page_bits, version);
}

void *sim_vp_main(void *argument)
{
	struct sim_vp *vp = argument;
	struct sim *sim = vp->sim;

	while (!sim_stopping(vp)) {
		enum vtl vtl = sim_random(vp, 8) == 0 ? VTL1 : VTL0;
		uint32_t what;

		if (!sim_enter(vp, vtl))
			continue;
		sim_guest_run(vp, vtl);
		sim_exit(vp, vtl);
		if (vp->faulted)
			sim_protect_fault(vp, vtl);
		if (sim->permissions && sim_random(vp, 2)) {
			sim_protect_change(vp, vtl);
			continue;
		}
		what = sim_random(vp, 8);
		if (what < 3) {
			sim_flush(vp, vtl);
		} else if (what == 3) {
			sim_emulate(vp, vtl);
		} else if (what == 4) {
			vp_id_t target = sim_random(vp, sim->run.vp_count);

			sim_note(vp, EVENT_KICK, target);
			vp->kicks++;
			if (sim_random(vp, 2))
				sim_kick(sim, target); /* without reason */
			else
				run_request_post(&sim->run, target, 1);
		}
	}
	tlblock_release_own(&sim->tlblock, vp->id);
	return NULL;
}
