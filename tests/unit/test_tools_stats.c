/*
 * Parapet's block as the command reads it, whole and broken; statistics, trace, summary, verdict.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "core/protect/protect.h"
#include "core/trace/trace.h"
#include "tools/stats_json.h"
#include "tools/summary.h"
#include "tools/trace_export.h"

#define VPS	3
#define ENTRIES 4
#define REGIONS 3

struct test_block {
	struct block_header header;
	uint8_t padding[24];
	struct block_vp vp[VPS];
	struct {
		uint64_t count;
		uint64_t padding[7];
		struct trace_record record[ENTRIES];
	} ring[VPS];
	struct block_region region[REGIONS];
};

static _Alignas(64) struct test_block block;

static void make_block(void)
{
	memset(&block, 0, sizeof(block));
	block.header = (struct block_header){
		.magic = BLOCK_MAGIC,
		.version = BLOCK_VERSION,
		.header_bytes = sizeof(struct block_header),
		.bytes = sizeof(block),
		.platform = "svm",
		.ap_start_method = "mailbox",
		.vps = VPS,
		.counters = COUNTER_COUNT,
		.vp_offset = offsetof(struct test_block, vp),
		.vp_bytes = sizeof(struct block_vp),
		.trace_offset = offsetof(struct test_block, ring),
		.trace_ring_bytes = sizeof(block.ring[0]),
		.trace_entries = ENTRIES,
		.tsc_hz = 2000000,
		.boot_tsc = 3000000,
		.end_tsc = 7000000,
		.ap_first_request_tsc = 4000000,
		.ap_last_online_tsc = 4000500,
		.region_offset = offsetof(struct test_block, region),
		.regions = REGIONS,
	};
	block.region[1] = (struct block_region){
		.base = 0x200000,
		.bytes = 0x3000,
		.transaction = 7,
		.vp = 2,
		.by = 1,
		.target = 0,
		.reason = PROTECT_VTL_MASK,
		.state = BLOCK_REGION_DEFERRED,
		.old_access = ACCESS_ALL,
		.new_access = ACCESS_READ | ACCESS_EXECUTE_KERNEL,
		.mixed = 1,
	};
	block.region[2] = (struct block_region){
		.transaction = 8, .reason = 200, .state = 200}; /* of a newer image */
	for (unsigned vp = 0; vp < VPS; vp++) {
		for (unsigned counter = 0; counter < COUNTER_ROOM; counter++)
			block.vp[vp].counter[counter] = 1;
		for (unsigned i = 0; i < 6; i++)
			block.ring[vp].record[i % ENTRIES] = (struct trace_record){
				.tsc = 4000000 + 2 * i, .event = TRACE_AP_INIT, .vp = vp, .a = i};
		block.ring[vp].count = vp == 2 ? 6 : vp;
	}
	block.vp[1].ap_request_tsc = 4000000;
	block.vp[1].ap_start_tsc = 4000020;
	block.vp[2].ap_request_tsc = 4000000; /* has not started */
}

static bool read_block(struct block_view *view)
{
	struct tool_error error;

	return block_read((const uint8_t *)&block, sizeof(block), view, &error);
}

static void test_block_whole(void **state)
{
	struct block_view view;
	double us;

	(void)state;
	make_block();
	assert_true(read_block(&view));
	assert_int_equal(block_read_total(&view, COUNTER_EXIT_CPUID), VPS);
	assert_int_equal(block_read_exits(&view), VPS * (COUNTER_EXIT_OTHER + 1));
	assert_true(block_read_guest_us(&view) == 2e6);
	assert_false(block_read_ap_start_us(&view, 0, &us));
	assert_true(block_read_ap_start_us(&view, 1, &us));
	assert_true(us == 10);
	assert_false(block_read_ap_start_us(&view, 2, &us));
	block.header.counters = 1;
	assert_true(read_block(&view));
	assert_int_equal(block_read_exits(&view), VPS);
}

