/*
 * The firmware's ACPI tables, read only as far as a hypervisor needs them, and the root tables that
 * a guest gets instead when one of them is replaced. No AML is run: the one thing wanted from it,
 * the numbers for power-off, is found by a scan. Nothing here acts on what it reads.
 *
 * Tables are not trusted: lengths and checksums are checked before anything else is read. They must
 * not change while they are read (no guest runs yet).
 */
#ifndef PARAPET_BOOT_ACPI_H
#define PARAPET_BOOT_ACPI_H

#include "boot/load/guest_memory.h"
#include "boot/load/load_error.h"

#define ACPI_TABLE_BYTES_MAX 0x1000000 /* longer ones are taken as damaged */
#define ACPI_TABLES_MAX	     128 /* entries of a root table */

/* A table whose length and checksum have been checked. */
struct acpi_table {
	gpa_t gpa;
	uint32_t bytes;
	const uint8_t *data; /* not aligned */
};

/* The way in: what acpi_open found. */
struct acpi {
	const struct guest_memory *memory;
	gpa_t rsdp;
	uint8_t rsdp_bytes; /* 20 (ACPI 1.0) or 36 */
	uint8_t revision;
	bool wide; /* the root used is the XSDT */
	struct acpi_table rsdt; /* bytes 0: none */
	struct acpi_table xsdt; /* bytes 0: none */
};

/* Generic address structure, ACPI 6.4, 5.2.3.2. Address 0: not there. */
struct acpi_address {
	uint8_t space; /* 0 memory, 1 I/O */
	uint8_t bit_width;
	uint8_t bit_offset;
	uint8_t access_size;
	uint64_t address;
};

#define ACPI_SPACE_MEMORY 0
#define ACPI_SPACE_IO	  1

/*
 * FADT, ACPI 6.4, 5.2.9. Blocks that the table has in both forms are given once; see
 * acpi_read_fadt.
 */
struct acpi_fadt {
	uint32_t flags;
	uint16_t sci; /* interrupt number */
	uint32_t smi_cmd; /* port; 0: none */
	uint8_t acpi_enable;
	uint8_t acpi_disable;
	uint16_t boot_flags; /* IA-PC boot architecture */
	gpa_t facs;
	gpa_t dsdt;
	struct acpi_address pm1a_event;
	struct acpi_address pm1b_event;
	struct acpi_address pm1a_control;
	struct acpi_address pm1b_control;
	struct acpi_address pm2_control;
	struct acpi_address pm_timer;
	struct acpi_address gpe0;
	struct acpi_address gpe1;
	struct acpi_address reset;
	uint8_t reset_value;
	bool has_reset; /* flag RESET_REG_SUP, and the register is in the table */
	struct acpi_address sleep_control; /* hardware-reduced ACPI */
	struct acpi_address sleep_status;
};

enum acpi_madt_kind {
	ACPI_MADT_OTHER,
	ACPI_MADT_LOCAL_APIC,
	ACPI_MADT_IOAPIC,
	ACPI_MADT_OVERRIDE,
	ACPI_MADT_LOCAL_X2APIC,
	ACPI_MADT_LOCAL_APIC_ADDRESS,
	ACPI_MADT_WAKEUP,
};

#define ACPI_CPU_ENABLED	(1u << 0)
#define ACPI_CPU_ONLINE_CAPABLE (1u << 1)

/* One MADT entry, ACPI 6.4, 5.2.12. `type` and `bytes` are the entry's own. */
struct acpi_madt_entry {
	enum acpi_madt_kind kind;
	uint8_t type;
	uint8_t bytes;
	uint32_t offset; /* in the table */
	union {
		struct {
			uint32_t uid;
			uint32_t apic_id;
			uint32_t flags; /* ACPI_CPU_* */
		} cpu; /* LOCAL_APIC and LOCAL_X2APIC */
		struct {
			uint8_t id;
			uint32_t address;
			uint32_t gsi_base;
		} ioapic;
		struct {
			uint8_t bus;
			uint8_t irq;
			uint32_t gsi;
			uint16_t flags;
		} override;
		uint64_t apic_address; /* LOCAL_APIC_ADDRESS */
		uint64_t mailbox; /* WAKEUP */
	};
};

/* One segment of a MCFG table, PCI Firmware 3.2, 4.1.2. */
struct acpi_ecam {
	uint64_t base; /* of bus 0, whatever first_bus is */
	uint16_t segment;
	uint8_t first_bus;
	uint8_t last_bus;
};

struct acpi_hpet {
	struct acpi_address address;
	uint32_t id;
	uint16_t minimum_tick;
};

/* SLP_TYPa and SLP_TYPb of the \_S5 state. */
struct acpi_sleep {
	uint8_t type_a;
	uint8_t type_b;
};

