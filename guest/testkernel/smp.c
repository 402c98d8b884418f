/*
 * Several processors as their manual describes them: starting, stopping and restarting, and every
 * way in which one can interrupt others. All of it holds on the bare machine.
 */
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "machine.h"
#include "tap.h"
#include "trap.h"

#define VECTOR_COUNT 0x45
#define VECTOR_PING  0x55
#define VECTOR_TIMER 0x65

#define PING_PONGS  10000u
#define NMI_SINGLES 200u
#define NMI_STORM   500u
#define LIMIT_US    5000000u

/* One line each, written by its processor alone. */
static struct {
	_Alignas(64) _Atomic uint32_t ipis;
	_Atomic uint32_t nmis;
	_Atomic uint32_t timers;
	_Atomic uint32_t pings;
} counts[CPU_COUNT_MAX];

static uint32_t cpu_total;

#define COUNT(cpu, what) atomic_load_explicit(&counts[cpu].what, memory_order_acquire)

static void count(_Atomic uint32_t *counter)
{
	/* Pairs with the acquire in COUNT. */
	atomic_fetch_add_explicit(counter, 1, memory_order_release);
}

static void ipi_handle(struct trap_frame *frame)
{
	(void)frame;
	count(&counts[cpu_self()->number].ipis);
	apic_eoi();
}

static void nmi_handle(struct trap_frame *frame)
{
	(void)frame;
	count(&counts[cpu_self()->number].nmis);
}

static void timer_handle(struct trap_frame *frame)
{
	(void)frame;
	count(&counts[cpu_self()->number].timers);
	apic_eoi();
}

/* --- what the other processors do meanwhile --------------------------------------------------- */

static atomic_bool leave;

static void spin_run(void *argument)
{
	(void)argument;
	while (!atomic_load_explicit(&leave, memory_order_acquire))
		cpu_relax();
}

static void halt_run(void *argument)
{
	(void)argument;
	interrupts_disable();
	while (!atomic_load_explicit(&leave, memory_order_acquire))
		interrupt_wait();
	interrupts_enable();
}

static void others_start(void (*function)(void *))
{
	atomic_store_explicit(&leave, false, memory_order_release);
	for (uint32_t i = 1; i < cpu_total; i++)
		cpu_call_start(&cpus[i], function, NULL);
	/* Long enough that a processor that halts has done so. */
	clock_delay(20000);
}

static void others_stop(void)
{
	atomic_store_explicit(&leave, true, memory_order_release);
	apic_ipi_send(0, ICR_OTHERS | ICR_ASSERT | VECTOR_WAKE);
	for (uint32_t i = 1; i < cpu_total; i++)
		cpu_call_wait(&cpus[i]);
}

/* --- fixed interrupts ------------------------------------------------------------------------- */

static uint32_t before[CPU_COUNT_MAX];

static void ipis_remember(void)
{
	for (uint32_t i = 0; i < cpu_total; i++)
		before[i] = COUNT(i, ipis);
}

/* Did exactly the processors of this mask get one each? Waits for them, then for surplus. */
static bool ipis_arrived(uint64_t mask)
{
	bool right = true;

	for (uint32_t i = 0; i < cpu_total; i++)
		if (mask >> i & 1)
			right &= clock_wait_for(COUNT(i, ipis) != before[i], LIMIT_US);
	clock_delay(5000);
	for (uint32_t i = 0; i < cpu_total; i++)
		right &= COUNT(i, ipis) - before[i] == (mask >> i & 1);
	if (!right)
		for (uint32_t i = 0; i < cpu_total; i++)
			tap_note("processor %u got %u", i, COUNT(i, ipis) - before[i]);
	return right;
}

static bool ipi_lands(uint32_t destination, uint32_t command, uint64_t mask)
{
	ipis_remember();
	apic_ipi_send(destination, command | ICR_ASSERT | VECTOR_COUNT);
	return ipis_arrived(mask);
}

static uint64_t all_mask(void)
{
	return cpu_total == 64 ? ~0ull : (1ull << cpu_total) - 1;
}

