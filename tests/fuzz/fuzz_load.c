/*
 * libFuzzer target for boot/load. The first byte of the input chooses what the rest is: a kernel
 * file, a memory map, one ACPI table, or firmware memory. Marks and checksums that a fuzzer would
 * only stumble over are put right for half of the inputs. A plan that breaks its promise stops the
 * run.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "boot/load/acpi.h"
#include "boot/load/linux.h"
#include "boot/load/multiboot.h"
#include "tests/unit/load_arena.h"

#define MIB	       0x100000ull
#define FIRMWARE_BASE  0xe0000u
#define FIRMWARE_BYTES 0x20000u
#define SOURCE	       (40 * MIB)
#define ARENA_BYTES    (64 * MIB)
#define DESTINATION    0x200000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void make_map(struct memory_map *map)
{
	memory_map_init(map);
	memory_map_add(map, 0, 0x9fc00, MEMORY_RAM);
	memory_map_add(map, 0x9fc00, 0x60400, MEMORY_RESERVED);
	memory_map_add(map, MIB, 63 * MIB, MEMORY_RAM);
	check(memory_map_sanitise(map) == LOAD_OK);
}

/* What was placed is RAM, and not where the file is. */
static void check_place(const struct memory_map *map, struct memory_span place, size_t file_bytes)
{
	check(memory_map_is_ram(map, place.base, place.length));
	check(!memory_span_overlaps(place, (struct memory_span){SOURCE, file_bytes}));
}

static void fuzz_linux(struct arena *arena, uint8_t *file, size_t bytes, bool help)
{
	struct memory_map map;
	struct linux_image image;
	struct linux_plan plan;
	struct linux_entry entry;
	struct linux_request request = {
		.map = &map,
		.kernel = {file, bytes, GPA(SOURCE)},
		.initrd = {file, bytes, GPA(SOURCE)},
		.command_line = "quiet",
		.command_line_bytes = 5,
	};

	if (help && bytes >= 0x290) {
		put16(file + 0x1fe, 0xaa55);
		put32(file + 0x202, 0x53726448);
		put16(file + 0x206, 0x20f);
		file[0x200] = 0xeb;
		file[0x211] |= 1;
		file[0x236] |= 1;
	}
	make_map(&map);
	if (linux_inspect_image(file, bytes, &image) || linux_plan_boot(&image, &request, &plan))
		return;
	check_place(&map, plan.kernel, bytes);
	check_place(&map, plan.boot_data, bytes);
	check_place(&map, plan.initrd, bytes);
	check(linux_commit_boot(&image, &request, &plan, &arena->memory, &entry) == LOAD_OK);
}

static void fuzz_multiboot(struct arena *arena, uint8_t *file, size_t bytes, bool help)
{
	struct memory_map map;
	struct multiboot_image image;
	struct multiboot_plan plan;
	struct multiboot_entry entry;
	struct multiboot_request request = {
		.map = &map,
		.kernel = {file, bytes, GPA(SOURCE)},
		.command_line = "kernel",
		.command_line_bytes = 6,
		.modules[0] = {{file, bytes, GPA(SOURCE)}, "module", 6},
		.module_count = 1,
	};

	if (help && bytes >= 84 + 12) {
		put32(file + 84, 0x1badb002);
		put32(file + 92, -(0x1badb002 + get32(file + 88)));
	}
	make_map(&map);
	if (multiboot_inspect_image(file, bytes, &image) ||
		multiboot_plan_boot(&image, &request, &plan))
		return;
	check_place(&map, plan.info, bytes);
	check_place(&map, plan.strings, bytes);
	check_place(&map, plan.modules[0], bytes);
	check(multiboot_commit_boot(&image, &request, &plan, &arena->memory, &entry) == LOAD_OK);
}

