/*
 * Run states, kicks and requests. Atomics only: no lock, no allocation, no wait but the one in
 * run_wait_left, which its caller enters in VTL2 where nobody waits for it.
 *
 * Two orders carry the weight, R1 and R2: a pair of fences of which one is first. If the
 * initiator's is, the target sees the request when it looks after its own; if the target's is, the
 * initiator sees that the target runs, and kicks. Without either fence both can miss each other.
 */
#include "core/run/run.h"

static enum run_state run_word_state(uint64_t word)
{
	return (enum run_state)(word & RUN_STATE_MASK);
}

void run_init(struct run *run, struct run_vp *vps, uint32_t vp_count, const struct run_ops *ops,
	void *platform)
{
	*run = (struct run){
		.vps = vps,
		.vp_count = vp_count,
		.ops = ops,
		.platform = platform,
		.pauses = true,
	};
	for (vp_id_t vp = 0; vp < vp_count; vp++) {
		/* Relaxed, all three: nobody else runs yet. */
		atomic_u64_store(&vps[vp].word, RUN_VTL2, memory_order_relaxed);
		atomic_u64_store(&vps[vp].kicked, RUN_VTL2, memory_order_relaxed);
		atomic_u64_store(&vps[vp].requests, 0, memory_order_relaxed);
	}
}

void run_set_pauses(struct run *run, bool pauses)
{
	run->pauses = pauses;
}

/* Says that a stay in a lower VTL or in an idle wait begins, in the count that the VP has. */
static void run_begin(struct run *run, vp_id_t vp, enum run_state state)
{
	struct run_vp *own = &run->vps[vp];
	/* Relaxed: the VP reads what it wrote itself. */
	uint64_t word = atomic_u64_load(&own->word, memory_order_relaxed);

	/*
	 * R9, pairs with R5: an initiator that waits for the stay before this one may find this
	 * word without ever having seen the one between them (R3). Without it that initiator
	 * returns while an access of the stay it waited for is still on its way.
	 */
	atomic_u64_store(&own->word, (word & ~RUN_STATE_MASK) | state, memory_order_release);
	/*
	 * R1, pairs with R2, with R6, and with F10 (core/flush): after it the VP looks for requests.
	 * Without it the store above may be late: the VP finds no request, the initiator finds it
	 * in VTL2 and sends no kick, and the VP runs on with a translation that is stale, or sleeps
	 * through what it was asked.
	 */
	atomic_fence(memory_order_seq_cst);
}

/* Says that the VP is in VTL2 and uses no translation, and that the stay is over. */
static void run_publish_vtl2(struct run *run, vp_id_t vp)
{
	struct run_vp *own = &run->vps[vp];
	uint64_t word = atomic_u64_load(&own->word, memory_order_relaxed); /* its own */

	word = (word & ~RUN_STATE_MASK) + (1ull << RUN_STATE_BITS);
	/*
	 * R3, pairs with R4 and R5: what the VP did in the lower VTL, and a TLB lock that it took
	 * for an address which came with the exit, is before it. Without it an initiator that sees
	 * the VP in VTL2 returns while an access of the lower VTL is still on its way, or overlooks
	 * the lock.
	 */
	atomic_u64_store(&own->word, word | RUN_VTL2, memory_order_release);
}

void run_enter_begin(struct run *run, vp_id_t vp, enum vtl vtl)
{
	run_begin(run, vp, (enum run_state)vtl);
}

void run_enter_withdraw(struct run *run, vp_id_t vp)
{
	run_publish_vtl2(run, vp);
}

void run_exited(struct run *run, vp_id_t vp)
{
	run_publish_vtl2(run, vp);
}

void run_idle_begin(struct run *run, vp_id_t vp)
{
	run_begin(run, vp, RUN_IDLE);
}

void run_idle_end(struct run *run, vp_id_t vp)
{
	run_publish_vtl2(run, vp);
}

enum run_state run_get_state(const struct run *run, vp_id_t vp)
{
	/* Relaxed: a report. */
	return run_word_state(atomic_u64_load(&run->vps[vp].word, memory_order_relaxed));
}

uint64_t run_get_exits(const struct run *run, vp_id_t vp)
{
	/* Relaxed: a report. */
	return atomic_u64_load(&run->vps[vp].word, memory_order_relaxed) >> RUN_STATE_BITS;
}

enum run_kick run_kick(struct run *run, vp_id_t target, uint32_t states, uint64_t *word)
{
	struct run_vp *vp = &run->vps[target];
	/*
	 * R4, pairs with R3: a VP found in VTL2 has finished what it did in the lower VTL, and the
	 * TLB locks it took for that are visible. Without it the initiator returns before that
	 * access.
	 */
	uint64_t seen = atomic_u64_load(&vp->word, memory_order_acquire);

