/*
 * The boot shim: turns what a Multiboot loader left into the hand-over (a device tree), puts the core
 * into the highest RAM below 4 GiB, builds its page tables, and jumps into it. Runs once, on one
 * processor, in the identity map of entry.S. What it does not know, the core does not need.
 */
#include "arch/x86/asm.h"
#include "arch/x86/layout.h"
#include "arch/x86/log.h"
#include "arch/x86/registers.h"
#include "arch/x86/string.h"
#include "boot/core/image_header.h"
#include "boot/handover/handover.h"
#include "boot/load/acpi.h"
#include "boot/load/memory_map.h"
#include "boot/load/multiboot.h"
#include "boot/shim/multiboot_info.h"

#define REGION_FIXED_BYTES (3 * SIZE_2M)
#define REGION_VP_BYTES	   0x48000ull /* stacks, control blocks, trace ring */
#define TREE_BYTES	   (HANDOVER_TREE_BYTES + 16384)
#define FOUR_GIB	   0x100000000ull
#define IDENTITY_SPAN	   0x200000ull
#define MULTIBOOT_MAP_MAX  8192

extern const uint8_t shim_start[], shim_end[], shim_core_start[], shim_core_end[];
void shim_jump(uint64_t cr3, uint64_t entry, uint64_t stack, uint64_t tree)
	__attribute__((noreturn));
void shim_main(uint32_t magic, uint32_t info_address);

static struct memory_map map;
static struct handover_info handover;

static void __attribute__((noreturn)) refuse(const char *text)
{
	log_line("E %s", text);
	log_line("@end refused 0");
	/* Time for the listener to read it; then QEMU is to end, not to hang. */
	log_wait_byte('k', 5000000, 1000000000);
	asm_out16(0x604, 0x2000); /* QEMU's power-off; elsewhere nothing */
	asm_halt_forever();
}

/* libfdt.a of the distribution checks its stack, with a canary at FS:0x28: low memory, here. */
void __stack_chk_fail(void);

void __stack_chk_fail(void)
{
	refuse("stack overrun in libfdt");
}

/* Identity-mapped, so the shim can read and write everything below 4 GiB. */
static void *low_memory(void *context, gpa_t gpa, size_t bytes)
{
	(void)context;
	if (gpa.value == 0 || gpa.value >= FOUR_GIB || bytes > FOUR_GIB - gpa.value) {
		return NULL;
	}
	return (void *)gpa.value;
}

static const struct guest_memory memory = {.map = low_memory};

/* --- what the boot loader says ----------------------------------------------------------------- */

/*
 * A command line begins with the file's name (Multiboot Specification 0.6.96, 3.3), and QEMU, iPXE
 * and GRUB Legacy keep to that. GRUB 2 passes the arguments alone; it calls itself "GRUB 2.06".
 */
static bool names_files(const struct multiboot_info *info)
{
	return !(info->flags & MULTIBOOT_HAS_LOADER_NAME) ||
		strncmp((const char *)(uint64_t)info->loader_name, "GRUB 2", 6);
}

/* What follows the file's name. */
static const char *arguments(const char *text, bool with_name)
{
	if (!with_name) {
		return text;
	}
	while (*text && *text != ' ') {
		text++;
	}
	while (*text == ' ') {
		text++;
	}
	return text;
}

/*
 * The guest's command line as its own kind of boot loader passes it: Linux gets the arguments, a
 * Multiboot kernel the name in front of them, made up if there is none.
 */
static const char *guest_command_line(const char *text, bool with_name)
{
	static const char name[] = "kernel ";
	static char line[sizeof(name) + MULTIBOOT_COMMAND_LINE_MAX];
	const void *file = (const void *)handover.kernel.base;
	size_t bytes = strlen(text);

	if (!multiboot_find_header(file, handover.kernel.bytes)) {
		return arguments(text, with_name);
	}
	if (with_name) {
		return text;
	}
	if (bytes > MULTIBOOT_COMMAND_LINE_MAX - (sizeof(name) - 1)) {
		refuse("the guest kernel's command line is too long");
	}
	memcpy(line, name, sizeof(name) - 1);
	memcpy(line + sizeof(name) - 1, text, bytes + 1);
	return line;
}

