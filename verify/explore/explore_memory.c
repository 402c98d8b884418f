/*
 * The memory model. A thread has three views: what it has seen (a load can read nothing older),
 * what an acquire fence would add, what a release fence has fixed. A message carries the view of
 * the release that it belongs to; a read-modify-write carries on the one that it read. Sequentially
 * consistent fences meet in one more view. Stores may enter modification order before messages that
 * the thread has not seen, except between a read-modify-write and what it read. As in RC11, a load
 * never reads from a store that has not been executed yet.
 *
 * Accesses with memory_order_seq_cst are treated as acquire and release: the core uses fences, and
 * what holds for the weaker access holds for the stronger.
 */
#include "explore_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct message {
	uint64_t value;
	struct memory_view view;
	/* The next one in modification order is a read-modify-write of this one. */
	bool read_by_rmw;
};

struct location {
	const void *address;
	uint32_t count;
	struct message message[MEMORY_MESSAGES];
	uint8_t order[MEMORY_MESSAGES]; /* modification order: place to number */
	uint8_t place[MEMORY_MESSAGES]; /* and back */
};

struct thread_views {
	struct memory_view seen;
	struct memory_view on_acquire;
	struct memory_view on_release;
	/* The access that a spinning thread would repeat. */
	uint8_t last_location;
	uint8_t last_read;
};

static struct location locations[MEMORY_LOCATIONS];
static uint32_t location_count;
static struct thread_views threads[MEMORY_THREADS];
static struct memory_view sc_view;
static uint32_t last_staleness;
static bool full; /* a location is about to have more messages than there is room for */

void memory_reset(void)
{
	location_count = 0;
	full = false;
	memset(threads, 0, sizeof(threads));
	memset(&sc_view, 0, sizeof(sc_view));
}

uint8_t memory_find(const void *address)
{
	for (uint32_t i = 0; i < location_count; i++) {
		if (locations[i].address == address)
			return (uint8_t)i;
	}
	return MEMORY_NO_LOCATION;
}

uint8_t memory_add(const void *address, uint64_t value)
{
	struct location *location = &locations[location_count];

	if (location_count == MEMORY_LOCATIONS) {
		fprintf(stderr, "explore: more than %d locations\n", MEMORY_LOCATIONS);
		exit(2);
	}
	location->address = address;
	location->count = 1;
	location->message[0].value = value;
	location->message[0].read_by_rmw = false;
	memset(&location->message[0].view, 0, sizeof(struct memory_view));
	location->order[0] = 0;
	location->place[0] = 0;
	return (uint8_t)location_count++;
}

static uint32_t view_place(const struct memory_view *view, uint32_t location)
{
	return locations[location].place[view->message[location]];
}

static void view_join(struct memory_view *view, const struct memory_view *other)
{
	for (uint32_t i = 0; i < location_count; i++) {
		if (view_place(other, i) > view_place(view, i))
			view->message[i] = other->message[i];
	}
}

static bool acquires(memory_order order)
{
	return order != memory_order_relaxed && order != memory_order_release;
}

static bool releases(memory_order order)
{
	return order == memory_order_release || order == memory_order_acq_rel ||
		order == memory_order_seq_cst;
}

static bool is_rmw(enum explore_kind kind)
{
	return kind >= EXPLORE_EXCHANGE && kind <= EXPLORE_COMPARE_EXCHANGE;
}

/* Whether the access writes when it finds `found`. */
static bool writes(const struct memory_operation *operation, uint64_t found)
{
	if (operation->kind == EXPLORE_COMPARE_EXCHANGE)
		return found == operation->expected;
	return operation->kind == EXPLORE_STORE || is_rmw(operation->kind);
}

static uint64_t written(const struct memory_operation *operation, uint64_t found)
{
	switch (operation->kind) {
	case EXPLORE_ADD:
		return found + operation->value;
	case EXPLORE_OR:
		return found | operation->value;
	case EXPLORE_AND:
		return found & operation->value;
	default:
		return operation->value;
	}
}

/* Whether the access can take the message at `place`: read it, or follow it in modification order.
 */
static bool can_take(const struct memory_operation *operation, uint32_t place)
{
	const struct location *location = &locations[operation->location];
	const struct message *message = &location->message[location->order[place]];

	return !writes(operation, message->value) || !message->read_by_rmw;
}

/* The place that way `alternative` takes, counted from the newest. */
static uint32_t chosen_place(
	uint32_t thread, const struct memory_operation *operation, uint32_t alternative)
{
	uint32_t oldest = view_place(&threads[thread].seen, operation->location);
	uint32_t place = locations[operation->location].count;

	while (place-- > oldest) {
		if (can_take(operation, place) && alternative-- == 0)
			return place;
	}
	fprintf(stderr, "explore: no such way\n");
	abort();
}

uint32_t memory_alternatives(uint32_t thread, const struct memory_operation *operation)
{
	uint32_t alternatives = 0;

	if (operation->kind == EXPLORE_FENCE)
		return 1;
	for (uint32_t place = view_place(&threads[thread].seen, operation->location);
		place < locations[operation->location].count; place++)
		alternatives += can_take(operation, place);
	return alternatives;
}

static void fence(struct thread_views *views, memory_order order)
{
	if (acquires(order))
		view_join(&views->seen, &views->on_acquire);
	if (order == memory_order_seq_cst) {
		view_join(&views->seen, &sc_view);
		sc_view = views->seen;
	}
	if (releases(order))
		views->on_release = views->seen;
	view_join(&views->on_acquire, &views->seen);
}

