/*
 * The wakeup mailbox: every transition, every bad input, and threads that play the guest's and the
 * platform's part at once. Builds with the thread sanitizer as well (see docs/mailbox.md).
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "core/mailbox/mailbox.h"

#define VPS	      8u
#define TRACE_ENTRIES 64
#define RAM_END	      0x9f000ull
#define HOLE	      0x50000ull /* a page of Parapet's in the guest's low memory */

/* The machine around the mailbox: its memory, and sleeping VPs that remember a wake. */
static struct machine {
	struct mailbox mailbox;
	struct mailbox_page page __attribute__((aligned(4096)));
	struct block_vp block[VPS];
	struct trace_ring trace[VPS];
	uint8_t ring[VPS][64 + TRACE_ENTRIES * sizeof(struct trace_record)]
		__attribute__((aligned(64)));
	sem_t wake[VPS];
	unsigned int wakes; /* single-threaded tests only */
	bool senders_refused;
} machine;

static void machine_wake(void *context, vp_id_t target)
{
	struct machine *m = context;

	__atomic_fetch_add(&m->wakes, 1, __ATOMIC_RELAXED);
	sem_post(&m->wake[target]);
}

static bool machine_vector_allowed(void *context, gpa_t vector)
{
	(void)context;
	return vector.value < RAM_END && (vector.value & PAGE_MASK) != HOLE;
}

static bool machine_sender_allowed(void *context, vp_id_t from)
{
	struct machine *m = context;

	(void)from;
	return !m->senders_refused;
}

static const struct mailbox_ops machine_ops = {
	machine_wake, machine_vector_allowed, machine_sender_allowed};

/* APIC ids are neither dense nor in order. */
static uint32_t apic_id_of(vp_id_t vp)
{
	return (vp * 7 + 3) % 64;
}

static struct mailbox_config machine_config(struct mailbox_vp_config *vp)
{
	memset(&machine, 0, sizeof(machine));
	memset(machine.page.os, 0x5a, sizeof(machine.page.os));
	for (uint32_t i = 0; i < VPS; i++) {
		assert_true(trace_ring_init(&machine.trace[i], i, machine.ring[i], TRACE_ENTRIES));
		sem_init(&machine.wake[i], 0, 0);
		vp[i] = (struct mailbox_vp_config){
			apic_id_of(i), &machine.trace[i], &machine.block[i]};
	}
	return (struct mailbox_config){
		.page = &machine.page,
		.vector_end = 1ull << 32,
		.vps = VPS,
		.boot_vp = 0,
		.vp = vp,
		.ops = &machine_ops,
		.context = &machine,
	};
}

static int machine_setup(void **state)
{
	struct mailbox_vp_config vp[VPS];
	struct mailbox_config config = machine_config(vp);

	(void)state;
	return mailbox_init(&machine.mailbox, &config) ? 0 : -1;
}

/* The guest's half: plain stores, as Linux does them. */
static void guest_store(uint16_t command, uint32_t apic_id, uint64_t vector)
{
	uint8_t *page = (uint8_t *)&machine.page;

	__atomic_store_n((uint32_t *)(page + 4), apic_id, __ATOMIC_RELAXED);
	__atomic_store_n((uint64_t *)(page + 8), vector, __ATOMIC_RELAXED);
	__atomic_store_n((uint16_t *)page, command, __ATOMIC_RELEASE);
}

static uint16_t guest_command(void)
{
	return __atomic_load_n((uint16_t *)&machine.page, __ATOMIC_ACQUIRE);
}

static struct mailbox_result guest_write(
	vp_id_t from, uint16_t command, uint32_t apic_id, uint64_t vector, uint64_t tsc)
{
	guest_store(command, apic_id, vector);
	return mailbox_handle_write(&machine.mailbox, from, tsc);
}

static void assert_os_part_untouched(void)
{
	for (size_t i = 0; i < sizeof(machine.page.os); i++)
		assert_int_equal(machine.page.os[i], 0x5a);
	for (size_t i = 0; i < sizeof(machine.page.firmware); i++)
		assert_int_equal(machine.page.firmware[i], 0);
}

static void ap_start(vp_id_t vp, uint64_t vector, uint64_t tsc)
{
	gpa_t got;

	assert_int_equal(guest_write(0, 1, apic_id_of(vp), vector, tsc).outcome, MAILBOX_WOKEN);
	assert_true(mailbox_park_check(&machine.mailbox, vp, tsc + 1, &got));
	assert_int_equal(got.value, vector);
	assert_true(mailbox_running(&machine.mailbox, vp, tsc + 2));
}

