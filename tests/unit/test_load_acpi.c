/*
 * boot/load/acpi: a small firmware built by hand, old (RSDT) and new (XSDT), each way in which its
 * tables can be wrong, the root tables that a guest gets, and a hundred thousand damaged firmwares.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "boot/load/acpi.h"
#include "tests/unit/load_arena.h"

#define ARENA_BYTES 0x140000
#define RSDP	    0xf5a20
#define RSDT	    0x100000
#define XSDT	    0x100100
#define FADT	    0x100200
#define MADT	    0x100400
#define MCFG	    0x100500
#define HPET	    0x100600
#define DSDT	    0x100700
#define SSDT	    0x100800
#define TABLES_END  0x100900
#define DESTINATION 0x110000

static void seal(uint8_t *at, uint32_t bytes, uint32_t checksum)
{
	uint8_t sum = 0;

	at[checksum] = 0;
	for (uint32_t i = 0; i < bytes; i++)
		sum += at[i];
	at[checksum] = (uint8_t)-sum;
}

static bool sums_to_zero(const uint8_t *at, uint32_t bytes)
{
	uint8_t sum = 0;

	for (uint32_t i = 0; i < bytes; i++)
		sum += at[i];
	return sum == 0;
}

static void put_table(struct arena *arena, uint32_t at, const char *signature, uint32_t bytes)
{
	memcpy(arena->bytes + at, signature, 4);
	put32(arena->bytes + at + 4, bytes);
	memcpy(arena->bytes + at + 10, "TESTERTABLE   ", 14);
	seal(arena->bytes + at, bytes, 9);
}

static void put_rsdp(struct arena *arena, uint32_t at, bool wide)
{
	uint8_t *rsdp = arena->bytes + at;

	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "TESTER", 6);
	rsdp[15] = wide ? 2 : 0;
	put32(rsdp + 16, RSDT);
	if (wide) {
		put32(rsdp + 20, 36);
		put64(rsdp + 24, XSDT);
	}
	seal(rsdp, 20, 8);
	if (wide)
		seal(rsdp, 36, 32);
}

static void put_gas(uint8_t *at, uint8_t space, uint8_t bits, uint64_t address)
{
	at[0] = space;
	at[1] = bits;
	put64(at + 4, address);
}

static void put_fadt(struct arena *arena)
{
	uint8_t *fadt = arena->bytes + FADT;

	put32(fadt + 36, 0x200000);
	put32(fadt + 40, DSDT);
	put16(fadt + 46, 9);
	put32(fadt + 48, 0xb2);
	fadt[52] = 2;
	fadt[53] = 3;
	put32(fadt + 56, 0x600);
	put32(fadt + 64, 0x604);
	put32(fadt + 76, 0x608);
	put32(fadt + 80, 0x620);
	fadt[88] = 4;
	fadt[89] = 2;
	fadt[91] = 4;
	fadt[92] = 16;
	put16(fadt + 109, 0x2);
	put32(fadt + 112, 1u << 10);
	put_gas(fadt + 116, 1, 8, 0xcf9);
	fadt[128] = 0xf;
	put64(fadt + 140, DSDT);
	put_gas(fadt + 148, 1, 32, 0x1600);
	put_table(arena, FADT, "FACP", 244);
}

static void put_madt(struct arena *arena)
{
	static const uint8_t entries[] = {
		0, 8, 1, 7, 1, 0, 0, 0, /* local APIC 7 */
		1, 12, 3, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0, /* IOAPIC */
		2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0, /* override */
		9, 16, 0, 0, 0x34, 0x12, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, /* x2APIC */
		4, 6, 0xff, 0, 0, 1, /* NMI: of no interest */
		5, 12, 0, 0, 0, 0x10, 0xe0, 0xfe, 1, 0, 0, 0, /* APIC address */
		0x10, 16, 0, 0, 0, 0, 0, 0, 0, 0x30, 0x12, 0, 0, 0, 0, 0, /* mailbox */
	};

	put32(arena->bytes + MADT + 36, 0xfee00000);
	put32(arena->bytes + MADT + 40, 1);
	memcpy(arena->bytes + MADT + 44, entries, sizeof(entries));
	put_table(arena, MADT, "APIC", 44 + sizeof(entries));
}

