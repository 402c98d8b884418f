/* An error as a value: formatting its line. Nothing in here prints. */
#include "tools/tool_error.h"

#include <stdarg.h>
#include <stdio.h>

bool tool_error_set(struct tool_error *error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	return false;
}
