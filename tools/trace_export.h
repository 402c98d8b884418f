/*
 * The trace rings of a block as trace-event JSON, which chrome://tracing and Perfetto open: a line
 * for each VP, spans for what takes time, arrows of time for what begins on one VP and ends on
 * another.
 */
#ifndef PARAPET_TOOLS_TRACE_EXPORT_H
#define PARAPET_TOOLS_TRACE_EXPORT_H

#include "tools/block_read.h"

struct trace_export {
	char *text; /* the JSON, terminated; the caller frees it; NULL if there is no memory */
	uint64_t records; /* in it */
	uint64_t lost; /* overwritten in the rings before the end */
};

/*
 * Makes the JSON. Without a block (NULL) it has no records. Times are microseconds since power-on.
 */
struct trace_export trace_export_make(const struct block_view *block);

#endif
