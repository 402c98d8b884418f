/*
 * bench-flush [--json FILE] [--rounds N] [--milliseconds M]: flush requests per second and the 99th
 * percentile of their completion, for Parapet's design and two others, on the host.
 *
 * One or two real threads are initiators; the other VPs are simulated: half of them run VTL0 at any
 * time, and a kick carries out at once what the VP would do (leave, drain its queue, enter again).
 * With each request some other VP goes in or out, so that queues are drained without kicks too.
 * Designs take turns within a round; ratios are formed within a round, and their spread is over the
 * rounds.
 *
 * A range's address says which VPs it is for, so that a flush delivered to a VP that was not
 * addressed is counted as such ("over"). Rates are of the requests alone, the time between them
 * left out, summed over the threads.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/flush/design.h"
#include "bench/measure.h"

#define VPS_MAX	     1024
#define THREADS_MAX  2
#define BUCKETS	     4096 /* of a nanosecond histogram: linear below 2048, then 64 per doubling */
#define PREEMPTED_NS 1e6
#define REQUESTS_MIN 100
#define TO_ALL	     0 /* targets per request: every VP */

struct cell {
	uint32_t vps;
	uint32_t threads;
	uint32_t targets;
};

struct outcome {
	double per_second;
	double p99_ns;
	double whole_ns; /* of a request, with what VPs drain that come and go meanwhile */
	uint64_t delivered;
	uint64_t full;
	uint64_t over;
};

struct worker {
	_Alignas(CACHE_LINE_BYTES) pthread_t thread;
	vp_id_t id;
	uint64_t random;
	uint64_t cycles; /* of the requests alone, as far as undisturbed */
	uint64_t undisturbed;
	uint64_t whole_cycles; /* the same, with what a VP drains that comes or goes after it */
	uint64_t whole_undisturbed;
	uint64_t requests;
	uint64_t delivered, full, over;
	uint32_t histogram[BUCKETS];
};

static const struct design *const designs[] = {
	&design_parapet, &design_locked, &design_shared_ring, &design_kicks};

static const struct design *design;
static struct cell cell;
static struct run run;
static struct run_vp *run_vps;
static uint16_t vp_of_index[VPS_MAX];
static struct vpset_map map;
static struct atomic_u32 busy[VPS_MAX * 16]; /* [vp * 16]: whoever carries out what the VP does */
static struct atomic_u32 stop;
static struct worker workers[THREADS_MAX];
static _Thread_local struct worker *self;

void *bench_allocate(size_t bytes)
{
	void *memory = aligned_alloc(64, ALIGN_UP(bytes, (size_t)64));

	if (!memory)
		abort();
	return memset(memory, 0, bytes);
}

/* Nanoseconds per cycle of the time stamp counter. */
static double cycle_ns;

static void calibrate(void)
{
	uint64_t ns = now_ns();
	uint64_t cycles = __builtin_ia32_rdtsc();

	while (now_ns() - ns < 50000000)
		;
	cycle_ns = (double)(now_ns() - ns) / (double)(__builtin_ia32_rdtsc() - cycles);
}

static uint32_t random_below(struct worker *worker, uint32_t below)
{
	worker->random ^= worker->random << 13;
	worker->random ^= worker->random >> 7;
	worker->random ^= worker->random << 17;
	return (uint32_t)((worker->random >> 32) % below);
}

/* --- what the designs call
 * ------------------------------------------------------------------------- */

void bench_invalidate(vp_id_t vp, uint64_t range)
{
	uint32_t a = range >> 12 & 0xfff;
	uint32_t b = range >> 24 & 0xfff;

	self->delivered++;
	if (cell.targets != TO_ALL && vp != a && vp != b)
		self->over++;
}

void bench_invalidate_all(vp_id_t vp)
{
	(void)vp;
	self->full++;
}

