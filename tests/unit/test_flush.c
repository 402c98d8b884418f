/* The flush path, one thread at a time: what each VP is told to invalidate. Races: verify/explore.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "core/flush/flush.h"
#include "core/flush/flush_queue.h"
#include "parapet/block.h"

#define VPS	  8
#define PAGES_MAX 40
#define CR3	  0x1234000ull

static struct run_vp run_vps[VPS];
static struct run run;
static struct tlblock_vp tlblock_vps[VPS];
static struct atomic_u64 waiters[TLBLOCK_WAITERS_NEEDED(VPS)];
static struct tlblock tlblock;
static struct flush_vp vps[VPS];
static struct flush flush;
static uint16_t table[VPS];
static struct vpset_map map;
static uint64_t counters[VPS][COUNTER_COUNT];

static struct flush_entry seen[2 * FLUSH_RING_SLOTS];
static uint32_t seen_count;
static bool sink_able;

static void kick(void *platform, vp_id_t target)
{
	(void)platform;
	run_exited(&run, target);
}

static const struct run_ops ops = {.kick = kick};

static bool invalidate(void *platform, vp_id_t vp, enum vtl vtl, const struct flush_entry *entry)
{
	assert_ptr_equal(platform, seen);
	(void)vp;
	(void)vtl;
	assert_true(seen_count < ARRAY_SIZE(seen));
	seen[seen_count++] = *entry;
	return sink_able;
}

static const struct flush_sink sink = {.invalidate = invalidate, .platform = seen};

static int setup(void **state)
{
	(void)state;
	memset(tlblock_vps, 0, sizeof(tlblock_vps));
	memset(waiters, 0, sizeof(waiters));
	memset(counters, 0, sizeof(counters));
	seen_count = 0;
	sink_able = true;
	for (uint16_t i = 0; i < VPS; i++)
		table[i] = i;
	map = (struct vpset_map){table, VPS, VPS};
	run_init(&run, run_vps, VPS, &ops, NULL);
	tlblock_init(&tlblock, tlblock_vps, waiters, &run);
	flush_init(&flush, vps, &run, &tlblock, PAGES_MAX);
	for (vp_id_t vp = 0; vp < VPS; vp++)
		flush_set_counters(&flush, vp, counters[vp]);
	return 0;
}

static enum flush_result ask(
	vp_id_t me, uint64_t mask, uint32_t flags, const uint64_t *ranges, uint32_t count)
{
	struct flush_request request = {
		.set = vpset_make_mask(&map, mask),
		.vtl = VTL0,
		.caller = VTL0,
		.space = CR3 | 0x18,
		.flags = flags,
		.ranges = ranges,
		.range_count = count,
	};

	return flush_request(&flush, me, &request);
}

/* Goes into the VTL and out again; what the entry had to invalidate. */
static uint32_t enter(vp_id_t vp, enum vtl vtl)
{
	uint32_t full;

	run_enter_begin(&run, vp, vtl);
	full = flush_drain(&flush, vp, vtl, &sink);
	flush_entered(&flush, vp, vtl);
	run_exited(&run, vp);
	return full;
}

static void test_range_decode(void **state)
{
	struct flush_range range;

	(void)state;
	assert_true(flush_range_decode(0xffff800000001007, false, &range));
	assert_int_equal(range.base.value, 0xffff800000001000);
	assert_int_equal(range.pages, 8);
	assert_int_equal(range.page_bits, 12);
	assert_true(flush_range_decode(0x1fff, false, &range));
	assert_int_equal(range.pages, 4096);
	/* Extended, small pages: bit 11 no longer counts. */
	assert_true(flush_range_decode(0x17ff, true, &range));
	assert_int_equal(range.pages, 2048);
	assert_int_equal(range.base.value, 0x1000);
	/* Extended, 2 MiB and 1 GiB. */
	assert_true(flush_range_decode(0x40600000 | 1 << 11 | 2, true, &range));
	assert_int_equal(range.base.value, 0x40600000);
	assert_int_equal(range.pages, 3);
	assert_int_equal(range.page_bits, 21);
	assert_true(flush_range_decode(0x40000000 | 1 << 12 | 1 << 11, true, &range));
	assert_int_equal(range.page_bits, 30);
	assert_int_equal(range.pages, 1);
	/* Not aligned, reserved bits. */
	assert_false(flush_range_decode(0x40200000 | 1 << 12 | 1 << 11, true, &range));
	for (int bit = 13; bit < 21; bit++)
		assert_false(flush_range_decode(0x40000000 | 1 << 11 | 1u << bit, true, &range));
}

