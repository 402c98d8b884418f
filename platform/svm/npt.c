/* Nested page tables. See npt.h. AMD64 APM volume 2, 15.25. */
#include <parapet/platform.h>
#include "arch/x86/asm.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "platform/svm/npt.h"

#define LEVELS	4
#define ENTRIES 512
/* A nested walk is a user access; tables are limited by their leaves alone. */
#define TABLE_BITS (PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_ACCESSED)

static struct {
	uint64_t *root[2];
	uint32_t vtls;
	uint64_t pages;
	bool huge; /* 1 GiB entries exist */
} npt;

static uint64_t *table_new(void)
{
	npt.pages++;
	return memory_take(PAGE_SIZE, PAGE_SIZE);
}

void npt_init(uint32_t vtls)
{
	npt.vtls = vtls;
	for (uint32_t vtl = 0; vtl < vtls; vtl++) {
		npt.root[vtl] = table_new();
	}
	npt.huge = asm_cpuid(0x80000001, 0).edx & (1u << 26);
}

uint64_t npt_root(enum vtl vtl)
{
	return memory_hpa(npt.root[vtl]).value;
}

uint64_t npt_pages(void)
{
	return npt.pages;
}

static uint64_t level_bytes(int level)
{
	return 1ull << (PAGE_BITS + 9 * (level - 1));
}

static bool level_has_leaves(int level)
{
	return level == 1 || level == 2 || (level == 3 && npt.huge);
}

static uint64_t leaf(uint64_t address, uint32_t access, int level)
{
	if (access == ACCESS_NONE) {
		return 0;
	}
	return address | PTE_PRESENT | PTE_USER | PTE_ACCESSED | PTE_DIRTY |
		(access & ACCESS_WRITE ? PTE_WRITE : 0) | (access & ACCESS_EXECUTE ? 0 : PTE_NX) |
		(level > 1 ? PTE_LARGE : 0);
}

/* Replaces a leaf of a level above 1 by a table of the next that says the same. */
static uint64_t *split(uint64_t *entry, int level)
{
	uint64_t *table = table_new();
	uint64_t old = *entry;

	if (old & PTE_PRESENT) {
		uint64_t bits = old & ~PTE_ADDRESS & ~(level == 2 ? PTE_LARGE : 0);

		for (uint64_t i = 0; i < ENTRIES; i++) {
			table[i] = ((old & PTE_ADDRESS) + i * level_bytes(level - 1)) | bits;
		}
	}
	*entry = memory_hpa(table).value | TABLE_BITS;
	return table;
}

static void set_level(uint64_t *table, int level, uint64_t base, uint64_t end, uint32_t access)
{
	uint64_t size = level_bytes(level);

	while (base < end) {
		uint64_t *entry = &table[base / size % ENTRIES];
		uint64_t next = (base / size + 1) * size;
		uint64_t stop = next < end ? next : end;
		bool is_leaf = level == 1 || !(*entry & PTE_PRESENT) || (*entry & PTE_LARGE);

		if (level_has_leaves(level) && base % size == 0 && stop == next && is_leaf) {
			*entry = leaf(base, access, level);
		} else {
			uint64_t *lower = is_leaf ? split(entry, level)
						  : memory_pointer(HPA(*entry & PTE_ADDRESS));

			set_level(lower, level - 1, base, stop, access);
		}
		base = stop;
	}
}

void npt_set(gpa_t base, uint64_t bytes, uint32_t access)
{
	for (uint32_t vtl = 0; vtl < npt.vtls; vtl++) {
		set_level(npt.root[vtl], LEVELS, base.value, base.value + bytes, access);
	}
}
