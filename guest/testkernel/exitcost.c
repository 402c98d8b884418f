/*
 * What an exit costs: times, on one processor, the instructions and the device accesses that a
 * guest's kernel makes most and that a paravisor may take over, and prints a line for each:
 *
 *	exitcost: NAME ROUNDS MEDIAN LEAST
 *
 * ROUNDS is how often it was done in one batch; the other two are the nanoseconds of one, with one
 * decimal, in the middle one and in the fastest of the batches. The same kernel runs on the bare
 * machine, so that the difference is the price of the exit. No judgement about the figures may
 * enter: bench/guest makes it.
 */
#include "acpi.h"
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "machine.h"
#include "print.h"
#include "tap.h"
#include "trap.h"
#include "vtl.h"

#define BATCHES	     25u
#define BATCH_US     4000u
#define ROUNDS_MAX   100000u
#define VECTOR_IPI   0x61
#define VECTOR_TIMER 0x51
#define TIMER_FAR    0x7fffffffu /* never gets there */
#define PAGES	     64u
#define PAGE_BYTES   4096u

#define PORT_DELAY	0x80
#define PORT_PCI_SELECT 0xcf8
#define PORT_PCI_DATA	0xcfc
#define PCI_ENABLE	0x80000000u

#define PAGE_TABLE_ENTRIES 3072u /* of start.S: six pages */
#define PAGE_USER	   0x4ull
#define CR0_WP		   0x10000ull
#define CR4_PSE		   0x10ull
#define CR4_PGE		   0x80ull
#define CR4_SMEP	   0x100000ull
#define CR4_SMAP	   0x200000ull
#define CPUID7_SMEP	   (1u << 7)
#define CPUID7_SMAP	   (1u << 20)

#define HV_MSR_VP_INDEX 0x40000002
#define HV_MSR_EOI	0x40000070

extern uint64_t page_tables[PAGE_TABLE_ENTRIES];

static volatile uint32_t ipis, nmis;
static _Alignas(4096) volatile uint8_t pages[PAGES * PAGE_BYTES];

/*
 * Paging as a real kernel sets it up. It matters to the figures: a processor that changes these bits
 * on its way in or out may drop more translations than one that finds them as they were.
 */
static void paging_set_up(void)
{
	uint32_t features = cpuid_get(7, 0).ebx;
	uint64_t cr4 = cr4_read() | CR4_PSE | CR4_PGE;

	for (uint32_t i = 0; i < PAGE_TABLE_ENTRIES; i++)
		page_tables[i] &= ~PAGE_USER;
	cr3_write(cr3_read());
	cr4 |= features & CPUID7_SMEP ? CR4_SMEP : 0;
	cr4 |= features & CPUID7_SMAP ? CR4_SMAP : 0;
	cr4_write(cr4);
	cr0_write(cr0_read() | CR0_WP);
}

static void ipi_handle(struct trap_frame *frame)
{
	(void)frame;
	ipis++;
	apic_eoi();
}

static void nmi_handle(struct trap_frame *frame)
{
	(void)frame;
	nmis++;
}

static void timer_handle(struct trap_frame *frame)
{
	(void)frame;
	apic_eoi();
}

static void cpuid_do(void)
{
	cpuid_get(0, 0);
}

static void msr_read_do(void)
{
	msr_read(MSR_EFER);
}

/* Switched with the processor, so that a paravisor has no reason to look. */
static void msr_open_do(void)
{
	msr_write(0xc0000102, 0); /* KernelGSBase */
}

static void msr_synthetic_do(void)
{
	msr_read(HV_MSR_VP_INDEX);
}

static void msr_eoi_do(void)
{
	msr_write(HV_MSR_EOI, 0);
}

static void io_open_do(void)
{
	io_write8(PORT_DELAY, 0);
}

static void io_pci_select_do(void)
{
	io_write32(PORT_PCI_SELECT, PCI_ENABLE);
}

static void io_pci_read_do(void)
{
	io_read32(PORT_PCI_DATA);
}

static void apic_read_do(void)
{
	apic_read(APIC_ID);
}

static void apic_eoi_do(void)
{
	apic_eoi();
}

static void apic_timer_do(void)
{
	apic_write(APIC_TIMER_START, TIMER_FAR);
}

static void ioapic_read_do(void)
{
	mmio_read32(acpi_machine_get()->ioapic);
}

static void ipi_do(void)
{
	uint32_t before = ipis;

	apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR_IPI);
	while (ipis == before)
		cpu_relax();
}

static void nmi_do(void)
{
	uint32_t before = nmis;

	apic_write(APIC_ICR, ICR_ASSERT | ICR_NMI);
	while (nmis == before)
		cpu_relax();
}

static void touch_do(void)
{
	for (uint32_t i = 0; i < PAGES; i++)
		pages[i * PAGE_BYTES]++;
}

static uint64_t nothing_run(uint64_t argument)
{
	return argument;
}

/* To VTL1 and back, with nothing to do there. */
static void vtl_call_do(void)
{
	vtl_run(nothing_run, 0);
}

static uint64_t protect_run(uint64_t flags)
{
	return vtl_protect(pages, 1, (uint32_t)flags);
}

/* The same, and a page that loses a permission there, or gets it back. */
static void vtl_protect_do(void)
{
	static uint64_t turn;

	vtl_run(protect_run, turn++ & 1 ? HV_MAP_ALL : HV_MAP_READ | HV_MAP_EXECUTE);
}

