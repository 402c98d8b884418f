/* The SVM platform: control blocks, entries, and exits turned into struct vp_exit. */
#include <parapet/platform.h>
#include "arch/x86/apic.h"
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/interrupt.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "arch/x86/string.h"
#include "platform/svm/debug.h"
#include "platform/svm/npt.h"
#include "platform/svm/svm.h"
#include "platform/svm/svm_vp.h"
#include "platform/svm/svm_vtl.h"
#include "platform/svm/vmcb.h"

#define IOPM_BYTES	(3 * PAGE_SIZE)
#define MSRPM_BYTES	(2 * PAGE_SIZE)
#define GUEST_ASID(vtl) (1u + (vtl))
#define VMMCALL_BYTES	3 /* where the processor does not say: the TLFS knows no prefixes to it */

_Static_assert(offsetof(struct svm_vp, vp.registers.gpr) == 0, "svm_enter.S gets the array");
_Static_assert(NPT_LEVEL_BITS == 9, "APM volume 2, 5.3: the processor walks tables of 512");

void svm_enter(uint64_t vmcb, uint64_t *gpr, uint64_t host_vmcb);
extern const char svm_exited[]; /* where it goes on after the guest's exit */

static struct {
	uint8_t *iopm;
	uint8_t *msrpm;
	bool has_next_rip;
	bool has_flush_asid;
	uint8_t *msrpm_watched; /* the same, less what is kept for each VTL */
	/*
	 * QEMU 7.2's processor may deliver an injected external interrupt a second time, whatever the
	 * guest is doing then, unless an exit follows at once.
	 */
	bool injects_twice;
	bool loses_interrupts; /* QEMU: one that comes just as the guest exits (arch/x86/apic.h) */
	bool loses_exits; /* QEMU: see exit_is_lost */
	uint32_t vps;
	struct svm_vp *vp[VP_COUNT_MAX];
	struct npt_space npt;
} svm;

/* --- a VP's state ------------------------------------------------------------------------------ */

static const struct vmcb_segment init_data = {.attributes = 0x93, .limit = 0xffff};

static void init_save_area(struct vmcb *vmcb)
{
	vmcb->es = vmcb->ss = vmcb->ds = vmcb->fs = vmcb->gs = init_data;
	vmcb->cs = (struct vmcb_segment){
		.selector = 0xf000, .attributes = 0x9b, .limit = 0xffff, .base = 0xffff0000};
	vmcb->gdtr = vmcb->idtr = (struct vmcb_segment){.limit = 0xffff};
	vmcb->ldtr = (struct vmcb_segment){.attributes = 0x82, .limit = 0xffff};
	vmcb->tr = (struct vmcb_segment){.attributes = 0x8b, .limit = 0xffff};
	vmcb->cpl = 0;
	vmcb->efer = EFER_SVME; /* VMRUN insists; the guest reads it as 0 */
	vmcb->cr0 = CR0_CD | CR0_NW | CR0_ET;
	vmcb->cr2 = vmcb->cr3 = vmcb->cr4 = 0;
	vmcb->dr6 = 0xffff0ff0;
	vmcb->dr7 = 0x400;
	vmcb->rflags = RFLAGS_FIXED;
	vmcb->rip = 0xfff0;
	vmcb->rsp = vmcb->rax = 0;
	vmcb->star = vmcb->lstar = vmcb->cstar = vmcb->sfmask = vmcb->kernel_gs_base = 0;
	vmcb->sysenter_cs = vmcb->sysenter_esp = vmcb->sysenter_eip = 0;
	vmcb->pat = 0x0007040600070406;
}

