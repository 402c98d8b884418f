/*
 * The image's nested tables by themselves: writers of different shards, who share the pool of table
 * pages and no lock, and VTL2's walks. What core/protect adds, waiting above all, is in
 * scenarios_protect.c.
 */
#include "machine_protect.h"
#include "scenarios.h"

#define READ_ONLY ACCESS_READ
#define HALF	  (MACHINE_PAGES / 2) /* the first page of the other shard */

/* Ghost words: pages that were taken and are in no table; writers that got no page. */
#define GHOST_TAKEN   8
#define GHOST_REFUSED 9

static void setup_with(uint32_t tables)
{
	machine_protect_setup(tables);
	/* Lists of pages are each writer's own, until the pages are free. */
	explore_watch_locks(machine_npt.pool.free, sizeof(*machine_npt.pool.free));
	explore_watch_locks(&machine_npt.pool.left, sizeof(machine_npt.pool.left));
}

/* As a commit does it, under its shard's lock. False: there is no table page. */
static bool change(gpa_t base, uint64_t bytes, uint32_t access, struct protect_pages *freed)
{
	struct protect_range range = {
		.base = base.value, .bytes = bytes, .access = (uint8_t)access};
	struct protect_batch batch = {.target = VTL0, .ranges = &range, .count = 1};

	if (!npt_protect_ops.prepare(&machine_npt, &batch))
		return false;
	npt_protect_ops.write(&machine_npt, &batch);
	*freed = batch.freed;
	return true;
}

static bool change_page(uint32_t page, uint32_t access, struct protect_pages *freed)
{
	return change(GPA(page * MACHINE_PAGE_BYTES), MACHINE_PAGE_BYTES, access, freed);
}

static void ghost_step(void *argument)
{
	explore_ghost[*(const uint32_t *)argument]++;
}

static void count(uint32_t ghost)
{
	explore_step(ghost_step, &ghost, ghost == GHOST_TAKEN ? "has a page" : "gets no page");
}

/* The pool when `used` pages are in use, besides those that always are. */
static void pool_holds(uint32_t used)
{
	const struct npt_pool *pool = &machine_npt.pool;
	uint64_t bits = explore_latest_u64(pool->free);
	uint32_t left = npt_pool_left(pool);

	if ((uint32_t)__builtin_popcountll(bits) != left)
		explore_fail("the pool does not know how many pages it has");
	if (left + used + MACHINE_TABLES_FIXED != pool->pages)
		explore_fail("a table page is lost, or handed out twice");
}

/* --- a split against VTL2's walks ----------------------------------------------------------------
 */

static void setup_two(void)
{
	setup_with(2);
}

/* Two levels are split, for one page of 4 KiB. */
static void split_against_walks(uint32_t thread)
{
	struct protect_pages freed;
	uint32_t access;

	if (thread == 0) {
		if (!change(GPA(0), PAGE_SIZE, READ_ONLY, &freed))
			explore_fail("there are table pages, and none is had");
		return;
	}
	if (npt_protect_ops.access(&machine_npt, VTL0, GPA(PAGE_SIZE)) != ACCESS_ALL)
		explore_fail("a walk finds what nobody has asked for");
	access = npt_protect_ops.access(&machine_npt, VTL0, GPA(0));
	if (access != ACCESS_ALL && access != READ_ONLY)
		explore_fail("a walk finds what nobody has asked for");
}

static void page_is_split(void)
{
	if (npt_protect_ops.access(&machine_npt, VTL0, GPA(0)) != READ_ONLY ||
		npt_protect_ops.access(&machine_npt, VTL0, GPA(PAGE_SIZE)) != ACCESS_ALL)
		explore_fail("the tables do not say what was asked for");
	pool_holds(2);
}

/* --- two writers, one pool -----------------------------------------------------------------------
 */

/* Each needs a page, and there are two. */
static void two_splits(uint32_t thread)
{
	struct protect_pages freed;

	if (!change_page(thread * HALF, READ_ONLY, &freed))
		explore_fail("there are table pages, and none is had");
}

