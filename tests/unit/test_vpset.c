/* Sets of VPs: what a walk delivers, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "core/vpset/vpset.h"

static uint16_t table[VPSET_INDEX_COUNT];
static struct vpset_map map;

/* Eight VPs, at indexes 0, 1, 63, 64, 130, 500, 4032 and 4095. */
static const uint16_t indexes[] = {0, 1, 63, 64, 130, 500, 4032, 4095};

static int setup(void **state)
{
	(void)state;
	memset(table, 0xff, sizeof(table));
	for (uint16_t vp = 0; vp < ARRAY_SIZE(indexes); vp++)
		table[indexes[vp]] = vp;
	map = (struct vpset_map){table, VPSET_INDEX_COUNT, ARRAY_SIZE(indexes)};
	return 0;
}

static uint64_t walk(const struct vpset *set)
{
	struct vpset_iter iter;
	uint64_t seen = 0;
	vp_id_t vp;

	vpset_iter_begin(&iter, set);
	while (vpset_iter_next(&iter, &vp)) {
		assert_true(vp < map.vp_count);
		assert_false(seen & 1ull << vp); /* each once */
		seen |= 1ull << vp;
	}
	assert_false(vpset_iter_next(&iter, &vp)); /* and the end stays the end */
	return seen;
}

static void test_all(void **state)
{
	struct vpset set = vpset_make_all(&map);
	uint32_t index;

	(void)state;
	assert_int_equal(walk(&set), 0xff);
	assert_true(vpset_all_exist(&set, &index));
}

static void test_one(void **state)
{
	(void)state;
	for (vp_id_t vp = 0; vp < map.vp_count; vp++) {
		struct vpset set = vpset_make_one(&map, vp);

		assert_int_equal(walk(&set), 1ull << vp);
	}
}

static void test_mask(void **state)
{
	struct vpset set = vpset_make_mask(&map, 1ull << 63 | 2);
	uint32_t index;

	(void)state;
	assert_int_equal(walk(&set), 1u << 2 | 1u << 1);
	assert_true(vpset_all_exist(&set, &index));
	set = vpset_make_mask(&map, 0);
	assert_int_equal(walk(&set), 0);
}

static void test_mask_unknown_index(void **state)
{
	struct vpset set = vpset_make_mask(&map, ~0ull);
	uint32_t index;

	(void)state;
	assert_int_equal(walk(&set), 7);
	assert_false(vpset_all_exist(&set, &index));
	assert_int_equal(index, 2);
}

static void test_index_beyond_table(void **state)
{
	struct vpset_map small = {table, 64, 3};
	const uint64_t banks[] = {1, 1};
	struct vpset set;
	uint32_t index;

	(void)state;
	assert_int_equal(
		vpset_make_sparse(&set, &small, HV_GENERIC_SET_SPARSE_4K, 3, banks, 2), VPSET_OK);
	assert_int_equal(walk(&set), 1);
	assert_false(vpset_all_exist(&set, &index));
	assert_int_equal(index, 64);
}

static void test_sparse(void **state)
{
	/* Banks 0, 1, 2, 7 and 63; bank 7 is announced and empty. */
	const uint64_t banks[] = {1ull << 63, 1, 1ull << 2, 0, 1ull | 1ull << 63};
	uint64_t mask = 1ull << 0 | 1ull << 1 | 1ull << 2 | 1ull << 7 | 1ull << 63;
	struct vpset set;
	uint32_t index;

	(void)state;
	assert_int_equal(vpset_bank_words(mask), 5);
	assert_int_equal(
		vpset_make_sparse(&set, &map, HV_GENERIC_SET_SPARSE_4K, mask, banks, 5), VPSET_OK);
	assert_int_equal(walk(&set), 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7);
	assert_true(vpset_all_exist(&set, &index));
}

static void test_sparse_refused(void **state)
{
	const uint64_t banks[] = {~0ull};
	struct vpset set;

	(void)state;
	assert_int_equal(vpset_make_sparse(&set, &map, HV_GENERIC_SET_SPARSE_4K, 3, banks, 1),
		VPSET_BAD_SIZE);
	assert_int_equal(vpset_make_sparse(&set, &map, HV_GENERIC_SET_SPARSE_4K, ~0ull, banks, 1),
		VPSET_BAD_SIZE);
	assert_int_equal(vpset_make_sparse(&set, &map, 2, 1, banks, 1), VPSET_BAD_FORMAT);
	assert_int_equal(vpset_make_sparse(&set, &map, ~0ull, 1, banks, 1), VPSET_BAD_FORMAT);
	/* More data than banks is no error, and neither is an empty set. */
	assert_int_equal(
		vpset_make_sparse(&set, &map, HV_GENERIC_SET_SPARSE_4K, 0, banks, 1), VPSET_OK);
	assert_int_equal(walk(&set), 0);
	/* ALL does not look at the banks. */
	assert_int_equal(
		vpset_make_sparse(&set, &map, HV_GENERIC_SET_ALL, ~0ull, NULL, 0), VPSET_OK);
	assert_int_equal(walk(&set), 0xff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_one),
		cmocka_unit_test(test_mask),
		cmocka_unit_test(test_mask_unknown_index),
		cmocka_unit_test(test_index_beyond_table),
		cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_sparse_refused),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
