/* VTL1's local APIC. See vtl_apic.h. */
#include "arch/x86/registers.h"
#include "hv/hv_msr.h"
#include "partition/policy.h"
#include "partition/vtl.h"
#include "partition/vtl_apic.h"

#define VERSION	     0x00050014 /* integrated, six local vectors */
#define VECTOR_FIRST 16 /* below are exceptions: illegal to send */
#define ISR_BYTES    0x10 /* from one register to the next */

#define APIC_PPR 0x0a0
#define APIC_IRR 0x200

static uint64_t bit(uint8_t vector)
{
	return 1ull << (vector % 64);
}

void vtl_apic_reset(struct vtl_apic *apic)
{
	for (int i = 0; i < VTL_APIC_WORDS; i++) {
		/* Relaxed, all: nobody sends before the VP's phase says that there is a VTL1. */
		atomic_u64_store(&apic->irr[i], 0, memory_order_relaxed);
		apic->isr[i] = 0;
	}
	atomic_u32_store(&apic->svr, 0xff, memory_order_relaxed);
	atomic_u32_store(&apic->ldr, 0, memory_order_relaxed);
	atomic_u32_store(&apic->dfr, ~0u, memory_order_relaxed);
	apic->offered = 0;
	apic->icr_high = 0;
	apic->icr_low = 0;
	apic->tpr = 0;
}

/* Relaxed: the VP's own, or a value that stands for itself. */
static uint32_t load(const struct atomic_u32 *value)
{
	return atomic_u32_load(value, memory_order_relaxed);
}

/*
 * Relaxed, here and in what sets and clears bits (accept, vtl_apic_offer, vtl_apic_offered): whoever sets a
 * bit posts a request behind it (core/run, R7), and its taker (R8) looks here afterwards.
 */
static uint64_t requested(const struct vtl_apic *apic, int word)
{
	return atomic_u64_load(&apic->irr[word], memory_order_relaxed);
}

static uint8_t highest_requested(const struct vtl_apic *apic)
{
	for (int i = VTL_APIC_WORDS - 1; i >= 0; i--) {
		uint64_t word = requested(apic, i);

		if (word) {
			return (uint8_t)(64 * i + 63 - __builtin_clzll(word));
		}
	}
	return 0;
}

static uint8_t highest_in_service(const struct vtl_apic *apic)
{
	for (int i = VTL_APIC_WORDS - 1; i >= 0; i--) {
		if (apic->isr[i]) {
			return (uint8_t)(64 * i + 63 - __builtin_clzll(apic->isr[i]));
		}
	}
	return 0;
}

/* AMD64 APM volume 2, 16.6.4. */
static uint32_t processor_priority(const struct vtl_apic *apic)
{
	uint32_t service = highest_in_service(apic) & 0xf0u;

	return (apic->tpr & 0xf0) >= service ? apic->tpr : service;
}

bool vtl_apic_wants_in(const struct vp *vp)
{
	const struct vtl_apic *apic = &vp->vtl1.apic;

	return highest_requested(apic) >> 4 > processor_priority(apic) >> 4;
}

uint8_t vtl_apic_offer(struct vp *vp)
{
	struct vtl_apic *apic = &vp->vtl1.apic;
	uint8_t vector;

	vtl_apic_offered(vp, false); /* at an entry that was withdrawn */
	vector = highest_requested(apic);
	if (vector >> 4 <= highest_in_service(apic) >> 4) {
		return 0;
	}
	/* Relaxed: see requested. What is sent from now on is another one, should this one be taken. */
	atomic_u64_fetch_and(&apic->irr[vector / 64], ~bit(vector), memory_order_relaxed);
	apic->offered = vector;
	return vector;
}

/* Of a source of the synthetic interrupt controller, or VINA, that wants no EOI? */
static bool ends_by_itself(const struct vp *vp, uint8_t vector)
{
	const struct vtl1 *vtl1 = &vp->vtl1;

	if ((vtl1->vina & VTL_VINA_ENABLED) && (vtl1->vina & VTL_VINA_AUTO_EOI) &&
		(vtl1->vina & VTL_VINA_VECTOR) == vector) {
		return true;
	}
	for (int i = 0; i < VTL_SINTS; i++) {
		if (!(vtl1->synic.sint[i] & VTL_SINT_MASKED) &&
			(vtl1->synic.sint[i] & VTL_SINT_AUTO_EOI) &&
			(vtl1->synic.sint[i] & VTL_SINT_VECTOR) == vector) {
			return true;
		}
	}
	return false;
}

void vtl_apic_offered(struct vp *vp, bool taken)
{
	struct vtl_apic *apic = &vp->vtl1.apic;
	uint8_t vector = apic->offered;

	apic->offered = 0;
	if (!vector) {
		return;
	}
	if (!taken) {
		/* Relaxed: see requested. */
		atomic_u64_fetch_or(&apic->irr[vector / 64], bit(vector), memory_order_relaxed);
	} else if (!ends_by_itself(vp, vector)) {
		apic->isr[vector / 64] |= bit(vector);
	}
}

/* Switched off, it accepts nothing (AMD64 APM volume 2, 16.3.2). */
static bool accept(struct vp *target, uint8_t vector)
{
	struct vtl_apic *apic = &target->vtl1.apic;

	if (vector < VECTOR_FIRST || !(load(&apic->svr) & APIC_SVR_ENABLE)) {
		return false;
	}
	/* Relaxed: see requested. */
	atomic_u64_fetch_or(&apic->irr[vector / 64], bit(vector), memory_order_relaxed);
	return true;
}

void vtl_apic_raise(struct vp *vp, uint8_t vector)
{
	accept(vp, vector);
}

