/*
 * Linux by the 64-bit boot protocol: what a bzImage is, where it goes, and what it finds there.
 * Numbers and offsets are those of Linux, Documentation/arch/x86/boot.rst and zero-page.rst.
 */
#include "boot/load/linux.h"

#include <string.h>

#define BOOT_FLAG	    0xaa55
#define HEADER_MAGIC	    0x53726448 /* "HdrS" */
#define PROTOCOL_MINIMUM    0x020c
#define SECTOR_BYTES	    512
#define DEFAULT_SETUP_SECTS 4
#define PARAGRAPH_BYTES	    16
#define ENTRY_64_OFFSET	    0x200
#define LOADED_HIGH	    (1u << 0)
#define XLF_KERNEL_64	    (1u << 0)
#define XLF_ABOVE_4G	    (1u << 1)
#define LOADER_UNDEFINED    0xff /* a loader without a number of its own */
#define LIMIT_4G	    (1ull << 32)
#define BOOT_DATA_LOWEST    0x10000 /* below it firmware and real-mode code may still live */
#define MEMORY_HOLE_END	    0x100000

struct setup_header {
	uint8_t setup_sects;
	uint16_t root_flags;
	uint32_t syssize;
	uint16_t ram_size;
	uint16_t vid_mode;
	uint16_t root_dev;
	uint16_t boot_flag;
	uint8_t jump_opcode;
	uint8_t jump_distance; /* from 0x202: where the header ends */
	uint32_t magic;
	uint16_t version;
	uint32_t realmode_switch;
	uint16_t start_sys_seg;
	uint16_t kernel_version;
	uint8_t type_of_loader;
	uint8_t loadflags;
	uint16_t setup_move_size;
	uint32_t code32_start;
	uint32_t ramdisk_image;
	uint32_t ramdisk_size;
	uint32_t bootsect_kludge;
	uint16_t heap_end_ptr;
	uint8_t ext_loader_ver;
	uint8_t ext_loader_type;
	uint32_t cmd_line_ptr;
	uint32_t initrd_addr_max;
	uint32_t kernel_alignment;
	uint8_t relocatable_kernel;
	uint8_t min_alignment;
	uint16_t xloadflags;
	uint32_t cmdline_size;
	uint32_t hardware_subarch;
	uint64_t hardware_subarch_data;
	uint32_t payload_offset;
	uint32_t payload_length;
	uint64_t setup_data;
	uint64_t pref_address;
	uint32_t init_size;
	uint32_t handover_offset;
	uint32_t kernel_info_offset;
	uint8_t unknown[LINUX_HEADER_MAX - 0x7b]; /* of later protocols: handed on as they are */
} __attribute__((packed));

#define CHECK_HEADER(field, offset)                                                                \
	_Static_assert(offsetof(struct setup_header, field) + LINUX_HEADER_OFFSET == (offset),     \
		"Linux boot protocol")

CHECK_HEADER(setup_sects, 0x1f1);
CHECK_HEADER(syssize, 0x1f4);
CHECK_HEADER(boot_flag, 0x1fe);
CHECK_HEADER(jump_opcode, 0x200);
CHECK_HEADER(magic, 0x202);
CHECK_HEADER(version, 0x206);
CHECK_HEADER(type_of_loader, 0x210);
CHECK_HEADER(loadflags, 0x211);
CHECK_HEADER(code32_start, 0x214);
CHECK_HEADER(ramdisk_image, 0x218);
CHECK_HEADER(ramdisk_size, 0x21c);
CHECK_HEADER(cmd_line_ptr, 0x228);
CHECK_HEADER(initrd_addr_max, 0x22c);
CHECK_HEADER(kernel_alignment, 0x230);
CHECK_HEADER(relocatable_kernel, 0x234);
CHECK_HEADER(xloadflags, 0x236);
CHECK_HEADER(cmdline_size, 0x238);
CHECK_HEADER(payload_offset, 0x248);
CHECK_HEADER(payload_length, 0x24c);
CHECK_HEADER(setup_data, 0x250);
CHECK_HEADER(pref_address, 0x258);
CHECK_HEADER(init_size, 0x260);
CHECK_HEADER(kernel_info_offset, 0x268);
CHECK_HEADER(unknown, 0x26c);
_Static_assert(sizeof(struct setup_header) == LINUX_HEADER_MAX, "Linux boot protocol");

