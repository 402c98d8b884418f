/*
 * A machine of threads: each VP is one, with a TLB of its own for each lower VTL; guests that
 * access memory, change their page tables and ask for flushes; kicks that come late, out of order,
 * or without reason. It runs the core as it is. An access through a translation whose flush had
 * returned before the access began is the end of the run; so is one that a permission change forbids
 * which had returned.
 */
#ifndef PARAPET_SIM_H
#define PARAPET_SIM_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_VPS_MAX 16

struct sim_config {
	uint32_t vps;
	uint32_t milliseconds;
	uint64_t seed;
	bool permissions; /* and VTL1 and VTL2 change them with core/protect */
	uint64_t
		flips; /* the end is after so many changes of a page's permission, not by time; or 0 */
	/* Called every ten seconds, or NULL. */
	void (*progress)(uint64_t flips, uint64_t of, uint64_t milliseconds);
};

struct sim_result {
	const char *failure; /* NULL: none */
	char *report; /* the last events of each VP if there is one, to be freed by the caller */
	uint64_t accesses;
	uint64_t stays;
	uint64_t flushes;
	uint64_t suspended;
	uint64_t withdrawn;
	uint64_t kicks;
	uint64_t requests;
	/* Of permissions. */
	uint64_t flips; /* how often a watched page's permission was changed */
	uint64_t transactions;
	uint64_t shootdowns;
	uint64_t deferred;
	uint64_t refused; /* transactions */
	uint64_t faults;
	uint64_t spurious; /* of them: allowed when looked at again */
};

/* Runs the machine until time is up or something fails. Aborts the process if out of memory. */
void sim_run(const struct sim_config *config, struct sim_result *result);

#endif
