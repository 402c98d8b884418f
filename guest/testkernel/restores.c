/*
 * One processor exits while all others load x87 state. The two have nothing to do with each other on
 * any processor but QEMU's, which loses exits of the first one over it (docs/verification.md).
 *
 *	count=N		exits (20000)
 */
#include "boot.h"
#include "cpu.h"
#include "machine.h"
#include "tap.h"

#define FXSAVE_BYTES 512u
#define RESTORES     64u /* between two looks at whether it is over */

/*
 * Relaxed: the first hands over nothing but itself, and the second is read behind cpu_call_wait(), whose
 * acquire pairs with the release of the processor that comes back.
 */
static atomic_bool leave;
static _Atomic uint32_t changed;

static uint16_t control_word(void)
{
	uint16_t word;

	__asm__ volatile("fnstcw %0" : "=m"(word));
	return word;
}

static void restore_run(void *argument)
{
	static _Alignas(16) uint8_t areas[CPU_COUNT_MAX][FXSAVE_BYTES];
	uint8_t *area = areas[cpu_self()->number];

	(void)argument;
	cr4_write(cr4_read() | CR4_FXSR);
	__asm__ volatile("fninit; fxsave (%0)" : : "r"(area) : "memory");
	uint16_t word = control_word();

	while (!atomic_load_explicit(&leave, memory_order_relaxed)) {
		for (uint32_t i = 0; i < RESTORES; i++)
			__asm__ volatile("fxrstor (%0)" : : "r"(area) : "memory");
		if (control_word() != word)
			atomic_fetch_add_explicit(&changed, 1, memory_order_relaxed);
	}
}

void kernel_main(void)
{
	uint64_t count = 20000, wrong = 0;
	struct cpuid first = cpuid_get(0, 0);

	boot_number_get("count", &count);
	tap_note("%s", boot_has_paravisor() ? "under a paravisor" : "on the bare machine");
	uint32_t total = cpu_all_start();

	if (total < 2)
		tap_bail("needs two processors");
	for (uint32_t i = 1; i < total; i++)
		cpu_call_start(&cpus[i], restore_run, NULL);
	for (uint64_t i = 0; i < count; i++) {
		struct cpuid again = cpuid_get(0, 0);

		wrong += again.eax != first.eax || again.ebx != first.ebx ||
			again.ecx != first.ecx || again.edx != first.edx;
	}
	atomic_store_explicit(&leave, true, memory_order_relaxed);
	for (uint32_t i = 1; i < total; i++)
		cpu_call_wait(&cpus[i]);
	tap_equal(wrong, 0, "a processor that exits gets the right answers");
	tap_equal(changed, 0, "and those that load x87 state meanwhile keep it");
}