/*
 * The header's end in the file: no shorter one has init_size, no longer one fits into boot_params.
 */
#define HEADER_END_MINIMUM 0x264
#define HEADER_END_MAXIMUM (LINUX_HEADER_OFFSET + LINUX_HEADER_MAX)

struct e820_entry {
	uint64_t base;
	uint64_t length;
	uint32_t type;
} __attribute__((packed));

struct boot_params {
	uint16_t unused0;
	uint16_t ext_mem_k; /* of screen_info: KiB from 1 MiB upwards, by BIOS call 15/88 */
	uint8_t unused1[0x6c];
	uint64_t acpi_rsdp_addr;
	uint8_t unused2[0x48];
	uint32_t ext_ramdisk_image;
	uint32_t ext_ramdisk_size;
	uint32_t ext_cmd_line_ptr;
	uint8_t unused3[0x114];
	uint32_t alt_mem_k; /* KiB from 1 MiB upwards */
	uint8_t unused4[4];
	uint8_t e820_entries;
	uint8_t unused5[6];
	uint8_t sentinel; /* 0: the loader has cleared the page */
	uint8_t unused6;
	struct setup_header header;
	uint8_t unused7[0x40];
	struct e820_entry e820_table[MEMORY_MAP_MAX];
	uint8_t unused8[0x330];
} __attribute__((packed));

#define CHECK_PARAMS(field, offset)                                                                \
	_Static_assert(offsetof(struct boot_params, field) == (offset), "Linux zero page")

CHECK_PARAMS(ext_mem_k, 0x002);
CHECK_PARAMS(acpi_rsdp_addr, 0x070);
CHECK_PARAMS(ext_ramdisk_image, 0x0c0);
CHECK_PARAMS(ext_ramdisk_size, 0x0c4);
CHECK_PARAMS(ext_cmd_line_ptr, 0x0c8);
CHECK_PARAMS(alt_mem_k, 0x1e0);
CHECK_PARAMS(e820_entries, 0x1e8);
CHECK_PARAMS(sentinel, 0x1ef);
CHECK_PARAMS(header, 0x1f1);
CHECK_PARAMS(e820_table, 0x2d0);
CHECK_PARAMS(unused8, 0xcd0);
_Static_assert(sizeof(struct boot_params) == 4096, "Linux zero page");
_Static_assert(MEMORY_MAP_MAX <= UINT8_MAX, "e820_entries is a byte");

/* The layout of the boot data: page tables, GDT, boot_params, command line, a page or more each. */
#define PAGE_TABLE_ENTRIES  512
#define DIRECTORIES	    4 /* of 1 GiB each */
#define PAGE_TABLES_BYTES   ((2 + DIRECTORIES) * PAGE_SIZE)
#define GDT_OFFSET	    PAGE_TABLES_BYTES
#define BOOT_PARAMS_OFFSET  (GDT_OFFSET + PAGE_SIZE)
#define COMMAND_LINE_OFFSET (BOOT_PARAMS_OFFSET + PAGE_SIZE)

#define PTE_TABLE 0x23ull /* present, writable, accessed */
#define PTE_LARGE 0xe3ull /* and dirty, 2 MiB */

/* Flat segments, accessed bit set. The places are part of the protocol: 0x10 and 0x18. */
#define GDT_CODE_64   0x00af9b000000ffffull
#define GDT_DATA      0x00cf93000000ffffull
#define CODE_SELECTOR 0x10
#define DATA_SELECTOR 0x18

static const uint64_t gdt_content[4] = {0, 0, GDT_CODE_64, GDT_DATA};

/* The marks by which a bzImage is known, and what this protocol needs it to be. */
static enum load_error check_identity(const struct setup_header *header)
{
	if (header->boot_flag != BOOT_FLAG)
		return LOAD_ERR_LINUX_NO_BOOT_FLAG;
	if (header->magic != HEADER_MAGIC)
		return LOAD_ERR_LINUX_NO_MAGIC;
	if (header->version < PROTOCOL_MINIMUM)
		return LOAD_ERR_LINUX_TOO_OLD;
	if (!(header->loadflags & LOADED_HIGH))
		return LOAD_ERR_LINUX_ZIMAGE;
	if (!(header->xloadflags & XLF_KERNEL_64))
		return LOAD_ERR_LINUX_32BIT;
	return LOAD_OK;
}

