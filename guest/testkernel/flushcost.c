/*
 * What a flush of another processor's TLB costs: one processor asks, over and over, for a page to be
 * flushed on itself and one other, which reads memory meanwhile (busy) or halts (idle); by flush
 * hypercall, and by an interrupt as a kernel does it, sent by hypercall where there is one. A line
 * for each:
 *
 *	flushcost: NAME ROUNDS MEDIAN LEAST
 *
 * ROUNDS is how often it was done in one batch; the other two are the nanoseconds of one, with one
 * decimal, in the middle one and in the fastest of the batches. The fastest is what a busy computer
 * disturbs least. The asking processor touches some pages after each flush, as a kernel would. No
 * judgement about the figures may enter.
 */
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "hv.h"
#include "machine.h"
#include "print.h"
#include "tap.h"
#include "trap.h"

#define BATCHES	     401u
#define ROUNDS	     4u
#define VECTOR_FLUSH 0x62
#define PAGES	     16u
#define PAGE_BYTES   4096u
#define CR4_PGE	     0x80ull
#define LIMIT_US     6000000u
#define STILL_MS     1u

static _Alignas(4096) volatile uint8_t pages[PAGES * PAGE_BYTES];
static _Alignas(4096) uint64_t input[HV_INPUT_WORDS];
static atomic_bool leave;
static _Atomic uint64_t asked, answered;
static _Atomic uint64_t woken;
static _Atomic uint64_t came_by, away; /* the busy one's: when last, and the longest pause */
static uint64_t mask;

static void pages_touch(void)
{
	for (uint32_t i = 0; i < PAGES; i++)
		(void)pages[i * PAGE_BYTES];
}

static void page_flush(void)
{
	__asm__ volatile("invlpg %0" ::"m"(pages[0]) : "memory");
}

static void eoi(void)
{
	if (boot_has_paravisor())
		msr_write(HV_MSR_EOI, 0);
	else
		apic_eoi();
}

/* As Linux does it: the end of the interrupt first, then the work, then the answer. */
static void flush_handle(struct trap_frame *frame)
{
	(void)frame;
	eoi();
	page_flush();
	atomic_store_explicit(&answered, atomic_load_explicit(&asked, memory_order_acquire),
		memory_order_release);
}

static void busy_run(void *argument)
{
	(void)argument;
	interrupts_enable();
	atomic_store(&came_by, tsc_read());
	while (!atomic_load_explicit(&leave, memory_order_relaxed)) {
		uint64_t now = tsc_read();

		pages_touch();
		if (now - atomic_load(&came_by) > atomic_load(&away))
			atomic_store(&away, now - atomic_load(&came_by));
		atomic_store(&came_by, now);
	}
}

static void idle_run(void *argument)
{
	(void)argument;
	interrupts_disable();
	while (!atomic_load_explicit(&leave, memory_order_relaxed)) {
		atomic_fetch_add_explicit(&woken, 1, memory_order_relaxed);
		__asm__ volatile("sti; hlt; cli" ::: "memory");
	}
	interrupts_enable();
}

static void hypercall_do(void)
{
	input[0] = cr3_read();
	input[1] = 0;
	input[2] = mask;
	input[3] = (uint64_t)pages;
	if (hv_call(HV_FLUSH_LIST | HV_REPS(1), (uint64_t)input) != HV_REPS(1))
		tap_bail("a flush failed");
	pages_touch();
}

static void own_do(void)
{
	input[0] = cr3_read();
	input[1] = 0;
	input[2] = 1ull << hv_index_of(0);
	input[3] = (uint64_t)pages;
	if (hv_call(HV_FLUSH_LIST | HV_REPS(1), (uint64_t)input) != HV_REPS(1))
		tap_bail("a flush failed");
	pages_touch();
}

static void ipi_do(void)
{
	uint64_t turn = atomic_load(&asked) + 1;

	atomic_store(&asked, turn);
	page_flush();
	if (boot_has_paravisor()) {
		uint64_t words[HV_FAST_WORDS] = {VECTOR_FLUSH, 1ull << hv_index_of(1)};

		if (hv_call_fast(HV_SEND_IPI | HV_FAST, words) != 0)
			tap_bail("an interrupt could not be sent");
	} else {
		apic_write(APIC_ICR_HIGH, cpus[1].apic_id << 24);
		apic_write(APIC_ICR, ICR_ASSERT | VECTOR_FLUSH);
	}
	while (atomic_load_explicit(&answered, memory_order_acquire) != turn)
		cpu_relax();
	pages_touch();
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

/* Tenths of a nanosecond. */
static uint64_t time_of_one(uint64_t ticks)
{
	return ticks * 10000000 / (clock_frequency() / 1000) / ROUNDS;
}

static void cost_measure(const char *name, void (*function)(void), void (*other)(void *))
{
	uint64_t still = clock_frequency() / 1000 * STILL_MS;
	uint64_t batches[BATCHES] = {0}, median, least;
	uint64_t deadline;
	uint32_t batch = 0;

	atomic_store(&leave, false);
	cpu_call_start(&cpus[1], other, NULL);
	clock_delay(2000);
	deadline = clock_deadline(LIMIT_US);
	while (batch < BATCHES && !clock_passed(deadline)) {
		uint64_t start = tsc_read(), end;

		atomic_store(&away, 0);
		for (uint32_t i = 0; i < ROUNDS; i++)
			function();
		end = tsc_read();
		if (other == busy_run &&
			(atomic_load(&away) > still || atomic_load(&came_by) + still < end))
			continue;
		batches[batch++] = end - start;
	}
	atomic_store(&leave, true);
	while (!cpu_call_done(&cpus[1], 1000))
		apic_ipi_send(cpus[1].apic_id, ICR_ASSERT | VECTOR_FLUSH);
	sort(batches, batch);
	median = time_of_one(batches[batch / 2]);
	least = time_of_one(batches[0]);
	print("flushcost: %s %u %lu.%lu %lu.%lu\n", name, batch, median / 10, median % 10,
		least / 10, least % 10);
}

void kernel_main(void)
{
	tap_note("%s", boot_has_paravisor() ? "under a paravisor" : "on the bare machine");
	if (cpu_all_start() < 2)
		tap_bail("needs two processors");
	trap_handler_set(VECTOR_FLUSH, flush_handle);
	interrupts_enable();
	if (boot_has_paravisor()) {
		hv_start();
		hv_indexes_read();
		if (!hv_mask_get(3, &mask))
			tap_bail("the first two processors have no indexes below 64");
		cost_measure("hypercall-busy", hypercall_do, busy_run);
		cost_measure("hypercall-idle", hypercall_do, idle_run);
		cost_measure("hypercall-own", own_do, busy_run);
	}
	cost_measure("ipi-busy", ipi_do, busy_run);
	cost_measure("ipi-idle", ipi_do, idle_run);
	interrupts_disable();
	tap_check(true, "all measured");
}