static void svm_vp_init(struct platform_vp *platform_vp)
{
	struct vmcb *vmcb = svm_vp(platform_vp)->vmcb;

	init_save_area(vmcb);
	vmcb->event_injection = 0;
	vmcb->interrupt_shadow = 0;
	vmcb->intercept1 &= ~INTERCEPT1_IRET;
	svm_debug_reset(&svm_vp(platform_vp)->debug);
	vmcb->tlb_control = TLB_CONTROL_FLUSH_ALL;
	memset(&platform_vp->registers, 0, sizeof(platform_vp->registers));
	platform_vp->registers.rip = vmcb->rip;
	platform_vp->registers.rflags = vmcb->rflags;
	/* Family, model and stepping, as after any INIT. */
	platform_vp->registers.gpr[INSN_RDX] = asm_cpuid(1, 0).eax;
}

/* On the VP's own processor, which has its address registers. */
static void svm_vp_restart(struct platform_vp *platform_vp)
{
	svm_vp_init(platform_vp);
	svm_debug_clear_addresses(&svm_vp(platform_vp)->debug);
}

static struct platform_vp *svm_vp_create(vp_id_t id, enum vtl vtl)
{
	struct vmcb *vmcb = memory_take(PAGE_SIZE, PAGE_SIZE);
	uint8_t *host = vtl == VTL0 ? memory_take(2 * PAGE_SIZE, PAGE_SIZE) : NULL;
	/* At the start of a page, for struct vp to follow in the same. */
	struct svm_vp *vp = memory_take(sizeof(*vp), PAGE_SIZE);
	struct svm_parked *parked;

	vp->vtl = vtl;
	vp->active = vtl == VTL0;
	vp->vmcb = vmcb;
	vp->vmcb_hpa = memory_hpa(vmcb).value;
	if (vtl == VTL0) {
		vp->host_vmcb_hpa = memory_hpa(host).value;
		vp->host_save_hpa = memory_hpa(host + PAGE_SIZE).value;
		parked = memory_take(sizeof(*parked), sizeof(uint64_t));
		svm.vp[id] = vp;
	} else {
		vp->host_vmcb_hpa = svm.vp[id]->host_vmcb_hpa;
		vp->host_save_hpa = svm.vp[id]->host_save_hpa;
		parked = svm.vp[id]->debug.parked;
		vmcb->interrupt_control = VIRTUAL_INTR_MASKING;
	}
	vmcb->intercept1 = INTERCEPT1_NMI | INTERCEPT1_INIT | INTERCEPT1_CPUID | INTERCEPT1_RSM |
		INTERCEPT1_INVD | INTERCEPT1_INVLPGA | INTERCEPT1_IOIO | INTERCEPT1_MSR |
		INTERCEPT1_SHUTDOWN;
	vmcb->intercept2 = INTERCEPT2_VMRUN | INTERCEPT2_VMMCALL | INTERCEPT2_VMLOAD |
		INTERCEPT2_VMSAVE | INTERCEPT2_STGI | INTERCEPT2_CLGI | INTERCEPT2_SKINIT;
	vmcb->iopm_base = memory_hpa(svm.iopm).value;
	vmcb->msrpm_base = memory_hpa(svm.msrpm).value;
	vmcb->asid = GUEST_ASID(vtl);
	vmcb->nested_control = NESTED_CONTROL_NP;
	vmcb->nested_cr3 = npt_root(&svm.npt, vtl);
	svm_debug_create(&vp->debug, vmcb, &vp->vp.registers, parked);
	svm_vp_init(&vp->vp);
	if (vtl != VTL0) {
		svm_debug_guard(&vp->debug);
		svm_debug_guard(&svm.vp[id]->debug);
	}
	return &vp->vp;
}

static struct vp_segment segment_out(const struct vmcb_segment *segment)
{
	return (struct vp_segment){.selector = segment->selector,
		.attributes = segment->attributes,
		.limit = segment->limit,
		.base = segment->base};
}

static struct vmcb_segment segment_in(const struct vp_segment *segment)
{
	return (struct vmcb_segment){.selector = segment->selector,
		.attributes = segment->attributes,
		.limit = segment->limit,
		.base = segment->base};
}

