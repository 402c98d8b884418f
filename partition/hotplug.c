/*
 * QEMU's processor hotplug registers, which its ACPI code reads to tell which processors are there.
 * The guest may look and acknowledge; taking a processor away from Parapet it may not.
 */
#include "arch/x86/asm.h"
#include "partition/policy.h"

#define PORT_FIRST 0xcd8 /* on q35; fixed by QEMU's ACPI tables */
#define PORT_LAST  0xce3
#define PORT_FLAGS 0xcdc
#define FLAG_EJECT 0x08

static bool present;

void hotplug_init(void)
{
	/* "QEMU" in the firmware configuration device: nobody else has these registers. */
	asm_out16(0x510, 0);
	present = asm_in8(0x511) == 'Q' && asm_in8(0x511) == 'E';
}

bool hotplug_owns_port(uint16_t port)
{
	return present && port >= PORT_FIRST && port <= PORT_LAST;
}

uint32_t hotplug_read(uint16_t port, uint8_t size)
{
	return size == 1 ? asm_in8(port) : size == 2 ? asm_in16(port) : asm_in32(port);
}

void hotplug_write(struct vp *vp, uint16_t port, uint8_t size, uint32_t value)
{
	bool selects = port == PORT_FIRST && size == 4;
	bool acknowledges = port == PORT_FLAGS && size == 1 && !(value & FLAG_EJECT);
	bool asks = port == PORT_FLAGS + 1 && size == 1;
	bool answers = port == PORT_FLAGS + 4 && size == 4;

	if (selects || answers) {
		asm_out32(port, value);
	} else if (acknowledges || asks) {
		asm_out8(port, (uint8_t)value);
	} else {
		vp_deny(vp, COUNTER_DENIED_IO, port);
	}
}
