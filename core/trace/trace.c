/*
 * The trace's slow half: setting a ring up, reading it from outside, and what each event means.
 * Nothing here runs while a guest waits.
 */
#include "core/trace/trace.h"

bool trace_ring_init(struct trace_ring *ring, vp_id_t vp, void *memory, uint64_t entries)
{
	*ring = (struct trace_ring){.vp = vp};
	if (entries < 2 || (entries & (entries - 1)) != 0)
		return false;
	if (!memory || ((uintptr_t)memory & (CACHE_LINE_BYTES - 1)) != 0)
		return false;

	ring->header = memory;
	ring->slots = (struct trace_slot *)(ring->header + 1);
	ring->mask = entries - 1;
	for (uint64_t i = 0; i < entries; i++) {
		/* Relaxed: nobody reads before the count, below, has been published. */
		atomic_u64_store(&ring->slots[i].tsc, 0, memory_order_relaxed);
		atomic_u64_store(&ring->slots[i].event_vp, TRACE_NONE, memory_order_relaxed);
		atomic_u64_store(&ring->slots[i].a, 0, memory_order_relaxed);
		atomic_u64_store(&ring->slots[i].b, 0, memory_order_relaxed);
	}
	/* Pairs with the acquire load in trace_ring_read(). */
	atomic_u64_store(&ring->header->count, 0, memory_order_release);
	return true;
}

uint64_t trace_ring_read(const void *memory, uint64_t entries, uint64_t *next,
	struct trace_record *out, uint64_t max)
{
	const struct trace_ring_header *header = memory;
	const struct trace_slot *slots = (const struct trace_slot *)(header + 1);

	/* Pairs with the release store at the end of trace_write(). */
	uint64_t count = atomic_u64_load(&header->count, memory_order_acquire);
	uint64_t first = *next;
	/* The record that the next one overwrites is left out: the writer may be at it. */
	uint64_t oldest = count >= entries ? count - entries + 1 : 0;

	if (first < oldest)
		first = oldest;
	if (first >= count)
		return 0;
	if (max > count - first)
		max = count - first;

	for (uint64_t i = 0; i < max; i++) {
		const struct trace_slot *slot = &slots[(first + i) & (entries - 1)];
		/* Relaxed: whether these words belong together is decided below. */
		uint64_t event_vp = atomic_u64_load(&slot->event_vp, memory_order_relaxed);

		out[i].tsc = atomic_u64_load(&slot->tsc, memory_order_relaxed);
		out[i].event = (uint32_t)event_vp;
		out[i].vp = (uint32_t)(event_vp >> 32);
		out[i].a = atomic_u64_load(&slot->a, memory_order_relaxed);
		out[i].b = atomic_u64_load(&slot->b, memory_order_relaxed);
	}

	/*
	 * Pairs with the release fence in trace_write(): if a word above came from a later record
	 * n, the count read here is at least n. Record n overwrites n - entries, so everything
	 * up to count - entries may be torn.
	 */
	atomic_fence(memory_order_acquire);
	count = atomic_u64_load(&header->count, memory_order_relaxed);

	uint64_t torn = 0;
	if (count >= entries && count - entries >= first)
		torn = count - entries - first + 1;
	if (torn > max)
		torn = max;
	for (uint64_t i = torn; torn != 0 && i < max; i++)
		out[i - torn] = out[i];
	*next = first + max;
	return max - torn;
}

/* clang-format off */
static const struct trace_event_info trace_events[TRACE_EVENT_COUNT] = {
	[TRACE_NONE] = {"nothing", "other", TRACE_PHASE_INSTANT, NULL, NULL, NULL},

	[TRACE_AP_REQUEST] = {"AP requested", "ap", TRACE_PHASE_ASYNC_BEGIN,
		"AP start", "vp", "address"},
	[TRACE_AP_ACCEPTED] = {"AP accepted", "ap", TRACE_PHASE_ASYNC_STEP,
		"AP start", "vp", "address"},
	[TRACE_AP_STARTED] = {"AP started", "ap", TRACE_PHASE_ASYNC_STEP,
		"AP start", "vp", "address"},
	[TRACE_AP_RUNNING] = {"AP running", "ap", TRACE_PHASE_ASYNC_END,
		"AP start", "vp", "address"},
	[TRACE_AP_LEAVING] = {"AP going offline", "ap", TRACE_PHASE_ASYNC_BEGIN,
		"AP offline", "vp", NULL},
	[TRACE_AP_OFFLINE] = {"AP offline", "ap", TRACE_PHASE_ASYNC_END,
		"AP offline", "vp", NULL},
	[TRACE_AP_TEST] = {"AP tested", "ap", TRACE_PHASE_INSTANT, NULL, "vp", "ready"},
	[TRACE_AP_REFUSED] = {"AP request refused", "ap", TRACE_PHASE_INSTANT, NULL,
		"reason", "apic_id"},
	[TRACE_AP_FAILED] = {"AP failed", "ap", TRACE_PHASE_ASYNC_END,
		"AP start", "vp", "reason"},
	[TRACE_AP_INIT] = {"INIT", "ap", TRACE_PHASE_INSTANT, NULL, "vp", NULL},

	[TRACE_GUEST_FIRST_ENTRY] = {"guest entered", "guest", TRACE_PHASE_INSTANT, NULL,
		"address", "vtl"},
	[TRACE_GUEST_NMI_INJECTED] = {"NMI injected", "guest", TRACE_PHASE_INSTANT, NULL,
		"address", NULL},
	[TRACE_GUEST_DENIED] = {"access denied", "guest", TRACE_PHASE_INSTANT, NULL,
		"kind", "where"},
	[TRACE_GUEST_END] = {"guest ended", "guest", TRACE_PHASE_INSTANT, NULL,
		"reason", "code"},

	[TRACE_PROTECT_BEGIN] = {"protect asked for", "protect", TRACE_PHASE_BEGIN,
		"protect", "transaction", "ranges"},
	[TRACE_PROTECT_COMMIT] = {"protect committed", "protect", TRACE_PHASE_INSTANT, NULL,
		"transaction", "entries"},
	[TRACE_PROTECT_END] = {"protect done", "protect", TRACE_PHASE_END,
		"protect", "transaction", "status"},
	[TRACE_PROTECT_RANGE] = {"permissions changed", "protect", TRACE_PHASE_INSTANT, NULL,
		"address_new", "bytes_old"},
	[TRACE_PROTECT_SYNC] = {"protect sync", "protect", TRACE_PHASE_INSTANT, NULL,
		"target", "by"},
};
/* clang-format on */

const struct trace_event_info *trace_event_describe(uint32_t event)
{
	static const struct trace_event_info unknown = {
		"unknown event", "other", TRACE_PHASE_INSTANT, NULL, "a", "b"};

	if (event >= TRACE_EVENT_COUNT || !trace_events[event].name)
		return &unknown;
	return &trace_events[event];
}
