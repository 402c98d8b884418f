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
 * Prints "tlbstorm: NAME CHANGES ELAPSED_US" for each. Anything whose amount of work depends on time
 * may not enter.
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

static void fail(const char *what)
{
	fprintf(stderr, "tlbstorm: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t time_get_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
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

static void *bystand(void *argument)
{
	pin((int)(intptr_t)argument);
	touch();
	atomic_fetch_add(&ready, 1);
	while (!atomic_load_explicit(&stop_asked, memory_order_relaxed)) {
		if (busy)
			touch();
		else
			usleep(100000);
	}
	return NULL;
}

static void protect_change(uint32_t count)
{
	for (uint32_t i = 0; i < count / 2; i++) {
		void *page = (uint8_t *)pages + i % PAGES * PAGE;

		/* Written while it may be, so that the entry has something to lose. */
		*(volatile uint64_t *)page = i;
		if (mprotect(page, PAGE, PROT_READ) || mprotect(page, PAGE, PROT_READ | PROT_WRITE))
			fail("mprotect");
	}
}

static void unmap_change(uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t *page = mmap(
			NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (page == MAP_FAILED)
			fail("mmap");
		*(volatile uint64_t *)page = i;
		if (munmap(page, PAGE))
			fail("munmap");
	}
}

static void measure(const char *name, void (*change)(uint32_t), uint32_t count)
{
	uint64_t start = time_get_us();

	change(count);
	printf("tlbstorm: %s %u %llu\n", name, count, (unsigned long long)(time_get_us() - start));
}

int main(int argc, char **argv)
{
	unsigned long count = argc == 3 ? strtoul(argv[2], NULL, 10) : ~0ul;
	pthread_t threads[THREADS_MAX];
	uint32_t others = 0;
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
		errno = pthread_create(&threads[others++], NULL, bystand, (void *)(intptr_t)cpu);
		if (errno)
			fail("pthread_create");
	}
	pin(first);
	while (atomic_load(&ready) < others)
		usleep(1000);
	measure("protect", protect_change, (uint32_t)count);
	measure("unmap", unmap_change, (uint32_t)count);
	atomic_store(&stop_asked, true);
	for (uint32_t i = 0; i < others; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
