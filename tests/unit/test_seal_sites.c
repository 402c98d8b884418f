/* Finding a kernel's records of its patch sites, in images made for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/unit/seal_kernel.h"

static struct kernel kernel;

static int setup(void **state)
{
	(void)state;
	kernel_make(&kernel);
	return 0;
}

static void expect_site(uint32_t code, enum seal_kind kind, uint32_t target)
{
	for (uint32_t i = 0; i < seal_kind_bytes(kind); i++) {
		const struct seal_site *site = seal_sites_at(&kernel.sites, code + i);

		assert_non_null(site);
		assert_int_equal(site->code, code);
		assert_int_equal(site->kind, kind);
		assert_int_equal(site->target, target);
	}
	assert_null(seal_sites_at(&kernel.sites, code - 1));
	assert_null(seal_sites_at(&kernel.sites, code + seal_kind_bytes(kind)));
}

static void expect_all(void)
{
	assert_int_equal(kernel.sites.count, SITES);
	assert_int_equal(kernel.sites.entries, FUNCTIONS);
	for (uint32_t i = 0; i < FUNCTIONS; i++)
		expect_site(FUNCTION(i), SEAL_ENTRY, 0);
	for (uint32_t i = 0; i < JUMPS; i++)
		expect_site(JUMP(i), jump_kind(i), jump_target(i));
	for (uint32_t i = 0; i < CALLS; i++)
		expect_site(CALL(i), call_kind(i), TRAMPOLINE(i));
	assert_int_equal(kernel.sites.trampolines, TRAMPOLINE(0));
	assert_int_equal(kernel.sites.trampolines_end, TRAMPOLINE(CALLS));
	expect_site(TRACER + 20, SEAL_TRACER, 0);
	expect_site(REGS + 30, SEAL_TRACER, 0);
}

static void test_all(void **state)
{
	(void)state;
	assert_int_equal(kernel_find(&kernel), SEAL_FOUND);
	expect_all();
	assert_int_equal(kernel.sites.tracers, 2);
	assert_int_equal(kernel.sites.tracer[0].from, FENTRY);
	assert_int_equal(kernel.sites.tracer[0].call, TRACER + 20);
	assert_int_equal(kernel.sites.tracer[1].call, REGS + 30);
	assert_null(seal_sites_at(&kernel.sites, 0));
	assert_null(seal_sites_at(&kernel.sites, KERNEL_BYTES - 1));
}

/* Tables begin where they like: none is missed between two looks. */
static void test_places(void **state)
{
	(void)state;
	for (uint32_t shift = 0; shift < 1024; shift += 8) {
		kernel_make(&kernel);
		memset(kernel.bytes + TEXT_END, 0, KERNEL_BYTES - TEXT_END);
		put_jumps(&kernel, JUMP_TABLE - 8 + shift);
		put_calls(&kernel, CALL_TABLE + shift);
		put_entries(&kernel, ENTRY_TABLE + shift);
		assert_int_equal(kernel_find(&kernel), SEAL_FOUND);
		expect_all();
	}
}

/* The kernel has made NOPs of its function entries: where the tracer is cannot be told any more. */
static void test_entries_are_nops(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < FUNCTIONS; i++)
		put(&kernel, FUNCTION(i), code_nop5, 5);
	assert_int_equal(kernel_find(&kernel), SEAL_FOUND);
	assert_int_equal(kernel.sites.tracers, 0);
	assert_int_equal(kernel.sites.entries, FUNCTIONS);
	assert_int_equal(kernel.sites.count, SITES - 2);
}

static void test_no_kernel(void **state)
{
	(void)state;
	memset(kernel.bytes + JUMP_TABLE, 0, 16 * JUMPS);
	assert_int_equal(kernel_find(&kernel), SEAL_NO_JUMPS);
	memset(kernel.bytes, 0, sizeof(kernel.bytes));
	assert_int_equal(kernel_find(&kernel), SEAL_NO_JUMPS);
	memset(kernel.bytes, 0xff, sizeof(kernel.bytes));
	assert_int_equal(kernel_find(&kernel), SEAL_NO_JUMPS);
	kernel_make(&kernel);
	kernel.image.size = 511;
	assert_int_equal(kernel_find(&kernel), SEAL_NO_JUMPS);
	kernel.image.size = SEAL_IMAGE_BYTES_MAX + 1;
	assert_int_equal(kernel_find(&kernel), SEAL_NO_JUMPS);
}

