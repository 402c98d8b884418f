/*
 * A module for a stock Linux guest that gives every processor a VTL1 (TLFS, chapter "Virtual Secure
 * Mode"), and enters it all the time: from a timer's interrupt, so whatever the processor was about,
 * a program whose breakpoints are armed too. What VTL1 does is entry.S's. VTL1 cannot be taken back, so
 * the module stays; a write to its parameter `stop` ends the calls and has it say how many there were.
 */
#include <linux/hrtimer.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <asm/mshyperv.h>
#include <asm/special_insns.h>

#include "vtl1.h"

#define CALL_ENABLE_PARTITION_VTL 0x000d
#define CALL_VTL_CALL		  0x0011
#define VTL1			  1

#define DR7_ENABLED 0xff

#define ATTRIBUTES_CODE 0xa09b /* 64 bits, present, ring 0 */
#define ATTRIBUTES_DATA 0xc093
#define ATTRIBUTES_TSS	0x008b
#define ATTRIBUTES_LDT	0x0082

/* Each processor's, in a page of its own, behind VTL1's GS. */
struct record {
	u64 entries;
	u64 changed; /* how often a VTL found other debug registers than it had left */
	u64 armed; /* calls with a breakpoint or watchpoint of VTL0's enabled */
};
static_assert(offsetof(struct record, entries) == RECORD_ENTRIES);
static_assert(offsetof(struct record, changed) == RECORD_CHANGED);

extern const char vtl1_entry[];

static unsigned int period = 500;
module_param(period, uint, 0); /* of the calls, on each processor, in microseconds */

static struct record *records[NR_CPUS];
static pgd_t *root;
static struct hv_enable_vp_vtl *input;
static DEFINE_PER_CPU(struct hrtimer, timers);
static bool running;

/* --- bringing it up ----------------------------------------------------------------------------- */

/* A VTL call; has VTL1 make a hypercall, if there is a value, and returns the result. */
static u64 call_vtl1(u64 hypercall, phys_addr_t address)
{
	register u64 value asm("r9") = hypercall;
	u64 control = 0, code = CALL_VTL_CALL;

	asm volatile("vmmcall"
		     : "+a"(control), "+c"(code), "+r"(value)
		     : "d"(address)
		     : "r8", "r10", "cc", "memory");
	return value;
}

static struct hv_x64_segment_register segment(u16 selector, u16 attributes, u32 limit, void *base)
{
	return (struct hv_x64_segment_register){
		.selector = selector, .attributes = attributes, .limit = limit, .base = (u64)base};
}

/* The kernel's own state, but for page tables without programs, and for descriptor tables: none. */
static void fill_input(unsigned int cpu)
{
	struct hv_init_vp_context *context = &input->vp_context;
	struct hv_x64_segment_register flat = segment(__KERNEL_DS, ATTRIBUTES_DATA, ~0u, NULL);

	*input = (struct hv_enable_vp_vtl){
		.partition_id = HV_PARTITION_ID_SELF,
		.vp_index = hv_cpu_number_to_vp_number(cpu),
		.target_vtl.target_vtl = VTL1,
	};
	context->rip = (u64)vtl1_entry;
	context->rflags = X86_EFLAGS_FIXED;
	context->cs = segment(__KERNEL_CS, ATTRIBUTES_CODE, ~0u, NULL);
	context->ds = context->es = context->fs = context->ss = flat;
	context->gs = segment(0, ATTRIBUTES_DATA, ~0u, records[cpu]);
	context->tr = segment(0, ATTRIBUTES_TSS, 0, NULL);
	context->ldtr = segment(0, ATTRIBUTES_LDT, 0, NULL);
	rdmsrl(MSR_EFER, context->efer);
	context->cr0 = read_cr0();
	context->cr3 = virt_to_phys(root);
	context->cr4 = __read_cr4();
	rdmsrl(MSR_IA32_CR_PAT, context->msr_cr_pat);
}

