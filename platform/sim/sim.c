/* The machine of threads; see the header. */
#include "platform/sim/sim.h"

#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/flush/flush.h"
#include "platform/sim/sim_table.h"
#include "platform/sim/sim_tlb.h"

#define EVENTS	     64
#define STUCK_MS     2000
#define REPORT_BYTES (64 * 1024)

enum sim_event_kind {
	EVENT_ENTER,
	EVENT_WITHDRAW,
	EVENT_EXIT,
	EVENT_RANGE,
	EVENT_FULL,
	EVENT_CHANGE,
	EVENT_FLUSH,
	EVENT_RETURNED,
	EVENT_SUSPENDED,
	EVENT_LOCK,
	EVENT_UNLOCK,
	EVENT_FILL,
	EVENT_KICK,
	EVENT_IDLE,
	EVENT_STALE,
};

static const char *const event_names[] = {
	"enters VTL",
	"withdraws",
	"exits",
	"invalidates range at",
	"invalidates, FLUSH_FULL",
	"changes entry, now version",
	"asks for a flush of VPs",
	"flush has returned, version",
	"is suspended",
	"takes TLB lock",
	"releases TLB locks",
	"fills TLB with version",
	"kicks VP",
	"idles",
	"STALE ACCESS with version",
};

struct sim_event {
	uint64_t time;
	enum sim_event_kind kind;
	uint64_t value;
};

struct sim;

struct sim_vp {
	_Alignas(CACHE_LINE_BYTES) struct atomic_u32
		kicked; /* written by others: a kick is pending */
	_Alignas(CACHE_LINE_BYTES) struct sim *sim;
	vp_id_t id;
	pthread_t thread;
	uint64_t random;
	struct sim_tlb tlb[FLUSH_LOWER_VTLS];
	uint32_t kick_delay; /* accesses until a kick that is pending is taken */
	uint64_t alive; /* what the watchdog looks at, through `progress` */
	struct atomic_u64 progress;
	struct sim_event event[EVENTS];
	uint64_t events;
	uint64_t accesses, stays, flushes, suspended, withdrawn, kicks, requests;
};