static void test_one_life(void **state)
{
	(void)state;
	struct mailbox *mailbox = &machine.mailbox;
	struct trace_record record[TRACE_ENTRIES];
	uint64_t next = 0;
	gpa_t vector = GPA(1);
	struct mailbox_result result;

	assert_int_equal(mailbox_vp_state(mailbox, 0), MAILBOX_RUNNING);
	assert_int_equal(mailbox_vp_state(mailbox, 3), MAILBOX_PARKED);
	assert_false(mailbox_park_check(mailbox, 3, 10, &vector));

	result = guest_write(0, 1, apic_id_of(3), 0x9a123, 100);
	assert_int_equal(result.outcome, MAILBOX_WOKEN);
	assert_int_equal(result.target, 3);
	assert_int_equal(guest_command(), 0); /* acknowledged before the processor has moved */
	assert_int_equal(machine.wakes, 1);
	assert_int_equal(mailbox_vp_state(mailbox, 3), MAILBOX_REQUESTED);

	assert_true(mailbox_park_check(mailbox, 3, 110, &vector));
	assert_int_equal(vector.value, 0x9a123);
	assert_int_equal(mailbox_vp_state(mailbox, 3), MAILBOX_STARTING);
	assert_true(mailbox_running(mailbox, 3, 120));
	assert_int_equal(machine.block[3].ap_request_tsc, 100);
	assert_int_equal(machine.block[3].ap_start_tsc, 120);

	/* Off again: the test command waits until the processor has really parked. */
	assert_int_equal(guest_write(0, 2, apic_id_of(3), 0, 200).outcome, MAILBOX_PENDING);
	assert_int_equal(guest_command(), 2);
	assert_true(mailbox_going_offline(mailbox, 3, 210));
	assert_int_equal(guest_write(0, 2, apic_id_of(3), 0, 215).outcome, MAILBOX_PENDING);
	assert_int_equal(guest_command(), 2);
	assert_true(mailbox_parked(mailbox, 3, 220));
	assert_int_equal(guest_command(), 0);
	assert_int_equal(mailbox_vp_state(mailbox, 3), MAILBOX_OFFLINE);

	/* And a second time, with the test after it has parked; found awake, it needs no wake. */
	machine.wakes = 0;
	ap_start(3, 0x1000, 300);
	assert_int_equal(machine.wakes, 0);
	assert_true(mailbox_going_offline(mailbox, 3, 310));
	assert_true(mailbox_parked(mailbox, 3, 320));
	assert_int_equal(guest_write(0, 2, apic_id_of(3), 0, 330).outcome, MAILBOX_READY);
	assert_int_equal(guest_command(), 0);

	assert_int_equal(machine.block[0].counter[COUNTER_MAILBOX_WAKEUPS], 2);
	assert_int_equal(machine.block[0].counter[COUNTER_MAILBOX_TESTS], 1);
	assert_int_equal(machine.block[3].counter[COUNTER_MAILBOX_TESTS], 1);
	assert_int_equal(machine.block[3].counter[COUNTER_MAILBOX_OFFLINES], 2);
	assert_int_equal(machine.block[0].counter[COUNTER_MAILBOX_REFUSED], 0);

	/* The trace of the processor itself, all steps in order. */
	static const uint32_t events[] = {TRACE_AP_STARTED, TRACE_AP_RUNNING, TRACE_AP_LEAVING,
		TRACE_AP_OFFLINE, TRACE_AP_TEST, TRACE_AP_STARTED, TRACE_AP_RUNNING,
		TRACE_AP_LEAVING, TRACE_AP_OFFLINE};
	assert_int_equal(
		trace_ring_read(machine.ring[3], TRACE_ENTRIES, &next, record, TRACE_ENTRIES),
		ARRAY_SIZE(events));
	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		assert_int_equal(record[i].event, events[i]);
		assert_int_equal(record[i].a, 3);
	}
	next = 0;
	assert_int_equal(
		trace_ring_read(machine.ring[0], TRACE_ENTRIES, &next, record, TRACE_ENTRIES), 7);
	assert_int_equal(record[0].event, TRACE_AP_REQUEST);
	assert_int_equal(record[0].tsc, 100);
	assert_int_equal(record[1].event, TRACE_AP_ACCEPTED);
	assert_int_equal(record[1].b, 0x9a123);
	assert_os_part_untouched();
}

/* Many are requested before the first has moved. */
static void test_requests_do_not_wait(void **state)
{
	(void)state;
	gpa_t vector;

	for (vp_id_t vp = 1; vp < VPS; vp++) {
		assert_int_equal(
			guest_write(0, 1, apic_id_of(vp), vp * 0x1000, vp).outcome, MAILBOX_WOKEN);
		assert_int_equal(guest_command(), 0);
	}
	for (vp_id_t vp = VPS - 1; vp > 0; vp--) {
		assert_true(mailbox_park_check(&machine.mailbox, vp, 50, &vector));
		assert_int_equal(vector.value, vp * 0x1000);
	}
}

struct bad {
	uint16_t command;
	uint32_t apic_id;
	uint64_t vector;
	enum mailbox_outcome outcome;
	uint16_t left; /* in the command word afterwards */
};

