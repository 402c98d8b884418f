/*
 * Bytes that arrive in any portions, taken out as lines. Knows nothing about where they come from.
 */
#ifndef PARAPET_TOOLS_LINE_BUFFER_H
#define PARAPET_TOOLS_LINE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

/* All zero is an empty buffer. Owns its memory: line_buffer_free() it. */
struct line_buffer {
	char *bytes;
	size_t used;
	size_t taken;
	size_t room;
	size_t longest; /* a line that grows longer is handed out in pieces; 0: 4096 */
};

/* Adds `count` bytes. False if there is no memory for them; then nothing was added. */
bool line_buffer_add(struct line_buffer *buffer, const char *bytes, size_t count);

/*
 * The next whole line without its line end (LF or CR LF), terminated; NUL bytes in it are shown as
 * '?'. NULL if there is none yet. Valid until the next call with this buffer.
 */
char *line_buffer_next(struct line_buffer *buffer);

/* What is left when no more bytes will come: the last line if it had no line end, else NULL. */
char *line_buffer_rest(struct line_buffer *buffer);

void line_buffer_free(struct line_buffer *buffer);

#endif
