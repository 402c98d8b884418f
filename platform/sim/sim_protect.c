/*
 * Permissions on the machine of threads: guests use pages through their cached second stage, VTL1 and
 * VTL2 change what they may do with core/protect, and every access is judged.
 */
#include "platform/sim/sim_machine.h"

#include <stdio.h>
#include <stdlib.h>

/* What a page may be, all of it honoured here. */
static const uint8_t kinds[] = {
	ACCESS_NONE, ACCESS_READ, ACCESS_READ | ACCESS_WRITE, ACCESS_READ | ACCESS_EXECUTE,
	ACCESS_READ | ACCESS_EXECUTE_KERNEL, ACCESS_READ | ACCESS_EXECUTE_USER, ACCESS_ALL,
	ACCESS_ALL, /* more often, so that tables merge */
};

/* The page that is pinned now and then. */
static const struct sim_place pin_place = {
	.gig = 0, .region = SIM_REGIONS - 1, .page = SIM_PAGES - 1};

/* How a page is used: mostly read. */
static uint32_t random_access(struct sim_vp *vp)
{
	return sim_random(vp, 2) ? ACCESS_READ : 1u << sim_random(vp, 4);
}

static gpa_t gpa_of(struct sim_place place)
{
	/* Both address spaces map the same memory, at its own address. */
	return GPA(sim_place_gva(place).value);
}

static struct sim_judged *judged_of(struct sim *sim, enum vtl vtl, struct sim_place place)
{
	return &sim->judged[vtl][place.gig][place.region][place.page];
}

/* --- the platform --------------------------------------------------------------------------------
 */

static bool ops_can(void *platform, enum vtl target, uint32_t access)
{
	(void)platform;
	(void)target;
	(void)access;
	return true;
}

static bool ops_prepare(void *platform, struct protect_batch *batch)
{
	struct sim *sim = platform;

	return sim_npt_prepare(&sim->npt[batch->target], batch);
}

static void ops_write(void *platform, struct protect_batch *batch)
{
	struct sim *sim = platform;

	sim_npt_write(&sim->npt[batch->target], batch);
}

static uint32_t ops_access(void *platform, enum vtl target, gpa_t gpa)
{
	struct sim *sim = platform;
	bool freed = false;
	uint32_t access = sim_npt_access(&sim->npt[target], gpa, &freed);

	if (freed)
		sim_fail(sim, "VTL2 walks a table page that has been freed");
	return access;
}

static struct protect_pages ops_join(
	void *platform, struct protect_pages first, struct protect_pages second)
{
	struct sim *sim = platform;

	return sim_npt_join(&sim->pool, first, second);
}

static void ops_release(void *platform, struct protect_pages pages)
{
	struct sim *sim = platform;

	sim_npt_release(&sim->pool, pages);
}

static void broken(const char *what)
{
	fprintf(stderr, "sim: core/protect is broken: %s\n", what);
	abort();
}

static const struct protect_ops ops = {
	.can = ops_can,
	.prepare = ops_prepare,
	.write = ops_write,
	.access = ops_access,
	.join = ops_join,
	.release = ops_release,
};

void sim_protect_init(struct sim *sim)
{
	static const struct protect_span ram = {0, SIM_GIGS * SIZE_1G};
	struct protect_config config = {
		.vps = sim->protect_vps,
		.flush = &sim->flush,
		.ops = &ops,
		.platform = sim,
		.broken = broken,
		.targets = FLUSH_LOWER_VTLS,
		.region = sim->regions,
		.region_count = PROTECT_REGIONS(sim->run.vp_count),
		.pin = sim->pins,
		.pin_room = SIM_PINS,
	};

	sim_npt_pool_init(&sim->pool, sim->pages, SIM_NPT_PAGES);
	for (uint32_t vtl = 0; vtl < FLUSH_LOWER_VTLS; vtl++) {
		struct sim_judged *judged = &sim->judged[vtl][0][0][0];

		sim_npt_init(&sim->npt[vtl], &sim->pool, ACCESS_ALL);
		for (uint32_t i = 0; i < SIM_GIGS * SIM_REGIONS * SIM_PAGES; i++)
			sim_judge_start(&judged[i], ACCESS_ALL);
	}
	protect_init(&sim->protect, &config);
	protect_set_ram(&sim->protect, &ram, 1);
	for (uint32_t i = 0; i < sim->run.vp_count; i++)
		protect_set_observers(&sim->protect, i, sim->vp[i].counter, NULL);
}

