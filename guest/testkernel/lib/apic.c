#include "apic.h"

#include "acpi.h"
#include "clock.h"
#include "tap.h"
#include "trap.h"

#define PIC1_DATA      0x21
#define PIC2_DATA      0xa1
#define TIMER_DIV_16   0x3
#define MEASURE_US     20000u
#define IOAPIC_INDEX   0x00
#define IOAPIC_WINDOW  0x10
#define IOAPIC_VERSION 0x01
#define IOAPIC_ENTRIES 0x10

static void spurious_handle(struct trap_frame *frame)
{
	(void)frame; /* wants no EOI */
}

void apic_enable(void)
{
	static const uint16_t entries[] = {APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_LINT1,
		APIC_LVT_ERROR, APIC_LVT_PERF, APIC_LVT_THERMAL};
	uint32_t last = apic_read(APIC_VERSION) >> 16 & 0xff;

	trap_handler_set(VECTOR_SPURIOUS, spurious_handle);
	io_write8(PIC1_DATA, 0xff);
	io_write8(PIC2_DATA, 0xff);
	apic_write(APIC_SVR, APIC_SVR_ENABLE | VECTOR_SPURIOUS);
	for (uint32_t i = 0; i < 6 && i <= last; i++)
		apic_write(entries[i], LVT_MASKED);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_TIMER_DIV, TIMER_DIV_16);
}

void apic_ipi_send(uint32_t destination, uint32_t command)
{
	uint64_t flags = flags_read();

	interrupts_disable();
	apic_write(APIC_ICR_HIGH, destination << 24);
	apic_write(APIC_ICR, command);
	for (uint32_t i = 0; apic_read(APIC_ICR) & ICR_PENDING; i++)
		if (i > 100000000)
			tap_bail("an IPI stays pending: command 0x%x", command);
	if (flags & FLAG_IF)
		interrupts_enable();
}

/* Timer counts per millisecond at divider 16; the same on every processor. */
static uint64_t timer_frequency_get(void)
{
	static uint64_t per_ms;
	uint32_t elapsed;

	if (per_ms)
		return per_ms;
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	apic_write(APIC_TIMER_DIV, TIMER_DIV_16);
	apic_write(APIC_TIMER_START, 0xffffffff);
	clock_delay(MEASURE_US);
	elapsed = 0xffffffff - apic_read(APIC_TIMER_NOW);
	apic_write(APIC_TIMER_START, 0);
	if (!elapsed)
		tap_bail("the APIC timer does not count");
	per_ms = (uint64_t)elapsed * 1000 / MEASURE_US;
	return per_ms;
}

void apic_timer_start(uint32_t vector, uint64_t us)
{
	uint64_t ticks = timer_frequency_get() * us / 1000;

	apic_write(APIC_TIMER_DIV, TIMER_DIV_16);
	apic_write(APIC_LVT_TIMER, vector);
	apic_write(APIC_TIMER_START, ticks ? (uint32_t)ticks : 1);
}

void apic_timer_stop(void)
{
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	apic_write(APIC_TIMER_START, 0);
}

static uint32_t ioapic_read(uint32_t index)
{
	uint64_t base = acpi_machine_get()->ioapic;

	mmio_write32(base + IOAPIC_INDEX, index);
	return mmio_read32(base + IOAPIC_WINDOW);
}

static void ioapic_write(uint32_t index, uint32_t value)
{
	uint64_t base = acpi_machine_get()->ioapic;

	mmio_write32(base + IOAPIC_INDEX, index);
	mmio_write32(base + IOAPIC_WINDOW, value);
}

uint32_t ioapic_entry_count(void)
{
	return (ioapic_read(IOAPIC_VERSION) >> 16 & 0xff) + 1;
}

uint64_t ioapic_entry_read(uint32_t index)
{
	return (uint64_t)ioapic_read(IOAPIC_ENTRIES + index * 2 + 1) << 32 |
		ioapic_read(IOAPIC_ENTRIES + index * 2);
}

void ioapic_entry_write(uint32_t index, uint64_t entry)
{
	/* Never let a half-written entry act. */
	ioapic_write(IOAPIC_ENTRIES + index * 2, (uint32_t)IOAPIC_MASKED);
	ioapic_write(IOAPIC_ENTRIES + index * 2 + 1, (uint32_t)(entry >> 32));
	ioapic_write(IOAPIC_ENTRIES + index * 2, (uint32_t)entry);
}
