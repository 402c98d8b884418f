/* Which writes to sealed code are the kernel's own patching. See rules.h. */
#include "seal/code.h"
#include "seal/rules.h"

/* An instruction of a site, and where the site is; its offset may lie outside the image. */
struct spot {
	const struct seal_image *image;
	enum seal_kind kind;
	uint32_t bytes;
	int64_t at;
	int64_t target;
};

static const struct seal_judgement denied = {.verdict = SEAL_DENY};
static const struct seal_judgement allowed = {.verdict = SEAL_ALLOW};

static bool leads_to_text(const struct spot *spot, const uint8_t *code)
{
	return seal_image_is_text(spot->image, code_target(code, spot->at, spot->bytes), 1);
}

/* The two encodings of a static key's site. */
static void jump_encodings(const struct spot *spot, uint8_t nop[5], uint8_t jump[5])
{
	uint32_t displacement = (uint32_t)(spot->target - spot->at - spot->bytes);

	for (uint32_t i = 0; i < spot->bytes; i++) {
		nop[i] = spot->kind == SEAL_JUMP2 ? code_nop2[i] : code_nop5[i];
		jump[i] = i == 0 ? (spot->kind == SEAL_JUMP2 ? CODE_JMP8 : CODE_JMP)
				 : (uint8_t)(displacement >> (8 * (i - 1)));
	}
}

/* An instruction that may be executed at the site? */
static struct seal_judgement judge_complete(const struct spot *spot, const uint8_t *code)
{
	uint8_t nop[5], jump[5];
	bool good = false;

	switch (spot->kind) {
	case SEAL_JUMP2:
	case SEAL_JUMP5:
		jump_encodings(spot, nop, jump);
		good = code_is(code, nop, spot->bytes) || code_is(code, jump, spot->bytes);
		break;
	case SEAL_ENTRY:
		if (code[0] == CODE_CALL && !leads_to_text(spot, code)) {
			return (struct seal_judgement){
				.verdict = SEAL_ASK_TRAMPOLINE,
				.outside = spot->image->base +
					(uint64_t)code_target(code, spot->at, spot->bytes),
			};
		}
		good = code_is(code, code_nop5, 5) || code[0] == CODE_CALL;
		break;
	case SEAL_CALL:
		good = code_is(code, code_nop5, 5) || code_is(code, code_return_0, 5) ||
			(code[0] == CODE_CALL && leads_to_text(spot, code));
		break;
	case SEAL_TAIL:
		good = code_is(code, code_return, 5) ||
			(code[0] == CODE_JMP && leads_to_text(spot, code));
		break;
	case SEAL_JCC:
		good = code_is_jcc(code) && leads_to_text(spot, code);
		break;
	case SEAL_TRACER:
		good = code[0] == CODE_CALL && leads_to_text(spot, code);
		break;
	case SEAL_KINDS:
		break;
	}
	return good ? allowed : denied;
}

/* Behind an INT3: bytes that a later first byte can complete? */
static bool may_follow(const struct spot *spot, const uint8_t *old, const uint8_t *new)
{
	uint8_t nop[5], jump[5];

	if (spot->kind != SEAL_JUMP2 && spot->kind != SEAL_JUMP5) {
		return true;
	}
	jump_encodings(spot, nop, jump);
	for (uint32_t i = 1; i < spot->bytes; i++) {
		if (new[i] != old[i] && new[i] != nop[i] && new[i] != jump[i]) {
			return false;
		}
	}
	return true;
}

static struct seal_judgement judge(const struct spot *spot, const uint8_t *old, const uint8_t *new)
{
	bool same_tail = code_is(new + 1, old + 1, spot->bytes - 1);

	if (new[0] == CODE_INT3 && old[0] == CODE_INT3) {
		return may_follow(spot, old, new) ? allowed : denied;
	}
	if (new[0] == CODE_INT3 && same_tail) {
		struct seal_judgement judgement = allowed;

		if (spot->kind == SEAL_ENTRY && old[0] == CODE_CALL && !leads_to_text(spot, old)) {
			judgement.left = spot->image->base +
				(uint64_t)code_target(old, spot->at, spot->bytes);
		}
		return judgement;
	}
	if (old[0] == CODE_INT3 && same_tail) {
		return judge_complete(spot, new);
	}
	return denied;
}

/* The trampoline of a static call has no record of its own: it is one of a row. */
static bool find_trampoline(const struct seal_image *image, const struct seal_sites *sites,
	uint32_t offset, struct spot *spot)
{
	uint32_t at = offset - (offset - sites->trampolines) % SEAL_TRAMPOLINE_BYTES;

	if (offset < sites->trampolines || offset >= sites->trampolines_end || offset - at >= 5) {
		return false;
	}
	*spot = (struct spot){image, SEAL_TAIL, 5, at, 0};
	return seal_image_is_text(image, at, 5);
}

static bool find_spot(const struct seal_image *image, const struct seal_sites *sites,
	uint32_t offset, struct spot *spot)
{
	const struct seal_site *site = seal_sites_at(sites, offset);

	if (!site) {
		return find_trampoline(image, sites, offset, spot);
	}
	*spot = (struct spot){image, (enum seal_kind)site->kind,
		seal_kind_bytes((enum seal_kind)site->kind), site->code, site->target};
	return seal_image_is_text(image, site->code, spot->bytes);
}

struct seal_judgement seal_judge(const struct seal_image *image, const struct seal_sites *sites,
	uint32_t offset, uint32_t size, uint64_t value)
{
	uint8_t now[8], old[SEAL_INSTRUCTION_MAX], new[SEAL_INSTRUCTION_MAX];
	uint32_t first = size, last = 0;
	struct spot spot;

	seal_image_copy(image, offset, now, size);
	for (uint32_t i = size; i > 0; i--) {
		if (now[i - 1] != (uint8_t)(value >> (8 * (i - 1)))) {
			last = first == size ? i - 1 : last;
			first = i - 1;
		}
	}
	if (first == size) {
		return allowed; /* nothing changes */
	}
	if (!find_spot(image, sites, offset + first, &spot) ||
		offset + last >= spot.at + spot.bytes) {
		return denied;
	}
	seal_image_copy(image, (uint32_t)spot.at, old, spot.bytes);
	for (uint32_t i = 0; i < spot.bytes; i++) {
		int64_t in_write = spot.at + i - offset;

		new[i] = in_write >= 0 && in_write < size ? (uint8_t)(value >> (8 * in_write))
							  : old[i];
	}
	return judge(&spot, old, new);
}

struct seal_judgement seal_judge_tracer(
	const struct seal_image *image, int64_t at, const uint8_t old[5], const uint8_t new[5])
{
	const struct spot spot = {image, SEAL_TRACER, 5, at, 0};

	return code_is(new, old, 5) ? allowed : judge(&spot, old, new);
}
