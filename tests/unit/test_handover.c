/*
 * The hand-over: what is written is read back; whatever else is read is refused, never believed.
 * The tree under test always ends at a page that must not be touched, so that reading past it is
 * seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <libfdt.h>

#include "boot/handover/handover.h"

static uint8_t tree[HANDOVER_TREE_BYTES] __attribute__((aligned(8)));

/* An area that ends where reading ends in a fault. */
static uint8_t *fence;
#define FENCE_BYTES 65536u

static int fence_setup(void **state)
{
	(void)state;
	fence = mmap(NULL, FENCE_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0);
	if (fence == MAP_FAILED)
		return -1;
	return mprotect(fence + FENCE_BYTES, 4096, PROT_NONE);
}

static int fence_teardown(void **state)
{
	(void)state;
	return munmap(fence, FENCE_BYTES + 4096);
}

/* Reads a copy of `bytes` bytes; it ends at the fence, up to what 8-byte alignment needs. */
static enum handover_error read_fenced(
	const void *bytes_at, size_t bytes, struct handover_info *info)
{
	uint8_t *copy = fence + FENCE_BYTES - ALIGN_UP(bytes, (size_t)8);

	assert_true(bytes <= FENCE_BYTES);
	memcpy(copy, bytes_at, bytes);
	return handover_read(copy, bytes, info);
}

static struct handover_info example(void)
{
	struct handover_info info = {
		.memory_count = 3,
		.memory = {{0, 0x9f000}, {0x100000, 0x7fe0000 - 0x100000},
			{0x100000000ull, 0x80000000ull}},
		.firmware_count = 3,
		.firmware = {{{0x9fc00, 0x400}, 2}, {{0x7fe0000, 0x20000}, 3},
			{{0xfffc0000, 0x40000}, 2}},
		.region_count = 6,
		.region = {{{0x200000, 0x100000}, HANDOVER_REGION_IMAGE},
			{{0x4000000, 0x1000000}, HANDOVER_REGION_MEMORY},
			{{0x3f00000, 0x100000}, HANDOVER_REGION_BLOCK},
			{{0x90000, 0x8000}, HANDOVER_REGION_AP_PAGES},
			{{0x98000, 0x1000}, HANDOVER_REGION_MAILBOX},
			{{0xfee00000, 0x123}, HANDOVER_REGION_OTHER}},
		.cpu_count = 4,
		.apic_id = {2, 0, 1, 254},
		.boot_apic_id = 2,
		.acpi_rsdp = 0xf5a40,
		.kernel = {0x1000001, 0x812345},
		.initrd = {0x2000000, 0x654321},
		.kernel_command_line = "console=ttyS0 quiet",
		.options = "ap-start=mailbox verbose",
	};

	return info;
}

static size_t example_tree(void)
{
	struct handover_info info = example();
	size_t bytes;

	assert_int_equal(handover_write(tree, sizeof(tree), &info, &bytes), HANDOVER_OK);
	return bytes;
}

static void assert_same(const struct handover_info *a, const struct handover_info *b)
{
	assert_int_equal(a->memory_count, b->memory_count);
	assert_memory_equal(a->memory, b->memory, sizeof(a->memory));
	assert_int_equal(a->firmware_count, b->firmware_count);
	for (uint32_t i = 0; i < a->firmware_count; i++) {
		assert_int_equal(a->firmware[i].range.base, b->firmware[i].range.base);
		assert_int_equal(a->firmware[i].range.bytes, b->firmware[i].range.bytes);
		assert_int_equal(a->firmware[i].type, b->firmware[i].type);
	}
	assert_int_equal(a->region_count, b->region_count);
	for (uint32_t i = 0; i < a->region_count; i++) {
		assert_int_equal(a->region[i].range.base, b->region[i].range.base);
		assert_int_equal(a->region[i].range.bytes, b->region[i].range.bytes);
		assert_int_equal(a->region[i].kind, b->region[i].kind);
	}
	assert_int_equal(a->cpu_count, b->cpu_count);
	assert_memory_equal(a->apic_id, b->apic_id, sizeof(a->apic_id));
	assert_int_equal(a->boot_apic_id, b->boot_apic_id);
	assert_int_equal(a->acpi_rsdp, b->acpi_rsdp);
	assert_memory_equal(&a->kernel, &b->kernel, sizeof(a->kernel));
	assert_memory_equal(&a->initrd, &b->initrd, sizeof(a->initrd));
	assert_string_equal(a->kernel_command_line, b->kernel_command_line);
	assert_string_equal(a->options, b->options);
}