/* The sizes of the file's parts, against each other and the file. */
static enum load_error check_sizes(const struct setup_header *header, struct linux_image *image)
{
	uint32_t sects = header->setup_sects ? header->setup_sects : DEFAULT_SETUP_SECTS;
	uint64_t setup = (sects + 1) * SECTOR_BYTES;
	uint64_t kernel = (uint64_t)header->syssize * PARAGRAPH_BYTES;
	uint64_t payload_end = (uint64_t)header->payload_offset + header->payload_length;

	if (image->file_bytes < setup || image->file_bytes - setup < kernel)
		return LOAD_ERR_LINUX_TRUNCATED;
	if (kernel <= ENTRY_64_OFFSET || header->init_size == 0)
		return LOAD_ERR_LINUX_SIZE;
	if (payload_end > kernel)
		return LOAD_ERR_LINUX_PAYLOAD;
	image->setup_bytes = setup;
	image->kernel_bytes = kernel;
	image->needed_bytes = kernel > header->init_size ? kernel : header->init_size;
	return LOAD_OK;
}

static enum load_error check_addresses(const struct setup_header *header, struct linux_image *image)
{
	uint64_t alignment = header->kernel_alignment;

	if (alignment < PAGE_SIZE || alignment > SIZE_1G || (alignment & (alignment - 1)) != 0)
		return LOAD_ERR_LINUX_ALIGNMENT;
	if (header->pref_address == 0 || (header->pref_address & (alignment - 1)) != 0 ||
		header->pref_address >= MEMORY_ADDRESS_LIMIT)
		return LOAD_ERR_LINUX_ALIGNMENT;
	image->alignment = alignment;
	image->preferred = header->pref_address;
	return LOAD_OK;
}

enum load_error linux_inspect_image(const void *file, size_t bytes, struct linux_image *image)
{
	struct setup_header header;
	enum load_error error;
	uint32_t end;

	memset(image, 0, sizeof(*image));
	if (bytes < LINUX_HEADER_OFFSET + sizeof(header))
		return LOAD_ERR_LINUX_TOO_SHORT;
	memcpy(&header, (const uint8_t *)file + LINUX_HEADER_OFFSET, sizeof(header));
	image->file_bytes = bytes;

	error = check_identity(&header);
	if (error)
		return error;
	end = offsetof(struct setup_header, magic) + LINUX_HEADER_OFFSET + header.jump_distance;
	if (header.jump_opcode != 0xeb || end < HEADER_END_MINIMUM || end > HEADER_END_MAXIMUM)
		return LOAD_ERR_LINUX_HEADER;
	error = check_sizes(&header, image);
	if (error)
		return error;
	error = check_addresses(&header, image);
	if (error)
		return error;

	image->protocol = header.version;
	image->relocatable = header.relocatable_kernel != 0;
	image->above_4g = (header.xloadflags & XLF_ABOVE_4G) != 0;
	image->initrd_last = header.initrd_addr_max;
	image->command_line_max = header.cmdline_size;
	image->header_bytes = end - LINUX_HEADER_OFFSET;
	memcpy(image->header, &header, image->header_bytes);
	return LOAD_OK;
}

/* The kernel's place: below 4 GiB, where the page tables reach. */
static enum load_error plan_kernel(const struct linux_image *image, const struct memory_map *map,
	const struct memory_spans *taken, struct memory_span *kernel)
{
	struct memory_request request = {
		.size = image->needed_bytes,
		.align = image->alignment,
		.lowest = image->preferred,
		.limit = LIMIT_4G,
		.direction = MEMORY_BOTTOM_UP,
		.avoid = taken->spans,
		.avoid_count = taken->count,
	};
	uint64_t base;

	/*
	 * The preferred address is a multiple of the alignment, so it is what is found if it is
	 * free.
	 */
	if (!memory_map_find(map, &request, &base))
		return image->relocatable ? LOAD_ERR_NO_ROOM_KERNEL
					  : LOAD_ERR_LINUX_NOT_RELOCATABLE;
	if (base != image->preferred && !image->relocatable)
		return LOAD_ERR_LINUX_NOT_RELOCATABLE;
	*kernel = (struct memory_span){base, image->needed_bytes};
	return LOAD_OK;
}

