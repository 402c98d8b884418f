/* What the benchmarks of the host measure with. What may not enter: what is measured. */
#ifndef PARAPET_BENCH_MEASURE_H
#define PARAPET_BENCH_MEASURE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS_MAX 31

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* Of the rounds' values: the least, the median, the most. */
struct spread {
	double low, middle, high;
};

static inline int spread_by_value(const void *a, const void *b)
{
	double left = *(const double *)a;
	double right = *(const double *)b;

	return (left > right) - (left < right);
}

static inline struct spread spread_of(const double *values, uint32_t count)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, values, count * sizeof(*values));
	qsort(sorted, count, sizeof(*sorted), spread_by_value);
	return (struct spread){sorted[0], sorted[count / 2], sorted[count - 1]};
}

#endif
