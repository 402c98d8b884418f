/*
 * The locks of core/protect: in layers, each lock with a rank, taken in ascending order of rank
 * only. Whoever takes one out of order is found out at once, whether or not somebody else is in
 * the way. What may not enter: what a lock protects.
 *
 * Spin locks, only for VTL2. Not first come, first served: Parapet's processors are a host's to
 * schedule, and one that has been taken away while it waits is to hold up nobody.
 */
#ifndef PARAPET_CORE_PROTECT_LOCK_H
#define PARAPET_CORE_PROTECT_LOCK_H

#include "core/atomic.h"
#include "parapet/types.h"

/* Powers of two, at most 64. The explorer uses fewer. */
#ifndef PROTECT_REGION_SHARDS
#define PROTECT_REGION_SHARDS 64
#endif
#ifndef PROTECT_TABLE_SHARDS
#define PROTECT_TABLE_SHARDS 16
#endif

/*
 * Bytes of address that share a shard: what a table of the last level covers, and of the next. The
 * explorer's tables are smaller.
 */
#ifndef PROTECT_REGION_SHARD_BYTES
#define PROTECT_REGION_SHARD_BYTES SIZE_2M
#define PROTECT_TABLE_SHARD_BYTES  SIZE_1G
#endif

struct protect_lock {
	_Alignas(CACHE_LINE_BYTES) struct atomic_u32 taken; /* 1: somebody has it */
};

/* The layers, outermost first. */
enum protect_layer {
	PROTECT_LAYER_REGION,
	PROTECT_LAYER_TABLE,
	PROTECT_LAYER_RECORD,
	PROTECT_LAYERS,
};

/* What one VP holds. Its own. */
struct protect_held {
	uint64_t shards[PROTECT_LAYERS]; /* a bit for each lock of the layer */
};

/*
 * Whether a VP that holds `held` may take lock `index` of `layer`: it has none of that layer with
 * this index or a higher one, and none of a layer further in.
 */
bool protect_lock_in_order(
	const struct protect_held *held, enum protect_layer layer, uint32_t index);

/* Takes a lock; false, and not taken, if that is out of order. Spins until it is its turn. */
bool protect_lock_take(struct protect_lock *lock, struct protect_held *held,
	enum protect_layer layer, uint32_t index);

/* Gives it back; false if it is not held. */
bool protect_lock_give(struct protect_lock *lock, struct protect_held *held,
	enum protect_layer layer, uint32_t index);

/* The shards, as bits, that [base, base + bytes) falls into; bytes is not 0. */
uint64_t protect_shards(uint64_t base, uint64_t bytes, uint64_t shard_bytes, uint32_t shards);

#endif
