/*
 * Workloads of fixed size for the benchmarks: the same work on every run, timed with the monotonic
 * clock, one line "bench: NAME ELAPSED_US" each. Anything whose amount of work depends on time or
 * on the number of processors may not enter.
 */
#include <errno.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define CPU_ROUNDS  300000000u
#define CPU_WORDS   4096u /* 32 KiB: stays in the first cache level */
#define FORK_ROUNDS 300u
#define PROGRAM	    "/bin/nothing"

static uint64_t time_get_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Arithmetic and cached memory only: no system call, no fault after the first round. */
static int cpu_run(void)
{
	static volatile uint64_t words[CPU_WORDS];
	uint64_t state = 1;

	for (uint32_t i = 0; i < CPU_ROUNDS; i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		words[(state >> 33) % CPU_WORDS] += state;
	}
	/* The generator has no choice in where it ends. */
	for (uint32_t i = 0; i < CPU_WORDS; i++)
		state ^= words[i];
	printf("cpu: result %016llx\n", (unsigned long long)state);
	return 0;
}

/* Processes made, executed and buried one after another: page tables, faults and exits. */
static int fork_run(void)
{
	static char *arguments[] = {(char *)PROGRAM, NULL};
	static char *environment[] = {NULL};

	for (uint32_t i = 0; i < FORK_ROUNDS; i++) {
		pid_t pid;
		int status;

		errno = posix_spawn(&pid, PROGRAM, NULL, NULL, arguments, environment);
		if (errno) {
			perror("work: " PROGRAM);
			return 1;
		}
		if (waitpid(pid, &status, 0) != pid || status != 0) {
			fprintf(stderr, "work: a child failed: status %#x\n", status);
			return 1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t start = time_get_us();
	int result;

	if (argc == 2 && !strcmp(argv[1], "cpu")) {
		result = cpu_run();
	} else if (argc == 2 && !strcmp(argv[1], "fork")) {
		result = fork_run();
	} else {
		fprintf(stderr, "usage: work cpu|fork\n");
		return 2;
	}
	if (!result)
		printf("bench: %s %llu\n", argv[1], (unsigned long long)(time_get_us() - start));
	return result;
}