static enum load_error plan_boot_data(
	const struct linux_request *boot, const struct memory_spans *taken, struct linux_plan *plan)
{
	struct memory_request request = {
		.size = COMMAND_LINE_OFFSET + ALIGN_UP(boot->command_line_bytes + 1, PAGE_SIZE),
		.align = PAGE_SIZE,
		.lowest = BOOT_DATA_LOWEST,
		.limit = LIMIT_4G,
		.direction = MEMORY_BOTTOM_UP,
		.avoid = taken->spans,
		.avoid_count = taken->count,
	};
	uint64_t base;

	if (!memory_map_find(boot->map, &request, &base))
		return LOAD_ERR_NO_ROOM_BOOT_DATA;
	plan->boot_data = (struct memory_span){base, request.size};
	plan->page_tables = GPA(base);
	plan->gdt = GPA(base + GDT_OFFSET);
	plan->boot_params = GPA(base + BOOT_PARAMS_OFFSET);
	plan->command_line = GPA(base + COMMAND_LINE_OFFSET);
	return LOAD_OK;
}

static enum load_error plan_initrd(const struct linux_image *image,
	const struct linux_request *boot, const struct memory_spans *taken,
	struct memory_span *initrd)
{
	struct memory_request request = {
		.size = boot->initrd.bytes,
		.align = PAGE_SIZE,
		.lowest = MEMORY_HOLE_END,
		.limit = image->above_4g ? LIMIT_4G : image->initrd_last + 1,
		.direction = MEMORY_TOP_DOWN,
		.avoid = taken->spans,
		.avoid_count = taken->count,
	};
	uint64_t base;
	bool found;

	*initrd = (struct memory_span){0, 0};
	if (!boot->initrd.data)
		return LOAD_OK;
	if (boot->initrd.bytes == 0)
		return LOAD_ERR_LINUX_INITRD_EMPTY;
	found = memory_map_find(boot->map, &request, &base);
	if (!found && image->above_4g) {
		request.limit = MEMORY_ADDRESS_LIMIT;
		found = memory_map_find(boot->map, &request, &base);
	}
	if (!found)
		return LOAD_ERR_LINUX_NO_ROOM_INITRD;
	*initrd = (struct memory_span){base, boot->initrd.bytes};
	return LOAD_OK;
}

enum load_error linux_plan_boot(const struct linux_image *image,
	const struct linux_request *request, struct linux_plan *plan)
{
	struct memory_spans taken = {.count = 0};
	const struct memory_span sources[2] = {
		{request->kernel.gpa.value, request->kernel.bytes},
		{request->initrd.gpa.value, request->initrd.data ? request->initrd.bytes : 0},
	};
	enum load_error error;

	if (request->kernel.bytes != image->file_bytes)
		return LOAD_ERR_SOURCE_CHANGED;
	if (request->command_line_bytes > image->command_line_max)
		return LOAD_ERR_LINUX_COMMAND_LINE;
	error = memory_spans_add(&taken, sources, ARRAY_SIZE(sources));
	if (!error)
		error = memory_spans_add(&taken, request->avoid, request->avoid_count);
	if (!error)
		error = plan_kernel(image, request->map, &taken, &plan->kernel);
	if (!error)
		error = memory_spans_add(&taken, &plan->kernel, 1);
	if (!error)
		error = plan_boot_data(request, &taken, plan);
	if (!error)
		error = memory_spans_add(&taken, &plan->boot_data, 1);
	if (!error)
		error = plan_initrd(image, request, &taken, &plan->initrd);
	return error;
}

/* Six pages: one PML4, one directory pointer table, four directories with 2 MiB pages. */
static void fill_page_tables(uint8_t *pages, gpa_t at)
{
	uint64_t entry = (at.value + PAGE_SIZE) | PTE_TABLE;

	memset(pages, 0, PAGE_TABLES_BYTES);
	memcpy(pages, &entry, sizeof(entry));
	for (uint64_t i = 0; i < DIRECTORIES; i++) {
		entry = (at.value + (2 + i) * PAGE_SIZE) | PTE_TABLE;
		memcpy(pages + PAGE_SIZE + i * sizeof(entry), &entry, sizeof(entry));
	}
	for (uint64_t i = 0; i < DIRECTORIES * PAGE_TABLE_ENTRIES; i++) {
		entry = i * SIZE_2M | PTE_LARGE;
		memcpy(pages + 2 * PAGE_SIZE + i * sizeof(entry), &entry, sizeof(entry));
	}
}

