/*
 * What must hold for the contents of a hand-over, whichever way they go. The tree's format is the
 * business of handover_write.c and handover_read.c; no libfdt in here.
 */
#include "boot/handover/handover.h"

static const char *const kind_compatible[HANDOVER_KIND_COUNT] = {
	[HANDOVER_REGION_IMAGE] = "parapet,image",
	[HANDOVER_REGION_MEMORY] = "parapet,memory",
	[HANDOVER_REGION_BLOCK] = "parapet,block",
	[HANDOVER_REGION_AP_PAGES] = "parapet,ap-pages",
	[HANDOVER_REGION_MAILBOX] = "intel,wakeup-mailbox",
};

const char *handover_kind_compatible(enum handover_kind kind)
{
	return kind < HANDOVER_KIND_COUNT ? kind_compatible[kind] : NULL;
}

const char *handover_error_text(enum handover_error error)
{
	static const char *const text[HANDOVER_ERROR_COUNT] = {
		[HANDOVER_OK] = "nothing is wrong",
		[HANDOVER_BAD_BUFFER] = "the device tree is not on an 8-byte boundary",
		[HANDOVER_NO_ROOM] = "the device tree does not fit",
		[HANDOVER_BAD_TREE] = "no complete device tree there",
		[HANDOVER_NOT_PARAPET] = "the device tree is not one for Parapet",
		[HANDOVER_MISSING] = "the device tree lacks a node or property",
		[HANDOVER_BAD_PROPERTY] = "a property of the device tree is malformed",
		[HANDOVER_TOO_MANY] = "more memory ranges, processors or regions than supported",
		[HANDOVER_BAD_RANGE] = "a memory range is empty, unaligned or out of bounds",
		[HANDOVER_OVERLAP] = "two memory ranges overlap",
		[HANDOVER_NOT_MEMORY] = "a region or an image lies outside RAM",
		[HANDOVER_BAD_PROCESSORS] = "no processors, one twice, or no boot processor",
	};

	return error < HANDOVER_ERROR_COUNT ? text[error] : "unknown error";
}

const struct handover_region *handover_find_region(
	const struct handover_info *info, enum handover_kind kind)
{
	for (uint32_t i = 0; i < info->region_count; i++) {
		if (info->region[i].kind == kind)
			return &info->region[i];
	}
	return NULL;
}

static bool range_is_good(const struct handover_range *range)
{
	return range->bytes != 0 && range->base < HANDOVER_ADDRESS_END &&
		range->bytes <= HANDOVER_ADDRESS_END - range->base;
}

static bool range_is_paged(const struct handover_range *range)
{
	return ((range->base | range->bytes) & (PAGE_SIZE - 1)) == 0;
}

static bool ranges_overlap(const struct handover_range *a, const struct handover_range *b)
{
	return a->base < b->base + b->bytes && b->base < a->base + a->bytes;
}

/* All of it in RAM? Two ranges of memory may touch, and what lies across them is in RAM. */
static bool range_is_memory(const struct handover_info *info, const struct handover_range *range)
{
	uint64_t at = range->base;
	uint64_t end = range->base + range->bytes;

	for (uint32_t i = 0; i < info->memory_count && at < end; i++) {
		const struct handover_range *memory = &info->memory[i];

		if (memory->base <= at && at < memory->base + memory->bytes)
			at = memory->base + memory->bytes;
	}
	return at >= end;
}

static enum handover_error check_memory(const struct handover_info *info)
{
	if (info->memory_count == 0)
		return HANDOVER_MISSING;
	for (uint32_t i = 0; i < info->memory_count; i++) {
		if (!range_is_good(&info->memory[i]))
			return HANDOVER_BAD_RANGE;
		if (i > 0 &&
			info->memory[i].base < info->memory[i - 1].base + info->memory[i - 1].bytes)
			return HANDOVER_OVERLAP;
	}
	for (uint32_t i = 0; i < info->firmware_count; i++) {
		if (!range_is_good(&info->firmware[i].range))
			return HANDOVER_BAD_RANGE;
		if (info->firmware[i].type < 2)
			return HANDOVER_BAD_PROPERTY;
		for (uint32_t j = 0; j < info->memory_count; j++) {
			if (ranges_overlap(&info->firmware[i].range, &info->memory[j]))
				return HANDOVER_OVERLAP;
		}
	}
	return HANDOVER_OK;
}

