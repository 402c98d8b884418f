/* Permissions: commits against accesses, entries, lock holders, walkers and each other. */
#include "core/protect/protect_internal.h"
#include "machine_protect.h"
#include "scenarios.h"

#define READ_ONLY ACCESS_READ

/* Ghost words: a deferred commit has returned; VP n began its stay after that. */
#define GHOST_DEFERRED 8
#define GHOST_STAY(vp) (9 + (vp))

static void alone_step(void *argument)
{
	(void)argument;
	explore_ghost[GHOST_DEFERRED]++;
}

static void setup_two(void)
{
	machine_protect_setup(2);
	machine_protect_prime(1, 0);
}

/* --- a commit against one who writes -------------------------------------------------------------
 */

static void revoke(vp_id_t me, enum vtl by, uint32_t first, uint32_t count, uint32_t flags)
{
	enum protect_status status = machine_commit(me, by, first, count, READ_ONLY, flags);

	if (!protect_ok(status)) {
		explore_fail("a commit is refused");
		return;
	}
	for (uint32_t page = first; page < first + count; page++)
		machine_returned(me, page);
}

static void commit_against_access(uint32_t thread)
{
	if (thread == 0) {
		revoke(0, VTL2, 0, 2, 0);
		return;
	}
	machine_write_stay(1, 0);
	machine_write_stay(1, 0);
}

static void setup_empty(void)
{
	machine_protect_setup(2);
}

/* The entry must be split, and the other half may still be written. */
static void commit_half(uint32_t thread)
{
	if (thread == 0) {
		revoke(0, VTL2, 0, 1, 0);
		return;
	}
	machine_write_stay(1, 1);
	machine_write_stay(1, 0);
}

static void half_is_left(void)
{
	if (machine_protect_final(0) != READ_ONLY || machine_protect_final(1) != ACCESS_ALL)
		explore_fail("the tables do not say what was asked for");
}

static void commit_against_emulation(uint32_t thread)
{
	if (thread == 0) {
		revoke(0, VTL2, 0, 2, 0);
		return;
	}
	machine_emulate_write(1, 0);
	machine_emulate_write(1, 0);
}

static void commit_of_vtl1(uint32_t thread)
{
	if (thread == 0) {
		revoke(0, VTL1, 0, 2, 0);
		return;
	}
	machine_emulate_write(1, 0);
	machine_write_stay(1, 0);
}

/* Granting shoots nobody down; what is granted is there when it has returned. */
static void setup_read_only(void)
{
	machine_protect_setup(2);
	machine_protect_map(0, 2, READ_ONLY);
	machine_protect_prime(1, 0);
}

static void grant_then_revoke(uint32_t thread)
{
	if (thread == 0) {
		machine_commit(0, VTL2, 0, 2, ACCESS_ALL, 0);
		revoke(0, VTL2, 0, 2, 0);
		return;
	}
	machine_write_stay(1, 0);
	machine_write_stay(1, 0);
}

/* --- deferred ------------------------------------------------------------------------------------
 */

static void deferred_step(void *argument)
{
	(void)argument;
	explore_ghost[GHOST_DEFERRED] = 1;
}

static void stay_step(void *argument)
{
	const vp_id_t *vp = argument;

	explore_ghost[GHOST_STAY(*vp)] = explore_ghost[GHOST_DEFERRED];
}

static void bound_step(void *argument)
{
	const vp_id_t *vp = argument;

	if (explore_ghost[GHOST_STAY(*vp)])
		explore_fail("a deferred change outlives the next exit");
}

/* A stay that knows whether it began after the commit had returned. */
static void bounded_stay(vp_id_t vp, uint32_t page)
{
	explore_step(stay_step, &vp, "begins a stay");
	machine_enter(vp, VTL0);
	if (machine_can_write(vp, page))
		explore_step(bound_step, &vp, "writes");
	machine_write(vp, page);
	machine_run_on(vp);
	machine_exit(vp);
}

static void defer(vp_id_t me)
{
	if (machine_commit(me, VTL2, 0, 2, READ_ONLY, PROTECT_NOT_SENSITIVE) != PROTECT_DEFERRED)
		explore_fail("the commit is not deferred");
	explore_step(deferred_step, NULL, "the deferred commit returns");
}

static void deferred_bound(uint32_t thread)
{
	if (thread == 0) {
		defer(0);
		return;
	}
	bounded_stay(1, 0);
	bounded_stay(1, 0);
}

static void sync_pages(vp_id_t me, enum vtl by)
{
	if (protect_sync(&machine_protect, me, by) == PROTECT_SUSPENDED)
		machine_wait_for_holders(me, by);
	machine_returned(me, 0);
	machine_returned(me, 1);
}