/*
 * The RSDP as a PC's firmware has it (ACPI 6.4, 5.2.5.1): on a 16-byte boundary in the first KiB of
 * the EBDA (segment in 0x40E) or in 0xE0000 to 0xFFFFF. Checksums are right. ACPI_NO_RSDP.
 */
enum load_error acpi_find_rsdp(const struct guest_memory *memory, gpa_t *rsdp);

/*
 * Reads RSDP and root tables at `rsdp`; keeps `memory`. The XSDT is used if it is there and intact,
 * else the RSDT. ACPI_RSDP, ACPI_ROOT.
 */
enum load_error acpi_open(const struct guest_memory *memory, gpa_t rsdp, struct acpi *acpi);

/* The number of tables in the root table. */
uint32_t acpi_count_tables(const struct acpi *acpi);

/* The address of the root table's entry `index`, below acpi_count_tables. */
gpa_t acpi_get_table_address(const struct acpi *acpi, uint32_t index);

/*
 * The table at `gpa`, its length and checksum checked; `signature` has four characters, NULL: any.
 * MEMORY_ACCESS, ACPI_TABLE_LENGTH, _CHECKSUM, _MISSING (other signature).
 */
enum load_error acpi_read_table(const struct guest_memory *memory, gpa_t gpa, const char *signature,
	struct acpi_table *table);

/*
 * The first table with this signature ("APIC" the MADT, "FACP" the FADT, "MCFG", "HPET"). Others
 * that cannot be read are passed over. ACPI_TABLE_MISSING, ACPI_TABLE_LENGTH, ACPI_TABLE_CHECKSUM.
 */
enum load_error acpi_find_table(
	const struct acpi *acpi, const char *signature, struct acpi_table *table);

/*
 * Walks a MADT: *offset is 0 for the first call and moves on. *more is false, and *entry not
 * written, after the last entry. An entry that is too short or runs over the table's end:
 * ACPI_TABLE_ENTRY.
 */
enum load_error acpi_read_madt_entry(
	const struct acpi_table *madt, uint32_t *offset, struct acpi_madt_entry *entry, bool *more);

/*
 * The local APIC's address: the table's 32-bit one, or the override entry's. ACPI_TABLE_LENGTH,
 * _ENTRY.
 */
enum load_error acpi_read_apic_address(const struct acpi_table *madt, uint64_t *address);

/*
 * The FADT's fields. An X_ block (64-bit) counts if the table is long enough for it and it is not
 * zero, else the old 32-bit one with its length (in bytes there, in bits here). Fields that the
 * table is too short for are zero. ACPI_TABLE_LENGTH.
 */
enum load_error acpi_read_fadt(const struct acpi_table *table, struct acpi_fadt *fadt);

/*
 * Segment `index` of a MCFG table. ACPI_TABLE_MISSING beyond the last; ACPI_TABLE_ENTRY, _LENGTH.
 */
enum load_error acpi_read_mcfg(
	const struct acpi_table *table, uint32_t index, struct acpi_ecam *ecam);

/* IA-PC HPET 1.0a, 3.2.4. ACPI_TABLE_LENGTH. */
enum load_error acpi_read_hpet(const struct acpi_table *table, struct acpi_hpet *hpet);

/*
 * The sleep types of power-off from the \_S5 package of a DSDT or SSDT (ACPI 6.4, 7.4.2 and 20.2),
 * by a scan for the name with bounds checked at every byte. ACPI_NO_S5.
 */
enum load_error acpi_read_s5(const struct acpi_table *table, struct acpi_sleep *sleep);

/*
 * The same, from the FADT's DSDT and then every SSDT. ACPI_NO_S5 and what those tables can fail
 * with.
 */
enum load_error acpi_find_s5(const struct acpi *acpi, struct acpi_sleep *sleep);

/*
 * Makes the checksum of the table in `data` right; its length field must say `bytes` (36 at least).
 */
void acpi_seal_table(void *data, uint32_t bytes);

/*
 * Builds RSDP, RSDT and XSDT (those that the firmware has) in `bytes` of memory at `destination`, a
 * multiple of 16, all entries as before but the first table with `signature` at `replacement`. A
 * table the firmware does not have is added at the end. *rsdp is the new RSDP (equal to
 * `destination`), *used how many bytes are taken; a page is enough for any firmware that acpi_open
 * accepts. The replacement is not looked at. ACPI_BUFFER (too small, not aligned), ACPI_ABOVE_4G
 * (an RSDT has 32-bit entries), MEMORY_ACCESS. Nothing is written if it fails.
 */
enum load_error acpi_replace_table(const struct acpi *acpi, const char *signature,
	gpa_t replacement, gpa_t destination, size_t bytes, gpa_t *rsdp, size_t *used);

#endif
