/*
 * QEMU's machine protocol: commands out, replies and events in, never waiting. One command at a
 * time. What a reply leads to is decided in tools/run_loop.c.
 */
#ifndef PARAPET_TOOLS_QMP_H
#define PARAPET_TOOLS_QMP_H

#include <stdint.h>

#include "tools/line_buffer.h"
#include "tools/tool_error.h"

struct qmp {
	int fd; /* -1: closed */
	struct line_buffer input;
	unsigned unanswered; /* commands sent whose reply has not come yet */
};

enum qmp_kind {
	QMP_GREETING, /* name: QEMU's version */
	QMP_REPLY, /* to the command that was sent last (replies to earlier ones are dropped) */
	QMP_FAILURE, /* the same, but it failed; name: why */
	QMP_EVENT, /* name; reason if the event has one */
};

struct qmp_message {
	enum qmp_kind kind;
	char name[256];
	char reason[64];
};

/* Reads what is there. False if the connection is closed (fd is -1 then). */
bool qmp_fill(struct qmp *qmp);

/*
 * Takes the next message out of what was read; false if there is none (what is not a message is
 * dropped).
 */
bool qmp_next(struct qmp *qmp, struct qmp_message *message);

/* Sends a command without arguments. False if the connection is gone. */
bool qmp_send(struct qmp *qmp, const char *command);

/* Asks for a copy of `bytes` of physical memory at `address` in the file `path`. */
bool qmp_send_memory_save(struct qmp *qmp, uint64_t address, uint64_t bytes, const char *path);

void qmp_close(struct qmp *qmp);

#endif
