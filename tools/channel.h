/*
 * Lines that arrive on a descriptor: Parapet's channel and QEMU's own messages. Reading only; what
 * the lines mean is in tools/channel_line.c.
 */
#ifndef PARAPET_TOOLS_CHANNEL_H
#define PARAPET_TOOLS_CHANNEL_H

#include "tools/line_buffer.h"

struct channel {
	int fd; /* -1: closed */
	struct line_buffer input;
};

/* Reads what is there. False if the other end is closed (fd is -1 then; its owner closes it). */
bool channel_fill(struct channel *channel);

/*
 * The next line; once the other end is closed also a last one without a line end. NULL: none yet.
 */
char *channel_next(struct channel *channel);

void channel_close(struct channel *channel);

#endif
