/* The mark of a kick: who may send, what the NMI handler takes, and a kick whose NMI may be lost. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"

static struct cpu cpu;
static uint32_t claimed;

static int setup(void **state)
{
	(void)state;
	cpu = (struct cpu){.id = 0};
	return 0;
}

static void test_one_sender(void **state)
{
	uint32_t other;

	(void)state;
	assert_false(cpu_kick_is_sent(&cpu));
	assert_false(cpu_take_kick(&cpu)); /* an NMI from outside */
	assert_true(cpu_claim_kick(&cpu, &claimed));
	assert_false(cpu_claim_kick(&cpu, &other));
	cpu_note_kick_sent(&cpu, claimed);
	assert_true(cpu_kick_is_sent(&cpu));
	assert_false(cpu_claim_kick(&cpu, &other));
	assert_true(cpu_take_kick(&cpu));
	assert_false(cpu_kick_is_sent(&cpu));
	assert_false(cpu_take_kick(&cpu));
}

/* Taken before its sender says that it was sent: what it says then is about nothing. */
static void test_taken_at_once(void **state)
{
	(void)state;
	assert_true(cpu_claim_kick(&cpu, &claimed));
	assert_true(cpu_take_kick(&cpu));
	cpu_note_kick_sent(&cpu, claimed);
	assert_false(cpu_kick_is_sent(&cpu));
	/* Nor is it about the next one. */
	assert_true(cpu_claim_kick(&cpu, &(uint32_t){0}));
	cpu_note_kick_sent(&cpu, claimed);
	assert_true(cpu_take_kick(&cpu));
	assert_false(cpu_kick_is_sent(&cpu));
}

static void *sender_main(void *argument)
{
	struct timespec pause = {0, 50000000};

	/* The other looks meanwhile; should it be late, it finds the same. */
	nanosleep(&pause, NULL);
	cpu_note_kick_sent(&cpu, claimed);
	return argument;
}

/* One that is being sent is waited for: its NMI may be lost, and nobody would look again. */
static void test_being_sent(void **state)
{
	pthread_t sender;

	(void)state;
	assert_true(cpu_claim_kick(&cpu, &claimed));
	assert_int_equal(pthread_create(&sender, NULL, sender_main, NULL), 0);
	assert_true(cpu_kick_is_sent(&cpu));
	pthread_join(sender, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_one_sender, setup),
		cmocka_unit_test_setup(test_taken_at_once, setup),
		cmocka_unit_test_setup(test_being_sent, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
