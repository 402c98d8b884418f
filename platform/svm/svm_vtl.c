/* A VP with two VTLs on SVM. See svm_vtl.h. */
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "platform/svm/svm_vp.h"
#include "platform/svm/svm_vtl.h"

/* The registers whose writing can be watched, as intercept bits. */
#define WATCH_INTERCEPTS1 (INTERCEPT1_IDTR | INTERCEPT1_GDTR | INTERCEPT1_LDTR | INTERCEPT1_TR)
#define WATCH_INTERCEPTS2 INTERCEPT2_XSETBV

static struct {
	const uint8_t *msrpm;
	const uint8_t *msrpm_watched;
	bool has_tsc_aux;
	/* QEMU 7.2's: does not exchange PAT with the control block; see also where this is looked at. */
	bool is_tcg;
} levels;

void svm_vtl_init_platform(const uint8_t *msrpm, const uint8_t *msrpm_watched)
{
	levels.msrpm = msrpm;
	levels.msrpm_watched = msrpm_watched;
	levels.has_tsc_aux =
		(asm_cpuid(0x80000001, 0).edx & (1u << 27)) || (asm_cpuid(7, 0).ecx & (1u << 22));
	levels.is_tcg = cpu_is_tcg();
}

void svm_switch_vtl(struct platform_vp *from, struct platform_vp *to)
{
	struct svm_vp *old = svm_vp(from);
	struct svm_vp *new = svm_vp(to);

	/* A step that Parapet was about to let it take shows in its flags: again when it comes back. */
	svm_debug_cancel_step(&old->debug);
	for (int i = 0; i < 16; i++) {
		if (i != INSN_RSP) {
			to->registers.gpr[i] = from->registers.gpr[i];
		}
	}
	new->vmcb->cr2 = old->vmcb->cr2;
	if (levels.has_tsc_aux) {
		old->tsc_aux = asm_rdmsr(MSR_TSC_AUX);
		asm_wrmsr(MSR_TSC_AUX, new->tsc_aux);
	}
	if (levels.is_tcg) {
		old->vmcb->pat = asm_rdmsr(MSR_PAT);
		asm_wrmsr(MSR_PAT, new->vmcb->pat);
	}
	old->active = false;
	new->active = true;
	svm_debug_switch(&new->debug);
}

static const struct {
	uint32_t index;
	uint32_t offset; /* in the control block */
} kept_msrs[] = {
	{MSR_SYSENTER_CS, offsetof(struct vmcb, sysenter_cs)},
	{MSR_SYSENTER_ESP, offsetof(struct vmcb, sysenter_esp)},
	{MSR_SYSENTER_EIP, offsetof(struct vmcb, sysenter_eip)},
	{MSR_STAR, offsetof(struct vmcb, star)},
	{MSR_LSTAR, offsetof(struct vmcb, lstar)},
	{MSR_CSTAR, offsetof(struct vmcb, cstar)},
	{MSR_SFMASK, offsetof(struct vmcb, sfmask)},
	{MSR_KERNEL_GS_BASE, offsetof(struct vmcb, kernel_gs_base)},
	{MSR_PAT, offsetof(struct vmcb, pat)},
};

/* Where the control block keeps an MSR; 0 if it does not. */
static uint32_t kept_offset(uint32_t index)
{
	for (size_t i = 0; i < ARRAY_SIZE(kept_msrs); i++) {
		if (kept_msrs[i].index == index) {
			return kept_msrs[i].offset;
		}
	}
	return 0;
}

static uint64_t *kept_msr(struct vmcb *vmcb, uint32_t index)
{
	uint32_t offset = kept_offset(index);

	return offset ? (uint64_t *)((uint8_t *)vmcb + offset) : NULL;
}

/* Is the VTL's value in the processor now? */
static bool is_live(const struct svm_vp *vp, uint32_t index)
{
	return vp->active &&
		((index == MSR_TSC_AUX && levels.has_tsc_aux) ||
			(index == MSR_PAT && levels.is_tcg));
}

bool svm_msr_read(struct platform_vp *platform_vp, uint32_t index, uint64_t *value)
{
	struct svm_vp *vp = svm_vp(platform_vp);
	const uint64_t *kept = kept_msr(vp->vmcb, index);

	if (is_live(vp, index)) {
		*value = asm_rdmsr(index);
		return true;
	}
	if (kept) {
		*value = *kept;
		return true;
	}
	*value = vp->tsc_aux;
	return index == MSR_TSC_AUX && levels.has_tsc_aux;
}

static bool is_canonical(uint64_t address)
{
	/* Nested paging offers no more than the processor has: 57 bits with LA57, else 48. */
	unsigned int unused = asm_cpuid(7, 0).ecx & (1u << 16) ? 64 - 57 : 64 - 48;

	return (uint64_t)((int64_t)(address << unused) >> unused) == address;
}

static bool pat_is_valid(uint64_t value)
{
	for (int i = 0; i < 8; i++) {
		uint8_t type = (uint8_t)(value >> (8 * i));

		if (type > 7 || type == 2 || type == 3) {
			return false;
		}
	}
	return true;
}

/* AMD64 APM volume 2, 6.1.1, 6.1.2 and 7.8.1: what WRMSR takes. */
bool svm_msr_takes(uint32_t index, uint64_t value)
{
	switch (index) {
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_KERNEL_GS_BASE:
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
		return is_canonical(value);
	case MSR_PAT:
		return pat_is_valid(value);
	case MSR_TSC_AUX:
	case MSR_SFMASK:
		return value >> 32 == 0;
	default:
		return true;
	}
}