void bench_kick_by_bitmap(struct run *of, vp_id_t me, const struct vpset *set)
{
	uint64_t *bitmap = calloc((of->vp_count + 63) / 64, sizeof(*bitmap));
	uint64_t *words = calloc(of->vp_count, sizeof(*words));
	struct vpset_iter iter;
	vp_id_t vp;

	if (!bitmap || !words)
		abort();
	vpset_iter_begin(&iter, set);
	while (vpset_iter_next(&iter, &vp))
		bitmap[vp / 64] |= 1ull << vp % 64;
	atomic_fence(memory_order_seq_cst);
	for (vp = 0; vp < of->vp_count; vp++) {
		if (!(bitmap[vp / 64] >> vp % 64 & 1))
			continue;
		if (vp == me ||
			run_kick(of, vp, RUN_IN(RUN_VTL0), &words[vp]) == RUN_KICK_NOT_RUNNING)
			bitmap[vp / 64] &= ~(1ull << vp % 64);
	}
	for (vp = 0; vp < of->vp_count; vp++) {
		if (bitmap[vp / 64] >> vp % 64 & 1)
			run_wait_left(of, vp, words[vp]);
	}
	free(bitmap);
	free(words);
}

/* --- simulated VPs
 * --------------------------------------------------------------------------------- */

static bool vp_try(vp_id_t vp)
{
	return atomic_u32_exchange(&busy[vp * 16], 1, memory_order_acquire) == 0;
}

static void vp_done(vp_id_t vp)
{
	atomic_u32_store(&busy[vp * 16], 0, memory_order_release);
}

static void vp_enter(vp_id_t vp)
{
	run_enter_begin(&run, vp, VTL0);
	design->drain(vp);
}

/* The kick ends the stay, and the VP goes in again. */
static void kick(void *platform, vp_id_t vp)
{
	(void)platform;
	while (!vp_try(vp))
		atomic_relax();
	if (run_get_state(&run, vp) == RUN_VTL0) {
		run_exited(&run, vp);
		vp_enter(vp);
	}
	vp_done(vp);
}

static const struct run_ops ops = {.kick = kick};

/* Somebody goes in or out by himself. */
static void vp_come_or_go(struct worker *worker)
{
	vp_id_t vp = cell.threads + random_below(worker, cell.vps - cell.threads);

	if (!vp_try(vp))
		return;
	if (run_get_state(&run, vp) == RUN_VTL0)
		run_exited(&run, vp);
	else
		vp_enter(vp);
	vp_done(vp);
}

/* --- one measurement
 * ------------------------------------------------------------------------------- */

