/*
 * boot/load/linux: a synthetic bzImage that is right, each way in which it can be wrong, what a
 * guest finds in memory, and a hundred thousand damaged headers. PARAPET_TEST_KERNEL may name a
 * real bzImage.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "boot/load/linux.h"
#include "tests/unit/load_arena.h"

#define MIB	      0x100000ull
#define SETUP_BYTES   1024
#define KERNEL_BYTES  0x4000
#define FILE_BYTES    (SETUP_BYTES + KERNEL_BYTES)
#define PREFERRED     (16 * MIB)
#define INIT_BYTES    (4 * MIB)
#define ARENA_BYTES   (64 * MIB)
#define KERNEL_SOURCE (40 * MIB)
#define INITRD_SOURCE (44 * MIB)
#define INITRD_BYTES  70000

static uint8_t good[FILE_BYTES];
static uint8_t initrd[INITRD_BYTES];

static void make_kernel(void)
{
	for (size_t i = 0; i < sizeof(good); i++)
		good[i] = (uint8_t)(i * 7 + (i >> 8));
	for (size_t i = 0; i < sizeof(initrd); i++)
		initrd[i] = (uint8_t)(i * 13 + (i >> 8));
	memset(good + 0x1f1, 0, 0x290 - 0x1f1);
	good[0x1f1] = 1;
	put32(good + 0x1f4, KERNEL_BYTES / 16);
	put16(good + 0x1fe, 0xaa55);
	good[0x200] = 0xeb;
	good[0x201] = 0x26c - 0x202;
	put32(good + 0x202, 0x53726448);
	put16(good + 0x206, 0x020f);
	good[0x211] = 1;
	put32(good + 0x22c, 0x7fffffff);
	put32(good + 0x230, 0x200000);
	good[0x234] = 1;
	put16(good + 0x236, 0x3);
	put32(good + 0x238, 2047);
	put32(good + 0x248, 0x300);
	put32(good + 0x24c, KERNEL_BYTES - 0x300);
	put64(good + 0x250, 0x1234);
	put64(good + 0x258, PREFERRED);
	put32(good + 0x260, INIT_BYTES);
}

static enum load_error inspect(const uint8_t *file, size_t bytes, struct linux_image *image)
{
	uint8_t *copy = arena_copy_exactly(file, bytes);
	enum load_error error = linux_inspect_image(copy, bytes, image);

	free(copy);
	return error;
}

static void test_inspect_good(void **state)
{
	struct linux_image image;

	(void)state;
	assert_int_equal(inspect(good, FILE_BYTES, &image), LOAD_OK);
	assert_int_equal(image.setup_bytes, SETUP_BYTES);
	assert_int_equal(image.kernel_bytes, KERNEL_BYTES);
	assert_int_equal(image.protocol, 0x20f);
	assert_true(image.relocatable);
	assert_true(image.above_4g);
	assert_int_equal(image.alignment, 0x200000);
	assert_int_equal(image.preferred, PREFERRED);
	assert_int_equal(image.needed_bytes, INIT_BYTES);
	assert_int_equal(image.command_line_max, 2047);
	assert_int_equal(image.initrd_last, 0x7fffffff);
	assert_int_equal(image.header_bytes, 0x26c - 0x1f1);
}

/* One field changed, one error. */
static const struct bad_field {
	uint32_t offset;
	uint32_t bytes;
	uint64_t value;
	enum load_error error;
} bad_fields[] = {
	{0x1fe, 2, 0xaa54, LOAD_ERR_LINUX_NO_BOOT_FLAG},
	{0x202, 4, 0x53726449, LOAD_ERR_LINUX_NO_MAGIC},
	{0x206, 2, 0x020b, LOAD_ERR_LINUX_TOO_OLD},
	{0x206, 2, 0, LOAD_ERR_LINUX_TOO_OLD},
	{0x211, 1, 0, LOAD_ERR_LINUX_ZIMAGE},
	{0x236, 2, 2, LOAD_ERR_LINUX_32BIT},
	{0x200, 1, 0xe9, LOAD_ERR_LINUX_HEADER},
	{0x201, 1, 0x264 - 0x202 - 1, LOAD_ERR_LINUX_HEADER},
	{0x201, 1, 0x290 - 0x202 + 1, LOAD_ERR_LINUX_HEADER},
	{0x1f1, 1, 255, LOAD_ERR_LINUX_TRUNCATED},
	{0x1f1, 1, 2, LOAD_ERR_LINUX_TRUNCATED},
	{0x1f1, 1, 0, LOAD_ERR_LINUX_TRUNCATED}, /* means 4 */
	{0x1f4, 4, KERNEL_BYTES / 16 + 1, LOAD_ERR_LINUX_TRUNCATED},
	{0x1f4, 4, 0xffffffff, LOAD_ERR_LINUX_TRUNCATED},
	{0x1f4, 4, 0, LOAD_ERR_LINUX_SIZE},
	{0x1f4, 4, 0x20, LOAD_ERR_LINUX_SIZE},
	{0x260, 4, 0, LOAD_ERR_LINUX_SIZE},
	{0x248, 4, KERNEL_BYTES, LOAD_ERR_LINUX_PAYLOAD},
	{0x24c, 4, 0xffffffff, LOAD_ERR_LINUX_PAYLOAD},
	{0x230, 4, 0, LOAD_ERR_LINUX_ALIGNMENT},
	{0x230, 4, 0x800, LOAD_ERR_LINUX_ALIGNMENT},
	{0x230, 4, 0x300000, LOAD_ERR_LINUX_ALIGNMENT},
	{0x230, 4, 0x80000000, LOAD_ERR_LINUX_ALIGNMENT},
	{0x258, 8, PREFERRED + 1, LOAD_ERR_LINUX_ALIGNMENT},
	{0x258, 8, 0, LOAD_ERR_LINUX_ALIGNMENT},
	{0x258, 8, 1ull << 63, LOAD_ERR_LINUX_ALIGNMENT},
};

