/*
 * boot/load/multiboot: ELF and address-field kernels that are right, each way in which they can be
 * wrong, what a guest finds in memory, and a hundred thousand damaged files of both kinds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "boot/load/multiboot.h"
#include "tests/unit/load_arena.h"

#define MIB	    0x100000ull
#define ARENA_BYTES (16 * MIB)
#define FILE_BYTES  0x3000
#define HEADER	    0x1000 /* of Multiboot, in the file */
#define PHDR(i)	    (52u + 32u * (i))

/* Two segments: 0x1000 at 1 MiB, and half a page with a page of zeros behind it at 0x110000. */
static uint8_t elf[FILE_BYTES];
/* The same file without ELF header, placed at 1 MiB by its Multiboot header. */
static uint8_t flat[FILE_BYTES];

static void put_header(uint8_t *at, uint32_t flags)
{
	put32(at, 0x1badb002);
	put32(at + 4, flags);
	put32(at + 8, -(0x1badb002 + flags));
}

static void put_segment(
	uint8_t *at, uint32_t offset, uint32_t paddr, uint32_t filesz, uint32_t memsz)
{
	put32(at, 1);
	put32(at + 4, offset);
	put32(at + 8, paddr);
	put32(at + 12, paddr);
	put32(at + 16, filesz);
	put32(at + 20, memsz);
}

static void make_kernels(void)
{
	static const uint8_t ident[] = {0x7f, 'E', 'L', 'F', 1, 1, 1};

	for (size_t i = 0; i < FILE_BYTES; i++)
		flat[i] = elf[i] = (uint8_t)(i * 5 + (i >> 8));
	memset(elf, 0, 256);
	memcpy(elf, ident, sizeof(ident));
	put16(elf + 16, 2);
	put16(elf + 18, 3);
	put32(elf + 20, 1);
	put32(elf + 24, 0x100010);
	put32(elf + 28, 52);
	put16(elf + 40, 52);
	put16(elf + 42, 32);
	put16(elf + 44, 3);
	put_segment(elf + PHDR(0), 0x1000, 0x100000, 0x1000, 0x1000);
	put_segment(elf + PHDR(1), 0x2000, 0x110000, 0x800, 0x1800);
	put32(elf + PHDR(2), 0x6474e551); /* not to be loaded */
	put_header(elf + HEADER, 3);

	put_header(flat + HEADER, 0x10003);
	put32(flat + HEADER + 12, 0x101000);
	put32(flat + HEADER + 16, 0x100000);
	put32(flat + HEADER + 20, 0x102800);
	put32(flat + HEADER + 24, 0x104000);
	put32(flat + HEADER + 28, 0x101020);
}

static enum load_error inspect(const uint8_t *file, size_t bytes, struct multiboot_image *image)
{
	uint8_t *copy = arena_copy_exactly(file, bytes);
	enum load_error error = multiboot_inspect_image(copy, bytes, image);

	free(copy);
	return error;
}

static void test_inspect_elf(void **state)
{
	struct multiboot_image image;

	(void)state;
	assert_int_equal(inspect(elf, FILE_BYTES, &image), LOAD_OK);
	assert_int_equal(image.segment_count, 2);
	assert_int_equal(image.segments[1].base, 0x110000);
	assert_int_equal(image.segments[1].bytes, 0x1800);
	assert_int_equal(image.segments[1].file_bytes, 0x800);
	assert_int_equal(image.segments[1].file_offset, 0x2000);
	assert_int_equal(image.entry, 0x100010);
}

/* A kernel linked high: the entry point is a virtual address of the first segment. */
static void test_virtual_entry_is_translated(void **state)
{
	uint8_t *file = arena_copy_exactly(elf, FILE_BYTES);
	struct multiboot_image image;

	(void)state;
	put32(file + PHDR(0) + 8, 0xc0100000);
	put32(file + 24, 0xc0100040);
	assert_int_equal(multiboot_inspect_image(file, FILE_BYTES, &image), LOAD_OK);
	assert_int_equal(image.entry, 0x100040);
	put32(file + 24, 0x100040); /* already physical */
	assert_int_equal(multiboot_inspect_image(file, FILE_BYTES, &image), LOAD_OK);
	assert_int_equal(image.entry, 0x100040);
	free(file);
}

