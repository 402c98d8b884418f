/*
 * Guest memory for the loaders' tests: one block that starts at guest address 0. With
 * AddressSanitizer nothing of it may be touched but what a loader has asked for through
 * guest_memory.map, to the byte. Also the deterministic random numbers of the mutation tests.
 */
#ifndef TESTS_UNIT_LOAD_ARENA_H
#define TESTS_UNIT_LOAD_ARENA_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "boot/load/guest_memory.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_WATCHED 1
#endif
#endif

#ifdef ARENA_WATCHED
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes)   ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

struct arena {
	struct guest_memory memory;
	uint8_t *bytes;
	size_t size;
};

static void *arena_map(void *context, gpa_t gpa, size_t bytes)
{
	struct arena *arena = context;

	if (gpa.value > arena->size || bytes > arena->size - gpa.value)
		return NULL;
	ASAN_UNPOISON_MEMORY_REGION(arena->bytes + gpa.value, bytes);
	return arena->bytes + gpa.value;
}

/* From now on only what is mapped anew may be touched. */
static inline void arena_close(struct arena *arena)
{
	ASAN_POISON_MEMORY_REGION(arena->bytes, arena->size);
}

/* The test itself may look at everything. */
static inline void arena_open(struct arena *arena)
{
	ASAN_UNPOISON_MEMORY_REGION(arena->bytes, arena->size);
}

static inline void arena_start(struct arena *arena, size_t size)
{
	arena->bytes = calloc(1, size);
	arena->size = size;
	arena->memory = (struct guest_memory){arena_map, arena};
	if (!arena->bytes)
		abort();
}

static inline void arena_stop(struct arena *arena)
{
	arena_open(arena);
	free(arena->bytes);
}

/* A copy of exactly these bytes, so that a read past them is seen. */
static inline uint8_t *arena_copy_exactly(const void *from, size_t bytes)
{
	uint8_t *to = malloc(bytes ? bytes : 1);

	if (!to)
		abort();
	if (bytes)
		memcpy(to, from, bytes);
	return to;
}

static inline void put16(uint8_t *at, uint16_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline void put32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline void put64(uint8_t *at, uint64_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline uint16_t get16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static inline uint32_t get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static inline uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* A 64-bit linear congruential generator; its high bits are good enough to place mutations. */
static inline uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 33);
}

/* Changes one to four bytes of `data`, values at the edges more often than others. */
static inline void mutate_bytes(uint8_t *data, size_t bytes, uint64_t *state)
{
	static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff};
	uint32_t count = 1 + next_random(state) % 4;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t kind = next_random(state) % 3;
		uint8_t *at = &data[next_random(state) % bytes];

		if (kind == 0)
			*at = (uint8_t)next_random(state);
		else if (kind == 1)
			*at = edges[next_random(state) % sizeof(edges)];
		else
			*at ^= (uint8_t)(1u << next_random(state) % 8);
	}
}

#endif
