/*
 * Where a Multiboot v1 kernel and what it is given go, and the information structure that it finds
 * (Multiboot 0.6.96, 3.2 and 3.3). What a kernel file is, is the business of multiboot.c.
 */
#include "boot/load/multiboot.h"

#include <string.h>

#define LIMIT_4G	(1ull << 32)
#define MEMORY_HOLE_END 0x100000
#define LOW_MEMORY_KIB	640

/* QEMU's places and values: a kernel should not be able to tell the difference. */
#define INFO_PAGE_PREFERRED 0x9000
#define INFO_PAGE_LOWEST    0x1000 /* page 0 is the firmware's */
#define BOOT_DEVICE	    0x8000ffff
#define LOADER_MAGIC	    0x2badb002

#define INFO_MEMORY	  (1u << 0)
#define INFO_BOOT_DEVICE  (1u << 1)
#define INFO_COMMAND_LINE (1u << 2)
#define INFO_MODULES	  (1u << 3)
#define INFO_MMAP	  (1u << 6)
#define INFO_LOADER_NAME  (1u << 9)

struct info {
	uint32_t flags;
	uint32_t mem_lower; /* KiB */
	uint32_t mem_upper; /* KiB from 1 MiB */
	uint32_t boot_device;
	uint32_t cmdline;
	uint32_t mods_count;
	uint32_t mods_addr;
	uint32_t symbols[4];
	uint32_t mmap_length;
	uint32_t mmap_addr;
	uint32_t drives_length;
	uint32_t drives_addr;
	uint32_t config_table;
	uint32_t boot_loader_name;
	uint32_t apm_table;
	uint32_t vbe[4];
};

struct mmap_entry {
	uint32_t size; /* of what follows it */
	uint64_t base;
	uint64_t length;
	uint32_t type;
} __attribute__((packed));

struct module_entry {
	uint32_t start;
	uint32_t end;
	uint32_t command_line;
	uint32_t reserved;
};

_Static_assert(offsetof(struct info, mmap_length) == 44, "Multiboot 3.3");
_Static_assert(offsetof(struct info, boot_loader_name) == 64, "Multiboot 3.3");
_Static_assert(sizeof(struct info) == 88, "Multiboot 3.3");
_Static_assert(sizeof(struct mmap_entry) == 24, "Multiboot 3.3");
_Static_assert(sizeof(struct module_entry) == 16, "Multiboot 3.3");

/* The information page. */
struct info_page {
	struct info info;
	uint64_t gdt[3];
	uint8_t padding[0x400 - sizeof(struct info) - 3 * sizeof(uint64_t)];
	struct mmap_entry mmap[MEMORY_MAP_MAX];
};

_Static_assert(sizeof(struct info_page) == PAGE_SIZE, "one page");

#define GDT_CODE_32   0x00cf9b000000ffffull
#define GDT_DATA      0x00cf93000000ffffull
#define CODE_SELECTOR 0x08
#define DATA_SELECTOR 0x10

static const char loader_name[] = "parapet";

static struct memory_span source_span(const struct load_source *source)
{
	return (struct memory_span){source->gpa.value, source->bytes};
}

static struct memory_span segment_span(const struct multiboot_segment *segment)
{
	return (struct memory_span){segment->base, segment->bytes};
}

static bool is_in_way(const struct multiboot_image *image, const struct load_source *source)
{
	for (uint32_t i = 0; i < image->segment_count; i++) {
		if (memory_span_overlaps(segment_span(&image->segments[i]), source_span(source)))
			return true;
	}
	return false;
}

/* Everything that is in use before anything is placed: sources, the caller's list, segments. */
static enum load_error gather_taken(const struct multiboot_image *image,
	const struct multiboot_request *request, struct memory_spans *taken)
{
	struct memory_span span = source_span(&request->kernel);
	enum load_error error;

	taken->count = 0;
	if (request->module_count > MULTIBOOT_MODULES_MAX)
		return LOAD_ERR_MULTIBOOT_MANY_MODULES;
	error = memory_spans_add(taken, request->avoid, request->avoid_count);
	if (!error)
		error = memory_spans_add(taken, &span, 1);
	for (uint32_t i = 0; !error && i < request->module_count; i++) {
		span = source_span(&request->modules[i].source);
		error = memory_spans_add(taken, &span, 1);
	}
	for (uint32_t i = 0; !error && i < image->segment_count; i++) {
		span = segment_span(&image->segments[i]);
		error = memory_spans_add(taken, &span, 1);
	}
	return error;
}

