/*
 * Sets of virtual processors, walked lazily. Pure functions over the caller's data; nothing here is
 * shared between processors.
 */
#include "core/vpset/vpset.h"

struct vpset vpset_make_all(const struct vpset_map *map)
{
	return (struct vpset){.map = map, .kind = VPSET_ALL};
}

struct vpset vpset_make_one(const struct vpset_map *map, vp_id_t vp)
{
	return (struct vpset){.map = map, .kind = VPSET_ONE, .one = vp};
}

struct vpset vpset_make_mask(const struct vpset_map *map, uint64_t mask)
{
	return (struct vpset){.map = map, .kind = VPSET_BANKS, .bank_mask = 1, .inline_bank = mask};
}

uint32_t vpset_bank_words(uint64_t bank_mask)
{
	return (uint32_t)__builtin_popcountll(bank_mask);
}

enum vpset_status vpset_make_sparse(struct vpset *set, const struct vpset_map *map, uint64_t format,
	uint64_t bank_mask, const uint64_t *banks, uint32_t bank_words)
{
	if (format == HV_GENERIC_SET_ALL) {
		*set = vpset_make_all(map);
		return VPSET_OK;
	}
	if (format != HV_GENERIC_SET_SPARSE_4K)
		return VPSET_BAD_FORMAT;
	if (vpset_bank_words(bank_mask) > bank_words)
		return VPSET_BAD_SIZE;
	*set = (struct vpset){
		.map = map,
		.kind = VPSET_BANKS,
		.bank_mask = bank_mask,
		.banks = banks,
	};
	return VPSET_OK;
}

void vpset_iter_begin(struct vpset_iter *iter, const struct vpset *set)
{
	*iter = (struct vpset_iter){.set = set};
	if (set->kind == VPSET_BANKS)
		iter->banks_left = set->bank_mask;
	else if (set->kind == VPSET_ONE)
		iter->next = set->one;
}

bool vpset_all_exist(const struct vpset *set, uint32_t *index)
{
	struct vpset_iter iter;
	vp_id_t vp;

	vpset_iter_begin(&iter, set);
	if (set->kind != VPSET_BANKS)
		return true;
	while (vpset_next_index(&iter, index)) {
		if (!vpset_map_index(set->map, *index, &vp))
			return false;
	}
	return true;
}