static void deferred_sync(uint32_t thread)
{
	if (thread == 0) {
		defer(0);
		sync_pages(0, VTL2);
		return;
	}
	machine_write_stay(1, 0);
	machine_write_stay(1, 0);
}

static void deferred_sync_emulation(uint32_t thread)
{
	if (thread == 0) {
		defer(0);
		sync_pages(0, VTL1);
		return;
	}
	machine_emulate_write(1, 0);
	machine_emulate_write(1, 0);
}

static void deferred_sync_waits(uint32_t thread)
{
	if (thread == 0) {
		defer(0);
		sync_pages(0, VTL2);
		return;
	}
	machine_emulate_write(1, 0);
}

/* The tables say so already, and yet it is to be over now. */
static void deferred_then_sensitive(uint32_t thread)
{
	if (thread == 0) {
		defer(0);
		revoke(0, VTL2, 0, 2, 0);
		return;
	}
	machine_write_stay(1, 0);
	machine_write_stay(1, 0);
}

/* One has deferred it, another one wants it now. */
static void setup_deferred(void)
{
	machine_protect_setup(2);
	machine_protect_prime(1, 0);
	machine_commit(2, VTL2, 0, 2, READ_ONLY, PROTECT_NOT_SENSITIVE);
}

static void deferred_by_another(uint32_t thread)
{
	if (thread == 0) {
		revoke(0, VTL2, 0, 2, 0);
		return;
	}
	machine_write_stay(1, 0);
	machine_write_stay(1, 0);
}

/* --- two commits ---------------------------------------------------------------------------------
 */

/*
 * VP 2 has asked, for VTL1, and is suspended for VP 1's lock; its change is written. Whoever asks for
 * the same then has to wait for the same lock.
 */
static void setup_suspended(void)
{
	machine_protect_setup(2);
	machine_emulate_begin(1, 0);
	machine_commit_ask(2, VTL1, 0, 2, READ_ONLY, 0);
}

static void holder_between(uint32_t thread)
{
	if (thread == 1) {
		machine_emulate_end(1, 0);
		machine_write_stay(1, 0);
		return;
	}
	if (thread == 2) {
		machine_wait_for_holders(2, VTL1);
		machine_returned(2, 0);
		machine_returned(2, 1);
		return;
	}
	revoke(0, VTL2, 0, 2, 0);
}

static void holder_between_vtl1(uint32_t thread)
{
	if (thread == 1)
		machine_emulate_end(1, 0);
	else
		revoke(0, VTL1, 0, 2, 0);
}

/* Both hold TLB locks; VP 1's shootdown waits for VP 0's, and VP 0's commit is to wait for VP 1's. */
static void setup_holders(void)
{
	machine_protect_setup(2);
	machine_emulate_begin(0, 0);
	machine_emulate_begin(1, 0);
	protect_shoot(&machine_protect, 1, VTL2, VTL0, 0, (struct protect_pages){0, 0});
}

static void holders(uint32_t thread)
{
	if (thread == 0)
		revoke(0, VTL2, 0, 2, 0);
	else
		protect_wait(&machine_protect, 1);
	tlblock_release_own(&machine_tlblock, thread);
}

/* VP 2's sync, for VTL1, is suspended for VP 1's lock; so has to be another one. */
static void setup_sync_suspended(void)
{
	machine_protect_setup(2);
	machine_emulate_begin(1, 0);
	machine_commit(2, VTL2, 0, 2, READ_ONLY, PROTECT_NOT_SENSITIVE);
	protect_sync(&machine_protect, 2, VTL1);
}

static void sync_between(uint32_t thread)
{
	if (thread == 1)
		machine_emulate_end(1, 0);
	else
		sync_pages(0, VTL1);
}

/* Records of two at the same time. */
static void two_pins(uint32_t thread)
{
	protect_pin(&machine_protect, thread, GPA(2 * thread * MACHINE_PAGE_BYTES), PAGE_SIZE,
		PROTECT_PIN_OVERLAY, VTL2);
	explore_step(alone_step, NULL, "has pinned");
}

static void both_are_pinned(void)
{
	if (machine_protect.pin_count != 2 || explore_ghost[GHOST_DEFERRED] != 2)
		explore_fail("a record is lost");
}

/* The lock by itself: what one writes under it, the next one sees. */
static void lock_alone(uint32_t thread)
{
	struct protect_held held = {{0}};

	protect_lock_take(&machine_protect.record_lock, &held, PROTECT_LAYER_RECORD, 0);
	if (atomic_u64_load(&machine_pte[1], memory_order_relaxed) != 0)
		explore_fail("two hold one lock");
	atomic_u64_store(&machine_pte[1], 1 + thread, memory_order_relaxed);
	atomic_u64_store(&machine_pte[0],
		atomic_u64_load(&machine_pte[0], memory_order_relaxed) + 1, memory_order_relaxed);
	atomic_u64_store(&machine_pte[1], 0, memory_order_relaxed);
	protect_lock_give(&machine_protect.record_lock, &held, PROTECT_LAYER_RECORD, 0);
}

