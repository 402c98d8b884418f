/* What the command says on standard error, each line in one piece. */
#include "tools/message.h"

#include <stdarg.h>
#include <stdio.h>

void message_print(const char *format, ...)
{
	char text[2048];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	fprintf(stderr, "parapet: %s\n", text);
	fflush(stderr);
}

void message_print_raw(const char *line)
{
	fprintf(stderr, "%s\n", line);
	fflush(stderr);
}
