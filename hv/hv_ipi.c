/*
 * HvCallSendSyntheticClusterIpi and its form with sparse sets: one exit for an interrupt to many. Each
 * target gets it from the machine's own APICs, or in VTL1 from the one that Parapet keeps for it.
 */
#include "arch/x86/apic.h"
#include "arch/x86/registers.h"
#include "hv/hv_call.h"
#include "hv/hv_status.h"
#include "partition/vtl.h"

#define VECTOR_FIRST 16
#define VECTOR_LAST  255

#define WORD_VECTOR	0 /* and, in byte 4, the target VTL; bytes 5 to 7 are padding */
#define WORD_MASK	1
#define WORD_SET_FORMAT 1

static uint16_t send(struct vp *vp, const struct hv_input *input, const struct vpset *set)
{
	struct partition *partition = vp->partition;
	uint32_t vector = (uint32_t)input->words[WORD_VECTOR];
	enum vtl vtl = VTL0;
	uint16_t status = hv_input_vtl(vp, (uint8_t)(input->words[WORD_VECTOR] >> 32), &vtl);
	struct vpset_iter iter;
	uint32_t index;
	vp_id_t target;

	if (vector < VECTOR_FIRST || vector > VECTOR_LAST) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	if (status != HV_STATUS_SUCCESS) {
		return status;
	}
	if (!vpset_all_exist(set, &index)) {
		return HV_STATUS_INVALID_VP_INDEX;
	}
	vpset_iter_begin(&iter, set);
	while (vpset_iter_next(&iter, &target)) {
		if (vtl == VTL1) {
			vtl_interrupt(vp, partition->vp[target], (uint8_t)vector);
			continue;
		}
		apic_send(partition->vp[target]->apic_id,
			vector | APIC_MODE_FIXED << APIC_MODE_SHIFT | APIC_ICR_ASSERT);
	}
	return HV_STATUS_SUCCESS;
}

uint16_t hv_send_ipi(struct vp *vp, const struct hv_input *input)
{
	struct vpset set = vpset_make_mask(&vp->partition->vp_indexes, input->words[WORD_MASK]);

	return send(vp, input, &set);
}

uint16_t hv_send_ipi_ex(struct vp *vp, const struct hv_input *input)
{
	struct vpset set;

	if (!hv_read_set(vp, input, WORD_SET_FORMAT, &set)) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	return send(vp, input, &set);
}
