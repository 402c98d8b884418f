/*
 * The guest interface of the Hyper-V TLFS: CPUID leaves, synthetic MSRs, and every way of making a
 * hypercall, right and wrong. Whether flushes flush is flushes.c's business.
 *
 * "hypercall" or "ipi" on the command line: what CPUID is to recommend for remote flushes.
 */
#include "acpi.h"
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "hv.h"
#include "machine.h"
#include "print.h"
#include "real.h"
#include "tap.h"
#include "trap.h"
#include "vitals.h"

#define VECTOR_IPI	  0x71
#define VECTOR_MSR	  0x72
#define LIMIT_US	  5000000u
#define STORM_CALLS	  10000u
#define TOGETHER_US	  500000u
#define TOGETHER_LIMIT_US 30000000u
#define STORM_LIMIT_US	  15000000u

#define SIMPLE(code) ((uint64_t)(code))
#define REP(code, n) ((uint64_t)(code) | HV_REPS(n))

/* Two pages in a row: input that crosses from one into the other. */
static _Alignas(4096) uint64_t input[2 * HV_INPUT_WORDS];
static uint64_t input_gpa;

static void expect(uint64_t found, uint64_t wanted, const char *name)
{
	tap_equal(found, wanted, name);
}

/* --- CPUID ------------------------------------------------------------------------------------ */

#define ACCESS_WANTED (1u << 1 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 11)
#define ACCESS_ROOT   (1u << 12 | 1u << 13) /* the CPU management of a root partition, in EBX */

static void cpuid_test(void)
{
	struct cpuid leaf = cpuid_get(0x40000000, 0);
	bool wants_hypercall = boot_word_find("hypercall");

	tap_check(cpuid_get(1, 0).ecx >> 31, "CPUID shows a hypervisor");
	tap_check(leaf.eax >= 0x40000005 && leaf.ebx == 0x7263694d && leaf.ecx == 0x666f736f &&
			leaf.edx == 0x76482074,
		"leaf 40000000: signature, leaves up to 40000005 at least");
	expect(cpuid_get(0x40000001, 0).eax, 0x31237648, "leaf 40000001: Hv#1");
	leaf = cpuid_get(0x40000003, 0);
	expect(leaf.eax & ACCESS_WANTED, ACCESS_WANTED,
		"leaf 40000003: reference time, APIC, hypercall, VP index, frequency MSRs");
	expect(leaf.eax & ~(ACCESS_WANTED | 1u << 9 | 1u << 15), 0,
		"leaf 40000003 EAX: and nothing else but the TSC's two");
	expect(leaf.ebx, 0, "leaf 40000003 EBX: no privileges of a root partition");
	expect(leaf.edx, 1u << 4 | 1u << 8 | 1u << 14 | 1u << 18,
		"leaf 40000003 EDX: XMM input, frequencies, extended ranges, hypercall lock");
	leaf = cpuid_get(0x40000004, 0);
	expect(leaf.eax & (1u << 3 | 1u << 10 | 1u << 11), 1u << 3 | 1u << 10 | 1u << 11,
		"leaf 40000004: APIC MSRs, cluster IPIs, sparse sets");
	expect(leaf.eax & ~(1u << 2 | 1u << 3 | 1u << 5 | 1u << 10 | 1u << 11), 0,
		"leaf 40000004: and nothing that is not there");
	if (wants_hypercall || boot_word_find("ipi"))
		expect(leaf.eax >> 2 & 1, wants_hypercall,
			"leaf 40000004: remote flushes as the option says");
	leaf = cpuid_get(0x40000005, 0);
	tap_check(leaf.eax >= cpu_count() && leaf.ebx == cpu_count(),
		"leaf 40000005: room for the processors there are");
}

/* --- before the guest has said who it is ------------------------------------------------------ */

static void bare_run(void *argument)
{
	*(uint64_t *)argument = hv_call_bare(0xffff, 0);
}

static void identity_test(void)
{
	uint64_t result;

	expect(msr_read(HV_MSR_GUEST_OS_ID), 0, "the guest OS id is zero at first");
	expect(msr_read(HV_MSR_HYPERCALL) & HV_ENABLE, 0,
		"the hypercall page is disabled at first");
	expect((uint64_t)trap_catch(bare_run, &result), TRAP_UD,
		"a hypercall of a guest without an id is #UD");
	memset(hv_page, 0x11, sizeof(hv_page));
	tap_check(msr_write_catch(HV_MSR_HYPERCALL, (uint64_t)hv_page | HV_ENABLE) == TRAP_NONE &&
			msr_read(HV_MSR_HYPERCALL) == (uint64_t)hv_page && hv_page[0] == 0x11,
		"without an id the enable bit stays zero and no code is written");
	msr_write(HV_MSR_GUEST_OS_ID, HV_GUEST_OS_ID);
	expect(msr_read(HV_MSR_GUEST_OS_ID), HV_GUEST_OS_ID, "the guest OS id reads back");
	expect(hv_page[0], 0x11, "and enables nothing by itself");
	msr_write(HV_MSR_HYPERCALL, (uint64_t)hv_page | HV_ENABLE);
	tap_check(msr_read(HV_MSR_HYPERCALL) == ((uint64_t)hv_page | HV_ENABLE) &&
			hv_page[0] != 0x11 && hv_page[4095] == 0xcc,
		"enabling the page writes code into it");
	expect(hv_call(0xffff, 0), HV_RESULT(HV_INVALID_CODE, 0), "which makes hypercalls");
	msr_write(HV_MSR_GUEST_OS_ID, 0);
	expect(msr_read(HV_MSR_HYPERCALL) & HV_ENABLE, 0, "an id of zero disables the page again");
	expect((uint64_t)trap_catch(bare_run, &result), TRAP_UD, "and hypercalls are #UD again");
	hv_start();
	expect(hv_call(0xffff, 0), HV_RESULT(HV_INVALID_CODE, 0), "until there is an id again");
}

/* --- where pages may not be ------------------------------------------------------------------- */

static struct {
	uint64_t address;
	const char *name;
} bad_places[24];
static uint32_t bad_count;

static void bad_add(uint64_t address, const char *name)
{
	if (bad_count < sizeof(bad_places) / sizeof(bad_places[0])) {
		bad_places[bad_count].address = address;
		bad_places[bad_count++].name = name;
	}
}