static uint32_t bucket_of(uint64_t ns)
{
	uint32_t bits = ns < 2048 ? 0 : 63 - (uint32_t)__builtin_clzll(ns);
	uint32_t bucket = ns < 2048 ? (uint32_t)ns
				    : 2048 + (bits - 11) * 64 + (uint32_t)(ns >> (bits - 6) & 63);

	return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double bucket_ns(uint32_t bucket)
{
	uint32_t bits = 11 + (bucket - 2048) / 64;

	if (bucket < 2048)
		return bucket;
	return (double)((64ull + (bucket - 2048) % 64) << (bits - 6));
}

static void one_request(struct worker *worker)
{
	vp_id_t a = cell.threads + random_below(worker, cell.vps - cell.threads);
	vp_id_t b = cell.threads + random_below(worker, cell.vps - cell.threads);
	uint64_t banks[2];
	uint64_t start, begin;
	struct vpset set;

	if (cell.targets == TO_ALL) {
		set = vpset_make_all(&map);
	} else {
		uint64_t bank_mask = 1ull << a / 64 | 1ull << b / 64;

		if (a / 64 == b / 64) {
			banks[0] = 1ull << a % 64 | 1ull << b % 64;
		} else {
			banks[a / 64 > b / 64] = 1ull << a % 64;
			banks[a / 64 < b / 64] = 1ull << b % 64;
		}
		vpset_make_sparse(&set, &map, HV_GENERIC_SET_SPARSE_4K, bank_mask, banks, 2);
	}
	start = begin = __builtin_ia32_rdtsc();
	design->request(worker->id, &set, (uint64_t)b << 24 | (uint64_t)a << 12);
	start = __builtin_ia32_rdtsc() - start;
	worker->requests++;
	worker->histogram[bucket_of((uint64_t)((double)start * cycle_ns))]++;
	/* A request that the host's scheduler has interrupted says nothing about the design's rate;
	 * the histogram keeps it. */
	if ((double)start * cycle_ns < PREEMPTED_NS) {
		worker->cycles += start;
		worker->undisturbed++;
	}
	vp_come_or_go(worker);
	begin = __builtin_ia32_rdtsc() - begin;
	if ((double)begin * cycle_ns < PREEMPTED_NS) {
		worker->whole_cycles += begin;
		worker->whole_undisturbed++;
	}
}

static void *worker_main(void *argument)
{
	self = argument;
	while (atomic_u32_load(&stop, memory_order_relaxed) == 0 ||
		self->undisturbed < REQUESTS_MIN)
		one_request(self);
	return NULL;
}

static struct outcome measure(const struct design *which, uint32_t milliseconds)
{
	struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
	struct outcome outcome = {0};
	uint64_t requests = 0;
	uint64_t seen = 0;

	design = which;
	map = (struct vpset_map){vp_of_index, cell.vps, cell.vps};
	run_init(&run, run_vps, cell.vps, &ops, NULL);
	design->init(&run);
	atomic_u32_store(&stop, 0, memory_order_relaxed);
	memset(workers, 0, sizeof(workers));
	self = &workers[0];
	for (vp_id_t vp = cell.threads; vp < cell.vps; vp += 2)
		vp_enter(vp);
	for (uint32_t i = 0; i < cell.threads; i++) {
		workers[i].id = i;
		workers[i].random = 0x9e3779b97f4a7c15ull * (i + 1);
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0)
			abort();
	}
	nanosleep(&pause, NULL);
	atomic_u32_store(&stop, 1, memory_order_relaxed);
	for (uint32_t i = 0; i < cell.threads; i++) {
		pthread_join(workers[i].thread, NULL);
		requests += workers[i].requests;
		outcome.per_second += (double)workers[i].undisturbed * 1e9 /
			((double)workers[i].cycles * cycle_ns);
		outcome.whole_ns += (double)workers[i].whole_cycles * cycle_ns /
			(double)workers[i].whole_undisturbed / cell.threads;
		outcome.delivered += workers[i].delivered;
		outcome.full += workers[i].full;
		outcome.over += workers[i].over;
	}
	for (uint32_t bucket = 0; bucket < BUCKETS; bucket++) {
		for (uint32_t i = 0; i < cell.threads; i++)
			seen += workers[i].histogram[bucket];
		if (seen * 100 >= requests * 99) {
			outcome.p99_ns = bucket_ns(bucket);
			break;
		}
	}
	design->finish();
	return outcome;
}

/* --- rounds and reports
 * ------------------------------------------------------------------------------ */

/* The table that bench/report puts into the document. */
#define TABLE_BEGIN                                                                                                  \
	"{\"tables\": [[\"flush-host\", \"Requests by one design after the other, median "                           \
	"(least-most) of the rounds\", [\"VPs\", \"threads\", \"targets\", \"design\", "                             \
	"\"requests a second\", \"99 % done in, ns\", \"ns with drains\", \"Parapet is faster by\", \"delivered\", " \
	"\"not addressed\", \"widened to full\"], ["
#define TABLE_END "\n]]]}\n"

