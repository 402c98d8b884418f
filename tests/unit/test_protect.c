/*
 * The permission engine over nested tables: what is refused, what one transaction costs, what is
 * put off and for how long, and VPs as threads that change permissions at the same time. Races with
 * accesses are for verify/explore and the sim machine.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <unistd.h>

#include "core/protect/protect.h"
#include "npt_arena.h"

#define VPS	4
#define RW	(ACCESS_READ | ACCESS_WRITE)
#define PAGES	256
#define REGIONS PROTECT_REGIONS(VPS)
#define PINS	8
#define RING	64

static struct npt_arena arena;
static struct run_vp run_vps[VPS];
static struct run run;
static struct tlblock_vp tlblock_vps[VPS];
static struct atomic_u64 waiters[TLBLOCK_WAITERS_NEEDED(VPS)];
static struct tlblock tlblock;
static struct flush_vp flush_vps[VPS];
static struct flush flush;
static struct protect_vp protect_vps[VPS];
static struct block_region regions[REGIONS];
static struct protect_pinned pins[PINS];
static struct protect protect;
static struct protect_transaction transaction;
static struct block_vp counters[VPS];
static struct trace_ring rings[VPS];
static _Alignas(64) uint8_t ring_memory[VPS][64 + RING * sizeof(struct trace_slot)];
static uint32_t kicks;
static void (*during_shootdown)(void);
static struct protect_ops checked_ops; /* npt_protect_ops, and whether locks are held */
static jmp_buf broken_jump;
static const char *broken_text;

/* RAM from 0 to 3 GiB in two pieces that touch, then a hole, then 1 GiB. */
static const struct protect_span ram[] = {
	{0, SIZE_1G},
	{SIZE_1G, 2 * SIZE_1G},
	{4 * SIZE_1G, SIZE_1G},
};

/* The VP leaves at once. */
static void kick(void *platform, vp_id_t target)
{
	void (*call)(void) = during_shootdown;

	(void)platform;
	kicks++;
	run_exited(&run, target);
	during_shootdown = NULL;
	if (call)
		call();
}

/* Are the shards of the layer that the ranges fall into taken, and are these all? */
static bool shards_are(enum protect_layer layer, uint64_t expected)
{
	const struct protect_lock *lock =
		layer == PROTECT_LAYER_REGION ? protect.region_lock : protect.table_lock;
	uint32_t count =
		layer == PROTECT_LAYER_REGION ? PROTECT_REGION_SHARDS : PROTECT_TABLE_SHARDS;
	uint64_t set = 0;

	for (uint32_t i = 0; i < count; i++)
		set |= (uint64_t)atomic_u32_load(&lock[i].taken, memory_order_relaxed) << i;
	return set == expected;
}

static void broken(const char *what)
{
	broken_text = what;
	longjmp(broken_jump, 1);
}

static uint64_t now(void)
{
	return 1;
}

static const struct run_ops run_ops = {.kick = kick};

static int setup_with(uint32_t pages, uint32_t targets)
{
	const struct protect_config config = {
		.vps = protect_vps,
		.flush = &flush,
		.ops = &npt_protect_ops,
		.platform = &arena.space,
		.now = now,
		.broken = broken,
		.targets = targets,
		.region = regions,
		.region_count = REGIONS,
		.pin = pins,
		.pin_room = PINS,
	};

	memset(tlblock_vps, 0, sizeof(tlblock_vps));
	memset(waiters, 0, sizeof(waiters));
	memset(flush_vps, 0, sizeof(flush_vps));
	memset(protect_vps, 0, sizeof(protect_vps));
	memset(regions, 0, sizeof(regions));
	memset(counters, 0, sizeof(counters));
	kicks = 0;
	during_shootdown = NULL;
	npt_arena_init(&arena, pages, targets, true);
	run_init(&run, run_vps, VPS, &run_ops, NULL);
	tlblock_init(&tlblock, tlblock_vps, waiters, &run);
	flush_init(&flush, flush_vps, &run, &tlblock, 32);
	protect_init(&protect, &config);
	protect_set_ram(&protect, ram, ARRAY_SIZE(ram));
	for (vp_id_t vp = 0; vp < VPS; vp++) {
		trace_ring_init(&rings[vp], vp, ring_memory[vp], RING);
		protect_set_observers(&protect, vp, counters[vp].counter, &rings[vp]);
	}
	for (uint32_t target = 0; target < targets; target++)
		for (uint32_t i = 0; i < ARRAY_SIZE(ram); i++)
			assert_int_equal(protect_map(&protect, (enum vtl)target, GPA(ram[i].base),
						 ram[i].bytes, ACCESS_ALL),
				PROTECT_DONE);
	npt_arena_remember(&arena);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return setup_with(PAGES, 1);
}

static int setup_two(void **state)
{
	(void)state;
	return setup_with(PAGES, 2);
}

/* Root and the table below it, and two more. */
static int setup_small(void **state)
{
	(void)state;
	return setup_with(2 + 2, 1);
}

static int teardown(void **state)
{
	(void)state;
	npt_arena_fini(&arena);
	return 0;
}

/* --- short names ------------------------------------------------------------------------------- */

static void begin(vp_id_t vp, enum vtl by, uint32_t flags)
{
	protect_begin(&protect, &transaction, vp, by, VTL0, PROTECT_TEST, flags);
}

static enum protect_status add(uint64_t base, uint64_t bytes, uint32_t access)
{
	return protect_add(&protect, &transaction, GPA(base), bytes, access);
}

static enum protect_status commit(void)
{
	return protect_commit(&protect, &transaction);
}

/* One range, by VTL1 of VP 0. */
static enum protect_status change(uint64_t base, uint64_t bytes, uint32_t access, uint32_t flags)
{
	begin(0, VTL1, flags);
	assert_int_equal(add(base, bytes, access), PROTECT_DONE);
	return commit();
}

static uint32_t access_at(uint64_t address)
{
	return protect_access(&protect, VTL0, GPA(address));
}

static uint64_t counted(enum block_counter counter)
{
	uint64_t sum = 0;

	for (vp_id_t vp = 0; vp < VPS; vp++)
		sum += counters[vp].counter[counter];
	return sum;
}

static uint64_t shootdowns(void)
{
	return counted(COUNTER_PROTECT_SHOOTDOWNS);
}

static uint32_t regions_in(enum block_region_state state)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < REGIONS; i++)
		count += regions[i].state == state;
	return count;
}

static const struct block_region *region_at(uint64_t base)
{
	for (uint32_t i = 0; i < REGIONS; i++)
		if (regions[i].state != BLOCK_REGION_FREE && regions[i].base == base)
			return &regions[i];
	return NULL;
}

static uint32_t pages_left(void)
{
	return npt_pool_left(&arena.space.pool);
}

/* --- what is refused --------------------------------------------------------------------------- */

static void expect_refused(uint64_t base, uint64_t bytes, uint32_t access, enum protect_status why)
{
	begin(0, VTL1, 0);
	assert_int_equal(add(base, bytes, access), why);
	assert_int_equal(transaction.failed, base);
	assert_int_equal(transaction.count, 0);
	assert_int_equal(commit(), PROTECT_DONE); /* of nothing */
	assert_int_equal(counted(COUNTER_PROTECT_TRANSACTIONS), 0);
	assert_true(npt_arena_is_as_before(&arena));
}

