/* The few lines about a run that a person reads at its end. Writes to a stream that it is given. */
#ifndef PARAPET_TOOLS_SUMMARY_H
#define PARAPET_TOOLS_SUMMARY_H

#include <stdio.h>

#include "tools/verdict.h"

/* Writes the summary; with colour only if asked for. */
void summary_print(
	FILE *out, bool colour, const struct run_result *result, const struct verdict *verdict);

#endif
