/*
 * The run loop of a VP: requests, entry, exit, and again. The order of the steps around an entry is
 * the target's side of the synchronisation protocol (docs/architecture.md).
 */
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/interrupt.h"
#include "arch/x86/log.h"
#include "arch/x86/registers.h"
#include "hv/hv_call.h"
#include "partition/exits.h"
#include "partition/guest_access.h"
#include "partition/halt.h"
#include "partition/policy.h"
#include "partition/seal.h"
#include "partition/vtl.h"
#include "partition/wakeup.h"

/* Exit kinds and their counters are in the same order. */
_Static_assert((int)COUNTER_EXIT_HYPERCALL == (int)VP_EXIT_HYPERCALL, "counted by kind");
_Static_assert((int)COUNTER_EXIT_NMI == (int)VP_EXIT_NMI, "counted by kind");
_Static_assert((int)COUNTER_EXIT_OTHER == (int)VP_EXIT_OTHER, "counted by kind");

void vp_deny(struct vp *vp, enum block_counter counter, uint64_t what)
{
	static const char *const names[] = {"port", "MSR", "memory at", "PCI configuration",
		"interrupt delivery", "instruction"};
	uint32_t kind = counter - COUNTER_DENIED_IO;

	vp_count_event(vp, counter);
	trace_write(&vp->trace, asm_rdtsc(), TRACE_GUEST_DENIED, kind, what);
	/* The first few of a kind on each VP are worth a line; a guest must not flood the log. */
	if (vp->block->counter[counter] <= 8) {
		log_info("I VP %u: denied %s 0x%lx, rip 0x%lx", vp->id, names[kind], what,
			vp->platform->registers.rip);
	}
}

void vp_inject_exception(struct vp *vp, uint8_t vector, bool has_error, uint32_t error)
{
	const struct platform_ops *ops = vp->partition->ops;

	if (!ops->inject(vp->platform, VP_EVENT_EXCEPTION, vector, has_error, error)) {
		/* The exit cut short the delivery of another event: a fault on top is a #DF. */
		ops->drop_event(vp->platform);
		ops->inject(vp->platform, VP_EVENT_EXCEPTION, VECTOR_DF, true, 0);
	}
}

void vp_inject_page_fault(struct vp *vp, gva_t address, uint32_t error)
{
	struct vp_system_state state;

	vp->partition->ops->system_read(vp->platform, &state);
	state.cr2 = address.value;
	vp->partition->ops->system_write(vp->platform, &state);
	vp_inject_exception(vp, VECTOR_PF, true, error);
}

bool vp_skip_instruction(struct vp *vp)
{
	struct insn_registers *registers = &vp->platform->registers;

	if (!vp->exit.next_rip) {
		uint8_t bytes[INSN_BYTES_MAX];
		enum insn_mode mode;
		size_t count = guest_fetch(vp, bytes, &mode);
		size_t length = insn_length(bytes, count, mode);

		if (!length) {
			/* Another VP has rewritten it since: the exit is over, the new bytes run. */
			return false;
		}
		vp->exit.next_rip = registers->rip + length;
		if (mode != INSN_LONG64) {
			vp->exit.next_rip = (uint32_t)vp->exit.next_rip;
		}
	}
	registers->rip = vp->exit.next_rip;
	registers->rflags &= ~RFLAGS_RF;
	vp->partition->ops->clear_interrupt_shadow(vp->platform);
	return vp->partition->ops->finish_instruction(vp->platform);
}

/*
 * A kick between STI and HLT: where the processor forgets the interrupt shadow over an entry (QEMU
 * 7.2), an interrupt would be taken before the HLT, which would then sleep on. Waking from it early is
 * always allowed. The guest begins the HLT itself: there may be a breakpoint on it.
 */
static void keep_halt_from_sleeping(struct vp *vp)
{
	uint8_t bytes[INSN_BYTES_MAX];
	enum insn_mode mode;
	struct insn insn;

	if (!vp->partition->ops->interrupt_shadow(vp->platform)) {
		return;
	}

	size_t count = guest_fetch(vp, bytes, &mode);

	if (!insn_decode(bytes, count, mode, &insn)) {
		return;
	}
	if (insn.op == INSN_HLT) {
		halt_stay_awake(vp);
	} else if (insn.op == INSN_MWAIT) {
		vp->exit.next_rip = vp->platform->registers.rip + insn.length;
		vp_skip_instruction(vp);
	}
}

/* A MOV to or from a debug register that exits on this processor only for the platform's sake. */
static void handle_debug_move(struct vp *vp)
{
	uint8_t bytes[INSN_BYTES_MAX];
	enum insn_mode mode;
	struct insn insn;
	size_t count = guest_fetch(vp, bytes, &mode);

	if (!insn_decode(bytes, count, mode, &insn) ||
		(insn.op != INSN_MOV_TO_DR && insn.op != INSN_MOV_FROM_DR) || insn.reg > 3) {
		return; /* another VP has changed the instruction: the guest runs the new one */
	}
	if (vp->partition->ops->move_debug_register(vp->platform, &insn)) {
		vp->exit.next_rip = vp->platform->registers.rip + insn.length;
		vp_skip_instruction(vp);
	}
}

