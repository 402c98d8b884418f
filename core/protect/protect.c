/*
 * Transactions. The order of a commit: region shards, checks, page-table shards, reservation,
 * writing, page-table shards back, shootdown, region shards back. Until the writing nothing has
 * changed; after it nothing can fail.
 */
#include "core/protect/protect_internal.h"

#define PROTECT_ADDRESS_END (1ull << 48) /* four levels of tables */

_Static_assert(PROTECT_REGIONS(VP_COUNT_MAX) <= 0xffff, "protect_range.region");
_Static_assert(ACCESS_ALL <= 0xff, "protect_range.access");

void protect_init(struct protect *protect, const struct protect_config *config)
{
	*protect = (struct protect){
		.vps = config->vps,
		.flush = config->flush,
		/* Only ever walked as a whole: no table of indexes is needed. */
		.every_vp = {.vp_count = config->flush->run->vp_count},
		.ops = config->ops,
		.platform = config->platform,
		.now = config->now,
		.broken = config->broken,
		.targets = config->targets,
		.region = config->region,
		.region_count = config->region_count,
		.pin = config->pin,
		.pin_room = config->pin_room,
	};
}

void protect_set_ram(struct protect *protect, const struct protect_span *ram, uint32_t count)
{
	protect->ram = ram;
	protect->ram_count = count;
}

void protect_set_observers(
	struct protect *protect, vp_id_t vp, uint64_t *counter, struct trace_ring *trace)
{
	protect->vps[vp].counter = counter;
	protect->vps[vp].trace = trace;
}

/* --- locks -------------------------------------------------------------------------------------- */

static struct protect_lock *protect_lock_find(
	struct protect *protect, enum protect_layer layer, uint32_t index)
{
	switch (layer) {
	case PROTECT_LAYER_REGION:
		return &protect->region_lock[index];
	case PROTECT_LAYER_TABLE:
		return &protect->table_lock[index];
	default:
		return &protect->record_lock;
	}
}

void protect_lock_set(struct protect *protect, vp_id_t vp, enum protect_layer layer, uint64_t set)
{
	for (; set != 0; set &= set - 1) {
		uint32_t index = (uint32_t)__builtin_ctzll(set);

		if (!protect_lock_take(protect_lock_find(protect, layer, index),
			    &protect->vps[vp].held, layer, index))
			protect->broken("locks of core/protect are taken out of order");
	}
}

void protect_unlock_set(struct protect *protect, vp_id_t vp, enum protect_layer layer, uint64_t set)
{
	for (; set != 0; set &= set - 1) {
		uint32_t index = (uint32_t)__builtin_ctzll(set);

		if (!protect_lock_give(protect_lock_find(protect, layer, index),
			    &protect->vps[vp].held, layer, index))
			protect->broken("a lock of core/protect is given back that is not held");
	}
}

static uint64_t protect_transaction_shards(
	const struct protect_transaction *transaction, uint64_t shard_bytes, uint32_t shards)
{
	uint64_t set = 0;

	for (uint32_t i = 0; i < transaction->count; i++)
		set |= protect_shards(transaction->range[i].base, transaction->range[i].bytes,
			shard_bytes, shards);
	return set;
}

/* --- putting a transaction together ------------------------------------------------------------- */

static bool protect_range_is_good(uint64_t base, uint64_t bytes)
{
	return bytes != 0 && (base | bytes) % PAGE_SIZE == 0 && base < PROTECT_ADDRESS_END &&
		bytes <= PROTECT_ADDRESS_END - base;
}

/* The spans lie in no order and may touch: step from one to the next. */
static bool protect_range_is_ram(const struct protect *protect, uint64_t base, uint64_t bytes)
{
	uint64_t at = base;

	for (uint32_t steps = 0; steps < protect->ram_count && at < base + bytes; steps++) {
		uint64_t before = at;

		for (uint32_t i = 0; i < protect->ram_count && at == before; i++) {
			const struct protect_span *span = &protect->ram[i];

			if (at >= span->base && at - span->base < span->bytes)
				at = span->base + span->bytes;
		}
		if (at == before)
			return false;
	}
	return at >= base + bytes;
}

