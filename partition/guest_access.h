/*
 * Parapet touching guest memory for the guest: translations are walked anew at each access, never
 * taken from an exit, and only the guest's own RAM is ever touched.
 */
#ifndef PARAPET_PARTITION_GUEST_ACCESS_H
#define PARAPET_PARTITION_GUEST_ACCESS_H

#include "partition/partition.h"
#include "arch/x86/insn/walk.h"

/* Is all of [gpa, gpa + bytes) the guest's plain memory, whatever its VTLs may do with it? */
bool guest_is_ram(const struct partition *partition, gpa_t gpa, uint64_t bytes);

/*
 * A pointer to [gpa, gpa + bytes) if all of it is the guest's RAM and its active VTL may do with it
 * what `access` (ACCESS_ bits) says, else NULL. Takes that VTL's TLB lock: the pointer is good
 * until the next entry, or guest_release.
 */
void *guest_ram(struct vp *vp, gpa_t gpa, uint64_t bytes, uint32_t access);

/* The same for the firmware's ROM below 1 MiB too; not for writing. */
const void *guest_readable(struct vp *vp, gpa_t gpa, uint64_t bytes, uint32_t access);

/*
 * Pointers and translations of the guest's memory are not used any more. Otherwise the next entry
 * sees to it; here so that nobody has to wait for the rest of an exit.
 */
void guest_release(struct vp *vp);

/* The guest-physical address of one access (WALK_ bits of walk.h; WALK_USER is added by CPL). */
enum walk_status guest_translate(
	struct vp *vp, gva_t address, uint32_t access, struct walk_result *result);

/* The mode and the bytes of the instruction at RIP; fewer than 15 if a page ends and the next is not there. */
enum insn_mode guest_mode(const struct vp_system_state *state, uint64_t rflags);
size_t guest_fetch(struct vp *vp, uint8_t bytes[INSN_BYTES_MAX], enum insn_mode *mode);

#endif
