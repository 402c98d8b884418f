/*
 * Whether flush hypercalls flush: every processor reads, with a warm TLB and without an exit, through
 * mappings that one of them keeps changing. Once a flush has returned, nobody who was addressed may get
 * through the mapping of before.
 *
 * The writer stamps each frame before it maps it, publishes the stamp after the flush, and then wipes
 * the frame of before. A reader that saw stamp n published must read n or more, and never a wiped frame.
 *
 * ms=N for each way of asking (150), at least a few changes however slow; seconds=N for the storm (2).
 */
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "hv.h"
#include "machine.h"
#include "print.h"
#include "tap.h"
#include "trap.h"

#define PAGES	 48u /* more than the queue of a processor holds */
#define FRAMES	 8u
#define WIPED	 0u
#define LIMIT_US 10000000u

#define PTE_PRESENT 0x1ull
#define PTE_WRITE   0x2ull
#define PTE_LARGE   0x80ull
#define PTE_GLOBAL  0x100ull
#define CR4_PGE	    0x80ull

#define SIZE_2M 0x200000ull
#define SIZE_1G 0x40000000ull

/* The window: the second entry of the root table, so 512 GiB up. */
#define WINDOW	     0x8000000000ull
#define WINDOW_2M    (WINDOW + SIZE_1G) /* one 2 MiB page */
#define WINDOW_1G    (WINDOW + 2 * SIZE_1G) /* one 1 GiB page, or 2 MiB pages in its place */
#define FRAME_2M     0x4000000ull /* two of them, in RAM nobody uses */
#define LARGE_OFFSET 0x5000ull

extern uint64_t page_tables[];

static _Alignas(4096) uint64_t window_pdpt[512], window_pd[512], window_pt[512];
static _Alignas(4096) uint64_t large_pd[512], split_pd[512];

/* One for each changing page; a storm's writers have one each. */
static struct changing {
	_Alignas(64) _Atomic uint64_t published; /* readers must see at least this */
	_Alignas(64) uint64_t stamp; /* the writer's */
	_Alignas(64) _Atomic uint64_t published_for[CPU_COUNT_MAX]; /* with a target each */
} changing[PAGES];

static _Alignas(4096) volatile uint64_t frames[PAGES][FRAMES][512];

static uint32_t total;
static uint64_t way_ms = 150;

#define ROUNDS_MIN 4u
#define ROUNDS_MAX 5000u

/* Is there another round after so many? */
static bool goes_on(uint64_t done, uint64_t deadline)
{
	return done < ROUNDS_MIN || (done < ROUNDS_MAX && !clock_passed(deadline));
}

/* --- mappings --------------------------------------------------------------------------------- */

static volatile uint64_t *page_address(uint32_t page)
{
	return (volatile uint64_t *)(WINDOW + page * 4096ull);
}

static volatile uint64_t *frame_of(uint32_t page, uint64_t stamp)
{
	return frames[page][stamp % FRAMES];
}

static void entry_write(uint64_t *entry, uint64_t value)
{
	*(volatile uint64_t *)entry = value;
}

static void window_open(void)
{
	page_tables[1] = (uint64_t)window_pdpt | PTE_PRESENT | PTE_WRITE | 4;
	window_pdpt[0] = (uint64_t)window_pd | PTE_PRESENT | PTE_WRITE;
	window_pdpt[1] = (uint64_t)large_pd | PTE_PRESENT | PTE_WRITE;
	window_pd[0] = (uint64_t)window_pt | PTE_PRESENT | PTE_WRITE;
	for (uint32_t i = 0; i < PAGES; i++) {
		changing[i].stamp = 1;
		*frame_of(i, 1) = 1;
		window_pt[i] = (uint64_t)frame_of(i, 1) | PTE_PRESENT | PTE_WRITE;
		atomic_store(&changing[i].published, 1);
	}
}

/* --- the ways of asking ----------------------------------------------------------------------- */

