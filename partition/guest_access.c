/* Parapet touching guest memory for the guest. See guest_access.h. */
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "arch/x86/string.h"
#include "partition/guest_access.h"
#include "partition/wakeup.h"

#define ROM_BASE 0xc0000
#define ROM_END	 0x100000

bool guest_is_ram(const struct partition *partition, gpa_t gpa, uint64_t bytes)
{
	const struct memory_span_list *ram = &partition->ram;

	if (wakeup_overlaps(gpa, bytes)) {
		return false; /* in the guest's memory, but not plain memory */
	}
	for (uint32_t i = 0; i < ram->count; i++) {
		if (gpa.value >= ram->span[i].base &&
			gpa.value - ram->span[i].base < ram->span[i].bytes &&
			bytes <= ram->span[i].bytes - (gpa.value - ram->span[i].base)) {
			return true;
		}
	}
	return false;
}

/*
 * What Parapet does for the guest is an access like the guest's own. The lock comes first: whoever
 * takes a permission away after this look waits until the lock is released.
 */
static bool is_allowed(struct vp *vp, enum vtl vtl, gpa_t gpa, uint64_t bytes, uint32_t access)
{
	struct partition *partition = vp->partition;

	tlblock_take(&partition->tlblock, vp->id, vtl, VTL2);
	for (uint64_t page = gpa.value & PAGE_MASK; page < gpa.value + bytes; page += PAGE_SIZE) {
		if (!protect_may(&partition->protect, vtl, GPA(page), access)) {
			return false;
		}
	}
	return true;
}

void *guest_ram_of(struct vp *vp, enum vtl vtl, gpa_t gpa, uint64_t bytes, uint32_t access)
{
	if (!guest_is_ram(vp->partition, gpa, bytes) || !is_allowed(vp, vtl, gpa, bytes, access)) {
		return NULL;
	}
	return memory_pointer(HPA(gpa.value));
}

void *guest_ram(struct vp *vp, gpa_t gpa, uint64_t bytes, uint32_t access)
{
	return guest_ram_of(vp, vp->active_vtl, gpa, bytes, access);
}

static const void *readable(struct vp *vp, enum vtl vtl, gpa_t gpa, uint64_t bytes, uint32_t access)
{
	if (gpa.value >= ROM_BASE && gpa.value < ROM_END && bytes <= ROM_END - gpa.value) {
		/* Permissions of ROM do not change: never less than what is asked for here. */
		return is_allowed(vp, vtl, gpa, bytes, access) ? memory_pointer(HPA(gpa.value))
							       : NULL;
	}
	return guest_ram_of(vp, vtl, gpa, bytes, access);
}

const void *guest_readable(struct vp *vp, gpa_t gpa, uint64_t bytes, uint32_t access)
{
	return readable(vp, vp->active_vtl, gpa, bytes, access);
}

void guest_release(struct vp *vp)
{
	tlblock_release(&vp->partition->tlblock, vp->id, vp->active_vtl, VTL2);
}

/* Whose tables a walk reads. */
struct walker {
	struct vp *vp;
	enum vtl vtl;
};

static bool read_entry(void *arg, gpa_t gpa, void *data, size_t size)
{
	const struct walker *walker = arg;
	const void *entry = readable(walker->vp, walker->vtl, gpa, size, ACCESS_READ);

	if (!entry) {
		return false;
	}
	/* One access: another VP may be writing the entry. */
	if (size == 8) {
		*(uint64_t *)data = *(const volatile uint64_t *)entry;
	} else {
		*(uint32_t *)data = *(const volatile uint32_t *)entry;
	}
	return true;
}

static enum walk_exchange mark_entry(
	void *arg, gpa_t gpa, uint64_t expected, uint64_t desired, size_t size)
{
	const struct walker *walker = arg;
	void *entry = guest_ram_of(walker->vp, walker->vtl, gpa, size, ACCESS_READ | ACCESS_WRITE);
	bool same;

	if (!entry) {
		return WALK_REFUSED;
	}
	/* Locked, as the processor's own walker does it: the guest may change the entry meanwhile. */
	if (size == 8) {
		same = __sync_bool_compare_and_swap((uint64_t *)entry, expected, desired);
	} else {
		same = __sync_bool_compare_and_swap(
			(uint32_t *)entry, (uint32_t)expected, (uint32_t)desired);
	}
	return same ? WALK_EXCHANGED : WALK_DIFFERS;
}

