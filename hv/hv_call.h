/*
 * Hypercalls of the Hyper-V TLFS (chapter "Hypercall Interface"): the register interface, the input's
 * one copy, and the table of calls. What the calls do is in a file for each kind.
 */
#ifndef PARAPET_HV_CALL_H
#define PARAPET_HV_CALL_H

#include "partition/partition.h"

/* The caller's own partition and VP, where a call names one. */
#define HV_PARTITION_ID_SELF (~0ull)
#define HV_VP_INDEX_SELF     0xfffffffeu

/* Input of HvCallStartVirtualProcessor and HvCallEnableVpVtl: 16 bytes and an initial context. */
#define HV_START_WORDS 30

/* A call as its handler sees it. The input is Parapet's copy; the guest cannot change it any more. */
struct hv_input {
	const uint64_t *words;
	uint32_t header_words; /* the fixed header and the variable one */
	uint32_t variable_words; /* of those, the variable header */
	uint32_t rep_start; /* elements done by an earlier try */
	uint32_t rep_count;
	const uint64_t *reps; /* the list: rep_count elements, after the header */
	void *output; /* the guest's memory, where the call has output */
	/* Elements done, earlier tries included, where a list fails in the middle; else left alone. */
	uint32_t *reps_done;
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

/* hv_target.c: the VP that an index names, HV_VP_INDEX_SELF included; NULL: there is none. */
struct vp *hv_find_vp(struct vp *vp, uint32_t index);

/* A VTL that is not above the caller's, by its number or as HV_INPUT_VTL. Returns a status. */
uint16_t hv_check_vtl(const struct vp *vp, uint8_t number, enum vtl *vtl);
uint16_t hv_input_vtl(const struct vp *vp, uint8_t input, enum vtl *vtl);

/* For calls about registers: word 0 the partition, the low half of word 1 the VP, the caller's own. */
uint16_t hv_input_own_vp(struct vp *vp, const struct hv_input *input);

/* hv_protect.c: HvCallModifyVtlProtectionMask. */
uint16_t hv_modify_protection(struct vp *vp, const struct hv_input *input);

/* hv_vsm.c: HvCallEnablePartitionVtl, HvCallEnableVpVtl. */
uint16_t hv_enable_partition_vtl(struct vp *vp, const struct hv_input *input);
uint16_t hv_enable_vp_vtl(struct vp *vp, const struct hv_input *input);

/* hv_vp_registers.c: HvCallGetVpRegisters, HvCallSetVpRegisters. */
uint16_t hv_get_vp_registers(struct vp *vp, const struct hv_input *input);
uint16_t hv_set_vp_registers(struct vp *vp, const struct hv_input *input);

/* hv_translate.c: HvCallTranslateVirtualAddress and its form with more to say. */
uint16_t hv_translate(struct vp *vp, const struct hv_input *input);
uint16_t hv_translate_ex(struct vp *vp, const struct hv_input *input);

/* hv_start.c: HvCallStartVirtualProcessor, HvCallGetVpIndexFromApicId. */
uint16_t hv_start_vp(struct vp *vp, const struct hv_input *input);
uint16_t hv_get_vp_index(struct vp *vp, const struct hv_input *input);

#endif
