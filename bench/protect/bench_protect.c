/*
 * bench-protect [--json FILE] [--rounds N] [--milliseconds M]: what a change of permissions costs on
 * the host, with core/protect as it is and the second stage of the sim machine. The VPs are simulated:
 * all run VTL0 all the time, and a kick carries out at once what such a VP would do (leave, drain its
 * queue, enter again), so a shootdown costs a few atomic operations a VP here, and no more.
 *
 * First, memory revoked and given back, in as few transactions as hold it and page by page, and for
 * scale what this computer's own kernel takes for the same with mprotect, in a process with a second
 * thread that runs. Then two threads whose transactions touch different memory, with the locks of
 * core/protect and with one lock around each commit. The cases of a comparison take turns within a
 * round; ratios are formed within a round, and their spread is over the rounds.
 */
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

#include "bench/measure.h"
#include "core/protect/protect.h"
#include "platform/sim/sim_npt.h"

#define VPS	    8
#define TABLES	    1600 /* all of the memory in pages of 4 KiB */
#define PINS	    4
#define THREADS_MAX 2
#define AREA_GIGS   2

static struct run run;
static struct flush flush;
static struct tlblock tlblock;
static struct run_vp run_vps[VPS];
static struct flush_vp flush_vps[VPS];
static struct tlblock_vp tlblock_vps[VPS];
static struct atomic_u64 waiters[TLBLOCK_WAITERS_NEEDED(VPS)];
static struct protect protect;
static struct protect_vp protect_vps[VPS];
static struct block_region regions[PROTECT_REGIONS(VPS)];
static struct protect_pinned pins[PINS];
static struct protect_transaction transactions[VPS];
static uint64_t counters[VPS][COUNTER_COUNT];
static struct sim_npt npt;
static struct sim_npt_pool pool;
static struct sim_npt_page tables[TABLES];
static struct atomic_u32 busy[VPS * 16]; /* [vp * 16]: whoever carries out what the VP does */

/* --- what the engine calls -----------------------------------------------------------------------
 */

static void enter(vp_id_t vp)
{
	run_enter_begin(&run, vp, VTL0);
	flush_drain(&flush, vp, VTL0, NULL);
	flush_entered(&flush, vp, VTL0);
}

static void kick(void *platform, vp_id_t vp)
{
	(void)platform;
	while (atomic_u32_exchange(&busy[vp * 16], 1, memory_order_acquire) != 0)
		atomic_relax();
	if (run_get_state(&run, vp) == RUN_VTL0) {
		run_exited(&run, vp);
		enter(vp);
	}
	atomic_u32_store(&busy[vp * 16], 0, memory_order_release);
}

static const struct run_ops run_ops = {.kick = kick};

static bool can(void *platform, enum vtl target, uint32_t access)
{
	(void)platform;
	(void)target;
	(void)access;
	return true;
}

static bool prepare(void *platform, struct protect_batch *batch)
{
	(void)platform;
	return sim_npt_prepare(&npt, batch);
}

static void write(void *platform, struct protect_batch *batch)
{
	(void)platform;
	sim_npt_write(&npt, batch);
}

static struct protect_pages join(
	void *platform, struct protect_pages first, struct protect_pages second)
{
	(void)platform;
	return sim_npt_join(&pool, first, second);
}

static void release(void *platform, struct protect_pages pages)
{
	(void)platform;
	sim_npt_release(&pool, pages);
}

static void broken(const char *what)
{
	fprintf(stderr, "bench-protect: core/protect is broken: %s\n", what);
	abort();
}

static const struct protect_ops ops = {
	.can = can,
	.prepare = prepare,
	.write = write,
	.join = join,
	.release = release,
};

/* Everything as after start; VPs from `first` on run VTL0, those before are the threads'. */
static void set_up(vp_id_t first)
{
	static const struct protect_span ram = {0, AREA_GIGS * SIZE_1G};
	const struct protect_config config = {
		.vps = protect_vps,
		.flush = &flush,
		.ops = &ops,
		.broken = broken,
		.targets = 1,
		.region = regions,
		.region_count = PROTECT_REGIONS(VPS),
		.pin = pins,
		.pin_room = PINS,
	};

	memset(tables, 0, sizeof(tables));
	memset(protect_vps, 0, sizeof(protect_vps));
	memset(regions, 0, sizeof(regions));
	memset(counters, 0, sizeof(counters));
	run_init(&run, run_vps, VPS, &run_ops, NULL);
	tlblock_init(&tlblock, tlblock_vps, waiters, &run);
	flush_init(&flush, flush_vps, &run, &tlblock, 16);
	sim_npt_pool_init(&pool, tables, TABLES);
	sim_npt_init(&npt, &pool, ACCESS_ALL);
	protect_init(&protect, &config);
	protect_set_ram(&protect, &ram, 1);
	for (vp_id_t vp = 0; vp < VPS; vp++)
		protect_set_observers(&protect, vp, counters[vp], NULL);
	for (vp_id_t vp = first; vp < VPS; vp++)
		enter(vp);
}

