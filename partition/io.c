/*
 * Ports: the table of those that are open, with reasons, and the dispatch of those that are mediated.
 * Everything else reads as all ones, and writes go nowhere.
 */
#include "arch/x86/asm.h"
#include "arch/x86/registers.h"
#include "partition/exits.h"
#include "partition/guest_access.h"
#include "partition/policy.h"

#define PORT_KBD_DATA	 0x60
#define PORT_KBD_COMMAND 0x64

/* String instructions: elements per exit, so that none holds a VP for long. */
#define STRING_ELEMENTS_MAX 256

static const struct {
	uint16_t first, last;
} open_ports[] = {
	{0x20, 0x21}, /* interrupt controllers: can only raise vectors in the guest */
	{0xa0, 0xa1}, {0x4d0, 0x4d1}, /* their edge/level registers */
	{0x40, 0x43}, /* timer */
	{0x61, 0x61}, /* its gate and the speaker */
	{0x70, 0x77}, /* clock and its memory */
	{0x80, 0x80}, /* diagnostics: written as a delay */
	{0xed, 0xed}, /* the other delay port */
	{0x3f8, 0x3ff}, /* first serial port: the console */
};

static uint8_t opened[65536 / 8];

bool io_is_open(uint16_t port)
{
	return opened[port / 8] & (1u << (port % 8));
}

void io_open_range(struct partition *partition, uint16_t first, uint16_t last)
{
	uint32_t exit_port = partition->options.exit_port;

	for (uint32_t port = first; port <= last; port++) {
		if (exit_port && port == exit_port) {
			continue; /* the guest's end comes by here, and is to be reported */
		}
		opened[port / 8] |= (uint8_t)(1u << (port % 8));
		partition->ops->open_ports((uint16_t)port, (uint16_t)port);
	}
}

void io_open(struct partition *partition)
{
	const struct partition_options *options = &partition->options;

	for (size_t i = 0; i < ARRAY_SIZE(open_ports); i++) {
		io_open_range(partition, open_ports[i].first, open_ports[i].last);
	}
	for (uint32_t i = 0; i < options->allow_io_count; i++) {
		io_open_range(partition, options->allow_io[i].first, options->allow_io[i].last);
	}
}

static uint32_t ones(uint8_t size)
{
	return size == 4 ? ~0u : (1u << (8 * size)) - 1;
}

static uint32_t raw_read(uint16_t port, uint8_t size)
{
	return size == 1 ? asm_in8(port) : size == 2 ? asm_in16(port) : asm_in32(port);
}

static void raw_write(uint16_t port, uint8_t size, uint32_t value)
{
	if (size == 1) {
		asm_out8(port, (uint8_t)value);
	} else if (size == 2) {
		asm_out16(port, (uint16_t)value);
	} else {
		asm_out32(port, value);
	}
}

/* The keyboard controller: everything but what drives A20 and the reset line. */
static void keyboard_write(struct vp *vp, uint16_t port, uint8_t value)
{
	static bool output_port_next; /* the machine has one; a race only confuses the guest */

	if (port == PORT_KBD_DATA) {
		if (output_port_next) {
			output_port_next = false;
			if (!(value & 1)) {
				end_guest(vp, BLOCK_END_RESET, port);
			}
			vp_deny(vp, COUNTER_DENIED_IO, port);
			return;
		}
		asm_out8(port, value);
		return;
	}
	output_port_next = value == 0xd1;
	if (value >= 0xf0 && !(value & 1)) {
		end_guest(vp, BLOCK_END_RESET, port); /* pulses the reset line */
	}
	if (value == 0xd1 || value == 0xdd || value == 0xdf || value >= 0xf0) {
		vp_deny(vp, COUNTER_DENIED_IO, port);
		return;
	}
	asm_out8(port, value);
}

static bool is_keyboard(uint16_t port)
{
	return port == PORT_KBD_DATA || port == PORT_KBD_COMMAND;
}

static bool all_open(uint16_t port, uint8_t size)
{
	for (uint32_t i = 0; i < size; i++) {
		if (port + i > 0xffff || !io_is_open((uint16_t)(port + i))) {
			return false;
		}
	}
	return true;
}

static uint32_t port_read(struct vp *vp, uint16_t port, uint8_t size)
{
	if (all_open(port, size)) { /* a string instruction that began on a closed page, say */
		return raw_read(port, size);
	}
	if (pci_owns_port(port)) {
		return pci_port_read(vp, port, size);
	}
	if (fixed_owns_port(port)) {
		return fixed_read(vp, port, size);
	}
	if (fw_cfg_owns_port(port)) {
		return fw_cfg_read(vp, port, size);
	}
	if (hotplug_owns_port(port)) {
		return hotplug_read(port, size);
	}
	if (is_keyboard(port) && size == 1) {
		return asm_in8(port);
	}
	if (port == 0x92) { /* system control port A: A20 is on, and stays so */
		return asm_in8(port);
	}
	vp_deny(vp, COUNTER_DENIED_IO, port);
	return ones(size);
}

static void port_write(struct vp *vp, uint16_t port, uint8_t size, uint32_t value)
{
	uint32_t exit_port = vp->partition->options.exit_port;

	if (exit_port && port == exit_port) {
		end_guest(vp, BLOCK_END_EXIT_PORT, value & ones(size));
	}
	if (all_open(port, size)) {
		raw_write(port, size, value);
	} else if (pci_owns_port(port)) {
		pci_port_write(vp, port, size, value);
	} else if (fixed_owns_port(port)) {
		fixed_write(vp, port, size, value);
	} else if (fw_cfg_owns_port(port)) {
		fw_cfg_write(vp, port, size, value);
	} else if (hotplug_owns_port(port)) {
		hotplug_write(vp, port, size, value);
	} else if (is_keyboard(port) && size == 1) {
		keyboard_write(vp, port, (uint8_t)value);
	} else if (port == 0x92 && (value & 1)) {
		end_guest(vp, BLOCK_END_RESET, port);
	} else {
		vp_deny(vp, COUNTER_DENIED_IO, port);
	}
}

