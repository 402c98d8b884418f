/* Nested page tables: what is written, split, merged, reserved and given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "npt_arena.h"

#define RW (ACCESS_READ | ACCESS_WRITE)

static struct npt_arena arena;
static const struct protect_ops *const ops = &npt_protect_ops;

/* One batch; freed pages are free at once, since nobody walks these tables. */
static bool set_ranges(struct protect_batch *batch)
{
	if (!ops->prepare(&arena.space, batch))
		return false;
	ops->write(&arena.space, batch);
	ops->release(&arena.space, batch->freed);
	return true;
}

static struct protect_batch set(uint64_t base, uint64_t bytes, uint32_t access)
{
	static struct protect_range range;
	struct protect_batch batch = {.target = VTL0, .ranges = &range, .count = 1};

	range = (struct protect_range){.base = base, .bytes = bytes, .access = (uint8_t)access};
	assert_true(set_ranges(&batch));
	return batch;
}

static uint32_t access_at(uint64_t address)
{
	return ops->access(&arena.space, VTL0, GPA(address));
}

static uint32_t used(void)
{
	return arena.space.pool.pages - npt_pool_left(&arena.space.pool);
}

static int setup_with(uint32_t pages, bool huge)
{
	npt_arena_init(&arena, pages, 1, huge);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return setup_with(256, true);
}

static int setup_small(void **state)
{
	(void)state;
	return setup_with(256, false);
}

static int teardown(void **state)
{
	(void)state;
	npt_arena_fini(&arena);
	return 0;
}

static void test_pool(void **state)
{
	struct npt_pool *pool = &arena.space.pool;
	uint32_t left = npt_pool_left(pool);
	struct protect_pages list = {0, 0};
	struct atomic_u64 *first, *second;

	(void)state;
	assert_false(npt_pool_reserve(pool, left + 1));
	assert_int_equal(npt_pool_left(pool), left);
	assert_true(npt_pool_reserve(pool, 3));
	first = npt_pool_take(pool);
	second = npt_pool_take(pool);
	assert_ptr_not_equal(first, second);
	assert_ptr_equal(npt_pool_table(pool, npt_pool_hpa(pool, second)), second);
	npt_pool_unreserve(pool, 1);
	assert_int_equal(npt_pool_left(pool), left - 2);
	list = npt_pool_join(pool, list, npt_pool_list(pool, second));
	list = npt_pool_join(pool, list, npt_pool_list(pool, first));
	list = npt_pool_join(pool, list, (struct protect_pages){0, 0});
	npt_pool_release(pool, list);
	assert_int_equal(npt_pool_left(pool), left);
	/* The lowest first. */
	assert_true(npt_pool_reserve(pool, 1));
	assert_ptr_equal(npt_pool_take(pool), first < second ? first : second);
}

static void test_largest_entries(void **state)
{
	struct protect_batch batch;

	(void)state;
	/* Root and one table below it; four entries of 1 GiB, and the one for the table. */
	batch = set(0, 4 * SIZE_1G, ACCESS_ALL);
	assert_int_equal(batch.entries, 5);
	assert_int_equal(used(), 2);
	assert_false(batch.lost);
	assert_int_equal(access_at(0), ACCESS_ALL);
	assert_int_equal(access_at(4 * SIZE_1G - 1), ACCESS_ALL);
	assert_int_equal(access_at(4 * SIZE_1G), ACCESS_NONE);
	assert_int_equal(access_at(1ull << 48), ACCESS_NONE);
	assert_int_equal(access_at(~0ull), ACCESS_NONE);
}

static void test_no_huge_entries(void **state)
{
	struct protect_batch batch;

	(void)state;
	batch = set(0, 2 * SIZE_1G, ACCESS_ALL);
	assert_int_equal(used(), 4);
	assert_int_equal(batch.entries, 1 + 2 + 1024);
	npt_arena_remember(&arena);
	/* "Nothing" needs no table, so one entry says it for 1 GiB. */
	batch = set(SIZE_1G, SIZE_1G, ACCESS_NONE);
	assert_int_equal(batch.entries, 1);
	assert_int_equal(used(), 3);
	assert_true(batch.lost);
	batch = set(SIZE_1G, SIZE_1G, ACCESS_ALL);
	assert_int_equal(batch.entries, 1 + 512);
	assert_true(npt_arena_is_as_before(&arena));
}

