/*
 * Flush hypercalls (TLFS, "HvCallFlushVirtualAddressSpace" and the three that follow it). The input
 * has been copied; sets and lists are walked where they lie in that copy.
 */
#include "hv/hv_call.h"
#include "hv/hv_status.h"

/* HV_FLUSH_FLAGS. */
#define HV_FLUSH_ALL_PROCESSORS	 (1ull << 0)
#define HV_FLUSH_ALL_SPACES	 (1ull << 1)
#define HV_FLUSH_NON_GLOBAL_ONLY (1ull << 2)
#define HV_FLUSH_EXTENDED_RANGES (1ull << 3)
#define HV_FLUSH_SPACE_FLAGS                                                                       \
	(HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_ALL_SPACES | HV_FLUSH_NON_GLOBAL_ONLY)
/* Ranges say nothing about global translations: TLFS, HvCallFlushVirtualAddressList. */
#define HV_FLUSH_LIST_FLAGS                                                                        \
	(HV_FLUSH_ALL_PROCESSORS | HV_FLUSH_ALL_SPACES | HV_FLUSH_EXTENDED_RANGES)

#define WORD_SPACE	0
#define WORD_FLAGS	1
#define WORD_MASK	2
#define WORD_SET_FORMAT 2

/*
 * Only the extended format can be malformed. Addresses that no translation has are ignored (TLFS,
 * HvCallFlushVirtualAddressList): invalidating one does nothing.
 */
static bool ranges_are_good(const struct hv_input *input, bool extended)
{
	struct flush_range range;

	for (uint32_t i = input->rep_start; extended && i < input->rep_count; i++) {
		if (!flush_range_decode(input->reps[i], extended, &range)) {
			return false;
		}
	}
	return true;
}

static bool is_empty(const struct vpset *set)
{
	struct vpset_iter iter;
	vp_id_t vp;

	vpset_iter_begin(&iter, set);
	return !vpset_iter_next(&iter, &vp);
}

static uint16_t flush(struct vp *vp, const struct hv_input *input, struct vpset set, bool list)
{
	struct partition *partition = vp->partition;
	uint64_t flags = input->words[WORD_FLAGS];
	uint32_t index;

	if (flags & ~(list ? HV_FLUSH_LIST_FLAGS : HV_FLUSH_SPACE_FLAGS)) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	if (flags & HV_FLUSH_ALL_PROCESSORS) {
		set = vpset_make_all(&partition->vp_indexes);
	} else if (!vpset_all_exist(&set, &index)) {
		return HV_STATUS_INVALID_VP_INDEX;
	} else if (is_empty(&set)) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	if (list && !ranges_are_good(input, flags & HV_FLUSH_EXTENDED_RANGES)) {
		return HV_STATUS_INVALID_PARAMETER;
	}

	const struct flush_request request = {
		.set = set,
		.vtl = vp->active_vtl,
		.caller = vp->active_vtl,
		.space = input->words[WORD_SPACE],
		.flags = (flags & HV_FLUSH_ALL_SPACES ? FLUSH_ALL_SPACES : 0) |
			(flags & HV_FLUSH_NON_GLOBAL_ONLY ? FLUSH_NON_GLOBAL : 0) |
			(flags & HV_FLUSH_EXTENDED_RANGES ? FLUSH_EXTENDED : 0),
		.ranges = list ? &input->reps[input->rep_start] : NULL,
		.range_count = list ? input->rep_count - input->rep_start : 0,
	};

	/* If somebody holds a TLB lock, the calling VTL of this VP does not run on before they let go. */
	flush_request(&partition->flush, vp->id, &request);
	return HV_STATUS_SUCCESS;
}

static uint16_t flush_mask(struct vp *vp, const struct hv_input *input, bool list)
{
	return flush(vp, input,
		vpset_make_mask(&vp->partition->vp_indexes, input->words[WORD_MASK]), list);
}

static uint16_t flush_sparse(struct vp *vp, const struct hv_input *input, bool list)
{
	struct vpset set;

	if (!hv_read_set(vp, input, WORD_SET_FORMAT, &set)) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	return flush(vp, input, set, list);
}

uint16_t hv_flush_space(struct vp *vp, const struct hv_input *input)
{
	return flush_mask(vp, input, false);
}

uint16_t hv_flush_list(struct vp *vp, const struct hv_input *input)
{
	return flush_mask(vp, input, true);
}

uint16_t hv_flush_space_ex(struct vp *vp, const struct hv_input *input)
{
	return flush_sparse(vp, input, false);
}

uint16_t hv_flush_list_ex(struct vp *vp, const struct hv_input *input)
{
	return flush_sparse(vp, input, true);
}
