/*
 * Permissions on the scenarios' machine: core/protect, the image's nested tables (platform/svm/npt.c)
 * with two entries to a table, and for each VP a cache of them. A scenario takes the permission to write away from a page; writing it
 * afterwards is what the oracle of machine.h calls the old translation. What may not enter: anything
 * the core should do itself.
 *
 * Page n of MACHINE_PAGES is two pages of 4 KiB, so that all three sizes of entry occur: pages 0 and 1
 * share one entry of the largest size, 2 and 3 the other; each of the two has locks of its own.
 */
#ifndef PARAPET_EXPLORE_MACHINE_PROTECT_H
#define PARAPET_EXPLORE_MACHINE_PROTECT_H

#include "core/protect/protect.h"
#include "machine.h"
#include "platform/svm/npt.h"

#define MACHINE_PAGE_BYTES   (2 * PAGE_SIZE)
#define MACHINE_TABLES_FIXED 2 /* the root, and the one below it that all pages share */

extern struct protect machine_protect;
extern struct npt_space machine_npt;

/*
 * machine_setup, and everything may be done with every page; `tables` pages for tables, besides those
 * that are always in use (MACHINE_TABLES_FIXED). Whatever is in a page that is free, nobody may load it.
 */
void machine_protect_setup(uint32_t tables);

/* In setup: `vp` has in its cache what it needs to use the page. */
void machine_protect_prime(vp_id_t vp, uint32_t page);

/* In setup: what the pages may be used for. */
void machine_protect_map(uint32_t page, uint32_t count, uint32_t access);

/* For machine_enter: the VP's cache is empty. */
void machine_protect_flush(vp_id_t vp);

/* Walks if it has to: can the guest write the page now? */
bool machine_can_write(vp_id_t vp, uint32_t page);

/* The guest writes a page, if it can. */
void machine_write(vp_id_t vp, uint32_t page);

/* One stay in VTL0: in, write, on, out. */
void machine_write_stay(vp_id_t vp, uint32_t page);

/* VTL2 writes for the guest, twice, under the TLB lock, if it may. */
void machine_emulate_write(vp_id_t vp, uint32_t page);

/* The same in two parts; the lock is held between them. In setup, too: the first. */
void machine_emulate_begin(vp_id_t vp, uint32_t page);
void machine_emulate_end(vp_id_t vp, uint32_t page);

/*
 * A transaction of one range from page `first` on (4 KiB if `count` is 0), carried out and waited for.
 */
enum protect_status machine_commit(
	vp_id_t me, enum vtl by, uint32_t first, uint32_t count, uint32_t access, uint32_t flags);

/* The same, not waited for. */
enum protect_status machine_commit_ask(
	vp_id_t me, enum vtl by, uint32_t first, uint32_t count, uint32_t access, uint32_t flags);

/* In two parts: put together, in setup; carried out, not waited for. */
void machine_commit_prepare(
	vp_id_t me, enum vtl by, uint32_t first, uint32_t count, uint32_t access, uint32_t flags);
enum protect_status machine_commit_prepared(vp_id_t me);

/* As protect_ops: release. The pages become what nobody may load. */
void machine_protect_release(struct protect_pages pages);

/* What the tables say about the page; at the end. */
uint32_t machine_protect_final(uint32_t page);

#endif
