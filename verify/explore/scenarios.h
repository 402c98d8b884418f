/* The programs that are explored. */
#ifndef PARAPET_EXPLORE_SCENARIOS_H
#define PARAPET_EXPLORE_SCENARIOS_H

#include "explore.h"

extern const struct explore_scenario flush_scenarios[];
extern const struct explore_scenario litmus_scenarios[];
extern const struct explore_scenario npt_scenarios[];
extern const struct explore_scenario protect_scenarios[];
extern const struct explore_scenario ring_scenarios[];
extern const struct explore_scenario run_scenarios[];
extern const struct explore_scenario tlblock_scenarios[];
extern const uint32_t flush_scenario_count;
extern const uint32_t litmus_scenario_count;
extern const uint32_t npt_scenario_count;
extern const uint32_t protect_scenario_count;
extern const uint32_t ring_scenario_count;
extern const uint32_t run_scenario_count;
extern const uint32_t tlblock_scenario_count;

#endif
