/* Hypercalls of the Hyper-V TLFS (chapter "Hypercall Interface"). */
#ifndef PARAPET_HV_CALL_H
#define PARAPET_HV_CALL_H

#include "partition/partition.h"

/* The guest executed VMMCALL: carries out the call, or raises #UD if it may not make any. */
void hv_call(struct vp *vp);

#endif
