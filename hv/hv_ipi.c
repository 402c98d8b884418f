/*
 * HvCallSendSyntheticClusterIpi and its form with sparse sets: one exit for an interrupt to many. Each
 * target gets it from the machine's own APICs.
 */
#include "arch/x86/apic.h"
#include "arch/x86/registers.h"
#include "hv/hv_call.h"
#include "hv/hv_status.h"

#define VECTOR_FIRST 16
#define VECTOR_LAST  255

#define WORD_VECTOR	0 /* and, in its upper half, the target VTL: byte 4 */
#define WORD_MASK	1
#define WORD_SET_FORMAT 1
#define WORD_BANK_MASK	2
#define WORD_BANKS	3

static uint16_t send(struct vp *vp, const struct hv_input *input, const struct vpset *set)
{
	struct partition *partition = vp->partition;
	uint32_t vector = (uint32_t)input->words[WORD_VECTOR];
	uint32_t vtl = (uint32_t)(input->words[WORD_VECTOR] >> 32);
	struct vpset_iter iter;
	uint32_t index;
	vp_id_t target;

	/* HV_INPUT_VTL: 0 is "mine, use no other"; bytes 5 to 7 are reserved. */
	if (vector < VECTOR_FIRST || vector > VECTOR_LAST || vtl) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	if (!vpset_all_exist(set, &index)) {
		return HV_STATUS_INVALID_VP_INDEX;
	}
	vpset_iter_begin(&iter, set);
	while (vpset_iter_next(&iter, &target)) {
		apic_send(partition->vp[target]->apic_id,
			vector | APIC_MODE_FIXED << APIC_MODE_SHIFT | APIC_ICR_ASSERT);
	}
	return HV_STATUS_SUCCESS;
}

uint16_t hv_send_ipi(struct vp *vp, const struct hv_input *input)
{
	struct vpset set =
		vpset_make_mask(&vp->partition->vp_indexes, input->words[WORD_MASK]);

	return send(vp, input, &set);
}

uint16_t hv_send_ipi_ex(struct vp *vp, const struct hv_input *input)
{
	struct vpset set;

	if (vpset_make_sparse(&set, &vp->partition->vp_indexes, input->words[WORD_SET_FORMAT],
		    input->words[WORD_BANK_MASK], &input->words[WORD_BANKS],
		    input->variable_words) != VPSET_OK) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	return send(vp, input, &set);
}