static void test_addressed_and_nobody_else(void **state)
{
	const uint64_t ranges[] = {0x7000, 0x9003};

	(void)state;
	assert_int_equal(ask(0, 1 << 2 | 1 << 5, 0, ranges, 2), FLUSH_DONE);
	for (vp_id_t vp = 0; vp < VPS; vp++) {
		seen_count = 0;
		assert_int_equal(enter(vp, VTL0), 0);
		assert_int_equal(seen_count, vp == 2 || vp == 5 ? 2 : 0);
		if (seen_count == 0)
			continue;
		assert_int_equal(seen[0].range.base.value, 0x7000);
		assert_int_equal(seen[0].range.pages, 1);
		assert_int_equal(seen[0].space, CR3);
		assert_int_equal(seen[0].flags, 0);
		assert_int_equal(seen[1].range.base.value, 0x9000);
		assert_int_equal(seen[1].range.pages, 4);
	}
	/* Once is enough. */
	seen_count = 0;
	assert_int_equal(enter(2, VTL0), 0);
	assert_int_equal(seen_count, 0);
	assert_int_equal(counters[0][COUNTER_FLUSH_REQUESTS], 1);
	assert_int_equal(counters[0][COUNTER_FLUSH_RANGES], 2);
	assert_int_equal(counters[0][COUNTER_FLUSH_FULL], 0);
	assert_int_equal(counters[0][COUNTER_FLUSH_KICKS_SKIPPED], 2);
}

static void test_own_vp(void **state)
{
	const uint64_t range = 0x7000;

	(void)state;
	assert_int_equal(ask(3, 1 << 3, FLUSH_ALL_SPACES, &range, 1), FLUSH_DONE);
	assert_int_equal(enter(3, VTL0), 0);
	assert_int_equal(seen_count, 1);
	assert_int_equal(seen[0].flags, FLUSH_ALL_SPACES);
	assert_int_equal(seen[0].space, 0);
	assert_int_equal(counters[3][COUNTER_FLUSH_KICKS_SENT], 0);
}

static void test_vtls_are_apart(void **state)
{
	const uint64_t range = 0x7000;

	(void)state;
	ask(0, 1 << 1, 0, &range, 1);
	assert_int_equal(enter(1, VTL1), 0);
	assert_int_equal(seen_count, 0);
	enter(1, VTL0);
	assert_int_equal(seen_count, 1);
}

static void test_kick_only_who_runs_it(void **state)
{
	(void)state;
	run_enter_begin(&run, 1, VTL0);
	run_enter_begin(&run, 2, VTL1);
	run_idle_begin(&run, 3);
	assert_int_equal(ask(0, 0x1e, 0, NULL, 0), FLUSH_DONE);
	assert_int_equal(run_get_exits(&run, 1), 1);
	assert_int_equal(run_get_exits(&run, 2), 0);
	assert_int_equal(run_get_exits(&run, 3), 0);
	assert_int_equal(counters[0][COUNTER_FLUSH_KICKS_SENT], 1);
	assert_int_equal(counters[0][COUNTER_FLUSH_KICKS_SKIPPED], 3);
}

static void test_full_kinds(void **state)
{
	(void)state;
	ask(0, 2, FLUSH_NON_GLOBAL, NULL, 0);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_NON_GLOBAL);
	ask(0, 2, FLUSH_NON_GLOBAL, NULL, 0);
	ask(0, 2, 0, NULL, 0);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_NON_GLOBAL | FLUSH_FULL_ALL);
	assert_int_equal(enter(1, VTL0), 0);
	/* Ranges beside a full one: not handed out, they are covered; beside a non-global one they
	 * are. */
	ask(0, 2, FLUSH_NON_GLOBAL, NULL, 0);
	ask(0, 2, 0, &(uint64_t){0x7000}, 1);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_NON_GLOBAL);
	assert_int_equal(seen_count, 1);
	ask(0, 2, 0, &(uint64_t){0x7000}, 1);
	ask(0, 2, 0, NULL, 0);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_ALL);
	assert_int_equal(seen_count, 1);
}

static void test_threshold(void **state)
{
	uint64_t ranges[FLUSH_RING_SLOTS + 1] = {0};

	(void)state;
	ranges[0] = 0x7000 | (PAGES_MAX - 1);
	ask(0, 2, 0, ranges, 1);
	assert_int_equal(enter(1, VTL0), 0);
	assert_int_equal(seen[0].range.pages, PAGES_MAX);
	ranges[0] = 0x7000 | PAGES_MAX;
	ask(0, 2, FLUSH_NON_GLOBAL, ranges, 1);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_ALL);
	/* In sum. */
	ranges[0] = 0x7000 | (PAGES_MAX - 1);
	ask(0, 2, 0, ranges, 2);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_ALL);
	/* By number, and when one is not understood. */
	ranges[0] = 0x7000;
	ask(0, 2, 0, ranges, FLUSH_RING_SLOTS + 1);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_ALL);
	ranges[0] = 1 << 11 | 1 << 13;
	ask(0, 2, FLUSH_EXTENDED, ranges, 1);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_ALL);
	assert_int_equal(counters[0][COUNTER_FLUSH_FULL], 4);
}

