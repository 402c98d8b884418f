/*
 * The TLB lock: says that somebody above a lower VTL uses that VTL's translations on a VP: VTL2
 * when it walks for an instruction or an operand or keeps an address that came with an exit, VTL1
 * when it asks for it (TLFS, HvRegisterVsmVpSecureConfigVtlN: TlbLocked). Who asks for a flush
 * waits for those who hold it at that moment, and does not spin: the VTL that asked is suspended, a
 * higher one on the same VP stays runnable, the last holder wakes the VP.
 *
 * Never a deadlock: a VTL waits for holders above it only. VTL2 releases its locks before it looks
 * whether the VTL it wants to enter is suspended, so it holds none while it waits; VTL1 waits for
 * VTL2's and VTL0 for both. VTLs of the same level look after their own use of translations.
 *
 * What may not enter: queues, translations, the reason for a lock.
 */
#ifndef PARAPET_CORE_TLBLOCK_H
#define PARAPET_CORE_TLBLOCK_H

#include "core/atomic.h"
#include "core/run/run.h"
#include "core/vpset/vpset.h"
#include "parapet/types.h"

/* (VTL0, by VTL1), (VTL0, by VTL2), (VTL1, by VTL2). */
#define TLBLOCK_LOCKS 3

/* A VP waits on behalf of VTL0, VTL1 or VTL2 itself (which polls). */
#define TLBLOCK_CALLERS 3

/* Waiters are kept one bit each, 16 VPs to a word (four bits each, three used). */
#define TLBLOCK_VPS_PER_WORD	  16
#define TLBLOCK_WAITER_WORDS(vps) (((vps) + TLBLOCK_VPS_PER_WORD - 1) / TLBLOCK_VPS_PER_WORD)
#define TLBLOCK_VPS_MAX		  (64 * TLBLOCK_VPS_PER_WORD) /* a bit of `asked` for each word */

struct tlblock_lock {
	struct atomic_u64 turn; /* odd: held. Written by the VP only */
	struct atomic_u64 asked; /* words of waiters that may not be empty */
};

struct tlblock_vp {
	_Alignas(CACHE_LINE_BYTES) struct tlblock_lock lock[TLBLOCK_LOCKS];
	/* Holders that this VP waits for, per VTL that is suspended. */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u64 waiting[TLBLOCK_CALLERS];
};

struct tlblock {
	struct tlblock_vp *vps;
	struct atomic_u64 *waiters; /* [vp][lock][word] */
	uint32_t waiter_words;
	struct run *run;
};

/* Words of memory for waiters that tlblock_init needs for so many VPs. */
#define TLBLOCK_WAITERS_NEEDED(vps) ((size_t)(vps)*TLBLOCK_LOCKS * TLBLOCK_WAITER_WORDS(vps))

/*
 * Takes over `vps` and `waiters` (TLBLOCK_WAITERS_NEEDED words), zeroed. At most TLBLOCK_VPS_MAX
 * VPs. Before any VP runs.
 */
void tlblock_init(struct tlblock *tlblock, struct tlblock_vp *vps, struct atomic_u64 *waiters,
	struct run *run);

/*
 * Own VP: `by`, a VTL above `vtl`, uses translations of `vtl` from now on. A walk that begins after
 * this sees every change whose flush does not wait for it. For an address that came with an exit:
 * call before run_exited. Taking a lock twice is taking it once.
 */
void tlblock_take(struct tlblock *tlblock, vp_id_t vp, enum vtl vtl, enum vtl by);

/* Own VP: that use is over. Wakes VPs for which this was the last one. Nothing if it is not held.
 */
void tlblock_release(struct tlblock *tlblock, vp_id_t vp, enum vtl vtl, enum vtl by);

/* Own VP: does `by` hold the lock on `vtl`? */
bool tlblock_is_held(const struct tlblock *tlblock, vp_id_t vp, enum vtl vtl, enum vtl by);

/*
 * Own VP, before it enters any lower VTL and before it looks whether that is suspended: releases
 * what VTL2 holds (step 1 of the target).
 */
void tlblock_release_own(struct tlblock *tlblock, vp_id_t vp);

/*
 * Step 6: `waiter`, own VP in VTL2, on behalf of `caller`, after everybody who ran `vtl` has left
 * it: who of the set holds a lock on `vtl` now? True: somebody does, `caller` is suspended on this
 * VP until tlblock_is_suspended says otherwise. The waiter's own VTL2 is passed over.
 */
bool tlblock_suspend(struct tlblock *tlblock, vp_id_t waiter, enum vtl caller,
	const struct vpset *set, enum vtl vtl);

/*
 * Own VP: must `caller` not run on? Look before run_enter_begin, and after run_idle_begin: the last
 * holder ends the idle wait. Only the VP itself can suspend its VTLs, so there is no need to look
 * again after run_enter_begin.
 */
bool tlblock_is_suspended(const struct tlblock *tlblock, vp_id_t vp, enum vtl caller);

#endif
