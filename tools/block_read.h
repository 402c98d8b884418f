/*
 * Parapet's block (include/parapet/block.h) as it was copied out of the machine: checked once, then
 * safe to walk. Nothing in it is believed before.
 */
#ifndef PARAPET_TOOLS_BLOCK_READ_H
#define PARAPET_TOOLS_BLOCK_READ_H

#include <stddef.h>
#include <stdint.h>

#include <parapet/block.h>

#include "tools/tool_error.h"

/* A checked block. Points into the bytes that were checked; they must stay as they are. */
struct block_view {
	const uint8_t *bytes;
	struct block_header header; /* a copy: texts are terminated, counters <= COUNTER_ROOM */
};

/*
 * Checks `size` bytes (on a 64-byte boundary) and makes *view of them. False with *error set if
 * magic, version, sizes, offsets or numbers do not fit together.
 */
bool block_read(
	const uint8_t *bytes, size_t size, struct block_view *view, struct tool_error *error);

/* The structure of VP `vp`, below header.vps. */
const struct block_vp *block_read_vp(const struct block_view *view, uint32_t vp);

/* The trace ring of VP `vp`, for trace_ring_read(); NULL if the block has no rings. */
const void *block_read_ring(const struct block_view *view, uint32_t vp);

/* One record of a change of permissions, below header.regions. */
const struct block_region *block_read_region(const struct block_view *view, uint64_t index);

/* One counter of one VP; 0 if whoever wrote the block did not have it yet. */
uint64_t block_read_counter(const struct block_view *view, uint32_t vp, enum block_counter counter);

/* One counter over all VPs, and all exits over all VPs. */
uint64_t block_read_total(const struct block_view *view, enum block_counter counter);
uint64_t block_read_exits(const struct block_view *view);

/* Time stamp counts in microseconds; 0 if the block does not know its clock. */
double block_read_us(const struct block_view *view, uint64_t tsc);

/* From the guest's first instruction to its end, in microseconds; 0 if not known. */
double block_read_guest_us(const struct block_view *view);

/*
 * From the wakeup request for VP `vp` to its first instruction. False if it was never requested or
 * has not started.
 */
bool block_read_ap_start_us(const struct block_view *view, uint32_t vp, double *us);

#endif
