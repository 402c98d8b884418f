#include "acpi.h"

#include "boot.h"
#include "machine.h"
#include "print.h"
#include "tap.h"

#define SLEEP_ENABLE (1u << 13)

/* ACPI 6.4, section 5.2.6 */
struct header {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem[26]; /* who made it, with which tool */
} __attribute__((packed));

/* Section 5.2.5.3 */
struct rsdp {
	char signature[8];
	uint8_t checksum;
	char oem[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint32_t checksum_extended;
} __attribute__((packed));
_Static_assert(sizeof(struct header) == 36 && sizeof(struct rsdp) == 36, "ACPI 6.4");

static struct acpi_machine machine;
static bool machine_known;

static uint32_t field32(const void *table, uint32_t offset)
{
	uint32_t value;

	memcpy(&value, (const uint8_t *)table + offset, sizeof(value));
	return value;
}

static uint64_t field64(const void *table, uint32_t offset)
{
	return (uint64_t)field32(table, offset + 4) << 32 | field32(table, offset);
}

static uint8_t field8(const void *table, uint32_t offset)
{
	return ((const uint8_t *)table)[offset];
}

static bool sum_is_zero(const void *table, uint32_t length)
{
	uint8_t sum = 0;

	for (uint32_t i = 0; i < length; i++)
		sum = (uint8_t)(sum + field8(table, i));
	return sum == 0;
}

static const struct rsdp *rsdp_find(uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at + 20 <= end; at += 16) {
		const struct rsdp *rsdp = (const void *)at;

		if (string_equal(rsdp->signature, "RSD PTR ", 8) && sum_is_zero(rsdp, 20))
			return rsdp;
	}
	return NULL;
}

static void range_add(uint64_t address, uint64_t length)
{
	if (machine.table_count == 32)
		return;
	machine.tables[machine.table_count].start = address;
	machine.tables[machine.table_count++].end = address + length;
}

/* Section 5.2.12 */
static void madt_read(const struct header *madt)
{
	for (uint32_t at = 44; at + 2 <= madt->length && field8(madt, at + 1) >= 2;
		at += field8(madt, at + 1)) {
		const uint8_t *entry = (const uint8_t *)madt + at;

		switch (entry[0]) {
		case 0: /* local APIC */
			if ((field32(entry, 4) & 1) && machine.cpu_count <= CPU_COUNT_MAX)
				machine.apic_ids[machine.cpu_count++] = entry[3];
			break;
		case 1: /* I/O APIC */
			if (!machine.ioapic)
				machine.ioapic = field32(entry, 4);
			break;
		case 2: /* interrupt source override */
			if (entry[3] == 0)
				machine.timer_gsi = field32(entry, 4);
			break;
		case 0x10:
			machine.has_mailbox = true;
			break;
		}
	}
}

/* Finds Name (_S5, Package () { type, ...}) in the AML: section 20.2.5.4. */
static void sleep_read(const struct header *dsdt)
{
	for (uint32_t at = sizeof(*dsdt); at + 12 <= dsdt->length; at++) {
		const uint8_t *aml = (const uint8_t *)dsdt + at;
		uint32_t skip;

		if (!string_equal((const char *)aml, "_S5_", 4) || aml[4] != 0x12)
			continue;
		/* The package's length takes one to four bytes, its count of elements one. */
		skip = 5 + 1 + (aml[5] >> 6) + 1;
		machine.sleep_type_off = aml[skip] == 0x0a ? aml[skip + 1] : 0;
		return;
	}
}

/* Section 5.2.9 */
static void fadt_read(const struct header *fadt)
{
	const struct header *dsdt = (const void *)(uint64_t)field32(fadt, 40);

	machine.smi_command = (uint16_t)field32(fadt, 48);
	machine.acpi_enable = field8(fadt, 52);
	machine.pm1a_event = (uint16_t)field32(fadt, 56);
	machine.pm1a_control = (uint16_t)field32(fadt, 64);
	machine.pm_timer = (uint16_t)field32(fadt, 76);
	if (field32(fadt, 36)) /* FACS */
		range_add(field32(fadt, 36), 64);
	if (dsdt) {
		range_add((uint64_t)dsdt, dsdt->length);
		sleep_read(dsdt);
	}
}

