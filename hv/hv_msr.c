/* Synthetic MSRs. TLFS: "Partition Properties", "Timers", "Virtual Interrupt Controller". */
#include "arch/x86/asm.h"
#include "arch/x86/registers.h"
#include "core/atomic.h"
#include "hv/hv_msr.h"
#include "partition/guest_access.h"
#include "partition/policy.h"
#include "partition/vtl.h"

#define HYPERCALL_ENABLE   1ull
#define HYPERCALL_LOCKED   2ull
#define HYPERCALL_RESERVED 0xffcull

/* The assist page and the reference TSC page are enabled alike. */
#define PAGE_ENABLE   1ull
#define PAGE_RESERVED 0xffeull

#define PLAIN_CODE_BYTES 4 /* VMMCALL; RET */

#define TIME_HZ 10000000 /* reference time is in units of 100 ns */

/* TLFS, "Partition Reference Time Stamp Counter Page". */
struct reference_page {
	uint32_t sequence; /* 0: not to be used */
	uint32_t reserved1;
	uint64_t scale;
	int64_t offset;
	uint64_t reserved2[509];
};

_Static_assert(sizeof(struct reference_page) == PAGE_SIZE, "read by the guest");

/*
 * Partition-wide, of each VTL: any VP writes them, any VP reads them. All accesses are relaxed: a value
 * stands for itself, and the pages they name are the guest's own memory, whose order is the guest's
 * business.
 */
static struct {
	struct {
		struct atomic_u64 guest_os_id;
		struct atomic_u64 hypercall;
		struct atomic_u64 reference_tsc;
	} vtl[VTL_COUNT];
	struct atomic_u64
		tsc_invariant; /* TLFS: shows the invariant TSC in CPUID; never taken back */
} hv;

static uint64_t load(const struct atomic_u64 *value)
{
	return atomic_u64_load(value, memory_order_relaxed);
}

bool hv_guest_is_identified(enum vtl vtl)
{
	return load(&hv.vtl[vtl].guest_os_id) != 0;
}

bool hv_shows_invariant_tsc(void)
{
	return load(&hv.tsc_invariant) != 0;
}

/* Does the MSR go from `before` to `value` by putting a page somewhere? */
static bool page_moves(uint64_t before, uint64_t value)
{
	return (value & PAGE_ENABLE) && (!(before & PAGE_ENABLE) || ((before ^ value) & PAGE_MASK));
}

/*
 * VTL0's pages: what VTL0 can do with them may not be changed any more, but to what they are for, until
 * overlay_drop. Who could do VTL1's any harm is who owns them.
 */
static bool overlay_pin(struct vp *vp, enum vtl vtl, enum protect_pin kind, uint64_t value)
{
	return vtl != VTL0 ||
		protect_pin(&vp->partition->protect, vp->id, GPA(value & PAGE_MASK), PAGE_SIZE,
			kind, VTL2) == PROTECT_DONE;
}

static void overlay_drop(struct vp *vp, enum vtl vtl, enum protect_pin kind, uint64_t value)
{
	if (vtl == VTL0) {
		protect_unpin(&vp->partition->protect, vp->id, GPA(value & PAGE_MASK), PAGE_SIZE,
			kind, VTL2);
	}
}

/*
 * The guest's page that an MSR names, pinned; NULL if there is no such page, it is not plain memory,
 * or not the VTL's to write.
 */
static void *overlay_place(struct vp *vp, enum vtl vtl, enum protect_pin kind, uint64_t value)
{
	void *page = NULL;

	if (overlay_pin(vp, vtl, kind, value)) {
		page = guest_ram_of(
			vp, vtl, GPA(value & PAGE_MASK), PAGE_SIZE, ACCESS_READ | ACCESS_WRITE);
		if (!page) {
			overlay_drop(vp, vtl, kind, value);
		}
	}
	return page;
}

/* What an MSR of the whole partition puts into the page that it names. */
struct page_msr {
	enum protect_pin kind;
	uint64_t locked; /* a bit that ends its being written */
	void (*fill)(const struct vp *vp, uint8_t *page);
};

/*
 * Gives such an MSR its new value, and moves the page. False: that is no page for it, or the MSR is
 * locked.
 */
static bool write_page_msr(struct vp *vp, enum vtl vtl, const struct page_msr *page_msr,
	struct atomic_u64 *msr, uint64_t value)
{
	enum protect_pin kind = page_msr->kind;
	uint64_t before = load(msr);