static void test_inspect_address_fields(void **state)
{
	struct multiboot_image image;
	uint8_t *file = arena_copy_exactly(flat, FILE_BYTES);

	(void)state;
	assert_int_equal(inspect(flat, FILE_BYTES, &image), LOAD_OK);
	assert_int_equal(image.segment_count, 1);
	assert_int_equal(image.segments[0].base, 0x100000);
	assert_int_equal(image.segments[0].file_offset, 0);
	assert_int_equal(image.segments[0].file_bytes, 0x2800);
	assert_int_equal(image.segments[0].bytes, 0x4000);
	assert_int_equal(image.entry, 0x101020);

	/* No end: the whole file; no end of bss: nothing but the file. */
	put32(file + HEADER + 20, 0);
	put32(file + HEADER + 24, 0);
	assert_int_equal(multiboot_inspect_image(file, FILE_BYTES, &image), LOAD_OK);
	assert_int_equal(image.segments[0].file_bytes, FILE_BYTES);
	assert_int_equal(image.segments[0].bytes, FILE_BYTES);
	/* Only from the header on. */
	put32(file + HEADER + 16, 0x101000);
	assert_int_equal(multiboot_inspect_image(file, FILE_BYTES, &image), LOAD_OK);
	assert_int_equal(image.segments[0].file_offset, HEADER);
	free(file);
}

static void test_where_the_header_may_be(void **state)
{
	struct multiboot_image image;
	uint8_t *file = arena_copy_exactly(elf, FILE_BYTES);

	(void)state;
	memset(file + HEADER, 0, 12);
	assert_int_equal(
		multiboot_inspect_image(file, FILE_BYTES, &image), LOAD_ERR_MULTIBOOT_NO_HEADER);
	assert_false(multiboot_find_header(file, FILE_BYTES));
	put_header(file + 8192 - 12, 0);
	assert_true(multiboot_find_header(file, FILE_BYTES));
	assert_int_equal(multiboot_inspect_image(file, FILE_BYTES, &image), LOAD_OK);
	memset(file + 8192 - 12, 0, 12);
	put_header(file + 8192 - 8, 0);
	assert_false(multiboot_find_header(file, FILE_BYTES));
	put_header(file + 0x802, 0);
	assert_false(multiboot_find_header(file, FILE_BYTES));
	put_header(file + 0x800, 0);
	file[0x808] ^= 1;
	assert_false(multiboot_find_header(file, FILE_BYTES));
	assert_false(multiboot_find_header(file, 0));
	/* A wrong one does not hide a right one. */
	put_header(file + 0x1800, 0);
	assert_true(multiboot_find_header(file, FILE_BYTES));
	free(file);
}

static void test_flags(void **state)
{
	struct multiboot_image image;
	uint8_t *file = arena_copy_exactly(elf, FILE_BYTES);

	(void)state;
	for (uint32_t bit = 0; bit < 32; bit++) {
		bool refused = bit >= 3 && bit < 16;

		if (bit == 16)
			continue;
		put_header(file + HEADER, 1u << bit);
		assert_int_equal(multiboot_inspect_image(file, FILE_BYTES, &image),
			refused ? LOAD_ERR_MULTIBOOT_FLAGS : LOAD_OK);
	}
	free(file);
}