static void test_round_trip(void **state)
{
	(void)state;
	struct handover_info info = example(), read;
	size_t bytes = example_tree();

	assert_int_equal(read_fenced(tree, bytes, &read), HANDOVER_OK);
	assert_same(&info, &read);
	assert_int_equal(handover_find_region(&read, HANDOVER_REGION_MAILBOX)->range.base, 0x98000);

	/* A larger buffer than the tree is fine; nothing optional is needed. */
	assert_int_equal(handover_read(tree, sizeof(tree), &read), HANDOVER_OK);
	info.firmware_count = 0;
	info.region_count = 1;
	info.kernel.bytes = info.initrd.bytes = info.kernel.base = info.initrd.base = 0;
	info.acpi_rsdp = 0;
	info.kernel_command_line = info.options = "";
	assert_int_equal(handover_write(tree, sizeof(tree), &info, &bytes), HANDOVER_OK);
	assert_int_equal(read_fenced(tree, bytes, &read), HANDOVER_OK);
	assert_same(&info, &read);
	assert_null(handover_find_region(&read, HANDOVER_REGION_MAILBOX));
}

static void test_largest_fits(void **state)
{
	(void)state;
	static struct handover_info info, read;
	static char long_line[4096];
	size_t bytes;

	info = example();
	info.memory_count = HANDOVER_MEMORY_MAX;
	info.firmware_count = HANDOVER_FIRMWARE_MAX;
	info.region_count = HANDOVER_REGION_MAX;
	info.cpu_count = VP_COUNT_MAX;
	for (uint64_t i = 0; i < HANDOVER_MEMORY_MAX; i++)
		info.memory[i] =
			(struct handover_range){0xfff0000000000ull + i * 0x100000, 0x100000};
	for (uint32_t i = 0; i < HANDOVER_FIRMWARE_MAX; i++)
		info.firmware[i] = (struct handover_firmware){{0x100000000ull * i, 1}, UINT32_MAX};
	for (uint32_t i = 0; i < HANDOVER_REGION_MAX; i++) {
		info.region[i].range =
			(struct handover_range){info.memory[i].base + 0x80000, 0x1000};
		if (i > 4)
			info.region[i].kind = HANDOVER_REGION_MEMORY;
	}
	for (uint32_t i = 0; i < VP_COUNT_MAX; i++)
		info.apic_id[i] = 0xffffff00 + i;
	info.boot_apic_id = 0xffffff3f;
	/* Across two ranges of memory that touch. */
	info.kernel = (struct handover_range){info.memory[40].base + 5, 0x100000};
	info.initrd = (struct handover_range){info.memory[63].base, 0x100000};
	memset(long_line, 'x', sizeof(long_line) - 1);
	info.kernel_command_line = long_line;

	assert_int_equal(handover_write(tree, sizeof(tree), &info, &bytes), HANDOVER_OK);
	assert_true(bytes < HANDOVER_TREE_BYTES - sizeof(long_line));
	assert_int_equal(read_fenced(tree, bytes, &read), HANDOVER_OK);
	assert_same(&info, &read);
}

/* Runs dtc on the bytes, which it finds in a file without a name; what it says is to be read. */
static FILE *dtc_open(const char *options, const void *input, size_t bytes, FILE **file)
{
	char command[160];
	FILE *dtc;

	if (system("command -v dtc >/dev/null 2>&1") != 0)
		skip();
	*file = tmpfile();
	assert_non_null(*file);
	assert_int_equal(fwrite(input, 1, bytes, *file), bytes);
	assert_int_equal(fflush(*file), 0);
	snprintf(command, sizeof(command), "dtc %s /proc/%d/fd/%d 2>&1", options, getpid(),
		fileno(*file));
	dtc = popen(command, "r");
	assert_non_null(dtc);
	return dtc;
}