#define BROKEN(field, value)                                                                       \
	do {                                                                                       \
		make_block();                                                                      \
		block.header.field = (value);                                                      \
		assert_false(read_block(&view));                                                   \
	} while (0)

static void test_block_broken(void **state)
{
	struct block_view view;
	struct tool_error error;

	(void)state;
	BROKEN(magic, 0);
	BROKEN(version, BLOCK_VERSION + 1);
	BROKEN(header_bytes, sizeof(struct block_header) - 1);
	BROKEN(header_bytes, UINT32_MAX);
	BROKEN(bytes, sizeof(block) + 1);
	BROKEN(bytes, sizeof(block) - 1);
	BROKEN(bytes, 0);
	BROKEN(regions, REGIONS + 1);
	BROKEN(regions, UINT64_MAX / 64 + 2);
	BROKEN(region_offset, 0);
	BROKEN(region_offset, offsetof(struct test_block, region) + 8);
	BROKEN(region_offset, offsetof(struct test_block, region) - 4);
	BROKEN(region_offset, UINT64_MAX);
	BROKEN(vps, 0);
	BROKEN(vps, VPS + 1);
	BROKEN(vps, UINT32_MAX);
	BROKEN(counters, 0);
	BROKEN(counters, COUNTER_ROOM + 1);
	BROKEN(vp_offset, 0);
	BROKEN(vp_offset, offsetof(struct test_block, vp) + 4);
	BROKEN(vp_offset, UINT64_MAX & ~7ull);
	BROKEN(vp_bytes, 0);
	BROKEN(vp_bytes, UINT64_MAX & ~7ull);
	BROKEN(trace_offset, sizeof(block));
	BROKEN(trace_offset, UINT64_MAX & ~7ull);
	BROKEN(trace_offset, 1);
	BROKEN(trace_entries, 1);
	BROKEN(trace_entries, 3);
	BROKEN(trace_entries, 8);
	BROKEN(trace_entries, 1ull << 63);
	BROKEN(trace_ring_bytes, 0);
	BROKEN(trace_ring_bytes, UINT64_MAX & ~7ull);
	make_block();
	for (size_t size = 0; size < sizeof(block); size++)
		assert_false(block_read((const uint8_t *)&block, size, &view, &error));
	assert_false(block_read((const uint8_t *)&block + 1, sizeof(block) - 1, &view, &error));
}

/* Whatever is in a block that was not refused, nothing may be read outside it. */
static void test_block_random(void **state)
{
	static _Alignas(64) struct test_block pristine;
	uint64_t seed = 88172645463325252ull;

	(void)state;
	make_block();
	pristine = block;
	for (int round = 0; round < 20000; round++) {
		struct run_result result = {.paravisor = true, .cpus = VPS};
		struct block_view view;

		block = pristine;
		for (int change = 0; change < 2; change++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			((uint8_t *)&block.header)[seed % sizeof(block.header)] ^=
				(uint8_t)(1u << (seed >> 32) % 8);
			if (change == 0)
				block.ring[seed % VPS].count ^= 1ull << (seed >> 40) % 64;
		}
		if (!read_block(&view))
			continue;
		result.block = &view;
		struct trace_export export = trace_export_make(&view);

		assert_non_null(export.text);
		free(export.text);
		if (round % 50 == 0) {
			struct verdict verdict = verdict_decide(&result);
			char *text = stats_json_make(&result, &verdict);
			json_t *root = json_loads(text, 0, NULL);

			assert_non_null(root);
			json_decref(root);
			free(text);
		}
	}
}

static json_t *get(json_t *root, const char *first, const char *second)
{
	json_t *part = json_object_get(root, first);

	part = second ? json_object_get(part, second) : part;
	assert_non_null(part);
	return part;
}

