/*
 * A ring of atomics: producers reserve positions with one fetch-add, claim the slot, fill it, mark
 * it ready. The consumer looks at everything reserved. It never waits for a producer: what is not
 * ready is flushed with everything else, and the slot is taken away from its producer or, if that
 * one has begun to write, left alone until it has finished.
 *
 * A slot's state only ever grows, and each of its steps belongs to one processor: FREE(p) to
 * WRITING(p) to READY(p) is the producer's that reserved p, FREE(p) to FREE(q) and READY(p) to
 * FREE(q) the VP's.
 */
#include "core/flush/flush_queue.h"

#define FLUSH_PHASE_BITS 2
#define FLUSH_PHASE_MASK 3ull

_Static_assert((FLUSH_RING_SLOTS & (FLUSH_RING_SLOTS - 1)) == 0, "positions map to slots by mask");
_Static_assert(FLUSH_RING_SLOTS < 4 || sizeof(struct flush_slot) == 32, "two slots to a line");

static uint64_t flush_slot_state(uint64_t position, enum flush_slot_phase phase)
{
	return position << FLUSH_PHASE_BITS | phase;
}

static struct flush_slot *flush_queue_slot(struct flush_queue *queue, uint64_t position)
{
	return &queue->slot[position & (FLUSH_RING_SLOTS - 1)];
}

void flush_queue_init(struct flush_queue *queue)
{
	/* Relaxed, all: nobody else runs yet. */
	atomic_u64_store(&queue->tail, 0, memory_order_relaxed);
	atomic_u64_store(&queue->head, 0, memory_order_relaxed);
	atomic_u32_store(&queue->full, 0, memory_order_relaxed);
	queue->pending = 0;
	for (uint32_t i = 0; i < FLUSH_RING_SLOTS; i++) {
		atomic_u64_store(&queue->slot[i].state, flush_slot_state(i, FLUSH_SLOT_FREE),
			memory_order_relaxed);
		atomic_u64_store(&queue->slot[i].range, 0, memory_order_relaxed);
		atomic_u64_store(&queue->slot[i].space, 0, memory_order_relaxed);
	}
}

void flush_queue_post_full(struct flush_queue *queue, uint32_t full)
{
	/*
	 * F2, pairs with F3: the new page tables are before it. Without it the VP empties its TLB
	 * for this request and fills it again from the old tables.
	 */
	atomic_u32_fetch_or(&queue->full, full, memory_order_release);
}

/* Fills the slot of a position that the caller has reserved, if the slot can be had. */
static void flush_queue_fill(
	struct flush_queue *queue, uint64_t position, uint64_t range, uint64_t space)
{
	struct flush_slot *slot = flush_queue_slot(queue, position);
	uint64_t expected = flush_slot_state(position, FLUSH_SLOT_FREE);

	/*
	 * F4, pairs with F5: the VP has read the slot's last content before it is overwritten.
	 * Without it the VP may flush this range in place of the one that was there.
	 * Not free: an earlier producer still writes, or the VP has been past. The reservation
	 * stands.
	 */
	if (!atomic_u64_compare_exchange(&slot->state, &expected,
		    flush_slot_state(position, FLUSH_SLOT_WRITING), memory_order_acquire))
		return;
	/* Relaxed, both: F6 publishes them. */
	atomic_u64_store(&slot->range, range, memory_order_relaxed);
	atomic_u64_store(&slot->space, space, memory_order_relaxed);
	/* F6, pairs with F7: the content is before it. Without it the VP flushes a range that is
	 * half from before. */
	atomic_u64_store(
		&slot->state, flush_slot_state(position, FLUSH_SLOT_READY), memory_order_release);
}

bool flush_queue_post_ranges(
	struct flush_queue *queue, const uint64_t *ranges, uint32_t count, uint64_t space)
{
	/*
	 * Relaxed, both: only a guess whether there is room, which saves the slots of those who
	 * came before. A wrong guess costs a full flush: here, or where the VP finds more positions
	 * reserved than there are slots.
	 */
	uint64_t head = atomic_u64_load(&queue->head, memory_order_relaxed);
	uint64_t position = atomic_u64_load(&queue->tail, memory_order_relaxed);

