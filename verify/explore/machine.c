/*
 * The scenarios' machine. The oracle: an access with the old version of a page's table entry is a
 * failure once the flush has returned, and each one made before must happen before that return (or
 * it might still be on its way).
 */
#include "machine.h"
#include "machine_protect.h"

#include <string.h>

struct run machine_run;
struct flush machine_flush;
struct tlblock machine_tlblock;
struct atomic_u64 machine_pte[MACHINE_PAGES];

static struct run_vp run_vps[MACHINE_VPS];
static struct flush_vp flush_vps[MACHINE_VPS];
static struct tlblock_vp tlblock_vps[MACHINE_VPS];
static struct atomic_u64 waiters[TLBLOCK_WAITERS_NEEDED(MACHINE_VPS)];
static const uint16_t vp_of_index[MACHINE_VPS] = {0, 1, 2};
static const struct vpset_map map = {vp_of_index, MACHINE_VPS, MACHINE_VPS};

static struct atomic_u64 kicks[MACHINE_VPS];
/* Written at each access through the old translation. */
static struct atomic_u64 touched[MACHINE_VPS][MACHINE_PAGES];
static struct {
	bool cached[MACHINE_PAGES];
	uint64_t version[MACHINE_PAGES];
} tlb[MACHINE_VPS];

/* Ghost words 0 to MACHINE_PAGES - 1: that page's flush has returned. */

static void kick(void *platform, vp_id_t target)
{
	(void)platform;
	/* Relaxed: nothing may depend on what a kick carries. */
	atomic_u64_exchange(&kicks[target], 1, memory_order_relaxed);
}

static const struct run_ops run_ops = {.kick = kick};

static bool invalidate(void *platform, vp_id_t vp, enum vtl vtl, const struct flush_entry *entry)
{
	uint64_t page = entry->range.base.value / PAGE_SIZE;

	(void)platform;
	(void)vtl;
	for (uint32_t i = 0; i < entry->range.pages && page + i < MACHINE_PAGES; i++)
		tlb[vp].cached[page + i] = false;
	return true;
}

static const struct flush_sink sink = {.invalidate = invalidate};

static void name_words(void)
{
	for (uint32_t vp = 0; vp < MACHINE_VPS; vp++) {
		struct flush_queue *queue = &flush_vps[vp].queue[VTL0];

		explore_name(&run_vps[vp].word, "run[%u].word", vp);
		explore_name(&run_vps[vp].kicked, "run[%u].kicked", vp);
		explore_name(&run_vps[vp].requests, "run[%u].requests", vp);
		explore_name(&queue->tail, "queue[%u].tail", vp);
		explore_name(&queue->head, "queue[%u].head", vp);
		explore_name(&queue->full, "queue[%u].full", vp);
		for (uint32_t i = 0; i < FLUSH_RING_SLOTS; i++) {
			explore_name(&queue->slot[i].state, "queue[%u].slot[%u].state", vp, i);
			explore_name(&queue->slot[i].range, "queue[%u].slot[%u].range", vp, i);
			explore_name(&queue->slot[i].space, "queue[%u].slot[%u].space", vp, i);
		}
		for (uint32_t i = 0; i < TLBLOCK_LOCKS; i++) {
			explore_name(&tlblock_vps[vp].lock[i].turn, "lock[%u][%u].turn", vp, i);
			explore_name(&tlblock_vps[vp].lock[i].asked, "lock[%u][%u].asked", vp, i);
			explore_name(&waiters[vp * TLBLOCK_LOCKS + i], "waiters[%u][%u]", vp, i);
		}
		for (uint32_t i = 0; i < TLBLOCK_CALLERS; i++)
			explore_name(&tlblock_vps[vp].waiting[i], "waiting[%u][%u]", vp, i);
		explore_name(&kicks[vp], "kick[%u]", vp);
		for (uint32_t i = 0; i < MACHINE_PAGES; i++)
			explore_name(&touched[vp][i], "touched[%u][%u]", vp, i);
	}
	for (uint32_t i = 0; i < MACHINE_PAGES; i++)
		explore_name(&machine_pte[i], "pte[%u]", i);
}

void machine_setup(void)
{
	memset(tlblock_vps, 0, sizeof(tlblock_vps));
	memset(waiters, 0, sizeof(waiters));
	memset(kicks, 0, sizeof(kicks));
	memset(touched, 0, sizeof(touched));
	memset(tlb, 0, sizeof(tlb));
	memset(machine_pte, 0, sizeof(machine_pte));
	run_init(&machine_run, run_vps, MACHINE_VPS, &run_ops, NULL);
	tlblock_init(&machine_tlblock, tlblock_vps, waiters, &machine_run);
	flush_init(&machine_flush, flush_vps, &machine_run, &machine_tlblock, 16);
	if (explore_names_wanted())
		name_words();
}

void machine_prime(vp_id_t vp, uint32_t page)
{
	tlb[vp].cached[page] = true;
	tlb[vp].version[page] = 0;
}

/* --- the guest and the processor
 * ------------------------------------------------------------------- */

