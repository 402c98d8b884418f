/* The second stage's tables: what is written, in which order, and the pool. See sim_npt.h. */
#include "platform/sim/sim_npt.h"

#define NO_UNIT UINT64_MAX

void sim_npt_pool_init(struct sim_npt_pool *pool, struct sim_npt_page *pages, uint32_t count)
{
	pool->page = pages;
	pool->count = count;
	atomic_u32_store(&pool->used, 0, memory_order_relaxed);
	atomic_u32_store(&pool->hand, 0, memory_order_relaxed);
}

void sim_npt_init(struct sim_npt *npt, struct sim_npt_pool *pool, uint32_t access)
{
	npt->pool = pool;
	for (uint32_t gig = 0; gig < SIM_NPT_GIGS; gig++)
		atomic_u64_store(&npt->gig[gig], SIM_NPT_LEAF | access, memory_order_relaxed);
}

static uint64_t npt_load(const struct atomic_u64 *entry)
{
	/* Relaxed: the engine's locks order those who write. */
	return atomic_u64_load(entry, memory_order_relaxed);
}

static void npt_store(struct protect_batch *batch, struct atomic_u64 *entry, uint64_t value)
{
	/* Release: a processor that finds a pointer finds the table filled. */
	atomic_u64_store(entry, value, memory_order_release);
	batch->entries++;
}

/* --- the pool ------------------------------------------------------------------------------------
 */

static struct sim_npt_page *npt_page(const struct sim_npt_pool *pool, uint64_t pointer)
{
	return &pool->page[pointer >> SIM_NPT_PAGE_SHIFT & 0xffff];
}

static void npt_give_back(struct sim_npt_pool *pool, uint32_t pages)
{
	/* Relaxed: a count. */
	atomic_u32_fetch_add(&pool->used, 0u - pages, memory_order_relaxed);
}

/* A page that has been reserved, so there is one. The answer is the entry that points to it. */
static uint64_t npt_take(struct sim_npt_pool *pool)
{
	while (true) {
		/* Relaxed: a guess. */
		uint64_t i =
			atomic_u32_fetch_add(&pool->hand, 1, memory_order_relaxed) % pool->count;
		uint64_t life = npt_load(&pool->page[i].life);

		/* Acquire, pairs with sim_npt_release: whoever had it has done with it. */
		if (!(life & 1) &&
			atomic_u64_compare_exchange(
				&pool->page[i].life, &life, life + 1, memory_order_acquire))
			return SIM_NPT_TABLE | i << SIM_NPT_PAGE_SHIFT |
				(life + 1) << SIM_NPT_LIFE_SHIFT;
	}
}

struct protect_pages sim_npt_join(
	struct sim_npt_pool *pool, struct protect_pages first, struct protect_pages second)
{
	if (first.first == 0)
		return second;
	if (second.first == 0)
		return first;
	pool->page[first.last - 1].next = second.first;
	first.last = second.last;
	return first;
}

void sim_npt_release(struct sim_npt_pool *pool, struct protect_pages pages)
{
	while (pages.first != 0) {
		struct sim_npt_page *page = &pool->page[pages.first - 1];

		pages.first = (uint32_t)page->next;
		/* Release, pairs with npt_take. */
		atomic_u64_fetch_add(&page->life, 1, memory_order_release);
		npt_give_back(pool, 1);
	}
}

/* --- writing -------------------------------------------------------------------------------------
 */

static bool is_inside(const struct protect_range *range, uint64_t base, uint64_t size)
{
	return range->base <= base && base + size <= range->base + range->bytes;
}

/*
 * Table pages that writing the range needs below `entry`. `last` are the units, of 1 GiB and 2 MiB,
 * that an earlier range of the batch splits already.
 */
