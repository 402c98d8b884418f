/*
 * The way to a table: root pointer, root tables, headers, checksums. What is in a table is the
 * business of acpi_fields.c.
 */
#include "boot/load/acpi.h"
#include "boot/load/acpi_bytes.h"

#define BIOS_AREA	0xe0000
#define BIOS_AREA_BYTES 0x20000
#define EBDA_POINTER	0x40e
#define EBDA_LOWEST	0x400
#define EBDA_BYTES	1024
#define EBDA_LIMIT	0xa0000
#define RSDP_ALIGN	16
#define RSDP_BYTES_MAX	4096 /* sanity: later versions may be longer than 36 */

static const char rsdp_signature[8] = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '};

/* An RSDP in the first ACPI 1.0 bytes of `data`? */
static bool is_rsdp(const uint8_t *data)
{
	return memcmp(data, rsdp_signature, sizeof(rsdp_signature)) == 0 &&
		acpi_sum(data, ACPI_RSDP_BYTES_1) == 0;
}

/* The first RSDP on a boundary in the area, false if there is none or the area cannot be read. */
static bool scan_for_rsdp(
	const struct guest_memory *memory, uint64_t base, uint32_t bytes, gpa_t *rsdp)
{
	const uint8_t *area = guest_memory_map(memory, GPA(base), bytes);

	if (!area)
		return false;
	for (uint32_t at = 0; at + ACPI_RSDP_BYTES_1 <= bytes; at += RSDP_ALIGN) {
		if (is_rsdp(area + at)) {
			*rsdp = GPA(base + at);
			return true;
		}
	}
	return false;
}

enum load_error acpi_find_rsdp(const struct guest_memory *memory, gpa_t *rsdp)
{
	const uint8_t *pointer = guest_memory_map(memory, GPA(EBDA_POINTER), sizeof(uint16_t));
	uint64_t ebda = pointer ? (uint64_t)acpi_get16(pointer) << 4 : 0;

	if (ebda >= EBDA_LOWEST && ebda <= EBDA_LIMIT - EBDA_BYTES &&
		scan_for_rsdp(memory, ebda, EBDA_BYTES, rsdp))
		return LOAD_OK;
	if (scan_for_rsdp(memory, BIOS_AREA, BIOS_AREA_BYTES, rsdp))
		return LOAD_OK;
	return LOAD_ERR_ACPI_NO_RSDP;
}

enum load_error acpi_read_table(const struct guest_memory *memory, gpa_t gpa, const char *signature,
	struct acpi_table *table)
{
	const uint8_t *data = guest_memory_map(memory, gpa, ACPI_HEADER_BYTES);
	uint32_t bytes;

	if (!data)
		return LOAD_ERR_MEMORY_ACCESS;
	if (signature && memcmp(data, signature, 4) != 0)
		return LOAD_ERR_ACPI_TABLE_MISSING;
	bytes = acpi_get32(data + ACPI_LENGTH);
	if (bytes < ACPI_HEADER_BYTES || bytes > ACPI_TABLE_BYTES_MAX)
		return LOAD_ERR_ACPI_TABLE_LENGTH;
	data = guest_memory_map(memory, gpa, bytes);
	if (!data)
		return LOAD_ERR_MEMORY_ACCESS;
	if (acpi_sum(data, bytes) != 0)
		return LOAD_ERR_ACPI_TABLE_CHECKSUM;
	*table = (struct acpi_table){gpa, bytes, data};
	return LOAD_OK;
}

/* A root table at `gpa`, left empty if there is none or it is damaged. */
static void read_root(const struct guest_memory *memory, uint64_t gpa, const char *signature,
	uint32_t entry_bytes, struct acpi_table *table)
{
	if (gpa == 0 || acpi_read_table(memory, GPA(gpa), signature, table) ||
		(table->bytes - ACPI_HEADER_BYTES) / entry_bytes > ACPI_TABLES_MAX)
		*table = (struct acpi_table){.bytes = 0};
}

enum load_error acpi_open(const struct guest_memory *memory, gpa_t rsdp, struct acpi *acpi)
{
	const uint8_t *data = guest_memory_map(memory, rsdp, ACPI_RSDP_BYTES_1);
	uint64_t xsdt = 0;

	if (!data || !is_rsdp(data))
		return LOAD_ERR_ACPI_RSDP;
	*acpi = (struct acpi){
		.memory = memory,
		.rsdp = rsdp,
		.rsdp_bytes = ACPI_RSDP_BYTES_1,
		.revision = data[ACPI_RSDP_REVISION],
	};
	if (acpi->revision >= 2) {
		uint32_t bytes;

		data = guest_memory_map(memory, rsdp, ACPI_RSDP_BYTES_2);
		if (!data)
			return LOAD_ERR_ACPI_RSDP;
		bytes = acpi_get32(data + ACPI_RSDP_LENGTH);
		if (bytes < ACPI_RSDP_BYTES_2 || bytes > RSDP_BYTES_MAX)
			return LOAD_ERR_ACPI_RSDP;
		data = guest_memory_map(memory, rsdp, bytes);
		if (!data || acpi_sum(data, bytes) != 0)
			return LOAD_ERR_ACPI_RSDP;
		acpi->rsdp_bytes = ACPI_RSDP_BYTES_2;
		xsdt = acpi_get64(data + ACPI_RSDP_XSDT);
	}
	read_root(memory, acpi_get32(data + ACPI_RSDP_RSDT), "RSDT", sizeof(uint32_t), &acpi->rsdt);
	read_root(memory, xsdt, "XSDT", sizeof(uint64_t), &acpi->xsdt);
	acpi->wide = acpi->xsdt.bytes != 0;
	if (!acpi->rsdt.bytes && !acpi->xsdt.bytes)
		return LOAD_ERR_ACPI_ROOT;
	return LOAD_OK;
}

uint32_t acpi_count_tables(const struct acpi *acpi)
{
	if (acpi->wide)
		return (acpi->xsdt.bytes - ACPI_HEADER_BYTES) / sizeof(uint64_t);
	return (acpi->rsdt.bytes - ACPI_HEADER_BYTES) / sizeof(uint32_t);
}

gpa_t acpi_get_table_address(const struct acpi *acpi, uint32_t index)
{
	if (acpi->wide)
		return GPA(
			acpi_get64(acpi->xsdt.data + ACPI_HEADER_BYTES + index * sizeof(uint64_t)));
	return GPA(acpi_get32(acpi->rsdt.data + ACPI_HEADER_BYTES + index * sizeof(uint32_t)));
}

enum load_error acpi_find_table(
	const struct acpi *acpi, const char *signature, struct acpi_table *table)
{
	enum load_error result = LOAD_ERR_ACPI_TABLE_MISSING;

	for (uint32_t i = 0; i < acpi_count_tables(acpi); i++) {
		enum load_error error = acpi_read_table(
			acpi->memory, acpi_get_table_address(acpi, i), signature, table);

		if (!error)
			return LOAD_OK;
		/* Its signature was right: say what is wrong with it, unless there is another. */
		if (error == LOAD_ERR_ACPI_TABLE_LENGTH || error == LOAD_ERR_ACPI_TABLE_CHECKSUM)
			result = error;
	}
	return result;
}