static bool protect_range_has_ram(const struct protect *protect, const struct protect_range *range)
{
	for (uint32_t i = 0; i < protect->ram_count; i++) {
		const struct protect_span *span = &protect->ram[i];

		if (range->base < span->base + span->bytes &&
			span->base < range->base + range->bytes)
			return true;
	}
	return false;
}

/* What the batch does not give is no longer given everywhere. */
static void protect_note_withheld(struct protect *protect, const struct protect_batch *batch)
{
	uint32_t given = ACCESS_ALL;

	for (uint32_t i = 0; i < batch->count; i++)
		given &= batch->ranges[i].access;
	/*
	 * N5, relaxed, pairs with T1: it comes before the shootdown's R2, as the tables' entries do.
	 * Whoever takes a TLB lock that the shootdown does not find held sees both. Set later, it
	 * would let VTL2 use a page that was revoked.
	 */
	atomic_u32_fetch_or(
		&protect->withheld[batch->target], ACCESS_ALL & ~given, memory_order_relaxed);
}

bool protect_can(const struct protect *protect, enum vtl target, uint32_t access)
{
	return !(access & ~ACCESS_ALL) && protect->ops->can(protect->platform, target, access);
}

enum protect_status protect_map(
	struct protect *protect, enum vtl target, gpa_t base, uint64_t bytes, uint32_t access)
{
	struct protect_range range = {
		.base = base.value, .bytes = bytes, .access = (uint8_t)access};
	struct protect_batch batch = {.target = target, .ranges = &range, .count = 1};

	if ((uint32_t)target >= protect->targets)
		return PROTECT_BAD_CALLER;
	if (!protect_range_is_good(base.value, bytes))
		return PROTECT_BAD_RANGE;
	if (!protect_can(protect, target, access))
		return PROTECT_BAD_ACCESS;
	if (!protect->ops->prepare(protect->platform, &batch))
		return PROTECT_NO_MEMORY;
	if (protect_range_has_ram(protect, &range))
		protect_note_withheld(protect, &batch);
	protect->ops->write(protect->platform, &batch);
	/* Nobody has walked these tables yet. */
	protect->ops->release(protect->platform, batch.freed);
	return PROTECT_DONE;
}

void protect_begin(struct protect *protect, struct protect_transaction *transaction, vp_id_t vp,
	enum vtl by, enum vtl target, enum protect_reason reason, uint32_t flags)
{
	bool good = by <= VTL2 && target < by && (uint32_t)target < protect->targets;

	transaction->vp = vp;
	transaction->by = by;
	transaction->target = target;
	transaction->reason = reason;
	transaction->flags = flags;
	transaction->status = good ? PROTECT_DONE : PROTECT_BAD_CALLER;
	transaction->failed = 0;
	transaction->number = 0;
	transaction->count = 0;
}

static uint64_t protect_range_end(const struct protect_range *range)
{
	return range->base + range->bytes;
}

/* Puts a range where it belongs and joins it with what it touches and agrees with. */
static enum protect_status protect_insert(
	struct protect_transaction *transaction, uint64_t base, uint64_t bytes, uint8_t access)
{
	struct protect_range *range = transaction->range;
	uint64_t end = base + bytes;
	uint32_t first = transaction->count;
	uint32_t after;

	/* The first range that ends at `base` or later; most often there is none. */
	while (first > 0 && protect_range_end(&range[first - 1]) >= base)
		first--;
	/* One that only touches and says something else stays by itself. */
	if (first < transaction->count && protect_range_end(&range[first]) == base &&
		range[first].access != access)
		first++;
	for (after = first; after < transaction->count && range[after].base <= end; after++) {
		if (range[after].access == access)
			continue;
		if (range[after].base < end)
			return PROTECT_BAD_RANGE; /* it contradicts what has been said */
		break;
	}
	if (after == first && transaction->count == PROTECT_RANGES_MAX)
		return PROTECT_FULL;
	if (after > first) {
		if (range[first].base < base)
			base = range[first].base;
		if (protect_range_end(&range[after - 1]) > end)
			end = protect_range_end(&range[after - 1]);
	}
	/* One range in the place of those from first to after. */
	if (after == first)
		for (uint32_t i = transaction->count; i > first; i--)
			range[i] = range[i - 1];
	else if (after > first + 1)
		for (uint32_t i = after; i < transaction->count; i++)
			range[first + 1 + i - after] = range[i];
	transaction->count = transaction->count + 1 - (after - first);
	range[first] = (struct protect_range){.base = base, .bytes = end - base, .access = access};
	return PROTECT_DONE;
}

