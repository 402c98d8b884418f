/*
 * Registers of VTL0 whose reading or writing VTL1 wants to hear of (TLFS, "Secure Register Intercepts"):
 * which ones, and what is about to be written. What the processor cannot watch by itself and VTL1 does not
 * mind is carried out here.
 */
#include "arch/x86/fault.h"
#include "arch/x86/registers.h"
#include "partition/guest_access.h"
#include "partition/vtl.h"
#include "partition/vtl_apic.h"
#include "partition/vtl_message.h"
#include "partition/vtl_names.h"

/* HV_X64_MSR_INTERCEPT_MESSAGE. */
struct msr_intercept {
	struct intercept_header header;
	uint32_t index;
	uint32_t reserved;
	uint64_t rdx;
	uint64_t rax;
};

/* HV_X64_REGISTER_INTERCEPT_MESSAGE, with the value to be written. */
struct register_intercept {
	struct intercept_header header;
	uint8_t memory_operand;
	uint8_t reserved[3];
	uint32_t name;
	uint64_t value[2];
};

_Static_assert(sizeof(struct msr_intercept) == 64, "TLFS, MSR intercept message");
_Static_assert(sizeof(struct register_intercept) == 64, "TLFS, register intercept message");

/* HV_REGISTER_CR_INTERCEPT_CONTROL, by the number of the bit. */
enum control_bit {
	CONTROL_CR0_WRITE = 0,
	CONTROL_CR4_WRITE,
	CONTROL_XCR0_WRITE,
	CONTROL_MISC_ENABLE_READ,
	CONTROL_MISC_ENABLE_WRITE,
	CONTROL_LSTAR_READ,
	CONTROL_LSTAR_WRITE,
	CONTROL_STAR_READ,
	CONTROL_STAR_WRITE,
	CONTROL_CSTAR_READ,
	CONTROL_CSTAR_WRITE,
	CONTROL_APIC_BASE_READ,
	CONTROL_APIC_BASE_WRITE,
	CONTROL_EFER_READ,
	CONTROL_EFER_WRITE,
	CONTROL_GDTR_WRITE,
	CONTROL_IDTR_WRITE,
	CONTROL_LDTR_WRITE,
	CONTROL_TR_WRITE,
	CONTROL_SYSENTER_CS_WRITE,
	CONTROL_SYSENTER_EIP_WRITE,
	CONTROL_SYSENTER_ESP_WRITE,
	CONTROL_SFMASK_WRITE,
	CONTROL_TSC_AUX_WRITE,
	CONTROL_SGX_WRITE, /* not supported: there is no such MSR */
	CONTROL_XSS_WRITE,
	CONTROL_NEVER = 63,
};

static const struct {
	uint32_t index;
	uint8_t read; /* enum control_bit */
	uint8_t write;
} msr_controls[] = {
	{MSR_MISC_ENABLE, CONTROL_MISC_ENABLE_READ, CONTROL_MISC_ENABLE_WRITE},
	{MSR_LSTAR, CONTROL_LSTAR_READ, CONTROL_LSTAR_WRITE},
	{MSR_STAR, CONTROL_STAR_READ, CONTROL_STAR_WRITE},
	{MSR_CSTAR, CONTROL_CSTAR_READ, CONTROL_CSTAR_WRITE},
	{MSR_APIC_BASE, CONTROL_APIC_BASE_READ, CONTROL_APIC_BASE_WRITE},
	{MSR_EFER, CONTROL_EFER_READ, CONTROL_EFER_WRITE},
	{MSR_SYSENTER_CS, CONTROL_NEVER, CONTROL_SYSENTER_CS_WRITE},
	{MSR_SYSENTER_EIP, CONTROL_NEVER, CONTROL_SYSENTER_EIP_WRITE},
	{MSR_SYSENTER_ESP, CONTROL_NEVER, CONTROL_SYSENTER_ESP_WRITE},
	{MSR_SFMASK, CONTROL_NEVER, CONTROL_SFMASK_WRITE},
	{MSR_TSC_AUX, CONTROL_NEVER, CONTROL_TSC_AUX_WRITE},
	{MSR_XSS, CONTROL_NEVER, CONTROL_XSS_WRITE},
};

