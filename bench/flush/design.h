/*
 * What the benchmark measures: ways of getting flush requests to VPs. All of them use the same run
 * states, kicks and waits (core/run) and the same simulated VPs, so that only the way differs. What
 * may not enter: anything the paravisor is built from.
 */
#ifndef PARAPET_BENCH_FLUSH_DESIGN_H
#define PARAPET_BENCH_FLUSH_DESIGN_H

#include "core/flush/flush.h"
#include "core/run/run.h"

struct design {
	const char *name;
	const char *about;
	void (*init)(struct run *run);
	void (*finish)(void);
	/* As flush_request: posts one range to the set, gets those who run out, waits. */
	void (*request)(vp_id_t me, const struct vpset *set, uint64_t range);
	/* As flush_drain, for the VP itself; ranges go to bench_invalidate. */
	void (*drain)(vp_id_t vp);
};

extern const struct design design_parapet;
extern const struct design design_locked;
extern const struct design design_shared_ring;
extern const struct design design_kicks;

/* A range is delivered to the VP; or everything is. */
void bench_invalidate(vp_id_t vp, uint64_t range);
void bench_invalidate_all(vp_id_t vp);

/* For those who need memory: ends the program if there is none. */
void *bench_allocate(size_t bytes);

/*
 * What both designs of comparison do to kick: a set of processors is allocated, filled from the
 * request, and looked through as far as there are VPs.
 */
void bench_kick_by_bitmap(struct run *run, vp_id_t me, const struct vpset *set);

#endif
