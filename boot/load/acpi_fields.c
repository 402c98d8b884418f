/*
 * What is in a table: the fields of MADT, FADT, MCFG and HPET, and the sleep types from the AML.
 * How a table is found is the business of acpi.c.
 */
#include "boot/load/acpi.h"
#include "boot/load/acpi_bytes.h"

#define GAS_BYTES 12

/* ACPI 6.4, 5.2.12: offsets in the MADT, entry types and their lengths. */
#define MADT_APIC_ADDRESS 36
#define MADT_ENTRIES	  44

enum madt_type {
	MADT_TYPE_LOCAL_APIC = 0,
	MADT_TYPE_IOAPIC = 1,
	MADT_TYPE_OVERRIDE = 2,
	MADT_TYPE_LOCAL_APIC_ADDRESS = 5,
	MADT_TYPE_LOCAL_X2APIC = 9,
	MADT_TYPE_WAKEUP = 0x10,
};

/* ACPI 6.4, 5.2.9: offsets in the FADT. */
enum fadt_offset {
	FADT_FACS = 36,
	FADT_DSDT = 40,
	FADT_SCI = 46,
	FADT_SMI_CMD = 48,
	FADT_ACPI_ENABLE = 52,
	FADT_ACPI_DISABLE = 53,
	FADT_PM1A_EVENT = 56,
	FADT_PM1B_EVENT = 60,
	FADT_PM1A_CONTROL = 64,
	FADT_PM1B_CONTROL = 68,
	FADT_PM2_CONTROL = 72,
	FADT_PM_TIMER = 76,
	FADT_GPE0 = 80,
	FADT_GPE1 = 84,
	FADT_PM1_EVENT_LENGTH = 88,
	FADT_PM1_CONTROL_LENGTH = 89,
	FADT_PM2_CONTROL_LENGTH = 90,
	FADT_PM_TIMER_LENGTH = 91,
	FADT_GPE0_LENGTH = 92,
	FADT_GPE1_LENGTH = 93,
	FADT_BOOT_FLAGS = 109,
	FADT_FLAGS = 112,
	FADT_END_1 = 116, /* of ACPI 1.0's table */
	FADT_RESET = 116,
	FADT_RESET_VALUE = 128,
	FADT_X_FACS = 132,
	FADT_X_DSDT = 140,
	FADT_X_PM1A_EVENT = 148,
	FADT_X_PM1B_EVENT = 160,
	FADT_X_PM1A_CONTROL = 172,
	FADT_X_PM1B_CONTROL = 184,
	FADT_X_PM2_CONTROL = 196,
	FADT_X_PM_TIMER = 208,
	FADT_X_GPE0 = 220,
	FADT_X_GPE1 = 232,
	FADT_SLEEP_CONTROL = 244,
	FADT_SLEEP_STATUS = 256,
};

#define FADT_FLAG_RESET (1u << 10)

#define MCFG_ENTRIES	 44
#define MCFG_ENTRY_BYTES 16

#define HPET_ID		  36
#define HPET_ADDRESS	  40
#define HPET_MINIMUM_TICK 53
#define HPET_BYTES	  56

/* ACPI 6.4, 20.2. */
#define AML_ZERO    0x00
#define AML_ONE	    0x01
#define AML_NAME    0x08
#define AML_BYTE    0x0a
#define AML_WORD    0x0b
#define AML_DWORD   0x0c
#define AML_PACKAGE 0x12
#define AML_ROOT    '\\'

#define SLEEP_TYPE_MAX 7 /* three bits in PM1_CNT */

/* Is [offset, offset + bytes) in the table? */
static bool table_holds(const struct acpi_table *table, uint32_t offset, uint32_t bytes)
{
	return offset <= table->bytes && table->bytes - offset >= bytes;
}

/* A register in the general form; all zero if the table is too short for it. */
static struct acpi_address read_address(const struct acpi_table *table, uint32_t offset)
{
	const uint8_t *at = table->data + offset;

	if (!table_holds(table, offset, GAS_BYTES))
		return (struct acpi_address){.address = 0};
	return (struct acpi_address){
		.space = at[0],
		.bit_width = at[1],
		.bit_offset = at[2],
		.access_size = at[3],
		.address = acpi_get64(at + 4),
	};
}