static void test_dtc_is_silent(void **state)
{
	(void)state;
	size_t bytes = example_tree();
	char line[200];
	FILE *file;
	FILE *dtc = dtc_open("-I dtb -O dts -o /dev/null", tree, bytes, &file);

	if (fgets(line, sizeof(line), dtc))
		fail_msg("dtc says: %s", line);
	assert_int_equal(pclose(dtc), 0);
	fclose(file);
}

/* A tree from source, into `tree`; its bytes. */
static size_t tree_from(const char *source)
{
	FILE *file;
	FILE *dtc = dtc_open("-q -b 2 -I dts -O dtb -o -", source, strlen(source), &file);
	size_t bytes = fread(tree, 1, sizeof(tree), dtc);

	assert_int_equal(pclose(dtc), 0);
	fclose(file);
	return bytes;
}

/* Another loader's tree, from source: smaller cells, several ranges in one reg, strange nodes. */
static void test_other_loader(void **state)
{
	(void)state;
	static const char source[] =
		"/dts-v1/; / { compatible = \"vendor,board\", \"parapet,handover-1\";\n"
		"#address-cells = <1>; #size-cells = <1>; unknown = \"x\";\n"
		"memory@100000 { device_type = \"memory\"; reg = <0x100000 0x700000 0 0x80000>; "
		"};\n"
		"memory@900000 { device_type = \"memory\"; status = \"disabled\"; reg = <1 2>; };\n"
		"cpus { #address-cells = <2>; #size-cells = <0>;\n"
		"  cpu@0 { device_type = \"cpu\"; reg = <0 0>; };\n"
		"  cpu@1 { device_type = \"cpu\"; reg = <0 1>; status = \"disabled\"; };\n"
		"  cpu@2 { device_type = \"cpu\"; reg = <0 2>; status = \"okay\"; };\n"
		"  cpu-map { }; };\n"
		"reserved-memory { #address-cells = <2>; #size-cells = <1>; ranges;\n"
		"  a@200000 { compatible = \"parapet,image\"; reg = <0 0x200000 0x1000>; };\n"
		"  wakeup-mailbox@7000 { compatible = \"intel,wakeup-mailbox\";\n"
		"     reg = <0x0 0x7000 0x1000>; };\n"
		"  ramoops@300000 { compatible = \"ramoops\"; reg = <0 0x300000 0x100>; }; };\n"
		"soc { dev@1 { reg = <1 2>; }; }; };\n";
	struct handover_info info;

	assert_int_equal(read_fenced(tree, tree_from(source), &info), HANDOVER_OK);
	assert_int_equal(info.memory_count, 2);
	assert_int_equal(info.memory[0].base, 0);
	assert_int_equal(info.memory[1].bytes, 0x700000);
	assert_int_equal(info.cpu_count, 2);
	assert_int_equal(info.apic_id[1], 2);
	assert_int_equal(info.boot_apic_id, 2);
	assert_int_equal(info.region_count, 3);
	assert_int_equal(info.region[1].kind, HANDOVER_REGION_MAILBOX);
	assert_int_equal(info.region[2].kind, HANDOVER_REGION_OTHER);
	assert_string_equal(info.options, "");
}