static void test_bad_commands(void **state)
{
	(void)state;
	/* VP 1 runs, 2 is requested, 3 starting, 4 failed, 5 parked, 6 on its way offline. */
	gpa_t vector;

	ap_start(1, 0x1000, 1);
	guest_write(0, 1, apic_id_of(2), 0x2000, 1);
	guest_write(0, 1, apic_id_of(3), 0x3000, 1);
	assert_true(mailbox_park_check(&machine.mailbox, 3, 1, &vector));
	guest_write(0, 1, apic_id_of(4), 0x4000, 1);
	assert_true(mailbox_park_check(&machine.mailbox, 4, 1, &vector));
	assert_true(mailbox_failed(&machine.mailbox, 4, 1, 77));
	assert_int_equal(mailbox_vp_state(&machine.mailbox, 4), MAILBOX_FAILED);

	const struct bad bad[] = {
		{0, apic_id_of(5), 0x1000, MAILBOX_NOTHING, 0},
		{3, apic_id_of(5), 0x1000, MAILBOX_BAD_COMMAND, 3},
		{0x100, apic_id_of(5), 0x1000, MAILBOX_BAD_COMMAND, 0x100},
		{0xffff, 0xffffffff, UINT64_MAX, MAILBOX_BAD_COMMAND, 0xffff},
		{1, 63, 0x1000, MAILBOX_BAD_ID, 1},
		{1, 0xffffffff, 0x1000, MAILBOX_BAD_ID, 1},
		{2, 0xfffffffe, 0x1000, MAILBOX_BAD_ID, 2},
		{1, apic_id_of(5), HOLE, MAILBOX_BAD_VECTOR, 0},
		{1, apic_id_of(5), HOLE + 0xfff, MAILBOX_BAD_VECTOR, 0},
		{1, apic_id_of(5), RAM_END, MAILBOX_BAD_VECTOR, 0},
		{1, apic_id_of(5), 1ull << 32, MAILBOX_BAD_VECTOR, 0},
		{1, apic_id_of(5), 1ull << 52, MAILBOX_BAD_VECTOR, 0},
		{1, apic_id_of(5), 1ull << 56 | 0x1000, MAILBOX_BAD_VECTOR, 0},
		{1, apic_id_of(5), UINT64_MAX, MAILBOX_BAD_VECTOR, 0},
		{1, apic_id_of(0), 0x1000, MAILBOX_BAD_RUNNING, 0},
		{1, apic_id_of(1), 0x1000, MAILBOX_BAD_RUNNING, 0},
		{1, apic_id_of(2), 0x1000, MAILBOX_BAD_BUSY, 0},
		{1, apic_id_of(3), 0x1000, MAILBOX_BAD_BUSY, 0},
		{1, apic_id_of(4), 0x1000, MAILBOX_BAD_FAILED, 0},
		{2, apic_id_of(4), 0, MAILBOX_BAD_FAILED, 2},
		{2, apic_id_of(1), 0, MAILBOX_PENDING, 2},
		{2, apic_id_of(2), 0, MAILBOX_PENDING, 2},
	};
	unsigned int refused = 0;

	machine.wakes = 0;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t before = machine.mailbox.vp[0].outcome[bad[i].outcome];
		struct mailbox_result result =
			guest_write(0, bad[i].command, bad[i].apic_id, bad[i].vector, 10 + i);

		assert_int_equal(result.outcome, bad[i].outcome);
		assert_int_equal(guest_command(), bad[i].left);
		if (bad[i].command != 0)
			assert_int_equal(machine.mailbox.vp[0].outcome[bad[i].outcome], before + 1);
		refused += bad[i].outcome >= MAILBOX_REFUSED_FIRST;
	}
	assert_int_equal(machine.block[0].counter[COUNTER_MAILBOX_REFUSED], refused);
	assert_int_equal(machine.wakes, 0);

	/* None of it has disturbed anything. */
	static const enum mailbox_state states[VPS] = {MAILBOX_RUNNING, MAILBOX_RUNNING,
		MAILBOX_REQUESTED, MAILBOX_STARTING, MAILBOX_FAILED, MAILBOX_PARKED, MAILBOX_PARKED,
		MAILBOX_PARKED};
	for (vp_id_t vp = 0; vp < VPS; vp++)
		assert_int_equal(mailbox_vp_state(&machine.mailbox, vp), states[vp]);
	assert_true(mailbox_park_check(&machine.mailbox, 2, 90, &vector));
	assert_int_equal(vector.value, 0x2000);
	ap_start(5, 0x5000, 100);
	assert_os_part_untouched();
}

