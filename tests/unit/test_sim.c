/* The machine of threads, for a short time, and the parts that it judges with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "platform/sim/sim.h"
#include "platform/sim/sim_judge.h"
#include "platform/sim/sim_npt.h"
#include "platform/sim/sim_tlb.h"

static struct sim_table table;
static struct sim_tlb tlb;

static const struct sim_place place = {.space = 1, .gig = 0, .region = 2, .page = 3};

static int setup(void **state)
{
	(void)state;
	sim_table_init(&table);
	memset(&tlb, 0, sizeof(tlb));
	return 0;
}

static void test_split_and_merge(void **state)
{
	struct sim_place beside = place;
	struct sim_translation before = sim_table_walk(&table, place);
	uint64_t version;

	(void)state;
	beside.page++;
	assert_int_equal(before.page_bits, 21);
	version = sim_table_change_page(&table, place, SIM_WRITE);
	assert_int_equal(sim_table_walk(&table, place).page_bits, 12);
	assert_int_equal(sim_entry_version(sim_table_walk(&table, place).entry), version);
	assert_false(sim_table_walk(&table, place).entry & SIM_EXECUTE);
	assert_int_equal(sim_table_walk(&table, beside).entry, before.entry);
	version = sim_table_change_region(&table, place, SIM_WRITE | SIM_EXECUTE);
	assert_int_equal(sim_table_walk(&table, beside).page_bits, 21);
	assert_int_equal(sim_entry_version(sim_table_walk(&table, beside).entry), version);
}

static void test_retire(void **state)
{
	struct sim_place beside = place;

	(void)state;
	beside.page++;
	assert_int_equal(sim_table_oldest(&table, place), 0);
	sim_table_retire(&table, place, 12, 77);
	assert_int_equal(sim_table_oldest(&table, place), 77);
	assert_int_equal(sim_table_oldest(&table, beside), 0);
	sim_table_retire(&table, place, 21, 78);
	assert_int_equal(sim_table_oldest(&table, beside), 78);
	beside.region++;
	assert_int_equal(sim_table_oldest(&table, beside), 0);
	sim_table_retire(&table, place, 30, 79);
	assert_int_equal(sim_table_oldest(&table, beside), 79);
}

static void fill(struct sim_place at)
{
	sim_tlb_fill(&tlb, at, sim_table_walk(&table, at));
}

static void test_tlb(void **state)
{
	struct sim_place global = {.space = 0, .gig = SIM_GIG_GLOBAL};
	struct sim_place other_space = place;
	struct flush_range range;

	(void)state;
	other_space.space = 0;
	assert_null(sim_tlb_find(&tlb, place));
	fill(place);
	assert_non_null(sim_tlb_find(&tlb, place));
	assert_null(sim_tlb_find(&tlb, other_space));
	fill(global);
	global.space = 1;
	assert_non_null(sim_tlb_find(&tlb, global)); /* global ones serve every space */

	/* One page of a large one drops the large one; in its own space only. */
	assert_true(flush_range_decode(sim_place_gva(place).value, false, &range));
	sim_tlb_invalidate(&tlb, &range, false, 0);
	assert_non_null(sim_tlb_find(&tlb, place));
	sim_tlb_invalidate(&tlb, &range, false, 1);
	assert_null(sim_tlb_find(&tlb, place));
	fill(place);
	sim_tlb_invalidate(&tlb, &range, true, 0);
	assert_null(sim_tlb_find(&tlb, place));

	fill(place);
	sim_tlb_invalidate_full(&tlb, FLUSH_FULL_NON_GLOBAL);
	assert_null(sim_tlb_find(&tlb, place));
	assert_non_null(sim_tlb_find(&tlb, global));
	sim_tlb_invalidate_full(&tlb, FLUSH_FULL_ALL);
	assert_null(sim_tlb_find(&tlb, global));
}

/* --- the second stage ----------------------------------------------------------------------------
 */

static struct sim_npt_page npt_pages[3];
static struct sim_npt_pool pool;
static struct sim_npt npt;
static struct sim_nested nested;

static int setup_npt(void **state)
{
	(void)state;
	memset(npt_pages, 0, sizeof(npt_pages));
	memset(&nested, 0, sizeof(nested));
	sim_npt_pool_init(&pool, npt_pages, ARRAY_SIZE(npt_pages));
	sim_npt_init(&npt, &pool, ACCESS_ALL);
	return 0;
}

/* Writes one range; what is freed is left to the caller. False: no table pages. */
static bool write_range(uint64_t base, uint64_t bytes, uint32_t access, struct protect_batch *batch)
{
	static struct protect_range range;

	range = (struct protect_range){.base = base, .bytes = bytes, .access = (uint8_t)access};
	*batch = (struct protect_batch){.ranges = &range, .count = 1};
	if (!sim_npt_prepare(&npt, batch))
		return false;
	sim_npt_write(&npt, batch);
	return true;
}

