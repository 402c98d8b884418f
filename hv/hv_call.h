/*
 * Hypercalls of the Hyper-V TLFS (chapter "Hypercall Interface"): the register interface, the input's
 * one copy, and the table of calls. What the calls do is in a file for each kind.
 */
#ifndef PARAPET_HV_CALL_H
#define PARAPET_HV_CALL_H

#include "partition/partition.h"

/* A call as its handler sees it. The input is Parapet's copy; the guest cannot change it any more. */
struct hv_input {
	const uint64_t *words;
	uint32_t header_words; /* the fixed header and the variable one */
	uint32_t variable_words; /* of those, the variable header */
	uint32_t rep_start; /* elements done by an earlier try */
	uint32_t rep_count;
	const uint64_t *reps; /* the list: rep_count elements, after the header */
};

/* The guest executed VMMCALL: carries out the call, or raises #UD if it may not make any. */
void hv_call(struct vp *vp);

/*
 * The processor set (HV_VP_SET) whose format is word `format_word` of the input, its banks the
 * variable header. False if it is malformed: HV_STATUS_INVALID_PARAMETER. The set lives in the input.
 */
bool hv_read_set(
	struct vp *vp, const struct hv_input *input, uint32_t format_word, struct vpset *set);

/* hv_flush.c: HvCallFlushVirtualAddressSpace, ...List, and both with sparse sets. Return a status. */
uint16_t hv_flush_space(struct vp *vp, const struct hv_input *input);
uint16_t hv_flush_list(struct vp *vp, const struct hv_input *input);
uint16_t hv_flush_space_ex(struct vp *vp, const struct hv_input *input);
uint16_t hv_flush_list_ex(struct vp *vp, const struct hv_input *input);

/* hv_ipi.c: HvCallSendSyntheticClusterIpi and its form with sparse sets. */
uint16_t hv_send_ipi(struct vp *vp, const struct hv_input *input);
uint16_t hv_send_ipi_ex(struct vp *vp, const struct hv_input *input);

#endif
