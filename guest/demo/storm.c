/*
 * The processors fight over memory mappings. One thread is pinned to each; each owns three pages
 * that it keeps mapping elsewhere, unmapping and write-protecting, while all the others read and
 * write them. Every change makes the kernel shoot down the others' TLBs. After the system call that
 * changed a mapping has returned, nobody may get through the old one; each thread proves that for
 * every single access it makes:
 *
 *   moved     the page under an address is replaced; a reader that saw number n published must read
 *             n or newer. The old page keeps its old number, so a stale translation shows.
 *   unmapped  between "gone" and "back" a read must fault.
 *   sealed    while the page is write-protected its contents must not change.
 *
 *	storm SECONDS
 *
 * Status 0 when no stale access was seen and every thread made progress.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE	     4096u
#define BACKING	     8u /* pages that take turns under the "moved" address */
#define THREADS_MAX  256u
#define SEALED_LOOKS 64u

enum slot {
	SLOT_MOVED,
	SLOT_UNMAPPED,
	SLOT_SEALED,
	SLOT_COUNT,
};

/* What a thread tells the others, in cache lines of its own. */
struct owner {
	_Alignas(128) _Atomic uint64_t moved; /* the number that a reader must see at least */
	_Alignas(128) _Atomic uint64_t unmapped; /* odd while the page is gone */
	_Alignas(128) uint64_t changes;
	uint64_t accesses;
	uint64_t faults;
	uint64_t stale;
	uint8_t *slots; /* SLOT_COUNT pages that everybody uses */
	uint64_t *alias; /* BACKING + 1 pages: the same memory, mapped once and for all */
	off_t offset; /* where this memory starts in the shared file */
	uint32_t index;
	int cpu;
	pthread_t thread;
};

static struct owner owners[THREADS_MAX];
static uint32_t owner_count;
static int file;
static atomic_bool stop_asked;

/*
 * Accesses that may fault: the handler moves on from the instruction to the label behind it, with
 * carry saying which way it went.
 */
extern const char probe_read_access[], probe_read_fault[];
extern const char probe_write_access[], probe_write_fault[];

bool probe_read(const volatile uint64_t *address, uint64_t *value);
bool probe_write(volatile uint64_t *address, uint64_t value);

__asm__(".pushsection .text\n"
	".globl probe_read, probe_write\n"
	"probe_read:\n"
	"probe_read_access: mov (%rdi), %rax\n"
	"	mov %rax, (%rsi)\n"
	"	mov $1, %eax\n"
	"	ret\n"
	"probe_read_fault: xor %eax, %eax\n"
	"	ret\n"
	"probe_write:\n"
	"probe_write_access: mov %rsi, (%rdi)\n"
	"	mov $1, %eax\n"
	"	ret\n"
	"probe_write_fault: xor %eax, %eax\n"
	"	ret\n"
	".popsection\n");

static void fault_handle(int number, siginfo_t *info, void *context)
{
	greg_t *rip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	(void)info;
	if (*rip == (greg_t)(uintptr_t)probe_read_access) {
		*rip = (greg_t)(uintptr_t)probe_read_fault;
	} else if (*rip == (greg_t)(uintptr_t)probe_write_access) {
		*rip = (greg_t)(uintptr_t)probe_write_fault;
	} else {
		static const char text[] = "storm: unexpected fault\n";

		(void)!write(2, text, sizeof(text) - 1);
		signal(number, SIG_DFL);
	}
}

static void fail(const char *what)
{
	fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
	exit(2);
}

static volatile uint64_t *slot_get(const struct owner *owner, enum slot slot)
{
	return (volatile uint64_t *)(owner->slots + (size_t)slot * PAGE);
}

static uint64_t *alias_get(const struct owner *owner, uint64_t page)
{
	return owner->alias + page * (PAGE / sizeof(uint64_t));
}

