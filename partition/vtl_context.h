/* Initial contexts of VPs as the TLFS lays them out: checks, and into a platform's context. */
#ifndef PARAPET_PARTITION_VTL_CONTEXT_H
#define PARAPET_PARTITION_VTL_CONTEXT_H

#include "partition/vtl.h"

/* Descriptor attributes: the TLFS has bits 48 to 51 in between, a platform has not. */
struct vp_segment vtl_segment_in(const struct hv_segment *segment);
struct hv_segment vtl_segment_out(const struct vp_segment *segment);

/*
 * May a VTL run with these? Reserved bits, combinations that no processor runs on (AMD64 APM volume 2,
 * 15.5.1), and for VTL1 protected mode (TLFS, "Real Mode").
 */
bool vtl_control_is_valid(const struct partition *partition, enum vtl vtl, uint64_t cr0,
	uint64_t cr3, uint64_t cr4, uint64_t efer);
bool vtl_context_is_valid(
	const struct partition *partition, enum vtl vtl, const struct hv_initial_context *context);

/* Any VP, for a context that nobody runs: it begins there. What it does not name stays. */
void vtl_context_load(const struct platform_ops *ops, struct platform_vp *vp,
	const struct hv_initial_context *context);

#endif
