/*
 * No design, but what all of them have in common: VPs that run are kicked and waited for, and nothing
 * gets to them. What the others take more than this is what they are.
 */
#include "bench/flush/design.h"

static struct run *run;

static void init(struct run *of)
{
	run = of;
}

static void finish(void)
{
}

static void request(vp_id_t me, const struct vpset *set, uint64_t range)
{
	(void)range;
	run_cancel_mask(run, me, set, RUN_IN(RUN_VTL0));
}

static void drain(vp_id_t vp)
{
	(void)vp;
}

const struct design design_kicks = {
	.name = "kicks-only",
	.about = "kicks and waits, and no flush",
	.init = init,
	.finish = finish,
	.request = request,
	.drain = drain,
};