static void read_modules(const struct multiboot_info *info, bool with_name)
{
	const struct multiboot_module_entry *modules = (const void *)(uint64_t)info->modules;

	if (!(info->flags & MULTIBOOT_HAS_MODULES) || info->module_count == 0) {
		refuse("no guest kernel: give one as the first module");
	}
	for (uint32_t i = 0; i < info->module_count && i < 2; i++) {
		struct handover_range range = {
			.base = modules[i].start,
			.bytes = (uint64_t)modules[i].end - modules[i].start,
		};

		if (modules[i].end <= modules[i].start) {
			refuse(i == 0 ? "the guest kernel's file is empty"
				      : "the guest's initrd is empty");
		}
		if (i == 0) {
			handover.kernel = range;
			handover.kernel_command_line = guest_command_line(modules[i].command_line
					? (const char *)(uint64_t)modules[i].command_line
					: "",
				with_name);
		} else {
			handover.initrd = range;
		}
	}
}

static void read_memory_map(const struct multiboot_info *info)
{
	if (!(info->flags & MULTIBOOT_HAS_MEMORY_MAP) ||
		info->memory_map_bytes > MULTIBOOT_MAP_MAX) {
		refuse("the boot loader gave no memory map");
	}
	memory_map_init(&map);

	enum load_error error = memory_map_read_multiboot(
		&map, (const void *)(uint64_t)info->memory_map, info->memory_map_bytes);

	if (error != LOAD_OK) {
		refuse(load_error_text(error));
	}
}

/* --- what the firmware says -------------------------------------------------------------------- */

static void read_processors(void)
{
	struct acpi acpi;
	struct acpi_table madt;
	struct acpi_madt_entry entry;
	gpa_t rsdp;
	uint32_t offset = 0;
	bool more = true;

	handover.boot_apic_id = asm_cpuid(1, 0).ebx >> 24;
	if (acpi_find_rsdp(&memory, &rsdp) != LOAD_OK ||
		acpi_open(&memory, rsdp, &acpi) != LOAD_OK ||
		acpi_find_table(&acpi, "APIC", &madt) != LOAD_OK) {
		handover.cpu_count = 1;
		handover.apic_id[0] = handover.boot_apic_id;
		return;
	}
	handover.acpi_rsdp = rsdp.value;
	while (acpi_read_madt_entry(&madt, &offset, &entry, &more) == LOAD_OK && more) {
		if (entry.kind != ACPI_MADT_LOCAL_APIC || !(entry.cpu.flags & ACPI_CPU_ENABLED)) {
			continue;
		}
		if (handover.cpu_count == VP_COUNT_MAX) {
			refuse("more than 64 processors: Parapet runs on 64 at most (--cpus)");
		}
		handover.apic_id[handover.cpu_count++] = entry.cpu.apic_id;
	}
}

/* --- the core's place and address space -------------------------------------------------------- */

/* Memory is taken from the region's end of the image upwards. */
static struct {
	uint64_t base;
	uint64_t bytes;
	uint64_t used;
} region;

static void *take_pages(uint64_t count)
{
	void *pages = (void *)(region.base + region.used);

	if (count * PAGE_SIZE > region.bytes - region.used) {
		refuse("Parapet's own memory is too small for this machine's RAM");
	}
	region.used += count * PAGE_SIZE;
	memset(pages, 0, count * PAGE_SIZE);
	return pages;
}

static void map_page(uint64_t *root, uint64_t address, uint64_t physical, uint64_t bits, int leaf)
{
	uint64_t *table = root;

	for (int level = 4; level > leaf; level--) {
		uint64_t *entry = &table[address >> (PAGE_BITS + 9 * (level - 1)) & 511];

		if (!(*entry & PTE_PRESENT)) {
			*entry = (uint64_t)take_pages(1) | PTE_PRESENT | PTE_WRITE | PTE_ACCESSED;
		}
		table = (uint64_t *)(*entry & PTE_ADDRESS);
	}
	table[address >> (PAGE_BITS + 9 * (leaf - 1)) & 511] = physical | bits | PTE_PRESENT |
		PTE_ACCESSED | PTE_DIRTY | (leaf > 1 ? PTE_LARGE : 0);
}

