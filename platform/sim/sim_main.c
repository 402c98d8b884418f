/* Runs the machine of threads, reports in TAP; sim --help says how. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/sim/sim.h"

static const char usage[] =
	"sim [--vps N] [--seconds S] [--seed N]		flushes\n"
	"sim --protect S [--vps N] [--seed N]		permissions too, for so many seconds\n"
	"sim --flips N [--vps N] [--seed N]		permissions too, until so many have changed\n";

static void progress(uint64_t flips, uint64_t of, uint64_t milliseconds)
{
	printf("# %llu s: %llu of %llu flips\n", (unsigned long long)milliseconds / 1000,
		(unsigned long long)flips, (unsigned long long)of);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct sim_config config = {.vps = 2, .milliseconds = 5000, .seed = 1};
	struct sim_result result;

	for (int i = 1; i < argc; i += 2) {
		uint64_t value = i + 1 < argc ? strtoull(argv[i + 1], NULL, 0) : 0;

		if (strcmp(argv[i], "--vps") == 0 && value >= 1 && value <= SIM_VPS_MAX) {
			config.vps = (uint32_t)value;
		} else if (strcmp(argv[i], "--seconds") == 0 && value) {
			config.milliseconds = (uint32_t)value * 1000;
		} else if (strcmp(argv[i], "--protect") == 0 && value) {
			config.milliseconds = (uint32_t)value * 1000;
			config.permissions = true;
		} else if (strcmp(argv[i], "--flips") == 0 && value) {
			config.flips = value;
			config.permissions = true;
			config.progress = progress;
		} else if (strcmp(argv[i], "--seed") == 0) {
			config.seed = value;
		} else {
			fputs(usage, stderr);
			return 2;
		}
	}
	printf("1..1\n");
	sim_run(&config, &result);
	printf("%sok 1 - sim, %u VPs, seed %llu # %llu accesses, %llu stays, %llu flushes, "
	       "%llu suspended, %llu withdrawn, %llu requests",
		result.failure ? "not " : "", config.vps, (unsigned long long)config.seed,
		(unsigned long long)result.accesses, (unsigned long long)result.stays,
		(unsigned long long)result.flushes, (unsigned long long)result.suspended,
		(unsigned long long)result.withdrawn, (unsigned long long)result.requests);
	if (config.permissions)
		printf("; %llu flips in %llu transactions, %llu refused, %llu shootdowns, "
		       "%llu deferred; %llu faults, %llu spurious",
			(unsigned long long)result.flips, (unsigned long long)result.transactions,
			(unsigned long long)result.refused, (unsigned long long)result.shootdowns,
			(unsigned long long)result.deferred, (unsigned long long)result.faults,
			(unsigned long long)result.spurious);
	putchar('\n');
	if (!result.failure)
		return 0;
	printf("# %s\n%s", result.failure, result.report);
	free(result.report);
	return 1;
}