/* Moves one file to the highest free place; `taken` then has that place as well. */
static enum load_error move_source(const struct memory_map *map, struct memory_spans *taken,
	const struct guest_memory *memory, struct load_source *source)
{
	struct memory_request request = {
		.size = source->bytes,
		.align = PAGE_SIZE,
		.lowest = MEMORY_HOLE_END,
		.limit = LIMIT_4G,
		.direction = MEMORY_TOP_DOWN,
		.avoid = taken->spans,
		.avoid_count = taken->count,
	};
	struct memory_span place;
	enum load_error error;
	void *to;

	if (!memory_map_find(map, &request, &place.base))
		return LOAD_ERR_NO_ROOM_MODULE;
	place.length = source->bytes;
	error = memory_spans_add(taken, &place, 1);
	if (error)
		return error;
	to = guest_memory_map(memory, GPA(place.base), source->bytes);
	if (!to)
		return LOAD_ERR_MEMORY_ACCESS;
	memcpy(to, source->data, source->bytes);
	source->data = to;
	source->gpa = GPA(place.base);
	return LOAD_OK;
}

enum load_error multiboot_move_sources(const struct multiboot_image *image,
	struct multiboot_request *request, const struct guest_memory *memory)
{
	struct memory_spans taken;
	enum load_error error = gather_taken(image, request, &taken);

	if (!error && is_in_way(image, &request->kernel))
		error = move_source(request->map, &taken, memory, &request->kernel);
	for (uint32_t i = 0; !error && i < request->module_count; i++) {
		if (is_in_way(image, &request->modules[i].source))
			error = move_source(
				request->map, &taken, memory, &request->modules[i].source);
	}
	return error;
}

/* Are all segments free RAM? */
static enum load_error check_segments(
	const struct multiboot_image *image, const struct multiboot_request *request)
{
	for (uint32_t i = 0; i < image->segment_count; i++) {
		struct memory_span span = segment_span(&image->segments[i]);

		if (!memory_map_is_ram(request->map, span.base, span.length))
			return LOAD_ERR_MULTIBOOT_SEGMENT_NOT_RAM;
		for (size_t j = 0; j < request->avoid_count; j++) {
			if (memory_span_overlaps(request->avoid[j], span))
				return LOAD_ERR_MULTIBOOT_SEGMENT_NOT_RAM;
		}
	}
	if (is_in_way(image, &request->kernel))
		return LOAD_ERR_MULTIBOOT_SOURCE_IN_WAY;
	for (uint32_t i = 0; i < request->module_count; i++) {
		if (is_in_way(image, &request->modules[i].source))
			return LOAD_ERR_MULTIBOOT_SOURCE_IN_WAY;
	}
	return LOAD_OK;
}

/*
 * A place for `bytes` at `preferred` or the next one above, else from `lowest` on; noted in
 * `taken`.
 */
static bool place_pages(const struct memory_map *map, struct memory_spans *taken, uint64_t bytes,
	uint64_t preferred, uint64_t lowest, struct memory_span *span)
{
	struct memory_request request = {
		.size = bytes ? bytes : 1,
		.align = PAGE_SIZE,
		.lowest = preferred,
		.limit = LIMIT_4G - 1, /* ends are 32-bit numbers */
		.direction = MEMORY_BOTTOM_UP,
		.avoid = taken->spans,
		.avoid_count = taken->count,
	};

	if (!memory_map_find(map, &request, &span->base)) {
		request.lowest = lowest;
		if (!memory_map_find(map, &request, &span->base))
			return false;
	}
	span->length = request.size;
	if (memory_spans_add(taken, span, 1))
		return false;
	span->length = bytes;
	return true;
}

static enum load_error check_command_lines(const struct multiboot_request *request)
{
	if (request->command_line_bytes > MULTIBOOT_COMMAND_LINE_MAX)
		return LOAD_ERR_MULTIBOOT_COMMAND_LINE;
	for (uint32_t i = 0; i < request->module_count; i++) {
		if (request->modules[i].command_line_bytes > MULTIBOOT_COMMAND_LINE_MAX)
			return LOAD_ERR_MULTIBOOT_COMMAND_LINE;
	}
	return LOAD_OK;
}

