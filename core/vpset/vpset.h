/*
 * Sets of virtual processors as a guest names them: a 64-bit mask, a sparse set of banks,
 * everybody. A set is walked lazily, straight over the hypercall input that was copied once; it is
 * never expanded into another form. What may not enter: anything that reads guest memory, any
 * state.
 */
#ifndef PARAPET_CORE_VPSET_H
#define PARAPET_CORE_VPSET_H

#include "parapet/types.h"

#define VPSET_BANK_BITS	  64
#define VPSET_BANKS_MAX	  64
#define VPSET_INDEX_COUNT 4096 /* VP indexes that a sparse set can name */
#define VPSET_NO_VP	  0xffffu

/* TLFS, Sparse Virtual Processor Sets: HV_GENERIC_SET_FORMAT. */
#define HV_GENERIC_SET_SPARSE_4K 0ull
#define HV_GENERIC_SET_ALL	 1ull

/*
 * From the index that the guest knows a VP by to Parapet's dense number. The embedder owns the
 * table; it holds VPSET_NO_VP where there is no VP, and does not change while sets are walked.
 */
struct vpset_map {
	const uint16_t *vp_of_index;
	uint32_t index_count; /* entries of the table, at most VPSET_INDEX_COUNT */
	uint32_t vp_count;
};

enum vpset_kind {
	VPSET_ALL,
	VPSET_BANKS,
	VPSET_ONE,
};

/* A set, valid as long as the map and the banks it was made from. May be copied. */
struct vpset {
	const struct vpset_map *map;
	enum vpset_kind kind;
	vp_id_t one;
	uint64_t bank_mask; /* bit b: bank b is present */
	const uint64_t *banks; /* the present ones, in order; NULL: the only bank is inline */
	uint64_t inline_bank;
};

enum vpset_status {
	VPSET_OK,
	VPSET_BAD_FORMAT, /* neither SPARSE_4K nor ALL */
	VPSET_BAD_SIZE, /* more banks announced than there is data for */
};

/* How far a walk has come. Nobody's business but this module's. */
struct vpset_iter {
	const struct vpset *set;
	uint64_t banks_left;
	uint64_t bits_left;
	uint32_t bank_first_index;
	uint32_t bank_words_used;
	vp_id_t next; /* VPSET_ALL and VPSET_ONE: the VP to deliver next */
};

/* Every VP that exists. */
struct vpset vpset_make_all(const struct vpset_map *map);

/* The VP with this dense number, which must exist. */
struct vpset vpset_make_one(const struct vpset_map *map, vp_id_t vp);

/* VP indexes 0 to 63, one bit each (TLFS, HvCallFlushVirtualAddressSpace: ProcessorMask). */
struct vpset vpset_make_mask(const struct vpset_map *map, uint64_t mask);

/*
 * HV_VP_SET (TLFS, Sparse Virtual Processor Sets). `bank_words` is how many 64-bit words of bank
 * contents follow in the copied input; a set may use fewer. `banks` stays the caller's and must
 * outlive the set. HV_GENERIC_SET_ALL ignores the banks. On an error *set is unspecified.
 */
enum vpset_status vpset_make_sparse(struct vpset *set, const struct vpset_map *map, uint64_t format,
	uint64_t bank_mask, const uint64_t *banks, uint32_t bank_words);

/* 64-bit words of bank contents that a set with this mask of valid banks has. */
uint32_t vpset_bank_words(uint64_t bank_mask);

/*
 * Whether each VP index in the set belongs to a VP. Walking a set skips those that do not, so this
 * is for callers who must refuse such a set; *index is the first offender.
 */
bool vpset_all_exist(const struct vpset *set, uint32_t *index);

/* Starts a walk: each VP that exists and is in the set, once, in the order of the indexes. */
void vpset_iter_begin(struct vpset_iter *iter, const struct vpset *set);

/* The next VP index of a set of banks, whether or not there is such a VP. */
static inline bool vpset_next_index(struct vpset_iter *iter, uint32_t *index)
{
	const struct vpset *set = iter->set;

	while (iter->bits_left == 0) {
		if (iter->banks_left == 0)
			return false;
		iter->bank_first_index =
			(uint32_t)__builtin_ctzll(iter->banks_left) * VPSET_BANK_BITS;
		iter->banks_left &= iter->banks_left - 1;
		iter->bits_left =
			set->banks ? set->banks[iter->bank_words_used++] : set->inline_bank;
	}
	*index = iter->bank_first_index + (uint32_t)__builtin_ctzll(iter->bits_left);
	iter->bits_left &= iter->bits_left - 1;
	return true;
}

static inline bool vpset_map_index(const struct vpset_map *map, uint32_t index, vp_id_t *vp)
{
	if (index >= map->index_count || map->vp_of_index[index] == VPSET_NO_VP)
		return false;
	*vp = map->vp_of_index[index];
	return true;
}

/* The next VP, or false at the end. Here, because a flush walks its set three times. */
static inline bool vpset_iter_next(struct vpset_iter *iter, vp_id_t *vp)
{
	const struct vpset *set = iter->set;
	uint32_t index;

	switch (set->kind) {
	case VPSET_ALL:
		if (iter->next >= set->map->vp_count)
			return false;
		*vp = iter->next++;
		return true;
	case VPSET_ONE:
		if (iter->next != set->one)
			return false;
		*vp = iter->next++;
		return true;
	case VPSET_BANKS:
		while (vpset_next_index(iter, &index)) {
			if (vpset_map_index(set->map, index, vp))
				return true;
		}
		return false;
	}
	return false;
}

#endif
