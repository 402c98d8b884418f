/* The function tracer's trampolines. See trampoline.h. */
#include "seal/code.h"
#include "seal/trampoline.h"

#define DATA_BYTES 7u /* MOV RDX, [RIP + displacement] */
#define ENTRY_MAX  1024u /* the longest entry that is looked at */
#define ALIGNMENT  16u /* of an entry: a copy that begins in the middle of one is none */

static const uint8_t load_data[3] = {0x48, 0x8b, 0x15};

/* A copy being compared with sealed code that begins at `start`. */
struct comparison {
	const struct seal_image *image;
	const uint8_t *copy;
	int64_t at; /* offset of copy[0] from the image's first byte */
	uint32_t room;
	uint32_t start;
	uint32_t call; /* offset in the copy */
};

static bool copy_leads_to_text(const struct comparison *c, uint32_t i)
{
	return seal_image_is_text(c->image, code_target(c->copy + i, c->at + i, 5), 1);
}

/* The data's address is in the page, and behind the code that has been compared. */
static bool has_own_data(const struct comparison *c, uint32_t i)
{
	int64_t data = code_target(c->copy + i, c->at + i, DATA_BYTES) - c->at;

	return data > c->call && data + 8 <= (int64_t)c->room;
}

static bool is_end(const struct comparison *c, uint32_t i, const uint8_t *sealed)
{
	if (sealed[0] != CODE_RET && sealed[0] != CODE_JMP) {
		return false;
	}
	return (c->copy[i] == CODE_RET && c->copy[i + 1] == CODE_INT3) ||
		(c->copy[i] == CODE_JMP && copy_leads_to_text(c, i));
}

static bool is_copy(const struct comparison *c)
{
	uint32_t i = 0;

	while (i + SEAL_INSTRUCTION_MAX + 2 <= c->room && i < ENTRY_MAX &&
		seal_image_is_text(c->image, (int64_t)c->start + i, 8)) {
		const uint8_t *copy = c->copy + i;
		uint8_t sealed[5];

		seal_image_copy(c->image, c->start + i, sealed, sizeof(sealed));
		if (i == c->call) {
			if (copy[0] != CODE_CALL || !copy_leads_to_text(c, i)) {
				return false;
			}
			i += 5;
		} else if (i < c->call && code_is(sealed, load_data, sizeof(load_data)) &&
			code_is(copy, load_data, sizeof(load_data))) {
			if (!has_own_data(c, i)) {
				return false;
			}
			i += DATA_BYTES;
		} else if (i > c->call && is_end(c, i, sealed)) {
			return true;
		} else if (i > c->call && sealed[0] == CODE_JCC8_NZ &&
			code_is(copy, code_nop2, sizeof(code_nop2))) {
			i += 2;
		} else if (copy[0] == sealed[0]) {
			i++;
		} else {
			return false;
		}
	}
	return false;
}

bool seal_trampoline_check(const struct seal_image *image, const struct seal_sites *sites,
	const uint8_t *copy, uint64_t address, uint32_t room, uint32_t *call)
{
	for (uint32_t t = 0; t < sites->tracers; t++) {
		for (uint32_t start = ALIGN_UP(sites->tracer[t].from, ALIGNMENT);
			start < sites->tracer[t].call; start += ALIGNMENT) {
			const struct comparison c = {
				.image = image,
				.copy = copy,
				.at = (int64_t)(address - image->base),
				.room = room,
				.start = start,
				.call = sites->tracer[t].call - start,
			};

			if (is_copy(&c)) {
				*call = c.call;
				return true;
			}
		}
	}
	return false;
}
