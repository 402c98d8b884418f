/* For comparison: a list per VP behind a reader-writer lock, each request allocated from the heap.
 */
#include <pthread.h>
#include <stdlib.h>

#include "bench/flush/design.h"

struct node {
	struct node *next;
	uint64_t range;
};

struct list {
	_Alignas(CACHE_LINE_BYTES) pthread_rwlock_t lock;
	struct node *first;
};

static struct run *run;
static struct list *lists;

static void init(struct run *of)
{
	run = of;
	lists = bench_allocate(run->vp_count * sizeof(*lists));
	for (vp_id_t vp = 0; vp < run->vp_count; vp++)
		pthread_rwlock_init(&lists[vp].lock, NULL);
}

static void drain_to(vp_id_t vp, bool deliver)
{
	struct list *list = &lists[vp];
	struct node *node;
	bool empty;

	pthread_rwlock_rdlock(&list->lock);
	empty = list->first == NULL;
	pthread_rwlock_unlock(&list->lock);
	if (empty)
		return;
	pthread_rwlock_wrlock(&list->lock);
	node = list->first;
	list->first = NULL;
	pthread_rwlock_unlock(&list->lock);
	while (node) {
		struct node *next = node->next;

		if (deliver)
			bench_invalidate(vp, node->range);
		free(node);
		node = next;
	}
}

static void drain(vp_id_t vp)
{
	drain_to(vp, true);
}

static void finish(void)
{
	for (vp_id_t vp = 0; vp < run->vp_count; vp++) {
		drain_to(vp, false);
		pthread_rwlock_destroy(&lists[vp].lock);
	}
	free(lists);
}

static void request(vp_id_t me, const struct vpset *set, uint64_t range)
{
	struct vpset_iter iter;
	vp_id_t vp;

	vpset_iter_begin(&iter, set);
	while (vpset_iter_next(&iter, &vp)) {
		struct node *node = malloc(sizeof(*node));

		if (!node)
			abort();
		node->range = range;
		pthread_rwlock_wrlock(&lists[vp].lock);
		node->next = lists[vp].first;
		lists[vp].first = node;
		pthread_rwlock_unlock(&lists[vp].lock);
	}
	bench_kick_by_bitmap(run, me, set);
}

const struct design design_locked = {
	.name = "locked-heap",
	.about = "a reader-writer-locked list per VP, from the heap",
	.init = init,
	.finish = finish,
	.request = request,
	.drain = drain,
};
