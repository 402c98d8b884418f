/*
 * Memory permissions: what each lower VTL may do with each page, and the promise that goes with a
 * change. A change is a transaction: begin, add ranges, commit. A commit merges what touches, checks
 * everything, reserves what it can need, writes, and shoots stale translations down once, however
 * many ranges it holds; or it fails and nothing has changed. When it has returned (and, after
 * PROTECT_SUSPENDED, when the VTL that asked runs on) no VP completes another access that the new
 * permissions forbid.
 *
 * What may not enter: how a platform keeps attributes (protect_ops.h), how a guest asks, memory that
 * is not handed over at start. VPs wait for each other's locks in VTL2 only, where nobody waits for
 * them to leave a lower VTL; no lock is ever held across an entry or taken by a flush hypercall.
 *
 * Locks, outermost first; the order is asserted at every acquisition (protect_lock.h):
 * 1. region shards, by address, in ascending order: held from the checks to the end of the
 *    shootdown, so that two transactions on the same page follow one another;
 * 2. page-table shards, by address, in ascending order: held while tables are read and written;
 * 3. the record lock: regions, pins, quarantine. Held for short, bounded looks.
 */
#ifndef PARAPET_CORE_PROTECT_H
#define PARAPET_CORE_PROTECT_H

#include "core/flush/flush.h"
#include "core/protect/protect_lock.h"
#include "core/protect/protect_ops.h"
#include "core/trace/trace.h"
#include "parapet/block.h"
#include "parapet/types.h"

/* Ranges of one transaction: as many as a page of GPNs has. */
#ifndef PROTECT_RANGES_MAX
#define PROTECT_RANGES_MAX 512
#endif

#define PROTECT_TARGETS 2 /* VTL0 and VTL1 can be targets */

/* Why a permission changes: for the record alone. */
enum protect_reason {
	PROTECT_VTL_MASK, /* HvCallModifyVtlProtectionMask and its like */
	PROTECT_KERNEL_SEAL, /* --protect kernel */
	PROTECT_TEST,
	PROTECT_REASONS,
};

/* Of a transaction. */
/*
 * Revoked permissions may linger: no shootdown. A VP gives them up at its next exit at the latest;
 * protect_sync ends them all at once. The default is sensitive: a shootdown.
 */
#define PROTECT_NOT_SENSITIVE (1u << 0)
/* From now on, VTLs below the one that asks cannot change these ranges: PROTECT_LOCKED. */
#define PROTECT_LOCK (1u << 1)

enum protect_status {
	PROTECT_DONE,
	/*
	 * Done as soon as tlblock_is_suspended(vp, by) is false; the run loop enters the VTL that
	 * asked only then. Never for VTL2, whose commit waits.
	 */
	PROTECT_SUSPENDED,
	PROTECT_DEFERRED, /* written; see PROTECT_NOT_SENSITIVE */
	/* From here on: nothing has changed. */
	PROTECT_BAD_RANGE, /* empty, unaligned, wraps, not RAM of the guest's, contradicts itself */
	PROTECT_BAD_ACCESS, /* no such permission, or one that the platform cannot keep */
	PROTECT_BAD_CALLER, /* no such lower VTL, or it is not below the one that asks */
	PROTECT_OVERLAY_PAGE, /* touches a page that is pinned as an overlay */
	PROTECT_LOCKED, /* touches a range that a higher VTL has locked */
	PROTECT_NO_MEMORY, /* no table memory */
	PROTECT_FULL, /* too many ranges, or too many pins */
};

/* Did it work? For callers that need not tell the three successes apart. */
static inline bool protect_ok(enum protect_status status)
{
	return status <= PROTECT_DEFERRED;
}

/* The guest's memory that permissions are about. */
struct protect_span {
	uint64_t base;
	uint64_t bytes;
};

enum protect_pin {
	PROTECT_PIN_OVERLAY, /* a page that Parapet shares with the guest: nobody may change it */
	PROTECT_PIN_OVERLAY_DATA, /* the same, but to what it is for: reading and writing */
	PROTECT_PIN_OVERLAY_CODE, /* the same, but to reading and executing */
	PROTECT_PIN_LOCK, /* VTLs below the one that pinned it may not change it */
};

struct protect_pinned {
	uint64_t base;
	uint64_t bytes;
	enum protect_pin kind;
	enum vtl by;
};