static const struct {
	enum vp_watch watch;
	enum control_bit control;
	uint32_t name;
} register_controls[] = {
	{VP_WATCH_CR0, CONTROL_CR0_WRITE, NAME_CR0},
	{VP_WATCH_CR4, CONTROL_CR4_WRITE, NAME_CR4},
	{VP_WATCH_XCR0, CONTROL_XCR0_WRITE, NAME_XCR0},
	{VP_WATCH_GDTR, CONTROL_GDTR_WRITE, NAME_GDTR},
	{VP_WATCH_IDTR, CONTROL_IDTR_WRITE, NAME_IDTR},
	{VP_WATCH_LDTR, CONTROL_LDTR_WRITE, NAME_LDTR},
	{VP_WATCH_TR, CONTROL_TR_WRITE, NAME_TR},
};

static bool is_on(const struct vp *vp, uint8_t control)
{
	return vp->vtl1.intercepts.control >> control & 1;
}

uint64_t vtl_intercepts_supported(const struct partition *partition)
{
	uint32_t watchable = partition->ops->watchable();
	uint64_t supported = 0;

	for (size_t i = 0; i < ARRAY_SIZE(register_controls); i++) {
		if (watchable & register_controls[i].watch) {
			supported |= 1ull << register_controls[i].control;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(msr_controls); i++) {
		if (watchable & VP_WATCH_MSRS) {
			supported |= 1ull << msr_controls[i].read | 1ull << msr_controls[i].write;
		}
	}
	return supported & ~(1ull << CONTROL_NEVER);
}

void vtl_intercepts_changed(struct vp *vp)
{
	uint32_t watch = 0;

	for (size_t i = 0; i < ARRAY_SIZE(register_controls); i++) {
		if (is_on(vp, (uint8_t)register_controls[i].control)) {
			watch |= register_controls[i].watch;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(msr_controls); i++) {
		if (is_on(vp, msr_controls[i].read) || is_on(vp, msr_controls[i].write)) {
			watch |= VP_WATCH_MSRS;
		}
	}
	vp->partition->ops->watch_registers(vp->vtl[VTL0].platform, watch);
}

static bool wants_msr(const struct vp *vp, uint32_t index, bool write, uint64_t value)
{
	uint64_t before = 0;

	for (size_t i = 0; i < ARRAY_SIZE(msr_controls); i++) {
		if (msr_controls[i].index != index) {
			continue;
		}
		if (!is_on(vp, write ? msr_controls[i].write : msr_controls[i].read)) {
			return false;
		}
		/* The one MSR that has a mask: what changes counts. */
		return index != MSR_MISC_ENABLE || !write ||
			!fault_safe_rdmsr(MSR_MISC_ENABLE, &before) ||
			((before ^ value) & vp->vtl1.intercepts.misc_enable_mask);
	}
	return false;
}

bool vtl_intercept_msr(struct vp *vp, uint32_t index, bool write, uint64_t value)
{
	const uint64_t *gpr = vp->platform->registers.gpr;
	uint8_t bytes[16];
	uint8_t length;

	if (vp->active_vtl != VTL0 || !vp->vtl1.intercepts.control ||
		!wants_msr(vp, index, write, value)) {
		return false;
	}

	struct msr_intercept message = {.index = index, .rdx = gpr[INSN_RDX], .rax = gpr[INSN_RAX]};

	vtl_message_fetch(vp, bytes, &length);
	vtl_message_header(vp, &message.header, write ? INTERCEPT_WRITE : INTERCEPT_READ, length);
	vtl_message_post(vp, MESSAGE_MSR, &message, sizeof(message));
	return true;
}

static bool decode(struct vp *vp, struct insn *insn)
{
	uint8_t bytes[INSN_BYTES_MAX];
	enum insn_mode mode;
	size_t count = guest_fetch(vp, bytes, &mode);

	return insn_decode(bytes, count, mode, insn);
}

/*
 * What an instruction is about to put into CR0, CR4 or XCR0. False: it is another instruction by now,
 * or one whose operand is in memory (LMSW): *value is then what was there.
 */
static bool new_value(struct vp *vp, enum vp_watch watched, const struct insn *insn, uint64_t old,
	uint64_t *value)
{
	const uint64_t *gpr = vp->platform->registers.gpr;

	switch (insn->op) {
	case INSN_MOV_TO_CR:
		*value = gpr[insn->rm];
		return insn->reg == (watched == VP_WATCH_CR0 ? 0 : 4);
	case INSN_CLTS:
		*value = old & ~CR0_TS;
		return watched == VP_WATCH_CR0;
	case INSN_LMSW: /* it cannot clear PE (AMD64 APM volume 3, LMSW) */
		if (insn->flags & INSN_MEMORY) {
			*value = old;
			return false;
		}
		*value = (old & ~0xeull) | (gpr[insn->rm] & 0xf) | (old & CR0_PE);
		return watched == VP_WATCH_CR0;
	case INSN_XSETBV:
		*value = gpr[INSN_RDX] << 32 | (uint32_t)gpr[INSN_RAX];
		return watched == VP_WATCH_XCR0;
	default:
		*value = old;
		return false;
	}
}

/* Of a control register that has a mask: is a bit of it about to change? */
static bool touches_mask(const struct vp *vp, enum vp_watch watched, uint64_t old, uint64_t value)
{
	const struct vtl_intercepts *intercepts = &vp->vtl1.intercepts;

	switch (watched) {
	case VP_WATCH_CR0:
		return (old ^ value) & intercepts->cr0_mask;
	case VP_WATCH_CR4:
		return (old ^ value) & intercepts->cr4_mask;
	default:
		return true;
	}
}

static uint32_t name_of(enum vp_watch watched)
{
	for (size_t i = 0; i < ARRAY_SIZE(register_controls); i++) {
		if (register_controls[i].watch == watched) {
			return register_controls[i].name;
		}
	}
	fault_stop("register 0x%x is not one that is watched", watched);
}

static void handle_cr8(struct vp *vp)
{
	struct insn insn;
	uint64_t value;

	if (!decode(vp, &insn) || insn.op != INSN_MOV_TO_CR || insn.reg != 8) {
		return;
	}
	value = vp->platform->registers.gpr[insn.rm];
	if (value > 15) {
		vp_inject_exception(vp, VECTOR_GP, true, 0);
		return;
	}
	vtl_apic_write(vp, APIC_TPR, (uint32_t)value << 4);
	vp->exit.next_rip = vp->platform->registers.rip + insn.length;
	vp_skip_instruction(vp);
}

static void handle_watched(struct vp *vp)
{
	struct register_intercept message = {.name = name_of(vp->exit.watched)};
	struct vp_system_state state;
	struct insn insn;
	uint64_t old, value = 0;

	if (!decode(vp, &insn)) {
		return; /* another VP has changed it: the VTL runs what is there now */
	}
	vp->partition->ops->system_read(vp->platform, &state);
	old = vp->exit.watched == VP_WATCH_CR0	   ? state.cr0
		: vp->exit.watched == VP_WATCH_CR4 ? state.cr4
						   : 0;
	if (new_value(vp, vp->exit.watched, &insn, old, &value) &&
		!touches_mask(vp, vp->exit.watched, old, value)) {
		/*
		 * Carried out here: another VP could change the instruction before the processor
		 * reads it again.
		 */
		if (vtl_control_write(vp, message.name, value)) {
			vp->exit.next_rip = vp->platform->registers.rip + insn.length;
			vp_skip_instruction(vp);
		} else {
			vp_inject_exception(vp, VECTOR_GP, true, 0);
		}
		return;
	}
	message.memory_operand = insn.flags & INSN_MEMORY ? 1 : 0;
	message.value[0] = value;
	vtl_message_header(vp, &message.header, INTERCEPT_WRITE, insn.length);
	vtl_message_post(vp, MESSAGE_REGISTER, &message, sizeof(message));
}

void vtl_handle_register(struct vp *vp)
{
	if (vp->exit.watched == VP_WATCH_CR8) {
		handle_cr8(vp);
	} else {
		handle_watched(vp);
	}
}
