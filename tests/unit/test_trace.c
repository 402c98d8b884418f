/*
 * The trace rings: what is written comes back, torn records never do, and every event is
 * described.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/trace/trace.h"

#define ENTRIES 16

static void *memory_get(uint64_t entries)
{
	void *memory = aligned_alloc(64, trace_ring_bytes(entries));

	assert_non_null(memory);
	memset(memory, 0xa5, trace_ring_bytes(entries));
	return memory;
}

static void test_layout_is_the_block_header_s(void **state)
{
	(void)state;
	void *memory = memory_get(ENTRIES);
	struct trace_ring ring;

	assert_true(trace_ring_init(&ring, 7, memory, ENTRIES));
	trace_write(&ring, 1000, TRACE_AP_INIT, 3, 0);
	trace_write(&ring, 1001, TRACE_GUEST_END, 4, 5);

	/* As a tool reads it, with nothing but the block's own header. */
	const uint64_t *count = memory;
	const struct trace_record *record = (const void *)((const char *)memory + 64);

	assert_int_equal(*count, 2);
	assert_int_equal(record[0].tsc, 1000);
	assert_int_equal(record[0].event, TRACE_AP_INIT);
	assert_int_equal(record[0].vp, 7);
	assert_int_equal(record[0].a, 3);
	assert_int_equal(record[1].b, 5);
	assert_int_equal(record[2].event, TRACE_NONE);
	free(memory);
}

static void test_old_records_give_way(void **state)
{
	(void)state;
	void *memory = memory_get(ENTRIES);
	struct trace_record out[ENTRIES];
	struct trace_ring ring;
	uint64_t next = 0;

	assert_true(trace_ring_init(&ring, 0, memory, ENTRIES));
	assert_int_equal(trace_ring_read(memory, ENTRIES, &next, out, ENTRIES), 0);
	for (uint64_t i = 0; i < ENTRIES - 1; i++)
		trace_write(&ring, i, TRACE_AP_INIT, i, 0);
	assert_int_equal(trace_ring_read(memory, ENTRIES, &next, out, 4), 4);
	assert_int_equal(out[0].a, 0);
	assert_int_equal(next, 4);
	assert_int_equal(trace_ring_read(memory, ENTRIES, &next, out, ENTRIES), ENTRIES - 5);
	assert_int_equal(out[0].a, 4);
	assert_int_equal(next, ENTRIES - 1);
	assert_int_equal(trace_ring_read(memory, ENTRIES, &next, out, ENTRIES), 0);

	for (uint64_t i = ENTRIES - 1; i < 5 * ENTRIES; i++)
		trace_write(&ring, i, TRACE_AP_INIT, i, 0);
	assert_int_equal(trace_ring_read(memory, ENTRIES, &next, out, ENTRIES), ENTRIES - 1);
	assert_int_equal(out[0].a, 4 * ENTRIES + 1);
	assert_int_equal(out[ENTRIES - 2].a, 5 * ENTRIES - 1);
	assert_int_equal(next, 5 * ENTRIES);
	next = UINT64_MAX;
	assert_int_equal(trace_ring_read(memory, ENTRIES, &next, out, ENTRIES), 0);
	free(memory);
}

static void test_bad_memory_makes_a_silent_ring(void **state)
{
	(void)state;
	char *memory = memory_get(ENTRIES);
	struct trace_ring ring;

	assert_false(trace_ring_init(&ring, 0, memory, 0));
	assert_false(trace_ring_init(&ring, 0, memory, 1));
	assert_false(trace_ring_init(&ring, 0, memory, 12));
	assert_false(trace_ring_init(&ring, 0, memory + 8, 8));
	assert_false(trace_ring_init(&ring, 0, NULL, ENTRIES));
	trace_write(&ring, 1, TRACE_AP_INIT, 0, 0);
	assert_int_equal((unsigned char)memory[0], 0xa5);
	free(memory);
}

static void test_every_event_is_described(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < TRACE_EVENT_COUNT; i++) {
		const struct trace_event_info *info = trace_event_describe(i);

		assert_string_not_equal(info->name, "unknown event");
		assert_non_null(info->category);
		assert_true((info->phase == TRACE_PHASE_INSTANT) == (info->span == NULL));
		if (info->phase >= TRACE_PHASE_ASYNC_BEGIN)
			assert_string_equal(info->arg_a, "vp");
		for (uint32_t j = 0; j < i; j++)
			assert_string_not_equal(info->name, trace_event_describe(j)->name);
	}
	assert_string_equal(trace_event_describe(TRACE_EVENT_COUNT)->name, "unknown event");
	assert_string_equal(trace_event_describe(UINT32_MAX)->name, "unknown event");
}

#define CONCURRENT_RECORDS 400000ull

static void *writer_run(void *argument)
{
	struct trace_ring *ring = argument;

	for (uint64_t i = 0; i < CONCURRENT_RECORDS; i++)
		trace_write(ring, i, TRACE_PROTECT_BEGIN, ~i, i * 3);
	return NULL;
}

/* A reader beside a running writer gets whole records, in order, each at most once. */
static void test_no_torn_record_is_read(void **state)
{
	(void)state;
	void *memory = memory_get(ENTRIES);
	struct trace_record out[ENTRIES];
	struct trace_ring ring;
	pthread_t writer;
	uint64_t next = 0, last = UINT64_MAX, seen = 0;

	assert_true(trace_ring_init(&ring, 9, memory, ENTRIES));
	assert_int_equal(pthread_create(&writer, NULL, writer_run, &ring), 0);
	while (next < CONCURRENT_RECORDS) {
		uint64_t got = trace_ring_read(memory, ENTRIES, &next, out, ENTRIES);

		for (uint64_t i = 0; i < got; i++) {
			assert_int_equal(out[i].event, TRACE_PROTECT_BEGIN);
			assert_int_equal(out[i].vp, 9);
			assert_int_equal(out[i].a, ~out[i].tsc);
			assert_int_equal(out[i].b, out[i].tsc * 3);
			assert_true(last == UINT64_MAX || out[i].tsc > last);
			last = out[i].tsc;
		}
		seen += got;
	}
	pthread_join(writer, NULL);
	assert_true(seen >= ENTRIES - 1 && seen <= CONCURRENT_RECORDS);
	assert_int_equal(last, CONCURRENT_RECORDS - 1);
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout_is_the_block_header_s),
		cmocka_unit_test(test_old_records_give_way),
		cmocka_unit_test(test_bad_memory_makes_a_silent_ring),
		cmocka_unit_test(test_every_event_is_described),
		cmocka_unit_test(test_no_torn_record_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
