/*
 * The second stage of the simulated machine: tables from guest-physical pages to what a lower VTL may
 * do with them, entries of 1 GiB, 2 MiB and 4 KiB, table pages from a small pool; and a VP's cache of
 * them, which holds entries and, as processors do, pointers to table pages. Only a full flush empties
 * that. Whoever walks a table page that has gone back to the pool is found out. What may not enter:
 * guests' tables, judges, VPs.
 */
#ifndef PARAPET_SIM_NPT_H
#define PARAPET_SIM_NPT_H

#include "core/atomic.h"
#include "parapet/types.h"
#include "platform/sim/sim_table.h"

#define SIM_NPT_ENTRIES 512
#define SIM_NPT_PAGES	24 /* more than are needed when all that can be split is, but not by much */

/* An entry: 2:0 access of a leaf; or a table page's number from bit 12 on. */
#define SIM_NPT_LEAF  (1ull << 4)
#define SIM_NPT_TABLE (1ull << 5)
#define SIM_NPT_SHIFT 12

struct sim_npt_page {
	struct atomic_u64 entry[SIM_NPT_ENTRIES];
};

struct sim_npt_pool {
	struct sim_npt_page page[SIM_NPT_PAGES];
	/* How often the page was taken or given back: odd while it is a table. */
	struct atomic_u64 life[SIM_NPT_PAGES];
	struct atomic_u32 used;
};

/* One lower VTL's tables: the entries of 1 GiB; one region more than guests' tables reach. */
struct sim_npt {
	struct sim_npt_pool *pool;
	struct atomic_u64 gig[SIM_GIGS];
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
		uint32_t page_bits; /* of what the whole table maps: 30 or 21 */
		uint32_t page;
		uint64_t base;
		uint64_t life;
	} table[SIM_NESTED_TABLES];
	uint32_t next_entry;
	uint32_t next_table;
};

void sim_npt_init(struct sim_npt *npt, struct sim_npt_pool *pool, uint32_t access);

/* What the tables say now, without any cache. */
uint32_t sim_npt_access(const struct sim_npt *npt, gpa_t gpa);

/*
 * What the VP's processor may do with the page: by its cache, or by a walk that fills the cache.
 * *freed: it followed a pointer to a table page that is no table any more, or not the same one.
 */
uint32_t sim_nested_access(
	struct sim_nested *nested, const struct sim_npt *npt, gpa_t gpa, bool *freed);

/* Drops what a fault was about, so that the next access walks. */
void sim_nested_drop(struct sim_nested *nested, gpa_t gpa);

/* Everything. */
void sim_nested_flush(struct sim_nested *nested);

#endif
