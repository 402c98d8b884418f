/*
 * Bytes that arrive in any portions, taken out as lines. Knows nothing about where they come from.
 */
#include "tools/line_buffer.h"

#include <stdlib.h>
#include <string.h>

#define LINE_LONGEST 4096

bool line_buffer_add(struct line_buffer *buffer, const char *bytes, size_t count)
{
	if (buffer->taken > 0) {
		memmove(buffer->bytes, buffer->bytes + buffer->taken, buffer->used - buffer->taken);
		buffer->used -= buffer->taken;
		buffer->taken = 0;
	}
	/* Two to spare: a last line without an end gets one, and every line a terminator. */
	if (buffer->used + count + 2 > buffer->room) {
		size_t room = 2 * (buffer->used + count + 2);
		char *grown = realloc(buffer->bytes, room);

		if (!grown)
			return false;
		buffer->bytes = grown;
		buffer->room = room;
	}
	if (count > 0)
		memcpy(buffer->bytes + buffer->used, bytes, count);
	buffer->used += count;
	return true;
}

/* Hands out `length` bytes at the front as a line and skips `skip` bytes. */
static char *take_line(struct line_buffer *buffer, size_t length, size_t skip)
{
	char *line = buffer->bytes + buffer->taken;

	buffer->taken += skip;
	if (length > 0 && line[length - 1] == '\r')
		length--;
	for (size_t i = 0; i < length; i++) {
		if (line[i] == '\0')
			line[i] = '?';
	}
	line[length] = '\0';
	return line;
}

char *line_buffer_next(struct line_buffer *buffer)
{
	size_t longest = buffer->longest ? buffer->longest : LINE_LONGEST;
	size_t left = buffer->used - buffer->taken;

	if (left == 0)
		return NULL;
	char *start = buffer->bytes + buffer->taken;
	char *end = memchr(start, '\n', left);

	if (end)
		return take_line(buffer, (size_t)(end - start), (size_t)(end - start) + 1);
	if (left <= longest)
		return NULL;
	return take_line(buffer, left, left); /* too long to wait for its end */
}

char *line_buffer_rest(struct line_buffer *buffer)
{
	size_t left = buffer->used - buffer->taken;

	if (left == 0)
		return NULL;
	return take_line(buffer, left, left);
}

void line_buffer_free(struct line_buffer *buffer)
{
	free(buffer->bytes);
	*buffer = (struct line_buffer){.longest = buffer->longest};
}
