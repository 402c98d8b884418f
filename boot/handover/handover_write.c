/*
 * From struct handover_info to a flattened device tree, in one pass and in the tree's own order.
 * Decides nothing: what may be in it is checked before the first byte is written.
 */
#include <libfdt.h>

#include "boot/handover/handover.h"

/*
 * A writer that stops at the first failure, so that the steps below need no test each. The tree's
 * buffer is the only thing that a step can run out of.
 */
struct writer {
	void *tree;
	int error; /* of libfdt; 0 so far */
};

static void write_node_begin(struct writer *writer, const char *name)
{
	if (writer->error == 0)
		writer->error = fdt_begin_node(writer->tree, name);
}

static void write_node_end(struct writer *writer)
{
	if (writer->error == 0)
		writer->error = fdt_end_node(writer->tree);
}

static void write_bytes(struct writer *writer, const char *name, const void *value, size_t bytes)
{
	if (writer->error != 0)
		return;
	if (bytes > INT32_MAX)
		writer->error = -FDT_ERR_NOSPACE;
	else
		writer->error = fdt_property(writer->tree, name, value, (int)bytes);
}

static size_t string_bytes(const char *string)
{
	size_t bytes = 0;

	while (string[bytes])
		bytes++;
	return bytes + 1;
}

static void write_string(struct writer *writer, const char *name, const char *value)
{
	write_bytes(writer, name, value, string_bytes(value));
}

static void write_u32(struct writer *writer, const char *name, uint32_t value)
{
	fdt32_t cell = cpu_to_fdt32(value);

	write_bytes(writer, name, &cell, sizeof(cell));
}

static void write_u64(struct writer *writer, const char *name, uint64_t value)
{
	fdt64_t cells = cpu_to_fdt64(value);

	write_bytes(writer, name, &cells, sizeof(cells));
}

static void write_cells(struct writer *writer, uint32_t address, uint32_t size)
{
	write_u32(writer, "#address-cells", address);
	write_u32(writer, "#size-cells", size);
}

static void write_reg(struct writer *writer, const struct handover_range *range)
{
	fdt64_t cells[2] = {cpu_to_fdt64(range->base), cpu_to_fdt64(range->bytes)};

	write_bytes(writer, "reg", cells, sizeof(cells));
}

/* Opens the node `stem`@`unit`, the unit in lower-case hexadecimal without leading zeros. */
static void write_unit_begin(struct writer *writer, const char *stem, uint64_t unit)
{
	char name[48];
	size_t length = 0;
	int shift = 60;

	while (*stem && length < sizeof(name) - 18)
		name[length++] = *stem++;
	name[length++] = '@';
	while (shift > 0 && (unit >> shift) == 0)
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		name[length++] = "0123456789abcdef"[(unit >> shift) & 15];
	name[length] = '\0';
	write_node_begin(writer, name);
}

static void write_memory(struct writer *writer, const struct handover_info *info)
{
	for (uint32_t i = 0; i < info->memory_count; i++) {
		write_unit_begin(writer, "memory", info->memory[i].base);
		write_string(writer, "device_type", "memory");
		write_reg(writer, &info->memory[i]);
		write_node_end(writer);
	}
}

static void write_processors(struct writer *writer, const struct handover_info *info)
{
	write_node_begin(writer, "cpus");
	write_cells(writer, 1, 0);
	for (uint32_t i = 0; i < info->cpu_count; i++) {
		write_unit_begin(writer, "cpu", info->apic_id[i]);
		write_string(writer, "device_type", "cpu");
		write_u32(writer, "reg", info->apic_id[i]);
		write_node_end(writer);
	}
	write_node_end(writer);
}

