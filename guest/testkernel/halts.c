/*
 * A processor that halts: what ends a HLT does so, once, and nothing else; while another processor keeps
 * flushing its TLB by hypercall, where there is such a thing, so that a paravisor which lets it sleep
 * outside the guest has to bring every wakeup back to it.
 *
 *	rounds=N	of each kind (400)
 *	only=1		nothing but flushes while it sleeps, for who counts kicks
 */
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "hv.h"
#include "machine.h"
#include "tap.h"
#include "trap.h"

#define VECTOR_TEST  0x63
#define VECTOR_TIMER 0x53
#define LIMIT_US     20000000u
#define QUIET_US     3000u
#define FLUSHES	     2000u

static _Alignas(4096) uint64_t input[HV_INPUT_WORDS];
static _Alignas(4096) volatile uint8_t page[4096];
static uint64_t mask;
static bool flushes;

static atomic_bool leave;
static _Atomic uint64_t asked, answered; /* rounds */
static _Atomic uint64_t interrupts, timers, nmis;
static _Atomic uint64_t entered; /* HLTs begun */

static void interrupt_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add(&interrupts, 1);
	apic_eoi();
}

static void timer_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add(&timers, 1);
	apic_eoi();
}

static void nmi_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add(&nmis, 1);
}

/* Flushes the sleeper's TLB so many times. */
static void flush(uint32_t times)
{
	for (uint32_t i = 0; flushes && i < times; i++) {
		input[0] = cr3_read();
		input[1] = 0;
		input[2] = mask;
		input[3] = (uint64_t)page;
		if (hv_call(HV_FLUSH_LIST | HV_REPS(1), (uint64_t)input) != HV_REPS(1))
			tap_bail("a flush failed");
	}
}

static void halt(void)
{
	atomic_fetch_add(&entered, 1);
	__asm__ volatile("sti; hlt; cli" ::: "memory");
}

/* As every kernel idles: looks for work with interrupts off, and sleeps if there is none. */
static void answer_run(void *argument)
{
	(void)argument;
	interrupts_disable();
	while (!atomic_load(&leave)) {
		uint64_t turn = atomic_load(&asked);

		if (atomic_load(&answered) != turn)
			atomic_store(&answered, turn);
		else
			halt();
	}
	interrupts_enable();
}

/* Sleeps with interrupts off, where only an NMI helps. */
static void deaf_run(void *argument)
{
	(void)argument;
	interrupts_disable();
	while (!atomic_load(&leave)) {
		uint64_t before = atomic_load(&nmis);

		atomic_fetch_add(&entered, 1);
		/* A HLT may be left early: an NMI between the two lines would be missed by one that is not. */
		while (atomic_load(&nmis) == before)
			__asm__ volatile("hlt" ::: "memory");
		atomic_fetch_add(&answered, 1);
	}
	interrupts_enable();
}

static void timer_run(void *argument)
{
	uint64_t rounds = *(const uint64_t *)argument;

	interrupts_disable();
	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t before = atomic_load(&timers);

		apic_timer_start(VECTOR_TIMER, 20 + i % 7 * 60);
		while (atomic_load(&timers) == before)
			halt();
		atomic_fetch_add(&answered, 1);
	}
	interrupts_enable();
}

static void sleeper_start(void (*function)(void *), void *argument)
{
	atomic_store(&leave, false);
	atomic_store(&asked, 0);
	atomic_store(&answered, 0);
	atomic_store(&interrupts, 0);
	atomic_store(&entered, 0);
	cpu_call_start(&cpus[1], function, argument);
}

static void sleeper_end(uint32_t command)
{
	atomic_store(&leave, true);
	while (!cpu_call_done(&cpus[1], 2000))
		apic_ipi_send(cpus[1].apic_id, command);
}

