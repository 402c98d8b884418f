/*
 * Starting VPs by hypercall, in any VTL they have, and what a VP's index is. INIT, SIPI and the wakeup
 * mailbox are partition's.
 */
#include "hv/hv_call.h"
#include "hv/hv_status.h"
#include "hv/hv_vsm.h"

#define WORD_VP	     1 /* VP index; byte 12: the VTL, the rest zero */
#define WORD_VTL     1 /* HvCallGetVpIndexFromApicId: byte 8: the VTL, then padding */
#define WORD_CONTEXT 2

_Static_assert(HV_START_WORDS * sizeof(uint64_t) ==
		WORD_CONTEXT * sizeof(uint64_t) + sizeof(struct hv_initial_context),
	"TLFS, HvCallStartVirtualProcessor and HvCallEnableVpVtl");

/* HvCallStartVirtualProcessor. A VP that runs is not started again: TLFS, "invalid VP state". */
uint16_t hv_start_vp(struct vp *vp, const struct hv_input *input)
{
	uint64_t word = input->words[WORD_VP];
	struct vp *target = hv_find_vp(vp, (uint32_t)word);
	struct hv_initial_context context;
	enum vtl vtl = VTL0;
	uint16_t status;

	if (input->words[0] != HV_PARTITION_ID_SELF) {
		return HV_STATUS_INVALID_PARTITION_ID;
	}
	if (word >> 40) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	status = hv_check_vtl(vp, (uint8_t)(word >> 32), &vtl);
	if (status != HV_STATUS_SUCCESS) {
		return status;
	}
	if (vp->active_vtl == VTL0 && hv_startup_is_denied()) {
		return HV_STATUS_ACCESS_DENIED;
	}
	if (!target || target == vp) {
		return HV_STATUS_INVALID_VP_INDEX;
	}
	__builtin_memcpy(&context, &input->words[WORD_CONTEXT], sizeof(context));
	if (vtl == VTL1 && !vtl_vp_enabled(target)) {
		return HV_STATUS_INVALID_VTL_STATE;
	}
	switch (vtl_start_vp(target, vtl, &context)) {
	case VTL_OK:
		return HV_STATUS_SUCCESS;
	case VTL_BAD_CONTEXT:
		return HV_STATUS_INVALID_REGISTER_VALUE;
	case VTL_BAD_STATE:
		break;
	}
	return HV_STATUS_INVALID_VP_STATE;
}

static bool find_index(const struct partition *partition, uint32_t apic_id, uint32_t *index)
{
	for (uint32_t i = 0; i < partition->vp_count; i++) {
		if (partition->vp[i]->apic_id == apic_id) {
			*index = i * partition->vp_stride;
			return true;
		}
	}
	return false;
}

/* HvCallGetVpIndexFromApicId: both lists are of 32-bit numbers, one after the other. */
uint16_t hv_get_vp_index(struct vp *vp, const struct hv_input *input)
{
	const uint32_t *apic_ids = (const uint32_t *)input->reps;
	uint32_t *output = input->output;
	enum vtl vtl;
	uint16_t status;

	if (input->words[0] != HV_PARTITION_ID_SELF) {
		return HV_STATUS_INVALID_PARTITION_ID;
	}
	status = hv_check_vtl(vp, (uint8_t)input->words[WORD_VTL], &vtl);
	for (uint32_t i = input->rep_start; status == HV_STATUS_SUCCESS && i < input->rep_count;
		i++) {
		*input->reps_done = i;
		if (!find_index(vp->partition, apic_ids[i], &output[i])) {
			return HV_STATUS_INVALID_PARAMETER;
		}
	}
	return status;
}