	for (;;) {
		uint64_t seen = before;

		if (seen & page_msr->locked) {
			return false;
		}
		if (page_moves(seen, value)) {
			uint8_t *page = overlay_place(vp, vtl, kind, value);

			if (!page) {
				return false;
			}
			/* The content first: another VP may be using it where it already was. */
			page_msr->fill(vp, page);
		}
		if (atomic_u64_compare_exchange(msr, &before, value, memory_order_relaxed)) {
			if (page_moves(value, seen)) {
				overlay_drop(vp, vtl, kind, seen);
			}
			return true;
		}
		if (page_moves(seen, value)) {
			overlay_drop(vp, vtl, kind, value); /* another VP has been faster */
		}
	}
}

/* The plain call, and where there can be a VTL1, the ways there and back. */
static void fill_hypercall_page(const struct vp *vp, uint8_t *page)
{
	uint32_t bytes = vp->partition->options.vsm ? VTL_CODE_BYTES : PLAIN_CODE_BYTES;

	__builtin_memcpy(page, vtl_hypercall_code, bytes);
	__builtin_memset(page + bytes, 0xcc, PAGE_SIZE - bytes);
}

static const struct page_msr hypercall_page = {
	.kind = PROTECT_PIN_OVERLAY_CODE,
	.locked = HYPERCALL_LOCKED,
	.fill = fill_hypercall_page,
};

/* TLFS, "Establishing the Hypercall Interface (x86/x64)". */
static bool write_hypercall(struct vp *vp, enum vtl vtl, uint64_t value)
{
	if ((value & HYPERCALL_RESERVED) || value >> vp->partition->physical_bits) {
		return false;
	}
	/* The enable bit stays zero until the guest has said who it is. */
	if (!hv_guest_is_identified(vtl)) {
		value &= ~HYPERCALL_ENABLE;
	}
	return write_page_msr(vp, vtl, &hypercall_page, &hv.vtl[vtl].hypercall, value);
}

static void write_guest_os_id(struct vp *vp, enum vtl vtl, uint64_t value)
{
	atomic_u64_store(&hv.vtl[vtl].guest_os_id, value, memory_order_relaxed);
	if (!value) {
		uint64_t before = atomic_u64_fetch_and(
			&hv.vtl[vtl].hypercall, ~HYPERCALL_ENABLE, memory_order_relaxed);

		if (before & HYPERCALL_ENABLE) {
			overlay_drop(vp, vtl, PROTECT_PIN_OVERLAY_CODE, before);
		}
	}
}

/* 2^64 * TIME_HZ / hz, by long division: there is no 128-bit one here. hz is above TIME_HZ. */
static uint64_t reference_scale(uint64_t hz)
{
	uint64_t scale = 0;
	uint64_t rest = TIME_HZ;

	for (uint32_t bit = 0; bit < 64; bit++) {
		rest <<= 1;
		scale <<= 1;
		if (rest >= hz) {
			rest -= hz;
			scale |= 1;
		}
	}
	return scale;
}

/* The same formula as the guest's own with the page, so that the two clocks are one. */
static uint64_t reference_time(const struct vp *vp)
{
	uint64_t scale = reference_scale(vp->partition->tsc_hz);

	return (uint64_t)((unsigned __int128)asm_rdtsc() * scale >> 64);
}

static void fill_reference_page(const struct vp *vp, uint8_t *memory)
{
	struct reference_page *page = (struct reference_page *)memory;

	__builtin_memset(page, 0, sizeof(*page));
	page->scale = reference_scale(vp->partition->tsc_hz);
	page->sequence = 1;
}

static const struct page_msr reference_tsc = {
	.kind = PROTECT_PIN_OVERLAY_DATA,
	.fill = fill_reference_page,
};

/* TLFS, "Reference Time Stamp Counter (TSC) Page Register". */
static bool write_reference_tsc(struct vp *vp, enum vtl vtl, uint64_t value)
{
	return vp->partition->tsc_is_invariant && !(value & PAGE_RESERVED) &&
		write_page_msr(vp, vtl, &reference_tsc, &hv.vtl[vtl].reference_tsc, value);
}

bool hv_page_move(struct vp *vp, enum vtl vtl, uint64_t before, uint64_t value)
{
	if (page_moves(before, value)) {
		void *page = overlay_place(vp, vtl, PROTECT_PIN_OVERLAY_DATA, value);

		if (!page) {
			return false;
		}
		__builtin_memset(page, 0, PAGE_SIZE);
	}
	if (page_moves(value, before)) {
		overlay_drop(vp, vtl, PROTECT_PIN_OVERLAY_DATA, before);
	}
	return true;
}