static void test_inspect_bad_fields(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_fields); i++) {
		const struct bad_field *bad = &bad_fields[i];
		uint8_t *file = arena_copy_exactly(good, FILE_BYTES);
		struct linux_image image;

		memcpy(file + bad->offset, &bad->value, bad->bytes);
		assert_int_equal(linux_inspect_image(file, FILE_BYTES, &image), bad->error);
		free(file);
	}
}

static void test_inspect_every_truncation(void **state)
{
	struct linux_image image;

	(void)state;
	for (size_t bytes = 0; bytes < FILE_BYTES; bytes += bytes < 2048 ? 1 : 97) {
		enum load_error error = inspect(good, bytes, &image);

		assert_int_equal(
			error, bytes < 0x290 ? LOAD_ERR_LINUX_TOO_SHORT : LOAD_ERR_LINUX_TRUNCATED);
	}
}

/* 64 MiB of RAM with the firmware's usual hole. */
static void make_map(struct memory_map *map)
{
	memory_map_init(map);
	memory_map_add(map, 0, 0x9fc00, MEMORY_RAM);
	memory_map_add(map, 0x9fc00, 0x400, MEMORY_RESERVED);
	memory_map_add(map, 0xf0000, 0x10000, MEMORY_RESERVED);
	memory_map_add(map, MIB, 63 * MIB, MEMORY_RAM);
	assert_int_equal(memory_map_sanitise(map), LOAD_OK);
}

static struct linux_request make_request(const struct memory_map *map)
{
	return (struct linux_request){
		.map = map,
		.kernel = {good, FILE_BYTES, GPA(KERNEL_SOURCE)},
		.initrd = {initrd, INITRD_BYTES, GPA(INITRD_SOURCE)},
		.command_line = "console=ttyS0 quiet",
		.command_line_bytes = strlen("console=ttyS0 quiet"),
		.acpi_rsdp = GPA(0xf5a20),
	};
}

