/*
 * The ring alone, with initiators cut down to what touches it: they write, fence, look whether the
 * VP is in VTL2, and if it is, are done. For what needs several producers at the same slots.
 */
#include "core/flush/flush_queue.h"
#include "machine.h"
#include "scenarios.h"

#define TARGET 2u

/* Changes the page and asks for its flush; it has returned if the target is found in VTL2. */
static void post(vp_id_t me, uint32_t page)
{
	uint64_t range = page * PAGE_SIZE;

	atomic_u64_store(&machine_pte[page], 1, memory_order_relaxed);
	flush_queue_post_ranges(
		&machine_flush.vps[TARGET].queue[VTL0], &range, 1, FLUSH_ALL_SPACES);
	atomic_fence(memory_order_seq_cst);
	if ((atomic_u64_load(&machine_run.vps[TARGET].word, memory_order_acquire) &
		    RUN_STATE_MASK) == RUN_VTL2)
		machine_returned(me, page);
}

static void setup(void)
{
	machine_setup();
	for (uint32_t page = 0; page < MACHINE_PAGES; page++)
		machine_prime(TARGET, page);
}

/* A request for page 0 lies in the queue and has returned; the target has not looked yet. */
static void setup_one_posted(void)
{
	setup();
	post(0, 0);
}

static void stay(uint32_t page)
{
	machine_enter(TARGET, VTL0);
	machine_access(TARGET, page);
	machine_exit(TARGET);
}

/* One producer after the other in a slot, the VP between them. */
static void handed_on(uint32_t thread)
{
	if (thread < 2) {
		post(thread, thread);
		return;
	}
	stay(0);
	stay(1);
}

/* A producer that has begun to write is overtaken by the VP and by the next one. */
static void late_producer(uint32_t thread)
{
	if (thread < 2) {
		post(thread, thread);
		return;
	}
	stay(1);
	stay(1);
}

/* A slot is full; two more producers believe that there is room. */
static void overrun(uint32_t thread)
{
	if (thread < 2) {
		post(thread, thread + 1);
		return;
	}
	stay(0);
	machine_enter(TARGET, VTL0);
	machine_access(TARGET, 1);
	machine_access(TARGET, 2);
	machine_exit(TARGET);
}

const struct explore_scenario ring_scenarios[] = {
	{"ring-handed-on", "a slot goes from one producer to the next", 3, FLUSH_RING_SLOTS == 1,
		setup, handed_on, NULL, false},
	{"ring-late-producer", "a slot filled after its turn", 3, FLUSH_RING_SLOTS == 1, setup,
		late_producer, NULL, false},
	{"ring-overrun", "two producers more than there is room for", 3, true, setup_one_posted,
		overrun, NULL, false},
};
const uint32_t ring_scenario_count = ARRAY_SIZE(ring_scenarios);
