#include "vitals.h"

#include "apic.h"
#include "clock.h"
#include "cpu.h"
#include "tap.h"

#define VECTOR_TIMER 0x4e
#define SETTLE_US    20000u
#define LIMIT_US     3000000u

static _Atomic uint32_t nmis[CPU_COUNT_MAX], interrupts[CPU_COUNT_MAX];
static _Atomic uint32_t timers;
static uint32_t starts[CPU_COUNT_MAX];

static void nmi_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add(&nmis[cpu_self()->number], 1);
}

static void interrupt_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add(&interrupts[cpu_self()->number], 1);
	apic_eoi();
}

static void timer_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add(&timers, 1);
	apic_eoi();
}

static uint32_t sum(_Atomic uint32_t *counters)
{
	uint32_t total = 0;

	for (uint32_t i = 0; i < cpu_count(); i++)
		total += atomic_load(&counters[i]);
	return total;
}

uint32_t vitals_nmis(void)
{
	return sum(nmis);
}

uint32_t vitals_interrupts(void)
{
	return sum(interrupts);
}

void vitals_start_again(void)
{
	for (uint32_t i = 0; i < cpu_count(); i++)
		starts[i] = atomic_load(&cpus[i].starts);
}

void vitals_start(void)
{
	trap_handler_set(TRAP_NMI, nmi_handle);
	trap_handler_set(VITALS_VECTOR, interrupt_handle);
	trap_handler_set(VECTOR_TIMER, timer_handle);
	cpu_all_start();
	vitals_start_again();
	interrupts_enable();
}

static void nothing_run(void *argument)
{
	(void)argument;
}

bool vitals_good(void)
{
	bool good = true;

	for (uint32_t i = 1; i < cpu_count(); i++) {
		cpu_call_start(&cpus[i], nothing_run, NULL);
		if (cpu_call_done(&cpus[i], LIMIT_US) && atomic_load(&cpus[i].starts) == starts[i])
			continue;
		tap_note("processor %u is gone", i);
		good = false;
		if (!cpu_start(&cpus[i]))
			tap_bail("processor %u does not come back either", i);
		starts[i] = atomic_load(&cpus[i].starts);
	}
	return good;
}

bool vitals_untouched(uint32_t before)
{
	clock_delay(SETTLE_US);
	return vitals_good() && vitals_nmis() == before;
}

/* Every processor once more than remembered, but for the one that sent. */
static bool everybody_got(_Atomic uint32_t *counters, const uint32_t *before)
{
	bool all = true;

	for (uint32_t i = 1; i < cpu_count(); i++)
		all &= clock_wait_for(atomic_load(&counters[i]) == before[i] + 1, LIMIT_US);
	return all;
}

void vitals_check(void)
{
	uint32_t before[CPU_COUNT_MAX], first = atomic_load(&timers);

	apic_timer_start(VECTOR_TIMER, 1000);
	tap_check(clock_wait_for(atomic_load(&timers) == first + 1, LIMIT_US),
		"afterwards: the timer works");
	for (uint32_t i = 0; i < cpu_count(); i++)
		before[i] = atomic_load(&interrupts[i]);
	apic_ipi_send(0, ICR_OTHERS | ICR_ASSERT | VITALS_VECTOR);
	tap_check(everybody_got(interrupts, before) && vitals_good(),
		"afterwards: every processor answers");
	for (uint32_t i = 0; i < cpu_count(); i++)
		before[i] = atomic_load(&nmis[i]);
	apic_ipi_send(0, ICR_OTHERS | ICR_ASSERT | ICR_NMI);
	tap_check(everybody_got(nmis, before), "afterwards: NMIs arrive where they are sent");
}