static uint32_t npt_splits(struct sim_npt *npt, uint64_t entry, uint64_t base, uint32_t page_bits,
	const struct protect_range *range, uint64_t last[2])
{
	uint64_t size = 1ull << page_bits;
	uint64_t step = size / SIM_NPT_ENTRIES;
	uint64_t end = range->base + range->bytes;
	uint32_t splits = 0;

	if (!(entry & SIM_NPT_TABLE)) {
		if ((entry & ACCESS_ALL) == range->access || is_inside(range, base, size))
			return 0;
		if (last[page_bits == SIM_NPT_TOP_BITS] != base) {
			last[page_bits == SIM_NPT_TOP_BITS] = base;
			splits++;
		}
	}
	if (page_bits == SIM_NPT_TOP_BITS - SIM_NPT_LEVEL_BITS)
		return splits;
	for (uint64_t at = range->base > base ? range->base & ~(step - 1) : base;
		at < end && at < base + size; at += step) {
		uint64_t below = entry & SIM_NPT_TABLE
			? npt_load(sim_npt_entry(npt->pool, entry, GPA(at), page_bits))
			: entry;

		splits += npt_splits(npt, below, at, page_bits - SIM_NPT_LEVEL_BITS, range, last);
	}
	return splits;
}

bool sim_npt_prepare(struct sim_npt *npt, struct protect_batch *batch)
{
	uint64_t last[2] = {NO_UNIT, NO_UNIT};

	batch->reserved = 0;
	for (uint32_t i = 0; i < batch->count; i++) {
		const struct protect_range *range = &batch->ranges[i];

		for (uint64_t gig = range->base >> SIM_NPT_TOP_BITS;
			gig << SIM_NPT_TOP_BITS < range->base + range->bytes; gig++)
			batch->reserved += npt_splits(npt, npt_load(&npt->gig[gig]),
				gig << SIM_NPT_TOP_BITS, SIM_NPT_TOP_BITS, range, last);
	}
	/* Relaxed: a count. */
	if (atomic_u32_fetch_add(&npt->pool->used, batch->reserved, memory_order_relaxed) +
			batch->reserved <=
		npt->pool->count)
		return true;
	npt_give_back(npt->pool, batch->reserved);
	return false;
}

/* A table in place of a leaf, saying the same. */
static uint64_t npt_split(
	struct sim_npt *npt, struct protect_batch *batch, struct atomic_u64 *entry)
{
	uint64_t old = npt_load(entry);
	uint64_t pointer = npt_take(npt->pool);

	for (uint32_t i = 0; i < SIM_NPT_ENTRIES; i++)
		atomic_u64_store(
			&npt_page(npt->pool, pointer)->entry[i], old, memory_order_relaxed);
	npt_store(batch, entry, pointer);
	batch->reserved--;
	return pointer;
}

static void npt_note_old(struct protect_range *range, uint32_t access, bool first)
{
	range->mixed |= !first && range->old != access;
	range->old |= (uint8_t)access;
}

static void npt_set(struct sim_npt *npt, struct protect_batch *batch, struct protect_range *range,
	struct atomic_u64 *entry, uint64_t base, uint32_t page_bits, bool *first)
{
	uint64_t size = 1ull << page_bits;
	uint64_t step = size / SIM_NPT_ENTRIES;
	uint64_t end = range->base + range->bytes;
	uint64_t old = npt_load(entry);

	if (!(old & SIM_NPT_TABLE)) {
		uint32_t access = old & ACCESS_ALL;
		bool inside = is_inside(range, base, size);

		if (inside || access == range->access) {
			npt_note_old(range, access, *first);
			*first = false;
			batch->lost |= (access & ~(uint32_t)range->access) != 0;
			if (access != range->access)
				npt_store(batch, entry, SIM_NPT_LEAF | range->access);
			return;
		}
		old = npt_split(npt, batch, entry);
	}
	for (uint64_t at = range->base > base ? range->base & ~(step - 1) : base;
		at < end && at < base + size; at += step)
		npt_set(npt, batch, range, sim_npt_entry(npt->pool, old, GPA(at), page_bits), at,
			page_bits - SIM_NPT_LEVEL_BITS, first);
}

