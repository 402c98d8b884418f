/* The exits of a VP, one function each; the run loop calls them. All act on vp->exit. */
#ifndef PARAPET_PARTITION_EXITS_H
#define PARAPET_PARTITION_EXITS_H

#include "partition/partition.h"

void exit_handle_cpuid(struct vp *vp);
void exit_handle_msr(struct vp *vp);
void exit_handle_io(struct vp *vp);
void exit_handle_memory(struct vp *vp);

#endif
