/* A VP's cache of the second stage, and the walk that fills it. See sim_npt.h. */
#include "platform/sim/sim_npt.h"

#include <string.h>

static uint64_t base_of(gpa_t gpa, uint32_t page_bits)
{
	return gpa.value >> page_bits << page_bits;
}

/* The pointer that the processor keeps to the table that maps 1 << page_bits bytes; 0: none. */
static uint64_t kept_table(const struct sim_nested *nested, gpa_t gpa, uint32_t page_bits)
{
	for (uint32_t i = 0; i < SIM_NESTED_TABLES; i++) {
		if (nested->table[i].valid && nested->table[i].page_bits == page_bits &&
			nested->table[i].base == base_of(gpa, page_bits))
			return nested->table[i].pointer;
	}
	return 0;
}

static void keep_table(struct sim_nested *nested, gpa_t gpa, uint32_t page_bits, uint64_t pointer)
{
	uint32_t i = nested->next_table++ % SIM_NESTED_TABLES;

	nested->table[i].valid = true;
	nested->table[i].page_bits = page_bits;
	nested->table[i].base = base_of(gpa, page_bits);
	nested->table[i].pointer = pointer;
}

static uint32_t nested_walk(struct sim_nested *nested, const struct sim_npt *npt, gpa_t gpa,
	uint32_t *page_bits, bool *freed)
{
	uint64_t entry = kept_table(nested, gpa, SIM_NPT_TOP_BITS - SIM_NPT_LEVEL_BITS);

	*page_bits = entry ? SIM_NPT_TOP_BITS - SIM_NPT_LEVEL_BITS : SIM_NPT_TOP_BITS;
	if (!entry)
		entry = kept_table(nested, gpa, SIM_NPT_TOP_BITS);
	if (!entry) {
		/* Acquire: as sim_npt_read. */
		entry = atomic_u64_load(
			&npt->gig[gpa.value >> SIM_NPT_TOP_BITS], memory_order_acquire);
		if (entry & SIM_NPT_TABLE)
			keep_table(nested, gpa, SIM_NPT_TOP_BITS, entry);
	}
	while (entry & SIM_NPT_TABLE) {
		entry = sim_npt_read(npt->pool, entry, gpa, *page_bits, freed);
		if (*freed)
			return ACCESS_NONE;
		*page_bits -= SIM_NPT_LEVEL_BITS;
		if (entry & SIM_NPT_TABLE)
			keep_table(nested, gpa, *page_bits, entry);
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
	if (access == ACCESS_NONE)
		return ACCESS_NONE;
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
