/* The APs' initial page tables, walked as the processor walks them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mailbox/ap_tables.h"

#define TABLES_GPA 0x90000ull

static uint64_t pages[9][512] __attribute__((aligned(4096)));

static const struct ap_tables_range writable[] = {
	{0x1000, 0x8f000}, {0x99000, 0x6000}, {0x40000000, 0x400000}};

static struct ap_tables_config config_make(unsigned int levels)
{
	memset(pages, 0xff, sizeof(pages));
	return (struct ap_tables_config){
		.levels = levels,
		.pages = pages,
		.gpa = GPA(TABLES_GPA),
		.writable = writable,
		.writable_count = ARRAY_SIZE(writable),
	};
}

/* The last entry for an address, checked on the way; 0 if not mapped. */
static uint64_t walk(gpa_t root, unsigned int levels, uint64_t address, uint64_t *bytes)
{
	uint64_t table = root.value, entry = 0;

	for (unsigned int level = levels; level > 0; level--) {
		uint64_t index = (address >> (12 + 9 * (level - 1))) & 511;

		assert_true(table >= TABLES_GPA && table < TABLES_GPA + sizeof(pages));
		entry = pages[(table - TABLES_GPA) / 4096][index];
		*bytes = 1ull << (12 + 9 * (level - 1));
		if (!(entry & 1))
			return 0;
		assert_int_equal(entry & 0x20, 0x20); /* accessed is preset */
		assert_int_equal(entry & 0x04, 0); /* nothing for user mode */
		assert_int_equal(entry >> 52, 0); /* no NX, nothing reserved */
		if (level == 1 || (level == 2 && (entry & 0x80)))
			return entry;
		assert_int_equal(entry & 0x80, 0);
		assert_int_equal(entry & 2, 2); /* the last level decides */
		table = entry & 0xffffffffff000ull;
	}
	return entry;
}

static bool is_writable(uint64_t address)
{
	for (size_t i = 0; i < ARRAY_SIZE(writable); i++) {
		if (address >= writable[i].base && address < writable[i].base + writable[i].bytes)
			return true;
	}
	return false;
}

static void test_identity(void **state)
{
	(void)state;
	for (unsigned int levels = 4; levels <= 5; levels++) {
		struct ap_tables_config config = config_make(levels);
		uint64_t address = 0, bytes = 0;
		gpa_t root;

		assert_true(ap_tables_build(&config, &root));
		assert_int_equal(root.value, TABLES_GPA);
		while (address < AP_TABLES_END) {
			uint64_t entry = walk(root, levels, address, &bytes);

			assert_int_equal(bytes, address < SIZE_2M ? 0x1000 : 0x200000);
			assert_int_equal(entry & 0xffffffffff000ull, address);
			assert_int_equal(entry & 0x40, 0x40); /* dirty is preset */
			assert_int_equal(!!(entry & 2), is_writable(address));
			assert_int_equal(!!(entry & 2), is_writable(address + bytes - 1));
			address += bytes;
		}
		assert_int_equal(walk(root, levels, AP_TABLES_END, &bytes), 0);
		assert_int_equal(walk(root, levels, 1ull << 39, &bytes), 0);
		if (levels == 5)
			assert_int_equal(walk(root, levels, 1ull << 48, &bytes), 0);
		/* No page more than promised is written. */
		assert_int_equal(pages[AP_TABLES_PAGES(levels)][0], UINT64_MAX);
	}
}

static void test_bad_configurations(void **state)
{
	(void)state;
	struct ap_tables_range range = {0x1000, 0x1000};
	struct ap_tables_config config;
	gpa_t root;

#define CHECK(want, change)                                                                        \
	do {                                                                                       \
		config = config_make(4);                                                           \
		config.writable = &range;                                                          \
		config.writable_count = 1;                                                         \
		range = (struct ap_tables_range){0x1000, 0x1000};                                  \
		change;                                                                            \
		assert_int_equal(ap_tables_build(&config, &root), want);                           \
	} while (0)

	CHECK(true, (void)0);
	CHECK(false, config.levels = 3);
	CHECK(false, config.levels = 6);
	CHECK(false, config.levels = 0);
	CHECK(false, config.pages = NULL);
	CHECK(false, config.pages = &pages[0][1]);
	CHECK(false, config.gpa.value++);
	CHECK(false, config.gpa.value = 1ull << 60);
	CHECK(false, range.bytes = 0);
	CHECK(false, range.base = 0x1001);
	CHECK(false, range.bytes = 0x1800);
	CHECK(false, range.base = AP_TABLES_END);
	CHECK(false, range.bytes = UINT64_MAX & PAGE_MASK);
	CHECK(false, (range.base = 0x200000, range.bytes = 0x1000));
	CHECK(false, (range.base = 0x1ff000, range.bytes = 0x2000));
	CHECK(true, (range.base = 0x1ff000, range.bytes = 0x1000));
	CHECK(true, (range.base = 0x200000, range.bytes = 0x200000));
	CHECK(false, range.base = TABLES_GPA);
	CHECK(false, range.base = TABLES_GPA + 6 * 0x1000);
	CHECK(true, range.base = TABLES_GPA + 7 * 0x1000);
	CHECK(false, (config.levels = 5, range.base = TABLES_GPA + 7 * 0x1000));
	CHECK(true, range.base = TABLES_GPA - 0x1000);
	CHECK(false, (range.base = TABLES_GPA - 0x1000, range.bytes = 0x2000));
}

static void test_reset_page(void **state)
{
	(void)state;
	uint8_t *page = malloc(PAGE_SIZE);
	static const uint8_t code[] = {0xfa, 0xf4, 0xeb, 0xfc, 0xcc};

	assert_non_null(page);
	ap_reset_page_fill(page);
	assert_memory_equal(page, code, sizeof(code));
	assert_int_equal(page[PAGE_SIZE - 1], 0xcc);
	free(page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_bad_configurations),
		cmocka_unit_test(test_reset_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