static void must(enum protect_status status)
{
	if (!protect_ok(status)) {
		fprintf(stderr, "bench-protect: a change was refused, status %d\n", status);
		exit(1);
	}
}

static void begin(vp_id_t vp)
{
	protect_begin(&protect, &transactions[vp], vp, VTL2, VTL0, PROTECT_TEST, 0);
}

static void add(vp_id_t vp, uint64_t base, uint64_t bytes, uint32_t access)
{
	must(protect_add(&protect, &transactions[vp], GPA(base), bytes, access));
}

static void commit(vp_id_t vp)
{
	must(protect_commit(&protect, &transactions[vp]));
}

/* --- revoking much -------------------------------------------------------------------------------
 */

struct amount {
	const char *name;
	uint64_t bytes; /* from 0 on */
	uint64_t step; /* one page in each so many bytes */
};

static const struct amount amounts[] = {
	{"1 GiB", SIZE_1G, PAGE_SIZE},
	{"every second page of 1 GiB", SIZE_1G, 2 * PAGE_SIZE},
};

struct cost {
	double revoke_us, restore_us;
	uint64_t transactions, shootdowns, entries; /* of revoking */
};

static void change_all(const struct amount *amount, uint32_t access, bool page_by_page)
{
	if (amount->step == PAGE_SIZE && !page_by_page) {
		begin(0);
		add(0, 0, amount->bytes, access);
		commit(0);
		return;
	}
	for (uint64_t base = 0; base < amount->bytes;) {
		begin(0);
		for (uint32_t i = 0;
			i < (page_by_page ? 1 : PROTECT_RANGES_MAX) && base < amount->bytes;
			i++, base += amount->step)
			add(0, base, PAGE_SIZE, access);
		commit(0);
	}
}

static struct cost measure_amount(const struct amount *amount, bool page_by_page)
{
	struct cost cost;
	uint64_t start;

	set_up(1);
	start = now_ns();
	change_all(amount, ACCESS_READ, page_by_page);
	cost.revoke_us = (double)(now_ns() - start) / 1000;
	cost.transactions = counters[0][COUNTER_PROTECT_TRANSACTIONS];
	cost.shootdowns = counters[0][COUNTER_PROTECT_SHOOTDOWNS];
	cost.entries = counters[0][COUNTER_PROTECT_ENTRIES_WRITTEN];
	start = now_ns();
	change_all(amount, ACCESS_ALL, page_by_page);
	cost.restore_us = (double)(now_ns() - start) / 1000;
	if (npt.gig[0].value != (SIM_NPT_LEAF | ACCESS_ALL)) {
		fprintf(stderr, "bench-protect: the tables are not as they were\n");
		exit(1);
	}
	return cost;
}

/* --- the kernel's own, for scale -----------------------------------------------------------------
 */

/* Relaxed, all accesses: only that they are seen at some time. */
static struct atomic_u32 stop, runs;

/* Keeps the process on a second processor, whose TLB the kernel has to care for. */
static void *bystander_main(void *argument)
{
	atomic_u32_store(&runs, 1, memory_order_relaxed);
	while (atomic_u32_load(&stop, memory_order_relaxed) == 0)
		;
	return argument;
}

static void mprotect_all(uint8_t *memory, uint64_t bytes, int access, bool page_by_page)
{
	uint64_t step = page_by_page ? PAGE_SIZE : bytes;

	for (uint64_t at = 0; at < bytes; at += step) {
		if (mprotect(memory + at, step, access) != 0) {
			perror("bench-protect: mprotect");
			exit(1);
		}
	}
}

/* False: this computer has not as much memory. */
static bool measure_mprotect(uint64_t bytes, bool page_by_page, struct cost *cost)
{
	uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	pthread_t bystander;
	uint64_t start;

	if (memory == MAP_FAILED)
		return false;
	/* Entries of 4 KiB, as the ones it is compared with can be asked to be. */
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	if (madvise(memory, bytes, MADV_POPULATE_WRITE) != 0) {
		munmap(memory, bytes);
		return false;
	}
	atomic_u32_store(&stop, 0, memory_order_relaxed);
	atomic_u32_store(&runs, 0, memory_order_relaxed);
	if (pthread_create(&bystander, NULL, bystander_main, NULL) != 0)
		abort();
	while (atomic_u32_load(&runs, memory_order_relaxed) == 0)
		;
	start = now_ns();
	mprotect_all(memory, bytes, PROT_READ, page_by_page);
	cost->revoke_us = (double)(now_ns() - start) / 1000;
	start = now_ns();
	mprotect_all(memory, bytes, PROT_READ | PROT_WRITE, page_by_page);
	cost->restore_us = (double)(now_ns() - start) / 1000;
	atomic_u32_store(&stop, 1, memory_order_relaxed);
	pthread_join(bystander, NULL);
	munmap(memory, bytes);
	return true;
}

