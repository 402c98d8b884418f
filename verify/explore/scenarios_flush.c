/* Flush against entry and against flush; the ring when it is full. */
#include "machine.h"
#include "scenarios.h"

static void setup_one_target(void)
{
	machine_setup();
	machine_prime(1, 0);
}

static void range_against_entry(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, false);
		return;
	}
	machine_stay(1, 0);
	machine_stay(1, 0);
}

static void full_against_entry(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, true);
		return;
	}
	machine_stay(1, 0);
	machine_stay(1, 0);
}

/* The page is not in the TLB: what is filled in while a flush is under way must not stay. */
static void range_against_fill(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, false);
		return;
	}
	machine_stay(1, 1);
	machine_stay(1, 0);
	machine_stay(1, 0);
}

static void full_against_fill(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, true);
		return;
	}
	machine_stay(1, 1);
	machine_stay(1, 0);
	machine_stay(1, 0);
}

/* Both ask, both are asked, each its own included. */
static void setup_two(void)
{
	machine_setup();
	for (uint32_t page = 0; page < 2; page++) {
		machine_prime(0, page);
		machine_prime(1, page);
	}
}

static void flush_against_flush(uint32_t thread)
{
	machine_flush_pages(thread, thread, 1, 3, false);
	machine_enter(thread, VTL0);
	machine_access(thread, 0);
	machine_access(thread, 1);
	machine_run_on(thread);
	machine_exit(thread);
}

static void setup_two_initiators(void)
{
	machine_setup();
	machine_prime(2, 0);
	machine_prime(2, 1);
}

/* Kicks for the same stay are sent once; the next stay needs its own. */
static void coalesced_kicks(uint32_t thread)
{
	if (thread < 2) {
		machine_flush_pages(thread, thread, 1, 1 << 2, true);
		return;
	}
	for (uint32_t stay = 0; stay < 2; stay++) {
		machine_enter(2, VTL0);
		machine_access(2, stay);
		machine_run_on(2);
		machine_exit(2);
	}
}

/* One producer goes round the ring; what is in a slot must be what was meant for this turn. */
static void setup_turns(void)
{
	machine_setup();
	for (uint32_t page = 0; page < 4; page++)
		machine_prime(1, page);
}

static void ring_turns(uint32_t thread)
{
	if (thread == 0) {
		for (uint32_t page = 0; page < 3; page++)
			machine_flush_pages(0, page, 1, 1 << 1, false);
		return;
	}
	machine_enter(1, VTL0);
	machine_access(1, 0);
	machine_exit(1);
	machine_enter(1, VTL0);
	machine_access(1, 1);
	machine_exit(1);
	machine_enter(1, VTL0);
	machine_access(1, 2);
	machine_exit(1);
}

/* An entry is withdrawn after the queue was drained. */
static void withdrawn_entry(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, true);
		run_request_post(&machine_run, 1, 1);
		return;
	}
	machine_stay(1, 0);
	machine_stay(1, 0);
}

/* The initiator of a flush looks while the target withdraws. */
static void withdraw_against_wait(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, true);
	} else if (thread == 1) {
		machine_stay(1, 0);
	} else {
		run_request_post(&machine_run, 1, 1);
	}
}

/* The target runs the other VTL when it is looked at, and goes on to this one. */
static void other_vtl(uint32_t thread)
{
	if (thread == 0) {
		machine_flush_pages(0, 0, 1, 1 << 1, false);
		return;
	}
	machine_enter(1, VTL1);
	machine_run_on(1);
	machine_exit(1);
	machine_stay(1, 0);
}

const struct explore_scenario flush_scenarios[] = {
	{"flush-range-entry", "a range flush against two stays", 2, true, setup_one_target,
		range_against_entry, NULL, false},
	{"flush-full-entry", "a full flush against two stays", 2, true, setup_one_target,
		full_against_entry, NULL, false},
	{"flush-range-fill", "a range flush against TLB fills", 2, true, machine_setup,
		range_against_fill, NULL, false},
	{"flush-full-fill", "a full flush against TLB fills", 2, true, machine_setup,
		full_against_fill, NULL, false},
	{"flush-flush", "two VPs flush each other and themselves", 2, true, setup_two,
		flush_against_flush, NULL, false},
	{"flush-other-vtl", "the target runs VTL1, then VTL0", 2, true, setup_one_target, other_vtl,
		NULL, false},
	{"flush-withdrawn", "an entry is withdrawn after its drain", 2, true, setup_one_target,
		withdrawn_entry, NULL, false},
	{"flush-withdraw-wait", "an entry is withdrawn under an initiator that waits", 3, true,
		setup_one_target, withdraw_against_wait, NULL, false},
	{"flush-ring-turns", "one producer goes round the ring", 2, false, setup_turns, ring_turns,
		NULL, false},
	{"flush-coalesced", "two initiators, one kick", 3, false, setup_two_initiators,
		coalesced_kicks, NULL, false},
};
const uint32_t flush_scenario_count = ARRAY_SIZE(flush_scenarios);