static void test_sender_must_run_and_be_allowed(void **state)
{
	(void)state;
	/* A parked VP's write can only be somebody playing tricks with memory. */
	assert_int_equal(guest_write(1, 1, apic_id_of(2), 0x1000, 1).outcome, MAILBOX_BAD_SENDER);
	assert_int_equal(guest_command(), 1);
	machine.senders_refused = true;
	assert_int_equal(guest_write(0, 1, apic_id_of(2), 0x1000, 1).outcome, MAILBOX_BAD_SENDER);
	assert_int_equal(guest_command(), 1);
	assert_int_equal(mailbox_vp_state(&machine.mailbox, 2), MAILBOX_PARKED);

	/* Nor is what it left taken up by a processor that parks later. */
	machine.senders_refused = false;
	ap_start(2, 0x2000, 5);
	assert_true(mailbox_going_offline(&machine.mailbox, 2, 6));
	machine.senders_refused = true;
	guest_write(0, 1, apic_id_of(2), 0x1000, 7);
	assert_true(mailbox_parked(&machine.mailbox, 2, 8));
	assert_int_equal(mailbox_vp_state(&machine.mailbox, 2), MAILBOX_OFFLINE);
	assert_int_equal(guest_command(), 1);
}

static void test_wakeup_on_the_way_offline(void **state)
{
	(void)state;
	gpa_t vector;

	ap_start(1, 0x1000, 1);
	assert_true(mailbox_going_offline(&machine.mailbox, 1, 2));
	assert_int_equal(guest_write(0, 1, apic_id_of(1), 0x7000, 3).outcome, MAILBOX_PENDING);
	assert_int_equal(guest_command(), 1);
	assert_true(mailbox_parked(&machine.mailbox, 1, 4));
	assert_int_equal(guest_command(), 0);
	assert_true(mailbox_park_check(&machine.mailbox, 1, 5, &vector));
	assert_int_equal(vector.value, 0x7000);
	assert_true(mailbox_running(&machine.mailbox, 1, 6));

	/* A test that the guest has given up, and another command in its place. */
	assert_int_equal(guest_write(0, 2, apic_id_of(1), 0, 7).outcome, MAILBOX_PENDING);
	assert_int_equal(guest_write(0, 1, apic_id_of(2), 0x1000, 8).outcome, MAILBOX_WOKEN);
	guest_store(2, apic_id_of(2), 0); /* not yet noticed by anybody */
	assert_true(mailbox_going_offline(&machine.mailbox, 1, 9));
	assert_true(mailbox_parked(&machine.mailbox, 1, 10));
	assert_int_equal(guest_command(), 2);

	/* A vector that has turned bad while the command waited is refused, not used. */
	ap_start(1, 0x1000, 20);
	assert_true(mailbox_going_offline(&machine.mailbox, 1, 21));
	assert_int_equal(guest_write(0, 1, apic_id_of(1), 0x7000, 22).outcome, MAILBOX_PENDING);
	__atomic_store_n((uint64_t *)((uint8_t *)&machine.page + 8), HOLE, __ATOMIC_RELAXED);
	assert_true(mailbox_parked(&machine.mailbox, 1, 23));
	assert_int_equal(mailbox_vp_state(&machine.mailbox, 1), MAILBOX_OFFLINE);
	assert_int_equal(machine.mailbox.vp[1].outcome[MAILBOX_BAD_VECTOR], 1);
}

/*
 * The command changes between the decision and the acknowledgement: nobody acknowledges the new
 * one.
 */
static bool vector_allowed_and_changed(void *context, gpa_t vector)
{
	(void)context;
	(void)vector;
	guest_store(2, apic_id_of(5), 0);
	return true;
}

static void test_command_changed_while_handled(void **state)
{
	(void)state;
	gpa_t vector;

	machine.mailbox.ops.vector_allowed = vector_allowed_and_changed;
	assert_int_equal(guest_write(0, 1, apic_id_of(4), 0x4000, 1).outcome, MAILBOX_WOKEN);
	assert_int_equal(guest_command(), 2);
	assert_true(mailbox_park_check(&machine.mailbox, 4, 2, &vector));
	assert_int_equal(vector.value, 0x4000);
	assert_int_equal(mailbox_vp_state(&machine.mailbox, 5), MAILBOX_PARKED);
	assert_int_equal(mailbox_handle_write(&machine.mailbox, 0, 3).outcome, MAILBOX_READY);
	assert_int_equal(guest_command(), 0);
}

/* The platform's mistakes, and a guest's odd jumps: refused without a change. */
static void test_transitions_out_of_order(void **state)
{
	(void)state;
	struct mailbox *mailbox = &machine.mailbox;
	gpa_t vector = GPA(5);

	assert_false(mailbox_running(mailbox, 1, 1));
	assert_false(mailbox_failed(mailbox, 1, 1, 0));
	assert_false(mailbox_going_offline(mailbox, 1, 1));
	assert_false(mailbox_parked(mailbox, 1, 1));
	ap_start(1, 0x1000, 1);
	assert_false(mailbox_running(mailbox, 1, 1));
	assert_false(mailbox_parked(mailbox, 1, 1));
	assert_false(mailbox_park_check(mailbox, 1, 1, &vector));
	assert_int_equal(mailbox_vp_state(mailbox, 1), MAILBOX_RUNNING);
	assert_int_equal(vector.value, 5);

	/* The boot processor may go as well, and come back. */
	assert_true(mailbox_going_offline(mailbox, 0, 2));
	assert_true(mailbox_parked(mailbox, 0, 3));
	assert_int_equal(guest_write(1, 1, apic_id_of(0), 0x6000, 4).outcome, MAILBOX_WOKEN);
	assert_true(mailbox_park_check(mailbox, 0, 5, &vector));
	assert_true(mailbox_running(mailbox, 0, 6));
}