/* Does the page read as if nothing were there? */
static bool reads_ones(uint64_t page)
{
	for (uint64_t at = page; at < page + 4096; at += 64)
		if (mmio_read32(at) != ~0u)
			return false;
	return true;
}

static void bad_places_find(void)
{
	struct acpi_wakeup wakeup;
	uint64_t top = 0;

	for (uint32_t i = 0; i < boot_memory_count(); i++) {
		const struct memory_range *range = boot_memory_get(i);

		if (range->type == MEMORY_RAM) {
			if (range->end > top)
				top = range->end;
			continue;
		}
		/* Parapet's own memory, and devices; what firmware keeps is the guest's all the same. */
		if (range->type == MEMORY_RESERVED && range->start >= 0x100000 &&
			(range->start >= 0x80000000 || reads_ones(range->start)) &&
			range->start < 1ull << 32)
			bad_add(range->start & ~4095ull, "in reserved memory");
	}
	bad_add(top < 0x80000000 ? 0x80000000 : top + 0x40000000, "where nothing is");
	bad_add(0xa0000, "in the video memory");
	bad_add(APIC_BASE_ADDRESS, "in the APIC");
	bad_add(acpi_machine_get()->ioapic, "in the I/O APIC");
	if (acpi_machine_get()->ecam)
		bad_add(acpi_machine_get()->ecam, "in the configuration space");
	if (acpi_wakeup_get(&wakeup)) {
		bad_add(wakeup.mailbox, "in the mailbox");
		bad_add(wakeup.reset_vector & ~4095ull, "at the reset vector");
	}
}

static uint64_t beyond_space(void)
{
	return 1ull << (cpuid_get(0x80000008, 0).eax & 0xff);
}

static void page_msr_test(uint32_t msr, const char *what)
{
	uint64_t before = msr_read(msr), reserved = msr == HV_MSR_HYPERCALL ? 4 : 2;

	for (uint32_t i = 0; i < bad_count; i++)
		tap_check(msr_write_catch(msr, bad_places[i].address | HV_ENABLE) == TRAP_GP &&
				msr_read(msr) == before,
			"%s page %s (0x%lx): #GP", what, bad_places[i].name, bad_places[i].address);
	tap_check(msr_write_catch(msr, beyond_space() | HV_ENABLE) == TRAP_GP &&
			msr_write_catch(msr, 0xfffffffffffff000ull | HV_ENABLE) == TRAP_GP &&
			msr_read(msr) == before,
		"%s page beyond the address space: #GP", what);
	tap_check(msr_write_catch(msr, (uint64_t)input | HV_ENABLE | reserved) == TRAP_GP &&
			msr_read(msr) == before,
		"%s page with a reserved bit: #GP", what);
}

static void hypercall_page_test(void)
{
	page_msr_test(HV_MSR_HYPERCALL, "hypercall");
	msr_write(HV_MSR_HYPERCALL, (uint64_t)hv_page);
	expect(msr_read(HV_MSR_HYPERCALL), (uint64_t)hv_page, "the hypercall page can be disabled");
	msr_write(HV_MSR_HYPERCALL, (uint64_t)input | HV_ENABLE);
	tap_check(msr_read(HV_MSR_HYPERCALL) == ((uint64_t)input | HV_ENABLE) &&
			!memcmp(input, hv_page, 16),
		"and put elsewhere");
	msr_write(HV_MSR_HYPERCALL, (uint64_t)hv_page | HV_ENABLE);
	memset(input, 0, sizeof(input));
}

/* --- clocks ----------------------------------------------------------------------------------- */

static bool near(uint64_t found, uint64_t wanted, uint64_t percent)
{
	uint64_t difference = found > wanted ? found - wanted : wanted - found;

	if (difference <= wanted / 100 * percent)
		return true;
	tap_note("found %lu, wanted %lu", found, wanted);
	return false;
}

/*
 * Both ends of a measurement: the reference count, the TSC, the APIC timer and the ACPI timer, as
 * nearly at the same time as the processor was not taken away in between.
 */
struct instant {
	uint64_t count, tsc, apic, pm;
};

#define PM_TIMER_HZ   3579545u
#define PM_TIMER_MASK 0xffffffu

static struct instant instant_get(void)
{
	struct instant best = {0};
	uint64_t shortest = ~0ull;

	for (uint32_t i = 0; i < 50; i++) {
		uint64_t start = tsc_read(), end;
		struct instant now = {.pm = io_read32(acpi_machine_get()->pm_timer)};

		now.count = msr_read(HV_MSR_TIME_REF_COUNT);
		now.tsc = tsc_read();
		now.apic = apic_read(APIC_TIMER_NOW);
		end = tsc_read();
		if (end - start < shortest) {
			shortest = end - start;
			best = now;
		}
	}
	return best;
}

struct reference_page {
	volatile uint32_t sequence;
	uint32_t reserved;
	volatile uint64_t scale;
	volatile int64_t offset;
};

static uint64_t page_time(const struct reference_page *page)
{
	return (uint64_t)((unsigned __int128)tsc_read() * page->scale >> 64) +
		(uint64_t)page->offset;
}

static void reference_page_test(void)
{
	const struct reference_page *page = (const void *)input;
	bool right = true;

	if (!(cpuid_get(0x40000003, 0).eax & 1u << 9)) {
		uint64_t value;

		expect((uint64_t)msr_read_catch(HV_MSR_REFERENCE_TSC, &value), TRAP_GP,
			"the reference TSC page is not offered, and not there");
		return;
	}
	expect(msr_read(HV_MSR_REFERENCE_TSC), 0, "the reference TSC page is disabled at first");
	page_msr_test(HV_MSR_REFERENCE_TSC, "reference TSC");
	msr_write(HV_MSR_REFERENCE_TSC, (uint64_t)page | HV_ENABLE);
	tap_check(page->sequence != 0, "the reference TSC page is in use");
	for (uint32_t i = 0; i < 100; i++) {
		uint64_t before = msr_read(HV_MSR_TIME_REF_COUNT), now = page_time(page);

		right &= before <= now && now <= msr_read(HV_MSR_TIME_REF_COUNT);
	}
	tap_check(right, "the reference TSC page tells the time that the MSR tells");
	msr_write(HV_MSR_REFERENCE_TSC, 0);
	memset(input, 0, sizeof(input));
}

