/* sim [--vps N] [--seconds S] [--seed N]: runs the machine of threads, reports in TAP. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/sim/sim.h"

int main(int argc, char **argv)
{
	struct sim_config config = {.vps = 2, .milliseconds = 5000, .seed = 1};
	struct sim_result result;

	for (int i = 1; i + 1 < argc; i += 2) {
		uint64_t value = strtoull(argv[i + 1], NULL, 0);

		if (strcmp(argv[i], "--vps") == 0 && value >= 1 && value <= SIM_VPS_MAX)
			config.vps = (uint32_t)value;
		else if (strcmp(argv[i], "--seconds") == 0)
			config.milliseconds = (uint32_t)value * 1000;
		else if (strcmp(argv[i], "--seed") == 0)
			config.seed = value;
		else
			return fprintf(stderr, "sim: what is %s %s?\n", argv[i], argv[i + 1]), 2;
	}
	sim_run(&config, &result);
	printf("1..1\n%sok 1 - sim, %u VPs, seed %llu # %llu accesses, %llu stays, %llu flushes, "
	       "%llu suspended, %llu withdrawn, %llu requests\n",
		result.failure ? "not " : "", config.vps, (unsigned long long)config.seed,
		(unsigned long long)result.accesses, (unsigned long long)result.stays,
		(unsigned long long)result.flushes, (unsigned long long)result.suspended,
		(unsigned long long)result.withdrawn, (unsigned long long)result.requests);
	if (!result.failure)
		return 0;
	printf("# %s\n%s", result.failure, result.report);
	free(result.report);
	return 1;
}