	if (position + count - head > FLUSH_RING_SLOTS) {
		flush_queue_post_full(queue, FLUSH_FULL_ALL);
		return false;
	}
	/*
	 * F8, pairs with F9: the new page tables are before it, also where the VP meets a slot that
	 * is reserved and not ready. Without it the VP empties its TLB and fills it from the old
	 * tables.
	 */
	position = atomic_u64_fetch_add(&queue->tail, count, memory_order_release);
	for (uint32_t i = 0; i < count; i++)
		flush_queue_fill(queue, position + i, ranges[i], space);
	return true;
}

/* Hands a ready slot's content to the platform. False: it wants everything flushed instead. */
static bool flush_slot_invalidate(
	struct flush_slot *slot, vp_id_t vp, enum vtl vtl, const struct flush_sink *sink)
{
	/* Relaxed, both: F7 lies before them. */
	uint64_t raw = atomic_u64_load(&slot->range, memory_order_relaxed);
	uint64_t space = atomic_u64_load(&slot->space, memory_order_relaxed);
	struct flush_entry entry = {
		.space = space & PAGE_MASK,
		.flags = (uint32_t)(space & FLUSH_ALL_SPACES),
	};

	if (!sink || !flush_range_decode(raw, space & FLUSH_EXTENDED, &entry.range))
		return false;
	return sink->invalidate(sink->platform, vp, vtl, &entry);
}

/*
 * Deals with the slot of a reserved position and leaves it to the producer of position `next`.
 * True: the slot was ready, and the platform was handed its content or there was no `sink`.
 */
static bool flush_queue_take_slot(struct flush_queue *queue, uint64_t position, uint64_t next,
	bool wanted, vp_id_t vp, enum vtl vtl, const struct flush_sink *sink)
{
	struct flush_slot *slot = flush_queue_slot(queue, position);
	/* F7, pairs with F6: see there. */
	uint64_t state = atomic_u64_load(&slot->state, memory_order_acquire);
	bool done = false;

	switch ((enum flush_slot_phase)(state & FLUSH_PHASE_MASK)) {
	case FLUSH_SLOT_READY:
		if (wanted && state == flush_slot_state(position, FLUSH_SLOT_READY))
			done = flush_slot_invalidate(slot, vp, vtl, sink);
		/* F5, pairs with F4: the content has been read before it. See F4. */
		atomic_u64_store(&slot->state, flush_slot_state(next, FLUSH_SLOT_FREE),
			memory_order_release);
		break;
	case FLUSH_SLOT_FREE:
		/*
		 * The producer is late: take the slot away from it. If it gets there first, the
		 * slot is its own until it is ready, for a later turn of the ring to free. Relaxed:
		 * the release of F5, if there was one, goes on through this exchange.
		 */
		atomic_u64_compare_exchange(&slot->state, &state,
			flush_slot_state(next, FLUSH_SLOT_FREE), memory_order_relaxed);
		break;
	case FLUSH_SLOT_WRITING:
		break;
	}
	return done;
}

uint32_t flush_queue_take(struct flush_queue *queue, vp_id_t vp, enum vtl vtl,
	const struct flush_sink *sink, bool *degraded)
{
	uint32_t full = 0;
	/* F9, pairs with F8: see there. */
	uint64_t tail = atomic_u64_load(&queue->tail, memory_order_acquire);
	uint64_t head = atomic_u64_load(&queue->head, memory_order_relaxed); /* the VP's own */
	uint64_t reserved = tail - head;

	/* Relaxed: only whether the exchange is worth it. R1 lies before it (core/run). */
	if (atomic_u32_load(&queue->full, memory_order_relaxed) != 0) {
		/* F3, pairs with F2: see there. */
		full = atomic_u32_exchange(&queue->full, 0, memory_order_acquire);
	}
	*degraded = false;
	if (reserved == 0)
		return full;

	if (reserved > FLUSH_RING_SLOTS) {
		*degraded = true;
		reserved = FLUSH_RING_SLOTS;
	}
	for (uint64_t position = head; position < head + reserved; position++) {
		/* The first position from tail on that uses this slot. */
		uint64_t next = tail + ((position - tail) & (FLUSH_RING_SLOTS - 1));
		bool wanted = !*degraded && !(full & FLUSH_FULL_ALL);

		if (!flush_queue_take_slot(queue, position, next, wanted, vp, vtl, sink) && wanted)
			*degraded = true;
	}
	if (*degraded)
		full |= FLUSH_FULL_ALL;
	/* Relaxed: producers only guess from it; the slots' states say what is free. */
	atomic_u64_store(&queue->head, tail, memory_order_relaxed);
	return full;
}