/* Leaves in place of tables whose entries are all the same leaf, where the range lies. */
static void npt_merge(struct sim_npt *npt, struct protect_batch *batch,
	const struct protect_range *range, struct atomic_u64 *entry, uint64_t base,
	uint32_t page_bits)
{
	uint64_t size = 1ull << page_bits;
	uint64_t step = size / SIM_NPT_ENTRIES;
	uint64_t end = range->base + range->bytes;
	uint64_t pointer = npt_load(entry);
	struct protect_pages freed;
	struct sim_npt_page *page;
	uint64_t leaf;

	if (!(pointer & SIM_NPT_TABLE))
		return;
	for (uint64_t at = range->base > base ? range->base & ~(step - 1) : base;
		page_bits == SIM_NPT_TOP_BITS && at < end && at < base + size; at += step)
		npt_merge(npt, batch, range, sim_npt_entry(npt->pool, pointer, GPA(at), page_bits),
			at, page_bits - SIM_NPT_LEVEL_BITS);
	page = npt_page(npt->pool, pointer);
	leaf = npt_load(&page->entry[0]);
	if (leaf & SIM_NPT_TABLE)
		return;
	for (uint32_t i = 1; i < SIM_NPT_ENTRIES; i++) {
		if (npt_load(&page->entry[i]) != leaf)
			return;
	}
	npt_store(batch, entry, leaf);
	page->next = 0;
	freed.first = freed.last = (uint32_t)(page - npt->pool->page) + 1;
	batch->freed = sim_npt_join(npt->pool, batch->freed, freed);
}

void sim_npt_write(struct sim_npt *npt, struct protect_batch *batch)
{
	for (uint32_t i = 0; i < batch->count; i++) {
		struct protect_range *range = &batch->ranges[i];
		bool first = true;

		range->old = 0;
		range->mixed = false;
		for (uint64_t gig = range->base >> SIM_NPT_TOP_BITS;
			gig << SIM_NPT_TOP_BITS < range->base + range->bytes; gig++)
			npt_set(npt, batch, range, &npt->gig[gig], gig << SIM_NPT_TOP_BITS,
				SIM_NPT_TOP_BITS, &first);
	}
	/* Only now: merging one range's table could undo the split of the next one's. */
	for (uint32_t i = 0; i < batch->count; i++) {
		const struct protect_range *range = &batch->ranges[i];

		for (uint64_t gig = range->base >> SIM_NPT_TOP_BITS;
			gig << SIM_NPT_TOP_BITS < range->base + range->bytes; gig++)
			npt_merge(npt, batch, range, &npt->gig[gig], gig << SIM_NPT_TOP_BITS,
				SIM_NPT_TOP_BITS);
	}
	npt_give_back(npt->pool, batch->reserved);
	batch->reserved = 0;
}

/* --- reading -------------------------------------------------------------------------------------
 */

uint64_t sim_npt_read(const struct sim_npt_pool *pool, uint64_t pointer, gpa_t gpa,
	uint32_t page_bits, bool *freed)
{
	/* Acquire, both: a processor does not read a table before the pointer to it. */
	uint64_t entry =
		atomic_u64_load(sim_npt_entry(pool, pointer, gpa, page_bits), memory_order_acquire);

	*freed |= atomic_u64_load(&npt_page(pool, pointer)->life, memory_order_relaxed) !=
		pointer >> SIM_NPT_LIFE_SHIFT;
	return entry;
}

uint32_t sim_npt_access(const struct sim_npt *npt, gpa_t gpa, bool *freed)
{
	uint64_t entry =
		atomic_u64_load(&npt->gig[gpa.value >> SIM_NPT_TOP_BITS], memory_order_acquire);

	for (uint32_t page_bits = SIM_NPT_TOP_BITS; entry & SIM_NPT_TABLE && !*freed;
		page_bits -= SIM_NPT_LEVEL_BITS)
		entry = sim_npt_read(npt->pool, entry, gpa, page_bits, freed);
	return (uint32_t)(entry & ACCESS_ALL);
}