static void test_large_pages(void **state)
{
	const uint64_t range = 0x40600000 | 1 << 11 | 2;

	(void)state;
	ask(0, 2, FLUSH_EXTENDED, &range, 1);
	assert_int_equal(enter(1, VTL0), 0);
	assert_int_equal(seen[0].range.page_bits, 21);
	assert_int_equal(seen[0].range.pages, 3);
}

static void test_overflow_and_reuse(void **state)
{
	(void)state;
	for (int turn = 0; turn < 5; turn++) {
		seen_count = 0;
		for (uint64_t i = 0; i < FLUSH_RING_SLOTS; i++)
			ask(0, 2, 0, &(uint64_t){i << 12}, 1);
		assert_int_equal(enter(1, VTL0), 0);
		assert_int_equal(seen_count, FLUSH_RING_SLOTS);
		for (uint64_t i = 0; i < FLUSH_RING_SLOTS; i++)
			assert_int_equal(seen[i].range.base.value, i << 12);
		/* One more than there is room for. */
		seen_count = 0;
		for (uint64_t i = 0; i <= FLUSH_RING_SLOTS; i++)
			ask(0, 2, 0, &(uint64_t){i << 12}, 1);
		assert_int_equal(enter(1, VTL0), FLUSH_FULL_ALL);
		assert_int_equal(enter(1, VTL0), 0);
		/* Counted by who had no room for it. */
		assert_int_equal(counters[0][COUNTER_FLUSH_FULL], turn + 1);
	}
	assert_int_equal(counters[1][COUNTER_FLUSH_FULL], 0);
}

/* Producers that all believed there was room: positions beyond the ring are a request for all. */
static void test_overflow_by_race(void **state)
{
	struct flush_queue *queue = &vps[1].queue[VTL0];

	(void)state;
	for (int turn = 0; turn < 3; turn++) {
		ask(0, 2, 0, &(uint64_t){0x5000}, 1);
		atomic_u64_fetch_add(&queue->tail, FLUSH_RING_SLOTS, memory_order_relaxed);
		seen_count = 0;
		assert_int_equal(enter(1, VTL0), FLUSH_FULL_ALL);
		assert_int_equal(seen_count, 0);
		/* Those who reserved and never wrote do not spoil slots for ever. */
		for (uint64_t i = 0; i < FLUSH_RING_SLOTS; i++)
			ask(0, 2, 0, &(uint64_t){i << 12}, 1);
		assert_int_equal(enter(1, VTL0), 0);
		assert_int_equal(seen_count, FLUSH_RING_SLOTS);
		/* Counted by the VP, which found out. */
		assert_int_equal(counters[1][COUNTER_FLUSH_FULL], turn + 1);
	}
	assert_int_equal(counters[0][COUNTER_FLUSH_FULL], 0);
}

/* A producer that has reserved, or has begun to write, and is slow. */
static void test_half_written(void **state)
{
	struct flush_queue *queue = &vps[1].queue[VTL0];
	struct flush_slot *slot = &queue->slot[0];
	uint64_t expected = 0 << 2 | FLUSH_SLOT_FREE;

	(void)state;
	atomic_u64_fetch_add(&queue->tail, 1, memory_order_relaxed);
	assert_true(atomic_u64_compare_exchange(
		&slot->state, &expected, 0 << 2 | FLUSH_SLOT_WRITING, memory_order_relaxed));
	ask(0, 2, 0, &(uint64_t){0x5000}, 1);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_ALL);
	assert_int_equal(enter(1, VTL0), 0);
	/* Now it finishes: nobody is told, nothing is lost, and one turn later the slot is free
	 * again. */
	atomic_u64_store(&slot->state, 0 << 2 | FLUSH_SLOT_READY, memory_order_release);
	assert_int_equal(enter(1, VTL0), 0);
	for (uint64_t i = 0; i < FLUSH_RING_SLOTS; i++)
		ask(0, 2, 0, &(uint64_t){i << 12}, 1);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_ALL);
	seen_count = 0;
	for (uint64_t i = 0; i < FLUSH_RING_SLOTS; i++)
		ask(0, 2, 0, &(uint64_t){i << 12}, 1);
	assert_int_equal(enter(1, VTL0), 0);
	assert_int_equal(seen_count, FLUSH_RING_SLOTS);
}