enum way {
	WAY_SPACE_ALL,
	WAY_SPACE_MASK,
	WAY_SPACE_FAST,
	WAY_SPACE_SPARSE,
	WAY_SPACE_SET_ALL,
	WAY_SPACE_NON_GLOBAL,
	WAY_SPACES_ALL,
	WAY_LIST_ALL,
	WAY_LIST_MASK,
	WAY_LIST_FAST,
	WAY_LIST_SPARSE,
	WAY_LIST_SPACES,
	WAY_LIST_EXTENDED,
	WAY_LIST_START,
	WAY_RANGE,
	WAY_MANY,
	WAY_COUNT,
};

static const char *const way_names[] = {
	[WAY_SPACE_ALL] = "space, all processors",
	[WAY_SPACE_MASK] = "space, mask",
	[WAY_SPACE_FAST] = "space, all processors, fast",
	[WAY_SPACE_SPARSE] = "space, sparse set",
	[WAY_SPACE_SET_ALL] = "space, set of all",
	[WAY_SPACE_NON_GLOBAL] = "space, non-global pages",
	[WAY_SPACES_ALL] = "all spaces",
	[WAY_LIST_ALL] = "list of one page, all processors",
	[WAY_LIST_MASK] = "list of one page, mask",
	[WAY_LIST_FAST] = "list of one page, fast",
	[WAY_LIST_SPARSE] = "list of one page, sparse set",
	[WAY_LIST_SPACES] = "list of one page, all spaces",
	[WAY_LIST_EXTENDED] = "list of one page, extended format",
	[WAY_LIST_START] = "list whose first elements are done",
	[WAY_RANGE] = "one range of many pages",
	[WAY_MANY] = "list of many pages",
};

/* Has this way a page of its own each for all of PAGES? */
static bool way_is_wide(enum way way)
{
	return way == WAY_RANGE || way == WAY_MANY;
}

/* The input of a call, one for each processor. */
static _Alignas(4096) uint64_t inputs[CPU_COUNT_MAX][HV_INPUT_WORDS];

