/*
 * Nested page tables: what a lower VTL may do with which physical memory. An identity-mapped tree
 * for each VTL, shared by all VPs, with 1 GiB and 2 MiB entries wherever permissions are uniform:
 * entries are split only as far as a change needs, and merged as soon as they say the same. So
 * the same permissions make the same tree, whatever came before. Accessed and dirty bits are
 * preset, so that the processor never writes here and tables can be compared.
 *
 * What may not enter: who may change what, when translations are stale (core/protect), where
 * memory comes from. Compiles for tests on any computer.
 */
#ifndef PARAPET_SVM_NPT_H
#define PARAPET_SVM_NPT_H

#include "core/protect/protect_ops.h"
#include "platform/svm/npt_pool.h"

#define NPT_TREES 2 /* VTL0's and VTL1's */

/* Bits of address to a level. The explorer's tables are smaller. */
#ifndef NPT_LEVEL_BITS
#define NPT_LEVEL_BITS 9
#endif

struct npt {
	struct npt_pool *pool;
	struct atomic_u64 *root;
	bool huge; /* 1 GiB entries exist */
};

/* All trees and the pages that they are made of. */
struct npt_space {
	struct npt_pool pool;
	struct npt tree[NPT_TREES];
	uint32_t trees;
};

/* Table pages for `trees` trees that can map every page of the RAM by itself. */
uint32_t npt_pages_needed(uint32_t trees, uint64_t ram_bytes);

/* `trees` empty trees over a pool that npt_pool_init has filled. False: it is too small. */
bool npt_space_init(struct npt_space *space, uint32_t trees, bool huge);

/* Physical address of the root, for the control blocks. */
uint64_t npt_root(const struct npt_space *space, enum vtl vtl);

/* The platform's side of core/protect; its `platform` is a struct npt_space. */
extern const struct protect_ops npt_protect_ops;

#endif