static void fixed_test(const char *state)
{
	bool right = true;

	for (uint32_t i = 0; i < cpu_total; i++)
		right &= ipi_lands(cpus[i].apic_id, ICR_FIXED, 1ull << i);
	tap_check(right, "fixed, to each id in turn (%s)", state);
	tap_check(ipi_lands(0, ICR_SELF, 1), "fixed, shorthand self (%s)", state);
	tap_check(ipi_lands(0, ICR_ALL, all_mask()), "fixed, shorthand all (%s)", state);
	tap_check(ipi_lands(0, ICR_OTHERS, all_mask() & ~1ull),
		"fixed, shorthand all but self (%s)", state);
	tap_check(ipi_lands(0xff, ICR_FIXED, all_mask()), "fixed, physical broadcast (%s)", state);
	tap_check(ipi_lands(0xfe, ICR_FIXED, 0), "fixed, to an id that nobody has (%s)", state);
}

struct logical_setup {
	uint32_t dfr;
	uint32_t ldr;
};

static void logical_run(void *argument)
{
	const struct logical_setup *setup = argument;

	apic_write(APIC_DFR, setup->dfr);
	apic_write(APIC_LDR, setup->ldr);
}

static void logical_set(uint32_t number, uint32_t dfr, uint32_t id)
{
	struct logical_setup setup = {dfr, id << 24};

	if (number)
		cpu_call(&cpus[number], logical_run, &setup);
	else
		logical_run(&setup);
}

static void flat_test(void)
{
	uint32_t members = cpu_total < 8 ? cpu_total : 8;
	bool right = true;

	for (uint32_t i = 0; i < cpu_total; i++)
		logical_set(i, APIC_DFR_FLAT, i < 8 ? 1u << i : 0);
	for (uint32_t i = 0; i < members; i++)
		right &= ipi_lands(1u << i, ICR_LOGICAL, 1ull << i);
	tap_check(right, "logical flat, to each in turn");
	right = true;
	for (uint32_t mask = 1; mask<1u << members; mask += members> 4 ? 37 : 1)
		right &= ipi_lands(mask, ICR_LOGICAL, mask);
	tap_check(right, "logical flat, to sets");
}

/* Four to a cluster. */
static void cluster_test(void)
{
	uint32_t members = cpu_total < 60 ? cpu_total : 60;
	bool right = true;

	for (uint32_t i = 0; i < cpu_total; i++)
		logical_set(i, APIC_DFR_CLUSTER, i < 60 ? i / 4 << 4 | 1u << i % 4 : 0);
	for (uint32_t i = 0; i < members; i++)
		right &= ipi_lands(i / 4 << 4 | 1u << i % 4, ICR_LOGICAL, 1ull << i);
	tap_check(right, "logical cluster, to each in turn");
	right = true;
	for (uint32_t cluster = 0; cluster * 4 < members; cluster++)
		right &= ipi_lands(cluster << 4 | 0xf, ICR_LOGICAL,
			(0xfull << cluster * 4) & ((1ull << members) - 1));
	tap_check(right, "logical cluster, to whole clusters");
	for (uint32_t i = 0; i < cpu_total; i++)
		logical_set(i, APIC_DFR_FLAT, i < 8 ? 1u << i : 0);
}

static void lowest_test(void)
{
	uint32_t members = cpu_total < 8 ? cpu_total : 8, got = 0, wrong = 0;

	ipis_remember();
	for (uint32_t round = 0; round < 50; round++) {
		uint32_t sum = 0;

		apic_ipi_send(
			(1u << members) - 1, ICR_LOGICAL | ICR_LOWEST | ICR_ASSERT | VECTOR_COUNT);
		clock_wait_for(({
			sum = 0;
			for (uint32_t i = 0; i < cpu_total; i++)
				sum += COUNT(i, ipis) - before[i];
			sum > round;
		}),
			LIMIT_US);
		wrong += sum != round + 1;
		got = sum;
	}
	tap_check(got == 50 && !wrong, "lowest priority: exactly one of the set each time");
}

/* --- ping-pong -------------------------------------------------------------------------------- */

static _Atomic uint32_t ball;
static uint32_t partner, ball_end;

/* Even numbers are the first processor's turn. */
static void ping_handle(struct trap_frame *frame)
{
	uint32_t value = atomic_fetch_add_explicit(&ball, 1, memory_order_acq_rel) + 1;

	(void)frame;
	apic_eoi();
	count(&counts[cpu_self()->number].pings);
	if (value < ball_end)
		apic_ipi_send(cpu_self()->number ? cpus[0].apic_id : cpus[partner].apic_id,
			ICR_ASSERT | VECTOR_PING);
}