/* Asks for the flush of page `first`, or all pages, on the processors in `targets`. */
static uint64_t flush_ask(enum way way, uint32_t first, uint64_t targets)
{
	uint64_t *words = inputs[cpu_self()->number];
	uint64_t address = (uint64_t)page_address(first);
	uint32_t count;

	words[0] = cr3_read();
	words[1] = HV_ALL_PROCESSORS;
	words[2] = 0;
	words[3] = address;
	switch (way) {
	case WAY_SPACE_ALL:
		return hv_call(HV_FLUSH_SPACE, (uint64_t)words);
	case WAY_SPACE_MASK:
		words[1] = 0;
		hv_mask_get(targets, &words[2]);
		return hv_call(HV_FLUSH_SPACE, (uint64_t)words);
	case WAY_SPACE_FAST:
		return hv_call_fast(HV_FLUSH_SPACE | HV_FAST, words);
	case WAY_SPACE_SPARSE:
		words[1] = 0;
		count = hv_set_write(&words[2], targets);
		return hv_call(HV_FLUSH_SPACE_EX | HV_VARIABLE(count), (uint64_t)words);
	case WAY_SPACE_SET_ALL:
		words[1] = 0;
		words[2] = HV_SET_ALL;
		words[3] = 0;
		return hv_call(HV_FLUSH_SPACE_EX, (uint64_t)words);
	case WAY_SPACE_NON_GLOBAL:
		words[1] |= HV_NON_GLOBAL_ONLY;
		return hv_call(HV_FLUSH_SPACE, (uint64_t)words);
	case WAY_SPACES_ALL:
		words[0] = 0;
		words[1] |= HV_ALL_SPACES;
		return hv_call(HV_FLUSH_SPACE, (uint64_t)words);
	case WAY_LIST_ALL:
		return hv_call(HV_FLUSH_LIST | HV_REPS(1), (uint64_t)words) - HV_REPS(1);
	case WAY_LIST_MASK:
		words[1] = 0;
		hv_mask_get(targets, &words[2]);
		return hv_call(HV_FLUSH_LIST | HV_REPS(1), (uint64_t)words) - HV_REPS(1);
	case WAY_LIST_FAST:
		return hv_call_fast(HV_FLUSH_LIST | HV_FAST | HV_REPS(1), words) - HV_REPS(1);
	case WAY_LIST_SPARSE:
		words[1] = 0;
		count = hv_set_write(&words[2], targets);
		words[4 + count] = address;
		return hv_call(HV_FLUSH_LIST_EX | HV_VARIABLE(count) | HV_REPS(1),
			       (uint64_t)words) -
			HV_REPS(1);
	case WAY_LIST_SPACES:
		words[0] = 0;
		words[1] |= HV_ALL_SPACES;
		return hv_call(HV_FLUSH_LIST | HV_REPS(1), (uint64_t)words) - HV_REPS(1);
	case WAY_LIST_EXTENDED:
		words[1] |= HV_EXTENDED_RANGES;
		return hv_call(HV_FLUSH_LIST | HV_REPS(1), (uint64_t)words) - HV_REPS(1);
	case WAY_LIST_START:
		words[3] = words[4] = 0;
		words[5] = address;
		return hv_call(HV_FLUSH_LIST | HV_REPS(3) | HV_START(2), (uint64_t)words) -
			HV_REPS(3);
	case WAY_RANGE:
		words[3] = (uint64_t)page_address(0) | (PAGES - 1);
		return hv_call(HV_FLUSH_LIST | HV_REPS(1), (uint64_t)words) - HV_REPS(1);
	case WAY_MANY:
		for (uint32_t i = 0; i < PAGES; i++)
			words[3 + i] = (uint64_t)page_address(i);
		return hv_call(HV_FLUSH_LIST | HV_REPS(PAGES), (uint64_t)words) - HV_REPS(PAGES);
	case WAY_COUNT:
		break;
	}
	return ~0ull;
}

/* --- readers ---------------------------------------------------------------------------------- */

static atomic_bool leave;
static uint64_t global_bit;
static _Atomic uint64_t changes; /* the writer's: it hangs if they stop */

/* What each reader found. */
static struct reader {
	_Alignas(64) _Atomic uint64_t reads;
	uint64_t stale;
	uint64_t faults;
} readers[CPU_COUNT_MAX];

static void stale_count(uint32_t self)
{
	readers[self].stale++;
}

/* One look at one page: the stamp asked for first, the page afterwards. */
static void page_read(uint32_t self, uint32_t page)
{
	uint64_t least = atomic_load_explicit(&changing[page].published, memory_order_acquire);
	uint64_t own =
		atomic_load_explicit(&changing[page].published_for[self], memory_order_acquire);
	uint64_t found = *page_address(page);

	if (own > least)
		least = own;
	if (found < least || found == WIPED)
		stale_count(self);
}

static void readers_clear(void)
{
	for (uint32_t i = 0; i < total; i++) {
		atomic_store(&readers[i].reads, 0);
		readers[i].stale = readers[i].faults = 0;
	}
}

static uint64_t readers_stale(void)
{
	uint64_t stale = 0;

	for (uint32_t i = 0; i < total; i++)
		stale += readers[i].stale;
	return stale;
}

static bool readers_read(uint32_t writer)
{
	bool all = true;

	for (uint32_t i = 0; i < total; i++)
		all &= i == writer || atomic_load(&readers[i].reads) > 0;
	return all;
}

static uint32_t read_pages;

static void read_run(void *argument)
{
	uint32_t self = cpu_self()->number;

	(void)argument;
	while (!atomic_load_explicit(&leave, memory_order_acquire)) {
		for (uint32_t page = 0; page < read_pages; page++)
			page_read(self, page);
		atomic_fetch_add_explicit(&readers[self].reads, 1, memory_order_relaxed);
	}
}

