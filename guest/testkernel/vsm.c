/*
 * VTL1 on every processor, from its first entry on: what the levels share and what each has of its own,
 * the registers of one in the hands of the other, interrupts that go to the one or the other, and what
 * VTL1 can forbid VTL0 and hears about. What calls do with wrong input is vsmcalls.c's; whether
 * permissions hold while everybody runs, flips.c's.
 *
 * "start" on the command line: the other processors are started by hypercall, not by INIT and SIPI.
 * "default": VTL1 begins with taking all execution away. "reset": ends with a triple fault.
 */
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "hv.h"
#include "machine.h"
#include "print.h"
#include "tap.h"
#include "trap.h"
#include "vtl.h"
#include "wake.h"

#define VECTOR_UPPER 0x91 /* interrupts for VTL1 */
#define VECTOR_LOWER 0x92 /* for VTL0 */
#define LIMIT_US     10000000u
#define SETTLE_US    20000u
#define ROUND_TRIPS  200u
#define STORM_US     500000u

#define CONFIG_PROTECT 1ull
#define CONFIG_ALL     (0xfull << 1)
#define CONFIG_ZERO    (1ull << 5)
#define CONFIG_DENY    (1ull << 6)

#define CR0_WP	  (1ull << 16)
#define CR0_EM_TS 0xcull
#define CR0_MP	  2ull
#define CR4_TSD	  4ull
#define EFER_SCE  1ull

#define MSR_SYSENTER_CS	   0x174u
#define MSR_SYSENTER_ESP   0x175u
#define MSR_SYSENTER_EIP   0x176u
#define MSR_PAT		   0x277u
#define MSR_STAR	   0xc0000081u
#define MSR_LSTAR	   0xc0000082u
#define MSR_CSTAR	   0xc0000083u
#define MSR_SFMASK	   0xc0000084u
#define MSR_FS_BASE	   0xc0000100u
#define MSR_KERNEL_GS_BASE 0xc0000102u

static uint32_t total;

static bool done(uint64_t result)
{
	return result == HV_RESULT(HV_SUCCESS, 1);
}

/* --- before there is a VTL1 ------------------------------------------------------------------- */

static void call_run(void *argument)
{
	(void)argument;
	vtl_switch_vmmcall(HV_VTL_CALL, 0);
}

static void return_run(void *argument)
{
	(void)argument;
	vtl_switch_vmmcall(HV_VTL_RETURN, 1);
}

static uint64_t register_of(uint8_t vtl, uint32_t name)
{
	uint64_t value[2] = {~0ull, ~0ull};

	if (!done(vtl_register_get(vtl, name, value)))
		return ~0ull;
	return value[0];
}

static void before_test(void)
{
	struct cpuid leaf = cpuid_get(0x40000003, 0);

	tap_check(leaf.eax >> 2 & 1, "leaf 40000003 EAX: synthetic interrupt controller");
	tap_equal(leaf.ebx, 1u << 16 | 1u << 17 | 1u << 21,
		"leaf 40000003 EBX: VSM, VP registers, starting VPs, and nothing else");
	tap_equal(register_of(HV_VTL_OWN, HV_REGISTER_VSM_PARTITION_STATUS), 0x10001,
		"partition status: VTL0 alone, VTL1 is possible");
	tap_equal(register_of(HV_VTL_OWN, HV_REGISTER_VSM_VP_STATUS), 0x10000,
		"VP status: VTL0 active, VTL0 alone");
	tap_equal(register_of(HV_VTL_OWN, HV_REGISTER_VSM_CAPABILITIES), 1ull << 17,
		"capabilities: startup can be denied; no MBEC, DR6 not shared");
	tap_equal((uint64_t)trap_catch(call_run, NULL), TRAP_UD, "a VTL call without VTL1: #UD");
	tap_equal((uint64_t)trap_catch(return_run, NULL), TRAP_UD, "a VTL return of VTL0: #UD");
}

/* --- calls and returns ------------------------------------------------------------------------ */

static uint64_t status_run(uint64_t unused)
{
	(void)unused;
	return register_of(HV_VTL_OWN, HV_REGISTER_VSM_VP_STATUS);
}

static uint64_t next_run(uint64_t argument)
{
	return argument + 1;
}

static _Atomic uint64_t storm_calls, storm_wrong;
static uint64_t storm_end;

static void storm_run(void *argument)
{
	(void)argument;
	for (uint64_t n = 0; !clock_passed(storm_end); n++) {
		if (vtl_run(next_run, n) != n + 1)
			atomic_fetch_add(&storm_wrong, 1);
		atomic_fetch_add(&storm_calls, 1);
	}
}

static void everywhere(void (*function)(void *))
{
	for (uint32_t i = 1; i < total; i++)
		cpu_call_start(&cpus[i], function, NULL);
	function(NULL);
	for (uint32_t i = 1; i < total; i++)
		if (!cpu_call_done(&cpus[i], LIMIT_US))
			tap_bail("processor %u does not come back", i);
}

static uint64_t undefined_run(uint64_t control)
{
	(void)control;
	return (uint64_t)trap_catch(call_run, NULL);
}

static void call_control_run(void *argument)
{
	struct vtl_registers registers = {.rcx = *(uint64_t *)argument};

	vtl_call_bare(&registers);
}

static void call_fast_run(void *argument)
{
	(void)argument;
	vtl_switch_vmmcall(HV_VTL_CALL | HV_FAST, 0);
}

static void call_test(void)
{
	uint64_t wrong = 0, control;
	bool up = true;

	tap_equal(register_of(HV_VTL_OWN, HV_REGISTER_VSM_PARTITION_STATUS), 0x10003,
		"partition status: both VTLs");
	for (uint32_t i = 0; i < total; i++)
		up &= vtl_run_on(i, status_run, 0) == 0x30001;
	tap_check(up, "VP status in VTL1: VTL1 active, both there, on %u processors", total);
	tap_equal(register_of(HV_VTL_OWN, HV_REGISTER_VSM_VP_STATUS), 0x30000,
		"VP status in VTL0: VTL0 active, both there");
	for (uint32_t n = 0; n < ROUND_TRIPS; n++)
		wrong += vtl_run(next_run, n) != n + 1u;
	tap_equal(wrong, 0, "calls and returns, one after the other");
	tap_equal(vtl_entry_reason(), VTL_ENTRY_CALL, "the entry reason is a call");
	storm_end = clock_deadline(STORM_US);
	everywhere(storm_run);
	tap_check(!atomic_load(&storm_wrong) && atomic_load(&storm_calls) >= total,
		"calls and returns on %u processors at the same time", total);
	tap_note("%lu calls, %lu wrong", atomic_load(&storm_calls), atomic_load(&storm_wrong));
	tap_equal(vtl_run(undefined_run, 0), TRAP_UD, "a VTL call of VTL1: #UD");
	control = 1;
	tap_equal((uint64_t)trap_catch(call_control_run, &control), TRAP_UD,
		"a VTL call with a reserved control bit: #UD");
	tap_equal((uint64_t)trap_catch(call_fast_run, NULL), TRAP_UD,
		"a VTL call with the fast bit: #UD");
}

/* --- what is shared --------------------------------------------------------------------------- */

static uint64_t general_run(uint64_t unused)
{
	struct vtl_registers *lower = vtl_lower();

	(void)unused;
	lower->rdx++;
	lower->rbx++;
	lower->rsi++;
	lower->rdi++;
	lower->rbp++;
	lower->r8++;
	lower->r9++;
	lower->r10++;
	lower->r11++;
	lower->r12++;
	lower->r13++;
	lower->r14++;
	lower->r15++;
	return 0;
}

static void general_test(void)
{
	struct vtl_registers r = {0, 0, 0x100, 0x200, 0x300, 0x400, 0x500, 0x600, 0x700, 0x800,
		0x900, 0xa00, 0xb00, 0xc00, 0xd00};

	vtl_request(general_run, 0);
	vtl_call_bare(&r);
	tap_check(r.rdx == 0x101 && r.rbx == 0x201 && r.rsi == 0x301 && r.rdi == 0x401 &&
			r.rbp == 0x501 && r.r8 == 0x601 && r.r9 == 0x701 && r.r10 == 0x801 &&
			r.r11 == 0x901 && r.r12 == 0xa01 && r.r13 == 0xb01 && r.r14 == 0xc01 &&
			r.r15 == 0xd01,
		"general registers go there and back");
}

