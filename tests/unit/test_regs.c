/* Where registers are, what the gate counts, what a breakpoint matches, and who cannot be asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/regs/regs.h"

#define ENABLE(i)	  (2ull << (2 * (i)))
#define TYPE(i, type)	  ((uint64_t)(type) << (16 + 4 * (i)))
#define LENGTH(i, length) ((uint64_t)(length) << (18 + 4 * (i)))

#define ON_EXECUTE 0
#define ON_WRITE   1
#define ON_PORT	   2
#define ON_ACCESS  3

static const struct regs_capabilities *const platforms[] = {
	&regs_svm.capabilities, &regs_tdx.capabilities, &regs_snp.capabilities};

static void table_is_complete(void **state)
{
	(void)state;
	for (size_t p = 0; p < ARRAY_SIZE(platforms); p++) {
		for (int name = 0; name < REGS_COUNT; name++) {
			struct regs_entry entry = regs_look_up(platforms[p], (enum regs_name)name);

			assert_non_null(entry.name);
			assert_true(strlen(entry.reason) > 0);
			assert_true(strlen(entry.specification) > 0);
			assert_in_range(entry.home, REGS_LIVE, REGS_PARAVISOR);
		}
	}
}

static enum regs_home home(const struct regs_capabilities *platform, enum regs_name name)
{
	return regs_look_up(platform, name).home;
}

static void debug_registers_are_where_they_are(void **state)
{
	(void)state;
	for (size_t p = 0; p < ARRAY_SIZE(platforms); p++) {
		for (int name = REGS_DR0; name <= REGS_DR3; name++) {
			assert_int_equal(home(platforms[p], (enum regs_name)name), REGS_LIVE);
		}
		assert_int_equal(home(platforms[p], REGS_DR7), REGS_CONTROL_BLOCK);
	}
	assert_int_equal(home(&regs_svm.capabilities, REGS_DR6), REGS_CONTROL_BLOCK);
	assert_int_equal(home(&regs_tdx.capabilities, REGS_DR6), REGS_LIVE);
	assert_int_equal(home(&regs_snp.capabilities, REGS_DR6), REGS_CONTROL_BLOCK);
}

static void capabilities_decide_the_rest(void **state)
{
	(void)state;
	assert_int_equal(home(&regs_svm.capabilities, REGS_GENERAL), REGS_PARAVISOR);
	assert_int_equal(home(&regs_tdx.capabilities, REGS_GENERAL), REGS_CONTROL_BLOCK);
	assert_int_equal(home(&regs_svm.capabilities, REGS_CR2), REGS_CONTROL_BLOCK);
	assert_int_equal(home(&regs_tdx.capabilities, REGS_CR2), REGS_LIVE);
	assert_int_equal(home(&regs_svm.capabilities, REGS_VECTOR), REGS_LIVE);
	assert_int_equal(home(&regs_snp.capabilities, REGS_VECTOR), REGS_CONTROL_BLOCK);
	assert_int_equal(home(&regs_svm.capabilities, REGS_DEBUG_CTL), REGS_PARAVISOR);
	assert_int_equal(home(&regs_tdx.capabilities, REGS_DEBUG_CTL), REGS_CONTROL_BLOCK);
	assert_int_equal(home(&regs_svm.capabilities, REGS_HYPERV), REGS_PARAVISOR);
}

static void gate_counts(void **state)
{
	uint64_t counter[COUNTER_ROOM] = {0};
	struct regs_gate gate;

	(void)state;
	regs_gate_init(&gate, &regs_svm.capabilities, counter);
	assert_int_equal(regs_gate_pass(&gate, REGS_DR0), REGS_LIVE);
	assert_int_equal(regs_gate_pass(&gate, REGS_DR6), REGS_CONTROL_BLOCK);
	assert_int_equal(counter[COUNTER_DEBUG_ACCESSES], 2);
	assert_int_equal(counter[COUNTER_DEBUG_INTERRUPT_EXIT_ACCESSES], 0);
	regs_gate_note_exit(&gate, true);
	assert_int_equal(counter[COUNTER_DEBUG_ACCESSES], 2);
	regs_gate_pass(&gate, REGS_DR7);
	assert_int_equal(counter[COUNTER_DEBUG_ACCESSES], 3);
	assert_int_equal(counter[COUNTER_DEBUG_INTERRUPT_EXIT_ACCESSES], 1);
	regs_gate_note_exit(&gate, false);
	regs_gate_pass(&gate, REGS_DR7);
	assert_int_equal(counter[COUNTER_DEBUG_INTERRUPT_EXIT_ACCESSES], 1);
	assert_int_equal(counter[COUNTER_DEBUG_HYPERVISOR_QUERIES], 0);

	regs_gate_init(&gate, &regs_tdx.capabilities, counter);
	assert_int_equal(regs_gate_pass(&gate, REGS_DR6), REGS_LIVE);
}

static void watching(void **state)
{
	(void)state;
	assert_false(regs_watches(0x400));
	assert_false(regs_watches(ENABLE(0) | ENABLE(3)));
	assert_false(regs_watches(TYPE(1, ON_WRITE))); /* not enabled */
	for (int i = 0; i < 4; i++) {
		assert_true(regs_watches(ENABLE(i) | TYPE(i, ON_WRITE)));
		assert_true(regs_watches(ENABLE(i) >> 1 | TYPE(i, ON_PORT)));
		assert_true(regs_watches(ENABLE(i) | TYPE(i, ON_ACCESS)));
	}
}