/* SIPI starts a processor that waits for the mailbox: from then on it is one that runs. */
static void test_started_otherwise(void **state)
{
	(void)state;
	struct mailbox *mailbox = &machine.mailbox;
	gpa_t vector;

	mailbox_started_otherwise(mailbox, 2);
	assert_int_equal(mailbox_vp_state(mailbox, 2), MAILBOX_RUNNING);
	assert_false(mailbox_running(mailbox, 2, 1));
	assert_int_equal(guest_write(0, 1, apic_id_of(2), 0x1000, 2).outcome, MAILBOX_BAD_RUNNING);
	/* It may command, and it may leave. */
	assert_int_equal(guest_write(2, 1, apic_id_of(3), 0x1000, 3).outcome, MAILBOX_WOKEN);
	assert_true(mailbox_going_offline(mailbox, 2, 4));
	assert_true(mailbox_parked(mailbox, 2, 5));
	assert_false(mailbox_park_check(mailbox, 2, 6, &vector));

	/* A wakeup that it has not seen yet lapses, and is not found when it parks again. */
	assert_int_equal(guest_write(0, 1, apic_id_of(2), 0x2000, 7).outcome, MAILBOX_WOKEN);
	mailbox_started_otherwise(mailbox, 2);
	assert_int_equal(mailbox_vp_state(mailbox, 2), MAILBOX_RUNNING);
	assert_true(mailbox_going_offline(mailbox, 2, 8));
	assert_true(mailbox_parked(mailbox, 2, 9));
	assert_false(mailbox_park_check(mailbox, 2, 10, &vector));
	assert_int_equal(mailbox_vp_state(mailbox, 2), MAILBOX_OFFLINE);

	/* One that runs, or was started by the mailbox at this moment, stays what it is. */
	mailbox_started_otherwise(mailbox, 0);
	assert_int_equal(mailbox_vp_state(mailbox, 0), MAILBOX_RUNNING);
	ap_start(2, 0x3000, 11);
	mailbox_started_otherwise(mailbox, 2);
	assert_int_equal(mailbox_vp_state(mailbox, 2), MAILBOX_RUNNING);
}

static void test_configuration_is_checked(void **state)
{
	(void)state;
	struct mailbox_vp_config vp[VPS];
	struct mailbox_config good = machine_config(vp);
	struct mailbox_config config = good;
	struct mailbox_ops ops = machine_ops;

	assert_true(mailbox_init(&machine.mailbox, &config));
	config.vps = 0;
	assert_false(mailbox_init(&machine.mailbox, &config));
	config.vps = VP_COUNT_MAX + 1;
	assert_false(mailbox_init(&machine.mailbox, &config));
	config = good;
	config.boot_vp = VPS;
	assert_false(mailbox_init(&machine.mailbox, &config));
	config = good;
	config.page = NULL;
	assert_false(mailbox_init(&machine.mailbox, &config));
	config = good;
	config.ops = &ops;
	ops.wake = NULL;
	assert_false(mailbox_init(&machine.mailbox, &config));
	vp[3].apic_id = vp[1].apic_id;
	assert_false(mailbox_init(&machine.mailbox, &good));
	vp[3].apic_id = 200;
	vp[3].trace = NULL;
	assert_false(mailbox_init(&machine.mailbox, &good));

	assert_true(mailbox_write_is_command(0, 1));
	assert_true(mailbox_write_is_command(1, 1));
	assert_true(mailbox_write_is_command(0, 8));
	assert_false(mailbox_write_is_command(0, 0));
	assert_false(mailbox_write_is_command(2, 2));
	assert_false(mailbox_write_is_command(4, 4));
	assert_false(mailbox_write_is_command(8, 8));
	for (unsigned int i = 0; i <= MAILBOX_STATE_COUNT; i++)
		assert_non_null(mailbox_state_name(i));
	for (unsigned int i = 0; i <= MAILBOX_OUTCOME_COUNT; i++)
		assert_non_null(mailbox_outcome_name(i));
}

/* --- threads ---------------------------------------------------------------------------------- */

#define REQUESTERS 3u /* VPs 0 to 2 give commands, the others are started and stopped */

static unsigned long cycles_wanted(void)
{
	const char *text = getenv("PARAPET_MAILBOX_CYCLES");

	return text ? strtoul(text, NULL, 10) : 100000;
}

