/* The TLB lock taken and released against those who wait for it. */
#include "machine.h"
#include "scenarios.h"

/* VTL2 emulates: walks under the lock, uses what it found, releases on its way in. */
static void emulate(vp_id_t vp, uint32_t page)
{
	uint64_t version;

	tlblock_take(&machine_tlblock, vp, VTL0, VTL2);
	version = machine_walk(page);
	machine_use(vp, page, version);
	machine_use(vp, page, version);
	tlblock_release_own(&machine_tlblock, vp);
}

static void walk_under_lock(uint32_t thread)
{
	if (thread == 0)
		machine_flush_pages(0, 0, 1, 1 << 1, false);
	else
		emulate(1, 0);
}

/* Takes it again and again: only the turn that was found is waited for. */
static void lock_again(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, false);
		return;
	}
	emulate(1, 0);
	emulate(1, 0);
}

/* The address came with the exit: the lock is taken before the exit is published. */
static void setup_exit_address(void)
{
	machine_setup();
	machine_prime(1, 0);
}

static void exit_address(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, false);
		return;
	}
	machine_enter(1, VTL0);
	machine_access(1, 0);
	tlblock_take(&machine_tlblock, 1, VTL0, VTL2);
	machine_exit(1);
	machine_use(1, 0, machine_translated(1, 0));
	tlblock_release_own(&machine_tlblock, 1);
	machine_stay(1, 0);
}

/* Two holders: the last one wakes. */
static void two_holders(uint32_t thread)
{
	if (thread == 0)
		machine_flush_pages(0, 0, 1, 1 << 1 | 1 << 2, true);
	else
		emulate(thread, 0);
}

/* Two wait for one. */
static void two_waiters(uint32_t thread)
{
	if (thread == 2)
		emulate(2, 0);
	else
		machine_flush_pages(thread, thread, 1, 1 << 2, true);
}

/* Each holds, then asks the other: both release before they wait. */
static void each_other(uint32_t thread)
{
	uint64_t version;

	tlblock_take(&machine_tlblock, thread, VTL0, VTL2);
	version = machine_walk(1 - thread);
	machine_use(thread, 1 - thread, version);
	machine_flush_pages(thread, thread, 1, 3, true);
}

/* VTL1 holds a lock through a stay of its own. */
static void vtl1_holds(uint32_t thread)
{
	uint64_t version;

	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, false);
		return;
	}
	tlblock_take(&machine_tlblock, 1, VTL0, VTL1);
	tlblock_release_own(&machine_tlblock, 1);
	machine_enter(1, VTL1);
	version = machine_walk(0);
	machine_use(1, 0, version);
	machine_exit(1);
	machine_enter(1, VTL1);
	machine_use(1, 0, version);
	machine_exit(1);
	tlblock_release(&machine_tlblock, 1, VTL0, VTL1);
}

/* Flushes twice: what is left of the first wait must not disturb the second. */
static void wait_twice(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, true);
		machine_flush_pages(0, 1, 1, 1 << 1, true);
		return;
	}
	emulate(1, 0);
	emulate(1, 1);
}

/* Two flushes in one go: the waiter may find a lock that it waits for already. */
static void ask_twice(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_ask(0, 0, 1, 1 << 1, true);
		machine_flush_ask(0, 1, 1, 1 << 1, true);
		machine_wait_for_holders(0, VTL0);
		machine_returned(0, 0);
		machine_returned(0, 1);
		return;
	}
	emulate(1, 0);
	emulate(1, 1);
}

const struct explore_scenario tlblock_scenarios[] = {
	{"lock-walk", "a walk under the lock against a flush", 2, true, machine_setup,
		walk_under_lock, NULL, false},
	{"lock-again", "the lock taken again while somebody waits", 2, true, machine_setup,
		lock_again, NULL, false},
	{"lock-exit-address", "an address that came with an exit", 2, true, setup_exit_address,
		exit_address, NULL, false},
	{"lock-vtl1", "VTL1 holds the lock for long", 2, true, machine_setup, vtl1_holds, NULL,
		false},
	{"lock-each-other", "two hold and ask each other", 2, true, machine_setup, each_other, NULL,
		false},
	{"lock-ask-twice", "two flushes, one wait", 2, true, machine_setup, ask_twice, NULL, false},
	{"lock-wait-twice", "two flushes against two turns", 2, false, machine_setup, wait_twice,
		NULL, false},
	{"lock-two-holders", "the last of two holders wakes", 3, false, machine_setup, two_holders,
		NULL, false},
	{"lock-two-waiters", "one holder wakes two", 3, false, machine_setup, two_waiters, NULL,
		false},
};
const uint32_t tlblock_scenario_count = ARRAY_SIZE(tlblock_scenarios);