/* A transaction being put together. The caller's memory; belongs to the VP that began it. */
struct protect_transaction {
	vp_id_t vp;
	enum vtl by;
	enum vtl target;
	enum protect_reason reason;
	uint32_t flags;
	enum protect_status status; /* PROTECT_DONE, or why it cannot be committed */
	uint64_t failed; /* after a failed add or commit: an address that it is about */
	uint64_t number; /* in the order of commits */
	uint32_t covered; /* records of earlier changes that nobody needs once this one is made, */
	uint32_t covered_first; /* and where the first of them is */
	uint32_t count;
	struct protect_range range[PROTECT_RANGES_MAX]; /* in order, touching ones merged */
};

/* A shootdown that has still to see TLB locks released. Under the record lock. */
struct protect_pending {
	bool on;
	uint64_t transaction; /* regions up to this one are stable with it */
	uint64_t ticket[PROTECT_TARGETS]; /* deferred changes up to these are over with it */
	struct protect_pages pages; /* free with it */
};

/* One VP. Memory of the embedder's, zeroed, one for each VP. */
struct protect_vp {
	/* Locks that this VP holds: the latest one's rank. The VP's own. */
	_Alignas(CACHE_LINE_BYTES) struct protect_held held;
	uint64_t *counter; /* block_vp.counter, or NULL */
	struct trace_ring *trace; /* or NULL */
	struct protect_pending pending[TLBLOCK_CALLERS]; /* by the VTL that asked */
};

/* What the lazy ways of one target leave for the next shootdown. Under the record lock. */
struct protect_lazy {
	uint64_t posted; /* deferred changes so far */
	uint64_t done; /* those up to this one are over */
	struct protect_pages pages; /* quarantine: unlinked since the latest shootdown began */
};

struct protect {
	struct protect_vp *vps;
	struct flush *flush;
	struct vpset_map every_vp; /* all VPs by their own numbers */
	const struct protect_ops *ops;
	void *platform;
	uint64_t (*now)(void);
	void (*broken)(const char *what);
	uint32_t targets; /* VTLs 0 to targets - 1 */
	const struct protect_span *ram;
	uint32_t ram_count;
	/*
	 * ACCESS_ bits that some page of RAM may be without, for each target: what has never been
	 * withheld need not be looked up. Bits are never taken back.
	 */
	struct atomic_u32 withheld[PROTECT_TARGETS];
	/* Region shards that a pin touches or has touched: elsewhere nobody need look for one. */
	struct atomic_u64 pinned;

	struct protect_lock region_lock[PROTECT_REGION_SHARDS];
	struct protect_lock table_lock[PROTECT_TABLE_SHARDS];
	struct protect_lock record_lock;

	/* All under the record lock. */
	struct block_region *region; /* shown to the outside */
	uint32_t region_count;
	uint32_t region_hand; /* where the search for an old record goes on */
	uint32_t regions_busy; /* of them changing, flushing or deferred */
	uint32_t regions_deferred;
	uint32_t pending_count;
	uint64_t transactions;
	struct protect_lazy lazy[PROTECT_TARGETS];
	struct protect_pinned *pin;
	uint32_t pin_count;
	uint32_t pin_reserved; /* by transactions under way */
	uint32_t pin_room;
};

/* What protect_init is given; all memory is the embedder's and stays with the engine. */
struct protect_config {
	struct protect_vp *vps; /* one for each VP of `flush`, zeroed */
	struct flush *flush;
	const struct protect_ops *ops;
	void *platform; /* handed to the operations */
	uint64_t (*now)(void); /* time stamps of the trace; NULL: there is no clock */
	/* The engine has found itself broken (locks out of order); must not return. */
	void (*broken)(const char *what);
	uint32_t targets; /* 1: VTL0 alone, 2: VTL1 too */
	struct block_region *region; /* zeroed */
	uint32_t region_count; /* PROTECT_REGIONS(VPs) at least */
	struct protect_pinned *pin;
	uint32_t pin_room;
};

/* Records that the engine keeps for so many VPs, and pins that suffice for their pages. */
#define PROTECT_REGIONS(vps) (64u + 16u * (vps))
#define PROTECT_PINS(vps)    (64u + 8u * (vps))

/* Before any VP runs. */
void protect_init(struct protect *protect, const struct protect_config *config);

/*
 * Memory that permissions can be changed of while VPs run, the guest's RAM; none before this. Before
 * any VP runs, and before any of it is given to a target, all of it, by protect_map. The array stays
 * the caller's.
 */
void protect_set_ram(struct protect *protect, const struct protect_span *ram, uint32_t count);

