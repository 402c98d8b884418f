/* TLB locks, one thread at a time: who waits for whom, who is woken. Races are for verify/explore.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "core/tlblock/tlblock.h"

#define VPS 40 /* more than one word of waiters */

static struct run_vp run_vps[VPS];
static struct run run;
static struct tlblock_vp vps[VPS];
static struct atomic_u64 waiters[TLBLOCK_WAITERS_NEEDED(VPS)];
static struct tlblock tlblock;
static uint16_t table[VPS];
static struct vpset_map map;
static uint32_t kicks[VPS];

static void kick(void *platform, vp_id_t target)
{
	(void)platform;
	kicks[target]++;
	run_idle_end(&run, target);
}

static const struct run_ops ops = {.kick = kick};

static int setup(void **state)
{
	(void)state;
	memset(vps, 0, sizeof(vps));
	memset(waiters, 0, sizeof(waiters));
	memset(kicks, 0, sizeof(kicks));
	for (uint16_t i = 0; i < VPS; i++)
		table[i] = i;
	map = (struct vpset_map){table, VPS, VPS};
	run_init(&run, run_vps, VPS, &ops, NULL);
	tlblock_init(&tlblock, vps, waiters, &run);
	return 0;
}

static bool suspend(vp_id_t waiter, enum vtl caller, enum vtl vtl)
{
	struct vpset all = vpset_make_all(&map);

	return tlblock_suspend(&tlblock, waiter, caller, &all, vtl);
}

static void test_nobody_holds(void **state)
{
	(void)state;
	assert_false(suspend(0, VTL0, VTL0));
	assert_false(tlblock_is_suspended(&tlblock, 0, VTL0));
}

static void test_last_holder_wakes(void **state)
{
	(void)state;
	tlblock_take(&tlblock, 7, VTL0, VTL2);
	tlblock_take(&tlblock, 8, VTL0, VTL2);
	tlblock_take(&tlblock, 8, VTL0, VTL2); /* twice is once */
	assert_true(suspend(35, VTL0, VTL0));
	assert_true(tlblock_is_suspended(&tlblock, 35, VTL0));
	assert_false(tlblock_is_suspended(&tlblock, 35, VTL1)); /* a higher VTL stays runnable */
	run_idle_begin(&run, 35);
	/* Who takes the lock from now on is not waited for. */
	tlblock_take(&tlblock, 9, VTL0, VTL2);
	tlblock_release_own(&tlblock, 7);
	assert_int_equal(kicks[35], 0);
	assert_true(tlblock_is_suspended(&tlblock, 35, VTL0));
	tlblock_release_own(&tlblock, 8);
	assert_int_equal(kicks[35], 1);
	assert_false(tlblock_is_suspended(&tlblock, 35, VTL0));
	tlblock_release_own(&tlblock, 9);
	assert_int_equal(kicks[35], 1);
}

static void test_no_kick_unless_idle(void **state)
{
	(void)state;
	tlblock_take(&tlblock, 7, VTL0, VTL2);
	assert_true(suspend(1, VTL0, VTL0));
	run_enter_begin(&run, 1, VTL1);
	tlblock_release_own(&tlblock, 7);
	assert_int_equal(kicks[1], 0);
	assert_false(tlblock_is_suspended(&tlblock, 1, VTL0));
}

static void test_other_vtl_and_own_lock_do_not_count(void **state)
{
	(void)state;
	tlblock_take(&tlblock, 7, VTL1, VTL2);
	tlblock_take(&tlblock, 1, VTL0, VTL2);
	assert_false(suspend(1, VTL0, VTL0));
	assert_true(suspend(1, VTL1, VTL1));
	tlblock_release_own(&tlblock, 7);
	assert_false(tlblock_is_suspended(&tlblock, 1, VTL1));
}

static void test_vtl1_holds_long(void **state)
{
	(void)state;
	tlblock_take(&tlblock, 7, VTL0, VTL1);
	/* VTL0 waits for VTL1's lock; VTL1 and VTL2 do not: they would wait for each other. */
	assert_false(suspend(2, VTL1, VTL0));
	assert_false(suspend(3, VTL2, VTL0));
	assert_true(suspend(1, VTL0, VTL0));
	tlblock_release_own(&tlblock, 7); /* VTL2's are released at entry, VTL1's are not */
	assert_true(tlblock_is_suspended(&tlblock, 1, VTL0));
	tlblock_release(&tlblock, 7, VTL0, VTL1);
	assert_false(tlblock_is_suspended(&tlblock, 1, VTL0));
}

static void test_two_wait_for_each_other(void **state)
{
	(void)state;
	tlblock_take(&tlblock, 1, VTL0, VTL2);
	tlblock_take(&tlblock, 2, VTL0, VTL2);
	assert_true(suspend(1, VTL0, VTL0));
	assert_true(suspend(2, VTL0, VTL0));
	tlblock_release_own(&tlblock, 1);
	tlblock_release_own(&tlblock, 2);
	assert_false(tlblock_is_suspended(&tlblock, 1, VTL0));
	assert_false(tlblock_is_suspended(&tlblock, 2, VTL0));
}

static void test_many_waiters(void **state)
{
	(void)state;
	tlblock_take(&tlblock, 0, VTL0, VTL2);
	for (vp_id_t vp = 1; vp < VPS; vp++) {
		assert_true(suspend(vp, VTL0, VTL0));
		run_idle_begin(&run, vp);
	}
	tlblock_release_own(&tlblock, 0);
	for (vp_id_t vp = 1; vp < VPS; vp++) {
		assert_false(tlblock_is_suspended(&tlblock, vp, VTL0));
		assert_int_equal(kicks[vp], 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_nobody_holds, setup),
		cmocka_unit_test_setup(test_last_holder_wakes, setup),
		cmocka_unit_test_setup(test_no_kick_unless_idle, setup),
		cmocka_unit_test_setup(test_other_vtl_and_own_lock_do_not_count, setup),
		cmocka_unit_test_setup(test_vtl1_holds_long, setup),
		cmocka_unit_test_setup(test_two_wait_for_each_other, setup),
		cmocka_unit_test_setup(test_many_waiters, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
