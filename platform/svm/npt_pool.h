/*
 * Table pages: a fixed number of them, taken and given back while VPs run. First reserved, then
 * taken, so that whoever has begun to write tables never runs out. What may not enter: what is in a
 * table. No lock; compiles for tests on any computer.
 */
#ifndef PARAPET_SVM_NPT_POOL_H
#define PARAPET_SVM_NPT_POOL_H

#include "core/atomic.h"
#include "core/protect/protect_ops.h"

struct npt_pool {
	uint8_t *base; /* of the pages, as Parapet sees them */
	uint64_t hpa; /* and as the processor does */
	uint32_t pages;
	struct atomic_u64 *free; /* a bit for each page that is not in use */
	uint32_t *next; /* of a page in a list (struct protect_pages): the one after it */
	struct atomic_u32 left; /* free pages that nobody has reserved */
};

/* Words of memory that the bits of so many pages take. */
#define NPT_POOL_WORDS(pages) (((pages) + 63) / 64)

/*
 * Takes over `pages` pages of memory at `base`, which is page-aligned and has the physical address
 * `hpa`; NPT_POOL_WORDS words `free` and `pages` words `next`, all zeroed.
 */
void npt_pool_init(struct npt_pool *pool, void *base, uint64_t hpa, uint32_t pages,
	struct atomic_u64 *free, uint32_t *next);

/* Sets `count` pages aside for the caller. False: there are not so many. */
bool npt_pool_reserve(struct npt_pool *pool, uint32_t count);

/* Gives back a reservation of `count` pages that have not been taken. */
void npt_pool_unreserve(struct npt_pool *pool, uint32_t count);

/* One of the pages that the caller has reserved, the lowest there is; its content is whatever. */
struct atomic_u64 *npt_pool_take(struct npt_pool *pool);

/* Pages that are neither in use nor reserved. */
uint32_t npt_pool_left(const struct npt_pool *pool);

/* A page as the processor sees it, and back. */
uint64_t npt_pool_hpa(const struct npt_pool *pool, const struct atomic_u64 *table);
struct atomic_u64 *npt_pool_table(const struct npt_pool *pool, uint64_t hpa);

/* Lists of pages that are in no table and not free yet. Their owner's alone. */
struct protect_pages npt_pool_list(struct npt_pool *pool, const struct atomic_u64 *table);
struct protect_pages npt_pool_join(
	struct npt_pool *pool, struct protect_pages first, struct protect_pages second);

/* Frees the pages of a list: nothing walks them any more. */
void npt_pool_release(struct npt_pool *pool, struct protect_pages pages);

#endif