static void test_bad_ranges(void **state)
{
	(void)state;
	expect_refused(0, 0, ACCESS_READ, PROTECT_BAD_RANGE);
	expect_refused(1, PAGE_SIZE, ACCESS_READ, PROTECT_BAD_RANGE);
	expect_refused(0, PAGE_SIZE - 1, ACCESS_READ, PROTECT_BAD_RANGE);
	expect_refused(0 - PAGE_SIZE, PAGE_SIZE, ACCESS_READ, PROTECT_BAD_RANGE);
	expect_refused(0 - PAGE_SIZE, 2 * PAGE_SIZE, ACCESS_READ, PROTECT_BAD_RANGE);
	expect_refused(PAGE_SIZE, 0 - PAGE_SIZE, ACCESS_READ, PROTECT_BAD_RANGE);
	expect_refused(1ull << 48, PAGE_SIZE, ACCESS_READ, PROTECT_BAD_RANGE);
	/* The hole, and into it from both sides. */
	expect_refused(3 * SIZE_1G, PAGE_SIZE, ACCESS_READ, PROTECT_BAD_RANGE);
	expect_refused(3 * SIZE_1G - PAGE_SIZE, 2 * PAGE_SIZE, ACCESS_READ, PROTECT_BAD_RANGE);
	expect_refused(4 * SIZE_1G - PAGE_SIZE, 2 * PAGE_SIZE, ACCESS_READ, PROTECT_BAD_RANGE);
	expect_refused(2 * SIZE_1G, 3 * SIZE_1G, ACCESS_READ, PROTECT_BAD_RANGE);
	expect_refused(5 * SIZE_1G, PAGE_SIZE, ACCESS_READ, PROTECT_BAD_RANGE);
}

static void test_bad_access(void **state)
{
	(void)state;
	expect_refused(0, PAGE_SIZE, ACCESS_WRITE, PROTECT_BAD_ACCESS);
	expect_refused(0, PAGE_SIZE, ACCESS_EXECUTE, PROTECT_BAD_ACCESS);
	expect_refused(0, PAGE_SIZE, ACCESS_READ | ACCESS_EXECUTE_USER, PROTECT_BAD_ACCESS);
	expect_refused(0, PAGE_SIZE, ACCESS_ALL | 0x10, PROTECT_BAD_ACCESS);
	expect_refused(0, PAGE_SIZE, 0x100 | ACCESS_READ, PROTECT_BAD_ACCESS);
}

static void expect_bad_caller(enum vtl by, enum vtl target)
{
	protect_begin(&protect, &transaction, 0, by, target, PROTECT_TEST, 0);
	assert_int_equal(add(0, PAGE_SIZE, ACCESS_READ), PROTECT_BAD_CALLER);
	assert_int_equal(commit(), PROTECT_BAD_CALLER);
	assert_true(npt_arena_is_as_before(&arena));
}

static void test_bad_callers(void **state)
{
	(void)state;
	expect_bad_caller(VTL0, VTL0);
	expect_bad_caller(VTL0, VTL1);
	expect_bad_caller(VTL1, VTL1);
	expect_bad_caller(VTL1, VTL2);
	expect_bad_caller(VTL2, VTL2);
	expect_bad_caller(VTL2, VTL1); /* which there is not */
	expect_bad_caller((enum vtl)3, VTL0);
}

static void test_map_refuses(void **state)
{
	(void)state;
	assert_int_equal(
		protect_map(&protect, VTL1, GPA(0), PAGE_SIZE, ACCESS_READ), PROTECT_BAD_CALLER);
	assert_int_equal(protect_map(&protect, VTL0, GPA(0), 0, ACCESS_READ), PROTECT_BAD_RANGE);
	assert_int_equal(
		protect_map(&protect, VTL0, GPA(0), PAGE_SIZE, ACCESS_WRITE), PROTECT_BAD_ACCESS);
	assert_true(npt_arena_is_as_before(&arena));
}