/* --- the writer ------------------------------------------------------------------------------- */

struct job {
	enum way way;
	uint64_t targets; /* whom the flush is for; the others are brought up to date afterwards */
	uint64_t wrong; /* results that were not success */
};

static void publish(uint32_t page, uint64_t targets, uint64_t stamp)
{
	if (targets == (total == 64 ? ~0ull : (1ull << total) - 1)) {
		atomic_store_explicit(&changing[page].published, stamp, memory_order_release);
		return;
	}
	for (uint32_t i = 0; i < total; i++)
		if (targets >> i & 1)
			atomic_store_explicit(
				&changing[page].published_for[i], stamp, memory_order_release);
}

/* Maps the next frame, stamped, and says which one was there. */
static volatile uint64_t *page_change(uint32_t page)
{
	uint64_t stamp = ++changing[page].stamp;

	*frame_of(page, stamp) = stamp;
	entry_write(&window_pt[page],
		(uint64_t)frame_of(page, stamp) | PTE_PRESENT | PTE_WRITE | global_bit);
	return frame_of(page, stamp - 1);
}

static void write_run(void *argument)
{
	struct job *job = argument;
	uint32_t count = way_is_wide(job->way) ? PAGES : 1;
	uint64_t all = total == 64 ? ~0ull : (1ull << total) - 1;
	uint64_t deadline = clock_deadline(way_ms * 1000);

	for (uint64_t round = 0; goes_on(round, deadline); round++) {
		volatile uint64_t *before[PAGES];

		for (uint32_t i = 0; i < count; i++)
			before[i] = page_change(i);
		job->wrong += flush_ask(job->way, 0, job->targets) != HV_SUCCESS;
		atomic_fetch_add_explicit(&changes, 1, memory_order_relaxed);
		for (uint32_t i = 0; i < count; i++)
			publish(i, job->targets, changing[i].stamp);
		/* Somebody who was not addressed may still be in the frame of before. */
		if (job->targets == all)
			for (uint32_t i = 0; i < count; i++)
				*before[i] = WIPED;
		for (uint32_t i = 0; i < count; i++)
			page_read(cpu_self()->number, i);
		if (job->targets != all) {
			job->wrong += flush_ask(WAY_SPACE_ALL, 0, all) != HV_SUCCESS;
			for (uint32_t i = 0; i < count; i++)
				publish(i, all, changing[i].stamp);
		}
	}
}

static void pge_run(void *argument)
{
	(void)argument;
	cr4_write(global_bit ? cr4_read() | CR4_PGE : cr4_read() & ~CR4_PGE);
}

static void everywhere(void (*function)(void *))
{
	function(NULL);
	for (uint32_t i = 1; i < total; i++)
		cpu_call(&cpus[i], function, NULL);
}

/* Nothing has changed for long: says who still does what, and gives up. */
static void hang_report(void)
{
	uint64_t before[CPU_COUNT_MAX] = {0};

	for (uint32_t i = 0; i < total; i++)
		before[i] = atomic_load(&readers[i].reads);
	clock_delay(1000000);
	for (uint32_t i = 0; i < total; i++)
		tap_note("processor %u: state %u, %lu looks, %lu of them in the last second", i,
			(uint32_t)atomic_load(&cpus[i].state), atomic_load(&readers[i].reads),
			atomic_load(&readers[i].reads) - before[i]);
	tap_bail("the writer hangs after %lu changes: %lu stale so far", atomic_load(&changes),
		readers_stale());
}

/*
 * Runs a writer on processor 1 while all others read, this one included: it must notice a writer that
 * hangs. Alone, it writes itself.
 */