/* What fill_strings writes; the command lines' lengths have been checked. */
static uint64_t count_string_bytes(const struct multiboot_request *request)
{
	uint64_t bytes = request->module_count * sizeof(struct module_entry);

	for (uint32_t i = 0; i < request->module_count; i++)
		bytes += request->modules[i].command_line_bytes + 1;
	return bytes + request->command_line_bytes + 1 + sizeof(loader_name);
}

enum load_error multiboot_plan_boot(const struct multiboot_image *image,
	const struct multiboot_request *request, struct multiboot_plan *plan)
{
	struct memory_spans taken;
	uint64_t next = 0;
	enum load_error error = gather_taken(image, request, &taken);

	if (!error && request->kernel.bytes != image->file_bytes)
		error = LOAD_ERR_SOURCE_CHANGED;
	if (!error)
		error = check_command_lines(request);
	if (!error)
		error = check_segments(image, request);
	if (error)
		return error;

	memset(plan, 0, sizeof(*plan));
	if (!place_pages(request->map, &taken, sizeof(struct info_page), INFO_PAGE_PREFERRED,
		    INFO_PAGE_LOWEST, &plan->info))
		return LOAD_ERR_NO_ROOM_BOOT_DATA;
	for (uint32_t i = 0; i < image->segment_count; i++) {
		uint64_t end = (uint64_t)image->segments[i].base + image->segments[i].bytes;

		next = end > next ? end : next;
	}
	if (!place_pages(request->map, &taken, count_string_bytes(request), next, MEMORY_HOLE_END,
		    &plan->strings))
		return LOAD_ERR_NO_ROOM_BOOT_DATA;
	next = plan->strings.base + plan->strings.length;
	for (uint32_t i = 0; i < request->module_count; i++) {
		if (!place_pages(request->map, &taken, request->modules[i].source.bytes, next,
			    MEMORY_HOLE_END, &plan->modules[i]))
			return LOAD_ERR_NO_ROOM_MODULE;
		next = plan->modules[i].base + plan->modules[i].length;
	}
	return LOAD_OK;
}

/* Appends a string and its NUL; returns its guest address and moves *at on. */
static uint32_t put_string(uint8_t *strings, const struct multiboot_plan *plan, uint64_t *at,
	const char *text, size_t bytes)
{
	uint64_t where = *at;

	if (bytes)
		memcpy(strings + where, text, bytes);
	strings[where + bytes] = 0;
	*at = where + bytes + 1;
	return (uint32_t)(plan->strings.base + where);
}

/* QEMU's order: list of modules, their command lines, the kernel's, the loader's name. */
static void fill_strings(uint8_t *strings, const struct multiboot_request *request,
	const struct multiboot_plan *plan, struct info *info)
{
	uint64_t at = request->module_count * sizeof(struct module_entry);

	for (uint32_t i = 0; i < request->module_count; i++) {
		const struct multiboot_module *module = &request->modules[i];
		struct module_entry entry = {
			.start = (uint32_t)plan->modules[i].base,
			.end = (uint32_t)(plan->modules[i].base + plan->modules[i].length),
			.command_line = put_string(strings, plan, &at, module->command_line,
				module->command_line_bytes),
		};

		memcpy(strings + i * sizeof(entry), &entry, sizeof(entry));
	}
	info->mods_addr = (uint32_t)plan->strings.base;
	info->mods_count = request->module_count;
	info->cmdline =
		put_string(strings, plan, &at, request->command_line, request->command_line_bytes);
	info->boot_loader_name =
		put_string(strings, plan, &at, loader_name, sizeof(loader_name) - 1);
}

static void fill_info(struct info *info, const struct memory_map *map, uint64_t info_page)
{
	uint64_t lower = memory_map_ram_from(map, 0) >> 10;
	uint64_t upper = memory_map_ram_from(map, MEMORY_HOLE_END);

	if (upper > LIMIT_4G - MEMORY_HOLE_END)
		upper = LIMIT_4G - MEMORY_HOLE_END;
	info->flags = INFO_MEMORY | INFO_BOOT_DEVICE | INFO_COMMAND_LINE | INFO_MODULES |
		INFO_MMAP | INFO_LOADER_NAME;
	info->mem_lower = (uint32_t)(lower < LOW_MEMORY_KIB ? lower : LOW_MEMORY_KIB);
	info->mem_upper = (uint32_t)(upper >> 10);
	info->boot_device = BOOT_DEVICE;
	info->mmap_addr = (uint32_t)(info_page + offsetof(struct info_page, mmap));
	info->mmap_length = (uint32_t)(map->count * sizeof(struct mmap_entry));
}

