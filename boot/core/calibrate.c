/* Clock calibration. See calibrate.h. */
#include "arch/x86/apic.h"
#include "arch/x86/asm.h"
#include "arch/x86/registers.h"
#include "boot/core/calibrate.h"

#define PM_TIMER_HZ    3579545ull
#define PM_TIMER_MASK  0xffffffu /* 24 bits are always there */
#define PIT_HZ	       1193182ull
#define PERIOD_DIVISOR 50 /* of a second: 20 ms */
#define SAMPLES	       16

#define PIT_CHANNEL2 0x42
#define PIT_COMMAND  0x43
#define PIT_GATE     0x61

/* One look at all clocks at once. */
struct sample {
	uint64_t tsc;
	uint32_t reference;
	uint32_t apic;
};

static uint16_t pm_port;

/* The PIT counts down in 16 bits: turned round, so that both references count up. */
static uint32_t read_reference(void)
{
	if (pm_port) {
		return asm_in32(pm_port) & PM_TIMER_MASK;
	}
	asm_out8(PIT_COMMAND, 0x80); /* latch channel 2 */

	uint32_t low = asm_in8(PIT_CHANNEL2);

	return 0xffff - (low | (uint32_t)asm_in8(PIT_CHANNEL2) << 8);
}

/* The look that was interrupted least, of several. */
static struct sample take_sample(void)
{
	struct sample best = {0};
	uint64_t shortest = ~0ull;

	for (int i = 0; i < SAMPLES; i++) {
		uint64_t before = asm_rdtsc();
		uint32_t reference = read_reference();
		uint32_t apic = apic_read(0x390); /* current count */
		uint64_t after = asm_rdtsc();

		if (after - before < shortest) {
			shortest = after - before;
			best = (struct sample){
				.tsc = before + shortest / 2, .reference = reference, .apic = apic};
		}
	}
	return best;
}

static void start_pit(void)
{
	asm_out8(PIT_GATE, (asm_in8(PIT_GATE) & 0xfc) | 1); /* gate open, speaker off */
	asm_out8(PIT_COMMAND, 0xb0); /* channel 2, mode 0, both bytes */
	asm_out8(PIT_CHANNEL2, 0xff);
	asm_out8(PIT_CHANNEL2, 0xff);
}

struct calibration calibrate_clocks(uint16_t pm_timer_port)
{
	uint64_t reference_hz = pm_timer_port ? PM_TIMER_HZ : PIT_HZ;
	uint32_t mask = pm_timer_port ? PM_TIMER_MASK : 0xffff;
	uint32_t divide = apic_read(APIC_TIMER_DIVIDE);

	pm_port = pm_timer_port;
	if (!pm_port) {
		start_pit();
	}
	apic_write(APIC_LVT_TIMER, APIC_LVT_MASKED);
	apic_write(APIC_TIMER_DIVIDE, 0xb); /* by 1 */
	apic_write(APIC_TIMER_INITIAL, ~0u);

	struct sample first = take_sample();
	struct sample last;
	uint32_t elapsed;

	do {
		asm_pause();
		last = take_sample();
		elapsed = (last.reference - first.reference) & mask;
	} while (elapsed < reference_hz / PERIOD_DIVISOR);
	apic_write(APIC_TIMER_INITIAL, 0);
	apic_write(APIC_TIMER_DIVIDE, divide);

	return (struct calibration){
		.tsc_hz = (last.tsc - first.tsc) * reference_hz / elapsed,
		.apic_timer_hz = (uint64_t)(first.apic - last.apic) * reference_hz / elapsed,
	};
}
