/*
 * What a VP with two VTLs needs of the SVM platform: the switch, the registers that each VTL has of its
 * own, the ones that VTL1 watches, and VTL1's interrupts. Nothing about entries and exits.
 */
#ifndef PARAPET_SVM_VTL_H
#define PARAPET_SVM_VTL_H

#include <parapet/platform.h>

/* Once, at start: the bitmap of open MSRs, and the one with fewer open for watching (NULL: no VTL1). */
void svm_vtl_init_platform(const uint8_t *msrpm, const uint8_t *msrpm_watched);

/* Can VTL1 ask to hear of this MSR, which is open otherwise? */
bool svm_vtl_watches_msr(uint32_t index);

/* Members of struct platform_ops, whose comments are there. */
void svm_switch_vtl(struct platform_vp *from, struct platform_vp *to);
bool svm_msr_read(struct platform_vp *platform_vp, uint32_t index, uint64_t *value);
bool svm_msr_takes(uint32_t index, uint64_t value);
bool svm_msr_write(struct platform_vp *platform_vp, uint32_t index, uint64_t value);
uint32_t svm_watchable(void);
void svm_watch_registers(struct platform_vp *platform_vp, uint32_t set);
void svm_offer_interrupt(struct platform_vp *platform_vp, uint8_t vector);
uint8_t svm_interrupt_taken(struct platform_vp *platform_vp);
uint8_t svm_cr8_read(const struct platform_vp *platform_vp);
void svm_cr8_write(struct platform_vp *platform_vp, uint8_t value);
void svm_notify_interrupts(struct platform_vp *platform_vp, bool on);
/* debug_read and debug_write. */
uint64_t svm_debug_register_read(struct platform_vp *platform_vp, enum regs_name name);
void svm_debug_register_write(struct platform_vp *platform_vp, enum regs_name name, uint64_t value);

#endif