enum protect_status protect_add(struct protect *protect, struct protect_transaction *transaction,
	gpa_t base, uint64_t bytes, uint32_t access)
{
	enum protect_status status = PROTECT_DONE;

	transaction->failed = base.value;
	if (transaction->status != PROTECT_DONE)
		return transaction->status;
	if (!protect_range_is_good(base.value, bytes) ||
		!protect_range_is_ram(protect, base.value, bytes))
		return PROTECT_BAD_RANGE;
	if (!protect_can(protect, transaction->target, access))
		return PROTECT_BAD_ACCESS;
	/*
	 * Looked at again when it counts; here so that the caller learns which range it is. Relaxed,
	 * pairs with the exchange of protect_pins_insert: a pin that is not seen here is found by
	 * protect_open, which looks under the record lock.
	 */
	if (atomic_u64_load(&protect->pinned, memory_order_relaxed) &
		protect_region_shards(base.value, bytes)) {
		protect_lock_records(protect, transaction->vp);
		status = protect_pins_check(
			protect, transaction->by, base.value, bytes, &transaction->failed);
		protect_unlock_records(protect, transaction->vp);
	}
	if (status != PROTECT_DONE)
		return status;
	return protect_insert(transaction, base.value, bytes, (uint8_t)access);
}

/* --- commit ------------------------------------------------------------------------------------- */

/* The checks that only now can be made. *lingers: see protect_regions_open. */
static enum protect_status protect_open(
	struct protect *protect, struct protect_transaction *transaction, bool *lingers)
{
	uint32_t pins = transaction->flags & PROTECT_LOCK ? transaction->count : 0;
	enum protect_status status = PROTECT_DONE;

	protect_lock_records(protect, transaction->vp);
	protect_records_collect(protect);
	for (uint32_t i = 0; i < transaction->count && status == PROTECT_DONE; i++)
		status = protect_pins_check(protect, transaction->by, transaction->range[i].base,
			transaction->range[i].bytes, &transaction->failed);
	if (status == PROTECT_DONE &&
		protect->pin_count + protect->pin_reserved + pins > protect->pin_room)
		status = PROTECT_FULL;
	if (status == PROTECT_DONE) {
		protect->pin_reserved += pins;
		*lingers = protect_regions_open(protect, transaction);
	}
	protect_unlock_records(protect, transaction->vp);
	return status;
}

/* It cannot be done: as if it had not been asked for. */
static void protect_drop(struct protect *protect, struct protect_transaction *transaction)
{
	protect_lock_records(protect, transaction->vp);
	if (transaction->flags & PROTECT_LOCK)
		protect->pin_reserved -= transaction->count;
	protect_regions_set(protect, transaction, BLOCK_REGION_FREE, 0);
	protect_unlock_records(protect, transaction->vp);
}

/* Frees the table pages that only wait for a shootdown, or for it to be noticed. False: there are none. */
static bool protect_recover(struct protect *protect, struct protect_transaction *transaction)
{
	bool recovered = false;

	for (uint32_t target = 0; target < protect->targets; target++) {
		bool any;

		protect_lock_records(protect, transaction->vp);
		recovered |= protect_records_collect(protect);
		any = protect->lazy[target].pages.first != 0;
		protect_unlock_records(protect, transaction->vp);
		if (!any)
			continue;
		recovered = true;
		/* Should that have to wait for TLB locks, the pages stay out of reach. */
		protect_shoot(protect, transaction->vp, transaction->by, (enum vtl)target, 0,
			(struct protect_pages){0, 0});
	}
	return recovered;
}

