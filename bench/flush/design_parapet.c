/* Parapet's own: core/flush as it is. */
#include <stdlib.h>
#include <string.h>

#include "bench/flush/design.h"

static struct flush flush;
static struct tlblock tlblock;

static bool invalidate(void *platform, vp_id_t vp, enum vtl vtl, const struct flush_entry *entry)
{
	(void)platform;
	(void)vtl;
	bench_invalidate(vp, entry->range.base.value);
	return true;
}

static const struct flush_sink sink = {.invalidate = invalidate};

static void init(struct run *run)
{
	tlblock_init(&tlblock, bench_allocate(run->vp_count * sizeof(struct tlblock_vp)),
		bench_allocate(TLBLOCK_WAITERS_NEEDED(run->vp_count) * sizeof(struct atomic_u64)),
		run);
	flush_init(&flush, bench_allocate(run->vp_count * sizeof(struct flush_vp)), run, &tlblock,
		FLUSH_RING_SLOTS);
}

static void finish(void)
{
	free(tlblock.vps);
	free(tlblock.waiters);
	free(flush.vps);
}

static void request(vp_id_t me, const struct vpset *set, uint64_t range)
{
	struct flush_request request = {
		.set = *set,
		.vtl = VTL0,
		.caller = VTL0,
		.flags = FLUSH_ALL_SPACES,
		.ranges = &range,
		.range_count = 1,
	};

	flush_request(&flush, me, &request);
}

static void drain(vp_id_t vp)
{
	if (flush_drain(&flush, vp, VTL0, &sink))
		bench_invalidate_all(vp);
	flush_entered(&flush, vp, VTL0);
}

const struct design design_parapet = {
	.name = "parapet",
	.about = "a ring of atomics per VP",
	.init = init,
	.finish = finish,
	.request = request,
	.drain = drain,
};