/* Puts a page of the owner's memory under one of its addresses, whatever was there before. */
static void slot_map(const struct owner *owner, enum slot slot, uint64_t page)
{
	void *address = owner->slots + (size_t)slot * PAGE;

	if (mmap(address, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file,
		    owner->offset + (off_t)(page * PAGE)) != address)
		fail("mmap");
}

static void moved_change(struct owner *owner)
{
	uint64_t next = atomic_load_explicit(&owner->moved, memory_order_relaxed) + 1;

	*(volatile uint64_t *)alias_get(owner, next % BACKING) = next;
	slot_map(owner, SLOT_MOVED, next % BACKING);
	/* Pairs with the acquire in moved_check: who sees the number may no longer see its past. */
	atomic_store_explicit(&owner->moved, next, memory_order_release);
}

static void moved_check(struct owner *self, const struct owner *owner)
{
	uint64_t least = atomic_load_explicit(&owner->moved, memory_order_acquire);
	uint64_t value;

	if (!probe_read(slot_get(owner, SLOT_MOVED), &value) || value < least)
		self->stale++;
}

/* Two unmapped states in a row differ by two, so a reader can tell that it saw only one of them. */
static void unmapped_change(struct owner *owner)
{
	uint64_t state = atomic_load_explicit(&owner->unmapped, memory_order_relaxed);

	if (munmap(owner->slots + (size_t)SLOT_UNMAPPED * PAGE, PAGE))
		fail("munmap");
	/* Both pair with the loads in unmapped_check, which order the read between them. */
	atomic_store_explicit(&owner->unmapped, state + 1, memory_order_seq_cst);
	for (uint32_t i = 0; i < SEALED_LOOKS; i++)
		__builtin_ia32_pause();
	atomic_store_explicit(&owner->unmapped, state + 2, memory_order_seq_cst);
	slot_map(owner, SLOT_UNMAPPED, BACKING);
}

static void unmapped_check(struct owner *self, const struct owner *owner)
{
	uint64_t before = atomic_load_explicit(&owner->unmapped, memory_order_seq_cst);
	uint64_t value;
	bool read = probe_read(slot_get(owner, SLOT_UNMAPPED), &value);
	uint64_t after = atomic_load_explicit(&owner->unmapped, memory_order_seq_cst);

	if (!read)
		self->faults++;
	else if (before == after && before % 2 == 1)
		self->stale++;
}

/* The word that the others write is looked at through the alias, which is never protected. */
static void sealed_change(struct owner *owner)
{
	void *address = owner->slots + (size_t)SLOT_SEALED * PAGE;
	volatile uint64_t *word = alias_get(owner, BACKING) + 1;
	uint64_t value;

	if (mprotect(address, PAGE, PROT_READ))
		fail("mprotect");
	value = *word;
	for (uint32_t i = 0; i < SEALED_LOOKS; i++) {
		if (*word != value) {
			owner->stale++;
			break;
		}
		__builtin_ia32_pause();
	}
	if (mprotect(address, PAGE, PROT_READ | PROT_WRITE))
		fail("mprotect");
}

static void sealed_check(struct owner *self, const struct owner *owner)
{
	if (!probe_write(slot_get(owner, SLOT_SEALED) + 1, self->accesses))
		self->faults++;
}

