/*
 * From a flattened device tree to struct handover_info. The tree is another program's: libfdt walks
 * it only after fdt_check_full() has been over all of it, and every property's length is checked
 * here before its first byte is read.
 */
#include <libfdt.h>

#include "boot/handover/handover.h"

/* A node's reg is made of this many 32-bit cells, as its parent says. */
struct cells {
	int address;
	int size;
};

struct reader {
	const void *tree;
	struct handover_info *info;
	enum handover_error error; /* the first one */
};

static void fail(struct reader *reader, enum handover_error error)
{
	if (reader->error == HANDOVER_OK)
		reader->error = error;
}

static uint64_t cells_get(const fdt32_t *cell, int count)
{
	uint64_t value = 0;

	for (int i = 0; i < count; i++)
		value = value << 32 | fdt32_ld(&cell[i]);
	return value;
}

/* A property's bytes as cells; NULL, and *count 0, if it is not there or not made of cells. */
static const fdt32_t *property_cells(struct reader *reader, int node, const char *name, int *count)
{
	int bytes;
	const void *value = fdt_getprop(reader->tree, node, name, &bytes);

	*count = 0;
	if (!value)
		return NULL;
	if (bytes % (int)sizeof(fdt32_t) != 0) {
		fail(reader, HANDOVER_BAD_PROPERTY);
		return NULL;
	}
	*count = bytes / (int)sizeof(fdt32_t);
	return value;
}

/*
 * A string property: NULL if it is not there; one that does not end with its first NUL is
 * refused.
 */
static const char *property_string(struct reader *reader, int node, const char *name)
{
	int bytes;
	const char *value = fdt_getprop(reader->tree, node, name, &bytes);

	if (!value)
		return NULL;
	for (int i = 0; i < bytes; i++) {
		if (value[i] == '\0') {
			if (i == bytes - 1)
				return value;
			break;
		}
	}
	fail(reader, HANDOVER_BAD_PROPERTY);
	return NULL;
}