/*
 * Does the ball arrive? A busy computer may take its time for two processors that wait for each other:
 * what counts is that it never stops. After a minute it need not go on.
 */
static bool ball_gets_there(uint32_t rounds)
{
	enum {
		WINDOW_US = 10000000,
		WINDOWS = 6
	};
	uint32_t seen = 0;

	for (int i = 0; i < WINDOWS; i++) {
		if (clock_wait_for(
			    atomic_load_explicit(&ball, memory_order_acquire) >= rounds, WINDOW_US))
			return true;

		uint32_t now = atomic_load_explicit(&ball, memory_order_acquire);

		if (now == seen)
			return false;
		seen = now;
	}
	ball_end = 0;
	tap_note("stopped after %u of %u", seen, rounds);
	return true;
}

static void ping_pong_test(const char *state, uint32_t rounds)
{
	bool right = true;

	for (partner = 1; partner < cpu_total && partner < 3; partner++) {
		uint64_t start = tsc_read();

		ball_end = rounds;
		atomic_store_explicit(&ball, 0, memory_order_release);
		apic_ipi_send(cpus[partner].apic_id, ICR_ASSERT | VECTOR_PING);
		right &= ball_gets_there(rounds);
		tap_note("%lu ns each way",
			(tsc_read() - start) * 1000 / (ball + 1) /
				(clock_frequency() / 1000000 + 1));
	}
	tap_check(right, "%u IPIs to and fro (%s)", rounds, state);
}

/* --- NMIs ------------------------------------------------------------------------------------- */

static bool nmi_lands(uint32_t destination, uint32_t command, uint64_t mask)
{
	uint32_t start[CPU_COUNT_MAX] = {0};
	bool right = true;

	for (uint32_t i = 0; i < cpu_total; i++)
		start[i] = COUNT(i, nmis);
	apic_ipi_send(destination, command | ICR_NMI | ICR_ASSERT);
	for (uint32_t i = 0; i < cpu_total; i++)
		if (mask >> i & 1)
			right &= clock_wait_for(COUNT(i, nmis) != start[i], LIMIT_US);
	clock_delay(3000);
	for (uint32_t i = 0; i < cpu_total; i++)
		right &= COUNT(i, nmis) - start[i] == (mask >> i & 1);
	return right;
}

static void nmi_test(const char *state)
{
	bool right = true;

	for (uint32_t i = 0; i < cpu_total; i++)
		right &= nmi_lands(cpus[i].apic_id, 0, 1ull << i);
	tap_check(right, "NMI, to each id in turn (%s)", state);
	tap_check(nmi_lands(0, ICR_OTHERS, all_mask() & ~1ull), "NMI, all but self (%s)", state);

	/* One at a time, each seen before the next is sent: none lost, none doubled. */
	right = true;
	for (uint32_t i = 1; i < cpu_total; i++) {
		uint32_t start = COUNT(i, nmis);

		for (uint32_t n = 1; n <= NMI_SINGLES; n++) {
			apic_ipi_send(cpus[i].apic_id, ICR_NMI | ICR_ASSERT);
			right &= clock_wait_for(COUNT(i, nmis) - start >= n, LIMIT_US);
			if (!right)
				break;
		}
		right &= COUNT(i, nmis) - start == NMI_SINGLES;
	}
	tap_check(right, "NMI, %u to each, acknowledged: exactly as many arrive (%s)", NMI_SINGLES,
		state);

	/* Without waiting, several may merge, but the last one arrives. */
	right = true;
	for (uint32_t i = 1; i < cpu_total; i++) {
		uint32_t start = COUNT(i, nmis);

		for (uint32_t n = 0; n < NMI_STORM; n++)
			apic_ipi_send(cpus[i].apic_id, ICR_NMI | ICR_ASSERT);
		right &= clock_wait_for(COUNT(i, nmis) != start, LIMIT_US);
		clock_delay(10000);
		right &= COUNT(i, nmis) - start >= 1 && COUNT(i, nmis) - start <= NMI_STORM;
	}
	tap_check(right, "NMI, a storm of %u to each: between 1 and %u arrive (%s)", NMI_STORM,
		NMI_STORM, state);
}

static _Atomic uint32_t nmi_depth, nmi_deepest, nmi_entries;

