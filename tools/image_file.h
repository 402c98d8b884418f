/*
 * The files that a run starts from: guest kernel, initrd, Parapet's image. Says early and clearly
 * what is wrong with them. Their contents are judged in tools/guest_check.c.
 */
#ifndef PARAPET_TOOLS_IMAGE_FILE_H
#define PARAPET_TOOLS_IMAGE_FILE_H

#include <limits.h>

#include "tools/guest_check.h"

/* Where the build puts things: beside the command itself. */
struct image_places {
	char paravisor[PATH_MAX]; /* $PARAPET_IMAGE, else parapet.elf */
	char demo_kernel[PATH_MAX];
	char demo_initrd[PATH_MAX];
};

/* Finds the places; nothing needs to be there. False if the command cannot find itself. */
bool image_places_find(struct image_places *places, struct tool_error *error);

/*
 * Checks that `path` is a readable, non-empty file, and how long it is. `what` names it in the
 * error.
 */
bool image_file_check(
	const char *what, const char *path, uint64_t *bytes, struct tool_error *error);

/* The same for a guest's kernel, whose beginning is looked at as well. */
bool image_file_check_kernel(const char *what, const char *path, struct guest_info *info,
	uint64_t *bytes, struct tool_error *error);

#endif