/* A plan is sound: in RAM, apart from each other, from the sources and from the caller's list. */
static void check_plan(const struct linux_request *request, const struct linux_plan *plan)
{
	const struct memory_span spans[] = {
		plan->kernel,
		plan->boot_data,
		plan->initrd,
		{request->kernel.gpa.value, request->kernel.bytes},
		{request->initrd.gpa.value, request->initrd.data ? request->initrd.bytes : 0},
	};

	for (size_t i = 0; i < 3; i++) {
		assert_true(memory_map_is_ram(request->map, spans[i].base, spans[i].length));
		for (size_t j = i + 1; j < ARRAY_SIZE(spans); j++)
			assert_false(memory_span_overlaps(spans[i], spans[j]));
		for (size_t j = 0; j < request->avoid_count; j++)
			assert_false(memory_span_overlaps(spans[i], request->avoid[j]));
	}
	assert_true(plan->kernel.base + plan->kernel.length <= 1ull << 32);
	assert_true(plan->boot_data.base + plan->boot_data.length <= 1ull << 32);
}

static void test_plan_prefers_what_the_kernel_wants(void **state)
{
	struct memory_map map;
	struct linux_image image;
	struct linux_plan plan;
	struct linux_request request = make_request(&map);

	(void)state;
	make_map(&map);
	inspect(good, FILE_BYTES, &image);
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	check_plan(&request, &plan);
	assert_int_equal(plan.kernel.base, PREFERRED);
	assert_int_equal(plan.boot_data.base, 0x10000);
	assert_int_equal(plan.initrd.base, ALIGN_DOWN(64 * MIB - INITRD_BYTES, PAGE_SIZE));
	assert_int_equal(plan.initrd.length, INITRD_BYTES);
}

static void test_plan_moves_out_of_the_way(void **state)
{
	struct memory_span avoid[] = {{PREFERRED + MIB, 1}, {0x10000, 0x1000}};
	struct memory_map map;
	struct linux_image image;
	struct linux_plan plan;
	struct linux_request request = make_request(&map);

	(void)state;
	make_map(&map);
	inspect(good, FILE_BYTES, &image);
	request.avoid = avoid;
	request.avoid_count = ARRAY_SIZE(avoid);
	request.initrd.gpa = GPA(64 * MIB - INITRD_BYTES);
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	check_plan(&request, &plan);
	assert_int_equal(plan.kernel.base, PREFERRED + 2 * MIB);
	assert_int_equal(plan.boot_data.base, 0x11000);

	/* The kernel's own file lies at the preferred address. */
	request.avoid_count = 0;
	request.kernel.gpa = GPA(PREFERRED - 5);
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	check_plan(&request, &plan);
	assert_int_equal(plan.kernel.base, PREFERRED + 2 * MIB);

	image.relocatable = false;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_ERR_LINUX_NOT_RELOCATABLE);
	request.kernel.gpa = GPA(KERNEL_SOURCE);
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
}

static void test_plan_refuses(void **state)
{
	static const char long_line[2049];
	struct memory_span all = {0, ~0ull};
	struct memory_map map;
	struct linux_image image;
	struct linux_plan plan;
	struct linux_request request = make_request(&map);

	(void)state;
	make_map(&map);
	inspect(good, FILE_BYTES, &image);
	request.command_line = long_line;
	request.command_line_bytes = 2048;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_ERR_LINUX_COMMAND_LINE);
	request.command_line_bytes = 2047;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	request.command_line_bytes = SIZE_MAX;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_ERR_LINUX_COMMAND_LINE);
	request.command_line_bytes = 0;

	request.initrd.bytes = 0;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_ERR_LINUX_INITRD_EMPTY);
	request.initrd.bytes = 40 * MIB;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_ERR_LINUX_NO_ROOM_INITRD);
	request.initrd.bytes = SIZE_MAX;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_ERR_LINUX_NO_ROOM_INITRD);
	request.initrd = (struct load_source){.data = NULL};
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	assert_int_equal(plan.initrd.length, 0);

	request.avoid = &all;
	request.avoid_count = 1;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_ERR_NO_ROOM_KERNEL);
	all = (struct memory_span){0, PREFERRED};
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	assert_true(plan.boot_data.base >= PREFERRED + INIT_BYTES);
	request.kernel.bytes--;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_ERR_SOURCE_CHANGED);
	request.kernel.bytes++;
	image.needed_bytes = 48 * MIB - 0x1000;
	request.kernel.gpa = GPA(1ull << 33);
	all = (struct memory_span){64 * MIB - 0x1000, 0x1000};
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	memory_map_reserve(&map, 0, MIB, MEMORY_RESERVED);
	memory_map_reserve(&map, MIB, 15 * MIB, MEMORY_RESERVED);
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_ERR_NO_ROOM_BOOT_DATA);
}

