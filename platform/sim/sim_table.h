/*
 * The simulated guest's page tables: three levels in shared memory, leaves of 4 KiB, 2 MiB and 1
 * GiB, two address spaces that share a global part, permissions. And the judge: for each 4 KiB
 * page, the oldest version of its translation that may still be used. What may not enter: TLBs,
 * VPs.
 *
 * Tables are small: SIM_GIGS gibibytes are mapped, of each only the first SIM_REGIONS times 2 MiB,
 * of each of those only the first SIM_PAGES pages. A 2 MiB region belongs to one VP, which alone
 * changes it.
 */
#ifndef PARAPET_SIM_TABLE_H
#define PARAPET_SIM_TABLE_H

#include "core/atomic.h"
#include "parapet/types.h"

#define SIM_SPACES 2
#define SIM_GIGS                                                                                   \
	3 /* the first in 4 KiB and 2 MiB pages, the second one 1 GiB page, the third global */
#define SIM_REGIONS    4
#define SIM_PAGES      8
#define SIM_GIG_LARGE  1
#define SIM_GIG_GLOBAL 2

/* An entry: flags, and the version in place of a frame number. Versions only grow. */
#define SIM_PRESENT	  (1ull << 0)
#define SIM_WRITE	  (1ull << 1)
#define SIM_EXECUTE	  (1ull << 2)
#define SIM_GLOBAL	  (1ull << 3)
#define SIM_LEAF	  (1ull << 4)
#define SIM_VERSION_SHIFT 12

struct sim_gig {
	struct atomic_u64 entry; /* a leaf, or the regions below */
	struct atomic_u64 region[SIM_REGIONS]; /* each a leaf, or the pages below */
	struct atomic_u64 page[SIM_REGIONS][SIM_PAGES];
	/* The oldest version of a page's translation that an access may use. */
	struct atomic_u64 oldest[SIM_REGIONS][SIM_PAGES];
};

struct sim_table {
	/* [space][gig]; the global gig is in space 0 and serves both. */
	struct sim_gig gig[SIM_SPACES][SIM_GIGS];
	struct atomic_u64 version; /* the latest given to an entry */
};

/* Where a page is. */
struct sim_place {
	uint32_t space;
	uint32_t gig;
	uint32_t region;
	uint32_t page;
};

/* What a walk finds: an entry and the size of what it maps. */
struct sim_translation {
	uint64_t entry;
	uint32_t page_bits;
};

void sim_table_init(struct sim_table *table);

gva_t sim_place_gva(struct sim_place place);

/* What hardware finds when it walks now. */
struct sim_translation sim_table_walk(struct sim_table *table, struct sim_place place);

/*
 * The region's owner changes it: a new version of one page (split first if need be), or of the
 * whole region as one large page. Permissions and all. Returns the new version.
 */
uint64_t sim_table_change_page(
	struct sim_table *table, struct sim_place place, uint64_t permissions);
uint64_t sim_table_change_region(
	struct sim_table *table, struct sim_place place, uint64_t permissions);
uint64_t sim_table_change_gig(
	struct sim_table *table, struct sim_place place, uint64_t permissions);

/* The flush that followed has returned: pages of the leaf of this size may not be older any more.
 */
void sim_table_retire(
	struct sim_table *table, struct sim_place place, uint32_t page_bits, uint64_t version);

/* The oldest version that an access beginning now may use. */
uint64_t sim_table_oldest(struct sim_table *table, struct sim_place place);

static inline uint64_t sim_entry_version(uint64_t entry)
{
	return entry >> SIM_VERSION_SHIFT;
}

#endif