static void report_cell(FILE *json, struct outcome outcomes[][ROUNDS_MAX], uint32_t rounds)
{
	static uint32_t rows;
	char targets[16] = "all";

	if (cell.targets != TO_ALL)
		snprintf(targets, sizeof(targets), "%u", cell.targets);
	for (uint32_t d = 0; d < ARRAY_SIZE(designs); d++) {
		double rate[ROUNDS_MAX] = {0}, p99[ROUNDS_MAX] = {0}, ratio[ROUNDS_MAX] = {0};
		double whole[ROUNDS_MAX] = {0};
		uint64_t over = 0, full = 0, delivered = 0;
		struct spread rates, tails, ratios, wholes;

		for (uint32_t r = 0; r < rounds; r++) {
			rate[r] = outcomes[d][r].per_second;
			p99[r] = outcomes[d][r].p99_ns;
			whole[r] = outcomes[d][r].whole_ns;
			ratio[r] = outcomes[0][r].per_second / rate[r];
			over += outcomes[d][r].over;
			full += outcomes[d][r].full;
			delivered += outcomes[d][r].delivered;
		}
		rates = spread_of(rate, rounds);
		tails = spread_of(p99, rounds);
		ratios = spread_of(ratio, rounds);
		wholes = spread_of(whole, rounds);
		printf("%5u %7u %7s  %-12s %12.0f %9.0f %9.0f   %6.2f (%.2f to %.2f) %12llu %10llu\n",
			cell.vps, cell.threads, targets, designs[d]->name, rates.middle,
			tails.middle, wholes.middle, ratios.middle, ratios.low, ratios.high,
			(unsigned long long)over, (unsigned long long)full);
		if (json)
			fprintf(json,
				"%s\n[\"%u\", \"%u\", \"%s\", \"%s\", \"%.0f (%.0f-%.0f)\", "
				"\"%.0f (%.0f-%.0f)\", \"%.0f (%.0f-%.0f)\", "
				"\"%.2f (%.2f-%.2f)\", \"%llu\", \"%llu\", "
				"\"%llu\"]",
				rows++ ? "," : "", cell.vps, cell.threads, targets,
				designs[d]->name, rates.middle, rates.low, rates.high, tails.middle,
				tails.low, tails.high, wholes.middle, wholes.low, wholes.high,
				ratios.middle, ratios.low, ratios.high,
				(unsigned long long)delivered, (unsigned long long)over,
				(unsigned long long)full);
	}
	fflush(stdout);
}

static void bench_cell(FILE *json, uint32_t rounds, uint32_t milliseconds)
{
	struct outcome outcomes[ARRAY_SIZE(designs)][ROUNDS_MAX];

	for (uint32_t r = 0; r < rounds; r++) {
		for (uint32_t i = 0; i < ARRAY_SIZE(designs); i++) {
			uint32_t d = (i + r) % ARRAY_SIZE(designs); /* not always the same first */

			outcomes[d][r] = measure(designs[d], milliseconds);
		}
	}
	report_cell(json, outcomes, rounds);
}

int main(int argc, char **argv)
{
	static const uint32_t vps[] = {8, 64, 256, 1024};
	static const uint32_t targets[] = {2, TO_ALL};
	uint32_t rounds = 7;
	uint32_t milliseconds = 50;
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
		return fprintf(stderr, "bench-flush: 1 to %d rounds\n", ROUNDS_MAX), 2;
	calibrate();
	run_vps = bench_allocate(VPS_MAX * sizeof(*run_vps));
	for (uint16_t i = 0; i < VPS_MAX; i++)
		vp_of_index[i] = i;
	if (json)
		fputs(TABLE_BEGIN, json);
	printf("  VPs threads targets  design         requests/s    p99 ns  whole ns   "
	       "Parapet is faster by         "
	       "over       full\n");
	for (uint32_t t = 0; t < ARRAY_SIZE(targets); t++) {
		for (uint32_t v = 0; v < ARRAY_SIZE(vps); v++) {
			for (uint32_t threads = 1; threads <= THREADS_MAX; threads++) {
				cell = (struct cell){vps[v], threads, targets[t]};
				bench_cell(json, rounds, milliseconds);
			}
		}
	}
	if (json) {
		fputs(TABLE_END, json);
		fclose(json);
	}
	free(run_vps);
	return 0;
}
