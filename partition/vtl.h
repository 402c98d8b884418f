/*
 * VTL1: a guest's own secure kernel above the rest of the guest (TLFS, "Virtual Secure Mode"). This
 * file's functions say which VTL of a VP runs, switch between them, and tell VTL1 what VTL0 may not do.
 * They are what hv/ calls; hypercall input, its checks that need no VP state, and TLFS status codes stay
 * there. How registers are kept per VTL is the platform's; permissions are core/protect's.
 *
 * "Own VP": may be called on the VP's own processor only, in VTL2, as everywhere in the exit path.
 */
#ifndef PARAPET_PARTITION_VTL_H
#define PARAPET_PARTITION_VTL_H

#include <parapet/types.h>
#include "partition/partition.h"

/* --- what the TLFS lays out ---------------------------------------------------------------------- */

/* HV_X64_SEGMENT_REGISTER. Attributes: bits 40 to 55 of a descriptor, 48 to 51 of them zero. */
struct hv_segment {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint16_t attributes;
};

/* HV_X64_TABLE_REGISTER. */
struct hv_table {
	uint16_t padding[3];
	uint16_t limit;
	uint64_t base;
};

/* HV_INITIAL_VP_CONTEXT. */
struct hv_initial_context {
	uint64_t rip;
	uint64_t rsp;
	uint64_t rflags;
	struct hv_segment cs, ds, es, fs, gs, ss, tr, ldtr;
	struct hv_table idtr, gdtr;
	uint64_t efer;
	uint64_t cr0;
	uint64_t cr3;
	uint64_t cr4;
	uint64_t pat;
};

/* HV_REGISTER_VALUE. Integers are in `low`; a segment: base in `low`, the rest in `high`. */
struct hv_register_value {
	uint64_t low;
	uint64_t high;
};

_Static_assert(sizeof(struct hv_segment) == 16, "TLFS, HV_X64_SEGMENT_REGISTER");
_Static_assert(sizeof(struct hv_table) == 16, "TLFS, HV_X64_TABLE_REGISTER");
_Static_assert(sizeof(struct hv_initial_context) == 224, "TLFS, HV_INITIAL_VP_CONTEXT");
_Static_assert(sizeof(struct hv_register_value) == 16, "TLFS, HV_REGISTER_VALUE");

/*
 * Where the code sequences for VTL call and return are in the hypercall page
 * (HvRegisterVsmCodePageOffsets), and the page's beginning: the plain call, then those two. Called with
 * the control input in RCX, 64-bit code; they hand it to the hypercall in RAX.
 */
#define VTL_CALL_OFFSET	  16u
#define VTL_RETURN_OFFSET 32u
#define VTL_CODE_BYTES	  48u
extern const uint8_t vtl_hypercall_code[VTL_CODE_BYTES];

/* At start, with vsm=on: gives the VP the memory of a VTL1 that is off. */
void vtl_init_vp(struct vp *vp);

/* --- enabling and starting ----------------------------------------------------------------------- */

enum vtl_status {
	VTL_OK,
	VTL_BAD_CONTEXT, /* an initial context that no processor runs on, or real mode for VTL1 */
	VTL_BAD_STATE, /* not enabled, enabled already, started already, for the VP or the partition */
};

/*
 * Any VP: VTL1 exists for the partition from now on. VTL_BAD_STATE if it did, or without vsm=on.
 */
enum vtl_status vtl_enable_partition(struct partition *partition);
bool vtl_partition_enabled(const struct partition *partition);

/*
 * Any VP: gives `target`, which may be running or not started, a VTL1 with that context (the caller's
 * copy). VTL1 does not run before a VTL call, an interrupt for it, or an intercept.
 */
enum vtl_status vtl_enable_vp(struct vp *target, const struct hv_initial_context *context);
bool vtl_vp_enabled(const struct vp *vp);

/*
 * Any VP: starts `target`, which waits (for a SIPI, from the guest's point of view), in `vtl` with that
 * context, which it has. VTL_BAD_STATE if it runs already.
 */
enum vtl_status vtl_start_vp(
	struct vp *target, enum vtl vtl, const struct hv_initial_context *context);

/* --- switching ------------------------------------------------------------------------------------ */

/*
 * Own VP: the VTL call hypercall of VTL0 with that control input. True: RIP of VTL0 is behind it and
 * VTL1 is active, to be entered next. False: #UD is to be raised (the caller does). Privilege and mode
 * are the caller's check.
 */
bool vtl_call(struct vp *vp, uint64_t control);

/* Own VP: VTL1's return, with its control input (bit 0: fast). As vtl_call. Releases TLB locks. */
bool vtl_return(struct vp *vp, uint64_t control);

/* --- registers -------------------------------------------------------------------------------------- */

