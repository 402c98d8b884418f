/*
 * Interrupts, NMIs, timers, halts and exits at random on all processors at once, for ms=N
 * milliseconds (3000), from seed=N (1). Every interrupt is acknowledged before its sender sends the
 * next, so the counters must match exactly: one lost or doubled fails.
 */
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "machine.h"
#include "tap.h"
#include "trap.h"

#define VECTOR_BASE  0x60 /* and one for each sender */
#define VECTOR_TIMER 0xe0
#define LIMIT_US     10000000u

enum action {
	ACTION_IPI,
	ACTION_NMI,
	ACTION_HALT,
	ACTION_CPUID,
	ACTION_PORT,
	ACTION_MSR,
	ACTION_APIC,
	ACTION_PRIORITY,
	ACTION_COUNT,
};

/* What one processor did and got; written by itself alone, but for the lock. */
static struct {
	_Alignas(64) _Atomic uint64_t got_from[CPU_COUNT_MAX];
	_Atomic uint64_t nmis;
	_Atomic uint64_t timers;
	_Alignas(64) atomic_flag nmi_lock; /* held by the one who has an NMI under way to it */
	uint64_t nmis_sent_here; /* under the lock */
	_Alignas(64) uint64_t sent_to[CPU_COUNT_MAX];
	uint64_t actions[ACTION_COUNT];
	uint64_t timers_set;
	uint64_t random;
	uint64_t wrong_answers;
	uint64_t unanswered;
} states[CPU_COUNT_MAX];

static uint32_t total;
static uint64_t end_tsc;
static struct cpuid identity;

static void ipi_handle(struct trap_frame *frame)
{
	uint32_t from = (uint32_t)frame->vector - VECTOR_BASE;

	/* Release: pairs with the acquire of the sender that waits for it. */
	atomic_fetch_add_explicit(
		&states[cpu_self()->number].got_from[from], 1, memory_order_release);
	apic_eoi();
}

static void nmi_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add_explicit(&states[cpu_self()->number].nmis, 1, memory_order_release);
}

static void timer_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add_explicit(&states[cpu_self()->number].timers, 1, memory_order_relaxed);
	apic_eoi();
}

/* xorshift: Marsaglia 2003. */
static uint32_t random_get(uint32_t self)
{
	uint64_t x = states[self].random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	states[self].random = x;
	return (uint32_t)(x >> 16);
}

static void ipi_do(uint32_t self, uint32_t target)
{
	uint64_t wanted = ++states[self].sent_to[target];

	apic_ipi_send(cpus[target].apic_id, ICR_ASSERT | (VECTOR_BASE + self));
	if (!clock_wait_for(atomic_load_explicit(
				    &states[target].got_from[self], memory_order_acquire) >= wanted,
		    LIMIT_US))
		states[self].unanswered++;
}

/* NMIs have no sender: one at a time to each target. Whoever finds one under way does without. */
static void nmi_do(uint32_t self, uint32_t target)
{
	uint64_t wanted;

	if (atomic_flag_test_and_set_explicit(&states[target].nmi_lock, memory_order_acquire))
		return;
	wanted = ++states[target].nmis_sent_here;
	apic_ipi_send(cpus[target].apic_id, ICR_ASSERT | ICR_NMI);
	if (!clock_wait_for(
		    atomic_load_explicit(&states[target].nmis, memory_order_acquire) >= wanted,
		    LIMIT_US))
		states[self].unanswered++;
	atomic_flag_clear_explicit(&states[target].nmi_lock, memory_order_release);
}

static void halt_do(uint32_t self)
{
	uint64_t limit = clock_deadline(LIMIT_US), wanted = ++states[self].timers_set;

	interrupts_disable();
	apic_timer_start(VECTOR_TIMER, 1 + random_get(self) % 200);
	while (atomic_load_explicit(&states[self].timers, memory_order_relaxed) < wanted) {
		if (clock_passed(limit)) {
			states[self].unanswered++;
			break;
		}
		interrupt_wait();
	}
	interrupts_enable();
}

static void cpuid_do(uint32_t self)
{
	struct cpuid now = cpuid_get(0, 0);

	states[self].wrong_answers +=
		now.ebx != identity.ebx || now.ecx != identity.ecx || now.edx != identity.edx;
}