/* What a walk goes by, out of the state of that VTL; and WALK_USER if it runs programs. */
static uint32_t walk_registers_of(const struct vp *vp, enum vtl vtl,
	const struct vp_system_state *state, struct walk_registers *registers)
{
	*registers = (struct walk_registers){
		.cr0 = state->cr0,
		.cr3 = state->cr3,
		.cr4 = state->cr4,
		.efer = state->efer,
		.rflags = vp->vtl[vtl].platform->registers.rflags,
		.physical_bits = vp->partition->physical_bits,
		.huge_pages = vp->partition->huge_pages,
	};
	return state->cpl == 3 ? WALK_USER : 0;
}

uint32_t guest_walk_registers(struct vp *vp, enum vtl vtl, struct walk_registers *registers)
{
	struct vp_system_state state;

	vp->partition->ops->system_read(vp->vtl[vtl].platform, &state);
	return walk_registers_of(vp, vtl, &state, registers);
}

enum walk_status guest_walk(struct vp *vp, enum vtl vtl, const struct walk_registers *registers,
	gva_t address, uint32_t access, bool mark, struct walk_result *result)
{
	struct walker walker = {.vp = vp, .vtl = vtl};
	const struct walk_memory memory = {
		.arg = &walker,
		.read = read_entry,
		.compare_exchange = mark ? mark_entry : NULL,
	};

	/*
	 * What this walk finds is used until the next entry (which releases): whoever flushes from now
	 * on waits for that. A walk that begins after this sees every change flushed before.
	 */
	tlblock_take(&vp->partition->tlblock, vp->id, vtl, VTL2);
	return walk_guest_tables(registers, &memory, address, access, result);
}

uint32_t guest_walk_denied(
	const struct vp *vp, enum walk_status status, const struct walk_result *result)
{
	if (status != WALK_BAD_MEMORY || !guest_is_ram(vp->partition, result->gpa, 1)) {
		return ACCESS_NONE;
	}
	return result->marking ? ACCESS_WRITE : ACCESS_READ;
}

enum walk_status guest_translate(
	struct vp *vp, gva_t address, uint32_t access, struct walk_result *result)
{
	struct walk_registers registers;

	access |= guest_walk_registers(vp, vp->active_vtl, &registers);
	return guest_walk(vp, vp->active_vtl, &registers, address, access, true, result);
}

enum walk_status guest_look_up(struct vp *vp, gva_t address, struct walk_result *result)
{
	struct walk_registers registers;

	guest_walk_registers(vp, VTL0, &registers);
	return guest_walk(vp, VTL0, &registers, address, 0, false, result);
}

enum insn_mode guest_mode(const struct vp_system_state *state, uint64_t rflags)
{
	if (!(state->cr0 & CR0_PE) || (rflags & RFLAGS_VM)) {
		return INSN_REAL16;
	}
	if ((state->efer & EFER_LMA) && (state->cs.attributes & (1u << 9))) {
		return INSN_LONG64;
	}
	return state->cs.attributes & (1u << 10) ? INSN_PROT32 : INSN_PROT16;
}

size_t guest_fetch(struct vp *vp, uint8_t bytes[INSN_BYTES_MAX], enum insn_mode *mode)
{
	struct vp_system_state state;
	struct walk_registers registers;
	uint32_t access;
	size_t count = 0;

	vp->partition->ops->system_read(vp->platform, &state);
	*mode = guest_mode(&state, vp->platform->registers.rflags);
	access = WALK_EXECUTE | walk_registers_of(vp, vp->active_vtl, &state, &registers);

	uint64_t address = vp->platform->registers.rip;

	if (*mode != INSN_LONG64) {
		address = (uint32_t)(state.cs.base + address);
	}
	while (count < INSN_BYTES_MAX) {
		struct walk_result walk;
		uint64_t at = address + count;
		uint64_t chunk = PAGE_SIZE - at % PAGE_SIZE;

		if (chunk > INSN_BYTES_MAX - count) {
			chunk = INSN_BYTES_MAX - count;
		}
		if (guest_walk(vp, vp->active_vtl, &registers, GVA(at), access, true, &walk) !=
			WALK_OK) {
			break;
		}

		const void *ram = guest_readable(vp, walk.gpa, chunk, ACCESS_READ | ACCESS_EXECUTE);

		if (!ram) {
			break;
		}
		memcpy(bytes + count, ram, chunk);
		count += chunk;
	}
	return count;
}
