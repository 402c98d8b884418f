/* A result file that is there whole or not at all. */
#include "tools/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool refuse(const char *what, const char *path, int code, struct tool_error *error)
{
	return tool_error_set(error, "%s %s cannot be written: %s; name another file", what, path,
		strerror(code));
}

/* What a path leads to, links followed. */
struct place {
	char path[PATH_MAX];
	bool direct; /* a device or a pipe: no moving into its place */
	mode_t mode;
};

static bool find_place(const char *path, struct place *place, int *code)
{
	struct stat status;

	place->direct = false;
	place->mode = 0;
	if (stat(path, &status) == 0) {
		if (S_ISDIR(status.st_mode)) {
			*code = EISDIR;
			return false;
		}
		place->direct = !S_ISREG(status.st_mode);
		place->mode = status.st_mode & 07777;
		if (access(path, W_OK) == 0 &&
			(place->direct ? snprintf(place->path, PATH_MAX, "%s", path) < PATH_MAX
				       : realpath(path, place->path) != NULL))
			return true;
		*code = errno;
		return false;
	}
	if (errno == ENOENT && snprintf(place->path, PATH_MAX, "%s", path) < PATH_MAX)
		return true;
	*code = errno;
	return false;
}

/* A new file beside the place; `name` is where it is. */
static int open_beside(const struct place *place, char name[static PATH_MAX])
{
	if (snprintf(name, PATH_MAX, "%s.XXXXXX", place->path) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return mkostemp(name, O_CLOEXEC);
}

bool output_file_check(const char *what, const char *path, struct tool_error *error)
{
	struct place place;
	char name[PATH_MAX];
	int code;

	if (!find_place(path, &place, &code))
		return refuse(what, path, code, error);
	if (place.direct)
		return true;

	int fd = open_beside(&place, name);

	if (fd < 0)
		return refuse(what, path, errno, error);
	close(fd);
	unlink(name);
	return true;
}

static bool write_all(int fd, const char *bytes, size_t size)
{
	while (size > 0) {
		ssize_t count = write(fd, bytes, size);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return false;
		bytes += count;
		size -= (size_t)count;
	}
	return true;
}

/* The permissions that a file made in the ordinary way would have. */
static mode_t usual_mode(void)
{
	mode_t mask = umask(0);

	umask(mask);
	return 0666 & ~mask;
}

static bool write_direct(const char *what, const char *path, const char *bytes, size_t size,
	struct tool_error *error)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return refuse(what, path, errno, error);

	bool written = write_all(fd, bytes, size);
	int code = errno;

	close(fd);
	return written || refuse(what, path, code, error);
}

bool output_file_write(const char *what, const char *path, const char *bytes, size_t size,
	struct tool_error *error)
{
	struct place place;
	char name[PATH_MAX];
	int code;

	if (!find_place(path, &place, &code))
		return refuse(what, path, code, error);
	if (place.direct)
		return write_direct(what, path, bytes, size, error);

	int fd = open_beside(&place, name);

	if (fd < 0)
		return refuse(what, path, errno, error);

	bool written = write_all(fd, bytes, size) &&
		fchmod(fd, place.mode ? place.mode : usual_mode()) == 0;

	code = errno;
	if (close(fd) != 0 && written) {
		written = false;
		code = errno;
	}
	if (written && rename(name, place.path) != 0) {
		written = false;
		code = errno;
	}
	if (written)
		return true;
	unlink(name);
	return refuse(what, path, code, error);
}
