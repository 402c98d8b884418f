/* Ranked locks. See protect_lock.h. */
#include "core/protect/protect_lock.h"

_Static_assert(PROTECT_REGION_SHARDS <= 64 && PROTECT_TABLE_SHARDS <= 64, "a bit for each");
_Static_assert((PROTECT_REGION_SHARDS & (PROTECT_REGION_SHARDS - 1)) == 0 &&
		(PROTECT_TABLE_SHARDS & (PROTECT_TABLE_SHARDS - 1)) == 0,
	"addresses map to shards by mask");

bool protect_lock_in_order(
	const struct protect_held *held, enum protect_layer layer, uint32_t index)
{
	/* No lock of this layer with this index or a higher one ... */
	if (held->shards[layer] >> index != 0)
		return false;
	/* ... and none of a layer further in. */
	for (uint32_t inner = (uint32_t)layer + 1; inner < PROTECT_LAYERS; inner++)
		if (held->shards[inner] != 0)
			return false;
	return true;
}

bool protect_lock_take(struct protect_lock *lock, struct protect_held *held,
	enum protect_layer layer, uint32_t index)
{
	if (!protect_lock_in_order(held, layer, index))
		return false;
	held->shards[layer] |= 1ull << index;
	/*
	 * P1, pairs with P2: what the one before wrote is seen from here on. Without it a
	 * transaction works on tables or records that are half of another's.
	 */
	while (atomic_u32_exchange(&lock->taken, 1, memory_order_acquire) != 0) {
		/* Relaxed: only when to try again. */
		while (atomic_u32_load(&lock->taken, memory_order_relaxed) != 0)
			atomic_relax();
	}
	return true;
}

bool protect_lock_give(struct protect_lock *lock, struct protect_held *held,
	enum protect_layer layer, uint32_t index)
{
	if (!(held->shards[layer] & 1ull << index))
		return false;
	held->shards[layer] &= ~(1ull << index);
	/* P2, pairs with P1: see there. */
	atomic_u32_store(&lock->taken, 0, memory_order_release);
	return true;
}

uint64_t protect_shards(uint64_t base, uint64_t bytes, uint64_t shard_bytes, uint32_t shards)
{
	uint64_t first = base / shard_bytes;
	uint64_t count = (base + bytes - 1) / shard_bytes - first + 1;
	uint64_t set = 0;

	for (uint64_t i = 0; i < count && i < shards; i++)
		set |= 1ull << ((first + i) & (shards - 1));
	return set;
}
