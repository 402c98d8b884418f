/*
 * Hardware watchpoints and breakpoints as debuggers and profilers use them, by ptrace and by
 * perf_event, on every processor, while timers and interprocessor interrupts storm and the watched
 * threads move from one processor to another. The number of hits must be exact.
 *
 *	watch HITS
 *
 * HITS of each kind, shared out among the processors. Status 0 when none was lost and none was extra.
 */
#include <errno.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCESSORS_MAX 64
#define PTRACE_SHARE   8 /* a stop costs the tracer many system calls: fewer of those */

static int processors[PROCESSORS_MAX];
static int processor_count;
static uint64_t hits_wanted;

static void fail(const char *what)
{
	fprintf(stderr, "watch: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void move_to(int processor)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
}

static void find_processors(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		fail("sched_getaffinity");
	for (int i = 0; i < CPU_SETSIZE && processor_count < PROCESSORS_MAX; i++) {
		if (CPU_ISSET(i, &set))
			processors[processor_count++] = i;
	}
}

/* --- what is watched -------------------------------------------------------------------------------- */

/* One process for each processor; all of them are copies of these. */
static _Alignas(64) volatile uint64_t variable;
static volatile uint64_t turns;

__attribute__((noinline)) static void function(void)
{
	turns++;
	__asm__ volatile("" : : : "memory");
}

/*
 * Writes the variable and calls the function so often, moving about all the time: every 16 turns to
 * the next processor.
 */
static void act(uint64_t times, int first)
{
	for (uint64_t i = 0; i < times; i++) {
		variable = i;
		function();
		if (i % 16 == 15)
			move_to(processors[(first + i / 16) % (uint64_t)processor_count]);
	}
}

/* --- the storm --------------------------------------------------------------------------------------- */

/*
 * In a process of its own on each processor: a thread that changes mappings and asks for barriers, so
 * that its sibling on the next processor is interrupted all the time, and a timer of 2 kHz.
 */
static atomic_bool storm_over;

static void tick(int number)
{
	(void)number;
}

static void *storm_sibling(void *argument)
{
	move_to(*(int *)argument);
	while (!atomic_load_explicit(&storm_over, memory_order_relaxed)) {
		for (volatile int i = 0; i < 2000; i++) {
		}
		sched_yield();
	}
	return NULL;
}

static void storm_run(int index)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct itimerspec period = {{0, 500000}, {0, 500000}};
	int next = processors[(index + 1) % processor_count];
	pthread_t sibling;
	timer_t timer;

	move_to(processors[index]);
	nice(5);
	signal(SIGALRM, tick);
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) ||
		timer_settime(timer, 0, &period, NULL) ||
		pthread_create(&sibling, NULL, storm_sibling, &next))
		fail("storm");
	for (;;) {
		char *page = mmap(
			NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (page == MAP_FAILED)
			fail("mmap");
		page[0] = page[4096] = 1;
		mprotect(page, 4096, PROT_READ);
		munmap(page, 8192);
		usleep(300);
	}
}

static pid_t storms[PROCESSORS_MAX];

static void storm_start(void)
{
	for (int i = 0; i < processor_count; i++) {
		storms[i] = fork();
		if (storms[i] < 0)
			fail("fork");
		if (storms[i] == 0)
			storm_run(i);
	}
}

static void storm_stop(void)
{
	for (int i = 0; i < processor_count; i++) {
		kill(storms[i], SIGKILL);
		waitpid(storms[i], NULL, 0);
	}
}

/* --- perf_event ---------------------------------------------------------------------------------------- */

static int breakpoint_open(uint32_t type, const volatile void *address, uint64_t length)
{
	struct perf_event_attr attribute = {
		.type = PERF_TYPE_BREAKPOINT,
		.size = sizeof(attribute),
		.bp_type = type,
		.bp_addr = (uint64_t)(uintptr_t)address,
		.bp_len = length,
		.sample_period = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
		.disabled = 1,
	};
	int fd = (int)syscall(SYS_perf_event_open, &attribute, 0, -1, -1, 0);

	if (fd < 0)
		fail("perf_event_open");
	return fd;
}

static uint64_t breakpoint_count(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) != sizeof(count))
		fail("read of a perf event");
	return count;
}

struct result {
	uint64_t writes, executions, others;
};

/* Both at the same time. */
static struct result perf_run(uint64_t times, int first)
{
	int write = breakpoint_open(HW_BREAKPOINT_W, &variable, HW_BREAKPOINT_LEN_8);
	int execute =
		breakpoint_open(HW_BREAKPOINT_X, (const void *)(uintptr_t)function, sizeof(long));