static const struct bad_field {
	uint8_t *file;
	uint32_t offset;
	uint32_t bytes;
	uint32_t value;
	enum load_error error;
} bad_fields[] = {
	{elf, 0, 1, 0x7e, LOAD_ERR_MULTIBOOT_NOT_ELF},
	{elf, 18, 2, 62, LOAD_ERR_MULTIBOOT_ELF64},
	{elf, 18, 2, 40, LOAD_ERR_MULTIBOOT_ELF_MACHINE},
	{elf, 4, 1, 2, LOAD_ERR_MULTIBOOT_ELF_MACHINE},
	{elf, 5, 1, 2, LOAD_ERR_MULTIBOOT_ELF_MACHINE},
	{elf, 6, 1, 0, LOAD_ERR_MULTIBOOT_ELF_HEADER},
	{elf, 16, 2, 1, LOAD_ERR_MULTIBOOT_ELF_MACHINE},
	{elf, 20, 4, 2, LOAD_ERR_MULTIBOOT_ELF_HEADER},
	{elf, 42, 2, 33, LOAD_ERR_MULTIBOOT_ELF_HEADER},
	{elf, 44, 2, 0, LOAD_ERR_MULTIBOOT_NO_SEGMENT},
	{elf, 44, 2, 0xffff, LOAD_ERR_MULTIBOOT_TRUNCATED},
	{elf, 28, 4, FILE_BYTES - 95, LOAD_ERR_MULTIBOOT_TRUNCATED},
	{elf, 28, 4, 0xffffffff, LOAD_ERR_MULTIBOOT_TRUNCATED},
	{elf, PHDR(0) + 4, 4, FILE_BYTES - 0xfff, LOAD_ERR_MULTIBOOT_TRUNCATED},
	{elf, PHDR(0) + 4, 4, 0xffffffff, LOAD_ERR_MULTIBOOT_TRUNCATED},
	{elf, PHDR(0) + 16, 4, 0x1001, LOAD_ERR_MULTIBOOT_SEGMENT_SIZE},
	{elf, PHDR(0) + 20, 4, 0xfff, LOAD_ERR_MULTIBOOT_SEGMENT_SIZE},
	{elf, PHDR(0) + 12, 4, 0xfffff000, LOAD_ERR_MULTIBOOT_SEGMENT_WRAPS},
	{elf, PHDR(0) + 12, 4, 0xfffff001, LOAD_ERR_MULTIBOOT_SEGMENT_WRAPS},
	{elf, PHDR(0) + 20, 4, 0xfff00000, LOAD_ERR_MULTIBOOT_SEGMENT_WRAPS},
	{elf, PHDR(1) + 12, 4, 0x100fff, LOAD_ERR_MULTIBOOT_SEGMENT_OVERLAP},
	{elf, PHDR(1) + 12, 4, 0x0ff000, LOAD_ERR_MULTIBOOT_SEGMENT_OVERLAP},
	{elf, PHDR(0) + 20, 4, 0x10001, LOAD_ERR_MULTIBOOT_SEGMENT_OVERLAP},
	{elf, 24, 4, 0x101000, LOAD_ERR_MULTIBOOT_ENTRY},
	{elf, 24, 4, 0xfffff, LOAD_ERR_MULTIBOOT_ENTRY},
	{elf, 24, 4, 0x111800, LOAD_ERR_MULTIBOOT_ENTRY},
	{flat, HEADER + 12, 4, 0xfffff, LOAD_ERR_MULTIBOOT_ADDRESSES},
	{flat, HEADER + 12, 4, 0x101001, LOAD_ERR_MULTIBOOT_ADDRESSES},
	{flat, HEADER + 16, 4, 0x101001, LOAD_ERR_MULTIBOOT_ADDRESSES},
	{flat, HEADER + 16, 4, 0, LOAD_ERR_MULTIBOOT_ADDRESSES},
	{flat, HEADER + 20, 4, 0xfffff, LOAD_ERR_MULTIBOOT_ADDRESSES},
	{flat, HEADER + 20, 4, 0x103001, LOAD_ERR_MULTIBOOT_TRUNCATED},
	{flat, HEADER + 20, 4, 0xffffffff, LOAD_ERR_MULTIBOOT_ADDRESSES}, /* above bss_end */
	{flat, HEADER + 24, 4, 0x1027ff, LOAD_ERR_MULTIBOOT_ADDRESSES},
	{flat, HEADER + 28, 4, 0x104000, LOAD_ERR_MULTIBOOT_ENTRY},
	{flat, HEADER + 28, 4, 0, LOAD_ERR_MULTIBOOT_ENTRY},
};

static void test_inspect_bad_fields(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_fields); i++) {
		const struct bad_field *bad = &bad_fields[i];
		uint8_t *file = arena_copy_exactly(bad->file, FILE_BYTES);
		struct multiboot_image image;

		memcpy(file + bad->offset, &bad->value, bad->bytes);
		assert_int_equal(multiboot_inspect_image(file, FILE_BYTES, &image), bad->error);
		free(file);
	}
}