static void test_revoke_a_gigabyte(void **state)
{
	struct protect_batch batch;

	(void)state;
	set(0, 4 * SIZE_1G, ACCESS_ALL);
	npt_arena_remember(&arena);
	batch = set(SIZE_1G, SIZE_1G, ACCESS_READ);
	assert_int_equal(batch.entries, 1);
	assert_true(batch.lost);
	assert_int_equal(batch.ranges->old, ACCESS_ALL);
	assert_false(batch.ranges->mixed);
	assert_int_equal(access_at(2 * SIZE_1G - 1), ACCESS_READ);
	assert_int_equal(access_at(2 * SIZE_1G), ACCESS_ALL);
	batch = set(SIZE_1G, SIZE_1G, ACCESS_ALL);
	assert_int_equal(batch.entries, 1);
	assert_false(batch.lost);
	assert_true(npt_arena_is_as_before(&arena));
}

static void test_split_as_far_as_needed(void **state)
{
	struct protect_batch batch;
	uint64_t page = SIZE_1G + 5 * SIZE_2M + 7 * PAGE_SIZE;

	(void)state;
	set(0, 4 * SIZE_1G, ACCESS_ALL);
	npt_arena_remember(&arena);

	/* 2 MiB: one table more; 4 KiB: another one. */
	batch = set(SIZE_1G, SIZE_2M, ACCESS_READ);
	assert_int_equal(used(), 3);
	assert_int_equal(batch.entries, 2);
	batch = set(page, PAGE_SIZE, RW);
	assert_int_equal(used(), 4);
	assert_int_equal(batch.entries, 2);
	assert_true(batch.lost);
	assert_int_equal(access_at(page - 1), ACCESS_ALL);
	assert_int_equal(access_at(page), RW);
	assert_int_equal(access_at(page + PAGE_SIZE), ACCESS_ALL);
	/* What is so already splits nothing and writes nothing. */
	batch = set(3 * SIZE_1G + PAGE_SIZE, PAGE_SIZE, ACCESS_ALL);
	assert_int_equal(batch.entries, 0);
	assert_false(batch.lost);
	assert_int_equal(used(), 4);

	batch = set(page, PAGE_SIZE, ACCESS_ALL);
	assert_false(batch.lost);
	assert_int_equal(used(), 3);
	set(SIZE_1G, SIZE_2M, ACCESS_ALL);
	assert_true(npt_arena_is_as_before(&arena));
}

static void test_large_entry_over_tables(void **state)
{
	struct protect_batch batch;

	(void)state;
	set(0, 2 * SIZE_1G, ACCESS_ALL);
	npt_arena_remember(&arena);
	for (uint64_t i = 0; i < 8; i++)
		set(i * SIZE_2M + PAGE_SIZE, PAGE_SIZE, i % 2 ? ACCESS_READ : ACCESS_NONE);
	assert_int_equal(used(), 2 + 1 + 8);
	/* One entry takes the place of nine tables. */
	batch = set(0, SIZE_1G, ACCESS_ALL);
	assert_int_equal(batch.entries, 1);
	assert_true(batch.ranges->mixed);
	assert_int_equal(batch.ranges->old, ACCESS_ALL);
	assert_false(batch.lost);
	assert_true(npt_arena_is_as_before(&arena));
}

static void test_merge_over_ranges_of_one_batch(void **state)
{
	static struct protect_range ranges[512];
	struct protect_batch batch = {.target = VTL0, .ranges = ranges, .count = 256};

	(void)state;
	set(0, SIZE_1G, ACCESS_ALL);
	npt_arena_remember(&arena);
	for (uint64_t i = 0; i < 256; i++)
		ranges[i] = (struct protect_range){
			.base = 2 * i * PAGE_SIZE, .bytes = PAGE_SIZE, .access = ACCESS_READ};
	assert_true(set_ranges(&batch));
	/* The same 2 MiB is split once, and reserved for once. */
	assert_int_equal(batch.reserved, 2);
	assert_int_equal(used(), 4);
	assert_int_equal(batch.entries, 2 + 256);
	for (uint64_t i = 0; i < 512; i++)
		assert_int_equal(access_at(i * PAGE_SIZE), i % 2 ? ACCESS_ALL : ACCESS_READ);

	batch = (struct protect_batch){.target = VTL0, .ranges = ranges, .count = 256};
	for (uint64_t i = 0; i < 256; i++)
		ranges[i] = (struct protect_range){
			.base = 2 * i * PAGE_SIZE, .bytes = PAGE_SIZE, .access = ACCESS_ALL};
	assert_true(set_ranges(&batch));
	assert_int_equal(batch.reserved, 0);
	assert_true(npt_arena_is_as_before(&arena));
}

