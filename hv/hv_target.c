/* Whom a hypercall is about: partition, VP and VTL as its input names them. */
#include "hv/hv_call.h"
#include "hv/hv_status.h"

/* HV_INPUT_VTL. */
#define INPUT_VTL_NUMBER   0x0fu
#define INPUT_VTL_USE	   0x10u
#define INPUT_VTL_RESERVED 0xe0u

struct vp *hv_find_vp(struct vp *vp, uint32_t index)
{
	const struct partition *partition = vp->partition;

	if (index == HV_VP_INDEX_SELF) {
		return vp;
	}
	if (index >= VPSET_INDEX_COUNT || partition->vp_of_index[index] == VPSET_NO_VP) {
		return NULL;
	}
	return partition->vp[partition->vp_of_index[index]];
}

uint16_t hv_check_vtl(const struct vp *vp, uint8_t number, enum vtl *vtl)
{
	if (number > vp->active_vtl) {
		return HV_STATUS_ACCESS_DENIED;
	}
	*vtl = (enum vtl)number;
	return HV_STATUS_SUCCESS;
}

uint16_t hv_input_vtl(const struct vp *vp, uint8_t input, enum vtl *vtl)
{
	if (input & INPUT_VTL_RESERVED) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	if (!(input & INPUT_VTL_USE)) {
		*vtl = vp->active_vtl;
		return HV_STATUS_SUCCESS;
	}
	return hv_check_vtl(vp, input & INPUT_VTL_NUMBER, vtl);
}

uint16_t hv_input_own_vp(struct vp *vp, const struct hv_input *input)
{
	const struct vp *target;

	if (input->words[0] != HV_PARTITION_ID_SELF) {
		return HV_STATUS_ACCESS_DENIED;
	}
	target = hv_find_vp(vp, (uint32_t)input->words[1]);
	if (!target) {
		return HV_STATUS_INVALID_VP_INDEX;
	}
	return target == vp ? HV_STATUS_SUCCESS : HV_STATUS_ACCESS_DENIED;
}
