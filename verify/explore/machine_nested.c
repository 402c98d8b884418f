/* The processor's side of the second stage; see the header. AMD64 APM volume 2, 5.3 and 15.25. */
#include "machine_nested.h"

#include <string.h>

#include "arch/x86/registers.h"
#include "explore.h"

#define LEVELS 4

static uint64_t base_of(gpa_t gpa, int level)
{
	return ALIGN_DOWN(gpa.value, 1ull << (PAGE_BITS + NPT_LEVEL_BITS * (level - 1)));
}

static bool is_pointer(uint64_t entry, int level)
{
	return level > 1 && (entry & (PTE_PRESENT | PTE_LARGE)) == PTE_PRESENT;
}

static uint64_t read_entry(const struct npt_space *space, uint64_t pointer, gpa_t gpa, int level)
{
	const struct atomic_u64 *table = npt_pool_table(&space->pool, pointer & PTE_ADDRESS);
	uint64_t index = gpa.value >> (PAGE_BITS + NPT_LEVEL_BITS * (level - 1));

	/* Acquire, pairs with N3: a processor does not read a table before the pointer to it. */
	return atomic_u64_load(&table[index & ((1u << NPT_LEVEL_BITS) - 1)], memory_order_acquire);
}

/* The pointer that the processor keeps to the table with entries of that level; 0: none. */
static uint64_t kept_table(const struct machine_nested *nested, gpa_t gpa, int level)
{
	for (uint32_t i = 0; i < MACHINE_NESTED_TABLES; i++) {
		if (nested->table[i].valid && nested->table[i].level == level &&
			nested->table[i].base == base_of(gpa, level + 1))
			return nested->table[i].pointer;
	}
	return 0;
}

static void keep_table(struct machine_nested *nested, gpa_t gpa, int level, uint64_t pointer)
{
	uint32_t i = nested->next_table++ % MACHINE_NESTED_TABLES;

	nested->table[i].valid = true;
	nested->table[i].level = level;
	nested->table[i].base = base_of(gpa, level + 1);
	nested->table[i].pointer = pointer;
}

/* The leaf for the page, and its level: from the lowest table that the processor knows. */
static uint64_t walk(struct machine_nested *nested, const struct npt_space *space, enum vtl vtl,
	gpa_t gpa, int *level)
{
	uint64_t entry = 0;

	for (*level = 1; *level < LEVELS; ++*level) {
		entry = kept_table(nested, gpa, *level);
		if (entry)
			break;
	}
	if (!entry)
		entry = npt_root(space, vtl);
	while (true) {
		entry = read_entry(space, entry, gpa, *level);
		if (!is_pointer(entry, *level))
			return entry;
		--*level;
		keep_table(nested, gpa, *level, entry);
	}
}

static uint32_t access_of(uint64_t entry)
{
	return ACCESS_READ | (entry & PTE_WRITE ? ACCESS_WRITE : 0) |
		(entry & PTE_NX ? 0 : ACCESS_EXECUTE);
}

uint32_t machine_nested_access(
	struct machine_nested *nested, const struct npt_space *space, enum vtl vtl, gpa_t gpa)
{
	uint64_t entry;
	uint32_t i;
	int level;

	for (i = 0; i < MACHINE_NESTED_ENTRIES; i++) {
		if (nested->entry[i].valid &&
			nested->entry[i].base == base_of(gpa, nested->entry[i].level))
			return nested->entry[i].access;
	}
	entry = walk(nested, space, vtl, gpa, &level);
	/* What is not present is not kept. */
	if (!(entry & PTE_PRESENT))
		return ACCESS_NONE;
	if ((entry & PTE_ADDRESS) != base_of(gpa, level)) {
		explore_fail("a processor finds another page's entry");
		return ACCESS_NONE;
	}
	i = nested->next_entry++ % MACHINE_NESTED_ENTRIES;
	nested->entry[i].valid = true;
	nested->entry[i].level = level;
	nested->entry[i].base = base_of(gpa, level);
	nested->entry[i].access = access_of(entry);
	return nested->entry[i].access;
}

void machine_nested_drop(struct machine_nested *nested, gpa_t gpa)
{
	for (uint32_t i = 0; i < MACHINE_NESTED_ENTRIES; i++) {
		if (nested->entry[i].base == base_of(gpa, nested->entry[i].level))
			nested->entry[i].valid = false;
	}
}

void machine_nested_flush(struct machine_nested *nested)
{
	memset(nested, 0, sizeof(*nested));
}
