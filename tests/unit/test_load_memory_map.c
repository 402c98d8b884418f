/*
 * boot/load/memory_map: sorting, overlaps, carving, searching, and the Multiboot form of the map.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "boot/load/memory_map.h"
#include "tests/unit/load_arena.h"

#define MIB 0x100000ull

static void check_range(const struct memory_map *map, uint32_t index, uint64_t base,
	uint64_t length, enum memory_type type)
{
	assert_true(index < map->count);
	assert_int_equal(map->ranges[index].base, base);
	assert_int_equal(map->ranges[index].length, length);
	assert_int_equal(map->ranges[index].type, type);
}

/* A small PC: low memory, a hole, RAM to 64 MiB with tables at its top, RAM above 4 GiB. */
static void make_pc(struct memory_map *map)
{
	memory_map_init(map);
	assert_int_equal(memory_map_add(map, 0x100000000, 64 * MIB, MEMORY_RAM), LOAD_OK);
	assert_int_equal(memory_map_add(map, MIB, 63 * MIB, MEMORY_RAM), LOAD_OK);
	assert_int_equal(memory_map_add(map, 0, 0x9fc00, MEMORY_RAM), LOAD_OK);
	assert_int_equal(memory_map_add(map, 0x9fc00, 0x400, MEMORY_RESERVED), LOAD_OK);
	assert_int_equal(memory_map_add(map, 63 * MIB, MIB, MEMORY_ACPI), LOAD_OK);
	assert_int_equal(memory_map_sanitise(map), LOAD_OK);
}

static void test_sanitise_sorts_and_resolves(void **state)
{
	struct memory_map map;

	(void)state;
	make_pc(&map);
	assert_int_equal(map.count, 5);
	check_range(&map, 0, 0, 0x9fc00, MEMORY_RAM);
	check_range(&map, 1, 0x9fc00, 0x400, MEMORY_RESERVED);
	check_range(&map, 2, MIB, 62 * MIB, MEMORY_RAM);
	check_range(&map, 3, 63 * MIB, MIB, MEMORY_ACPI);
	check_range(&map, 4, 0x100000000, 64 * MIB, MEMORY_RAM);
	assert_int_equal(memory_map_total_ram(&map), 126 * MIB + 0x9fc00);
}

static void test_sanitise_joins_neighbours(void **state)
{
	struct memory_map map;

	(void)state;
	memory_map_init(&map);
	memory_map_add(&map, 0x3000, 0x1000, MEMORY_RAM);
	memory_map_add(&map, 0x1000, 0x2000, MEMORY_RAM);
	memory_map_add(&map, 0x2000, 0x1000, MEMORY_RAM);
	assert_int_equal(memory_map_sanitise(&map), LOAD_OK);
	assert_int_equal(map.count, 1);
	check_range(&map, 0, 0x1000, 0x3000, MEMORY_RAM);
}

/* Each pair of types on top of each other: the more restrictive one stays, whichever came first. */
static void test_more_restrictive_type_wins(void **state)
{
	static const enum memory_type order[] = {
		MEMORY_RAM, MEMORY_ACPI, MEMORY_NVS, MEMORY_RESERVED, MEMORY_UNUSABLE};

	(void)state;
	for (size_t a = 0; a < ARRAY_SIZE(order); a++) {
		for (size_t b = 0; b < ARRAY_SIZE(order); b++) {
			struct memory_map map;
			enum memory_type winner = order[a > b ? a : b];

			memory_map_init(&map);
			memory_map_add(&map, 0x1000, 0x2000, order[a]);
			memory_map_add(&map, 0x2000, 0x2000, order[b]);
			assert_int_equal(memory_map_sanitise(&map), LOAD_OK);
			if (a == b) {
				check_range(&map, 0, 0x1000, 0x3000, order[a]);
				continue;
			}
			assert_int_equal(map.count, 2);
			check_range(&map, a > b ? 0 : 1, a > b ? 0x1000 : 0x2000, 0x2000, winner);
		}
	}
}

static void test_reserve_carves(void **state)
{
	struct memory_map map;

	(void)state;
	make_pc(&map);
	assert_int_equal(memory_map_reserve(&map, 16 * MIB, MIB, MEMORY_RESERVED), LOAD_OK);
	assert_int_equal(memory_map_reserve(&map, 20 * MIB, 0x1000, MEMORY_NVS), LOAD_OK);
	check_range(&map, 2, MIB, 15 * MIB, MEMORY_RAM);
	check_range(&map, 3, 16 * MIB, MIB, MEMORY_RESERVED);
	check_range(&map, 4, 17 * MIB, 3 * MIB, MEMORY_RAM);
	check_range(&map, 5, 20 * MIB, 0x1000, MEMORY_NVS);
	assert_false(memory_map_is_ram(&map, 16 * MIB - 1, 2));
	assert_true(memory_map_is_ram(&map, 16 * MIB - 1, 1));
	/* Reserved does not become tables again. */
	assert_int_equal(memory_map_reserve(&map, 16 * MIB, MIB, MEMORY_ACPI), LOAD_OK);
	check_range(&map, 3, 16 * MIB, MIB, MEMORY_RESERVED);
	assert_int_equal(memory_map_reserve(&map, 0, 1, MEMORY_RAM), LOAD_ERR_MAP_TYPE);
	assert_int_equal(memory_map_reserve(&map, ~0ull, 2, MEMORY_NVS), LOAD_ERR_MAP_RANGE);
}