static uint32_t access_at(uint64_t gpa)
{
	bool freed = false;
	uint32_t access = sim_npt_access(&npt, GPA(gpa), &freed);

	assert_false(freed);
	return access;
}

static void test_npt_split_and_merge(void **state)
{
	struct protect_batch batch;

	(void)state;
	assert_true(write_range(PAGE_SIZE, PAGE_SIZE, ACCESS_READ, &batch));
	assert_true(batch.lost);
	assert_int_equal(batch.entries, 3); /* two tables and the page */
	assert_int_equal(batch.ranges[0].old, ACCESS_ALL);
	assert_int_equal(access_at(PAGE_SIZE), ACCESS_READ);
	assert_int_equal(access_at(0), ACCESS_ALL);
	assert_int_equal(access_at(SIZE_2M), ACCESS_ALL);
	assert_int_equal(pool.used.value, 2);

	/* A second region of 2 MiB takes the last page, a second gibibyte finds none. */
	assert_true(write_range(SIZE_2M, PAGE_SIZE, ACCESS_READ, &batch));
	assert_false(write_range(SIZE_1G, PAGE_SIZE, ACCESS_READ, &batch));
	assert_int_equal(access_at(SIZE_1G), ACCESS_ALL);

	/* All as it was: three pages are out of the tables, and free when they are released. */
	assert_true(write_range(0, SIZE_1G, ACCESS_ALL, &batch));
	assert_false(batch.lost);
	assert_int_equal(npt.gig[0].value, SIM_NPT_LEAF | ACCESS_ALL);
	assert_int_equal(pool.used.value, 3);
	sim_npt_release(&pool, batch.freed);
	assert_int_equal(pool.used.value, 0);
}

static void test_npt_pointers_are_kept(void **state)
{
	struct protect_batch batch;
	bool freed = false;

	(void)state;
	assert_true(write_range(PAGE_SIZE, PAGE_SIZE, ACCESS_NONE, &batch));
	assert_int_equal(sim_nested_access(&nested, &npt, GPA(0), &freed), ACCESS_ALL);
	/* What is in the cache stays as it was, until it is flushed. */
	assert_true(write_range(0, PAGE_SIZE, ACCESS_READ, &batch));
	assert_int_equal(sim_nested_access(&nested, &npt, GPA(0), &freed), ACCESS_ALL);
	assert_int_equal(sim_nested_access(&nested, &npt, GPA(2 * PAGE_SIZE), &freed), ACCESS_ALL);
	assert_false(freed);
	/* The table is merged away: a walk by the pointer that was kept is found out. */
	assert_true(write_range(0, SIZE_2M, ACCESS_READ, &batch));
	assert_int_equal(sim_nested_access(&nested, &npt, GPA(3 * PAGE_SIZE), &freed), ACCESS_READ);
	assert_false(freed);
	sim_npt_release(&pool, batch.freed);
	sim_nested_access(&nested, &npt, GPA(4 * PAGE_SIZE), &freed);
	assert_true(freed);
	freed = false;
	sim_nested_flush(&nested);
	assert_int_equal(sim_nested_access(&nested, &npt, GPA(0), &freed), ACCESS_READ);
	assert_false(freed);
}

/* --- the judge -----------------------------------------------------------------------------------
 */

static struct sim_judge judge;
static struct sim_judged page;

static uint32_t truth(void *argument)
{
	return *(const uint32_t *)argument;
}

static bool allowed(uint32_t access, uint64_t entered)
{
	struct sim_look look = sim_judge_look(&judge, &page);

	return sim_judge_allows(&page, &look, access, entered);
}

static bool end(enum sim_change how, uint32_t access, uint32_t now)
{
	bool flipped;

	return sim_judge_end(&judge, &page, how, access, truth, &now, &flipped);
}

static int setup_judge(void **state)
{
	(void)state;
	memset(&judge, 0, sizeof(judge));
	sim_judge_start(&page, ACCESS_ALL);
	return 0;
}

static void test_judge_revoke(void **state)
{
	struct sim_look look = sim_judge_look(&judge, &page);

	(void)state;
	sim_judge_begin(&page, ACCESS_READ);
	assert_true(allowed(ACCESS_WRITE, 0));
	assert_true(end(SIM_CHANGE_DONE, ACCESS_READ, 0));
	assert_false(allowed(ACCESS_WRITE, 0));
	assert_true(allowed(ACCESS_READ, 0));
	/* An access that began before the return is no concern. */
	assert_true(sim_judge_allows(&page, &look, ACCESS_WRITE, 0));
	/* One that began when it was forbidden, and it was granted meanwhile, neither. */
	look = sim_judge_look(&judge, &page);
	sim_judge_begin(&page, ACCESS_ALL);
	assert_true(sim_judge_allows(&page, &look, ACCESS_WRITE, 0));
	assert_true(end(SIM_CHANGE_REFUSED, ACCESS_ALL, 0));
	assert_false(allowed(ACCESS_WRITE, 0));
}

