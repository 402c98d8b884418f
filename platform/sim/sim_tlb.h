/*
 * A VP's software TLB: a few translations with their size, address space and global bit. It belongs
 * to one thread. What may not enter: page tables, other VPs.
 */
#ifndef PARAPET_SIM_TLB_H
#define PARAPET_SIM_TLB_H

#include "core/flush/flush.h"
#include "platform/sim/sim_table.h"

#define SIM_TLB_ENTRIES 24

struct sim_tlb_entry {
	bool valid;
	uint32_t space;
	uint64_t base;
	struct sim_translation translation;
};

struct sim_tlb {
	struct sim_tlb_entry entry[SIM_TLB_ENTRIES];
	uint32_t next; /* to be replaced */
};

/* The translation of the page, NULL if there is none. */
const struct sim_tlb_entry *sim_tlb_find(const struct sim_tlb *tlb, struct sim_place place);

void sim_tlb_fill(struct sim_tlb *tlb, struct sim_place place, struct sim_translation translation);

/* Drops every translation that overlaps the range, in one space (or all) and global ones. */
void sim_tlb_invalidate(
	struct sim_tlb *tlb, const struct flush_range *range, bool all_spaces, uint32_t space);

/* FLUSH_FULL_* */
void sim_tlb_invalidate_full(struct sim_tlb *tlb, uint32_t full);

#endif
