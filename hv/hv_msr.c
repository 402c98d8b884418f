/* Synthetic MSRs. TLFS: "Partition Properties", "Timers", "Virtual Interrupt Controller". */
#include "arch/x86/asm.h"
#include "arch/x86/registers.h"
#include "hv/hv_msr.h"
#include "partition/guest_access.h"
#include "partition/policy.h"

#define HYPERCALL_ENABLE 1ull
#define HYPERCALL_LOCKED 2ull
#define ASSIST_ENABLE	 1ull

/* Partition-wide; written by the guest's boot processor before it starts the others. */
static struct {
	uint64_t guest_os_id;
	uint64_t hypercall;
	uint64_t tsc_invariant; /* TLFS: shows the invariant TSC in CPUID; never taken back */
} hv;

bool hv_shows_invariant_tsc(void)
{
	return hv.tsc_invariant;
}

/* VMMCALL; RET. Offsets from 16 on are left for VTL calls and returns. */
static const uint8_t hypercall_code[] = {0x0f, 0x01, 0xd9, 0xc3};

static bool write_hypercall(struct vp *vp, uint64_t value)
{
	if (hv.hypercall & HYPERCALL_LOCKED) {
		return true; /* TLFS: writes are ignored once it is locked */
	}
	if (value & HYPERCALL_ENABLE) {
		uint8_t *page = guest_ram(vp->partition, GPA(value & PAGE_MASK), PAGE_SIZE);

		if (!hv.guest_os_id) {
			return true; /* TLFS: stays disabled until the guest has said who it is */
		}
		if (!page) {
			return false;
		}
		__builtin_memset(page, 0xcc, PAGE_SIZE);
		__builtin_memcpy(page, hypercall_code, sizeof(hypercall_code));
	}
	hv.hypercall = value & (PAGE_MASK | HYPERCALL_ENABLE | HYPERCALL_LOCKED);
	return true;
}

/* In units of 100 ns. */
static uint64_t reference_time(const struct vp *vp)
{
	uint64_t tsc = asm_rdtsc();
	uint64_t hz = vp->partition->tsc_hz;

	return tsc / hz * 10000000 + tsc % hz * 10000000 / hz;
}

bool hv_msr_read(struct vp *vp, uint32_t index, uint64_t *value)
{
	switch (index) {
	case HV_MSR_GUEST_OS_ID:
		*value = hv.guest_os_id;
		return true;
	case HV_MSR_HYPERCALL:
		*value = hv.hypercall;
		return true;
	case HV_MSR_VP_INDEX:
		*value = vp->id * vp->partition->vp_stride;
		return true;
	case HV_MSR_TIME_REF_COUNT:
		*value = reference_time(vp);
		return true;
	case HV_MSR_TSC_FREQUENCY:
		*value = vp->partition->tsc_hz;
		return true;
	case HV_MSR_APIC_FREQUENCY:
		*value = vp->partition->apic_timer_hz;
		return true;
	case HV_MSR_ICR:
		*value = (uint64_t)lapic_read(vp, APIC_ICR_HIGH) << 32 |
			lapic_read(vp, APIC_ICR_LOW);
		return true;
	case HV_MSR_TPR:
		*value = lapic_read(vp, APIC_TPR);
		return true;
	case HV_MSR_VP_ASSIST_PAGE:
		*value = vp->hv_assist_page;
		return true;
	case HV_MSR_TSC_INVARIANT:
		*value = hv.tsc_invariant;
		return vp->partition->tsc_is_invariant;
	default:
		return false;
	}
}

bool hv_msr_write(struct vp *vp, uint32_t index, uint64_t value)
{
	switch (index) {
	case HV_MSR_GUEST_OS_ID:
		hv.guest_os_id = value;
		if (!value) {
			hv.hypercall &= ~HYPERCALL_ENABLE;
		}
		return true;
	case HV_MSR_HYPERCALL:
		return write_hypercall(vp, value);
	case HV_MSR_EOI:
		lapic_write(vp, APIC_EOI, 0);
		return !(value >> 32);
	case HV_MSR_ICR:
		vp_count_event(vp, COUNTER_APIC_ICR);
		vp->apic_icr_high = (uint32_t)(value >> 32);
		lapic_command(vp, vp->apic_icr_high, (uint32_t)value);
		return true;
	case HV_MSR_TPR:
		if (value & ~0xffull) {
			return false;
		}
		lapic_write(vp, APIC_TPR, (uint32_t)value);
		return true;
	case HV_MSR_VP_ASSIST_PAGE:
		if ((value & ASSIST_ENABLE) &&
			!guest_ram(vp->partition, GPA(value & PAGE_MASK), PAGE_SIZE)) {
			return false;
		}
		if (value & ASSIST_ENABLE & ~vp->hv_assist_page) {
			__builtin_memset(guest_ram(vp->partition, GPA(value & PAGE_MASK), PAGE_SIZE),
				0, PAGE_SIZE);
		}
		vp->hv_assist_page = value;
		return true;
	case HV_MSR_TSC_INVARIANT:
		if ((value & ~1ull) || !vp->partition->tsc_is_invariant) {
			return false;
		}
		hv.tsc_invariant |= value;
		return true;
	default:
		return false;
	}
}