static void write_regions(struct writer *writer, const struct handover_info *info)
{
	static const char *const stem[HANDOVER_KIND_COUNT] = {
		[HANDOVER_REGION_IMAGE] = "image",
		[HANDOVER_REGION_MEMORY] = "memory",
		[HANDOVER_REGION_BLOCK] = "block",
		[HANDOVER_REGION_AP_PAGES] = "ap-pages",
		[HANDOVER_REGION_MAILBOX] = "wakeup-mailbox",
		[HANDOVER_REGION_OTHER] = "reserved",
	};

	write_node_begin(writer, "reserved-memory");
	write_cells(writer, 2, 2);
	write_bytes(writer, "ranges", NULL, 0);
	for (uint32_t i = 0; i < info->region_count; i++) {
		const struct handover_region *region = &info->region[i];
		const char *compatible = handover_kind_compatible(region->kind);

		write_unit_begin(writer, stem[region->kind], region->range.base);
		if (compatible)
			write_string(writer, "compatible", compatible);
		write_reg(writer, &region->range);
		write_bytes(writer, "no-map", NULL, 0);
		write_node_end(writer);
	}
	write_node_end(writer);
}

static void write_chosen(struct writer *writer, const struct handover_info *info)
{
	static const char kernel[] = "multiboot,kernel\0multiboot,module";
	static const char ramdisk[] = "multiboot,ramdisk\0multiboot,module";

	write_node_begin(writer, "chosen");
	write_cells(writer, 2, 2);
	write_string(writer, "bootargs", info->options);
	if (info->kernel.bytes != 0) {
		write_unit_begin(writer, "module", info->kernel.base);
		write_bytes(writer, "compatible", kernel, sizeof(kernel));
		write_reg(writer, &info->kernel);
		write_string(writer, "bootargs", info->kernel_command_line);
		write_node_end(writer);
	}
	if (info->initrd.bytes != 0) {
		write_unit_begin(writer, "module", info->initrd.base);
		write_bytes(writer, "compatible", ramdisk, sizeof(ramdisk));
		write_reg(writer, &info->initrd);
		write_node_end(writer);
	}
	write_node_end(writer);
}

static void write_firmware(struct writer *writer, const struct handover_info *info)
{
	fdt32_t map[HANDOVER_FIRMWARE_MAX][5];

	for (uint32_t i = 0; i < info->firmware_count; i++) {
		const struct handover_firmware *firmware = &info->firmware[i];

		map[i][0] = cpu_to_fdt32((uint32_t)(firmware->range.base >> 32));
		map[i][1] = cpu_to_fdt32((uint32_t)firmware->range.base);
		map[i][2] = cpu_to_fdt32((uint32_t)(firmware->range.bytes >> 32));
		map[i][3] = cpu_to_fdt32((uint32_t)firmware->range.bytes);
		map[i][4] = cpu_to_fdt32(firmware->type);
	}
	write_node_begin(writer, "firmware");
	write_node_begin(writer, "parapet");
	if (info->acpi_rsdp != 0)
		write_u64(writer, "acpi-rsdp", info->acpi_rsdp);
	write_bytes(writer, "memory-map", map, info->firmware_count * sizeof(map[0]));
	write_node_end(writer);
	write_node_end(writer);
}

enum handover_error handover_write(
	void *buffer, size_t size, const struct handover_info *info, size_t *bytes)
{
	struct writer writer = {.tree = buffer};
	enum handover_error error;

	*bytes = 0;
	if (!buffer || ((uintptr_t)buffer & 7) != 0)
		return HANDOVER_BAD_BUFFER;
	error = handover_check(info);
	if (error != HANDOVER_OK)
		return error;

	writer.error = fdt_create(buffer, size > INT32_MAX ? INT32_MAX : (int)size);
	if (writer.error == 0)
		writer.error = fdt_finish_reservemap(buffer);
	write_node_begin(&writer, "");
	write_string(&writer, "compatible", "parapet,handover-1");
	write_string(&writer, "model", "Parapet hand-over");
	write_cells(&writer, 2, 2);
	write_memory(&writer, info);
	write_processors(&writer, info);
	write_regions(&writer, info);
	write_chosen(&writer, info);
	write_firmware(&writer, info);
	write_node_end(&writer);
	if (writer.error == 0)
		writer.error = fdt_finish(buffer);
	if (writer.error != 0)
		return HANDOVER_NO_ROOM;

	fdt_set_boot_cpuid_phys(buffer, info->boot_apic_id);
	*bytes = fdt_totalsize(buffer);
	return HANDOVER_OK;
}