/* The same with all pages of the array in one call. */
static uint64_t protect_many_run(uint64_t flags)
{
	return vtl_protect(pages, PAGES, (uint32_t)flags);
}

static void vtl_protect_many_do(void)
{
	static uint64_t turn;

	vtl_run(protect_many_run, turn++ & 1 ? HV_MAP_ALL : HV_MAP_READ | HV_MAP_EXECUTE);
}

static uint64_t protect_enable(uint64_t unused)
{
	(void)unused;
	return vtl_register_set(HV_VTL_OWN, HV_REGISTER_VSM_PARTITION_CONFIG, 1 | 0xf << 1, 0);
}

static void vsm_set_up(void)
{
	hv_start();
	hv_indexes_read();
	vtl_bring_up();
	if (vtl_run(protect_enable, 0) != HV_RESULT(HV_SUCCESS, 1))
		tap_bail("protection cannot be enabled");
}

/* What the exit makes the guest lose shows here: the same pages, right after it. */
static void cpuid_touch_do(void)
{
	cpuid_do();
	touch_do();
}

struct cost {
	const char *name;
	void (*function)(void);
	bool paravisor; /* there is no such thing on the bare machine */
	bool vsm; /* nor where VSM is not offered */
};

static const struct cost costs[] = {
	{"cpuid", cpuid_do, false, false},
	{"msr-read", msr_read_do, false, false},
	{"msr-open", msr_open_do, false, false},
	{"msr-synthetic", msr_synthetic_do, true, false},
	{"msr-eoi", msr_eoi_do, true, false},
	{"io-open", io_open_do, false, false},
	{"io-pci-select", io_pci_select_do, false, false},
	{"io-pci-read", io_pci_read_do, false, false},
	{"apic-read", apic_read_do, false, false},
	{"apic-eoi", apic_eoi_do, false, false},
	{"apic-timer", apic_timer_do, false, false},
	{"ioapic-read", ioapic_read_do, false, false},
	{"ipi-self", ipi_do, false, false},
	{"nmi-self", nmi_do, false, false},
	{"touch", touch_do, false, false},
	{"cpuid-touch", cpuid_touch_do, false, false},
	{"vtl-call", vtl_call_do, true, true},
	{"vtl-protect", vtl_protect_do, true, true},
	{"vtl-protect-64", vtl_protect_many_do, true, true},
};

static uint64_t batch_run(void (*function)(void), uint32_t rounds)
{
	uint64_t start = tsc_read();

	for (uint32_t i = 0; i < rounds; i++)
		function();
	return tsc_read() - start;
}

/* So many rounds that a batch lasts long against what reading the clock costs. */
static uint32_t rounds_choose(void (*function)(void))
{
	uint64_t wanted = clock_frequency() / 1000000 * BATCH_US, ticks;
	uint32_t rounds = 16;

	batch_run(function, rounds);
	ticks = batch_run(function, rounds);
	while (ticks < wanted / 16 && rounds < ROUNDS_MAX) {
		rounds *= 2;
		ticks = batch_run(function, rounds);
	}
	ticks = ticks ? ticks : 1;
	rounds = (uint32_t)(rounds * wanted / ticks);
	if (rounds < 16)
		return 16;
	return rounds < ROUNDS_MAX ? rounds : ROUNDS_MAX;
}

static void sort(uint64_t *values, uint32_t count)
{
	for (uint32_t i = 1; i < count; i++) {
		for (uint32_t j = i; j && values[j - 1] > values[j]; j--) {
			uint64_t value = values[j];

			values[j] = values[j - 1];
			values[j - 1] = value;
		}
	}
}

/* Tenths of a nanosecond. Ticks times 10^7 are far below 64 bits for a batch of milliseconds. */
static uint64_t time_of_one(uint64_t ticks, uint32_t rounds)
{
	return ticks * 10000000 / (clock_frequency() / 1000) / rounds;
}

static void cost_measure(const struct cost *cost)
{
	uint32_t rounds = rounds_choose(cost->function);
	uint64_t batches[BATCHES], median, least;

	for (uint32_t i = 0; i < BATCHES; i++)
		batches[i] = batch_run(cost->function, rounds);
	sort(batches, BATCHES);
	median = time_of_one(batches[BATCHES / 2], rounds);
	least = time_of_one(batches[0], rounds);
	print("exitcost: %s %u %lu.%lu %lu.%lu\n", cost->name, rounds, median / 10, median % 10,
		least / 10, least % 10);
}

void kernel_main(void)
{
	uint32_t measured = 0;

	tap_note("%s", boot_has_paravisor() ? "under a paravisor" : "on the bare machine");
	paging_set_up();
	apic_enable();
	trap_handler_set(VECTOR_IPI, ipi_handle);
	trap_handler_set(VECTOR_TIMER, timer_handle);
	trap_handler_set(TRAP_NMI, nmi_handle);
	apic_write(APIC_ICR_HIGH, cpu_self()->apic_id << 24);
	apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
	interrupts_enable();
	if (!acpi_machine_get()->ioapic)
		tap_bail("there is no I/O APIC");
	if (vtl_is_offered())
		vsm_set_up();
	for (uint32_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
		if ((costs[i].paravisor && !boot_has_paravisor()) ||
			(costs[i].vsm && !vtl_is_offered()))
			continue;
		cost_measure(&costs[i]);
		measured++;
	}
	apic_timer_stop();
	interrupts_disable();
	tap_check(measured > 0, "%u costs measured", measured);
}