static void test_sink_declines(void **state)
{
	(void)state;
	sink_able = false;
	ask(0, 2, 0, (uint64_t[]){0x5000, 0x6000}, 2);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_ALL);
	assert_int_equal(seen_count, 1);
	ask(0, 2, 0, (uint64_t[]){0x5000}, 1);
	run_enter_begin(&run, 1, VTL0);
	assert_int_equal(flush_drain(&flush, 1, VTL0, NULL), FLUSH_FULL_ALL);
	run_enter_withdraw(&run, 1);
}

static void test_pending_until_entered(void **state)
{
	(void)state;
	ask(0, 2, FLUSH_NON_GLOBAL, NULL, 0);
	for (int i = 0; i < 3; i++) {
		run_enter_begin(&run, 1, VTL0);
		assert_int_equal(flush_drain(&flush, 1, VTL0, &sink), FLUSH_FULL_NON_GLOBAL);
		run_enter_withdraw(&run, 1);
	}
	flush_own(&flush, 1, VTL0, FLUSH_FULL_ALL);
	assert_int_equal(enter(1, VTL1), 0);
	assert_int_equal(enter(1, VTL0), FLUSH_FULL_NON_GLOBAL | FLUSH_FULL_ALL);
	assert_int_equal(enter(1, VTL0), 0);
}

static void test_suspended_by_lock(void **state)
{
	(void)state;
	tlblock_take(&tlblock, 2, VTL0, VTL2);
	assert_int_equal(ask(0, 1 << 1, 0, NULL, 0), FLUSH_DONE); /* not of the set */
	assert_int_equal(ask(0, 1 << 2, 0, NULL, 0), FLUSH_SUSPENDED);
	assert_true(tlblock_is_suspended(&tlblock, 0, VTL0));
	tlblock_release_own(&tlblock, 2);
	assert_false(tlblock_is_suspended(&tlblock, 0, VTL0));
}

/* Nobody is kicked or waited for; who runs on flushes before it comes back. */
static void test_lazily(void **state)
{
	const struct flush_request request = {
		.set = vpset_make_mask(&map, 1 << 0 | 1 << 3 | 1 << 4),
		.vtl = VTL0,
		.caller = VTL1,
		.flags = FLUSH_ALL_SPACES,
	};

	(void)state;
	run_enter_begin(&run, 3, VTL0);
	tlblock_take(&tlblock, 4, VTL0, VTL2);
	flush_request_lazily(&flush, 0, &request);
	assert_int_equal(run_get_state(&run, 3), RUN_VTL0);
	assert_false(tlblock_is_suspended(&tlblock, 0, VTL1));
	assert_int_equal(counters[0][COUNTER_FLUSH_KICKS_SENT], 0);
	run_exited(&run, 3);
	for (vp_id_t vp = 0; vp < VPS; vp++) {
		assert_int_equal(enter(vp, VTL1), 0);
		assert_int_equal(
			enter(vp, VTL0), vp == 0 || vp == 3 || vp == 4 ? FLUSH_FULL_ALL : 0);
		assert_int_equal(enter(vp, VTL0), 0);
	}
}

static void test_without_counters(void **state)
{
	(void)state;
	flush_set_counters(&flush, 0, NULL);
	assert_int_equal(ask(0, 0xff, 0, NULL, 0), FLUSH_DONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_range_decode, setup),
		cmocka_unit_test_setup(test_addressed_and_nobody_else, setup),
		cmocka_unit_test_setup(test_own_vp, setup),
		cmocka_unit_test_setup(test_vtls_are_apart, setup),
		cmocka_unit_test_setup(test_kick_only_who_runs_it, setup),
		cmocka_unit_test_setup(test_full_kinds, setup),
		cmocka_unit_test_setup(test_threshold, setup),
		cmocka_unit_test_setup(test_large_pages, setup),
		cmocka_unit_test_setup(test_overflow_and_reuse, setup),
		cmocka_unit_test_setup(test_overflow_by_race, setup),
		cmocka_unit_test_setup(test_half_written, setup),
		cmocka_unit_test_setup(test_sink_declines, setup),
		cmocka_unit_test_setup(test_pending_until_entered, setup),
		cmocka_unit_test_setup(test_suspended_by_lock, setup),
		cmocka_unit_test_setup(test_lazily, setup),
		cmocka_unit_test_setup(test_without_counters, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