static void writer_run(void (*write)(void *), void (*read)(void *), void *job)
{
	uint64_t deadline, seen;

	readers_clear();
	atomic_store(&leave, false);
	if (total == 1) {
		write(job);
		return;
	}
	for (uint32_t i = 2; i < total; i++)
		cpu_call_start(&cpus[i], read, NULL);
	for (uint32_t i = 2; i < total; i++)
		/* The second wait: for a computer that stood still for the whole first one. */
		if (!clock_wait_for(atomic_load(&readers[i].reads) > 0, LIMIT_US) &&
			!clock_wait_for(atomic_load(&readers[i].reads) > 0, LIMIT_US / 10)) {
			tap_note("processor %u does not begin to read", i);
			hang_report();
		}
	cpu_call_start(&cpus[1], write, job);
	deadline = clock_deadline(LIMIT_US);
	seen = atomic_load(&changes);
	/* Reads in turns, so that this loop is as warm as the others' and still ends. */
	do {
		for (uint32_t n = 0; n < 1000; n++)
			for (uint32_t page = 0; page < read_pages; page++)
				page_read(0, page);
		atomic_fetch_add_explicit(&readers[0].reads, 1, memory_order_relaxed);
		if (seen != atomic_load(&changes)) {
			seen = atomic_load(&changes);
			deadline = clock_deadline(LIMIT_US);
		} else if (clock_passed(deadline) &&
			!clock_wait_for(seen != atomic_load(&changes) ||
					atomic_load(&cpus[1].state) == CPU_IDLE,
				LIMIT_US / 10)) {
			hang_report();
		}
	} while (atomic_load_explicit(&cpus[1].state, memory_order_acquire) != CPU_IDLE);
	atomic_store_explicit(&leave, true, memory_order_release);
	for (uint32_t i = 2; i < total; i++)
		cpu_call_wait(&cpus[i]);
}

static void way_test(enum way way, uint64_t targets, const char *more)
{
	struct job job = {.way = way, .targets = targets};
	bool read;

	read_pages = way_is_wide(way) ? PAGES : 1;
	writer_run(write_run, read_run, &job);
	read = total == 1 || readers_read(1);
	tap_check(!readers_stale() && !job.wrong && read, "%s%s", way_names[way], more);
	if (readers_stale() || job.wrong || !read)
		tap_note("%lu stale accesses, %lu wrong results", readers_stale(), job.wrong);
}

static void ways_test(void)
{
	uint64_t all = total == 64 ? ~0ull : (1ull << total) - 1, mask;

	for (enum way way = 0; way < WAY_COUNT; way++) {
		if ((way == WAY_SPACE_MASK || way == WAY_LIST_MASK) && !hv_mask_get(all, &mask))
			continue; /* the mask cannot name them */
		way_test(way, all, "");
	}
	if (total > 2) {
		/* The writer and one more; then every second one. */
		way_test(WAY_SPACE_SPARSE, 6, ", two of them");
		way_test(WAY_LIST_SPARSE, 6, ", two of them");
		way_test(WAY_LIST_SPARSE, 0xaaaaaaaaaaaaaaaaull & all, ", every second one");
	}
	global_bit = PTE_GLOBAL;
	everywhere(pge_run);
	way_test(WAY_SPACE_ALL, all, ", of global pages");
	way_test(WAY_LIST_ALL, all, ", of global pages");
	way_test(WAY_SPACES_ALL, all, ", of global pages");
	global_bit = 0;
	everywhere(pge_run);
}

/* --- pages that go ---------------------------------------------------------------------------- */

static void probe_run(void *argument)
{
	*(uint64_t *)argument = *page_address(0);
}

/* Odd stamps: the page is not there. */
static void gone_read_once(uint32_t self)
{
	uint64_t before = atomic_load_explicit(&changing[0].published, memory_order_acquire);
	uint64_t found;
	int vector = trap_catch(probe_run, &found);
	uint64_t after = atomic_load_explicit(&changing[0].published, memory_order_acquire);

	if (before != after)
		return;
	readers[self].faults += vector == TRAP_PF;
	if ((before & 1) && vector != TRAP_PF)
		stale_count(self);
}

