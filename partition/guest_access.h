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

/* The same for a VTL that need not be the active one. */
void *guest_ram_of(struct vp *vp, enum vtl vtl, gpa_t gpa, uint64_t bytes, uint32_t access);

/* As guest_ram, for the firmware's ROM below 1 MiB too; not for writing. */
const void *guest_readable(struct vp *vp, gpa_t gpa, uint64_t bytes, uint32_t access);

/*
 * Pointers and translations of the guest's memory are not used any more. Otherwise the next entry
 * sees to it; here so that nobody has to wait for the rest of an exit.
 */
void guest_release(struct vp *vp);

/*
 * The guest-physical address of one access (WALK_ bits of walk.h; WALK_USER is added by CPL). Tables are
 * the guest's memory too: one that the VTL may not read, or may not mark where that takes marking, is
 * WALK_BAD_MEMORY, and nothing has changed in it. WALK_CHANGED: the guest executes the instruction again.
 */
enum walk_status guest_translate(
	struct vp *vp, gva_t address, uint32_t access, struct walk_result *result);

/*
 * What the VTL lacks for a walk that ended with WALK_BAD_MEMORY, at the result's gpa: ACCESS_READ of a table,
 * or ACCESS_WRITE to mark it. ACCESS_NONE: it ended otherwise, or no RAM is there.
 */
uint32_t guest_walk_denied(
	const struct vp *vp, enum walk_status status, const struct walk_result *result);

/*
 * The same in steps, for a VTL that need not be the active one: its registers, returning WALK_USER if it
 * is at CPL 3; and the walk, which marks entries accessed and dirty only if `mark`.
 */
uint32_t guest_walk_registers(struct vp *vp, enum vtl vtl, struct walk_registers *registers);
enum walk_status guest_walk(struct vp *vp, enum vtl vtl, const struct walk_registers *registers,
	gva_t address, uint32_t access, bool mark, struct walk_result *result);

/*
 * What the guest's tables say about a page to its kernel's reads, whoever runs now: nothing is marked
 * in them, and nothing is to be accessed through the answer.
 */
enum walk_status guest_look_up(struct vp *vp, gva_t address, struct walk_result *result);

/* The mode and the bytes of the instruction at RIP; fewer than 15 if a page ends and the next is not there. */
enum insn_mode guest_mode(const struct vp_system_state *state, uint64_t rflags);
size_t guest_fetch(struct vp *vp, uint8_t bytes[INSN_BYTES_MAX], enum insn_mode *mode);

#endif