/*
 * The interrupt that made the guest exit is taken here and given to the guest at the next entry: it
 * could have taken it itself (its IF was set, and there was no shadow). The EOI is the guest's.
 */
static void handle_interrupt(struct vp *vp)
{
	uint8_t vector;

	if (vp->active_vtl == VTL1) {
		keep_halt_from_sleeping(vp);
		vtl_handle_interrupt(vp); /* it stays pending: it is VTL0's */
		return;
	}
	/* Another event goes first; then the interrupt makes the guest exit again. */
	if (!vp->exit.delivering && interrupt_take(&vector)) {
		vp->partition->ops->inject(vp->platform, VP_EVENT_INTERRUPT, vector, false, 0);
	}
}

static void handle_other(struct vp *vp)
{
	switch (vp->exit.other) {
	case VP_OTHER_NOT_OFFERED:
		vp_deny(vp, COUNTER_DENIED_INSTRUCTION, vp->platform->registers.rip);
		vp_inject_exception(vp, VECTOR_UD, false, 0);
		return;
	case VP_OTHER_REFUSED:
		log_info("I VP %u: its state is one that no processor runs on, rip 0x%lx", vp->id,
			vp->platform->registers.rip);
		end_guest(vp, BLOCK_END_TRIPLE_FAULT, 0);
	case VP_OTHER_CACHE:
		asm_wbinvd();
		vp_skip_instruction(vp);
		return;
	case VP_OTHER_IRET:
		/* The NMI handler ends with this instruction; the next NMI may come after it. */
		vp->partition->ops->watch_iret(vp->platform, false);
		vp->nmi_stepping = true;
		vp->partition->ops->step(vp->platform);
		return;
	case VP_OTHER_DEBUG_MOVE:
		handle_debug_move(vp);
		return;
	case VP_OTHER_REGISTER:
		vtl_handle_register(vp);
		return;
	case VP_OTHER_NOTHING:
		return;
	}
}

static void handle_debug(struct vp *vp)
{
	vp->nmi_stepping = false;
	vp->nmi_masked = false;
	if (!vp->exit.debug.hidden) {
		vp_inject_exception(vp, VECTOR_DB, false, 0);
	}
}

static void test_fault(enum test_fault fault)
{
	switch (fault) {
	case TEST_FAULT_NONE:
		return;
	case TEST_FAULT_PAGE:
		fault_test_page();
		return;
	case TEST_FAULT_TEXT:
		fault_test_text();
		return;
	case TEST_FAULT_DATA:
		fault_test_data();
		return;
	case TEST_FAULT_STACK:
		fault_test_stack();
		return;
	case TEST_FAULT_STOP:
		fault_stop("a test asked for it");
	}
}

static void handle_exit(struct vp *vp)
{
	switch (vp->exit.kind) {
	case VP_EXIT_HYPERCALL:
		hv_call(vp);
		return;
	case VP_EXIT_CPUID:
		test_fault(vp->partition->options.test_fault);
		exit_handle_cpuid(vp);
		return;
	case VP_EXIT_MSR:
		exit_handle_msr(vp);
		return;
	case VP_EXIT_IO:
		exit_handle_io(vp);
		return;
	case VP_EXIT_MEMORY_FAULT:
		exit_handle_memory(vp);
		return;
	case VP_EXIT_NMI:
		vp_count_event(vp, COUNTER_KICK_RECEIVED);
		keep_halt_from_sleeping(vp);
		if (vp->active_vtl == VTL0) {
			halt_note_kick(vp);
		}
		return;
	case VP_EXIT_DEBUG:
		handle_debug(vp);
		return;
	case VP_EXIT_INTERRUPT:
		handle_interrupt(vp);
		return;
	case VP_EXIT_INIT_SIPI:
		return; /* taken when the window opened */
	case VP_EXIT_HALT:
		halt_begin(vp);
		return;
	case VP_EXIT_SHUTDOWN:
		end_guest(vp, BLOCK_END_TRIPLE_FAULT, 0);
	case VP_EXIT_OTHER:
		handle_other(vp);
		return;
	case VP_EXIT_KINDS:
		break;
	}
	fault_stop("exit kind %u does not exist", vp->exit.kind);
}

static void serve_nmi(struct vp *vp)
{
	const struct platform_ops *ops = vp->partition->ops;

	if (!vp->nmi_pending || vp->nmi_masked) {
		return;
	}
	if (!ops->inject(vp->platform, VP_EVENT_NMI, VECTOR_NMI, false, 0)) {
		return; /* another event goes first: enter() sees to it that this one is next */
	}
	vp->nmi_pending = false;
	vp->nmi_masked = true;
	vp->halted = false;
	ops->watch_iret(vp->platform, true);
	vp_count_event(vp, COUNTER_NMI_INJECTED);
	trace_write(
		&vp->trace, asm_rdtsc(), TRACE_GUEST_NMI_INJECTED, vp->platform->registers.rip, 0);
}