/* What the oldest ways of asking would answer; the kernel uses them only without an E820 table. */
static void fill_memory_sizes(struct boot_params *params, const struct memory_map *map)
{
	uint64_t kib = memory_map_ram_from(map, MEMORY_HOLE_END) >> 10;

	params->alt_mem_k = kib < UINT32_MAX ? (uint32_t)kib : UINT32_MAX;
	params->ext_mem_k = kib < UINT16_MAX ? (uint16_t)kib : UINT16_MAX;
}

static void fill_boot_params(struct boot_params *params, const struct linux_image *image,
	const struct linux_request *request, const struct linux_plan *plan)
{
	const struct memory_map *map = request->map;

	memset(params, 0, sizeof(*params));
	memcpy(&params->header, image->header, image->header_bytes);
	params->header.type_of_loader = LOADER_UNDEFINED;
	params->header.code32_start = (uint32_t)plan->kernel.base;
	params->header.setup_data = 0;
	params->header.cmd_line_ptr = (uint32_t)plan->command_line.value;
	params->header.ramdisk_image = (uint32_t)plan->initrd.base;
	params->header.ramdisk_size = (uint32_t)plan->initrd.length;
	params->ext_ramdisk_image = (uint32_t)(plan->initrd.base >> 32);
	params->ext_ramdisk_size = (uint32_t)(plan->initrd.length >> 32);
	params->ext_cmd_line_ptr = (uint32_t)(plan->command_line.value >> 32);
	params->acpi_rsdp_addr = request->acpi_rsdp.value;
	fill_memory_sizes(params, map);
	for (uint32_t i = 0; i < map->count; i++) {
		params->e820_table[i].base = map->ranges[i].base;
		params->e820_table[i].length = map->ranges[i].length;
		params->e820_table[i].type = map->ranges[i].type;
	}
	params->e820_entries = (uint8_t)map->count;
}

enum load_error linux_commit_boot(const struct linux_image *image,
	const struct linux_request *request, const struct linux_plan *plan,
	const struct guest_memory *memory, struct linux_entry *entry)
{
	uint64_t initrd_bytes = request->initrd.data ? request->initrd.bytes : 0;
	uint8_t *kernel;
	uint8_t *boot_data;
	uint8_t *initrd = NULL;

	if (request->kernel.bytes != image->file_bytes || initrd_bytes != plan->initrd.length ||
		request->command_line_bytes >= plan->boot_data.length - COMMAND_LINE_OFFSET)
		return LOAD_ERR_SOURCE_CHANGED;
	kernel = guest_memory_map(memory, GPA(plan->kernel.base), plan->kernel.length);
	boot_data = guest_memory_map(memory, GPA(plan->boot_data.base), plan->boot_data.length);
	if (plan->initrd.length)
		initrd = guest_memory_map(memory, GPA(plan->initrd.base), plan->initrd.length);
	if (!kernel || !boot_data || (plan->initrd.length && !initrd))
		return LOAD_ERR_MEMORY_ACCESS;

	memcpy(kernel, (const uint8_t *)request->kernel.data + image->setup_bytes,
		image->kernel_bytes);
	if (initrd)
		memcpy(initrd, request->initrd.data, plan->initrd.length);
	memset(boot_data, 0, plan->boot_data.length);
	fill_page_tables(boot_data, plan->page_tables);
	memcpy(boot_data + GDT_OFFSET, gdt_content, sizeof(gdt_content));
	/* Packed: no alignment is assumed of the mapping. */
	fill_boot_params(
		(struct boot_params *)(boot_data + BOOT_PARAMS_OFFSET), image, request, plan);
	if (request->command_line_bytes)
		memcpy(boot_data + COMMAND_LINE_OFFSET, request->command_line,
			request->command_line_bytes);

	*entry = (struct linux_entry){
		.rip = plan->kernel.base + ENTRY_64_OFFSET,
		.rsi = plan->boot_params,
		.cr3 = plan->page_tables,
		.gdt_base = plan->gdt,
		.gdt_limit = sizeof(gdt_content) - 1,
		.cs = CODE_SELECTOR,
		.ds = DATA_SELECTOR,
	};
	return LOAD_OK;
}
