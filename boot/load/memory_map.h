/*
 * The physical memory map, as the firmware gives it (E820) and as a guest is to see it. Addresses
 * here are plain numbers: the map is read as host-physical and handed on as guest-physical, and on
 * every platform these are equal. Nothing about what memory is used for enters here.
 *
 * Except for memory_map_add and memory_map_read_multiboot, every function wants a map that
 * memory_map_sanitise has been over; memory_map_reserve keeps it so.
 */
#ifndef PARAPET_BOOT_MEMORY_MAP_H
#define PARAPET_BOOT_MEMORY_MAP_H

#include "parapet/types.h"
#include "boot/load/load_error.h"

#define MEMORY_MAP_MAX 128

/* No x86 processor has wider physical addresses. */
#define MEMORY_ADDRESS_LIMIT (1ull << 52)

/* ACPI 6.4, 15.2, table 15.374 (the numbers of E820 and of Multiboot are the same). */
enum memory_type {
	MEMORY_RAM = 1,
	MEMORY_RESERVED = 2,
	MEMORY_ACPI = 3, /* tables; RAM once the system has read them */
	MEMORY_NVS = 4,
	MEMORY_UNUSABLE = 5,
};

struct memory_range {
	uint64_t base;
	uint64_t length;
	enum memory_type type;
};

/* A range of addresses, whatever is there. Length 0: nothing. */
struct memory_span {
	uint64_t base;
	uint64_t length;
};

#define MEMORY_SPANS_MAX 96

/* What must not be touched, gathered from several places. */
struct memory_spans {
	uint32_t count;
	struct memory_span spans[MEMORY_SPANS_MAX];
};

struct memory_map {
	uint32_t count;
	struct memory_range ranges[MEMORY_MAP_MAX];
};

enum memory_direction {
	MEMORY_BOTTOM_UP,
	MEMORY_TOP_DOWN,
};

struct memory_request {
	uint64_t size; /* bytes, above 0 */
	uint64_t align; /* a power of two */
	uint64_t lowest; /* no byte below this address */
	uint64_t limit; /* no byte at or above this address */
	enum memory_direction direction;
	const struct memory_span *avoid; /* spans that must not be touched, in any order */
	size_t avoid_count;
};

/* An empty map. */
void memory_map_init(struct memory_map *map);

/*
 * Appends a range as it is; it may overlap others. Length 0 is accepted and adds nothing. Errors
 * leave the map as it was: MAP_FULL; MAP_RANGE if it ends above MEMORY_ADDRESS_LIMIT; MAP_TYPE.
 */
enum load_error memory_map_add(
	struct memory_map *map, uint64_t base, uint64_t length, enum memory_type type);

/*
 * Sorts by address, makes ranges disjoint and joins neighbours of one type. Where ranges overlap
 * the more restrictive type wins: unusable, reserved, NVS, ACPI, RAM. MAP_FULL if the result has
 * too many pieces; the map is then as it was. Uses about 3 KiB of stack.
 */
enum load_error memory_map_sanitise(struct memory_map *map);

/*
 * Makes [base, base + length) the given type, except where the map already has a more restrictive
 * one. MAP_FULL, MAP_RANGE, MAP_TYPE (also for RAM, which reserves nothing) leave the map as it
 * was.
 */
enum load_error memory_map_reserve(
	struct memory_map *map, uint64_t base, uint64_t length, enum memory_type type);

/* The lowest (or highest) fitting place in RAM in *base; false if there is none. */
bool memory_map_find(
	const struct memory_map *map, const struct memory_request *request, uint64_t *base);

/* Is every byte of the range RAM? True for length 0; false if the range wraps. */
bool memory_map_is_ram(const struct memory_map *map, uint64_t base, uint64_t length);

/* The bytes of RAM in the map. */
uint64_t memory_map_total_ram(const struct memory_map *map);

/* Bytes of uninterrupted RAM from base upwards; 0 if base is not RAM. */
uint64_t memory_map_ram_from(const struct memory_map *map, uint64_t base);

/*
 * Appends the entries of a Multiboot v1 memory map (Multiboot 0.6.96, 3.3: mmap_length bytes at
 * mmap_addr, which the caller has copied to `buffer`) and sanitises. Types other than the five are
 * taken as reserved. MAP_TRUNCATED, MAP_ENTRY (size field below 20), MAP_RANGE, MAP_FULL,
 * MAP_NO_RAM; the map is then as it was.
 */
enum load_error memory_map_read_multiboot(struct memory_map *map, const void *buffer, size_t bytes);

/* Do two spans share a byte? One that wraps counts as reaching to the top of the address space. */
bool memory_span_overlaps(struct memory_span a, struct memory_span b);

/*
 * Appends `count` spans; empty ones are left out. MANY_SPANS if there is no room for all of them;
 * the list is then as it was.
 */
enum load_error memory_spans_add(
	struct memory_spans *list, const struct memory_span *spans, size_t count);

#endif
