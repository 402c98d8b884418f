/*
 * HvCallGetVpRegisters and HvCallSetVpRegisters: which register a name is, and who may reach it. A VTL
 * reaches the architectural registers of VTLs below its own, on its own VP; what a VTL has of the TLFS's
 * own registers it reaches for itself too.
 */
#include "hv/hv_call.h"
#include "hv/hv_cpuid.h"
#include "hv/hv_msr.h"
#include "hv/hv_status.h"
#include "hv/hv_vsm.h"

#define WORD_VP	  1 /* VP index; byte 12: HV_INPUT_VTL, the rest zero */
#define VTL_SHIFT 32

/* HV_REGISTER_NAME: the kinds are in blocks of 64 Ki, but for those up to 0x00010000. */
#define BLOCK(name)	      ((name) >> 16)
#define BLOCK_DISCOVERY	      0x0
#define BLOCK_PENDING	      0x1 /* events and interruptions of the VP */
#define BLOCK_GENERAL	      0x2 /* the first of the architectural blocks */
#define BLOCK_VIRTUALIZED_MSR 0x8 /* the last of them */
#define BLOCK_SYNTHETIC	      0x9
#define BLOCK_SYNIC	      0xa
#define BLOCK_VSM	      0xd
#define BLOCK_INTERCEPT	      0xe

/* HV_REGISTER_ASSOC: an element of HvCallSetVpRegisters. */
struct register_assoc {
	uint32_t name;
	uint32_t reserved[3];
	struct hv_register_value value;
};

_Static_assert(sizeof(struct register_assoc) == 32, "TLFS, HvCallSetVpRegisters");

/* Registers that are CPUID leaves. */
static const struct {
	uint32_t name;
	uint32_t leaf;
} leaves[] = {
	{0x00000100, 0x40000002}, /* hypervisor version */
	{0x00000200, 0x40000003}, /* privileges and features */
	{0x00000201, 0x40000004}, /* recommendations */
	{0x00000202, 0x40000005}, /* limits */
};

/* Registers that are synthetic MSRs. */
static const struct {
	uint32_t name;
	uint32_t count;
	uint32_t msr;
} msrs[] = {
	{0x00090001, 1, HV_MSR_HYPERCALL},
	{0x00090002, 1, HV_MSR_GUEST_OS_ID},
	{0x00090003, 1, HV_MSR_VP_INDEX},
	{0x00090004, 1, HV_MSR_TIME_REF_COUNT},
	{0x00090013, 1, HV_MSR_VP_ASSIST_PAGE},
	{0x00090017, 1, HV_MSR_REFERENCE_TSC},
	{0x000a0000, 16, HV_MSR_SINT0},
	{0x000a0010, 1, HV_MSR_SCONTROL},
	{0x000a0011, 1, HV_MSR_SVERSION},
	{0x000a0012, 1, HV_MSR_SIEFP},
	{0x000a0013, 1, HV_MSR_SIMP},
	{0x000a0014, 1, HV_MSR_EOM},
};

/* May the caller reach a register of that name of `vtl`, which is not above its own? */
static uint16_t check_reach(const struct vp *vp, enum vtl vtl, uint32_t name)
{
	uint32_t block = BLOCK(name);

	if (block >= BLOCK_GENERAL && block <= BLOCK_VIRTUALIZED_MSR) {
		return vtl < vp->active_vtl ? HV_STATUS_SUCCESS : HV_STATUS_ACCESS_DENIED;
	}
	if (block == BLOCK_PENDING) {
		return vtl < vp->active_vtl ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PARAMETER;
	}
	if (block == BLOCK_INTERCEPT) {
		return vtl == VTL1 ? HV_STATUS_SUCCESS : HV_STATUS_ACCESS_DENIED;
	}
	if (name == HV_REGISTER_VSM_VINA) {
		return vtl == VTL1 ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PARAMETER;
	}
	return HV_STATUS_SUCCESS;
}

