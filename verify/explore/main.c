/*
 * explore [--short] [--states N] [SCENARIO]...: explores the scenarios, all if none is named, and
 * reports in TAP. explore --replay SCENARIO SCHEDULE prints one execution. explore --find: quiet;
 * the status says whether a failure was found, and its scenario is printed (for mutants); --first NAME
 * tries the scenarios whose names begin so before the others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "parapet/types.h"
#include "scenarios.h"

static const struct explore_scenario *all[96];
static uint32_t all_count;

static void collect(const struct explore_scenario *scenarios, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		all[all_count++] = &scenarios[i];
}

static const struct explore_scenario *find(const char *name)
{
	for (uint32_t i = 0; i < all_count; i++) {
		if (strcmp(all[i]->name, name) == 0)
			return all[i];
	}
	fprintf(stderr, "explore: no scenario called %s\n", name);
	exit(2);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static bool explore_one(const struct explore_scenario *scenario, uint32_t number, uint64_t states)
{
	struct explore_result result;
	double start = seconds();

	explore_run(scenario, states, &result);
	if (scenario->must_fail)
		result.failure = result.failure ? NULL : "the outcome is not reached";
	printf("%sok %u - %s: %s # %llu states, %llu executions, %u steps, %.1f s\n",
		result.failure ? "not " : "", number, scenario->name, scenario->about,
		(unsigned long long)result.states, (unsigned long long)result.executions,
		result.longest, seconds() - start);
	fflush(stdout);
	if (!result.failure)
		return true;
	if (scenario->must_fail) {
		printf("# %s\n", result.failure);
		return false;
	}
	printf("# %s\n# replay: explore --replay %s %s\n", result.failure, scenario->name,
		result.schedule);
	explore_replay(scenario, result.schedule);
	return false;
}

#define PASSES	    5
#define HUNT_STATES 300000

/* Too large to be explored whole: only mutants are looked for there, and not for long. */
static bool is_hunt(const struct explore_scenario *scenario)
{
	return strncmp(scenario->name, "hunt-", 5) == 0;
}

/* How early to try a scenario for a mutant: those asked for and the small ones first. */
static uint32_t pass_of(const struct explore_scenario *scenario, const char *first)
{
	if (is_hunt(scenario))
		return 3;
	if (!scenario->in_short)
		return 4;
	if (first && strncmp(scenario->name, first, strlen(first)) == 0)
		return 0;
	return 1 + (scenario->threads > 2);
}

/* For mutants: the first scenario that fails. */
static int find_failure(
	const struct explore_scenario **chosen, uint32_t count, uint64_t states, const char *first)
{
	for (uint32_t i = 0; i < PASSES * count; i++) {
		const struct explore_scenario *scenario = chosen[i % count];
		struct explore_result result;

		if (scenario->must_fail || pass_of(scenario, first) != i / count)
			continue;
		explore_run(scenario, is_hunt(scenario) ? HUNT_STATES : states, &result);
		if (result.failure && !result.gave_up) {
			printf("%s: %s\n", scenario->name, result.failure);
			return 0;
		}
	}
	return 1;
}

int main(int argc, char **argv)
{
	const struct explore_scenario *chosen[ARRAY_SIZE(all)];
	uint64_t states = 30000000;
	uint32_t count = 0;
	const char *first = NULL;
	bool short_run = false;
	bool finding = false;
	bool good = true;

	collect(litmus_scenarios, litmus_scenario_count);
	collect(flush_scenarios, flush_scenario_count);
	collect(ring_scenarios, ring_scenario_count);
	collect(run_scenarios, run_scenario_count);
	collect(tlblock_scenarios, tlblock_scenario_count);
	collect(npt_scenarios, npt_scenario_count);
	collect(protect_scenarios, protect_scenario_count);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--short") == 0) {
			short_run = true;
		} else if (strcmp(argv[i], "--find") == 0) {
			finding = true;
		} else if (strcmp(argv[i], "--first") == 0 && i + 1 < argc) {
			first = argv[++i];
		} else if (strcmp(argv[i], "--states") == 0 && i + 1 < argc) {
			states = strtoull(argv[++i], NULL, 0);
		} else if (strcmp(argv[i], "--replay") == 0 && i + 2 < argc) {
			const char *failure = explore_replay(find(argv[i + 1]), argv[i + 2]);

			printf("# %s\n", failure ? failure : "no failure");
			return failure != NULL;
		} else {
			chosen[count++] = find(argv[i]);
		}
	}
	if (count == 0) {
		for (uint32_t i = 0; i < all_count; i++) {
			if (is_hunt(all[i]) ? finding : !short_run || all[i]->in_short)
				chosen[count++] = all[i];
		}
	}
	if (finding)
		return find_failure(chosen, count, states, first);
	printf("1..%u\n", count);
	for (uint32_t i = 0; i < count; i++)
		good &= explore_one(chosen[i], i + 1, states);
	return good ? 0 : 1;
}
