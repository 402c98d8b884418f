/* Debug registers and single steps on SVM. See debug.h. */
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/layout.h"
#include "arch/x86/registers.h"
#include "platform/svm/debug.h"

/* Exceptions that could come instead of the stepped instruction's end: all but NMI's number. */
#define STEP_EXCEPTIONS (~(1u << VECTOR_NMI))

/* What IRET takes from the stack in 64-bit mode; elsewhere less. */
#define IRET_BYTES 40

/* A bit whose change makes an address of Parapet's one that nothing can be at. */
#define PARK_BIT (1ull << 62)

extern const uint8_t guarded_text_start[], guarded_text_end[];

static bool breakpoints_survive_exits;

void svm_debug_init_platform(void)
{
	breakpoints_survive_exits = cpu_is_tcg();
}

/* --- the registers ------------------------------------------------------------------------------ */

static uint64_t read_live(enum regs_name name)
{
	switch (name) {
	case REGS_DR0:
		return asm_read_dr0();
	case REGS_DR1:
		return asm_read_dr1();
	case REGS_DR2:
		return asm_read_dr2();
	case REGS_DR3:
		return asm_read_dr3();
	default:
		fault_stop("debug register %u is not live on SVM", name);
	}
}

static void write_live(enum regs_name name, uint64_t value)
{
	switch (name) {
	case REGS_DR0:
		asm_write_dr0(value);
		return;
	case REGS_DR1:
		asm_write_dr1(value);
		return;
	case REGS_DR2:
		asm_write_dr2(value);
		return;
	case REGS_DR3:
		asm_write_dr3(value);
		return;
	default:
		fault_stop("debug register %u is not live on SVM", name);
	}
}

static uint64_t *in_block(struct svm_debug *debug, enum regs_name name)
{
	if (name == REGS_DR6) {
		return &debug->vmcb->dr6;
	}
	if (name == REGS_DR7) {
		return &debug->vmcb->dr7;
	}
	fault_stop("debug register %u is not in the control block", name);
}

static uint64_t read_register(struct svm_debug *debug, enum regs_name name)
{
	if (regs_gate_pass(&debug->gate, name) == REGS_CONTROL_BLOCK) {
		return *in_block(debug, name);
	}

	unsigned int index = (name - REGS_DR0) % 4;

	return debug->parked->set & (1u << index) ? debug->parked->value[index] : read_live(name);
}

static void write_register(struct svm_debug *debug, enum regs_name name, uint64_t value)
{
	if (regs_gate_pass(&debug->gate, name) == REGS_CONTROL_BLOCK) {
		*in_block(debug, name) = value;
	} else {
		write_live(name, value);
	}
}

/* --- a VP's beginning ---------------------------------------------------------------------------- */

static void set_move_intercepts(struct svm_debug *debug)
{
	debug->vmcb->intercept_dr = breakpoints_survive_exits && debug->step != SVM_STEP_MOVE
		? INTERCEPT_DR_READ(debug->parked->set) | INTERCEPT_DR_WRITE(0xfu)
		: 0;
}

void svm_debug_create(struct svm_debug *debug, struct vmcb *vmcb, struct insn_registers *registers,
	struct svm_parked *parked)
{
	debug->vmcb = vmcb;
	debug->registers = registers;
	debug->parked = parked;
	svm_debug_reset(debug);
}

void svm_debug_reset(struct svm_debug *debug)
{
	debug->step = SVM_STEP_NONE;
	debug->hits = 0;
	debug->trap = 0;
	debug->parked->set = 0;
	debug->dr6_is_ours = false;
	debug->vmcb->intercept_exceptions = debug->exceptions;
	set_move_intercepts(debug);
}

void svm_debug_guard(struct svm_debug *debug)
{
	if (breakpoints_survive_exits) {
		debug->exceptions = 1u << VECTOR_DB;
		debug->vmcb->intercept_exceptions |= debug->exceptions;
	}
}