/* Those that are in use; what a newer image says has no name here. */
static void expect_regions(json_t *regions)
{
	json_t *region = json_array_get(regions, 0);

	assert_int_equal(json_array_size(regions), 2);
	assert_int_equal(json_integer_value(get(region, "base", NULL)), 0x200000);
	assert_int_equal(json_integer_value(get(region, "bytes", NULL)), 0x3000);
	assert_string_equal(json_string_value(get(region, "state", NULL)), "deferred");
	assert_string_equal(json_string_value(get(region, "old", NULL)), "rwx");
	assert_string_equal(json_string_value(get(region, "new", NULL)), "r-k");
	assert_true(json_is_true(get(region, "mixed", NULL)));
	assert_true(json_is_false(get(region, "hull", NULL)));
	assert_int_equal(json_integer_value(get(region, "target_vtl", NULL)), 0);
	assert_int_equal(json_integer_value(get(region, "by_vtl", NULL)), 1);
	assert_int_equal(json_integer_value(get(region, "vp", NULL)), 2);
	assert_string_equal(json_string_value(get(region, "reason", NULL)), "vtl-mask");
	assert_int_equal(json_integer_value(get(region, "transaction", NULL)), 7);
	region = json_array_get(regions, 1);
	assert_string_equal(json_string_value(get(region, "state", NULL)), "unknown");
	assert_string_equal(json_string_value(get(region, "reason", NULL)), "unknown");
	assert_string_equal(json_string_value(get(region, "new", NULL)), "---");
}

static void test_stats(void **state)
{
	static const char *const exits[] = {"hypercall", "cpuid", "msr", "io", "memory_fault",
		"halt", "interrupt", "nmi", "debug", "init_sipi", "shutdown"};
	struct block_view view;
	struct run_result result = {
		.end = RUN_END_POWER_OFF, .paravisor = true, .cpus = VPS, .block = &view};

	(void)state;
	make_block();
	assert_true(read_block(&view));

	struct verdict verdict = verdict_decide(&result);
	char *text = stats_json_make(&result, &verdict);
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(root);
	assert_string_equal(json_string_value(get(root, "platform", NULL)), "svm");
	assert_int_equal(json_integer_value(get(root, "vps", NULL)), VPS);
	assert_true(json_number_value(get(root, "boot_us", NULL)) == 1500000);
	assert_string_equal(json_string_value(get(root, "ap_start", "method")), "mailbox");
	assert_true(json_number_value(get(root, "ap_start", "total_us")) == 250);
	assert_int_equal(json_array_size(get(root, "ap_start", "per_vp_us")), 1);
	for (size_t i = 0; i < ARRAY_SIZE(exits); i++)
		assert_int_equal(json_integer_value(get(root, "exits", exits[i])), VPS);
	assert_int_equal(json_integer_value(get(root, "exits", "total")), 12 * VPS);
	expect_regions(get(root, "protect", "regions"));
	json_decref(root);
	free(text);
}

static void test_stats_without_block(void **state)
{
	struct run_result result = {.end = RUN_END_RESET, .cpus = 2, .wall_us = 5};
	struct verdict verdict = verdict_decide(&result);
	char *text = stats_json_make(&result, &verdict);
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

	(void)state;
	assert_non_null(root);
	assert_string_equal(json_string_value(get(root, "platform", NULL)), "none");
	assert_true(json_is_null(get(root, "boot_us", NULL)));
	assert_int_equal(json_integer_value(get(root, "vps", NULL)), 2);
	assert_int_equal(json_integer_value(get(root, "wall_us", NULL)), 5);
	json_decref(root);
	free(text);
}

