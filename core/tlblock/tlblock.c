/*
 * TLB locks. A lock is a number that its VP counts up, odd while held: "whoever holds it at this
 * moment" is then simply the value. Waiters leave a bit with each holder and count the bits;
 * whoever takes a bit away takes one off the count.
 */
#include "core/tlblock/tlblock.h"

static uint32_t tlblock_index(enum vtl vtl, enum vtl by)
{
	return vtl == VTL1 ? 2 : by == VTL2;
}

static struct atomic_u64 *tlblock_waiters(
	struct tlblock *tlblock, vp_id_t holder, uint32_t lock, uint32_t word)
{
	return &tlblock->waiters[((size_t)holder * TLBLOCK_LOCKS + lock) * tlblock->waiter_words +
		word];
}

void tlblock_init(struct tlblock *tlblock, struct tlblock_vp *vps, struct atomic_u64 *waiters,
	struct run *run)
{
	*tlblock = (struct tlblock){
		.vps = vps,
		.waiters = waiters,
		.waiter_words = TLBLOCK_WAITER_WORDS(run->vp_count),
		.run = run,
	};
}

void tlblock_take(struct tlblock *tlblock, vp_id_t vp, enum vtl vtl, enum vtl by)
{
	struct tlblock_lock *lock = &tlblock->vps[vp].lock[tlblock_index(vtl, by)];
	uint64_t turn = atomic_u64_load(&lock->turn, memory_order_relaxed); /* the VP's own */

	if (turn & 1)
		return;
	/* Relaxed: T1 orders it against the walk; R3 publishes a lock taken for an exit. */
	atomic_u64_store(&lock->turn, turn + 1, memory_order_relaxed);
	/*
	 * T1, pairs with R2, and so with N5 (core/protect), which is before that: the walk comes
	 * after it, and the look at what is withheld. Without it they may be early and find the old
	 * tables although the initiator does not find the lock.
	 */
	atomic_fence(memory_order_seq_cst);
}

/* One holder less for the waiter whose bit this was. */
static void tlblock_wake(struct tlblock *tlblock, uint32_t bit_number)
{
	vp_id_t waiter = bit_number / 4;
	struct atomic_u64 *waiting = &tlblock->vps[waiter].waiting[bit_number % 4];

	/* Relaxed: T5 has put the holder's accesses before it. */
	if (atomic_u64_fetch_add(waiting, ~0ull, memory_order_relaxed) == 1)
		run_wake(tlblock->run, waiter, RUN_IN(RUN_IDLE));
}

/* Takes away and serves the bits that waiters left with a lock that has been released. */
static void tlblock_serve(struct tlblock *tlblock, vp_id_t vp, uint32_t index)
{
	struct tlblock_lock *lock = &tlblock->vps[vp].lock[index];
	/*
	 * Relaxed, this and the exchange below: an exchange meets what T5 makes it see, the bit of
	 * every waiter that T6 lets see the lock held. One that is set later is taken back by its
	 * waiter. Should the count be lowered before the waiter raises it, it still comes out
	 * right: only the waiter reads it, and reads its own raise.
	 */
	uint64_t words = atomic_u64_exchange(&lock->asked, 0, memory_order_relaxed);

	for (; words != 0; words &= words - 1) {
		uint32_t word = (uint32_t)__builtin_ctzll(words);
		uint64_t bits = atomic_u64_exchange(
			tlblock_waiters(tlblock, vp, index, word), 0, memory_order_relaxed);

		for (; bits != 0; bits &= bits - 1)
			tlblock_wake(tlblock, word * 64 + (uint32_t)__builtin_ctzll(bits));
	}
}

void tlblock_release(struct tlblock *tlblock, vp_id_t vp, enum vtl vtl, enum vtl by)
{
	uint32_t index = tlblock_index(vtl, by);
	struct tlblock_lock *lock = &tlblock->vps[vp].lock[index];
	uint64_t turn = atomic_u64_load(&lock->turn, memory_order_relaxed); /* the VP's own */

	if (!(turn & 1))
		return;
	/* T3, pairs with T4: accesses made under the lock are before it. Without it an initiator
	 * that finds the lock free returns while one of them is still on its way. */
	atomic_u64_store(&lock->turn, turn + 1, memory_order_release);
	/* T5, pairs with T6, and with T2 through the count: the look for waiters comes after it.
	 * Without it the VP may find no waiter while the waiter still finds the lock held, and
	 * waits for ever. */
	atomic_fence(memory_order_seq_cst);
	/* Relaxed: T5 makes it see who saw the lock held. */
	if (atomic_u64_load(&lock->asked, memory_order_relaxed) != 0)
		tlblock_serve(tlblock, vp, index);
}

