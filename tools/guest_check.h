/*
 * A first look at a guest's kernel, so that a mistake is found before a machine is started. Light
 * on purpose: what decides is the loader of whoever starts the guest. Works on bytes in memory.
 */
#ifndef PARAPET_TOOLS_GUEST_CHECK_H
#define PARAPET_TOOLS_GUEST_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "tools/tool_error.h"

/* How much of a kernel's beginning guest_check_kernel() wants to see. */
#define GUEST_HEAD_BYTES 8192

enum guest_kind {
	GUEST_LINUX,
	GUEST_MULTIBOOT,
};

struct guest_info {
	enum guest_kind kind;
	uint64_t command_line_max; /* bytes without the terminator */
};

/*
 * Looks at the first `head_bytes` of a kernel of `file_bytes` in all. False with *error set (the
 * text starts with what is wrong, to be put behind the file's name) if it is neither a bzImage with
 * a 64-bit entry (Linux x86 boot protocol 2.12) nor a 32-bit Multiboot v1 image.
 */
bool guest_check_kernel(const uint8_t *head, size_t head_bytes, uint64_t file_bytes,
	struct guest_info *info, struct tool_error *error);

#endif
