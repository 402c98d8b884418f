/*
 * Exits of memory accesses: the few trapped pages are emulated, everything else that is closed
 * reads as all ones and swallows writes, as addresses do where the machine has nothing. The
 * address that came with the exit is not used: the instruction is decoded and its operands are
 * walked anew.
 */
#include "arch/x86/registers.h"
#include "partition/exits.h"
#include "partition/guest_access.h"
#include "partition/policy.h"
#include "partition/seal.h"
#include "partition/vtl.h"
#include "partition/vtl_apic.h"
#include "partition/wakeup.h"

/* What an access callback leaves for exit_handle_memory. */
struct access {
	struct vp *vp;
	enum walk_status status;
	gva_t address;
	uint32_t error;
	/*
	 * What this instruction has read of the mailbox's page, if it has: a write of the same
	 * bytes must find them unchanged.
	 */
	gpa_t seen_gpa;
	uint32_t seen_size;
	uint64_t seen;
	/* The instruction would do what its VTL may not do with that page: */
	uint32_t denied; /* ACCESS_ bit */
	gpa_t denied_gpa;
};

static uint64_t device_read(struct vp *vp, gpa_t gpa, uint32_t size)
{
	uint32_t offset = gpa.value & ~PAGE_MASK;

	if (lapic_owns_memory(gpa)) {
		uint64_t value = vp->active_vtl == VTL1 ? vtl_apic_read(vp, offset & ~15u)
							: lapic_read(vp, offset & ~15u);

		return offset % 16 < 4 ? value >> (8 * (offset % 4)) : 0;
	}
	if (ioapic_owns_memory(gpa)) {
		return ioapic_read(vp, GPA(gpa.value & ~3ull)) >> (8 * (offset % 4));
	}
	if (pci_owns_memory(gpa)) {
		if (size == 8) {
			return pci_memory_read(vp, gpa, 4) |
				(uint64_t)pci_memory_read(vp, GPA(gpa.value + 4), 4) << 32;
		}
		return pci_memory_read(vp, gpa, size);
	}
	if (wakeup_owns_memory(gpa)) {
		return wakeup_read(gpa, size);
	}
	vp_deny(vp, COUNTER_DENIED_MEMORY, gpa.value);
	return ~0ull;
}

static void device_write(struct vp *vp, gpa_t gpa, uint32_t size, uint64_t value)
{
	uint32_t offset = gpa.value & ~PAGE_MASK;

	if (lapic_owns_memory(gpa)) {
		/* AMD64 APM volume 2, 16.3.2: aligned dwords; other sizes are undefined. */
		if (size == 4 && offset % 16 == 0 && vp->active_vtl == VTL1) {
			vtl_apic_write(vp, offset, (uint32_t)value);
		} else if (size == 4 && offset % 16 == 0) {
			lapic_write(vp, offset, (uint32_t)value);
		}
	} else if (ioapic_owns_memory(gpa)) {
		if (offset % 4 == 0) {
			ioapic_write(vp, gpa, (uint32_t)value);
		}
	} else if (pci_owns_memory(gpa)) {
		pci_memory_write(vp, gpa, size == 8 ? 4 : size, (uint32_t)value);
		if (size == 8) {
			pci_memory_write(vp, GPA(gpa.value + 4), 4, (uint32_t)(value >> 32));
		}
	} else if (wakeup_owns_memory(gpa)) {
		wakeup_write(vp, gpa, size, value);
	} else {
		vp_deny(vp, COUNTER_DENIED_MEMORY, gpa.value);
	}
}

static bool access_translate(struct access *access, gva_t address, uint32_t flags, gpa_t *gpa)
{
	struct walk_result walk;

	access->status = guest_translate(access->vp, address, flags, &walk);
	access->address = address;
	access->error = walk.error_code;
	*gpa = walk.gpa;
	access->denied = guest_walk_denied(access->vp, access->status, &walk);
	access->denied_gpa = walk.gpa;
	return access->status == WALK_OK;
}

/* RAM that the VTL may not use like that. */
static bool is_denied(struct access *access, gpa_t gpa, uint32_t size, uint32_t needed)
{
	if (!guest_is_ram(access->vp->partition, gpa, size)) {
		return false;
	}
	access->denied = needed;
	access->denied_gpa = gpa;
	return true;
}

