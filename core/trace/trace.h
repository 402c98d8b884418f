/*
 * The trace: what each VP did and when, in a ring of its own, always on. A ring has one writer (its
 * VP, outside NMI handlers) and no lock; whoever reads it stands outside and needs nobody's help.
 * No policy, no formatting and no clock in here: the time stamp comes with the call, the viewers'
 * file format is a tool's business, and adding an event must not cost a record's size.
 *
 * The layout in memory is part of include/parapet/block.h.
 */
#ifndef PARAPET_CORE_TRACE_H
#define PARAPET_CORE_TRACE_H

#include <parapet/block.h>
#include <parapet/types.h>

#include "core/atomic.h"

/*
 * What happened. Numbers are stable: new events are added before TRACE_EVENT_COUNT. The comment
 * names the two arguments; trace_event_describe() tells them to tools.
 */
enum trace_event {
	TRACE_NONE = 0,

	/* A guest's processor, by mailbox or by INIT/SIPI. `vp` is the one it happens to. */
	TRACE_AP_REQUEST, /* asked for: VP, address */
	TRACE_AP_ACCEPTED, /* acknowledged: VP, address */
	TRACE_AP_STARTED, /* has seen its wakeup: VP, address */
	TRACE_AP_RUNNING, /* its first guest instruction follows: VP, address */
	TRACE_AP_LEAVING, /* on its way to the reset vector: VP, 0 */
	TRACE_AP_OFFLINE, /* parked again, ready for the next request: VP, 0 */
	TRACE_AP_TEST, /* test command: VP, 1 if it is offline and ready */
	TRACE_AP_REFUSED, /* request refused: reason (enum mailbox_outcome), APIC id */
	TRACE_AP_FAILED, /* could not be started: VP, reason */
	TRACE_AP_INIT, /* INIT accepted: VP, 0 */

	/* A VP and its guest. */
	TRACE_GUEST_FIRST_ENTRY, /* instruction pointer, VTL */
	TRACE_GUEST_NMI_INJECTED, /* instruction pointer, 0 */
	TRACE_GUEST_DENIED, /* kind (enum trace_denied), port, MSR or address */
	TRACE_GUEST_END, /* enum block_end, code */

	/* Permission changes, on the VP that asked. */
	TRACE_PROTECT_BEGIN, /* transaction, range count */
	TRACE_PROTECT_COMMIT, /* transaction, entries written */
	TRACE_PROTECT_END, /* transaction, status */
	TRACE_PROTECT_RANGE, /* address and new access, bytes and old access (in bits 11:0) */
	TRACE_PROTECT_SYNC, /* deferred changes are ended: VTL whose, VTL that asked */

	TRACE_EVENT_COUNT
};

/* What TRACE_GUEST_DENIED was about; in the order of the COUNTER_DENIED_ counters. */
enum trace_denied {
	TRACE_DENIED_IO,
	TRACE_DENIED_MSR,
	TRACE_DENIED_MEMORY,
	TRACE_DENIED_PCI,
	TRACE_DENIED_INTERRUPT,
	TRACE_DENIED_INSTRUCTION,
	TRACE_DENIED_SEALED, /* COUNTER_PROTECT_DENIED: a write to the sealed kernel */
};

/*
 * How a viewer draws an event. BEGIN and END enclose each other on the writer's own line; they
 * carry the same name. The ASYNC ones make a span that begins on one VP's ring and ends on
 * another's: it is named by argument a (a VP), and an ASYNC_BEGIN without an end is a request that
 * came to nothing.
 */
enum trace_phase {
	TRACE_PHASE_INSTANT,
	TRACE_PHASE_BEGIN,
	TRACE_PHASE_END,
	TRACE_PHASE_ASYNC_BEGIN,
	TRACE_PHASE_ASYNC_STEP,
	TRACE_PHASE_ASYNC_END,
};

struct trace_event_info {
	const char *name; /* what a viewer shows */
	const char *category; /* "ap", "guest", "protect" */
	enum trace_phase phase;
	const char *span; /* the name that BEGIN/END or ASYNC_ events share, else NULL */
	const char *arg_a; /* NULL: not used */
	const char *arg_b;
};