static void gone_read_run(void *argument)
{
	uint32_t self = cpu_self()->number;

	(void)argument;
	while (!atomic_load_explicit(&leave, memory_order_acquire)) {
		gone_read_once(self);
		atomic_fetch_add_explicit(&readers[self].reads, 1, memory_order_relaxed);
	}
}

static void gone_write_run(void *argument)
{
	struct job *job = argument;
	uint64_t deadline = clock_deadline(way_ms * 1000);

	for (uint64_t round = 0; goes_on(round, deadline); round++) {
		uint64_t entry = window_pt[0];

		entry_write(&window_pt[0], 0);
		job->wrong += flush_ask(WAY_LIST_ALL, 0, 0) != HV_SUCCESS;
		atomic_fetch_add_explicit(&changes, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&changing[0].published, 1, memory_order_release);
		gone_read_once(cpu_self()->number);
		clock_delay(20);
		/* About to come back: from here on either is right. */
		atomic_fetch_add_explicit(&changing[0].published, 1, memory_order_release);
		entry_write(&window_pt[0], entry);
	}
}

static void gone_test(void)
{
	struct job job = {0};
	uint64_t faults = 0;

	atomic_store(&changing[0].published, 0);
	for (uint32_t i = 0; i < CPU_COUNT_MAX; i++)
		atomic_store(&changing[0].published_for[i], 0);
	read_pages = 0;
	writer_run(gone_write_run, gone_read_run, &job);
	for (uint32_t i = 0; i < total; i++)
		faults += readers[i].faults;
	tap_check(
		!readers_stale() && !job.wrong && faults, "pages that go: %lu page faults", faults);
	if (readers_stale() || job.wrong)
		tap_note("%lu stale accesses, %lu wrong results", readers_stale(), job.wrong);
	atomic_store(&changing[0].published, changing[0].stamp);
}

/* --- large pages ------------------------------------------------------------------------------ */

static volatile uint64_t *large_address;

static void large_read_run(void *argument)
{
	uint32_t self = cpu_self()->number;

	(void)argument;
	while (!atomic_load_explicit(&leave, memory_order_acquire)) {
		uint64_t least = atomic_load_explicit(&changing[0].published, memory_order_acquire);
		uint64_t found = *large_address;

		if (found < least || found == WIPED)
			stale_count(self);
		atomic_fetch_add_explicit(&readers[self].reads, 1, memory_order_relaxed);
	}
}

static volatile uint64_t *large_frame(uint64_t stamp)
{
	return (volatile uint64_t *)(FRAME_2M + (stamp & 1) * SIZE_2M + LARGE_OFFSET);
}

struct large_job {
	bool huge; /* 1 GiB against 2 MiB pages, instead of 2 MiB pages */
	bool extended;
	uint64_t wrong;
};

/* The two frames take turns under the address. */
static void large_map(bool huge, uint64_t stamp)
{
	uint64_t frame = (uint64_t)large_frame(stamp) - LARGE_OFFSET;

	if (!huge)
		entry_write(&large_pd[0], frame | PTE_PRESENT | PTE_WRITE | PTE_LARGE);
	else if (stamp & 1)
		/* 2 MiB pages, of which one is not where the 1 GiB page has it. */
		entry_write(&window_pdpt[2], (uint64_t)split_pd | PTE_PRESENT | PTE_WRITE);
	else
		entry_write(&window_pdpt[2], PTE_PRESENT | PTE_WRITE | PTE_LARGE);
}