static void svm_system_read(struct platform_vp *platform_vp, struct vp_system_state *state)
{
	const struct vmcb *vmcb = svm_vp(platform_vp)->vmcb;

	*state = (struct vp_system_state){
		.cr0 = vmcb->cr0,
		.cr2 = vmcb->cr2,
		.cr3 = vmcb->cr3,
		.cr4 = vmcb->cr4,
		.efer = vmcb->efer & ~EFER_SVME,
		.es = segment_out(&vmcb->es),
		.cs = segment_out(&vmcb->cs),
		.ss = segment_out(&vmcb->ss),
		.ds = segment_out(&vmcb->ds),
		.fs = segment_out(&vmcb->fs),
		.gs = segment_out(&vmcb->gs),
		.gdtr = segment_out(&vmcb->gdtr),
		.idtr = segment_out(&vmcb->idtr),
		.ldtr = segment_out(&vmcb->ldtr),
		.tr = segment_out(&vmcb->tr),
		.cpl = vmcb->cpl,
	};
}

static void svm_system_write(struct platform_vp *platform_vp, const struct vp_system_state *state)
{
	struct vmcb *vmcb = svm_vp(platform_vp)->vmcb;

	vmcb->cr0 = state->cr0;
	vmcb->cr2 = state->cr2;
	vmcb->cr3 = state->cr3;
	vmcb->cr4 = state->cr4;
	vmcb->efer = state->efer | EFER_SVME;
	vmcb->es = segment_in(&state->es);
	vmcb->cs = segment_in(&state->cs);
	vmcb->ss = segment_in(&state->ss);
	vmcb->ds = segment_in(&state->ds);
	vmcb->fs = segment_in(&state->fs);
	vmcb->gs = segment_in(&state->gs);
	vmcb->gdtr = segment_in(&state->gdtr);
	vmcb->idtr = segment_in(&state->idtr);
	vmcb->ldtr = segment_in(&state->ldtr);
	vmcb->tr = segment_in(&state->tr);
	vmcb->cpl = state->cpl;
}

/* --- events ------------------------------------------------------------------------------------ */

static bool svm_inject(struct platform_vp *platform_vp, enum vp_event event, uint8_t vector,
	bool has_error, uint32_t error)
{
	struct svm_debug *debug = &svm_vp(platform_vp)->debug;
	struct vmcb *vmcb = svm_vp(platform_vp)->vmcb;

	if ((vmcb->event_injection & EVENT_VALID) ||
		(event != VP_EVENT_EXCEPTION && svm_debug_trap_waits(debug))) {
		return false;
	}
	svm_debug_cancel_step(debug);
	if (event == VP_EVENT_NMI) {
		vmcb->event_injection = EVENT_VALID | EVENT_TYPE_NMI | VECTOR_NMI;
	} else if (event == VP_EVENT_INTERRUPT) {
		vmcb->event_injection = EVENT_VALID | EVENT_TYPE_INTERRUPT | vector;
	} else {
		vmcb->event_injection = EVENT_VALID | EVENT_TYPE_EXCEPTION | vector |
			(has_error ? EVENT_HAS_ERROR | (uint64_t)error << 32 : 0);
	}
	return true;
}

static void svm_drop_event(struct platform_vp *platform_vp)
{
	svm_vp(platform_vp)->vmcb->event_injection = 0;
	svm_debug_drop_trap(&svm_vp(platform_vp)->debug);
}

static void svm_exit_on_interrupts(struct platform_vp *platform_vp)
{
	svm_vp(platform_vp)->vmcb->intercept1 |= INTERCEPT1_INTR;
}

/*
 * An event whose delivery the exit cut short is delivered at the next entry. QEMU 7.2 reports an
 * external interrupt as an exception with a vector that no exception has: give it its type back.
 */
