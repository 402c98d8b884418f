/* Nested tables over ordinary memory, for tests. */
#ifndef PARAPET_TESTS_NPT_ARENA_H
#define PARAPET_TESTS_NPT_ARENA_H

#include <stdlib.h>
#include <string.h>

#include "arch/x86/registers.h"
#include "platform/svm/npt.h"

#define ARENA_HPA 0x7f000000ull /* what the tables call the memory */

struct npt_arena {
	struct npt_space space;
	void *base;
	struct atomic_u64 *free;
	uint32_t *next;
	uint64_t *snapshot; /* of all pages, and which are free */
	size_t words;
};

static inline void npt_arena_init(
	struct npt_arena *arena, uint32_t pages, uint32_t trees, bool huge)
{
	arena->base = aligned_alloc(PAGE_SIZE, pages * PAGE_SIZE);
	arena->free = calloc(NPT_POOL_WORDS(pages), sizeof(*arena->free));
	arena->next = calloc(pages, sizeof(*arena->next));
	/* Whatever was in a page before must not matter. */
	memset(arena->base, 0xa5, pages * PAGE_SIZE);
	npt_pool_init(&arena->space.pool, arena->base, ARENA_HPA, pages, arena->free, arena->next);
	if (!npt_space_init(&arena->space, trees, huge))
		abort();
	arena->words = pages * (PAGE_SIZE / 8) + NPT_POOL_WORDS(pages);
	arena->snapshot = malloc(arena->words * 8);
}

static inline void npt_arena_fini(struct npt_arena *arena)
{
	free(arena->base);
	free(arena->free);
	free(arena->next);
	free(arena->snapshot);
}

/* Every word of every page that is in use, to the entry; free ones count as zeros. */
static inline void npt_arena_copy(const struct npt_arena *arena, uint64_t *copy)
{
	uint32_t pages = arena->space.pool.pages;

	memset(copy, 0, arena->words * 8);
	for (uint32_t page = 0; page < pages; page++) {
		uint64_t bits = atomic_u64_load(&arena->free[page / 64], memory_order_relaxed);

		if (bits >> (page % 64) & 1)
			copy[pages * (PAGE_SIZE / 8) + page / 64] |= 1ull << (page % 64);
		else
			memcpy(&copy[page * (PAGE_SIZE / 8)],
				(uint8_t *)arena->base + page * PAGE_SIZE, PAGE_SIZE);
	}
}

static inline void npt_arena_remember(struct npt_arena *arena)
{
	npt_arena_copy(arena, arena->snapshot);
}

/* Are all tables as they were, to the entry, and the same pages free? */
static inline bool npt_arena_is_as_before(const struct npt_arena *arena)
{
	uint64_t *copy = malloc(arena->words * 8);
	bool same;

	npt_arena_copy(arena, copy);
	same = memcmp(copy, arena->snapshot, arena->words * 8) == 0;
	free(copy);
	return same;
}

#endif