static void put_firmware(struct arena *arena, bool wide)
{
	static const uint32_t tables[] = {FADT, MADT, MCFG, HPET, SSDT};
	static const uint8_t aml[] = {0x10, 0x20, '_', 'S', '5', '_', 0x08, '\\', '_', 'S', '5',
		'_', 0x12, 0x07, 0x04, 0x0a, 0x05, 0x01, 0x00, 0x00, 0xa3};

	put_rsdp(arena, RSDP, wide);
	for (uint32_t i = 0; i < ARRAY_SIZE(tables); i++) {
		put32(arena->bytes + RSDT + 36 + 4 * i, tables[i]);
		put64(arena->bytes + XSDT + 36 + 8 * i, tables[i]);
	}
	put_table(arena, RSDT, "RSDT", 36 + 4 * ARRAY_SIZE(tables));
	put_table(arena, XSDT, "XSDT", 36 + 8 * ARRAY_SIZE(tables));
	put_fadt(arena);
	put_madt(arena);
	put64(arena->bytes + MCFG + 44, 0xb0000000);
	arena->bytes[MCFG + 54] = 1;
	arena->bytes[MCFG + 55] = 0xff;
	put_table(arena, MCFG, "MCFG", 60);
	put32(arena->bytes + HPET + 36, 0x8086a201);
	put_gas(arena->bytes + HPET + 40, 0, 64, 0xfed00000);
	put16(arena->bytes + HPET + 53, 100);
	put_table(arena, HPET, "HPET", 56);
	memcpy(arena->bytes + DSDT + 36, aml, sizeof(aml));
	put_table(arena, DSDT, "DSDT", 36 + sizeof(aml));
	put_table(arena, SSDT, "SSDT", 36);
}

static struct arena firmware;

static int start(void **state)
{
	(void)state;
	arena_start(&firmware, ARENA_BYTES);
	put_firmware(&firmware, true);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	arena_stop(&firmware);
	return 0;
}

static void open_firmware(struct acpi *acpi)
{
	gpa_t rsdp;

	assert_int_equal(acpi_find_rsdp(&firmware.memory, &rsdp), LOAD_OK);
	assert_int_equal(acpi_open(&firmware.memory, rsdp, acpi), LOAD_OK);
}

static void test_find_rsdp(void **state)
{
	gpa_t rsdp;

	(void)state;
	assert_int_equal(acpi_find_rsdp(&firmware.memory, &rsdp), LOAD_OK);
	assert_int_equal(rsdp.value, RSDP);
	/* The EBDA comes first; one whose checksum is wrong is passed over. */
	put16(firmware.bytes + 0x40e, 0x9fc0);
	put_rsdp(&firmware, 0x9fc00 + 1008, false);
	assert_int_equal(acpi_find_rsdp(&firmware.memory, &rsdp), LOAD_OK);
	assert_int_equal(rsdp.value, RSDP); /* would not end within the first KiB */
	put_rsdp(&firmware, 0x9fc00 + 992, false);
	assert_int_equal(acpi_find_rsdp(&firmware.memory, &rsdp), LOAD_OK);
	assert_int_equal(rsdp.value, 0x9fc00 + 992);
	firmware.bytes[0x9fc00 + 992 + 10] ^= 1;
	assert_int_equal(acpi_find_rsdp(&firmware.memory, &rsdp), LOAD_OK);
	assert_int_equal(rsdp.value, RSDP);
	put16(firmware.bytes + 0x40e, 0xffff);
	assert_int_equal(acpi_find_rsdp(&firmware.memory, &rsdp), LOAD_OK);
	memset(firmware.bytes + RSDP, 0, 36);
	put_rsdp(&firmware, RSDP + 8, true); /* not on a boundary */
	assert_int_equal(acpi_find_rsdp(&firmware.memory, &rsdp), LOAD_ERR_ACPI_NO_RSDP);
	put_rsdp(&firmware, 0x100000 - 32, false);
	assert_int_equal(acpi_find_rsdp(&firmware.memory, &rsdp), LOAD_OK);
	firmware.size = 0x1000;
	assert_int_equal(acpi_find_rsdp(&firmware.memory, &rsdp), LOAD_ERR_ACPI_NO_RSDP);
	firmware.size = ARENA_BYTES;
}

