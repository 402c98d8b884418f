/*
 * A small machine for scenarios: up to three VPs, each with a TLB, a line for kicks, and the core
 * proper; pages whose table entries change once, from version 0 to version 1. It says when an
 * access is stale. What may not enter: anything the core should do itself.
 */
#ifndef PARAPET_EXPLORE_MACHINE_H
#define PARAPET_EXPLORE_MACHINE_H

#include "core/flush/flush.h"
#include "explore.h"

#define MACHINE_VPS   3
#define MACHINE_PAGES 4

extern struct run machine_run;
extern struct flush machine_flush;
extern struct tlblock machine_tlblock;
extern struct atomic_u64 machine_pte[MACHINE_PAGES];

/* Everything as after start: all VPs in VTL2, every page at version 0 and in nobody's TLB. */
void machine_setup(void);

/* `vp` has the old translation of `page` in its TLB. In setup. */
void machine_prime(vp_id_t vp, uint32_t page);

/* --- the guest and the processor
 * ------------------------------------------------------------------- */

/* From now on kicks stay pending; what has arrived is swallowed. Before run_enter_begin,
 * run_idle_begin. */
void machine_hold_off_kicks(vp_id_t vp);

/* One attempt to enter, the TLB invalidated as the core says. False: withdrawn for a request. */
bool machine_enter(vp_id_t vp, enum vtl vtl);

/* The guest uses a page, through its TLB. */
void machine_access(vp_id_t vp, uint32_t page);

/* The guest runs until it is kicked, for ever if it is not; or it leaves of its own. Both are
 * tried. */
void machine_run_on(vp_id_t vp);

/* Out, nothing kept from the exit. */
void machine_exit(vp_id_t vp);

/* One stay: in (again and again if withdrawn, requests served), access, on, out. */
void machine_stay(vp_id_t vp, uint32_t page);

/* Waits in VTL2, with nothing pending, for a kick. Must come unless `forever`. */
void machine_sleep(vp_id_t vp, bool forever);

/* --- VTL2 ----------------------------------------------------------------------------------------
 */

/* VTL2 walks the tables now; the version it finds. */
uint64_t machine_walk(uint32_t page);

/* VTL2 uses a translation it has: that of a walk, or of an exit. */
void machine_use(vp_id_t vp, uint32_t page, uint64_t version);

/* The version that the guest's TLB has, which an exit reports. The page must be in the TLB. */
uint64_t machine_translated(vp_id_t vp, uint32_t page);

/*
 * Changes page `first` to `first + count - 1`, asks the VPs in `mask` to flush them (`full`:
 * everything), is suspended if it must be; then says that the flush has returned.
 */
void machine_flush_pages(vp_id_t me, uint32_t first, uint32_t count, uint64_t mask, bool full);

/* The same in two parts: asks, and does not wait; waits, for all that was asked for. */
void machine_flush_ask(vp_id_t me, uint32_t first, uint32_t count, uint64_t mask, bool full);
void machine_wait_for_holders(vp_id_t me, enum vtl caller);

/* Says that what made the page's old translation stale has returned to its caller. */
void machine_returned(vp_id_t me, uint32_t page);

#endif
