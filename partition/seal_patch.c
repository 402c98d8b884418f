/*
 * Writes to sealed memory: the kernel's own patching is carried out, all else is refused. One VP
 * at a time: what the rules have looked at does not change before the write. A VP that finds
 * another at it lets its guest try again; nobody waits here.
 */
#include "arch/x86/memory.h"
#include "partition/guest_access.h"
#include "partition/seal.h"
#include "partition/seal_state.h"
#include "seal/code.h"
#include "seal/trampoline.h"

#define KERNEL_AREA 0xffffffff80000000ull /* of the image and of what it can call outside of it */

/* --- trampolines: pages outside the image, sealed while sealed code calls into them ----------- */

static struct seal_trampoline *trampoline_find(uint64_t address)
{
	for (uint32_t i = 0; i < SEAL_TRAMPOLINES_MAX; i++) {
		if (seal.trampoline[i].address == address) {
			return &seal.trampoline[i];
		}
	}
	return NULL;
}

static struct seal_trampoline *trampoline_at_page(uint64_t page)
{
	for (uint32_t i = 0; i < SEAL_TRAMPOLINES_MAX; i++) {
		/* Relaxed: only written with the writer's mark, which is held. */
		if (atomic_u64_load(&seal.trampoline[i].page, memory_order_relaxed) == page) {
			return &seal.trampoline[i];
		}
	}
	return NULL;
}

/* With the writer's mark. Release pairs with the acquires of seal_owns, which takes no mark. */
static void trampoline_set_page(struct seal_trampoline *trampoline, uint64_t page)
{
	atomic_u64_store(&trampoline->page, page, memory_order_release);
	atomic_u32_fetch_add(&seal.trampolines, page ? 1 : ~0u, memory_order_release);
}

/* Gives the page back. Only grants, so there is nothing to wait for. False: it stays sealed. */
static bool trampoline_drop(struct vp *vp, struct seal_trampoline *trampoline)
{
	const struct seal_range range = {
		atomic_u64_load(&trampoline->page, memory_order_relaxed), PAGE_SIZE};

	trampoline->call = 0;
	trampoline->sites = 0;
	if (!seal_protect(vp, &range, 1, trampoline->access, 0)) {
		return false;
	}
	/* After the grant: while it is sealed, nobody misses it. */
	trampoline_set_page(trampoline, 0);
	trampoline->address = 0;
	return true;
}

/* Seals the page of something that may be a trampoline: only then can it be looked at. */
static bool trampoline_seal(struct vp *vp, uint64_t address)
{
	struct seal_trampoline *trampoline = trampoline_find(0);
	struct walk_result walk;

	/* One that was sealed and whose first caller never came makes room. */
	for (uint32_t i = 0; !trampoline && i < SEAL_TRAMPOLINES_MAX; i++) {
		if (seal.trampoline[i].sites == 0 && trampoline_drop(vp, &seal.trampoline[i])) {
			trampoline = &seal.trampoline[i];
		}
	}
	if (!trampoline || guest_look_up(vp, GVA(address), &walk) != WALK_OK) {
		return false;
	}

	gpa_t page = GPA(walk.gpa.value & PAGE_MASK);
	const struct seal_range range = {page.value, PAGE_SIZE};

	if (!guest_is_ram(vp->partition, page, PAGE_SIZE) || seal_owns(page)) {
		return false;
	}
	trampoline->access = protect_access(&vp->partition->protect, VTL0, page);
	if (!(trampoline->access & ACCESS_WRITE)) {
		return false; /* somebody else's doing: not ours to give back */
	}
	trampoline->address = address;
	/* Before the change: whoever that stops finds the page. */
	trampoline_set_page(trampoline, page.value);
	if (!seal_protect(vp, &range, 1, ACCESS_READ | ACCESS_EXECUTE, 0)) {
		trampoline_set_page(trampoline, 0);
		trampoline->address = 0;
		return false;
	}
	return true;
}

/* A function entry is to call `address`, outside the image. */
static enum seal_outcome trampoline_admit(struct vp *vp, uint64_t address)
{
	struct seal_trampoline *trampoline = trampoline_find(address);
	uint32_t in_page = address & ~PAGE_MASK;