static void test_initrd_above_4g_only_if_it_may(void **state)
{
	struct memory_map map;
	struct linux_image image;
	struct linux_plan plan;
	struct linux_request request = make_request(&map);

	(void)state;
	make_map(&map);
	memory_map_add(&map, 1ull << 32, 128 * MIB, MEMORY_RAM);
	memory_map_sanitise(&map);
	inspect(good, FILE_BYTES, &image);
	request.initrd.bytes = 100 * MIB; /* not read when planning */
	request.initrd.gpa = GPA(1ull << 40);
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	assert_int_equal(plan.initrd.base, (1ull << 32) + 28 * MIB);
	image.above_4g = false;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_ERR_LINUX_NO_ROOM_INITRD);

	/* initrd_addr_max is the last address, and counts if the kernel cannot do better. */
	request.initrd.bytes = MIB;
	image.initrd_last = 32 * MIB - 1;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	assert_int_equal(plan.initrd.base, 31 * MIB);
	image.initrd_last = 32 * MIB - 2;
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	assert_int_equal(plan.initrd.base, 31 * MIB - PAGE_SIZE);
}

/* The page tables map address to itself; false if there is no mapping. */
static bool is_identity(const struct arena *arena, uint64_t cr3, uint64_t address)
{
	uint64_t table = cr3;

	for (int shift = 39; shift >= 21; shift -= 9) {
		uint64_t entry = get64(arena->bytes + table + (address >> shift & 511) * 8);

		if (!(entry & 1) || !(entry & 2))
			return false;
		if (entry & 0x80)
			return shift == 21 &&
				(entry & 0xffffffffff000) == ALIGN_DOWN(address, SIZE_2M);
		table = entry & 0xffffffffff000;
	}
	return false;
}

static void check_boot_params(const struct arena *arena, const struct memory_map *map,
	const struct linux_plan *plan, const struct linux_entry *entry)
{
	const uint8_t *params = arena->bytes + entry->rsi.value;

	assert_int_equal(params[0x1ef], 0);
	assert_int_equal(params[0x210], 0xff);
	assert_int_equal(get32(params + 0x202), 0x53726448);
	assert_int_equal(get64(params + 0x070), 0xf5a20);
	assert_int_equal(get32(params + 0x214), plan->kernel.base);
	assert_int_equal(get64(params + 0x250), 0);
	assert_int_equal(get32(params + 0x218), plan->initrd.base);
	assert_int_equal(get32(params + 0x21c), INITRD_BYTES);
	assert_int_equal(get32(params + 0x0c0), 0);
	assert_int_equal(get32(params + 0x0c4), 0);
	assert_int_equal(get32(params + 0x0c8), 0);
	assert_int_equal(get32(params + 0x1e0), 63 * 1024);
	assert_int_equal(get16(params + 0x002), 63 * 1024);
	assert_string_equal(
		(const char *)arena->bytes + get32(params + 0x228), "console=ttyS0 quiet");
	assert_int_equal(params[0x1e8], map->count);
	for (uint32_t i = 0; i < map->count; i++) {
		const uint8_t *e820 = params + 0x2d0 + 20 * i;

		assert_int_equal(get64(e820), map->ranges[i].base);
		assert_int_equal(get64(e820 + 8), map->ranges[i].length);
		assert_int_equal(get32(e820 + 16), map->ranges[i].type);
	}
	/* What the header in the file does not have is zero, not what came after it there. */
	for (uint32_t i = 0x26c; i < 0x2d0; i++)
		assert_int_equal(params[i], 0);
}

