/*
 * An error as a value: one line that says what is wrong and what to do. Whoever handles it prints
 * it, once; nothing in here prints.
 */
#ifndef PARAPET_TOOLS_TOOL_ERROR_H
#define PARAPET_TOOLS_TOOL_ERROR_H

#include <stdbool.h>

struct tool_error {
	char text[1024];
};

/*
 * Sets the error's text (cut at its end if too long). Returns false, so that callers can return it.
 */
bool tool_error_set(struct tool_error *error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