	if (address < KERNEL_AREA) {
		return SEAL_REFUSED;
	}
	if (!trampoline) {
		return trampoline_seal(vp, address) ? SEAL_AGAIN : SEAL_REFUSED;
	}
	if (!trampoline->call) {
		/* Relaxed: written under seal.writer, which this VP has. */
		uint64_t page = atomic_u64_load(&trampoline->page, memory_order_relaxed);
		const uint8_t *bytes = memory_pointer(HPA(page));

		if (!seal_trampoline_check(&seal.image, &seal.sites, bytes + in_page, address,
			    (uint32_t)PAGE_SIZE - in_page, &trampoline->call)) {
			trampoline_drop(vp, trampoline);
			return SEAL_REFUSED;
		}
	}
	trampoline->sites++;
	return SEAL_WRITTEN;
}

/* A function entry no longer calls it. */
static void trampoline_leave(struct vp *vp, uint64_t address)
{
	struct seal_trampoline *trampoline = trampoline_find(address);

	if (trampoline && trampoline->sites && --trampoline->sites == 0) {
		trampoline_drop(vp, trampoline);
	}
}

/* --- writes ----------------------------------------------------------------------------------- */

/* One store, as the guest's own would be. */
static void store(void *to, uint32_t size, uint64_t value)
{
	switch (size) {
	case 1:
		*(volatile uint8_t *)to = (uint8_t)value;
		return;
	case 2:
		*(volatile uint16_t *)to = (uint16_t)value;
		return;
	case 4:
		*(volatile uint32_t *)to = (uint32_t)value;
		return;
	default:
		*(volatile uint64_t *)to = value;
		return;
	}
}

static enum seal_outcome write_code(struct vp *vp, uint64_t gpa, uint32_t size, uint64_t value)
{
	uint64_t offset = gpa - seal.gpa;

	if (offset >= seal.image.size || !seal_image_is_text(&seal.image, (int64_t)offset, size)) {
		return SEAL_REFUSED;
	}

	struct seal_judgement judgement =
		seal_judge(&seal.image, &seal.sites, (uint32_t)offset, size, value);

	if (judgement.verdict == SEAL_ASK_TRAMPOLINE) {
		enum seal_outcome outcome = trampoline_admit(vp, judgement.outside);

		if (outcome != SEAL_WRITTEN) {
			return outcome;
		}
	} else if (judgement.verdict == SEAL_DENY) {
		return SEAL_REFUSED;
	}
	store(memory_pointer(HPA(gpa)), size, value);
	if (judgement.left) {
		trampoline_leave(vp, judgement.left);
	}
	return SEAL_WRITTEN;
}

static enum seal_outcome write_trampoline(
	struct seal_trampoline *trampoline, uint64_t gpa, uint32_t size, uint64_t value)
{
	uint64_t begin = (gpa & PAGE_MASK) + (trampoline->address & ~PAGE_MASK);
	int64_t at = (int64_t)(gpa - begin) - trampoline->call; /* in the CALL */
	uint8_t old[5], new[5];

	if (!trampoline->call || at < 0 || at + size > (int64_t)sizeof(old)) {
		return SEAL_REFUSED;
	}
	for (uint32_t i = 0; i < sizeof(old); i++) {
		const uint8_t *code = memory_pointer(HPA(begin + trampoline->call));
		int64_t in_write = (int64_t)i - at;

		old[i] = *(const volatile uint8_t *)(code + i);
		new[i] = in_write >= 0 && in_write < size ? (uint8_t)(value >> (8 * in_write))
							  : old[i];
	}

	int64_t call = (int64_t)(trampoline->address + trampoline->call - seal.image.base);

	if (seal_judge_tracer(&seal.image, call, old, new).verdict != SEAL_ALLOW) {
		return SEAL_REFUSED;
	}
	store(memory_pointer(HPA(gpa)), size, value);
	return SEAL_WRITTEN;
}

enum seal_outcome seal_write(struct vp *vp, gpa_t low, gpa_t high, uint32_t size, uint64_t value)
{
	bool crosses = low.value % PAGE_SIZE + size > PAGE_SIZE;

	if (crosses && high.value != ALIGN_DOWN(low.value, PAGE_SIZE) + PAGE_SIZE) {
		return SEAL_REFUSED;
	}
	/*
	 * Acquire pairs with the release below: what the VP before has written is seen by the
	 * rules. Without it two VPs could together make an instruction that neither was allowed.
	 */
	if (atomic_u32_exchange(&seal.writer, 1, memory_order_acquire)) {
		return SEAL_AGAIN;
	}

	struct seal_trampoline *trampoline =
		crosses ? NULL : trampoline_at_page(low.value & PAGE_MASK);
	enum seal_outcome outcome = trampoline
		? write_trampoline(trampoline, low.value, size, value)
		: write_code(vp, low.value, size, value);

	/* Release pairs with the exchange above, of whoever writes next. */
	atomic_u32_store(&seal.writer, 0, memory_order_release);
	return outcome;
}