struct sim {
	struct run run;
	struct flush flush;
	struct tlblock tlblock;
	struct run_vp run_vps[SIM_VPS_MAX];
	struct flush_vp flush_vps[SIM_VPS_MAX];
	struct tlblock_vp tlblock_vps[SIM_VPS_MAX];
	struct atomic_u64 waiters[TLBLOCK_WAITERS_NEEDED(SIM_VPS_MAX)];
	uint16_t vp_of_index[SIM_VPS_MAX];
	struct vpset_map map;
	struct sim_table table[FLUSH_LOWER_VTLS]; /* each lower VTL has its own */
	struct sim_vp vp[SIM_VPS_MAX];
	struct atomic_u32 stop;
	struct atomic_u32 failed;
	const char *failure;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint32_t sim_random(struct sim_vp *vp, uint32_t below)
{
	vp->random ^= vp->random << 13;
	vp->random ^= vp->random >> 7;
	vp->random ^= vp->random << 17;
	return (uint32_t)((vp->random >> 32) % below);
}

static void sim_note(struct sim_vp *vp, enum sim_event_kind kind, uint64_t value)
{
	vp->event[vp->events++ % EVENTS] = (struct sim_event){__builtin_ia32_rdtsc(), kind, value};
}

static bool sim_stopping(struct sim_vp *vp)
{
	atomic_u64_store(&vp->progress, ++vp->alive, memory_order_relaxed);
	return atomic_u32_load(&vp->sim->stop, memory_order_relaxed) != 0;
}

static void sim_fail(struct sim *sim, const char *why)
{
	if (atomic_u32_exchange(&sim->failed, 1, memory_order_acq_rel) == 0)
		sim->failure = why;
	atomic_u32_store(&sim->stop, 1, memory_order_release);
}

/* --- what the platform gives the core ------------------------------------------------------------
 */

static void sim_kick(void *platform, vp_id_t target)
{
	struct sim *sim = platform;

	/* Relaxed: a kick carries nothing. */
	atomic_u32_store(&sim->vp[target].kicked, 1, memory_order_relaxed);
}

static const struct run_ops sim_ops = {.kick = sim_kick};

static bool sim_invalidate(
	void *platform, vp_id_t id, enum vtl vtl, const struct flush_entry *entry)
{
	struct sim_vp *vp = platform;

	(void)id;
	sim_note(vp, EVENT_RANGE, entry->range.base.value);
	if (sim_random(vp, 16) == 0)
		return false; /* does not pay, says this platform now and then */
	sim_tlb_invalidate(&vp->tlb[vtl], &entry->range, entry->flags & FLUSH_ALL_SPACES,
		(uint32_t)(entry->space >> PAGE_BITS) - 1);
	return true;
}

/* --- the guest
 * ------------------------------------------------------------------------------------- */

static struct sim_place sim_random_place(struct sim_vp *vp)
{
	return (struct sim_place){
		.space = sim_random(vp, SIM_SPACES),
		.gig = sim_random(vp, SIM_GIGS),
		.region = sim_random(vp, SIM_REGIONS),
		.page = sim_random(vp, SIM_PAGES),
	};
}

/* Where most of the traffic is: one page of each VP's, so that those who race do race. */
static struct sim_place sim_hot_place(struct sim_vp *vp, vp_id_t owner)
{
	return (struct sim_place){
		.gig = 0,
		.region = owner % SIM_REGIONS,
		.page = sim_random(vp, 2),
	};
}

/* Uses a translation: `oldest` was read before the access began. */
static void sim_judge(struct sim_vp *vp, uint64_t oldest, uint64_t entry)
{
	vp->accesses++;
	if (sim_entry_version(entry) >= oldest)
		return;
	sim_note(vp, EVENT_STALE, sim_entry_version(entry));
	sim_fail(vp->sim, "an access through a translation whose flush had returned");
}

static void sim_access(struct sim_vp *vp, enum vtl vtl, struct sim_place place)
{
	uint64_t oldest = sim_table_oldest(&vp->sim->table[vtl], place);
	const struct sim_tlb_entry *found = sim_tlb_find(&vp->tlb[vtl], place);

	if (!found) {
		struct sim_translation translation = sim_table_walk(&vp->sim->table[vtl], place);

		sim_note(vp, EVENT_FILL, sim_entry_version(translation.entry));
		sim_tlb_fill(&vp->tlb[vtl], place, translation);
		found = sim_tlb_find(&vp->tlb[vtl], place);
	}
	sim_judge(vp, oldest, found->translation.entry);
}

/* Between two instructions: is there a kick, and has it come through? */
static bool sim_kick_arrives(struct sim_vp *vp)
{
	if (atomic_u32_load(&vp->kicked, memory_order_relaxed) == 0) {
		vp->kick_delay = 0;
		return false;
	}
	if (vp->kick_delay == 0)
		vp->kick_delay = 1 + sim_random(vp, 32);
	return --vp->kick_delay == 0;
}

/* Accesses memory until kicked or done; may halt at the end, which only a kick (or the end) ends.
 */
static void sim_guest_run(struct sim_vp *vp, enum vtl vtl)
{
	uint32_t accesses = 1 + sim_random(vp, sim_random(vp, 16) == 0 ? 4000 : 40);
	struct sim_place favourite = sim_hot_place(vp, sim_random(vp, vp->sim->run.vp_count));
	/* A guest that never leaves of its own. VP 0 does, and kicks the others with its flushes.
	 */
	bool forever = vp->id != 0 && sim_random(vp, 64) == 0;

	vp->kick_delay = 0;
	while (forever || accesses-- != 0) {
		sim_access(vp, vtl, sim_random(vp, 4) ? favourite : sim_random_place(vp));
		if (sim_kick_arrives(vp) || sim_stopping(vp))
			return;
	}
	if (sim_random(vp, 32) != 0)
		return;
	for (uint32_t spins = 0; spins < 2000 && !sim_kick_arrives(vp) && !sim_stopping(vp);
		spins++)
		atomic_relax();
}

/* --- VTL2
 * ------------------------------------------------------------------------------------------ */

/* Kicks that have arrived in VTL2 are gone; from now on they stay pending. */
static void sim_hold_off_kicks(struct sim_vp *vp)
{
	atomic_u32_exchange(&vp->kicked, 0, memory_order_relaxed);
}

/* The VTL that asked is suspended: idles until the last holder wakes the VP. */
static void sim_wait_for_holders(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;

	while (tlblock_is_suspended(&sim->tlblock, vp->id, vtl) && !sim_stopping(vp)) {
		sim_hold_off_kicks(vp);
		run_idle_begin(&sim->run, vp->id);
		sim_note(vp, EVENT_IDLE, 0);
		if (tlblock_is_suspended(&sim->tlblock, vp->id, vtl)) {
			while (atomic_u32_load(&vp->kicked, memory_order_relaxed) == 0 &&
				atomic_u32_load(&sim->stop, memory_order_relaxed) == 0)
				sched_yield(); /* no progress: the watchdog looks */
		}
		run_idle_end(&sim->run, vp->id);
	}
}

/* Entry, as a platform does it; false if withdrawn. */
static bool sim_enter(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;
	struct flush_sink sink = {.invalidate = sim_invalidate, .platform = vp};
	uint32_t full;

	tlblock_release_own(&sim->tlblock, vp->id);
	sim_note(vp, EVENT_UNLOCK, 0);
	sim_wait_for_holders(vp, vtl);
	sim_hold_off_kicks(vp);
	run_enter_begin(&sim->run, vp->id, vtl);
	full = flush_drain(&sim->flush, vp->id, vtl, &sink);
	if (run_requests_pending(&sim->run, vp->id) || sim_random(vp, 64) == 0) {
		run_enter_withdraw(&sim->run, vp->id);
		sim_note(vp, EVENT_WITHDRAW, full);
		vp->withdrawn++;
		vp->requests += run_requests_take(&sim->run, vp->id) != 0;
		return false;
	}
	if (full) {
		sim_note(vp, EVENT_FULL, full);
		sim_tlb_invalidate_full(&vp->tlb[vtl], full);
	}
	flush_entered(&sim->flush, vp->id, vtl);
	sim_note(vp, EVENT_ENTER, vtl);
	return true;
}

/*
 * Out. Now and then the exit carries an address that has been translated: then the lock is taken
 * before the exit is published, and the address used afterwards.
 */
static void sim_exit(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;
	struct sim_place place = sim_random_place(vp);
	const struct sim_tlb_entry *kept = NULL;

	vp->stays++;
	if (sim_random(vp, 4) == 0)
		kept = sim_tlb_find(&vp->tlb[vtl], place);
	if (kept) {
		tlblock_take(&sim->tlblock, vp->id, vtl, VTL2);
		sim_note(vp, EVENT_LOCK, 0);
	}
	run_exited(&sim->run, vp->id);
	sim_note(vp, EVENT_EXIT, 0);
	for (uint32_t uses = sim_random(vp, 50); kept && uses; uses--) {
		/* Whose flush has "returned" only when the caller runs on: judged by the same word.
		 */
		sim_judge(vp, sim_table_oldest(&sim->table[vtl], place), kept->translation.entry);
	}
}

/* VTL2 emulates an instruction: walks under the lock and uses what it found. */
static void sim_emulate(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;
	struct sim_place place = sim_random_place(vp);
	struct sim_translation translation;

	tlblock_take(&sim->tlblock, vp->id, vtl, VTL2);
	sim_note(vp, EVENT_LOCK, 0);
	translation = sim_table_walk(&sim->table[vtl], place);
	for (uint32_t uses = 1 + sim_random(vp, 100); uses; uses--)
		sim_judge(vp, sim_table_oldest(&sim->table[vtl], place), translation.entry);
}

/* The guest changes an entry that it owns and asks for the flush of what it was. */
static void sim_flush(struct sim_vp *vp, enum vtl vtl)
{
	struct sim *sim = vp->sim;
	struct sim_place place =
		sim_random(vp, 4) ? sim_hot_place(vp, vp->id) : sim_random_place(vp);
	uint64_t permissions = sim_random(vp, 4) * SIM_WRITE & (SIM_WRITE | SIM_EXECUTE);
	uint32_t vps = sim->run.vp_count;
	uint32_t owner = (place.gig == SIM_GIG_LARGE ? place.space : place.region) % vps;
	bool global = place.gig == SIM_GIG_GLOBAL;
	struct flush_request request = {
		.set = vpset_make_all(&sim->map),
		.vtl = vtl,
		.caller = vtl,
		.space = (place.space + 1ull) << PAGE_BITS,
	};
	uint32_t page_bits = PAGE_BITS;
	uint64_t version;
	uint64_t range;

	if (owner != vp->id)
		return;
	range = sim_place_gva(place).value;
	if (place.gig == SIM_GIG_LARGE) {
		page_bits = 30;
		version = sim_table_change_gig(&sim->table[vtl], place, permissions);
		range = place.gig * SIZE_1G | 1ull << 12 | 1ull << 11;
		request.flags = FLUSH_EXTENDED;
	} else if (sim_random(vp, 4) == 0) {
		page_bits = 21;
		version = sim_table_change_region(&sim->table[vtl], place, permissions);
		range = (place.gig * SIZE_1G + place.region * SIZE_2M) | 1ull << 11;
		request.flags = FLUSH_EXTENDED;
	} else {
		version = sim_table_change_page(&sim->table[vtl], place, permissions);
	}
	sim_note(vp, EVENT_CHANGE, version);
	request.ranges = &range;
	request.range_count = 1;
	if (global)
		request.flags |= FLUSH_ALL_SPACES;
	if (sim_random(vp, 4) == 0) {
		request.range_count = 0;
		request.flags = global ? FLUSH_ALL_SPACES : FLUSH_NON_GLOBAL;
	}
	vp->flushes++;
	sim_note(vp, EVENT_FLUSH, (1ull << vps) - 1);
	tlblock_release_own(&sim->tlblock, vp->id);
	if (flush_request(&sim->flush, vp->id, &request) == FLUSH_SUSPENDED) {
		sim_note(vp, EVENT_SUSPENDED, 0);
		vp->suspended++;
		sim_wait_for_holders(vp, vtl);
	}
	if (atomic_u32_load(&sim->stop, memory_order_relaxed))
		return;
	/* Its own entry drains its own queue: for others the flush has returned, it is back in
	 * VTL0. */
	sim_note(vp, EVENT_RETURNED, version);
	sim_table_retire(&sim->table[vtl], place, page_bits, version);
}

static void *sim_vp_main(void *argument)
{
	struct sim_vp *vp = argument;
	struct sim *sim = vp->sim;

	while (!sim_stopping(vp)) {
		enum vtl vtl = sim_random(vp, 8) == 0 ? VTL1 : VTL0;
		uint32_t what;

		if (!sim_enter(vp, vtl))
			continue;
		sim_guest_run(vp, vtl);
		sim_exit(vp, vtl);
		what = sim_random(vp, 8);
		if (what < 3) {
			sim_flush(vp, vtl);
		} else if (what == 3) {
			sim_emulate(vp, vtl);
		} else if (what == 4) {
			vp_id_t target = sim_random(vp, sim->run.vp_count);

			sim_note(vp, EVENT_KICK, target);
			vp->kicks++;
			if (sim_random(vp, 2))
				sim_kick(sim, target); /* without reason */
			else
				run_request_post(&sim->run, target, 1);
		}
	}
	tlblock_release_own(&sim->tlblock, vp->id);
	return NULL;
}

/* --- the run -------------------------------------------------------------------------------------
 */

static void sim_print(char *report, size_t *used, const char *format, ...)
{
	va_list arguments;
	int bytes;

	if (*used >= REPORT_BYTES - 128)
		return;
	va_start(arguments, format);
	bytes = vsnprintf(report + *used, REPORT_BYTES - *used, format, arguments);
	va_end(arguments);
	if (bytes > 0)
		*used += (size_t)bytes;
}

/* Everybody's last events, in the order of their time. */
static char *sim_report(const struct sim *sim)
{
	uint64_t at[SIM_VPS_MAX];
	char *report = malloc(REPORT_BYTES);
	uint64_t first = 0;
	size_t used = 0;

	if (!report)
		abort();
	report[0] = 0;
	for (uint32_t i = 0; i < sim->run.vp_count; i++) {
		uint64_t events = sim->vp[i].events;

		at[i] = events > EVENTS ? events - EVENTS : 0;
	}
	while (true) {
		const struct sim_event *earliest = NULL;
		uint32_t whose = 0;

		for (uint32_t i = 0; i < sim->run.vp_count; i++) {
			const struct sim_event *event = &sim->vp[i].event[at[i] % EVENTS];

			if (at[i] < sim->vp[i].events &&
				(!earliest || event->time < earliest->time)) {
				earliest = event;
				whose = i;
			}
		}
		if (!earliest)
			return report;
		at[whose]++;
		if (first == 0)
			first = earliest->time;
		sim_print(report, &used, "%10llu VP %u %s %#llx\n",
			(unsigned long long)(earliest->time - first), whose,
			event_names[earliest->kind], (unsigned long long)earliest->value);
	}
}

static struct sim *sim_make(const struct sim_config *config)
{
	struct sim *sim = aligned_alloc(4096, ALIGN_UP(sizeof(*sim), 4096));

