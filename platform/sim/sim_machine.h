/*
 * The inside of the machine of threads: its VPs, what they have noted for the report, and how they go
 * in and out. For the files of this room alone. What may not enter: what guests do, who judges it.
 */
#ifndef PARAPET_SIM_MACHINE_H
#define PARAPET_SIM_MACHINE_H

#include <pthread.h>

#include "core/flush/flush.h"
#include "core/protect/protect.h"
#include "platform/sim/sim.h"
#include "platform/sim/sim_judge.h"
#include "platform/sim/sim_npt.h"
#include "platform/sim/sim_table.h"
#include "platform/sim/sim_tlb.h"

#define SIM_EVENTS 64
#define SIM_NPT_PAGES                                                                              \
	32 /* as many as there are when all that can be split is, but for quarantine */
#define SIM_PINS   16
#define SIM_RANGES 8 /* in a transaction */

enum sim_event_kind {
	EVENT_ENTER,
	EVENT_WITHDRAW,
	EVENT_EXIT,
	EVENT_RANGE,
	EVENT_FULL,
	EVENT_CHANGE,
	EVENT_FLUSH,
	EVENT_RETURNED,
	EVENT_SUSPENDED,
	EVENT_LOCK,
	EVENT_UNLOCK,
	EVENT_FILL,
	EVENT_KICK,
	EVENT_IDLE,
	EVENT_STALE,
	EVENT_TRANSACTION,
	EVENT_RANGE_TO,
	EVENT_COMMITTED,
	EVENT_SYNC,
	EVENT_FAULT,
	EVENT_FORBIDDEN,
};

struct sim_event {
	uint64_t time;
	enum sim_event_kind kind;
	uint64_t value;
};

struct sim;

struct sim_vp {
	_Alignas(CACHE_LINE_BYTES) struct atomic_u32
		kicked; /* written by others: a kick is pending */
	_Alignas(CACHE_LINE_BYTES) struct sim *sim;
	vp_id_t id;
	pthread_t thread;
	uint64_t random;
	struct sim_tlb tlb[FLUSH_LOWER_VTLS];
	struct sim_nested nested[FLUSH_LOWER_VTLS];
	uint64_t entered; /* the judge's time when this stay began */
	bool faulted; /* and it has ended with a fault, of: */
	struct sim_place fault_place;
	uint32_t fault_access;
	struct protect_transaction transaction;
	struct protect_range range[SIM_RANGES]; /* of the transaction */
	uint32_t range_count;
	uint64_t flips_made;
	struct atomic_u64 flips; /* permissions of watched pages changed; written by the VP only */
	uint64_t counter[COUNTER_COUNT];
	uint32_t kick_delay; /* accesses until a kick that is pending is taken */
	uint64_t alive; /* what the watchdog looks at, through `progress` */
	struct atomic_u64 progress;
	struct sim_event event[SIM_EVENTS];
	uint64_t events;
	uint64_t accesses, stays, flushes, suspended, withdrawn, kicks, requests;
	uint64_t faults, spurious, refused;
};

struct sim {
	struct run run;
	struct flush flush;
	struct tlblock tlblock;
	struct run_vp run_vps[SIM_VPS_MAX];
	struct flush_vp flush_vps[SIM_VPS_MAX];
	struct tlblock_vp tlblock_vps[SIM_VPS_MAX];
	struct atomic_u64 waiters[TLBLOCK_WAITERS_NEEDED(SIM_VPS_MAX)];
	uint16_t vp_of_index[SIM_VPS_MAX];
	struct vpset_map map;
	struct sim_table table[FLUSH_LOWER_VTLS]; /* each lower VTL has its own */
	/* Permissions: the engine, what it writes, who judges. */
	bool permissions;
	struct protect protect;
	struct protect_vp protect_vps[SIM_VPS_MAX];
	struct block_region regions[PROTECT_REGIONS(SIM_VPS_MAX)];
	struct protect_pinned pins[SIM_PINS];
	struct sim_npt npt[FLUSH_LOWER_VTLS];
	struct sim_npt_pool pool;
	struct sim_npt_page pages[SIM_NPT_PAGES];
	struct sim_judge judge;
	struct sim_judged judged[FLUSH_LOWER_VTLS][SIM_GIGS][SIM_REGIONS][SIM_PAGES];
	struct atomic_u64 pinned; /* odd: the page that is pinned now and then is pinned */
	struct sim_vp vp[SIM_VPS_MAX];
	struct atomic_u32 stop;
	struct atomic_u32 failed;
	const char *failure;
};

_Static_assert(SIM_NPT_GIGS >= SIM_GIGS, "the second stage maps what guests' tables reach");

/* A random number below `below`, of the VP's own sequence. */
static inline uint32_t sim_random(struct sim_vp *vp, uint32_t below)
{
	vp->random ^= vp->random << 13;
	vp->random ^= vp->random >> 7;
	vp->random ^= vp->random << 17;
	return (uint32_t)((vp->random >> 32) % below);
}

/* Remembers what the VP did, for the report of a failure. */
static inline void sim_note(struct sim_vp *vp, enum sim_event_kind kind, uint64_t value)
{
	vp->event[vp->events++ % SIM_EVENTS] =
		(struct sim_event){__builtin_ia32_rdtsc(), kind, value};
}

/* Says that the VP gets on. True: it must end. */
static inline bool sim_stopping(struct sim_vp *vp)
{
	atomic_u64_store(&vp->progress, ++vp->alive, memory_order_relaxed);
	return atomic_u32_load(&vp->sim->stop, memory_order_relaxed) != 0;
}

/* Ends the run as a failure; the first reason counts. */
void sim_fail(struct sim *sim, const char *why);

/* --- a VP, sim_vp.c ------------------------------------------------------------------------------
 */

extern const struct run_ops sim_ops;

/* Makes a kick pending for `target`. */
void sim_kick(void *platform, vp_id_t target);

/* Between two instructions of the guest: is there a kick, and has it come through? */
bool sim_kick_arrives(struct sim_vp *vp);

/* Entry, as a platform does it; false if withdrawn. Waits if the VTL is suspended. */
bool sim_enter(struct sim_vp *vp, enum vtl vtl);

/* `vtl`, which asked for something, is suspended on this VP: idles until the last holder wakes it. */
void sim_wait_for_holders(struct sim_vp *vp, enum vtl vtl);

/* --- permissions, sim_protect.c ------------------------------------------------------------------
 */

/* Before any VP runs: everything is allowed to VTL0 and VTL1. */
void sim_protect_init(struct sim *sim);

/* The guest uses a page in one way, chosen at random. False: it has faulted and must exit. */
bool sim_protect_touch(struct sim_vp *vp, enum vtl vtl, struct sim_place place);

/* After an exit: VTL2 looks again at what the guest has faulted on. */
void sim_protect_fault(struct sim_vp *vp, enum vtl vtl);

/* VTL2 carries out accesses for the guest, under the TLB lock, which it keeps. */
void sim_protect_emulate(struct sim_vp *vp, enum vtl vtl, struct sim_place place);

/* VTL2, or VTL1 through it if that is what the VP has left, changes permissions, pins, syncs. */
void sim_protect_change(struct sim_vp *vp, enum vtl left);

/* --- what runs on it, sim_guest.c ----------------------------------------------------------------
 */

/* A VP's thread. */
void *sim_vp_main(void *argument);

#endif