static void test_open(void **state)
{
	struct acpi acpi;

	(void)state;
	open_firmware(&acpi);
	assert_true(acpi.wide);
	assert_int_equal(acpi_count_tables(&acpi), 5);
	assert_int_equal(acpi_get_table_address(&acpi, 1).value, MADT);

	firmware.bytes[XSDT + 20] ^= 1; /* damaged: the old one will do */
	open_firmware(&acpi);
	assert_false(acpi.wide);
	assert_int_equal(acpi_count_tables(&acpi), 5);
	assert_int_equal(acpi_get_table_address(&acpi, 1).value, MADT);
	firmware.bytes[RSDT + 20] ^= 1;
	assert_int_equal(acpi_open(&firmware.memory, GPA(RSDP), &acpi), LOAD_ERR_ACPI_ROOT);
	firmware.bytes[RSDP + 33] ^= 1;
	assert_int_equal(acpi_open(&firmware.memory, GPA(RSDP), &acpi), LOAD_ERR_ACPI_RSDP);
	put32(firmware.bytes + RSDP + 20, 35);
	seal(firmware.bytes + RSDP, 35, 32);
	assert_int_equal(acpi_open(&firmware.memory, GPA(RSDP), &acpi), LOAD_ERR_ACPI_RSDP);
	put32(firmware.bytes + RSDP + 20, 0xffffffff);
	assert_int_equal(acpi_open(&firmware.memory, GPA(RSDP), &acpi), LOAD_ERR_ACPI_RSDP);
	assert_int_equal(acpi_open(&firmware.memory, GPA(RSDP + 1), &acpi), LOAD_ERR_ACPI_RSDP);
	assert_int_equal(acpi_open(&firmware.memory, GPA(~0ull), &acpi), LOAD_ERR_ACPI_RSDP);
}

static void test_find_table(void **state)
{
	struct acpi acpi;
	struct acpi_table table;

	(void)state;
	open_firmware(&acpi);
	assert_int_equal(acpi_find_table(&acpi, "HPET", &table), LOAD_OK);
	assert_int_equal(table.gpa.value, HPET);
	assert_int_equal(table.bytes, 56);
	assert_int_equal(acpi_find_table(&acpi, "SRAT", &table), LOAD_ERR_ACPI_TABLE_MISSING);
	firmware.bytes[HPET + 50] ^= 1;
	assert_int_equal(acpi_find_table(&acpi, "HPET", &table), LOAD_ERR_ACPI_TABLE_CHECKSUM);
	put32(firmware.bytes + HPET + 4, 35);
	assert_int_equal(acpi_find_table(&acpi, "HPET", &table), LOAD_ERR_ACPI_TABLE_LENGTH);
	put32(firmware.bytes + HPET + 4, ACPI_TABLE_BYTES_MAX + 1);
	assert_int_equal(acpi_find_table(&acpi, "HPET", &table), LOAD_ERR_ACPI_TABLE_LENGTH);
	put32(firmware.bytes + HPET + 4, ACPI_TABLE_BYTES_MAX);
	assert_int_equal(
		acpi_read_table(&firmware.memory, GPA(HPET), NULL, &table), LOAD_ERR_MEMORY_ACCESS);
}

