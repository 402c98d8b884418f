/* The machine of threads: one run of it, and its report. See sim.h. */
#include "platform/sim/sim_machine.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STUCK_MS     20000
#define REPORT_BYTES (64 * 1024)
#define PROGRESS_NS  10000000000ull

static const char *const event_names[] = {
	"enters VTL",
	"withdraws",
	"exits",
	"invalidates range at",
	"invalidates, FLUSH_FULL",
	"changes entry, now version",
	"asks for a flush of VPs",
	"flush has returned, version",
	"is suspended",
	"takes TLB lock",
	"releases TLB locks",
	"fills TLB with version",
	"kicks VP",
	"idles",
	"STALE ACCESS with version",
	"begins transaction, by * 16 + target, flags << 8",
	"adds range: address + access",
	"commit has returned, status",
	"has synced, status",
	"faults at",
	"FORBIDDEN ACCESS: address + access",
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

void sim_fail(struct sim *sim, const char *why)
{
	if (atomic_u32_exchange(&sim->failed, 1, memory_order_acq_rel) == 0)
		sim->failure = why;
	atomic_u32_store(&sim->stop, 1, memory_order_release);
}

static void sim_print(char *report, size_t *used, const char *format, ...)
{
	va_list arguments;
	int bytes;

	if (*used >= REPORT_BYTES - 128)
		return;
	va_start(arguments, format);
	bytes = vsnprintf(report + *used, REPORT_BYTES - *used, format, arguments);
	va_end(arguments);
	if (bytes > 0)
		*used += (size_t)bytes;
}

/* Everybody's last events, in the order of their time. */
static char *sim_report(const struct sim *sim)
{
	uint64_t at[SIM_VPS_MAX];
	char *report = malloc(REPORT_BYTES);
	uint64_t first = 0;
	size_t used = 0;

	if (!report)
		abort();
	report[0] = 0;
	for (uint32_t i = 0; i < sim->run.vp_count; i++) {
		uint64_t events = sim->vp[i].events;

		at[i] = events > SIM_EVENTS ? events - SIM_EVENTS : 0;
	}
	while (true) {
		const struct sim_event *earliest = NULL;
		uint32_t whose = 0;

		for (uint32_t i = 0; i < sim->run.vp_count; i++) {
			const struct sim_event *event = &sim->vp[i].event[at[i] % SIM_EVENTS];

			if (at[i] < sim->vp[i].events &&
				(!earliest || event->time < earliest->time)) {
				earliest = event;
				whose = i;
			}
		}
		if (!earliest)
			return report;
		at[whose]++;
		if (first == 0)
			first = earliest->time;
		sim_print(report, &used, "%10llu VP %u %s %#llx\n",
			(unsigned long long)(earliest->time - first), whose,
			event_names[earliest->kind], (unsigned long long)earliest->value);
	}
}

static struct sim *sim_make(const struct sim_config *config)
{
	struct sim *sim = aligned_alloc(4096, ALIGN_UP(sizeof(*sim), 4096));

	if (!sim)
		abort();
	memset(sim, 0, sizeof(*sim));
	run_init(&sim->run, sim->run_vps, config->vps, &sim_ops, sim);
	tlblock_init(&sim->tlblock, sim->tlblock_vps, sim->waiters, &sim->run);
	flush_init(&sim->flush, sim->flush_vps, &sim->run, &sim->tlblock, 16);
	for (uint32_t vtl = 0; vtl < FLUSH_LOWER_VTLS; vtl++)
		sim_table_init(&sim->table[vtl]);
	sim->permissions = config->permissions;
	sim->map = (struct vpset_map){sim->vp_of_index, config->vps, config->vps};
	for (uint32_t i = 0; i < config->vps; i++) {
		sim->vp_of_index[i] = (uint16_t)i;
		sim->vp[i].sim = sim;
		sim->vp[i].id = i;
		sim->vp[i].random = (config->seed + 1) * 0x9e3779b97f4a7c15ull + i * 2654435761ull;
	}
	sim_protect_init(sim);
	return sim;
}

static uint64_t sim_flips(const struct sim *sim)
{
	uint64_t flips = 0;

	for (uint32_t i = 0; i < sim->run.vp_count; i++)
		flips += atomic_u64_load(&sim->vp[i].flips, memory_order_relaxed);
	return flips;
}

/* Until time is up, there have been enough flips, somebody fails, or a VP makes no progress. */
static void sim_watch(struct sim *sim, const struct sim_config *config)
{
	uint64_t start = now_ns();
	uint64_t seen[SIM_VPS_MAX] = {0};
	uint64_t since[SIM_VPS_MAX];
	uint64_t told = start;

	for (uint32_t i = 0; i < SIM_VPS_MAX; i++)
		since[i] = start;
	while (atomic_u32_load(&sim->stop, memory_order_acquire) == 0) {
		struct timespec pause = {.tv_nsec = 5000000};
		uint64_t now;

		nanosleep(&pause, NULL);
		now = now_ns();
		for (uint32_t i = 0; i < sim->run.vp_count; i++) {
			uint64_t progress =
				atomic_u64_load(&sim->vp[i].progress, memory_order_relaxed);

			if (progress != seen[i])
				since[i] = now;
			seen[i] = progress;
			if (now - since[i] > STUCK_MS * 1000000ull)
				sim_fail(sim, "a VP waits for ever");
		}
		if (config->flips ? sim_flips(sim) >= config->flips
				  : now - start > config->milliseconds * 1000000ull)
			atomic_u32_store(&sim->stop, 1, memory_order_release);
		if (config->progress && now - told > PROGRESS_NS) {
			told = now;
			config->progress(sim_flips(sim), config->flips, (now - start) / 1000000);
		}
	}
}

/* Waits for the VP's thread to end, which takes long only if it is stuck. */
static bool sim_join(struct sim_vp *vp)
{
	struct timespec deadline;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += STUCK_MS / 1000;
	return pthread_timedjoin_np(vp->thread, NULL, &deadline) == 0;
}

void sim_run(const struct sim_config *config, struct sim_result *result)
{
	struct sim *sim = sim_make(config);

	memset(result, 0, sizeof(*result));
	for (uint32_t i = 0; i < config->vps; i++) {
		if (pthread_create(&sim->vp[i].thread, NULL, sim_vp_main, &sim->vp[i]) != 0)
			abort();
	}
	sim_watch(sim, config);
	for (uint32_t i = 0; i < config->vps; i++) {
		struct sim_vp *vp = &sim->vp[i];

		if (!sim_join(vp)) {
			/* It spins in the core and cannot be stopped: report, and leave it behind.
			 */
			sim_fail(sim, "a VP waits for ever");
			result->failure = sim->failure;
			result->report = sim_report(sim);
			return;
		}
		result->accesses += vp->accesses;
		result->stays += vp->stays;
		result->flushes += vp->flushes;
		result->suspended += vp->suspended;
		result->withdrawn += vp->withdrawn;
		result->kicks += vp->kicks;
		result->requests += vp->requests;
		result->faults += vp->faults;
		result->spurious += vp->spurious;
		result->refused += vp->refused;
		result->transactions += vp->counter[COUNTER_PROTECT_TRANSACTIONS];
		result->shootdowns += vp->counter[COUNTER_PROTECT_SHOOTDOWNS];
		result->deferred += vp->counter[COUNTER_PROTECT_DEFERRED];
	}
	result->flips = sim_flips(sim);
	result->failure = sim->failure;
	if (sim->failure)
		result->report = sim_report(sim);
	free(sim);
}