/* Where a VP counts (COUNTER_PROTECT_*) and traces; either may be NULL. Before it runs. */
void protect_set_observers(
	struct protect *protect, vp_id_t vp, uint64_t *counter, struct trace_ring *trace);

/*
 * At start, before any VP runs: what `target` may do with [base, base + bytes), RAM or not. No
 * record, no flush. PROTECT_BAD_RANGE (unaligned, wraps), _BAD_ACCESS, _BAD_CALLER or _NO_MEMORY.
 */
enum protect_status protect_map(
	struct protect *protect, enum vtl target, gpa_t base, uint64_t bytes, uint32_t access);

/* Can this machine hold `target` to exactly these ACCESS_ bits? */
bool protect_can(const struct protect *protect, enum vtl target, uint32_t access);

/*
 * Own VP in VTL2: an empty transaction of `by`, VTL1 or VTL2, about `target`, a VTL below it.
 * `flags`: PROTECT_NOT_SENSITIVE, PROTECT_LOCK. What is wrong with these shows in what follows.
 */
void protect_begin(struct protect *protect, struct protect_transaction *transaction, vp_id_t vp,
	enum vtl by, enum vtl target, enum protect_reason reason, uint32_t flags);

/*
 * Adds [base, base + bytes) with ACCESS_ bits. Ranges may come in any order and may overlap if they
 * say the same. On an error (BAD_RANGE, BAD_ACCESS, BAD_CALLER, OVERLAY_PAGE, LOCKED, FULL) the
 * range is not in the transaction; the ones added before are, and may be committed.
 */
enum protect_status protect_add(struct protect *protect, struct protect_transaction *transaction,
	gpa_t base, uint64_t bytes, uint32_t access);

/*
 * Carries the transaction out. PROTECT_DONE, _SUSPENDED, _DEFERRED; or OVERLAY_PAGE, LOCKED (pinned
 * since), NO_MEMORY, FULL (PROTECT_LOCK: no room for the pins), BAD_CALLER: nothing has changed. An
 * empty transaction is done. May be called by several VPs at once; spins for locks, in VTL2. For
 * `by` VTL2 the VP's own TLB locks are released while it waits for others': walk again afterwards.
 */
enum protect_status protect_commit(
	struct protect *protect, struct protect_transaction *transaction);

/*
 * Own VP in VTL2: every deferred change is over when this has returned PROTECT_DONE, or `by`, the
 * VTL that asks (VTL1 or VTL2), runs on after PROTECT_SUSPENDED. Costs nothing if there is none.
 */
enum protect_status protect_sync(struct protect *protect, vp_id_t vp, enum vtl by);

/*
 * Own VP in VTL2, before a VTL runs on whose transaction was PROTECT_SUSPENDED: its records say that
 * it is over, and its table pages are free. Otherwise the next transaction of anybody's does it.
 */
void protect_note_ended(struct protect *protect, vp_id_t vp);

/*
 * Own VP in VTL2, holding the TLB lock of `target` (tlblock_take(.., vp, target, VTL2)): what
 * `target` may do with the page at `gpa` now. Holds until that lock is released: an access that it
 * allows may be made until then. No lock, bounded.
 */
uint32_t protect_access(const struct protect *protect, enum vtl target, gpa_t gpa);

/*
 * The same for one page of RAM: may `target` do all of `access` with it? Looks nothing up for what
 * was never withheld from `target` anywhere.
 */
static inline bool protect_may(
	const struct protect *protect, enum vtl target, gpa_t gpa, uint32_t access)
{
	/* Relaxed, pairs with N5: T1, before it, is what orders it. */
	uint32_t withheld = atomic_u32_load(&protect->withheld[target], memory_order_relaxed);

	return !(access & withheld) || !(access & ~protect_access(protect, target, gpa));
}

/*
 * Own VP in VTL2: changes of [base, base + bytes) are refused from now on, PROTECT_PIN_OVERLAY and
 * its like to everybody, PROTECT_PIN_LOCK to VTLs below `by`. Waits for a change under way. The same
 * range may be pinned several times. PROTECT_DONE, BAD_RANGE, FULL, or OVERLAY_PAGE: a page is pinned
 * as an overlay of another kind.
 */
enum protect_status protect_pin(struct protect *protect, vp_id_t vp, gpa_t base, uint64_t bytes,
	enum protect_pin kind, enum vtl by);

/* Takes one pin back that was made with the same arguments; false: there is none. */
bool protect_unpin(struct protect *protect, vp_id_t vp, gpa_t base, uint64_t bytes,
	enum protect_pin kind, enum vtl by);

#endif