static void test_commit(void **state)
{
	struct arena arena;
	struct memory_map map;
	struct linux_image image;
	struct linux_plan plan;
	struct linux_entry entry;
	struct linux_request request = make_request(&map);

	(void)state;
	make_map(&map);
	arena_start(&arena, ARENA_BYTES);
	memset(arena.bytes, 0xcc, MIB);
	inspect(good, FILE_BYTES, &image);
	assert_int_equal(linux_plan_boot(&image, &request, &plan), LOAD_OK);
	arena_close(&arena);
	assert_int_equal(
		linux_commit_boot(&image, &request, &plan, &arena.memory, &entry), LOAD_OK);
	arena_open(&arena);

	assert_int_equal(entry.rip, PREFERRED + 0x200);
	assert_memory_equal(arena.bytes + PREFERRED, good + SETUP_BYTES, KERNEL_BYTES);
	assert_memory_equal(arena.bytes + plan.initrd.base, initrd, INITRD_BYTES);
	check_boot_params(&arena, &map, &plan, &entry);
	for (uint64_t at = 0; at < 1ull << 32; at += SIZE_2M)
		assert_true(is_identity(&arena, entry.cr3.value, at + 0x12345));
	assert_false(is_identity(&arena, entry.cr3.value, 1ull << 32));
	assert_int_equal(entry.cs, 0x10);
	assert_int_equal(entry.ds, 0x18);
	assert_int_equal(entry.gdt_limit, 31);
	assert_int_equal(get64(arena.bytes + entry.gdt_base.value + 0x10), 0x00af9b000000ffff);
	assert_int_equal(get64(arena.bytes + entry.gdt_base.value + 0x18), 0x00cf93000000ffff);

	/* Memory that the map promises and that is not there: nothing is written. */
	memset(arena.bytes, 0xcc, MIB);
	arena.size = 60 * MIB;
	assert_int_equal(linux_commit_boot(&image, &request, &plan, &arena.memory, &entry),
		LOAD_ERR_MEMORY_ACCESS);
	for (size_t i = 0; i < MIB; i++)
		assert_int_equal(arena.bytes[i], 0xcc);
	arena.size = ARENA_BYTES;
	request.command_line_bytes = 8192;
	assert_int_equal(linux_commit_boot(&image, &request, &plan, &arena.memory, &entry),
		LOAD_ERR_SOURCE_CHANGED);
	arena_stop(&arena);
}

static void test_mutated_headers(void **state)
{
	uint64_t random = 4;
	uint32_t accepted = 0;
	struct memory_map map;

	(void)state;
	make_map(&map);
	for (uint32_t round = 0; round < 100000; round++) {
		uint8_t *file = arena_copy_exactly(good, FILE_BYTES);
		struct linux_request request = make_request(&map);
		struct linux_image image;
		struct linux_plan plan;

		mutate_bytes(file + 0x1f1, 0x26c - 0x1f1, &random);
		if (linux_inspect_image(file, FILE_BYTES, &image) == LOAD_OK) {
			assert_true(image.setup_bytes + image.kernel_bytes <= FILE_BYTES);
			assert_true(image.needed_bytes >= image.kernel_bytes);
			if (linux_plan_boot(&image, &request, &plan) == LOAD_OK) {
				check_plan(&request, &plan);
				accepted++;
			}
		}
		free(file);
	}
	assert_true(accepted > 1000);
}

static void test_real_kernel(void **state)
{
	const char *name = getenv("PARAPET_TEST_KERNEL");
	struct linux_image image;
	uint8_t *file;
	FILE *stream;
	long bytes;

	(void)state;
	if (!name)
		skip();
	stream = fopen(name, "rb");
	assert_non_null(stream);
	assert_int_equal(fseek(stream, 0, SEEK_END), 0);
	bytes = ftell(stream);
	rewind(stream);
	file = malloc(bytes);
	assert_int_equal(fread(file, 1, bytes, stream), bytes);
	fclose(stream);
	assert_int_equal(linux_inspect_image(file, bytes, &image), LOAD_OK);
	assert_true(image.relocatable);
	assert_int_equal(linux_inspect_image(file, bytes / 2, &image), LOAD_ERR_LINUX_TRUNCATED);
	free(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inspect_good),
		cmocka_unit_test(test_inspect_bad_fields),
		cmocka_unit_test(test_inspect_every_truncation),
		cmocka_unit_test(test_plan_prefers_what_the_kernel_wants),
		cmocka_unit_test(test_plan_moves_out_of_the_way),
		cmocka_unit_test(test_plan_refuses),
		cmocka_unit_test(test_initrd_above_4g_only_if_it_may),
		cmocka_unit_test(test_commit),
		cmocka_unit_test(test_mutated_headers),
		cmocka_unit_test(test_real_kernel),
	};

	make_kernel();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