/* Reserves and writes. False: no table memory, nothing has changed. */
static bool protect_write(struct protect *protect, struct protect_transaction *transaction,
	struct protect_batch *batch)
{
	uint64_t tables = protect_transaction_shards(
		transaction, PROTECT_TABLE_SHARD_BYTES, PROTECT_TABLE_SHARDS);

	protect_lock_set(protect, transaction->vp, PROTECT_LAYER_TABLE, tables);
	if (!protect->ops->prepare(protect->platform, batch)) {
		protect_unlock_set(protect, transaction->vp, PROTECT_LAYER_TABLE, tables);
		if (!protect_recover(protect, transaction))
			return false;
		protect_lock_set(protect, transaction->vp, PROTECT_LAYER_TABLE, tables);
		if (!protect->ops->prepare(protect->platform, batch)) {
			protect_unlock_set(protect, transaction->vp, PROTECT_LAYER_TABLE, tables);
			return false;
		}
	}
	protect_note_withheld(protect, batch);
	protect->ops->write(protect->platform, batch);
	protect_unlock_set(protect, transaction->vp, PROTECT_LAYER_TABLE, tables);
	return true;
}

static void protect_trace_ranges(
	struct protect *protect, const struct protect_transaction *transaction)
{
	for (uint32_t i = 0; i < transaction->count; i++) {
		const struct protect_range *range = &transaction->range[i];

		/* Addresses and lengths leave the low bits to permissions. */
		protect_trace(protect, transaction->vp, TRACE_PROTECT_RANGE,
			range->base | range->access, range->bytes | range->old);
	}
}

/* The pins of PROTECT_LOCK, for which protect_open has made room. */
static void protect_lock_ranges(
	struct protect *protect, const struct protect_transaction *transaction)
{
	if (!(transaction->flags & PROTECT_LOCK))
		return;
	protect->pin_reserved -= transaction->count;
	for (uint32_t i = 0; i < transaction->count; i++) {
		const struct protect_pinned pin = {
			.base = transaction->range[i].base,
			.bytes = transaction->range[i].bytes,
			.kind = PROTECT_PIN_LOCK,
			.by = transaction->by,
		};

		protect_pins_insert(protect, &pin);
	}
}

/*
 * The tables are written: now the states, and what is to become of the old translations. True: they
 * are to be shot down now.
 */
static bool protect_settle(struct protect *protect, struct protect_transaction *transaction,
	const struct protect_batch *batch, bool stale, enum protect_status *status)
{
	struct protect_lazy *lazy = &protect->lazy[transaction->target];
	bool shoot = false;

	*status = PROTECT_DONE;
	protect_lock_records(protect, transaction->vp);
	protect_regions_drop_covered(protect, transaction);
	protect_regions_note_old(protect, transaction);
	protect_lock_ranges(protect, transaction);
	if (!stale) {
		/* Nobody has more than the new permissions. Unlinked pages are still walked. */
		protect_quarantine(protect, transaction->target, batch->freed);
		protect_regions_set(protect, transaction, BLOCK_REGION_STABLE, 0);
	} else if ((transaction->flags & PROTECT_NOT_SENSITIVE) &&
		protect->regions_deferred + transaction->count <= protect->region_count / 4) {
		protect_quarantine(protect, transaction->target, batch->freed);
		protect_regions_set(protect, transaction, BLOCK_REGION_DEFERRED, ++lazy->posted);
		*status = PROTECT_DEFERRED;
	} else {
		protect_regions_set(protect, transaction, BLOCK_REGION_FLUSHING, 0);
		shoot = true;
	}
	protect_unlock_records(protect, transaction->vp);
	return shoot;
}

/* With the region shards of the transaction held. */
static enum protect_status protect_carry_out(
	struct protect *protect, struct protect_transaction *transaction)
{
	struct protect_batch batch = {
		.target = transaction->target,
		.ranges = transaction->range,
		.count = transaction->count,
	};
	bool lingers = false;
	enum protect_status status = protect_open(protect, transaction, &lingers);

