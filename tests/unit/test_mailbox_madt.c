/* The MADT with a wakeup structure: right when the input is, refused when it is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mailbox/madt.h"

/* As QEMU's q35 makes one for two processors: two local APICs, IOAPIC, an override, an NMI. */
static const uint8_t body[] = {0, 8, 0, 0, 1, 0, 0, 0, 0, 8, 1, 1, 1, 0, 0, 0, 1, 12, 0, 0, 0, 0,
	0xc0, 0xfe, 0, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 4, 6, 0xff, 0, 0, 1};
#define MADT_BYTES (44 + sizeof(body))

static void checksum_fix(uint8_t *table, size_t bytes)
{
	uint8_t sum = 0;

	table[9] = 0;
	for (size_t i = 0; i < bytes; i++)
		sum += table[i];
	table[9] = (uint8_t)-sum;
}

/* Allocated to its length, so that the sanitizer sees every byte too far. */
static uint8_t *madt_make(void)
{
	uint8_t *table = calloc(1, MADT_BYTES);

	assert_non_null(table);
	memcpy(table, "APIC", 4);
	table[4] = MADT_BYTES;
	table[8] = 3;
	memcpy(table + 10, "BOCHS BXPC    ", 14);
	table[36] = 0;
	table[38] = 0xe0;
	table[39] = 0xfe;
	table[40] = 1;
	memcpy(table + 44, body, sizeof(body));
	checksum_fix(table, MADT_BYTES);
	return table;
}

static void test_structure_is_added(void **state)
{
	(void)state;
	uint8_t *table = madt_make();
	uint8_t *out = malloc(MADT_BYTES + MADT_WAKEUP_BYTES);
	uint8_t sum = 0;
	size_t bytes;
	static const uint8_t entry[] = {0x10, 24, 1, 0, 0, 0, 0, 0, 0, 0x80, 9, 0, 0, 0, 0, 0, 0x40,
		0x70, 9, 0x56, 0x34, 0x12, 0, 0};

	assert_non_null(out);
	assert_int_equal(madt_add_wakeup(table, MADT_BYTES, GPA(0x98000), GPA(0x123456097040), out,
				 MADT_BYTES + MADT_WAKEUP_BYTES, &bytes),
		MADT_OK);
	assert_int_equal(bytes, MADT_BYTES + 24);
	for (size_t i = 0; i < bytes; i++)
		sum += out[i];
	assert_int_equal(sum, 0);
	assert_int_equal(out[4] | out[5] << 8, bytes);
	assert_memory_equal(out + 10, table + 10, MADT_BYTES - 10);
	assert_int_equal(out[8], table[8]);
	assert_memory_equal(out + MADT_BYTES, entry, sizeof(entry));

	/* What came out is a good MADT, but one with a mailbox. */
	assert_int_equal(
		madt_add_wakeup(out, bytes, GPA(0x98000), GPA(0x97000), table, MADT_BYTES, &bytes),
		MADT_HAS_WAKEUP);
	assert_int_equal(bytes, 0);
	free(out);
	free(table);
}

static void test_bad_tables(void **state)
{
	(void)state;
	uint8_t out[512];
	size_t bytes;

#define REFUSED(change, given, want)                                                               \
	do {                                                                                       \
		uint8_t *table = madt_make();                                                      \
		change;                                                                            \
		assert_int_equal(madt_add_wakeup(table, given, GPA(0x98000), GPA(0x97000), out,    \
					 sizeof(out), &bytes),                                     \
			want);                                                                     \
		free(table);                                                                       \
	} while (0)

	REFUSED((void)0, 43, MADT_NOT_MADT);
	REFUSED(table[0] = 'X', MADT_BYTES, MADT_NOT_MADT);
	REFUSED((void)0, MADT_BYTES - 1, MADT_BAD_LENGTH);
	REFUSED(table[4] = 43, MADT_BYTES, MADT_BAD_LENGTH);
	REFUSED(memset(table + 4, 0xff, 4), MADT_BYTES, MADT_BAD_LENGTH);
	REFUSED(table[50]++, MADT_BYTES, MADT_BAD_CHECKSUM);
	REFUSED((table[45] = 0, checksum_fix(table, MADT_BYTES)), MADT_BYTES, MADT_BAD_LENGTH);
	REFUSED((table[45] = 1, checksum_fix(table, MADT_BYTES)), MADT_BYTES, MADT_BAD_LENGTH);
	REFUSED((table[MADT_BYTES - 5] = 7, checksum_fix(table, MADT_BYTES)), MADT_BYTES,
		MADT_BAD_LENGTH);
	/* The last entry is one byte: a type without a length. */
	REFUSED((table[4] = MADT_BYTES - 5, checksum_fix(table, MADT_BYTES - 5)), MADT_BYTES,
		MADT_BAD_LENGTH);

	uint8_t *table = madt_make();
	assert_int_equal(madt_add_wakeup(table, MADT_BYTES, GPA(0x98010), GPA(0x97000), out,
				 sizeof(out), &bytes),
		MADT_BAD_ADDRESS);
	assert_int_equal(
		madt_add_wakeup(table, MADT_BYTES, GPA(0x98000), GPA(0), out, sizeof(out), &bytes),
		MADT_BAD_ADDRESS);
	assert_int_equal(madt_add_wakeup(table, MADT_BYTES, GPA(0x98000), GPA(0x97000), out,
				 MADT_BYTES + 23, &bytes),
		MADT_NO_ROOM);
	for (unsigned int i = 0; i <= MADT_NO_ROOM + 1; i++)
		assert_non_null(madt_error_text(i));
	free(table);
}

static void test_mutations(void **state)
{
	(void)state;
	uint8_t out[512];
	size_t bytes;
	uint32_t random = 99;
	unsigned int good = 0;

	for (int round = 0; round < 100000; round++) {
		uint8_t *table = madt_make();

		for (int i = 0; i < 3; i++) {
			random = random * 1664525 + 1013904223;
			table[(random >> 8) % MADT_BYTES] = (uint8_t)(random >> 24);
		}
		if (table[4] <= MADT_BYTES && table[4] >= 44 && table[5] == 0)
			checksum_fix(table, table[4]);
		good += madt_add_wakeup(table, MADT_BYTES, GPA(0x98000), GPA(0x97000), out,
				sizeof(out), &bytes) == MADT_OK;
		free(table);
	}
	assert_true(good > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_structure_is_added),
		cmocka_unit_test(test_bad_tables),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
