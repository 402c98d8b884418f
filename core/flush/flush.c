/*
 * Steps 2 to 6 of the protocol for the initiator, step 4 for the target. The fences are in core/run
 * (R1 and R2), the ring in flush_queue.c.
 */
#include "core/flush/flush_queue.h"
#include "parapet/block.h"

void flush_init(struct flush *flush, struct flush_vp *vps, struct run *run, struct tlblock *tlblock,
	uint32_t pages_max)
{
	*flush = (struct flush){
		.vps = vps,
		.run = run,
		.tlblock = tlblock,
		.pages_max = pages_max,
	};
	for (vp_id_t vp = 0; vp < run->vp_count; vp++) {
		vps[vp].counter = NULL;
		for (uint32_t vtl = 0; vtl < FLUSH_LOWER_VTLS; vtl++)
			flush_queue_init(&vps[vp].queue[vtl]);
	}
}

void flush_set_counters(struct flush *flush, vp_id_t vp, uint64_t *counter)
{
	flush->vps[vp].counter = counter;
}

/* Counts for the VP that runs this; nobody else writes its counters. */
static void flush_count(struct flush *flush, vp_id_t vp, enum block_counter counter, uint64_t add)
{
	if (flush->vps[vp].counter)
		flush->vps[vp].counter[counter] += add;
}

/* Whether it pays to flush range by range. */
static bool flush_ranges_pay(const struct flush *flush, const struct flush_request *request)
{
	uint64_t pages = 0;

	if (request->range_count == 0 || request->range_count > FLUSH_RING_SLOTS)
		return false;
	for (uint32_t i = 0; i < request->range_count; i++) {
		struct flush_range range;

		if (!flush_range_decode(
			    request->ranges[i], request->flags & FLUSH_EXTENDED, &range))
			return false;
		pages += range.pages;
	}
	return pages <= flush->pages_max;
}

/* Step 2: puts the request into the queue of each VP of the set, the initiator's own included. */
static void flush_post(struct flush *flush, vp_id_t initiator, const struct flush_request *request)
{
	uint64_t space = request->flags & (FLUSH_ALL_SPACES | FLUSH_EXTENDED);
	bool by_range = flush_ranges_pay(flush, request);
	/* Ranges flush global translations too (TLFS), so widening them must. */
	uint32_t full = request->range_count == 0 && (request->flags & FLUSH_NON_GLOBAL)
		? FLUSH_FULL_NON_GLOBAL
		: FLUSH_FULL_ALL;
	struct vpset_iter iter;
	vp_id_t vp;

	if (!(request->flags & FLUSH_ALL_SPACES))
		space |= request->space & PAGE_MASK;

	flush_count(flush, initiator, COUNTER_FLUSH_REQUESTS, 1);
	if (by_range)
		flush_count(flush, initiator, COUNTER_FLUSH_RANGES, request->range_count);
	else
		flush_count(flush, initiator, COUNTER_FLUSH_FULL, 1);

	vpset_iter_begin(&iter, &request->set);
	while (vpset_iter_next(&iter, &vp)) {
		struct flush_queue *queue = &flush->vps[vp].queue[request->vtl];

		if (!by_range)
			flush_queue_post_full(queue, full);
		else if (!flush_queue_post_ranges(
				 queue, request->ranges, request->range_count, space))
			flush_count(flush, initiator, COUNTER_FLUSH_FULL, 1);
	}
}

enum flush_result flush_request(
	struct flush *flush, vp_id_t initiator, const struct flush_request *request)
{
	struct run_cancelled cancelled;

	flush_post(flush, initiator, request);

	/* Steps 3 to 5. A VP that runs the other lower VTL uses none of these translations. */
	cancelled = run_cancel_mask(flush->run, initiator, &request->set, RUN_IN(request->vtl));
	flush_count(flush, initiator, COUNTER_FLUSH_KICKS_SENT, cancelled.sent);
	flush_count(flush, initiator, COUNTER_FLUSH_KICKS_SKIPPED, cancelled.skipped);

	/* Step 6, after the wait: an exit may have taken the lock before it was published. */
	if (tlblock_suspend(
		    flush->tlblock, initiator, request->caller, &request->set, request->vtl))
		return FLUSH_SUSPENDED;
	return FLUSH_DONE;
}

void flush_request_lazily(
	struct flush *flush, vp_id_t initiator, const struct flush_request *request)
{
	flush_post(flush, initiator, request);
	/*
	 * F10, pairs with R1: the request is before it, the look of an entry that begins later
	 * after R1. Without it such an entry may still miss the request, and so may the next one:
	 * there is no bound.
	 */
	atomic_fence(memory_order_seq_cst);
}

uint32_t flush_drain(struct flush *flush, vp_id_t vp, enum vtl vtl, const struct flush_sink *sink)
{
	struct flush_queue *queue = &flush->vps[vp].queue[vtl];
	bool degraded;

	queue->pending |= flush_queue_take(queue, vp, vtl, sink, &degraded);
	if (degraded)
		flush_count(flush, vp, COUNTER_FLUSH_FULL, 1);
	return queue->pending;
}

bool flush_is_asked(const struct flush *flush, vp_id_t vp, enum vtl vtl)
{
	const struct flush_queue *queue = &flush->vps[vp].queue[vtl];

	/* Relaxed, all: nothing is read or left out because of it; flush_drain acquires. */
	return atomic_u64_load(&queue->tail, memory_order_relaxed) !=
		atomic_u64_load(&queue->head, memory_order_relaxed) ||
		atomic_u32_load(&queue->full, memory_order_relaxed) != 0;
}

void flush_entered(struct flush *flush, vp_id_t vp, enum vtl vtl)
{
	flush->vps[vp].queue[vtl].pending = 0;
}

void flush_own(struct flush *flush, vp_id_t vp, enum vtl vtl, uint32_t full)
{
	flush->vps[vp].queue[vtl].pending |= full;
}