static void action_do(uint32_t self, enum action action, uint32_t target)
{
	states[self].actions[action]++;
	switch (action) {
	case ACTION_IPI:
		ipi_do(self, target);
		break;
	case ACTION_NMI:
		nmi_do(self, target);
		break;
	case ACTION_HALT:
		halt_do(self);
		break;
	case ACTION_CPUID:
		cpuid_do(self);
		break;
	case ACTION_PORT:
		io_read8(0x61);
		break;
	case ACTION_MSR:
		states[self].wrong_answers += (msr_read(MSR_EFER) & EFER_LME) == 0;
		msr_write(0xc0000102, self);
		states[self].wrong_answers += msr_read(0xc0000102) != self;
		break;
	case ACTION_APIC:
		states[self].wrong_answers += apic_read(APIC_ID) >> 24 != cpus[self].apic_id;
		break;
	case ACTION_PRIORITY:
		/* Holds interrupts off for a moment; those waiting must come afterwards. */
		cr8_write(random_get(self) % 16);
		cpuid_do(self);
		cr8_write(0);
		break;
	case ACTION_COUNT:
		break;
	}
}

static void storm_run(void *argument)
{
	uint32_t self = cpu_self()->number;

	(void)argument;
	while ((int64_t)(tsc_read() - end_tsc) < 0 && !states[self].unanswered) {
		uint32_t number = random_get(self);

		action_do(self, number % ACTION_COUNT, number / ACTION_COUNT % total);
	}
}

/* All have stopped: what was sent to each must be what each got. */
static void storm_check(void)
{
	uint64_t ipis = 0, nmis = 0, halts = 0, wrong = 0, unanswered = 0, exits = 0;
	bool ipis_match = true, nmis_match = true, timers_match = true;

	for (uint32_t to = 0; to < total; to++) {
		for (uint32_t from = 0; from < total; from++) {
			ipis += states[from].sent_to[to];
			ipis_match &=
				atomic_load(&states[to].got_from[from]) == states[from].sent_to[to];
		}
		nmis += states[to].nmis_sent_here;
		nmis_match &= atomic_load(&states[to].nmis) == states[to].nmis_sent_here;
		halts += states[to].timers_set;
		timers_match &= atomic_load(&states[to].timers) == states[to].timers_set;
		wrong += states[to].wrong_answers;
		unanswered += states[to].unanswered;
		for (uint32_t i = ACTION_CPUID; i < ACTION_COUNT; i++)
			exits += states[to].actions[i];
	}
	tap_note("%lu IPIs, %lu NMIs, %lu halts, %lu other actions", ipis, nmis, halts, exits);
	tap_equal(unanswered, 0, "everything was answered");
	tap_check(ipis_match, "every IPI arrived exactly once");
	tap_check(nmis_match, "every NMI arrived exactly once");
	tap_check(timers_match, "every timer interrupted exactly once");
	tap_equal(wrong, 0, "every exit gave the right answer");
	tap_check(ipis && nmis && halts && exits, "there was something of each");
}

void kernel_main(void)
{
	uint64_t ms = 3000, seed = 1;

	boot_number_get("ms", &ms);
	boot_number_get("seed", &seed);
	total = cpu_all_start();
	tap_note("%s, %u processors, %lu ms, seed %lu",
		boot_has_paravisor() ? "under a paravisor" : "on the bare machine", total, ms,
		seed);
	identity = cpuid_get(0, 0);
	for (uint32_t i = 0; i < total; i++) {
		trap_handler_set(VECTOR_BASE + i, ipi_handle);
		states[i].random = (seed + 1) * 0x9e3779b97f4a7c15ull + i * 0xbf58476d1ce4e5b9ull;
	}
	trap_handler_set(VECTOR_TIMER, timer_handle);
	trap_handler_set(TRAP_NMI, nmi_handle);
	interrupts_enable();
	/* The first call measures the timer; it must not be in the middle of the storm. */
	apic_timer_start(VECTOR_TIMER, 1000);
	clock_wait_for(atomic_load(&states[0].timers) == 1, LIMIT_US);
	tap_equal(atomic_load(&states[0].timers), 1, "the timer works");
	atomic_store(&states[0].timers, 0);

	end_tsc = clock_deadline(ms * 1000);
	for (uint32_t i = 1; i < total; i++)
		cpu_call_start(&cpus[i], storm_run, NULL);
	storm_run(NULL);
	for (uint32_t i = 1; i < total; i++)
		if (!cpu_call_done(&cpus[i], 2 * LIMIT_US))
			tap_bail("processor %u does not end its storm", i);
	clock_delay(50000);
	storm_check();
}
