/* The machine of threads, for a short time, and the parts that it judges with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "platform/sim/sim.h"
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

static void run_machine(uint32_t vps)
{
	struct sim_config config = {.vps = vps, .milliseconds = 1000, .seed = vps};
	struct sim_result result;

	sim_run(&config, &result);
	if (result.failure)
		fprintf(stderr, "%s\n%s", result.failure, result.report);
	assert_null(result.failure);
	assert_true(result.accesses > 0);
	assert_true(result.flushes > 0);
}

static void test_one_vp(void **state)
{
	(void)state;
	run_machine(1);
}

static void test_two_vps(void **state)
{
	(void)state;
	run_machine(2);
}

static void test_four_vps(void **state)
{
	(void)state;
	run_machine(4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_split_and_merge, setup),
		cmocka_unit_test_setup(test_retire, setup),
		cmocka_unit_test_setup(test_tlb, setup),
		cmocka_unit_test(test_one_vp),
		cmocka_unit_test(test_two_vps),
		cmocka_unit_test(test_four_vps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
