/* What seal.c and seal_patch.c share; nobody else looks. */
#ifndef PARAPET_PARTITION_SEAL_STATE_H
#define PARAPET_PARTITION_SEAL_STATE_H

#include "partition/partition.h"
#include "seal/rules.h"

/* In this order, never back. */
enum seal_step {
	SEAL_OFF,
	SEAL_LOOKING, /* no kernel seen yet */
	SEAL_COLLECTING, /* a VP is at it */
	SEAL_WAITING, /* for the kernel to make its own mapping read-only */
	SEAL_PREPARING, /* a VP is at it */
	SEAL_SEALING, /* it is still, and the ranges stand */
	SEAL_DONE,
	SEAL_FAILED, /* it has been said why */
};

#define SEAL_RANGES_MAX	     16
#define SEAL_TRAMPOLINES_MAX 32

/* A page with one of the function tracer's trampolines. Under the writer's mark. */
struct seal_trampoline {
	uint64_t address; /* guest-virtual, of its first byte; 0: unused */
	uint32_t access; /* of the page before */
	uint32_t call; /* offset of its CALL from the first byte; 0: not checked yet */
	uint32_t sites; /* that call it */
	/* Read by every VP: the page, or 0. */
	struct atomic_u64 page;
};

struct seal_range {
	uint64_t base; /* guest-physical */
	uint64_t bytes;
};

struct seal {
	struct partition *partition;
	struct atomic_u32 step; /* enum seal_step */
	/* From here to `ranges`: written by the VP that moves `step` on, before it does. */
	struct seal_image image;
	uint64_t gpa; /* of the image's first byte */
	struct seal_sites sites;
	struct seal_range range[SEAL_RANGES_MAX];
	uint32_t ranges;
	/* 1 while a VP changes sealed memory or the trampolines; nobody waits for it. */
	struct atomic_u32 writer;
	struct seal_trampoline trampoline[SEAL_TRAMPOLINES_MAX];
	struct atomic_u32 trampolines; /* with a page: nearly always none */
};

extern struct seal seal;

/* Own VP: ranges change what VTL0 may do, together; returns when that holds. */
bool seal_protect(struct vp *vp, const struct seal_range *range, uint32_t count, uint32_t access,
	uint32_t flags);

#endif
