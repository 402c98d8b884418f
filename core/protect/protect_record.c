/*
 * Records of changes, and what the lazy ways owe: which changes are over, which table pages may be
 * used again. All of it is under the record lock.
 *
 * A shootdown of a target ends every deferred change of it that was posted before, and frees every
 * page that was unlinked before: the tables had been written then, and a full flush looks at no
 * address. So tickets and one list for each target are enough.
 */
#include "core/protect/protect_internal.h"

static bool protect_region_is_busy(enum block_region_state state)
{
	return state == BLOCK_REGION_CHANGING || state == BLOCK_REGION_FLUSHING ||
		state == BLOCK_REGION_DEFERRED;
}

static void protect_region_set(
	struct protect *protect, struct block_region *region, enum block_region_state state)
{
	enum block_region_state before = (enum block_region_state)region->state;

	protect->regions_busy -= protect_region_is_busy(before);
	protect->regions_busy += protect_region_is_busy(state);
	protect->regions_deferred -= before == BLOCK_REGION_DEFERRED;
	protect->regions_deferred += state == BLOCK_REGION_DEFERRED;
	region->state = (uint8_t)state;
}

/* Deferred changes of `target` up to `ticket` are over. */
static void protect_lazy_done(struct protect *protect, enum vtl target, uint64_t ticket)
{
	struct protect_lazy *lazy = &protect->lazy[target];

	if (ticket <= lazy->done)
		return;
	lazy->done = ticket;
	for (uint32_t i = 0; i < protect->region_count && protect->regions_deferred != 0; i++) {
		struct block_region *region = &protect->region[i];

		if (region->state == BLOCK_REGION_DEFERRED && region->target == target &&
			region->ticket <= ticket)
			protect_region_set(protect, region, BLOCK_REGION_STABLE);
	}
}

static void protect_pending_finish(
	struct protect *protect, vp_id_t vp, enum vtl by, struct protect_pending *pending)
{
	for (uint32_t target = 0; target < protect->targets; target++)
		protect_lazy_done(protect, (enum vtl)target, pending->ticket[target]);
	for (uint32_t i = 0; i < protect->region_count && pending->transaction != 0; i++) {
		struct block_region *region = &protect->region[i];

		if (region->state == BLOCK_REGION_FLUSHING && region->vp == vp &&
			region->by == by && region->transaction <= pending->transaction)
			protect_region_set(protect, region, BLOCK_REGION_STABLE);
	}
	protect->ops->release(protect->platform, pending->pages);
	*pending = (struct protect_pending){.on = false};
	protect->pending_count--;
}

bool protect_records_collect(struct protect *protect)
{
	const struct tlblock *tlblock = protect->flush->tlblock;
	bool some = false;

	for (vp_id_t vp = 0; vp < protect->every_vp.vp_count && protect->pending_count != 0; vp++) {
		for (uint32_t by = 0; by < TLBLOCK_CALLERS; by++) {
			struct protect_pending *pending = &protect->vps[vp].pending[by];

			/*
			 * The count of holders was raised before the record lock was given back,
			 * so it is not missed here: no count means that they have let go, and T2
			 * puts what they did before what follows.
			 */
			if (pending->on && !tlblock_is_suspended(tlblock, vp, (enum vtl)by)) {
				protect_pending_finish(protect, vp, (enum vtl)by, pending);
				some = true;
			}
		}
	}
	return some;
}

void protect_quarantine(struct protect *protect, enum vtl target, struct protect_pages pages)
{
	struct protect_lazy *lazy = &protect->lazy[target];

	lazy->pages = protect->ops->join(protect->platform, lazy->pages, pages);
}

/* --- regions ------------------------------------------------------------------------------------ */