struct ap {
	pthread_t thread;
	vp_id_t vp;
	uint64_t runs_at; /* the vector it runs at, 0 while it does not */
	uint32_t leave; /* the guest tells it to go offline */
	uint64_t starts;
	uint32_t random;
	bool rogue; /* leaves when it likes */
};

static struct ap aps[VPS];
static uint32_t stop;
static uint32_t broken;

/* cmocka's assertions belong to the main thread. */
#define EXPECT(condition)                                                                          \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			__atomic_store_n(&broken, 1, __ATOMIC_SEQ_CST);                            \
		}                                                                                  \
	} while (0)

static uint32_t random_next(uint32_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 17;
	*random ^= *random << 5;
	return *random;
}

static void random_delay(uint32_t *random)
{
	uint32_t turns = random_next(random) % 64;

	while (turns--)
		atomic_relax();
	if (random_next(random) % 32 == 0)
		sched_yield();
}

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_SEQ_CST) ||
		__atomic_load_n(&broken, __ATOMIC_SEQ_CST);
}

static bool wake_comes(vp_id_t vp, time_t seconds)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += seconds;
	while (sem_timedwait(&machine.wake[vp], &until) != 0) {
		if (errno != EINTR)
			return false;
	}
	return true;
}

/*
 * The platform's sleep: a wake that came before it ends it at once. A processor that has been
 * requested and sleeps on for a second, and another one, was not woken.
 */
static void ap_sleep(vp_id_t vp)
{
	if (wake_comes(vp, 1))
		return;
	if (mailbox_vp_state(&machine.mailbox, vp) == MAILBOX_REQUESTED)
		EXPECT(wake_comes(vp, 1));
}

static void *ap_run(void *argument)
{
	struct ap *ap = argument;
	struct mailbox *mailbox = &machine.mailbox;
	gpa_t vector;

	while (!stopped()) {
		if (!mailbox_park_check(mailbox, ap->vp, 1, &vector)) {
			ap_sleep(ap->vp);
			continue;
		}
		random_delay(&ap->random);
		EXPECT(machine_vector_allowed(NULL, vector));
		EXPECT((vector.value & 0xfff) == ((vector.value >> 12) & 0xff) || !ap->rogue);
		EXPECT(mailbox_running(mailbox, ap->vp, 2));
		ap->starts++;
		__atomic_store_n(&ap->runs_at, vector.value, __ATOMIC_RELEASE);
		while (!stopped() && !ap->rogue && !__atomic_load_n(&ap->leave, __ATOMIC_ACQUIRE))
			sched_yield();
		__atomic_store_n(&ap->leave, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&ap->runs_at, 0, __ATOMIC_RELAXED);
		random_delay(&ap->random);
		EXPECT(mailbox_going_offline(mailbox, ap->vp, 3));
		random_delay(&ap->random);
		EXPECT(mailbox_parked(mailbox, ap->vp, 4));
	}
	return NULL;
}

static void aps_begin(bool rogue)
{
	__atomic_store_n(&stop, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&broken, 0, __ATOMIC_SEQ_CST);
	/* The other requesters are running processors. */
	for (vp_id_t vp = 1; vp < REQUESTERS; vp++)
		ap_start(vp, 0x1000, 1);
	for (vp_id_t vp = REQUESTERS; vp < VPS; vp++) {
		aps[vp] = (struct ap){.vp = vp, .random = vp * 7919 + 1, .rogue = rogue};
		assert_int_equal(pthread_create(&aps[vp].thread, NULL, ap_run, &aps[vp]), 0);
	}
}

static uint64_t aps_end(void)
{
	uint64_t starts = 0;

	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	for (vp_id_t vp = REQUESTERS; vp < VPS; vp++) {
		sem_post(&machine.wake[vp]);
		pthread_join(aps[vp].thread, NULL);
		starts += aps[vp].starts;
	}
	return starts;
}

struct requester {
	pthread_t thread;
	vp_id_t vp;
	uint32_t random;
	unsigned long cycles;
};

static pthread_mutex_t guest_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t claimed[VPS];

static bool wait_seconds_over(time_t since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec - since > 30;
}

/*
 * A well-behaved guest: one command at a time, test after offline; it may use any free
 * processor.
 */