static void test_bad_ranges_are_refused(void **state)
{
	struct memory_map map;

	(void)state;
	memory_map_init(&map);
	assert_int_equal(memory_map_add(&map, 0, 0, MEMORY_RAM), LOAD_OK);
	assert_int_equal(memory_map_add(&map, ~0ull, 1, MEMORY_RAM), LOAD_ERR_MAP_RANGE);
	assert_int_equal(memory_map_add(&map, 1, ~0ull, MEMORY_RAM), LOAD_ERR_MAP_RANGE);
	assert_int_equal(memory_map_add(&map, 1ull << 52, 1, MEMORY_RAM), LOAD_ERR_MAP_RANGE);
	assert_int_equal(memory_map_add(&map, 0, 1, (enum memory_type)0), LOAD_ERR_MAP_TYPE);
	assert_int_equal(memory_map_add(&map, 0, 1, (enum memory_type)6), LOAD_ERR_MAP_TYPE);
	assert_int_equal(map.count, 0);
	assert_int_equal(memory_map_add(&map, 0, 1ull << 52, MEMORY_RAM), LOAD_OK);
	assert_int_equal(memory_map_sanitise(&map), LOAD_OK);
	check_range(&map, 0, 0, 1ull << 52, MEMORY_RAM);
}

static void test_full_map_stays_as_it_was(void **state)
{
	struct memory_map map;
	struct memory_map before;

	(void)state;
	memory_map_init(&map);
	for (uint64_t i = 0; i < MEMORY_MAP_MAX; i++)
		assert_int_equal(memory_map_add(&map, i * 0x2000, 0x1000, MEMORY_RAM), LOAD_OK);
	assert_int_equal(memory_map_add(&map, MIB * 100, 1, MEMORY_RAM), LOAD_ERR_MAP_FULL);
	assert_int_equal(memory_map_sanitise(&map), LOAD_OK);
	before = map;
	assert_int_equal(memory_map_reserve(&map, 0x100, 0x100, MEMORY_NVS), LOAD_ERR_MAP_FULL);
	assert_memory_equal(&map, &before, sizeof(map));

	/* One entry free, but carving out of the middle needs two. */
	map.count--;
	before = map;
	assert_int_equal(memory_map_reserve(&map, 0x100, 0x100, MEMORY_NVS), LOAD_ERR_MAP_FULL);
	assert_int_equal(map.count, before.count);
	assert_memory_equal(map.ranges, before.ranges, map.count * sizeof(map.ranges[0]));
}

static void test_find(void **state)
{
	const struct memory_span avoid[] = {
		{2 * MIB, 0x1000}, {61 * MIB, MIB}, {0x1000, 0x9e000}, {~0ull, 5}, {5, 0}};
	struct memory_request request = {.size = MIB,
		.align = 0x200000,
		.lowest = 0,
		.limit = 1ull << 32,
		.direction = MEMORY_BOTTOM_UP,
		.avoid = avoid,
		.avoid_count = ARRAY_SIZE(avoid)};
	struct memory_map map;
	uint64_t base;

	(void)state;
	make_pc(&map);
	assert_true(memory_map_find(&map, &request, &base));
	assert_int_equal(base, 4 * MIB);
	request.direction = MEMORY_TOP_DOWN;
	assert_true(memory_map_find(&map, &request, &base));
	assert_int_equal(base, 62 * MIB);
	request.size = 2 * MIB;
	assert_true(memory_map_find(&map, &request, &base));
	assert_int_equal(base, 58 * MIB);
	request.limit = ~0ull;
	assert_true(memory_map_find(&map, &request, &base));
	assert_int_equal(base, 0x100000000 + 62 * MIB);
	request.size = 65 * MIB;
	assert_false(memory_map_find(&map, &request, &base));
	request.size = MIB;
	request.lowest = 62 * MIB + 1;
	request.limit = 1ull << 32;
	assert_false(memory_map_find(&map, &request, &base));
	request.lowest = ~0ull;
	assert_false(memory_map_find(&map, &request, &base));
	request.lowest = 0;
	request.align = 3;
	assert_false(memory_map_find(&map, &request, &base));
	request.align = 0;
	assert_false(memory_map_find(&map, &request, &base));
	request.align = 1ull << 63;
	request.direction = MEMORY_BOTTOM_UP;
	request.lowest = 1;
	assert_false(memory_map_find(&map, &request, &base));
	request.align = 1;
	request.size = 0;
	assert_false(memory_map_find(&map, &request, &base));
}