void svm_debug_switch(struct svm_debug *debug)
{
	set_move_intercepts(debug);
}

void svm_debug_clear_addresses(struct svm_debug *debug)
{
	/* What comes after INIT is no entry that follows the exit, whichever that was. */
	regs_gate_note_exit(&debug->gate, false);
	for (int i = 0; i < 4; i++) {
		write_register(debug, (enum regs_name)(REGS_DR0 + i), 0);
	}
}

/* --- instructions that Parapet carries out --------------------------------------------------------- */

/* The breakpoints that an access hits, as bits of DR6. */
static uint64_t match(
	struct svm_debug *debug, enum regs_access access, uint64_t address, uint32_t size)
{
	uint64_t dr7 = read_register(debug, REGS_DR7);
	uint64_t dr[4];

	if (!regs_watches(dr7)) {
		return 0;
	}
	for (int i = 0; i < 4; i++) {
		dr[i] = read_register(debug, (enum regs_name)(REGS_DR0 + i));
	}
	return regs_match(dr, dr7, debug->vmcb->cr4 & CR4_DE, access, address, size);
}

void svm_debug_note_access(
	struct svm_debug *debug, enum regs_access access, uint64_t address, uint32_t size)
{
	debug->hits |= match(debug, access, address, size);
}

static void inject_debug_exception(struct svm_debug *debug)
{
	debug->vmcb->event_injection = EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_DB;
}

bool svm_debug_finish_instruction(struct svm_debug *debug)
{
	uint64_t status = debug->hits;

	if (debug->registers->rflags & RFLAGS_TF) {
		status |= DR6_SINGLE_STEP;
	}
	debug->hits = 0;
	if (!status || (debug->vmcb->event_injection & EVENT_VALID)) {
		return false;
	}
	debug->trap = status;
	return true;
}

bool svm_debug_trap_waits(const struct svm_debug *debug)
{
	return debug->trap;
}

void svm_debug_drop_trap(struct svm_debug *debug)
{
	debug->trap = 0;
}

/* --- steps --------------------------------------------------------------------------------------- */

/*
 * TF makes the step; IF is held back because an interrupt in front of the instruction would push both
 * where the guest can see them. Any exception is caught for the same reason. What the guest had comes
 * back with the end of the step, by IRET itself or by end_step.
 */
void svm_debug_step(struct svm_debug *debug, enum svm_step step)
{
	uint64_t status = read_register(debug, REGS_DR6);

	debug->step = step;
	debug->guest_flags = debug->registers->rflags & (RFLAGS_TF | RFLAGS_IF);
	debug->guest_status = status;
	debug->stack = debug->vmcb->ss.base + debug->registers->gpr[INSN_RSP];
	/* A hit that is in DR6 already would look like one of this step; QEMU starts afresh itself. */
	debug->dr6_is_ours = !breakpoints_survive_exits && (status & DR6_BREAKPOINTS);
	if (debug->dr6_is_ours) {
		write_register(debug, REGS_DR6, status & ~DR6_BREAKPOINTS);
	}
	debug->registers->rflags = (debug->registers->rflags | RFLAGS_TF) & ~RFLAGS_IF;
	debug->vmcb->intercept_exceptions = STEP_EXCEPTIONS;
	set_move_intercepts(debug);
}

static void restore_flags(struct svm_debug *debug)
{
	debug->registers->rflags =
		(debug->registers->rflags & ~(RFLAGS_TF | RFLAGS_IF)) | debug->guest_flags;
}

static void clear_step(struct svm_debug *debug)
{
	if (debug->step == SVM_STEP_MOVE) {
		debug->registers->gpr[debug->move_register] = debug->move_value;
	}
	debug->step = SVM_STEP_NONE;
	debug->vmcb->intercept_exceptions = debug->exceptions;
	set_move_intercepts(debug);
}