static void test_overlaps_in_a_transaction(void **state)
{
	(void)state;
	begin(0, VTL1, 0);
	assert_int_equal(add(8 * PAGE_SIZE, 4 * PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	/* Contradictions: at the front, the end, inside, around. */
	assert_int_equal(add(7 * PAGE_SIZE, 2 * PAGE_SIZE, RW), PROTECT_BAD_RANGE);
	assert_int_equal(add(11 * PAGE_SIZE, 2 * PAGE_SIZE, RW), PROTECT_BAD_RANGE);
	assert_int_equal(add(9 * PAGE_SIZE, PAGE_SIZE, RW), PROTECT_BAD_RANGE);
	assert_int_equal(add(0, 64 * PAGE_SIZE, RW), PROTECT_BAD_RANGE);
	assert_int_equal(transaction.count, 1);
	/* Twice the same is once; what touches and agrees is one; what touches and differs is not. */
	assert_int_equal(add(9 * PAGE_SIZE, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(add(12 * PAGE_SIZE, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(add(7 * PAGE_SIZE, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(transaction.count, 1);
	assert_int_equal(add(13 * PAGE_SIZE, PAGE_SIZE, RW), PROTECT_DONE);
	assert_int_equal(add(6 * PAGE_SIZE, PAGE_SIZE, RW), PROTECT_DONE);
	assert_int_equal(transaction.count, 3);
	/* One that closes the gap between two. */
	assert_int_equal(add(16 * PAGE_SIZE, PAGE_SIZE, RW), PROTECT_DONE);
	assert_int_equal(add(14 * PAGE_SIZE, 2 * PAGE_SIZE, RW), PROTECT_DONE);
	assert_int_equal(transaction.count, 3);
	assert_int_equal(commit(), PROTECT_DONE);
	assert_int_equal(access_at(5 * PAGE_SIZE), ACCESS_ALL);
	assert_int_equal(access_at(6 * PAGE_SIZE), RW);
	for (uint64_t page = 7; page < 13; page++)
		assert_int_equal(access_at(page * PAGE_SIZE), ACCESS_READ);
	for (uint64_t page = 13; page < 17; page++)
		assert_int_equal(access_at(page * PAGE_SIZE), RW);
	assert_int_equal(access_at(17 * PAGE_SIZE), ACCESS_ALL);
	assert_int_equal(counted(COUNTER_PROTECT_RANGES), 3);
}

static void test_too_many_ranges(void **state)
{
	(void)state;
	begin(0, VTL1, 0);
	/* Backwards, so that each has to be put in front. */
	for (uint64_t i = PROTECT_RANGES_MAX; i > 0; i--)
		assert_int_equal(add(2 * i * PAGE_SIZE, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(add(0, PAGE_SIZE, ACCESS_READ), PROTECT_FULL);
	/* One that joins others still fits. */
	assert_int_equal(add(3 * PAGE_SIZE, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(transaction.count, PROTECT_RANGES_MAX - 1);
	assert_int_equal(commit(), PROTECT_DONE);
	assert_int_equal(access_at(0), ACCESS_ALL);
	for (uint64_t i = 1; i <= PROTECT_RANGES_MAX; i++)
		assert_int_equal(access_at(2 * i * PAGE_SIZE), ACCESS_READ);
	/* More than there are records: they are one, over all of them. */
	assert_int_equal(shootdowns(), 1);
	assert_int_equal(regions_in(BLOCK_REGION_STABLE), 1);
	assert_true(region_at(2 * PAGE_SIZE)->hull);
}

static uint32_t looks;

static uint32_t counted_access(void *platform, enum vtl target, gpa_t gpa)
{
	looks++;
	return npt_protect_ops.access(platform, target, gpa);
}

static void count_looks(void)
{
	looks = 0;
	checked_ops = npt_protect_ops;
	checked_ops.access = counted_access;
	protect.ops = &checked_ops;
}

static void test_may(void **state)
{
	(void)state;
	/* What was never withheld is not even looked up. */
	count_looks();
	assert_true(protect_may(&protect, VTL0, GPA(SIZE_2M), ACCESS_ALL));
	assert_int_equal(change(SIZE_2M, PAGE_SIZE, ACCESS_ALL, 0), PROTECT_DONE);
	assert_true(protect_may(&protect, VTL0, GPA(SIZE_2M), ACCESS_ALL));
	assert_int_equal(change(SIZE_2M, PAGE_SIZE, RW, 0), PROTECT_DONE);
	assert_true(protect_may(&protect, VTL0, GPA(SIZE_2M), RW));
	assert_int_equal(looks, 0);

	/* What was withheld anywhere is looked up everywhere, for that target. */
	assert_false(protect_may(&protect, VTL0, GPA(SIZE_2M), ACCESS_READ | ACCESS_EXECUTE));
	assert_true(protect_may(&protect, VTL0, GPA(SIZE_2M + PAGE_SIZE), ACCESS_ALL));
	assert_true(protect_may(&protect, VTL1, GPA(SIZE_2M), ACCESS_ALL));
	begin(0, VTL1, 0);
	assert_int_equal(add(0, PAGE_SIZE, ACCESS_ALL), PROTECT_DONE);
	assert_int_equal(add(2 * PAGE_SIZE, PAGE_SIZE, ACCESS_NONE), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
	assert_false(protect_may(&protect, VTL0, GPA(2 * PAGE_SIZE), ACCESS_READ));
	assert_true(protect_may(&protect, VTL0, GPA(PAGE_SIZE), ACCESS_ALL));

	/* And given back. */
	assert_int_equal(change(SIZE_2M, PAGE_SIZE, ACCESS_ALL, 0), PROTECT_DONE);
	assert_true(protect_may(&protect, VTL0, GPA(SIZE_2M), ACCESS_ALL));
}

/* RAM that is not given whole at start is withheld; memory of another kind is nobody's concern. */
static void test_may_at_start(void **state)
{
	(void)state;
	count_looks();
	assert_int_equal(protect_map(&protect, VTL0, GPA(3 * SIZE_1G), PAGE_SIZE, ACCESS_READ),
		PROTECT_DONE);
	assert_true(protect_may(&protect, VTL0, GPA(0), ACCESS_ALL));
	assert_int_equal(looks, 0);
	assert_int_equal(
		protect_map(&protect, VTL0, GPA(PAGE_SIZE), PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_false(protect_may(&protect, VTL0, GPA(PAGE_SIZE), RW));
	assert_true(protect_may(&protect, VTL0, GPA(0), RW));
}

static void test_pins(void **state)
{
	(void)state;
	assert_int_equal(
		protect_pin(&protect, 0, GPA(SIZE_2M), PAGE_SIZE, PROTECT_PIN_OVERLAY, VTL2),
		PROTECT_DONE);
	assert_int_equal(
		protect_pin(&protect, 0, GPA(2 * SIZE_2M), SIZE_2M, PROTECT_PIN_LOCK, VTL2),
		PROTECT_DONE);
	assert_int_equal(protect_pin(&protect, 0, GPA(1), PAGE_SIZE, PROTECT_PIN_LOCK, VTL2),
		PROTECT_BAD_RANGE);
	assert_int_equal(
		protect_pin(&protect, 0, GPA(0 - PAGE_SIZE), 2 * PAGE_SIZE, PROTECT_PIN_LOCK, VTL2),
		PROTECT_BAD_RANGE);

	/* An overlay page: nobody. A locked one: nobody below. */
	begin(0, VTL2, 0);
	assert_int_equal(add(SIZE_2M - PAGE_SIZE, 3 * PAGE_SIZE, RW), PROTECT_OVERLAY_PAGE);
	assert_int_equal(transaction.failed, SIZE_2M);
	assert_int_equal(add(3 * SIZE_2M - PAGE_SIZE, PAGE_SIZE, RW), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
	begin(0, VTL1, 0);
	assert_int_equal(add(0, SIZE_2M, RW), PROTECT_DONE);
	assert_int_equal(add(3 * SIZE_2M - PAGE_SIZE, 2 * PAGE_SIZE, RW), PROTECT_LOCKED);
	assert_int_equal(transaction.failed, 3 * SIZE_2M - PAGE_SIZE);
	assert_int_equal(transaction.count, 1);

	/* Pinned after it was added: the whole transaction is refused. */
	assert_int_equal(
		protect_pin(&protect, 1, GPA(PAGE_SIZE), PAGE_SIZE, PROTECT_PIN_OVERLAY, VTL2),
		PROTECT_DONE);
	npt_arena_remember(&arena);
	assert_int_equal(commit(), PROTECT_OVERLAY_PAGE);
	assert_int_equal(transaction.failed, PAGE_SIZE);
	assert_true(npt_arena_is_as_before(&arena));
	assert_int_equal(access_at(0), ACCESS_ALL);

	/* A pin made twice is to be taken back twice. */
	assert_int_equal(
		protect_pin(&protect, 1, GPA(PAGE_SIZE), PAGE_SIZE, PROTECT_PIN_OVERLAY, VTL2),
		PROTECT_DONE);
	assert_true(
		protect_unpin(&protect, 1, GPA(PAGE_SIZE), PAGE_SIZE, PROTECT_PIN_OVERLAY, VTL2));
	assert_int_equal(commit(), PROTECT_OVERLAY_PAGE);
	assert_true(
		protect_unpin(&protect, 1, GPA(PAGE_SIZE), PAGE_SIZE, PROTECT_PIN_OVERLAY, VTL2));
	assert_false(
		protect_unpin(&protect, 1, GPA(PAGE_SIZE), PAGE_SIZE, PROTECT_PIN_OVERLAY, VTL2));
	assert_int_equal(commit(), PROTECT_DONE);
	assert_int_equal(access_at(0), RW);
}

/* Where no pin is near, a range is added without the lock that everybody shares. */
static void test_add_far_from_pins(void **state)
{
	(void)state;
	assert_int_equal(protect_pin(&protect, 0, GPA(0), PAGE_SIZE, PROTECT_PIN_OVERLAY, VTL2),
		PROTECT_DONE);
	begin(0, VTL1, 0);
	/* Relaxed, both: one thread. Who takes the lock waits for ever. */
	alarm(10);
	atomic_u32_store(&protect.record_lock.taken, 1, memory_order_relaxed);
	assert_int_equal(add(SIZE_2M, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	atomic_u32_store(&protect.record_lock.taken, 0, memory_order_relaxed);
	alarm(0);
	assert_int_equal(add(0, PAGE_SIZE, ACCESS_READ), PROTECT_OVERLAY_PAGE);
	assert_int_equal(add(SIZE_2M - PAGE_SIZE, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
}

static void test_lock_of_a_transaction(void **state)
{
	(void)state;
	begin(0, VTL2, PROTECT_LOCK);
	assert_int_equal(add(SIZE_2M, SIZE_2M, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(add(4 * SIZE_2M, SIZE_2M, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
	begin(0, VTL1, 0);
	assert_int_equal(add(2 * SIZE_2M - PAGE_SIZE, PAGE_SIZE, ACCESS_ALL), PROTECT_LOCKED);
	assert_int_equal(add(4 * SIZE_2M, PAGE_SIZE, ACCESS_ALL), PROTECT_LOCKED);
	assert_int_equal(add(3 * SIZE_2M, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);

	/* More locks than there is room for: nothing is locked, nothing changes. */
	npt_arena_remember(&arena);
	begin(0, VTL2, PROTECT_LOCK);
	for (uint64_t i = 0; i <= PINS - 2; i++)
		assert_int_equal(
			add(SIZE_1G + 2 * i * PAGE_SIZE, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_FULL);
	assert_true(npt_arena_is_as_before(&arena));
	for (uint64_t i = 0; i < PINS - 2; i++)
		assert_int_equal(protect_pin(&protect, 0, GPA(i * PAGE_SIZE), PAGE_SIZE,
					 PROTECT_PIN_OVERLAY, VTL2),
			PROTECT_DONE);
	assert_int_equal(protect_pin(&protect, 0, GPA(0), PAGE_SIZE, PROTECT_PIN_OVERLAY, VTL2),
		PROTECT_FULL);
}

/* --- locks, as the platform and the others see them -------------------------------------------- */

#define SHARDS_HELD  (1ull << 1 | 1ull << 4)
#define TABLES_HELD  (1ull << 0 | 1ull << 4)
#define RANGE_FIRST  SIZE_2M
#define RANGE_SECOND (4 * SIZE_1G + 4 * SIZE_2M)

static uint32_t looked;

static bool checked_prepare(void *platform, struct protect_batch *batch)
{
	assert_true(shards_are(PROTECT_LAYER_REGION, SHARDS_HELD));
	assert_true(shards_are(PROTECT_LAYER_TABLE, TABLES_HELD));
	looked++;
	return npt_protect_ops.prepare(platform, batch);
}

static void checked_write(void *platform, struct protect_batch *batch)
{
	assert_true(shards_are(PROTECT_LAYER_REGION, SHARDS_HELD));
	assert_true(shards_are(PROTECT_LAYER_TABLE, TABLES_HELD));
	looked++;
	npt_protect_ops.write(platform, batch);
}

static struct protect_pages checked_join(
	void *platform, struct protect_pages first, struct protect_pages second)
{
	assert_int_equal(atomic_u32_load(&protect.record_lock.taken, memory_order_relaxed), 1);
	looked++;
	return npt_protect_ops.join(platform, first, second);
}

/* Others on the same pages wait until it is over; others elsewhere change tables meanwhile. */
static void expect_region_shards_alone(void)
{
	assert_true(shards_are(PROTECT_LAYER_REGION, SHARDS_HELD));
	assert_true(shards_are(PROTECT_LAYER_TABLE, 0));
	assert_int_equal(atomic_u32_load(&protect.record_lock.taken, memory_order_relaxed), 0);
	looked++;
}

static void test_locks_are_held(void **state)
{
	(void)state;
	checked_ops = npt_protect_ops;
	checked_ops.prepare = checked_prepare;
	checked_ops.write = checked_write;
	checked_ops.join = checked_join;
	protect.ops = &checked_ops;
	looked = 0;
	during_shootdown = expect_region_shards_alone;
	run_enter_begin(&run, 1, VTL0);
	begin(0, VTL1, 0);
	assert_int_equal(add(RANGE_FIRST, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(add(RANGE_SECOND, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
	assert_true(looked >= 4);
	assert_null(during_shootdown);
	assert_true(shards_are(PROTECT_LAYER_REGION, 0));
	assert_true(shards_are(PROTECT_LAYER_TABLE, 0));
}

/* --- what a transaction costs ------------------------------------------------------------------ */

static void test_revoke_a_gigabyte(void **state)
{
	(void)state;
	run_enter_begin(&run, 1, VTL0);
	run_enter_begin(&run, 2, VTL0);
	assert_int_equal(change(SIZE_1G, SIZE_1G, ACCESS_READ, 0), PROTECT_DONE);
	assert_int_equal(shootdowns(), 1);
	assert_int_equal(counted(COUNTER_PROTECT_ENTRIES_WRITTEN), 1);
	assert_int_equal(kicks, 2);
	assert_int_equal(change(SIZE_1G, SIZE_1G, ACCESS_ALL, 0), PROTECT_DONE);
	assert_int_equal(shootdowns(), 1);
	assert_int_equal(counted(COUNTER_PROTECT_ENTRIES_WRITTEN), 2);
	assert_true(npt_arena_is_as_before(&arena));
}

static void test_many_ranges_one_shootdown(void **state)
{
	(void)state;
	run_enter_begin(&run, 3, VTL0);
	begin(0, VTL1, 0);
	for (uint64_t i = 0; i < 20; i++)
		assert_int_equal(
			add(i * SIZE_2M + i * PAGE_SIZE, PAGE_SIZE, ACCESS_NONE), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
	assert_int_equal(shootdowns(), 1);
	assert_int_equal(kicks, 1);
	assert_int_equal(counted(COUNTER_PROTECT_TRANSACTIONS), 1);
	assert_int_equal(counted(COUNTER_PROTECT_RANGES), 20);
	assert_int_equal(regions_in(BLOCK_REGION_STABLE), 20);
	/* Every VP has been asked to flush, the one that asked included. */
	for (vp_id_t vp = 0; vp < VPS; vp++)
		assert_int_equal(flush_drain(&flush, vp, VTL0, NULL), FLUSH_FULL_ALL);
	assert_int_equal(flush_drain(&flush, 0, VTL1, NULL), 0);
}

static void test_grant_shoots_nothing_down(void **state)
{
	(void)state;
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_NONE, 0), PROTECT_DONE);
	assert_int_equal(shootdowns(), 1);
	for (vp_id_t vp = 0; vp < VPS; vp++)
		flush_drain(&flush, vp, VTL0, NULL);
	for (vp_id_t vp = 0; vp < VPS; vp++)
		flush_entered(&flush, vp, VTL0);
	run_enter_begin(&run, 1, VTL0);
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE); /* no change at all */
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_ALL, 0), PROTECT_DONE);
	assert_int_equal(shootdowns(), 1);
	assert_int_equal(kicks, 0);
	assert_int_equal(flush_drain(&flush, 1, VTL0, NULL), 0);
	/* The two tables are out of the tree, but somebody may still walk them: not free yet. */
	assert_int_equal(pages_left(), PAGES - 4);
	assert_int_equal(change(SIZE_1G, SIZE_1G, RW, 0), PROTECT_DONE);
	assert_int_equal(pages_left(), PAGES - 2);
}

static void test_the_record(void **state)
{
	const struct block_region *region;
	struct trace_record records[RING];
	uint64_t next = 0;

	(void)state;
	assert_int_equal(change(PAGE_SIZE, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	begin(2, VTL2, 0);
	assert_int_equal(add(0, 4 * PAGE_SIZE, RW), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
	/* The first is inside the second and says nothing any more. */
	assert_int_equal(regions_in(BLOCK_REGION_STABLE), 1);
	region = region_at(0);
	assert_int_equal(region->bytes, 4 * PAGE_SIZE);
	assert_int_equal(region->transaction, 2);
	assert_int_equal(region->vp, 2);
	assert_int_equal(region->by, VTL2);
	assert_int_equal(region->target, VTL0);
	assert_int_equal(region->reason, PROTECT_TEST);
	assert_int_equal(region->old_access, ACCESS_ALL);
	assert_int_equal(region->new_access, RW);
	assert_true(region->mixed);
	assert_false(region->hull);

	assert_int_equal(trace_ring_read(ring_memory[2], RING, &next, records, RING), 4);
	assert_int_equal(records[0].event, TRACE_PROTECT_BEGIN);
	assert_int_equal(records[0].a, 2);
	assert_int_equal(records[0].b, 1);
	assert_int_equal(records[1].event, TRACE_PROTECT_RANGE);
	assert_int_equal(records[1].a, RW);
	assert_int_equal(records[1].b, 4 * PAGE_SIZE | ACCESS_ALL);
	assert_int_equal(records[2].event, TRACE_PROTECT_COMMIT);
	assert_int_equal(records[2].b, 4);
	assert_int_equal(records[3].event, TRACE_PROTECT_END);
	assert_int_equal(records[3].b, PROTECT_DONE);
}

/* Old stable records give way, so the table never fills. */
static void test_records_do_not_run_out(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 3 * REGIONS; i++)
		assert_int_equal(
			change(2 * i * PAGE_SIZE, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	assert_int_equal(regions_in(BLOCK_REGION_STABLE), REGIONS);
	assert_non_null(region_at(2 * (3 * REGIONS - 1) * PAGE_SIZE));
}

/* --- putting off ------------------------------------------------------------------------------- */

static void test_deferred(void **state)
{
	(void)state;
	run_enter_begin(&run, 1, VTL0);
	assert_int_equal(
		change(0, PAGE_SIZE, ACCESS_READ, PROTECT_NOT_SENSITIVE), PROTECT_DEFERRED);
	assert_int_equal(access_at(0), ACCESS_READ);
	assert_int_equal(kicks, 0);
	assert_int_equal(shootdowns(), 0);
	assert_int_equal(counted(COUNTER_PROTECT_DEFERRED), 1);
	assert_int_equal(regions_in(BLOCK_REGION_DEFERRED), 1);
	/* The bound: whoever comes out flushes before it goes in again. */
	for (vp_id_t vp = 0; vp < VPS; vp++)
		assert_int_equal(flush_drain(&flush, vp, VTL0, NULL), FLUSH_FULL_ALL);

	/* And "now". */
	assert_int_equal(protect_sync(&protect, 2, VTL1), PROTECT_DONE);
	assert_int_equal(kicks, 1);
	assert_int_equal(shootdowns(), 1);
	assert_int_equal(regions_in(BLOCK_REGION_DEFERRED), 0);
	assert_int_equal(regions_in(BLOCK_REGION_STABLE), 1);
	assert_int_equal(protect_sync(&protect, 2, VTL1), PROTECT_DONE);
	assert_int_equal(shootdowns(), 1);
}

static void test_deferred_grant_is_done(void **state)
{
	(void)state;
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_ALL, PROTECT_NOT_SENSITIVE), PROTECT_DONE);
	assert_int_equal(regions_in(BLOCK_REGION_DEFERRED), 0);
}

/* What has been revoked lazily, and is now asked for in earnest, must be shot down. */
static void test_sensitive_after_deferred(void **state)
{
	(void)state;
	run_enter_begin(&run, 1, VTL0);
	assert_int_equal(
		change(SIZE_2M, SIZE_2M, ACCESS_READ, PROTECT_NOT_SENSITIVE), PROTECT_DEFERRED);
	/* Elsewhere, and where it gives back what had been taken: nothing to shoot. */
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_ALL, 0), PROTECT_DONE);
	assert_int_equal(change(SIZE_2M, PAGE_SIZE, ACCESS_ALL, 0), PROTECT_DONE);
	assert_int_equal(shootdowns(), 0);
	/* Permissions that the page has already, but not everybody knows. */
	assert_int_equal(
		change(2 * SIZE_2M - PAGE_SIZE, 2 * PAGE_SIZE, ACCESS_READ, PROTECT_NOT_SENSITIVE),
		PROTECT_DEFERRED);
	assert_int_equal(change(2 * SIZE_2M - PAGE_SIZE, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	assert_int_equal(shootdowns(), 1);
	assert_int_equal(kicks, 1);
	assert_int_equal(regions_in(BLOCK_REGION_DEFERRED), 0);
}

/* Too many deferred changes to remember: then it is done at once, which ends them all. */
static void test_deferred_has_a_limit(void **state)
{
	enum protect_status status = PROTECT_DEFERRED;
	uint32_t count = 0;

	(void)state;
	for (; status == PROTECT_DEFERRED && count < REGIONS; count++)
		status = change(
			2 * count * PAGE_SIZE, PAGE_SIZE, ACCESS_READ, PROTECT_NOT_SENSITIVE);
	assert_int_equal(status, PROTECT_DONE);
	assert_int_equal(count, REGIONS / 4 + 1);
	assert_int_equal(regions_in(BLOCK_REGION_DEFERRED), 0);
	assert_int_equal(shootdowns(), 1);
}

static void test_targets_are_apart(void **state)
{
	(void)state;
	run_enter_begin(&run, 1, VTL1);
	run_enter_begin(&run, 2, VTL0);
	protect_begin(&protect, &transaction, 0, VTL2, VTL1, PROTECT_TEST, 0);
	assert_int_equal(add(0, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
	/* Only who runs VTL1 has its translations. */
	assert_int_equal(kicks, 1);
	assert_int_equal(run_get_state(&run, 2), RUN_VTL0);
	assert_int_equal(access_at(0), ACCESS_ALL);
	assert_int_equal(protect_access(&protect, VTL1, GPA(0)), ACCESS_READ);
	assert_int_equal(flush_drain(&flush, 3, VTL0, NULL), 0);
	assert_int_equal(flush_drain(&flush, 3, VTL1, NULL), FLUSH_FULL_ALL);

	protect_begin(&protect, &transaction, 0, VTL2, VTL1, PROTECT_TEST, PROTECT_NOT_SENSITIVE);
	assert_int_equal(add(0, PAGE_SIZE, ACCESS_NONE), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DEFERRED);
	/* Neither VTL0's shootdown nor VTL0's changes of the same page have to do with it. */
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_ALL, 0), PROTECT_DONE);
	assert_int_equal(shootdowns(), 1);
	assert_int_equal(
		change(0, PAGE_SIZE, ACCESS_READ, PROTECT_NOT_SENSITIVE), PROTECT_DEFERRED);
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_NONE, 0), PROTECT_DONE);
	assert_int_equal(shootdowns(), 2);
	assert_int_equal(regions_in(BLOCK_REGION_DEFERRED), 1);
	assert_int_equal(protect_sync(&protect, 0, VTL2), PROTECT_DONE);
	assert_int_equal(regions_in(BLOCK_REGION_DEFERRED), 0);
	/* It covers VTL0's records, not VTL1's. */
	assert_int_equal(change(0, SIZE_2M, ACCESS_READ, 0), PROTECT_DONE);
	assert_int_equal(regions_in(BLOCK_REGION_STABLE), 2);
}

static struct protect_transaction other;

static void change_by_other(uint64_t base, uint32_t access, uint32_t flags)
{
	protect_begin(&protect, &other, 3, VTL1, VTL0, PROTECT_TEST, flags);
	assert_int_equal(protect_add(&protect, &other, GPA(base), PAGE_SIZE, access), PROTECT_DONE);
	assert_true(protect_ok(protect_commit(&protect, &other)));
}

static void defer_elsewhere(void)
{
	change_by_other(SIZE_2M, ACCESS_READ, PROTECT_NOT_SENSITIVE);
}

/* A shootdown ends what was deferred before it began, not what came while it ran. */
static void test_deferred_during_a_shootdown(void **state)
{
	(void)state;
	run_enter_begin(&run, 1, VTL0);
	change_by_other(4 * SIZE_2M, ACCESS_READ, PROTECT_NOT_SENSITIVE);
	during_shootdown = defer_elsewhere;
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	assert_null(during_shootdown);
	assert_int_equal(region_at(0)->state, BLOCK_REGION_STABLE);
	assert_int_equal(region_at(4 * SIZE_2M)->state, BLOCK_REGION_STABLE);
	assert_int_equal(region_at(SIZE_2M)->state, BLOCK_REGION_DEFERRED);
	assert_int_equal(protect_sync(&protect, 0, VTL1), PROTECT_DONE);
	assert_int_equal(shootdowns(), 2);
	assert_int_equal(region_at(SIZE_2M)->state, BLOCK_REGION_STABLE);
}

/* --- TLB locks --------------------------------------------------------------------------------- */

static void test_suspended(void **state)
{
	(void)state;
	/* Two tables that the change takes out of the tree. */
	assert_int_equal(change(PAGE_SIZE, PAGE_SIZE, RW, 0), PROTECT_DONE);
	assert_int_equal(pages_left(), PAGES - 4);
	tlblock_take(&tlblock, 1, VTL0, VTL2);
	assert_int_equal(change(0, SIZE_1G, ACCESS_READ, 0), PROTECT_SUSPENDED);
	assert_true(tlblock_is_suspended(&tlblock, 0, VTL1));
	assert_int_equal(region_at(0)->state, BLOCK_REGION_FLUSHING);
	/* VP 1 may be walking them. */
	assert_int_equal(pages_left(), PAGES - 4);

	/* VP 2 wants what is written already, but not over yet: it waits too. */
	begin(2, VTL1, 0);
	assert_int_equal(add(0, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_SUSPENDED);
	/* VP 3 wants something else, and does not. */
	begin(3, VTL1, 0);
	assert_int_equal(add(SIZE_1G, PAGE_SIZE, ACCESS_ALL), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
	assert_int_equal(regions_in(BLOCK_REGION_FLUSHING), 2);

	tlblock_release_own(&tlblock, 1);
	assert_false(tlblock_is_suspended(&tlblock, 0, VTL1));
	protect_note_ended(&protect, 0);
	assert_int_equal(regions_in(BLOCK_REGION_FLUSHING), 0);
	assert_int_equal(pages_left(), PAGES - 2);
}

static void release_and_collect(void)
{
	tlblock_release_own(&tlblock, 1);
	change_by_other(SIZE_2M, ACCESS_ALL, 0);
	assert_int_equal(region_at(0)->state, BLOCK_REGION_STABLE);
	assert_int_equal(region_at(4 * SIZE_2M)->state, BLOCK_REGION_FLUSHING);
}

/* The end of an earlier shootdown is not the end of the one that runs. */
static void test_suspended_and_another(void **state)
{
	(void)state;
	tlblock_take(&tlblock, 1, VTL0, VTL2);
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_READ, 0), PROTECT_SUSPENDED);
	run_enter_begin(&run, 2, VTL0);
	during_shootdown = release_and_collect;
	assert_int_equal(change(4 * SIZE_2M, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	assert_null(during_shootdown);
	assert_int_equal(regions_in(BLOCK_REGION_FLUSHING), 0);
}

static void test_suspended_sync(void **state)
{
	(void)state;
	assert_int_equal(
		change(0, PAGE_SIZE, ACCESS_READ, PROTECT_NOT_SENSITIVE), PROTECT_DEFERRED);
	tlblock_take(&tlblock, 1, VTL0, VTL2);
	assert_int_equal(protect_sync(&protect, 0, VTL1), PROTECT_SUSPENDED);
	assert_int_equal(regions_in(BLOCK_REGION_DEFERRED), 1);
	/* Whoever asks now must wait as well. */
	assert_int_equal(protect_sync(&protect, 2, VTL1), PROTECT_SUSPENDED);
	tlblock_release_own(&tlblock, 1);
	assert_int_equal(protect_sync(&protect, 2, VTL1), PROTECT_DONE);
	assert_int_equal(regions_in(BLOCK_REGION_DEFERRED), 0);
}

static struct atomic_u32 over;

/* Lets go once VP 0 waits for it, or has not waited. */
static void *holder(void *arg)
{
	(void)arg;
	while (!tlblock_is_suspended(&tlblock, 0, VTL2) &&
		!atomic_u32_load(&over, memory_order_relaxed))
		atomic_relax();
	tlblock_release_own(&tlblock, 1);
	return NULL;
}

/* VTL2 has nobody to suspend: its commit waits, and gives its own locks up meanwhile. */
static void test_vtl2_waits(void **state)
{
	pthread_t thread;

	(void)state;
	atomic_u32_store(&over, 0, memory_order_relaxed);
	tlblock_take(&tlblock, 0, VTL0, VTL2);
	tlblock_take(&tlblock, 1, VTL0, VTL2);
	begin(0, VTL2, 0);
	assert_int_equal(add(0, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(pthread_create(&thread, NULL, holder, NULL), 0);
	assert_int_equal(commit(), PROTECT_DONE);
	atomic_u32_store(&over, 1, memory_order_relaxed);
	pthread_join(thread, NULL);
	assert_int_equal(region_at(0)->state, BLOCK_REGION_STABLE);
	/* VP 0's own is released: nobody has to wait for it. */
	begin(2, VTL1, 0);
	assert_int_equal(add(0, PAGE_SIZE, ACCESS_NONE), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
}

/* --- table memory ------------------------------------------------------------------------------ */

static void test_no_memory(void **state)
{
	(void)state;
	run_enter_begin(&run, 1, VTL0);
	begin(0, VTL1, PROTECT_LOCK);
	/* The first needs two tables, the second two more: there are two. */
	assert_int_equal(add(PAGE_SIZE, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(add(SIZE_1G, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_NO_MEMORY);
	assert_true(npt_arena_is_as_before(&arena));
	assert_int_equal(access_at(PAGE_SIZE), ACCESS_ALL);
	assert_int_equal(pages_left(), 2);
	assert_int_equal(regions_in(BLOCK_REGION_FREE), REGIONS);
	assert_int_equal(kicks, 0);
	assert_int_equal(counted(COUNTER_PROTECT_TRANSACTIONS), 0);
	/* No room for locks is kept back. */
	for (uint64_t i = 0; i < PINS; i++)
		assert_int_equal(protect_pin(&protect, 0, GPA(2 * SIZE_1G), PAGE_SIZE,
					 PROTECT_PIN_OVERLAY, VTL2),
			PROTECT_DONE);
	/* Not locked either, and the others go on. */
	begin(1, VTL1, 0);
	assert_int_equal(add(PAGE_SIZE, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
	assert_int_equal(pages_left(), 0);
}

/* What failed has not even taken the record away that it would have replaced. */
static void test_no_memory_leaves_records(void **state)
{
	(void)state;
	assert_int_equal(change(PAGE_SIZE, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	begin(0, VTL1, 0);
	assert_int_equal(add(PAGE_SIZE, PAGE_SIZE, ACCESS_NONE), PROTECT_DONE);
	assert_int_equal(add(SIZE_1G, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_NO_MEMORY);
	assert_int_equal(regions_in(BLOCK_REGION_STABLE), 1);
	assert_int_equal(regions_in(BLOCK_REGION_FREE), REGIONS - 1);
	assert_int_equal(region_at(PAGE_SIZE)->new_access, ACCESS_READ);
	/* And what is done takes it away. */
	assert_int_equal(change(PAGE_SIZE, PAGE_SIZE, ACCESS_NONE, 0), PROTECT_DONE);
	assert_int_equal(regions_in(BLOCK_REGION_STABLE), 1);
	assert_int_equal(region_at(PAGE_SIZE)->new_access, ACCESS_NONE);
}

static bool prepare_and_release(void *platform, struct protect_batch *batch)
{
	bool prepared = npt_protect_ops.prepare(platform, batch);

	tlblock_release_own(&tlblock, 1);
	return prepared;
}

/* A shootdown that waited for a TLB lock is over just now: its pages count. */
static void test_memory_of_an_ended_shootdown(void **state)
{
	struct protect_ops ops = npt_protect_ops;

	(void)state;
	assert_int_equal(change(PAGE_SIZE, PAGE_SIZE, RW, 0), PROTECT_DONE);
	tlblock_take(&tlblock, 1, VTL0, VTL2);
	assert_int_equal(change(0, SIZE_1G, ACCESS_READ, 0), PROTECT_SUSPENDED);
	assert_int_equal(pages_left(), 0);
	ops.prepare = prepare_and_release;
	protect.ops = &ops;
	assert_int_equal(change(SIZE_1G, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	protect.ops = &npt_protect_ops;
	assert_int_equal(access_at(SIZE_1G), ACCESS_READ);
}

/* Pages that only wait for a shootdown are had by one when they are needed. */
static void test_memory_is_recovered(void **state)
{
	(void)state;
	assert_int_equal(change(PAGE_SIZE, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	assert_int_equal(change(PAGE_SIZE, PAGE_SIZE, ACCESS_ALL, 0), PROTECT_DONE);
	assert_int_equal(shootdowns(), 1);
	assert_int_equal(pages_left(), 0);
	assert_int_equal(change(SIZE_1G, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
	assert_int_equal(shootdowns(), 3);
	assert_int_equal(access_at(SIZE_1G), ACCESS_READ);

	/* Not while somebody holds a TLB lock: they may be walked. */
	assert_int_equal(change(SIZE_1G, PAGE_SIZE, ACCESS_ALL, 0), PROTECT_DONE);
	tlblock_take(&tlblock, 1, VTL0, VTL2);
	npt_arena_remember(&arena);
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_READ, 0), PROTECT_NO_MEMORY);
	assert_true(npt_arena_is_as_before(&arena));
	tlblock_release_own(&tlblock, 1);
	assert_int_equal(change(0, PAGE_SIZE, ACCESS_READ, 0), PROTECT_DONE);
}

/* --- the order of locks ------------------------------------------------------------------------ */

static void test_lock_order(void **state)
{
	static struct protect_lock lock;
	struct protect_held held = {{0}};

	(void)state;
	assert_true(protect_lock_take(&lock, &held, PROTECT_LAYER_REGION, 3));
	assert_false(protect_lock_in_order(&held, PROTECT_LAYER_REGION, 3));
	assert_false(protect_lock_in_order(&held, PROTECT_LAYER_REGION, 2));
	assert_true(protect_lock_in_order(&held, PROTECT_LAYER_REGION, 4));
	assert_true(protect_lock_in_order(&held, PROTECT_LAYER_TABLE, 0));
	assert_false(protect_lock_take(&lock, &held, PROTECT_LAYER_REGION, 3));
	assert_false(protect_lock_give(&lock, &held, PROTECT_LAYER_TABLE, 3));
	assert_true(protect_lock_give(&lock, &held, PROTECT_LAYER_REGION, 3));
	assert_false(protect_lock_give(&lock, &held, PROTECT_LAYER_REGION, 3));

	assert_true(protect_lock_take(&lock, &held, PROTECT_LAYER_RECORD, 0));
	assert_false(protect_lock_in_order(&held, PROTECT_LAYER_REGION, 63));
	assert_false(protect_lock_in_order(&held, PROTECT_LAYER_TABLE, 15));
	assert_true(protect_lock_give(&lock, &held, PROTECT_LAYER_RECORD, 0));
	assert_true(protect_lock_in_order(&held, PROTECT_LAYER_REGION, 0));
}

/* The engine itself stops at once, whether or not somebody is in the way. */
static void test_lock_order_is_asserted(void **state)
{
	struct protect_held *held = &protect_vps[0].held;

	(void)state;
	assert_true(protect_lock_take(&protect.table_lock[0], held, PROTECT_LAYER_TABLE, 0));
	begin(0, VTL1, 0);
	broken_text = NULL;
	if (setjmp(broken_jump) == 0) {
		assert_int_equal(add(0, PAGE_SIZE, ACCESS_READ), PROTECT_DONE);
		commit(); /* takes a region shard, which comes first */
		fail();
	}
	assert_non_null(broken_text);
}

static void test_shards(void **state)
{
	(void)state;
	assert_int_equal(protect_shards(0, PAGE_SIZE, SIZE_2M, 64), 1);
	assert_int_equal(protect_shards(SIZE_2M - PAGE_SIZE, 2 * PAGE_SIZE, SIZE_2M, 64), 3);
	assert_int_equal(protect_shards(63 * SIZE_2M, 2 * SIZE_2M, SIZE_2M, 64), 1ull << 63 | 1);
	assert_int_equal(protect_shards(0, 64 * SIZE_2M, SIZE_2M, 64), ~0ull);
	assert_int_equal(protect_shards(5 * SIZE_1G, 8 * SIZE_1G, SIZE_1G, 16), 0x1fe0);
}

/* --- VPs as threads ---------------------------------------------------------------------------- */

#define TURNS	     150
#define STRESS_PAGES 2048 /* 8 MiB: four shards */

struct change {
	uint64_t number;
	uint16_t first;
	uint16_t pages;
	uint8_t access;
};

static struct stress {
	struct protect_transaction transaction;
	struct change change[TURNS * 3];
	uint32_t changes;
	uint32_t failed;
	uint64_t seed;
} stress[VPS];

static bool disjoint;

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void stress_turn(struct stress *own, vp_id_t vp)
{
	static const uint8_t accesses[] = {ACCESS_ALL, ACCESS_READ, RW, ACCESS_NONE};
	uint32_t count = 1 + random_next(&own->seed) % 3;
	uint32_t before = own->changes;
	uint32_t flags = random_next(&own->seed) % 4 == 0 ? PROTECT_NOT_SENSITIVE : 0;

	protect_begin(&protect, &own->transaction, vp, VTL2, VTL0, PROTECT_TEST, flags);
	for (uint32_t i = 0; i < count; i++) {
		struct change *change = &own->change[own->changes];
		uint32_t room = disjoint ? STRESS_PAGES / VPS : STRESS_PAGES;
		uint32_t pages = 1 + random_next(&own->seed) % (room / 2);

		*change = (struct change){
			.first = (uint16_t)((disjoint ? vp * room : 0) +
				random_next(&own->seed) % (room - pages)),
			.pages = (uint16_t)pages,
			.access = accesses[random_next(&own->seed) % ARRAY_SIZE(accesses)],
		};
		if (protect_add(&protect, &own->transaction, GPA(change->first * PAGE_SIZE),
			    pages * PAGE_SIZE, change->access) == PROTECT_DONE)
			own->changes++;
	}
	if (!protect_ok(protect_commit(&protect, &own->transaction)))
		own->failed++;
	for (uint32_t i = before; i < own->changes; i++)
		own->change[i].number = own->transaction.number;
	/* An access on behalf of the guest, now and then over several transactions of others. */
	if (random_next(&own->seed) % 8 == 0) {
		tlblock_take(&tlblock, vp, VTL0, VTL2);
		protect_access(&protect, VTL0, GPA(own->change[before].first * PAGE_SIZE));
		tlblock_release_own(&tlblock, vp);
	}
	if (random_next(&own->seed) % 16 == 0)
		protect_sync(&protect, vp, VTL2);
}

static void *stress_vp(void *arg)
{
	struct stress *own = arg;
	vp_id_t vp = (vp_id_t)(own - stress);

	for (uint32_t turn = 0; turn < TURNS; turn++)
		stress_turn(own, vp);
	return NULL;
}

/* What the changes of all VPs, in the order of their numbers, come to. */
static void expect_outcome(void)
{
	static uint64_t latest[STRESS_PAGES];
	static uint8_t access[STRESS_PAGES];

	memset(latest, 0, sizeof(latest));
	memset(access, ACCESS_ALL, sizeof(access));
	for (vp_id_t vp = 0; vp < VPS; vp++) {
		for (uint32_t i = 0; i < stress[vp].changes; i++) {
			const struct change *change = &stress[vp].change[i];

			for (uint32_t page = change->first; page < change->first + change->pages;
				page++) {
				if (change->number >= latest[page]) {
					latest[page] = change->number;
					access[page] = change->access;
				}
			}
		}
	}
	for (uint32_t page = 0; page < STRESS_PAGES; page++)
		assert_int_equal(access_at(page * PAGE_SIZE), access[page]);
}

static void run_stress(bool apart)
{
	pthread_t threads[VPS];

	disjoint = apart;
	for (vp_id_t vp = 0; vp < VPS; vp++) {
		stress[vp].changes = 0;
		stress[vp].failed = 0;
		stress[vp].seed = 0x2545f4914f6cdd1d + vp * 977;
		assert_int_equal(pthread_create(&threads[vp], NULL, stress_vp, &stress[vp]), 0);
	}
	for (vp_id_t vp = 0; vp < VPS; vp++)
		pthread_join(threads[vp], NULL);
	for (vp_id_t vp = 0; vp < VPS; vp++)
		assert_int_equal(stress[vp].failed, 0);
	expect_outcome();
	assert_int_equal(regions_in(BLOCK_REGION_CHANGING) + regions_in(BLOCK_REGION_FLUSHING), 0);
	/* Nothing has been lost: it all comes back. */
	begin(0, VTL2, 0);
	assert_int_equal(add(0, SIZE_1G, ACCESS_NONE), PROTECT_DONE);
	assert_int_equal(commit(), PROTECT_DONE);
	assert_int_equal(change(0, SIZE_1G, ACCESS_ALL, 0), PROTECT_DONE);
	assert_true(npt_arena_is_as_before(&arena));
	assert_int_equal(regions_in(BLOCK_REGION_STABLE), 1);
}

static void test_threads_apart(void **state)
{
	(void)state;
	run_stress(true);
}

static void test_threads_on_the_same_pages(void **state)
{
	(void)state;
	run_stress(false);
}

/* Whoever takes a page has it alone, with all that is in it, until it is free again. */
static void *pool_vp(void *arg)
{
	struct npt_pool *pool = &arena.space.pool;
	uint32_t *failed = arg;

	for (uint32_t turn = 0; turn < 2000; turn++) {
		uint32_t count = 1 + turn % 2;
		struct protect_pages list = {0, 0};

		if (!npt_pool_reserve(pool, count))
			continue;
		for (uint32_t i = 0; i < count; i++) {
			struct atomic_u64 *table = npt_pool_take(pool);
			uint64_t *words = (uint64_t *)table; /* plain: the thread sanitizer looks */

			words[turn % 512] = turn;
			*failed += words[turn % 512] != turn;
			list = npt_pool_join(pool, list, npt_pool_list(pool, table));
		}
		npt_pool_release(pool, list);
	}
	return NULL;
}

static void test_threads_at_the_pool(void **state)
{
	pthread_t threads[VPS];
	uint32_t failed[VPS] = {0};

	(void)state;
	for (vp_id_t vp = 0; vp < VPS; vp++)
		assert_int_equal(pthread_create(&threads[vp], NULL, pool_vp, &failed[vp]), 0);
	for (vp_id_t vp = 0; vp < VPS; vp++)
		pthread_join(threads[vp], NULL);
	for (vp_id_t vp = 0; vp < VPS; vp++)
		assert_int_equal(failed[vp], 0);
	assert_int_equal(pages_left(), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bad_ranges, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_access, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_callers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_map_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_overlaps_in_a_transaction, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_many_ranges, setup, teardown),
		cmocka_unit_test_setup_teardown(test_may, setup_two, teardown),
		cmocka_unit_test_setup_teardown(test_may_at_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_add_far_from_pins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lock_of_a_transaction, setup, teardown),
		cmocka_unit_test_setup_teardown(test_locks_are_held, setup, teardown),
		cmocka_unit_test_setup_teardown(test_revoke_a_gigabyte, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_ranges_one_shootdown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_grant_shoots_nothing_down, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_record, setup, teardown),
		cmocka_unit_test_setup_teardown(test_records_do_not_run_out, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deferred, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deferred_grant_is_done, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sensitive_after_deferred, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deferred_has_a_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deferred_during_a_shootdown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_targets_are_apart, setup_two, teardown),
		cmocka_unit_test_setup_teardown(test_suspended, setup, teardown),
		cmocka_unit_test_setup_teardown(test_suspended_and_another, setup, teardown),
		cmocka_unit_test_setup_teardown(test_suspended_sync, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vtl2_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_memory, setup_small, teardown),
		cmocka_unit_test_setup_teardown(
			test_no_memory_leaves_records, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_memory_is_recovered, setup_small, teardown),
		cmocka_unit_test_setup_teardown(
			test_memory_of_an_ended_shootdown, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_lock_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lock_order_is_asserted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shards, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads_at_the_pool, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_threads_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads_on_the_same_pages, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