	if (status != PROTECT_DONE)
		return status;
	protect_trace(protect, transaction->vp, TRACE_PROTECT_BEGIN, transaction->number,
		transaction->count);
	if (!protect_write(protect, transaction, &batch)) {
		protect_drop(protect, transaction);
		protect_trace(protect, transaction->vp, TRACE_PROTECT_END, transaction->number,
			PROTECT_NO_MEMORY);
		return PROTECT_NO_MEMORY;
	}
	protect_trace_ranges(protect, transaction);
	protect_trace(
		protect, transaction->vp, TRACE_PROTECT_COMMIT, transaction->number, batch.entries);
	protect_count(protect, transaction->vp, COUNTER_PROTECT_TRANSACTIONS, 1);
	protect_count(protect, transaction->vp, COUNTER_PROTECT_RANGES, transaction->count);
	protect_count(protect, transaction->vp, COUNTER_PROTECT_ENTRIES_WRITTEN, batch.entries);

	if (protect_settle(protect, transaction, &batch, batch.lost || lingers, &status)) {
		status = protect_shoot(protect, transaction->vp, transaction->by,
			transaction->target, transaction->number, batch.freed);
		if (status == PROTECT_DONE) {
			protect_lock_records(protect, transaction->vp);
			protect_regions_set(protect, transaction, BLOCK_REGION_STABLE, 0);
			protect_unlock_records(protect, transaction->vp);
		}
	} else if (status == PROTECT_DEFERRED) {
		protect_count(protect, transaction->vp, COUNTER_PROTECT_DEFERRED, 1);
		protect_shoot_lazily(
			protect, transaction->vp, transaction->by, transaction->target);
	}
	protect_trace(protect, transaction->vp, TRACE_PROTECT_END, transaction->number, status);
	return status;
}

enum protect_status protect_commit(struct protect *protect, struct protect_transaction *transaction)
{
	enum protect_status status;
	uint64_t shards;

	if (transaction->status != PROTECT_DONE || transaction->count == 0)
		return transaction->status;
	shards = protect_transaction_shards(
		transaction, PROTECT_REGION_SHARD_BYTES, PROTECT_REGION_SHARDS);
	protect_lock_set(protect, transaction->vp, PROTECT_LAYER_REGION, shards);
	status = protect_carry_out(protect, transaction);
	protect_unlock_set(protect, transaction->vp, PROTECT_LAYER_REGION, shards);
	if (transaction->by != VTL2)
		return status;
	/* Only now: nobody is to wait for this VP's shards while it waits for their TLB locks. */
	protect_wait(protect, transaction->vp);
	return status == PROTECT_SUSPENDED ? PROTECT_DONE : status;
}

enum protect_status protect_sync(struct protect *protect, vp_id_t vp, enum vtl by)
{
	enum protect_status status = PROTECT_DONE;

	for (uint32_t target = 0; target < protect->targets; target++) {
		const struct protect_lazy *lazy = &protect->lazy[target];
		bool owed;

		protect_lock_records(protect, vp);
		protect_records_collect(protect);
		owed = lazy->posted != lazy->done;
		protect_unlock_records(protect, vp);
		if (!owed)
			continue;
		protect_trace(protect, vp, TRACE_PROTECT_SYNC, target, by);
		if (protect_shoot(protect, vp, by, (enum vtl)target, 0,
			    (struct protect_pages){0, 0}) == PROTECT_SUSPENDED)
			status = PROTECT_SUSPENDED;
	}
	if (by != VTL2)
		return status;
	protect_wait(protect, vp);
	return PROTECT_DONE;
}

void protect_note_ended(struct protect *protect, vp_id_t vp)
{
	protect_lock_records(protect, vp);
	protect_records_collect(protect);
	protect_unlock_records(protect, vp);
}

uint32_t protect_access(const struct protect *protect, enum vtl target, gpa_t gpa)
{
	return protect->ops->access(protect->platform, target, gpa);
}
