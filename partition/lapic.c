/*
 * The guest's local APIC is the processor's own, read without an exit. Writes are looked at: most go
 * through, but an interrupt command may not send INIT, SIPI, NMI or SMI to the machine. INIT, SIPI and
 * NMI are carried out among the VPs instead (start.c). AMD64 APM volume 2, chapter 16.
 */
#include "arch/x86/apic.h"
#include "arch/x86/asm.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "partition/policy.h"

#define DESTINATION_ALL 0xff

void lapic_init(struct partition *partition)
{
	partition_map(partition, GPA(apic_base()), PAGE_SIZE, ACCESS_READ);
}

bool lapic_owns_memory(gpa_t gpa)
{
	return (gpa.value & PAGE_MASK) == apic_base();
}

void lapic_reset(struct vp *vp)
{
	apic_reset();
	vp->apic_icr_high = 0;
	/* Relaxed: a command that races with this INIT may take either state. */
	atomic_u32_store(&vp->apic_ldr, 0, memory_order_relaxed);
	atomic_u32_store(&vp->apic_dfr, ~0u, memory_order_relaxed);
}

uint32_t lapic_read(struct vp *vp, uint32_t offset)
{
	return offset == APIC_ICR_HIGH ? vp->apic_icr_high : apic_read(offset);
}

/* AMD64 APM volume 2, 16.6.1: flat and cluster model. */
static bool matches_logical(const struct vp *vp, uint32_t destination)
{
	/* Relaxed: see lapic_reset. */
	uint32_t ldr = atomic_u32_load(&vp->apic_ldr, memory_order_relaxed) >> 24;
	uint32_t dfr = atomic_u32_load(&vp->apic_dfr, memory_order_relaxed) >> 28;

	if (destination == DESTINATION_ALL) {
		return true;
	}
	if (dfr == 0xf) {
		return ldr & destination;
	}
	return ldr >> 4 == destination >> 4 && (ldr & destination & 0xf);
}

static bool is_target(const struct vp *from, const struct vp *vp, uint32_t high, uint32_t low)
{
	uint32_t destination = high >> 24;

	switch (low >> APIC_ICR_SHORTHAND_SHIFT & 3) {
	case APIC_ICR_SHORTHAND_SELF:
		return vp == from;
	case APIC_ICR_SHORTHAND_ALL:
		return true;
	case APIC_ICR_SHORTHAND_OTHERS:
		return vp != from;
	default:
		break;
	}
	if (low & APIC_ICR_LOGICAL) {
		return matches_logical(vp, destination);
	}
	return destination == DESTINATION_ALL || destination == vp->apic_id;
}

void lapic_command(struct vp *vp, uint32_t high, uint32_t low)
{
	struct partition *partition = vp->partition;
	uint32_t mode = low >> APIC_MODE_SHIFT & APIC_MODE_MASK;

	switch (mode) {
	case APIC_MODE_FIXED:
	case APIC_MODE_LOWEST:
		apic_write(APIC_ICR_HIGH, high);
		apic_write(APIC_ICR_LOW, low & ~APIC_ICR_PENDING);
		return;
	case APIC_MODE_INIT:
		/* Level-triggered deassert: only ever a synchronisation of old APICs' ids. */
		if ((low & APIC_ICR_LEVEL) && !(low & APIC_ICR_ASSERT)) {
			return;
		}
		break;
	case APIC_MODE_NMI:
	case APIC_MODE_SIPI:
		break;
	default:
		vp_deny(vp, COUNTER_DENIED_INTERRUPT, low);
		return;
	}
	for (uint32_t i = 0; i < partition->vp_count; i++) {
		struct vp *target = partition->vp[i];

		if (!is_target(vp, target, high, low)) {
			continue;
		}
		if (mode == APIC_MODE_INIT) {
			start_request_init(vp, target);
		} else if (mode == APIC_MODE_SIPI) {
			start_request_sipi(vp, target, (uint8_t)low);
		} else {
			start_request_nmi(vp, target);
		}
	}
}

/* A local vector may be an interrupt, an NMI or ExtINT; never SMI or INIT. */
static bool lvt_is_harmless(uint32_t value)
{
	uint32_t mode = value >> APIC_MODE_SHIFT & APIC_MODE_MASK;

	return mode == APIC_MODE_FIXED || mode == APIC_MODE_NMI || mode == APIC_MODE_EXTINT;
}

void lapic_write(struct vp *vp, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case APIC_EOI:
		vp_count_event(vp, COUNTER_APIC_EOI);
		apic_write(offset, value);
		return;
	case APIC_TIMER_INITIAL:
		vp_count_event(vp, COUNTER_APIC_TIMER);
		apic_write(offset, value);
		return;
	case APIC_ICR_LOW:
		vp_count_event(vp, COUNTER_APIC_ICR);
		lapic_command(vp, vp->apic_icr_high, value);
		return;
	case APIC_ICR_HIGH:
		vp_count_event(vp, COUNTER_APIC_ICR);
		vp->apic_icr_high = value;
		apic_write(offset, value);
		return;
	default:
		vp_count_event(vp, COUNTER_APIC_OTHER);
		break;
	}
	switch (offset) {
	case APIC_LDR:
		/* Relaxed: see lapic_reset. */
		atomic_u32_store(&vp->apic_ldr, value, memory_order_relaxed);
		break;
	case APIC_DFR:
		atomic_u32_store(&vp->apic_dfr, value, memory_order_relaxed);
		break;
	case APIC_LVT_TIMER:
	case APIC_LVT_CMCI:
	case APIC_LVT_THERMAL:
	case APIC_LVT_PERF:
	case APIC_LVT_LINT0:
	case APIC_LVT_LINT1:
	case APIC_LVT_ERROR:
		if (!lvt_is_harmless(value)) {
			vp_deny(vp, COUNTER_DENIED_INTERRUPT, offset);
			return;
		}
		break;
	case APIC_TPR:
	case APIC_SVR:
	case APIC_ESR:
	case APIC_TIMER_DIVIDE:
		break;
	default: /* read-only, or not there */
		return;
	}
	apic_write(offset, value);
}
