/*
 * Guest page-table walker: one loop for every paging mode, over a description of its levels.
 */
#include "arch/x86/insn/walk.h"

#define CR0_WP	 (1ull << 16)
#define CR0_PG	 (1ull << 31)
#define CR4_PSE	 (1ull << 4)
#define CR4_PAE	 (1ull << 5)
#define CR4_LA57 (1ull << 12)
#define CR4_SMEP (1ull << 20)
#define CR4_SMAP (1ull << 21)
#define CR4_PKE	 (1ull << 22)

#define EFER_LMA (1ull << 10)
#define EFER_NXE (1ull << 11)

#define RFLAGS_AC (1ull << 18)

#define ENTRY_PRESENT  (1ull << 0)
#define ENTRY_WRITE    (1ull << 1)
#define ENTRY_USER     (1ull << 2)
#define ENTRY_ACCESSED (1ull << 5)
#define ENTRY_DIRTY    (1ull << 6)
#define ENTRY_LARGE    (1ull << 7)
#define ENTRY_NX       (1ull << 63)
#define ENTRY_KEY(e)   ((e) >> 59 & 15)

#define LEVELS_MAX 5

/* Bits first to last, both included; none if first is above last. */
#define BITS(first, last) ((first) > (last) ? 0 : (~0ull << (first)) & (~0ull >> (63 - (last))))

/* What depends on the paging mode. Level 0 holds the entries of 4 KiB pages. */
struct layout {
	unsigned int levels;
	unsigned int entry_bytes;
	unsigned int index_bits;
	unsigned int large_levels; /* levels below this one, but 0, may hold large pages */
	uint64_t reserved; /* in the entries of every level */
	uint64_t root; /* of the top table */
	bool pae; /* with four directory pointers, which have no permissions */
	bool keys; /* protection keys are in force */
};

/* One walk: what was read on the way, top first. */
struct walk {
	const struct layout *layout;
	uint64_t entry[LEVELS_MAX];
	gpa_t where[LEVELS_MAX];
	unsigned int count;
	uint64_t granted; /* ENTRY_WRITE and ENTRY_USER of every level */
	bool no_execute;
};

static void layout_from_registers(const struct walk_registers *registers, struct layout *layout)
{
	bool huge = registers->huge_pages;

	*layout = (struct layout){.entry_bytes = 8, .index_bits = 9};
	if ((registers->efer & EFER_LMA) != 0) {
		layout->levels = (registers->cr4 & CR4_LA57) != 0 ? 5 : 4;
		layout->large_levels = huge ? 3 : 2;
		layout->reserved = BITS(registers->physical_bits, 51);
		layout->root = registers->cr3 & BITS(12, 51);
		layout->keys = (registers->cr4 & CR4_PKE) != 0;
	} else if ((registers->cr4 & CR4_PAE) != 0) {
		layout->levels = 3;
		layout->large_levels = 2;
		layout->reserved = BITS(registers->physical_bits, 62);
		layout->root = registers->cr3 & BITS(5, 31);
		layout->pae = true;
	} else {
		layout->levels = 2;
		layout->entry_bytes = 4;
		layout->index_bits = 10;
		layout->large_levels = (registers->cr4 & CR4_PSE) != 0 ? 2 : 1;
		layout->root = registers->cr3 & BITS(12, 31);
		return;
	}
	if ((registers->efer & EFER_NXE) == 0)
		layout->reserved |= ENTRY_NX;
}

static unsigned int level_shift(const struct layout *layout, unsigned int level)
{
	return PAGE_BITS + layout->index_bits * level;
}

static bool is_pointer_of_pae(const struct layout *layout, unsigned int level)
{
	return layout->pae && level == 2;
}

static bool is_leaf(const struct layout *layout, unsigned int level, uint64_t entry)
{
	return level == 0 || (level < layout->large_levels && (entry & ENTRY_LARGE) != 0);
}

/* PSE-36: bits 13 to 20 of a 4 MiB entry are bits 32 to 39 of the address. */
static uint64_t reserved_pse36(unsigned int physical_bits)
{
	unsigned int high = physical_bits < 40 ? physical_bits - 32 : 8;

	return BITS(13 + high, 21);
}

static uint64_t reserved_bits(
	const struct layout *layout, unsigned int level, uint64_t entry, unsigned int physical_bits)
{
	uint64_t reserved = layout->reserved;

	if (is_pointer_of_pae(layout, level))
		return reserved | ENTRY_NX | BITS(5, 8) | BITS(1, 2);
	if (level == 0)
		return reserved;
	if (!is_leaf(layout, level, entry))
		/* Without PSE, 32-bit paging ignores the bit; elsewhere it must be clear here. */
		return layout->entry_bytes == 4 ? reserved : reserved | ENTRY_LARGE;
	if (layout->entry_bytes == 4)
		return reserved_pse36(physical_bits);
	return reserved | BITS(13, level_shift(layout, level) - 1);
}

