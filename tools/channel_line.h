/*
 * The lines that Parapet writes on its channel (the second serial port), taken apart. What is done
 * about them is decided elsewhere.
 */
#ifndef PARAPET_TOOLS_CHANNEL_LINE_H
#define PARAPET_TOOLS_CHANNEL_LINE_H

#include <stdint.h>

#include <parapet/block.h>

enum channel_line_kind {
	CHANNEL_ERROR, /* text: to be shown always */
	CHANNEL_WARNING,
	CHANNEL_NOTICE,
	CHANNEL_INFO, /* text: to be shown on request */
	CHANNEL_DETAIL,
	CHANNEL_REPORT, /* text: part of a report, to be shown as it is */
	CHANNEL_BLOCK, /* address and bytes: where the block lies */
	CHANNEL_GUEST, /* the guest's kernel is being entered */
	CHANNEL_END, /* reason and code: Parapet waits for an answer */
	CHANNEL_UNKNOWN, /* text: an @ line that this version does not know, or a broken one */
};

struct channel_line {
	enum channel_line_kind kind;
	const char *text; /* points into the line */
	uint64_t address;
	uint64_t bytes;
	enum block_end reason;
	uint64_t code;
};

/* What Parapet waits for after "@end". */
#define CHANNEL_CONTINUE 'k'

/* Takes `line` (no line end) apart. Never fails: what makes no sense is CHANNEL_UNKNOWN. */
struct channel_line channel_line_parse(const char *line);

/* The name of a reason on the channel and in the statistics; "none" if there is none. */
const char *channel_end_name(enum block_end reason);

#endif
