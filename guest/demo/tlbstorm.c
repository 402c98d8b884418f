/*
 * Changes of mappings that every processor may have cached, a fixed number of them, timed: what a
 * flush of other processors' TLBs costs. One thread is pinned to each processor; the first one
 * changes, the others read the memory meanwhile (busy) or sleep (idle).
 *
 *	tlbstorm busy|idle COUNT
 *
 *   protect   a page that the others read is made read-only and writable again: two changes
 *   unmap     a page is mapped, touched and unmapped: one change
 *
 * Prints "tlbstorm: NAME CHANGES ELAPSED_US STEPS STEP_NS" for each: the whole, then of the steps (two
 * changes for protect, one for unmap) in which no other thread stood still for long, how many there
 * were and how long the middle one took. So the host's other work shows in the former only. Anything
 * whose amount of work depends on time may not enter.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE	    4096u
#define PAGES	    8u
#define THREADS_MAX 256u

static volatile uint64_t *pages;
static atomic_bool stop_asked;
static atomic_uint ready;
static bool busy;

/* Longer than any flush takes, shorter than the turns in which hosts share out a processor. */
#define STILL_NS 1000000u

/* When a busy thread last came by, and the longest it has been away since that was reset. */
static struct bystander {
	_Alignas(64) _Atomic uint64_t last_ns;
	_Atomic uint64_t away_ns;
} bystanders[THREADS_MAX];
static uint32_t others;
static int places[THREADS_MAX]; /* the processor of each */

static void fail(const char *what)
{
	fprintf(stderr, "tlbstorm: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t time_get_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
}

static void touch(void)
{
	for (uint32_t i = 0; i < PAGES; i++)
		(void)pages[i * (PAGE / sizeof(*pages))];
}

static void come_by(struct bystander *self)
{
	uint64_t now = time_get_ns();
	uint64_t away = now - atomic_load_explicit(&self->last_ns, memory_order_relaxed);

	if (away > atomic_load_explicit(&self->away_ns, memory_order_relaxed))
		atomic_store_explicit(&self->away_ns, away, memory_order_relaxed);
	atomic_store_explicit(&self->last_ns, now, memory_order_relaxed);
}

static void watch_begin(void)
{
	for (uint32_t i = 0; i < others; i++)
		atomic_store_explicit(&bystanders[i].away_ns, 0, memory_order_relaxed);
}

/* Has every busy thread gone on all the time, up to now? */
static bool watch_end(uint64_t now)
{
	bool all = true;

	for (uint32_t i = 0; busy && i < others; i++) {
		uint64_t last = atomic_load_explicit(&bystanders[i].last_ns, memory_order_relaxed);

		all &= last + STILL_NS > now &&
			atomic_load_explicit(&bystanders[i].away_ns, memory_order_relaxed) <
				STILL_NS;
	}
	return all;
}

static void *bystand(void *argument)
{
	uint32_t number = (uint32_t)(intptr_t)argument;

	pin(places[number]);
	touch();
	atomic_fetch_add(&ready, 1);
	while (!atomic_load_explicit(&stop_asked, memory_order_relaxed)) {
		if (busy) {
			touch();
			come_by(&bystanders[number]);
		} else {
			usleep(100000);
		}
	}
	return NULL;
}

/* One step each; the step's number makes what is written differ. */
static void protect_step(uint32_t step)
{
	void *page = (uint8_t *)pages + step % PAGES * PAGE;

	/* Written while it may be, so that the entry has something to lose. */
	*(volatile uint64_t *)page = step;
	if (mprotect(page, PAGE, PROT_READ) || mprotect(page, PAGE, PROT_READ | PROT_WRITE))
		fail("mprotect");
}

static void unmap_step(uint32_t step)
{
	uint64_t *page =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		fail("mmap");
	*(volatile uint64_t *)page = step;
	if (munmap(page, PAGE))
		fail("munmap");
}

static int by_value(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static void measure(const char *name, void (*step)(uint32_t), uint32_t steps, uint32_t changes)
{
	uint64_t *each = calloc(steps + 1, sizeof(*each));
	uint64_t start, before;
	uint32_t undisturbed = 0;

	if (!each)
		fail("calloc");
	start = before = time_get_ns();
	for (uint32_t i = 0; i < steps; i++) {
		watch_begin();
		step(i);

		uint64_t now = time_get_ns();

		if (watch_end(now))
			each[undisturbed++] = now - before;
		before = time_get_ns();
	}
	qsort(each, undisturbed, sizeof(*each), by_value);
	printf("tlbstorm: %s %u %llu %u %llu\n", name, changes,
		(unsigned long long)(before - start) / 1000, undisturbed,
		(unsigned long long)each[undisturbed / 2]);
	free(each);
}

int main(int argc, char **argv)
{
	unsigned long count = argc == 3 ? strtoul(argv[2], NULL, 10) : ~0ul;
	pthread_t threads[THREADS_MAX];
	int first = -1;
	cpu_set_t set;

	busy = argc == 3 && !strcmp(argv[1], "busy");
	if (count > 1000000000 || (!busy && strcmp(argv[1], "idle"))) {
		fprintf(stderr, "usage: tlbstorm busy|idle COUNT\n");
		return 2;
	}
	pages = mmap(
		NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED || sched_getaffinity(0, sizeof(set), &set))
		fail("start");
	memset((void *)pages, 1, PAGES * PAGE);
	for (int cpu = 0; cpu < CPU_SETSIZE && others < THREADS_MAX; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		if (first < 0) {
			first = cpu;
			continue;
		}
		places[others] = cpu;
		errno = pthread_create(&threads[others], NULL, bystand, (void *)(intptr_t)others);
		others++;
		if (errno)
			fail("pthread_create");
	}
	pin(first);
	while (atomic_load(&ready) < others)
		usleep(1000);
	measure("protect", protect_step, (uint32_t)count / 2, (uint32_t)count);
	measure("unmap", unmap_step, (uint32_t)count, (uint32_t)count);
	atomic_store(&stop_asked, true);
	for (uint32_t i = 0; i < others; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