void machine_hold_off_kicks(vp_id_t vp)
{
	/* What arrived in VTL2 so far has been swallowed there; what comes now stays pending. */
	atomic_u64_exchange(&kicks[vp], 0, memory_order_relaxed);
}

bool machine_enter(vp_id_t vp, enum vtl vtl)
{
	uint32_t full;

	machine_hold_off_kicks(vp);
	run_enter_begin(&machine_run, vp, vtl);
	full = flush_drain(&machine_flush, vp, vtl, &sink);
	if (run_requests_pending(&machine_run, vp)) {
		run_enter_withdraw(&machine_run, vp);
		return false;
	}
	if (full && vtl == VTL0) {
		memset(tlb[vp].cached, 0, sizeof(tlb[vp].cached));
		machine_protect_flush(vp);
	}
	flush_entered(&machine_flush, vp, vtl);
	return true;
}

struct access {
	vp_id_t vp;
	uint32_t page;
	uint64_t version;
};

static void access_step(void *argument)
{
	const struct access *access = argument;

	if (access->version != 0)
		return;
	if (explore_ghost[access->page])
		explore_fail("an access through a translation whose flush has returned");
	atomic_u64_store(&touched[access->vp][access->page], 1, memory_order_relaxed);
}

void machine_use(vp_id_t vp, uint32_t page, uint64_t version)
{
	struct access access = {vp, page, version};

	explore_step(access_step, &access,
		version ? "access, new translation" : "access, old translation");
}

uint64_t machine_walk(uint32_t page)
{
	return atomic_u64_load(&machine_pte[page], memory_order_relaxed);
}

uint64_t machine_translated(vp_id_t vp, uint32_t page)
{
	return tlb[vp].version[page];
}

void machine_access(vp_id_t vp, uint32_t page)
{
	if (!tlb[vp].cached[page]) {
		tlb[vp].version[page] = machine_walk(page);
		tlb[vp].cached[page] = true;
	}
	machine_use(vp, page, tlb[vp].version[page]);
}

void machine_run_on(vp_id_t vp)
{
	if (explore_choose(2) == 0)
		return;
	while (atomic_u64_load(&kicks[vp], memory_order_relaxed) == 0)
		explore_relax_forever();
}

void machine_exit(vp_id_t vp)
{
	run_exited(&machine_run, vp);
}

void machine_stay(vp_id_t vp, uint32_t page)
{
	while (!machine_enter(vp, VTL0))
		run_requests_take(&machine_run, vp);
	machine_access(vp, page);
	machine_run_on(vp);
	machine_exit(vp);
}

void machine_sleep(vp_id_t vp, bool forever)
{
	while (atomic_u64_load(&kicks[vp], memory_order_relaxed) == 0) {
		if (forever)
			explore_relax_forever();
		else
			atomic_relax();
	}
}

/* --- VTL2 ----------------------------------------------------------------------------------------
 */

struct returned {
	vp_id_t me;
	uint32_t page;
};

static void returned_step(void *argument)
{
	const struct returned *returned = argument;

	explore_ghost[returned->page] = 1;
	for (vp_id_t vp = 0; vp < MACHINE_VPS; vp++) {
		if (vp != returned->me && !explore_view_is_latest(&touched[vp][returned->page]))
			explore_fail(
				"the flush has returned and an old access is still on its way");
	}
}

void machine_returned(vp_id_t me, uint32_t page)
{
	struct returned returned = {me, page};

	if (explore_in_setup())
		explore_ghost[page] = 1;
	else
		explore_step(returned_step, &returned, "the flush returns");
}

/* The VTL that asked is suspended: sleep until the last holder wakes the VP. */
void machine_wait_for_holders(vp_id_t me, enum vtl caller)
{
	while (tlblock_is_suspended(&machine_tlblock, me, caller)) {
		machine_hold_off_kicks(me);
		run_idle_begin(&machine_run, me);
		if (tlblock_is_suspended(&machine_tlblock, me, caller))
			machine_sleep(me, false);
		run_idle_end(&machine_run, me);
	}
}

void machine_flush_ask(vp_id_t me, uint32_t first, uint32_t count, uint64_t mask, bool full)
{
	uint64_t ranges[MACHINE_PAGES];
	struct flush_request request = {
		.set = vpset_make_mask(&map, mask),
		.vtl = VTL0,
		.caller = VTL0,
		.flags = FLUSH_ALL_SPACES,
		.ranges = ranges,
		.range_count = full ? 0 : count,
	};

	for (uint32_t i = 0; i < count; i++) {
		ranges[i] = (first + i) * PAGE_SIZE;
		/* Relaxed: the guest's own store. */
		atomic_u64_store(&machine_pte[first + i], 1, memory_order_relaxed);
	}
	tlblock_release_own(&machine_tlblock, me);
	flush_request(&machine_flush, me, &request);
}

void machine_flush_pages(vp_id_t me, uint32_t first, uint32_t count, uint64_t mask, bool full)
{
	machine_flush_ask(me, first, count, mask, full);
	machine_wait_for_holders(me, VTL0);
	for (uint32_t i = 0; i < count; i++)
		machine_returned(me, first + i);
}