static void all_have_counted(void)
{
	if (explore_latest_u64(&machine_pte[0]) != 2)
		explore_fail("what was written under the lock is lost");
}

/* Different pages of one entry, under region locks of their own: both are written. */
static void setup_nothing(void)
{
	machine_protect_setup(2);
	machine_protect_map(0, 2, ACCESS_NONE);
	machine_commit_prepare(0, VTL1, 0, 1, READ_ONLY, 0);
	machine_commit_prepare(1, VTL1, 1, 1, READ_ONLY | ACCESS_EXECUTE, 0);
}

static void halves(uint32_t thread)
{
	if (machine_commit_prepared(thread) != PROTECT_DONE)
		explore_fail("a commit is refused");
}

static void both_are_written(void)
{
	if (machine_protect_final(0) != READ_ONLY ||
		machine_protect_final(1) != (READ_ONLY | ACCESS_EXECUTE))
		explore_fail("the tables do not say what was asked for");
}

/* --- table pages ---------------------------------------------------------------------------------
 */

/* Pages 0 and 1 differ; VP 1 keeps a pointer to the table, and there is no other table page. */
static void setup_split(void)
{
	machine_protect_setup(1);
	machine_protect_map(0, 1, READ_ONLY);
	machine_protect_prime(1, 0);
}

/* A permission that needs a table page, and there is one by now. */
static void needs_table(vp_id_t me)
{
	if (!protect_ok(machine_commit(me, VTL2, 2, 1, READ_ONLY, 0)))
		explore_fail("a table page that was freed cannot be had");
}

/* Granting merges: the table page is free only when VP 1 does not walk it any more. */
static void merge_against_walk(uint32_t thread)
{
	if (thread == 0) {
		machine_commit(0, VTL2, 0, 1, ACCESS_ALL, 0);
		needs_table(0);
		return;
	}
	machine_write_stay(1, 1);
	machine_write_stay(1, 1);
}

/* Revoking merges. */
static void merge_and_shoot(uint32_t thread)
{
	if (thread == 0) {
		revoke(0, VTL2, 1, 1, 0);
		needs_table(0);
		return;
	}
	machine_write_stay(1, 1);
	machine_write_stay(1, 1);
}

/* VTL2 walks. A first attempt may find the page waiting for its lock; a second one must not. */
static void merge_against_emulation(uint32_t thread)
{
	if (thread == 0) {
		machine_commit(0, VTL2, 0, 1, ACCESS_ALL, 0);
		if (!protect_ok(machine_commit(0, VTL2, 2, 1, READ_ONLY, 0)))
			needs_table(0);
		return;
	}
	machine_emulate_write(1, 1);
	machine_emulate_write(1, 1);
}

/* Revoking merges, for VTL1, which may be suspended for VTL2's walk. */
static void merge_and_shoot_emulation(uint32_t thread)
{
	if (thread == 0) {
		revoke(0, VTL1, 1, 1, 0);
		machine_commit(0, VTL1, 2, 1, READ_ONLY, 0);
		return;
	}
	machine_emulate_write(1, 1);
	machine_emulate_write(1, 1);
}

/* Merging revokes and is deferred: nobody waits, and the page stays out of reach. */
static void merge_deferred(uint32_t thread)
{
	if (thread == 0) {
		machine_commit(0, VTL2, 1, 1, READ_ONLY, PROTECT_NOT_SENSITIVE);
		needs_table(0);
		return;
	}
	machine_write_stay(1, 1);
	machine_write_stay(1, 1);
}

static void page_2_alone(void)
{
	if (machine_protect_final(3) != ACCESS_ALL)
		explore_fail("the tables do not say what was asked for");
}

/* --- what comes while a shootdown is under way ---------------------------------------------------
 */

/* VP 0 is about to sync, for a change of pages 2 and 3; VP 1 grants, which merges. */
static void setup_merge_late(void)
{
	machine_protect_setup(1);
	machine_commit(2, VTL2, 2, 2, READ_ONLY, PROTECT_NOT_SENSITIVE);
	machine_protect_map(0, 1, READ_ONLY);
	machine_enter(2, VTL0);
	machine_commit_prepare(1, VTL1, 0, 1, ACCESS_ALL, 0);
}