/* Random maps and requests against the plain definition. */
static void test_find_keeps_its_promise(void **state)
{
	uint64_t random = 1;
	uint32_t found = 0;

	(void)state;
	for (uint32_t round = 0; round < 20000; round++) {
		struct memory_map map;
		struct memory_span avoid[4];
		struct memory_request request = {.size = 1 + next_random(&random) % 64,
			.align = 1ull << next_random(&random) % 6,
			.lowest = next_random(&random) % 128,
			.limit = 64 + next_random(&random) % 256,
			.direction = next_random(&random) % 2 ? MEMORY_TOP_DOWN : MEMORY_BOTTOM_UP,
			.avoid = avoid,
			.avoid_count = ARRAY_SIZE(avoid)};
		uint64_t expected = UINT64_MAX;
		uint64_t base = UINT64_MAX;

		memory_map_init(&map);
		for (uint32_t i = 0; i < 6; i++)
			memory_map_add(&map, next_random(&random) % 256, next_random(&random) % 128,
				1 + next_random(&random) % 5 / 3);
		assert_int_equal(memory_map_sanitise(&map), LOAD_OK);
		for (size_t i = 0; i < ARRAY_SIZE(avoid); i++)
			avoid[i] = (struct memory_span){
				next_random(&random) % 256, next_random(&random) % 16};
		for (uint64_t at = 0; at + request.size <= request.limit; at += request.align) {
			bool clear =
				at >= request.lowest && memory_map_is_ram(&map, at, request.size);

			for (size_t i = 0; i < ARRAY_SIZE(avoid); i++)
				clear = clear &&
					!memory_span_overlaps(
						avoid[i], (struct memory_span){at, request.size});
			if (clear &&
				(expected == UINT64_MAX || request.direction == MEMORY_TOP_DOWN))
				expected = at;
		}
		assert_int_equal(memory_map_find(&map, &request, &base), expected != UINT64_MAX);
		assert_int_equal(base, expected);
		found += expected != UINT64_MAX;
	}
	assert_true(found > 1000);
}

static void test_sanitise_keeps_its_promise(void **state)
{
	static const uint8_t rank[] = {0, 1, 4, 2, 3, 5};
	uint64_t random = 2;

	(void)state;
	for (uint32_t round = 0; round < 5000; round++) {
		struct memory_map map;
		uint8_t expected[300] = {0};

		memory_map_init(&map);
		for (uint32_t i = 0; i < 10; i++) {
			uint32_t base = next_random(&random) % 200;
			uint32_t length = next_random(&random) % 90;
			uint32_t type = 1 + next_random(&random) % 5;

			assert_int_equal(memory_map_add(&map, base, length, type), LOAD_OK);
			for (uint32_t at = base; at < base + length; at++)
				if (rank[type] > rank[expected[at]])
					expected[at] = (uint8_t)type;
		}
		assert_int_equal(memory_map_sanitise(&map), LOAD_OK);
		for (uint32_t i = 0; i < map.count; i++) {
			const struct memory_range *range = &map.ranges[i];

			assert_true(range->length > 0);
			for (uint64_t at = range->base; at < range->base + range->length; at++) {
				assert_int_equal(expected[at], range->type);
				expected[at] = 0;
			}
			if (i == 0)
				continue;
			assert_true(range[-1].base + range[-1].length <= range->base);
			assert_true(range[-1].base + range[-1].length < range->base ||
				range[-1].type != range->type);
		}
		for (size_t at = 0; at < sizeof(expected); at++)
			assert_int_equal(expected[at], 0);
	}
}

static size_t put_mmap(uint8_t *at, uint32_t size, uint64_t base, uint64_t length, uint32_t type)
{
	put32(at, size);
	put64(at + 4, base);
	put64(at + 12, length);
	put32(at + 20, type);
	return size + 4;
}

static enum load_error read_exactly(struct memory_map *map, const uint8_t *buffer, size_t bytes)
{
	uint8_t *copy = arena_copy_exactly(buffer, bytes);
	enum load_error error = memory_map_read_multiboot(map, copy, bytes);

	free(copy);
	return error;
}