void vtl_interrupt(struct vp *from, struct vp *target, uint8_t vector)
{
	if (vtl_vp_enabled(target) && accept(target, vector)) {
		run_request_post(&from->partition->run, target->id, REQUEST_VTL1);
	}
}

static void send(struct vp *vp, uint32_t high, uint32_t low)
{
	struct partition *partition = vp->partition;
	uint32_t mode = low >> APIC_MODE_SHIFT & APIC_MODE_MASK;

	if (mode != APIC_MODE_FIXED && mode != APIC_MODE_LOWEST) {
		vp_deny(vp, COUNTER_DENIED_INTERRUPT, low);
		return;
	}
	for (uint32_t i = 0; i < partition->vp_count; i++) {
		struct vp *target = partition->vp[i];
		const struct vtl_apic *apic = &target->vtl1.apic;

		if (!lapic_is_target(vp, target, load(&apic->ldr), load(&apic->dfr), high, low)) {
			continue;
		}
		vtl_interrupt(vp, target, (uint8_t)low);
		if (mode == APIC_MODE_LOWEST) {
			return; /* to one; which one is nobody's promise */
		}
	}
}

static void end_of_interrupt(struct vtl_apic *apic)
{
	uint8_t vector = highest_in_service(apic);

	apic->isr[vector / 64] &= ~bit(vector);
}

static void set_tpr(struct vp *vp, uint32_t tpr)
{
	vp->vtl1.apic.tpr = tpr & 0xff;
	vp->partition->ops->cr8_write(vp->vtl[VTL1].platform, (uint8_t)(vp->vtl1.apic.tpr >> 4));
}

void vtl_apic_set_cr8(struct vp *vp, uint8_t cr8)
{
	if (vp->vtl1.apic.tpr >> 4 != cr8) {
		vp->vtl1.apic.tpr = (uint32_t)cr8 << 4;
	}
}

/* A 32-bit piece of ISR or IRR. */
static uint32_t piece(uint64_t word, uint32_t index)
{
	return (uint32_t)(word >> (32 * (index % 2)));
}

uint32_t vtl_apic_read(const struct vp *vp, uint32_t offset)
{
	const struct vtl_apic *apic = &vp->vtl1.apic;
	uint32_t index = offset % 0x80 / ISR_BYTES;

	if (offset >= APIC_ISR && offset < APIC_ISR + 0x80) {
		return piece(apic->isr[index / 2], index);
	}
	if (offset >= APIC_IRR && offset < APIC_IRR + 0x80) {
		return piece(requested(apic, (int)(index / 2)), index);
	}
	switch (offset) {
	case APIC_ID:
		return vp->apic_id << 24;
	case APIC_VERSION:
		return VERSION;
	case APIC_TPR:
		return apic->tpr;
	case APIC_PPR:
		return processor_priority(apic);
	case APIC_LDR:
		return load(&apic->ldr);
	case APIC_DFR:
		return load(&apic->dfr);
	case APIC_SVR:
		return load(&apic->svr);
	case APIC_ICR_LOW:
		return apic->icr_low;
	case APIC_ICR_HIGH:
		return apic->icr_high;
	case APIC_LVT_TIMER:
	case APIC_LVT_THERMAL:
	case APIC_LVT_PERF:
	case APIC_LVT_LINT0:
	case APIC_LVT_LINT1:
	case APIC_LVT_ERROR:
		return APIC_LVT_MASKED; /* nothing is behind them */
	default:
		return 0;
	}
}

void vtl_apic_write(struct vp *vp, uint32_t offset, uint32_t value)
{
	struct vtl_apic *apic = &vp->vtl1.apic;

	switch (offset) {
	case APIC_TPR:
		set_tpr(vp, value);
		return;
	case APIC_EOI:
		end_of_interrupt(apic);
		return;
	/* Relaxed, all three: a command that races with the write may take either value. */
	case APIC_LDR:
		atomic_u32_store(&apic->ldr, value & 0xff000000, memory_order_relaxed);
		return;
	case APIC_DFR:
		atomic_u32_store(&apic->dfr, value | 0x0fffffff, memory_order_relaxed);
		return;
	case APIC_SVR:
		atomic_u32_store(&apic->svr, value & 0x1ff, memory_order_relaxed);
		return;
	case APIC_ICR_LOW:
		apic->icr_low = value & ~APIC_ICR_PENDING;
		send(vp, apic->icr_high, apic->icr_low);
		return;
	case APIC_ICR_HIGH:
		apic->icr_high = value;
		return;
	default:
		return;
	}
}

bool vtl_apic_msr_read(struct vp *vp, uint32_t index, uint64_t *value)
{
	switch (index) {
	case HV_MSR_ICR:
		*value = (uint64_t)vp->vtl1.apic.icr_high << 32 | vp->vtl1.apic.icr_low;
		return true;
	case HV_MSR_TPR:
		*value = vp->vtl1.apic.tpr;
		return true;
	default:
		return false;
	}
}

bool vtl_apic_msr_write(struct vp *vp, uint32_t index, uint64_t value)
{
	switch (index) {
	case HV_MSR_EOI:
		if (value >> 32) {
			return false;
		}
		end_of_interrupt(&vp->vtl1.apic);
		return true;
	case HV_MSR_ICR:
		vtl_apic_write(vp, APIC_ICR_HIGH, (uint32_t)(value >> 32));
		vtl_apic_write(vp, APIC_ICR_LOW, (uint32_t)value);
		return true;
	case HV_MSR_TPR:
		if (value & ~0xffull) {
			return false;
		}
		set_tpr(vp, (uint32_t)value);
		return true;
	default:
		return false;
	}
}