/* This processor's by VTL0, all others' by its VTL1. Interrupts are off, and nobody else is here. */
static void enable_all(void *info)
{
	unsigned int self = smp_processor_id();
	u64 *status = info;
	unsigned int cpu;

	*status = hv_do_fast_hypercall16(CALL_ENABLE_PARTITION_VTL, HV_PARTITION_ID_SELF, VTL1);
	if (*status)
		return;
	fill_input(self);
	*status = hv_do_hypercall(HVCALL_ENABLE_VP_VTL, input, NULL);
	for_each_online_cpu(cpu)
	{
		if (*status)
			return;
		if (cpu == self)
			continue;
		fill_input(cpu);
		*status = call_vtl1(HVCALL_ENABLE_VP_VTL, virt_to_phys(input));
	}
}

/* --- the calls ---------------------------------------------------------------------------------- */

static u64 read_dr6(void)
{
	u64 value;

	asm volatile("mov %%dr6, %0" : "=r"(value));
	return value;
}

static u64 read_dr7(void)
{
	u64 value;

	asm volatile("mov %%dr7, %0" : "=r"(value));
	return value;
}

static enum hrtimer_restart tick(struct hrtimer *timer)
{
	struct record *record = records[smp_processor_id()];
	u64 dr6 = read_dr6();
	u64 dr7 = read_dr7();

	record->armed += (dr7 & DR7_ENABLED) != 0;
	call_vtl1(0, 0);
	record->changed += read_dr6() != dr6 || read_dr7() != dr7;
	hrtimer_forward_now(timer, ns_to_ktime(period * (u64)NSEC_PER_USEC));
	return HRTIMER_RESTART;
}

static void start_here(void *info)
{
	struct hrtimer *timer = this_cpu_ptr(&timers);

	hrtimer_init(timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED);
	timer->function = tick;
	hrtimer_start(timer, 0, HRTIMER_MODE_REL_PINNED);
}

static int stop_set(const char *value, const struct kernel_param *param)
{
	unsigned int cpu;

	if (!running)
		return -EINVAL;
	running = false;
	for (cpu = 0; cpu < nr_cpu_ids; cpu++) {
		if (records[cpu])
			hrtimer_cancel(per_cpu_ptr(&timers, cpu));
	}
	for (cpu = 0; cpu < nr_cpu_ids; cpu++) {
		if (records[cpu])
			pr_info("vtl1: CPU %u, %llu entries, %llu armed, %llu changed\n", cpu,
				records[cpu]->entries, records[cpu]->armed, records[cpu]->changed);
	}
	pr_info("vtl1: done\n");
	return 0;
}

static const struct kernel_param_ops stop_ops = {.set = stop_set};
module_param_cb(stop, &stop_ops, NULL, 0200);

/* What is taken is VTL1's for good; without one it is lost, and so is the test. */
static int __init vtl1_init(void)
{
	u64 status = 0;
	unsigned int cpu;

	if (!period)
		return -EINVAL;
	root = (pgd_t *)get_zeroed_page(GFP_KERNEL);
	input = (void *)get_zeroed_page(GFP_KERNEL);
	if (!root || !input)
		return -ENOMEM;
	/* The kernel's half is the same everywhere, and its entries never change. */
	memcpy(root + PTRS_PER_PGD / 2, (pgd_t *)__va(read_cr3_pa()) + PTRS_PER_PGD / 2,
		PAGE_SIZE / 2);
	for_each_online_cpu(cpu)
	{
		records[cpu] = (void *)get_zeroed_page(GFP_KERNEL);
		if (!records[cpu])
			return -ENOMEM;
	}
	on_each_cpu_mask(cpumask_of(cpumask_first(cpu_online_mask)), enable_all, &status, true);
	if (status) {
		pr_err("vtl1: cannot be enabled: status %llu\n", status);
		return -EIO;
	}
	on_each_cpu(start_here, NULL, true);
	running = true;
	return 0;
}

module_init(vtl1_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A VTL1 on every processor, entered all the time");
