/*
 * The hypercalls of VSM with wrong input: each call's every rule, before VTL1 is there, from VTL0 and from
 * VTL1; how much of a list is done when something in it is wrong; and what a call that fails leaves as it
 * was. What they do with right input is vsm.c's.
 *
 * "start" on the command line: starting processors, and nothing else.
 */
#include "acpi.h"
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

#define SIMPLE(code) ((uint64_t)(code))
#define REP(code, n) ((uint64_t)(code) | HV_REPS(n))
#define NOWHERE	     0x0fffffu /* a VP index, an APIC id that nobody has */
#define LIMIT_US     10000000u
#define STORM_US     500000u
#define SETTLE_US    20000u

#define CONFIG_PROTECT 1ull
#define CONFIG_ALL     (0xfull << 1)

#define EFER_LMA (1ull << 10)

static uint32_t total;
static _Alignas(4096) uint8_t pages[8][4096];

static void expect(uint64_t found, uint64_t wanted, const char *name)
{
	tap_equal(found, wanted, name);
}

/* --- a call, in whichever level --------------------------------------------------------------- */

/* Input words in place, then the call; run by this level or, through ask, by VTL1. */
struct call {
	uint64_t value;
	uint64_t words[40];
	uint32_t count;
	uint64_t output; /* an address; 0: this level's page */
};

static uint64_t call_run(uint64_t argument)
{
	const struct call *call = (const struct call *)argument;
	uint64_t *input = vtl_input();

	for (uint32_t i = 0; i < call->count; i++)
		input[i] = call->words[i];
	return vtl_hypercall(
		call->value, input, call->output ? (void *)call->output : vtl_output());
}

static uint64_t lower(const struct call *call)
{
	return call_run((uint64_t)call);
}

static uint64_t upper(const struct call *call)
{
	return vtl_run(call_run, (uint64_t)call);
}

#define CALL(code, ...)                                                                            \
	((struct call){.value = (code),                                                            \
		.words = {__VA_ARGS__},                                                            \
		.count = sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t)})

#define LOWER(code, ...) lower(&CALL(code, __VA_ARGS__))
#define UPPER(code, ...) upper(&CALL(code, __VA_ARGS__))

/* --- enabling --------------------------------------------------------------------------------- */

static void partition_test(void)
{
	expect(LOWER(HV_ENABLE_PARTITION_VTL, 1, 1), HV_INVALID_PARTITION_ID,
		"enable VTL: of another partition: invalid partition id");
	expect(LOWER(HV_ENABLE_PARTITION_VTL, HV_SELF, 0), HV_ACCESS_DENIED,
		"enable VTL 0: access denied");
	expect(LOWER(HV_ENABLE_PARTITION_VTL, HV_SELF, 2), HV_ACCESS_DENIED,
		"enable VTL 2: access denied");
	expect(LOWER(HV_ENABLE_PARTITION_VTL, HV_SELF, 3), HV_INVALID_PARAMETER,
		"enable VTL 3: invalid parameter");
	expect(LOWER(HV_ENABLE_PARTITION_VTL, HV_SELF, 1 | 1 << 8), HV_INVALID_PARAMETER,
		"enable VTL with MBEC: invalid parameter");
	expect(LOWER(HV_ENABLE_PARTITION_VTL, HV_SELF, 1 | 1ull << 63), HV_INVALID_PARAMETER,
		"enable VTL with a reserved bit: invalid parameter");
	expect(LOWER(REP(HV_ENABLE_PARTITION_VTL, 1), HV_SELF, 1), HV_INVALID_INPUT,
		"enable VTL with a list: invalid input");
	expect(LOWER(HV_ENABLE_PARTITION_VTL | HV_VARIABLE(1), HV_SELF, 1), HV_INVALID_INPUT,
		"enable VTL with a variable header: invalid input");
	expect(vtl_vp_enable(0), HV_INVALID_VTL_STATE,
		"VTL1 of a VP before that of the partition: invalid VTL state");
	expect(vtl_partition_enable(1), HV_SUCCESS, "enable VTL1");
	expect(vtl_partition_enable(1), HV_INVALID_VTL_STATE, "and again: invalid VTL state");
}

/* A call with a context: by the level that is given, or by VTL0. */
static uint64_t context_call_by(uint64_t (*level)(const struct call *), uint64_t code,
	uint32_t index, uint64_t vtl, const struct hv_context *context)
{
	struct call call = {.value = code, .words = {HV_SELF, index | vtl << 32}, .count = 30};

	memcpy(&call.words[2], context, sizeof(*context));
	return level(&call);
}

static uint64_t context_call(
	uint64_t code, uint32_t index, uint64_t vtl, const struct hv_context *context)
{
	return context_call_by(lower, code, index, vtl, context);
}

static void context_test(uint64_t (*level)(const struct call *), uint64_t code, uint32_t cpu,
	uint64_t vtl, const char *name)
{
	static const struct {
		const char *name;
		size_t offset;
		uint64_t clear, set;
	} wrong[] = {
		{"paging without protection", offsetof(struct hv_context, cr0), 1, 1ull << 31},
		{"CR0 above 32 bits", offsetof(struct hv_context, cr0), 0, 1ull << 32},
		{"reserved bits of CR4", offsetof(struct hv_context, cr4), 0, 1ull << 63},
		{"reserved bits of EFER", offsetof(struct hv_context, efer), 0, 1ull << 63},
		{"CR3 beyond the address space", offsetof(struct hv_context, cr3), 0, 1ull << 62},
		{"RIP that is not canonical", offsetof(struct hv_context, rip), 0, 1ull << 62},
		{"PAT with an unknown type", offsetof(struct hv_context, pat), 0, 0xff},
	};

	struct hv_context context;
	uint64_t found;

	for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		uint64_t *word;

		vtl_context(&context, cpu);
		word = (uint64_t *)((uint8_t *)&context + wrong[i].offset);
		*word = (*word & ~wrong[i].clear) | wrong[i].set;
		found = context_call_by(level, code, hv_index_of(cpu), vtl, &context);
		if (!tap_check(found == HV_INVALID_REGISTER_VALUE, "%s: %s: invalid register value",
			    name, wrong[i].name))
			tap_note("status %lu", found);
	}
	if (!vtl)
		return;
	/* What a processor runs on, and VTL1 does not. */
	vtl_context(&context, cpu);
	context.rip = 0;
	context.cr0 &= ~(CR0_PE | (uint64_t)CR0_PG);
	context.efer &= ~(EFER_LME | EFER_LMA);
	found = context_call_by(level, code, hv_index_of(cpu), vtl, &context);
	if (!tap_check(found == HV_INVALID_REGISTER_VALUE, "%s: real mode: invalid register value",
		    name))
		tap_note("status %lu", found);
}