static void time_run(void *argument)
{
	*(uint64_t *)argument = msr_read(HV_MSR_TIME_REF_COUNT);
}

static void rates_test(void)
{
	struct instant start, end;
	uint64_t pm;

	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_IPI);
	apic_write(APIC_TIMER_DIV, 0xb);
	apic_write(APIC_TIMER_START, 0xffffffff);
	start = instant_get();
	clock_delay(500000);
	end = instant_get();
	apic_write(APIC_TIMER_START, 0);
	pm = (end.pm - start.pm) & PM_TIMER_MASK;
	/* Every rate is its difference times the ACPI timer's rate over the ACPI timer's difference. */
	tap_check(near((end.count - start.count) * PM_TIMER_HZ / pm, 10000000, 1),
		"the reference count runs at 10 MHz");
	tap_check(near(msr_read(HV_MSR_TSC_FREQUENCY), (end.tsc - start.tsc) / pm * PM_TIMER_HZ, 1),
		"the TSC's frequency");
	tap_check(near(msr_read(HV_MSR_APIC_FREQUENCY), (start.apic - end.apic) * PM_TIMER_HZ / pm,
			  1),
		"the APIC timer's frequency");
	tap_check(msr_write_catch(HV_MSR_TSC_FREQUENCY, 1) == TRAP_GP &&
			msr_write_catch(HV_MSR_APIC_FREQUENCY, 1) == TRAP_GP,
		"writing a frequency: #GP");
}

static void clock_test(void)
{
	uint64_t time, last = 0;
	bool monotone = true;

	for (uint32_t round = 0; round < 200; round++) {
		time_run(&time);
		monotone &= time > last;
		last = time;
		if (cpu_count() > 1) {
			cpu_call(&cpus[1 + round % (cpu_count() - 1)], time_run, &time);
			monotone &= time > last;
			last = time;
		}
	}
	tap_check(monotone, "the reference count only ever grows, on all processors together");
	expect((uint64_t)msr_write_catch(HV_MSR_TIME_REF_COUNT, 1), TRAP_GP,
		"writing the reference count: #GP");
}

static void tsc_invariant_test(void)
{
	uint64_t value = 0;

	if (!(cpuid_get(0x40000003, 0).eax & 1u << 15)) {
		expect((uint64_t)msr_read_catch(HV_MSR_TSC_INVARIANT, &value), TRAP_GP,
			"the invariant TSC control is not offered, and not there");
		return;
	}
	expect(msr_read(HV_MSR_TSC_INVARIANT), 0, "the invariant TSC is not asked for at first");
	expect((uint64_t)msr_write_catch(HV_MSR_TSC_INVARIANT, 2), TRAP_GP,
		"invariant TSC control with a reserved bit: #GP");
	msr_write(HV_MSR_TSC_INVARIANT, 1);
	tap_check(msr_read(HV_MSR_TSC_INVARIANT) == 1 && (cpuid_get(0x80000007, 0).edx & 1u << 8),
		"asked for, CPUID shows it");
	msr_write(HV_MSR_TSC_INVARIANT, 0);
	expect(msr_read(HV_MSR_TSC_INVARIANT), 1, "and keeps showing it");
}

/* --- the APIC's MSRs -------------------------------------------------------------------------- */

static _Atomic uint32_t msr_interrupts, ipis[CPU_COUNT_MAX];

/* Ends with the MSR: the next interrupt of the same priority comes only if that works. */
static void msr_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add(&msr_interrupts, 1);
	msr_write(HV_MSR_EOI, 0);
}

static void ipi_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add(&ipis[cpu_self()->number], 1);
	msr_write(HV_MSR_EOI, 0);
}

static void apic_test(void)
{
	uint64_t value, self = (uint64_t)cpu_self()->apic_id << 56;

	for (uint32_t i = 0; i < 10; i++) {
		msr_write(HV_MSR_ICR, self | ICR_ASSERT | VECTOR_MSR);
		clock_wait_for(atomic_load(&msr_interrupts) > i, LIMIT_US);
	}
	expect(atomic_load(&msr_interrupts), 10, "IPIs by the ICR MSR, ended by the EOI MSR");
	expect(msr_read(HV_MSR_ICR) & ~(uint64_t)ICR_PENDING, self | ICR_ASSERT | VECTOR_MSR,
		"the ICR MSR reads as written");
	tap_check(msr_read_catch(HV_MSR_EOI, &value) == TRAP_GP &&
			msr_write_catch(HV_MSR_EOI, 1ull << 32) == TRAP_GP,
		"the EOI MSR cannot be read, and has 32 bits");
	interrupts_disable();
	msr_write(HV_MSR_TPR, 0x50);
	tap_check(apic_read(APIC_TPR) == 0x50 && msr_read(HV_MSR_TPR) == 0x50 && cr8_read() == 5,
		"the TPR MSR is the APIC's TPR and CR8");
	msr_write(HV_MSR_TPR, 0);
	interrupts_enable();
	expect((uint64_t)msr_write_catch(HV_MSR_TPR, 0x100), TRAP_GP,
		"TPR MSR with a reserved bit: #GP");
}

static void assist_test(void)
{
	uint8_t *page = (uint8_t *)input;

	expect(msr_read(HV_MSR_VP_ASSIST_PAGE), 0, "the assist page is disabled at first");
	page_msr_test(HV_MSR_VP_ASSIST_PAGE, "assist");
	memset(input, 0xff, sizeof(input));
	msr_write(HV_MSR_VP_ASSIST_PAGE, (uint64_t)page | HV_ENABLE);
	tap_check(msr_read(HV_MSR_VP_ASSIST_PAGE) == ((uint64_t)page | HV_ENABLE) && !page[0] &&
			!page[4095],
		"the assist page begins as zeros");
	msr_write(HV_MSR_VP_ASSIST_PAGE, (uint64_t)(page + 4096) | HV_ENABLE);
	tap_check(!page[4096], "and does so again where it is moved");
	msr_write(HV_MSR_VP_ASSIST_PAGE, 0);
	memset(input, 0, sizeof(input));
}