static void test_too_many_segments(void **state)
{
	uint8_t *file = arena_copy_exactly(elf, FILE_BYTES);
	struct multiboot_image image;

	(void)state;
	put16(file + 44, MULTIBOOT_SEGMENTS_MAX + 1);
	put32(file + 24, 0x100000);
	for (uint32_t i = 0; i <= MULTIBOOT_SEGMENTS_MAX; i++)
		put_segment(file + PHDR(i), 0x1800, 0x100000 + i * 0x10, 0x10, 0x10);
	assert_int_equal(multiboot_inspect_image(file, FILE_BYTES, &image),
		LOAD_ERR_MULTIBOOT_MANY_SEGMENTS);
	put16(file + 44, MULTIBOOT_SEGMENTS_MAX);
	assert_int_equal(multiboot_inspect_image(file, FILE_BYTES, &image), LOAD_OK);
	/* Segments without a byte do not count. */
	for (uint32_t i = 0; i < MULTIBOOT_SEGMENTS_MAX; i++)
		put_segment(file + PHDR(i), 0x1800, 0x100000, 0, 0);
	assert_int_equal(
		multiboot_inspect_image(file, FILE_BYTES, &image), LOAD_ERR_MULTIBOOT_NO_SEGMENT);
	free(file);
}

static void test_inspect_every_truncation(void **state)
{
	struct multiboot_image image;

	(void)state;
	for (size_t bytes = 0; bytes < FILE_BYTES; bytes += 1 + bytes % 7) {
		enum load_error error = inspect(elf, bytes, &image);

		if (bytes < HEADER + 12)
			assert_int_equal(error, LOAD_ERR_MULTIBOOT_NO_HEADER);
		else
			assert_int_equal(
				error, bytes < 0x2800 ? LOAD_ERR_MULTIBOOT_TRUNCATED : LOAD_OK);
		error = inspect(flat, bytes, &image);
		if (bytes >= HEADER + 12 && bytes < 0x2800)
			assert_int_equal(error, LOAD_ERR_MULTIBOOT_TRUNCATED);
	}
}

static void make_map(struct memory_map *map)
{
	memory_map_init(map);
	memory_map_add(map, 0, 0x9fc00, MEMORY_RAM);
	memory_map_add(map, 0x9fc00, 0x60400, MEMORY_RESERVED);
	memory_map_add(map, MIB, 15 * MIB, MEMORY_RAM);
	assert_int_equal(memory_map_sanitise(map), LOAD_OK);
}

static uint8_t module_a[5000];
static uint8_t module_b[1] = {0x42};

static struct multiboot_request make_request(const struct memory_map *map, const uint8_t *file)
{
	struct multiboot_request request = {
		.map = map,
		.kernel = {file, FILE_BYTES, GPA(8 * MIB)},
		.command_line = "kernel a b",
		.command_line_bytes = 10,
		.module_count = 3,
	};

	request.modules[0] =
		(struct multiboot_module){{module_a, sizeof(module_a), GPA(9 * MIB)}, "first x", 7};
	request.modules[1] =
		(struct multiboot_module){{module_b, sizeof(module_b), GPA(10 * MIB)}, NULL, 0};
	request.modules[2] = (struct multiboot_module){{module_b, 0, GPA(10 * MIB)}, "empty", 5};
	return request;
}

/* A plan is sound: RAM, page-aligned, apart from segments, sources, the avoided and each other. */
static void check_plan(const struct multiboot_image *image, const struct multiboot_request *request,
	const struct multiboot_plan *plan)
{
	struct memory_spans spans = {.count = 0};
	uint32_t planned;

	memory_spans_add(&spans, &plan->info, 1);
	memory_spans_add(&spans, &plan->strings, 1);
	memory_spans_add(&spans, plan->modules, request->module_count);
	planned = spans.count;
	for (uint32_t i = 0; i < planned; i++)
		assert_int_equal(spans.spans[i].base % PAGE_SIZE, 0);
	for (uint32_t i = 0; i < image->segment_count; i++) {
		struct memory_span span = {image->segments[i].base, image->segments[i].bytes};

		memory_spans_add(&spans, &span, 1);
	}
	for (uint32_t i = 0; i < spans.count; i++) {
		const struct memory_span *span = &spans.spans[i];

		assert_true(memory_map_is_ram(request->map, span->base, span->length));
		assert_true(span->base + span->length < 1ull << 32);
		for (uint32_t j = 0; j < i; j++)
			assert_false(memory_span_overlaps(*span, spans.spans[j]));
		for (size_t j = 0; j < request->avoid_count; j++)
			assert_false(memory_span_overlaps(*span, request->avoid[j]));
		assert_false(memory_span_overlaps(*span,
			(struct memory_span){request->kernel.gpa.value, request->kernel.bytes}));
		for (uint32_t j = 0; j < request->module_count; j++)
			assert_false(memory_span_overlaps(*span,
				(struct memory_span){request->modules[j].source.gpa.value,
					request->modules[j].source.bytes}));
	}
}