/* One piece within one page. */
static bool read_piece(struct access *access, gva_t address, uint32_t size, uint64_t *value)
{
	gpa_t gpa;

	if (!access_translate(access, address, 0, &gpa)) {
		return false;
	}

	const void *ram = guest_readable(access->vp, gpa, size, ACCESS_READ);

	*value = 0;
	if (ram) {
		__builtin_memcpy(value, ram, size);
	} else if (is_denied(access, gpa, size, ACCESS_READ)) {
		return false;
	} else {
		*value = device_read(access->vp, gpa, size);
		if (size < 8) {
			*value &= (1ull << (8 * size)) - 1;
		}
		if (wakeup_owns_memory(gpa)) {
			access->seen_gpa = gpa;
			access->seen_size = size;
			access->seen = *value;
		}
	}
	return true;
}

static bool write_piece(struct access *access, gpa_t gpa, uint32_t size, uint64_t value)
{
	void *ram = guest_ram(access->vp, gpa, size, ACCESS_WRITE);

	if (ram) {
		__builtin_memcpy(ram, &value, size);
	} else if (is_denied(access, gpa, size, ACCESS_WRITE)) {
		return false;
	} else if (access->seen_size == size && access->seen_gpa.value == gpa.value) {
		if (!wakeup_exchange(access->vp, gpa, size, access->seen, value)) {
			access->status = WALK_CHANGED;
			return false;
		}
	} else {
		device_write(access->vp, gpa, size, value);
	}
	return true;
}

static uint32_t bytes_in_page(gva_t address, uint32_t size)
{
	uint64_t left = PAGE_SIZE - address.value % PAGE_SIZE;

	return left < size ? (uint32_t)left : size;
}

static void note_access(struct access *access, enum regs_access kind, gva_t address, uint32_t size)
{
	struct vp *vp = access->vp;

	vp->partition->ops->note_access(vp->platform, kind, address.value, size);
}

static bool access_read(void *arg, gva_t address, unsigned int size, uint64_t *value)
{
	struct access *access = arg;
	uint32_t first = bytes_in_page(address, size);
	uint64_t high = 0;

	if (!read_piece(access, address, first, value)) {
		return false;
	}
	if (first < size) {
		if (!read_piece(access, GVA(address.value + first), size - first, &high)) {
			return false;
		}
		*value |= high << (8 * first);
	}
	note_access(access, REGS_READ, address, size);
	return true;
}

/* A sealed page: the kernel's own patching goes through, at once and whole. */
static bool write_sealed(
	struct access *access, gpa_t low, gpa_t high, uint32_t size, uint64_t value)
{
	switch (seal_write(access->vp, low, high, size, value)) {
	case SEAL_WRITTEN:
		return true;
	case SEAL_AGAIN:
		access->status = WALK_CHANGED;
		return false;
	case SEAL_REFUSED:
		break;
	}
	access->denied = ACCESS_WRITE;
	access->denied_gpa = seal_owns(low) ? low : high;
	return false;
}

static bool access_write(void *arg, gva_t address, unsigned int size, uint64_t value)
{
	struct access *access = arg;
	uint32_t first = bytes_in_page(address, size);
	gpa_t low, high = GPA(0);

	/* Both pages are translated before anything is written: a fault has no effect. */
	if (!access_translate(access, address, WALK_WRITE, &low)) {
		return false;
	}
	if (first < size &&
		!access_translate(access, GVA(address.value + first), WALK_WRITE, &high)) {
		return false;
	}
	if (seal_owns(low) || (first < size && seal_owns(high))) {
		if (!write_sealed(access, low, high, size, value)) {
			return false;
		}
		note_access(access, REGS_WRITE, address, size);
		return true;
	}
	/* And may be written: the TLB lock is held, so what is found here holds to the end. */
	void *ram = first < size ? guest_ram(access->vp, high, size - first, ACCESS_WRITE) : NULL;

	if (first < size && !ram && is_denied(access, high, size - first, ACCESS_WRITE)) {
		return false;
	}
	if (!write_piece(access, low, first, value)) {
		return false;
	}
	if (first < size) {
		/* The second piece of a locked access across pages is not atomic with the first. */
		uint64_t rest = value >> (8 * first);

		access->seen_size = 0;
		if (ram) {
			__builtin_memcpy(ram, &rest, size - first);
		} else {
			write_piece(access, high, size - first, rest);
		}
	}
	note_access(access, REGS_WRITE, address, size);
	return true;
}

static void count_denied(struct vp *vp)
{
	gpa_t gpa = vp->exit.memory.gpa;

	if (seal_owns(gpa)) {
		seal_deny(vp, gpa);
	} else {
		vp_deny(vp, COUNTER_DENIED_MEMORY, gpa.value);
	}
}