static void text_of(char *text, size_t bytes, const double *values, uint32_t rounds, int digits)
{
	struct spread spread = spread_of(values, rounds);

	snprintf(text, bytes, "%.*f (%.*f-%.*f)", digits, spread.middle, digits, spread.low, digits,
		spread.high);
}

/* A way to change an amount of memory. */
struct way {
	const char *name;
	bool page_by_page;
	bool kernel; /* its mprotect, not core/protect */
};

static const struct way ways[] = {
	{"together", false, false},
	{"page by page", true, false},
	{"mprotect, together", false, true},
	{"mprotect, page by page", true, true},
};

static bool measure_way(const struct amount *amount, const struct way *way, struct cost *cost)
{
	if (way->kernel) {
		/* Single pages are mappings of their own: the kernel allows no process so many. */
		return amount->step == PAGE_SIZE &&
			measure_mprotect(amount->bytes, way->page_by_page, cost);
	}
	*cost = measure_amount(amount, way->page_by_page);
	return true;
}

static void count_of(char *text, size_t bytes, const struct way *way, uint64_t count)
{
	if (way->kernel)
		snprintf(text, bytes, "-");
	else
		snprintf(text, bytes, "%llu", (unsigned long long)count);
}

static void bench_way(FILE *json, const struct amount *amount, const struct way *way,
	const struct cost *costs, const struct cost *together, uint32_t rounds)
{
	double revoke[ROUNDS_MAX] = {0}, restore[ROUNDS_MAX] = {0}, ratio[ROUNDS_MAX] = {0};
	char revokes[64], restores[64], ratios[64], transactions_text[32], shootdowns[32],
		entries[32];

	for (uint32_t r = 0; r < rounds; r++) {
		revoke[r] = costs[r].revoke_us;
		restore[r] = costs[r].restore_us;
		ratio[r] = costs[r].revoke_us / together[r].revoke_us;
	}
	text_of(revokes, sizeof(revokes), revoke, rounds, 1);
	text_of(restores, sizeof(restores), restore, rounds, 1);
	text_of(ratios, sizeof(ratios), ratio, rounds, 0);
	count_of(transactions_text, sizeof(transactions_text), way, costs[0].transactions);
	count_of(shootdowns, sizeof(shootdowns), way, costs[0].shootdowns);
	count_of(entries, sizeof(entries), way, costs[0].entries);
	printf("%-28s %-23s %8s %8s %8s  %-32s %-32s %s\n", amount->name, way->name,
		transactions_text, shootdowns, entries, revokes, restores, ratios);
	if (json)
		fprintf(json,
			"%s\n[\"%s\", \"%s\", \"%s\", \"%s\", \"%s\", \"%s\", \"%s\", \"%s\"]",
			amount == amounts && way == ways ? "" : ",", amount->name, way->name,
			transactions_text, shootdowns, entries, revokes, restores, ratios);
	fflush(stdout);
}

static void bench_amount(FILE *json, const struct amount *amount, uint32_t rounds)
{
	static struct cost costs[ARRAY_SIZE(ways)][ROUNDS_MAX];
	bool measured[ARRAY_SIZE(ways)];

	for (uint32_t way = 0; way < ARRAY_SIZE(ways); way++)
		measured[way] = true;
	for (uint32_t r = 0; r < rounds; r++) {
		for (uint32_t i = 0; i < ARRAY_SIZE(ways); i++) {
			uint32_t way = (i + r) % ARRAY_SIZE(ways); /* not always the same first */

			measured[way] &= measure_way(amount, &ways[way], &costs[way][r]);
		}
	}
	for (uint32_t way = 0; way < ARRAY_SIZE(ways); way++) {
		if (measured[way])
			bench_way(json, amount, &ways[way], costs[way], costs[0], rounds);
		else
			printf("%-28s %-23s not possible on this computer\n", amount->name,
				ways[way].name);
	}
}

/* --- in parallel ---------------------------------------------------------------------------------
 */

struct worker {
	_Alignas(CACHE_LINE_BYTES) pthread_t thread;
	vp_id_t id;
	uint64_t done;
};

static struct worker workers[THREADS_MAX];
static pthread_spinlock_t one_lock;
static bool one_lock_for_all;

