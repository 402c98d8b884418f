/*
 * The statistics of a run as the JSON object that the command's contract fixes. Makes text; where
 * it goes is decided elsewhere.
 */
#ifndef PARAPET_TOOLS_STATS_JSON_H
#define PARAPET_TOOLS_STATS_JSON_H

#include "tools/verdict.h"

/*
 * The object, terminated, with a line end; times in microseconds. What is not known is null
 * (numbers that nobody measured), counts without a block are 0. The caller frees it; NULL if there
 * is no memory.
 */
char *stats_json_make(const struct run_result *result, const struct verdict *verdict);

#endif