/* The first one sends another to itself and stays: it must not come before this one's IRET. */
static void nmi_nested_handle(struct trap_frame *frame)
{
	uint32_t depth = atomic_fetch_add_explicit(&nmi_depth, 1, memory_order_relaxed) + 1;
	uint32_t entry = atomic_fetch_add_explicit(&nmi_entries, 1, memory_order_relaxed);

	(void)frame;
	if (depth > atomic_load_explicit(&nmi_deepest, memory_order_relaxed))
		atomic_store_explicit(&nmi_deepest, depth, memory_order_relaxed);
	if (entry == 0) {
		apic_ipi_send(cpu_self()->apic_id, ICR_NMI | ICR_ASSERT);
		/* Exits while NMIs are blocked must not unblock them. */
		for (uint32_t i = 0; i < 50; i++)
			cpuid_get(0, 0);
		clock_delay(5000);
	}
	atomic_fetch_sub_explicit(&nmi_depth, 1, memory_order_release);
}

static void nmi_blocked_run(void *argument)
{
	(void)argument;
	atomic_store(&nmi_depth, 0);
	atomic_store(&nmi_deepest, 0);
	atomic_store(&nmi_entries, 0);
	apic_ipi_send(cpu_self()->apic_id, ICR_NMI | ICR_ASSERT);
	clock_wait_for(atomic_load(&nmi_entries) >= 2, LIMIT_US);
	clock_delay(5000);
}

static void nmi_blocked_test(void)
{
	bool once = true, flat = true;

	trap_handler_set(TRAP_NMI, nmi_nested_handle);
	for (uint32_t i = 0; i < cpu_total; i++) {
		if (i)
			cpu_call(&cpus[i], nmi_blocked_run, NULL);
		else
			nmi_blocked_run(NULL);
		flat &= atomic_load(&nmi_deepest) == 1;
		once &= atomic_load(&nmi_entries) == 2;
	}
	trap_handler_set(TRAP_NMI, nmi_handle);
	tap_check(flat, "an NMI waits for the IRET of the one before");
	tap_check(once, "and then arrives once");
}

/* --- INIT and SIPI ---------------------------------------------------------------------------- */

static _Atomic uint32_t beats[CPU_COUNT_MAX];

static void beat_run(void *argument)
{
	(void)argument;
	while (!atomic_load_explicit(&leave, memory_order_acquire)) {
		atomic_fetch_add_explicit(&beats[cpu_self()->number], 1, memory_order_relaxed);
		cpu_relax();
	}
}

static bool beats_on(uint32_t number)
{
	uint32_t start = atomic_load(&beats[number]);

	return clock_wait_for(atomic_load(&beats[number]) - start > 100, LIMIT_US);
}

static void restart_test(void)
{
	bool stopped = true, ignored = true, back = true;
	uint32_t page = (uint32_t)(cpu_trampoline_get() >> 12);

	others_start(beat_run);
	for (uint32_t i = 1; i < cpu_total; i++) {
		uint32_t starts = atomic_load(&cpus[i].starts), now;

		/* Running: a SIPI alone does nothing. */
		apic_ipi_send(cpus[i].apic_id, ICR_SIPI | ICR_ASSERT | page);
		clock_delay(5000);
		ignored &= beats_on(i) && atomic_load(&cpus[i].starts) == starts;
		/* INIT stops it for good. */
		apic_ipi_send(cpus[i].apic_id, ICR_INIT | ICR_ASSERT);
		clock_delay(10000);
		now = atomic_load(&beats[i]);
		clock_delay(10000);
		stopped &= atomic_load(&beats[i]) == now;
		/* An NMI or an interrupt does not wake it. */
		apic_ipi_send(cpus[i].apic_id, ICR_ASSERT | VECTOR_COUNT);
		clock_delay(5000);
		stopped &= atomic_load(&beats[i]) == now && atomic_load(&cpus[i].starts) == starts;
	}
	atomic_store_explicit(&leave, true, memory_order_release);
	tap_check(ignored, "a SIPI to a running processor is ignored");
	tap_check(stopped, "INIT stops a running processor");
	for (uint32_t i = 1; i < cpu_total; i++) {
		uint32_t starts = atomic_load(&cpus[i].starts);

		back &= cpu_start(&cpus[i]);
		back &= atomic_load(&cpus[i].starts) == starts + 1;
	}
	tap_check(back, "INIT and SIPI start it again, once");

	back = true;
	for (uint32_t round = 0; round < 10; round++)
		for (uint32_t i = 1; i < cpu_total; i++)
			back &= cpu_start(&cpus[i]);
	tap_check(back, "ten times over");

	/* All at once, the way an operating system in a hurry does it. */
	for (uint32_t i = 1; i < cpu_total; i++) {
		atomic_store(&cpus[i].state, CPU_ABSENT);
		atomic_store(&cpus[i].function, NULL);
	}
	apic_ipi_send(0, ICR_OTHERS | ICR_INIT | ICR_ASSERT);
	clock_delay(10000);
	apic_ipi_send(0, ICR_OTHERS | ICR_SIPI | ICR_ASSERT | page);
	back = true;
	for (uint32_t i = 1; i < cpu_total; i++)
		back &= clock_wait_for(atomic_load(&cpus[i].state) == CPU_IDLE, LIMIT_US);
	tap_check(back, "INIT and SIPI to all but self start everybody");
}