/* An instruction that is not carried out, on memory that it may not use or that is not there. */
static void refuse(struct vp *vp)
{
	count_denied(vp);
	vp_inject_exception(vp, VECTOR_GP, true, 0);
}

static void report_fault(struct access *access)
{
	struct vp *vp = access->vp;

	if (access->denied) {
		exit_deny_permission(vp, access->denied_gpa, access->denied);
		return;
	}
	switch (access->status) {
	case WALK_PAGE_FAULT:
		vp_inject_page_fault(vp, access->address, access->error);
		return;
	case WALK_CHANGED:
		return; /* the guest's tables are changing: it runs the instruction again */
	case WALK_BAD_MEMORY:
		/* Tables where the machine has nothing: all ones, so reserved bits are set. */
		vp_deny(vp, COUNTER_DENIED_MEMORY, access->address.value);
		vp_inject_page_fault(vp, access->address, WALK_ERROR_PRESENT | WALK_ERROR_RESERVED);
		return;
	default:
		vp_inject_exception(vp, VECTOR_GP, true, 0);
		return;
	}
}

static void emulate(struct vp *vp, const struct insn *insn)
{
	struct insn_registers *registers = &vp->platform->registers;
	struct access access = {.vp = vp};
	struct vp_system_state state;
	struct insn_context context = {
		.registers = registers,
		.arg = &access,
		.read = access_read,
		.write = access_write,
	};

	vp->partition->ops->system_read(vp->platform, &state);
	context.segment_base[INSN_ES] = state.es.base;
	context.segment_base[INSN_CS] = state.cs.base;
	context.segment_base[INSN_SS] = state.ss.base;
	context.segment_base[INSN_DS] = state.ds.base;
	context.segment_base[INSN_FS] = state.fs.base;
	context.segment_base[INSN_GS] = state.gs.base;

	switch (insn_emulate(insn, &context)) {
	case INSN_DONE:
		vp->partition->ops->clear_interrupt_shadow(vp->platform);
		vp->partition->ops->finish_instruction(vp->platform);
		return;
	case INSN_AGAIN: /* one element of a REP: the guest traps again for the next */
		vp->partition->ops->finish_instruction(vp->platform);
		return;
	case INSN_FAULT:
		report_fault(&access);
		return;
	case INSN_UNSUPPORTED:
		break;
	}
	if (insn->op == INSN_VECTOR && !seal_owns(vp->exit.memory.gpa)) {
		/* A vector store to nowhere is swallowed; a load leaves its register alone. */
		vp_deny(vp, COUNTER_DENIED_MEMORY, vp->exit.memory.gpa.value);
		vp->exit.next_rip = registers->rip + insn->length;
		vp_skip_instruction(vp);
		return;
	}
	refuse(vp);
}

static bool is_sealed_write(const struct vp_exit *exit)
{
	return exit->memory.write && !exit->memory.walk && seal_owns(exit->memory.gpa);
}

void exit_handle_memory(struct vp *vp)
{
	uint8_t bytes[INSN_BYTES_MAX];
	enum insn_mode mode;
	struct insn insn;

	if (permission_looks_different(vp)) {
		return;
	}
	/* The sealed kernel may patch itself: that write is looked at below. */
	if (!is_sealed_write(&vp->exit) && permission_is_denied(vp)) {
		return;
	}
	if (vp->exit.delivering) {
		/*
		 * The guest's stack or descriptor tables are where nothing is, or sealed: beyond
		 * help.
		 */
		count_denied(vp);
		end_guest(vp, BLOCK_END_TRIPLE_FAULT, 0);
	}
	if (vp->exit.memory.execute && vp->active_vtl == VTL0 &&
		wakeup_owns_fetch(vp->exit.memory.gpa)) {
		wakeup_offline(vp);
		return;
	}
	if (vp->exit.memory.execute) {
		/* All ones is no instruction; a no-execute page of devices is treated the same. */
		vp_deny(vp, COUNTER_DENIED_MEMORY, vp->exit.memory.gpa.value);
		vp_inject_exception(vp, VECTOR_UD, false, 0);
		return;
	}

	size_t fetched = guest_fetch(vp, bytes, &mode);

	if (!insn_decode(bytes, fetched, mode, &insn)) {
		if (insn.op == INSN_TRUNCATED && vtl_hears_of_intercepts(vp)) {
			/* VTL1 has taken the code away: VTL0 runs into that by itself. */
			return;
		}
		refuse(vp);
		return;
	}
	emulate(vp, &insn);
}