/*
 * One record as the ring's memory holds it: struct trace_record in words that may be read any
 * time.
 */
struct trace_slot {
	struct atomic_u64 tsc;
	struct atomic_u64 event_vp; /* event in the lower half, VP in the upper */
	struct atomic_u64 a;
	struct atomic_u64 b;
};

/* The ring's memory: this, then the slots. */
struct trace_ring_header {
	struct atomic_u64 count;
	uint8_t padding[CACHE_LINE_BYTES - sizeof(struct atomic_u64)];
};

#ifndef PARAPET_EXPLORE
_Static_assert(sizeof(struct trace_slot) == sizeof(struct trace_record), "tools read the latter");
_Static_assert(offsetof(struct trace_slot, event_vp) == offsetof(struct trace_record, event) &&
		offsetof(struct trace_slot, b) == offsetof(struct trace_record, b),
	"tools read struct trace_record");
_Static_assert(sizeof(struct trace_ring_header) == 64, "the records follow 64 bytes");
#endif

/* A writer's handle. Belongs to its VP; all zero is a ring that takes records and keeps none. */
struct trace_ring {
	struct trace_ring_header *header;
	struct trace_slot *slots;
	uint64_t mask;
	uint32_t vp;
};

/* Bytes of memory that a ring of `entries` records takes. */
static inline uint64_t trace_ring_bytes(uint64_t entries)
{
	return sizeof(struct trace_ring_header) + entries * sizeof(struct trace_slot);
}

/*
 * Makes `ring` write into `memory`: trace_ring_bytes(entries) long, on a 64-byte boundary, owned by
 * the caller for as long as the ring is used. Clears the memory. False, and a ring that keeps
 * nothing, if entries is no power of two of at least 2, or the memory is not aligned.
 */
bool trace_ring_init(struct trace_ring *ring, vp_id_t vp, void *memory, uint64_t entries);

/*
 * Adds one record, over the oldest if the ring is full. Only by the ring's own VP, and not from an
 * NMI handler (one that interrupts this function would lose its record).
 */
static inline void trace_write(
	struct trace_ring *ring, uint64_t tsc, enum trace_event event, uint64_t a, uint64_t b)
{
	if (!ring->header)
		return;

	/* Relaxed: no one else writes the count. */
	uint64_t count = atomic_u64_load(&ring->header->count, memory_order_relaxed);
	struct trace_slot *slot = &ring->slots[count & ring->mask];

	/*
	 * Pairs with the acquire fence in trace_ring_read(): a reader that has seen a word of this
	 * record in the slot also sees that the count had reached it, and drops what it copied.
	 */
	atomic_fence(memory_order_release);
	atomic_u64_store(&slot->tsc, tsc, memory_order_relaxed);
	atomic_u64_store(
		&slot->event_vp, (uint32_t)event | (uint64_t)ring->vp << 32, memory_order_relaxed);
	atomic_u64_store(&slot->a, a, memory_order_relaxed);
	atomic_u64_store(&slot->b, b, memory_order_relaxed);

	/* Pairs with the acquire load in trace_ring_read(): a counted record is complete. */
	atomic_u64_store(&ring->header->count, count + 1, memory_order_release);
}

/*
 * Copies up to `max` records into `out`, oldest first, starting with record number *next (numbers
 * count from the first ever written); records that are overwritten, or may be at this moment, are
 * skipped, so that at most entries - 1 come back. Returns how many were copied and sets *next to
 * the number after the last one. Any thread, while the VP writes or after it stopped; `memory` and
 * `entries` as given to trace_ring_init().
 */
uint64_t trace_ring_read(const void *memory, uint64_t entries, uint64_t *next,
	struct trace_record *out, uint64_t max);

/* What `event` means; never NULL, also for numbers that a newer image wrote. */
const struct trace_event_info *trace_event_describe(uint32_t event);

#endif