/* --- accesses ------------------------------------------------------------------------------------
 */

static void forbidden(struct sim_vp *vp, struct sim_place place, uint32_t access, const char *why)
{
	sim_note(vp, EVENT_FORBIDDEN, gpa_of(place).value + access);
	sim_fail(vp->sim, why);
}

bool sim_protect_touch(struct sim_vp *vp, enum vtl vtl, struct sim_place place)
{
	struct sim *sim = vp->sim;
	const struct sim_judged *judged = judged_of(sim, vtl, place);
	uint32_t access = random_access(vp);
	struct sim_look look = sim_judge_look(&sim->judge, judged);
	bool freed = false;
	uint32_t may = sim_nested_access(&vp->nested[vtl], &sim->npt[vtl], gpa_of(place), &freed);

	if (freed)
		forbidden(vp, place, access, "a processor walks a table page that has been freed");
	if (may & access) {
		if (!sim_judge_allows(judged, &look, access, vp->entered))
			forbidden(vp, place, access, "an access that a commit had forbidden");
		return true;
	}
	/* The processor gives up what it faulted on, and exits. */
	sim_nested_drop(&vp->nested[vtl], gpa_of(place));
	sim_note(vp, EVENT_FAULT, gpa_of(place).value + access);
	vp->faults++;
	vp->faulted = true;
	vp->fault_place = place;
	vp->fault_access = access;
	return false;
}

void sim_protect_fault(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;
	const struct sim_judged *judged = judged_of(sim, vtl, vp->fault_place);
	struct sim_look look = sim_judge_look(&sim->judge, judged);
	uint32_t may;

	vp->faulted = false;
	tlblock_take(&sim->tlblock, vp->id, vtl, VTL2);
	sim_note(vp, EVENT_LOCK, 0);
	may = protect_access(&sim->protect, vtl, gpa_of(vp->fault_place));
	if (may & vp->fault_access)
		vp->spurious++;
	else if (sim_judge_must(judged, &look, vp->fault_access))
		forbidden(vp, vp->fault_place, vp->fault_access,
			"an access is refused that a commit had allowed");
}

void sim_protect_emulate(struct sim_vp *vp, enum vtl vtl, struct sim_place place)
{
	struct sim *sim = vp->sim;
	const struct sim_judged *judged = judged_of(sim, vtl, place);
	uint32_t access = random_access(vp);
	uint64_t looked = sim_judge_now(&sim->judge);

	if (!protect_may(&sim->protect, vtl, gpa_of(place), access))
		return;
	for (uint32_t uses = 1 + sim_random(vp, 50); uses; uses--) {
		struct sim_look look = sim_judge_look(&sim->judge, judged);

		if (!sim_judge_allows(judged, &look, access, looked))
			forbidden(vp, place, access,
				"VTL2 makes an access that a commit had forbidden");
	}
}

/* --- changes -------------------------------------------------------------------------------------
 */

/* The page as the engine has it, for the judge. */
struct truth {
	struct sim_vp *vp;
	enum vtl target;
	struct sim_place place;
};

static uint32_t truth_of(void *argument)
{
	const struct truth *truth = argument;
	struct sim *sim = truth->vp->sim;
	uint32_t access;

	tlblock_take(&sim->tlblock, truth->vp->id, truth->target, VTL2);
	access = protect_access(&sim->protect, truth->target, gpa_of(truth->place));
	tlblock_release_own(&sim->tlblock, truth->vp->id);
	return access;
}

