/*
 * Time: the TSC, measured once against the PIT's second channel. No interrupts, no tests.
 */
#ifndef TK_CLOCK_H
#define TK_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* TSC ticks per second. Measures on the first call (50 ms). */
uint64_t clock_frequency(void);

void clock_delay(uint64_t us);

/* A point in time, for clock_passed. */
uint64_t clock_deadline(uint64_t us);
bool clock_passed(uint64_t deadline);

/* Waits until a condition holds, at most so long; the value says whether it came to hold. */
#define clock_wait_for(condition, us)                                                              \
	({                                                                                         \
		uint64_t clock_end_ = clock_deadline(us);                                          \
		bool clock_holds_;                                                                 \
                                                                                                   \
		while (!(clock_holds_ = (condition)) && !clock_passed(clock_end_))                 \
			cpu_relax();                                                               \
		clock_holds_ || (condition);                                                       \
	})

#endif