static void test_madt(void **state)
{
	static const enum acpi_madt_kind kinds[] = {ACPI_MADT_LOCAL_APIC, ACPI_MADT_IOAPIC,
		ACPI_MADT_OVERRIDE, ACPI_MADT_LOCAL_X2APIC, ACPI_MADT_OTHER,
		ACPI_MADT_LOCAL_APIC_ADDRESS, ACPI_MADT_WAKEUP};
	struct acpi_madt_entry entries[ARRAY_SIZE(kinds)];
	struct acpi_madt_entry extra;
	struct acpi_table table;
	struct acpi acpi;
	uint64_t address;
	uint32_t offset = 0;
	bool more;

	(void)state;
	open_firmware(&acpi);
	assert_int_equal(acpi_find_table(&acpi, "APIC", &table), LOAD_OK);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		assert_int_equal(
			acpi_read_madt_entry(&table, &offset, &entries[i], &more), LOAD_OK);
		assert_true(more);
		assert_int_equal(entries[i].kind, kinds[i]);
	}
	assert_int_equal(acpi_read_madt_entry(&table, &offset, &extra, &more), LOAD_OK);
	assert_false(more);
	assert_int_equal(entries[0].cpu.uid, 1);
	assert_int_equal(entries[0].cpu.apic_id, 7);
	assert_int_equal(entries[0].cpu.flags, ACPI_CPU_ENABLED);
	assert_int_equal(entries[1].ioapic.id, 3);
	assert_int_equal(entries[1].ioapic.address, 0xfec00000);
	assert_int_equal(entries[1].ioapic.gsi_base, 24);
	assert_int_equal(entries[2].override.irq, 9);
	assert_int_equal(entries[2].override.gsi, 9);
	assert_int_equal(entries[2].override.flags, 0xd);
	assert_int_equal(entries[3].cpu.apic_id, 0x1234);
	assert_int_equal(entries[3].cpu.flags, ACPI_CPU_ONLINE_CAPABLE);
	assert_int_equal(entries[3].cpu.uid, 5);
	assert_int_equal(entries[4].type, 4);
	assert_int_equal(entries[6].mailbox, 0x123000);
	assert_int_equal(acpi_read_apic_address(&table, &address), LOAD_OK);
	assert_int_equal(address, 0x1fee01000);
}

/* Entries too short for their type, of no length, over the end; a table cut anywhere. */
static void test_bad_madt(void **state)
{
	struct acpi_table table;
	uint8_t *copy;
	uint64_t address;
	uint32_t bytes = get32(firmware.bytes + MADT + 4);

	(void)state;
	for (uint32_t length = 0; length < 8; length++) {
		copy = arena_copy_exactly(firmware.bytes + MADT, bytes);
		table = (struct acpi_table){GPA(MADT), bytes, copy};
		copy[45] = (uint8_t)length;
		assert_int_equal(
			acpi_read_apic_address(&table, &address), LOAD_ERR_ACPI_TABLE_ENTRY);
		free(copy);
	}
	for (uint32_t cut = 36; cut < bytes; cut++) {
		copy = arena_copy_exactly(firmware.bytes + MADT, cut);
		table = (struct acpi_table){GPA(MADT), cut, copy};
		if (cut < 44)
			assert_int_equal(acpi_read_apic_address(&table, &address),
				LOAD_ERR_ACPI_TABLE_LENGTH);
		else
			acpi_read_apic_address(&table, &address);
		free(copy);
	}
	copy = arena_copy_exactly(firmware.bytes + MADT, bytes - 1);
	table = (struct acpi_table){GPA(MADT), bytes - 1, copy};
	assert_int_equal(acpi_read_apic_address(&table, &address), LOAD_ERR_ACPI_TABLE_ENTRY);
	free(copy);
}