static void *requester_run(void *argument)
{
	struct requester *self = argument;

	while (self->cycles > 0 && !stopped()) {
		vp_id_t vp = REQUESTERS + random_next(&self->random) % (VPS - REQUESTERS);
		uint64_t vector = (uint64_t)(random_next(&self->random) % 0x40000) + 0x1000;
		struct mailbox_result result;
		struct timespec begin;

		if (__atomic_exchange_n(&claimed[vp], 1, __ATOMIC_ACQUIRE) != 0) {
			sched_yield();
			continue;
		}
		clock_gettime(CLOCK_MONOTONIC, &begin);
		pthread_mutex_lock(&guest_lock);
		result = guest_write(self->vp, 1, apic_id_of(vp), vector, 1);
		EXPECT(result.outcome == MAILBOX_WOKEN && result.target == vp);
		EXPECT(guest_command() == 0);
		pthread_mutex_unlock(&guest_lock);

		while (!stopped() &&
			__atomic_load_n(&aps[vp].runs_at, __ATOMIC_ACQUIRE) != vector) {
			EXPECT(!wait_seconds_over(begin.tv_sec)); /* a lost wakeup */
			sched_yield();
		}
		random_delay(&self->random);
		__atomic_store_n(&aps[vp].leave, 1, __ATOMIC_RELEASE);
		random_delay(&self->random);
		pthread_mutex_lock(&guest_lock);
		result = guest_write(self->vp, 2, apic_id_of(vp), 0, 1);
		EXPECT(result.outcome == MAILBOX_PENDING || result.outcome == MAILBOX_READY ||
			result.outcome == MAILBOX_NOTHING);
		while (!stopped() && guest_command() != 0) {
			EXPECT(!wait_seconds_over(begin.tv_sec)); /* a lost test */
			sched_yield();
		}
		EXPECT(stopped() || mailbox_vp_state(&machine.mailbox, vp) == MAILBOX_OFFLINE);
		pthread_mutex_unlock(&guest_lock);
		__atomic_store_n(&claimed[vp], 0, __ATOMIC_RELEASE);
		self->cycles--;
	}
	return NULL;
}

static void test_threads_in_order(void **state)
{
	(void)state;
	struct requester requester[REQUESTERS];
	unsigned long cycles = cycles_wanted();
	uint64_t refused = 0, woken = 0, tests = 0;

	memset(claimed, 0, sizeof(claimed));
	aps_begin(false);
	for (vp_id_t vp = 0; vp < REQUESTERS; vp++) {
		requester[vp] = (struct requester){
			.vp = vp, .random = vp + 99, .cycles = cycles / REQUESTERS};
		assert_int_equal(
			pthread_create(&requester[vp].thread, NULL, requester_run, &requester[vp]),
			0);
	}
	for (vp_id_t vp = 0; vp < REQUESTERS; vp++)
		pthread_join(requester[vp].thread, NULL);
	assert_int_equal(aps_end(), cycles / REQUESTERS * REQUESTERS);
	assert_int_equal(broken, 0);
	for (vp_id_t vp = 0; vp < VPS; vp++) {
		refused += machine.block[vp].counter[COUNTER_MAILBOX_REFUSED];
		woken += machine.block[vp].counter[COUNTER_MAILBOX_WAKEUPS];
		tests += machine.block[vp].counter[COUNTER_MAILBOX_TESTS];
	}
	assert_int_equal(refused, 0);
	assert_int_equal(woken, cycles / REQUESTERS * REQUESTERS + REQUESTERS - 1);
	assert_int_equal(tests, cycles / REQUESTERS * REQUESTERS); /* each answered exactly once */
	assert_os_part_untouched();
}

/*
 * One processor and one requester that asks for it again the moment it has parked, a few
 * instructions earlier or later each time: the window in which a wakeup could be lost.
 */