static bool keep_event(struct vmcb *vmcb)
{
	uint64_t event = vmcb->exit_interrupt;

	if (!(event & EVENT_VALID)) {
		return false;
	}
	if ((event & EVENT_TYPE_MASK) == EVENT_TYPE_EXCEPTION &&
		(event & EVENT_VECTOR_MASK) >= 32) {
		event &= ~EVENT_TYPE_MASK;
	}
	vmcb->event_injection = event;
	return true;
}

static void svm_exit_on_halt(struct platform_vp *platform_vp, bool on)
{
	struct vmcb *vmcb = svm_vp(platform_vp)->vmcb;

	vmcb->intercept1 =
		on ? vmcb->intercept1 | INTERCEPT1_HLT : vmcb->intercept1 & ~INTERCEPT1_HLT;
}

static void svm_watch_iret(struct platform_vp *platform_vp, bool on)
{
	struct vmcb *vmcb = svm_vp(platform_vp)->vmcb;

	vmcb->intercept1 =
		on ? vmcb->intercept1 | INTERCEPT1_IRET : vmcb->intercept1 & ~INTERCEPT1_IRET;
}

static void svm_step(struct platform_vp *platform_vp)
{
	svm_debug_step(&svm_vp(platform_vp)->debug, SVM_STEP_IRET);
}

static void svm_note_access(
	struct platform_vp *platform_vp, enum regs_access access, uint64_t address, uint32_t size)
{
	svm_debug_note_access(&svm_vp(platform_vp)->debug, access, address, size);
}

static bool svm_finish_instruction(struct platform_vp *platform_vp)
{
	return svm_debug_finish_instruction(&svm_vp(platform_vp)->debug);
}

static bool svm_move_debug_register(struct platform_vp *platform_vp, const struct insn *insn)
{
	return svm_debug_move(&svm_vp(platform_vp)->debug, insn);
}

static void svm_vp_set_counters(struct platform_vp *platform_vp, uint64_t *counter)
{
	regs_gate_init(&svm_vp(platform_vp)->debug.gate, &regs_svm.capabilities, counter);
}

static bool svm_interrupt_shadow(const struct platform_vp *platform_vp)
{
	return ((const struct svm_vp *)platform_vp)->vmcb->interrupt_shadow & INTERRUPT_SHADOW;
}

static void svm_clear_interrupt_shadow(struct platform_vp *platform_vp)
{
	svm_vp(platform_vp)->vmcb->interrupt_shadow &= ~INTERRUPT_SHADOW;
}

static uint64_t svm_tsc_offset(const struct platform_vp *platform_vp)
{
	return ((const struct svm_vp *)platform_vp)->vmcb->tsc_offset;
}

static void svm_set_tsc_offset(struct platform_vp *platform_vp, uint64_t offset)
{
	svm_vp(platform_vp)->vmcb->tsc_offset = offset;
}

/* --- entry and exit ---------------------------------------------------------------------------- */

static void exit_other(struct vp_exit *exit, enum vp_exit_other other)
{
	exit->kind = VP_EXIT_OTHER;
	exit->other = other;
}

static void exit_register(struct vp_exit *exit, enum vp_watch watched)
{
	exit_other(exit, VP_OTHER_REGISTER);
	exit->watched = watched;
}

static void exit_io(struct vp_exit *exit, const struct vmcb *vmcb)
{
	uint64_t info = vmcb->exit_info1;

	exit->kind = VP_EXIT_IO;
	exit->io.port = (uint16_t)(info >> 16);
	exit->io.size = info >> IOIO_SIZE_SHIFT & 7;
	exit->io.in = info & IOIO_IN;
	exit->io.string = info & IOIO_STRING;
	exit->io.rep = info & IOIO_REP;
	exit->next_rip = vmcb->exit_info2;
}

/*
 * QEMU (7.2 to 10) has every processor that loads x87 state change a word of its first one's flags,
 * without a lock. If that one exits just then, nested paging comes back on behind the exit: the walk for
 * the instruction after VMRUN goes through the guest's tables, exits again, and what is kept of the guest
 * is Parapet's own state. The guest's is gone. One that forges the two registers ends its own run.
 */
