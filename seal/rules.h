/*
 * Which writes to sealed code are the kernel's own patching. A running kernel changes an
 * instruction in three steps, so that no processor ever executes half of it: INT3 in place of the
 * first byte, then the other bytes, then the first one. What is let through is exactly this, at
 * recorded sites:
 *
 * - INT3 over the first byte, with the other bytes as they were;
 * - behind an INT3, other bytes: of the site's two encodings, for a static key; any, where a branch
 *   leads to a target that the next step is judged by;
 * - the first byte in place of the INT3, if the whole is then one of the site's encodings, and leads
 *   where it may: to the recorded target, to sealed code, or (function entries) to a trampoline that
 *   is a true copy of the tracer's entry (trampoline.h).
 *
 * So a processor that executes a site finds a known instruction or an INT3.
 */
#ifndef PARAPET_SEAL_RULES_H
#define PARAPET_SEAL_RULES_H

#include "seal/sites.h"

enum seal_verdict {
	SEAL_DENY,
	SEAL_ALLOW,
	SEAL_ASK_TRAMPOLINE, /* if there is a trampoline at seal_judgement.outside */
};

struct seal_judgement {
	enum seal_verdict verdict;
	uint64_t outside; /* guest-virtual address, for SEAL_ASK_TRAMPOLINE */
	/* Where out of the image the CALL led that this write puts an INT3 on; else 0. */
	uint64_t left;
};

/*
 * What to make of a write of `size` (1 to 8) bytes at `offset`, which the caller has checked to be
 * in the image. image->text and text_end are those of the sealed code. The caller sees to it that
 * nobody changes sealed code between this and the write.
 */
struct seal_judgement seal_judge(const struct seal_image *image, const struct seal_sites *sites,
	uint32_t offset, uint32_t size, uint64_t value);

/* Of an instruction at `at`, an offset that may be outside the image: the same for a trampoline. */
struct seal_judgement seal_judge_tracer(
	const struct seal_image *image, int64_t at, const uint8_t old[5], const uint8_t new[5]);

#endif
