/*
 * A Linux kernel's image in the guest's memory, as the files of this room see it. The room knows
 * what a stock kernel may rewrite of itself once it runs (sites.h) and tells such a write from any
 * other (rules.h, trampoline.h). It computes: no guest is run, nothing is written, nothing
 * allocated, no global variables; partition/seal.c does what follows from it.
 *
 * The guest is hostile and its memory may change while it is looked at: every value is read once
 * and checked, and wrong ones cost only the guest that put them there.
 */
#ifndef PARAPET_SEAL_IMAGE_H
#define PARAPET_SEAL_IMAGE_H

#include "parapet/types.h"

#define SEAL_IMAGE_BYTES_MAX (1u << 29) /* offsets have 29 bits (struct seal_site) */

/* Offsets count from the image's first byte; it lies in one piece in guest-physical memory. */
struct seal_image {
	const uint8_t *bytes;
	uint64_t base; /* guest-virtual address of bytes[0] */
	uint32_t size;
	uint32_t text; /* where code is: [text, text_end) */
	uint32_t text_end;
};

/* Copies `count` bytes at `offset`, which the caller has checked to be in the image. */
static inline void seal_image_copy(
	const struct seal_image *image, uint32_t offset, uint8_t *to, uint32_t count)
{
	const volatile uint8_t *from = image->bytes + offset;

	for (uint32_t i = 0; i < count; i++) {
		to[i] = from[i];
	}
}

/* One read each, of a value that need not be aligned. */
static inline uint32_t seal_image_u32(const struct seal_image *image, uint32_t offset)
{
	struct unaligned {
		uint32_t value;
	} __attribute__((packed, may_alias));

	return ((const volatile struct unaligned *)(image->bytes + offset))->value;
}

static inline uint64_t seal_image_u64(const struct seal_image *image, uint32_t offset)
{
	struct unaligned {
		uint64_t value;
	} __attribute__((packed, may_alias));

	return ((const volatile struct unaligned *)(image->bytes + offset))->value;
}

/* Is the instruction of `bytes` bytes at this offset code of the image? */
static inline bool seal_image_is_text(
	const struct seal_image *image, int64_t offset, uint32_t bytes)
{
	return offset >= image->text && offset + bytes <= image->text_end;
}

#endif
