/*
 * HvCallTranslateVirtualAddress and its form with more to say: what an address means to a VTL below the
 * caller's, on the caller's VP. The walk is Parapet's own, under the TLB lock; a caller that wants to use
 * the answer for longer asks for a lock of its own.
 */
#include "arch/x86/registers.h"
#include "hv/hv_call.h"
#include "hv/hv_status.h"
#include "partition/guest_access.h"

#define WORD_VP	   1 /* VP index, then reserved */
#define WORD_FLAGS 2
#define WORD_PAGE  3

/* HV_TRANSLATE_GVA_CONTROL_FLAGS; the top byte is an HV_INPUT_VTL. */
#define VALIDATE_READ	  (1ull << 0)
#define VALIDATE_WRITE	  (1ull << 1)
#define VALIDATE_EXECUTE  (1ull << 2)
#define PRIVILEGE_EXEMPT  (1ull << 3)
#define SET_TABLE_BITS	  (1ull << 4)
#define INHIBIT_FLUSH	  (1ull << 5)
#define SUPERVISOR_ACCESS (1ull << 6)
#define USER_ACCESS	  (1ull << 7)
#define ENFORCE_SMAP	  (1ull << 8)
#define OVERRIDE_SMAP	  (1ull << 9)
#define FLAGS_KNOWN	  0x3ffull
#define FLAGS_MASK	  0x00ffffffffffffffull
#define VTL_SHIFT	  56

/* HV_TRANSLATE_GVA_RESULT: the code in the low half, the cache type above it. */
#define RESULT_SUCCESS		   0
#define RESULT_NOT_PRESENT	   1
#define RESULT_PRIVILEGE_VIOLATION 2
#define RESULT_BAD_TABLE_FLAGS	   3
#define RESULT_UNMAPPED		   4
#define RESULT_NO_READ_ACCESS	   5
#define RESULT_NO_WRITE_ACCESS	   6
#define RESULT_INTERCEPT	   8
#define CACHE_WRITE_BACK	   (6ull << 32)

/* HV_TRANSLATE_GVA_RESULT_EX and the page; no event is ever there to tell of. */
#define EX_WORDS     8
#define EX_WORD_PAGE 6

struct answer {
	uint64_t result;
	uint64_t page;
};

/* Registers as the flags want them: who accesses, and whether SMEP and SMAP are asked. */
static void change_privilege(uint64_t flags, struct walk_registers *registers, uint32_t *access)
{
	if (flags & SUPERVISOR_ACCESS) {
		*access &= ~WALK_USER;
	}
	if (flags & USER_ACCESS) {
		*access |= WALK_USER;
	}
	if (flags & ENFORCE_SMAP) {
		registers->rflags &= ~RFLAGS_AC;
	}
	if (flags & OVERRIDE_SMAP) {
		registers->rflags |= RFLAGS_AC;
	}
	if (flags & PRIVILEGE_EXEMPT) {
		registers->cr4 &= ~(CR4_SMEP | CR4_SMAP);
		*access &= ~WALK_USER;
	}
}

static uint64_t failure(
	const struct vp *vp, enum walk_status status, const struct walk_result *walk)
{
	switch (status) {
	case WALK_PAGE_FAULT:
		if (walk->error_code & WALK_ERROR_RESERVED) {
			return RESULT_BAD_TABLE_FLAGS;
		}
		return walk->error_code & WALK_ERROR_PRESENT ? RESULT_PRIVILEGE_VIOLATION
							     : RESULT_NOT_PRESENT;
	case WALK_BAD_MEMORY:
		switch (guest_walk_denied(vp, status, walk)) {
		case ACCESS_READ:
			return RESULT_NO_READ_ACCESS;
		case ACCESS_WRITE:
			return RESULT_NO_WRITE_ACCESS;
		default:
			return RESULT_UNMAPPED;
		}
	default:
		/* Not canonical, or a table that changes at this moment. */
		return RESULT_NOT_PRESENT;
	}
}

