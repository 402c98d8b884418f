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
static bool is_allowed(struct vp *vp, gpa_t gpa, uint64_t bytes, uint32_t access)
{
	struct partition *partition = vp->partition;

	tlblock_take(&partition->tlblock, vp->id, VTL0, VTL2);
	for (uint64_t page = gpa.value & PAGE_MASK; page < gpa.value + bytes; page += PAGE_SIZE) {
		if (access & ~protect_access(&partition->protect, VTL0, GPA(page))) {
			return false;
		}
	}
	return true;
}

void *guest_ram(struct vp *vp, gpa_t gpa, uint64_t bytes, uint32_t access)
{
	if (!guest_is_ram(vp->partition, gpa, bytes) || !is_allowed(vp, gpa, bytes, access)) {
		return NULL;
	}
	return memory_pointer(HPA(gpa.value));
}

const void *guest_readable(struct vp *vp, gpa_t gpa, uint64_t bytes, uint32_t access)
{
	if (gpa.value >= ROM_BASE && gpa.value < ROM_END && bytes <= ROM_END - gpa.value) {
		return is_allowed(vp, gpa, bytes, access) ? memory_pointer(HPA(gpa.value)) : NULL;
	}
	return guest_ram(vp, gpa, bytes, access);
}

void guest_release(struct vp *vp)
{
	tlblock_release(&vp->partition->tlblock, vp->id, VTL0, VTL2);
}

static bool read_entry(void *arg, gpa_t gpa, void *data, size_t size)
{
	struct vp *vp = arg;
	const void *entry = guest_readable(vp, gpa, size, ACCESS_READ);

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

static bool mark_entry(void *arg, gpa_t gpa, uint64_t expected, uint64_t desired, size_t size)
{
	struct vp *vp = arg;
	void *entry = guest_ram(vp, gpa, size, ACCESS_READ | ACCESS_WRITE);

	if (!entry) {
		return false;
	}
	/* Locked, as the processor's own walker does it: the guest may change the entry meanwhile. */
	if (size == 8) {
		return __sync_bool_compare_and_swap((uint64_t *)entry, expected, desired);
	}
	return __sync_bool_compare_and_swap(
		(uint32_t *)entry, (uint32_t)expected, (uint32_t)desired);
}

enum walk_status guest_translate(
	struct vp *vp, gva_t address, uint32_t access, struct walk_result *result)
{
	struct vp_system_state state;
	const struct walk_memory memory = {
		.arg = vp,
		.read = read_entry,
		.compare_exchange = mark_entry,
	};

	/*
	 * What this walk finds is used until the next entry (which releases): whoever flushes from now
	 * on waits for that. A walk that begins after this sees every change flushed before.
	 */
	tlblock_take(&vp->partition->tlblock, vp->id, VTL0, VTL2);
	vp->partition->ops->system_read(vp->platform, &state);

	const struct walk_registers registers = {
		.cr0 = state.cr0,
		.cr3 = state.cr3,
		.cr4 = state.cr4,
		.efer = state.efer,
		.rflags = vp->platform->registers.rflags,
		.physical_bits = vp->partition->physical_bits,
		.huge_pages = vp->partition->huge_pages,
	};

	return walk_guest_tables(
		&registers, &memory, address, access | (state.cpl == 3 ? WALK_USER : 0), result);
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
	size_t count = 0;

	vp->partition->ops->system_read(vp->platform, &state);
	*mode = guest_mode(&state, vp->platform->registers.rflags);

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
		if (guest_translate(vp, GVA(at), WALK_EXECUTE, &walk) != WALK_OK) {
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