static void test_trace(void **state)
{
	struct block_view view;

	(void)state;
	make_block();
	block.ring[1].record[0] =
		(struct trace_record){.tsc = 4000000, .event = 4000000, .vp = 1, .a = UINT64_MAX};
	assert_true(read_block(&view));

	struct trace_export export = trace_export_make(&view);
	json_t *root = json_loads(export.text, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(root);
	assert_int_equal(export.records, 1 + 3); /* the full ring's oldest may be torn */
	assert_int_equal(export.lost, 3);
	assert_int_equal(json_array_size(get(root, "traceEvents", NULL)), 1 + 2 * VPS + 4);
	json_decref(root);
	free(export.text);

	export = trace_export_make(NULL);
	root = json_loads(export.text, 0, NULL);
	assert_non_null(root);
	json_decref(root);
	free(export.text);
}

/* Every event that there is makes valid JSON. */
static void test_trace_events(void **state)
{
	struct block_view view;

	(void)state;
	for (uint32_t event = 0; event <= TRACE_EVENT_COUNT; event++) {
		make_block();
		block.ring[1].record[0].event = event;
		assert_true(read_block(&view));
		struct trace_export export = trace_export_make(&view);
		json_t *root = json_loads(export.text, JSON_REJECT_DUPLICATES, NULL);

		assert_non_null(root);
		json_decref(root);
		free(export.text);
	}
}

static void test_verdicts(void **state)
{
	static const struct {
		enum run_end end;
		uint64_t code;
		bool panic;
		int status;
	} cases[] = {
		{RUN_END_POWER_OFF, 0, false, 0},
		{RUN_END_POWER_OFF, 0, true, 1},
		{RUN_END_RESET, 0, false, 0},
		{RUN_END_RESET, 0, true, 1},
		{RUN_END_TRIPLE_FAULT, 0, false, 1},
		{RUN_END_EXIT_PORT, 0, false, 0},
		{RUN_END_EXIT_PORT, 1, false, 1},
		{RUN_END_EXIT_PORT, 1ull << 63, false, 1},
		{RUN_END_REFUSED, 0, false, 2},
		{RUN_END_PARAPET_FAULT, 0, true, 4},
		{RUN_END_TIMEOUT, 0, false, 3},
		{RUN_END_TIMEOUT, 0, true, 1},
		{RUN_END_HANG_AFTER_PANIC, 0, true, 1},
		{RUN_END_SIGNAL, 15, false, 143},
		{RUN_END_LEFT, 0, false, 130},
		{RUN_END_NO_OUTPUT, 0, false, 2},
		{RUN_END_NOT_STARTED, 256, false, 2},
		{RUN_END_DIED, 9, false, 4},
		{RUN_END_SILENT, 30, false, 4},
		{RUN_END_UNANNOUNCED, 0, true, 4},
		{RUN_END_BROKEN, 0, false, 2},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct run_result result = {
			.end = cases[i].end, .code = cases[i].code, .panic = cases[i].panic};
		struct verdict verdict = verdict_decide(&result);

		assert_int_equal(verdict.status, cases[i].status);
		assert_true(verdict.text[0] != '\0');
		assert_string_not_equal(verdict_end_name(cases[i].end), "unknown");
	}
}

static void test_summary(void **state)
{
	struct block_view view;
	struct run_result result = {
		.end = RUN_END_POWER_OFF, .paravisor = true, .cpus = VPS, .block = &view};
	struct verdict verdict = verdict_decide(&result);
	char *text = NULL;
	size_t size = 0;

	(void)state;
	make_block();
	block.vp[0].counter[COUNTER_EXIT_MSR] = 1234565;
	block.vp[0].counter[COUNTER_PROTECT_TRANSACTIONS] = 1000;
	block.vp[0].counter[COUNTER_PROTECT_DENIED] = 7654320;
	assert_true(read_block(&view));

	FILE *out = open_memstream(&text, &size);

	summary_print(out, false, &result, &verdict);
	assert_int_equal(fclose(out), 0);
	assert_non_null(strstr(text, "1,234,567       617,284\n"));
	assert_non_null(strstr(text, "DMA is not covered"));
	assert_non_null(strstr(text, "it powered off"));
	assert_non_null(strstr(text, " changes of "));
	assert_non_null(strstr(text, "7,654,3"));
	assert_null(strchr(text, '\033'));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_block_whole),
		cmocka_unit_test(test_block_broken),
		cmocka_unit_test(test_block_random),
		cmocka_unit_test(test_stats),
		cmocka_unit_test(test_stats_without_block),
		cmocka_unit_test(test_trace),
		cmocka_unit_test(test_trace_events),
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_summary),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