static void undefined_msrs_test(void)
{
	static const uint32_t defined[] = {HV_MSR_GUEST_OS_ID, HV_MSR_HYPERCALL, HV_MSR_VP_INDEX,
		HV_MSR_TIME_REF_COUNT, HV_MSR_REFERENCE_TSC, HV_MSR_TSC_FREQUENCY,
		HV_MSR_APIC_FREQUENCY, HV_MSR_EOI, HV_MSR_ICR, HV_MSR_TPR, HV_MSR_VP_ASSIST_PAGE,
		HV_MSR_TSC_INVARIANT};
	uint32_t wrong = 0;

	for (uint32_t msr = 0x40000000; msr < 0x40000200; msr++) {
		uint64_t value;
		bool there = false;

		for (uint32_t i = 0; i < sizeof(defined) / sizeof(defined[0]); i++)
			there |= defined[i] == msr;
		if (!there &&
			(msr_read_catch(msr, &value) != TRAP_GP ||
				msr_write_catch(msr, 0) != TRAP_GP)) {
			tap_note("MSR 0x%x", msr);
			wrong++;
		}
	}
	expect(wrong, 0, "synthetic MSRs that are not offered: #GP");
	expect((uint64_t)msr_write_catch(HV_MSR_VP_INDEX, 0), TRAP_GP, "writing the VP index: #GP");
}

/* --- VP indexes and cluster IPIs -------------------------------------------------------------- */

static void index_test(void)
{
	bool different = true;

	hv_indexes_read();
	for (uint32_t i = 0; i < cpu_count(); i++)
		for (uint32_t j = 0; j < i; j++)
			different &= hv_index_of(i) != hv_index_of(j);
	tap_check(different && hv_index_of(cpu_count() - 1) < 4096,
		"every VP has an index of its own");
	tap_note("VP indexes: %u to %u", hv_index_of(0), hv_index_of(cpu_count() - 1));
}

static bool ipis_arrived(const uint32_t *before, uint64_t targets)
{
	bool right = true;

	for (uint32_t i = 0; i < cpu_count(); i++)
		if (targets >> i & 1)
			right &= clock_wait_for(atomic_load(&ipis[i]) != before[i], LIMIT_US);
	clock_delay(2000);
	for (uint32_t i = 0; i < cpu_count(); i++)
		right &= atomic_load(&ipis[i]) - before[i] == (targets >> i & 1);
	return right;
}

static void ipis_remember(uint32_t *before)
{
	for (uint32_t i = 0; i < cpu_count(); i++)
		before[i] = atomic_load(&ipis[i]);
}

static uint64_t everybody(void)
{
	return cpu_count() == 64 ? ~0ull : (1ull << cpu_count()) - 1;
}

static void ipi_test(void)
{
	uint32_t before[CPU_COUNT_MAX];
	uint64_t words[HV_FAST_WORDS] = {VECTOR_IPI}, mask;
	bool right = true;

	if (hv_mask_get(1, &mask)) {
		words[1] = mask;
		ipis_remember(before);
		right &= hv_call_fast(SIMPLE(HV_SEND_IPI) | HV_FAST, words) == 0 &&
			ipis_arrived(before, 1);
	}
	if (hv_mask_get(everybody(), &mask)) {
		input[0] = VECTOR_IPI;
		input[1] = mask;
		ipis_remember(before);
		right &= hv_call(SIMPLE(HV_SEND_IPI), input_gpa) == 0 &&
			ipis_arrived(before, everybody());
	}
	tap_check(right, "cluster IPIs by mask, fast and in memory");
	right = true;
	for (uint64_t targets = 1; targets <= everybody(); targets = targets * 3 + 1) {
		uint64_t count;

		if (!(targets & everybody()))
			continue;
		input[0] = VECTOR_IPI;
		count = hv_set_write(&input[1], targets);
		ipis_remember(before);
		right &= hv_call(SIMPLE(HV_SEND_IPI_EX) | HV_VARIABLE(count), input_gpa) == 0 &&
			ipis_arrived(before, targets & everybody());
	}
	tap_check(right, "cluster IPIs to sparse sets");
	words[1] = HV_SET_ALL;
	words[2] = 0;
	ipis_remember(before);
	tap_check(hv_call_fast(SIMPLE(HV_SEND_IPI_EX) | HV_FAST, words) == 0 &&
			ipis_arrived(before, everybody()),
		"cluster IPI to all, the third word in XMM0");

	words[1] = 1;
	for (uint32_t vector = 0; vector < 16; vector++) {
		words[0] = vector;
		right &= hv_call_fast(SIMPLE(HV_SEND_IPI) | HV_FAST, words) == HV_INVALID_PARAMETER;
	}
	words[0] = 256;
	right &= hv_call_fast(SIMPLE(HV_SEND_IPI) | HV_FAST, words) == HV_INVALID_PARAMETER;
	words[0] = 0x80000000 | VECTOR_IPI;
	right &= hv_call_fast(SIMPLE(HV_SEND_IPI) | HV_FAST, words) == HV_INVALID_PARAMETER;
	tap_check(right, "cluster IPI of a vector below 16 or above 255: invalid parameter");
	ipis_remember(before);
	words[0] = VECTOR_IPI | 0x10ull << 32;
	right = hv_call_fast(SIMPLE(HV_SEND_IPI) | HV_FAST, words) == HV_SUCCESS;
	tap_check(right && ipis_arrived(before, 1), "cluster IPI to VTL 0, by name");
	words[0] = VECTOR_IPI | 0x11ull << 32;
	expect(hv_call_fast(SIMPLE(HV_SEND_IPI) | HV_FAST, words), HV_ACCESS_DENIED,
		"cluster IPI to VTL 1: access denied");
	words[0] = VECTOR_IPI | 0x20ull << 32;
	expect(hv_call_fast(SIMPLE(HV_SEND_IPI) | HV_FAST, words), HV_INVALID_PARAMETER,
		"cluster IPI with a reserved bit in the VTL: invalid parameter");
	ipis_remember(before);
	words[0] = VECTOR_IPI | 0xffff0003ull << 32;
	words[0] &= ~(0xffull << 40);
	right = hv_call_fast(SIMPLE(HV_SEND_IPI) | HV_FAST, words) == HV_SUCCESS;
	tap_check(right && ipis_arrived(before, 1),
		"cluster IPI: padding is ignored, and a VTL that is not to be used");
	words[0] = VECTOR_IPI;
	words[1] = 1ull << 63;
	if (hv_index_of(cpu_count() - 1) != 63)
		expect(hv_call_fast(SIMPLE(HV_SEND_IPI) | HV_FAST, words), HV_INVALID_VP_INDEX,
			"cluster IPI to a VP that does not exist: invalid VP index");
}