/* One element of INS or OUTS. False: a fault has been injected instead, or the guest is to try again. */
static bool string_element(struct vp *vp, const struct insn *insn)
{
	struct insn_registers *registers = &vp->platform->registers;
	struct vp_system_state state;
	struct insn_context context = {.registers = registers};
	struct walk_result walk;
	uint16_t port = vp->exit.io.port;
	uint8_t size = vp->exit.io.size;
	bool in = vp->exit.io.in;
	uint32_t denied;

	vp->partition->ops->system_read(vp->platform, &state);
	context.segment_base[INSN_ES] = state.es.base;
	context.segment_base[INSN_CS] = state.cs.base;
	context.segment_base[INSN_SS] = state.ss.base;
	context.segment_base[INSN_DS] = state.ds.base;
	context.segment_base[INSN_FS] = state.fs.base;
	context.segment_base[INSN_GS] = state.gs.base;

	gva_t address = in ? insn_destination_address(insn, &context)
			   : insn_effective_address(insn, &context);
	enum walk_status status = guest_translate(vp, address, in ? WALK_WRITE : 0, &walk);

	if (status == WALK_PAGE_FAULT) {
		vp_inject_page_fault(vp, address, walk.error_code);
		return false;
	}
	if (status == WALK_CHANGED) {
		return false; /* the guest's tables are changing */
	}
	denied = guest_walk_denied(vp, status, &walk);
	if (denied) {
		exit_deny_permission(vp, walk.gpa, denied);
		return false;
	}

	uint8_t *memory = status == WALK_OK
		? guest_ram(vp, walk.gpa, size, in ? ACCESS_WRITE : ACCESS_READ)
		: NULL;

	if (!memory && status == WALK_OK && guest_is_ram(vp->partition, walk.gpa, size)) {
		exit_deny_permission(vp, walk.gpa, in ? ACCESS_WRITE : ACCESS_READ);
		return false;
	}
	if (!memory || walk.gpa.value % PAGE_SIZE + size > PAGE_SIZE) {
		vp_inject_exception(vp, VECTOR_GP, true, 0);
		return false;
	}
	vp->partition->ops->note_access(vp->platform, REGS_PORT, port, size);
	vp->partition->ops->note_access(
		vp->platform, in ? REGS_WRITE : REGS_READ, address.value, size);
	if (in) {
		uint32_t value = port_read(vp, port, size);

		__builtin_memcpy(memory, &value, size);
	} else {
		uint32_t value = 0;

		__builtin_memcpy(&value, memory, size);
		port_write(vp, port, size, value);
	}

	uint64_t mask = insn->address_size == 8 ? ~0ull
		: insn->address_size == 4	? 0xffffffff
						: 0xffff;
	uint64_t step = registers->rflags & (1u << 10) ? 0 - (uint64_t)size : size;
	uint64_t *index = &registers->gpr[in ? INSN_RDI : INSN_RSI];

	*index = (*index & ~mask) | ((*index + step) & mask);
	if (insn->flags & INSN_REP) {
		uint64_t *count = &registers->gpr[INSN_RCX];

		*count = (*count & ~mask) | ((*count - 1) & mask);
	}
	return true;
}

static void handle_string(struct vp *vp)
{
	uint8_t bytes[INSN_BYTES_MAX];
	enum insn_mode mode;
	struct insn insn;
	size_t fetched = guest_fetch(vp, bytes, &mode);

	if (!insn_decode(bytes, fetched, mode, &insn) ||
		(insn.op != INSN_INS && insn.op != INSN_OUTS)) {
		return; /* another VP has changed the instruction: the guest runs the new one */
	}

	uint64_t mask = insn.address_size == 8 ? ~0ull
		: insn.address_size == 4       ? 0xffffffff
					       : 0xffff;

	for (int i = 0; i < STRING_ELEMENTS_MAX; i++) {
		if ((insn.flags & INSN_REP) && !(vp->platform->registers.gpr[INSN_RCX] & mask)) {
			break;
		}
		if (!string_element(vp, &insn)) {
			return;
		}
		if (!(insn.flags & INSN_REP) || !(vp->platform->registers.gpr[INSN_RCX] & mask)) {
			break;
		}
		if (vp->partition->ops->finish_instruction(vp->platform)) {
			return; /* a trap between two elements */
		}
	}
	if (!(insn.flags & INSN_REP) || !(vp->platform->registers.gpr[INSN_RCX] & mask)) {
		vp->exit.next_rip = vp->platform->registers.rip + insn.length;
		vp_skip_instruction(vp);
	} /* else the guest comes here again for the rest */
}

void exit_handle_io(struct vp *vp)
{
	uint64_t *rax = &vp->platform->registers.gpr[INSN_RAX];
	uint16_t port = vp->exit.io.port;
	uint8_t size = vp->exit.io.size;

	if (vp->exit.io.string) {
		handle_string(vp);
		return;
	}
	vp->partition->ops->note_access(vp->platform, REGS_PORT, port, size);
	if (vp->exit.io.in) {
		uint32_t value = port_read(vp, port, size);

		*rax = size == 4 ? value : (*rax & ~(uint64_t)ones(size)) | (value & ones(size));
	} else {
		port_write(vp, port, size, (uint32_t)*rax);
	}
	vp_skip_instruction(vp);
}
