/*
 * ACPI fixed hardware: the guest gets the event, timer and general-purpose registers; sleeping and
 * resetting end the guest in order; system management interrupts are not for it. The machine is put
 * into ACPI mode beforehand, so that the guest never needs the SMI command port for that.
 */
#include "arch/x86/asm.h"
#include "arch/x86/log.h"
#include "boot/load/acpi.h"
#include "partition/policy.h"

#define PM1_CONTROL_SCI_EN     (1u << 0)
#define PM1_CONTROL_TYPE_SHIFT 10
#define PM1_CONTROL_TYPE_MASK  (7u << PM1_CONTROL_TYPE_SHIFT)
#define PM1_CONTROL_SLEEP      (1u << 13)

#define PORT_RESET	0xcf9
#define RESET_FULL	0x06 /* reset the processors, hard */
#define ACPI_MODE_TRIES 1000000

static struct {
	bool present;
	uint16_t smi_command;
	uint16_t control[2]; /* PM1a, PM1b; 0: none */
	uint16_t reset_port;
	uint8_t reset_value;
	struct acpi_sleep s5;
	bool has_s5;
} fixed;

static uint16_t io_port(const struct acpi_address *address)
{
	return address->space == ACPI_SPACE_IO && address->address < 0x10000
		? (uint16_t)address->address
		: 0;
}

static void open_block(struct partition *partition, const struct acpi_address *block)
{
	uint16_t port = io_port(block);

	if (port && block->bit_width >= 8) {
		io_open_range(partition, port, (uint16_t)(port + block->bit_width / 8 - 1));
	}
}

static void enter_acpi_mode(const struct acpi_fadt *fadt)
{
	if (!fixed.control[0] || !fixed.smi_command || !fadt->acpi_enable ||
		(asm_in16(fixed.control[0]) & PM1_CONTROL_SCI_EN)) {
		return;
	}
	asm_out8(fixed.smi_command, fadt->acpi_enable);
	for (int i = 0; i < ACPI_MODE_TRIES; i++) {
		if (asm_in16(fixed.control[0]) & PM1_CONTROL_SCI_EN) {
			return;
		}
	}
	log_line("W the firmware did not switch to ACPI mode: the guest has no ACPI events");
}

void fixed_init(struct partition *partition, const struct acpi *acpi)
{
	struct acpi_table table;
	struct acpi_fadt fadt;

	fixed.reset_port = PORT_RESET;
	fixed.reset_value = RESET_FULL;
	if (!acpi || acpi_find_table(acpi, "FACP", &table) != LOAD_OK ||
		acpi_read_fadt(&table, &fadt) != LOAD_OK) {
		return;
	}
	fixed.present = true;
	fixed.smi_command = (uint16_t)fadt.smi_cmd;
	fixed.control[0] = io_port(&fadt.pm1a_control);
	fixed.control[1] = io_port(&fadt.pm1b_control);
	fixed.has_s5 = acpi_find_s5(acpi, &fixed.s5) == LOAD_OK;
	if (fadt.has_reset && io_port(&fadt.reset)) {
		fixed.reset_port = io_port(&fadt.reset);
		fixed.reset_value = fadt.reset_value;
	}
	open_block(partition, &fadt.pm1a_event);
	open_block(partition, &fadt.pm1b_event);
	open_block(partition, &fadt.pm_timer);
	open_block(partition, &fadt.gpe0);
	open_block(partition, &fadt.gpe1);
	enter_acpi_mode(&fadt);
}

static bool is_control(uint16_t port)
{
	return (fixed.control[0] && (port & ~1) == fixed.control[0]) ||
		(fixed.control[1] && (port & ~1) == fixed.control[1]);
}

bool fixed_owns_port(uint16_t port)
{
	return is_control(port) || port == PORT_RESET || port == fixed.reset_port ||
		(fixed.smi_command && port == fixed.smi_command);
}

uint32_t fixed_read(struct vp *vp, uint16_t port, uint8_t size)
{
	if (is_control(port)) {
		return size == 1 ? asm_in8(port) : asm_in16(port);
	}
	if (port == fixed.smi_command && size == 1) {
		return asm_in8(port); /* what was written last: no SMI comes of reading */
	}
	vp_deny(vp, COUNTER_DENIED_IO, port);
	return 0;
}

static void control_write(struct vp *vp, uint16_t port, uint8_t size, uint32_t value)
{
	uint16_t base = port & ~1;
	uint32_t control = asm_in16(base);

	if (size == 1) {
		value = port & 1 ? (control & 0xff) | (value & 0xff) << 8
				 : (control & 0xff00) | (value & 0xff);
	}
	if (value & PM1_CONTROL_SLEEP) {
		uint32_t type = (value & PM1_CONTROL_TYPE_MASK) >> PM1_CONTROL_TYPE_SHIFT;

		if (fixed.has_s5 && type == fixed.s5.type_a) {
			end_guest(vp, BLOCK_END_POWER_OFF, 0);
		}
		vp_deny(vp, COUNTER_DENIED_IO, port); /* other sleeping states are not offered */
		return;
	}
	/* Everything but SCI_EN, which stays on, and the sleep type, which only S5 may set. */
	asm_out16(base, (uint16_t)((value & ~PM1_CONTROL_TYPE_MASK) | PM1_CONTROL_SCI_EN));
}

void fixed_write(struct vp *vp, uint16_t port, uint8_t size, uint32_t value)
{
	if (is_control(port)) {
		control_write(vp, port, size, value);
		return;
	}
	if (port == PORT_RESET && (value & 0x04)) {
		end_guest(vp, BLOCK_END_RESET, port);
	}
	if (port == fixed.reset_port && port != PORT_RESET && (value & 0xff) == fixed.reset_value) {
		end_guest(vp, BLOCK_END_RESET, port);
	}
	vp_deny(vp, COUNTER_DENIED_IO, port);
}

void fixed_power_off(void)
{
	if (fixed.has_s5 && fixed.control[0]) {
		asm_out16(fixed.control[0],
			(uint16_t)(PM1_CONTROL_SCI_EN | fixed.s5.type_a << PM1_CONTROL_TYPE_SHIFT |
				PM1_CONTROL_SLEEP));
		if (fixed.control[1]) {
			asm_out16(fixed.control[1],
				(uint16_t)(PM1_CONTROL_SCI_EN |
					fixed.s5.type_b << PM1_CONTROL_TYPE_SHIFT |
					PM1_CONTROL_SLEEP));
		}
	}
	fixed_reset();
}

void fixed_reset(void)
{
	asm_out8(fixed.reset_port ? fixed.reset_port : PORT_RESET,
		fixed.reset_port ? fixed.reset_value : RESET_FULL);
	asm_out8(PORT_RESET, RESET_FULL);
	asm_halt_forever();
}