static void large_write_run(void *argument)
{
	struct large_job *job = argument;
	uint64_t *words = inputs[cpu_self()->number];
	uint64_t base = job->huge ? WINDOW_1G : WINDOW_2M;
	uint64_t deadline = clock_deadline(way_ms * 1000);

	for (uint64_t round = 0; goes_on(round, deadline); round++) {
		uint64_t stamp = ++changing[0].stamp;

		*large_frame(stamp) = stamp;
		large_map(job->huge, stamp);
		words[0] = cr3_read();
		words[1] = HV_ALL_PROCESSORS | (job->extended ? HV_EXTENDED_RANGES : 0);
		words[2] = 0;
		/* Plain: any page of it is enough for all of it. */
		words[3] = job->extended
			? base | 0x800 | (job->huge ? 0x1000 : 0)
			: base + (job->huge ? FRAME_2M + LARGE_OFFSET : LARGE_OFFSET);
		job->wrong += hv_call(HV_FLUSH_LIST | HV_REPS(1), (uint64_t)words) !=
			HV_RESULT(HV_SUCCESS, 1);
		atomic_fetch_add_explicit(&changes, 1, memory_order_relaxed);
		atomic_store_explicit(&changing[0].published, stamp, memory_order_release);
		*large_frame(stamp - 1) = WIPED;
		if (*large_address != stamp)
			stale_count(cpu_self()->number);
	}
}

static void large_test(void)
{
	static const struct {
		bool huge, extended;
		const char *name;
	} cases[] = {
		{false, false, "2 MiB page, plain range"},
		{false, true, "2 MiB page, extended range"},
		{true, false, "1 GiB page, plain range"},
		{true, true, "1 GiB page, extended range"},
	};
	bool has_huge = cpuid_get(0x80000001, 0).edx >> 26 & 1;

	if (!boot_memory_is_ram(FRAME_2M, FRAME_2M + 2 * SIZE_2M))
		tap_bail("no RAM at 64 MiB");
	for (uint32_t i = 0; i < 512; i++)
		split_pd[i] = i * SIZE_2M | PTE_PRESENT | PTE_WRITE | PTE_LARGE;
	split_pd[FRAME_2M / SIZE_2M] = (FRAME_2M + SIZE_2M) | PTE_PRESENT | PTE_WRITE | PTE_LARGE;
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct large_job job = {.huge = cases[i].huge, .extended = cases[i].extended};

		if (job.huge && !has_huge) {
			tap_skip(cases[i].name, "the processor has none");
			continue;
		}
		large_address = (volatile uint64_t *)(job.huge ? WINDOW_1G + FRAME_2M + LARGE_OFFSET
							       : WINDOW_2M + LARGE_OFFSET);
		changing[0].stamp += 1;
		*large_frame(changing[0].stamp) = changing[0].stamp;
		large_map(job.huge, changing[0].stamp);
		everywhere(pge_run); /* and so empties the TLBs */
		atomic_store(&changing[0].published, changing[0].stamp);
		read_pages = 0;
		writer_run(large_write_run, large_read_run, &job);
		tap_check(!readers_stale() && !job.wrong, "%s", cases[i].name);
		if (readers_stale() || job.wrong)
			tap_note("%lu stale accesses, %lu wrong results", readers_stale(),
				job.wrong);
	}
}

/* --- accesses that Parapet makes for the guest ------------------------------------------------ */

/*
 * A device register whose other operand is in the changing page: Parapet walks the guest's tables for
 * it, and holds off flushes as long as it uses what it found.
 */
static void emulated_read_once(uint32_t self)
{
	uint64_t least = atomic_load_explicit(&changing[0].published, memory_order_acquire);
	volatile uint64_t *source = page_address(0);
	volatile uint32_t *target =
		(volatile uint32_t *)(uint64_t)(APIC_BASE_ADDRESS + APIC_TIMER_START);
	uint32_t found;

	__asm__ volatile("movsl" : "+S"(source), "+D"(target) : : "memory");
	found = apic_read(APIC_TIMER_START);
	if (found < least || found == WIPED)
		stale_count(self);
}

static void emulated_read_run(void *argument)
{
	uint32_t self = cpu_self()->number;

	(void)argument;
	while (!atomic_load_explicit(&leave, memory_order_acquire)) {
		emulated_read_once(self);
		atomic_fetch_add_explicit(&readers[self].reads, 1, memory_order_relaxed);
	}
}

static void timer_off_run(void *argument)
{
	(void)argument;
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_WAKE);
}