static bool exit_is_lost(const struct vmcb *vmcb)
{
	return svm.loses_exits && (vmcb->exit_info1 & NPF_WALK) &&
		vmcb->rip == (uint64_t)svm_exited && vmcb->cr3 == asm_read_cr3();
}

static void exit_memory(struct vp_exit *exit, const struct vmcb *vmcb)
{
	if (exit_is_lost(vmcb)) {
		fault_stop(
			"QEMU lost an exit, and the guest's registers with it; run it again, or with "
			"--accel tcg-single (docs/verification.md, \"What QEMU does by itself\")");
	}
	exit->kind = VP_EXIT_MEMORY_FAULT;
	exit->memory.gpa = GPA(vmcb->exit_info2);
	exit->memory.write = vmcb->exit_info1 & NPF_WRITE;
	exit->memory.execute = vmcb->exit_info1 & NPF_FETCH;
	exit->memory.walk = vmcb->exit_info1 & NPF_WALK;
}

static void exit_decode(struct vp_exit *exit, struct svm_vp *vp)
{
	struct vmcb *vmcb = vp->vmcb;

	exit->next_rip = svm.has_next_rip ? vmcb->next_rip : 0;
	switch (vmcb->exit_code) {
	case EXIT_NMI:
		exit->kind = VP_EXIT_NMI;
		break;
	case EXIT_INTR:
		exit->kind = VP_EXIT_INTERRUPT;
		break;
	case EXIT_INIT:
		exit->kind = VP_EXIT_INIT_SIPI;
		break;
	case EXIT_CPUID:
		exit->kind = VP_EXIT_CPUID;
		break;
	case EXIT_HLT:
		exit->kind = VP_EXIT_HALT;
		break;
	case EXIT_IOIO:
		exit_io(exit, vmcb);
		break;
	case EXIT_MSR:
		exit->kind = VP_EXIT_MSR;
		exit->msr.write = vmcb->exit_info1 & 1;
		break;
	case EXIT_VMMCALL:
		exit->kind = VP_EXIT_HYPERCALL;
		if (!exit->next_rip) {
			exit->next_rip = vmcb->rip + VMMCALL_BYTES;
		}
		break;
	case EXIT_NPF:
		exit_memory(exit, vmcb);
		break;
	case EXIT_SHUTDOWN:
		exit->kind = VP_EXIT_SHUTDOWN;
		break;
	case EXIT_IRET:
		exit_other(exit, VP_OTHER_IRET);
		break;
	case EXIT_WRITE_CR0:
		exit_register(exit, VP_WATCH_CR0);
		break;
	case EXIT_WRITE_CR4:
		exit_register(exit, VP_WATCH_CR4);
		break;
	case EXIT_WRITE_CR8:
		exit_register(exit, VP_WATCH_CR8);
		break;
	case EXIT_XSETBV:
		exit_register(exit, VP_WATCH_XCR0);
		break;
	case EXIT_GDTR:
		exit_register(exit, VP_WATCH_GDTR);
		break;
	case EXIT_IDTR:
		exit_register(exit, VP_WATCH_IDTR);
		break;
	case EXIT_LDTR:
		exit_register(exit, VP_WATCH_LDTR);
		break;
	case EXIT_TR:
		exit_register(exit, VP_WATCH_TR);
		break;
	case EXIT_INVD:
		exit_other(exit, VP_OTHER_CACHE);
		break;
	case EXIT_INVALID:
	case EXIT_INVALID & 0xffffffff: /* as QEMU 7.2 writes it */
		exit_other(exit, VP_OTHER_REFUSED);
		break;
	case EXIT_RSM:
	case EXIT_INVLPGA:
	case EXIT_VMRUN:
	case EXIT_VMLOAD:
	case EXIT_VMSAVE:
	case EXIT_STGI:
	case EXIT_CLGI:
	case EXIT_SKINIT:
		exit_other(exit, VP_OTHER_NOT_OFFERED);
		break;
	default:
		fault_stop("SVM exit 0x%lx, info 0x%lx 0x%lx, at 0x%lx", vmcb->exit_code,
			vmcb->exit_info1, vmcb->exit_info2, vmcb->rip);
	}
}