/* How long an entry of a type that is known must be at least; 2, its header, for others. */
static uint8_t madt_entry_minimum(uint8_t type)
{
	switch (type) {
	case MADT_TYPE_LOCAL_APIC:
		return 8;
	case MADT_TYPE_IOAPIC:
	case MADT_TYPE_LOCAL_APIC_ADDRESS:
		return 12;
	case MADT_TYPE_OVERRIDE:
		return 10;
	case MADT_TYPE_LOCAL_X2APIC:
	case MADT_TYPE_WAKEUP:
		return 16;
	default:
		return 2;
	}
}

/*
 * Fills the part of the entry that depends on its type; `at` has as many bytes as the type needs.
 */
static void read_madt_fields(const uint8_t *at, struct acpi_madt_entry *entry)
{
	switch (entry->type) {
	case MADT_TYPE_LOCAL_APIC:
		entry->kind = ACPI_MADT_LOCAL_APIC;
		entry->cpu.uid = at[2];
		entry->cpu.apic_id = at[3];
		entry->cpu.flags = acpi_get32(at + 4);
		break;
	case MADT_TYPE_IOAPIC:
		entry->kind = ACPI_MADT_IOAPIC;
		entry->ioapic.id = at[2];
		entry->ioapic.address = acpi_get32(at + 4);
		entry->ioapic.gsi_base = acpi_get32(at + 8);
		break;
	case MADT_TYPE_OVERRIDE:
		entry->kind = ACPI_MADT_OVERRIDE;
		entry->override.bus = at[2];
		entry->override.irq = at[3];
		entry->override.gsi = acpi_get32(at + 4);
		entry->override.flags = acpi_get16(at + 8);
		break;
	case MADT_TYPE_LOCAL_APIC_ADDRESS:
		entry->kind = ACPI_MADT_LOCAL_APIC_ADDRESS;
		entry->apic_address = acpi_get64(at + 4);
		break;
	case MADT_TYPE_LOCAL_X2APIC:
		entry->kind = ACPI_MADT_LOCAL_X2APIC;
		entry->cpu.apic_id = acpi_get32(at + 4);
		entry->cpu.flags = acpi_get32(at + 8);
		entry->cpu.uid = acpi_get32(at + 12);
		break;
	case MADT_TYPE_WAKEUP:
		entry->kind = ACPI_MADT_WAKEUP;
		entry->mailbox = acpi_get64(at + 8);
		break;
	default:
		entry->kind = ACPI_MADT_OTHER;
		break;
	}
}

enum load_error acpi_read_madt_entry(
	const struct acpi_table *madt, uint32_t *offset, struct acpi_madt_entry *entry, bool *more)
{
	uint32_t at = *offset < MADT_ENTRIES ? MADT_ENTRIES : *offset;
	uint8_t type;
	uint8_t bytes;

	*more = false;
	if (at >= madt->bytes)
		return at == madt->bytes ? LOAD_OK : LOAD_ERR_ACPI_TABLE_LENGTH;
	if (!table_holds(madt, at, 2))
		return LOAD_ERR_ACPI_TABLE_ENTRY;
	type = madt->data[at];
	bytes = madt->data[at + 1];
	if (bytes < madt_entry_minimum(type) || !table_holds(madt, at, bytes))
		return LOAD_ERR_ACPI_TABLE_ENTRY;
	memset(entry, 0, sizeof(*entry));
	entry->type = type;
	entry->bytes = bytes;
	entry->offset = at;
	read_madt_fields(madt->data + at, entry);
	*offset = at + bytes;
	*more = true;
	return LOAD_OK;
}

enum load_error acpi_read_apic_address(const struct acpi_table *madt, uint64_t *address)
{
	struct acpi_madt_entry entry;
	uint32_t offset = 0;
	bool more;

	if (!table_holds(madt, 0, MADT_ENTRIES))
		return LOAD_ERR_ACPI_TABLE_LENGTH;
	*address = acpi_get32(madt->data + MADT_APIC_ADDRESS);
	for (;;) {
		enum load_error error = acpi_read_madt_entry(madt, &offset, &entry, &more);

		if (error || !more)
			return error;
		if (entry.kind == ACPI_MADT_LOCAL_APIC_ADDRESS)
			*address = entry.apic_address;
	}
}