static bool string_equal(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

static bool has_device_type(struct reader *reader, int node, const char *type)
{
	int bytes;
	const char *value = fdt_getprop(reader->tree, node, "device_type", &bytes);

	return value && bytes > 0 && value[bytes - 1] == '\0' && string_equal(value, type);
}

/* "okay" and no status at all mean usable (Devicetree Specification 0.4, 2.3.4). */
static bool is_enabled(struct reader *reader, int node)
{
	const char *status = property_string(reader, node, "status");

	return !status || string_equal(status, "okay") || string_equal(status, "ok");
}

/* One number, or what stands for it when the node does not say; -1 for nonsense. */
static int cell_count(struct reader *reader, int node, const char *name, int otherwise)
{
	int count;
	const fdt32_t *cell = property_cells(reader, node, name, &count);

	if (!cell)
		return otherwise;
	return count == 1 && fdt32_ld(cell) <= 2 ? (int)fdt32_ld(cell) : -1;
}

/*
 * As the Devicetree Specification has it (0.4, 2.3.5). libfdt's own two functions for this bring along
 * all those that change a tree.
 */
static bool node_cells(struct reader *reader, int node, struct cells *cells)
{
	cells->address = cell_count(reader, node, "#address-cells", 2);
	cells->size = cell_count(reader, node, "#size-cells", 1);
	if (cells->address >= 1 && cells->address <= 2 && cells->size >= 0 && cells->size <= 2)
		return true;
	fail(reader, HANDOVER_BAD_PROPERTY);
	return false;
}

/* The only range in a node's reg. */
static bool read_range(
	struct reader *reader, int node, const struct cells *cells, struct handover_range *range)
{
	int count;
	const fdt32_t *cell = property_cells(reader, node, "reg", &count);

	if (!cell) {
		fail(reader, HANDOVER_MISSING);
		return false;
	}
	if (cells->size == 0 || count != cells->address + cells->size) {
		fail(reader, HANDOVER_BAD_PROPERTY);
		return false;
	}
	range->base = cells_get(cell, cells->address);
	range->bytes = cells_get(cell + cells->address, cells->size);
	return true;
}

/* Puts one range of RAM where it belongs among those already there. */
static void add_memory(struct reader *reader, struct handover_range range)
{
	struct handover_info *info = reader->info;
	uint32_t i;

	if (info->memory_count == HANDOVER_MEMORY_MAX) {
		fail(reader, HANDOVER_TOO_MANY);
		return;
	}
	for (i = info->memory_count; i > 0 && info->memory[i - 1].base > range.base; i--)
		info->memory[i] = info->memory[i - 1];
	info->memory[i] = range;
	info->memory_count++;
}

static void read_memory(struct reader *reader)
{
	struct cells cells;
	int node;

	if (!node_cells(reader, 0, &cells))
		return;
	fdt_for_each_subnode(node, reader->tree, 0)
	{
		int per_range = cells.address + cells.size;
		int count;
		const fdt32_t *cell;

		if (!has_device_type(reader, node, "memory") || !is_enabled(reader, node))
			continue;
		cell = property_cells(reader, node, "reg", &count);
		if (!cell) {
			fail(reader, HANDOVER_MISSING);
			return;
		}
		if (cells.size == 0 || count == 0 || count % per_range != 0) {
			fail(reader, HANDOVER_BAD_PROPERTY);
			return;
		}
		for (int i = 0; i < count && reader->error == HANDOVER_OK; i += per_range) {
			add_memory(reader,
				(struct handover_range){cells_get(cell + i, cells.address),
					cells_get(cell + i + cells.address, cells.size)});
		}
	}
}

static void read_processors(struct reader *reader)
{
	struct handover_info *info = reader->info;
	int parent = fdt_subnode_offset(reader->tree, 0, "cpus");
	struct cells cells;
	int node;

	if (parent < 0) {
		fail(reader, HANDOVER_MISSING);
		return;
	}
	if (!node_cells(reader, parent, &cells))
		return;
	fdt_for_each_subnode(node, reader->tree, parent)
	{
		const fdt32_t *cell;
		uint64_t id;
		int count;

		if (!has_device_type(reader, node, "cpu") || !is_enabled(reader, node))
			continue;
		cell = property_cells(reader, node, "reg", &count);
		if (!cell || count != cells.address || cells.size != 0) {
			fail(reader, cell ? HANDOVER_BAD_PROPERTY : HANDOVER_MISSING);
			return;
		}
		id = cells_get(cell, count);
		if (id > UINT32_MAX) {
			fail(reader, HANDOVER_BAD_PROCESSORS);
			return;
		}
		if (info->cpu_count == VP_COUNT_MAX) {
			fail(reader, HANDOVER_TOO_MANY);
			return;
		}
		info->apic_id[info->cpu_count++] = (uint32_t)id;
	}
	info->boot_apic_id = fdt_boot_cpuid_phys(reader->tree);
}

static enum handover_kind region_kind(struct reader *reader, int node)
{
	for (unsigned int kind = 0; kind < HANDOVER_KIND_COUNT; kind++) {
		const char *compatible = handover_kind_compatible(kind);

		if (compatible && fdt_node_check_compatible(reader->tree, node, compatible) == 0)
			return kind;
	}
	return HANDOVER_REGION_OTHER;
}

static void read_regions(struct reader *reader)
{
	struct handover_info *info = reader->info;
	int parent = fdt_subnode_offset(reader->tree, 0, "reserved-memory");
	struct cells cells;
	int node;

	if (parent < 0) {
		fail(reader, HANDOVER_MISSING);
		return;
	}
	if (!node_cells(reader, parent, &cells))
		return;
	fdt_for_each_subnode(node, reader->tree, parent)
	{
		struct handover_region *region;

		if (!is_enabled(reader, node))
			continue;
		if (info->region_count == HANDOVER_REGION_MAX) {
			fail(reader, HANDOVER_TOO_MANY);
			return;
		}
		region = &info->region[info->region_count];
		if (!read_range(reader, node, &cells, &region->range))
			return;
		region->kind = region_kind(reader, node);
		info->region_count++;
	}
}

static void read_module(struct reader *reader, int node, const struct cells *cells)
{
	struct handover_info *info = reader->info;
	bool kernel = fdt_node_check_compatible(reader->tree, node, "multiboot,kernel") == 0;
	bool ramdisk = fdt_node_check_compatible(reader->tree, node, "multiboot,ramdisk") == 0;
	struct handover_range *range = kernel ? &info->kernel : &info->initrd;
	const char *command_line;

	if (!kernel && !ramdisk)
		return;
	if (range->bytes != 0) {
		fail(reader, HANDOVER_TOO_MANY);
		return;
	}
	if (!read_range(reader, node, cells, range))
		return;
	if (range->bytes == 0) {
		fail(reader, HANDOVER_BAD_RANGE);
		return;
	}
	command_line = kernel ? property_string(reader, node, "bootargs") : NULL;
	if (command_line)
		info->kernel_command_line = command_line;
}

static void read_chosen(struct reader *reader)
{
	struct handover_info *info = reader->info;
	int parent = fdt_subnode_offset(reader->tree, 0, "chosen");
	const char *options;
	struct cells cells;
	int node;

	info->kernel_command_line = "";
	info->options = "";
	if (parent < 0)
		return;
	options = property_string(reader, parent, "bootargs");
	if (options)
		info->options = options;
	if (!node_cells(reader, parent, &cells))
		return;
	fdt_for_each_subnode(node, reader->tree, parent) read_module(reader, node, &cells);
}

static void read_firmware(struct reader *reader)
{
	struct handover_info *info = reader->info;
	int node = fdt_path_offset(reader->tree, "/firmware/parapet");
	const fdt32_t *cell;
	int count;

	if (node < 0)
		return;
	cell = property_cells(reader, node, "acpi-rsdp", &count);
	if (cell && count != 2)
		fail(reader, HANDOVER_BAD_PROPERTY);
	else if (cell)
		info->acpi_rsdp = cells_get(cell, 2);

	cell = property_cells(reader, node, "memory-map", &count);
	if (!cell)
		return;
	if (count % 5 != 0) {
		fail(reader, HANDOVER_BAD_PROPERTY);
		return;
	}
	if (count / 5 > HANDOVER_FIRMWARE_MAX) {
		fail(reader, HANDOVER_TOO_MANY);
		return;
	}
	for (int i = 0; i < count; i += 5) {
		struct handover_firmware *firmware = &info->firmware[info->firmware_count++];

		firmware->range.base = cells_get(cell + i, 2);
		firmware->range.bytes = cells_get(cell + i + 2, 2);
		firmware->type = fdt32_ld(&cell[i + 4]);
	}
}

enum handover_error handover_read(const void *buffer, size_t size, struct handover_info *info)
{
	struct reader reader = {.tree = buffer, .info = info};

	*info = (struct handover_info){0};
	if (!buffer || ((uintptr_t)buffer & 7) != 0)
		return HANDOVER_BAD_BUFFER;
	if (size < sizeof(struct fdt_header) || fdt_check_full(buffer, size) != 0)
		return HANDOVER_BAD_TREE;
	if (fdt_node_check_compatible(buffer, 0, "parapet,handover-1") != 0)
		return HANDOVER_NOT_PARAPET;

	read_memory(&reader);
	read_processors(&reader);
	read_regions(&reader);
	read_chosen(&reader);
	read_firmware(&reader);
	if (reader.error == HANDOVER_OK)
		reader.error = handover_check(info);
	if (reader.error != HANDOVER_OK)
		*info = (struct handover_info){0};
	return reader.error;
}
