/*
 * libFuzzer target: a hostile kernel image through the finder of patch sites, then hostile writes
 * through the rules, and a hostile page through the check of trampolines. Besides what the
 * sanitizers see: what is let through stays within the sealed code and leaves an INT3 or what was
 * there before the INT3's end; a site that is found lies in the image.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "seal/rules.h"
#include "seal/trampoline.h"
#include "tests/unit/seal_kernel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHANGE 10 /* bytes of the input for one before: where, what */
#define WRITE  16 /* and for a write: where, how much, what */

static uint8_t copy[PAGE_SIZE];

static void check_sites(const struct seal_sites *sites, const struct seal_image *image)
{
	if (sites->count > sites->room || sites->entries > sites->count)
		abort();
	for (uint32_t i = 0; i < sites->count; i++) {
		const struct seal_site *site = &sites->site[i];

		if (site->code + seal_kind_bytes((enum seal_kind)site->kind) > image->size)
			abort();
		if (!seal_sites_at(sites, site->code))
			abort();
	}
}

static void fuzz_write(const struct seal_image *image, uint8_t *bytes,
	const struct seal_sites *sites, const uint8_t *data)
{
	uint32_t offset, bytes_written = 1u << data[4] % 4;
	uint64_t value;

	memcpy(&offset, data, 4);
	memcpy(&value, data + 8, 8);
	offset %= image->size - 8;

	struct seal_judgement judgement = seal_judge(image, sites, offset, bytes_written, value);

	if (judgement.verdict == SEAL_ASK_TRAMPOLINE &&
		judgement.outside - image->base - image->text < image->text_end - image->text)
		abort();
	if (judgement.verdict != SEAL_ALLOW || memcmp(bytes + offset, &value, bytes_written) == 0)
		return;
	for (uint32_t i = 0; i < bytes_written; i++) {
		bool changes = bytes[offset + i] != (uint8_t)(value >> (8 * i));

		if (changes && (offset + i < image->text || offset + i >= image->text_end))
			abort();
	}
	memcpy(bytes + offset, &value, bytes_written);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct kernel kernel;
	size_t changes = size / 2 / CHANGE, at = 0;
	uint32_t call;

	/*
	 * A good kernel, changed here and there before it is looked at: by itself, chance makes
	 * none.
	 */
	kernel_make(&kernel);
	for (size_t i = 0; i < changes; i++, at += CHANGE) {
		uint16_t offset;

		memcpy(&offset, data + at, 2);
		memcpy(kernel.bytes + offset % (KERNEL_BYTES - 8), data + at + 2, CHANGE - 2);
	}
	if (kernel_find(&kernel) == SEAL_FOUND)
		check_sites(&kernel.sites, &kernel.image);
	kernel.image.text_end = TEXT_END;
	for (; at + WRITE <= size; at += WRITE)
		fuzz_write(&kernel.image, kernel.bytes, &kernel.sites, data + at);

	/* The tracer's own code, changed in the same way, as a copy. */
	uint32_t room = size < PAGE_SIZE ? (uint32_t)size : (uint32_t)PAGE_SIZE;

	for (uint32_t i = 0; i < room; i++)
		copy[i] = kernel.bytes[TRACER + i] ^ (data[i] & data[(i + 1) % room]);
	seal_trampoline_check(
		&kernel.image, &kernel.sites, copy, KERNEL_BASE + (1ull << 28), room, &call);
	return 0;
}