bool svm_msr_write(struct platform_vp *platform_vp, uint32_t index, uint64_t value)
{
	struct svm_vp *vp = svm_vp(platform_vp);
	uint64_t *kept = kept_msr(vp->vmcb, index);

	if (!svm_msr_takes(index, value)) {
		return false;
	}
	if (is_live(vp, index)) {
		asm_wrmsr(index, value);
		return true;
	}
	if (kept) {
		*kept = value;
		return true;
	}
	if (index == MSR_TSC_AUX && levels.has_tsc_aux) {
		vp->tsc_aux = value;
		return true;
	}
	return false;
}

uint64_t svm_debug_register_read(struct platform_vp *platform_vp, enum regs_name name)
{
	return svm_debug_read(&svm_vp(platform_vp)->debug, name);
}

void svm_debug_register_write(struct platform_vp *platform_vp, enum regs_name name, uint64_t value)
{
	svm_debug_write(&svm_vp(platform_vp)->debug, name, value);
}

/* QEMU 7.2 does not look at the intercept of XSETBV. */
uint32_t svm_watchable(void)
{
	return VP_WATCH_ALL & ~(levels.is_tcg ? VP_WATCH_XCR0 : 0u);
}

void svm_watch_registers(struct platform_vp *platform_vp, uint32_t set)
{
	struct vmcb *vmcb = svm_vp(platform_vp)->vmcb;

	vmcb->intercept_cr = INTERCEPT_CR_WRITE(
		(set & VP_WATCH_CR0 ? 1u << 0 : 0) | (set & VP_WATCH_CR4 ? 1u << 4 : 0));
	vmcb->intercept1 = (vmcb->intercept1 & ~WATCH_INTERCEPTS1) |
		(set & VP_WATCH_GDTR ? INTERCEPT1_GDTR : 0) |
		(set & VP_WATCH_IDTR ? INTERCEPT1_IDTR : 0) |
		(set & VP_WATCH_LDTR ? INTERCEPT1_LDTR : 0) |
		(set & VP_WATCH_TR ? INTERCEPT1_TR : 0);
	vmcb->intercept2 = (vmcb->intercept2 & ~WATCH_INTERCEPTS2) |
		(set & VP_WATCH_XCR0 ? INTERCEPT2_XSETBV : 0);
	vmcb->msrpm_base =
		memory_hpa(set & VP_WATCH_MSRS ? levels.msrpm_watched : levels.msrpm).value;
}

/* The processor delivers it by itself, without an exit (AMD64 APM volume 2, 15.21.4). */
void svm_offer_interrupt(struct platform_vp *platform_vp, uint8_t vector)
{
	struct svm_vp *vp = svm_vp(platform_vp);
	uint64_t control = vp->vmcb->interrupt_control &
		~(VIRTUAL_IRQ | VIRTUAL_PRIO_MASK | VIRTUAL_VECTOR_MASK);

	if (vector) {
		/* It comes if its priority is above CR8; QEMU 7.2 lets one pass that is the same. */
		uint64_t priority = (vector >> 4) - (levels.is_tcg ? 1u : 0u);

		control |= VIRTUAL_IRQ | priority << VIRTUAL_PRIO_SHIFT |
			(uint64_t)vector << VIRTUAL_VECTOR_SHIFT;
	}
	vp->vmcb->interrupt_control = control;
	vp->offered = vector;
	if (levels.is_tcg) {
		/* QEMU 7.2 dies of a MOV to CR8 that lets an offered interrupt pass. */
		vp->vmcb->intercept_cr = vector ? INTERCEPT_CR_WRITE(1u << 8) : 0;
	}
}

uint8_t svm_interrupt_taken(struct platform_vp *platform_vp)
{
	struct svm_vp *vp = svm_vp(platform_vp);
	uint64_t event = vp->vmcb->event_injection;
	uint8_t offered = vp->offered;
	/* Its delivery may have been cut short by the exit: keep_event has it, and it counts as taken. */
	bool cut_short =
		(event & (EVENT_VALID | EVENT_TYPE_MASK)) == (EVENT_VALID | EVENT_TYPE_INTERRUPT) &&
		(event & EVENT_VECTOR_MASK) == offered;

	if (!offered || ((vp->vmcb->interrupt_control & VIRTUAL_IRQ) && !cut_short)) {
		return 0;
	}
	svm_offer_interrupt(platform_vp, 0);
	return offered;
}

uint8_t svm_cr8_read(const struct platform_vp *platform_vp)
{
	return ((const struct svm_vp *)platform_vp)->vmcb->interrupt_control & VIRTUAL_TPR_MASK;
}

void svm_cr8_write(struct platform_vp *platform_vp, uint8_t value)
{
	struct vmcb *vmcb = svm_vp(platform_vp)->vmcb;

	vmcb->interrupt_control =
		(vmcb->interrupt_control & ~VIRTUAL_TPR_MASK) | (value & VIRTUAL_TPR_MASK);
}

void svm_notify_interrupts(struct platform_vp *platform_vp, bool on)
{
	struct svm_vp *vp = svm_vp(platform_vp);

	vp->notify = on;
	vp->vmcb->intercept1 = on ? vp->vmcb->intercept1 | INTERCEPT1_INTR
				  : vp->vmcb->intercept1 & ~INTERCEPT1_INTR;
}

bool svm_vtl_watches_msr(uint32_t index)
{
	return kept_offset(index) || index == MSR_TSC_AUX || index == MSR_XSS;
}