/* A register block: the 64-bit form if it is there, else the I/O port at `old`, `bytes` long. */
static struct acpi_address read_block(
	const struct acpi_table *table, uint32_t old, uint32_t length, uint32_t extended)
{
	struct acpi_address block = read_address(table, extended);
	uint32_t port = acpi_get32(table->data + old);
	uint32_t bits = table->data[length] * 8u;

	if (block.address != 0 || port == 0)
		return block;
	return (struct acpi_address){
		.space = ACPI_SPACE_IO,
		.bit_width = bits > UINT8_MAX ? UINT8_MAX : (uint8_t)bits,
		.address = port,
	};
}

/* A pointer to a table: the 64-bit form if it is there. */
static gpa_t read_pointer(const struct acpi_table *table, uint32_t old, uint32_t extended)
{
	uint64_t wide = table_holds(table, extended, 8) ? acpi_get64(table->data + extended) : 0;

	return GPA(wide ? wide : acpi_get32(table->data + old));
}

enum load_error acpi_read_fadt(const struct acpi_table *table, struct acpi_fadt *fadt)
{
	const uint8_t *data = table->data;

	if (!table_holds(table, 0, FADT_END_1))
		return LOAD_ERR_ACPI_TABLE_LENGTH;
	*fadt = (struct acpi_fadt){
		.flags = acpi_get32(data + FADT_FLAGS),
		.sci = acpi_get16(data + FADT_SCI),
		.smi_cmd = acpi_get32(data + FADT_SMI_CMD),
		.acpi_enable = data[FADT_ACPI_ENABLE],
		.acpi_disable = data[FADT_ACPI_DISABLE],
		.boot_flags = acpi_get16(data + FADT_BOOT_FLAGS),
		.facs = read_pointer(table, FADT_FACS, FADT_X_FACS),
		.dsdt = read_pointer(table, FADT_DSDT, FADT_X_DSDT),
		.pm1a_event = read_block(
			table, FADT_PM1A_EVENT, FADT_PM1_EVENT_LENGTH, FADT_X_PM1A_EVENT),
		.pm1b_event = read_block(
			table, FADT_PM1B_EVENT, FADT_PM1_EVENT_LENGTH, FADT_X_PM1B_EVENT),
		.pm1a_control = read_block(
			table, FADT_PM1A_CONTROL, FADT_PM1_CONTROL_LENGTH, FADT_X_PM1A_CONTROL),
		.pm1b_control = read_block(
			table, FADT_PM1B_CONTROL, FADT_PM1_CONTROL_LENGTH, FADT_X_PM1B_CONTROL),
		.pm2_control = read_block(
			table, FADT_PM2_CONTROL, FADT_PM2_CONTROL_LENGTH, FADT_X_PM2_CONTROL),
		.pm_timer = read_block(table, FADT_PM_TIMER, FADT_PM_TIMER_LENGTH, FADT_X_PM_TIMER),
		.gpe0 = read_block(table, FADT_GPE0, FADT_GPE0_LENGTH, FADT_X_GPE0),
		.gpe1 = read_block(table, FADT_GPE1, FADT_GPE1_LENGTH, FADT_X_GPE1),
		.sleep_control = read_address(table, FADT_SLEEP_CONTROL),
		.sleep_status = read_address(table, FADT_SLEEP_STATUS),
	};
	if ((fadt->flags & FADT_FLAG_RESET) && table_holds(table, 0, FADT_RESET_VALUE + 1)) {
		fadt->reset = read_address(table, FADT_RESET);
		fadt->reset_value = data[FADT_RESET_VALUE];
		fadt->has_reset = true;
	}
	return LOAD_OK;
}

enum load_error acpi_read_mcfg(
	const struct acpi_table *table, uint32_t index, struct acpi_ecam *ecam)
{
	const uint8_t *at;

	if (!table_holds(table, 0, MCFG_ENTRIES))
		return LOAD_ERR_ACPI_TABLE_LENGTH;
	if (index >= (table->bytes - MCFG_ENTRIES) / MCFG_ENTRY_BYTES)
		return LOAD_ERR_ACPI_TABLE_MISSING;
	at = table->data + MCFG_ENTRIES + index * MCFG_ENTRY_BYTES;
	*ecam = (struct acpi_ecam){
		.base = acpi_get64(at),
		.segment = acpi_get16(at + 8),
		.first_bus = at[10],
		.last_bus = at[11],
	};
	return ecam->first_bus <= ecam->last_bus ? LOAD_OK : LOAD_ERR_ACPI_TABLE_ENTRY;
}

