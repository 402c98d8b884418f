/*
 * --protect kernel: a stock Linux guest's code and read-only data, sealed against writes in VTL0
 * whatever the guest's own page tables say (docs/protect-kernel.md). What the kernel may go on
 * patching is told by seal/; this room finds the kernel, seals it, and answers its writes.
 */
#ifndef PARAPET_PARTITION_SEAL_H
#define PARAPET_PARTITION_SEAL_H

#include "partition/partition.h"

/* At start, with memory still to be had. Does nothing unless the options ask for it. */
void seal_init(struct partition *partition);

/*
 * Own VP, after each exit and before it is handled: collects the kernel's records, or seals it, if
 * this is the exit to do it at. Waits like any permission change; costs one load once all is done.
 */
void seal_look(struct vp *vp);

/* Is the page at this address sealed? */
bool seal_owns(gpa_t gpa);

enum seal_outcome {
	SEAL_WRITTEN,
	SEAL_REFUSED, /* the instruction has failed: exit_deny_permission */
	SEAL_AGAIN, /* nothing has happened: let the guest execute the instruction again */
};

/*
 * Own VP, with its TLB lock held: a write by the guest to `size` (1 to 8) bytes that begin at
 * `low`; where they cross into another page, that page is at `high`. One of the pages is sealed.
 * Carried out if it is the kernel's own patching. After SEAL_AGAIN translations are to be walked
 * anew.
 */
enum seal_outcome seal_write(struct vp *vp, gpa_t low, gpa_t high, uint32_t size, uint64_t value);

/* A write to a sealed page that is not let through: counted, traced, the first ones said. */
void seal_deny(struct vp *vp, gpa_t gpa);

/* At the guest's end: was what the options asked for ever done? */
void seal_report(void);

#endif
