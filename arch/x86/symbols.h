/*
 * Names of Parapet's functions for backtraces. The table is made from the linked image
 * (scripts/make-symbols) and linked in by a second pass; the first pass links an empty one.
 */
#ifndef PARAPET_ARCH_X86_SYMBOLS_H
#define PARAPET_ARCH_X86_SYMBOLS_H

#include <stdint.h>

struct symbol {
	uint32_t offset; /* of the function, from the start of the text */
	uint32_t name; /* offset in symbol_names */
};

/* Ascending offsets. */
extern const uint32_t symbol_count;
extern const struct symbol symbol_table[];
extern const char symbol_names[];

/* The function that holds `address` and how far into it, or NULL if none does. */
const char *symbol_find(uint64_t address, uint64_t *offset);

#endif