	if (!(states & RUN_IN(run_word_state(seen))))
		return RUN_KICK_NOT_RUNNING;
	*word = seen;
	/*
	 * A kick belongs to one stay, and the word names the stay: nothing has to be cleared at
	 * entry, and no leftover of an earlier stay can be taken for a kick of this one. Who finds
	 * this stay's word here knows that somebody has seen it begin and sends, or has sent, the
	 * kick that ends it. Relaxed, both: the word carries no data, and an exchange always meets
	 * the latest value. A straggler that puts back an older stay's word costs an extra kick.
	 */
	if (atomic_u64_load(&vp->kicked, memory_order_relaxed) == seen)
		return RUN_KICK_COALESCED;
	if (atomic_u64_exchange(&vp->kicked, seen, memory_order_relaxed) == seen)
		return RUN_KICK_COALESCED;
	run->ops->kick(run->platform, target);
	return RUN_KICK_SENT;
}

void run_wait_left(struct run *run, vp_id_t target, uint64_t word)
{
	/*
	 * R5, pairs with R3 and R9: what the VP did in the stay that is over is before what the
	 * initiator does next, and so is a TLB lock taken for it. Without it a page may be reused
	 * while the last access through the old translation is still on its way.
	 */
	while (atomic_u64_load(&run->vps[target].word, memory_order_acquire) == word) {
		if (run->pauses)
			atomic_relax();
	}
}

struct run_cancelled run_cancel_mask(
	struct run *run, vp_id_t initiator, const struct vpset *set, uint32_t states)
{
	struct {
		vp_id_t vp;
		uint64_t word;
	} left[RUN_CANCEL_BATCH];
	struct run_cancelled cancelled = {0};
	struct vpset_iter iter;
	bool more = true;

	/*
	 * R2, pairs with R1, and with T1 (core/tlblock): the requests that the caller made are
	 * before it, and what it wrote into tables; the look at the run states, and at TLB locks,
	 * comes after it. Without it a look may be early: the VP is found in VTL2 although it has
	 * begun to run, and its own look at the queue was before the request.
	 */
	atomic_fence(memory_order_seq_cst);
	vpset_iter_begin(&iter, set);
	while (more) {
		uint32_t count = 0;
		vp_id_t vp;

		while (count < RUN_CANCEL_BATCH && (more = vpset_iter_next(&iter, &vp))) {
			enum run_kick kick;

			if (vp == initiator)
				continue;
			kick = run_kick(run, vp, states, &left[count].word);
			if (kick == RUN_KICK_SENT)
				cancelled.sent++;
			else
				cancelled.skipped++;
			if (kick != RUN_KICK_NOT_RUNNING)
				left[count++].vp = vp;
		}
		for (uint32_t i = 0; i < count; i++)
			run_wait_left(run, left[i].vp, left[i].word);
	}
	return cancelled;
}

enum run_kick run_wake(struct run *run, vp_id_t target, uint32_t states)
{
	uint64_t word;

	/* R6, pairs with R1: like R2, for those who do not wait. Without it a VP about to wait
	 * misses the request, and the requester misses that it is about to wait. */
	atomic_fence(memory_order_seq_cst);
	return run_kick(run, target, states, &word);
}

void run_request_post(struct run *run, vp_id_t target, uint64_t bits)
{
	/* R7, pairs with R8: what the request is about is written before its bit is seen. */
	uint64_t before =
		atomic_u64_fetch_or(&run->vps[target].requests, bits, memory_order_release);

	/* Bits that were all set already: not taken yet, and whoever set them sees to the wake. */
	if ((before & bits) != bits)
		run_wake(run, target, RUN_IN_ANY_STOP);
}

bool run_requests_pending(const struct run *run, vp_id_t vp)
{
	/* Relaxed: R1 lies between this and the state that others look at; taking acquires. */
	return atomic_u64_load(&run->vps[vp].requests, memory_order_relaxed) != 0;
}

uint64_t run_requests_take(struct run *run, vp_id_t vp)
{
	struct run_vp *own = &run->vps[vp];

	/* Relaxed: a bit that is missed here is seen after the next R1. Saves the locked exchange.
	 */
	if (atomic_u64_load(&own->requests, memory_order_relaxed) == 0)
		return 0;
	/* R8, pairs with R7: see there. */
	return atomic_u64_exchange(&own->requests, 0, memory_order_acquire);
}