/* The trap after the step. Only what the guest itself has asked for goes on to it. */
static void end_step(struct svm_debug *debug, struct vp_exit *exit)
{
	uint64_t status = read_register(debug, REGS_DR6);
	uint64_t hits = status & DR6_BREAKPOINTS;
	bool guest_step = debug->guest_flags & RFLAGS_TF;

	if (hits) {
		/* A breakpoint on what comes next fires by itself when that begins. */
		hits = regs_data_hits(read_register(debug, REGS_DR7), hits);
	}
	if (hits && breakpoints_survive_exits) {
		/* QEMU 7.2 also reports again what an earlier instruction has hit. */
		hits &= debug->step == SVM_STEP_IRET
			? match(debug, REGS_READ, debug->stack, IRET_BYTES)
			: 0;
	}
	if (hits || guest_step) {
		status = (debug->guest_status & ~DR6_BREAKPOINTS) | hits |
			(guest_step ? DR6_SINGLE_STEP : 0);
	} else {
		status = debug->guest_status;
	}
	write_register(debug, REGS_DR6, status);
	if (debug->step == SVM_STEP_IRET) {
		exit->kind = VP_EXIT_DEBUG;
		exit->debug.hidden = !hits && !guest_step;
	} else {
		restore_flags(debug);
		exit->kind = VP_EXIT_OTHER;
		exit->other = VP_OTHER_NOTHING;
		if (hits || guest_step) {
			inject_debug_exception(debug);
		}
	}
	clear_step(debug);
}

void svm_debug_cancel_step(struct svm_debug *debug)
{
	if (debug->step == SVM_STEP_NONE) {
		return;
	}
	restore_flags(debug);
	if (debug->dr6_is_ours) {
		write_register(debug, REGS_DR6, debug->guest_status);
	}
	if (debug->step == SVM_STEP_IRET) {
		debug->vmcb->intercept1 |= INTERCEPT1_IRET;
	}
	clear_step(debug);
}

/* The stepped instruction raised an exception: it is the guest's (APM volume 2, 15.12). */
static void pass_exception(struct svm_debug *debug, struct vp_exit *exit, uint32_t vector)
{
	static const uint32_t with_error = 1u << 8 | 0x1fu << 10 | 1u << 17 | 1u << 21;
	struct vmcb *vmcb = debug->vmcb;

	vmcb->event_injection = EVENT_VALID | EVENT_TYPE_EXCEPTION | vector;
	if (with_error & (1u << vector)) {
		vmcb->event_injection |= EVENT_HAS_ERROR | vmcb->exit_info1 << 32;
	}
	if (vector == VECTOR_PF) {
		vmcb->cr2 = vmcb->exit_info2;
	}
	exit->kind = VP_EXIT_OTHER;
	exit->other = VP_OTHER_NOTHING;
}

/* --- writes that arm what must not be armed --------------------------------------------------------- */

static bool is_guarded(uint64_t address)
{
	uint64_t first = (uint64_t)guarded_text_start;

	/* A data breakpoint of 8 bytes may begin 7 bytes before. */
	return address - (first - 8) < (uint64_t)guarded_text_end - (first - 8);
}

bool svm_debug_move(struct svm_debug *debug, const struct insn *insn)
{
	uint64_t *general = &debug->registers->gpr[insn->rm];
	unsigned int index = insn->reg;

	if (insn->op == INSN_MOV_FROM_DR) {
		*general = read_register(debug, (enum regs_name)(REGS_DR0 + index));
		return true;
	}

	uint64_t value = *general;

	if (insn->mode != INSN_LONG64) {
		value = (uint32_t)value;
	}
	debug->move_register = insn->rm;
	debug->move_value = *general;
	debug->parked->set &= (uint8_t) ~(1u << index);
	if (is_guarded(value)) {
		debug->parked->set |= (uint8_t)(1u << index);
		debug->parked->value[index] = value;
		*general = value ^ PARK_BIT;
	}
	/* The processor rearms only what is written by an instruction in the guest. */
	svm_debug_step(debug, SVM_STEP_MOVE);
	return false;
}

