/*
 * A result file that is there whole or not at all: checked before the run, written beside its place
 * and moved there after it. Devices and pipes are written directly.
 */
#ifndef PARAPET_TOOLS_OUTPUT_FILE_H
#define PARAPET_TOOLS_OUTPUT_FILE_H

#include <stddef.h>

#include "tools/tool_error.h"

/*
 * Whether `path` can be written later; leaves nothing behind. `what` names the option in the error.
 */
bool output_file_check(const char *what, const char *path, struct tool_error *error);

/* Writes `size` bytes to `path`. On an error what was there before is still there. */
bool output_file_write(const char *what, const char *path, const char *bytes, size_t size,
	struct tool_error *error);

#endif
