/* A software TLB; see the header. */
#include "platform/sim/sim_tlb.h"

const struct sim_tlb_entry *sim_tlb_find(const struct sim_tlb *tlb, struct sim_place place)
{
	uint64_t gva = sim_place_gva(place).value;

	for (uint32_t i = 0; i < SIM_TLB_ENTRIES; i++) {
		const struct sim_tlb_entry *entry = &tlb->entry[i];

		if (!entry->valid ||
			gva >> entry->translation.page_bits !=
				entry->base >> entry->translation.page_bits)
			continue;
		if (entry->space == place.space || entry->translation.entry & SIM_GLOBAL)
			return entry;
	}
	return NULL;
}

void sim_tlb_fill(struct sim_tlb *tlb, struct sim_place place, struct sim_translation translation)
{
	uint64_t gva = sim_place_gva(place).value;

	tlb->entry[tlb->next] = (struct sim_tlb_entry){
		.valid = true,
		.space = place.space,
		.base = gva >> translation.page_bits << translation.page_bits,
		.translation = translation,
	};
	tlb->next = (tlb->next + 1) % SIM_TLB_ENTRIES;
}

void sim_tlb_invalidate(
	struct sim_tlb *tlb, const struct flush_range *range, bool all_spaces, uint32_t space)
{
	uint64_t first = range->base.value;
	uint64_t end = first + ((uint64_t)range->pages << range->page_bits);

	for (uint32_t i = 0; i < SIM_TLB_ENTRIES; i++) {
		struct sim_tlb_entry *entry = &tlb->entry[i];
		uint64_t entry_end = entry->base + (1ull << entry->translation.page_bits);

		if (entry->base >= end || entry_end <= first)
			continue;
		if (all_spaces || entry->space == space || entry->translation.entry & SIM_GLOBAL)
			entry->valid = false;
	}
}

void sim_tlb_invalidate_full(struct sim_tlb *tlb, uint32_t full)
{
	for (uint32_t i = 0; i < SIM_TLB_ENTRIES; i++) {
		struct sim_tlb_entry *entry = &tlb->entry[i];

		if (full & FLUSH_FULL_ALL || !(entry->translation.entry & SIM_GLOBAL))
			entry->valid = false;
	}
}