bool tlblock_is_held(const struct tlblock *tlblock, vp_id_t vp, enum vtl vtl, enum vtl by)
{
	/* Relaxed: only the VP itself writes it. */
	return atomic_u64_load(
		       &tlblock->vps[vp].lock[tlblock_index(vtl, by)].turn, memory_order_relaxed) &
		1;
}

void tlblock_release_own(struct tlblock *tlblock, vp_id_t vp)
{
	tlblock_release(tlblock, vp, VTL0, VTL2);
	tlblock_release(tlblock, vp, VTL1, VTL2);
}

/* Leaves a bit with a holder that was seen at `turn`; takes it back if that turn is over. */
static void tlblock_wait_for(struct tlblock *tlblock, vp_id_t waiter, enum vtl caller,
	vp_id_t holder, uint32_t index, uint64_t turn)
{
	struct tlblock_lock *lock = &tlblock->vps[holder].lock[index];
	struct atomic_u64 *waiting = &tlblock->vps[waiter].waiting[caller];
	uint32_t word = waiter / TLBLOCK_VPS_PER_WORD;
	uint64_t bit = 1ull << (waiter % TLBLOCK_VPS_PER_WORD * 4 + caller);
	struct atomic_u64 *waiters = tlblock_waiters(tlblock, holder, index, word);

	/*
	 * Relaxed, all four: T6 puts them before the second look; see tlblock_serve. One bit, one
	 * count: a caller that has asked for several flushes in one go may wait for this lock
	 * already. (A bit of an earlier turn cannot be met: the holder has exchanged it away before
	 * it took the lock again, and nothing comes between an exchange and what it read.)
	 */
	atomic_u64_fetch_add(waiting, 1, memory_order_relaxed);
	if (atomic_u64_fetch_or(waiters, bit, memory_order_relaxed) & bit)
		atomic_u64_fetch_add(waiting, ~0ull, memory_order_relaxed);
	atomic_u64_fetch_or(&lock->asked, 1ull << word, memory_order_relaxed);
	/* T6, pairs with T5: see there. */
	atomic_fence(memory_order_seq_cst);
	/* Acquire: T4 once more, for a turn that has just ended. */
	if (atomic_u64_load(&lock->turn, memory_order_acquire) == turn)
		return;
	/*
	 * Over. Whoever takes the bit away takes one off the count: if the holder has, it does that
	 * too. Relaxed, both: the VP's own affair.
	 */
	if (atomic_u64_fetch_and(waiters, ~bit, memory_order_relaxed) & bit)
		atomic_u64_fetch_add(waiting, ~0ull, memory_order_relaxed);
}

static void tlblock_look(
	struct tlblock *tlblock, vp_id_t waiter, enum vtl caller, vp_id_t holder, uint32_t index)
{
	struct tlblock_lock *lock = &tlblock->vps[holder].lock[index];
	/* T4, pairs with T3: a lock found free has been released, and what was done under it is
	 * over. */
	uint64_t turn = atomic_u64_load(&lock->turn, memory_order_acquire);

	if (turn & 1)
		tlblock_wait_for(tlblock, waiter, caller, holder, index, turn);
}

bool tlblock_suspend(struct tlblock *tlblock, vp_id_t waiter, enum vtl caller,
	const struct vpset *set, enum vtl vtl)
{
	struct vpset_iter iter;
	vp_id_t vp;

	vpset_iter_begin(&iter, set);
	while (vpset_iter_next(&iter, &vp)) {
		if (vtl == VTL0 && caller == VTL0)
			tlblock_look(tlblock, waiter, caller, vp, tlblock_index(VTL0, VTL1));
		if (vp != waiter)
			tlblock_look(tlblock, waiter, caller, vp, tlblock_index(vtl, VTL2));
	}
	return tlblock_is_suspended(tlblock, waiter, caller);
}

bool tlblock_is_suspended(const struct tlblock *tlblock, vp_id_t vp, enum vtl caller)
{
	/*
	 * T2, pairs with T5: what was done under the locks that are gone is over. Without it the
	 * suspended VTL runs on while an access of a holder is still on its way.
	 */
	return atomic_u64_load(&tlblock->vps[vp].waiting[caller], memory_order_acquire) != 0;
}