/* The next watched page of a range, from *place on; false: there is none. */
static bool watched(const struct protect_range *range, struct sim_place *place)
{
	for (; place->gig < SIM_GIGS; place->gig++, place->region = 0) {
		for (; place->region < SIM_REGIONS; place->region++, place->page = 0) {
			for (; place->page < SIM_PAGES; place->page++) {
				uint64_t at = gpa_of(*place).value;

				if (at >= range->base && at < range->base + range->bytes)
					return true;
			}
		}
	}
	return false;
}

static void judge_begin(struct sim_vp *vp, const struct protect_range *range)
{
	enum vtl target = vp->transaction.target;

	for (struct sim_place place = {0}; watched(range, &place); place.page++)
		sim_judge_begin(judged_of(vp->sim, target, place), range->access);
}

/* The number of pages whose permission is another one now. */
static uint64_t judge_end(struct sim_vp *vp, const struct protect_range *range, enum sim_change how)
{
	struct truth truth = {vp, vp->transaction.target, {0}};
	struct sim *sim = vp->sim;
	uint64_t flips = 0;

	for (; watched(range, &truth.place); truth.place.page++) {
		struct sim_judged *judged = judged_of(sim, truth.target, truth.place);
		bool flipped;

		if (!sim_judge_end(
			    &sim->judge, judged, how, range->access, truth_of, &truth, &flipped))
			forbidden(vp, truth.place, 0, "a permission that nobody has asked for");
		flips += flipped;
	}
	return flips;
}

/* One page, a few, a region of 2 MiB, several, or 1 GiB. */
static void add_range(struct sim_vp *vp)
{
	struct sim_place place = {
		.gig = sim_random(vp, SIM_GIGS),
		.region = sim_random(vp, SIM_REGIONS),
		.page = sim_random(vp, SIM_PAGES),
	};
	uint64_t bytes = PAGE_SIZE;
	uint32_t access = kinds[sim_random(vp, ARRAY_SIZE(kinds))];
	uint32_t size = sim_random(vp, 24);

	if (size == 0) {
		bytes = SIZE_1G;
		place.region = place.page = 0;
	} else if (size < 4) {
		bytes = SIZE_2M * (1 + sim_random(vp, 2));
		place.page = 0;
	} else if (size < 16) {
		bytes *= 1 + sim_random(vp, SIM_PAGES);
	}
	/* What overlaps and says something else, or runs out of the end, is not added. */
	if (protect_add(&vp->sim->protect, &vp->transaction, gpa_of(place), bytes, access) ==
		PROTECT_DONE)
		sim_note(vp, EVENT_RANGE_TO, gpa_of(place).value + access);
}

/* Each GiB as a whole. */
static void add_everything(struct sim_vp *vp)
{
	for (uint64_t gig = 0; gig < SIM_GIGS; gig++) {
		uint32_t access = kinds[sim_random(vp, ARRAY_SIZE(kinds))];

		if (protect_add(&vp->sim->protect, &vp->transaction, GPA(gig * SIZE_1G), SIZE_1G,
			    access) == PROTECT_DONE)
			sim_note(vp, EVENT_RANGE_TO, gig * SIZE_1G + access);
	}
}

static bool touches_pinned(const struct protect_transaction *transaction)
{
	for (uint32_t i = 0; i < transaction->count; i++) {
		const struct protect_range *range = &transaction->range[i];

		if (gpa_of(pin_place).value - range->base < range->bytes)
			return true;
	}
	return false;
}