static void svm_run(struct platform_vp *platform_vp)
{
	struct svm_vp *vp = svm_vp(platform_vp);
	struct vmcb *vmcb = vp->vmcb;
	struct insn_registers *registers = &platform_vp->registers;

	if (svm.injects_twice &&
		(vmcb->event_injection & (EVENT_VALID | EVENT_TYPE_MASK)) ==
			(EVENT_VALID | EVENT_TYPE_INTERRUPT)) {
		apic_kick(cpu_this());
	}
	/* Behind that kick: if another's was claimed already, it is pending from here on. */
	if (svm.loses_interrupts) {
		apic_find_lost_kick();
	}
	svm_debug_enter(&vp->debug);
	vmcb->rax = registers->gpr[INSN_RAX];
	vmcb->rsp = registers->gpr[INSN_RSP];
	vmcb->rip = registers->rip;
	vmcb->rflags = registers->rflags;
	/*
	 * With V_INTR_MASKING, IF of this side decides whether an interrupt of the machine ends the stay
	 * (APM volume 2, 15.21.1). It has no other effect while GIF is clear.
	 */
	if (vp->notify) {
		asm_sti();
	}
	svm_enter(vp->vmcb_hpa, registers->gpr, vp->host_vmcb_hpa);
	if (vp->notify) {
		asm_cli();
	}
}

static void svm_read_exit(struct platform_vp *platform_vp, struct vp_exit *exit)
{
	struct svm_vp *vp = svm_vp(platform_vp);
	struct vmcb *vmcb = vp->vmcb;
	struct insn_registers *registers = &platform_vp->registers;

	if (svm.loses_interrupts) {
		apic_find_lost_interrupt();
	}
	registers->gpr[INSN_RAX] = vmcb->rax;
	registers->gpr[INSN_RSP] = vmcb->rsp;
	registers->rip = vmcb->rip;
	registers->rflags = vmcb->rflags;
	/* Cleared only now: an entry that failed would have left the flush undone. */
	vmcb->tlb_control = TLB_CONTROL_NOTHING;
	exit->delivering = keep_event(vmcb);
	if (!svm_debug_exit(&vp->debug, exit)) {
		exit_decode(exit, vp);
	}
	if (exit->kind == VP_EXIT_MSR) {
		exit->msr.index = (uint32_t)registers->gpr[INSN_RCX];
	}
}

static void svm_idle(void)
{
	if (svm.loses_interrupts) {
		apic_find_lost_kick();
	}
	interrupt_idle();
}

static bool svm_idle_interrupts(uint8_t *vector)
{
	if (svm.loses_interrupts) {
		apic_find_lost_kick();
	}
	return interrupt_idle_take(vector);
}

static void svm_kick(vp_id_t target)
{
	apic_kick(cpu_by_id(target));
}

/* Beyond this many INVLPGAs a new start costs less: measured where an address-space flush is cheap. */
#define INVALIDATE_PAGES_MAX 8

static bool svm_invalidate(struct platform_vp *platform_vp, const struct flush_entry *entry)
{
	/* INVLPGA takes the translation of one address, whatever its page size, in every space. */
	if (entry->range.pages > INVALIDATE_PAGES_MAX) {
		return false;
	}
	uint32_t asid = GUEST_ASID(svm_vp(platform_vp)->vtl);

	for (uint32_t page = 0; page < entry->range.pages; page++) {
		uint64_t address =
			entry->range.base.value + ((uint64_t)page << entry->range.page_bits);

		__asm__ volatile("invlpga %0, %1" ::"a"(address), "c"(asid) : "memory");
	}
	return true;
}