static void merge_late(uint32_t thread)
{
	if (thread == 0) {
		protect_sync(&machine_protect, 0, VTL1);
	} else if (thread == 1) {
		machine_commit_prepared(1);
	} else {
		machine_exit(2);
		machine_enter(2, VTL0);
		machine_write(2, 1);
		machine_write(2, 0);
		machine_exit(2);
	}
}

/* --- pins ----------------------------------------------------------------------------------------
 */

static void pinned_step(void *argument)
{
	const uint32_t *access = argument;

	explore_ghost[GHOST_DEFERRED] = *access + 1;
}

static void pin_against_commit(uint32_t thread)
{
	uint32_t access;

	if (thread == 1) {
		machine_commit(1, VTL2, 0, 2, READ_ONLY, 0);
		return;
	}
	protect_pin(&machine_protect, 0, GPA(0), MACHINE_PAGE_BYTES, PROTECT_PIN_OVERLAY, VTL2);
	tlblock_take(&machine_tlblock, 0, VTL0, VTL2);
	access = protect_access(&machine_protect, VTL0, GPA(0));
	explore_step(pinned_step, &access, "the page is pinned");
	tlblock_release_own(&machine_tlblock, 0);
}

static void pinned_as_it_was(void)
{
	if (machine_protect_final(0) + 1 != explore_ghost[GHOST_DEFERRED])
		explore_fail("a pinned page was changed");
}

const struct explore_scenario protect_scenarios[] = {
	{"protect-access", "a commit against writes", 2, true, setup_two, commit_against_access,
		NULL, false},
	{"protect-fill", "a commit against walks", 2, true, setup_empty, commit_against_access,
		NULL, false},
	{"protect-split", "a commit that splits against walks", 2, true, setup_empty, commit_half,
		half_is_left, false},
	{"protect-emulate", "a commit against VTL2's writes", 2, true, setup_empty,
		commit_against_emulation, NULL, false},
	{"protect-vtl1", "a commit of VTL1's, suspended for a lock", 2, true, setup_two,
		commit_of_vtl1, NULL, false},
	{"protect-grant", "granted, then revoked", 2, true, setup_read_only, grant_then_revoke,
		NULL, false},
	{"protect-defer", "a deferred change against its bound", 2, true, setup_two, deferred_bound,
		NULL, false},
	{"protect-sync", "a deferred change and a sync", 2, true, setup_two, deferred_sync, NULL,
		false},
	{"protect-sync-emulate", "the same against VTL2's writes", 2, true, setup_empty,
		deferred_sync_emulation, NULL, false},
	{"protect-sync-wait", "VTL2's sync against VTL2's writes", 2, true, setup_empty,
		deferred_sync_waits, NULL, false},
	{"protect-defer-now", "deferred, then wanted at once", 2, true, setup_two,
		deferred_then_sensitive, NULL, false},
	{"protect-defer-other", "deferred by one, wanted at once by another", 2, true,
		setup_deferred, deferred_by_another, NULL, false},
	{"protect-lock", "the lock alone", 2, true, setup_empty, lock_alone, all_have_counted,
		false},
	{"protect-pins", "the records of two", 2, true, setup_empty, two_pins, both_are_pinned,
		false},
	{"protect-holders", "each waits for the other's TLB lock", 2, true, setup_holders, holders,
		NULL, false},
	{"protect-sync-between", "two syncs and a lock holder between them", 2, true,
		setup_sync_suspended, sync_between, NULL, false},
	{"protect-halves", "two commits on one table", 2, true, setup_nothing, halves,
		both_are_written, false},
	{"protect-merge", "a table page merged away against a walk", 2, true, setup_split,
		merge_against_walk, page_2_alone, false},
	{"protect-merge-shoot", "the same, with a shootdown", 2, true, setup_split, merge_and_shoot,
		page_2_alone, false},
	{"protect-merge-defer", "the same, deferred", 2, true, setup_split, merge_deferred,
		page_2_alone, false},
	{"protect-merge-emulate", "a table page merged away under VTL2's walk", 2, true,
		setup_split, merge_against_emulation, page_2_alone, false},
	{"protect-merge-vtl1", "the same, with a shootdown for VTL1", 2, true, setup_split,
		merge_and_shoot_emulation, page_2_alone, false},
	{"protect-pin", "a pin against a commit", 2, true, setup_empty, pin_against_commit,
		pinned_as_it_was, false},
	{"protect-suspended", "two commits of VTL1's and a lock holder between them", 2, true,
		setup_suspended, holder_between_vtl1, NULL, false},
	{"hunt-merge-late", "a table page merged away during a shootdown", 3, false,
		setup_merge_late, merge_late, NULL, false},
	{"protect-between", "two commits and a lock holder between them", 3, false, setup_suspended,
		holder_between, NULL, false},
};
const uint32_t protect_scenario_count = ARRAY_SIZE(protect_scenarios);
