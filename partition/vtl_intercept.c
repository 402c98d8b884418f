/*
 * Intercepts: what VTL0 may not do becomes a message in VTL1's message page, slot of SINT0, with the
 * interrupt that SINT0 asks for, and the VP goes to VTL1 (TLFS, "Secure Intercepts"). VTL0 stays in front
 * of the instruction. A message that finds its slot taken waits here; while one waits, no further one is
 * made: VTL0's instruction is not done, so it says the same again when it is next tried.
 */
#include "arch/x86/asm.h"
#include "arch/x86/fault.h"
#include "arch/x86/registers.h"
#include "partition/guest_access.h"
#include "partition/policy.h"
#include "partition/vtl.h"
#include "partition/vtl_apic.h"
#include "partition/vtl_context.h"

#define MESSAGE_GPA	 0x80000001u
#define MESSAGE_UNMAPPED 0x80000000u
#define MESSAGE_MSR	 0x80010001u
#define MESSAGE_REGISTER 0x80010006u

#define MESSAGE_PENDING 1u /* of the flags: another waits for this slot */

#define INTERCEPT_READ	  0
#define INTERCEPT_WRITE	  1
#define INTERCEPT_EXECUTE 2

#define STATE_CR0_PE	  (1u << 2)
#define STATE_CR0_AM	  (1u << 3)
#define STATE_EFER_LMA	  (1u << 4)
#define STATE_DEBUG	  (1u << 5)
#define STATE_INTERRUPTED (1u << 6)
#define STATE_SHADOW	  (1u << 12)

#define ACCESS_GVA_VALID 1u

#define CACHE_WRITE_BACK 6

#define NAME_CR0  0x00040000
#define NAME_CR4  0x00040003
#define NAME_XCR0 0x00040005
#define NAME_LDTR 0x00060006
#define NAME_TR	  0x00060007
#define NAME_IDTR 0x00070000
#define NAME_GDTR 0x00070001

/* HV_MESSAGE: 16 bytes of header and a payload of 240. */
struct message {
	uint32_t type;
	uint8_t bytes;
	uint8_t flags;
	uint16_t reserved;
	uint64_t sender;
	uint8_t payload[240];
};

/* HV_X64_INTERCEPT_MESSAGE_HEADER. */
struct intercept_header {
	uint32_t vp_index;
	uint8_t length_and_cr8;
	uint8_t access;
	uint16_t state;
	struct hv_segment cs;
	uint64_t rip;
	uint64_t rflags;
};

/* HV_X64_MEMORY_INTERCEPT_MESSAGE. */
struct memory_intercept {
	struct intercept_header header;
	uint32_t cache_type;
	uint8_t byte_count;
	uint8_t access_info;
	uint8_t tpr_priority;
	uint8_t reserved;
	uint64_t gva;
	uint64_t gpa;
	uint8_t bytes[16];
};

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

_Static_assert(sizeof(struct message) == 256, "TLFS, HV_MESSAGE");
_Static_assert(sizeof(struct message) == sizeof(((struct vtl_synic *)0)->message), "a slot");
_Static_assert(sizeof(struct intercept_header) == 40, "TLFS, intercept message header");
_Static_assert(sizeof(struct memory_intercept) == 80, "TLFS, memory intercept message");
_Static_assert(sizeof(struct msr_intercept) == 64, "TLFS, MSR intercept message");
_Static_assert(sizeof(struct register_intercept) == 64, "TLFS, register intercept message");

/* --- the slot --------------------------------------------------------------------------------------- */

/* VTL1 active: the slot of SINT0 in its message page; NULL while the controller or the page is off. */
static volatile struct message *slot(struct vp *vp)
{
	const struct vtl_synic *synic = &vp->vtl1.synic;

	if (!(synic->scontrol & VTL_SCONTROL_ENABLE) || !(synic->simp & VTL_SIMP_ENABLE)) {
		return NULL;
	}
	return guest_ram(vp, GPA(synic->simp & PAGE_MASK), sizeof(struct message),
		ACCESS_READ | ACCESS_WRITE);
}