static void svm_flush_at_entry(struct platform_vp *platform_vp, uint32_t full)
{
	struct vmcb *vmcb = svm_vp(platform_vp)->vmcb;

	if (!svm.has_flush_asid) {
		vmcb->tlb_control = TLB_CONTROL_FLUSH_ALL;
	} else if (full & FLUSH_FULL_ALL) {
		vmcb->tlb_control = TLB_CONTROL_FLUSH_ASID;
	} else if (vmcb->tlb_control == TLB_CONTROL_NOTHING) {
		vmcb->tlb_control = TLB_CONTROL_FLUSH_NON_GLOBAL;
	}
}

static uint64_t svm_take_nmis(void)
{
	struct cpu *cpu = cpu_this();
	uint64_t taken = cpu->outside_nmis;

	/* An NMI between the two lines is not lost: only what was seen is taken off. */
	__atomic_fetch_sub(&cpu->outside_nmis, taken, __ATOMIC_RELAXED);
	return taken;
}

static void svm_processor_enable(void)
{
	struct svm_vp *vp = svm.vp[cpu_this()->id];

	asm_wrmsr(MSR_EFER, asm_rdmsr(MSR_EFER) | EFER_SVME);
	asm_wrmsr(MSR_VM_HSAVE_PA, vp->host_save_hpa);
	__asm__ volatile("vmsave %0" ::"a"(vp->host_vmcb_hpa) : "memory");
}

/* --- what all VPs share ------------------------------------------------------------------------ */

static void bitmap_clear(uint8_t *bitmap, uint64_t bit)
{
	bitmap[bit / 8] &= (uint8_t) ~(1u << (bit % 8));
}

static void svm_open_ports(uint16_t first, uint16_t last)
{
	for (uint32_t port = first; port <= last; port++) {
		bitmap_clear(svm.iopm, port);
	}
}

static void svm_close_ports(uint16_t first, uint16_t last)
{
	for (uint32_t port = first; port <= last; port++) {
		svm.iopm[port / 8] |= (uint8_t)(1u << (port % 8));
	}
}

/* Two bits an MSR, read then write; three ranges of 8,192 MSRs (APM volume 2, 15.11). */
static void svm_open_msr(uint32_t index, bool read, bool write)
{
	static const uint32_t range_base[] = {0, 0xc0000000, 0xc0010000};

	for (uint64_t range = 0; range < ARRAY_SIZE(range_base); range++) {
		if (index - range_base[range] < 8192) {
			uint64_t bit = (range * 8192 + index - range_base[range]) * 2;

			if (read) {
				bitmap_clear(svm.msrpm, bit);
			}
			if (write) {
				bitmap_clear(svm.msrpm, bit + 1);
			}
			if (svm.msrpm_watched && read && !svm_vtl_watches_msr(index)) {
				bitmap_clear(svm.msrpm_watched, bit);
			}
			if (svm.msrpm_watched && write && !svm_vtl_watches_msr(index)) {
				bitmap_clear(svm.msrpm_watched, bit + 1);
			}
		}
	}
}

static void *svm_memory_create(uint32_t trees, uint64_t ram_bytes)
{
	uint32_t pages = npt_pages_needed(trees, ram_bytes);
	void *base = memory_take(pages * PAGE_SIZE, PAGE_SIZE);
	struct atomic_u64 *free =
		memory_take(NPT_POOL_WORDS(pages) * sizeof(struct atomic_u64), CACHE_LINE_BYTES);
	uint32_t *next = memory_take(pages * sizeof(uint32_t), CACHE_LINE_BYTES);

	npt_pool_init(&svm.npt.pool, base, memory_hpa(base).value, pages, free, next);
	if (!npt_space_init(&svm.npt, trees, asm_cpuid(0x80000001, 0).edx & (1u << 26))) {
		fault_stop("%u table pages do not suffice for %u trees", pages, trees);
	}
	return &svm.npt;
}

