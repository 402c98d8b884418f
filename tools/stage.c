/* The private directory of a run. Nothing in here follows a link that it did not make. */
#include "tools/stage.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLAIN_LETTERS  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+"
#define PLAIN_NAME_MAX 128

static bool is_plain(const char *text, const char *also)
{
	for (; *text; text++) {
		if (!strchr(PLAIN_LETTERS, *text) && !strchr(also, *text))
			return false;
	}
	return true;
}

bool stage_open(struct stage *stage, struct tool_error *error)
{
	const char *parent = getenv("TMPDIR");

	*stage = (struct stage){.directory = ""};
	if (!parent || parent[0] != '/' || strlen(parent) > 200 || !is_plain(parent, "/"))
		parent = "/tmp";
	snprintf(stage->directory, sizeof(stage->directory), "%s/parapet-XXXXXX", parent);
	if (!mkdtemp(stage->directory)) {
		stage->directory[0] = '\0';
		return tool_error_set(error,
			"cannot make a directory in %s: %s; set TMPDIR to one that can be written",
			parent, strerror(errno));
	}
	snprintf(stage->block, sizeof(stage->block), "%s/block", stage->directory);
	return true;
}

bool stage_link(struct stage *stage, const char *file, const char *otherwise, char name[static 640],
	struct tool_error *error)
{
	char target[PATH_MAX];
	char folder[512];
	const char *last = strrchr(file, '/');

	last = last ? last + 1 : file;
	if (!is_plain(last, "") || *last == '\0' || strlen(last) > PLAIN_NAME_MAX)
		last = otherwise;
	if (!realpath(file, target))
		return tool_error_set(error, "%s: %s", file, strerror(errno));

	/* A folder each: kernel and initrd may well have the same name. */
	snprintf(folder, sizeof(folder), "%s/%s", stage->directory, otherwise);
	snprintf(name, 640, "%s/%s", folder, last);
	if (mkdir(folder, 0700) != 0 || symlink(target, name) != 0) {
		name[0] = '\0';
		return tool_error_set(error, "cannot link %s into %s: %s", file, stage->directory,
			strerror(errno));
	}
	return true;
}

/* A link and its folder. */
static void remove_link(char *name)
{
	char *slash;

	if (!name[0])
		return;
	unlink(name);
	slash = strrchr(name, '/');
	*slash = '\0';
	rmdir(name);
	name[0] = '\0';
}

void stage_close(struct stage *stage)
{
	if (!stage->directory[0])
		return;
	remove_link(stage->kernel);
	remove_link(stage->initrd);
	remove_link(stage->paravisor);
	unlink(stage->block);
	rmdir(stage->directory);
	stage->directory[0] = '\0';
}
