/*
 * What the command says on standard error, each line in one piece. Standard output is the guest's.
 */
#ifndef PARAPET_TOOLS_MESSAGE_H
#define PARAPET_TOOLS_MESSAGE_H

/* One line, with "parapet: " in front. */
void message_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line as it is, without anything in front. */
void message_print_raw(const char *line);

#endif