uint64_t svm_debug_read(struct svm_debug *debug, enum regs_name name)
{
	/* A hypercall asks for it by name: what it came for, not something on its way. */
	regs_gate_note_exit(&debug->gate, false);
	return read_register(debug, name);
}

void svm_debug_write(struct svm_debug *debug, enum regs_name name, uint64_t value)
{
	regs_gate_note_exit(&debug->gate, false); /* likewise */
	if (name <= REGS_DR3) {
		unsigned int index = name - REGS_DR0;

		debug->parked->set &= (uint8_t) ~(1u << index);
		if (breakpoints_survive_exits && is_guarded(value)) {
			debug->parked->set |= (uint8_t)(1u << index);
			debug->parked->value[index] = value;
			value ^= PARK_BIT;
		}
		set_move_intercepts(debug);
	}
	write_register(debug, name, value);
}

/*
 * A #DB that this level has not asked for: an instruction breakpoint of another level's, which this
 * processor has left armed. The instruction goes on, past it.
 */
static bool skip_foreign_breakpoint(struct svm_debug *debug)
{
	uint64_t status = read_register(debug, REGS_DR6);
	uint64_t control = read_register(debug, REGS_DR7);
	uint64_t address = debug->vmcb->cs.base + debug->registers->rip;

	if ((status & DR6_SINGLE_STEP) && (debug->registers->rflags & RFLAGS_TF)) {
		return false;
	}
	for (int i = 0; i < 4; i++) {
		if ((control >> (2 * i) & 3) && (status & (1u << i))) {
			return false;
		}
	}
	for (int i = 0; i < 4; i++) {
		if (read_register(debug, (enum regs_name)(REGS_DR0 + i)) == address) {
			write_register(debug, REGS_DR6, status & ~DR6_BREAKPOINTS);
			debug->registers->rflags |= RFLAGS_RF;
			return true;
		}
	}
	return false;
}

/* --- around an entry -------------------------------------------------------------------------------- */

void svm_debug_enter(struct svm_debug *debug)
{
	uint64_t status = debug->trap;

	debug->hits = 0;
	debug->trap = 0;
	if (status && !(debug->vmcb->event_injection & EVENT_VALID)) {
		write_register(debug, REGS_DR6,
			(read_register(debug, REGS_DR6) & ~DR6_BREAKPOINTS) | status);
		inject_debug_exception(debug);
	}
}

bool svm_debug_exit(struct svm_debug *debug, struct vp_exit *exit)
{
	uint64_t code = debug->vmcb->exit_code;

	/* An instruction that the guest steps through has a trap behind it, which is DR6's business. */
	regs_gate_note_exit(&debug->gate,
		code == EXIT_INTR || code == EXIT_NMI ||
			((code == EXIT_CPUID || code == EXIT_VMMCALL) &&
				!(debug->registers->rflags & RFLAGS_TF)));
	if (code - EXIT_READ_DR0 < 4 || code - EXIT_WRITE_DR0 < 4) {
		exit->kind = VP_EXIT_OTHER;
		exit->other = VP_OTHER_DEBUG_MOVE;
		return true;
	}
	if (debug->step == SVM_STEP_NONE) {
		if (code != EXIT_EXCEPTION + VECTOR_DB) {
			return false;
		}
		if (skip_foreign_breakpoint(debug)) {
			exit->kind = VP_EXIT_OTHER;
			exit->other = VP_OTHER_NOTHING;
		} else {
			pass_exception(debug, exit, VECTOR_DB);
		}
		return true;
	}
	if (code == EXIT_EXCEPTION + VECTOR_DB) {
		end_step(debug, exit);
		return true;
	}
	svm_debug_cancel_step(debug);
	if (code - EXIT_EXCEPTION < 32) {
		pass_exception(debug, exit, (uint32_t)(code - EXIT_EXCEPTION));
		return true;
	}
	return false;
}