static void test_plan_is_where_qemu_puts_it(void **state)
{
	struct memory_map map;
	struct multiboot_image image;
	struct multiboot_request request = make_request(&map, elf);
	struct multiboot_plan plan;

	(void)state;
	make_map(&map);
	inspect(elf, FILE_BYTES, &image);
	assert_int_equal(multiboot_plan_boot(&image, &request, &plan), LOAD_OK);
	check_plan(&image, &request, &plan);
	assert_int_equal(plan.info.base, 0x9000);
	assert_int_equal(plan.strings.base, 0x112000);
	assert_int_equal(plan.modules[0].base, 0x113000);
	assert_int_equal(plan.modules[1].base, 0x115000);
	assert_int_equal(plan.modules[2].base, 0x116000);
	assert_int_equal(plan.modules[2].length, 0);
}

static void test_plan_goes_round_obstacles(void **state)
{
	struct memory_span avoid[] = {{0x9000, 0x90000}, {0x112000, 14 * MIB - 0x12000}};
	struct memory_map map;
	struct multiboot_image image;
	struct multiboot_request request = make_request(&map, elf);
	struct multiboot_plan plan;

	(void)state;
	make_map(&map);
	inspect(elf, FILE_BYTES, &image);
	request.avoid = avoid;
	request.avoid_count = 2;
	assert_int_equal(multiboot_plan_boot(&image, &request, &plan), LOAD_OK);
	check_plan(&image, &request, &plan);
	avoid[1].length = 15 * MIB;
	assert_int_equal(multiboot_plan_boot(&image, &request, &plan), LOAD_OK);
	check_plan(&image, &request, &plan);
	assert_int_equal(plan.strings.base, 0x101000); /* between the segments */
	request.modules[0].source.bytes = 15 * MIB;
	request.modules[0].source.gpa = GPA(1ull << 40);
	assert_int_equal(multiboot_plan_boot(&image, &request, &plan), LOAD_ERR_NO_ROOM_MODULE);
	avoid[0] = (struct memory_span){0, MIB};
	avoid[1] = (struct memory_span){0x101000, 0xf000};
	assert_int_equal(multiboot_plan_boot(&image, &request, &plan), LOAD_ERR_NO_ROOM_MODULE);
	avoid[1] = (struct memory_span){0x101000, ~0ull};
	assert_int_equal(
		multiboot_plan_boot(&image, &request, &plan), LOAD_ERR_MULTIBOOT_SEGMENT_NOT_RAM);
}

static void test_plan_refuses(void **state)
{
	static const char long_line[4096];
	struct memory_map map;
	struct multiboot_image image;
	struct multiboot_request request = make_request(&map, elf);
	struct multiboot_plan plan;

	(void)state;
	make_map(&map);
	inspect(elf, FILE_BYTES, &image);
	request.module_count = MULTIBOOT_MODULES_MAX + 1;
	assert_int_equal(
		multiboot_plan_boot(&image, &request, &plan), LOAD_ERR_MULTIBOOT_MANY_MODULES);
	request.module_count = 3;
	request.modules[1].command_line = long_line;
	request.modules[1].command_line_bytes = 4096;
	assert_int_equal(
		multiboot_plan_boot(&image, &request, &plan), LOAD_ERR_MULTIBOOT_COMMAND_LINE);
	request.modules[1].command_line_bytes = 4095;
	assert_int_equal(multiboot_plan_boot(&image, &request, &plan), LOAD_OK);
	request.command_line_bytes = SIZE_MAX;
	assert_int_equal(
		multiboot_plan_boot(&image, &request, &plan), LOAD_ERR_MULTIBOOT_COMMAND_LINE);
	request.command_line_bytes = 1;
	request.kernel.bytes++;
	assert_int_equal(multiboot_plan_boot(&image, &request, &plan), LOAD_ERR_SOURCE_CHANGED);
	request.kernel.bytes--;
	request.kernel.gpa = GPA(0x111000);
	assert_int_equal(
		multiboot_plan_boot(&image, &request, &plan), LOAD_ERR_MULTIBOOT_SOURCE_IN_WAY);
	request.kernel.gpa = GPA(8 * MIB);
	image.segments[0].base = 0x9f000;
	assert_int_equal(
		multiboot_plan_boot(&image, &request, &plan), LOAD_ERR_MULTIBOOT_SEGMENT_NOT_RAM);
}

