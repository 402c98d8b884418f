/* Run states, kicks and requests, one thread at a time; who races whom is for verify/explore. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "core/run/run.h"

#define VPS 100

static struct run_vp vps[VPS];
static struct run run;
static uint16_t table[VPS];
static struct vpset_map map;
static uint32_t kicks[VPS];

/* A kick that arrives at once. */
static void kick(void *platform, vp_id_t target)
{
	assert_ptr_equal(platform, &run);
	kicks[target]++;
	if (run_get_state(&run, target) == RUN_IDLE)
		run_idle_end(&run, target);
	else
		run_exited(&run, target);
}

/* A kick that is still on its way. */
static void kick_slowly(void *platform, vp_id_t target)
{
	(void)platform;
	kicks[target]++;
}

static const struct run_ops fast = {.kick = kick};
static const struct run_ops slow = {.kick = kick_slowly};

static int setup(void **state)
{
	(void)state;
	memset(kicks, 0, sizeof(kicks));
	for (uint16_t i = 0; i < VPS; i++)
		table[i] = i;
	map = (struct vpset_map){table, VPS, VPS};
	run_init(&run, vps, VPS, &fast, &run);
	return 0;
}

static void test_states(void **state)
{
	(void)state;
	assert_int_equal(run_get_state(&run, 3), RUN_VTL2);
	assert_int_equal(run_get_exits(&run, 3), 0);
	run_enter_begin(&run, 3, VTL0);
	assert_int_equal(run_get_state(&run, 3), RUN_VTL0);
	run_exited(&run, 3);
	assert_int_equal(run_get_state(&run, 3), RUN_VTL2);
	assert_int_equal(run_get_exits(&run, 3), 1);
	run_enter_begin(&run, 3, VTL1);
	assert_int_equal(run_get_state(&run, 3), RUN_VTL1);
	run_enter_withdraw(&run, 3);
	assert_int_equal(run_get_exits(&run, 3), 2);
	run_idle_begin(&run, 3);
	assert_int_equal(run_get_state(&run, 3), RUN_IDLE);
	run_idle_end(&run, 3);
	assert_int_equal(run_get_state(&run, 3), RUN_VTL2);
	assert_int_equal(run_get_exits(&run, 3), 3);
	assert_int_equal(run_get_exits(&run, 2), 0);
}

static void test_kick_coalesces(void **state)
{
	uint64_t word = 0;

	(void)state;
	run.ops = &slow;
	assert_int_equal(run_kick(&run, 1, RUN_IN_LOWER, &word), RUN_KICK_NOT_RUNNING);
	run_enter_begin(&run, 1, VTL0);
	assert_int_equal(run_kick(&run, 1, RUN_IN(RUN_VTL1), &word), RUN_KICK_NOT_RUNNING);
	assert_int_equal(run_kick(&run, 1, RUN_IN_LOWER, &word), RUN_KICK_SENT);
	assert_int_equal(run_kick(&run, 1, RUN_IN_LOWER, &word), RUN_KICK_COALESCED);
	assert_int_equal(kicks[1], 1);
	run_exited(&run, 1);
	run_wait_left(&run, 1, word);
	assert_int_equal(run_kick(&run, 1, RUN_IN_LOWER, &word), RUN_KICK_NOT_RUNNING);
	/* The next stay needs a kick of its own. */
	run_enter_begin(&run, 1, VTL0);
	assert_int_equal(run_kick(&run, 1, RUN_IN_LOWER, &word), RUN_KICK_SENT);
	assert_int_equal(kicks[1], 2);
}

static void test_wait_ends_though_target_runs_again(void **state)
{
	uint64_t word = 0;

	(void)state;
	run.ops = &slow;
	run_enter_begin(&run, 1, VTL0);
	assert_int_equal(run_kick(&run, 1, RUN_IN_LOWER, &word), RUN_KICK_SENT);
	run_exited(&run, 1);
	run_enter_begin(&run, 1, VTL0);
	run_wait_left(&run, 1, word);
}

static void test_cancel_mask(void **state)
{
	struct vpset all = vpset_make_all(&map);
	struct run_cancelled cancelled;

	(void)state;
	/* More than fit one batch; one that asks, one idle, one in VTL1, the rest in VTL2. */
	for (vp_id_t vp = 1; vp < 80; vp++)
		run_enter_begin(&run, vp, VTL0);
	run_enter_begin(&run, 80, VTL1);
	run_idle_begin(&run, 81);
	cancelled = run_cancel_mask(&run, 0, &all, RUN_IN(RUN_VTL0));
	assert_int_equal(cancelled.sent, 79);
	assert_int_equal(cancelled.skipped, VPS - 1 - 79);
	for (vp_id_t vp = 0; vp < VPS; vp++)
		assert_int_equal(kicks[vp], vp >= 1 && vp < 80);
	assert_int_equal(run_get_state(&run, 80), RUN_VTL1);
	assert_int_equal(run_get_state(&run, 81), RUN_IDLE);

	cancelled = run_cancel_mask(&run, 0, &all, RUN_IN_LOWER);
	assert_int_equal(cancelled.sent, 1);
	assert_int_equal(kicks[80], 1);
}

static void test_cancel_mask_touches_only_the_set(void **state)
{
	struct vpset set = vpset_make_mask(&map, 1ull << 5 | 1ull << 6);

	(void)state;
	for (vp_id_t vp = 1; vp < VPS; vp++)
		run_enter_begin(&run, vp, VTL0);
	run_cancel_mask(&run, 0, &set, RUN_IN_LOWER);
	for (vp_id_t vp = 0; vp < VPS; vp++)
		assert_int_equal(kicks[vp], vp == 5 || vp == 6);
}

static void test_requests(void **state)
{
	(void)state;
	run.ops = &slow;
	/* In VTL2: no kick, seen at the next entry. */
	run_request_post(&run, 4, 1);
	assert_int_equal(kicks[4], 0);
	run_enter_begin(&run, 4, VTL0);
	assert_true(run_requests_pending(&run, 4));
	run_enter_withdraw(&run, 4);
	assert_int_equal(run_requests_take(&run, 4), 1);
	assert_int_equal(run_requests_take(&run, 4), 0);
	/* Running: one kick for both. */
	run_enter_begin(&run, 4, VTL1);
	assert_false(run_requests_pending(&run, 4));
	run_request_post(&run, 4, 2);
	run_request_post(&run, 4, 2);
	run_request_post(&run, 4, 4);
	assert_int_equal(kicks[4], 1);
	run_exited(&run, 4);
	assert_int_equal(run_requests_take(&run, 4), 6);
	/* Idle: woken. */
	run_idle_begin(&run, 4);
	assert_false(run_requests_pending(&run, 4));
	run_request_post(&run, 4, 8);
	assert_int_equal(kicks[4], 2);
	run_idle_end(&run, 4);
	assert_int_equal(run_requests_take(&run, 4), 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_states, setup),
		cmocka_unit_test_setup(test_kick_coalesces, setup),
		cmocka_unit_test_setup(test_wait_ends_though_target_runs_again, setup),
		cmocka_unit_test_setup(test_cancel_mask, setup),
		cmocka_unit_test_setup(test_cancel_mask_touches_only_the_set, setup),
		cmocka_unit_test_setup(test_requests, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
