/*
 * VSM (TLFS, chapter "Virtual Secure Mode"): enabling VTL1, VTL call and return, and the registers that
 * say what there is and how it is set up. How a VP switches is partition/vtl's.
 */
#include "core/atomic.h"
#include "hv/hv_call.h"
#include "hv/hv_protect.h"
#include "hv/hv_status.h"
#include "hv/hv_vsm.h"

#define WORD_VTL     1 /* HvCallEnablePartitionVtl: byte 8 the VTL, byte 9 flags, the rest zero */
#define WORD_VP	     1 /* HvCallEnableVpVtl: VP index, then in byte 12 the VTL, the rest zero */
#define WORD_CONTEXT 2

/* HV_REGISTER_VSM_PARTITION_STATUS. */
#define STATUS_MAXIMUM_VTL_SHIFT 16

/* HV_REGISTER_VSM_VP_STATUS. */
#define VP_STATUS_ENABLED_SHIFT 16

/*
 * HV_REGISTER_VSM_CAPABILITIES, bits counted from the least significant as clients do. The TLFS's table
 * counts from the other end.
 */
#define CAPABILITIES_DR6_SHARED		(1ull << 0)
#define CAPABILITIES_DENY_LOWER_STARTUP (1ull << 17)

/* HV_REGISTER_VSM_PARTITION_CONFIG. */
#define CONFIG_ENABLE_PROTECTION  (1ull << 0)
#define CONFIG_MASK_SHIFT	  1
#define CONFIG_MASK		  (0xfull << CONFIG_MASK_SHIFT)
#define CONFIG_ZERO_ON_RESET	  (1ull << 5)
#define CONFIG_DENY_LOWER_STARTUP (1ull << 6)
#define CONFIG_INITIAL		  (CONFIG_MASK | CONFIG_ZERO_ON_RESET)
#define CONFIG_KNOWN                                                                               \
	(CONFIG_ENABLE_PROTECTION | CONFIG_MASK | CONFIG_ZERO_ON_RESET | CONFIG_DENY_LOWER_STARTUP)

/* HV_REGISTER_VSM_VP_SECURE_VTL_CONFIG. */
#define SECURE_CONFIG_TLB_LOCKED (1ull << 1)

#define VINA_KNOWN (VTL_VINA_VECTOR | VTL_VINA_ENABLED | VTL_VINA_AUTO_RESET | VTL_VINA_AUTO_EOI)

/*
 * Partition-wide. Zero is how a partition begins: what begins as ones is kept inverted. All
 * accesses are relaxed: a value stands for itself, and who is told of a new one by another VP has been
 * told through the guest's memory.
 */
static struct {
	struct atomic_u64 config; /* HV_REGISTER_VSM_PARTITION_CONFIG ^ CONFIG_INITIAL */
	/* VTL0 has put VTL1 onto a VP: the others are VTL1's to enable. */
	struct atomic_u32 claimed;
} vsm;

static uint64_t config_read(void)
{
	return atomic_u64_load(&vsm.config, memory_order_relaxed) ^ CONFIG_INITIAL;
}

bool hv_protection_is_enabled(void)
{
	return config_read() & CONFIG_ENABLE_PROTECTION;
}

bool hv_startup_is_denied(void)
{
	return config_read() & CONFIG_DENY_LOWER_STARTUP;
}

bool hv_memory_is_zeroed_on_reset(const struct partition *partition)
{
	return vtl_partition_enabled(partition) && (config_read() & CONFIG_ZERO_ON_RESET);
}

/* --- enabling --------------------------------------------------------------------------------------- */

/*
 * HvCallEnablePartitionVtl. There is VTL1 and no other to enable. No feature of the flags is here: see
 * capabilities().
 */
uint16_t hv_enable_partition_vtl(struct vp *vp, const struct hv_input *input)
{
	uint8_t vtl = (uint8_t)input->words[WORD_VTL];

	if (input->words[0] != HV_PARTITION_ID_SELF) {
		return HV_STATUS_INVALID_PARTITION_ID;
	}
	if (vtl > VTL2 || input->words[WORD_VTL] >> 8) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	if (vtl != VTL1) {
		return HV_STATUS_ACCESS_DENIED;
	}
	return vtl_enable_partition(vp->partition) == VTL_OK ? HV_STATUS_SUCCESS
							     : HV_STATUS_INVALID_VTL_STATE;
}

static uint16_t enable(struct vp *target, const struct hv_input *input)
{
	struct hv_initial_context context;

	__builtin_memcpy(&context, &input->words[WORD_CONTEXT], sizeof(context));
	switch (vtl_enable_vp(target, &context)) {
	case VTL_OK:
		return HV_STATUS_SUCCESS;
	case VTL_BAD_CONTEXT:
		return HV_STATUS_INVALID_REGISTER_VALUE;
	case VTL_BAD_STATE:
		break;
	}
	return HV_STATUS_VTL_ALREADY_ENABLED;
}

