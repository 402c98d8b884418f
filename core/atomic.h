/*
 * The only door from the core to memory that more than one processor writes: thin names over C11
 * atomics. Every call spells out its memory order, and a comment at the call names its partner.
 *
 * A checker that schedules every access (verify/explore) defines PARAPET_EXPLORE and supplies the
 * same names itself. No other file of the core may use <stdatomic.h> operations directly.
 */
#ifndef PARAPET_CORE_ATOMIC_H
#define PARAPET_CORE_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Everything a processor writes on its own and others only read lives in a line of its own. */
#define CACHE_LINE_BYTES 64

#ifdef PARAPET_EXPLORE
#include "explore_atomic.h"
#else

struct atomic_u32 {
	_Atomic uint32_t value;
};

struct atomic_u64 {
	_Atomic uint64_t value;
};

#define ATOMIC_DEFINE(bits)                                                                        \
	static inline uint##bits##_t atomic_u##bits##_load(                                        \
		const struct atomic_u##bits *atomic, memory_order order)                           \
	{                                                                                          \
		return atomic_load_explicit(&atomic->value, order);                                \
	}                                                                                          \
	static inline void atomic_u##bits##_store(                                                 \
		struct atomic_u##bits *atomic, uint##bits##_t value, memory_order order)           \
	{                                                                                          \
		atomic_store_explicit(&atomic->value, value, order);                               \
	}                                                                                          \
	static inline uint##bits##_t atomic_u##bits##_exchange(                                    \
		struct atomic_u##bits *atomic, uint##bits##_t value, memory_order order)           \
	{                                                                                          \
		return atomic_exchange_explicit(&atomic->value, value, order);                     \
	}                                                                                          \
	static inline uint##bits##_t atomic_u##bits##_fetch_add(                                   \
		struct atomic_u##bits *atomic, uint##bits##_t value, memory_order order)           \
	{                                                                                          \
		return atomic_fetch_add_explicit(&atomic->value, value, order);                    \
	}                                                                                          \
	static inline uint##bits##_t atomic_u##bits##_fetch_or(                                    \
		struct atomic_u##bits *atomic, uint##bits##_t value, memory_order order)           \
	{                                                                                          \
		return atomic_fetch_or_explicit(&atomic->value, value, order);                     \
	}                                                                                          \
	static inline uint##bits##_t atomic_u##bits##_fetch_and(                                   \
		struct atomic_u##bits *atomic, uint##bits##_t value, memory_order order)           \
	{                                                                                          \
		return atomic_fetch_and_explicit(&atomic->value, value, order);                    \
	}                                                                                          \
	/* On failure *expected is what was found, read relaxed. */                                \
	static inline bool atomic_u##bits##_compare_exchange(struct atomic_u##bits *atomic,        \
		uint##bits##_t *expected, uint##bits##_t desired, memory_order order)              \
	{                                                                                          \
		return atomic_compare_exchange_strong_explicit(                                    \
			&atomic->value, expected, desired, order, memory_order_relaxed);           \
	}

ATOMIC_DEFINE(32)
ATOMIC_DEFINE(64)
#undef ATOMIC_DEFINE

static inline void atomic_fence(memory_order order)
{
	atomic_thread_fence(order);
}

/* What a processor does between two looks at a word that another one is about to change. */
#ifdef PARAPET_SIM
/* There are more of them than the computer has: lets another one run now and then. */
void atomic_relax(void);
#else
static inline void atomic_relax(void)
{
	__builtin_ia32_pause();
}
#endif

#endif /* PARAPET_EXPLORE */
#endif