static void types_match(void **state)
{
	const uint64_t dr[4] = {0x1000, 0x1000, 0x1000, 0x1000};
	uint64_t dr7 = ENABLE(0) | ENABLE(1) | ENABLE(2) | ENABLE(3) | TYPE(0, ON_EXECUTE) |
		TYPE(1, ON_WRITE) | TYPE(2, ON_PORT) | TYPE(3, ON_ACCESS);

	(void)state;
	assert_int_equal(regs_match(dr, dr7, true, REGS_EXECUTE, 0x1000, 1), 1);
	assert_int_equal(regs_match(dr, dr7, true, REGS_WRITE, 0x1000, 1), 2 | 8);
	assert_int_equal(regs_match(dr, dr7, true, REGS_READ, 0x1000, 1), 8);
	assert_int_equal(regs_match(dr, dr7, true, REGS_PORT, 0x1000, 1), 4);
	assert_int_equal(regs_match(dr, dr7, false, REGS_PORT, 0x1000, 1), 0);
	assert_int_equal(regs_match(dr, dr7 & ~0xffull, true, REGS_WRITE, 0x1000, 1), 0);
	assert_int_equal(regs_data_hits(dr7, 0xf), 2 | 8);
	assert_int_equal(regs_data_hits(dr7 & ~ENABLE(3), 0xf), 2);
	assert_int_equal(regs_data_hits(dr7, 5), 0);
}

/* Against the definition, byte by byte. */
static void lengths_match(void **state)
{
	static const uint64_t bytes[] = {1, 2, 8, 4};

	(void)state;
	for (unsigned int length = 0; length < 4; length++) {
		for (uint64_t at = 0x2000; at < 0x2010; at++) {
			const uint64_t dr[4] = {0, 0, at, 0};
			uint64_t dr7 = ENABLE(2) | TYPE(2, ON_WRITE) | LENGTH(2, length);
			uint64_t first = at & ~(bytes[length] - 1);

			for (uint64_t address = 0x1ff0; address < 0x2020; address++) {
				for (uint32_t size = 1; size <= 8; size *= 2) {
					bool hit = false;

					for (uint64_t byte = address; byte < address + size;
						byte++) {
						hit |= byte >= first &&
							byte < first + bytes[length];
					}
					assert_int_equal(regs_match(dr, dr7, true, REGS_WRITE,
								 address, size),
						hit ? 4 : 0);
				}
			}
		}
	}
}

static void ends_of_memory_match(void **state)
{
	const uint64_t dr[4] = {~0ull, 0, 0, 0};
	uint64_t dr7 = ENABLE(0) | TYPE(0, ON_WRITE) | LENGTH(0, 2) | ENABLE(1) |
		TYPE(1, ON_WRITE) | LENGTH(1, 2);

	(void)state;
	assert_int_equal(regs_match(dr, dr7, true, REGS_WRITE, ~0ull, 1), 1);
	assert_int_equal(regs_match(dr, dr7, true, REGS_WRITE, ~7ull, 8), 1);
	assert_int_equal(regs_match(dr, dr7, true, REGS_WRITE, 0, 1), 2);
	assert_int_equal(regs_match(dr, dr7, true, REGS_WRITE, ~0ull, 4), 3);
	assert_int_equal(regs_match(dr, dr7, true, REGS_WRITE, 0x800, 8), 0);
}

/* --- what must be refused ----------------------------------------------------------------------- */

/* Runs the compiler on a file of tests/unit/refused; true if it is content. What it says: in `said`. */
static bool compiles(const char *name, const char *more, char *said, size_t room)
{
	char command[512];
	FILE *compiler;
	size_t bytes;

	snprintf(command, sizeof(command),
		"LC_ALL=C cc -std=c11 -Wall -Wextra -Werror -Iinclude -I. tests/unit/refused/%s.c "
		"-o /dev/null %s 2>&1",
		name, more);
	compiler = popen(command, "r");
	assert_non_null(compiler);
	bytes = fread(said, 1, room - 1, compiler);
	said[bytes] = '\0';
	while (fgetc(compiler) != EOF) {
	}
	return pclose(compiler) == 0;
}

static void no_way_to_ask_the_host(void **state)
{
	static char said[16384];
	const char *build = getenv("B");
	char library[256];

	(void)state;
	/* A confidential platform: the compiler refuses, and for that very reason. */
	assert_false(compiles("query_confidential", "-c", said, sizeof(said)));
	assert_non_null(strstr(said, "incompatible-pointer-types"));
	/* Any other: it compiles, so the test above failed for its own reason only... */
	assert_true(compiles("query_plain", "-c", said, sizeof(said)));
	/* ... but nothing in Parapet answers. */
	snprintf(library, sizeof(library), "-fsanitize=address,undefined %s/unit/libportable.a",
		build ? build : "build");
	assert_false(compiles("query_plain", library, said, sizeof(said)));
	assert_non_null(strstr(said, "undefined reference to `regs_query_host'"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_is_complete),
		cmocka_unit_test(debug_registers_are_where_they_are),
		cmocka_unit_test(capabilities_decide_the_rest),
		cmocka_unit_test(gate_counts),
		cmocka_unit_test(watching),
		cmocka_unit_test(types_match),
		cmocka_unit_test(lengths_match),
		cmocka_unit_test(ends_of_memory_match),
		cmocka_unit_test(no_way_to_ask_the_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
