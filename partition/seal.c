/*
 * Finding a guest's kernel and sealing it. Nothing of it is believed: the page tables that are
 * walked and the records that are found are the guest's, wrong ones protect or let through what is
 * the guest's own. What Parapet holds itself is bounded: places in its memory that were taken at
 * start.
 */
#include "arch/x86/asm.h"
#include "arch/x86/log.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "partition/guest_access.h"
#include "partition/seal.h"
#include "partition/seal_state.h"
#include "seal/code.h"

/*
 * Where Linux has its image, whatever its random place: include/asm/page_64_types.h calls it the
 * map.
 */
#define IMAGE_AREA     0xffffffff80000000ull
#define IMAGE_AREA_END 0xffffffffc0000000ull

#define SITES_MAX 81920 /* Debian's 6.12 has some 59,000 */

struct seal seal;

/* One run of pages that the kernel's own mapping makes read-only; offsets in the image. */
struct run_of_pages {
	uint32_t from;
	uint32_t to;
	bool execute;
};

struct layout {
	struct run_of_pages run[SEAL_RANGES_MAX];
	uint32_t runs;
	bool protected; /* nothing is both writable and executable */
};

static void set_step(enum seal_step step)
{
	/* Release: whoever finds the step (acquire, everywhere) finds what belongs to it. */
	atomic_u32_store(&seal.step, step, memory_order_release);
}

static bool move_step(enum seal_step from, enum seal_step to)
{
	uint32_t expected = from;

	/* Acquire pairs with set_step: what belongs to the step before is there for the next. */
	return atomic_u32_compare_exchange(&seal.step, &expected, to, memory_order_acq_rel);
}

static void fail(const char *why)
{
	log_line("W the kernel is not sealed: %s", why);
	set_step(SEAL_FAILED);
}

void seal_init(struct partition *partition)
{
	seal.partition = partition;
	if (!partition->options.protect_kernel) {
		return;
	}
	seal.sites.site = memory_take(SITES_MAX * sizeof(struct seal_site), PAGE_SIZE);
	seal.sites.room = SITES_MAX;
	set_step(SEAL_LOOKING);
}

bool seal_protect(struct vp *vp, const struct seal_range *range, uint32_t count, uint32_t access,
	uint32_t flags)
{
	struct protect *protect = &vp->partition->protect;
	struct protect_transaction *transaction = &vp->protect;

	protect_begin(protect, transaction, vp->id, VTL2, VTL0, PROTECT_KERNEL_SEAL, flags);
	for (uint32_t i = 0; i < count; i++) {
		if (protect_add(protect, transaction, GPA(range[i].base), range[i].bytes, access) !=
			PROTECT_DONE) {
			return false;
		}
	}
	return protect_ok(protect_commit(protect, transaction));
}

/* --- the image, when the kernel has just begun ------------------------------------------------ */

/* Does the kernel's mapping have a page here that continues the image? */
static bool continues(struct vp *vp, uint64_t address, uint64_t gpa)
{
	struct walk_result walk;

	return address >= IMAGE_AREA && address < IMAGE_AREA_END &&
		guest_look_up(vp, GVA(address), &walk) == WALK_OK && walk.gpa.value == gpa;
}

/*
 * The kernel maps its image, whole and in one piece, with pages of 2 MiB before it does anything.
 */
static bool find_image(struct vp *vp, uint64_t rip)
{
	struct seal_image *image = &seal.image;
	uint64_t first = ALIGN_DOWN(rip, SIZE_2M);
	uint64_t end = first + SIZE_2M;
	struct walk_result walk;

	if (guest_look_up(vp, GVA(first), &walk) != WALK_OK) {
		return false;
	}
	seal.gpa = walk.gpa.value;
	while (seal.gpa >= SIZE_2M && end - first < SEAL_IMAGE_BYTES_MAX &&
		continues(vp, first - SIZE_2M, seal.gpa - SIZE_2M)) {
		first -= SIZE_2M;
		seal.gpa -= SIZE_2M;
	}
	while (end - first < SEAL_IMAGE_BYTES_MAX && continues(vp, end, seal.gpa + (end - first))) {
		end += SIZE_2M;
	}
	*image = (struct seal_image){
		.bytes = memory_pointer(HPA(seal.gpa)),
		.base = first,
		.size = (uint32_t)(end - first),
		.text_end = (uint32_t)(end - first),
	};
	return guest_is_ram(vp->partition, GPA(seal.gpa), image->size);
}

