/* Raw access to this processor's local APIC. See apic.h. */
#include "arch/x86/apic.h"
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"

#define DELIVERY_TRIES 1000000

static uint64_t base;

bool apic_init(void)
{
	uint64_t value = asm_rdmsr(MSR_APIC_BASE);

	base = value & APIC_BASE_ADDRESS;
	return (value & APIC_BASE_ENABLE) && !(value & APIC_BASE_X2APIC);
}

uint64_t apic_base(void)
{
	return base;
}

uint32_t apic_read(uint32_t offset)
{
	return mmio_read32((uint64_t)memory_pointer(HPA(base + offset)));
}

void apic_write(uint32_t offset, uint32_t value)
{
	if (offset == APIC_TPR) {
		cpu_this()->task_priority_low = value & 0xf;
	}
	mmio_write32((uint64_t)memory_pointer(HPA(base + offset)), value);
}

uint32_t apic_id(void)
{
	return apic_read(APIC_ID) >> 24;
}

static void wait_sent(void)
{
	for (int i = 0; i < DELIVERY_TRIES && (apic_read(APIC_ICR_LOW) & APIC_ICR_PENDING); i++) {
		asm_pause();
	}
}

void apic_send(uint32_t destination, uint32_t command)
{
	uint32_t found = apic_read(APIC_ICR_HIGH);
	bool same = found == destination << 24;

	wait_sent();
	if (!same) {
		apic_write(APIC_ICR_HIGH, destination << 24);
	}
	apic_write(APIC_ICR_LOW, command);
	/* The command has gone with its destination: what the guest had there may come back at once. */
	if (!same) {
		apic_write(APIC_ICR_HIGH, found);
	}
}

static void send_nmi(uint32_t destination)
{
	apic_send(destination, APIC_MODE_NMI << APIC_MODE_SHIFT | APIC_ICR_ASSERT);
}

void apic_kick(struct cpu *target)
{
	uint32_t mark;

	if (cpu_claim_kick(target, &mark)) {
		send_nmi(target->apic_id);
		cpu_note_kick_sent(target, mark);
	}
}

void apic_find_lost_kick(void)
{
	if (cpu_kick_is_sent(cpu_this())) {
		send_nmi(cpu_this()->apic_id);
	}
}

void apic_find_lost_interrupt(void)
{
	/* Any write of the task priority makes the APIC look at what is pending; CR8 costs less. */
	if (cpu_this()->task_priority_low) {
		apic_write(APIC_TPR, apic_read(APIC_TPR));
	} else {
		asm_write_cr8(asm_read_cr8());
	}
}

void apic_send_nmi_others(void)
{
	apic_send(0,
		APIC_MODE_NMI << APIC_MODE_SHIFT | APIC_ICR_ASSERT |
			APIC_ICR_SHORTHAND_OTHERS << APIC_ICR_SHORTHAND_SHIFT);
}

static void wait_microseconds(uint64_t microseconds, uint64_t tsc_hz)
{
	uint64_t until = asm_rdtsc() + tsc_hz / 1000000 * microseconds;

	while (asm_rdtsc() < until) {
		asm_pause();
	}
}

void apic_start_others(hpa_t page, uint64_t tsc_hz)
{
	uint32_t others = APIC_ICR_SHORTHAND_OTHERS << APIC_ICR_SHORTHAND_SHIFT | APIC_ICR_ASSERT;
	uint32_t sipi =
		others | APIC_MODE_SIPI << APIC_MODE_SHIFT | (uint32_t)(page.value >> PAGE_BITS);

	apic_send(0, others | APIC_MODE_INIT << APIC_MODE_SHIFT);
	wait_microseconds(10000, tsc_hz);
	apic_send(0, sipi);
	wait_microseconds(200, tsc_hz);
	apic_send(0, sipi);
}

void apic_reset(void)
{
	static const uint16_t entries[] = {
		APIC_LVT_TIMER, APIC_LVT_PERF, APIC_LVT_LINT0, APIC_LVT_LINT1, APIC_LVT_ERROR};

	apic_write(APIC_TIMER_INITIAL, 0);
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		apic_write(entries[i], APIC_LVT_MASKED);
	}
	/* At most 256 vectors can be in service; each EOI retires the highest. */
	for (int i = 0; i < 256; i++) {
		uint32_t in_service = 0;

		for (uint32_t word = 0; word < 8; word++) {
			in_service |= apic_read(APIC_ISR + 16 * word);
		}
		if (!in_service) {
			break;
		}
		apic_write(APIC_EOI, 0);
	}
	apic_write(APIC_TPR, 0);
	apic_write(APIC_LDR, 0);
	apic_write(APIC_DFR, 0xffffffff);
	apic_write(APIC_TIMER_DIVIDE, 0);
	apic_write(APIC_SVR, 0xff);
}
