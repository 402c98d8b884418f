/* The files that a run starts from. */
#include "tools/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool image_places_find(struct image_places *places, struct tool_error *error)
{
	const char *named = getenv("PARAPET_IMAGE");
	char self[PATH_MAX - 64];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length <= 0)
		return tool_error_set(error,
			"cannot find where this command lies: is /proc mounted? (%s)",
			strerror(errno));
	self[length] = '\0';
	*strrchr(self, '/') = '\0';
	if (named && *named)
		snprintf(places->paravisor, sizeof(places->paravisor), "%s", named);
	else
		snprintf(places->paravisor, sizeof(places->paravisor), "%s/parapet.elf", self);
	snprintf(places->demo_kernel, sizeof(places->demo_kernel), "%s/guest/vmlinuz", self);
	snprintf(places->demo_initrd, sizeof(places->demo_initrd), "%s/guest/initrd.img", self);
	return true;
}

/* Opens a regular, non-empty file. Returns its descriptor, or -1 with *error set. */
static int open_image(const char *what, const char *path, uint64_t *bytes, struct tool_error *error)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || fstat(fd, &status) != 0) {
		tool_error_set(error, "%s %s cannot be read: %s", what, path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	if (S_ISREG(status.st_mode) && status.st_size > 0) {
		*bytes = (uint64_t)status.st_size;
		return fd;
	}
	if (S_ISDIR(status.st_mode))
		tool_error_set(error, "%s %s is a directory; name a file", what, path);
	else if (!S_ISREG(status.st_mode))
		tool_error_set(error, "%s %s is not a regular file; copy it to one", what, path);
	else
		tool_error_set(error, "%s %s is empty; build or copy it again", what, path);
	close(fd);
	return -1;
}

bool image_file_check(const char *what, const char *path, uint64_t *bytes, struct tool_error *error)
{
	int fd = open_image(what, path, bytes, error);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

bool image_file_check_kernel(const char *what, const char *path, struct guest_info *info,
	uint64_t *bytes, struct tool_error *error)
{
	uint8_t head[GUEST_HEAD_BYTES];
	struct tool_error why;
	int fd = open_image(what, path, bytes, error);

	if (fd < 0)
		return false;

	ssize_t count = pread(fd, head, sizeof(head), 0);
	int code = errno;

	close(fd);
	if (count < 0)
		return tool_error_set(
			error, "%s %s cannot be read: %s", what, path, strerror(code));
	if (!guest_check_kernel(head, (size_t)count, *bytes, info, &why))
		return tool_error_set(error, "%s %s: %s", what, path, why.text);
	return true;
}
