/*
 * The little of ACPI that the tests need: which processors there are, where the I/O APIC is, how to
 * power off. Read once; later damage to the tables does no harm.
 */
#ifndef TK_ACPI_H
#define TK_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

struct acpi_machine {
	uint32_t cpu_count;
	uint32_t apic_ids[CPU_COUNT_MAX + 1];
	uint64_t ioapic; /* 0 when there is none */
	uint32_t timer_gsi; /* where the PIT's interrupt goes */
	bool has_mailbox; /* MADT type 0x10 */
	uint16_t pm1a_control; /* ports; 0 when unknown */
	uint16_t pm1a_event;
	uint16_t pm_timer;
	uint16_t smi_command;
	uint8_t acpi_enable;
	uint8_t sleep_type_off; /* SLP_TYP of S5 */
	uint64_t ecam; /* PCI configuration space in memory, bus 0; 0 when unknown */
	struct {
		uint64_t start, end;
	} tables[32]; /* where the tables themselves are */
	uint32_t table_count;
};

/* Reads the tables on the first call. Bails out when there is no MADT. */
const struct acpi_machine *acpi_machine_get(void);

/* The multiprocessor wakeup structure: ACPI 6.6, section 5.2.12.19. */
struct acpi_wakeup {
	uint64_t mailbox;
	uint64_t reset_vector;
	uint32_t length;
	uint32_t version;
	uint64_t rsdp; /* the one that leads there */
	uint32_t processors; /* enabled ones that the same MADT names */
	bool sums_right; /* of the RSDP, its root table and the MADT */
};

/*
 * Looks for the structure in the tables that a paravisor has put into ACPI memory, which the
 * Multiboot memory map names. False when there is none.
 */
bool acpi_wakeup_get(struct acpi_wakeup *wakeup);

/* Enters S5. Returns only when the machine does not care. */
void acpi_power_off(void);

#endif