/*
 * HvCallEnableVpVtl. VTL0 may give VTL1 to its own VP, where it knows what it runs, and only to the
 * first one; from then on it is VTL1's business (TLFS: "all other calls to enable the VTL must come
 * from equal or greater VTLs").
 */
uint16_t hv_enable_vp_vtl(struct vp *vp, const struct hv_input *input)
{
	uint64_t word = input->words[WORD_VP];
	struct vp *target = hv_find_vp(vp, (uint32_t)word);
	uint32_t unclaimed = 0;
	uint16_t status;

	if (input->words[0] != HV_PARTITION_ID_SELF) {
		return HV_STATUS_INVALID_PARTITION_ID;
	}
	if (!target) {
		return HV_STATUS_INVALID_VP_INDEX;
	}
	if ((word >> 32 & 0xff) != VTL1 || word >> 40) {
		return HV_STATUS_INVALID_PARAMETER;
	}
	if (!vtl_partition_enabled(vp->partition)) {
		return HV_STATUS_INVALID_VTL_STATE;
	}
	if (vp->active_vtl == VTL1) {
		return enable(target, input);
	}
	/* Relaxed: of two VPs that try at once one is refused; nothing is handed over. */
	if (target != vp ||
		!atomic_u32_compare_exchange(&vsm.claimed, &unclaimed, 1, memory_order_relaxed)) {
		return HV_STATUS_ACCESS_DENIED;
	}
	status = enable(target, input);
	if (status != HV_STATUS_SUCCESS) {
		atomic_u32_store(&vsm.claimed, 0, memory_order_relaxed);
	}
	return status;
}

/* --- switching -------------------------------------------------------------------------------------- */

bool hv_is_vtl_switch(uint16_t code)
{
	return code == HV_CALL_VTL_CALL || code == HV_CALL_VTL_RETURN;
}

bool hv_vtl_switch(struct vp *vp, uint64_t value, uint64_t control)
{
	/* Neither fast nor anything else: the code alone. */
	if (value == HV_CALL_VTL_CALL) {
		return vtl_call(vp, control);
	}
	return value == HV_CALL_VTL_RETURN && vtl_return(vp, control);
}

/* --- registers -------------------------------------------------------------------------------------- */

/*
 * TLFS, "VSM Capabilities": what the platform has. MBEC of a VTL would be the promise that a VP's VTL1
 * can switch the telling of kernel from user code on and off; that takes an operation of the platform,
 * and struct platform_ops has none. Which masks a machine can hold is another matter: protect_can.
 */
static uint64_t capabilities(const struct partition *partition)
{
	return CAPABILITIES_DENY_LOWER_STARTUP |
		(partition->ops->registers->dr6_in_block ? 0 : CAPABILITIES_DR6_SHARED);
}

static uint64_t partition_status(const struct partition *partition)
{
	return 1u << VTL0 | (vtl_partition_enabled(partition) ? 1u << VTL1 : 0) |
		(uint64_t)VTL1 << STATUS_MAXIMUM_VTL_SHIFT;
}

static uint64_t vp_status(const struct vp *vp)
{
	uint64_t enabled = 1u << VTL0 | (vtl_vp_enabled(vp) ? 1u << VTL1 : 0);

	return vp->active_vtl | enabled << VP_STATUS_ENABLED_SHIFT;
}

/*
 * TLFS, "Partition Configuration". Protection is switched on once, with the default mask; from then on
 * neither can be changed.
 */
static uint16_t write_config(struct vp *vp, uint64_t value)
{
	uint64_t before = atomic_u64_load(&vsm.config, memory_order_relaxed);
	uint64_t after = value ^ CONFIG_INITIAL;
	uint64_t fixed = CONFIG_ENABLE_PROTECTION | CONFIG_MASK;
	uint16_t status;
	uint32_t access;

	if (!vtl_partition_enabled(vp->partition)) {
		return HV_STATUS_INVALID_VTL_STATE;
	}
	if ((value & ~CONFIG_KNOWN) ||
		!hv_map_flags_access(vp->partition,
			(uint32_t)((value & CONFIG_MASK) >> CONFIG_MASK_SHIFT), &access) ||
		!(access & ACCESS_READ) || !(access & ACCESS_WRITE)) {
		return HV_STATUS_INVALID_REGISTER_VALUE;
	}
	do {
		if ((before & CONFIG_ENABLE_PROTECTION) && ((before ^ after) & fixed)) {
			return HV_STATUS_INVALID_REGISTER_VALUE;
		}
		/* A mask without the switch says nothing yet. */
	} while (!atomic_u64_compare_exchange(&vsm.config, &before, after, memory_order_relaxed));
	if ((before & CONFIG_ENABLE_PROTECTION) || !(after & CONFIG_ENABLE_PROTECTION) ||
		access == ACCESS_ALL) {
		return HV_STATUS_SUCCESS;
	}
	status = hv_protect_default(vp, access);
	if (status != HV_STATUS_SUCCESS) {
		uint64_t changed = before ^ after, now = after, undone;

		/*
		 * Another VP may have changed other bits meanwhile: they stay. Relaxed, like the exchange
		 * above that it takes back: each bit stands for itself.
		 */
		do {
			undone = (now & ~changed) | (before & changed);
		} while (!atomic_u64_compare_exchange(
			&vsm.config, &now, undone, memory_order_relaxed));
	}
	return status;
}

