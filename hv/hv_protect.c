/*
 * HvCallModifyVtlProtectionMask: what VTL1 lets VTL0 do with its memory. A call's list is one
 * transaction of core/protect, so one shootdown; what must not be changed ends the list, and the pages
 * in front of it are done and counted.
 */
#include "hv/hv_call.h"
#include "hv/hv_protect.h"
#include "hv/hv_status.h"
#include "hv/hv_vsm.h"

#define WORD_FLAGS 1 /* HV_MAP_GPA_FLAGS; byte 12: HV_INPUT_VTL, the rest zero */
#define VTL_SHIFT  32

/* HV_MAP_GPA_FLAGS. */
#define MAP_READ	   1u
#define MAP_WRITE	   2u
#define MAP_KERNEL_EXECUTE 4u
#define MAP_USER_EXECUTE   8u
#define MAP_ALL		   (MAP_READ | MAP_WRITE | MAP_KERNEL_EXECUTE | MAP_USER_EXECUTE)

static uint16_t status_of(enum protect_status status)
{
	switch (status) {
	case PROTECT_DONE:
	case PROTECT_SUSPENDED:
	case PROTECT_DEFERRED:
		return HV_STATUS_SUCCESS;
	case PROTECT_BAD_RANGE: /* TLFS: "non-RAM ranges" */
		return HV_STATUS_INVALID_PARAMETER;
	case PROTECT_BAD_ACCESS:
		return HV_STATUS_INVALID_REGISTER_VALUE;
	case PROTECT_BAD_CALLER:
		return HV_STATUS_ACCESS_DENIED;
	case PROTECT_OVERLAY_PAGE:
	case PROTECT_LOCKED:
		return HV_STATUS_OPERATION_DENIED;
	case PROTECT_NO_MEMORY:
	case PROTECT_FULL:
		break;
	}
	return HV_STATUS_INSUFFICIENT_MEMORY;
}

bool hv_map_flags_access(const struct partition *partition, uint32_t flags, uint32_t *access)
{
	*access = (flags & MAP_READ ? ACCESS_READ : 0) | (flags & MAP_WRITE ? ACCESS_WRITE : 0) |
		(flags & MAP_KERNEL_EXECUTE ? ACCESS_EXECUTE_KERNEL : 0) |
		(flags & MAP_USER_EXECUTE ? ACCESS_EXECUTE_USER : 0);
	return !(flags & ~MAP_ALL) && ((flags & MAP_READ) || !(flags & MAP_WRITE)) &&
		protect_can(&partition->protect, VTL0, *access);
}

static void begin(struct vp *vp)
{
	protect_begin(
		&vp->partition->protect, &vp->protect, vp->id, VTL1, VTL0, PROTECT_VTL_MASK, 0);
}

static enum protect_status commit(struct vp *vp)
{
	enum protect_status status = protect_commit(&vp->partition->protect, &vp->protect);

	vp->protect_suspended |= status == PROTECT_SUSPENDED;
	return status;
}

static enum protect_status add(struct vp *vp, uint64_t base, uint64_t bytes, uint32_t access)
{
	return protect_add(&vp->partition->protect, &vp->protect, GPA(base), bytes, access);
}

/*
 * Whose restrictions: those that VTL1 puts upon the level below it, so VTL1 is the one to name, as
 * existing secure kernels do, or nobody. VTL0 has none to give.
 */
static uint16_t check(struct vp *vp, const struct hv_input *input, uint32_t *access)
{
	uint64_t word = input->words[WORD_FLAGS];
	enum vtl vtl = VTL0;
	uint16_t status;

	if (input->words[0] != HV_PARTITION_ID_SELF) {
		return HV_STATUS_ACCESS_DENIED;
	}
	if (word >> (VTL_SHIFT + 8)) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	status = hv_input_vtl(vp, (uint8_t)(word >> VTL_SHIFT), &vtl);
	if (status != HV_STATUS_SUCCESS) {
		return status;
	}
	if (vtl == VTL0) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	if (!hv_protection_is_enabled()) {
		return HV_STATUS_ACCESS_DENIED;
	}
	return hv_map_flags_access(vp->partition, (uint32_t)word, access)
		? HV_STATUS_SUCCESS
		: HV_STATUS_INVALID_REGISTER_VALUE;
}

uint16_t hv_modify_protection(struct vp *vp, const struct hv_input *input)
{
	enum protect_status added = PROTECT_DONE, committed;
	uint32_t access = ACCESS_NONE;
	uint16_t status = check(vp, input, &access);
	uint32_t done = input->rep_start;

	if (status != HV_STATUS_SUCCESS) {
		return status;
	}
	begin(vp);
	for (; done < input->rep_count; done++) {
		uint64_t page = input->reps[done];

		added = page >> (vp->partition->physical_bits - PAGE_BITS)
			? PROTECT_BAD_RANGE
			: add(vp, page << PAGE_BITS, PAGE_SIZE, access);
		if (!protect_ok(added)) {
			break;
		}
	}
	committed = commit(vp);
	if (!protect_ok(committed)) {
		return status_of(committed);
	}
	*input->reps_done = done;
	return status_of(added);
}

/* As much of the span as there is up to a page that is pinned; the pages behind it too. */
static enum protect_status add_around_pins(
	struct vp *vp, uint64_t base, uint64_t end, uint32_t access)
{
	while (base < end) {
		uint64_t stop = end;
		enum protect_status status = add(vp, base, end - base, access);

		while (status == PROTECT_OVERLAY_PAGE || status == PROTECT_LOCKED) {
			stop = ALIGN_DOWN(vp->protect.failed, PAGE_SIZE);
			if (stop <= base) {
				stop = base;
				break;
			}
			status = add(vp, base, stop - base, access);
		}
		if (stop > base && !protect_ok(status)) {
			return status;
		}
		/* The pinned page itself is left out. */
		base = stop == end ? end : stop + PAGE_SIZE;
	}
	return PROTECT_DONE;
}

uint16_t hv_protect_default(struct vp *vp, uint32_t access)
{
	const struct memory_span_list *ram = &vp->partition->ram;
	enum protect_status status = PROTECT_DONE;

	begin(vp);
	for (uint32_t i = 0; protect_ok(status) && i < ram->count; i++) {
		status = add_around_pins(
			vp, ram->span[i].base, ram->span[i].base + ram->span[i].bytes, access);
	}
	if (protect_ok(status)) {
		status = commit(vp);
	}
	return status_of(status);
}