static void vp_test(void)
{
	struct hv_context context;

	vtl_context(&context, 0);
	expect(LOWER(HV_ENABLE_VP_VTL, 1, hv_index() | 1ull << 32, [29] = 0),
		HV_INVALID_PARTITION_ID, "enable VTL of a VP of another partition: invalid id");
	expect(context_call(HV_ENABLE_VP_VTL, NOWHERE, 1, &context), HV_INVALID_VP_INDEX,
		"of a VP that is not there: invalid VP index");
	expect(context_call(HV_ENABLE_VP_VTL, hv_index(), 0, &context), HV_INVALID_PARAMETER,
		"VTL0 of a VP: invalid parameter");
	expect(context_call(HV_ENABLE_VP_VTL, hv_index(), 2, &context), HV_INVALID_PARAMETER,
		"VTL2 of a VP: invalid parameter");
	expect(context_call(HV_ENABLE_VP_VTL, hv_index(), 0x101, &context), HV_INVALID_PARAMETER,
		"with a reserved bit: invalid parameter");
	if (total > 1)
		expect(context_call(HV_ENABLE_VP_VTL, hv_index_of(1), 1, &context),
			HV_ACCESS_DENIED, "VTL0 enables another VP's VTL1: access denied");
	context_test(lower, HV_ENABLE_VP_VTL, 0, 1, "VTL1 begins with");
	expect(vtl_vp_enable(0), HV_SUCCESS, "after all that it can be enabled");
	expect(vtl_vp_enable(0), HV_ACCESS_DENIED, "and again, by VTL0: access denied");
}

static uint64_t vp_again_run(uint64_t cpu)
{
	return vtl_vp_enable((uint32_t)cpu);
}

/* --- registers -------------------------------------------------------------------------------- */

#define SELF_VP	    ((uint64_t)HV_VP_SELF)
#define PAIR(a, b)  ((uint64_t)(a) | (uint64_t)(b) << 32)
#define STATUS_NAME HV_REGISTER_VSM_VP_STATUS

static void fast_run(void *argument)
{
	uint64_t words[HV_FAST_WORDS] = {HV_SELF, SELF_VP, STATUS_NAME};

	*(uint64_t *)argument = hv_call_fast(REP(HV_GET_REGISTERS, 1) | HV_FAST, words);
}

static uint64_t reserved_page(void)
{
	for (uint32_t i = 0; i < boot_memory_count(); i++) {
		const struct memory_range *range = boot_memory_get(i);

		if (range->type == MEMORY_RESERVED && range->start >= 0x100000 &&
			range->start < 0x80000000)
			return range->start & ~4095ull;
	}
	return APIC_BASE_ADDRESS;
}

static void get_test(void)
{
	struct call call = CALL(REP(HV_GET_REGISTERS, 3), HV_SELF, SELF_VP,
		PAIR(STATUS_NAME, STATUS_NAME), PAIR(0xffff, 0));
	uint64_t result = 0;

	expect(LOWER(REP(HV_GET_REGISTERS, 1), 1, SELF_VP, STATUS_NAME), HV_ACCESS_DENIED,
		"get registers of another partition: access denied");
	expect(LOWER(REP(HV_GET_REGISTERS, 1), HV_SELF, NOWHERE, STATUS_NAME), HV_INVALID_VP_INDEX,
		"of a VP that is not there: invalid VP index");
	if (total > 1)
		expect(LOWER(REP(HV_GET_REGISTERS, 1), HV_SELF, hv_index_of(1), STATUS_NAME),
			HV_ACCESS_DENIED, "of another VP: access denied");
	expect(LOWER(REP(HV_GET_REGISTERS, 1), HV_SELF, SELF_VP | 1ull << 40, STATUS_NAME),
		HV_INVALID_PARAMETER, "with a reserved bit: invalid parameter");
	expect(LOWER(REP(HV_GET_REGISTERS, 1), HV_SELF, SELF_VP | 0x20ull << 32, STATUS_NAME),
		HV_INVALID_PARAMETER, "with a reserved bit of the VTL: invalid parameter");
	expect(LOWER(REP(HV_GET_REGISTERS, 1), HV_SELF, SELF_VP | 0x11ull << 32, STATUS_NAME),
		HV_ACCESS_DENIED, "of a higher VTL: access denied");
	expect(LOWER(REP(HV_GET_REGISTERS, 1), HV_SELF, SELF_VP, 0x7fffffff), HV_INVALID_PARAMETER,
		"of an unknown name: invalid parameter");
	expect(lower(&call), HV_RESULT(HV_INVALID_PARAMETER, 2),
		"the third of three is unknown: two are done");
	call.value = REP(HV_GET_REGISTERS, 3) | HV_START(2);
	expect(lower(&call), HV_RESULT(HV_INVALID_PARAMETER, 2), "and from there on, none more");
	call.value = REP(HV_GET_REGISTERS, 2) | HV_START(1);
	expect(lower(&call), HV_RESULT(HV_SUCCESS, 2), "a list whose first element is done");
	call.value = REP(HV_GET_REGISTERS, 2) | HV_START(2);
	expect(lower(&call), HV_INVALID_INPUT, "start at the count: invalid input");
	call.value = HV_GET_REGISTERS;
	expect(lower(&call), HV_INVALID_INPUT, "no elements: invalid input");
	call.value = REP(HV_GET_REGISTERS, 1);
	call.output = (uint64_t)pages + 4;
	expect(lower(&call), HV_INVALID_ALIGNMENT, "output not on eight bytes: invalid alignment");
	call.output = (uint64_t)pages + 4096 - 8;
	expect(lower(&call), HV_INVALID_ALIGNMENT, "output that crosses a page: invalid alignment");
	call.output = 1ull << 62;
	expect(lower(&call), HV_INVALID_ALIGNMENT, "output beyond everything: invalid alignment");
	call.output = reserved_page();
	expect(lower(&call), HV_INVALID_INPUT, "output in memory that is not the guest's");
	call.output = APIC_BASE_ADDRESS;
	expect(lower(&call), HV_INVALID_INPUT, "output in a device");
	call.output = 0;
	call.value = REP(HV_GET_REGISTERS, 300);
	expect(lower(&call), HV_INVALID_ALIGNMENT, "more output than a page: invalid alignment");
	tap_equal((uint64_t)trap_catch(fast_run, &result), TRAP_UD, "fast, with output: #UD");
}

