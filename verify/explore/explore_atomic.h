/*
 * The names of core/atomic.h, for the explorer: every access stops the VP that makes it and is
 * carried out when the scheduler says so, under the memory model of explore_memory.c. Included by
 * core/atomic.h in place of its own definitions when PARAPET_EXPLORE is defined.
 */
#ifndef PARAPET_EXPLORE_ATOMIC_H
#define PARAPET_EXPLORE_ATOMIC_H

#include <stddef.h>

/* `value` is what the location starts with; afterwards the model holds what was written. */
struct atomic_u32 {
	uint32_t value;
};

struct atomic_u64 {
	uint64_t value;
};

enum explore_kind {
	EXPLORE_LOAD,
	EXPLORE_STORE,
	EXPLORE_EXCHANGE,
	EXPLORE_ADD,
	EXPLORE_OR,
	EXPLORE_AND,
	EXPLORE_COMPARE_EXCHANGE,
	EXPLORE_FENCE,
	EXPLORE_RELAX,
	EXPLORE_STEP,
};

/* Carries out one access to the location at `address`; the value found there. */
uint64_t explore_access(enum explore_kind kind, const void *address, uint32_t bytes, uint64_t value,
	uint64_t expected, memory_order order);

#define ATOMIC_DEFINE_RMW(bits, name, kind)                                                        \
	static inline uint##bits##_t atomic_u##bits##_##name(                                      \
		struct atomic_u##bits *atomic, uint##bits##_t value, memory_order order)           \
	{                                                                                          \
		return (uint##bits##_t)explore_access(kind, atomic, bits / 8, value, 0, order);    \
	}

#define ATOMIC_DEFINE(bits)                                                                        \
	static inline uint##bits##_t atomic_u##bits##_load(                                        \
		const struct atomic_u##bits *atomic, memory_order order)                           \
	{                                                                                          \
		return (uint##bits##_t)explore_access(                                             \
			EXPLORE_LOAD, atomic, bits / 8, 0, 0, order);                              \
	}                                                                                          \
	static inline void atomic_u##bits##_store(                                                 \
		struct atomic_u##bits *atomic, uint##bits##_t value, memory_order order)           \
	{                                                                                          \
		explore_access(EXPLORE_STORE, atomic, bits / 8, value, 0, order);                  \
	}                                                                                          \
	ATOMIC_DEFINE_RMW(bits, exchange, EXPLORE_EXCHANGE)                                        \
	ATOMIC_DEFINE_RMW(bits, fetch_add, EXPLORE_ADD)                                            \
	ATOMIC_DEFINE_RMW(bits, fetch_or, EXPLORE_OR)                                              \
	ATOMIC_DEFINE_RMW(bits, fetch_and, EXPLORE_AND)                                            \
	static inline bool atomic_u##bits##_compare_exchange(struct atomic_u##bits *atomic,        \
		uint##bits##_t *expected, uint##bits##_t desired, memory_order order)              \
	{                                                                                          \
		uint##bits##_t found = (uint##bits##_t)explore_access(                             \
			EXPLORE_COMPARE_EXCHANGE, atomic, bits / 8, desired, *expected, order);    \
		bool done = found == *expected;                                                    \
                                                                                                   \
		*expected = found;                                                                 \
		return done;                                                                       \
	}

ATOMIC_DEFINE(32)
ATOMIC_DEFINE(64)
#undef ATOMIC_DEFINE
#undef ATOMIC_DEFINE_RMW

static inline void atomic_fence(memory_order order)
{
	explore_access(EXPLORE_FENCE, NULL, 0, 0, 0, order);
}

static inline void atomic_relax(void)
{
	explore_access(EXPLORE_RELAX, NULL, 0, 0, 0, memory_order_relaxed);
}

#endif
