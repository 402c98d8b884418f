/*
 * The explorer: runs a small program of two to four threads in every interleaving and with every
 * outcome that the memory model allows, and stops at the first failure with its schedule.
 *
 * A program is a scenario: setup() makes its memory what it is at the start, thread(n) are its
 * threads. Everything the threads share goes through core/atomic.h or explore_step, or is plain
 * memory under a lock that setup has named to explore_watch; all else belongs to one thread. Threads are deterministic but for what accesses and explore_choose return.
 */
#ifndef PARAPET_EXPLORE_H
#define PARAPET_EXPLORE_H

#include "core/atomic.h"

#include "explore_memory.h"

struct explore_scenario {
	const char *name;
	const char *about;
	uint32_t threads;
	bool in_short; /* belongs to the short run */
	void (*setup)(void);
	void (*thread)(uint32_t thread);
	void (*at_end)(void); /* all threads have ended or wait for ever, as they may; or NULL */
	bool must_fail; /* a test of the explorer itself: not to find a failure is the failure */
};

struct explore_result {
	const char *failure; /* NULL: every execution is fine */
	bool gave_up; /* that is the failure: there are more states than allowed */
	uint64_t executions;
	uint64_t states;
	uint32_t longest;
	char schedule[4096]; /* of the failure: for explore_replay */
};

/* Every execution of the scenario; gives up, as a failure, beyond so many states. */
void explore_run(const struct explore_scenario *scenario, uint64_t states_max,
	struct explore_result *result);

/* One execution, each step printed. Returns its failure, NULL if there is none. */
const char *explore_replay(const struct explore_scenario *scenario, const char *schedule);

/* --- for scenarios ------------------------------------------------------------------------------
 */

/* Ends the execution as a failure. */
void explore_fail(const char *why);

/* 0 to n - 1; every one of them is tried. */
uint32_t explore_choose(uint32_t n);

/*
 * One step of the schedule that runs fn(argument) as a whole. It may use explore_latest_u64,
 * explore_view_is_latest, explore_fail and the scenario's ghost words.
 */
void explore_step(void (*fn)(void *argument), void *argument, const char *name);

/* The last value in modification order; in a step, and at the end. */
uint64_t explore_latest_u64(const struct atomic_u64 *atomic);

/* In a step: whether everything written to `atomic` happens before what the thread does next. */
bool explore_view_is_latest(const struct atomic_u64 *atomic);

/*
 * Like atomic_relax, for a thread that may wait for ever without that being a failure: a guest that
 * runs on, a processor that sleeps.
 */
void explore_relax_forever(void);

/* Words that steps and the end read and write, and that tell states apart; zero at the start. */
#define EXPLORE_GHOSTS 16
extern uint64_t explore_ghost[EXPLORE_GHOSTS];

/*
 * In setup: plain memory that several threads use under locks, and that tells states apart; a multiple
 * of eight bytes. What a thread knows of it, it has read after an access to a word of the locks, so
 * the content counts as part of the answer to those.
 */
void explore_watch(const void *memory, size_t bytes);
void explore_watch_locks(const void *locks, size_t bytes);

/*
 * In setup: whoever loads this value fails, for this reason. It stands for whatever memory holds that
 * nobody may look at.
 */
void explore_poison(uint64_t value, const char *why);

/* Whether this is setup (or the end), where there are no threads. */
bool explore_in_setup(void);

/* Whether names are of any use in this execution; asked in setup, which is called for each one. */
bool explore_names_wanted(void);

/* For traces: what the word at this address is called. */
void explore_name(const void *address, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