static uint64_t leaf_address(const struct layout *layout, unsigned int level, uint64_t entry)
{
	uint64_t address = entry & BITS(level_shift(layout, level), 51);

	if (layout->entry_bytes == 4 && level == 1)
		address |= (entry >> 13 & 0xFF) << 32;
	return address;
}

static bool read_entry(
	const struct walk_memory *memory, gpa_t where, unsigned int bytes, uint64_t *entry)
{
	uint32_t entry_32 = 0;

	if (bytes == 8)
		return memory->read(memory->arg, where, entry, 8);
	if (!memory->read(memory->arg, where, &entry_32, 4))
		return false;
	*entry = entry_32;
	return true;
}

/* Error code of a fault of this access, whatever its cause. */
static uint32_t access_error(const struct walk_registers *registers, uint32_t access)
{
	bool nx = (registers->cr4 & CR4_PAE) != 0 && (registers->efer & EFER_NXE) != 0;
	uint32_t error = 0;

	if ((access & WALK_WRITE) != 0)
		error |= WALK_ERROR_WRITE;
	if ((access & WALK_USER) != 0)
		error |= WALK_ERROR_USER;
	if ((access & WALK_EXECUTE) != 0 && (nx || (registers->cr4 & CR4_SMEP) != 0))
		error |= WALK_ERROR_FETCH;
	return error;
}

static bool key_allows(
	const struct walk_registers *registers, const struct walk *walk, uint32_t access)
{
	uint64_t leaf = walk->entry[walk->count - 1];
	uint32_t rights = registers->pkru >> (2 * ENTRY_KEY(leaf));
	bool enforced = (access & WALK_USER) != 0 || (registers->cr0 & CR0_WP) != 0;

	if (!walk->layout->keys || (access & WALK_EXECUTE) != 0 ||
		(walk->granted & ENTRY_USER) == 0)
		return true;
	if ((rights & 1) != 0)
		return false;
	return (rights & 2) == 0 || (access & WALK_WRITE) == 0 || !enforced;
}

static bool tables_allow(
	const struct walk_registers *registers, const struct walk *walk, uint32_t access)
{
	bool user_page = (walk->granted & ENTRY_USER) != 0;
	bool enforced = (access & WALK_USER) != 0 || (registers->cr0 & CR0_WP) != 0;

	if ((access & WALK_WRITE) != 0 && (walk->granted & ENTRY_WRITE) == 0 && enforced)
		return false;
	if ((access & WALK_EXECUTE) != 0 && walk->no_execute)
		return false;
	if ((access & WALK_USER) != 0)
		return user_page;
	if (!user_page)
		return true;
	/* The supervisor at a user's page. */
	if ((access & WALK_EXECUTE) != 0)
		return (registers->cr4 & CR4_SMEP) == 0;
	return (registers->cr4 & CR4_SMAP) == 0 ||
		((registers->rflags & RFLAGS_AC) != 0 && (access & WALK_IMPLICIT) == 0);
}

/* A table that is entered through one of its own entries makes that entry appear at two levels. */
static void entry_changed(struct walk *walk, unsigned int i, uint64_t desired)
{
	for (unsigned int j = i + 1; j < walk->count; j++)
		if (walk->where[j].value == walk->where[i].value)
			walk->entry[j] = desired;
}

/* Sets accessed bits, and the dirty bit of the leaf. */
static enum walk_status mark_entries(const struct walk_memory *memory, struct walk *walk,
	uint32_t access, struct walk_result *result)
{
	for (unsigned int i = 0; i < walk->count; i++) {
		bool leaf = i == walk->count - 1;
		uint64_t desired = walk->entry[i] | ENTRY_ACCESSED;

		if (walk->layout->pae && i == 0)
			continue; /* a directory pointer has no such bit */
		if (leaf && (access & WALK_WRITE) != 0)
			desired |= ENTRY_DIRTY;
		if (desired == walk->entry[i])
			continue;
		switch (memory->compare_exchange(memory->arg, walk->where[i], walk->entry[i],
			desired, walk->layout->entry_bytes)) {
		case WALK_EXCHANGED:
			break;
		case WALK_DIFFERS:
			return WALK_CHANGED;
		case WALK_REFUSED:
			result->gpa = walk->where[i];
			result->marking = true;
			return WALK_BAD_MEMORY;
		}
		entry_changed(walk, i, desired);
	}
	return WALK_OK;
}