static void test_fadt(void **state)
{
	struct acpi_table table;
	struct acpi_fadt fadt;
	struct acpi acpi;
	uint8_t *copy;

	(void)state;
	open_firmware(&acpi);
	assert_int_equal(acpi_find_table(&acpi, "FACP", &table), LOAD_OK);
	assert_int_equal(acpi_read_fadt(&table, &fadt), LOAD_OK);
	assert_int_equal(fadt.sci, 9);
	assert_int_equal(fadt.smi_cmd, 0xb2);
	assert_int_equal(fadt.acpi_enable, 2);
	assert_int_equal(fadt.acpi_disable, 3);
	assert_int_equal(fadt.facs.value, 0x200000);
	assert_int_equal(fadt.dsdt.value, DSDT);
	assert_int_equal(fadt.pm1a_event.address, 0x1600); /* X_ wins */
	assert_int_equal(fadt.pm1a_control.space, ACPI_SPACE_IO);
	assert_int_equal(fadt.pm1a_control.address, 0x604);
	assert_int_equal(fadt.pm1a_control.bit_width, 16);
	assert_int_equal(fadt.pm1b_control.address, 0);
	assert_int_equal(fadt.pm_timer.address, 0x608);
	assert_int_equal(fadt.gpe0.address, 0x620);
	assert_int_equal(fadt.gpe0.bit_width, 128);
	assert_true(fadt.has_reset);
	assert_int_equal(fadt.reset.address, 0xcf9);
	assert_int_equal(fadt.reset_value, 0xf);
	assert_int_equal(fadt.sleep_control.address, 0);

	for (uint32_t cut = 36; cut <= 244; cut++) {
		copy = arena_copy_exactly(firmware.bytes + FADT, cut);
		table = (struct acpi_table){GPA(FADT), cut, copy};
		assert_int_equal(acpi_read_fadt(&table, &fadt),
			cut < 116 ? LOAD_ERR_ACPI_TABLE_LENGTH : LOAD_OK);
		if (cut >= 116) {
			assert_int_equal(fadt.has_reset, cut >= 129);
			assert_int_equal(fadt.pm1a_event.address, cut >= 160 ? 0x1600 : 0x600);
		}
		free(copy);
	}
}

static void test_mcfg_and_hpet(void **state)
{
	struct acpi_table table;
	struct acpi_ecam ecam;
	struct acpi_hpet hpet;
	struct acpi acpi;

	(void)state;
	open_firmware(&acpi);
	assert_int_equal(acpi_find_table(&acpi, "MCFG", &table), LOAD_OK);
	assert_int_equal(acpi_read_mcfg(&table, 0, &ecam), LOAD_OK);
	assert_int_equal(ecam.base, 0xb0000000);
	assert_int_equal(ecam.first_bus, 1);
	assert_int_equal(ecam.last_bus, 0xff);
	assert_int_equal(acpi_read_mcfg(&table, 1, &ecam), LOAD_ERR_ACPI_TABLE_MISSING);
	firmware.bytes[MCFG + 55] = 0;
	assert_int_equal(acpi_read_mcfg(&table, 0, &ecam), LOAD_ERR_ACPI_TABLE_ENTRY);
	table.bytes = 43;
	assert_int_equal(acpi_read_mcfg(&table, 0, &ecam), LOAD_ERR_ACPI_TABLE_LENGTH);
	assert_int_equal(acpi_find_table(&acpi, "HPET", &table), LOAD_OK);
	assert_int_equal(acpi_read_hpet(&table, &hpet), LOAD_OK);
	assert_int_equal(hpet.address.address, 0xfed00000);
	assert_int_equal(hpet.id, 0x8086a201);
	assert_int_equal(hpet.minimum_tick, 100);
	table.bytes = 55;
	assert_int_equal(acpi_read_hpet(&table, &hpet), LOAD_ERR_ACPI_TABLE_LENGTH);
}

static enum load_error read_aml(const uint8_t *aml, uint32_t bytes, struct acpi_sleep *sleep)
{
	uint8_t *copy = calloc(1, 36 + bytes);
	struct acpi_table table = {GPA(0), 36 + bytes, copy};
	enum load_error error;