static void test_judge_deferred(void **state)
{
	uint64_t before = sim_judge_now(&judge);

	(void)state;
	sim_judge_begin(&page, ACCESS_READ);
	assert_true(end(SIM_CHANGE_DEFERRED, ACCESS_READ, 0));
	/* Whoever went in before may; who goes in now may not. */
	assert_true(allowed(ACCESS_WRITE, before));
	assert_false(allowed(ACCESS_WRITE, sim_judge_now(&judge)));
	sim_judge_synced(&judge, sim_judge_now(&judge));
	assert_false(allowed(ACCESS_WRITE, before));
}

static void test_judge_deferred_then_now(void **state)
{
	uint64_t before = sim_judge_now(&judge);

	(void)state;
	sim_judge_begin(&page, ACCESS_READ);
	assert_true(end(SIM_CHANGE_DEFERRED, ACCESS_READ, 0));
	sim_judge_begin(&page, ACCESS_READ);
	assert_true(allowed(ACCESS_WRITE, before));
	assert_true(end(SIM_CHANGE_DONE, ACCESS_READ, 0));
	assert_false(allowed(ACCESS_WRITE, before));
}

static void test_judge_overlap(void **state)
{
	(void)state;
	sim_judge_begin(&page, ACCESS_READ);
	sim_judge_begin(&page, ACCESS_NONE);
	assert_true(end(SIM_CHANGE_DONE, ACCESS_READ, ACCESS_NONE));
	assert_true(allowed(ACCESS_WRITE, 0)); /* the other one has not returned */
	assert_true(end(SIM_CHANGE_DONE, ACCESS_NONE, ACCESS_READ)); /* but came first */
	assert_true(allowed(ACCESS_READ, 0));
	assert_false(allowed(ACCESS_WRITE, 0));
	/* Nobody has asked for this. */
	sim_judge_begin(&page, ACCESS_READ);
	sim_judge_begin(&page, ACCESS_NONE);
	assert_true(end(SIM_CHANGE_DONE, ACCESS_READ, 0));
	assert_false(end(SIM_CHANGE_DONE, ACCESS_NONE, ACCESS_ALL));
}

/* --- the machine ---------------------------------------------------------------------------------
 */

static void run_machine(uint32_t vps, bool permissions)
{
	struct sim_config config = {.vps = vps,
		.milliseconds = 1000,
		.seed = vps,
		.permissions = permissions,
		.flips = permissions ? 10000 : 0};
	struct sim_result result;

	sim_run(&config, &result);
	if (result.failure)
		fprintf(stderr, "%s\n%s", result.failure, result.report);
	assert_null(result.failure);
	assert_true(result.accesses > 0);
	assert_true(result.flushes > 0);
	assert_true(!permissions || result.flips >= config.flips);
	assert_true(!permissions || result.shootdowns > 0);
}

static void test_one_vp(void **state)
{
	(void)state;
	run_machine(1, false);
}

static void test_two_vps(void **state)
{
	(void)state;
	run_machine(2, false);
}

static void test_four_vps(void **state)
{
	(void)state;
	run_machine(4, false);
}

static void test_permissions_one_vp(void **state)
{
	(void)state;
	run_machine(1, true);
}

static void test_permissions_two_vps(void **state)
{
	(void)state;
	run_machine(2, true);
}

static void test_permissions_four_vps(void **state)
{
	(void)state;
	run_machine(4, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_split_and_merge, setup),
		cmocka_unit_test_setup(test_retire, setup),
		cmocka_unit_test_setup(test_tlb, setup),
		cmocka_unit_test_setup(test_npt_split_and_merge, setup_npt),
		cmocka_unit_test_setup(test_npt_pointers_are_kept, setup_npt),
		cmocka_unit_test_setup(test_judge_revoke, setup_judge),
		cmocka_unit_test_setup(test_judge_deferred, setup_judge),
		cmocka_unit_test_setup(test_judge_deferred_then_now, setup_judge),
		cmocka_unit_test_setup(test_judge_overlap, setup_judge),
		cmocka_unit_test(test_one_vp),
		cmocka_unit_test(test_two_vps),
		cmocka_unit_test(test_four_vps),
		cmocka_unit_test(test_permissions_one_vp),
		cmocka_unit_test(test_permissions_two_vps),
		cmocka_unit_test(test_permissions_four_vps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