static void test_threads_wake_race(void **state)
{
	(void)state;
	struct ap *ap = &aps[REQUESTERS];
	unsigned long cycles = cycles_wanted();
	uint32_t random = 4711;

	__atomic_store_n(&stop, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&broken, 0, __ATOMIC_SEQ_CST);
	*ap = (struct ap){.vp = REQUESTERS, .random = 5, .rogue = true};
	assert_int_equal(pthread_create(&ap->thread, NULL, ap_run, ap), 0);
	while (cycles > 0 && !stopped()) {
		enum mailbox_state seen = mailbox_vp_state(&machine.mailbox, ap->vp);

		if (seen != MAILBOX_PARKED && seen != MAILBOX_OFFLINE) {
			atomic_relax();
			continue;
		}
		for (uint32_t turns = random_next(&random) % 32; turns > 0; turns--)
			__atomic_signal_fence(__ATOMIC_SEQ_CST);
		EXPECT(guest_write(0, 1, apic_id_of(ap->vp), 0x1001, 1).outcome == MAILBOX_WOKEN);
		cycles--;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	sem_post(&machine.wake[ap->vp]);
	pthread_join(ap->thread, NULL);
	assert_int_equal(broken, 0);
	/* One sleep is ended by one wake, and a processor that has not gone to sleep needs none. */
	assert_true(machine.wakes <= cycles_wanted());
}

/*
 * A guest without manners: no lock, halves of commands, stores in any order, several processors at
 * once. All its vectors have a mark (page number modulo 256 in the low bits), bad ones included, so
 * that a vector put together from two would show.
 */
static void *rogue_run(void *argument)
{
	struct requester *self = argument;
	uint8_t *page = (uint8_t *)&machine.page;

	while (self->cycles-- > 0 && !stopped()) {
		uint32_t dice = random_next(&self->random);
		uint64_t number = random_next(&self->random) % 0xc0;
		uint64_t vector = number << 12 | number;

		for (unsigned int i = 0; i < 4; i++, dice >>= 4) {
			switch (dice % 8) {
			case 0:
				__atomic_store_n((uint64_t *)(page + 8), vector, __ATOMIC_RELAXED);
				break;
			case 1:
				__atomic_store_n((uint32_t *)(page + 4),
					random_next(&self->random) % 64, __ATOMIC_RELAXED);
				break;
			case 2:
				__atomic_store_n((uint32_t *)(page + 4),
					apic_id_of(random_next(&self->random) % VPS),
					__ATOMIC_RELAXED);
				break;
			case 3:
				__atomic_store_n(
					page, random_next(&self->random) % 4, __ATOMIC_RELAXED);
				break;
			case 4:
				__atomic_store_n(page + 1, random_next(&self->random) % 16 == 0,
					__ATOMIC_RELAXED);
				break;
			default:
				__atomic_store_n((uint16_t *)page,
					1 + random_next(&self->random) % 2, __ATOMIC_RELEASE);
				break;
			}
			if (dice & 8)
				mailbox_handle_write(&machine.mailbox, self->vp, 1);
		}
	}
	return NULL;
}

static void test_threads_torn(void **state)
{
	(void)state;
	struct requester rogue[REQUESTERS];
	uint64_t outcomes[MAILBOX_OUTCOME_COUNT] = {0};
	struct timespec nap = {0, 1000000};
	uint64_t starts, parked = 0;

	memset(machine.page.firmware, 0, sizeof(machine.page.firmware));
	aps_begin(true);
	for (vp_id_t vp = 0; vp < REQUESTERS; vp++) {
		rogue[vp] = (struct requester){
			.vp = vp, .random = vp * 31 + 7, .cycles = cycles_wanted()};
		assert_int_equal(pthread_create(&rogue[vp].thread, NULL, rogue_run, &rogue[vp]), 0);
	}
	for (vp_id_t vp = 0; vp < REQUESTERS; vp++)
		pthread_join(rogue[vp].thread, NULL);

	/* Once it behaves, all is as it should be: every processor can be started. */
	for (vp_id_t vp = REQUESTERS; vp < VPS; vp++) {
		unsigned int turns = 0;

		while (mailbox_vp_state(&machine.mailbox, vp) != MAILBOX_OFFLINE &&
			mailbox_vp_state(&machine.mailbox, vp) != MAILBOX_PARKED) {
			nanosleep(&nap, NULL);
			assert_true(++turns < 30000);
		}
		assert_int_equal(
			guest_write(0, 1, apic_id_of(vp), 0x1001, 1).outcome, MAILBOX_WOKEN);
		assert_int_equal(guest_command(), 0);
		while (mailbox_vp_state(&machine.mailbox, vp) != MAILBOX_OFFLINE) {
			nanosleep(&nap, NULL);
			assert_true(++turns < 30000);
		}
	}
	starts = aps_end();
	assert_int_equal(broken, 0);
	assert_true(starts > VPS);
	for (vp_id_t vp = 0; vp < VPS; vp++) {
		for (unsigned int i = 0; i < MAILBOX_OUTCOME_COUNT; i++)
			outcomes[i] += machine.mailbox.vp[vp].outcome[i];
		parked += machine.block[vp].counter[COUNTER_MAILBOX_OFFLINES];
	}
	/* Each accepted wakeup was one start (two were the requesters'), each start one return. */
	assert_int_equal(outcomes[MAILBOX_WOKEN], starts + REQUESTERS - 1);
	assert_int_equal(parked, starts);
	assert_true(outcomes[MAILBOX_BAD_COMMAND] > 0 && outcomes[MAILBOX_BAD_ID] > 0 &&
		outcomes[MAILBOX_BAD_VECTOR] > 0 && outcomes[MAILBOX_BAD_RUNNING] > 0);
	assert_os_part_untouched();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_one_life, machine_setup),
		cmocka_unit_test_setup(test_requests_do_not_wait, machine_setup),
		cmocka_unit_test_setup(test_bad_commands, machine_setup),
		cmocka_unit_test_setup(test_sender_must_run_and_be_allowed, machine_setup),
		cmocka_unit_test_setup(test_wakeup_on_the_way_offline, machine_setup),
		cmocka_unit_test_setup(test_command_changed_while_handled, machine_setup),
		cmocka_unit_test_setup(test_transitions_out_of_order, machine_setup),
		cmocka_unit_test_setup(test_started_otherwise, machine_setup),
		cmocka_unit_test(test_configuration_is_checked),
		cmocka_unit_test_setup(test_threads_in_order, machine_setup),
		cmocka_unit_test_setup(test_threads_wake_race, machine_setup),
		cmocka_unit_test_setup(test_threads_torn, machine_setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