static void translate(
	struct vp *vp, enum vtl vtl, uint64_t flags, gva_t address, struct answer *answer)
{
	uint32_t wanted = (flags & VALIDATE_READ ? ACCESS_READ : 0) |
		(flags & VALIDATE_WRITE ? ACCESS_WRITE : 0) |
		(flags & VALIDATE_EXECUTE ? ACCESS_EXECUTE : 0);
	uint32_t access = (flags & VALIDATE_WRITE ? WALK_WRITE : 0) |
		(flags & VALIDATE_EXECUTE ? WALK_EXECUTE : 0);
	struct walk_registers registers;
	struct walk_result walk;

	access |= guest_walk_registers(vp, vtl, &registers);
	change_privilege(flags, &registers, &access);

	enum walk_status status =
		guest_walk(vp, vtl, &registers, address, access, flags & SET_TABLE_BITS, &walk);

	if (status != WALK_OK) {
		answer->result = failure(vp, status, &walk);
		return;
	}
	if (!guest_is_ram(vp->partition, GPA(walk.gpa.value & PAGE_MASK), PAGE_SIZE)) {
		answer->result = RESULT_UNMAPPED;
		return;
	}
	if (wanted & ~protect_access(&vp->partition->protect, vtl, walk.gpa)) {
		answer->result = RESULT_INTERCEPT;
		return;
	}
	answer->result = RESULT_SUCCESS | CACHE_WRITE_BACK;
	answer->page = walk.gpa.value >> PAGE_BITS;
}

static uint16_t answer(struct vp *vp, const struct hv_input *input, struct answer *answer)
{
	uint64_t flags = input->words[WORD_FLAGS] & FLAGS_MASK;
	uint64_t page = input->words[WORD_PAGE];
	enum vtl vtl = VTL0;
	uint16_t status = hv_input_own_vp(vp, input);

	if (status != HV_STATUS_SUCCESS) {
		return status;
	}
	status = hv_input_vtl(vp, (uint8_t)(input->words[WORD_FLAGS] >> VTL_SHIFT), &vtl);
	if (status != HV_STATUS_SUCCESS) {
		return status;
	}
	if (vtl >= vp->active_vtl) {
		return HV_STATUS_ACCESS_DENIED;
	}
	if ((flags & ~FLAGS_KNOWN) || input->words[WORD_VP] >> 32 || page >> (64 - PAGE_BITS) ||
		(flags & (SUPERVISOR_ACCESS | USER_ACCESS)) == (SUPERVISOR_ACCESS | USER_ACCESS) ||
		(flags & (ENFORCE_SMAP | OVERRIDE_SMAP)) == (ENFORCE_SMAP | OVERRIDE_SMAP)) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	if (flags & INHIBIT_FLUSH) {
		tlblock_take(&vp->partition->tlblock, vp->id, vtl, vp->active_vtl);
	}
	*answer = (struct answer){0};
	translate(vp, vtl, flags, GVA(page << PAGE_BITS), answer);
	return HV_STATUS_SUCCESS;
}

uint16_t hv_translate(struct vp *vp, const struct hv_input *input)
{
	uint64_t *output = input->output;
	struct answer found;
	uint16_t status = answer(vp, input, &found);

	if (status == HV_STATUS_SUCCESS) {
		output[0] = found.result;
		output[1] = found.page;
	}
	return status;
}

uint16_t hv_translate_ex(struct vp *vp, const struct hv_input *input)
{
	uint64_t *output = input->output;
	struct answer found;
	uint16_t status = answer(vp, input, &found);

	if (status == HV_STATUS_SUCCESS) {
		for (uint32_t i = 0; i < EX_WORDS; i++) {
			output[i] = 0;
		}
		output[0] = found.result;
		output[EX_WORD_PAGE] = found.page;
	}
	return status;
}