static bool touches_ram(uint64_t base, uint64_t bytes)
{
	for (uint32_t i = 0; i < map.count; i++) {
		const struct memory_range *range = &map.ranges[i];

		if (range->type != MEMORY_UNUSABLE && range->type != MEMORY_RESERVED &&
			base < range->base + range->length && range->base < base + bytes) {
			return true;
		}
	}
	return false;
}

/* All RAM but the region, and the rest below 4 GiB as device memory. */
static void map_direct(uint64_t *root, uint64_t top)
{
	bool huge = asm_cpuid(0x80000001, 0).edx & (1u << 26);
	uint64_t at = 0;

	while (at < top) {
		bool ram = touches_ram(at, SIZE_2M) || at < 0x100000;
		uint64_t bits = PTE_WRITE | PTE_NX | (ram ? 0 : PTE_PWT | PTE_PCD);

		if (huge && at >= FOUR_GIB && at % SIZE_1G == 0 && top - at >= SIZE_1G) {
			map_page(root, DIRECT_BASE + at, at, PTE_WRITE | PTE_NX, 3);
			at += SIZE_1G;
			continue;
		}
		if (at < region.base || at >= region.base + region.bytes) {
			map_page(root, DIRECT_BASE + at, at, bits, 2);
		}
		at += SIZE_2M;
	}
}

static void map_image(uint64_t *root, const struct image_header *header)
{
	for (uint64_t at = 0; at < region.bytes; at += PAGE_SIZE) {
		uint64_t address = IMAGE_BASE + at;
		uint64_t bits = address < header->text_end ? 0
			: address < header->rodata_end	   ? PTE_NX
							   : PTE_NX | PTE_WRITE;

		map_page(root, address, region.base + at, bits, 1);
	}
}

static uint64_t top_of_ram(void)
{
	uint64_t top = FOUR_GIB;

	for (uint32_t i = 0; i < map.count; i++) {
		if (map.ranges[i].type == MEMORY_RAM &&
			map.ranges[i].base + map.ranges[i].length > top) {
			top = map.ranges[i].base + map.ranges[i].length;
		}
	}
	return ALIGN_UP(top, SIZE_2M);
}

static void choose_region(uint64_t image_bytes)
{
	const struct memory_span avoid[] = {
		{.base = (uint64_t)shim_start, .length = (uint64_t)(shim_end - shim_start)},
		{.base = handover.kernel.base, .length = handover.kernel.bytes},
		{.base = handover.initrd.base, .length = handover.initrd.bytes},
	};
	/*
	 * Enough to map every page of RAM by itself in the nested tables, twice over; and 16 KiB for
	 * each GiB, for the tables above those, their bookkeeping and the direct map's tables.
	 */
	uint64_t tables = top_of_ram() / 256 + top_of_ram() / 65536;
	struct memory_request request = {
		.size = ALIGN_UP(REGION_FIXED_BYTES + image_bytes + tables +
				handover.cpu_count * REGION_VP_BYTES,
			SIZE_2M),
		.align = SIZE_2M,
		.lowest = 0x1000000,
		.limit = FOUR_GIB,
		.direction = MEMORY_TOP_DOWN,
		.avoid = avoid,
		.avoid_count = ARRAY_SIZE(avoid),
	};

	if (request.size > REGION_BYTES_MAX || !memory_map_find(&map, &request, &region.base)) {
		refuse("too little memory: Parapet needs some 32 MiB of RAM below 4 GiB beside the "
		       "guest (--memory 128M is the least)");
	}
	region.bytes = request.size;
}

