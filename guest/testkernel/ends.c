/*
 * Ways in which a machine ends, chosen by a word of the command line: poweroff, reset-cf9,
 * reset-kbd, reset-92, init-self, init-all, triple, hang, exit=N. The runner looks at
 * what comes of it.
 */
#include "acpi.h"
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "machine.h"
#include "print.h"
#include "tap.h"
#include "trap.h"

void kernel_main(void)
{
	uint64_t status;

	print("ends: %s\n", boot_cmdline_get());
	if (boot_number_get("exit", &status))
		machine_exit((uint8_t)status);
	if (boot_word_find("poweroff"))
		acpi_power_off();
	if (boot_word_find("reset-cf9")) {
		io_write8(0xcf9, 0x02);
		io_write8(0xcf9, 0x06);
	}
	if (boot_word_find("reset-kbd")) {
		/* Wait for the controller's input buffer, then pulse the reset line. */
		clock_wait_for(!(io_read8(0x64) & 2), 100000);
		io_write8(0x64, 0xfe);
	}
	if (boot_word_find("reset-92")) {
		io_write8(0x92, 0x00);
		io_write8(0x92, 0x01);
	}
	if (boot_word_find("init-self"))
		apic_ipi_send(cpuid_get(1, 0).ebx >> 24, ICR_INIT | ICR_ASSERT);
	if (boot_word_find("init-all"))
		apic_ipi_send(0, ICR_ALL | ICR_INIT | ICR_ASSERT);
	if (boot_word_find("triple"))
		trap_triple_fault();
	if (boot_word_find("hang"))
		for (;;)
			__asm__ volatile("cli; hlt");
	/* The end may take a moment; coming back from it is a failure. */
	clock_delay(1000000);
	tap_bail("still here: no known word on the command line, or it had no effect");
}