/* What the kernel is given, as a kernel reads it. */
static void check_info(const struct arena *arena, const struct memory_map *map,
	const struct multiboot_plan *plan, uint32_t ebx)
{
	const uint8_t *info = arena->bytes + ebx;
	const uint8_t *mods = arena->bytes + get32(info + 24);
	const char *base = (const char *)arena->bytes;

	assert_int_equal(get32(info), 0x24f);
	assert_int_equal(get32(info + 4), 639);
	assert_int_equal(get32(info + 8), 15 * 1024);
	assert_int_equal(get32(info + 12), 0x8000ffff);
	assert_string_equal(base + get32(info + 16), "kernel a b");
	assert_string_equal(base + get32(info + 64), "parapet");
	assert_int_equal(get32(info + 20), 3);
	assert_string_equal(base + get32(mods + 8), "first x");
	assert_string_equal(base + get32(mods + 16 + 8), "");
	assert_string_equal(base + get32(mods + 32 + 8), "empty");
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(get32(mods + 16 * i), plan->modules[i].base);
		assert_int_equal(
			get32(mods + 16 * i + 4), plan->modules[i].base + plan->modules[i].length);
		assert_int_equal(get32(mods + 16 * i + 12), 0);
	}
	assert_int_equal(get32(info + 44), 24 * map->count);
	for (uint32_t i = 0; i < map->count; i++) {
		const uint8_t *entry = arena->bytes + get32(info + 48) + 24 * i;

		assert_int_equal(get32(entry), 20);
		assert_int_equal(get64(entry + 4), map->ranges[i].base);
		assert_int_equal(get64(entry + 12), map->ranges[i].length);
		assert_int_equal(get32(entry + 20), map->ranges[i].type);
	}
}

static void test_commit(void **state)
{
	struct arena arena;
	struct memory_map map;
	struct multiboot_image image;
	struct multiboot_request request = make_request(&map, elf);
	struct multiboot_plan plan;
	struct multiboot_entry entry;

	(void)state;
	make_map(&map);
	arena_start(&arena, ARENA_BYTES);
	memset(arena.bytes, 0xcc, ARENA_BYTES);
	inspect(elf, FILE_BYTES, &image);
	assert_int_equal(multiboot_plan_boot(&image, &request, &plan), LOAD_OK);

	/* Out of reach: nothing is written. */
	arena.size = plan.modules[0].base;
	assert_int_equal(multiboot_commit_boot(&image, &request, &plan, &arena.memory, &entry),
		LOAD_ERR_MEMORY_ACCESS);
	for (size_t i = 0; i < ARENA_BYTES; i++)
		assert_int_equal(arena.bytes[i], 0xcc);
	arena.size = ARENA_BYTES;

	arena_close(&arena);
	assert_int_equal(
		multiboot_commit_boot(&image, &request, &plan, &arena.memory, &entry), LOAD_OK);
	arena_open(&arena);
	assert_int_equal(entry.eip, 0x100010);
	assert_int_equal(entry.eax, 0x2badb002);
	assert_int_equal(entry.gdt_limit, 23);
	assert_int_equal(get64(arena.bytes + entry.gdt_base.value + entry.cs), 0x00cf9b000000ffff);
	assert_int_equal(get64(arena.bytes + entry.gdt_base.value + entry.ds), 0x00cf93000000ffff);
	assert_memory_equal(arena.bytes + 0x100000, elf + 0x1000, 0x1000);
	assert_memory_equal(arena.bytes + 0x110000, elf + 0x2000, 0x800);
	for (uint32_t at = 0x110800; at < 0x111800; at++)
		assert_int_equal(arena.bytes[at], 0);
	assert_int_equal(arena.bytes[0x111800], 0xcc);
	assert_int_equal(arena.bytes[0x101000], 0xcc);
	assert_memory_equal(arena.bytes + plan.modules[0].base, module_a, sizeof(module_a));
	assert_int_equal(arena.bytes[plan.modules[1].base], 0x42);
	check_info(&arena, &map, &plan, entry.ebx);

	request.modules[0].command_line_bytes--;
	assert_int_equal(multiboot_commit_boot(&image, &request, &plan, &arena.memory, &entry),
		LOAD_ERR_SOURCE_CHANGED);
	arena_stop(&arena);
}

