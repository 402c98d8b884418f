/*
 * HLT in VTL2 (halt.h). It costs an exit and, for the interrupt that ends it, an injection, where the
 * guest's own HLT costs nothing; so it is done for as long as it saves kicks, VP by VP.
 */
#include "partition/halt.h"
#include "arch/x86/registers.h"

static void set_exits(struct vp *vp, bool on)
{
	vp->halt_exits = on;
	vp->partition->ops->exit_on_halt(vp->platform, on);
}

void halt_note_kick(struct vp *vp)
{
	uint64_t rip = vp->platform->registers.rip;

	/*
	 * Twice at the same instruction: most likely the one after a HLT. That is a guess, and may be
	 * wrong at no more cost than an exit of the next HLT.
	 */
	if (rip == vp->kicked_rip && !vp->halt_exits) {
		set_exits(vp, true);
	}
	vp->kicked_rip = rip;
}

void halt_stay_awake(struct vp *vp)
{
	vp->vtl[vp->active_vtl].stays_awake = true;
	vp->partition->ops->exit_on_halt(vp->platform, true);
}

void halt_begin(struct vp *vp)
{
	struct vp_vtl *level = &vp->vtl[vp->active_vtl];
	uint64_t rip = vp->platform->registers.rip;
	/* A trap after the HLT ends it at once; and if it cannot be read any more, it is no HLT. */
	bool halted = !vp_skip_instruction(vp) && vp->platform->registers.rip != rip;

	vp->halted = halted && !level->stays_awake;
	if (level->stays_awake) {
		level->stays_awake = false;
		vp->partition->ops->exit_on_halt(
			vp->platform, vp->active_vtl == VTL0 && vp->halt_exits);
	}
}

static void halt_end(struct vp *vp)
{
	vp->halted = false;
	/* Nobody would have kicked: back to the guest's own HLT. */
	if (!flush_is_asked(&vp->partition->flush, vp->id, VTL0)) {
		set_exits(vp, false);
		vp->kicked_rip = 0;
	}
}

void halt_wait(struct vp *vp)
{
	struct partition *partition = vp->partition;
	const struct platform_ops *ops = partition->ops;
	bool taken = false;
	uint8_t vector;

	ops->kicks_hold();
	run_idle_begin(&partition->run, vp->id);
	if (ops->take_nmis()) {
		vp->nmi_pending = true; /* from outside, since the requests were looked at */
	}
	if ((vp->nmi_pending && !vp->nmi_masked) || run_requests_pending(&partition->run, vp->id)) {
		ops->kicks_open();
	} else if (vp->platform->registers.rflags & RFLAGS_IF) {
		/* One that is pending already was kept from the guest by the STI before its HLT. */
		taken = ops->idle_interrupts(&vector);
	} else {
		ops->idle();
	}
	run_idle_end(&partition->run, vp->id);
	if (taken) {
		halt_end(vp);
		ops->inject(vp->platform, VP_EVENT_INTERRUPT, vector, false, 0);
	}
}
