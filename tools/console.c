/* The guest's console on our standard input and output. */
#include "tools/console.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEY_ESCAPE 1 /* Ctrl-A */

/* No proper end of it is its beginning, so that looking for it never has to go back. */
static const char panic_text[] = "Kernel panic - not syncing";

void console_make_raw(struct console *console)
{
	struct termios raw;

	/* A process in the background may not touch the terminal: it would be stopped. */
	if (console->raw || !isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp())
		return;
	if (tcgetattr(STDIN_FILENO, &console->terminal) != 0)
		return;
	raw = console->terminal;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST; /* so that our own lines on standard error start at the left */
	console->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

void console_restore(struct console *console)
{
	if (console->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &console->terminal);
	console->raw = false;
}

void console_open(struct console *console, int fd)
{
	memset(console, 0, sizeof(*console));
	console->fd = fd;
	console->input_fd = STDIN_FILENO;
	console->output_fd = STDOUT_FILENO;
	console->at_line_start = true;
	/* In the background of a terminal reading from it would stop us. */
	if (isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) != getpgrp())
		console->input_fd = -1;
	console_make_raw(console);
}

bool console_wants_guest(const struct console *console)
{
	return console->fd >= 0 && console->out_used < sizeof(console->out);
}

bool console_wants_input(const struct console *console)
{
	return console->input_fd >= 0 && console->fd >= 0 && console->in_used == 0;
}

bool console_wants_output(const struct console *console)
{
	return console->out_used > 0 && !console->output_failed;
}

static void look_for_panic(struct console *console, const char *bytes, size_t count)
{
	for (size_t i = 0; i < count && !console->panic; i++) {
		if (bytes[i] != panic_text[console->panic_matched])
			console->panic_matched = 0;
		if (bytes[i] == panic_text[console->panic_matched])
			console->panic_matched++;
		console->panic = console->panic_matched == sizeof(panic_text) - 1;
	}
}

void console_read_guest(struct console *console)
{
	while (console_wants_guest(console)) {
		char *to = console->out + console->out_used;
		ssize_t count = read(console->fd, to, sizeof(console->out) - console->out_used);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && errno == EAGAIN)
			return;
		if (count <= 0) {
			console->fd = -1; /* its owner closes it */
			return;
		}
		look_for_panic(console, to, (size_t)count);
		console->out_used += (size_t)count;
		if (console->output_failed)
			console->out_used = 0;
	}
}

void console_write_output(struct console *console)
{
	/* A descriptor that poll() found ready takes this much without making us wait. */
	size_t most = console->out_used < PIPE_BUF ? console->out_used : PIPE_BUF;
	ssize_t count = write(console->output_fd, console->out, most);

	if (count < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (count < 0) {
		console->output_failed = true;
		console->output_error = errno;
		console->out_used = 0;
		return;
	}
	if (count > 0)
		console->at_line_start = console->out[count - 1] == '\n';
	console->out_used -= (size_t)count;
	memmove(console->out, console->out + count, console->out_used);
}

/* Takes the keys that are for us out of what was typed. Returns how many are left. */
static size_t filter_keys(struct console *console, char *keys, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		if (!console->escape) {
			console->escape = keys[i] == KEY_ESCAPE;
			if (!console->escape)
				keys[kept++] = keys[i];
			continue;
		}
		console->escape = false;
		if (keys[i] == 'x' || keys[i] == 'X')
			console->leave = true;
		else
			keys[kept++] = keys[i]; /* Ctrl-A twice sends it once */
	}
	return kept;
}

void console_read_input(struct console *console)
{
	ssize_t count = read(console->input_fd, console->in, sizeof(console->in));

	if (count < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (count <= 0) {
		console->input_fd = -1;
		return;
	}
	console->in_used = (size_t)count;
	if (console->raw)
		console->in_used = filter_keys(console, console->in, console->in_used);
	console_send_input(console);
}

void console_send_input(struct console *console)
{
	if (console->fd < 0 || console->in_used == 0)
		return;

	ssize_t count = send(console->fd, console->in, console->in_used, MSG_NOSIGNAL);

	if (count <= 0)
		return;
	console->in_used -= (size_t)count;
	memmove(console->in, console->in + count, console->in_used);
}
