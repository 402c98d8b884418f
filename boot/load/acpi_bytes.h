/*
 * Little-endian fields at any offset of a table, for the files of the ACPI reader only. Whoever
 * calls has checked that the field lies inside.
 */
#ifndef PARAPET_BOOT_ACPI_BYTES_H
#define PARAPET_BOOT_ACPI_BYTES_H

#include <stdint.h>
#include <string.h>

#define ACPI_HEADER_BYTES 36 /* ACPI 6.4, 5.2.6 */
#define ACPI_LENGTH	  4 /* offsets in the header */
#define ACPI_CHECKSUM	  9

#define ACPI_RSDP_BYTES_1  20 /* ACPI 1.0 */
#define ACPI_RSDP_BYTES_2  36
#define ACPI_RSDP_CHECKSUM 8
#define ACPI_RSDP_REVISION 15
#define ACPI_RSDP_RSDT	   16
#define ACPI_RSDP_LENGTH   20
#define ACPI_RSDP_XSDT	   24
#define ACPI_RSDP_EXTENDED 32 /* checksum of all bytes */

static inline uint16_t acpi_get16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static inline uint32_t acpi_get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static inline uint64_t acpi_get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static inline void acpi_put32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline void acpi_put64(uint8_t *at, uint64_t value)
{
	memcpy(at, &value, sizeof(value));
}

/* The sum of all bytes; 0 for an intact table. */
static inline uint8_t acpi_sum(const uint8_t *data, uint32_t bytes)
{
	uint8_t sum = 0;

	for (uint32_t i = 0; i < bytes; i++)
		sum = (uint8_t)(sum + data[i]);
	return sum;
}

#endif