/* Puts a message into modification order right after `place`. */
static uint8_t insert(struct location *location, uint32_t place, uint64_t value)
{
	uint32_t number = location->count;

	full |= number + 2 > MEMORY_MESSAGES;
	for (uint32_t i = number; i > place + 1; i--) {
		location->order[i] = location->order[i - 1];
		location->place[location->order[i]] = (uint8_t)i;
	}
	location->order[place + 1] = (uint8_t)number;
	location->place[number] = (uint8_t)(place + 1);
	location->count++;
	location->message[number].value = value;
	location->message[number].read_by_rmw = false;
	return (uint8_t)number;
}

uint64_t memory_perform(
	uint32_t thread, const struct memory_operation *operation, uint32_t alternative)
{
	struct thread_views *views = &threads[thread];
	struct location *location;
	struct message *taken;
	struct memory_view carried;
	uint32_t at = operation->location;
	uint32_t place;
	uint64_t found;
	uint8_t number;

	if (operation->kind == EXPLORE_FENCE) {
		fence(views, operation->order);
		return 0;
	}
	location = &locations[at];
	place = chosen_place(thread, operation, alternative);
	last_staleness = location->count - 1 - place;
	number = location->order[place];
	taken = &location->message[number];
	found = taken->value;
	memset(&carried, 0, sizeof(carried));

	if (operation->kind != EXPLORE_STORE) {
		bool acquire = acquires(operation->order) &&
			(operation->kind != EXPLORE_COMPARE_EXCHANGE ||
				writes(operation, found)); /* a failure reads relaxed */

		if (place > view_place(&views->seen, at))
			views->seen.message[at] = number;
		view_join(&views->on_acquire, &taken->view);
		if (acquire)
			view_join(&views->seen, &taken->view);
		view_join(&views->on_acquire, &views->seen);
		views->last_location = operation->location;
		views->last_read = number;
		carried = taken->view;
	}
	if (!writes(operation, found))
		return found;

	if (operation->kind != EXPLORE_STORE)
		taken->read_by_rmw = true;
	number = insert(location, place, written(operation, found));
	views->seen.message[at] = number;
	views->on_acquire.message[at] = number;
	if (releases(operation->order)) {
		view_join(&carried, &views->seen);
	} else {
		view_join(&carried, &views->on_release);
		if (view_place(&carried, at) < location->place[number])
			carried.message[at] = number;
	}
	location->message[number].view = carried;
	return found;
}

bool memory_is_full(void)
{
	return full;
}

uint64_t memory_latest(uint8_t location)
{
	const struct location *at = &locations[location];

	return at->message[at->order[at->count - 1]].value;
}

bool memory_view_is_latest(uint32_t thread, uint8_t location)
{
	return view_place(&threads[thread].seen, location) == locations[location].count - 1;
}

bool memory_has_news(uint32_t thread)
{
	const struct location *at = &locations[threads[thread].last_location];

	return at->place[threads[thread].last_read] < at->count - 1;
}

void memory_expect_news(uint32_t thread)
{
	struct thread_views *views = &threads[thread];
	uint32_t location = views->last_location;
	const struct location *at = &locations[location];
	uint32_t place = at->place[views->last_read] + 1;

	if (place > view_place(&views->seen, location))
		views->seen.message[location] = at->order[place];
	if (place > view_place(&views->on_acquire, location))
		views->on_acquire.message[location] = at->order[place];
}

uint32_t memory_last_staleness(void)
{
	return last_staleness;
}

/* A view, without what nobody who still runs can tell apart: places below `oldest`. */
static uint64_t hash_view(uint64_t hash, const struct memory_view *view, const uint32_t *oldest)
{
	uint64_t packed = 0;

	for (uint32_t i = 0; i < location_count; i++) {
		uint32_t place = view_place(view, i);

		packed = packed << 8 | (place > oldest[i] ? place - oldest[i] : 0);
		if (i % 8 == 7) {
			hash = memory_mix(hash, packed);
			packed = 0;
		}
	}
	return memory_mix(hash, packed);
}

uint64_t memory_hash(uint64_t hash, uint32_t live_threads)
{
	uint32_t oldest[MEMORY_LOCATIONS];

	for (uint32_t i = 0; i < location_count; i++) {
		oldest[i] = locations[i].count - 1;
		for (uint32_t t = 0; t < MEMORY_THREADS; t++) {
			if (live_threads & 1u << t && view_place(&threads[t].seen, i) < oldest[i])
				oldest[i] = view_place(&threads[t].seen, i);
		}
	}
	for (uint32_t t = 0; t < MEMORY_THREADS; t++) {
		uint32_t read;

		if (!(live_threads & 1u << t))
			continue;
		hash = hash_view(hash, &threads[t].seen, oldest);
		hash = hash_view(hash, &threads[t].on_acquire, oldest);
		hash = hash_view(hash, &threads[t].on_release, oldest);
		if (location_count == 0)
			continue;
		read = locations[threads[t].last_location].place[threads[t].last_read];
		if (read < oldest[threads[t].last_location])
			read = oldest[threads[t].last_location];
		hash = memory_mix(hash,
			threads[t].last_location * 256ull + read -
				oldest[threads[t].last_location]);
	}
	hash = hash_view(hash, &sc_view, oldest);
	for (uint32_t i = 0; i < location_count; i++) {
		for (uint32_t place = oldest[i]; place < locations[i].count; place++) {
			const struct message *message =
				&locations[i].message[locations[i].order[place]];

			hash = memory_mix(hash, message->value);
			hash = memory_mix(hash, i * 2 + message->read_by_rmw);
			hash = hash_view(hash, &message->view, oldest);
		}
	}
	return hash;
}
