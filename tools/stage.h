/*
 * The private directory of a run: the guest's files under plain names (QEMU takes spaces and commas
 * in some of them for its own), and the copy of Parapet's block. Removed with all that is in it.
 */
#ifndef PARAPET_TOOLS_STAGE_H
#define PARAPET_TOOLS_STAGE_H

#include <limits.h>

#include "tools/tool_error.h"

struct stage {
	char directory[256]; /* empty: not there */
	char kernel[640];
	char initrd[640];
	char paravisor[640];
	char block[640]; /* where the block is to be copied to */
};

/* Makes the directory, for this user only. False with *error set if there is no place for it. */
bool stage_open(struct stage *stage, struct tool_error *error);

/*
 * Links `file` into the directory and writes its name there to `name` (one of the stage's own). The
 * link keeps the file's last name if that is plain, else it is called `otherwise`.
 */
bool stage_link(struct stage *stage, const char *file, const char *otherwise, char name[static 640],
	struct tool_error *error);

/* Removes the directory and all that stage_link() and the block's copy put there. */
void stage_close(struct stage *stage);

#endif