static void set_test(void)
{
	expect(LOWER(REP(HV_SET_REGISTERS, 1), HV_SELF, SELF_VP, STATUS_NAME, 0, 0, 0),
		HV_INVALID_PARAMETER, "set a read-only register: invalid parameter");
	expect(LOWER(REP(HV_SET_REGISTERS, 1), HV_SELF, SELF_VP, 0x7fffffff, 0, 0, 0),
		HV_INVALID_PARAMETER, "set an unknown one: invalid parameter");
	expect(LOWER(REP(HV_SET_REGISTERS, 1), HV_SELF, SELF_VP, PAIR(STATUS_NAME, 1), 0, 0, 0),
		HV_INVALID_PARAMETER, "set with a reserved bit: invalid parameter");
	expect(LOWER(REP(HV_SET_REGISTERS, 1), 1, SELF_VP, STATUS_NAME, 0, 0, 0), HV_ACCESS_DENIED,
		"set registers of another partition: access denied");
	expect(LOWER(REP(HV_SET_REGISTERS, 200), HV_SELF, SELF_VP), HV_INVALID_ALIGNMENT,
		"a list longer than a page: invalid alignment");
}

static uint64_t set_upper(uint8_t vtl, uint32_t name, uint64_t low)
{
	return UPPER(
		REP(HV_SET_REGISTERS, 1), HV_SELF, SELF_VP | (uint64_t)vtl << 32, name, 0, low, 0);
}

static void set_upper_test(void)
{
	struct call call = CALL(REP(HV_SET_REGISTERS, 2), HV_SELF, SELF_VP | 0x10ull << 32,
		HV_REGISTER_LSTAR, 0, 0x123000, 0, HV_REGISTER_CR0, 0, 1ull << 31, 0);

	expect(set_upper(HV_VTL(0), HV_REGISTER_LSTAR, 1ull << 62), HV_INVALID_REGISTER_VALUE,
		"LSTAR that is not canonical: invalid register value");
	expect(set_upper(HV_VTL(0), HV_REGISTER_EFER, ~0ull), HV_INVALID_REGISTER_VALUE,
		"EFER with reserved bits: invalid register value");
	expect(set_upper(HV_VTL(0), HV_REGISTER_CR4, 1ull << 63), HV_INVALID_REGISTER_VALUE,
		"CR4 with reserved bits: invalid register value");
	expect(set_upper(HV_VTL(0), HV_REGISTER_PAT, 0xff), HV_INVALID_REGISTER_VALUE,
		"PAT with an unknown type: invalid register value");
	expect(set_upper(HV_VTL_OWN, HV_REGISTER_LSTAR, 0), HV_ACCESS_DENIED,
		"VTL1's own LSTAR this way: access denied");
	expect(set_upper(HV_VTL(0), HV_REGISTER_CR_INTERCEPT_CONTROL, 0), HV_ACCESS_DENIED,
		"VTL0's intercepts: access denied");
	expect(set_upper(HV_VTL_OWN, HV_REGISTER_CR_INTERCEPT_CONTROL, 1ull << 63),
		HV_INVALID_REGISTER_VALUE, "intercepts that are not there: invalid register value");
	expect(set_upper(HV_VTL_OWN, HV_REGISTER_VSM_SECURE_CONFIG_VTL0, 1),
		HV_INVALID_REGISTER_VALUE, "secure configuration with MBEC: invalid value");
	expect(set_upper(HV_VTL_OWN, HV_REGISTER_PENDING_EVENT0, 0), HV_INVALID_PARAMETER,
		"an event for VTL1 itself: invalid parameter");
	expect(upper(&call), HV_RESULT(HV_INVALID_REGISTER_VALUE, 1),
		"the second of two is wrong: one is done");
	expect(msr_read(0xc0000082), 0x123000, "and done it is");
	msr_write(0xc0000082, 0);
}

/* --- configuration ---------------------------------------------------------------------------- */

static void config_test(void)
{
	const uint32_t name = HV_REGISTER_VSM_PARTITION_CONFIG;
	uint64_t value[2];

	expect(vtl_register_set(HV_VTL_OWN, name, CONFIG_PROTECT | CONFIG_ALL, 0),
		HV_INVALID_PARAMETER, "VTL0 has no configuration: invalid parameter");
	expect(vtl_register_get(HV_VTL(1), name, value), HV_ACCESS_DENIED,
		"and VTL1's is not for it: access denied");
	expect(set_upper(HV_VTL_OWN, name, CONFIG_PROTECT | 1ull << 63), HV_INVALID_REGISTER_VALUE,
		"configuration with a reserved bit: invalid register value");
	expect(set_upper(HV_VTL_OWN, name, CONFIG_PROTECT | 1 << 1), HV_INVALID_REGISTER_VALUE,
		"a default without write: invalid register value");
	expect(set_upper(HV_VTL_OWN, name, CONFIG_PROTECT | 7 << 1), HV_INVALID_REGISTER_VALUE,
		"a default that executes in one mode: invalid register value");
	expect(set_upper(HV_VTL_OWN, name, CONFIG_PROTECT | CONFIG_ALL), HV_RESULT(HV_SUCCESS, 1),
		"protection is enabled");
	expect(set_upper(HV_VTL_OWN, name, CONFIG_ALL), HV_INVALID_REGISTER_VALUE,
		"and stays so: invalid register value");
	expect(set_upper(HV_VTL_OWN, name, CONFIG_PROTECT | 3 << 1), HV_INVALID_REGISTER_VALUE,
		"the default too: invalid register value");
}