/* The first range of the transaction that ends after `base`; count if there is none. */
static uint32_t protect_find_range(const struct protect_transaction *transaction, uint64_t base)
{
	uint32_t low = 0;
	uint32_t high = transaction->count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;
		const struct protect_range *range = &transaction->range[middle];

		if (range->base + range->bytes <= base)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Does the transaction deny something that the region's old permissions allowed, where they meet? */
static bool protect_region_lingers(
	const struct block_region *region, const struct protect_transaction *transaction)
{
	for (uint32_t i = protect_find_range(transaction, region->base);
		i < transaction->count && transaction->range[i].base < region->base + region->bytes;
		i++) {
		if (region->old_access & ~transaction->range[i].access)
			return true;
	}
	return false;
}

/* Is the region wholly inside one range? Then its record says nothing any more. */
static bool protect_region_is_covered(
	const struct block_region *region, const struct protect_transaction *transaction)
{
	uint32_t i = protect_find_range(transaction, region->base);

	return i < transaction->count && transaction->range[i].base <= region->base &&
		transaction->range[i].base + transaction->range[i].bytes >=
		region->base + region->bytes;
}

static bool protect_regions_scan(struct protect *protect, struct protect_transaction *transaction)
{
	bool lingers = false;

	transaction->covered = 0;
	for (uint32_t i = 0; i < protect->region_count; i++) {
		const struct block_region *region = &protect->region[i];

		if (region->state == BLOCK_REGION_FREE || region->target != transaction->target)
			continue;
		if (region->state != BLOCK_REGION_STABLE) {
			lingers = lingers || protect_region_lingers(region, transaction);
		} else if (protect_region_is_covered(region, transaction)) {
			if (transaction->covered++ == 0)
				transaction->covered_first = i;
		}
	}
	return lingers;
}

void protect_regions_drop_covered(
	struct protect *protect, const struct protect_transaction *transaction)
{
	uint32_t left = transaction->covered;

	/* Others may have used some of them anew, so there may be fewer. */
	for (uint32_t i = transaction->covered_first; i < protect->region_count && left != 0; i++) {
		struct block_region *region = &protect->region[i];

		if (region->state == BLOCK_REGION_STABLE && region->target == transaction->target &&
			protect_region_is_covered(region, transaction)) {
			protect_region_set(protect, region, BLOCK_REGION_FREE);
			left--;
		}
	}
}

/* A record that may be used anew: of those that are not busy, one that was made long ago. */
static uint16_t protect_region_take(struct protect *protect)
{
	for (uint32_t i = 0; i < protect->region_count; i++) {
		uint32_t at = protect->region_hand;

		protect->region_hand = (at + 1) % protect->region_count;
		if (!protect_region_is_busy((enum block_region_state)protect->region[at].state))
			return (uint16_t)at;
	}
	protect->broken("no record for a region");
	return 0;
}

static uint16_t protect_region_make(struct protect *protect,
	const struct protect_transaction *transaction, uint64_t base, uint64_t bytes,
	uint8_t access)
{
	uint16_t index = protect_region_take(protect);
	struct block_region *region = &protect->region[index];

	*region = (struct block_region){
		.base = base,
		.bytes = bytes,
		.transaction = transaction->number,
		.vp = transaction->vp,
		.by = (uint8_t)transaction->by,
		.target = (uint8_t)transaction->target,
		.reason = (uint8_t)transaction->reason,
		.new_access = access,
	};
	protect_region_set(protect, region, BLOCK_REGION_CHANGING);
	return index;
}

bool protect_regions_open(struct protect *protect, struct protect_transaction *transaction)
{
	struct protect_range *range = transaction->range;
	uint32_t count = transaction->count;
	/* Everybody must find a record for a transaction, whoever has asked for many before. */
	uint32_t spare = protect->region_count - protect->regions_busy;
	bool one_each = count + 4 * protect->every_vp.vp_count <= spare;
	bool lingers;

	transaction->number = ++protect->transactions;
	lingers = protect_regions_scan(protect, transaction);
	if (one_each) {
		for (uint32_t i = 0; i < count; i++)
			range[i].region = protect_region_make(protect, transaction, range[i].base,
				range[i].bytes, range[i].access);
		return lingers;
	}

	const struct protect_range *last = &range[count - 1];
	uint64_t bytes = last->base + last->bytes - range[0].base;
	uint16_t hull =
		protect_region_make(protect, transaction, range[0].base, bytes, range[0].access);

	protect->region[hull].hull = count > 1;
	for (uint32_t i = 0; i < count; i++) {
		/* What all of them may do: nobody is shown more than there is. */
		protect->region[hull].new_access &= range[i].access;
		range[i].region = hull;
	}
	return lingers;
}

void protect_regions_set(struct protect *protect, struct protect_transaction *transaction,
	enum block_region_state state, uint64_t ticket)
{
	for (uint32_t i = 0; i < transaction->count; i++) {
		struct block_region *region = &protect->region[transaction->range[i].region];

		region->ticket = ticket;
		protect_region_set(protect, region, state);
	}
}

void protect_regions_note_old(struct protect *protect, struct protect_transaction *transaction)
{
	for (uint32_t i = 0; i < transaction->count; i++) {
		const struct protect_range *range = &transaction->range[i];
		struct block_region *region = &protect->region[range->region];

		region->mixed |= range->mixed || region->hull;
		region->old_access |= range->old;
	}
}

/* --- shootdowns --------------------------------------------------------------------------------- */

enum protect_status protect_shoot(struct protect *protect, vp_id_t vp, enum vtl by, enum vtl target,
	uint64_t transaction, struct protect_pages pages)
{
	const struct flush_request request = {
		.set = vpset_make_all(&protect->every_vp),
		.vtl = target,
		.caller = by,
		.flags = FLUSH_ALL_SPACES,
	};
	struct protect_lazy *lazy = &protect->lazy[target];
	enum flush_result result;
	uint64_t ticket;

	/*
	 * What has been posted and unlinked up to here is in the tables, and seen by this VP: the
	 * flush that follows covers it.
	 */
	protect_lock_records(protect, vp);
	ticket = lazy->posted;
	pages = protect->ops->join(protect->platform, lazy->pages, pages);
	lazy->pages = (struct protect_pages){0, 0};
	protect_unlock_records(protect, vp);

	result = flush_request(protect->flush, vp, &request);
	protect_count(protect, vp, COUNTER_PROTECT_SHOOTDOWNS, 1);

	protect_lock_records(protect, vp);
	if (result == FLUSH_DONE) {
		protect_lazy_done(protect, target, ticket);
		protect->ops->release(protect->platform, pages);
	} else {
		struct protect_pending *pending = &protect->vps[vp].pending[by];

		protect->pending_count += !pending->on;
		pending->on = true;
		if (pending->transaction < transaction)
			pending->transaction = transaction;
		if (pending->ticket[target] < ticket)
			pending->ticket[target] = ticket;
		pending->pages = protect->ops->join(protect->platform, pending->pages, pages);
	}
	protect_unlock_records(protect, vp);
	return result == FLUSH_DONE ? PROTECT_DONE : PROTECT_SUSPENDED;
}

void protect_shoot_lazily(struct protect *protect, vp_id_t vp, enum vtl by, enum vtl target)
{
	const struct flush_request request = {
		.set = vpset_make_all(&protect->every_vp),
		.vtl = target,
		.caller = by,
		.flags = FLUSH_ALL_SPACES,
	};

	flush_request_lazily(protect->flush, vp, &request);
}

void protect_wait(struct protect *protect, vp_id_t vp)
{
	struct tlblock *tlblock = protect->flush->tlblock;

	if (tlblock_is_suspended(tlblock, vp, VTL2)) {
		/* Somebody in VTL2 may be waiting for this VP's in the same way. */
		tlblock_release_own(tlblock, vp);
		while (tlblock_is_suspended(tlblock, vp, VTL2))
			atomic_relax();
	}
	/* Also when the last holder has let go meanwhile. */
	protect_note_ended(protect, vp);
}
