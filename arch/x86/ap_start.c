/* The machine's other processors. See ap_start.h and ap_start.S. */
#include "arch/x86/ap_start.h"
#include "arch/x86/apic.h"
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/memory.h"
#include "arch/x86/string.h"

extern const uint8_t ap_page_start[], ap_page_end[], ap_page_code32[], ap_page_code64[];
extern const uint8_t ap_page_gdt[], ap_page_gdt_base[], ap_page_far32[], ap_page_far64[];
extern const uint8_t ap_page_cr3[];

static void (*ap_entry_function)(struct cpu *cpu);
static uint64_t main_cr3;

void ap_main(struct cpu *cpu)
{
	asm_write_cr3(main_cr3); /* the page below 1 MiB is gone from here on */
	cpu_activate(cpu);
	/* Release pairs with the acquire in ap_start_all: what this processor set up is seen. */
	atomic_u32_store(&cpu->online, 1, memory_order_release);
	ap_entry_function(cpu);
	asm_halt_forever();
}

static void patch(uint8_t *page, const uint8_t *label, uint64_t value)
{
	uint32_t word = (uint32_t)value;

	memcpy(page + (label - ap_page_start), &word, sizeof(word));
}

void ap_start_all(hpa_t page, uint64_t tsc_hz, void (*entry)(struct cpu *cpu))
{
	uint8_t *low = memory_pointer(page);
	uint8_t *found = memory_take(PAGE_SIZE, PAGE_SIZE);
	uint64_t at = page.value;

	main_cr3 = asm_read_cr3();
	ap_entry_function = entry;
	memcpy(found, low, PAGE_SIZE);
	memcpy(low, ap_page_start, (size_t)(ap_page_end - ap_page_start));
	patch(low, ap_page_gdt_base, at + (uint64_t)(ap_page_gdt - ap_page_start));
	patch(low, ap_page_far32, at + (uint64_t)(ap_page_code32 - ap_page_start));
	patch(low, ap_page_far64, at + (uint64_t)(ap_page_code64 - ap_page_start));
	patch(low, ap_page_cr3, memory_build_ap_tables(page));

	apic_start_others(page, tsc_hz);

	uint64_t deadline = asm_rdtsc() + tsc_hz;

	for (uint32_t id = 1; id < cpu_count(); id++) {
		/* Acquire pairs with the release in ap_main. */
		while (!atomic_u32_load(&cpu_by_id(id)->online, memory_order_acquire)) {
			if (asm_rdtsc() > deadline) {
				fault_stop(
					"processor with APIC id %u did not start within a second",
					cpu_by_id(id)->apic_id);
			}
			atomic_relax();
		}
	}
	memcpy(low, found, PAGE_SIZE);
}
