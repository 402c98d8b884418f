/* Memory permissions that VTL1 gives VTL0, apart from the hypercall itself. */
#ifndef PARAPET_HV_PROTECT_H
#define PARAPET_HV_PROTECT_H

#include "partition/partition.h"

/*
 * HV_MAP_GPA_FLAGS as a permission for VTL0 (TLFS, "Memory Access Protections"). False: a bit that is
 * none, writing without reading, or what this machine cannot hold VTL0 to.
 */
bool hv_map_flags_access(const struct partition *partition, uint32_t flags, uint32_t *access);

/*
 * VTL1's default for all of VTL0's memory, but for pages that Parapet shares with the guest: those stay
 * as they are. Returns a status; if it is not success, nothing has changed.
 */
uint16_t hv_protect_default(struct vp *vp, uint32_t access);

#endif