/* Not enough pages: nothing is written, nothing stays reserved. */
static void test_no_memory(void **state)
{
	struct protect_range ranges[3];
	struct protect_batch batch = {.target = VTL0, .ranges = ranges, .count = 3};
	uint32_t left;

	(void)state;
	npt_arena_fini(&arena);
	npt_arena_init(&arena, 2 + 4, 1, true);
	set(0, 4 * SIZE_1G, ACCESS_ALL);
	npt_arena_remember(&arena);
	left = npt_pool_left(&arena.space.pool);
	assert_int_equal(left, 4);
	/* Two tables for each. */
	for (uint64_t i = 0; i < 3; i++)
		ranges[i] = (struct protect_range){
			.base = i * SIZE_1G + PAGE_SIZE, .bytes = PAGE_SIZE, .access = ACCESS_READ};
	assert_false(set_ranges(&batch));
	assert_int_equal(npt_pool_left(&arena.space.pool), left);
	assert_true(npt_arena_is_as_before(&arena));
	batch.count = 2;
	assert_true(set_ranges(&batch));
	assert_int_equal(npt_pool_left(&arena.space.pool), 0);
	/* What needs no page still goes. */
	batch = set(0, 4 * SIZE_1G, ACCESS_NONE);
	assert_int_equal(batch.entries, 4);
	set(0, 4 * SIZE_1G, ACCESS_ALL);
	assert_true(npt_arena_is_as_before(&arena));
}

static void test_can(void **state)
{
	(void)state;
	assert_true(ops->can(&arena.space, VTL0, ACCESS_NONE));
	assert_true(ops->can(&arena.space, VTL0, ACCESS_READ));
	assert_true(ops->can(&arena.space, VTL0, RW));
	assert_true(ops->can(&arena.space, VTL0, ACCESS_READ | ACCESS_EXECUTE));
	assert_true(ops->can(&arena.space, VTL0, ACCESS_ALL));
	assert_false(ops->can(&arena.space, VTL0, ACCESS_WRITE));
	assert_false(ops->can(&arena.space, VTL0, ACCESS_EXECUTE));
	assert_false(ops->can(&arena.space, VTL0, ACCESS_READ | ACCESS_EXECUTE_USER));
	assert_false(ops->can(&arena.space, VTL0, ACCESS_READ | ACCESS_EXECUTE_KERNEL));
}

static void test_trees_are_apart(void **state)
{
	struct protect_range range = {.base = 0, .bytes = SIZE_1G, .access = ACCESS_ALL};
	struct protect_batch batch = {.target = VTL1, .ranges = &range, .count = 1};

	(void)state;
	npt_arena_fini(&arena);
	npt_arena_init(&arena, 16, 2, true);
	assert_true(set_ranges(&batch));
	assert_int_equal(access_at(0), ACCESS_NONE);
	assert_int_equal(ops->access(&arena.space, VTL1, GPA(0)), ACCESS_ALL);
	assert_int_not_equal(npt_root(&arena.space, VTL0), npt_root(&arena.space, VTL1));
}

static void test_entries_are_what_processors_expect(void **state)
{
	const struct atomic_u64 *root, *table;
	uint64_t entry;

	(void)state;
	set(SIZE_1G, SIZE_1G, RW);
	root = npt_pool_table(&arena.space.pool, npt_root(&arena.space, VTL0));
	entry = atomic_u64_load(&root[0], memory_order_relaxed);
	assert_int_equal(entry & ~PTE_ADDRESS, PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_ACCESSED);
	table = npt_pool_table(&arena.space.pool, entry & PTE_ADDRESS);
	entry = atomic_u64_load(&table[1], memory_order_relaxed);
	assert_int_equal(entry,
		SIZE_1G | PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_ACCESSED | PTE_DIRTY |
			PTE_LARGE | PTE_NX);
	set(SIZE_1G, PAGE_SIZE, ACCESS_READ | ACCESS_EXECUTE);
	entry = atomic_u64_load(&table[1], memory_order_relaxed);
	table = npt_pool_table(&arena.space.pool, entry & PTE_ADDRESS);
	entry = atomic_u64_load(&table[1], memory_order_relaxed);
	assert_int_equal(entry & PTE_LARGE, PTE_LARGE);
	entry = atomic_u64_load(&table[0], memory_order_relaxed);
	table = npt_pool_table(&arena.space.pool, entry & PTE_ADDRESS);
	entry = atomic_u64_load(&table[0], memory_order_relaxed);
	assert_int_equal(entry, SIZE_1G | PTE_PRESENT | PTE_USER | PTE_ACCESSED | PTE_DIRTY);
}

/* --- against a model --------------------------------------------------------------------------- */

#define MODEL_PAGES (3 * 512 * 512u + 700)