	memcpy(copy + 36, aml, bytes);
	error = acpi_read_s5(&table, sleep);
	free(copy);
	return error;
}

static void test_s5(void **state)
{
	static const uint8_t plain[] = {8, '_', 'S', '5', '_', 0x12, 6, 4, 0x0a, 7, 0, 0, 0};
	static const uint8_t words[] = {
		8, '_', 'S', '5', '_', 0x12, 0x4b, 0, 2, 0x0b, 3, 0, 0x0c, 6, 0, 0, 0};
	static const uint8_t wide[] = {8, '_', 'S', '5', '_', 0x12, 6, 4, 0x0a, 8, 0, 0, 0};
	static const uint8_t single[] = {8, '_', 'S', '5', '_', 0x12, 3, 1, 0};
	struct acpi_sleep sleep;
	struct acpi acpi;

	(void)state;
	open_firmware(&acpi);
	assert_int_equal(acpi_find_s5(&acpi, &sleep), LOAD_OK);
	assert_int_equal(sleep.type_a, 5);
	assert_int_equal(sleep.type_b, 1);
	assert_int_equal(read_aml(plain, sizeof(plain), &sleep), LOAD_OK);
	assert_int_equal(sleep.type_a, 7);
	assert_int_equal(sleep.type_b, 0);
	assert_int_equal(read_aml(words, sizeof(words), &sleep), LOAD_OK);
	assert_int_equal(sleep.type_a, 3);
	assert_int_equal(sleep.type_b, 6);
	assert_int_equal(read_aml(wide, sizeof(wide), &sleep), LOAD_ERR_ACPI_NO_S5);
	assert_int_equal(read_aml(single, sizeof(single), &sleep), LOAD_ERR_ACPI_NO_S5);
	for (uint32_t cut = 0; cut < 12; cut++)
		assert_int_equal(read_aml(plain, cut, &sleep), LOAD_ERR_ACPI_NO_S5);
	for (uint32_t cut = 0; cut < sizeof(words); cut++)
		assert_int_equal(read_aml(words, cut, &sleep), LOAD_ERR_ACPI_NO_S5);

	/* Not in the DSDT, but in an SSDT. */
	memset(firmware.bytes + DSDT + 36, 0, 21);
	put_table(&firmware, DSDT, "DSDT", 36 + 21);
	assert_int_equal(acpi_find_s5(&acpi, &sleep), LOAD_ERR_ACPI_NO_S5);
	memcpy(firmware.bytes + SSDT + 36, plain, sizeof(plain));
	put_table(&firmware, SSDT, "SSDT", 36 + sizeof(plain));
	assert_int_equal(acpi_find_s5(&acpi, &sleep), LOAD_OK);
	assert_int_equal(sleep.type_a, 7);
}

