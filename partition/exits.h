/* The exits of a VP, one function each; the run loop calls them. All act on vp->exit. */
#ifndef PARAPET_PARTITION_EXITS_H
#define PARAPET_PARTITION_EXITS_H

#include "partition/partition.h"

void exit_handle_cpuid(struct vp *vp);
void exit_handle_msr(struct vp *vp);
void exit_handle_io(struct vp *vp);
void exit_handle_memory(struct vp *vp);

/* permissions.c: what VTLs may do with the guest's RAM. */

/*
 * Own VP, at a memory fault: has the access been allowed since? True: the VP makes it again. Granting
 * shoots nothing down, so such faults are to be expected.
 */
bool permission_looks_different(struct vp *vp);
/* Own VP, at a memory fault: in RAM that the VTL may not use like that? True: it has been told. */
bool permission_is_denied(struct vp *vp);
/* Own VP: an access to RAM (an ACCESS_ bit) that its VTL may not make: counted, and told. */
void exit_deny_permission(struct vp *vp, gpa_t gpa, uint32_t access);

#endif
