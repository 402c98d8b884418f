/* The hypercall exit: who may call, what the call is, its input and its status. */
#include "arch/x86/registers.h"
#include "hv/hv_call.h"
#include "hv/hv_status.h"
#include "partition/guest_access.h"

/* The hypercall input value (TLFS, "Hypercall Inputs"). */
#define INPUT_CODE(value)	((uint32_t)(value)&0xffff)
#define INPUT_FAST		(1ull << 16)
#define INPUT_VARIABLE(value)	((uint32_t)((value) >> 17 & 0x3ff))
#define INPUT_REP_COUNT(value)	((uint32_t)((value) >> 32 & 0xfff))
#define INPUT_REP_START(value)	((uint32_t)((value) >> 48 & 0xfff))
#define INPUT_RESERVED		0xf000f000f8000000ull

#define RESULT_REPS_SHIFT 32

#define FAST_WORDS 14 /* RDX, R8, and XMM0 to XMM5 */

struct call {
	uint16_t code;
	uint8_t header_words;
	bool rep;
	bool variable; /* takes a variable header */
	uint16_t (*handle)(struct vp *vp, const struct hv_input *input);
};

static const struct call calls[] = {
	{HV_CALL_FLUSH_SPACE, 3, false, false, hv_flush_space},
	{HV_CALL_FLUSH_LIST, 3, true, false, hv_flush_list},
	{HV_CALL_SEND_IPI, 2, false, false, hv_send_ipi},
	{HV_CALL_FLUSH_SPACE_EX, 4, false, true, hv_flush_space_ex},
	{HV_CALL_FLUSH_LIST_EX, 4, true, true, hv_flush_list_ex},
	{HV_CALL_SEND_IPI_EX, 3, false, true, hv_send_ipi_ex},
};

/* TLFS, "Hypercall Inputs": from ring 0 in protected mode, else #UD. */
static bool may_call(struct vp *vp)
{
	struct vp_system_state state;

	vp->partition->ops->system_read(vp->platform, &state);
	return state.cpl == 0 && (state.cr0 & CR0_PE) &&
		guest_mode(&state, vp->platform->registers.rflags) == INSN_LONG64;
}

static const struct call *find_call(uint32_t code)
{
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		if (calls[i].code == code) {
			return &calls[i];
		}
	}
	return NULL;
}

/* The guest's XMM registers are in the processor: they are stored, never changed. */
static void read_xmm(uint64_t words[12])
{
	__asm__ volatile("movups %%xmm0, 0(%0)\n\t"
			 "movups %%xmm1, 16(%0)\n\t"
			 "movups %%xmm2, 32(%0)\n\t"
			 "movups %%xmm3, 48(%0)\n\t"
			 "movups %%xmm4, 64(%0)\n\t"
			 "movups %%xmm5, 80(%0)" ::"r"(words)
			 : "memory");
}

/* The one copy of the input: from here on the guest's memory is not looked at again. */
static uint16_t copy_input(struct vp *vp, bool fast, uint32_t words)
{
	const uint64_t *gpr = vp->platform->registers.gpr;
	uint64_t gpa = gpr[INSN_RDX];

	if (fast) {
		if (words > FAST_WORDS) {
			return HV_STATUS_INVALID_HYPERCALL_INPUT;
		}
		vp->hypercall_input[0] = gpr[INSN_RDX];
		vp->hypercall_input[1] = gpr[8];
		if (words > 2) {
			read_xmm(&vp->hypercall_input[2]);
		}
		return HV_STATUS_SUCCESS;
	}
	if (gpa % sizeof(uint64_t)) {
		return HV_STATUS_INVALID_ALIGNMENT;
	}
	/* TLFS: the input may not cross a page. */
	if (gpa % PAGE_SIZE + words * sizeof(uint64_t) > PAGE_SIZE) {
		return HV_STATUS_INVALID_ALIGNMENT;
	}

	const volatile uint64_t *input =
		guest_ram(vp->partition, GPA(gpa), words * sizeof(uint64_t));

	if (!input) {
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	}
	for (uint32_t i = 0; i < words; i++) {
		vp->hypercall_input[i] = input[i];
	}
	return HV_STATUS_SUCCESS;
}

static uint16_t carry_out(struct vp *vp, uint64_t value, uint32_t *reps_done)
{
	const struct call *call = find_call(INPUT_CODE(value));
	struct hv_input input = {
		.words = vp->hypercall_input,
		.variable_words = INPUT_VARIABLE(value),
		.rep_start = INPUT_REP_START(value),
		.rep_count = INPUT_REP_COUNT(value),
	};

	if (!call) {
		return HV_STATUS_INVALID_HYPERCALL_CODE;
	}
	/* TLFS, "Hypercall Inputs": what a simple call and a rep call may say. */
	if ((value & INPUT_RESERVED) || (!call->variable && input.variable_words) ||
		(call->rep ? input.rep_count == 0 || input.rep_start >= input.rep_count
			   : input.rep_count != 0 || input.rep_start != 0)) {
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	}
	input.header_words = call->header_words + input.variable_words;
	if (input.header_words + input.rep_count > PAGE_SIZE / sizeof(uint64_t)) {
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	}

	uint16_t status = copy_input(
		vp, value & INPUT_FAST, input.header_words + input.rep_count);

	if (status != HV_STATUS_SUCCESS) {
		return status;
	}
	input.reps = &vp->hypercall_input[input.header_words];
	status = call->handle(vp, &input);
	/* A list is at most a page: all of it is done at once, so no call is ever continued. */
	*reps_done = call->rep && status == HV_STATUS_SUCCESS ? input.rep_count : input.rep_start;
	return status;
}

void hv_call(struct vp *vp)
{
	uint64_t *gpr = vp->platform->registers.gpr;
	uint32_t reps_done = 0;

	if (!may_call(vp)) {
		vp_deny(vp, COUNTER_DENIED_INSTRUCTION, vp->platform->registers.rip);
		vp_inject_exception(vp, VECTOR_UD, false, 0);
		return;
	}

	uint16_t status = carry_out(vp, gpr[INSN_RCX], &reps_done);

	gpr[INSN_RAX] = status | (uint64_t)reps_done << RESULT_REPS_SHIFT;
	vp_skip_instruction(vp);
}
