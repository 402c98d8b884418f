/*
 * Nested page tables: what VTL0 may do with which physical memory. One identity-mapped tree for all
 * VPs, 1 GiB and 2 MiB entries wherever a range allows. Accessed and dirty bits are preset, so that
 * the processor never writes here and tables can be compared.
 */
#ifndef PARAPET_SVM_NPT_H
#define PARAPET_SVM_NPT_H

#include <parapet/types.h>

/* Takes the roots of so many VTLs' trees from Parapet's memory. At start, once. */
void npt_init(uint32_t vtls);

/* Physical address of a VTL's root, for the control blocks. */
uint64_t npt_root(enum vtl vtl);

/*
 * Sets the access (ACCESS_ bits) of [base, base + bytes), both 4 KiB-aligned; splits larger entries
 * as needed. Takes table pages from Parapet's memory: at start only, before any VP runs.
 */
void npt_set(gpa_t base, uint64_t bytes, uint32_t access);

/* Table pages in use. */
uint64_t npt_pages(void);

#endif
