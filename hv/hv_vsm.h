/* VSM as the guest configures it: VTL1 of the partition and of its VPs, and the VSM registers. */
#ifndef PARAPET_HV_VSM_H
#define PARAPET_HV_VSM_H

#include "partition/vtl.h"

#define HV_REGISTER_VSM_CODE_PAGE_OFFSETS  0x000d0002
#define HV_REGISTER_VSM_VP_STATUS	   0x000d0003
#define HV_REGISTER_VSM_PARTITION_STATUS   0x000d0004
#define HV_REGISTER_VSM_VINA		   0x000d0005
#define HV_REGISTER_VSM_CAPABILITIES	   0x000d0006
#define HV_REGISTER_VSM_PARTITION_CONFIG   0x000d0007
#define HV_REGISTER_VSM_SECURE_CONFIG_VTL0 0x000d0010

#define HV_REGISTER_CR_INTERCEPT_CONTROL   0x000e0000
#define HV_REGISTER_CR_INTERCEPT_CR0_MASK  0x000e0001
#define HV_REGISTER_CR_INTERCEPT_CR4_MASK  0x000e0002
#define HV_REGISTER_CR_INTERCEPT_MISC_MASK 0x000e0003

/* Is the call code one of the two that switch VTLs? */
bool hv_is_vtl_switch(uint16_t code);

/*
 * HvCallVtlCall and HvCallVtlReturn, with the whole input value and the control input. False: #UD, as
 * TLFS, "VTL Call Restrictions" and "VTL Return Control Input", say. No result value is written.
 */
bool hv_vtl_switch(struct vp *vp, uint64_t value, uint64_t control);

/* Has VTL1 set EnableVtlProtection? Only then may it restrict VTL0. */
bool hv_protection_is_enabled(void);

/* Has VTL1 said that VTL0 may not start or reset VPs (DenyLowerVtlStartup)? */
bool hv_startup_is_denied(void);

/* Has a VTL1 secrets that a reset must not leave in memory (ZeroMemoryOnReset)? */
bool hv_memory_is_zeroed_on_reset(const struct partition *partition);

/* A VSM register of a VTL that is not above the caller's; statuses as HvCallGetVpRegisters has them. */
uint16_t hv_vsm_register_get(
	struct vp *vp, enum vtl vtl, uint32_t name, struct hv_register_value *value);
uint16_t hv_vsm_register_set(
	struct vp *vp, enum vtl vtl, uint32_t name, const struct hv_register_value *value);

#endif