static void *owner_run(void *argument)
{
	struct owner *self = argument;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(self->cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
	while (!atomic_load_explicit(&stop_asked, memory_order_relaxed)) {
		moved_change(self);
		unmapped_change(self);
		sealed_change(self);
		self->changes += 3;
		/* Often enough to have everybody's pages in the TLB when they change. */
		for (uint32_t round = 0; round < 4; round++) {
			for (uint32_t i = 0; i < owner_count; i++) {
				moved_check(self, &owners[i]);
				unmapped_check(self, &owners[i]);
				sealed_check(self, &owners[i]);
				self->accesses += 3;
			}
		}
	}
	return NULL;
}

static void owner_create(uint32_t index, int cpu)
{
	struct owner *owner = &owners[index];
	size_t size = (BACKING + 1) * PAGE;

	owner->index = index;
	owner->cpu = cpu;
	owner->offset = (off_t)(index * size);
	owner->alias = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, owner->offset);
	/* Guard pages between owners, so that neighbouring mappings never become one. */
	owner->slots =
		mmap(NULL, (SLOT_COUNT + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (owner->alias == MAP_FAILED || owner->slots == MAP_FAILED)
		fail("mmap");
	owner->slots += PAGE;
	slot_map(owner, SLOT_MOVED, 0);
	slot_map(owner, SLOT_UNMAPPED, BACKING);
	slot_map(owner, SLOT_SEALED, BACKING);
}

/* The sum over processors of a line of /proc/interrupts. Zero where there is no such line. */
static uint64_t interrupts_get(const char *name)
{
	FILE *stream = fopen("/proc/interrupts", "r");
	static char line[8192];
	uint64_t sum = 0;

	while (stream && fgets(line, sizeof(line), stream)) {
		char *word = line + strspn(line, " ");
		size_t length = strlen(name);

		if (strncmp(word, name, length) || word[length] != ':')
			continue;
		for (word += length + 1;;) {
			char *end;
			unsigned long long count = strtoull(word, &end, 10);

			if (end == word)
				break;
			sum += count;
			word = end;
		}
	}
	if (stream)
		fclose(stream);
	return sum;
}

static double time_get(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int storm_report(double elapsed, uint64_t shootdowns)
{
	uint64_t changes = 0, accesses = 0, faults = 0, stale = 0;
	uint32_t idle = 0;

	for (uint32_t i = 0; i < owner_count; i++) {
		changes += owners[i].changes;
		accesses += owners[i].accesses;
		faults += owners[i].faults;
		stale += owners[i].stale;
		idle += owners[i].changes == 0;
	}
	printf("storm: %u processors, %.0f mapping changes/s, %.0f accesses/s, %llu faults\n",
		owner_count, (double)changes / elapsed, (double)accesses / elapsed,
		(unsigned long long)faults);
	printf("storm: %llu TLB shootdowns by interrupt\n", (unsigned long long)shootdowns);
	printf("storm: %llu accesses through a stale mapping\n", (unsigned long long)stale);
	if (idle)
		printf("storm: %u threads made no progress\n", idle);
	return stale || idle ? 1 : 0;
}

int main(int argc, char **argv)
{
	double seconds = argc == 2 ? strtod(argv[1], NULL) : 0;
	struct sigaction action = {.sa_sigaction = fault_handle, .sa_flags = SA_SIGINFO};
	uint64_t shootdowns;
	double start;
	cpu_set_t set;

	if (!(seconds > 0 && seconds <= 86400)) {
		fprintf(stderr, "usage: storm SECONDS\n");
		return 2;
	}
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	file = memfd_create("storm", 0);
	if (file < 0 || ftruncate(file, (off_t)THREADS_MAX * (BACKING + 1) * PAGE) ||
		sched_getaffinity(0, sizeof(set), &set))
		fail("start");
	for (int cpu = 0; cpu < CPU_SETSIZE && owner_count < THREADS_MAX; cpu++)
		if (CPU_ISSET(cpu, &set))
			owner_create(owner_count++, cpu);

	shootdowns = interrupts_get("TLB");
	start = time_get();
	for (uint32_t i = 0; i < owner_count; i++) {
		errno = pthread_create(&owners[i].thread, NULL, owner_run, &owners[i]);
		if (errno)
			fail("pthread_create");
	}
	nanosleep(&(struct timespec){.tv_sec = (time_t)seconds,
			  .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)},
		NULL);
	atomic_store(&stop_asked, true);
	for (uint32_t i = 0; i < owner_count; i++)
		pthread_join(owners[i].thread, NULL);
	return storm_report(time_get() - start, interrupts_get("TLB") - shootdowns);
}
