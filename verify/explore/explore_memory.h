/*
 * The memory that explored programs run on: C11 as RC11 defines it, operationally. Every location
 * has its modification order, a list of messages; every thread has a view, the oldest message of
 * each location that it may still read. What may not enter: scheduling, scenarios.
 */
#ifndef PARAPET_EXPLORE_MEMORY_H
#define PARAPET_EXPLORE_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "explore_atomic.h"

#define MEMORY_THREADS	   4
#define MEMORY_LOCATIONS   96
#define MEMORY_MESSAGES	   120 /* to one location in one execution */
#define MEMORY_NO_LOCATION 0xff

/* For each location a message, by number (not by place: stores can go between others). */
struct memory_view {
	uint8_t message[MEMORY_LOCATIONS];
};

/* One access that a thread is about to make. */
struct memory_operation {
	enum explore_kind kind;
	uint8_t location;
	memory_order order;
	uint64_t value;
	uint64_t expected;
};

/* Forgets every message and location, for a new execution. */
void memory_reset(void);

/* The location at this address, MEMORY_NO_LOCATION if none has been made. */
uint8_t memory_find(const void *address);

/* Makes a location that holds `value`. */
uint8_t memory_add(const void *address, uint64_t value);

/* In how many ways the access can turn out (which message a load reads, where a store goes). */
uint32_t memory_alternatives(uint32_t thread, const struct memory_operation *operation);

/* Carries the access out in way `alternative`; the value found. */
uint64_t memory_perform(
	uint32_t thread, const struct memory_operation *operation, uint32_t alternative);

/* Whether some location has had as many messages as there is room for: the execution must stop. */
bool memory_is_full(void);

/* The last value in modification order. */
uint64_t memory_latest(uint8_t location);

/* Whether the thread's view of the location is its last message: all others happen before it. */
bool memory_view_is_latest(uint32_t thread, uint8_t location);

/* A thread that spins: is there a message newer than the one that its last load read? */
bool memory_has_news(uint32_t thread);

/* And from now on it reads nothing older than the next one. */
void memory_expect_news(uint32_t thread);

/* Of all that the live threads (a bit each) can still tell apart. */
uint64_t memory_hash(uint64_t hash, uint32_t live_threads);

/* For traces: how many messages are newer than the one that the last access read or followed. */
uint32_t memory_last_staleness(void);

static inline uint64_t memory_mix(uint64_t hash, uint64_t value)
{
	hash ^= value;
	hash *= 0x9e3779b97f4a7c15ull;
	return hash ^ hash >> 29;
}

#endif
