/*
 * A machine of threads: each VP is one, with a TLB of its own for each lower VTL; guests that
 * access memory, change their page tables and ask for flushes; kicks that come late, out of order,
 * or without reason. It runs the core as it is. An access through a translation whose flush had
 * returned before the access began is the end of the run.
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
};

/* Runs the machine until time is up or something fails. Aborts the process if out of memory. */
void sim_run(const struct sim_config *config, struct sim_result *result);

#endif