static void check_replaced(bool wide, const char *signature, uint32_t index, uint32_t count)
{
	struct acpi acpi;
	struct acpi copy;
	size_t used;
	gpa_t rsdp;

	put_table(&firmware, 0x120000, signature, 40);
	memset(firmware.bytes + DESTINATION, 0xcc, PAGE_SIZE);
	arena_close(&firmware);
	assert_int_equal(acpi_open(&firmware.memory, GPA(RSDP), &acpi), LOAD_OK);
	assert_int_equal(acpi_replace_table(&acpi, signature, GPA(0x120000), GPA(DESTINATION),
				 PAGE_SIZE, &rsdp, &used),
		LOAD_OK);
	arena_open(&firmware);
	assert_int_equal(rsdp.value, DESTINATION);
	assert_true(used < PAGE_SIZE);
	assert_int_equal(firmware.bytes[DESTINATION + used], 0xcc);
	assert_int_equal(acpi_open(&firmware.memory, rsdp, &copy), LOAD_OK);
	assert_int_equal(copy.wide, wide);
	assert_true(sums_to_zero(firmware.bytes + DESTINATION, 20));
	assert_int_equal(copy.rsdt.gpa.value >> 12, DESTINATION >> 12);
	assert_true(sums_to_zero(copy.rsdt.data, copy.rsdt.bytes));
	assert_int_equal(get32(copy.rsdt.data + 36 + 4 * index), 0x120000);
	assert_int_equal(acpi_count_tables(&copy), count);
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(acpi_get_table_address(&copy, i).value,
			i == index ? 0x120000 : acpi_get_table_address(&acpi, i).value);
	/* Too small by a byte, or not aligned: nothing is written. */
	memset(firmware.bytes + DESTINATION, 0xcc, PAGE_SIZE);
	assert_int_equal(acpi_replace_table(&acpi, signature, GPA(0x120000), GPA(DESTINATION),
				 used - 1, &rsdp, &used),
		LOAD_ERR_ACPI_BUFFER);
	assert_int_equal(acpi_replace_table(&acpi, signature, GPA(0x120000), GPA(DESTINATION + 8),
				 PAGE_SIZE, &rsdp, &used),
		LOAD_ERR_ACPI_BUFFER);
	assert_int_equal(acpi_replace_table(&acpi, signature, GPA(1ull << 32), GPA(DESTINATION),
				 PAGE_SIZE, &rsdp, &used),
		LOAD_ERR_ACPI_ABOVE_4G);
	assert_int_equal(acpi_replace_table(&acpi, signature, GPA(0x120000), GPA(0xfffffff0),
				 PAGE_SIZE, &rsdp, &used),
		LOAD_ERR_ACPI_ABOVE_4G);
	assert_int_equal(acpi_replace_table(&acpi, signature, GPA(0x120000), GPA(0xf0000000),
				 PAGE_SIZE, &rsdp, &used),
		LOAD_ERR_MEMORY_ACCESS);
	for (uint32_t i = 0; i < PAGE_SIZE; i++)
		assert_int_equal(firmware.bytes[DESTINATION + i], 0xcc);
}

static void test_replace_table(void **state)
{
	(void)state;
	check_replaced(true, "APIC", 1, 5);
	check_replaced(true, "SRAT", 5, 6);
	memset(firmware.bytes + RSDP, 0, 36);
	put_rsdp(&firmware, RSDP, false);
	check_replaced(false, "APIC", 1, 5);
	check_replaced(false, "SRAT", 5, 6);
}

/* An XSDT alone may point above 4 GiB. */
static void test_replace_without_rsdt(void **state)
{
	struct acpi acpi;
	size_t used;
	gpa_t rsdp;

	(void)state;
	put32(firmware.bytes + RSDP + 16, 0);
	seal(firmware.bytes + RSDP, 20, 8);
	seal(firmware.bytes + RSDP, 36, 32);
	open_firmware(&acpi);
	assert_int_equal(acpi_replace_table(&acpi, "APIC", GPA(1ull << 40), GPA(DESTINATION),
				 PAGE_SIZE, &rsdp, &used),
		LOAD_OK);
	assert_int_equal(get32(firmware.bytes + DESTINATION + 16), 0);
	assert_int_equal(acpi_open(&firmware.memory, rsdp, &acpi), LOAD_OK);
	assert_int_equal(acpi_get_table_address(&acpi, 1).value, 1ull << 40);
}

/*
 * The largest root tables that acpi_open accepts still fit into the page that the header promises.
 */
