/* A VP's cache of the second stage, and the walk that fills it. See sim_npt.h. */
#include "platform/sim/sim_npt.h"

#include <string.h>

static uint64_t base_of(gpa_t gpa, uint32_t page_bits)
{
	return gpa.value >> page_bits << page_bits;
}

static uint64_t nested_load(const struct atomic_u64 *entry)
{
	/* Acquire: a processor cannot read a table before the pointer to it. */
	return atomic_u64_load(entry, memory_order_acquire);
}

/* The pointer that the processor has to the table that maps 1 << page_bits bytes, if it has one. */
static bool cached_table(const struct sim_nested *nested, gpa_t gpa, uint32_t page_bits,
	uint32_t *page, uint64_t *life)
{
	for (uint32_t i = 0; i < SIM_NESTED_TABLES; i++) {
		if (nested->table[i].valid && nested->table[i].page_bits == page_bits &&
			nested->table[i].base == base_of(gpa, page_bits)) {
			*page = nested->table[i].page;
			*life = nested->table[i].life;
			return true;
		}
	}
	return false;
}

static void keep_table(
	struct sim_nested *nested, gpa_t gpa, uint32_t page_bits, uint32_t page, uint64_t life)
{
	uint32_t i = nested->next_table++ % SIM_NESTED_TABLES;

	nested->table[i].valid = true;
	nested->table[i].page_bits = page_bits;
	nested->table[i].base = base_of(gpa, page_bits);
	nested->table[i].page = page;
	nested->table[i].life = life;
}

/* The entry for the address in the table that maps 1 << page_bits bytes around it. */
static uint64_t read_entry(const struct sim_npt *npt, gpa_t gpa, uint32_t page_bits, uint32_t page,
	uint64_t life, bool *freed)
{
	uint64_t index = gpa.value >> (page_bits - 9) & (SIM_NPT_ENTRIES - 1);
	uint64_t entry = nested_load(&npt->pool->page[page].entry[index]);

	*freed |= !(life & 1) || nested_load(&npt->pool->life[page]) != life;
	return entry;
}

static uint32_t nested_walk(struct sim_nested *nested, const struct sim_npt *npt, gpa_t gpa,
	uint32_t *page_bits, bool *freed)
{
	uint64_t entry = SIM_NPT_TABLE;
	uint64_t life;
	uint32_t page;

	*page_bits = 21;
	if (!cached_table(nested, gpa, 21, &page, &life)) {
		*page_bits = 30;
		if (!cached_table(nested, gpa, 30, &page, &life)) {
			entry = nested_load(&npt->gig[gpa.value >> 30]);
			page = (uint32_t)(entry >> SIM_NPT_SHIFT);
			if (entry & SIM_NPT_TABLE) {
				life = nested_load(&npt->pool->life[page]);
				keep_table(nested, gpa, 30, page, life);
			}
		}
	}
	while (entry & SIM_NPT_TABLE) {
		entry = read_entry(npt, gpa, *page_bits, page, life, freed);
		if (*freed)
			return 0;
		*page_bits -= 9;
		page = (uint32_t)(entry >> SIM_NPT_SHIFT);
		if (entry & SIM_NPT_TABLE) {
			life = nested_load(&npt->pool->life[page]);
			keep_table(nested, gpa, *page_bits, page, life);
		}
	}
	return (uint32_t)(entry & ACCESS_ALL);
}

uint32_t sim_nested_access(
	struct sim_nested *nested, const struct sim_npt *npt, gpa_t gpa, bool *freed)
{
	uint32_t page_bits;
	uint32_t access;
	uint32_t i;

	for (i = 0; i < SIM_NESTED_ENTRIES; i++) {
		if (nested->entry[i].valid &&
			nested->entry[i].base == base_of(gpa, nested->entry[i].page_bits))
			return nested->entry[i].access;
	}
	access = nested_walk(nested, npt, gpa, &page_bits, freed);
	/* What is not present is not kept. */
	if (access == 0)
		return 0;
	i = nested->next_entry++ % SIM_NESTED_ENTRIES;
	nested->entry[i].valid = true;
	nested->entry[i].page_bits = page_bits;
	nested->entry[i].base = base_of(gpa, page_bits);
	nested->entry[i].access = access;
	return access;
}

void sim_nested_drop(struct sim_nested *nested, gpa_t gpa)
{
	for (uint32_t i = 0; i < SIM_NESTED_ENTRIES; i++) {
		if (nested->entry[i].base == base_of(gpa, nested->entry[i].page_bits))
			nested->entry[i].valid = false;
	}
}

void sim_nested_flush(struct sim_nested *nested)
{
	memset(nested, 0, sizeof(*nested));
}