/* --- the call itself -------------------------------------------------------------------------- */

/* A good flush of everything on everybody in `input`. */
static void flush_write(uint64_t *words)
{
	words[0] = cr3_read();
	words[1] = HV_ALL_PROCESSORS | HV_ALL_SPACES;
	words[2] = 0;
}

/* A good list behind it. */
static void list_write(uint64_t *words, uint32_t count)
{
	flush_write(words);
	for (uint32_t i = 0; i < count; i++)
		words[3 + i] = (uint64_t)input + i * 4096;
}

static void value_test(void)
{
	/* Those of VSM among them, which is not offered here. */
	static const uint16_t unknown[] = {0, 1, 4, 8, 0xc, 0xd, 0xf, 0x11, 0x12, 0x50, 0x51, 0x52,
		0x99, 0x9a, 0xac, 0x8001, 0xffff};
	bool right = true;

	flush_write(input);
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE), input_gpa), HV_SUCCESS, "a flush of everything");
	for (uint32_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		right &= hv_call(unknown[i], input_gpa) == HV_INVALID_CODE;
	tap_check(right, "unknown call codes: invalid hypercall code");
	right = true;
	for (uint32_t bit = 27; bit < 64; bit++) {
		if ((bit >= 32 && bit < 44) || (bit >= 48 && bit < 60))
			continue;
		right &= hv_call(SIMPLE(HV_FLUSH_SPACE) | 1ull << bit, input_gpa) ==
			HV_INVALID_INPUT;
	}
	tap_check(right, "reserved bits of the input value: invalid hypercall input");
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE) | HV_REPS(1), input_gpa), HV_INVALID_INPUT,
		"a simple call with a rep count: invalid hypercall input");
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE) | HV_START(1), input_gpa) & 0xffff, HV_INVALID_INPUT,
		"a simple call with a rep start: invalid hypercall input");
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE) | HV_VARIABLE(1), input_gpa), HV_INVALID_INPUT,
		"a variable header where there is none: invalid hypercall input");
	expect(hv_call(REP(HV_FLUSH_LIST, 1) | HV_VARIABLE(1), input_gpa), HV_INVALID_INPUT,
		"the same for a rep call");
	expect(hv_call(SIMPLE(HV_SEND_IPI) | HV_VARIABLE(1023), input_gpa), HV_INVALID_INPUT,
		"and for a cluster IPI");
}

static void reps_test(void)
{
	list_write(input, 509);
	expect(hv_call(REP(HV_FLUSH_LIST, 1), input_gpa), HV_RESULT(HV_SUCCESS, 1),
		"a list of one");
	expect(hv_call(REP(HV_FLUSH_LIST, 5), input_gpa), HV_RESULT(HV_SUCCESS, 5),
		"a list of five");
	expect(hv_call(REP(HV_FLUSH_LIST, 10) | HV_START(5), input_gpa), HV_RESULT(HV_SUCCESS, 10),
		"reps completed count from the list's begin");
	expect(hv_call(REP(HV_FLUSH_LIST, 509), input_gpa), HV_RESULT(HV_SUCCESS, 509),
		"a list that fills the page");
	expect(hv_call(REP(HV_FLUSH_LIST, 510), input_gpa) & 0xffff, HV_INVALID_ALIGNMENT,
		"one more: crosses the page, invalid alignment");
	expect(hv_call(REP(HV_FLUSH_LIST, 4095), input_gpa) & 0xffff, HV_INVALID_ALIGNMENT,
		"the largest count: invalid alignment");
	expect(hv_call(REP(HV_FLUSH_LIST, 0), input_gpa), HV_INVALID_INPUT,
		"a rep call without reps: invalid hypercall input");
	expect(hv_call(REP(HV_FLUSH_LIST, 5) | HV_START(5), input_gpa) & 0xffff, HV_INVALID_INPUT,
		"rep start equal to the count: invalid hypercall input");
	expect(hv_call(REP(HV_FLUSH_LIST, 5) | HV_START(4095), input_gpa) & 0xffff,
		HV_INVALID_INPUT, "rep start beyond the count: invalid hypercall input");
	expect(hv_call(HV_START(1) | HV_FLUSH_LIST, input_gpa) & 0xffff, HV_INVALID_INPUT,
		"rep start without a count: invalid hypercall input");
}

static void address_test(void)
{
	bool right = true;

	flush_write(input);
	for (uint64_t offset = 1; offset < 8; offset++)
		right &=
			hv_call(SIMPLE(HV_FLUSH_SPACE), input_gpa + offset) == HV_INVALID_ALIGNMENT;
	tap_check(right, "misaligned input: invalid alignment");
	flush_write(&input[HV_INPUT_WORDS - 3]);
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE), (uint64_t)&input[HV_INPUT_WORDS - 3]), HV_SUCCESS,
		"input at the end of a page");
	flush_write(&input[HV_INPUT_WORDS - 2]);
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE), (uint64_t)&input[HV_INPUT_WORDS - 2]),
		HV_INVALID_ALIGNMENT, "input that crosses a page: invalid alignment");
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE), beyond_space()), HV_INVALID_ALIGNMENT,
		"input beyond the address space: invalid alignment");
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE), 0xfffffffffffff000ull), HV_INVALID_ALIGNMENT,
		"input at the very end of all addresses: invalid alignment");
	for (uint32_t i = 0; i < bad_count; i++) {
		uint64_t result = hv_call(SIMPLE(HV_FLUSH_SPACE), bad_places[i].address);

		tap_check(result == HV_INVALID_INPUT, "input %s (0x%lx): invalid hypercall input",
			bad_places[i].name, bad_places[i].address);
	}
}

