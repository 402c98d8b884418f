/*
 * VTL1's local APIC: software alone. The processor's own APIC is VTL0's, and what it has for VTL0 waits
 * while VTL1 runs. Fixed interrupts, from VTL1s of this VP and others and from the synthetic interrupt
 * controller; no timer, no NMI, no INIT. Registers as in AMD64 APM volume 2, chapter 16.
 */
#ifndef PARAPET_PARTITION_VTL_APIC_H
#define PARAPET_PARTITION_VTL_APIC_H

#include "partition/partition.h"

/* Before the VP's VTL1 runs: registers as after a reset, switched off. */
void vtl_apic_reset(struct vtl_apic *apic);

/* Own VP, VTL1 active: a register in the APIC's page; unknown ones read 0 and swallow what is written. */
uint32_t vtl_apic_read(const struct vp *vp, uint32_t offset);
void vtl_apic_write(struct vp *vp, uint32_t offset, uint32_t value);

/* Own VP: is there an interrupt that makes the VP go to VTL1? TPR counts, RFLAGS.IF does not. */
bool vtl_apic_wants_in(const struct vp *vp);

/*
 * Own VP, before an entry of VTL1: the vector that is to be taken next if IF and CR8 allow it, or 0. It is
 * not requested any more: VTL1 may take it without an exit, and the same vector be sent again.
 */
uint8_t vtl_apic_offer(struct vp *vp);

/* Own VP, after an exit of VTL1: what was offered is in service unless it ends by itself, or is requested again. */
void vtl_apic_offered(struct vp *vp, bool taken);

/* Own VP: an interrupt from within Parapet, for this VP's VTL1. */
void vtl_apic_raise(struct vp *vp, uint8_t vector);

/* Own VP: what VTL1 has done to CR8 by itself. */
void vtl_apic_set_cr8(struct vp *vp, uint8_t cr8);

#endif
