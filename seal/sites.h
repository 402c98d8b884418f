/*
 * Where a Linux kernel patches itself: the records that it keeps for its own use, found by their
 * content while its init sections are still there (docs/protect-kernel.md).
 *
 * - Static keys, __jump_table: struct jump_entry { s32 code; s32 target; s64 key; }, each relative to
 *   its own address; a NOP or a JMP at `code`.
 * - Function entries, __mcount_loc: ascending addresses of a CALL or a NOP.
 * - Static calls, .static_call_sites: struct static_call_site { s32 addr; s32 key; }, relative; a
 *   branch to a trampoline that ends in a mark. All trampolines lie side by side.
 * - The two CALLs in the kernel's function-tracing entries, behind what function entries call.
 */
#ifndef PARAPET_SEAL_SITES_H
#define PARAPET_SEAL_SITES_H

#include "seal/image.h"

enum seal_kind {
	SEAL_JUMP2, /* NOP of two bytes, or JMP rel8 to the target */
	SEAL_JUMP5, /* NOP of five bytes, or JMP rel32 to the target */
	SEAL_ENTRY, /* NOP of five bytes, or CALL into the function tracer */
	SEAL_CALL, /* CALL, NOP, or "XOR EAX, EAX" of five bytes */
	SEAL_TAIL, /* JMP rel32 or RET */
	SEAL_JCC, /* conditional jump of six bytes */
	SEAL_TRACER, /* CALL */
	SEAL_KINDS,
};

#define SEAL_INSTRUCTION_MAX 6

struct seal_site {
	uint32_t code; /* offset of the instruction */
	/* Offset: where a SEAL_JUMP leads, or a static call did at first; else 0. */
	uint32_t target : 29;
	uint32_t kind : 3; /* enum seal_kind */
};

_Static_assert(sizeof(struct seal_site) == 8, "tens of thousands of them");

/* The CALL of a function-tracing entry, and where to look for that entry's first byte. */
struct seal_tracer {
	uint32_t from;
	uint32_t call;
};

#define SEAL_TRACERS_MAX 2

#define SEAL_TRAMPOLINE_BYTES 8 /* of a static call: a branch of five bytes and the mark */

struct seal_sites {
	struct seal_site *site; /* the caller's memory */
	uint32_t room;
	uint32_t entries; /* the first ones, ascending: SEAL_ENTRY */
	uint32_t count; /* the others behind them, ascending */
	struct seal_tracer tracer[SEAL_TRACERS_MAX];
	uint32_t tracers;
	uint32_t trampolines; /* of static calls: [trampolines, trampolines_end) */
	uint32_t trampolines_end;
};

enum seal_find {
	SEAL_FOUND,
	SEAL_NO_JUMPS, /* no table of static keys: no kernel that this file knows */
	SEAL_TOO_MANY, /* more records than there is room for */
};

/* Bytes of the instruction at a site of this kind. */
uint32_t seal_kind_bytes(enum seal_kind kind);

/*
 * Fills *sites, whose memory is set and whose counts are 0, from an image whose whole extent counts
 * as text. Bounded by the image's size and the room; for the start of a guest, not for an exit.
 */
enum seal_find seal_sites_find(struct seal_sites *sites, const struct seal_image *image);

/* The site whose instruction has the byte at `offset`, or NULL. */
const struct seal_site *seal_sites_at(const struct seal_sites *sites, uint32_t offset);

#endif