/* The fast forms and the 32-bit one say what the form in memory says. */
static void forms_test(void)
{
	uint64_t words[HV_FAST_WORDS] = {0}, before[HV_FAST_WORDS];
	bool right = true;

	list_write(words, 11);
	for (uint64_t flags = 0; flags < 32; flags++) {
		uint64_t memory, fast;

		words[1] = flags;
		words[2] = 1;
		memcpy(input, words, sizeof(words));
		memory = hv_call(SIMPLE(HV_FLUSH_SPACE), input_gpa);
		fast = hv_call_fast(SIMPLE(HV_FLUSH_SPACE) | HV_FAST, words);
		right &= memory == fast && memory == hv_call_32(HV_FLUSH_SPACE, input_gpa, 0);
		right &= memory == (flags & ~7ull ? HV_INVALID_PARAMETER : HV_SUCCESS);
		memory = hv_call(REP(HV_FLUSH_LIST, 3), input_gpa);
		fast = hv_call_fast(REP(HV_FLUSH_LIST, 3) | HV_FAST, words);
		right &=
			memory == fast && memory == hv_call_32(REP(HV_FLUSH_LIST, 3), input_gpa, 0);
		right &= memory ==
			(flags & ~11ull ? HV_INVALID_PARAMETER : HV_RESULT(HV_SUCCESS, 3));
	}
	tap_check(right, "all flags: memory, XMM and 32-bit forms agree, status as specified");
	list_write(words, 11);
	memcpy(before, words, sizeof(words));
	expect(hv_call_fast(REP(HV_FLUSH_LIST, 11) | HV_FAST, words), HV_RESULT(HV_SUCCESS, 11),
		"the longest input that registers hold");
	expect(hv_call_fast(REP(HV_FLUSH_LIST, 12) | HV_FAST, words) & 0xffff, HV_INVALID_INPUT,
		"a longer one: invalid hypercall input");
	words[0] = VECTOR_IPI;
	words[1] = 1;
	interrupts_disable();
	expect(hv_call_32(SIMPLE(HV_SEND_IPI) | HV_FAST, words[0], words[1]), HV_SUCCESS,
		"a fast call from 32-bit code");
	interrupts_enable();
	expect(hv_call_32(0xffff, 0, 0), HV_INVALID_CODE, "an unknown one from 32-bit code");
}

static uint64_t xmm_unchanged_words[24];

/* Inputs in registers stay as they are: checked with all other registers around a call. */
static void volatile_test(void)
{
	uint64_t *words = xmm_unchanged_words;
	uint64_t rcx = SIMPLE(HV_FLUSH_SPACE) | HV_FAST, rdx = cr3_read(), rbx = 1, result;
	register uint64_t r8 __asm__("r8") = HV_ALL_PROCESSORS;
	register uint64_t r9 __asm__("r9") = 2;
	register uint64_t r12 __asm__("r12") = 3;
	register uint64_t r15 __asm__("r15") = 4;

	for (uint32_t i = 0; i < 12; i++)
		words[i] = 0x1111111111111111ull * (i + 1);
	cr4_write(cr4_read() | 1u << 9);
	__asm__ volatile("movups (%[words]), %%xmm0\n\t"
			 "movups 80(%[words]), %%xmm5\n\t"
			 "call *%[page]\n\t"
			 "movups %%xmm0, 96(%[words])\n\t"
			 "movups %%xmm5, 176(%[words])"
			 : "=a"(result), "+c"(rcx), "+d"(rdx), "+b"(rbx), "+r"(r8), "+r"(r9),
			 "+r"(r12), "+r"(r15)
			 : [words] "S"(words), [page] "D"(hv_page)
			 : "memory", "cc", "r10", "r11");
	tap_check(result == HV_SUCCESS && rcx == (SIMPLE(HV_FLUSH_SPACE) | HV_FAST) &&
			rdx == cr3_read() && rbx == 1 && r8 == HV_ALL_PROCESSORS && r9 == 2 &&
			r12 == 3 && r15 == 4,
		"a call changes RAX and no other general register");
	tap_check(!memcmp(words, words + 12, 16) && !memcmp(words + 10, words + 22, 16),
		"nor an XMM register");
}

/* --- flush parameters ------------------------------------------------------------------------- */

static uint64_t list_call(uint64_t flags, uint64_t range)
{
	flush_write(input);
	input[1] = HV_ALL_PROCESSORS | flags;
	input[3] = (uint64_t)input;
	input[4] = range;
	return hv_call(REP(HV_FLUSH_LIST, 2), input_gpa);
}

static void parameters_test(void)
{
	bool right = true;

	for (uint32_t bit = 3; bit < 64; bit++) {
		flush_write(input);
		input[1] |= 1ull << bit;
		right &= hv_call(SIMPLE(HV_FLUSH_SPACE), input_gpa) == HV_INVALID_PARAMETER;
		right &= bit == 3 ||
			hv_call(REP(HV_FLUSH_LIST, 1), input_gpa) == HV_INVALID_PARAMETER;
	}
	tap_check(right, "unknown flush flags: invalid parameter");
	expect(list_call(HV_NON_GLOBAL_ONLY, 0), HV_INVALID_PARAMETER,
		"a list of non-global pages only: invalid parameter");
	right = list_call(0, 0x8000000000000000ull) == HV_RESULT(HV_SUCCESS, 2) &&
		list_call(0, 0x0000800000000fffull) == HV_RESULT(HV_SUCCESS, 2) &&
		list_call(0, 0xffff7fffffffffffull) == HV_RESULT(HV_SUCCESS, 2) &&
		list_call(0, ~0ull) == HV_RESULT(HV_SUCCESS, 2);
	tap_check(right, "addresses that are not canonical are ignored");
	right = list_call(HV_EXTENDED_RANGES, 0x7ff) == HV_RESULT(HV_SUCCESS, 2) &&
		list_call(HV_EXTENDED_RANGES, 0x40000000 | 0x800) == HV_RESULT(HV_SUCCESS, 2) &&
		list_call(HV_EXTENDED_RANGES, 0x40000000 | 0x1800) == HV_RESULT(HV_SUCCESS, 2);
	tap_check(right, "extended ranges of 4 KiB, 2 MiB and 1 GiB pages");
	for (uint32_t bit = 13; bit < 21; bit++)
		right &= list_call(HV_EXTENDED_RANGES, 0x40000800 | 1ull << bit) ==
			HV_INVALID_PARAMETER;
	tap_check(right, "reserved bits of a large range: invalid parameter, nothing completed");
	expect(list_call(HV_EXTENDED_RANGES, 0x40200000 | 0x1800), HV_INVALID_PARAMETER,
		"a range of 1 GiB pages that is not aligned: invalid parameter");
	flush_write(input);
	input[1] = HV_ALL_PROCESSORS | HV_EXTENDED_RANGES;
	for (uint32_t i = 0; i < 6; i++)
		input[3 + i] = 0x40000800 | (i == 4) << 13;
	expect(hv_call(REP(HV_FLUSH_LIST, 6) | HV_START(2), input_gpa),
		HV_RESULT(HV_INVALID_PARAMETER, 2),
		"one that is wrong: those before the start count");
	expect(hv_call(REP(HV_FLUSH_LIST, 6) | HV_START(5), input_gpa), HV_RESULT(HV_SUCCESS, 6),
		"what lies before the start is not looked at");
}

