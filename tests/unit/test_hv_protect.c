/*
 * HvCallModifyVtlProtectionMask when the memory for tables runs out in the middle of its list, and when a
 * page of Parapet's is there: the status, the elements that count as done, and what has changed. And which
 * masks a platform takes, also one that tells kernel from user code. The other answers are for guests to see.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "hv/hv_protect.c" /* hv/ is not in the library of portable code */
#include "npt_arena.h"

#define FIRST	  1 /* a page whose change needs two tables */
#define FAR	  (SIZE_1G / PAGE_SIZE) /* one that needs two others */
#define HOLE	  (3 * SIZE_1G / PAGE_SIZE) /* not RAM */
#define UNTOUCHED 77 /* no count that is reached */

static struct npt_arena arena;
static struct run_vp run_vps[1];
static struct tlblock_vp tlblock_vps[1];
static struct atomic_u64 waiters[TLBLOCK_WAITERS_NEEDED(1)];
static struct flush_vp flush_vps[1];
static struct protect_vp protect_vps[1];
static struct block_region regions[PROTECT_REGIONS(1)];
static struct protect_pinned pins[1];
static struct partition partition;
static struct vp vp;

static const struct protect_ops *ops = &npt_protect_ops;
static const struct protect_span ram[] = {{0, 3 * SIZE_1G}};

/* What the rest of hv/ says: VTL1 calls, and protection is enabled. */
uint16_t hv_input_vtl(const struct vp *self, uint8_t input, enum vtl *vtl)
{
	(void)self;
	assert_int_equal(input, 0);
	*vtl = VTL1;
	return HV_STATUS_SUCCESS;
}

bool hv_protection_is_enabled(void)
{
	return true;
}

static void kick(void *platform, vp_id_t target)
{
	(void)platform;
	run_exited(&partition.run, target);
}

static void broken(const char *what)
{
	fail_msg("%s", what);
}

static const struct run_ops run_ops = {.kick = kick};

/* RAM from 0 to 3 GiB in large pages, and `spare` pages for tables. */
static void start(uint32_t spare)
{
	const struct protect_config config = {
		.vps = protect_vps,
		.flush = &partition.flush,
		.ops = ops,
		.platform = &arena.space,
		.broken = broken,
		.targets = 1,
		.region = regions,
		.region_count = ARRAY_SIZE(regions),
		.pin = pins,
		.pin_room = ARRAY_SIZE(pins),
	};

	memset(&partition, 0, sizeof(partition));
	memset(&vp, 0, sizeof(vp));
	memset(tlblock_vps, 0, sizeof(tlblock_vps));
	memset(waiters, 0, sizeof(waiters));
	memset(flush_vps, 0, sizeof(flush_vps));
	memset(protect_vps, 0, sizeof(protect_vps));
	memset(regions, 0, sizeof(regions));
	vp.partition = &partition;
	partition.physical_bits = 40;
	npt_arena_init(&arena, 2 + spare, 1, true);
	run_init(&partition.run, run_vps, 1, &run_ops, NULL);
	tlblock_init(&partition.tlblock, tlblock_vps, waiters, &partition.run);
	flush_init(&partition.flush, flush_vps, &partition.run, &partition.tlblock, 32);
	protect_init(&partition.protect, &config);
	protect_set_ram(&partition.protect, ram, ARRAY_SIZE(ram));
	assert_int_equal(
		protect_map(&partition.protect, VTL0, GPA(ram[0].base), ram[0].bytes, ACCESS_ALL),
		PROTECT_DONE);
	npt_arena_remember(&arena);
}

/* The call; *done is what the guest would read, as hv_call() has it before. */
static uint16_t modify(
	uint32_t flags, const uint64_t *pages, uint32_t first, uint32_t count, uint32_t *done)
{
	const uint64_t words[] = {HV_PARTITION_ID_SELF, flags};
	const struct hv_input input = {
		.words = words,
		.header_words = ARRAY_SIZE(words),
		.rep_start = first,
		.rep_count = count,
		.reps = pages,
		.reps_done = done,
	};

	return hv_modify_protection(&vp, &input);
}

/* A call whose count is `before`: it says `status`, and `after` is what is done. */
static void expect_call(const uint64_t *pages, uint32_t first, uint32_t count, uint32_t before,
	uint16_t status, uint32_t after)
{
	uint32_t done = before;

	assert_int_equal(modify(MAP_READ, pages, first, count, &done), status);
	assert_int_equal(done, after);
}

static uint32_t access_at(uint64_t page)
{
	return protect_access(&partition.protect, VTL0, GPA(page * PAGE_SIZE));
}

static void expect_none(const uint64_t *pages, uint32_t count)
{
	assert_true(npt_arena_is_as_before(&arena));
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(access_at(pages[i]), ACCESS_ALL);
}