/* --- permissions ------------------------------------------------------------------------------ */

static uint64_t gpn(const void *address)
{
	return (uint64_t)address >> 12;
}

static uint64_t modify(uint64_t word, uint64_t page)
{
	return UPPER(REP(HV_MODIFY_PROTECTION, 1), HV_SELF, word, page);
}

/* What VTL0 may do, as the translation hypercall sees it: HV_MAP_ flags that pass. */
static uint32_t allowed(const void *page)
{
	uint32_t flags = 0;

	for (uint32_t i = 0; i < 3; i++) {
		struct call call =
			CALL(HV_TRANSLATE, HV_SELF, SELF_VP, 1ull << i | 0x10ull << 56, gpn(page));
		uint64_t output[2] = {~0ull, 0};

		call.output = (uint64_t)pages[7];
		if (upper(&call) == HV_SUCCESS) {
			memcpy(output, pages[7], sizeof(output));
			if (!(uint32_t)output[0])
				flags |= i < 2 ? 1u << i : HV_MAP_EXECUTE;
		}
	}
	return flags;
}

/* Before VTL1 is there. */
static void modify_early_test(void)
{
	expect(LOWER(REP(HV_MODIFY_PROTECTION, 1), HV_SELF, 0, gpn(pages[0])), HV_INVALID_PARAMETER,
		"no VTL1 yet, VTL0 restricts nobody: invalid parameter");
	expect(LOWER(REP(HV_MODIFY_PROTECTION, 1), HV_SELF, 0x11ull << 32, gpn(pages[0])),
		HV_ACCESS_DENIED, "no VTL1 yet, VTL0 in its name: access denied");
	pages[0][0] = 1;
	tap_check(pages[0][0] == 1, "the page can be written still");
}

/* VTL1 is there, and has not enabled protection. */
static void modify_not_enabled_test(void)
{
	expect(modify(0, gpn(pages[0])), HV_ACCESS_DENIED,
		"VTL1 before it enables protection: access denied");
	pages[0][0] = 2;
	tap_check(pages[0][0] == 2, "the page can be written still");
}

static void modify_flags_test(void)
{
	static const struct {
		uint32_t flags;
		const char *name;
	} wrong[] = {
		{HV_MAP_WRITE, "write without read"},
		{HV_MAP_EXECUTE, "execute without read"},
		{HV_MAP_WRITE | HV_MAP_EXECUTE, "write and execute without read"},
		{HV_MAP_READ | HV_MAP_KERNEL, "execute in kernel mode alone"},
		{HV_MAP_READ | HV_MAP_USER, "execute in user mode alone"},
		{HV_MAP_READ | 1u << 4, "shadow stack"},
		{HV_MAP_READ | 1u << 15, "adjustable"},
		{HV_MAP_READ | 1u << 31, "large page"},
	};

	for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		expect(modify(wrong[i].flags, gpn(pages[0])), HV_INVALID_REGISTER_VALUE,
			wrong[i].name);
	tap_equal(allowed(pages[0]), HV_MAP_ALL, "after all these everything is as it was");
}

static void modify_target_test(void)
{
	expect(LOWER(REP(HV_MODIFY_PROTECTION, 1), HV_SELF, 0, gpn(pages[0])), HV_INVALID_PARAMETER,
		"VTL0 restricts nobody: invalid parameter");
	expect(LOWER(REP(HV_MODIFY_PROTECTION, 1), HV_SELF, 0x11ull << 32, gpn(pages[0])),
		HV_ACCESS_DENIED, "VTL0 in the name of VTL1: access denied");
	expect(modify(0x10ull << 32, gpn(pages[0])), HV_INVALID_PARAMETER,
		"VTL1 in the name of VTL0: invalid parameter");
	expect(modify(0x12ull << 32, gpn(pages[0])), HV_ACCESS_DENIED,
		"VTL1 in the name of VTL2: access denied");
	expect(modify(0x80ull << 32, gpn(pages[0])), HV_INVALID_PARAMETER,
		"a reserved bit of the VTL: invalid parameter");
	expect(modify(1ull << 40, gpn(pages[0])), HV_INVALID_PARAMETER,
		"a reserved byte: invalid parameter");
	expect(UPPER(REP(HV_MODIFY_PROTECTION, 1), 1, 0, gpn(pages[0])), HV_ACCESS_DENIED,
		"another partition: access denied");
	expect(modify(HV_MAP_ALL | 0x11ull << 32, gpn(pages[0])), HV_RESULT(HV_SUCCESS, 1),
		"VTL1 in its own name");
	expect(modify(HV_MAP_ALL | 0x01ull << 32, gpn(pages[0])), HV_RESULT(HV_SUCCESS, 1),
		"a VTL that is not to be used");
}