static void change_permissions(struct sim_vp *vp, enum vtl by, enum vtl target)
{
	struct sim *sim = vp->sim;
	struct protect_transaction *transaction = &vp->transaction;
	uint32_t flags = sim_random(vp, 4) == 0 ? PROTECT_NOT_SENSITIVE : 0;
	uint64_t pinned = atomic_u64_load(&sim->pinned, memory_order_seq_cst);
	enum sim_change how = SIM_CHANGE_REFUSED;
	enum protect_status status;
	uint64_t flips = vp->flips_made;
	bool on_pinned;

	protect_begin(&sim->protect, transaction, vp->id, by, target, PROTECT_TEST, flags);
	sim_note(vp, EVENT_TRANSACTION, (uint64_t)flags << 8 | by << 4 | target);
	if (sim_random(vp, 4) == 0)
		add_everything(vp);
	else
		for (uint32_t ranges = 1 + sim_random(vp, SIM_RANGES); ranges; ranges--)
			add_range(vp);
	on_pinned = touches_pinned(transaction);
	/* The engine may use the ranges as it likes: a list of our own. */
	vp->range_count = transaction->count;
	for (uint32_t i = 0; i < vp->range_count; i++) {
		vp->range[i] = transaction->range[i];
		judge_begin(vp, &vp->range[i]);
	}
	status = protect_commit(&sim->protect, transaction);
	/* VTL2 holds no TLB lock while it waits: somebody may wait for it in the same way. */
	tlblock_release_own(&sim->tlblock, vp->id);
	if (status == PROTECT_SUSPENDED)
		sim_wait_for_holders(vp, by);
	if (atomic_u32_load(&sim->stop, memory_order_relaxed))
		return;
	sim_note(vp, EVENT_COMMITTED, status);
	if (protect_ok(status))
		how = status == PROTECT_DEFERRED ? SIM_CHANGE_DEFERRED : SIM_CHANGE_DONE;
	else
		vp->refused++;
	for (uint32_t i = 0; i < vp->range_count; i++)
		flips += judge_end(vp, &vp->range[i], how);
	vp->flips_made = flips;
	atomic_u64_store(&vp->flips, flips, memory_order_relaxed);
	if (how != SIM_CHANGE_REFUSED && on_pinned && pinned & 1 &&
		atomic_u64_load(&sim->pinned, memory_order_seq_cst) == pinned)
		forbidden(vp, pin_place, 0, "a pinned page was changed");
}

static void sync_now(struct sim_vp *vp, enum vtl by)
{
	struct sim *sim = vp->sim;
	uint64_t time = sim_judge_now(&sim->judge);
	enum protect_status status = protect_sync(&sim->protect, vp->id, by);

	/* VTL2 holds no TLB lock while it waits: somebody may wait for it in the same way. */
	tlblock_release_own(&sim->tlblock, vp->id);
	if (status == PROTECT_SUSPENDED)
		sim_wait_for_holders(vp, by);
	if (atomic_u32_load(&sim->stop, memory_order_relaxed))
		return;
	sim_note(vp, EVENT_SYNC, status);
	sim_judge_synced(&sim->judge, time);
}

/* VP 0 pins a page, and takes that back. */
static void pin_or_unpin(struct sim_vp *vp)
{
	struct sim *sim = vp->sim;
	uint64_t pinned = atomic_u64_load(&sim->pinned, memory_order_relaxed);

	if (pinned & 1) {
		atomic_u64_store(&sim->pinned, pinned + 1, memory_order_seq_cst);
		if (!protect_unpin(&sim->protect, vp->id, gpa_of(pin_place), PAGE_SIZE,
			    PROTECT_PIN_OVERLAY, VTL2))
			sim_fail(sim, "a pin is lost");
	} else if (protect_pin(&sim->protect, vp->id, gpa_of(pin_place), PAGE_SIZE,
			   PROTECT_PIN_OVERLAY, VTL2) == PROTECT_DONE) {
		atomic_u64_store(&sim->pinned, pinned + 1, memory_order_seq_cst);
	} else {
		sim_fail(sim, "a page cannot be pinned");
	}
}

void sim_protect_change(struct sim_vp *vp, enum vtl left)
{
	struct sim *sim = vp->sim;
	uint32_t what = sim_random(vp, 64);
	/* VTL1's hypercall, if that is who was left; VTL2 by itself, for either of them. */
	enum vtl by = left == VTL1 && sim_random(vp, 4) ? VTL1 : VTL2;
	enum vtl target = by == VTL1 ? VTL0 : (enum vtl)(sim_random(vp, 4) == 0);

	if (sim_random(vp, 2))
		tlblock_release_own(&sim->tlblock, vp->id);
	if (what == 0 && vp->id == 0)
		pin_or_unpin(vp);
	else if (what < 4)
		sync_now(vp, by);
	else
		change_permissions(vp, by, target);
}