static enum handover_error check_regions(const struct handover_info *info)
{
	uint32_t seen[HANDOVER_KIND_COUNT] = {0};

	for (uint32_t i = 0; i < info->region_count; i++) {
		const struct handover_region *region = &info->region[i];

		if (region->kind >= HANDOVER_KIND_COUNT)
			return HANDOVER_BAD_PROPERTY;
		if (!range_is_good(&region->range))
			return HANDOVER_BAD_RANGE;
		seen[region->kind]++;
		for (uint32_t j = 0; j < i; j++) {
			if (ranges_overlap(&region->range, &info->region[j].range))
				return HANDOVER_OVERLAP;
		}
		if (region->kind == HANDOVER_REGION_OTHER)
			continue;
		if (!range_is_paged(&region->range))
			return HANDOVER_BAD_RANGE;
		if (!range_is_memory(info, &region->range))
			return HANDOVER_NOT_MEMORY;
		if (region->kind == HANDOVER_REGION_MAILBOX && region->range.bytes != PAGE_SIZE)
			return HANDOVER_BAD_RANGE;
	}
	if (seen[HANDOVER_REGION_IMAGE] == 0)
		return HANDOVER_MISSING;
	if (seen[HANDOVER_REGION_IMAGE] > 1 || seen[HANDOVER_REGION_BLOCK] > 1 ||
		seen[HANDOVER_REGION_AP_PAGES] > 1 || seen[HANDOVER_REGION_MAILBOX] > 1)
		return HANDOVER_TOO_MANY;
	return HANDOVER_OK;
}

static enum handover_error check_image(
	const struct handover_info *info, const struct handover_range *image)
{
	if (image->bytes == 0)
		return HANDOVER_OK;
	if (!range_is_good(image))
		return HANDOVER_BAD_RANGE;
	if (!range_is_memory(info, image))
		return HANDOVER_NOT_MEMORY;
	for (uint32_t i = 0; i < info->region_count; i++) {
		if (info->region[i].kind != HANDOVER_REGION_OTHER &&
			ranges_overlap(image, &info->region[i].range))
			return HANDOVER_OVERLAP;
	}
	return HANDOVER_OK;
}

static enum handover_error check_processors(const struct handover_info *info)
{
	bool boot_found = false;

	for (uint32_t i = 0; i < info->cpu_count; i++) {
		for (uint32_t j = 0; j < i; j++) {
			if (info->apic_id[i] == info->apic_id[j])
				return HANDOVER_BAD_PROCESSORS;
		}
		if (info->apic_id[i] == info->boot_apic_id)
			boot_found = true;
	}
	return boot_found ? HANDOVER_OK : HANDOVER_BAD_PROCESSORS;
}

enum handover_error handover_check(const struct handover_info *info)
{
	enum handover_error error;

	if (info->memory_count > HANDOVER_MEMORY_MAX ||
		info->firmware_count > HANDOVER_FIRMWARE_MAX ||
		info->region_count > HANDOVER_REGION_MAX || info->cpu_count > VP_COUNT_MAX)
		return HANDOVER_TOO_MANY;
	if (!info->kernel_command_line || !info->options)
		return HANDOVER_MISSING;

	error = check_memory(info);
	if (error == HANDOVER_OK)
		error = check_regions(info);
	if (error == HANDOVER_OK)
		error = check_image(info, &info->kernel);
	if (error == HANDOVER_OK)
		error = check_image(info, &info->initrd);
	if (error == HANDOVER_OK)
		error = check_processors(info);
	if (error != HANDOVER_OK)
		return error;

	if (info->kernel.bytes != 0 && info->initrd.bytes != 0 &&
		ranges_overlap(&info->kernel, &info->initrd))
		return HANDOVER_OVERLAP;
	if (info->acpi_rsdp >= HANDOVER_ADDRESS_END)
		return HANDOVER_BAD_RANGE;
	return HANDOVER_OK;
}
