/*
 * Interrupts and nothing else: the timer comes through the 8259, which is told to end its interrupts
 * by itself, so that the guest touches no register that a paravisor might mediate. With interrupt
 * exits, every tick is one, and nearly all exits are of that kind.
 *
 *	ticks=N		how many (20000)
 */
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "machine.h"
#include "tap.h"
#include "trap.h"

#define PIC_COMMAND 0x20
#define PIC_DATA    0x21
#define PIC2_DATA   0xa1
#define VECTOR_PIC  0x70

#define PIT_CHANNEL0 0x40
#define PIT_COMMAND  0x43
#define PIT_DIVIDER  40u /* of 1.193 MHz: faster than an exit takes on a software processor */

static volatile uint64_t ticks, others;

static void tick_handle(struct trap_frame *frame)
{
	(void)frame;
	ticks++;
}

static void other_handle(struct trap_frame *frame)
{
	(void)frame;
	others++;
}

static void timer_start(void)
{
	io_write8(PIC_COMMAND, 0x11); /* ICW1: cascaded, edges, ICW4 follows */
	io_write8(PIC_DATA, VECTOR_PIC);
	io_write8(PIC_DATA, 4);
	io_write8(PIC_DATA, 3); /* ICW4: 8086 mode, automatic end of interrupt */
	io_write8(PIC_DATA, 0xfe); /* only the timer */
	io_write8(PIC2_DATA, 0xff);
	apic_write(APIC_LVT_LINT0, ICR_EXTINT);
	io_write8(PIT_COMMAND, 0x34); /* channel 0, mode 2 */
	io_write8(PIT_CHANNEL0, (uint8_t)PIT_DIVIDER);
	io_write8(PIT_CHANNEL0, (uint8_t)(PIT_DIVIDER >> 8));
}

void kernel_main(void)
{
	uint64_t wanted = 20000, start, cycles;
	bool late;

	boot_number_get("ticks", &wanted);
	tap_note("%s", boot_has_paravisor() ? "under a paravisor" : "on the bare machine");
	apic_enable();
	for (uint32_t vector = VECTOR_PIC; vector < VECTOR_PIC + 8; vector++)
		trap_handler_set(vector, other_handle);
	trap_handler_set(VECTOR_PIC, tick_handle);
	clock_frequency();
	timer_start();
	start = tsc_read();
	interrupts_enable();
	late = !clock_wait_for(ticks >= wanted, wanted * 2000);
	interrupts_disable();
	cycles = tsc_read() - start;
	io_write8(PIC_DATA, 0xff);
	tap_check(!late, "%lu interrupts come", wanted);
	tap_equal(others, 0, "and none of another vector");
	tap_note("%lu ns each", cycles / wanted * 1000 / (clock_frequency() / 1000000));
}