static void emulated_test(void)
{
	struct job job = {
		.way = WAY_LIST_ALL, .targets = total == 64 ? ~0ull : (1ull << total) - 1};
	uint64_t reads = 0;

	if (total < 3) {
		tap_skip("accesses that are emulated", "there are fewer than three processors");
		return;
	}
	everywhere(timer_off_run);
	read_pages = 1;
	changing[0].stamp += 2;
	page_change(0);
	flush_ask(WAY_SPACE_ALL, 0, 0);
	publish(0, job.targets, changing[0].stamp);
	writer_run(write_run, emulated_read_run, &job);
	for (uint32_t i = 2; i < total; i++)
		reads += atomic_load(&readers[i].reads);
	tap_check(!readers_stale() && !job.wrong && reads,
		"device accesses from a page that changes");
	if (readers_stale() || job.wrong)
		tap_note("%lu stale accesses, %lu wrong results", readers_stale(), job.wrong);
	tap_note("%lu device accesses", reads);
}

/* --- everybody against everybody -------------------------------------------------------------- */

static uint64_t storm_end;
static _Atomic uint64_t storm_changes, storm_wrong;

/* Each processor changes the pages of its own, and looks at all the others' meanwhile. */
static void storm_run(void *argument)
{
	uint32_t self = cpu_self()->number, page = self % PAGES;
	uint64_t all = total == 64 ? ~0ull : (1ull << total) - 1;
	static const enum way ways[] = {WAY_LIST_SPARSE, WAY_SPACE_SPARSE, WAY_LIST_ALL,
		WAY_LIST_FAST, WAY_SPACE_SET_ALL, WAY_LIST_SPACES};

	(void)argument;
	for (uint64_t n = 0; !clock_passed(storm_end); n++) {
		volatile uint64_t *before = page_change(page);

		if (flush_ask(ways[(n + self) % (sizeof(ways) / sizeof(ways[0]))], page, all))
			atomic_fetch_add(&storm_wrong, 1);
		publish(page, all, changing[page].stamp);
		*before = WIPED;
		atomic_fetch_add_explicit(&storm_changes, 1, memory_order_relaxed);
		for (uint32_t look = 0; look < 50; look++)
			for (uint32_t i = 0; i < total && i < PAGES; i++)
				page_read(self, i);
	}
}

static void storm_test(void)
{
	uint64_t seconds = 2;

	boot_number_get("seconds", &seconds);
	if (total > PAGES)
		return;
	for (uint32_t i = 0; i < PAGES; i++) {
		page_change(i);
		publish(i, total == 64 ? ~0ull : (1ull << total) - 1, 0);
	}
	flush_ask(WAY_SPACE_ALL, 0, 0);
	readers_clear();
	storm_end = clock_deadline(seconds * 1000000);
	for (uint32_t i = 1; i < total; i++)
		cpu_call_start(&cpus[i], storm_run, NULL);
	storm_run(NULL);
	for (uint32_t i = 1; i < total; i++)
		if (!cpu_call_done(&cpus[i], LIMIT_US))
			tap_bail("processor %u hangs in the storm", i);
	tap_check(!readers_stale() && !atomic_load(&storm_wrong),
		"everybody flushes everybody, %lu s", seconds);
	tap_note("%lu changes, %lu stale accesses, %lu wrong results", atomic_load(&storm_changes),
		readers_stale(), atomic_load(&storm_wrong));
}

void kernel_main(void)
{
	total = cpu_all_start();
	interrupts_enable();
	if (!boot_has_paravisor()) {
		tap_note("on the bare machine: nothing to test");
		tap_skip("flushes", "not under a paravisor");
		return;
	}
	tap_note("under a paravisor, %u processors", total);
	boot_number_get("ms", &way_ms);
	clock_frequency();
	hv_start();
	hv_indexes_read();
	window_open();
	ways_test();
	gone_test();
	large_test();
	emulated_test();
	tap_note("%lu flushes while others read", atomic_load(&changes));
	storm_test();
}
