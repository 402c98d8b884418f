/* The hypercall exit: who may call, what the call is, its input and its status. */
#include "arch/x86/log.h"
#include "arch/x86/registers.h"
#include "core/atomic.h"
#include "hv/hv_call.h"
#include "hv/hv_msr.h"
#include "hv/hv_status.h"
#include "partition/guest_access.h"

/* The hypercall input value (TLFS, "Hypercall Inputs"). */
#define INPUT_CODE(value)      ((uint32_t)(value)&0xffff)
#define INPUT_FAST	       (1ull << 16)
#define INPUT_VARIABLE(value)  ((uint32_t)((value) >> 17 & 0x3ff))
#define INPUT_REP_COUNT(value) ((uint32_t)((value) >> 32 & 0xfff))
#define INPUT_REP_START(value) ((uint32_t)((value) >> 48 & 0xfff))
#define INPUT_RESERVED	       0xf000f000f8000000ull

#define RESULT_REPS_SHIFT 32

#define FAST_WORDS 14 /* two from general registers, then XMM0 to XMM5 */

/*
 * The call as the registers give it (TLFS, "Hypercall Register Conventions"): which ones depends on
 * the caller's mode.
 */
struct registers_in {
	bool is_64; /* RCX, RDX, R8 and RAX; else EDX:EAX, EBX:ECX, EDI:ESI and EDX:EAX */
	uint64_t value;
	uint64_t input[2]; /* the input's address, or its first two words */
};

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

static uint64_t register_pair(const uint64_t *gpr, uint32_t high, uint32_t low)
{
	return gpr[high] << 32 | (uint32_t)gpr[low];
}

/*
 * TLFS, "Legal Hypercall Environments" and "Reporting the Guest OS Identity": from ring 0 in
 * protected mode, 32 or 64 bits, by a guest that has said who it is. False: #UD.
 */
static bool read_registers(struct vp *vp, struct registers_in *in)
{
	const uint64_t *gpr = vp->platform->registers.gpr;
	struct vp_system_state state;
	enum insn_mode mode;

	vp->partition->ops->system_read(vp->platform, &state);
	mode = guest_mode(&state, vp->platform->registers.rflags);
	if (state.cpl != 0 || mode == INSN_REAL16 || !hv_guest_is_identified()) {
		return false;
	}
	in->is_64 = mode == INSN_LONG64;
	if (in->is_64) {
		in->value = gpr[INSN_RCX];
		in->input[0] = gpr[INSN_RDX];
		in->input[1] = gpr[8];
	} else {
		in->value = register_pair(gpr, INSN_RDX, INSN_RAX);
		in->input[0] = register_pair(gpr, INSN_RBX, INSN_RCX);
		in->input[1] = register_pair(gpr, INSN_RDI, INSN_RSI);
	}
	return true;
}

static void write_result(struct vp *vp, bool is_64, uint64_t result)
{
	uint64_t *gpr = vp->platform->registers.gpr;

	if (is_64) {
		gpr[INSN_RAX] = result;
	} else {
		gpr[INSN_RAX] = (uint32_t)result;
		gpr[INSN_RDX] = result >> 32;
	}
}

/* With --verbose the log says which calls the guest uses, each once. */
static void note_first(struct vp *vp, const struct call *call)
{
	static struct atomic_u32 seen;
	uint32_t bit = 1u << (call - calls);

	/* Relaxed, both: nothing but the line in the log depends on it. */
	if (!(atomic_u32_load(&seen, memory_order_relaxed) & bit) &&
		!(atomic_u32_fetch_or(&seen, bit, memory_order_relaxed) & bit)) {
		log_info("I VP %u: first hypercall 0x%x", vp->id, call->code);
	}
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
static uint16_t copy_input(struct vp *vp, const struct registers_in *in, uint32_t words)
{
	uint64_t gpa = in->input[0];
	uint64_t bytes = words * sizeof(uint64_t);

	if (in->value & INPUT_FAST) {
		if (words > FAST_WORDS) {
			return HV_STATUS_INVALID_HYPERCALL_INPUT;
		}
		vp->hypercall_input[0] = in->input[0];
		vp->hypercall_input[1] = in->input[1];
		if (words > 2) {
			read_xmm(&vp->hypercall_input[2]);
		}
		return HV_STATUS_SUCCESS;
	}
	/* TLFS, "Common Hypercall Status Codes": one status for all three. */
	if (gpa % sizeof(uint64_t) || gpa % PAGE_SIZE + bytes > PAGE_SIZE ||
		gpa >> vp->partition->physical_bits) {
		return HV_STATUS_INVALID_ALIGNMENT;
	}

	const volatile uint64_t *input = guest_ram(vp, GPA(gpa), bytes, ACCESS_READ);

	for (uint32_t i = 0; input && i < words; i++) {
		vp->hypercall_input[i] = input[i];
	}
	/* The call may be a flush: nobody is to wait for this copy while it is carried out. */
	guest_release(vp);
	/* Nothing there, closed to the caller, a device, or Parapet: it cannot tell which. */
	return input ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_HYPERCALL_INPUT;
}

static uint16_t carry_out(struct vp *vp, const struct registers_in *in, uint32_t *reps_done)
{
	const struct call *call = find_call(INPUT_CODE(in->value));
	struct hv_input input = {
		.words = vp->hypercall_input,
		.variable_words = INPUT_VARIABLE(in->value),
		.rep_start = INPUT_REP_START(in->value),
		.rep_count = INPUT_REP_COUNT(in->value),
	};

	if (!call) {
		return HV_STATUS_INVALID_HYPERCALL_CODE;
	}
	/* TLFS, "Hypercall Inputs": what a simple call and a rep call may say. */
	if ((in->value & INPUT_RESERVED) || (!call->variable && input.variable_words) ||
		(call->rep ? input.rep_start >= input.rep_count
			   : input.rep_count != 0 || input.rep_start != 0)) {
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	}
	note_first(vp, call);
	input.header_words = call->header_words + input.variable_words;
	input.reps = &vp->hypercall_input[input.header_words];

	uint16_t status = copy_input(vp, in, input.header_words + input.rep_count);

	if (status == HV_STATUS_SUCCESS) {
		status = call->handle(vp, &input);
	}
	/* A list is at most a page: all of it is done at once, so no call is ever continued. */
	*reps_done = status == HV_STATUS_SUCCESS ? input.rep_count : input.rep_start;
	return status;
}

bool hv_read_set(
	struct vp *vp, const struct hv_input *input, uint32_t format_word, struct vpset *set)
{
	uint64_t format = input->words[format_word];
	uint64_t bank_mask = input->words[format_word + 1];

	/* As many banks as announced, neither fewer nor more. */
	if (format == HV_GENERIC_SET_SPARSE_4K &&
		vpset_bank_words(bank_mask) != input->variable_words) {
		return false;
	}
	return vpset_make_sparse(set, &vp->partition->vp_indexes, format, bank_mask,
		       &input->words[format_word + 2], input->variable_words) == VPSET_OK;
}

void hv_call(struct vp *vp)
{
	struct registers_in in;
	uint32_t reps_done = 0;

	if (!read_registers(vp, &in)) {
		vp_deny(vp, COUNTER_DENIED_INSTRUCTION, vp->platform->registers.rip);
		vp_inject_exception(vp, VECTOR_UD, false, 0);
		return;
	}

	uint16_t status = carry_out(vp, &in, &reps_done);

	write_result(vp, in.is_64, status | (uint64_t)reps_done << RESULT_REPS_SHIFT);
	vp_skip_instruction(vp);
}