static void test_no_memory(void **state)
{
	const uint64_t pages[] = {FIRST, FIRST + 1, FAR, FIRST + 2};

	(void)state;
	start(2);
	/* The first two elements have memory, the third has not: none is done, and none is counted. */
	expect_call(pages, 0, 4, UNTOUCHED, 11, UNTOUCHED);
	expect_none(pages, 4);
	/* A list that goes on counts what was done before, and no more. */
	expect_call(pages, 1, 4, 1, 11, 1);
	expect_none(pages, 4);
	/* The part that there is memory for can be done. */
	expect_call(pages, 0, 2, UNTOUCHED, 0, 2);
	assert_int_equal(access_at(FIRST + 1), ACCESS_READ);
	assert_int_equal(access_at(FAR), ACCESS_ALL);
	npt_arena_fini(&arena);
}

/* A page that is refused ends the list; if there is no memory for what is in front of it, that counts. */
static void test_no_memory_before_a_bad_page(void **state)
{
	const uint64_t pages[] = {FIRST, FAR, HOLE};

	(void)state;
	start(2);
	expect_call(pages, 0, 3, UNTOUCHED, 11, UNTOUCHED);
	expect_none(pages, 2);
	npt_arena_fini(&arena);

	start(4);
	expect_call(pages, 0, 3, UNTOUCHED, 5, 2);
	assert_int_equal(access_at(FIRST), ACCESS_READ);
	assert_int_equal(access_at(FAR), ACCESS_READ);
	npt_arena_fini(&arena);
}

/* An overlay page in the middle of a list: what is in front of it is done and counted, nothing behind. */
static void test_overlay_in_the_middle(void **state)
{
	const uint64_t pages[] = {FIRST, FIRST + 1, FIRST + 2, FAR};

	(void)state;
	start(4);
	assert_int_equal(protect_pin(&partition.protect, 0, GPA((FIRST + 2) * PAGE_SIZE), PAGE_SIZE,
				 PROTECT_PIN_OVERLAY, VTL2),
		PROTECT_DONE);
	expect_call(pages, 0, 4, UNTOUCHED, 8, 2);
	assert_int_equal(access_at(FIRST), ACCESS_READ);
	assert_int_equal(access_at(FIRST + 1), ACCESS_READ);
	assert_int_equal(access_at(FIRST + 2), ACCESS_ALL);
	assert_int_equal(access_at(FAR), ACCESS_ALL);
	/* Behind it, the call goes on. */
	expect_call(pages, 3, 4, UNTOUCHED, 0, 4);
	assert_int_equal(access_at(FAR), ACCESS_READ);
	npt_arena_fini(&arena);
}

static bool can_all(void *platform, enum vtl target, uint32_t access)
{
	(void)platform;
	(void)target;
	(void)access;
	return true;
}

/* Is HV_MAP_GPA_FLAGS a mask here, and does each bit mean what it says? */
static bool is_mask(uint32_t flags)
{
	uint32_t access;

	if (!hv_map_flags_access(&partition, flags, &access))
		return false;
	assert_int_equal(access, flags); /* the bits are the same */
	return true;
}

static void test_masks(void **state)
{
	static struct protect_ops split;

	(void)state;
	_Static_assert(ACCESS_READ == 1 && ACCESS_WRITE == 2 && ACCESS_EXECUTE_KERNEL == 4 &&
			ACCESS_EXECUTE_USER == 8,
		"as in HV_MAP_GPA_FLAGS");
	start(4);
	/* Nested paging: nothing, or reading with any of writing and executing. */
	for (uint32_t flags = 0; flags < 64; flags++)
		assert_int_equal(is_mask(flags),
			flags == 0 || flags == 1 || flags == 3 || flags == 13 || flags == 15);
	npt_arena_fini(&arena);
	/* Where everything can be held, writing without reading is left out. */
	split = npt_protect_ops;
	split.can = can_all;
	ops = &split;
	start(4);
	for (uint32_t flags = 0; flags < 64; flags++)
		assert_int_equal(is_mask(flags), flags < 16 && (flags & 3) != 2);
	assert_false(is_mask(1u << 31));
	npt_arena_fini(&arena);
	ops = &npt_protect_ops;
}

/* The default for all memory with a page left out, which large pages have to be split for. */
static void test_no_memory_for_the_default(void **state)
{
	const uint64_t pages[] = {FIRST, FIRST + 1, FAR};

	(void)state;
	start(1);
	assert_int_equal(protect_pin(&partition.protect, 0, GPA(FIRST * PAGE_SIZE), PAGE_SIZE,
				 PROTECT_PIN_OVERLAY, VTL2),
		PROTECT_DONE);
	assert_int_equal(hv_protect_default(&vp, ACCESS_READ), 0); /* no RAM is named */
	partition.ram = (struct memory_span_list){.count = 1, .span = {{0, 3 * SIZE_1G}}};
	assert_int_equal(hv_protect_default(&vp, ACCESS_READ), 11);
	expect_none(pages, 3);
	npt_arena_fini(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_no_memory_before_a_bad_page),
		cmocka_unit_test(test_overlay_in_the_middle),
		cmocka_unit_test(test_masks),
		cmocka_unit_test(test_no_memory_for_the_default),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