static void modify_page_test(void)
{
	struct acpi_wakeup wakeup;
	uint64_t top = 0;

	for (uint32_t i = 0; i < boot_memory_count(); i++)
		if (boot_memory_get(i)->type == MEMORY_RAM && boot_memory_get(i)->end > top)
			top = boot_memory_get(i)->end;
	expect(modify(0, ~0ull), HV_INVALID_PARAMETER, "a page number of all ones");
	expect(modify(0, 1ull << 52), HV_INVALID_PARAMETER, "a page number that wraps");
	expect(modify(0, (top + 0x40000000) >> 12), HV_INVALID_PARAMETER, "behind the RAM");
	expect(modify(0, reserved_page() >> 12), HV_INVALID_PARAMETER,
		"memory that is not the guest's");
	expect(modify(0, APIC_BASE_ADDRESS >> 12), HV_INVALID_PARAMETER, "a device");
	expect(modify(0, gpn(hv_page)), HV_OPERATION_DENIED,
		"VTL0's hypercall page: operation denied");
	msr_write(HV_MSR_VP_ASSIST_PAGE, (uint64_t)pages[0] | HV_ENABLE);
	expect(modify(0, gpn(pages[0])), HV_OPERATION_DENIED,
		"VTL0's assist page: operation denied");
	msr_write(HV_MSR_VP_ASSIST_PAGE, 0);
	expect(modify(HV_MAP_ALL, gpn(pages[0])), HV_RESULT(HV_SUCCESS, 1),
		"and once it is not in use: success");
	if (cpuid_get(0x40000003, 0).eax & 1u << 9) {
		msr_write(HV_MSR_REFERENCE_TSC, (uint64_t)pages[0] | HV_ENABLE);
		expect(modify(0, gpn(pages[0])), HV_OPERATION_DENIED,
			"VTL0's reference TSC page: operation denied");
		msr_write(HV_MSR_REFERENCE_TSC, 0);
	} else {
		tap_note("no reference TSC page is offered");
	}
	if (acpi_wakeup_get(&wakeup))
		expect(modify(0, wakeup.mailbox >> 12), HV_OPERATION_DENIED,
			"the wakeup mailbox: operation denied");
	else
		tap_note("no wakeup structure, so no mailbox");
}

static void modify_list_test(void)
{
	struct call call = CALL(REP(HV_MODIFY_PROTECTION, 4), HV_SELF, HV_MAP_READ, gpn(pages[0]),
		gpn(pages[1]), ~0ull, gpn(pages[2]));

	expect(upper(&call), HV_RESULT(HV_INVALID_PARAMETER, 2),
		"the third of four is wrong: two are done");
	tap_check(allowed(pages[0]) == HV_MAP_READ && allowed(pages[1]) == HV_MAP_READ &&
			allowed(pages[2]) == HV_MAP_ALL,
		"those two and no other");
	call.words[1] = HV_MAP_ALL;
	call.words[4] = gpn(pages[1]);
	expect(upper(&call), HV_RESULT(HV_SUCCESS, 4), "a page twice in a list");
	call.words[1] = HV_MAP_READ;
	call.value = REP(HV_MODIFY_PROTECTION, 4) | HV_START(3);
	expect(upper(&call), HV_RESULT(HV_SUCCESS, 4), "three of four are done already");
	tap_check(allowed(pages[0]) == HV_MAP_ALL && allowed(pages[2]) == HV_MAP_READ,
		"and left alone");
	call.words[4] = ~0ull;
	call.value = REP(HV_MODIFY_PROTECTION, 4) | HV_START(1);
	expect(upper(&call), HV_RESULT(HV_INVALID_PARAMETER, 2),
		"reps completed counts from the first of all");
	call.words[1] = HV_MAP_ALL;
	call.words[4] = gpn(pages[2]);
	call.value = REP(HV_MODIFY_PROTECTION, 4);
	expect(upper(&call), HV_RESULT(HV_SUCCESS, 4), "everything allowed again");
	call.value = HV_MODIFY_PROTECTION;
	expect(upper(&call), HV_INVALID_INPUT, "no pages: invalid input");
	call.value = REP(HV_MODIFY_PROTECTION, 511);
	expect(upper(&call), HV_INVALID_ALIGNMENT, "more pages than fit: invalid alignment");
	call.value = REP(HV_MODIFY_PROTECTION, 4) | HV_START(4);
	expect(upper(&call), HV_INVALID_INPUT, "start at the count: invalid input");
}

static _Atomic uint32_t intercepts;
static uint64_t last_gpa; /* of the last one */

/* VTL1 opens the page, and VTL0 tries again. */
static void intercept_open(struct vtl_registers *lower_registers, const struct hv_message *message)
{
	(void)lower_registers;
	last_gpa = message->memory.gpa;
	vtl_protect((void *)(last_gpa & ~4095ull), 1, HV_MAP_ALL);
	atomic_fetch_add(&intercepts, 1);
}

/* Does VTL0's write to the page come to VTL1 as an intercept, before it is done? */
static bool write_is_intercepted(volatile uint8_t *page)
{
	uint32_t before = atomic_load(&intercepts);

	page[8]++;
	return atomic_load(&intercepts) == before + 1 && last_gpa >> 12 == gpn((void *)page);
}

/* A list with a page in its middle that Parapet shares with VTL0. */
static void modify_around_test(const char *name, const void *shared)
{
	struct call call = CALL(REP(HV_MODIFY_PROTECTION, 5), HV_SELF, HV_MAP_READ, gpn(pages[0]),
		gpn(pages[1]), gpn(shared), gpn(pages[2]), gpn(pages[3]));
	uint32_t before = allowed(shared);
	uint64_t found = upper(&call);

	if (!tap_check(found == HV_RESULT(HV_OPERATION_DENIED, 2),
		    "%s is the third of five: operation denied, two are done", name))
		tap_note("result 0x%lx", found);
	tap_check(allowed(pages[0]) == HV_MAP_READ && allowed(pages[1]) == HV_MAP_READ,
		"those in front of it are done");
	tap_check(allowed(shared) == before && allowed(pages[2]) == HV_MAP_ALL &&
			allowed(pages[3]) == HV_MAP_ALL,
		"itself and those behind it are as they were");
	tap_check(write_is_intercepted(pages[0]) && write_is_intercepted(pages[1]),
		"VTL0's writes in front of it are intercepted");
	tap_check(!write_is_intercepted(pages[2]) && !write_is_intercepted(pages[3]),
		"and behind it are not");
	call.value = REP(HV_MODIFY_PROTECTION, 5) | HV_START(1);
	found = upper(&call);
	tap_check(found == HV_RESULT(HV_OPERATION_DENIED, 2) && allowed(pages[0]) == HV_MAP_ALL &&
			allowed(pages[1]) == HV_MAP_READ && allowed(pages[2]) == HV_MAP_ALL,
		"from the second on: two are done, and the first was not asked for");
	call.value = REP(HV_MODIFY_PROTECTION, 5) | HV_START(2);
	call.words[1] = 0;
	found = upper(&call);
	tap_check(found == HV_RESULT(HV_OPERATION_DENIED, 2) && allowed(pages[1]) == HV_MAP_READ &&
			allowed(pages[2]) == HV_MAP_ALL,
		"from itself on: nothing is done");
	call.words[1] = HV_MAP_ALL;
	call.value = REP(HV_MODIFY_PROTECTION, 2);
	expect(upper(&call), HV_RESULT(HV_SUCCESS, 2), "everything allowed again");
}