/* Cut off anywhere: nothing behind the end is looked at, nothing beyond the room is written. */
static void test_cut_off(void **state)
{
	(void)state;
	for (uint32_t size = 512; size <= KERNEL_BYTES; size += 8) {
		uint8_t *bytes = malloc(size);

		memcpy(bytes, kernel.bytes, size);
		kernel.image.bytes = bytes;
		kernel.image.size = kernel.image.text_end = size;
		kernel_find(&kernel);
		assert_true(kernel.sites.count <= SITES);
		free(bytes);
	}
}

static void test_room(void **state)
{
	(void)state;
	for (uint32_t room = 0; room < SITES; room++) {
		memset(kernel.site, 0x5a, sizeof(kernel.site));
		kernel.sites.room = room;
		assert_int_equal(kernel_find(&kernel), SEAL_TOO_MANY);
		assert_true(kernel.sites.count <= room);
		assert_int_equal(kernel.site[room].code, 0x5a5a5a5a);
	}
}

/* A record that says what cannot be ends its table; of the two halves, the longer one counts. */
static void test_bad_jump(void **state)
{
	static const struct {
		uint32_t offset;
		uint32_t value;
	} bad[] = {
		{0, 0x80000000}, /* the code is far below the image */
		{0, 0x7fffffff}, /* and far above */
		{0, 8}, /* no instruction that belongs there */
		{4, 0x80000000}, /* the target is outside */
		{12, 1}, /* the key is */
		{12, 0x7fffffff},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		kernel_make(&kernel);
		put_u32(&kernel, JUMP_TABLE + 16 * 40 + bad[i].offset, bad[i].value);
		assert_int_equal(kernel_find(&kernel), SEAL_FOUND);
		assert_int_equal(kernel.sites.count, SITES - 41);
	}
	/* A jump to somewhere else than its record says. */
	kernel_make(&kernel);
	put_branch(&kernel, JUMP(1), CODE_JMP, 0x100);
	assert_int_equal(kernel_find(&kernel), SEAL_FOUND);
	assert_true(kernel.sites.count < SITES);
	assert_null(seal_sites_at(&kernel.sites, JUMP(1)));
}

static void test_bad_others(void **state)
{
	(void)state;
	put_u64(&kernel, ENTRY_TABLE + 8 * 20, KERNEL_BASE + KERNEL_BYTES);
	put_u32(&kernel, CALL_TABLE + 8 * 10, 0x7fffffff);
	assert_int_equal(kernel_find(&kernel), SEAL_FOUND);
	assert_int_equal(kernel.sites.count, SITES - 21 - 11);
	/* Not ascending: two tables. */
	kernel_make(&kernel);
	put_u64(&kernel, ENTRY_TABLE + 8 * 30, KERNEL_BASE + FUNCTION(0));
	assert_int_equal(kernel_find(&kernel), SEAL_FOUND);
	assert_int_equal(kernel.sites.entries, FUNCTIONS - 30);
	/* A static call that leads to something without a trampoline's mark. */
	kernel_make(&kernel);
	kernel.bytes[TRAMPOLINE(5) + 6] ^= 1;
	assert_int_equal(kernel_find(&kernel), SEAL_FOUND);
	assert_null(seal_sites_at(&kernel.sites, CALL(5)));
}

/* Ascending addresses are common; without instructions behind them they are no table. */
static void test_decoys(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 400; i++)
		put_u64(&kernel, 0xd000 + 8 * i, KERNEL_BASE + 0x7000 + i);
	for (uint32_t i = 0; i < 20; i++)
		put_jump_record(&kernel, 0x9000 + 16 * i, i);
	assert_int_equal(kernel_find(&kernel), SEAL_FOUND);
	expect_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_all, setup),
		cmocka_unit_test_setup(test_places, setup),
		cmocka_unit_test_setup(test_entries_are_nops, setup),
		cmocka_unit_test_setup(test_no_kernel, setup),
		cmocka_unit_test_setup(test_cut_off, setup),
		cmocka_unit_test_setup(test_room, setup),
		cmocka_unit_test_setup(test_bad_jump, setup),
		cmocka_unit_test_setup(test_bad_others, setup),
		cmocka_unit_test_setup(test_decoys, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