static void sets_test(void)
{
	uint64_t last = hv_index_of(cpu_count() - 1);
	bool right = true;
	uint32_t count;

	flush_write(input);
	input[1] = 0;
	if (last < 63) {
		input[2] = 1ull << (last + 1);
		expect(hv_call(SIMPLE(HV_FLUSH_SPACE), input_gpa), HV_INVALID_VP_INDEX,
			"a VP that does not exist: invalid VP index");
		input[2] |= 1;
		expect(hv_call(SIMPLE(HV_FLUSH_SPACE), input_gpa), HV_INVALID_VP_INDEX,
			"beside one that does: invalid VP index");
		input[1] = HV_ALL_PROCESSORS;
		expect(hv_call(SIMPLE(HV_FLUSH_SPACE), input_gpa), HV_SUCCESS,
			"the mask is ignored if all are meant");
	}
	input[1] = 0;
	input[2] = 0;
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE), input_gpa), HV_INVALID_PARAMETER,
		"a flush of nobody: invalid parameter");

	for (uint64_t targets = 1; targets <= everybody(); targets = targets * 3 + 1) {
		count = hv_set_write(&input[2], targets & everybody());
		right &= hv_call(SIMPLE(HV_FLUSH_SPACE_EX) | HV_VARIABLE(count), input_gpa) ==
			(targets & everybody() ? HV_SUCCESS : HV_INVALID_PARAMETER);
		input[4 + count] = (uint64_t)input;
		input[5 + count] = (uint64_t)input + 4096;
		right &= hv_call(REP(HV_FLUSH_LIST_EX, 2) | HV_VARIABLE(count), input_gpa) ==
			HV_RESULT(HV_SUCCESS, 2);
	}
	tap_check(right, "sparse sets: space and list");
	count = hv_set_write(&input[2], everybody());
	for (uint32_t said = 0; said < 70; said++)
		right &= said == count ||
			hv_call(SIMPLE(HV_FLUSH_SPACE_EX) | HV_VARIABLE(said), input_gpa) ==
				HV_INVALID_PARAMETER;
	tap_check(right, "a variable header of another size than the banks: invalid parameter");
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE_EX) | HV_VARIABLE(1023), input_gpa),
		HV_INVALID_ALIGNMENT, "one that is larger than a page: invalid alignment");
	input[2] = HV_SET_SPARSE;
	input[3] = ~0ull;
	for (uint32_t i = 0; i < 64; i++)
		input[4 + i] = 0;
	input[4 + hv_index_of(0) / 64] = 1ull << hv_index_of(0) % 64;
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE_EX) | HV_VARIABLE(64), input_gpa), HV_SUCCESS,
		"all 64 banks, all but one empty");
	input[4 + 63] |= 1ull << 62;
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE_EX) | HV_VARIABLE(64), input_gpa), HV_INVALID_VP_INDEX,
		"a VP in the last bank that does not exist: invalid VP index");
	input[2] = HV_SET_ALL;
	input[3] = 0;
	expect(hv_call(SIMPLE(HV_FLUSH_SPACE_EX), input_gpa), HV_SUCCESS, "the set of all");
	input[4] = (uint64_t)input;
	expect(hv_call(REP(HV_FLUSH_LIST_EX, 1), input_gpa), HV_RESULT(HV_SUCCESS, 1),
		"the set of all, with a list");
	for (uint64_t format = 2; format; format <<= 1) {
		input[2] = format;
		right &= hv_call(SIMPLE(HV_FLUSH_SPACE_EX), input_gpa) == HV_INVALID_PARAMETER;
	}
	tap_check(right, "sets of unknown formats: invalid parameter");
}

/* --- where calls may come from ---------------------------------------------------------------- */

#define SELECTOR_USER_CODE64 (0x40 | 3)
#define SELECTOR_USER_DATA   (0x48 | 3)
#define SELECTOR_USER_CODE32 (0x50 | 3)

static uint64_t user_gdt[11];
static _Alignas(16) uint8_t user_stack[4096];

