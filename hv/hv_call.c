/* The hypercall exit: who may call, what the call is, and its status. */
#include "arch/x86/registers.h"
#include "hv/hv_call.h"
#include "partition/guest_access.h"

#define HV_STATUS_INVALID_HYPERCALL_CODE 2

/* TLFS, "Hypercall Inputs": from ring 0 in protected mode, else #UD. */
static bool may_call(struct vp *vp)
{
	struct vp_system_state state;

	vp->partition->ops->system_read(vp->platform, &state);
	return state.cpl == 0 && (state.cr0 & CR0_PE) &&
		guest_mode(&state, vp->platform->registers.rflags) == INSN_LONG64;
}

void hv_call(struct vp *vp)
{
	if (!may_call(vp)) {
		vp_deny(vp, COUNTER_DENIED_INSTRUCTION, vp->platform->registers.rip);
		vp_inject_exception(vp, VECTOR_UD, false, 0);
		return;
	}
	vp->platform->registers.gpr[INSN_RAX] = HV_STATUS_INVALID_HYPERCALL_CODE;
	vp_skip_instruction(vp);
}
