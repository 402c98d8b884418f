/*
 * The physical memory map: a sorted array and the few questions that are asked of it. Only address
 * arithmetic enters here, and no address is ever followed.
 */
#include "boot/load/memory_map.h"

#include <string.h>

/* Multiboot 0.6.96, 3.3. `size` counts the bytes after itself. */
struct multiboot_mmap_entry {
	uint32_t size;
	uint64_t base;
	uint64_t length;
	uint32_t type;
} __attribute__((packed));

_Static_assert(sizeof(struct multiboot_mmap_entry) == 24, "read from a boot loader");

/* How much a type forbids; where ranges overlap, more wins. */
static uint32_t type_rank(enum memory_type type)
{
	switch (type) {
	case MEMORY_RAM:
		return 1;
	case MEMORY_ACPI:
		return 2;
	case MEMORY_NVS:
		return 3;
	case MEMORY_RESERVED:
		return 4;
	case MEMORY_UNUSABLE:
		return 5;
	}
	return 0;
}

/* One past the range's end; a map's ranges end at MEMORY_ADDRESS_LIMIT at the latest. */
static uint64_t range_end(const struct memory_range *range)
{
	return range->base + range->length;
}

void memory_map_init(struct memory_map *map)
{
	map->count = 0;
}

enum load_error memory_map_add(
	struct memory_map *map, uint64_t base, uint64_t length, enum memory_type type)
{
	if (!type_rank(type))
		return LOAD_ERR_MAP_TYPE;
	if (length == 0)
		return LOAD_OK;
	if (length > MEMORY_ADDRESS_LIMIT || base > MEMORY_ADDRESS_LIMIT - length)
		return LOAD_ERR_MAP_RANGE;
	if (map->count >= MEMORY_MAP_MAX)
		return LOAD_ERR_MAP_FULL;
	map->ranges[map->count++] = (struct memory_range){base, length, type};
	return LOAD_OK;
}

/*
 * The most restrictive range that covers `at`, or NULL, and in *next where that may change: the
 * nearest start or end above `at`, MEMORY_ADDRESS_LIMIT if there is none.
 */
static const struct memory_range *map_look_up(
	const struct memory_map *map, uint64_t at, uint64_t *next)
{
	const struct memory_range *found = NULL;

	*next = MEMORY_ADDRESS_LIMIT;
	for (uint32_t i = 0; i < map->count; i++) {
		const struct memory_range *range = &map->ranges[i];
		uint64_t end = range_end(range);

		if (range->base > at) {
			if (range->base < *next)
				*next = range->base;
			continue;
		}
		if (end <= at)
			continue;
		if (end < *next)
			*next = end;
		if (!found || type_rank(range->type) > type_rank(found->type))
			found = range;
	}
	return found;
}

enum load_error memory_map_sanitise(struct memory_map *map)
{
	struct memory_map clean;
	uint64_t at = 0;

	/* Each round passes one of at most 2 * MEMORY_MAP_MAX starts and ends. */
	clean.count = 0;
	while (at < MEMORY_ADDRESS_LIMIT) {
		uint64_t next;
		const struct memory_range *range = map_look_up(map, at, &next);
		struct memory_range *last = clean.count ? &clean.ranges[clean.count - 1] : NULL;

		if (range && last && last->type == range->type && range_end(last) == at) {
			last->length += next - at;
		} else if (range) {
			if (clean.count == MEMORY_MAP_MAX)
				return LOAD_ERR_MAP_FULL;
			clean.ranges[clean.count++] =
				(struct memory_range){at, next - at, range->type};
		}
		at = next;
	}
	map->count = clean.count;
	memcpy(map->ranges, clean.ranges, clean.count * sizeof(clean.ranges[0]));
	return LOAD_OK;
}

enum load_error memory_map_reserve(
	struct memory_map *map, uint64_t base, uint64_t length, enum memory_type type)
{
	uint32_t count = map->count;
	enum load_error error;

	if (type == MEMORY_RAM)
		return LOAD_ERR_MAP_TYPE;
	error = memory_map_add(map, base, length, type);
	if (error)
		return error;
	error = memory_map_sanitise(map);
	if (error)
		map->count = count; /* a failed sanitise has moved nothing */
	return error;
}

bool memory_span_overlaps(struct memory_span a, struct memory_span b)
{
	if (a.length == 0 || b.length == 0)
		return false;
	/* Differences instead of ends: an end may be 2^64. */
	if (a.base <= b.base)
		return b.base - a.base < a.length;
	return a.base - b.base < b.length;
}

enum load_error memory_spans_add(
	struct memory_spans *list, const struct memory_span *spans, size_t count)
{
	uint32_t total = list->count;

	for (size_t i = 0; i < count; i++) {
		if (spans[i].length == 0)
			continue;
		if (total == MEMORY_SPANS_MAX)
			return LOAD_ERR_MANY_SPANS;
		list->spans[total++] = spans[i];
	}
	list->count = total;
	return LOAD_OK;
}