static uint8_t model[MODEL_PAGES];

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Ranges of all sizes, often aligned, so that large entries come and go. */
static uint32_t random_ranges(uint64_t *seed, struct protect_range *ranges, uint32_t max)
{
	static const uint32_t accesses[] = {ACCESS_ALL, ACCESS_ALL, RW, ACCESS_READ, ACCESS_NONE};
	static const uint32_t steps[] = {1, 1, 512, 512, 512 * 512};
	uint64_t page = random_next(seed) % MODEL_PAGES;
	uint32_t count = 0;

	while (count < max) {
		uint64_t step = steps[random_next(seed) % ARRAY_SIZE(steps)];
		uint64_t pages = step * (1 + random_next(seed) % 3);

		page = ALIGN_UP(page + 1 + random_next(seed) % 40, step);
		if (page + pages > MODEL_PAGES)
			break;
		ranges[count++] = (struct protect_range){.base = page * PAGE_SIZE,
			.bytes = pages * PAGE_SIZE,
			.access = (uint8_t)accesses[random_next(seed) % ARRAY_SIZE(accesses)]};
		page += pages;
	}
	return count;
}

static void expect_and_apply(const struct protect_batch *batch)
{
	bool lost = false;

	for (uint32_t i = 0; i < batch->count; i++) {
		const struct protect_range *range = &batch->ranges[i];
		uint64_t first = range->base / PAGE_SIZE;
		uint32_t old = 0;
		uint8_t begin = model[first];
		bool mixed = false;

		for (uint64_t page = first; page < first + range->bytes / PAGE_SIZE; page++) {
			old |= model[page];
			mixed |= model[page] != begin;
			lost |= (model[page] & ~range->access) != 0;
			model[page] = range->access;
		}
		assert_int_equal(range->old, old);
		assert_int_equal(range->mixed, mixed);
	}
	assert_int_equal(batch->lost, lost);
}

/* The same permissions set anew, page by page: the tree must be of the same size. */
static uint32_t canonical_pages(bool huge)
{
	struct npt_arena kept = arena;
	uint32_t pages;

	npt_arena_init(&arena, 4096, 1, huge);
	for (uint64_t page = 0; page < MODEL_PAGES;) {
		uint64_t end = page + 1;

		while (end < MODEL_PAGES && model[end] == model[page])
			end++;
		set(page * PAGE_SIZE, (end - page) * PAGE_SIZE, model[page]);
		page = end;
	}
	pages = used();
	npt_arena_fini(&arena);
	arena = kept;
	return pages;
}

static void check_model(bool huge)
{
	struct protect_range ranges[12];
	uint64_t seed = 0x9e3779b97f4a7c15 + huge;

	npt_arena_fini(&arena);
	npt_arena_init(&arena, 4096, 1, huge);
	memset(model, ACCESS_ALL, sizeof(model));
	set(0, MODEL_PAGES * PAGE_SIZE, ACCESS_ALL);
	for (uint32_t turn = 0; turn < 1500; turn++) {
		struct protect_batch batch = {.target = VTL0, .ranges = ranges};

		batch.count = random_ranges(&seed, ranges, 12);
		assert_true(set_ranges(&batch));
		expect_and_apply(&batch);
		for (uint32_t i = 0; i < 200; i++) {
			uint64_t page = random_next(&seed) % MODEL_PAGES;

			assert_int_equal(access_at(page * PAGE_SIZE), model[page]);
		}
		if (turn % 300 == 0) {
			for (uint64_t page = 0; page < MODEL_PAGES; page++)
				assert_int_equal(access_at(page * PAGE_SIZE), model[page]);
			assert_int_equal(used(), canonical_pages(huge));
		}
	}
	/* Back to where it began. Which page is which table is another matter. */
	set(0, MODEL_PAGES * PAGE_SIZE, ACCESS_ALL);
	memset(model, ACCESS_ALL, sizeof(model));
	assert_int_equal(used(), canonical_pages(huge));
}

static void test_model(void **state)
{
	(void)state;
	check_model(true);
}

static void test_model_no_huge(void **state)
{
	(void)state;
	check_model(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pool, setup, teardown),
		cmocka_unit_test_setup_teardown(test_largest_entries, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_huge_entries, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_revoke_a_gigabyte, setup, teardown),
		cmocka_unit_test_setup_teardown(test_split_as_far_as_needed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_entry_over_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_merge_over_ranges_of_one_batch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_can, setup, teardown),
		cmocka_unit_test_setup_teardown(test_trees_are_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_entries_are_what_processors_expect, setup, teardown),
		cmocka_unit_test_setup_teardown(test_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_model_no_huge, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