/*
 * Looks at everything that others have asked of this VP, and decides which VTL is to run; true if it
 * may. NMIs, INIT, SIPI and the mailbox are VTL0's: they wait while VTL1 is active.
 */
static bool serve_requests(struct vp *vp)
{
	uint64_t requests = run_requests_take(&vp->partition->run, vp->id);

	if (requests & REQUEST_STOP) {
		end_stop(vp);
	}
	if (requests & REQUEST_NMI) {
		vp->nmi_pending = true;
	}
	/* An NMI from outside is the guest's: its APIC decides where those go. */
	if (vp->partition->ops->take_nmis()) {
		vp->nmi_pending = true;
	}
	if (vtl_vp_enabled(vp)) {
		vtl_choose(vp);
		if (vp->active_vtl == VTL1) {
			return true;
		}
	}
	if (!start_serve(vp)) {
		return false;
	}
	if (vp->active_vtl == VTL0) {
		serve_nmi(vp);
	}
	return true;
}

/* Waits for a request or, where the VTL waits for somebody's TLB lock, for the last holder. */
static void idle(struct vp *vp, bool suspended)
{
	struct partition *partition = vp->partition;

	partition->ops->kicks_hold();
	run_idle_begin(&partition->run, vp->id);
	if (run_requests_pending(&partition->run, vp->id) ||
		(suspended && !tlblock_is_suspended(&partition->tlblock, vp->id, vp->active_vtl))) {
		partition->ops->kicks_open();
	} else {
		partition->ops->idle();
	}
	run_idle_end(&partition->run, vp->id);
}

static void first_entry(struct vp *vp)
{
	uint64_t now = asm_rdtsc();

	vp->entered = true;
	trace_write(&vp->trace, now, TRACE_GUEST_FIRST_ENTRY, vp->platform->registers.rip,
		vp->active_vtl);
	/* The boot processor too may go offline and be woken: that is no second boot. */
	if (vp->id == 0 && !vp->partition->block->boot_tsc) {
		vp->partition->block->boot_tsc = now;
		log_line("@guest");
		return;
	}
	if (!wakeup_entered(vp, now)) {
		vp->block->ap_start_tsc = now;
		trace_write(&vp->trace, now, TRACE_AP_RUNNING, vp->id, vp->platform->registers.rip);
	}
	/* The latest of them all; one after the other, or near enough for a report. */
	vp->partition->block->ap_last_online_tsc = now;
}

static bool invalidate(void *platform, vp_id_t id, enum vtl vtl, const struct flush_entry *entry)
{
	struct vp *vp = platform;

	(void)id;
	(void)vtl;
	return vp->partition->ops->invalidate(vp->platform, entry);
}

/* True if the active VTL was really entered. */
static bool enter(struct vp *vp)
{
	struct partition *partition = vp->partition;
	enum vtl vtl = vp->active_vtl;

	/* VTL1 may run before VTL0 is started. */
	if (!vp->entered && vtl == VTL0) {
		first_entry(vp);
	}
	if (vtl == VTL1) {
		vtl_before_entry(vp);
	}
	partition->ops->kicks_hold();
	if (vp->nmi_pending && !vp->nmi_masked && vtl == VTL0) {
		/* Another event goes first at this entry: come back right after it for the NMI. */
		partition->ops->kick(vp->id);
	}
	run_enter_begin(&partition->run, vp->id, vtl);
	if (run_requests_pending(&partition->run, vp->id)) {
		run_enter_withdraw(&partition->run, vp->id);
		partition->ops->kicks_open();
		return false;
	}

	const struct flush_sink sink = {.invalidate = invalidate, .platform = vp};
	uint32_t full = flush_drain(&partition->flush, vp->id, vtl, &sink);

	if (full) {
		partition->ops->flush_at_entry(vp->platform, full);
	}
	partition->ops->enter(vp->platform);
	/* Others wait for nothing but this: first of all. */
	run_exited(&partition->run, vp->id);
	if (full) {
		flush_entered(&partition->flush, vp->id, vtl);
	}
	partition->ops->read_exit(vp->platform, &vp->exit);
	partition->ops->kicks_open();
	if (vtl == VTL1) {
		vtl_after_exit(vp);
	}
	return true;
}

void vp_run(struct vp *vp)
{
	cpu_this()->context = vp;
	for (;;) {
		tlblock_release_own(&vp->partition->tlblock, vp->id);
		if (!serve_requests(vp)) {
			idle(vp, false);
		} else if (tlblock_is_suspended(&vp->partition->tlblock, vp->id, vp->active_vtl)) {
			idle(vp, true);
		} else if (vp->halted) {
			halt_wait(vp);
		} else if (enter(vp)) {
			vp->block->counter[vp->exit.kind]++;
			seal_look(vp);
			handle_exit(vp);
		}
	}
}
