/*
 * Who runs what: for every VP one word that says which trust level it runs now and how often it has
 * come back to VTL2; kicks, which make a VP leave a lower VTL, once however many ask; and requests,
 * the bits of work that a VP must look at before it enters a lower VTL again.
 *
 * What may not enter: what the work is, how a platform kicks, any lock, any allocation.
 *
 * This is half of the synchronisation protocol (docs/architecture.md); core/flush and core/tlblock
 * are the rest. The memory orders are named R1, R2, ... here and explained where they are used.
 *
 * What a platform must do for the proof to hold:
 * - kicks are held off from before run_enter_begin (or run_idle_begin) until the lower VTL (or the
 *   wait) has begun, and stay pending meanwhile: one that was sent in between ends it at once;
 * - a kick that was sent arrives sooner or later; spurious and late ones do no harm;
 * - only the VP itself calls what is marked "own VP" below.
 */
#ifndef PARAPET_CORE_RUN_H
#define PARAPET_CORE_RUN_H

#include "core/atomic.h"
#include "core/vpset/vpset.h"
#include "parapet/types.h"

/* What a VP does, the low two bits of its word. A lower VTL has the number of its trust level. */
enum run_state {
	RUN_VTL0 = VTL0,
	RUN_VTL1 = VTL1,
	RUN_VTL2 = VTL2,
	RUN_IDLE = 3, /* in VTL2, in a wait that a kick ends */
};

/* Sets of states, for those who kick. */
#define RUN_IN(state)	(1u << (state))
#define RUN_IN_LOWER	(RUN_IN(RUN_VTL0) | RUN_IN(RUN_VTL1))
#define RUN_IN_ANY_STOP (RUN_IN_LOWER | RUN_IN(RUN_IDLE))

#define RUN_STATE_BITS 2
#define RUN_STATE_MASK 3ull

/*
 * The only way from here to the platform. Called in VTL2, with no lock held; must not wait.
 */
struct run_ops {
	/* Make `target` leave the lower VTL or the idle wait that it is in or about to begin. */
	void (*kick)(void *platform, vp_id_t target);
};

/* One VP. Memory of the embedder's, zeroed, one for each VP. */
struct run_vp {
	/*
	 * How often the VP came back to VTL2, times four, plus enum run_state. One word, so that
	 * nobody can pair the state of one stay with the count of another. Written by the VP only.
	 * 62 bits of count do not wrap in the life of a machine.
	 */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u64 word;
	/* The word of the latest stay that somebody sent a kick for. Written by whoever kicks. */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u64 kicked;
	/* Work to look at before the next entry. Bits are the embedder's. */
	struct atomic_u64 requests;
};

_Static_assert(sizeof(struct run_vp) == 2 * CACHE_LINE_BYTES, "own lines for writer and others");

struct run {
	struct run_vp *vps;
	uint32_t vp_count;
	const struct run_ops *ops;
	void *platform; /* handed to the operations */
	bool pauses; /* between two looks of a wait */
};

/* How a kick went. */
enum run_kick {
	/* Was in none of the states asked for: nothing sent, nothing to wait for. */
	RUN_KICK_NOT_RUNNING,
	RUN_KICK_COALESCED, /* somebody else has sent, or is sending, the kick for this stay */
	RUN_KICK_SENT,
};

/* What run_cancel_mask did, for counters. */
struct run_cancelled {
	uint32_t sent;
	uint32_t skipped; /* VPs that needed no kick, or had it from somebody else */
};

/* Takes over `vps`, an array of vp_count; every VP is in VTL2. Before any VP runs. */
void run_init(struct run *run, struct run_vp *vps, uint32_t vp_count, const struct run_ops *ops,
	void *platform);

/*
 * Whether run_wait_left pauses (PAUSE) between two looks; it does at first. Not to is for a software
 * processor, where the pause ends what runs and takes longer than what is waited for. Before any VP
 * runs.
 */
void run_set_pauses(struct run *run, bool pauses);

/*
 * Own VP, in VTL2, kicks held off: says that it runs lower VTL `vtl` from now on. Then look at
 * everything that could have been asked of the VP (drain the flush queue, run_requests_pending);
 * and either enter, or run_enter_withdraw. Never blocks.
 */
void run_enter_begin(struct run *run, vp_id_t vp, enum vtl vtl);

/* Own VP: did not enter after all, is in VTL2. Counts like an exit: somebody may wait for one. */
void run_enter_withdraw(struct run *run, vp_id_t vp);

/*
 * Own VP: has left the lower VTL and uses no translation that came with the exit, or holds the TLB
 * lock that covers it (core/tlblock). Call before the window for pending kicks is opened.
 */
void run_exited(struct run *run, vp_id_t vp);

/*
 * Own VP, in VTL2, kicks held off: is about to wait for a kick. Then look at everything that could
 * end the wait (run_requests_pending, tlblock_is_suspended); only if there is nothing, wait.
 * run_idle_end in both cases.
 */
void run_idle_begin(struct run *run, vp_id_t vp);
void run_idle_end(struct run *run, vp_id_t vp);

/* What a VP does now, for reports only: it may have changed before this returns. */
enum run_state run_get_state(const struct run *run, vp_id_t vp);

/* How often a VP has come back to VTL2 (withdrawn entries and idle waits count). For reports. */
uint64_t run_get_exits(const struct run *run, vp_id_t vp);

/*
 * Sends a kick if `target` is in one of `states` (RUN_IN bits) and nobody has kicked it out of this
 * stay. The caller has made its request visible and passed a sequentially consistent fence. Unless
 * the answer is RUN_KICK_NOT_RUNNING, *word is what to give to run_wait_left.
 */
enum run_kick run_kick(struct run *run, vp_id_t target, uint32_t states, uint64_t *word);

/*
 * Own VP in VTL2: waits until `target` has left the stay that run_kick saw. Spins; the target needs
 * nothing from anybody for that, so it is bounded by the time that a kick takes.
 */
void run_wait_left(struct run *run, vp_id_t target, uint64_t word);

/*
 * hcl_cancel_mask: own VP, in VTL2: takes each VP of the set out of the lower VTLs in `states` (of
 * RUN_IN_LOWER) and returns when each has been in VTL2 since the call. `initiator` itself is in
 * VTL2 and is passed over. Contains the fence that run_kick asks for. Work is bounded by the VPs of
 * the set; up to RUN_CANCEL_BATCH VPs leave at the same time.
 */
struct run_cancelled run_cancel_mask(
	struct run *run, vp_id_t initiator, const struct vpset *set, uint32_t states);

#define RUN_CANCEL_BATCH 64

/*
 * Kicks `target` if it is in one of `states`; for those who have changed something that the target
 * looks at after run_enter_begin or run_idle_begin, and need not wait. Contains the fence.
 */
enum run_kick run_wake(struct run *run, vp_id_t target, uint32_t states);

/*
 * Asks `target` to look at the requests in `bits` before it next runs a lower VTL, and gets it out
 * of a lower VTL or an idle wait if it is in one. Any VP may ask, `target` itself too. What was
 * written before is visible to whoever takes the bits.
 */
void run_request_post(struct run *run, vp_id_t target, uint64_t bits);

/* Own VP, after run_enter_begin or run_idle_begin: is there any request? Takes nothing. */
bool run_requests_pending(const struct run *run, vp_id_t vp);

/* Own VP in VTL2: the requests, which are now the caller's to serve. */
uint64_t run_requests_take(struct run *run, vp_id_t vp);

#endif