static void modify_shared_test(void)
{
	struct acpi_wakeup wakeup;

	vtl_intercept_set(intercept_open);
	modify_around_test("the hypercall page", hv_page);
	msr_write(HV_MSR_VP_ASSIST_PAGE, (uint64_t)pages[4] | HV_ENABLE);
	modify_around_test("the assist page", pages[4]);
	msr_write(HV_MSR_VP_ASSIST_PAGE, 0);
	if (cpuid_get(0x40000003, 0).eax & 1u << 9) {
		msr_write(HV_MSR_REFERENCE_TSC, (uint64_t)pages[4] | HV_ENABLE);
		modify_around_test("the reference TSC page", pages[4]);
		msr_write(HV_MSR_REFERENCE_TSC, 0);
	}
	if (acpi_wakeup_get(&wakeup))
		modify_around_test("the mailbox", (void *)wakeup.mailbox);
}

/* Every processor's VTL1 changes the same pages at the same time. */
static uint64_t storm_end;
static _Atomic uint64_t storm_wrong, storm_calls;

static uint64_t same_pages_run(uint64_t flags)
{
	return vtl_protect(pages, 4, (uint32_t)flags);
}

static void storm_run(void *argument)
{
	uint64_t self = cpu_self()->number;

	(void)argument;
	for (uint64_t n = self; !clock_passed(storm_end); n++) {
		if (vtl_run(same_pages_run, n & 1 ? HV_MAP_READ : HV_MAP_ALL) !=
			HV_RESULT(HV_SUCCESS, 4))
			atomic_fetch_add(&storm_wrong, 1);
		atomic_fetch_add(&storm_calls, 1);
	}
}

static void same_pages_test(void)
{
	uint32_t found;

	storm_end = clock_deadline(STORM_US);
	for (uint32_t i = 1; i < total; i++)
		cpu_call_start(&cpus[i], storm_run, NULL);
	storm_run(NULL);
	for (uint32_t i = 1; i < total; i++)
		if (!cpu_call_done(&cpus[i], LIMIT_US))
			tap_bail("processor %u hangs", i);
	found = allowed(pages[0]);
	tap_check(!atomic_load(&storm_wrong) && (found == HV_MAP_READ || found == HV_MAP_ALL) &&
			allowed(pages[1]) == found && allowed(pages[3]) == found,
		"everybody changes the same pages: every call succeeds, and one was the last");
	tap_note("%lu calls", atomic_load(&storm_calls));
	vtl_run(same_pages_run, HV_MAP_ALL);
}

/* --- translation ------------------------------------------------------------------------------ */

static uint64_t translate(uint64_t code, uint64_t flags, uint64_t page, uint64_t output[8])
{
	struct call call = CALL(code, HV_SELF, SELF_VP, flags, page);
	uint64_t status;

	call.output = (uint64_t)pages[7];
	status = upper(&call);
	memcpy(output, pages[7], 64);
	return status;
}

#define OF_VTL0 (0x10ull << 56)

/* HV_TRANSLATE_GVA_CONTROL_FLAGS. */
#define TRANSLATE_SUPERVISOR	(1ull << 6)
#define TRANSLATE_USER		(1ull << 7)
#define TRANSLATE_ENFORCE_SMAP	(1ull << 8)
#define TRANSLATE_OVERRIDE_SMAP (1ull << 9)
#define TRANSLATE_SHADOW_STACK	(1ull << 10)
#define TRANSLATE_FLAGS		56 /* bits for them, known or not */

/* One call of VTL1 that must fail with this status, and write nothing. */
static void translate_refuse(const struct call *wrong, uint64_t status, const char *name)
{
	struct call call = *wrong;
	bool untouched = true;
	uint64_t found;

	memset(pages[7], 0x5a, sizeof(pages[7]));
	call.output = (uint64_t)pages[7];
	found = upper(&call);
	for (uint32_t i = 0; i < sizeof(pages[7]); i++)
		untouched &= pages[7][i] == 0x5a;
	if (!tap_check(found == status && untouched, "%s, %s", name,
		    wrong->value == HV_TRANSLATE ? "translate" : "translate, with more to say"))
		tap_note("status %lu%s", found, untouched ? "" : ", and output");
}

static void translate_refused_test(uint64_t code)
{
	const uint64_t page = gpn(pages[2]);
	uint64_t output[8];
	bool right = true;

	translate_refuse(&CALL(code, 1, SELF_VP, OF_VTL0, page), HV_ACCESS_DENIED,
		"in another partition: access denied");
	if (total > 1)
		translate_refuse(&CALL(code, HV_SELF, hv_index_of(1), OF_VTL0, page),
			HV_ACCESS_DENIED, "on another VP: access denied");
	translate_refuse(&CALL(code, HV_SELF, NOWHERE, OF_VTL0, page), HV_INVALID_VP_INDEX,
		"on a VP that is not there: invalid VP index");
	translate_refuse(&CALL(code, HV_SELF, SELF_VP | 1ull << 32, OF_VTL0, page),
		HV_INVALID_PARAMETER, "with a reserved bit behind the VP: invalid parameter");
	translate_refuse(&CALL(code, HV_SELF, SELF_VP, OF_VTL0, page | 1ull << 52),
		HV_INVALID_PARAMETER, "of a page beyond all addresses: invalid parameter");
	translate_refuse(&CALL(code, HV_SELF, SELF_VP,
				 OF_VTL0 | TRANSLATE_SUPERVISOR | TRANSLATE_USER, page),
		HV_INVALID_PARAMETER, "as supervisor and as user: invalid parameter");
	translate_refuse(&CALL(code, HV_SELF, SELF_VP,
				 OF_VTL0 | TRANSLATE_ENFORCE_SMAP | TRANSLATE_OVERRIDE_SMAP, page),
		HV_INVALID_PARAMETER, "SMAP enforced and overridden: invalid parameter");
	translate_refuse(&CALL(code, HV_SELF, SELF_VP, OF_VTL0 | TRANSLATE_SHADOW_STACK, page),
		HV_INVALID_PARAMETER, "of a shadow stack: invalid parameter");
	for (uint64_t flag = TRANSLATE_SHADOW_STACK << 1; flag >> TRANSLATE_FLAGS == 0; flag <<= 1)
		right &= translate(code, OF_VTL0 | flag, page, output) == HV_INVALID_PARAMETER;
	tap_check(right, "with any one of the flags that do not exist: invalid parameter");
	/* Each of those that do not go together goes alone. */
	right = true;
	for (uint64_t flag = TRANSLATE_SUPERVISOR; flag < TRANSLATE_SHADOW_STACK; flag <<= 1)
		right &= translate(code, OF_VTL0 | flag, page, output) == HV_SUCCESS;
	tap_check(right, "with one of supervisor, user, enforce and override SMAP: success");
}