static void test_a_page_is_enough(void **state)
{
	struct acpi acpi;
	size_t used;
	gpa_t rsdp;

	(void)state;
	put64(firmware.bytes + RSDP + 24, 0x130000);
	put32(firmware.bytes + RSDP + 16, 0x131000);
	seal(firmware.bytes + RSDP, 20, 8);
	seal(firmware.bytes + RSDP, 36, 32);
	put_table(&firmware, 0x130000, "XSDT", 36 + 8 * ACPI_TABLES_MAX);
	put_table(&firmware, 0x131000, "RSDT", 36 + 4 * ACPI_TABLES_MAX);
	open_firmware(&acpi);
	assert_int_equal(acpi_count_tables(&acpi), ACPI_TABLES_MAX);
	assert_int_equal(acpi_replace_table(&acpi, "APIC", GPA(0x120000), GPA(DESTINATION),
				 PAGE_SIZE, &rsdp, &used),
		LOAD_OK);
	put_table(&firmware, 0x130000, "XSDT", 36 + 8 * ACPI_TABLES_MAX + 8);
	put_table(&firmware, 0x131000, "RSDT", 36 + 4 * ACPI_TABLES_MAX + 4);
	assert_int_equal(acpi_open(&firmware.memory, GPA(RSDP), &acpi), LOAD_ERR_ACPI_ROOT);
}

/* Everything that a hypervisor asks, of firmware that may be damaged anywhere. */
static void ask_everything(void)
{
	struct acpi acpi;
	struct acpi_table table;
	struct acpi_fadt fadt;
	struct acpi_sleep sleep;
	struct acpi_ecam ecam;
	struct acpi_hpet hpet;
	uint64_t address;
	size_t used;
	gpa_t rsdp;

	if (acpi_open(&firmware.memory, GPA(RSDP), &acpi))
		return;
	if (acpi_find_table(&acpi, "APIC", &table) == LOAD_OK)
		acpi_read_apic_address(&table, &address);
	if (acpi_find_table(&acpi, "FACP", &table) == LOAD_OK)
		acpi_read_fadt(&table, &fadt);
	if (acpi_find_table(&acpi, "MCFG", &table) == LOAD_OK)
		acpi_read_mcfg(&table, 0, &ecam);
	if (acpi_find_table(&acpi, "HPET", &table) == LOAD_OK)
		acpi_read_hpet(&table, &hpet);
	acpi_find_s5(&acpi, &sleep);
	acpi_replace_table(&acpi, "APIC", GPA(0x120000), GPA(DESTINATION), PAGE_SIZE, &rsdp, &used);
}

static void test_mutated_firmware(void **state)
{
	static const uint32_t tables[] = {RSDT, XSDT, FADT, MADT, MCFG, HPET, DSDT, SSDT};
	uint8_t *good = arena_copy_exactly(firmware.bytes + RSDT, TABLES_END - RSDT);
	uint64_t random = 7;

	(void)state;
	for (uint32_t round = 0; round < 100000; round++) {
		uint32_t at = tables[next_random(&random) % ARRAY_SIZE(tables)];
		uint32_t bytes = get32(good + (at - RSDT) + 4);

		arena_open(&firmware);
		memcpy(firmware.bytes + RSDT, good, TABLES_END - RSDT);
		mutate_bytes(firmware.bytes + at + 4, bytes - 4, &random);
		bytes = get32(firmware.bytes + at + 4);
		if (bytes >= 36 && bytes < 0x10000)
			seal(firmware.bytes + at, bytes, 9); /* get past the checksum */
		arena_close(&firmware);
		ask_everything();
	}
	free(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_find_rsdp, start, stop),
		cmocka_unit_test_setup_teardown(test_open, start, stop),
		cmocka_unit_test_setup_teardown(test_find_table, start, stop),
		cmocka_unit_test_setup_teardown(test_madt, start, stop),
		cmocka_unit_test_setup_teardown(test_bad_madt, start, stop),
		cmocka_unit_test_setup_teardown(test_fadt, start, stop),
		cmocka_unit_test_setup_teardown(test_mcfg_and_hpet, start, stop),
		cmocka_unit_test_setup_teardown(test_s5, start, stop),
		cmocka_unit_test_setup_teardown(test_replace_table, start, stop),
		cmocka_unit_test_setup_teardown(test_replace_without_rsdt, start, stop),
		cmocka_unit_test_setup_teardown(test_a_page_is_enough, start, stop),
		cmocka_unit_test_setup_teardown(test_mutated_firmware, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