/* Takes 64 pages of its own away and gives them back, again and again; no lock's shard is another's. */
static void *worker_main(void *argument)
{
	struct worker *worker = argument;

	for (uint64_t n = 0; atomic_u32_load(&stop, memory_order_relaxed) == 0; n++) {
		begin(worker->id);
		for (uint32_t i = 0; i < 64; i++)
			add(worker->id, worker->id * (SIZE_1G + SIZE_2M) + 2 * i * PAGE_SIZE,
				PAGE_SIZE, n & 1 ? ACCESS_ALL : ACCESS_READ);
		if (one_lock_for_all)
			pthread_spin_lock(&one_lock);
		commit(worker->id);
		if (one_lock_for_all)
			pthread_spin_unlock(&one_lock);
		worker->done++;
	}
	return NULL;
}

static double measure_parallel(uint32_t threads, bool one_lock_too, uint32_t milliseconds)
{
	struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
	uint64_t start;
	double done = 0;

	set_up(threads);
	one_lock_for_all = one_lock_too;
	atomic_u32_store(&stop, 0, memory_order_relaxed);
	start = now_ns();
	for (uint32_t i = 0; i < threads; i++) {
		workers[i].id = i;
		workers[i].done = 0;
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0)
			abort();
	}
	nanosleep(&pause, NULL);
	atomic_u32_store(&stop, 1, memory_order_relaxed);
	for (uint32_t i = 0; i < threads; i++) {
		pthread_join(workers[i].thread, NULL);
		done += (double)workers[i].done;
	}
	return done * 1e9 / (double)(now_ns() - start);
}

static void bench_parallel(FILE *json, uint32_t rounds, uint32_t milliseconds)
{
	static const char *const names[] = {"one thread", "two, locks by range", "two, one lock"};
	double rate[3][ROUNDS_MAX];

	for (uint32_t r = 0; r < rounds; r++) {
		for (uint32_t i = 0; i < 3; i++) {
			uint32_t way = (i + r) % 3;

			rate[way][r] = measure_parallel(way ? 2 : 1, way == 2, milliseconds);
		}
	}
	printf("\n%-22s %-34s %s\n", "threads", "transactions/s", "times one lock");
	for (uint32_t way = 0; way < 3; way++) {
		double ratio[ROUNDS_MAX] = {0};
		char rates[64], ratios[64];

		for (uint32_t r = 0; r < rounds; r++)
			ratio[r] = rate[way][r] / rate[2][r];
		text_of(rates, sizeof(rates), rate[way], rounds, 0);
		text_of(ratios, sizeof(ratios), ratio, rounds, 2);
		printf("%-22s %-34s %s\n", names[way], rates, ratios);
		if (json)
			fprintf(json, "%s\n[\"%s\", \"%s\", \"%s\"]", way ? "," : "", names[way],
				rates, ratios);
	}
}

/* The tables that bench/report puts into the document. */
#define AMOUNT_BEGIN                                                                               \
	"{\"tables\": [[\"protect-host\", \"Write permission taken away, median (least-most) of "  \
	"the rounds\", [\"memory\", \"how\", \"transactions\", \"shootdowns\", "                   \
	"\"entries written\", \"revoke, us\", \"restore, us\", \"times together\"], ["
#define PARALLEL_BEGIN                                                                             \
	"\n]],\n[\"protect-parallel\", \"Transactions of 64 ranges, each thread on memory of its " \
	"own, median (least-most) of the rounds\", [\"threads\", \"transactions a second\", "      \
	"\"times one lock\"], ["
#define TABLES_END "\n]]]}\n"

int main(int argc, char **argv)
{
	uint32_t rounds = 7;
	uint32_t milliseconds = 200;
	FILE *json = NULL;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--json") == 0)
			json = fopen(argv[i + 1], "w");
		else if (strcmp(argv[i], "--rounds") == 0)
			rounds = (uint32_t)atoi(argv[i + 1]);
		else if (strcmp(argv[i], "--milliseconds") == 0)
			milliseconds = (uint32_t)atoi(argv[i + 1]);
		if (strcmp(argv[i], "--json") == 0 && !json)
			return perror(argv[i + 1]), 2;
	}
	if (rounds < 1 || rounds > ROUNDS_MAX)
		return fprintf(stderr, "bench-protect: 1 to %d rounds\n", ROUNDS_MAX), 2;
	pthread_spin_init(&one_lock, PTHREAD_PROCESS_PRIVATE);
	if (json)
		fputs(AMOUNT_BEGIN, json);
	printf("%-28s %-23s %8s %8s %8s  %-32s %-32s %s\n", "memory", "how", "transac.", "shootd.",
		"entries", "revoke us", "restore us", "times together");
	for (uint32_t i = 0; i < ARRAY_SIZE(amounts); i++)
		bench_amount(json, &amounts[i], rounds);
	if (json)
		fputs(PARALLEL_BEGIN, json);
	bench_parallel(json, rounds, milliseconds);
	if (json) {
		fputs(TABLES_END, json);
		fclose(json);
	}
	return 0;
}
