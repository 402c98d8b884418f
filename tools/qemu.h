/*
 * The QEMU process: found, started, watched, ended. Its options are built in tools/qemu_args.c; the
 * talk with it happens in tools/qmp.c and tools/channel.c.
 */
#ifndef PARAPET_TOOLS_QEMU_H
#define PARAPET_TOOLS_QEMU_H

#include <limits.h>
#include <sys/types.h>

#include "tools/tool_error.h"

/* Our ends (non-blocking, -1: none) of what connects us; the other ends are QEMU's. */
struct qemu {
	pid_t pid; /* 0: not running */
	int wait_status; /* once it ended */
	int console_fd;
	int channel_fd;
	int qmp_fd;
	int errors_fd; /* its standard output and error */
	int its_console_fd;
	int its_channel_fd;
	int its_qmp_fd;
	int its_errors_fd;
};

/*
 * Finds the program: $PARAPET_QEMU, else qemu-system-x86_64 on the PATH. False with *error set if
 * it is not there or cannot be run.
 */
bool qemu_find(char path[static PATH_MAX], struct tool_error *error);

/* Makes the connections. The channel only if asked for. All ends are closed by qemu_close(). */
bool qemu_connect(struct qemu *qemu, bool with_channel, struct tool_error *error);

/*
 * Starts QEMU with `words` (NULL-terminated, the program first) in a process group of its own, so
 * that the terminal's signals come to us alone. It dies if we do.
 */
bool qemu_start(struct qemu *qemu, char *const *words, struct tool_error *error);

/* Takes note of QEMU's end, without waiting. True if it is not running (any more). */
bool qemu_reap(struct qemu *qemu);

/* Ends QEMU at once, if it runs, and waits for its end. */
void qemu_kill(struct qemu *qemu);

void qemu_close(struct qemu *qemu);

#endif