static void test_multiboot_map(void **state)
{
	uint8_t buffer[256] = {0};
	struct memory_map map;
	size_t bytes = 0;

	(void)state;
	bytes += put_mmap(buffer + bytes, 20, MIB, MIB, 1);
	bytes += put_mmap(buffer + bytes, 24, 0, 0x9fc00, 1);
	bytes += put_mmap(buffer + bytes, 21, 0x9fc00, 0x400, 12);
	memory_map_init(&map);
	assert_int_equal(read_exactly(&map, buffer, bytes), LOAD_OK);
	assert_int_equal(map.count, 3);
	check_range(&map, 1, 0x9fc00, 0x400, MEMORY_RESERVED);

	memory_map_init(&map);
	for (size_t cut = 1; cut < bytes; cut++) {
		enum load_error error = read_exactly(&map, buffer, cut);

		if (cut == 24 || cut == 24 + 28) {
			assert_int_equal(error, LOAD_OK);
			memory_map_init(&map);
			continue;
		}
		assert_int_equal(error, LOAD_ERR_MAP_TRUNCATED);
		assert_int_equal(map.count, 0);
	}
	assert_int_equal(read_exactly(&map, buffer, 0), LOAD_ERR_MAP_NO_RAM);
	put_mmap(buffer, 19, 0, 1, 1);
	assert_int_equal(read_exactly(&map, buffer, bytes), LOAD_ERR_MAP_ENTRY);
	put_mmap(buffer, 0xffffffff, 0, 1, 1);
	assert_int_equal(read_exactly(&map, buffer, bytes), LOAD_ERR_MAP_TRUNCATED);
	put_mmap(buffer, 20, ~0ull, 2, 1);
	assert_int_equal(read_exactly(&map, buffer, bytes), LOAD_ERR_MAP_RANGE);
	put_mmap(buffer, 20, 0, MIB, 2);
	assert_int_equal(read_exactly(&map, buffer, 24), LOAD_ERR_MAP_NO_RAM);
	assert_int_equal(map.count, 0);
}

static void test_mutated_multiboot_map(void **state)
{
	uint8_t good[24 * 9];
	uint64_t random = 3;

	(void)state;
	for (uint32_t i = 0; i < 9; i++)
		put_mmap(good + 24 * i, 20, i * 2 * MIB, 3 * MIB, 1 + i % 5);
	for (uint32_t round = 0; round < 100000; round++) {
		uint8_t *copy = arena_copy_exactly(good, sizeof(good));
		struct memory_map map;

		mutate_bytes(copy, sizeof(good), &random);
		memory_map_init(&map);
		if (memory_map_read_multiboot(&map, copy, sizeof(good)))
			assert_int_equal(map.count, 0);
		free(copy);
	}
}

static void test_spans(void **state)
{
	struct memory_spans list = {.count = 0};
	struct memory_span span = {1, 1};
	struct memory_span two[2] = {{1, 0}, {2, 2}};

	(void)state;
	assert_int_equal(memory_spans_add(&list, two, 2), LOAD_OK);
	assert_int_equal(list.count, 1);
	while (list.count < MEMORY_SPANS_MAX)
		assert_int_equal(memory_spans_add(&list, &span, 1), LOAD_OK);
	assert_int_equal(memory_spans_add(&list, &span, 1), LOAD_ERR_MANY_SPANS);
	assert_int_equal(memory_spans_add(&list, two, 1), LOAD_OK);
	assert_true(memory_span_overlaps(
		(struct memory_span){~0ull - 4, 100}, (struct memory_span){~0ull, 1}));
	assert_false(memory_span_overlaps((struct memory_span){0, 4}, (struct memory_span){4, 4}));
}

static void test_every_error_has_its_own_text(void **state)
{
	(void)state;
	for (int a = 0; a < LOAD_ERR_COUNT; a++) {
		const char *text = load_error_text(a);

		assert_non_null(text);
		assert_null(strchr(text, '\n'));
		for (int b = 0; b < a; b++)
			assert_string_not_equal(text, load_error_text(b));
		assert_string_not_equal(text, load_error_text(LOAD_ERR_COUNT));
	}
	assert_non_null(load_error_text((enum load_error) - 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sanitise_sorts_and_resolves),
		cmocka_unit_test(test_sanitise_joins_neighbours),
		cmocka_unit_test(test_more_restrictive_type_wins),
		cmocka_unit_test(test_reserve_carves),
		cmocka_unit_test(test_bad_ranges_are_refused),
		cmocka_unit_test(test_full_map_stays_as_it_was),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_find_keeps_its_promise),
		cmocka_unit_test(test_sanitise_keeps_its_promise),
		cmocka_unit_test(test_multiboot_map),
		cmocka_unit_test(test_mutated_multiboot_map),
		cmocka_unit_test(test_spans),
		cmocka_unit_test(test_every_error_has_its_own_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
