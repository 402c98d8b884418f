/* What the files of core/protect share. Nobody else's business. */
#ifndef PARAPET_CORE_PROTECT_INTERNAL_H
#define PARAPET_CORE_PROTECT_INTERNAL_H

#include "core/protect/protect.h"

/* Takes the shards of `set` (bits) in ascending order, or the record lock (set 1). */
void protect_lock_set(struct protect *protect, vp_id_t vp, enum protect_layer layer, uint64_t set);
void protect_unlock_set(
	struct protect *protect, vp_id_t vp, enum protect_layer layer, uint64_t set);

static inline uint64_t protect_region_shards(uint64_t base, uint64_t bytes)
{
	return protect_shards(base, bytes, PROTECT_REGION_SHARD_BYTES, PROTECT_REGION_SHARDS);
}

static inline void protect_lock_records(struct protect *protect, vp_id_t vp)
{
	protect_lock_set(protect, vp, PROTECT_LAYER_RECORD, 1);
}

static inline void protect_unlock_records(struct protect *protect, vp_id_t vp)
{
	protect_unlock_set(protect, vp, PROTECT_LAYER_RECORD, 1);
}

/* Is there anything in the range that `by` may not change? Under the record lock. */
enum protect_status protect_pins_check(const struct protect *protect, enum vtl by, uint64_t base,
	uint64_t bytes, uint64_t *failed);

/* Puts a pin in; the caller has looked that there is room. Under the record lock. */
void protect_pins_insert(struct protect *protect, const struct protect_pinned *pin);

/*
 * --- regions: all under the record lock ---
 */

/* Ends shootdowns that waited for TLB locks and do not any more; true if there were some. */
bool protect_records_collect(struct protect *protect);

/*
 * Numbers the transaction and gives its ranges regions, changing. The answer: whether a region of
 * an earlier change, which somebody may still have old permissions of, must be shot down for it.
 */
bool protect_regions_open(struct protect *protect, struct protect_transaction *transaction);

/* All regions of the transaction are in `state` now; for BLOCK_REGION_DEFERRED with `ticket`. */
void protect_regions_set(struct protect *protect, struct protect_transaction *transaction,
	enum block_region_state state, uint64_t ticket);

/* It is made: records of stable regions wholly inside one of its ranges say nothing any more. */
void protect_regions_drop_covered(
	struct protect *protect, const struct protect_transaction *transaction);

/* What write has found the pages to be before. */
void protect_regions_note_old(struct protect *protect, struct protect_transaction *transaction);

/* Pages out of the tables of `target`, for the next shootdown to free. */
void protect_quarantine(struct protect *protect, enum vtl target, struct protect_pages pages);

/*
 * --- shootdowns: not under the record lock ---
 */

/*
 * A full flush of `target` on all VPs, for `by`. PROTECT_DONE or _SUSPENDED. Everything deferred
 * and quarantined for that target before is over with it; `pages` are freed with it. `transaction`:
 * the number of the one that it is for, 0 for none.
 */
enum protect_status protect_shoot(struct protect *protect, vp_id_t vp, enum vtl by, enum vtl target,
	uint64_t transaction, struct protect_pages pages);

/* Asks for the same, and waits for nobody. */
void protect_shoot_lazily(struct protect *protect, vp_id_t vp, enum vtl by, enum vtl target);

/* Own VP: gives up its TLB locks and waits until no shootdown of VTL2's waits for others'. */
void protect_wait(struct protect *protect, vp_id_t vp);

static inline void protect_count(
	struct protect *protect, vp_id_t vp, enum block_counter counter, uint64_t add)
{
	if (protect->vps[vp].counter)
		protect->vps[vp].counter[counter] += add;
}

static inline void protect_trace(
	struct protect *protect, vp_id_t vp, enum trace_event event, uint64_t a, uint64_t b)
{
	if (protect->vps[vp].trace)
		trace_write(protect->vps[vp].trace, protect->now ? protect->now() : 0, event, a, b);
}

#endif
