/*
 * The explorer tried on itself: small programs whose outcomes under C11 (RC11) are known. Each says
 * which outcome it looks for; the explorer must reach the ones that are allowed and no other.
 */
#include "parapet/types.h"
#include "scenarios.h"

static struct atomic_u64 x, y, z;
static uint64_t r[4];

#define RELAXED memory_order_relaxed
#define ACQUIRE memory_order_acquire
#define RELEASE memory_order_release
#define SEQ_CST memory_order_seq_cst

static void setup(void)
{
	x.value = y.value = z.value = 0;
	for (uint32_t i = 0; i < ARRAY_SIZE(r); i++)
		r[i] = 0;
}

static void seen(bool outcome)
{
	if (outcome)
		explore_fail("the outcome is reached");
}

/* Store buffering. */
static void sb(uint32_t thread)
{
	atomic_u64_store(thread ? &y : &x, 1, RELEASE);
	r[thread] = atomic_u64_load(thread ? &x : &y, ACQUIRE);
}

static void sb_fenced(uint32_t thread)
{
	atomic_u64_store(thread ? &y : &x, 1, RELAXED);
	atomic_fence(SEQ_CST);
	r[thread] = atomic_u64_load(thread ? &x : &y, RELAXED);
}

static void sb_half_fenced(uint32_t thread)
{
	atomic_u64_store(thread ? &y : &x, 1, RELAXED);
	atomic_fence(thread ? SEQ_CST : memory_order_acq_rel);
	r[thread] = atomic_u64_load(thread ? &x : &y, RELAXED);
}

static void both_zero(void)
{
	seen(r[0] == 0 && r[1] == 0);
}

/* Message passing. */
static void mp(uint32_t thread, memory_order store, memory_order load)
{
	if (thread == 0) {
		atomic_u64_store(&x, 1, RELAXED);
		atomic_u64_store(&y, 1, store);
	} else {
		r[0] = atomic_u64_load(&y, load);
		r[1] = atomic_u64_load(&x, RELAXED);
	}
}

static void mp_relaxed_store(uint32_t thread)
{
	mp(thread, RELAXED, ACQUIRE);
}

static void mp_relaxed_load(uint32_t thread)
{
	mp(thread, RELEASE, RELAXED);
}

static void mp_ordered(uint32_t thread)
{
	mp(thread, RELEASE, ACQUIRE);
}

static void mp_fences(uint32_t thread)
{
	if (thread == 0) {
		atomic_u64_store(&x, 1, RELAXED);
		atomic_fence(RELEASE);
		atomic_u64_store(&y, 1, RELAXED);
	} else {
		r[0] = atomic_u64_load(&y, RELAXED);
		atomic_fence(ACQUIRE);
		r[1] = atomic_u64_load(&x, RELAXED);
	}
}

static void new_then_old(void)
{
	seen(r[0] == 1 && r[1] == 0);
}

/* A read-modify-write carries the release on; a plain store of the same thread does not. */
static void release_sequence_rmw(uint32_t thread)
{
	if (thread == 0) {
		atomic_u64_store(&x, 1, RELAXED);
		atomic_u64_store(&y, 1, RELEASE);
	} else if (thread == 1) {
		atomic_u64_fetch_add(&y, 1, RELAXED);
	} else {
		r[0] = atomic_u64_load(&y, ACQUIRE);
		r[1] = atomic_u64_load(&x, RELAXED);
	}
}

static void two_then_old(void)
{
	seen(r[0] == 2 && r[1] == 0);
}

static void release_sequence_store(uint32_t thread)
{
	if (thread == 0) {
		atomic_u64_store(&x, 1, RELAXED);
		atomic_u64_store(&y, 1, RELEASE);
		atomic_u64_store(&y, 2, RELAXED);
	} else {
		r[0] = atomic_u64_load(&y, ACQUIRE);
		r[1] = atomic_u64_load(&x, RELAXED);
	}
}

/* One location is coherent, whatever the order. */
static void coherence(uint32_t thread)
{
	if (thread == 0) {
		atomic_u64_store(&x, 1, RELAXED);
		return;
	}
	r[0] = atomic_u64_load(&x, RELAXED);
	r[1] = atomic_u64_load(&x, RELAXED);
}