struct gdt_pointer {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

static void user_vmmcall(void)
{
	__asm__ volatile("vmmcall; ud2");
}

static void user_run(void *argument)
{
	uint64_t selector = (uint64_t)argument;

	__asm__ volatile("pushq %0; pushq %1; pushq $2; pushq %2; pushq %3; iretq"
			 :
			 : "r"((uint64_t)SELECTOR_USER_DATA),
			 "r"((uint64_t)user_stack + sizeof(user_stack)), "r"(selector),
			 "r"((uint64_t)user_vmmcall), "a"(0), "c"(0xffff), "d"(0)
			 : "memory");
}

static void ring3_test(void)
{
	struct cpu *self = cpu_self();
	struct gdt_pointer own = {sizeof(self->gdt) - 1, (uint64_t)self->gdt};
	struct gdt_pointer other = {sizeof(user_gdt) - 1, (uint64_t)user_gdt};
	/* The first instruction of the function, behind what the compiler puts before it. */
	const uint8_t *at = (const uint8_t *)user_vmmcall;
	bool right = true;

	while (at[0] != 0x0f || at[1] != 0x01 || at[2] != 0xd9)
		at++;
	memcpy(user_gdt, self->gdt, sizeof(self->gdt));
	user_gdt[8] = 0x00affb000000ffffull;
	user_gdt[9] = 0x00cff3000000ffffull;
	user_gdt[10] = 0x00cffb000000ffffull;
	self->tss.rsp[0] = (uint64_t)user_stack + 2048;
	interrupts_disable();
	__asm__ volatile("lgdt %0" : : "m"(other));
	right &= trap_catch(user_run, (void *)SELECTOR_USER_CODE64) == TRAP_UD &&
		self->trap.rip == (uint64_t)at;
	right &= trap_catch(user_run, (void *)SELECTOR_USER_CODE32) == TRAP_UD &&
		self->trap.rip == (uint64_t)at;
	__asm__ volatile("lgdt %0" : : "m"(own));
	interrupts_enable();
	tap_check(right, "a hypercall from ring 3, 64 and 32 bits: #UD");
}

static void real_mode_test(void)
{
	struct real_result result;

	if (!real_mode_visit(1, &result))
		tap_bail("no page for real mode");
	expect(result.undefined, 1, "a hypercall from real mode: #UD");
	expect(result.interrupts, 1, "and real mode goes on");
}

/* --- input that changes meanwhile ------------------------------------------------------------- */

static atomic_bool leave;

/* Every word of it goes to and fro between good and bad. */
static void rewrite_run(void *argument)
{
	volatile uint64_t *words = input;

	(void)argument;
	for (uint64_t n = 0; !atomic_load_explicit(&leave, memory_order_acquire); n++) {
		words[1] = n & 1 ? HV_ALL_PROCESSORS : 0xfffffffffffffff0ull;
		words[2] = n & 2 ? HV_SET_ALL : 77;
		words[3] = n & 4 ? ~0ull : 0;
		words[4] = n * 0x9e3779b97f4a7c15ull;
	}
}

static void rewrite_test(void)
{
	uint32_t good = 0, refused = 0, other = 0;
	uint64_t deadline = clock_deadline(STORM_LIMIT_US);

	if (cpu_count() < 2) {
		tap_skip("input rewritten during the call", "there is one processor");
		return;
	}
	list_write(input, 8);
	cpu_call_start(&cpus[1], rewrite_run, NULL);
	for (uint32_t i = 0; i < STORM_CALLS && !clock_passed(deadline); i++) {
		bool list = i & 1, sparse = i & 2;
		uint64_t value = list ? REP(sparse ? HV_FLUSH_LIST_EX : HV_FLUSH_LIST, 4)
				      : SIMPLE(sparse ? HV_FLUSH_SPACE_EX : HV_FLUSH_SPACE);
		uint64_t result = hv_call(value, input_gpa);

		if (result == HV_RESULT(HV_SUCCESS, list ? 4 : 0))
			good++;
		else if (result == HV_INVALID_PARAMETER || result == HV_INVALID_VP_INDEX)
			refused++;
		else
			other++;
	}
	atomic_store_explicit(&leave, true, memory_order_release);
	cpu_call_wait(&cpus[1]);
	tap_note("%u carried out, %u refused", good, refused);
	expect(other, 0,
		"input rewritten during the call: carried out or refused, nothing between");
	tap_check(good && refused, "there were both");
}

static void calls_run(void *argument)
{
	uint64_t words[HV_FAST_WORDS] = {0};
	uint32_t *wrong = argument;
	uint64_t deadline = clock_deadline(TOGETHER_US);

	for (uint32_t i = 0; i < 2 || !clock_passed(deadline); i++) {
		flush_write(words);
		*wrong += hv_call_fast(SIMPLE(HV_FLUSH_SPACE) | HV_FAST, words) != HV_SUCCESS;
	}
}

static void together_test(void)
{
	static uint32_t wrong[CPU_COUNT_MAX];
	uint32_t sum = 0;

	for (uint32_t i = 1; i < cpu_count(); i++)
		cpu_call_start(&cpus[i], calls_run, &wrong[i]);
	calls_run(&wrong[0]);
	for (uint32_t i = 1; i < cpu_count(); i++)
		if (!cpu_call_done(&cpus[i], TOGETHER_LIMIT_US))
			tap_bail("processor %u hangs in its flushes", i);
	for (uint32_t i = 0; i < cpu_count(); i++)
		sum += wrong[i];
	expect(sum, 0, "all processors flush all processors");
}

/* --- at the end: the lock --------------------------------------------------------------------- */

static void lock_test(void)
{
	uint64_t locked = (uint64_t)hv_page | HV_ENABLE | HV_LOCKED;

	msr_write(HV_MSR_HYPERCALL, locked);
	expect(msr_read(HV_MSR_HYPERCALL), locked, "the hypercall MSR can be locked");
	tap_check(msr_write_catch(HV_MSR_HYPERCALL, (uint64_t)input | HV_ENABLE) == TRAP_GP &&
			msr_write_catch(HV_MSR_HYPERCALL, 0) == TRAP_GP &&
			msr_read(HV_MSR_HYPERCALL) == locked,
		"and then no more be changed");
	expect(hv_call(0xffff, 0), HV_INVALID_CODE, "hypercalls go on");
}

void kernel_main(void)
{
	vitals_start();
	if (!boot_has_paravisor()) {
		tap_note("on the bare machine: nothing to test");
		tap_skip("hypercalls", "not under a paravisor");
		return;
	}
	tap_note("under a paravisor, %u processors", cpu_count());
	trap_handler_set(VECTOR_MSR, msr_handle);
	trap_handler_set(VECTOR_IPI, ipi_handle);
	input_gpa = (uint64_t)input;
	bad_places_find();
	cpuid_test();
	identity_test();
	hypercall_page_test();
	rates_test();
	clock_test();
	reference_page_test();
	tsc_invariant_test();
	apic_test();
	assist_test();
	undefined_msrs_test();
	index_test();
	ipi_test();
	value_test();
	reps_test();
	address_test();
	forms_test();
	volatile_test();
	parameters_test();
	sets_test();
	ring3_test();
	real_mode_test();
	rewrite_test();
	together_test();
	lock_test();
	vitals_check();
}