static void collect(struct vp *vp, uint64_t rip)
{
	if (!find_image(vp, rip)) {
		fail("its image is not mapped in one piece");
		return;
	}
	switch (seal_sites_find(&seal.sites, &seal.image)) {
	case SEAL_NO_JUMPS:
		fail("no records of what it patches are found in it");
		return;
	case SEAL_TOO_MANY:
		fail("it has more records of what it patches than Parapet keeps");
		return;
	case SEAL_FOUND:
		break;
	}
	log_info("I kernel image of %u KiB at 0x%lx, memory 0x%lx: %u places that it may patch, "
		 "%u of them entries of functions",
		seal.image.size / 1024, seal.image.base, seal.gpa, seal.sites.count,
		seal.sites.entries);
	set_step(SEAL_WAITING);
}

/* --- the seal, when the kernel has made its mapping read-only --------------------------------- */

static bool is_padding(uint32_t offset)
{
	uint64_t first = seal_image_u64(&seal.image, offset);

	if (first != 0 && first != 0xccccccccccccccccull) {
		return false;
	}
	for (uint32_t i = 8; i < PAGE_SIZE; i += 8) {
		if (seal_image_u64(&seal.image, offset + i) != first) {
			return false;
		}
	}
	return true;
}

/*
 * Pages with nothing in them, at either end, which the kernel is about to use for something else.
 */
static void trim(struct run_of_pages *run)
{
	while (run->from < run->to && is_padding(run->from)) {
		run->from += PAGE_SIZE;
	}
	while (run->from < run->to && is_padding(run->to - (uint32_t)PAGE_SIZE)) {
		run->to -= PAGE_SIZE;
	}
}

static bool add_page(struct layout *layout, uint32_t from, uint32_t to, bool execute)
{
	struct run_of_pages *last = layout->runs ? &layout->run[layout->runs - 1] : NULL;

	if (last && last->to == from && last->execute == execute) {
		last->to = to;
		return true;
	}
	if (layout->runs == SEAL_RANGES_MAX) {
		return false;
	}
	layout->run[layout->runs++] = (struct run_of_pages){from, to, execute};
	return true;
}

/* What the kernel's own mapping says of its image. False: not what a kernel's looks like. */
static bool read_layout(struct vp *vp, struct layout *layout)
{
	const struct seal_image *image = &seal.image;
	uint32_t at = 0;

	*layout = (struct layout){.protected = true};
	while (at < image->size) {
		struct walk_result walk;
		uint32_t next = at + (uint32_t)PAGE_SIZE;

		if (guest_look_up(vp, GVA(image->base + at), &walk) == WALK_OK) {
			bool execute = walk.permissions & WALK_MAY_EXECUTE;

			if (walk.page_size > PAGE_SIZE) {
				next = (uint32_t)(ALIGN_DOWN(image->base + at, walk.page_size) +
					walk.page_size - image->base);
				next = next < image->size ? next : image->size;
			}
			if (walk.permissions & WALK_MAY_WRITE) {
				if (execute) {
					layout->protected = false;
					return true;
				}
			} else if (walk.gpa.value != seal.gpa + at ||
				!add_page(layout, at, next, execute)) {
				return false;
			}
		}
		at = next;
	}
	return true;
}

/*
 * Between the read-only data and what follows, at the next 2 MiB, the kernel gives the rest away
 * once all is read-only: page by page, the last one last. It has not yet if that still looks like
 * a part of the data. A kernel without such a rest looks the same, so a program that runs counts
 * as a sign too: that is later.
 */
static bool is_settled(const struct layout *layout, bool user)
{
	for (uint32_t i = 0; i < layout->runs && !user; i++) {
		const struct run_of_pages *run = &layout->run[i];

		if (!run->execute && (seal.image.base + run->to) % SIZE_2M == 0) {
			return false;
		}
	}
	return layout->protected && layout->runs;
}

static bool is_same_layout(const struct layout *a, const struct layout *b)
{
	bool same = a->runs == b->runs && a->protected == b->protected;

	for (uint32_t i = 0; same && i < a->runs; i++) {
		same = a->run[i].from == b->run[i].from && a->run[i].to == b->run[i].to &&
			a->run[i].execute == b->run[i].execute;
	}
	return same;
}

static void take_layout(struct layout *layout)
{
	struct seal_image *image = &seal.image;

	image->text = image->text_end = 0;
	seal.ranges = 0;
	for (uint32_t i = 0; i < layout->runs; i++) {
		struct run_of_pages *run = &layout->run[i];

		if (!run->execute) {
			trim(run);
		} else if (run->to - run->from > image->text_end - image->text) {
			image->text = run->from;
			image->text_end = run->to;
		}
		if (run->from < run->to) {
			seal.range[seal.ranges++] =
				(struct seal_range){seal.gpa + run->from, run->to - run->from};
		}
	}
}