/* Independent reads of independent writes, two readers in four threads. */
static void iriw(uint32_t thread, bool fenced)
{
	if (thread < 2) {
		atomic_u64_store(thread ? &y : &x, 1, RELEASE);
		return;
	}
	r[thread * 2 - 4] = atomic_u64_load(thread == 2 ? &x : &y, ACQUIRE);
	if (fenced)
		atomic_fence(SEQ_CST);
	r[thread * 2 - 3] = atomic_u64_load(thread == 2 ? &y : &x, ACQUIRE);
}

static void iriw_plain(uint32_t thread)
{
	iriw(thread, false);
}

static void iriw_fenced(uint32_t thread)
{
	iriw(thread, true);
}

static void readers_disagree(void)
{
	seen(r[0] == 1 && r[1] == 0 && r[2] == 1 && r[3] == 0);
}

/* Two writers each write both words, crosswise: which store is the last of each? */
static void two_and_two(uint32_t thread)
{
	atomic_u64_store(thread ? &y : &x, 1, RELAXED);
	atomic_u64_store(thread ? &x : &y, 2, RELAXED);
}

static void ones_are_last(void)
{
	seen(explore_latest_u64(&x) == 1 && explore_latest_u64(&y) == 1);
}

/* Nobody comes between a read-modify-write and what it read. */
static void add_add(uint32_t thread)
{
	(void)thread;
	atomic_u64_fetch_add(&x, 1, RELAXED);
}

static void an_add_is_lost(void)
{
	seen(explore_latest_u64(&x) != 2);
}

static void store_add(uint32_t thread)
{
	if (thread == 0)
		atomic_u64_store(&x, 10, RELAXED);
	else
		r[0] = atomic_u64_fetch_add(&x, 1, RELAXED);
}

static void the_add_is_undone(void)
{
	/* It read 10 and yet 10 is the last value. */
	seen(r[0] == 10 && explore_latest_u64(&x) == 10);
}

/* Load buffering is what RC11 excludes. */
static void load_buffering(uint32_t thread)
{
	r[thread] = atomic_u64_load(thread ? &y : &x, RELAXED);
	atomic_u64_store(thread ? &x : &y, 1, RELAXED);
}

static void both_one(void)
{
	seen(r[0] == 1 && r[1] == 1);
}

#define REACHED	    true
#define NOT_REACHED false
#define LITMUS(name, about, threads, thread, outcome, reached)                                     \
	{                                                                                          \
		"litmus-" name, about, threads, true, setup, thread, outcome, reached              \
	}

const struct explore_scenario litmus_scenarios[] = {
	LITMUS("sb", "store buffering is seen", 2, sb, both_zero, REACHED),
	LITMUS("sb-half", "one fence does not prevent it", 2, sb_half_fenced, both_zero, REACHED),
	LITMUS("sb-fences", "two do", 2, sb_fenced, both_zero, NOT_REACHED),
	LITMUS("mp-store", "a relaxed store passes no message", 2, mp_relaxed_store, new_then_old,
		REACHED),
	LITMUS("mp-load", "a relaxed load takes none", 2, mp_relaxed_load, new_then_old, REACHED),
	LITMUS("mp", "release and acquire do", 2, mp_ordered, new_then_old, NOT_REACHED),
	LITMUS("mp-fences", "so do fences", 2, mp_fences, new_then_old, NOT_REACHED),
	LITMUS("sequence-rmw", "a read-modify-write carries a release on", 3, release_sequence_rmw,
		two_then_old, NOT_REACHED),
	LITMUS("sequence-store", "a store does not", 2, release_sequence_store, two_then_old,
		REACHED),
	LITMUS("coherence", "one word does not go back", 2, coherence, new_then_old, NOT_REACHED),
	LITMUS("iriw", "readers may disagree", 4, iriw_plain, readers_disagree, REACHED),
	LITMUS("iriw-fences", "with fences they may not", 4, iriw_fenced, readers_disagree,
		NOT_REACHED),
	LITMUS("2+2w", "stores enter modification order early", 2, two_and_two, ones_are_last,
		REACHED),
	LITMUS("add-add", "no addition is lost", 2, add_add, an_add_is_lost, NOT_REACHED),
	LITMUS("store-add", "nothing comes between an addition and what it read", 2, store_add,
		the_add_is_undone, NOT_REACHED),
	LITMUS("lb", "no load from a later store", 2, load_buffering, both_one, NOT_REACHED),
};
const uint32_t litmus_scenario_count = ARRAY_SIZE(litmus_scenarios);
