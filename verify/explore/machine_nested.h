/*
 * A VP's cache of the second stage as the scenarios' processor fills it: entries and, as processors do,
 * pointers to tables. Only a full flush empties it. What may not enter: who changes the tables.
 *
 * platform/sim has such a cache of its own: its entries say ACCESS_ bits and how often a table has been
 * freed, these are the processor's. The two become one when the sim machine runs on platform/svm/npt too.
 */
#ifndef PARAPET_EXPLORE_MACHINE_NESTED_H
#define PARAPET_EXPLORE_MACHINE_NESTED_H

#include "platform/svm/npt.h"

#define MACHINE_NESTED_ENTRIES 8
#define MACHINE_NESTED_TABLES  4

struct machine_nested {
	struct {
		bool valid;
		int level;
		uint64_t base;
		uint32_t access;
	} entry[MACHINE_NESTED_ENTRIES];
	struct {
		bool valid;
		int level; /* of the table's entries */
		uint64_t base;
		uint64_t pointer; /* the entry that led to it */
	} table[MACHINE_NESTED_TABLES];
	uint32_t next_entry;
	uint32_t next_table;
};

/* What the processor may do with the page: by its cache, or by a walk that fills the cache. */
uint32_t machine_nested_access(
	struct machine_nested *nested, const struct npt_space *space, enum vtl vtl, gpa_t gpa);

/* Drops the entry that a fault was about: the next access walks. */
void machine_nested_drop(struct machine_nested *nested, gpa_t gpa);

/* Everything. */
void machine_nested_flush(struct machine_nested *nested);

#endif
