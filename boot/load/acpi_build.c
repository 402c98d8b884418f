/*
 * Root tables for a guest: the firmware's, with one table put in the place of another. Only here
 * are tables written, and only in memory that the caller names.
 */
#include "boot/load/acpi.h"
#include "boot/load/acpi_bytes.h"

/* Where in the new memory each piece goes; bytes 0: there is none. */
struct layout {
	uint32_t rsdp_bytes;
	uint32_t rsdt;
	uint32_t rsdt_bytes;
	uint32_t xsdt;
	uint32_t xsdt_bytes;
	uint32_t end;
};

static uint64_t get_entry(const uint8_t *at, uint32_t entry_bytes)
{
	return entry_bytes == sizeof(uint64_t) ? acpi_get64(at) : acpi_get32(at);
}

static void put_entry(uint8_t *at, uint32_t entry_bytes, uint64_t value)
{
	if (entry_bytes == sizeof(uint64_t))
		acpi_put64(at, value);
	else
		acpi_put32(at, (uint32_t)value);
}

static uint32_t count_entries(const struct acpi_table *root, uint32_t entry_bytes)
{
	return (root->bytes - ACPI_HEADER_BYTES) / entry_bytes;
}

/*
 * The first entry of the root table that points to a table with this signature; the count if none
 * does.
 */
static uint32_t find_entry(const struct guest_memory *memory, const struct acpi_table *root,
	uint32_t entry_bytes, const char *signature)
{
	uint32_t count = count_entries(root, entry_bytes);

	for (uint32_t i = 0; i < count; i++) {
		uint64_t address =
			get_entry(root->data + ACPI_HEADER_BYTES + i * entry_bytes, entry_bytes);
		const uint8_t *table = guest_memory_map(memory, GPA(address), ACPI_HEADER_BYTES);

		if (table && memcmp(table, signature, 4) == 0)
			return i;
	}
	return count;
}

/* The bytes of the new root table: the old ones, or an entry more. */
static uint32_t new_root_bytes(const struct guest_memory *memory, const struct acpi_table *root,
	uint32_t entry_bytes, const char *signature)
{
	uint32_t count = count_entries(root, entry_bytes);

	if (find_entry(memory, root, entry_bytes, signature) == count)
		count++;
	return ACPI_HEADER_BYTES + count * entry_bytes;
}

/* Copies a root table to `to`, `bytes` long, with the replacement in. */
static void build_root(const struct acpi *acpi, const struct acpi_table *root, uint32_t entry_bytes,
	const char *signature, uint64_t replacement, uint8_t *to, uint32_t bytes)
{
	uint32_t index = find_entry(acpi->memory, root, entry_bytes, signature);
	uint32_t old = ACPI_HEADER_BYTES + count_entries(root, entry_bytes) * entry_bytes;

	memcpy(to, root->data, old < bytes ? old : bytes);
	put_entry(to + ACPI_HEADER_BYTES + index * entry_bytes, entry_bytes, replacement);
	acpi_put32(to + ACPI_LENGTH, bytes);
	acpi_seal_table(to, bytes);
}

static void build_rsdp(const struct acpi *acpi, const uint8_t *old, uint64_t base,
	const struct layout *layout, uint8_t *to)
{
	memcpy(to, old, layout->rsdp_bytes);
	acpi_put32(to + ACPI_RSDP_RSDT, layout->rsdt_bytes ? (uint32_t)(base + layout->rsdt) : 0);
	to[ACPI_RSDP_CHECKSUM] = 0;
	to[ACPI_RSDP_CHECKSUM] = (uint8_t)-acpi_sum(to, ACPI_RSDP_BYTES_1);
	if (acpi->rsdp_bytes < ACPI_RSDP_BYTES_2)
		return;
	acpi_put32(to + ACPI_RSDP_LENGTH, ACPI_RSDP_BYTES_2);
	acpi_put64(to + ACPI_RSDP_XSDT, layout->xsdt_bytes ? base + layout->xsdt : 0);
	to[ACPI_RSDP_EXTENDED] = 0;
	to[ACPI_RSDP_EXTENDED] = (uint8_t)-acpi_sum(to, ACPI_RSDP_BYTES_2);
}

static struct layout plan_layout(const struct acpi *acpi, const char *signature)
{
	struct layout layout = {.rsdp_bytes = acpi->rsdp_bytes};

	layout.rsdt = ALIGN_UP(layout.rsdp_bytes, 16u);
	if (acpi->rsdt.bytes)
		layout.rsdt_bytes =
			new_root_bytes(acpi->memory, &acpi->rsdt, sizeof(uint32_t), signature);
	layout.xsdt = ALIGN_UP(layout.rsdt + layout.rsdt_bytes, 16u);
	if (acpi->xsdt.bytes)
		layout.xsdt_bytes =
			new_root_bytes(acpi->memory, &acpi->xsdt, sizeof(uint64_t), signature);
	layout.end = layout.xsdt + layout.xsdt_bytes;
	return layout;
}

void acpi_seal_table(void *data, uint32_t bytes)
{
	uint8_t *table = data;

	table[ACPI_CHECKSUM] = 0;
	table[ACPI_CHECKSUM] = (uint8_t)-acpi_sum(table, bytes);
}

enum load_error acpi_replace_table(const struct acpi *acpi, const char *signature,
	gpa_t replacement, gpa_t destination, size_t bytes, gpa_t *rsdp, size_t *used)
{
	struct layout layout = plan_layout(acpi, signature);
	const uint8_t *old = guest_memory_map(acpi->memory, acpi->rsdp, acpi->rsdp_bytes);
	uint8_t *to;

	if (destination.value % 16 != 0 || layout.end > bytes)
		return LOAD_ERR_ACPI_BUFFER;
	if (layout.rsdt_bytes &&
		(replacement.value > UINT32_MAX || destination.value > UINT32_MAX - layout.end))
		return LOAD_ERR_ACPI_ABOVE_4G;
	to = guest_memory_map(acpi->memory, destination, layout.end);
	if (!old || !to)
		return LOAD_ERR_MEMORY_ACCESS;

	memset(to, 0, layout.end);
	if (layout.rsdt_bytes)
		build_root(acpi, &acpi->rsdt, sizeof(uint32_t), signature, replacement.value,
			to + layout.rsdt, layout.rsdt_bytes);
	if (layout.xsdt_bytes)
		build_root(acpi, &acpi->xsdt, sizeof(uint64_t), signature, replacement.value,
			to + layout.xsdt, layout.xsdt_bytes);
	build_rsdp(acpi, old, destination.value, &layout, to);
	*rsdp = destination;
	*used = layout.end;
	return LOAD_OK;
}