/* The APIC registers of a processor that was reset are those of a reset. */
static void timer_run(void *argument)
{
	(void)argument;
	for (uint32_t i = 0; i < 20; i++) {
		uint32_t start = COUNT(cpu_self()->number, timers);

		apic_timer_start(VECTOR_TIMER, 500);
		interrupts_disable();
		while (COUNT(cpu_self()->number, timers) == start)
			interrupt_wait();
		interrupts_enable();
	}
}

static void timers_test(void)
{
	bool right = true;

	for (uint32_t i = 1; i < cpu_total; i++)
		cpu_call_start(&cpus[i], timer_run, NULL);
	timer_run(NULL);
	for (uint32_t i = 1; i < cpu_total; i++)
		cpu_call_wait(&cpus[i]);
	for (uint32_t i = 0; i < cpu_total; i++)
		right &= COUNT(i, timers) == 20;
	tap_check(right, "the APIC timer wakes every processor, twenty times each");
}

static void identity_run(void *argument)
{
	bool *right = argument;
	const struct cpu *self = cpu_self();

	*right = apic_read(APIC_ID) >> 24 == self->apic_id &&
		cpuid_get(1, 0).ebx >> 24 == self->apic_id &&
		!(msr_read(MSR_APIC_BASE) & APIC_BASE_BSP) == (self->number != 0);
}

static void identity_test(void)
{
	bool right;

	identity_run(&right);
	for (uint32_t i = 1; i < cpu_total; i++) {
		bool other = false;

		cpu_call(&cpus[i], identity_run, &other);
		right &= other;
	}
	tap_check(right, "every processor knows who it is");
}

static void tsc_run(void *argument)
{
	*(uint64_t *)argument = tsc_read();
}

static void tsc_test(void)
{
	uint32_t wrong = 0;

	for (uint32_t i = 1; i < cpu_total; i++) {
		uint64_t there = 0, earlier = tsc_read();

		cpu_call(&cpus[i], tsc_run, &there);
		wrong += there < earlier || tsc_read() < there;
	}
	tap_equal(wrong, 0, "the TSCs agree");
}

void kernel_main(void)
{
	trap_handler_set(VECTOR_COUNT, ipi_handle);
	trap_handler_set(VECTOR_PING, ping_handle);
	trap_handler_set(VECTOR_TIMER, timer_handle);
	trap_handler_set(TRAP_NMI, nmi_handle);
	cpu_total = cpu_all_start();
	tap_note("%s, %u processors",
		boot_has_paravisor() ? "under a paravisor" : "on the bare machine", cpu_total);
	tap_check(true, "all processors start");
	interrupts_enable();

	identity_test();
	tsc_test();
	others_start(halt_run);
	fixed_test("halted");
	nmi_test("halted");
	ping_pong_test("halted", PING_PONGS);
	others_stop();
	others_start(spin_run);
	fixed_test("spinning");
	nmi_test("spinning");
	/* Spinners share the runner's processors with the players: time goes with their number. */
	ping_pong_test("spinning", PING_PONGS / (cpu_total * cpu_total));
	others_stop();
	flat_test();
	lowest_test();
	cluster_test();
	nmi_blocked_test();
	timers_test();
	if (cpu_total > 1)
		restart_test();
	fixed_test("after restarts");
	identity_test();
}
