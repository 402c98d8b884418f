/*
 * What lower VTLs may do with the guest's memory, where the partition meets core/protect: the
 * guest's memory is opened at start, and faults are looked at. Who changes permissions afterwards is
 * not decided here.
 */
#include "arch/x86/fault.h"
#include "arch/x86/registers.h"
#include "partition/exits.h"
#include "partition/guest_access.h"
#include "partition/policy.h"

void partition_map(struct partition *partition, gpa_t base, uint64_t bytes, uint32_t access)
{
	for (uint32_t vtl = 0; vtl < partition->vtls; vtl++) {
		enum protect_status status =
			protect_map(&partition->protect, (enum vtl)vtl, base, bytes, access);

		if (status != PROTECT_DONE) {
			fault_stop("memory at 0x%lx, 0x%lx bytes, cannot be opened: %u", base.value,
				bytes, status);
		}
	}
}

/* What the access that faulted takes. A processor's walk of guest tables reads and marks them. */
static uint32_t access_needed(const struct vp_exit *exit)
{
	if (exit->memory.walk) {
		return ACCESS_READ | ACCESS_WRITE;
	}
	return exit->memory.execute  ? ACCESS_READ | ACCESS_EXECUTE
		: exit->memory.write ? ACCESS_WRITE
				     : ACCESS_READ;
}

bool permission_looks_different(struct vp *vp)
{
	struct partition *partition = vp->partition;

	/* Only to look: the access itself is the guest's, with whatever it finds then. */
	tlblock_take(&partition->tlblock, vp->id, VTL0, VTL2);
	if (access_needed(&vp->exit) &
		~protect_access(&partition->protect, VTL0, vp->exit.memory.gpa)) {
		return false;
	}
	/* The processor may keep what made it fault. */
	flush_own(&partition->flush, vp->id, VTL0, FLUSH_FULL_ALL);
	return true;
}

bool permission_is_denied(struct vp *vp)
{
	gpa_t page = GPA(vp->exit.memory.gpa.value & PAGE_MASK);

	if (vp->exit.delivering || !guest_is_ram(vp->partition, page, PAGE_SIZE)) {
		return false;
	}
	exit_deny_permission(vp, vp->exit.memory.gpa, access_needed(&vp->exit));
	return true;
}

void exit_deny_permission(struct vp *vp, gpa_t gpa, uint32_t access)
{
	vp_count_event(vp, COUNTER_PROTECT_DENIED);
	vp_deny(vp, COUNTER_DENIED_MEMORY, gpa.value);
	if (access & ACCESS_EXECUTE) {
		vp_inject_exception(vp, VECTOR_UD, false, 0);
	} else {
		vp_inject_exception(vp, VECTOR_GP, true, 0);
	}
}
