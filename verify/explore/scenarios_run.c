/* Kicks and requests against entering and against going idle; hcl_cancel_mask. */
#include "machine.h"
#include "scenarios.h"

/* What a request is about. */
static struct atomic_u64 message[2];
static struct atomic_u64 served;

#define BIT_A 1ull
#define BIT_B 2ull

static void setup(void)
{
	machine_setup();
	message[0].value = 0;
	message[1].value = 0;
	served.value = 0;
	if (!explore_names_wanted())
		return;
	explore_name(&message[0], "message[0]");
	explore_name(&message[1], "message[1]");
	explore_name(&served, "served");
}

static void serve(uint64_t bits)
{
	if (bits & BIT_A && atomic_u64_load(&message[0], memory_order_relaxed) == 0)
		explore_fail("a request is seen before what it is about");
	if (bits & BIT_B && atomic_u64_load(&message[1], memory_order_relaxed) == 0)
		explore_fail("a request is seen before what it is about");
	if (bits)
		atomic_u64_fetch_or(&served, bits, memory_order_relaxed);
}

static void post(uint32_t index)
{
	atomic_u64_store(&message[index], 1, memory_order_relaxed);
	run_request_post(&machine_run, 1, 1ull << index);
}

/* Like a platform's loop for a VP with nothing to run: serve, sleep, until both have been served.
 */
static void idle_loop(vp_id_t vp, uint64_t all)
{
	while (true) {
		serve(run_requests_take(&machine_run, vp));
		if ((atomic_u64_load(&served, memory_order_relaxed) & all) == all)
			return;
		machine_hold_off_kicks(vp);
		run_idle_begin(&machine_run, vp);
		if (!run_requests_pending(&machine_run, vp))
			machine_sleep(vp, false);
		run_idle_end(&machine_run, vp);
	}
}

static void one_request_against_idle(uint32_t thread)
{
	if (thread == 0)
		post(0);
	else
		idle_loop(1, BIT_A);
}

static void two_requests_against_idle(uint32_t thread)
{
	if (thread == 0)
		post(0);
	else if (thread == 2)
		post(1);
	else
		idle_loop(1, BIT_A | BIT_B);
}

/* Two ask for the same thing: the second relies on the first one's kick. */
static void same_request_twice(uint32_t thread)
{
	if (thread == 1) {
		idle_loop(1, BIT_A);
		return;
	}
	atomic_u64_store(&message[0], 1, memory_order_relaxed);
	run_request_post(&machine_run, 1, BIT_A);
}

/* A guest that never leaves of its own must be taken out for a request. */
static void request_against_entry(uint32_t thread)
{
	if (thread == 0) {
		post(0);
		return;
	}
	do {
		if (machine_enter(1, VTL0)) {
			machine_sleep(1, false);
			machine_exit(1);
		}
		serve(run_requests_take(&machine_run, 1));
	} while (!(atomic_u64_load(&served, memory_order_relaxed) & BIT_A));
}

/* hcl_cancel_mask while the VP comes and goes: returns, and what it did before is visible. */
static const uint16_t vp_of_index[] = {0, 1, 2};
static const struct vpset_map map = {vp_of_index, 3, 3};

static void cancelled_step(void *argument)
{
	(void)argument;
	explore_ghost[8] = 1;
	if (!explore_view_is_latest(&message[1]))
		explore_fail("cancelled, and the guest's last write is still on its way");
}

static void cancel(uint32_t thread)
{
	if (thread != 1) {
		struct vpset set = vpset_make_one(&map, 1);

		/* The VP looks at this word before it runs: the reason for the cancel. */
		atomic_u64_store(&message[0], 1, memory_order_relaxed);
		run_cancel_mask(&machine_run, thread, &set, RUN_IN_LOWER);
		explore_step(cancelled_step, NULL, "cancel returns");
		return;
	}
	for (uint32_t stay = 0; stay < 2; stay++) {
		machine_hold_off_kicks(1);
		run_enter_begin(&machine_run, 1, VTL0);
		if (atomic_u64_load(&message[0], memory_order_relaxed)) {
			run_enter_withdraw(&machine_run, 1);
			continue;
		}
		atomic_u64_store(&message[1], 1 + stay, memory_order_relaxed);
		machine_run_on(1);
		machine_exit(1);
	}
}

const struct explore_scenario run_scenarios[] = {
	{"run-request-idle", "a request against going idle", 2, true, setup,
		one_request_against_idle, NULL, false},
	{"run-request-entry", "a request against entering", 2, true, setup, request_against_entry,
		NULL, false},
	{"run-cancel", "hcl_cancel_mask against stays", 2, true, setup, cancel, NULL, false},
	{"run-two-requests-idle", "two requests against going idle", 3, false, setup,
		two_requests_against_idle, NULL, false},
	{"run-same-request", "the same request twice against going idle", 3, true, setup,
		same_request_twice, NULL, false},
	{"run-two-cancels", "two cancels of one VP", 3, false, setup, cancel, NULL, false},
};
const uint32_t run_scenario_count = ARRAY_SIZE(run_scenarios);
