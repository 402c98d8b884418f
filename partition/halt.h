/*
 * A guest that halts. By itself it sleeps in its own HLT, without an exit, and each flush must kick it
 * out. Where flushes keep finding a VP asleep, its HLT exits, and it sleeps in VTL2: flushes then wait
 * in its queue and need no kick. What an interrupt or an NMI is to the guest may not enter.
 */
#ifndef PARAPET_PARTITION_HALT_H
#define PARAPET_PARTITION_HALT_H

#include "partition/partition.h"

/* A kick has met the guest: decides whether its HLTs are to exit from now on. */
void halt_note_kick(struct vp *vp);

/*
 * The active VTL is about to halt, and the processor may forget that no interrupt comes before that HLT:
 * the HLT exits, and ends at once.
 */
void halt_stay_awake(struct vp *vp);

/* Its HLT has exited. */
void halt_begin(struct vp *vp);

/*
 * vp->halted: sleeps until a request comes (then serve it and call again) or an interrupt that ends
 * the HLT, which is delivered at the next entry.
 */
void halt_wait(struct vp *vp);

#endif
