/*
 * IOAPICs: every access exits (they are rare), and a redirection entry may deliver vectors or ExtINT,
 * never SMI, NMI or INIT. A refused entry stays as it was.
 */
#include "arch/x86/asm.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "boot/load/acpi.h"
#include "core/atomic.h"
#include "partition/policy.h"

#define REGISTER_SELECT 0x00
#define REGISTER_WINDOW 0x10
#define REGISTER_EOI	0x40
#define FIRST_ENTRY	0x10

#define IOAPICS_MAX 8

static struct {
	uint64_t base[IOAPICS_MAX];
	struct atomic_u32
		selected[IOAPICS_MAX]; /* the guest's; the machine's follows at each access */
	uint32_t count;
	struct atomic_u32 lock; /* of select and window together */
} ioapic;

void ioapic_init(struct partition *partition, const struct acpi *acpi)
{
	struct acpi_table madt;
	struct acpi_madt_entry entry;
	uint32_t offset = 0;
	bool more = true;

	(void)partition; /* their pages stay closed: nothing to map */
	if (!acpi || acpi_find_table(acpi, "APIC", &madt) != LOAD_OK) {
		ioapic.base[ioapic.count++] = 0xfec00000; /* where it has always been */
		return;
	}
	while (acpi_read_madt_entry(&madt, &offset, &entry, &more) == LOAD_OK && more) {
		if (entry.kind == ACPI_MADT_IOAPIC && ioapic.count < IOAPICS_MAX) {
			ioapic.base[ioapic.count++] = entry.ioapic.address;
		}
	}
}

static int find(gpa_t gpa)
{
	for (uint32_t i = 0; i < ioapic.count; i++) {
		if ((gpa.value & PAGE_MASK) == (ioapic.base[i] & PAGE_MASK)) {
			return (int)i;
		}
	}
	return -1;
}

bool ioapic_owns_memory(gpa_t gpa)
{
	return find(gpa) >= 0;
}

static uint32_t window(int i, uint32_t select, bool write, uint32_t value)
{
	uint64_t base = (uint64_t)memory_pointer(HPA(ioapic.base[i]));

	/* Acquire pairs with the release below: select and window belong together. */
	while (atomic_u32_exchange(&ioapic.lock, 1, memory_order_acquire)) {
		atomic_relax();
	}
	mmio_write32(base + REGISTER_SELECT, select);
	if (write) {
		mmio_write32(base + REGISTER_WINDOW, value);
	} else {
		value = mmio_read32(base + REGISTER_WINDOW);
	}
	/* Release pairs with the exchange above. */
	atomic_u32_store(&ioapic.lock, 0, memory_order_release);
	return value;
}

uint32_t ioapic_read(struct vp *vp, gpa_t gpa)
{
	int i = find(gpa);
	uint32_t offset = (uint32_t)(gpa.value - ioapic.base[i]);
	/* Relaxed: a guest that races on its own register gets one of the two. */
	uint32_t select = atomic_u32_load(&ioapic.selected[i], memory_order_relaxed);

	(void)vp;
	if (offset == REGISTER_SELECT) {
		return select;
	}
	return offset == REGISTER_WINDOW ? window(i, select, false, 0) : 0;
}

void ioapic_write(struct vp *vp, gpa_t gpa, uint32_t value)
{
	int i = find(gpa);
	uint32_t offset = (uint32_t)(gpa.value - ioapic.base[i]);

	if (offset == REGISTER_SELECT) {
		/* Relaxed: see ioapic_read. */
		atomic_u32_store(&ioapic.selected[i], value & 0xff, memory_order_relaxed);
		return;
	}
	if (offset == REGISTER_EOI) {
		mmio_write32((uint64_t)memory_pointer(HPA(ioapic.base[i])) + REGISTER_EOI, value);
		return;
	}
	if (offset != REGISTER_WINDOW) {
		return;
	}

	uint32_t select = atomic_u32_load(&ioapic.selected[i], memory_order_relaxed);
	uint32_t mode = value >> APIC_MODE_SHIFT & APIC_MODE_MASK;

	if (select >= FIRST_ENTRY && select % 2 == 0 && mode != APIC_MODE_FIXED &&
		mode != APIC_MODE_LOWEST && mode != APIC_MODE_EXTINT) {
		vp_deny(vp, COUNTER_DENIED_INTERRUPT, select);
		return;
	}
	window(i, select, true, value);
}