/* VTL1 active: puts the waiting message into its slot if that is free, and raises the interrupt of SINT0. */
void vtl_synic_retry(struct vp *vp)
{
	struct vtl_synic *synic = &vp->vtl1.synic;
	const struct message *message = (const struct message *)synic->message;
	volatile struct message *to = slot(vp);

	if (!synic->waiting || !to) {
		return;
	}
	if (to->type) {
		to->flags |= MESSAGE_PENDING;
		/* It may have been freed before it could see the flag: then there is no EOM to come. */
		if (to->type) {
			return;
		}
	}
	for (uint32_t i = 0; i < sizeof(message->payload); i++) {
		to->payload[i] = message->payload[i];
	}
	to->sender = message->sender;
	to->bytes = message->bytes;
	to->flags = 0;
	/* Last: with it the slot is taken. */
	to->type = message->type;
	synic->waiting = false;
	if (!(synic->sint[0] & (VTL_SINT_MASKED | VTL_SINT_POLLING))) {
		vtl_apic_raise(vp, (uint8_t)(synic->sint[0] & VTL_SINT_VECTOR));
	}
}

/* Gives the message to VTL1, or keeps it until there is room, and goes to VTL1. */
static void post(struct vp *vp, uint32_t type, const void *payload, uint32_t bytes)
{
	struct vtl_synic *synic = &vp->vtl1.synic;

	if (!synic->waiting) {
		struct message *message = (struct message *)synic->message;

		*message = (struct message){.type = type, .bytes = (uint8_t)bytes};
		__builtin_memcpy(message->payload, payload, bytes);
		synic->waiting = true;
		vp_count_event(vp, COUNTER_VTL1_INTERCEPTS);
	}
	vtl_enter_for_intercept(vp);
	vtl_synic_retry(vp);
}

/* --- what the messages say --------------------------------------------------------------------------- */

/* The instruction at RIP: what can be had of it; *length is 0 if it is not one that Parapet knows. */
static uint8_t fetch(struct vp *vp, uint8_t bytes[16], uint8_t *length)
{
	uint8_t fetched[INSN_BYTES_MAX];
	enum insn_mode mode;
	size_t count = guest_fetch(vp, fetched, &mode);

	__builtin_memcpy(bytes, fetched, count);
	*length = (uint8_t)insn_length(fetched, count, mode);
	return (uint8_t)count;
}

static void fill_header(
	struct vp *vp, struct intercept_header *header, uint8_t access, uint8_t length)
{
	const struct platform_ops *ops = vp->partition->ops;
	struct vp_system_state state;

	ops->system_read(vp->platform, &state);
	*header = (struct intercept_header){
		.vp_index = vp->id * vp->partition->vp_stride,
		.length_and_cr8 = (uint8_t)(length | (lapic_read(vp, APIC_TPR) >> 4) << 4),
		.access = access,
		.state = (uint16_t)(state.cpl | (state.cr0 & CR0_PE ? STATE_CR0_PE : 0) |
			(state.cr0 & CR0_AM ? STATE_CR0_AM : 0) |
			(state.efer & EFER_LMA ? STATE_EFER_LMA : 0) |
			(vp->exit.delivering ? STATE_INTERRUPTED : 0) |
			(ops->interrupt_shadow(vp->platform) ? STATE_SHADOW : 0)),
		.cs = vtl_segment_out(&state.cs),
		.rip = vp->platform->registers.rip,
		.rflags = vp->platform->registers.rflags,
	};
}

void vtl_intercept_memory(struct vp *vp, gpa_t gpa, uint32_t access, bool has_gva, gva_t gva)
{
	struct memory_intercept message = {
		.cache_type = CACHE_WRITE_BACK,
		.access_info = has_gva ? ACCESS_GVA_VALID : 0,
		.tpr_priority = (uint8_t)(lapic_read(vp, APIC_TPR) >> 4),
		.gva = has_gva ? gva.value : 0,
		.gpa = gpa.value,
	};
	uint8_t length = 0;

	/* The instruction cannot be had where it is the fetch that is forbidden. */
	if (!(access & ACCESS_EXECUTE)) {
		message.byte_count = fetch(vp, message.bytes, &length);
	}
	fill_header(vp, &message.header,
		access & ACCESS_EXECUTE		? INTERCEPT_EXECUTE
			: access & ACCESS_WRITE ? INTERCEPT_WRITE
						: INTERCEPT_READ,
		length);
	post(vp, MESSAGE_GPA, &message, sizeof(message));
}

/* --- registers ---------------------------------------------------------------------------------------- */

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

	fetch(vp, bytes, &length);
	fill_header(vp, &message.header, write ? INTERCEPT_WRITE : INTERCEPT_READ, length);
	post(vp, MESSAGE_MSR, &message, sizeof(message));
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
	fill_header(vp, &message.header, INTERCEPT_WRITE, insn.length);
	post(vp, MESSAGE_REGISTER, &message, sizeof(message));
}

void vtl_handle_register(struct vp *vp)
{
	if (vp->exit.watched == VP_WATCH_CR8) {
		handle_cr8(vp);
	} else {
		handle_watched(vp);
	}
}