	if (!sim)
		abort();
	memset(sim, 0, sizeof(*sim));
	run_init(&sim->run, sim->run_vps, config->vps, &sim_ops, sim);
	tlblock_init(&sim->tlblock, sim->tlblock_vps, sim->waiters, &sim->run);
	flush_init(&sim->flush, sim->flush_vps, &sim->run, &sim->tlblock, 16);
	for (uint32_t vtl = 0; vtl < FLUSH_LOWER_VTLS; vtl++)
		sim_table_init(&sim->table[vtl]);
	sim->map = (struct vpset_map){sim->vp_of_index, config->vps, config->vps};
	for (uint32_t i = 0; i < config->vps; i++) {
		sim->vp_of_index[i] = (uint16_t)i;
		sim->vp[i].sim = sim;
		sim->vp[i].id = i;
		sim->vp[i].random = (config->seed + 1) * 0x9e3779b97f4a7c15ull + i * 2654435761ull;
	}
	return sim;
}

/* Until time is up, somebody fails, or a VP makes no progress for long. */
static void sim_watch(struct sim *sim, uint32_t milliseconds)
{
	uint64_t start = now_ns();
	uint64_t seen[SIM_VPS_MAX] = {0};
	uint64_t since[SIM_VPS_MAX];

	for (uint32_t i = 0; i < SIM_VPS_MAX; i++)
		since[i] = start;
	while (atomic_u32_load(&sim->stop, memory_order_acquire) == 0) {
		struct timespec pause = {.tv_nsec = 5000000};
		uint64_t now;

		nanosleep(&pause, NULL);
		now = now_ns();
		for (uint32_t i = 0; i < sim->run.vp_count; i++) {
			uint64_t progress =
				atomic_u64_load(&sim->vp[i].progress, memory_order_relaxed);

			if (progress != seen[i])
				since[i] = now;
			seen[i] = progress;
			if (now - since[i] > STUCK_MS * 1000000ull)
				sim_fail(sim, "a VP waits for ever");
		}
		if (now - start > milliseconds * 1000000ull)
			atomic_u32_store(&sim->stop, 1, memory_order_release);
	}
}

/* Waits for the VP's thread to end, which takes long only if it is stuck. */
static bool sim_join(struct sim_vp *vp)
{
	struct timespec deadline;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += STUCK_MS / 1000;
	return pthread_timedjoin_np(vp->thread, NULL, &deadline) == 0;
}

void sim_run(const struct sim_config *config, struct sim_result *result)
{
	struct sim *sim = sim_make(config);

	memset(result, 0, sizeof(*result));
	for (uint32_t i = 0; i < config->vps; i++) {
		if (pthread_create(&sim->vp[i].thread, NULL, sim_vp_main, &sim->vp[i]) != 0)
			abort();
	}
	sim_watch(sim, config->milliseconds);
	for (uint32_t i = 0; i < config->vps; i++) {
		struct sim_vp *vp = &sim->vp[i];

		if (!sim_join(vp)) {
			/* It spins in the core and cannot be stopped: report, and leave it behind.
			 */
			sim_fail(sim, "a VP waits for ever");
			result->failure = sim->failure;
			result->report = sim_report(sim);
			return;
		}
		result->accesses += vp->accesses;
		result->stays += vp->stays;
		result->flushes += vp->flushes;
		result->suspended += vp->suspended;
		result->withdrawn += vp->withdrawn;
		result->kicks += vp->kicks;
		result->requests += vp->requests;
	}
	result->failure = sim->failure;
	if (sim->failure)
		result->report = sim_report(sim);
	free(sim);
}