static void vectors_enable(void)
{
	cr0_write((cr0_read() & ~CR0_EM_TS) | CR0_MP);
	cr4_write(cr4_read() | CR4_FXSR);
}

static uint64_t vector_run(uint64_t wanted)
{
	uint64_t found;

	vectors_enable();
	__asm__ volatile("movq %%xmm5, %0" : "=r"(found));
	__asm__ volatile("movq %0, %%xmm6" : : "r"(wanted + 1));
	return found;
}

static void vector_test(void)
{
	uint64_t wanted = 0x1122334455667788, found, back;

	vectors_enable();
	__asm__ volatile("movq %0, %%xmm5" : : "r"(wanted));
	found = vtl_run(vector_run, wanted);
	__asm__ volatile("movq %%xmm6, %0" : "=r"(back));
	tap_check(found == wanted && back == wanted + 1, "vector registers are shared");
}

#define DEBUG_REGISTER(number)                                                                     \
	static uint64_t dr##number##_read(void)                                                    \
	{                                                                                          \
		uint64_t value;                                                                    \
                                                                                                   \
		__asm__ volatile("mov %%dr" #number ", %0" : "=r"(value));                         \
		return value;                                                                      \
	}                                                                                          \
	static void dr##number##_write(uint64_t value)                                             \
	{                                                                                          \
		__asm__ volatile("mov %0, %%dr" #number : : "r"(value));                           \
	}

DEBUG_REGISTER(0)
DEBUG_REGISTER(1)
DEBUG_REGISTER(2)
DEBUG_REGISTER(3)
DEBUG_REGISTER(6)
DEBUG_REGISTER(7)

#define MSR(name)                                                                                  \
	static uint64_t name##_read(void)                                                          \
	{                                                                                          \
		return msr_read(MSR_##name);                                                       \
	}                                                                                          \
	static void name##_write(uint64_t value)                                                   \
	{                                                                                          \
		msr_write(MSR_##name, value);                                                      \
	}

MSR(SYSENTER_CS)
MSR(SYSENTER_ESP)
MSR(SYSENTER_EIP)
MSR(PAT)
MSR(STAR)
MSR(LSTAR)
MSR(CSTAR)
MSR(SFMASK)
MSR(FS_BASE)
MSR(KERNEL_GS_BASE)
MSR(EFER)

/* A register and two values that it can have on any processor. */
struct state {
	const char *name;
	uint64_t (*read)(void);
	void (*write)(uint64_t value);
	uint64_t lower, upper;
	bool shared;
	uint32_t hypercall_name; /* 0: none */
};

static const struct state states[] = {
	{"SYSENTER_CS", SYSENTER_CS_read, SYSENTER_CS_write, 0x18, 0x20, false,
		HV_REGISTER_SYSENTER_CS},
	{"SYSENTER_ESP", SYSENTER_ESP_read, SYSENTER_ESP_write, 0x1000, 0x2000, false,
		HV_REGISTER_SYSENTER_ESP},
	{"SYSENTER_EIP", SYSENTER_EIP_read, SYSENTER_EIP_write, 0x1100, 0x2200, false,
		HV_REGISTER_SYSENTER_EIP},
	{"PAT", PAT_read, PAT_write, 0x0007040600070406, 0x0006040600070406, false,
		HV_REGISTER_PAT},
	{"STAR", STAR_read, STAR_write, 0x0018001800000000, 0x0010001000000000, false,
		HV_REGISTER_STAR},
	{"LSTAR", LSTAR_read, LSTAR_write, 0x100000, 0x100100, false, HV_REGISTER_LSTAR},
	{"CSTAR", CSTAR_read, CSTAR_write, 0x100200, 0x100300, false, HV_REGISTER_CSTAR},
	{"SFMASK", SFMASK_read, SFMASK_write, 0x200, 0x300, false, HV_REGISTER_SFMASK},
	{"FS base", FS_BASE_read, FS_BASE_write, 0x5000, 0x6000, false, 0},
	{"KERNEL_GS_BASE", KERNEL_GS_BASE_read, KERNEL_GS_BASE_write, 0x7000, 0x8000, false,
		HV_REGISTER_KERNEL_GS_BASE},
	/* With LME and LMA, which stay. */
	{"EFER", EFER_read, EFER_write, 0x501, 0x500, false, HV_REGISTER_EFER},
	{"CR2", cr2_read, cr2_write, 0x123456, 0x654321, true, HV_REGISTER_CR2},
	{"DR0", dr0_read, dr0_write, 0x11111, 0x22222, true, HV_REGISTER_DR0},
	{"DR1", dr1_read, dr1_write, 0x33333, 0x44444, true, HV_REGISTER_DR0 + 1},
	{"DR2", dr2_read, dr2_write, 0x55555, 0x66666, true, HV_REGISTER_DR0 + 2},
	{"DR3", dr3_read, dr3_write, 0x77777, 0x88888, true, HV_REGISTER_DR0 + 3},
	{"DR6", dr6_read, dr6_write, 0xffff0ff0, 0xffff4ff0, false, HV_REGISTER_DR6},
	/* Nothing is armed by it but a breakpoint at an address nobody comes to. */
	{"DR7", dr7_read, dr7_write, 0x400, 0x401, false, HV_REGISTER_DR7},
};

static uint64_t state_swap(uint64_t index)
{
	uint64_t before = states[index].read();

	states[index].write(states[index].upper);
	return before;
}

static uint64_t state_read(uint64_t index)
{
	return states[index].read();
}

static uint64_t state_get(uint64_t index)
{
	return register_of(HV_VTL(0), states[index].hypercall_name);
}

static uint64_t state_set(uint64_t index)
{
	return vtl_register_set(HV_VTL(0), states[index].hypercall_name, states[index].lower, 0);
}

static void state_test(uint64_t index)
{
	const struct state *state = &states[index];
	uint64_t before = state->read(), found, upper;

	state->write(state->lower);
	found = vtl_run(state_swap, index);
	upper = vtl_run(state_read, index);
	if (state->shared)
		tap_check(found == state->lower && state->read() == state->upper, "%s is shared",
			state->name);
	else if (!tap_check(state->read() == state->lower && upper == state->upper,
			 "each level has a %s of its own", state->name))
		tap_note(
			"VTL0 0x%lx, VTL1 0x%lx at first, 0x%lx then", state->read(), found, upper);
	if (state->hypercall_name) {
		found = vtl_run(state_get, index);
		if (!tap_check(found == (state->shared ? state->upper : state->lower),
			    "VTL1 reads %s of VTL0 by hypercall", state->name))
			tap_note("found 0x%lx", found);
		state->write(before);
		found = vtl_run(state_set, index);
		if (!tap_check(done(found) && state->read() == state->lower, "and writes it"))
			tap_note("result 0x%lx, value 0x%lx", found, state->read());
	}
	state->write(before);
}

static uint64_t control_registers_run(uint64_t lower_cr4)
{
	uint64_t mine = cr4_read();

	return mine == lower_cr4 ? 1 : (register_of(HV_VTL(0), HV_REGISTER_CR4) != lower_cr4) * 2;
}

static uint64_t interrupt_flag_run(uint64_t unused)
{
	(void)unused;
	return flags_read() & FLAG_IF;
}

static void private_test(void)
{
	uint64_t cr4 = cr4_read(), flags = flags_read();

	for (uint64_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		state_test(i);
	cr4_write(cr4 | CR4_TSD);
	tap_equal(vtl_run(control_registers_run, cr4 | CR4_TSD), 0,
		"each level has a CR4 of its own, and VTL1 reads that of VTL0");
	cr4_write(cr4);
	tap_check(!vtl_run(interrupt_flag_run, 0) && (flags_read() & FLAG_IF) == (flags & FLAG_IF),
		"each level has an interrupt flag of its own");
}

/* --- VTL0's state in VTL1's hands ------------------------------------------------------------- */

static uint64_t stack_run(uint64_t unused)
{
	(void)unused;
	return register_of(HV_VTL(0), HV_REGISTER_RSP);
}

static uint64_t rip_run(uint64_t unused)
{
	(void)unused;
	return register_of(HV_VTL(0), HV_REGISTER_RIP);
}

static uint64_t segment_run(uint64_t unused)
{
	uint64_t value[2];

	(void)unused;
	if (!done(vtl_register_get(HV_VTL(0), HV_REGISTER_CS, value)))
		return 0;
	return value[1];
}

static uint64_t general_read_run(uint64_t unused)
{
	(void)unused;
	/* Shared, so what VTL1 itself has in it. */
	return vtl_register_get(HV_VTL(0), HV_REGISTER_RBX, vtl_output());
}

static void reach_test(void)
{
	uint64_t value[2], rsp;

	__asm__ volatile("mov %%rsp, %0" : "=r"(rsp));
	tap_check(vtl_run(stack_run, 0) <= rsp && vtl_run(stack_run, 0) > rsp - 4096,
		"VTL1 reads RSP of VTL0");
	value[0] = vtl_run(rip_run, 0);
	tap_check(value[0] > (uint64_t)hv_page && value[0] < (uint64_t)hv_page + 4096,
		"VTL1 reads RIP of VTL0: in the hypercall page, behind the call");
	tap_equal(vtl_run(segment_run, 0) >> 32 & 0xffff, SEGMENT_CODE64,
		"VTL1 reads CS of VTL0, with its selector");
	tap_equal(vtl_run(general_read_run, 0), HV_RESULT(HV_SUCCESS, 1),
		"VTL1 reads a general register");
	tap_equal(vtl_register_get(HV_VTL(1), HV_REGISTER_RIP, value),
		HV_RESULT(HV_ACCESS_DENIED, 0), "VTL0 does not read VTL1's: access denied");
	tap_equal(vtl_register_set(HV_VTL(1), HV_REGISTER_RIP, 0, 0),
		HV_RESULT(HV_ACCESS_DENIED, 0), "VTL0 does not write VTL1's: access denied");
	tap_equal(vtl_register_get(HV_VTL_OWN, HV_REGISTER_RIP, value),
		HV_RESULT(HV_ACCESS_DENIED, 0), "nor, this way, its own");
	tap_equal(vtl_register_get(HV_VTL(1), HV_REGISTER_VSM_PARTITION_CONFIG, value),
		HV_RESULT(HV_ACCESS_DENIED, 0), "VTL0 does not read VTL1's configuration");
}

/* --- interrupts ------------------------------------------------------------------------------- */

static _Atomic uint32_t upper_interrupts[CPU_COUNT_MAX], lower_interrupts[CPU_COUNT_MAX];
static _Atomic uint32_t wrong_level;
static atomic_bool leave, there;

static _Atomic bool hold; /* VTL1 stays in its handler */

static void upper_handle(struct trap_frame *frame)
{
	(void)frame;
	if (!vtl_is_secure())
		atomic_fetch_add(&wrong_level, 1);
	atomic_fetch_add(&upper_interrupts[cpu_self()->number], 1);
	while (atomic_load(&hold))
		cpu_relax();
	msr_write(HV_MSR_EOI, 0);
}

static void lower_handle(struct trap_frame *frame)
{
	(void)frame;
	if (vtl_is_secure())
		atomic_fetch_add(&wrong_level, 1);
	atomic_fetch_add(&lower_interrupts[cpu_self()->number], 1);
	msr_write(HV_MSR_EOI, 0);
}

static uint64_t icr_run(uint64_t cpu)
{
	msr_write(HV_MSR_ICR, (uint64_t)cpus[cpu].apic_id << 56 | ICR_ASSERT | VECTOR_UPPER);
	return 0;
}

static uint64_t cluster_send(uint64_t cpu, uint32_t vector, uint8_t vtl)
{
	uint64_t *input = vtl_input();
	uint32_t banks;

	input[0] = vector | (uint64_t)vtl << 32;
	banks = hv_set_write(&input[1], 1ull << cpu);
	return vtl_hypercall(HV_SEND_IPI_EX | HV_VARIABLE(banks), input, NULL);
}

static uint64_t cluster_run(uint64_t cpu)
{
	return cluster_send(cpu, VECTOR_UPPER, cpu & 1 ? HV_VTL(1) : HV_VTL_OWN);
}

static uint64_t cluster_lower_run(uint64_t cpu)
{
	return cluster_send(cpu, VECTOR_LOWER, HV_VTL(0));
}

/* In VTL0, with interrupts off, until told to leave: only VTL1 can be interrupted here. */
static void closed_run(void *argument)
{
	(void)argument;
	interrupts_disable();
	atomic_store(&there, true);
	while (!atomic_load(&leave))
		cpu_relax();
	interrupts_enable();
}

/* The same in VTL1, with interrupts on. */
static uint64_t upper_closed_run(uint64_t unused)
{
	(void)unused;
	interrupts_enable();
	atomic_store(&there, true);
	while (!atomic_load(&leave))
		cpu_relax();
	interrupts_disable();
	return 0;
}

/* The same with interrupts off until the end. */
static uint64_t upper_off_run(uint64_t unused)
{
	(void)unused;
	atomic_store(&there, true);
	while (!atomic_load(&leave))
		cpu_relax();
	interrupts_enable();
	cpu_relax(); /* not in the shadow of STI */
	interrupts_disable();
	return 0;
}

static void upper_off(void *argument)
{
	(void)argument;
	vtl_run(upper_off_run, 0);
}

static void upper_closed(void *argument)
{
	(void)argument;
	vtl_run(upper_closed_run, 0);
}

static void occupy(uint32_t cpu, void (*function)(void *))
{
	atomic_store(&leave, false);
	atomic_store(&there, false);
	cpu_call_start(&cpus[cpu], function, NULL);
	if (!clock_wait_for(atomic_load(&there), LIMIT_US))
		tap_bail("processor %u does not begin", cpu);
}

static void vacate(uint32_t cpu)
{
	atomic_store(&leave, true);
	cpu_call_wait(&cpus[cpu]);
}

static void upper_interrupt_test(uint32_t cpu)
{
	uint64_t entries;
	bool first;

	/* Halted in VTL0. */
	atomic_store(&upper_interrupts[cpu], 0);
	vtl_run(icr_run, cpu);
	tap_check(clock_wait_for(atomic_load(&upper_interrupts[cpu]) == 1, LIMIT_US),
		"VTL1 interrupts VTL1 of processor %u, which halts in VTL0", cpu);
	tap_equal(vtl_run(cluster_run, cpu), HV_SUCCESS, "cluster IPI to VTL1");
	if (!tap_check(clock_wait_for(atomic_load(&upper_interrupts[cpu]) == 2, LIMIT_US),
		    "and it arrives"))
		tap_note("%u interrupts in place of 2", atomic_load(&upper_interrupts[cpu]));
	occupy(cpu, closed_run);
	entries = vtl_entries(cpu);
	vtl_run(icr_run, cpu);
	tap_check(clock_wait_for(atomic_load(&upper_interrupts[cpu]) == 3, LIMIT_US) &&
			vtl_entries(cpu) == entries + 1,
		"and one that has interrupts off in VTL0");
	vacate(cpu);
	tap_equal(vtl_entry_reason_of(cpu), VTL_ENTRY_INTERRUPT, "the entry reason says so");
	occupy(cpu, upper_closed);
	entries = vtl_entries(cpu);
	vtl_run(icr_run, cpu);
	tap_check(clock_wait_for(atomic_load(&upper_interrupts[cpu]) == 4, LIMIT_US) &&
			vtl_entries(cpu) == entries,
		"and one that is in VTL1");
	/* Requested, in service and requested again are three things. */
	atomic_store(&hold, true);
	vtl_run(icr_run, cpu);
	first = clock_wait_for(atomic_load(&upper_interrupts[cpu]) == 5, LIMIT_US);
	vtl_run(icr_run, cpu);
	atomic_store(&hold, false);
	tap_check(first && clock_wait_for(atomic_load(&upper_interrupts[cpu]) == 6, LIMIT_US),
		"and a second one while the first is handled");
	vacate(cpu);
	occupy(cpu, upper_off);
	vtl_run(icr_run, cpu);
	clock_delay(SETTLE_US);
	vtl_run(icr_run, cpu);
	clock_delay(SETTLE_US);
	vacate(cpu);
	tap_equal(atomic_load(&upper_interrupts[cpu]), 7,
		"two while VTL1 has interrupts off are one");
}

/* Two processors interrupt a third, each again and again with a vector of its own. */
#define CROSSINGS	500u
#define CROSS_TARGET	1u
#define CROSS_SENDER	2u
#define VECTOR_CROSS(n) (0x41u + 0x20u * (n))

static _Atomic uint32_t crossed[2];
static uint64_t crossings_of_other;

static void cross_handle(struct trap_frame *frame)
{
	atomic_fetch_add(&crossed[frame->vector == VECTOR_CROSS(1)], 1);
	msr_write(HV_MSR_EOI, 0);
}

/* In VTL1 of a sender: how many of its interrupts came. */
static uint64_t cross_run(uint64_t which)
{
	for (uint32_t i = 0; i < CROSSINGS; i++) {
		msr_write(HV_MSR_ICR,
			(uint64_t)cpus[CROSS_TARGET].apic_id << 56 | ICR_ASSERT |
				VECTOR_CROSS(which));
		if (!clock_wait_for(atomic_load(&crossed[which]) > i, LIMIT_US))
			return i;
	}
	return CROSSINGS;
}

static void cross_other(void *argument)
{
	(void)argument;
	crossings_of_other = vtl_run(cross_run, 1);
}

static void crossing_test(void)
{
	trap_handler_set(VECTOR_CROSS(0), cross_handle);
	trap_handler_set(VECTOR_CROSS(1), cross_handle);
	occupy(CROSS_TARGET, upper_closed);
	cpu_call_start(&cpus[CROSS_SENDER], cross_other, NULL);
	tap_equal(vtl_run(cross_run, 0), CROSSINGS, "no interrupt is lost beside another");
	cpu_call_wait(&cpus[CROSS_SENDER]);
	tap_equal(crossings_of_other, CROSSINGS, "nor is the other");
	vacate(CROSS_TARGET);
}

static void held_test(uint32_t cpu)
{
	occupy(cpu, upper_closed);
	atomic_store(&lower_interrupts[cpu], 0);
	apic_ipi_send(cpus[cpu].apic_id, ICR_ASSERT | VECTOR_LOWER);
	clock_delay(SETTLE_US);
	tap_equal(atomic_load(&lower_interrupts[cpu]), 0,
		"an interrupt for VTL0 is held while VTL1 runs with interrupts on");
	vacate(cpu);
	tap_check(clock_wait_for(atomic_load(&lower_interrupts[cpu]) == 1, LIMIT_US),
		"and comes afterwards");
	tap_equal(vtl_run(cluster_lower_run, cpu), HV_SUCCESS, "cluster IPI of VTL1 to VTL0");
	tap_check(clock_wait_for(atomic_load(&lower_interrupts[cpu]) == 2, LIMIT_US),
		"and it arrives there");
	tap_equal(cluster_send(cpu, VECTOR_UPPER, HV_VTL(1)), HV_ACCESS_DENIED,
		"cluster IPI of VTL0 to VTL1: access denied");
	tap_equal(atomic_load(&wrong_level), 0, "no interrupt came to the wrong level");
}

static uint64_t tpr_run(uint64_t value)
{
	msr_write(HV_MSR_TPR, value);
	return msr_read(HV_MSR_TPR);
}

static void priority_test(uint32_t cpu)
{
	tap_equal(vtl_run_on(cpu, tpr_run, 0xa0), 0xa0, "VTL1 raises its TPR");
	atomic_store(&upper_interrupts[cpu], 0);
	vtl_run(icr_run, cpu);
	clock_delay(SETTLE_US);
	tap_equal(atomic_load(&upper_interrupts[cpu]), 0,
		"an interrupt of lower priority does not switch levels");
	tap_equal(vtl_run_on(cpu, tpr_run, 0), 0, "VTL1 lowers its TPR");
	tap_check(clock_wait_for(atomic_load(&upper_interrupts[cpu]) == 1, LIMIT_US),
		"and then it comes");
}

static void interrupt_test(void)
{
	trap_handler_set(VECTOR_UPPER, upper_handle);
	trap_handler_set(VECTOR_LOWER, lower_handle);
	if (total < 2) {
		atomic_store(&upper_interrupts[0], 0);
		vtl_run(icr_run, 0);
		tap_check(clock_wait_for(atomic_load(&upper_interrupts[0]) == 1, LIMIT_US),
			"VTL1 interrupts itself");
		return;
	}
	for (uint32_t i = 1; i < total; i++)
		upper_interrupt_test(i);
	if (total > CROSS_SENDER)
		crossing_test();
	held_test(1);
	priority_test(1);
}

/* --- memory ----------------------------------------------------------------------------------- */

static _Alignas(4096) uint8_t page[4096];
static uint8_t code_return[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov $42, %eax; ret */

/* What the last intercept said, and what to do about the next. */
enum remedy {
	REMEDY_SKIP, /* VTL0 goes on behind the instruction */
	REMEDY_GRANT, /* VTL1 allows everything, VTL0 tries again */
	REMEDY_INJECT, /* VTL0 gets a #GP instead */
};

static struct hv_message last;
static _Atomic uint32_t intercepts;
static enum remedy remedy;
static uint64_t skip_to;
static uint64_t remedy_results;

#define EVENT_GP (1ull | 1ull << 8 | 13ull << 16) /* pending, with an error code, vector */

static void intercept_handle(struct vtl_registers *lower, const struct hv_message *message)
{
	(void)lower;
	last = *message;
	switch (remedy) {
	case REMEDY_SKIP:
		remedy_results |= !done(vtl_register_set(HV_VTL(0), HV_REGISTER_RIP, skip_to, 0));
		break;
	case REMEDY_GRANT:
		remedy_results |= !done(vtl_protect(page, 1, HV_MAP_ALL));
		break;
	case REMEDY_INJECT:
		remedy_results |=
			!done(vtl_register_set(HV_VTL(0), HV_REGISTER_PENDING_EVENT0, EVENT_GP, 0));
		break;
	}
	atomic_fetch_add(&intercepts, 1);
}

/* Accesses of known length, so that the one that skips them knows where to go. */
static void access_read(void *argument)
{
	uint64_t found = 0x55;

	__asm__ volatile("lea 1f(%%rip), %%rcx; mov %%rcx, %1; movb (%2), %b0; 1:"
			 : "+a"(found), "=m"(skip_to)
			 : "r"(argument)
			 : "rcx", "memory");
}

static void access_write(void *argument)
{
	__asm__ volatile("lea 1f(%%rip), %%rcx; mov %%rcx, %0; movb $7, 64(%1); 1:"
			 : "=m"(skip_to)
			 : "r"(argument)
			 : "rcx", "memory");
}

static void access_execute(void *argument)
{
	__asm__ volatile("lea 1f(%%rip), %%rcx; mov %%rcx, %0; sub $8, %%rsp; mov %%rcx, (%%rsp); "
			 "jmp *%1; 1:"
			 : "=m"(skip_to)
			 : "r"(argument)
			 : "rax", "rcx", "memory");
}

static uint64_t protect_run(uint64_t flags)
{
	return vtl_protect(page, 1, (uint32_t)flags);
}

static uint64_t config_run(uint64_t value)
{
	return vtl_register_set(HV_VTL_OWN, HV_REGISTER_VSM_PARTITION_CONFIG, value, 0);
}

struct access {
	const char *name;
	void (*run)(void *);
	uint32_t needs; /* HV_MAP_ flags */
	uint32_t kind;
};

static const struct access accesses[] = {
	{"read", access_read, HV_MAP_READ, HV_ACCESS_READ},
	{"write", access_write, HV_MAP_WRITE, HV_ACCESS_WRITE},
	/* Last: skipping it leaves nothing on the stack only if `ret` is not what was skipped. */
	{"execution", access_execute, HV_MAP_EXECUTE, HV_ACCESS_EXECUTE},
};

static const struct {
	const char *name;
	uint32_t flags;
} permissions[] = {
	{"no access", 0},
	{"read", HV_MAP_READ},
	{"read and execute", HV_MAP_READ | HV_MAP_EXECUTE},
	{"read and write", HV_MAP_READ | HV_MAP_WRITE},
	{"everything", HV_MAP_ALL},
};

/* The stack as it was: a skipped execution leaves its return address there. */
static void access_on_clean_stack(const struct access *access)
{
	if (access->kind == HV_ACCESS_EXECUTE)
		remedy = REMEDY_GRANT;
	access->run(page);
}

static void access_test(uint32_t permission, const struct access *access)
{
	bool allowed = (permissions[permission].flags & access->needs) == access->needs;
	uint32_t before = atomic_load(&intercepts);
	bool right;

	remedy = REMEDY_SKIP;
	page[64] = 0;
	if (!done(vtl_run(protect_run, permissions[permission].flags)))
		tap_bail("permissions cannot be changed");
	access_on_clean_stack(access);
	if (allowed) {
		right = atomic_load(&intercepts) == before;
	} else {
		right = atomic_load(&intercepts) == before + 1 && last.type == HV_MESSAGE_MEMORY &&
			last.header.access == access->kind &&
			last.memory.gpa >> 12 == (uint64_t)page >> 12 &&
			last.header.vp_index == hv_index() &&
			last.header.cs.selector == SEGMENT_CODE64;
	}
	vtl_run(protect_run, HV_MAP_ALL);
	right &= page[64] == (access->kind == HV_ACCESS_WRITE && allowed ? 7 : 0);
	if (!tap_check(right, "%s: %s %s", permissions[permission].name, access->name,
		    allowed ? "passes" : "is intercepted, and VTL1 told"))
		tap_note("%u intercepts, type 0x%x, access %u, gpa 0x%lx, gva 0x%lx, rip 0x%lx",
			atomic_load(&intercepts) - before, last.type, last.header.access,
			last.memory.gpa, last.memory.gva, last.header.rip);
}

static uint64_t upper_write_run(uint64_t value)
{
	page[128] = (uint8_t)value;
	return page[128];
}

static void input_in_page_run(void *argument)
{
	*(uint64_t *)argument = hv_call(HV_FLUSH_SPACE, (uint64_t)page);
}

static void output_in_page_run(void *argument)
{
	uint64_t *input = vtl_input();

	input[0] = HV_SELF;
	input[1] = HV_VP_SELF;
	input[2] = HV_REGISTER_VSM_VP_STATUS;
	*(uint64_t *)argument = vtl_hypercall(HV_GET_REGISTERS | HV_REPS(1), input, page);
}

/* The timer register from a page, or a page from it: instructions that Parapet carries out. */
static void emulated_read_run(void *argument)
{
	uint64_t source = (uint64_t)argument, target = APIC_BASE_ADDRESS + APIC_TIMER_START;

	__asm__ volatile("lea 1f(%%rip), %%rcx; mov %%rcx, %2; movsl; 1:"
			 : "+S"(source), "+D"(target), "=m"(skip_to)
			 :
			 : "rcx", "memory");
}

static void deputy_test(void)
{
	uint64_t result = 0;
	uint32_t before = atomic_load(&intercepts);

	remedy = REMEDY_SKIP;
	memset(page, 0, sizeof(page));
	vtl_run(protect_run, 0);
	input_in_page_run(&result);
	tap_equal(result, HV_RESULT(HV_INVALID_INPUT, 0),
		"hypercall input in a page that VTL0 may not read: invalid input");
	vtl_run(protect_run, HV_MAP_READ);
	output_in_page_run(&result);
	tap_equal(result, HV_RESULT(HV_INVALID_INPUT, 0),
		"hypercall output in a page that VTL0 may not write: invalid input");
	tap_check(msr_write_catch(HV_MSR_VP_ASSIST_PAGE, (uint64_t)page | HV_ENABLE) == TRAP_GP,
		"an assist page that VTL0 may not write: #GP");
	tap_equal(atomic_load(&intercepts), before, "none of them is an intercept");
	vtl_run(protect_run, 0);
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_LOWER);
	emulated_read_run(page);
	tap_check(atomic_load(&intercepts) == before + 1 && last.type == HV_MESSAGE_MEMORY &&
			last.memory.gpa >> 12 == (uint64_t)page >> 12,
		"an instruction that Parapet carries out with a forbidden page is intercepted");
	vtl_run(protect_run, HV_MAP_ALL);
}

/* --- the default ------------------------------------------------------------------------------ */

#define CONFIG_READ_WRITE (3ull << 1)
#define ELSEWHERE	  0x4000000ull /* RAM that nobody uses */

static _Atomic uint32_t opened, handled;
static atomic_bool image_is_open;

/* All of the kernel's image but pages that refuse, of which VTL0's hypercall page is one. */
static void image_open(void)
{
	const char *at = image_start;

	while (at < image_end) {
		uint64_t pages = (uint64_t)(image_end - at) / 4096;
		uint64_t result = vtl_protect(at, pages < 256 ? (uint32_t)pages : 256, HV_MAP_ALL);

		at += (result >> 32) * 4096;
		at += result & 0xffff ? 4096 : 0;
	}
}

/* VTL0 stops at once: its code is memory like any other. */
static void default_handle(struct vtl_registers *lower, const struct hv_message *message)
{
	(void)lower;
	last = *message;
	/* Before it is open: whoever then gets through finds it counted. */
	atomic_fetch_add(&opened, 1);
	/* Once, or a late one would give back what VTL0 of another processor has lost again by then. */
	if (!atomic_load(&image_is_open)) {
		image_open();
		atomic_store(&image_is_open, true);
	}
	atomic_fetch_add(&handled, 1);
}

static void default_test(void)
{
	uint32_t before;

	vtl_intercept_set(default_handle);
	tap_equal(vtl_run(config_run, CONFIG_PROTECT | CONFIG_READ_WRITE), HV_RESULT(HV_SUCCESS, 1),
		"VTL1 enables protection, with no execution by default");
	tap_check(clock_wait_for(atomic_load(&handled) == atomic_load(&opened), 5000000),
		"and opens the image");
	tap_note("%u intercepts on %u processors, the last of access %u at 0x%lx",
		atomic_load(&opened), total, last.header.access, last.header.rip);
	/* Others may have been on their way when it was opened. */
	tap_check(atomic_load(&opened) >= 1 && atomic_load(&opened) <= total &&
			last.header.access == HV_ACCESS_EXECUTE,
		"the next instruction of VTL0 is intercepted");
	vtl_intercept_set(intercept_handle);
	before = atomic_load(&intercepts);
	remedy = REMEDY_SKIP;
	*(volatile uint64_t *)ELSEWHERE = 0xc3;
	tap_equal(atomic_load(&intercepts), before, "elsewhere VTL0 can read and write");
	access_execute((void *)ELSEWHERE);
	__asm__ volatile("" : : : "memory");
	tap_check(atomic_load(&intercepts) == before + 1 &&
			last.header.access == HV_ACCESS_EXECUTE &&
			last.memory.gpa >> 12 == ELSEWHERE >> 12,
		"but not execute");
	access_write(hv_page);
	tap_check(atomic_load(&intercepts) == before + 2 && hv_page[64] != 7 &&
			last.header.access == HV_ACCESS_WRITE &&
			last.memory.gpa >> 12 == (uint64_t)hv_page >> 12,
		"VTL0 executes its hypercall page, and does not write there");
}

/* --- permissions, one after the other ---------------------------------------------------------- */

static uint64_t config_read_run(uint64_t unused)
{
	(void)unused;
	return register_of(HV_VTL_OWN, HV_REGISTER_VSM_PARTITION_CONFIG);
}

static void memory_test(void)
{
	uint32_t before;

	memcpy(page, code_return, sizeof(code_return));
	if (!boot_word_find("start"))
		tap_equal(vtl_run(config_read_run, 0), CONFIG_ALL | CONFIG_ZERO,
			"at first everything is allowed, and memory zeroed at a reset");
	tap_equal(vtl_run(protect_run, 0), HV_RESULT(HV_ACCESS_DENIED, 0),
		"permissions before protection is enabled: access denied");
	if (boot_word_find("default"))
		default_test();
	else
		tap_equal(vtl_run(config_run, CONFIG_PROTECT | CONFIG_ALL | CONFIG_ZERO),
			HV_RESULT(HV_SUCCESS, 1), "VTL1 enables protection");
	vtl_intercept_set(intercept_handle);
	for (uint32_t i = 0; i < sizeof(permissions) / sizeof(permissions[0]); i++)
		for (uint32_t j = 0; j < sizeof(accesses) / sizeof(accesses[0]); j++)
			access_test(i, &accesses[j]);
	vtl_run(protect_run, 0);
	tap_equal(vtl_run(upper_write_run, 99), 99, "VTL1 itself may do everything");
	before = atomic_load(&intercepts);
	remedy = REMEDY_GRANT;
	access_read(page);
	tap_check(atomic_load(&intercepts) == before + 1 && page[128] == 99,
		"VTL1 allows it, and VTL0 tries again");
	vtl_run(protect_run, 0);
	remedy = REMEDY_INJECT;
	tap_equal((uint64_t)trap_catch(access_write, page), TRAP_GP,
		"VTL1 has VTL0 get a #GP instead");
	vtl_run(protect_run, HV_MAP_ALL);
	deputy_test();
	tap_equal(remedy_results, 0, "everything VTL1 did about intercepts succeeded");
}

/* --- registers that VTL1 watches -------------------------------------------------------------- */

#define WATCH_CR0	  (1ull << 0)
#define WATCH_CR4	  (1ull << 1)
#define WATCH_LSTAR_WRITE (1ull << 6)
#define WATCH_EFER_WRITE  (1ull << 14)
#define WATCH_GDTR	  (1ull << 15)
#define WATCH_IDTR	  (1ull << 16)

static uint64_t watch_run(uint64_t set)
{
	return done(vtl_register_set(HV_VTL_OWN, HV_REGISTER_CR_INTERCEPT_CONTROL, set, 0)) &&
		done(vtl_register_set(HV_VTL_OWN, HV_REGISTER_CR_INTERCEPT_CR0_MASK, CR0_WP, 0)) &&
		done(vtl_register_set(HV_VTL_OWN, HV_REGISTER_CR_INTERCEPT_CR4_MASK, CR4_TSD, 0));
}

static void cr0_run(void *argument)
{
	__asm__ volatile("lea 1f(%%rip), %%rcx; mov %%rcx, %0; mov %1, %%cr0; 1:"
			 : "=m"(skip_to)
			 : "r"(*(uint64_t *)argument)
			 : "rcx", "memory");
}

static void cr4_run(void *argument)
{
	__asm__ volatile("lea 1f(%%rip), %%rcx; mov %%rcx, %0; mov %1, %%cr4; 1:"
			 : "=m"(skip_to)
			 : "r"(*(uint64_t *)argument)
			 : "rcx", "memory");
}

static void wrmsr_run(uint32_t msr, uint64_t value)
{
	__asm__ volatile("lea 1f(%%rip), %%rsi; mov %%rsi, %0; wrmsr; 1:"
			 : "=m"(skip_to)
			 : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr)
			 : "rsi", "memory");
}

static void lstar_run(void *argument)
{
	wrmsr_run(MSR_LSTAR, *(uint64_t *)argument);
}

static void efer_run(void *argument)
{
	wrmsr_run(MSR_EFER, *(uint64_t *)argument);
}

struct watched {
	const char *name;
	uint64_t bit;
	void (*write)(void *);
	uint64_t (*read)(void);
	uint64_t flip;
	uint32_t type;
};

static const struct watched watched[] = {
	{"CR0", WATCH_CR0, cr0_run, cr0_read, CR0_WP, HV_MESSAGE_REGISTER},
	{"CR4", WATCH_CR4, cr4_run, cr4_read, CR4_TSD, HV_MESSAGE_REGISTER},
	{"LSTAR", WATCH_LSTAR_WRITE, lstar_run, LSTAR_read, 0x1000, HV_MESSAGE_MSR},
	{"EFER", WATCH_EFER_WRITE, efer_run, EFER_read, EFER_SCE, HV_MESSAGE_MSR},
};

static void watched_test(const struct watched *w)
{
	uint64_t before = w->read(), wanted = before ^ w->flip;
	uint32_t count = atomic_load(&intercepts);

	remedy = REMEDY_SKIP;
	if (!tap_equal(vtl_run(watch_run, w->bit), 1, "VTL1 watches a register"))
		return;
	w->write(&wanted);
	if (!tap_check(atomic_load(&intercepts) == count + 1 && w->read() == before &&
			    last.type == w->type,
		    "a write of %s is intercepted, and not carried out", w->name))
		tap_note("%u intercepts, type 0x%x", atomic_load(&intercepts) - count, last.type);
	vtl_run(watch_run, 0);
	w->write(&wanted);
	tap_check(atomic_load(&intercepts) == count + 1 && w->read() == wanted,
		"not watched, it is written");
	w->write(&before);
}

static void mask_test(void)
{
	uint32_t count = atomic_load(&intercepts);
	uint64_t value = cr0_read() ^ CR0_MP;

	vtl_run(watch_run, WATCH_CR0);
	cr0_run(&value);
	tap_check(atomic_load(&intercepts) == count && cr0_read() == value,
		"a write that changes nothing in the mask is not intercepted");
	vtl_run(watch_run, 0);
}

static void watch_test(void)
{
	for (uint32_t i = 0; i < sizeof(watched) / sizeof(watched[0]); i++)
		watched_test(&watched[i]);
	mask_test();
	tap_equal(remedy_results, 0, "everything VTL1 did about them succeeded");
}

/* --- debug registers -------------------------------------------------------------------------- */

static volatile uint32_t watched_word;
static _Atomic uint32_t debug_traps, debug_traps_upper;
static uint64_t debug_dr6, debug_rip; /* of the last one */

static void debug_handle(struct trap_frame *frame)
{
	debug_dr6 = dr6_read();
	debug_rip = frame->rip;
	atomic_fetch_add(vtl_is_secure() ? &debug_traps_upper : &debug_traps, 1);
	dr6_write(0xffff0ff0);
}

#define DR7_WRITE_4 (0x400ull | 1 | 1ull << 16 | 3ull << 18) /* DR0, writes of four bytes */

static uint64_t word_write_run(uint64_t value)
{
	watched_word = (uint32_t)value;
	return 0;
}

static uint64_t upper_arm_run(uint64_t value)
{
	dr7_write(value);
	return 0;
}

static void debug_test(void)
{
	trap_handler_set(TRAP_DB, debug_handle);
	dr0_write((uint64_t)&watched_word);
	dr7_write(DR7_WRITE_4);
	watched_word = 1;
	tap_check(atomic_load(&debug_traps) == 1 && !atomic_load(&debug_traps_upper),
		"VTL0's watchpoint hits in VTL0");
	vtl_run(word_write_run, 2);
	tap_check(watched_word == 2 && atomic_load(&debug_traps) == 1 &&
			!atomic_load(&debug_traps_upper),
		"and not in VTL1");
	dr7_write(0x400);
	vtl_run(upper_arm_run, DR7_WRITE_4);
	watched_word = 3;
	tap_check(atomic_load(&debug_traps) == 1 && !atomic_load(&debug_traps_upper),
		"VTL1's does not hit in VTL0");
	vtl_run(word_write_run, 4);
	tap_check(atomic_load(&debug_traps) == 1 && atomic_load(&debug_traps_upper) == 1,
		"but in VTL1");
	vtl_run(upper_arm_run, 0x400);
	dr0_write(0);
}

/*
 * VTL0 steps through the code for VTL calls, of the hypercall page: the traps are in front of each of its
 * instructions and behind them, and behind the three that end the stepping.
 */
#define STEP_CALL_TRAPS 8u
#define STEP_CALL_AFTER 11u /* bytes of MOV, MOV and VMMCALL */

static struct {
	uint32_t count;
	struct {
		uint64_t vector, rip, dr6;
	} event[STEP_CALL_TRAPS];
} steps;

static void step_handle(struct trap_frame *frame)
{
	if (vtl_is_secure()) {
		atomic_fetch_add(&debug_traps_upper, 1);
	} else if (steps.count++ < STEP_CALL_TRAPS) {
		steps.event[steps.count - 1].vector = frame->vector;
		steps.event[steps.count - 1].rip = frame->rip;
		steps.event[steps.count - 1].dr6 = dr6_read() & 0xe00f;
	}
	dr6_write(0xffff0ff0);
}

/* In VTL1: says whether it steps, and has VTL0 find the event. */
static uint64_t step_upper_run(uint64_t event)
{
	uint64_t right = !(flags_read() & FLAG_TF);

	if (event)
		right &= done(vtl_register_set(HV_VTL(0), HV_REGISTER_PENDING_EVENT0, event, 0));
	return right;
}

static void step_call(uint64_t address, uint64_t event)
{
	steps.count = 0;
	vtl_request(step_upper_run, event);
	__asm__ volatile("push %%rbx; push %%rbp; xor %%ecx, %%ecx\n\t"
			 "pushfq; orq $0x100, (%%rsp); popfq\n\t"
			 "call *%%rdi\n\t"
			 "pushfq; andq $~0x100, (%%rsp); popfq; pop %%rbp; pop %%rbx"
			 : "+D"(address)
			 :
			 : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13",
			 "r14", "r15", "memory", "cc");
}

/* `event`: what VTL1 has VTL0 find behind the call in place of the trap there, a #GP; or 0. */
static void step_call_test(const char *name, uint64_t event)
{
	uint64_t address = vtl_call_address();
	uint64_t vector = event ? TRAP_GP : TRAP_DB;
	uint32_t right = 0, behind = 0;

	trap_handler_set(TRAP_DB, step_handle);
	trap_handler_set(TRAP_GP, step_handle);
	atomic_store(&debug_traps_upper, 0);
	for (uint32_t i = 0; i < 20; i++) {
		step_call(address, event);
		right += steps.count == STEP_CALL_TRAPS && vtl_result() == 1;
		behind += steps.event[3].rip == address + STEP_CALL_AFTER &&
			steps.event[3].vector == vector &&
			steps.event[3].dr6 == (event ? 0 : 0x4000) &&
			steps.event[4].rip != address + STEP_CALL_AFTER;
	}
	trap_handler_set(TRAP_DB, debug_handle);
	trap_handler_set(TRAP_GP, NULL);
	if (!tap_check(behind == 20, "a step over a VTL call: one %s behind it", name))
		tap_note("%u of 20; at +%ld, vector %lu, DR6 0x%lx", behind,
			steps.event[3].rip - address, steps.event[3].vector, steps.event[3].dr6);
	if (!tap_check(right == 20 && !atomic_load(&debug_traps_upper),
		    "one for each other instruction, and none in VTL1"))
		tap_note("%u of 20; %u at last, %u in VTL1", right, steps.count,
			atomic_load(&debug_traps_upper));
}

/* A watchpoint on a page that VTL1 has taken: no #DB before the write is done. */
static void debug_page_test(const char *name, uint32_t flags)
{
	uint32_t before = atomic_load(&intercepts), traps = atomic_load(&debug_traps);
	uint32_t traps_upper = atomic_load(&debug_traps_upper);

	page[64] = 0;
	dr6_write(0xffff0ff0);
	dr0_write((uint64_t)&page[64]);
	dr7_write(DR7_WRITE_4);
	vtl_run(protect_run, flags);
	remedy = REMEDY_SKIP;
	access_write(page);
	if (!tap_check(atomic_load(&intercepts) == before + 1 && last.type == HV_MESSAGE_MEMORY &&
			    last.header.access == HV_ACCESS_WRITE &&
			    last.memory.gpa >> 12 == (uint64_t)page >> 12 &&
			    atomic_load(&debug_traps) == traps && dr6_read() == 0xffff0ff0,
		    "%s: a watched write is intercepted once, and no #DB", name))
		tap_note("%u intercepts, %u #DB, DR6 0x%lx", atomic_load(&intercepts) - before,
			atomic_load(&debug_traps) - traps, dr6_read());
	remedy = REMEDY_GRANT;
	access_write(page);
	if (!tap_check(atomic_load(&intercepts) == before + 2 && page[64] == 7 &&
			    atomic_load(&debug_traps) == traps + 1 && (debug_dr6 & 0xe00f) == 1 &&
			    debug_rip == skip_to && atomic_load(&debug_traps_upper) == traps_upper,
		    "%s: VTL1 allows it, and the write raises one #DB", name))
		tap_note("%u intercepts, %u #DB, the last with DR6 0x%lx at 0x%lx",
			atomic_load(&intercepts) - before - 1, atomic_load(&debug_traps) - traps,
			debug_dr6, debug_rip);
	dr7_write(0x400);
	dr0_write(0);
}

/* --- the TLB lock ------------------------------------------------------------------------------ */

#define CONFIG_TLB_LOCKED 2ull

static _Atomic uint32_t flushed;

static uint64_t tlb_lock_run(uint64_t lock)
{
	return done(vtl_register_set(HV_VTL_OWN, HV_REGISTER_VSM_SECURE_CONFIG_VTL0, lock, 0)) &&
		register_of(HV_VTL_OWN, HV_REGISTER_VSM_SECURE_CONFIG_VTL0) == lock;
}

/* In VTL1, with the lock, until told to leave; the return releases it. */
static uint64_t locked_run(uint64_t unused)
{
	uint64_t right = tlb_lock_run(CONFIG_TLB_LOCKED);

	(void)unused;
	atomic_store(&there, true);
	while (!atomic_load(&leave))
		cpu_relax();
	return right;
}

static uint64_t locked_right;

static void locked(void *argument)
{
	(void)argument;
	locked_right = vtl_run(locked_run, 0);
}

static void flush_run(void *argument)
{
	uint64_t *input = vtl_input();

	(void)argument;
	input[0] = cr3_read();
	input[1] = HV_ALL_PROCESSORS;
	input[2] = 0;
	if (vtl_hypercall(HV_FLUSH_SPACE, input, NULL) == HV_SUCCESS)
		atomic_fetch_add(&flushed, 1);
}

static uint64_t own_flush_run(uint64_t unused)
{
	flush_run(NULL);
	return unused;
}

static void lock_test(void)
{
	tap_equal(vtl_run(tlb_lock_run, CONFIG_TLB_LOCKED), 1, "VTL1 locks VTL0's TLB");
	flush_run(NULL);
	tap_equal(atomic_load(&flushed), 1, "its return to VTL0 has unlocked it");
	tap_equal(vtl_run(tlb_lock_run, 0), 1, "VTL1 finds it unlocked");
	vtl_run(own_flush_run, 0);
	tap_equal(atomic_load(&flushed), 2, "VTL1 flushes its own translations");
	if (total < 3)
		return;
	occupy(1, locked);
	cpu_call_start(&cpus[2], flush_run, NULL);
	tap_check(!cpu_call_done(&cpus[2], SETTLE_US) && atomic_load(&flushed) == 2,
		"a flush by VTL0 waits while VTL1 of another processor holds the lock");
	vacate(1);
	cpu_call_wait(&cpus[2]);
	tap_check(atomic_load(&flushed) == 3 && locked_right, "and goes on when it is released");
}

/* --- what VTL0 is shut out of ----------------------------------------------------------------- */

static uint64_t shut_run(uint64_t flags)
{
	uint32_t pages = (uint32_t)((vtl1_end - vtl1_start) / 4096);

	for (uint32_t at = 0; at < pages; at += 256) {
		uint32_t count = pages - at < 256 ? pages - at : 256;

		if (vtl_protect(vtl1_start + at * 4096ull, count, (uint32_t)flags) !=
			HV_RESULT(HV_SUCCESS, count))
			return at + 1;
	}
	return 0;
}

static void shut_test(void)
{
	uint32_t before = atomic_load(&intercepts);
	uint64_t right = 0;

	/* The overlay pages among them do not change, but they refuse: leave those of hypercalls out. */
	remedy = REMEDY_SKIP;
	if (!tap_equal(vtl_run(shut_run, 0), 0, "VTL1 shuts VTL0 out of all of its memory"))
		return;
	access_read(vtl1_start);
	access_write(vtl1_start);
	access_read(vtl1_end - 4096);
	access_write(vtl1_end - 4096);
	tap_equal(atomic_load(&intercepts), before + 4, "VTL0 cannot read or write it");
	for (uint32_t i = 0; i < total; i++)
		right += vtl_run_on(i, next_run, i) == i + 1;
	tap_equal(right, total, "and VTL1 goes on, on every processor");
}

/* --- starting processors ---------------------------------------------------------------------- */

static void init_test(void)
{
	uint64_t right = 0;

	if (total < 2)
		return;
	apic_ipi_send(cpus[1].apic_id, ICR_INIT | ICR_ASSERT);
	clock_delay(SETTLE_US);
	apic_ipi_send(cpus[1].apic_id, ICR_SIPI | ICR_ASSERT | 0x9f);
	clock_delay(SETTLE_US);
	for (uint32_t i = 0; i < total; i++)
		right += vtl_run_on(i, next_run, i) == i + 1;
	tap_equal(right, total, "INIT and SIPI of VTL0 do nothing to a processor with VTL1");
}

static uint64_t start_lower_run(uint64_t cpu)
{
	return vtl_start((uint32_t)cpu, 0);
}

static uint64_t start_upper_run(uint64_t cpu)
{
	return vtl_start((uint32_t)cpu, 1);
}

/* VTL1 has said that VTL0 may start nobody. */
static void denied_test(uint32_t cpu)
{
	struct acpi_wakeup wakeup;

	tap_equal(vtl_run(config_run, CONFIG_ALL | CONFIG_DENY), HV_RESULT(HV_SUCCESS, 1),
		"VTL1 denies VTL0 to start processors");
	tap_equal(vtl_start(cpu, 0), HV_ACCESS_DENIED, "by hypercall: access denied");
	apic_ipi_send(cpus[cpu].apic_id, ICR_INIT | ICR_ASSERT);
	clock_delay(SETTLE_US);
	apic_ipi_send(cpus[cpu].apic_id, ICR_SIPI | ICR_ASSERT | cpu_trampoline_get() >> 12);
	tap_check(!cpu_idle_wait(&cpus[cpu], SETTLE_US), "by INIT and SIPI: nothing happens");
	if (wake_find(&wakeup)) {
		wake_command_write(cpus[cpu].apic_id, wake_vector_high(), WAKE_COMMAND_WAKEUP);
		tap_check(!wake_command_taken(SETTLE_US) && !cpu_idle_wait(&cpus[cpu], SETTLE_US),
			"by the mailbox: nothing happens");
		wake_command_write(cpus[cpu].apic_id, 0, WAKE_COMMAND_NONE);
	}
	tap_equal(vtl_run(start_lower_run, cpu), HV_SUCCESS, "VTL1 itself may");
	tap_check(cpu_idle_wait(&cpus[cpu], LIMIT_US), "and it comes up");
	vtl_run(config_run, CONFIG_ALL);
}

/* They have a VTL1 each and have never run. */
static void processors_start(void)
{
	for (uint32_t i = 1; i < total; i++) {
		if (i == total - 1) {
			denied_test(i);
			continue;
		}
		if (i == 3) {
			tap_equal(vtl_start(i, 1), HV_ACCESS_DENIED,
				"VTL0 does not start a processor in VTL1: access denied");
			tap_equal(vtl_run(start_upper_run, i), HV_SUCCESS,
				"VTL1 starts a processor in VTL1");
			tap_check(clock_wait_for(vtl_entries(i) > 0, LIMIT_US),
				"and it comes up there");
		}
		tap_equal(i & 1 ? vtl_start(i, 0) : vtl_run(start_lower_run, i), HV_SUCCESS,
			i & 1 ? "VTL0 starts a processor" : "VTL1 starts a processor in VTL0");
		tap_check(cpu_idle_wait(&cpus[i], LIMIT_US), "and it comes up");
		tap_equal(vtl_start(i, 0), HV_INVALID_VP_STATE, "and again: invalid VP state");
	}
}

static void start_all_by_hypercall(void)
{
	total = cpu_all_find();
	interrupts_enable();
	tap_note("under a paravisor, %u processors", total);
	clock_frequency();
	hv_start();
	hv_indexes_find();
	before_test();
	if (vtl_partition_enable(1) || vtl_vp_enable(0))
		tap_bail("VTL1 cannot be enabled");
	vtl_finish_bring_up(processors_start);
}

static void start_all_by_interrupt(void)
{
	total = cpu_all_start();
	interrupts_enable();
	tap_note("under a paravisor, %u processors", total);
	clock_frequency();
	hv_start();
	hv_indexes_read();
	before_test();
	vtl_bring_up();
}

/* --- what is there at the end ------------------------------------------------------------------ */

static _Alignas(4096) uint8_t kept[4][4096];

/* The second change is of less than the first, so of both something is left. */
static uint64_t keep_run(uint64_t unused)
{
	(void)unused;
	return vtl_protect(kept, 4, 0) == HV_RESULT(HV_SUCCESS, 4) &&
		vtl_protect(kept, 3, HV_MAP_READ | HV_MAP_EXECUTE) == HV_RESULT(HV_SUCCESS, 3);
}

/* The last changes of all: the runner looks for them in the statistics and in the trace. */
static void keep_test(void)
{
	uint32_t cpu = total - 1, before = atomic_load(&intercepts);

	tap_equal(vtl_run_on(cpu, keep_run, 0), 1,
		"VTL1 takes four pages away, and gives three back to read");
	remedy = REMEDY_SKIP;
	access_read(kept[0]);
	access_read(kept[2]);
	tap_equal(atomic_load(&intercepts), before, "which VTL0 can read");
	access_write(kept[0]);
	access_write(kept[2]);
	access_read(kept[3]);
	tap_check(atomic_load(&intercepts) == before + 3 && !kept[0][64] && !kept[2][64],
		"and not write, nor read the fourth");
	tap_note("kept: from %lu on, by VP %u", (uint64_t)kept, hv_index_of(cpu));
}

void kernel_main(void)
{
	if (!boot_has_paravisor()) {
		tap_note("on the bare machine: nothing to test");
		tap_skip("VSM", "not under a paravisor");
		return;
	}
	if (!vtl_is_offered())
		tap_bail("VSM is not offered: vsm=on?");
	if (boot_word_find("start"))
		start_all_by_hypercall();
	else
		start_all_by_interrupt();
	call_test();
	general_test();
	vector_test();
	private_test();
	reach_test();
	interrupt_test();
	debug_test();
	step_call_test("#DB", 0);
	step_call_test("#GP, VTL1's, and no #DB", EVENT_GP);
	memory_test();
	debug_page_test("write taken away", HV_MAP_READ | HV_MAP_EXECUTE);
	debug_page_test("everything taken away", 0);
	watch_test();
	lock_test();
	shut_test();
	init_test();
	keep_test();
	if (boot_word_find("reset"))
		trap_triple_fault();
}