enum load_error acpi_read_hpet(const struct acpi_table *table, struct acpi_hpet *hpet)
{
	if (!table_holds(table, 0, HPET_BYTES))
		return LOAD_ERR_ACPI_TABLE_LENGTH;
	*hpet = (struct acpi_hpet){
		.address = read_address(table, HPET_ADDRESS),
		.id = acpi_get32(table->data + HPET_ID),
		.minimum_tick = acpi_get16(table->data + HPET_MINIMUM_TICK),
	};
	return LOAD_OK;
}

/*
 * An AML package's length at `at` (20.2.4): its end in *end, and where its contents start. 0:
 * damaged.
 */
static uint32_t read_package_length(const struct acpi_table *table, uint32_t at, uint32_t *end)
{
	uint32_t more;
	uint32_t length;

	if (!table_holds(table, at, 1))
		return 0;
	more = table->data[at] >> 6;
	if (!table_holds(table, at, 1 + more))
		return 0;
	length = more ? table->data[at] & 0x0f : table->data[at];
	for (uint32_t i = 0; i < more; i++)
		length |= (uint32_t)table->data[at + 1 + i] << (4 + 8 * i);
	if (length <= more || !table_holds(table, at, length))
		return 0;
	*end = at + length;
	return at + 1 + more;
}

/* An AML integer below `end`; moves *at past it. False if it is something else, or too wide. */
static bool read_sleep_type(
	const struct acpi_table *table, uint32_t *at, uint32_t end, uint8_t *type)
{
	uint32_t left = end - *at;
	const uint8_t *code = table->data + *at;
	uint32_t value;
	uint32_t used;

	if (left == 0)
		return false;
	if (code[0] == AML_ZERO || code[0] == AML_ONE) {
		value = code[0];
		used = 1;
	} else if (code[0] == AML_BYTE && left >= 2) {
		value = code[1];
		used = 2;
	} else if (code[0] == AML_WORD && left >= 3) {
		value = acpi_get16(code + 1);
		used = 3;
	} else if (code[0] == AML_DWORD && left >= 5) {
		value = acpi_get32(code + 1);
		used = 5;
	} else {
		return false;
	}
	if (value > SLEEP_TYPE_MAX)
		return false;
	*type = (uint8_t)value;
	*at += used;
	return true;
}

/* Is there Name (_S5, Package {a, b, ...}) whose four letters stand at `at`? */
static bool read_s5_at(const struct acpi_table *table, uint32_t at, struct acpi_sleep *sleep)
{
	const uint8_t *code = table->data;
	uint32_t before = at - 1;
	uint32_t end;

	/* The caller starts behind the header, so there are bytes before it. */
	if (code[before] == AML_ROOT)
		before--;
	if (code[before] != AML_NAME)
		return false;
	at += 4;
	if (!table_holds(table, at, 1) || code[at] != AML_PACKAGE)
		return false;
	at = read_package_length(table, at + 1, &end);
	if (at == 0 || at >= end || code[at] < 2)
		return false;
	at++;
	return read_sleep_type(table, &at, end, &sleep->type_a) &&
		read_sleep_type(table, &at, end, &sleep->type_b);
}

enum load_error acpi_read_s5(const struct acpi_table *table, struct acpi_sleep *sleep)
{
	for (uint32_t at = ACPI_HEADER_BYTES + 1; table_holds(table, at, 4); at++) {
		struct acpi_sleep found;

		if (memcmp(table->data + at, "_S5_", 4) == 0 && read_s5_at(table, at, &found)) {
			*sleep = found;
			return LOAD_OK;
		}
	}
	return LOAD_ERR_ACPI_NO_S5;
}

enum load_error acpi_find_s5(const struct acpi *acpi, struct acpi_sleep *sleep)
{
	struct acpi_table table;
	struct acpi_fadt fadt;
	enum load_error error = acpi_find_table(acpi, "FACP", &table);

	if (!error)
		error = acpi_read_fadt(&table, &fadt);
	if (error)
		return error;
	error = acpi_read_table(acpi->memory, fadt.dsdt, "DSDT", &table);
	if (!error)
		error = acpi_read_s5(&table, sleep);
	for (uint32_t i = 0; error && i < acpi_count_tables(acpi); i++) {
		if (acpi_read_table(acpi->memory, acpi_get_table_address(acpi, i), "SSDT",
			    &table) == LOAD_OK &&
			acpi_read_s5(&table, sleep) == LOAD_OK)
			return LOAD_OK;
	}
	return error;
}