/* TLFS, "Virtual Processor Assist Page". A page of zeros: above all, "an EOI is required". */
static bool write_assist_page(struct vp *vp, enum vtl vtl, uint64_t value)
{
	if ((value & PAGE_RESERVED) || !hv_page_move(vp, vtl, vp->vtl[vtl].assist_page, value)) {
		return false;
	}
	vp->vtl[vtl].assist_page = value;
	return true;
}

bool hv_msr_get(struct vp *vp, enum vtl vtl, uint32_t index, uint64_t *value)
{
	switch (index) {
	case HV_MSR_GUEST_OS_ID:
		*value = load(&hv.vtl[vtl].guest_os_id);
		return true;
	case HV_MSR_HYPERCALL:
		*value = load(&hv.vtl[vtl].hypercall);
		return true;
	case HV_MSR_VP_INDEX:
		*value = vp->id * vp->partition->vp_stride;
		return true;
	case HV_MSR_TIME_REF_COUNT:
		*value = reference_time(vp);
		return true;
	case HV_MSR_REFERENCE_TSC:
		*value = load(&hv.vtl[vtl].reference_tsc);
		return vp->partition->tsc_is_invariant;
	case HV_MSR_TSC_FREQUENCY:
		*value = vp->partition->tsc_hz;
		return true;
	case HV_MSR_APIC_FREQUENCY:
		*value = vp->partition->apic_timer_hz;
		return true;
	case HV_MSR_VP_ASSIST_PAGE:
		*value = vp->vtl[vtl].assist_page;
		return true;
	case HV_MSR_TSC_INVARIANT:
		*value = load(&hv.tsc_invariant);
		return vp->partition->tsc_is_invariant;
	default:
		return hv_synic_owns(index) && hv_synic_get(vp, vtl, index, value);
	}
}

bool hv_msr_set(struct vp *vp, enum vtl vtl, uint32_t index, uint64_t value)
{
	switch (index) {
	case HV_MSR_GUEST_OS_ID:
		write_guest_os_id(vp, vtl, value);
		return true;
	case HV_MSR_HYPERCALL:
		return write_hypercall(vp, vtl, value);
	case HV_MSR_REFERENCE_TSC:
		return write_reference_tsc(vp, vtl, value);
	case HV_MSR_VP_ASSIST_PAGE:
		return write_assist_page(vp, vtl, value);
	case HV_MSR_TSC_INVARIANT:
		if ((value & ~1ull) || !vp->partition->tsc_is_invariant) {
			return false;
		}
		atomic_u64_fetch_or(&hv.tsc_invariant, value, memory_order_relaxed);
		return true;
	default:
		return hv_synic_owns(index) && hv_synic_set(vp, vtl, index, value);
	}
}

/* --- the local APIC's: the machine's own is VTL0's --------------------------------------------------- */

static bool is_apic(uint32_t index)
{
	return index >= HV_MSR_EOI && index <= HV_MSR_TPR;
}

static bool apic_read_msr(struct vp *vp, uint32_t index, uint64_t *value)
{
	switch (index) {
	case HV_MSR_ICR:
		*value = (uint64_t)lapic_read(vp, APIC_ICR_HIGH) << 32 |
			lapic_read(vp, APIC_ICR_LOW);
		return true;
	case HV_MSR_TPR:
		*value = lapic_read(vp, APIC_TPR);
		return true;
	default:
		return false;
	}
}

static bool apic_write_msr(struct vp *vp, uint32_t index, uint64_t value)
{
	switch (index) {
	case HV_MSR_EOI:
		if (value >> 32) {
			return false;
		}
		lapic_write(vp, APIC_EOI, 0);
		return true;
	case HV_MSR_ICR:
		vp_count_event(vp, COUNTER_APIC_ICR);
		vp->apic_icr_high = (uint32_t)(value >> 32);
		lapic_command(vp, vp->apic_icr_high, (uint32_t)value);
		return true;
	default:
		if (value & ~0xffull) {
			return false;
		}
		lapic_write(vp, APIC_TPR, (uint32_t)value);
		return true;
	}
}

bool hv_msr_read(struct vp *vp, uint32_t index, uint64_t *value)
{
	if (!is_apic(index)) {
		return hv_msr_get(vp, vp->active_vtl, index, value);
	}
	return vp->active_vtl == VTL1 ? vtl_apic_msr_read(vp, index, value)
				      : apic_read_msr(vp, index, value);
}

bool hv_msr_write(struct vp *vp, uint32_t index, uint64_t value)
{
	if (!is_apic(index)) {
		return hv_msr_set(vp, vp->active_vtl, index, value);
	}
	return vp->active_vtl == VTL1 ? vtl_apic_msr_write(vp, index, value)
				      : apic_write_msr(vp, index, value);
}