/* TLFS, "Configuring Lower VTLs": VTL1's instance for VTL0. */
static uint16_t secure_config(struct vp *vp, enum vtl vtl, uint64_t *value)
{
	if (vtl <= VTL0) {
		return HV_STATUS_ACCESS_DENIED;
	}
	*value = tlblock_is_held(&vp->partition->tlblock, vp->id, VTL0, VTL1)
		? SECURE_CONFIG_TLB_LOCKED
		: 0;
	return HV_STATUS_SUCCESS;
}

static uint16_t write_secure_config(struct vp *vp, enum vtl vtl, uint64_t value)
{
	if (vtl <= VTL0) {
		return HV_STATUS_ACCESS_DENIED;
	}
	if (value & ~SECURE_CONFIG_TLB_LOCKED) {
		return HV_STATUS_INVALID_REGISTER_VALUE;
	}
	if (value & SECURE_CONFIG_TLB_LOCKED) {
		tlblock_take(&vp->partition->tlblock, vp->id, VTL0, VTL1);
	} else {
		tlblock_release(&vp->partition->tlblock, vp->id, VTL0, VTL1);
	}
	return HV_STATUS_SUCCESS;
}

/* What VTL1 of this VP has set up about VTL0, by name; NULL: it is something else. */
static uint64_t *setting(struct vp *vp, uint32_t name)
{
	switch (name) {
	case HV_REGISTER_VSM_VINA:
		return &vp->vtl1.vina;
	case HV_REGISTER_CR_INTERCEPT_CONTROL:
		return &vp->vtl1.intercepts.control;
	case HV_REGISTER_CR_INTERCEPT_CR0_MASK:
		return &vp->vtl1.intercepts.cr0_mask;
	case HV_REGISTER_CR_INTERCEPT_CR4_MASK:
		return &vp->vtl1.intercepts.cr4_mask;
	case HV_REGISTER_CR_INTERCEPT_MISC_MASK:
		return &vp->vtl1.intercepts.misc_enable_mask;
	default:
		return NULL;
	}
}

static uint16_t write_setting(struct vp *vp, uint32_t name, uint64_t *setting, uint64_t value)
{
	if ((name == HV_REGISTER_VSM_VINA && (value & ~VINA_KNOWN)) ||
		(name == HV_REGISTER_CR_INTERCEPT_CONTROL &&
			(value & ~vtl_intercepts_supported(vp->partition)))) {
		return HV_STATUS_INVALID_REGISTER_VALUE;
	}
	*setting = value;
	vtl_intercepts_changed(vp);
	return HV_STATUS_SUCCESS;
}

uint16_t hv_vsm_register_get(
	struct vp *vp, enum vtl vtl, uint32_t name, struct hv_register_value *value)
{
	const uint64_t *kept = setting(vp, name);

	value->high = 0;
	if (kept) {
		value->low = *kept;
		return HV_STATUS_SUCCESS;
	}
	switch (name) {
	case HV_REGISTER_VSM_CODE_PAGE_OFFSETS:
		value->low = VTL_CALL_OFFSET | VTL_RETURN_OFFSET << 12;
		return HV_STATUS_SUCCESS;
	case HV_REGISTER_VSM_VP_STATUS:
		value->low = vp_status(vp);
		return HV_STATUS_SUCCESS;
	case HV_REGISTER_VSM_PARTITION_STATUS:
		value->low = partition_status(vp->partition);
		return HV_STATUS_SUCCESS;
	case HV_REGISTER_VSM_CAPABILITIES:
		value->low = capabilities(vp->partition);
		return HV_STATUS_SUCCESS;
	case HV_REGISTER_VSM_PARTITION_CONFIG:
		if (vtl != VTL1) {
			return HV_STATUS_INVALID_PARAMETER;
		}
		value->low = config_read();
		return HV_STATUS_SUCCESS;
	case HV_REGISTER_VSM_SECURE_CONFIG_VTL0:
		return secure_config(vp, vtl, &value->low);
	default:
		return HV_STATUS_INVALID_PARAMETER;
	}
}

uint16_t hv_vsm_register_set(
	struct vp *vp, enum vtl vtl, uint32_t name, const struct hv_register_value *value)
{
	uint64_t *kept = setting(vp, name);

	if (kept) {
		return write_setting(vp, name, kept, value->low);
	}
	if (name == HV_REGISTER_VSM_PARTITION_CONFIG && vtl == VTL1) {
		return write_config(vp, value->low);
	}
	if (name == HV_REGISTER_VSM_SECURE_CONFIG_VTL0) {
		return write_secure_config(vp, vtl, value->low);
	}
	/* Not there, or read-only. */
	return HV_STATUS_INVALID_PARAMETER;
}
