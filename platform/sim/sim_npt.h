/*
 * The second stage of the simulated machine: tables from guest-physical pages to what a lower VTL may
 * do with them, entries of 1 GiB, 2 MiB and 4 KiB, table pages from a pool; and a VP's cache of them,
 * which holds entries and, as processors do, pointers to table pages. Only a full flush empties that.
 * Whoever walks a table page that has gone back to the pool is found out. What may not enter: guests'
 * tables, judges, VPs.
 */
#ifndef PARAPET_SIM_NPT_H
#define PARAPET_SIM_NPT_H

#include "core/atomic.h"
#include "core/protect/protect_ops.h"
#include "parapet/types.h"

#define SIM_NPT_LEVEL_BITS 9
#define SIM_NPT_GIGS	   3
#define SIM_NPT_ENTRIES	   (1u << SIM_NPT_LEVEL_BITS)
#define SIM_NPT_TOP_BITS   (PAGE_BITS + 2 * SIM_NPT_LEVEL_BITS)

/*
 * An entry is a leaf with ACCESS_ bits, or the number of a table page and how often that page had
 * been taken or given back when it became this table.
 */
#define SIM_NPT_LEAF	   (1ull << 4)
#define SIM_NPT_TABLE	   (1ull << 5)
#define SIM_NPT_PAGE_SHIFT 8
#define SIM_NPT_LIFE_SHIFT 24

struct sim_npt_page {
	struct atomic_u64 entry[SIM_NPT_ENTRIES];
	struct atomic_u64 life; /* turns: odd while it is a table */
	uint64_t next; /* in a list of freed pages: number plus one */
};

struct sim_npt_pool {
	struct sim_npt_page *page;
	uint32_t count;
	_Alignas(CACHE_LINE_BYTES) struct atomic_u32 used; /* or reserved */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u32 hand; /* where to look for a free one */
};

/* One lower VTL's tables, from the entries of 1 GiB on. */
struct sim_npt {
	struct sim_npt_pool *pool;
	struct atomic_u64 gig[SIM_NPT_GIGS];
};

#define SIM_NESTED_ENTRIES 16
#define SIM_NESTED_TABLES  4

/* One VP's cache of one lower VTL's second stage. */
struct sim_nested {
	struct {
		bool valid;
		uint32_t page_bits;
		uint32_t access;
		uint64_t base;
	} entry[SIM_NESTED_ENTRIES];
	struct {
		bool valid;
		uint32_t page_bits; /* of all that the table maps */
		uint64_t base;
		uint64_t pointer; /* the entry that led to it */
	} table[SIM_NESTED_TABLES];
	uint32_t next_entry;
	uint32_t next_table;
};

/* A pool of `count` zeroed pages, fewer than 65,536. */
void sim_npt_pool_init(struct sim_npt_pool *pool, struct sim_npt_page *pages, uint32_t count);

/* Everything may be done with `access`. */
void sim_npt_init(struct sim_npt *npt, struct sim_npt_pool *pool, uint32_t access);

/* As protect_ops: prepare, write, join and release, for the tables of batch->target. */
bool sim_npt_prepare(struct sim_npt *npt, struct protect_batch *batch);
void sim_npt_write(struct sim_npt *npt, struct protect_batch *batch);
struct protect_pages sim_npt_join(
	struct sim_npt_pool *pool, struct protect_pages first, struct protect_pages second);
void sim_npt_release(struct sim_npt_pool *pool, struct protect_pages pages);

/* What the tables say now. *freed: a table page was freed under the walk. */
uint32_t sim_npt_access(const struct sim_npt *npt, gpa_t gpa, bool *freed);

/*
 * What the VP's processor may do with the page: by its cache, or by a walk that fills the cache.
 * *freed: it followed a pointer to a table page that is no table any more, or not the same one.
 */
uint32_t sim_nested_access(
	struct sim_nested *nested, const struct sim_npt *npt, gpa_t gpa, bool *freed);

/* Drops the entry that a fault was about: the next access walks. */
void sim_nested_drop(struct sim_nested *nested, gpa_t gpa);

/* Everything. */
void sim_nested_flush(struct sim_nested *nested);

/* --- between the files of this -------------------------------------------------------------------
 */

/* The entry for the address in the table that maps 1 << page_bits bytes around it. */
static inline struct atomic_u64 *sim_npt_entry(
	const struct sim_npt_pool *pool, uint64_t pointer, gpa_t gpa, uint32_t page_bits)
{
	return &pool->page[pointer >> SIM_NPT_PAGE_SHIFT & 0xffff]
			.entry[gpa.value >> (page_bits - SIM_NPT_LEVEL_BITS) &
				(SIM_NPT_ENTRIES - 1)];
}

/* Reads it as a processor does. *freed: by now the page is not that table. */
uint64_t sim_npt_read(const struct sim_npt_pool *pool, uint64_t pointer, gpa_t gpa,
	uint32_t page_bits, bool *freed);

#endif
