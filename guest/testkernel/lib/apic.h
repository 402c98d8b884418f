/*
 * The local APIC of the calling processor (memory-mapped) and the I/O APIC: registers by name and
 * the few sequences everybody needs. AMD64 volume 2, chapter 16.
 */
#ifndef TK_APIC_H
#define TK_APIC_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "machine.h"

#define MSR_APIC_BASE	 0x1b
#define APIC_BASE_BSP	 (1u << 8)
#define APIC_BASE_ENABLE (1u << 11)

#define APIC_VERSION	 0x30
#define APIC_TPR	 0x80
#define APIC_PPR	 0xa0
#define APIC_EOI	 0xb0
#define APIC_LDR	 0xd0
#define APIC_DFR	 0xe0
#define APIC_SVR	 0xf0
#define APIC_ISR	 0x100
#define APIC_IRR	 0x200
#define APIC_ESR	 0x280
#define APIC_ICR	 0x300
#define APIC_ICR_HIGH	 0x310
#define APIC_LVT_TIMER	 0x320
#define APIC_LVT_THERMAL 0x330
#define APIC_LVT_PERF	 0x340
#define APIC_LVT_LINT0	 0x350
#define APIC_LVT_LINT1	 0x360
#define APIC_LVT_ERROR	 0x370
#define APIC_TIMER_START 0x380
#define APIC_TIMER_NOW	 0x390
#define APIC_TIMER_DIV	 0x3e0

#define APIC_DFR_FLAT	 0xffffffffu
#define APIC_DFR_CLUSTER 0x0fffffffu
#define APIC_SVR_ENABLE	 0x100

#define LVT_MASKED   (1u << 16)
#define LVT_PERIODIC (1u << 17)

/* Interrupt command register; delivery modes are the same in LVT, IOAPIC and MSI data. */
#define ICR_FIXED   (0u << 8)
#define ICR_LOWEST  (1u << 8)
#define ICR_SMI	    (2u << 8)
#define ICR_NMI	    (4u << 8)
#define ICR_INIT    (5u << 8)
#define ICR_SIPI    (6u << 8)
#define ICR_EXTINT  (7u << 8)
#define ICR_LOGICAL (1u << 11)
#define ICR_PENDING (1u << 12)
#define ICR_ASSERT  (1u << 14)
#define ICR_LEVEL   (1u << 15)
#define ICR_SELF    (1u << 18)
#define ICR_ALL	    (2u << 18)
#define ICR_OTHERS  (3u << 18)

#define VECTOR_SPURIOUS 0xff

static inline uint32_t apic_read(uint32_t offset)
{
	return mmio_read32(APIC_BASE_ADDRESS + offset);
}

static inline void apic_write(uint32_t offset, uint32_t value)
{
	mmio_write32(APIC_BASE_ADDRESS + offset, value);
}

static inline void apic_eoi(void)
{
	apic_write(APIC_EOI, 0);
}

/* Is a vector's bit set in the 256-bit register that starts at this offset (APIC_IRR, APIC_ISR)? */
static inline bool apic_bit_get(uint32_t offset, uint32_t vector)
{
	return apic_read(offset + vector / 32 * 16) >> vector % 32 & 1;
}

/* Enables the APIC in software, masks all its local interrupts, and silences the two 8259s. */
void apic_enable(void);

/* Sends what the low half of the ICR says; waits until it has gone. Keeps interrupts off meanwhile,
 * so that a handler which sends cannot come between the two halves. */
void apic_ipi_send(uint32_t destination, uint32_t command);

/* One interrupt of this vector after so many microseconds. */
void apic_timer_start(uint32_t vector, uint64_t us);
void apic_timer_stop(void);

/* The I/O APIC's redirection entries. */
uint32_t ioapic_entry_count(void);
uint64_t ioapic_entry_read(uint32_t index);
void ioapic_entry_write(uint32_t index, uint64_t entry);

#define IOAPIC_MASKED (1ull << 16)
#define IOAPIC_LEVEL  (1ull << 15)

#endif