/* Writes the page field by field through copies: no alignment is assumed of the mapping. */
static void fill_info_page(uint8_t *page, const struct info *info, const struct memory_map *map)
{
	static const uint64_t gdt[3] = {0, GDT_CODE_32, GDT_DATA};

	memset(page, 0, sizeof(struct info_page));
	memcpy(page + offsetof(struct info_page, info), info, sizeof(*info));
	memcpy(page + offsetof(struct info_page, gdt), gdt, sizeof(gdt));
	for (uint32_t i = 0; i < map->count; i++) {
		struct mmap_entry entry = {
			.size = sizeof(entry) - sizeof(entry.size),
			.base = map->ranges[i].base,
			.length = map->ranges[i].length,
			.type = map->ranges[i].type,
		};

		memcpy(page + offsetof(struct info_page, mmap) + i * sizeof(entry), &entry,
			sizeof(entry));
	}
}

/* Does the plan fit the request, and can all of it be reached? Writes nothing. */
static enum load_error check_commit(const struct multiboot_image *image,
	const struct multiboot_request *request, const struct multiboot_plan *plan,
	const struct guest_memory *memory)
{
	if (request->kernel.bytes != image->file_bytes ||
		request->module_count > MULTIBOOT_MODULES_MAX || check_command_lines(request) ||
		plan->strings.length != count_string_bytes(request))
		return LOAD_ERR_SOURCE_CHANGED;
	for (uint32_t i = 0; i < image->segment_count; i++) {
		const struct multiboot_segment *segment = &image->segments[i];

		if (!guest_memory_map(memory, GPA(segment->base), segment->bytes))
			return LOAD_ERR_MEMORY_ACCESS;
	}
	for (uint32_t i = 0; i < request->module_count; i++) {
		const struct memory_span *span = &plan->modules[i];

		if (span->length != request->modules[i].source.bytes)
			return LOAD_ERR_SOURCE_CHANGED;
		if (span->length && !guest_memory_map(memory, GPA(span->base), span->length))
			return LOAD_ERR_MEMORY_ACCESS;
	}
	return LOAD_OK;
}

enum load_error multiboot_commit_boot(const struct multiboot_image *image,
	const struct multiboot_request *request, const struct multiboot_plan *plan,
	const struct guest_memory *memory, struct multiboot_entry *entry)
{
	struct info info = {.flags = 0};
	const uint8_t *file = request->kernel.data;
	enum load_error error = check_commit(image, request, plan, memory);
	uint8_t *page;
	uint8_t *strings;

	if (error)
		return error;
	page = guest_memory_map(memory, GPA(plan->info.base), sizeof(struct info_page));
	strings = guest_memory_map(memory, GPA(plan->strings.base), plan->strings.length);
	if (!page || !strings)
		return LOAD_ERR_MEMORY_ACCESS;

	for (uint32_t i = 0; i < image->segment_count; i++) {
		const struct multiboot_segment *segment = &image->segments[i];
		uint8_t *to = guest_memory_map(memory, GPA(segment->base), segment->bytes);

		memcpy(to, file + segment->file_offset, segment->file_bytes);
		memset(to + segment->file_bytes, 0, segment->bytes - segment->file_bytes);
	}
	for (uint32_t i = 0; i < request->module_count; i++) {
		const struct memory_span *span = &plan->modules[i];

		if (span->length)
			memcpy(guest_memory_map(memory, GPA(span->base), span->length),
				request->modules[i].source.data, span->length);
	}
	fill_info(&info, request->map, plan->info.base);
	fill_strings(strings, request, plan, &info);
	fill_info_page(page, &info, request->map);

	*entry = (struct multiboot_entry){
		.eip = image->entry,
		.eax = LOADER_MAGIC,
		.ebx = (uint32_t)(plan->info.base + offsetof(struct info_page, info)),
		.gdt_base = GPA(plan->info.base + offsetof(struct info_page, gdt)),
		.gdt_limit = 3 * sizeof(uint64_t) - 1,
		.cs = CODE_SELECTOR,
		.ds = DATA_SELECTOR,
	};
	return LOAD_OK;
}