/*
 * Own VP: an architectural register of one of its VTLs, by its TLFS name: general, control, debug,
 * segment and table registers, RIP, RFLAGS, XCR0, and the MSRs that the TLFS names; PendingInterruption,
 * PendingEvent0, InterruptState. The APIC's but for CR8 are not among them. False: no such register here.
 */
bool vtl_register_get(struct vp *vp, enum vtl vtl, uint32_t name, struct hv_register_value *value);

/*
 * The same, to set it: VTL1 does that to VTL0, and the shared ones to itself. False: no such register,
 * read-only, or a value that it cannot have; nothing has changed then. Setting RIP of VTL0 is how VTL1
 * moves it past an instruction that was intercepted.
 */
bool vtl_register_set(
	struct vp *vp, enum vtl vtl, uint32_t name, const struct hv_register_value *value);

/*
 * Own VP: what a MOV to CR0 or CR4 by the active VTL does, by the register's TLFS name. False: #GP is to
 * be raised, nothing has changed.
 */
bool vtl_control_write(struct vp *vp, uint32_t name, uint64_t value);

/* --- VTL1's interrupts ------------------------------------------------------------------------------- */

/* Own VP, VTL1 active: HV_X64_MSR_EOI, _ICR and _TPR of its APIC. False: #GP. */
bool vtl_apic_msr_read(struct vp *vp, uint32_t index, uint64_t *value);
bool vtl_apic_msr_write(struct vp *vp, uint32_t index, uint64_t value);

/* Any VP: a fixed interrupt (16 to 255) for VTL1 of `target`, if its APIC is switched on. */
void vtl_interrupt(struct vp *from, struct vp *target, uint8_t vector);

/*
 * Own VP: hv/ has written to vp->vtl1.synic (SCONTROL, SIMP, a SINT) or VTL1 has written EOM: a message
 * that waits for a slot is tried again.
 */
void vtl_synic_retry(struct vp *vp);

/* Own VP: hv/ has checked and written vp->vtl1.intercepts: they hold from the next entry of VTL0. */
void vtl_intercepts_changed(struct vp *vp);

/* The bits of HvRegisterCrInterceptControl that this processor can honour. */
uint64_t vtl_intercepts_supported(const struct partition *partition);

/* Own VP: hv/ has written vp->vtl1.vina (HvRegisterVsmVina). */
#define VTL_VINA_VECTOR	    0xffull
#define VTL_VINA_ENABLED    (1ull << 8)
#define VTL_VINA_AUTO_RESET (1ull << 9)
#define VTL_VINA_AUTO_EOI   (1ull << 10)

/* --- intercepts: own VP ------------------------------------------------------------------- */

/* Is there a VTL1 above what runs, which is told what that may not do? */
static inline bool vtl_hears_of_intercepts(const struct vp *vp)
{
	return vp->active_vtl == VTL0 && vtl_vp_enabled(vp);
}

/*
 * VTL0 may not do that with the page at `gpa`, because VTL1 says so: VTL1 gets a memory intercept
 * message and is active on return; VTL0 stays in front of the instruction. `gva` counts if `has_gva`.
 * `access`: ACCESS_ bits; the message names execution before writing before reading.
 */
void vtl_intercept_memory(struct vp *vp, gpa_t gpa, uint32_t access, bool has_gva, gva_t gva);

/* Does VTL1 want to hear of this access to an MSR by VTL0? Then it has been told, as above. */
bool vtl_intercept_msr(struct vp *vp, uint32_t index, bool write, uint64_t value);

/*
 * VTL0 is about to write a register that the platform was asked to watch (VP_OTHER_REGISTER), or VTL1
 * its CR8.
 */
void vtl_handle_register(struct vp *vp);

/* --- the run loop --------------------------------------------------------------------------------------- */

/* Own VP with an enabled VTL1, before it looks which VTL to run: goes to VTL1 if something is there for it. */
void vtl_choose(struct vp *vp);

/* Own VP, VTL0 active: goes to VTL1 because of an intercept, whatever VTL1's TPR says. */
void vtl_enter_for_intercept(struct vp *vp);

/* Own VP, VTL0 active, its start word just taken out of VP_START_CONTEXT: true if VTL0 was started. */
bool vtl_start_in_context(struct vp *vp);

/* Own VP, VTL1 active, before an entry is begun: what VTL1 is to find pending. */
void vtl_before_entry(struct vp *vp);

/* Own VP, after VTL1 was left: takes over what the processor has done about its interrupts. */
void vtl_after_exit(struct vp *vp);

/* Own VP, VTL1 active: an interrupt of VTL0's is waiting, and VTL1 wanted to be told (VINA). */
void vtl_handle_interrupt(struct vp *vp);

#endif
