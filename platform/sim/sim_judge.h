/*
 * The judge of permissions on the machine of threads. For each watched page and lower VTL it knows at
 * every moment what an access may do: what the settled permission allows, what a change under way
 * allows in addition before it returns, and what a deferred revocation still allows to a VP that has
 * not left its guest since. What may not enter: tables, TLBs, the engine that is judged.
 *
 * A reader looks before its access and, only if that says no, once more after it: if nothing about the
 * page has changed in between, the access was forbidden from its beginning to its end.
 */
#ifndef PARAPET_SIM_JUDGE_H
#define PARAPET_SIM_JUDGE_H

#include "core/atomic.h"
#include "parapet/types.h"

struct sim_judged {
	/* Bits 3:0 may be used, 7:4 settled; SIM_JUDGE_MIXED; changes under way; version. */
	struct atomic_u64 word;
	/* A deferred revocation: 3:0 what it took away, the rest the time at which it returned. */
	struct atomic_u64 late;
};

struct sim_judge {
	_Alignas(CACHE_LINE_BYTES) struct atomic_u64 clock; /* deferred revocations so far */
	_Alignas(CACHE_LINE_BYTES) struct atomic_u64 synced; /* those up to here are over for all */
};

/* What a reader has to remember of its look before the access. */
struct sim_look {
	uint64_t word;
	uint64_t late;
	uint64_t synced;
};

/* How a change went. */
enum sim_change {
	SIM_CHANGE_REFUSED, /* nothing has changed */
	SIM_CHANGE_DONE,
	SIM_CHANGE_DEFERRED, /* what it took away may be used for a while */
};

/* The page's permission is `access` from the start. Nobody else runs yet. */
void sim_judge_start(struct sim_judged *page, uint32_t access);

/* A change to `access` is about to be asked for. */
void sim_judge_begin(struct sim_judged *page, uint32_t access);

/*
 * It has returned. Where several changes of the page overlapped, nobody knows which came last: the last
 * to return calls `truth` for what the tables say, and fails (false) if none of them asked for that.
 * *flipped: the page's permission is another one than before.
 */
bool sim_judge_end(struct sim_judge *judge, struct sim_judged *page, enum sim_change how,
	uint32_t access, uint32_t (*truth)(void *argument), void *argument, bool *flipped);

/* The time, for a VP that is about to enter and for whoever is about to call for a sync. */
uint64_t sim_judge_now(const struct sim_judge *judge);

/* A sync that began at `time` has returned. */
void sim_judge_synced(struct sim_judge *judge, uint64_t time);

/* Before an access begins. */
struct sim_look sim_judge_look(const struct sim_judge *judge, const struct sim_judged *page);

/*
 * After an access of kind `access` (one bit) by a VP that entered at `entered` (in VTL2: that
 * took the TLB lock then, or later): false if it was forbidden all the time.
 */
bool sim_judge_allows(const struct sim_judged *page, const struct sim_look *look, uint32_t access,
	uint64_t entered);

/* A refusal of kind `access`: true if it was allowed all the time since the look. */
bool sim_judge_must(const struct sim_judged *page, const struct sim_look *look, uint32_t access);

#endif