static const struct platform_ops svm_ops = {
	.name = "svm",
	.registers = &regs_svm.capabilities,
	.vp_create = svm_vp_create,
	.vp_set_counters = svm_vp_set_counters,
	.vp_init = svm_vp_restart,
	.processor_enable = svm_processor_enable,
	.kicks_hold = asm_clgi,
	.kicks_open = asm_stgi,
	.invalidate = svm_invalidate,
	.flush_at_entry = svm_flush_at_entry,
	.enter = svm_run,
	.read_exit = svm_read_exit,
	.idle = svm_idle,
	.idle_interrupts = svm_idle_interrupts,
	.exit_on_halt = svm_exit_on_halt,
	.kick = svm_kick,
	.take_nmis = svm_take_nmis,
	.switch_vtl = svm_switch_vtl,
	.system_read = svm_system_read,
	.system_write = svm_system_write,
	.inject = svm_inject,
	.drop_event = svm_drop_event,
	.watch_iret = svm_watch_iret,
	.step = svm_step,
	.note_access = svm_note_access,
	.finish_instruction = svm_finish_instruction,
	.move_debug_register = svm_move_debug_register,
	.exit_on_interrupts = svm_exit_on_interrupts,
	.interrupt_shadow = svm_interrupt_shadow,
	.clear_interrupt_shadow = svm_clear_interrupt_shadow,
	.msr_read = svm_msr_read,
	.msr_write = svm_msr_write,
	.msr_takes = svm_msr_takes,
	.debug_read = svm_debug_register_read,
	.debug_write = svm_debug_register_write,
	.watchable = svm_watchable,
	.watch_registers = svm_watch_registers,
	.offer_interrupt = svm_offer_interrupt,
	.interrupt_taken = svm_interrupt_taken,
	.cr8_read = svm_cr8_read,
	.cr8_write = svm_cr8_write,
	.notify_interrupts = svm_notify_interrupts,
	.tsc_offset = svm_tsc_offset,
	.set_tsc_offset = svm_set_tsc_offset,
	.memory_create = svm_memory_create,
	.memory = &npt_protect_ops,
	.open_ports = svm_open_ports,
	.close_ports = svm_close_ports,
	.open_msr = svm_open_msr,
};

const struct platform_ops *svm_platform(uint32_t vps, uint32_t vtls, const char **why)
{
	if (asm_cpuid(0x80000000, 0).eax < 0x8000000a ||
		!(asm_cpuid(0x80000001, 0).ecx & (1u << 2))) {
		*why = "the processor has no SVM (with QEMU: use -cpu max, or a KVM that nests)";
		return NULL;
	}
	if (asm_rdmsr(MSR_VM_CR) & (1u << 4)) {
		*why = "SVM is switched off by the firmware (VM_CR.SVMDIS): enable it there";
		return NULL;
	}

	uint32_t features = asm_cpuid(0x8000000a, 0).edx;

	if (!(features & SVM_FEATURE_NPT)) {
		*why = "the processor's SVM has no nested paging";
		return NULL;
	}
	svm.has_next_rip = features & SVM_FEATURE_NRIP;
	svm.has_flush_asid = features & SVM_FEATURE_FLUSH_ASID;
	svm.vps = vps;
	svm.iopm = memory_take(IOPM_BYTES, PAGE_SIZE);
	svm.msrpm = memory_take(MSRPM_BYTES, PAGE_SIZE);
	memset(svm.iopm, 0xff, IOPM_BYTES);
	memset(svm.msrpm, 0xff, MSRPM_BYTES);
	if (vtls > 1) {
		svm.msrpm_watched = memory_take(MSRPM_BYTES, PAGE_SIZE);
		memset(svm.msrpm_watched, 0xff, MSRPM_BYTES);
	}
	svm_vtl_init_platform(svm.msrpm, svm.msrpm_watched);
	svm_debug_init_platform();
	svm.injects_twice = svm.loses_interrupts = svm.loses_exits = cpu_is_tcg();
	return &svm_ops;
}