/* How many cells a reg has: said, not said, and said wrongly. */
static void test_cell_counts(void **state)
{
	(void)state;
	static const struct {
		const char *counts, *reg;
		enum handover_error want;
	} cases[] = {
		{"#address-cells = <2>; #size-cells = <2>;", "0 0x100000 0 0x700000", HANDOVER_OK},
		{"", "0 0x100000 0x700000", HANDOVER_OK},
		{"#size-cells = <2>;", "0 0x100000 0 0x700000", HANDOVER_OK},
		{"#address-cells = <1>;", "0x100000 0x700000", HANDOVER_OK},
		{"#address-cells = <3>;", "0 0 0x100000 0x700000", HANDOVER_BAD_PROPERTY},
		{"#size-cells = <3>;", "0 0x100000 0 0 0x700000", HANDOVER_BAD_PROPERTY},
		{"#address-cells = <0>;", "0x700000", HANDOVER_BAD_PROPERTY},
		{"#size-cells = <0>;", "0 0x100000", HANDOVER_BAD_PROPERTY},
		{"#address-cells = <0x80000001>;", "0x100000 0x700000", HANDOVER_BAD_PROPERTY},
		{"#address-cells = <1 1>;", "0x100000 0x700000", HANDOVER_BAD_PROPERTY},
		{"#address-cells = [01];", "0x100000 0x700000", HANDOVER_BAD_PROPERTY},
		{"#address-cells;", "0 0x100000 0x700000", HANDOVER_BAD_PROPERTY},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct handover_info info;
		char source[1000];

		snprintf(source, sizeof(source),
			"/dts-v1/; / { compatible = \"parapet,handover-1\"; %s\n"
			"memory@100000 { device_type = \"memory\"; reg = <%s>; };\n"
			"cpus { #address-cells = <1>; #size-cells = <0>;\n"
			"  cpu@2 { device_type = \"cpu\"; reg = <2>; }; };\n"
			"reserved-memory { #address-cells = <1>; #size-cells = <1>; ranges;\n"
			"  a@200000 { compatible = \"parapet,image\"; reg = <0x200000 0x1000>; }; };\n"
			"};\n",
			cases[i].counts, cases[i].reg);
		if (read_fenced(tree, tree_from(source), &info) != cases[i].want)
			fail_msg("%s", cases[i].counts);
		if (cases[i].want == HANDOVER_OK)
			assert_int_equal(info.memory[0].bytes, 0x700000);
	}
}

#define REFUSED(change, want)                                                                      \
	do {                                                                                       \
		struct handover_info info = example();                                             \
		size_t bytes = 1;                                                                  \
		change;                                                                            \
		assert_int_equal(handover_write(tree, sizeof(tree), &info, &bytes), want);         \
		assert_int_equal(bytes, 0);                                                        \
	} while (0)

static void test_writer_refuses(void **state)
{
	(void)state;
	REFUSED(info.memory_count = 0, HANDOVER_MISSING);
	REFUSED(info.memory_count = HANDOVER_MEMORY_MAX + 1, HANDOVER_TOO_MANY);
	REFUSED(info.cpu_count = VP_COUNT_MAX + 1, HANDOVER_TOO_MANY);
	REFUSED(info.cpu_count = 0, HANDOVER_BAD_PROCESSORS);
	REFUSED(info.apic_id[3] = 0, HANDOVER_BAD_PROCESSORS);
	REFUSED(info.boot_apic_id = 9, HANDOVER_BAD_PROCESSORS);
	REFUSED(info.memory[0].bytes = 0, HANDOVER_BAD_RANGE);
	REFUSED(info.memory[2].bytes = UINT64_MAX, HANDOVER_BAD_RANGE);
	REFUSED(info.memory[2].base = 1ull << 52, HANDOVER_BAD_RANGE);
	REFUSED(info.memory[1].base = 0x9e000, HANDOVER_OVERLAP);
	REFUSED(info.firmware[0].type = 1, HANDOVER_BAD_PROPERTY);
	REFUSED(info.firmware[0].range.bytes = 0, HANDOVER_BAD_RANGE);
	REFUSED(info.firmware[0].range.base = 0x9effe, HANDOVER_OVERLAP);
	REFUSED(info.region[0].kind = HANDOVER_REGION_OTHER, HANDOVER_MISSING);
	REFUSED(info.region[1].kind = HANDOVER_REGION_IMAGE, HANDOVER_TOO_MANY);
	REFUSED(info.region[1].kind = HANDOVER_KIND_COUNT, HANDOVER_BAD_PROPERTY);
	REFUSED(info.region[0].range.base += 1, HANDOVER_BAD_RANGE);
	REFUSED(info.region[4].range.bytes = 0x2000, HANDOVER_BAD_RANGE);
	REFUSED(info.region[4].range.base = 0x97000, HANDOVER_OVERLAP);
	REFUSED(info.region[4].range.base = 0x9f000, HANDOVER_NOT_MEMORY);
	REFUSED(info.kernel.base = 0x300000 - 1, HANDOVER_OVERLAP);
	REFUSED(info.kernel.base = 0x2000000 - 1, HANDOVER_OVERLAP);
	REFUSED(info.initrd.base = 0x7fdf000, HANDOVER_NOT_MEMORY);
	REFUSED(info.initrd.bytes = UINT64_MAX, HANDOVER_BAD_RANGE);
	REFUSED(info.acpi_rsdp = 1ull << 60, HANDOVER_BAD_RANGE);
	REFUSED(info.options = NULL, HANDOVER_MISSING);
	for (unsigned int i = 0; i <= HANDOVER_ERROR_COUNT; i++)
		assert_non_null(handover_error_text(i));
}

