/* For comparison: one ring of 32 for everybody, writers behind a mutex; every VP reads all of it.
 */
#include <pthread.h>
#include <stdlib.h>

#include "bench/flush/design.h"

#define SLOTS 32

struct reader {
	_Alignas(CACHE_LINE_BYTES) uint64_t head;
};

static struct run *run;
static struct reader *readers;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct atomic_u64 slots[SLOTS];
static _Alignas(CACHE_LINE_BYTES) struct atomic_u64 begun; /* entries whose writing has begun */
static struct atomic_u64 written;

static void init(struct run *of)
{
	run = of;
	readers = bench_allocate(run->vp_count * sizeof(*readers));
	atomic_u64_store(&begun, 0, memory_order_relaxed);
	atomic_u64_store(&written, 0, memory_order_relaxed);
}

static void finish(void)
{
	free(readers);
}

static void request(vp_id_t me, const struct vpset *set, uint64_t range)
{
	uint64_t at;

	pthread_mutex_lock(&mutex);
	at = atomic_u64_load(&written, memory_order_relaxed);
	atomic_u64_store(&begun, at + 1, memory_order_relaxed);
	atomic_fence(memory_order_release);
	atomic_u64_store(&slots[at % SLOTS], range, memory_order_relaxed);
	atomic_u64_store(&written, at + 1, memory_order_release);
	pthread_mutex_unlock(&mutex);
	bench_kick_by_bitmap(run, me, set);
}

static void drain(vp_id_t vp)
{
	uint64_t tail = atomic_u64_load(&written, memory_order_acquire);
	uint64_t ranges[SLOTS];
	uint64_t head = readers[vp].head;

	readers[vp].head = tail;
	if (tail == head)
		return;
	if (tail - head <= SLOTS) {
		for (uint64_t at = head; at < tail; at++)
			ranges[at - head] =
				atomic_u64_load(&slots[at % SLOTS], memory_order_relaxed);
		atomic_fence(memory_order_acquire);
		if (atomic_u64_load(&begun, memory_order_relaxed) - head <= SLOTS) {
			for (uint64_t at = head; at < tail; at++)
				bench_invalidate(vp, ranges[at - head]);
			return;
		}
	}
	bench_invalidate_all(vp);
}

const struct design design_shared_ring = {
	.name = "shared-ring",
	.about = "one ring for the partition, writers behind a mutex",
	.init = init,
	.finish = finish,
	.request = request,
	.drain = drain,
};
