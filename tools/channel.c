/* Lines that arrive on a descriptor. Reading only. */
#include "tools/channel.h"

#include <errno.h>
#include <unistd.h>

bool channel_fill(struct channel *channel)
{
	char bytes[4096];

	while (channel->fd >= 0) {
		ssize_t count = read(channel->fd, bytes, sizeof(bytes));

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && errno == EAGAIN)
			return true;
		if (count <= 0 || !line_buffer_add(&channel->input, bytes, (size_t)count))
			channel->fd = -1;
	}
	return false;
}

char *channel_next(struct channel *channel)
{
	char *line = line_buffer_next(&channel->input);

	if (!line && channel->fd < 0)
		line = line_buffer_rest(&channel->input);
	return line;
}

void channel_close(struct channel *channel)
{
	line_buffer_free(&channel->input);
	channel->fd = -1;
}
