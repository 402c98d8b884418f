/*
 * What core/protect asks of a platform: to write the attributes of a batch of ranges, in two steps
 * so that a batch is written as a whole or not at all. What may not enter: who may ask, locks,
 * flushes.
 *
 * Shaped for all platforms: nested page tables (svm, the sim machine) reserve table pages in
 * prepare and write entries in write; TDX sets the attributes of a lower VTL's pages one by one
 * (TDG.MEM.PAGE.ATTR.WR) and SNP adjusts the RMP (RMPADJUST): they have nothing to reserve and
 * never free a table page. On all of them a translation that the write made stale is killed by a
 * full flush of that VTL, which core/protect asks of core/flush.
 */
#ifndef PARAPET_CORE_PROTECT_OPS_H
#define PARAPET_CORE_PROTECT_OPS_H

#include "parapet/types.h"

/* One range of a transaction. */
struct protect_range {
	uint64_t base; /* guest-physical, 4 KiB-aligned, like bytes */
	uint64_t bytes;
	uint8_t access; /* ACCESS_ bits: what the VTL may do from now on */
	uint8_t old; /* by write: every ACCESS_ bit that some page of the range had */
	bool mixed; /* by write: not all pages had the same */
	uint16_t region; /* core/protect's own: the region that records the change */
};

/* Table pages that are out of the tables and not free yet; a platform's own numbers, 0: none. */
struct protect_pages {
	uint32_t first;
	uint32_t last;
};

/* The writes of one transaction on their way through a platform. */
struct protect_batch {
	enum vtl target;
	struct protect_range *ranges; /* in order of address, none touches another */
	uint32_t count;
	uint32_t reserved; /* by prepare: the platform's own */
	uint64_t entries; /* by write: table entries (or pages) written */
	bool lost; /* by write: some page lost some permission */
	struct protect_pages freed; /* by write: pages that processors may still be walking */
};

/*
 * All are called with the page-table shards of the batch's ranges held (protect.h), so no two
 * calls work on the same 1 GiB of one VTL at the same time; calls for different ones do. `access`,
 * `join` and `release` are called without.
 */
struct protect_ops {
	/* Can `target` be held to exactly these ACCESS_ bits? (SVM: one execute bit, for instance.) */
	bool (*can)(void *platform, enum vtl target, uint32_t access);
	/* Reserves what writing the batch can need. False: there is not enough, nothing changed. */
	bool (*prepare)(void *platform, struct protect_batch *batch);
	/* Writes the batch that prepare has reserved for, and gives back what it did not need. */
	void (*write)(void *platform, struct protect_batch *batch);
	/*
	 * What `target` may do with the page now. No lock: the caller holds the TLB lock of `target`
	 * (its VTL2 uses a translation), so that no table page is reused under its walk.
	 */
	uint32_t (*access)(void *platform, enum vtl target, gpa_t gpa);
	/* Both lists as one. The lists are the caller's alone. */
	struct protect_pages (*join)(
		void *platform, struct protect_pages first, struct protect_pages second);
	/* No processor walks these pages any more: they are free. */
	void (*release)(void *platform, struct protect_pages pages);
};

#endif