static void fuzz_memory_map(const uint8_t *data, size_t bytes)
{
	struct memory_map map;

	memory_map_init(&map);
	if (memory_map_read_multiboot(&map, data, bytes))
		return;
	for (uint32_t i = 1; i < map.count; i++)
		check(map.ranges[i - 1].base + map.ranges[i - 1].length <= map.ranges[i].base);
	memory_map_reserve(&map, MIB, MIB, MEMORY_NVS);
}

static void fuzz_table(const uint8_t *data, size_t bytes)
{
	struct acpi_table table = {GPA(0), (uint32_t)bytes, data};
	struct acpi_fadt fadt;
	struct acpi_sleep sleep;
	struct acpi_ecam ecam;
	struct acpi_hpet hpet;
	uint64_t address;

	if (bytes < 36)
		return;
	acpi_read_apic_address(&table, &address);
	acpi_read_fadt(&table, &fadt);
	acpi_read_mcfg(&table, 0, &ecam);
	acpi_read_hpet(&table, &hpet);
	if (acpi_read_s5(&table, &sleep) == LOAD_OK)
		check(sleep.type_a <= 7 && sleep.type_b <= 7);
}

/* The input is the last 128 KiB below 1 MiB: root pointer, root tables, tables. */
static void fuzz_firmware(struct arena *arena, const uint8_t *data, size_t bytes, bool help)
{
	uint8_t *at = arena->bytes + FIRMWARE_BASE;
	struct acpi acpi;
	struct acpi_sleep sleep;
	gpa_t rsdp;
	size_t used;

	arena_open(arena);
	memset(at, 0, FIRMWARE_BYTES);
	memcpy(at, data, bytes < FIRMWARE_BYTES ? bytes : FIRMWARE_BYTES);
	if (help) {
		memcpy(at, "RSD PTR ", 8);
		at[15] = 0;
		put32(at + 16, FIRMWARE_BASE + 32);
		at[8] = 0;
		for (uint32_t i = 0; i < 20; i++)
			at[8] = (uint8_t)(at[8] - (i == 8 ? 0 : at[i]));
		memcpy(at + 32, "RSDT", 4);
		put32(at + 36, 44);
		put32(at + 68, FIRMWARE_BASE + 76);
		put32(at + 72, FIRMWARE_BASE + 256);
		acpi_seal_table(at + 32, 44);
		memcpy(at + 76, "FACP", 4);
		put32(at + 80, 116);
		put32(at + 116, FIRMWARE_BASE + 256);
		acpi_seal_table(at + 76, 116);
		put32(at + 260, 36 + at[260] % 200);
		acpi_seal_table(at + 256, get32(at + 260));
	}
	arena_close(arena);
	if (acpi_find_rsdp(&arena->memory, &rsdp) || acpi_open(&arena->memory, rsdp, &acpi))
		return;
	acpi_find_s5(&acpi, &sleep);
	if (acpi_replace_table(&acpi, "APIC", GPA(DESTINATION + 0x1000), GPA(DESTINATION),
		    PAGE_SIZE, &rsdp, &used) == LOAD_OK)
		check(acpi_open(&arena->memory, rsdp, &acpi) == LOAD_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct arena arena;
	uint8_t *copy;
	bool help;

	if (bytes == 0)
		return 0;
	if (!arena.bytes)
		arena_start(&arena, ARENA_BYTES);
	help = (data[0] & 0x80) != 0;
	copy = arena_copy_exactly(data + 1, bytes - 1);
	switch (data[0] % 5) {
	case 0:
		fuzz_linux(&arena, copy, bytes - 1, help);
		break;
	case 1:
		fuzz_multiboot(&arena, copy, bytes - 1, help);
		break;
	case 2:
		fuzz_memory_map(copy, bytes - 1);
		break;
	case 3:
		fuzz_table(copy, bytes - 1);
		break;
	default:
		fuzz_firmware(&arena, copy, bytes - 1, help);
		break;
	}
	free(copy);
	return 0;
}
