/*
 * The guest's console: what it prints goes to standard output unchanged, what is typed goes to it.
 * A terminal is made raw meanwhile and always given back as it was. Looks for a kernel's panic on
 * the way.
 */
#ifndef PARAPET_TOOLS_CONSOLE_H
#define PARAPET_TOOLS_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

#define CONSOLE_OUT_BYTES 65536
#define CONSOLE_IN_BYTES  1024

struct console {
	int fd; /* the guest's side, non-blocking; -1: closed */
	int input_fd; /* what is typed; -1: closed */
	int output_fd;
	char out[CONSOLE_OUT_BYTES]; /* from the guest, not yet written */
	size_t out_used;
	char in[CONSOLE_IN_BYTES]; /* typed, not yet sent */
	size_t in_used;
	size_t panic_matched; /* letters of the panic's text seen last */
	bool panic;
	bool at_line_start;
	bool raw;
	bool escape; /* the last key was Ctrl-A */
	bool leave; /* Ctrl-A X was typed */
	bool output_failed; /* standard output is gone */
	int output_error; /* its errno */
	struct termios terminal; /* as it was */
};

/* Starts with the guest's side on `fd`. Makes the terminal raw if there is one and it is ours. */
void console_open(struct console *console, int fd);

/* Which of the descriptors have anything to do now: to be asked before poll(). */
bool console_wants_guest(const struct console *console);
bool console_wants_input(const struct console *console);
bool console_wants_output(const struct console *console);

/* To be called when poll() says that the guest's side, the input or the output is ready. */
void console_read_guest(struct console *console);
void console_read_input(struct console *console);
void console_write_output(struct console *console);

/* Sends what was typed, as far as the guest takes it. */
void console_send_input(struct console *console);

/* Gives the terminal back as it was (also before stopping); console_make_raw() takes it again. */
void console_restore(struct console *console);
void console_make_raw(struct console *console);

#endif
