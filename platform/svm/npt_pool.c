/* Table pages. See npt_pool.h. */
#include "platform/svm/npt_pool.h"

void npt_pool_init(struct npt_pool *pool, void *base, uint64_t hpa, uint32_t pages,
	struct atomic_u64 *free, uint32_t *next)
{
	*pool = (struct npt_pool){
		.base = base,
		.hpa = hpa,
		.pages = pages,
		.free = free,
		.next = next,
	};
	/* Relaxed, all: nobody else runs yet. */
	for (uint32_t page = 0; page < pages; page++) {
		atomic_u64_fetch_or(&free[page / 64], 1ull << (page % 64), memory_order_relaxed);
	}
	atomic_u32_store(&pool->left, pages, memory_order_relaxed);
}

bool npt_pool_reserve(struct npt_pool *pool, uint32_t count)
{
	/* Relaxed: a guess, for the exchange. */
	uint32_t left = atomic_u32_load(&pool->left, memory_order_relaxed);

	do {
		if (left < count) {
			return false;
		}
		/* Relaxed: a number. The page itself is found, or looked for again, by its bit. */
	} while (!atomic_u32_compare_exchange(
		&pool->left, &left, left - count, memory_order_relaxed));
	return true;
}

void npt_pool_unreserve(struct npt_pool *pool, uint32_t count)
{
	/* Relaxed: see npt_pool_reserve. */
	atomic_u32_fetch_add(&pool->left, count, memory_order_relaxed);
}

struct atomic_u64 *npt_pool_take(struct npt_pool *pool)
{
	/*
	 * There is a bit for each reservation. Others may take the one that this turn would have
	 * found and leave one behind it: then there is another turn, and somebody has got on. Or
	 * the number is seen before the bit, which is on its way.
	 */
	for (;;) {
		for (uint32_t word = 0; word < NPT_POOL_WORDS(pool->pages); word++) {
			/* Relaxed: a guess; N1 takes it. */
			uint64_t bits = atomic_u64_load(&pool->free[word], memory_order_relaxed);

			while (bits) {
				uint64_t bit = bits & -bits;
				/*
				 * N1, pairs with N2: whoever walked or wrote the page before has
				 * done so. Without it the page is filled while it is still being
				 * read, and what was written there before comes out on top.
				 */
				uint64_t before = atomic_u64_fetch_and(
					&pool->free[word], ~bit, memory_order_acquire);

				if (before & bit) {
					uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(bit);

					return (struct atomic_u64 *)(pool->base + page * PAGE_SIZE);
				}
				bits = before & ~bit;
			}
		}
		atomic_relax();
	}
}

uint32_t npt_pool_left(const struct npt_pool *pool)
{
	/* Relaxed: a report. */
	return atomic_u32_load(&pool->left, memory_order_relaxed);
}

uint64_t npt_pool_hpa(const struct npt_pool *pool, const struct atomic_u64 *table)
{
	return pool->hpa + (uint64_t)((const uint8_t *)table - pool->base);
}

struct atomic_u64 *npt_pool_table(const struct npt_pool *pool, uint64_t hpa)
{
	return (struct atomic_u64 *)(pool->base + (hpa - pool->hpa));
}

/* Pages count from 1 in lists. */
struct protect_pages npt_pool_list(struct npt_pool *pool, const struct atomic_u64 *table)
{
	uint32_t page = (uint32_t)(((const uint8_t *)table - pool->base) / PAGE_SIZE) + 1;

	pool->next[page - 1] = 0;
	return (struct protect_pages){page, page};
}

struct protect_pages npt_pool_join(
	struct npt_pool *pool, struct protect_pages first, struct protect_pages second)
{
	if (!first.first) {
		return second;
	}
	if (!second.first) {
		return first;
	}
	pool->next[first.last - 1] = second.first;
	return (struct protect_pages){first.first, second.last};
}

void npt_pool_release(struct npt_pool *pool, struct protect_pages pages)
{
	uint32_t count = 0;

	for (uint32_t page = pages.first; page;) {
		uint32_t index = page - 1;

		/* Read first: who takes the page may put it into a list of theirs. */
		page = pool->next[index];
		/* N2, pairs with N1: see there. */
		atomic_u64_fetch_or(
			&pool->free[index / 64], 1ull << (index % 64), memory_order_release);
		count++;
	}
	npt_pool_unreserve(pool, count);
}