static bool find_msr(uint32_t name, uint32_t *msr)
{
	for (size_t i = 0; i < ARRAY_SIZE(msrs); i++) {
		if (name - msrs[i].name < msrs[i].count) {
			*msr = msrs[i].msr + (name - msrs[i].name);
			return true;
		}
	}
	return false;
}

static bool read_leaf(struct vp *vp, uint32_t name, struct hv_register_value *value)
{
	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
		if (leaves[i].name == name) {
			struct cpuid_result result = hv_cpuid(vp, leaves[i].leaf);

			value->low = result.eax | (uint64_t)result.ebx << 32;
			value->high = result.ecx | (uint64_t)result.edx << 32;
			return true;
		}
	}
	return false;
}

static bool is_vsm(uint32_t name)
{
	return BLOCK(name) == BLOCK_VSM || BLOCK(name) == BLOCK_INTERCEPT;
}

static uint16_t get(struct vp *vp, enum vtl vtl, uint32_t name, struct hv_register_value *value)
{
	uint16_t status = check_reach(vp, vtl, name);
	uint32_t msr;
	bool found;

	*value = (struct hv_register_value){0};
	if (status != HV_STATUS_SUCCESS) {
		return status;
	}
	if (is_vsm(name)) {
		return hv_vsm_register_get(vp, vtl, name, value);
	}
	if (find_msr(name, &msr)) {
		found = hv_msr_get(vp, vtl, msr, &value->low);
	} else {
		found = read_leaf(vp, name, value) || vtl_register_get(vp, vtl, name, value);
	}
	return found ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_PARAMETER;
}

static uint16_t set(
	struct vp *vp, enum vtl vtl, uint32_t name, const struct hv_register_value *value)
{
	struct hv_register_value before;
	uint16_t status = check_reach(vp, vtl, name);
	uint32_t msr;
	bool done;

	if (status != HV_STATUS_SUCCESS) {
		return status;
	}
	if (is_vsm(name)) {
		return hv_vsm_register_set(vp, vtl, name, value);
	}
	if (find_msr(name, &msr)) {
		done = hv_msr_set(vp, vtl, msr, value->low);
	} else {
		done = vtl_register_set(vp, vtl, name, value);
	}
	if (done) {
		return HV_STATUS_SUCCESS;
	}
	/* What is there cannot have that value. */
	return get(vp, vtl, name, &before) == HV_STATUS_SUCCESS ? HV_STATUS_INVALID_REGISTER_VALUE
								: HV_STATUS_INVALID_PARAMETER;
}

/* The fixed header of both calls. */
static uint16_t read_header(struct vp *vp, const struct hv_input *input, enum vtl *vtl)
{
	uint16_t status = hv_input_own_vp(vp, input);

	if (status != HV_STATUS_SUCCESS) {
		return status;
	}
	if (input->words[WORD_VP] >> (VTL_SHIFT + 8)) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	return hv_input_vtl(vp, (uint8_t)(input->words[WORD_VP] >> VTL_SHIFT), vtl);
}

uint16_t hv_get_vp_registers(struct vp *vp, const struct hv_input *input)
{
	const uint32_t *names = (const uint32_t *)input->reps;
	struct hv_register_value *output = input->output;
	enum vtl vtl = VTL0;
	uint16_t status = read_header(vp, input, &vtl);

	for (uint32_t i = input->rep_start; status == HV_STATUS_SUCCESS && i < input->rep_count;
		i++) {
		*input->reps_done = i;
		status = get(vp, vtl, names[i], &output[i]);
	}
	return status;
}

uint16_t hv_set_vp_registers(struct vp *vp, const struct hv_input *input)
{
	const struct register_assoc *list = (const struct register_assoc *)input->reps;
	enum vtl vtl = VTL0;
	uint16_t status = read_header(vp, input, &vtl);

	for (uint32_t i = input->rep_start; status == HV_STATUS_SUCCESS && i < input->rep_count;
		i++) {
		*input->reps_done = i;
		if (list[i].reserved[0] || list[i].reserved[1] || list[i].reserved[2]) {
			return HV_STATUS_INVALID_PARAMETER;
		}
		status = set(vp, vtl, list[i].name, &list[i].value);
	}
	return status;
}