/* The first of the request's avoided spans that the candidate touches, or NULL. */
static const struct memory_span *find_obstacle(
	const struct memory_request *request, struct memory_span candidate)
{
	for (size_t i = 0; i < request->avoid_count; i++) {
		if (memory_span_overlaps(request->avoid[i], candidate))
			return &request->avoid[i];
	}
	return NULL;
}

/* The lowest place in [low, high), or false. Every obstacle is met once at most. */
static bool find_bottom_up(
	const struct memory_request *request, uint64_t low, uint64_t high, uint64_t *base)
{
	for (;;) {
		uint64_t at;
		const struct memory_span *obstacle;

		if (low > high || high - low < request->size)
			return false;
		at = ALIGN_UP(low, request->align);
		if (at < low || at > high - request->size)
			return false;
		obstacle = find_obstacle(request, (struct memory_span){at, request->size});
		if (!obstacle) {
			*base = at;
			return true;
		}
		if (obstacle->length > UINT64_MAX - obstacle->base)
			return false;
		low = obstacle->base + obstacle->length;
	}
}

/* The highest place in [low, high), or false. Every obstacle is met once at most. */
static bool find_top_down(
	const struct memory_request *request, uint64_t low, uint64_t high, uint64_t *base)
{
	for (;;) {
		uint64_t at;
		const struct memory_span *obstacle;

		if (high < low || high - low < request->size)
			return false;
		at = ALIGN_DOWN(high - request->size, request->align);
		if (at < low)
			return false;
		obstacle = find_obstacle(request, (struct memory_span){at, request->size});
		if (!obstacle) {
			*base = at;
			return true;
		}
		high = obstacle->base;
	}
}

bool memory_map_find(
	const struct memory_map *map, const struct memory_request *request, uint64_t *base)
{
	bool top_down = request->direction == MEMORY_TOP_DOWN;

	if (request->size == 0 || request->align == 0 ||
		(request->align & (request->align - 1)) != 0)
		return false;
	for (uint32_t i = 0; i < map->count; i++) {
		const struct memory_range *range = &map->ranges[top_down ? map->count - 1 - i : i];
		uint64_t low = range->base;
		uint64_t high = range_end(range);

		if (range->type != MEMORY_RAM)
			continue;
		if (low < request->lowest)
			low = request->lowest;
		if (high > request->limit)
			high = request->limit;
		if (top_down ? find_top_down(request, low, high, base)
			     : find_bottom_up(request, low, high, base))
			return true;
	}
	return false;
}

uint64_t memory_map_ram_from(const struct memory_map *map, uint64_t base)
{
	/* Sanitised: neighbours of one type are joined, so one range holds all of it. */
	for (uint32_t i = 0; i < map->count; i++) {
		const struct memory_range *range = &map->ranges[i];

		if (range->type == MEMORY_RAM && base >= range->base && base < range_end(range))
			return range_end(range) - base;
	}
	return 0;
}

bool memory_map_is_ram(const struct memory_map *map, uint64_t base, uint64_t length)
{
	return length == 0 || memory_map_ram_from(map, base) >= length;
}

uint64_t memory_map_total_ram(const struct memory_map *map)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < map->count; i++) {
		if (map->ranges[i].type == MEMORY_RAM)
			total += map->ranges[i].length;
	}
	return total;
}

/* Appends all entries of the buffer to the map. */
static enum load_error map_append_multiboot(
	struct memory_map *map, const uint8_t *buffer, size_t bytes)
{
	size_t at = 0;

	while (at < bytes) {
		struct multiboot_mmap_entry entry;
		enum load_error error;
		size_t left = bytes - at;

		if (left < sizeof(entry))
			return LOAD_ERR_MAP_TRUNCATED;
		memcpy(&entry, buffer + at, sizeof(entry));
		if (entry.size < sizeof(entry) - sizeof(entry.size))
			return LOAD_ERR_MAP_ENTRY;
		if (entry.size > left - sizeof(entry.size))
			return LOAD_ERR_MAP_TRUNCATED;
		error = memory_map_add(map, entry.base, entry.length,
			type_rank(entry.type) ? entry.type : MEMORY_RESERVED);
		if (error)
			return error;
		at += sizeof(entry.size) + entry.size;
	}
	return LOAD_OK;
}

enum load_error memory_map_read_multiboot(struct memory_map *map, const void *buffer, size_t bytes)
{
	uint32_t count = map->count;
	enum load_error error = map_append_multiboot(map, buffer, bytes);

	if (!error && memory_map_total_ram(map) == 0)
		error = LOAD_ERR_MAP_NO_RAM;
	if (!error)
		error = memory_map_sanitise(map);
	if (error)
		map->count = count;
	return error;
}