	ioctl(write, PERF_EVENT_IOC_ENABLE, 0);
	ioctl(execute, PERF_EVENT_IOC_ENABLE, 0);
	act(times, first);
	ioctl(write, PERF_EVENT_IOC_DISABLE, 0);
	ioctl(execute, PERF_EVENT_IOC_DISABLE, 0);

	struct result result = {breakpoint_count(write), breakpoint_count(execute), 0};

	close(write);
	close(execute);
	return result;
}

/* --- ptrace ---------------------------------------------------------------------------------------------- */

#define DEBUG_REGISTER(n) offsetof(struct user, u_debugreg[n])

static void poke(pid_t child, int number, uint64_t value)
{
	if (ptrace(PTRACE_POKEUSER, child, DEBUG_REGISTER(number), value))
		fail("PTRACE_POKEUSER");
}

/* A child of its own that is traced: DR0 on writes of the variable, DR1 on the function. */
static struct result ptrace_run(uint64_t times, int first)
{
	struct result result = {0};
	pid_t child = fork();
	int status;

	if (child < 0)
		fail("fork");
	if (child == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(2);
		raise(SIGSTOP);
		act(times, first);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
		fail("the traced child");
	poke(child, 0, (uint64_t)(uintptr_t)&variable);
	poke(child, 1, (uint64_t)(uintptr_t)function);
	/* DR0: writes of 8 bytes; DR1: execution; both enabled for this thread. */
	poke(child, 7, 0x5 | 0x9ull << 16);
	for (int deliver = 0;;) {
		if (ptrace(PTRACE_CONT, child, NULL, deliver))
			fail("PTRACE_CONT");
		if (waitpid(child, &status, 0) != child)
			fail("waitpid");
		if (WIFEXITED(status)) {
			if (WEXITSTATUS(status))
				fail("the traced child");
			return result;
		}
		deliver = 0;
		if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
			deliver = WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
			continue;
		}
		errno = 0;

		long dr6 = ptrace(PTRACE_PEEKUSER, child, DEBUG_REGISTER(6), NULL);

		if (errno)
			fail("PTRACE_PEEKUSER");
		result.writes += dr6 & 1;
		result.executions += dr6 >> 1 & 1;
		if (!(dr6 & 3))
			result.others++; /* a stop for no reason */
		poke(child, 6, 0);
	}
}

/* --- all processors at once --------------------------------------------------------------------------------- */

static bool report(const char *name, const struct result *sum, const struct result *wanted)
{
	bool right = !memcmp(sum, wanted, sizeof(*sum));

	printf("watch: %s: %llu writes, %llu executions, %llu others, wanted %llu, %llu, %llu%s\n",
		name, (unsigned long long)sum->writes, (unsigned long long)sum->executions,
		(unsigned long long)sum->others, (unsigned long long)wanted->writes,
		(unsigned long long)wanted->executions, (unsigned long long)wanted->others,
		right ? "" : ": WRONG");
	fflush(stdout);
	return right;
}

/* Runs it in a process for each processor; the sums of what they find. */
static struct result run_everywhere(struct result (*run)(uint64_t, int), uint64_t times)
{
	struct result *results = mmap(NULL, sizeof(*results) * PROCESSORS_MAX,
		PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct result sum = {0};
	pid_t children[PROCESSORS_MAX];

	if (results == MAP_FAILED)
		fail("mmap");
	for (int i = 0; i < processor_count; i++) {
		children[i] = fork();
		if (children[i] < 0)
			fail("fork");
		if (children[i] == 0) {
			move_to(processors[i]);
			results[i] = run(times, i);
			_exit(0);
		}
	}
	for (int i = 0; i < processor_count; i++) {
		int status;

		if (waitpid(children[i], &status, 0) != children[i] || status)
			fail("a watched process");
		sum.writes += results[i].writes;
		sum.executions += results[i].executions;
		sum.others += results[i].others;
	}
	return sum;
}

int main(int argc, char **argv)
{
	bool right = true;

	if (argc != 2 || (hits_wanted = strtoull(argv[1], NULL, 10)) == 0) {
		fprintf(stderr, "usage: watch HITS\n");
		return 2;
	}
	find_processors();

	uint64_t each = (hits_wanted + (uint64_t)processor_count - 1) / (uint64_t)processor_count;
	uint64_t traced = (each + PTRACE_SHARE - 1) / PTRACE_SHARE;
	uint64_t all = each * (uint64_t)processor_count;
	uint64_t all_traced = traced * (uint64_t)processor_count;

	storm_start();

	struct result sum = run_everywhere(perf_run, each);

	right &= report("perf_event", &sum, &(struct result){all, all, 0});
	sum = run_everywhere(ptrace_run, traced);
	right &= report("ptrace", &sum, &(struct result){all_traced, all_traced, 0});
	storm_stop();
	return right ? 0 : 1;
}