static void both_are_split(void)
{
	for (uint32_t page = 0; page < MACHINE_PAGES; page++) {
		if (machine_protect_final(page) != (page % HALF ? ACCESS_ALL : READ_ONLY))
			explore_fail("the tables do not say what was asked for");
	}
	pool_holds(2);
}

/* Each needs a page, and there is one. */
static void setup_one(void)
{
	setup_with(1);
}

static void one_for_two(uint32_t thread)
{
	struct protect_pages freed;

	if (!change_page(thread * HALF, READ_ONLY, &freed))
		count(GHOST_REFUSED);
}

static void one_is_split(void)
{
	uint32_t split = 0;

	for (uint32_t page = 0; page < MACHINE_PAGES; page++)
		split += machine_protect_final(page) == READ_ONLY;
	if (split != 1 || explore_ghost[GHOST_REFUSED] != 1)
		explore_fail("one page for two tables");
	pool_holds(1);
}

/*
 * The one page is in the first half's tables. One writer changes what it says, which merges it away,
 * and gives it back; nobody walks it. The other one may get it.
 */
static void setup_merge(void)
{
	struct protect_pages freed;

	setup_with(1);
	change_page(0, READ_ONLY, &freed);
}

static void merge_and_split(uint32_t thread)
{
	struct protect_pages freed;

	if (thread == 0) {
		if (!change_page(1, READ_ONLY, &freed))
			explore_fail("what needs no table page is refused");
		machine_protect_release(freed);
	} else if (!change_page(HALF, READ_ONLY, &freed)) {
		count(GHOST_REFUSED);
	}
}

static void merged_and_split(void)
{
	uint32_t access = explore_ghost[GHOST_REFUSED] ? ACCESS_ALL : READ_ONLY;

	if (machine_protect_final(0) != READ_ONLY || machine_protect_final(1) != READ_ONLY ||
		machine_protect_final(HALF) != access ||
		machine_protect_final(HALF + 1) != ACCESS_ALL)
		explore_fail("the tables do not say what was asked for");
	pool_holds(!explore_ghost[GHOST_REFUSED]);
}

/*
 * Two pages go back in one list, and a third is free: who has reserved that may get the first one, and
 * put it into a list of their own at once.
 */
static struct protect_pages list;

static void setup_list(void)
{
	struct npt_pool *pool = &machine_npt.pool;

	setup_with(3);
	npt_pool_reserve(pool, 2);
	list = npt_pool_list(pool, npt_pool_take(pool));
	list = npt_pool_join(pool, list, npt_pool_list(pool, npt_pool_take(pool)));
}

static void list_goes_back(uint32_t thread)
{
	struct npt_pool *pool = &machine_npt.pool;

	if (thread == 0) {
		npt_protect_ops.release(&machine_npt, list);
		return;
	}
	for (uint32_t i = 0; i < 3 && npt_pool_reserve(pool, 1); i++) {
		npt_pool_list(pool, npt_pool_take(pool));
		count(GHOST_TAKEN);
	}
}

static void all_pages_are_there(void)
{
	pool_holds((uint32_t)explore_ghost[GHOST_TAKEN]);
}

const struct explore_scenario npt_scenarios[] = {
	{"npt-split", "a split against VTL2's walks", 2, true, setup_two, split_against_walks,
		page_is_split, false},
	{"npt-two", "two writers take table pages", 2, true, setup_two, two_splits, both_are_split,
		false},
	{"npt-one", "two writers, one table page", 2, true, setup_one, one_for_two, one_is_split,
		false},
	{"npt-merge", "one merges, the other splits", 2, true, setup_merge, merge_and_split,
		merged_and_split, false},
	{"npt-list", "a list of table pages goes back", 2, true, setup_list, list_goes_back,
		all_pages_are_there, false},
};
const uint32_t npt_scenario_count = ARRAY_SIZE(npt_scenarios);