/* The files lie exactly where the kernel has to go. */
static void test_move_sources(void **state)
{
	struct arena arena;
	struct memory_map map;
	struct multiboot_image image;
	struct multiboot_request request = make_request(&map, elf);
	struct multiboot_plan plan;
	struct multiboot_entry entry;

	(void)state;
	make_map(&map);
	arena_start(&arena, ARENA_BYTES);
	inspect(elf, FILE_BYTES, &image);
	memcpy(arena.bytes + 0x100000, elf, FILE_BYTES);
	memcpy(arena.bytes + 0x110800, module_a, sizeof(module_a));
	request.kernel = (struct load_source){arena.bytes + 0x100000, FILE_BYTES, GPA(0x100000)};
	request.modules[0].source.data = arena.bytes + 0x110800;
	request.modules[0].source.gpa = GPA(0x110800);
	assert_int_equal(
		multiboot_plan_boot(&image, &request, &plan), LOAD_ERR_MULTIBOOT_SOURCE_IN_WAY);
	assert_int_equal(multiboot_move_sources(&image, &request, &arena.memory), LOAD_OK);
	assert_int_equal(request.kernel.gpa.value, 16 * MIB - FILE_BYTES);
	assert_int_equal(request.modules[0].source.gpa.value, 16 * MIB - FILE_BYTES - 0x2000);
	assert_int_equal(request.modules[1].source.gpa.value, 10 * MIB);
	assert_int_equal(multiboot_plan_boot(&image, &request, &plan), LOAD_OK);
	check_plan(&image, &request, &plan);
	assert_int_equal(
		multiboot_commit_boot(&image, &request, &plan, &arena.memory, &entry), LOAD_OK);
	assert_memory_equal(arena.bytes + 0x110000, elf + 0x2000, 0x800);
	assert_memory_equal(arena.bytes + plan.modules[0].base, module_a, sizeof(module_a));
	arena_stop(&arena);
}

static void mutate_and_boot(const uint8_t *good, uint32_t first, uint32_t bytes, uint64_t seed)
{
	uint64_t random = seed;
	uint32_t booted = 0;
	struct arena arena;
	struct memory_map map;

	make_map(&map);
	arena_start(&arena, ARENA_BYTES);
	for (uint32_t round = 0; round < 100000; round++) {
		uint8_t *file = arena_copy_exactly(good, FILE_BYTES);
		struct multiboot_request request = make_request(&map, file);
		struct multiboot_image image;
		struct multiboot_plan plan;
		struct multiboot_entry entry;

		mutate_bytes(file + first, bytes, &random);
		/* The checksum would stop nearly all mutations of the flags. */
		put32(file + HEADER + 8, -(0x1badb002 + get32(file + HEADER + 4)));
		if (multiboot_inspect_image(file, FILE_BYTES, &image) == LOAD_OK &&
			multiboot_plan_boot(&image, &request, &plan) == LOAD_OK) {
			check_plan(&image, &request, &plan);
			if (booted++ % 64 == 0)
				assert_int_equal(multiboot_commit_boot(&image, &request, &plan,
							 &arena.memory, &entry),
					LOAD_OK);
		}
		free(file);
	}
	assert_true(booted > 1000);
	arena_stop(&arena);
}

static void test_mutated_elf(void **state)
{
	(void)state;
	mutate_and_boot(elf, 0, PHDR(3), 5);
}

static void test_mutated_address_fields(void **state)
{
	(void)state;
	mutate_and_boot(flat, HEADER + 4, 28, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inspect_elf),
		cmocka_unit_test(test_virtual_entry_is_translated),
		cmocka_unit_test(test_inspect_address_fields),
		cmocka_unit_test(test_where_the_header_may_be),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_inspect_bad_fields),
		cmocka_unit_test(test_too_many_segments),
		cmocka_unit_test(test_inspect_every_truncation),
		cmocka_unit_test(test_plan_is_where_qemu_puts_it),
		cmocka_unit_test(test_plan_goes_round_obstacles),
		cmocka_unit_test(test_plan_refuses),
		cmocka_unit_test(test_commit),
		cmocka_unit_test(test_move_sources),
		cmocka_unit_test(test_mutated_elf),
		cmocka_unit_test(test_mutated_address_fields),
	};

	make_kernels();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