static void translate_test(void)
{
	uint64_t output[8];

	expect(LOWER(HV_TRANSLATE, HV_SELF, SELF_VP, 0, 0), HV_ACCESS_DENIED,
		"VTL0 translates for itself: access denied");
	expect(UPPER(HV_TRANSLATE, HV_SELF, SELF_VP, 0, 0), HV_ACCESS_DENIED,
		"VTL1 for itself: access denied");
	translate_refused_test(HV_TRANSLATE);
	translate_refused_test(HV_TRANSLATE_EX);
	expect(translate(HV_TRANSLATE, OF_VTL0 | 7, gpn(pages[2]), output), HV_SUCCESS,
		"VTL1 translates for VTL0");
	tap_check(output[0] == 6ull << 32 && output[1] == gpn(pages[2]),
		"the page, with everything allowed, write-back");
	expect(translate(HV_TRANSLATE_EX, OF_VTL0 | 7, gpn(pages[2]), output), HV_SUCCESS,
		"the same with more to say");
	tap_check(output[0] == 6ull << 32 && output[6] == gpn(pages[2]), "and the same answer");
	expect(translate(HV_TRANSLATE, OF_VTL0, 0x12345678, output), HV_SUCCESS,
		"an address that is not mapped");
	expect((uint32_t)output[0], 1, "page not present");
	vtl_run(same_pages_run, HV_MAP_READ);
	translate(HV_TRANSLATE, OF_VTL0 | 2, gpn(pages[2]), output);
	expect((uint32_t)output[0], 8, "a page that VTL0 may not write: intercept");
	vtl_run(same_pages_run, HV_MAP_ALL);
}

/* --- starting --------------------------------------------------------------------------------- */

static void start_test(void)
{
	struct hv_context context;

	vtl_context(&context, 0);
	expect(LOWER(HV_START_VP, 1, hv_index(), [29] = 0), HV_INVALID_PARTITION_ID,
		"start a VP of another partition: invalid partition id");
	expect(context_call(HV_START_VP, NOWHERE, 0, &context), HV_INVALID_VP_INDEX,
		"one that is not there: invalid VP index");
	expect(context_call(HV_START_VP, hv_index(), 0, &context), HV_INVALID_VP_INDEX,
		"oneself: invalid VP index");
	expect(context_call(HV_START_VP, hv_index(), 0x100, &context), HV_INVALID_PARAMETER,
		"with a reserved bit: invalid parameter");
	if (total < 2)
		return;
	expect(context_call(HV_START_VP, hv_index_of(1), 1, &context), HV_ACCESS_DENIED,
		"in a higher VTL: access denied");
	expect(context_call(HV_START_VP, hv_index_of(1), 0, &context), HV_INVALID_VP_STATE,
		"one that runs: invalid VP state");
}

static _Atomic uint64_t counted;
static atomic_bool leave;

static void count_run(void *argument)
{
	(void)argument;
	while (!atomic_load(&leave))
		atomic_fetch_add(&counted, 1);
}

static uint64_t itself_run(uint64_t argument)
{
	return argument;
}

static uint64_t start_upper_run(uint64_t cpu)
{
	return vtl_start((uint32_t)cpu, 1);
}

/* Has neither level of the processor run yet, after so much has been refused? */
static void never_run_test(uint32_t cpu)
{
	tap_check(!cpu_idle_wait(&cpus[cpu], SETTLE_US) && !atomic_load(&cpus[cpu].starts) &&
			!vtl_entries(cpu),
		"after all these it has not run");
}

/* Whoever asks for whichever level: it runs, and goes on. */
static void running_test(uint32_t cpu)
{
	uint32_t starts = atomic_load(&cpus[cpu].starts);
	struct hv_context context;
	uint64_t before = atomic_load(&counted);

	atomic_store(&leave, false);
	cpu_call_start(&cpus[cpu], count_run, NULL);
	if (!clock_wait_for(atomic_load(&counted) > before, LIMIT_US))
		tap_bail("processor %u does not begin", cpu);
	/* With what the first processor begins with: that of one that runs is in use. */
	vtl_context(&context, 0);
	expect(context_call(HV_START_VP, hv_index_of(cpu), 0, &context), HV_INVALID_VP_STATE,
		"VTL0 starts one that runs: invalid VP state");
	expect(context_call_by(upper, HV_START_VP, hv_index_of(cpu), 0, &context),
		HV_INVALID_VP_STATE, "VTL1 does: invalid VP state");
	expect(context_call_by(upper, HV_START_VP, hv_index_of(cpu), 1, &context),
		HV_INVALID_VP_STATE, "VTL1 does, in VTL1: invalid VP state");
	before = atomic_load(&counted);
	tap_check(clock_wait_for(atomic_load(&counted) > before, LIMIT_US), "and it runs on");
	atomic_store(&leave, true);
	cpu_call_wait(&cpus[cpu]);
	tap_check(
		atomic_load(&cpus[cpu].starts) == starts && vtl_run_on(cpu, itself_run, cpu) == cpu,
		"it was not started again, and both its levels answer");
}

