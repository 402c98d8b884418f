/* How fast this processor's time stamp counter and APIC timer run. */
#ifndef PARAPET_BOOT_CORE_CALIBRATE_H
#define PARAPET_BOOT_CORE_CALIBRATE_H

#include <stdint.h>

struct calibration {
	uint64_t tsc_hz;
	uint64_t apic_timer_hz; /* its input clock, before the divider */
};

/* Measures both against the ACPI PM timer (pm_timer_port) or, if that is 0, the PIT; takes 20 ms. */
struct calibration calibrate_clocks(uint16_t pm_timer_port);

#endif
