#include "clock.h"

#include "machine.h"
#include "tap.h"

#define PIT_FREQUENCY 1193182u
#define PIT_CHANNEL2  0x42
#define PIT_COMMAND   0x43
#define PORT_B	      0x61
#define GATE2	      0x01
#define SPEAKER	      0x02
#define OUT2	      0x20

#define MEASURE_US 50000u

uint64_t clock_frequency(void)
{
	static uint64_t frequency;
	uint32_t ticks = (uint32_t)((uint64_t)PIT_FREQUENCY * MEASURE_US / 1000000);
	uint64_t start, looks = 0;
	uint8_t port_b;

	if (frequency)
		return frequency;
	/* Mode 0: the output goes up when the count has run out. */
	port_b = (uint8_t)(io_read8(PORT_B) & ~(SPEAKER | GATE2));
	io_write8(PORT_B, port_b);
	io_write8(PIT_COMMAND, 0xb0);
	io_write8(PIT_CHANNEL2, (uint8_t)ticks);
	io_write8(PIT_CHANNEL2, (uint8_t)(ticks >> 8));
	io_write8(PORT_B, port_b | GATE2);
	start = tsc_read();
	while (!(io_read8(PORT_B) & OUT2))
		if (++looks > 100000000)
			tap_bail("the PIT does not count");
	frequency = (tsc_read() - start) * (1000000 / MEASURE_US);
	io_write8(PORT_B, port_b);
	return frequency;
}

uint64_t clock_deadline(uint64_t us)
{
	/* Microseconds times gigahertz fit in 64 bits for a month. */
	return tsc_read() + us * (clock_frequency() / 1000) / 1000;
}

bool clock_passed(uint64_t deadline)
{
	return (int64_t)(tsc_read() - deadline) >= 0;
}

void clock_delay(uint64_t us)
{
	uint64_t deadline = clock_deadline(us);

	while (!clock_passed(deadline))
		cpu_relax();
}