/* VTL0 of one that has left through the mailbox waits again, and VTL1 does not. */
static void offline_test(uint32_t cpu)
{
	struct acpi_wakeup wakeup;
	uint64_t entries = vtl_entries(cpu);

	if (!wake_find(&wakeup)) {
		tap_note("no wakeup structure, so nobody goes offline");
		return;
	}
	wake_offline_start(&cpus[cpu]);
	tap_check(wake_test(&cpus[cpu], WAKE_LIMIT_US), "one goes offline");
	expect(vtl_run(start_upper_run, cpu), HV_INVALID_VP_STATE,
		"its VTL1 is started again: invalid VP state");
	tap_check(!cpu_idle_wait(&cpus[cpu], SETTLE_US) && vtl_entries(cpu) == entries,
		"and neither level has run");
	expect(vtl_start(cpu, 0), HV_SUCCESS, "its VTL0 is started again");
	tap_check(cpu_idle_wait(&cpus[cpu], LIMIT_US), "and comes up");
	running_test(cpu);
}

/* VTL1 is there on each of them, and neither level has run. */
static void refused_starts_test(void)
{
	context_test(lower, HV_START_VP, 1, 0, "VTL0 starts VTL0 with");
	context_test(upper, HV_START_VP, 1, 0, "VTL1 starts VTL0 with");
	never_run_test(1);
	expect(vtl_start(1, 0), HV_SUCCESS, "and then it is started in VTL0");
	tap_check(cpu_idle_wait(&cpus[1], LIMIT_US), "and comes up");
	running_test(1);
	offline_test(1);
	for (uint32_t i = 2; i < total; i++) {
		context_test(upper, HV_START_VP, i, 1, "VTL1 starts VTL1 with");
		never_run_test(i);
		expect(vtl_run(start_upper_run, i), HV_SUCCESS, "and then it is started in VTL1");
		tap_check(clock_wait_for(vtl_entries(i) > 0, LIMIT_US), "and comes up there");
		expect(vtl_run(start_upper_run, i), HV_INVALID_VP_STATE,
			"and again, in VTL1: invalid VP state");
		tap_check(!cpu_idle_wait(&cpus[i], SETTLE_US) && vtl_entries(i) == 1,
			"its VTL1 has not begun anew, and its VTL0 has not run");
		expect(vtl_start(i, 0), HV_SUCCESS, "and in VTL0 it is started once");
		tap_check(cpu_idle_wait(&cpus[i], LIMIT_US), "and comes up there too");
		running_test(i);
	}
}

/* With "start": nobody but the first processor runs. */
static void start_others_test(void)
{
	struct hv_context context;

	total = cpu_all_find();
	if (total < 2)
		tap_bail("one processor starts nobody");
	interrupts_enable();
	tap_note("under a paravisor, %u processors", total);
	clock_frequency();
	hv_start();
	hv_indexes_find();
	if (vtl_partition_enable(1) || vtl_vp_enable(0))
		tap_bail("VTL1 cannot be enabled");
	vtl_context(&context, 1);
	expect(context_call_by(upper, HV_START_VP, hv_index_of(1), 1, &context),
		HV_INVALID_VTL_STATE, "VTL1 starts a VTL1 that is not enabled: invalid VTL state");
	never_run_test(1);
	vtl_finish_bring_up(refused_starts_test);
}

static void index_test(void)
{
	struct call call = CALL(REP(HV_GET_VP_INDEX, 1), HV_SELF, 0, cpus[0].apic_id);
	uint32_t *indexes = (uint32_t *)vtl_output();
	bool right = true;

	expect(LOWER(REP(HV_GET_VP_INDEX, 1), 1, 0, 0), HV_INVALID_PARTITION_ID,
		"VP index in another partition: invalid partition id");
	expect(LOWER(REP(HV_GET_VP_INDEX, 1), HV_SELF, 1, 0), HV_ACCESS_DENIED,
		"for a higher VTL: access denied");
	expect(LOWER(REP(HV_GET_VP_INDEX, 1), HV_SELF, 0, NOWHERE), HV_INVALID_PARAMETER,
		"of an APIC id that nobody has: invalid parameter");
	expect(LOWER(REP(HV_GET_VP_INDEX, 3), HV_SELF, 0, PAIR(cpus[0].apic_id, cpus[0].apic_id),
		       NOWHERE),
		HV_RESULT(HV_INVALID_PARAMETER, 2), "the third of three: two are done");
	for (uint32_t i = 0; i < total; i++) {
		call.words[2] = cpus[i].apic_id;
		right &= lower(&call) == HV_RESULT(HV_SUCCESS, 1) && indexes[0] == hv_index_of(i);
	}
	tap_check(right, "every processor's index by its APIC id");
}

void kernel_main(void)
{
	if (!boot_has_paravisor()) {
		tap_note("on the bare machine: nothing to test");
		tap_skip("VSM calls", "not under a paravisor");
		return;
	}
	if (!vtl_is_offered())
		tap_bail("VSM is not offered: vsm=on?");
	if (boot_word_find("start")) {
		start_others_test();
		return;
	}
	total = cpu_all_start();
	interrupts_enable();
	tap_note("under a paravisor, %u processors", total);
	clock_frequency();
	hv_start();
	hv_indexes_read();
	get_test();
	set_test();
	start_test();
	index_test();
	modify_early_test();
	partition_test();
	vp_test();
	vtl_finish_bring_up(NULL);
	expect(vtl_run(vp_again_run, 0), HV_VTL_ALREADY_ENABLED,
		"VTL1 of a VP that has it, by VTL1: VTL already enabled");
	modify_not_enabled_test();
	config_test();
	set_upper_test();
	modify_flags_test();
	modify_target_test();
	modify_page_test();
	modify_list_test();
	modify_shared_test();
	translate_test();
	same_pages_test();
}
