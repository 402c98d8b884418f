/*
 * The flush path: requests go into a queue per VP and lower VTL, many producers and one consumer,
 * and are carried out before that VP runs that VTL again; whoever runs it now is kicked out of it
 * first. When flush_request is done, no VP completes another access through what was asked to be
 * flushed.
 *
 * What may not enter: locks, allocation, guest memory (the caller copied its input once), the way a
 * platform invalidates. Every loop is bounded by VPs addressed, ranges listed or slots of a ring.
 *
 * The rule that makes the ring safe without waiting: the reservation is the request. A VP that
 * finds a slot reserved flushes what the slot says, and everything if it does not say it yet. So a
 * producer that is slow, or finds no room, delays nobody and loses nothing.
 */
#ifndef PARAPET_CORE_FLUSH_H
#define PARAPET_CORE_FLUSH_H

#include "core/atomic.h"
#include "core/flush/flush_range.h"
#include "core/run/run.h"
#include "core/tlblock/tlblock.h"
#include "core/vpset/vpset.h"
#include "parapet/types.h"

#ifndef FLUSH_RING_SLOTS
#define FLUSH_RING_SLOTS 32 /* a power of two; the explorer uses a smaller ring */
#endif

#define FLUSH_LOWER_VTLS 2

/* Of a request. */
#define FLUSH_NON_GLOBAL (1u << 0) /* leave translations alone that are marked global */
#define FLUSH_ALL_SPACES (1u << 1) /* every address space; otherwise `space` alone */
#define FLUSH_EXTENDED	 (1u << 2) /* the ranges are in the extended format */

/* What a VP must invalidate as a whole before it runs a VTL. */
#define FLUSH_FULL_NON_GLOBAL (1u << 0) /* everything that is not marked global */
#define FLUSH_FULL_ALL	      (1u << 1)

/* One range for the platform to invalidate. */
struct flush_entry {
	struct flush_range range;
	uint64_t
		space; /* page-aligned address of the guest's root table; 0 with FLUSH_ALL_SPACES */
	uint32_t flags; /* FLUSH_ALL_SPACES or 0 */
};

/* What the platform does for the VP that drains its queue. */
struct flush_sink {
	/*
	 * Invalidates one range for lower VTL `vtl` of `vp`, the VP that calls, and is done with it
	 * on return. False: cannot, or does not pay; everything is then invalidated at entry.
	 */
	bool (*invalidate)(
		void *platform, vp_id_t vp, enum vtl vtl, const struct flush_entry *entry);
	void *platform;
};

/* A slot's state: the position that it is at, times four, plus one of these. */
enum flush_slot_phase {
	FLUSH_SLOT_FREE = 0, /* for the producer of this position, if it comes in time */
	FLUSH_SLOT_WRITING = 1, /* that producer has it */
	FLUSH_SLOT_READY = 2, /* and has filled it */
};

struct flush_slot {
	_Alignas(32) struct atomic_u64 state;
	struct atomic_u64 range; /* as the guest listed it */
	struct atomic_u64 space; /* page-aligned; flags in the low bits */
};

struct flush_queue {
	/* Written by producers. */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u64 tail; /* positions reserved so far */
	struct atomic_u32 full; /* FLUSH_FULL_* asked for */
	/* Written by the VP. */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u64 head; /* positions seen by the VP so far */
	uint32_t
		pending; /* FLUSH_FULL_* drained, not yet carried out by an entry; the VP's alone */
	_Alignas(CACHE_LINE_BYTES) struct flush_slot slot[FLUSH_RING_SLOTS];
};

/* One VP. Memory of the embedder's, zeroed, one for each VP. */
struct flush_vp {
	struct flush_queue queue[FLUSH_LOWER_VTLS];
	_Alignas(CACHE_LINE_BYTES) uint64_t *counter; /* block_vp.counter, or NULL */
};

struct flush {
	struct flush_vp *vps;
	struct run *run;
	struct tlblock *tlblock;
	uint32_t pages_max; /* a request for more pages than this becomes a full one */
};

struct flush_request {
	struct vpset set;
	enum vtl vtl; /* whose translations */
	/* Who asks: a VTL not below `vtl`, suspended while locks last. */
	enum vtl caller;
	/* The guest's root table address (a CR3 value); only its page number counts. */
	uint64_t space;
	uint32_t flags; /* FLUSH_* */
	const uint64_t *ranges; /* in the guest's format, already copied and checked */
	uint32_t range_count; /* 0: the whole address space */
};

enum flush_result {
	FLUSH_DONE,
	/* Done as soon as tlblock_is_suspended(initiator, caller) is false: run it only then. */
	FLUSH_SUSPENDED,
};

/*
 * Takes over `vps`, zeroed, one for each VP of `run`. A request for more than pages_max pages,
 * summed over its ranges (a large page counts as one), becomes a full flush. Before any VP runs.
 */
void flush_init(struct flush *flush, struct flush_vp *vps, struct run *run, struct tlblock *tlblock,
	uint32_t pages_max);

/* Where the VP counts (COUNTER_FLUSH_*, include/parapet/block.h): COUNTER_COUNT words. Or NULL. */
void flush_set_counters(struct flush *flush, vp_id_t vp, uint64_t *counter);

/*
 * Steps 2 to 6 of the protocol: `initiator`, in VTL2, has written what it changed. On return every
 * VP of the set has given up the old translations or will before it uses one; accesses that were
 * under way are over, except those of TLB lock holders: then FLUSH_SUSPENDED (only for callers
 * below VTL2; a VTL2 caller gets it too and polls with tlblock_is_suspended). The hypercall's
 * result may be written at once in both cases: what counts is when the calling VTL runs on. It need
 * not be reissued, and then cannot starve.
 */
enum flush_result flush_request(
	struct flush *flush, vp_id_t initiator, const struct flush_request *request);

/*
 * The same without kicks and waits: a VP of the set that is in the VTL now may use the old
 * translations until it next leaves it. Every entry that begins after this has returned carries the
 * request out.
 */
void flush_request_lazily(
	struct flush *flush, vp_id_t initiator, const struct flush_request *request);

/*
 * Own VP, after run_enter_begin(vtl): carries out what is in the queue. Ranges go to `sink` at once
 * (NULL: the platform has no such thing). The answer is what the entry itself must invalidate,
 * FLUSH_FULL_* bits, 0 for nothing; it stays so until flush_entered, however often an entry is
 * withdrawn or fails.
 */
uint32_t flush_drain(struct flush *flush, vp_id_t vp, enum vtl vtl, const struct flush_sink *sink);

/* Own VP: has something been put into its queue and not been drained yet? A look, no more. */
bool flush_is_asked(const struct flush *flush, vp_id_t vp, enum vtl vtl);

/* Own VP: the lower VTL was really entered with the invalidation that flush_drain asked for. */
void flush_entered(struct flush *flush, vp_id_t vp, enum vtl vtl);

/* Own VP in VTL2: asks for FLUSH_FULL_* at its next entry of `vtl`, as for a MOV to CR3 it
 * emulates. */
void flush_own(struct flush *flush, vp_id_t vp, enum vtl vtl, uint32_t full);

#endif
