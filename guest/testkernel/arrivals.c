/*
 * What comes just as a guest exits arrives: interrupts and flush hypercalls for a processor that does
 * nothing but exit. A processor may lose either if its paravisor does not see to it (QEMU's software
 * processor does), and nothing else that the other one does here would bring it to light again.
 *
 *	count=N		interrupts, and flushes of each kind (5000)
 *
 * A flush that never returns is the end of the run: this kernel's time is up then.
 */
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "hv.h"
#include "machine.h"
#include "tap.h"
#include "trap.h"

#define VECTOR	 0x60
#define LIMIT_US 10000000u

enum phase {
	PHASE_EXIT,
	PHASE_SPIN,
	PHASE_END
};

static _Alignas(64) _Atomic uint64_t got;
static _Alignas(64) _Atomic enum phase phase;
static _Alignas(64) _Atomic enum phase seen;

static void ipi_handle(struct trap_frame *frame)
{
	(void)frame;
	/* Release: pairs with the acquire of the sender that waits for it. */
	atomic_fetch_add_explicit(&got, 1, memory_order_release);
	apic_eoi();
}

/* The other processor: exits all the time, or not at all. */
static void target(void *argument)
{
	enum phase now;

	(void)argument;
	interrupts_enable();
	do {
		now = atomic_load_explicit(&phase, memory_order_acquire);
		atomic_store_explicit(&seen, now, memory_order_release);
		if (now == PHASE_EXIT)
			cpuid_get(0, 0);
		else
			cpu_relax();
	} while (now != PHASE_END);
	interrupts_disable();
}

static bool phase_set(enum phase next)
{
	atomic_store_explicit(&phase, next, memory_order_release);
	return clock_wait_for(atomic_load_explicit(&seen, memory_order_acquire) == next, LIMIT_US);
}

static void interrupts_check(uint64_t count)
{
	uint64_t sent = 0;

	while (sent < count) {
		apic_ipi_send(cpus[1].apic_id, ICR_ASSERT | VECTOR);
		sent++;
		if (!clock_wait_for(
			    atomic_load_explicit(&got, memory_order_acquire) >= sent, LIMIT_US))
			break;
	}
	tap_equal(atomic_load_explicit(&got, memory_order_acquire), count,
		"every interrupt for a processor that exits all the time arrives");
}

static void flush(void)
{
	static _Alignas(64) uint64_t input[3];

	input[0] = 0;
	input[1] = HV_ALL_SPACES;
	hv_mask_get(2, &input[2]);
	hv_call(HV_FLUSH_SPACE, (uint64_t)input);
}

static void flushes_check(uint64_t count)
{
	uint64_t done = 0;

	while (done < count && phase_set(PHASE_EXIT)) {
		flush(); /* while it exits by itself */
		if (!phase_set(PHASE_SPIN))
			break;
		flush(); /* only a kick gets it out now */
		done++;
	}
	tap_equal(done, count, "and every flush returns, whether it exits or not");
}

void kernel_main(void)
{
	uint64_t count = 5000;

	boot_number_get("count", &count);
	tap_note("%s", boot_has_paravisor() ? "under a paravisor" : "on the bare machine");
	trap_handler_set(VECTOR, ipi_handle);
	if (cpu_all_start() < 2)
		tap_bail("needs two processors");
	if (boot_has_paravisor()) {
		hv_start();
		hv_indexes_read();
	}
	cpu_call_start(&cpus[1], target, NULL);
	interrupts_check(count);
	if (boot_has_paravisor())
		flushes_check(count);
	phase_set(PHASE_END);
	cpu_call_wait(&cpus[1]);
}