static uint64_t sealed_bytes(void)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < seal.ranges; i++) {
		bytes += seal.range[i].bytes;
	}
	return bytes;
}

static void seal_kernel(struct vp *vp, bool user)
{
	struct layout layout, again;

	/* Twice: another VP may be changing it, always forward, while it is read. */
	if (!read_layout(vp, &layout) || !read_layout(vp, &again)) {
		if (move_step(SEAL_WAITING, SEAL_FAILED)) {
			log_line("W the kernel is not sealed: its mapping is not a kernel's");
		}
		return;
	}
	if (!is_same_layout(&layout, &again) || !is_settled(&layout, user) ||
		!move_step(SEAL_WAITING, SEAL_PREPARING)) {
		return;
	}
	take_layout(&layout);
	if (seal.image.text == seal.image.text_end) {
		fail("its mapping has no code");
		return;
	}
	/*
	 * Before the change: a write that it stops finds that it is to be judged.
	 * Executable as it was: programs execute the vDSO, which lies in the read-only data.
	 */
	set_step(SEAL_SEALING);
	if (!seal_protect(
		    vp, seal.range, seal.ranges, ACCESS_READ | ACCESS_EXECUTE, PROTECT_LOCK)) {
		fail("its memory's permissions cannot be changed");
		return;
	}
	log_line("N the kernel is sealed: %lu KiB of code, %lu KiB in all",
		(uint64_t)(seal.image.text_end - seal.image.text) / 1024, sealed_bytes() / 1024);
	set_step(SEAL_DONE);
}

void seal_look(struct vp *vp)
{
	enum seal_step step = atomic_u32_load(&seal.step, memory_order_acquire);
	uint64_t rip = vp->platform->registers.rip;
	struct vp_system_state state;
	struct walk_result walk;

	if ((step != SEAL_LOOKING && step != SEAL_WAITING) || vp->active_vtl != VTL0) {
		return;
	}
	vp->partition->ops->system_read(vp->platform, &state);
	if (!(state.efer & EFER_LMA)) {
		return;
	}
	if (step == SEAL_LOOKING) {
		if (state.cpl == 0 && rip >= IMAGE_AREA && rip < IMAGE_AREA_END &&
			move_step(SEAL_LOOKING, SEAL_COLLECTING)) {
			collect(vp, rip);
		}
		return;
	}
	/* One look at the first page of the code tells nearly always that it is too early. */
	if (guest_look_up(vp, GVA(seal.image.base), &walk) == WALK_OK &&
		!(walk.permissions & WALK_MAY_WRITE)) {
		seal_kernel(vp, state.cpl == 3);
	}
}

bool seal_owns(gpa_t gpa)
{
	enum seal_step step = atomic_u32_load(&seal.step, memory_order_acquire);

	if (step != SEAL_SEALING && step != SEAL_DONE) {
		return false;
	}
	for (uint32_t i = 0; i < seal.ranges; i++) {
		if (gpa.value - seal.range[i].base < seal.range[i].bytes) {
			return true;
		}
	}
	/* Acquire pairs with the release of whoever sealed the page: it came before that. */
	if (!atomic_u32_load(&seal.trampolines, memory_order_acquire)) {
		return false;
	}
	for (uint32_t i = 0; i < SEAL_TRAMPOLINES_MAX; i++) {
		/* Acquire: as the page was sealed, so is what is said of it known. */
		uint64_t page = atomic_u64_load(&seal.trampoline[i].page, memory_order_acquire);

		if (page && page == (gpa.value & PAGE_MASK)) {
			return true;
		}
	}
	return false;
}

void seal_deny(struct vp *vp, gpa_t gpa)
{
	vp_count_event(vp, COUNTER_PROTECT_DENIED);
	trace_write(&vp->trace, asm_rdtsc(), TRACE_GUEST_DENIED, TRACE_DENIED_SEALED, gpa.value);
	if (vp->block->counter[COUNTER_PROTECT_DENIED] <= 8) {
		log_line(
			"W VP %u: a write to the sealed kernel, memory 0x%lx, was denied, rip 0x%lx",
			vp->id, gpa.value, vp->platform->registers.rip);
	}
}

void seal_report(void)
{
	enum seal_step step = atomic_u32_load(&seal.step, memory_order_acquire);

	if (step != SEAL_OFF && step < SEAL_DONE) {
		log_line("W the kernel was never sealed: %s",
			step == SEAL_LOOKING ? "none that Parapet knows was seen"
					     : "it did not make its own code and data read-only");
	}
}