static void test_short_buffers(void **state)
{
	(void)state;
	struct handover_info info = example(), read;
	size_t bytes = example_tree(), got;
	uint8_t *copy = malloc(bytes);

	assert_non_null(copy);
	for (size_t size = 0; size < bytes; size++) {
		uint8_t *buffer = fence + FENCE_BYTES - ALIGN_UP(size, (size_t)8);

		assert_int_equal(handover_write(buffer, size, &info, &got), HANDOVER_NO_ROOM);
		assert_int_equal(got, 0);
	}
	example_tree();
	memcpy(copy, tree, bytes);
	for (size_t size = 0; size < bytes; size++) {
		assert_int_equal(read_fenced(copy, size, &read), HANDOVER_BAD_TREE);
		assert_int_equal(read.memory_count, 0);
	}
	assert_int_equal(handover_read(NULL, 100, &read), HANDOVER_BAD_BUFFER);
	assert_int_equal(handover_read(tree + 4, 100, &read), HANDOVER_BAD_BUFFER);
	assert_int_equal(handover_write(tree + 1, 100, &info, &got), HANDOVER_BAD_BUFFER);
	free(copy);
}

static uint32_t random_state = 12345;

static uint32_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return random_state;
}

/* Whatever the bytes: no fault, no endless loop, and a result that holds what it promises. */
static void test_mutations(void **state)
{
	(void)state;
	static uint8_t mutant[HANDOVER_TREE_BYTES] __attribute__((aligned(8)));
	size_t bytes = example_tree();
	unsigned int accepted = 0, by_error[HANDOVER_ERROR_COUNT] = {0};

	for (int round = 0; round < 100000; round++) {
		static struct handover_info info;
		enum handover_error error;
		unsigned int changes = 1 + random_next() % 4;

		memcpy(mutant, tree, bytes);
		while (changes--) {
			size_t at = random_next() % bytes;

			switch (random_next() % 4) {
			case 0:
				mutant[at] ^= (uint8_t)(1u << random_next() % 8);
				break;
			case 1:
				mutant[at] = (uint8_t)random_next();
				break;
			case 2:
				memset(mutant + (at & ~3ul), (random_next() & 1) ? 0xff : 0, 4);
				break;
			default:
				memcpy(mutant + (at & ~3ul),
					mutant + (random_next() % bytes & ~3ul), 4);
				break;
			}
		}
		error = read_fenced(mutant, bytes, &info);
		by_error[error]++;
		if (error == HANDOVER_OK) {
			assert_int_equal(handover_check(&info), HANDOVER_OK);
			assert_true(
				strlen(info.options) + strlen(info.kernel_command_line) < bytes);
			accepted++;
		}
	}
	/* Most kinds of damage must have been met, or this test tests nothing. */
	assert_true(accepted > 100);
	assert_true(by_error[HANDOVER_BAD_TREE] > 100);
	assert_true(by_error[HANDOVER_MISSING] > 100);
	assert_true(by_error[HANDOVER_BAD_PROPERTY] > 100);
	assert_true(by_error[HANDOVER_BAD_RANGE] > 100);
	assert_true(by_error[HANDOVER_OVERLAP] > 10);
	assert_true(by_error[HANDOVER_NOT_MEMORY] > 10);
	assert_true(by_error[HANDOVER_BAD_PROCESSORS] > 10);
	assert_true(by_error[HANDOVER_NOT_PARAPET] > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_largest_fits),
		cmocka_unit_test(test_dtc_is_silent),
		cmocka_unit_test(test_other_loader),
		cmocka_unit_test(test_cell_counts),
		cmocka_unit_test(test_writer_refuses),
		cmocka_unit_test(test_short_buffers),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests(tests, fence_setup, fence_teardown);
}