static void table_read(uint64_t address)
{
	const struct header *table = (const void *)address;

	range_add(address, table->length);
	if (string_equal(table->signature, "APIC", 4))
		madt_read(table);
	else if (string_equal(table->signature, "FACP", 4))
		fadt_read(table);
	else if (string_equal(table->signature, "MCFG", 4) && table->length >= 60)
		machine.ecam = field64(table, 44);
}

const struct acpi_machine *acpi_machine_get(void)
{
	uint64_t ebda = (uint64_t) * (const volatile uint16_t *)0x40e << 4;
	const struct header *root;
	const struct rsdp *rsdp;
	bool wide;

	if (machine_known)
		return &machine;
	machine_known = true;
	machine.timer_gsi = 0;
	rsdp = ebda >= 0x80000 && ebda < 0xa0000 ? rsdp_find(ebda, ebda + 1024) : NULL;
	if (!rsdp)
		rsdp = rsdp_find(0xe0000, 0x100000);
	if (!rsdp)
		tap_bail("no ACPI tables");
	/* cppcheck-suppress nullPointerRedundantCheck ; tap_bail() does not return */
	wide = rsdp->revision >= 2 && rsdp->xsdt;
	root = (const void *)(wide ? rsdp->xsdt : (uint64_t)rsdp->rsdt);
	range_add((uint64_t)root, root->length);
	for (uint32_t at = sizeof(*root); at < root->length; at += wide ? 8 : 4)
		table_read(wide ? field64(root, at) : field32(root, at));
	if (!machine.cpu_count)
		tap_bail("the MADT names no processor");
	return &machine;
}

static void wakeup_read(const struct header *madt, struct acpi_wakeup *wakeup)
{
	for (uint32_t at = 44; at + 2 <= madt->length && field8(madt, at + 1) >= 2;
		at += field8(madt, at + 1)) {
		const uint8_t *entry = (const uint8_t *)madt + at;

		if (entry[0] == 0 && (field32(entry, 4) & 1))
			wakeup->processors++;
		if (entry[0] != 0x10 || entry[1] < 16)
			continue;
		wakeup->length = entry[1];
		wakeup->version = field8(entry, 2) | (uint32_t)field8(entry, 3) << 8;
		wakeup->mailbox = field64(entry, 8);
		wakeup->reset_vector = entry[1] >= 24 ? field64(entry, 16) : 0;
	}
}

bool acpi_wakeup_get(struct acpi_wakeup *wakeup)
{
	const struct rsdp *rsdp = NULL;
	const struct header *root;
	bool wide;

	*wakeup = (struct acpi_wakeup){.sums_right = true};
	for (uint32_t i = 0; i < boot_memory_count() && !rsdp; i++) {
		const struct memory_range *range = boot_memory_get(i);

		if (range->type == MEMORY_ACPI)
			rsdp = rsdp_find(range->start, range->end);
	}
	if (!rsdp)
		return false;
	wakeup->rsdp = (uint64_t)rsdp;
	wide = rsdp->revision >= 2 && rsdp->xsdt;
	root = (const void *)(wide ? rsdp->xsdt : (uint64_t)rsdp->rsdt);
	wakeup->sums_right = sum_is_zero(root, root->length) &&
		(rsdp->revision < 2 || sum_is_zero(rsdp, rsdp->length));
	for (uint32_t at = sizeof(*root); at < root->length; at += wide ? 8 : 4) {
		const struct header *table =
			(const void *)(wide ? field64(root, at) : field32(root, at));

		if (!string_equal(table->signature, "APIC", 4))
			continue;
		wakeup->sums_right &= sum_is_zero(table, table->length);
		wakeup_read(table, wakeup);
	}
	return wakeup->mailbox != 0;
}

void acpi_power_off(void)
{
	const struct acpi_machine *found = acpi_machine_get();

	if (found->pm1a_control)
		io_write16(found->pm1a_control,
			(uint16_t)((uint32_t)found->sleep_type_off << 10 | SLEEP_ENABLE));
}