static void interrupts_test(uint64_t rounds)
{
	uint64_t late = 0;

	sleeper_start(answer_run, NULL);
	for (uint64_t i = 1; i <= rounds && !late; i++) {
		flush(i % 5);
		if (i % 3 == 0)
			clock_delay(i % 50);
		atomic_store(&asked, i);
		apic_ipi_send(cpus[1].apic_id, ICR_ASSERT | VECTOR_TEST);
		flush(i % 2);
		late += !clock_wait_for(atomic_load(&answered) == i, LIMIT_US);
		/* The next one is to be another: one vector is pending once at most. */
		late += !clock_wait_for(atomic_load(&interrupts) >= i, LIMIT_US);
	}
	tap_equal(late, 0, "an interrupt ends the HLT, also one that came before it");
	flush(10);
	clock_delay(QUIET_US);
	tap_equal(atomic_load(&interrupts), rounds, "each is delivered once");
	sleeper_end(ICR_ASSERT | VECTOR_TEST);
}

static void timer_test(uint64_t rounds)
{
	bool done;

	atomic_store(&timers, 0);
	sleeper_start(timer_run, &rounds);
	do {
		flush(3);
		done = cpu_call_done(&cpus[1], 50);
	} while (!done && atomic_load(&answered) < rounds);
	tap_check(clock_wait_for(atomic_load(&answered) == rounds, LIMIT_US),
		"its own timer ends the HLT");
	cpu_call_wait(&cpus[1]);
	tap_equal(atomic_load(&timers), rounds, "each tick is delivered once");
}

static void deaf_test(uint64_t rounds)
{
	uint64_t late = 0, early = 0;

	atomic_store(&nmis, 0);
	sleeper_start(deaf_run, NULL);
	for (uint64_t i = 1; i <= rounds && !late; i++) {
		late += !clock_wait_for(atomic_load(&entered) == i, LIMIT_US);
		flush(4);
		if (i == 3) {
			apic_ipi_send(cpus[1].apic_id, ICR_ASSERT | VECTOR_TEST);
			flush(20);
			clock_delay(QUIET_US);
		}
		early += atomic_load(&answered) != i - 1;
		apic_ipi_send(cpus[1].apic_id, ICR_ASSERT | ICR_NMI);
		late += !clock_wait_for(atomic_load(&answered) == i, LIMIT_US);
	}
	tap_equal(late, 0, "an NMI ends a HLT with interrupts off");
	tap_equal(early, 0, "nothing else does");
	tap_equal(atomic_load(&nmis), rounds, "each NMI is delivered once");
	tap_equal(atomic_load(&interrupts), 0, "an interrupt waits for STI");
	sleeper_end(ICR_ASSERT | ICR_NMI);
	tap_check(clock_wait_for(atomic_load(&interrupts) == 1, LIMIT_US), "and comes then");
}

static void flushes_test(void)
{
	sleeper_start(answer_run, NULL);
	clock_wait_for(atomic_load(&entered) > 0, LIMIT_US);
	clock_delay(QUIET_US);
	flush(FLUSHES);
	tap_note("%lu flushes, %lu times asleep", (uint64_t)FLUSHES, atomic_load(&entered));
	sleeper_end(ICR_ASSERT | VECTOR_TEST);
	tap_check(true, "flushes of a processor that sleeps return");
}

void kernel_main(void)
{
	uint64_t rounds = 400, only = 0;

	boot_number_get("rounds", &rounds);
	boot_number_get("only", &only);
	tap_note("%s", boot_has_paravisor() ? "under a paravisor" : "on the bare machine");
	if (cpu_all_start() < 2)
		tap_bail("needs two processors");
	clock_frequency();
	trap_handler_set(VECTOR_TEST, interrupt_handle);
	trap_handler_set(VECTOR_TIMER, timer_handle);
	trap_handler_set(TRAP_NMI, nmi_handle);
	interrupts_enable();
	flushes = boot_has_paravisor();
	if (flushes) {
		hv_start();
		hv_indexes_read();
		if (!hv_mask_get(3, &mask))
			tap_bail("the first two processors have no indexes below 64");
	}
	if (!only) {
		interrupts_test(rounds);
		timer_test(rounds);
		deaf_test(rounds / 4);
	}
	flushes_test();
	interrupts_disable();
}