/* What the guest will see of Parapet: a mailbox, page tables for its processors, ACPI tables. */
static uint64_t choose_wakeup_pages(void)
{
	const struct memory_span avoid[] = {
		{.base = (uint64_t)shim_start, .length = (uint64_t)(shim_end - shim_start)},
		{.base = handover.kernel.base, .length = handover.kernel.bytes},
		{.base = handover.initrd.base, .length = handover.initrd.bytes},
		{.base = region.base, .length = region.bytes},
	};
	struct memory_request request = {
		.size = PAGE_SIZE + WAKEUP_PAGES_BYTES,
		.align = PAGE_SIZE,
		.lowest = 0x100000,
		.limit = FOUR_GIB,
		.direction = MEMORY_TOP_DOWN,
		.avoid = avoid,
		.avoid_count = ARRAY_SIZE(avoid),
	};
	uint64_t base;

	if (!memory_map_find(&map, &request, &base)) {
		refuse("too little memory for the pages that start the guest's processors");
	}
	return base;
}

/* --- the hand-over ----------------------------------------------------------------------------- */

static void describe_memory(void)
{
	for (uint32_t i = 0; i < map.count; i++) {
		const struct memory_range *range = &map.ranges[i];
		struct handover_range as = {.base = range->base, .bytes = range->length};

		if (range->type == MEMORY_RAM) {
			if (handover.memory_count == HANDOVER_MEMORY_MAX) {
				refuse("the memory map has too many pieces");
			}
			handover.memory[handover.memory_count++] = as;
		} else {
			if (handover.firmware_count == HANDOVER_FIRMWARE_MAX) {
				refuse("the memory map has too many pieces");
			}
			handover.firmware[handover.firmware_count++] =
				(struct handover_firmware){.range = as, .type = range->type};
		}
	}
}

static void add_region(enum handover_kind kind, uint64_t base, uint64_t bytes)
{
	handover.region[handover.region_count++] =
		(struct handover_region){.kind = kind, .range = {.base = base, .bytes = bytes}};
}

void shim_main(uint32_t magic, uint32_t info_address)
{
	const struct multiboot_info *info = (const void *)(uint64_t)info_address;
	const struct image_header *header = (const void *)shim_core_start;

	log_init();
	if (magic != MULTIBOOT_BOOTED) {
		refuse("not started by a Multiboot boot loader");
	}

	bool with_name = names_files(info);

	handover.options = info->flags & MULTIBOOT_HAS_COMMAND_LINE
		? arguments((const char *)(uint64_t)info->command_line, with_name)
		: "";
	read_memory_map(info);
	read_modules(info, with_name);
	read_processors();
	describe_memory();
	choose_region(header->image_end - IMAGE_BASE);

	memcpy((void *)region.base, shim_core_start, header->file_end - IMAGE_BASE);
	memset((void *)(region.base + header->file_end - IMAGE_BASE), 0,
		header->image_end - header->file_end);
	region.used = ALIGN_UP(header->image_end - IMAGE_BASE, PAGE_SIZE);

	uint64_t *root = take_pages(1);

	map_direct(root, top_of_ram());
	map_image(root, header);
	/* The page that switches tables, where both see it; the core takes it away. */
	map_page(root, (uint64_t)shim_jump, (uint64_t)shim_jump, 0, 1);

	uint8_t *tree = take_pages(TREE_BYTES / PAGE_SIZE);
	uint64_t image_bytes = region.used;
	size_t tree_bytes;

	add_region(HANDOVER_REGION_IMAGE, region.base, image_bytes);
	add_region(HANDOVER_REGION_MEMORY, region.base + image_bytes, region.bytes - image_bytes);

	uint64_t wakeup = choose_wakeup_pages();

	add_region(HANDOVER_REGION_MAILBOX, wakeup, PAGE_SIZE);
	add_region(HANDOVER_REGION_AP_PAGES, wakeup + PAGE_SIZE, WAKEUP_PAGES_BYTES);

	enum handover_error error = handover_write(tree, TREE_BYTES, &handover, &tree_bytes);

	if (error != HANDOVER_OK) {
		refuse(handover_error_text(error));
	}
	shim_jump((uint64_t)root, header->entry, header->image_end,
		(uint64_t)tree - region.base + IMAGE_BASE);
}
