/* The ring of one VP and VTL, for core/flush alone. What may not enter: run states, kicks. */
#ifndef PARAPET_CORE_FLUSH_QUEUE_H
#define PARAPET_CORE_FLUSH_QUEUE_H

#include "core/flush/flush.h"

void flush_queue_init(struct flush_queue *queue);

/* Any VP: asks for FLUSH_FULL_* bits. Whoever drains afterwards sees what the caller wrote before.
 */
void flush_queue_post_full(struct flush_queue *queue, uint32_t full);

/*
 * Any VP: asks for `count` ranges, 1 to FLUSH_RING_SLOTS, in address space `space` with `flags` in
 * the low bits. False: there is no room, and everything is asked for in their place.
 */
bool flush_queue_post_ranges(
	struct flush_queue *queue, const uint64_t *ranges, uint32_t count, uint64_t space);

/*
 * The VP itself: takes everything out. Ranges go to `sink` as long as nothing has asked for
 * everything; the answer is FLUSH_FULL_* bits. *degraded: a range was widened to everything.
 */
uint32_t flush_queue_take(struct flush_queue *queue, vp_id_t vp, enum vtl vtl,
	const struct flush_sink *sink, bool *degraded);

#endif