/*
 * Reads entries down to the leaf, whose level it sets. On WALK_PAGE_FAULT, result's error code has
 * the cause only.
 */
static enum walk_status read_tables(const struct walk_memory *memory, uint64_t address,
	unsigned int physical_bits, struct walk *walk, unsigned int *level,
	struct walk_result *result)
{
	const struct layout *layout = walk->layout;
	uint64_t table = layout->root;

	for (*level = layout->levels - 1;; --*level) {
		uint64_t index = address >> level_shift(layout, *level);
		uint64_t entry;
		gpa_t where;

		index &= (1ull << layout->index_bits) - 1;
		where = GPA(table + index * layout->entry_bytes);
		if (!read_entry(memory, where, layout->entry_bytes, &entry)) {
			result->gpa = where;
			return WALK_BAD_MEMORY;
		}
		if ((entry & ENTRY_PRESENT) == 0)
			return WALK_PAGE_FAULT;
		if ((entry & reserved_bits(layout, *level, entry, physical_bits)) != 0) {
			result->error_code = WALK_ERROR_PRESENT | WALK_ERROR_RESERVED;
			return WALK_PAGE_FAULT;
		}
		walk->entry[walk->count] = entry;
		walk->where[walk->count] = where;
		walk->count++;
		if (!is_pointer_of_pae(layout, *level)) {
			walk->granted &= entry;
			walk->no_execute |= (entry & ENTRY_NX) != 0;
		}
		if (is_leaf(layout, *level, entry))
			return WALK_OK;
		table = entry & BITS(PAGE_BITS, 51);
	}
}

static bool is_canonical(uint64_t address, unsigned int levels)
{
	unsigned int unused = 64 - (PAGE_BITS + 9 * levels);

	return (uint64_t)((int64_t)(address << unused) >> unused) == address;
}

static enum walk_status walk_layout(const struct walk_registers *registers,
	const struct walk_memory *memory, const struct layout *layout, uint64_t address,
	uint32_t access, struct walk_result *result)
{
	struct walk walk = {.layout = layout, .granted = ENTRY_WRITE | ENTRY_USER};
	unsigned int level;
	enum walk_status status;
	uint64_t leaf;

	status = read_tables(memory, address, registers->physical_bits, &walk, &level, result);
	if (status != WALK_OK)
		return status;
	if (!key_allows(registers, &walk, access))
		result->error_code = WALK_ERROR_PRESENT | WALK_ERROR_KEY;
	else if (!tables_allow(registers, &walk, access))
		result->error_code = WALK_ERROR_PRESENT;
	if (result->error_code != 0)
		return WALK_PAGE_FAULT;
	if (memory->compare_exchange != NULL) {
		status = mark_entries(memory, &walk, access, result);
		if (status != WALK_OK)
			return status;
	}

	leaf = leaf_address(layout, level, walk.entry[walk.count - 1]);
	result->page_size = 1ull << level_shift(layout, level);
	result->gpa = GPA(leaf | (address & (result->page_size - 1)));
	if ((walk.granted & ENTRY_WRITE) != 0)
		result->permissions |= WALK_MAY_WRITE;
	if ((walk.granted & ENTRY_USER) != 0)
		result->permissions |= WALK_MAY_USER;
	if (!walk.no_execute)
		result->permissions |= WALK_MAY_EXECUTE;
	return WALK_OK;
}

enum walk_status walk_guest_tables(const struct walk_registers *registers,
	const struct walk_memory *memory, gva_t gva, uint32_t access, struct walk_result *result)
{
	uint64_t address = gva.value;
	struct layout layout;
	enum walk_status status;

	*result = (struct walk_result){0};
	if ((access & WALK_IMPLICIT) != 0)
		access &= ~WALK_USER;
	if ((registers->cr0 & CR0_PG) == 0) {
		result->gpa = GPA(address & BITS(0, 31));
		result->page_size = PAGE_SIZE;
		result->permissions = WALK_MAY_WRITE | WALK_MAY_EXECUTE | WALK_MAY_USER;
		return WALK_OK;
	}
	layout_from_registers(registers, &layout);
	if ((registers->efer & EFER_LMA) == 0)
		address &= BITS(0, 31);
	else if (!is_canonical(address, layout.levels))
		return WALK_NOT_CANONICAL;

	status = walk_layout(registers, memory, &layout, address, access, result);
	if (status == WALK_PAGE_FAULT)
		result->error_code |= access_error(registers, access);
	return status;
}
