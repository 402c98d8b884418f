#include "vtl.h"

#include "apic.h"
#include "boot.h"
#include "machine.h"
#include "print.h"
#include "tap.h"

/* In pages that are VTL1's alone; the mark after the name makes the section one without content. */
#define SECURE __attribute__((section(".vtl1,\"aw\",@nobits#")))

#define MSR_PAT	       0x277
#define RFLAGS_FIXED   2ull
#define SEGMENT_CODE   0xa09b /* 64 bits, present, ring 0 */
#define SEGMENT_FLAT   0xc093
#define SEGMENT_IS_TSS 0x008b
#define SEGMENT_IS_LDT 0x0082

#define OFFSETS_CALL(value)   ((value)&0xfff)
#define OFFSETS_RETURN(value) ((value) >> 12 & 0xfff)
#define RETURN_FAST	      1u

#define SIM_SLOT_PENDING 1u
#define SINT_VECTOR	 0x3e /* of intercepts, in VTL1 */

/* HV_VP_ASSIST_PAGE as far as HV_VP_VTL_CONTROL. */
struct assist_page {
	uint32_t apic_assist;
	uint32_t reserved;
	volatile uint32_t entry_reason;
	volatile uint8_t vina;
	uint8_t reserved0;
	uint16_t reserved1;
	volatile uint64_t return_rax;
	volatile uint64_t return_rcx;
	uint8_t rest[4096 - 32];
};
_Static_assert(sizeof(struct assist_page) == 4096, "HV_VP_ASSIST_PAGE");

extern uint64_t page_tables[];
extern const char vtl1_entry[], start64_ap[];
void vtl_switch(struct vtl_registers *registers, uint64_t address);
void vtl1_main(struct vtl_registers *lower);

/* What VTL0 asks for; the only memory that VTL1 takes anything from. */
static struct request {
	uint64_t (*volatile function)(uint64_t);
	volatile uint64_t argument;
	volatile uint64_t result;
	volatile uint32_t reason;
	volatile uint64_t entries;
} requests[CPU_COUNT_MAX];

static _Alignas(4096) uint64_t lower_inputs[CPU_COUNT_MAX][HV_INPUT_WORDS];
static _Alignas(4096) uint64_t lower_outputs[CPU_COUNT_MAX][HV_INPUT_WORDS];
static uint64_t call_address;

SECURE struct cpu vtl1_cpus[CPU_COUNT_MAX];
SECURE static _Alignas(4096) uint8_t code_page[4096];
SECURE static _Alignas(4096) struct assist_page assist_pages[CPU_COUNT_MAX];
SECURE static _Alignas(4096) uint8_t message_pages[CPU_COUNT_MAX][4096];
SECURE static _Alignas(4096) uint64_t upper_inputs[CPU_COUNT_MAX][HV_INPUT_WORDS];
SECURE static _Alignas(4096) uint64_t upper_outputs[CPU_COUNT_MAX][HV_INPUT_WORDS];
SECURE static uint64_t return_address;
SECURE static vtl_intercept_t intercept_handler;
SECURE static struct vtl_registers *lowers[CPU_COUNT_MAX];

bool vtl_is_offered(void)
{
	return boot_has_paravisor() && (cpuid_get(0x40000003, 0).ebx >> 16 & 1);
}

/* --- calls and registers ---------------------------------------------------------------------- */

uint64_t *vtl_input(void)
{
	uint32_t self = cpu_self()->number;

	return vtl_is_secure() ? upper_inputs[self] : lower_inputs[self];
}

uint64_t *vtl_output(void)
{
	uint32_t self = cpu_self()->number;

	return vtl_is_secure() ? upper_outputs[self] : lower_outputs[self];
}

uint64_t vtl_hypercall(uint64_t value, const void *input, void *output)
{
	return hv_call_in(
		vtl_is_secure() ? code_page : hv_page, value, (uint64_t)input, (uint64_t)output);
}

uint64_t vtl_register_get(uint8_t vtl, uint32_t name, uint64_t value[2])
{
	uint64_t *input = vtl_input(), *output = vtl_output(), result;

	input[0] = HV_SELF;
	input[1] = HV_VP_SELF | (uint64_t)vtl << 32;
	input[2] = name;
	result = vtl_hypercall(HV_GET_REGISTERS | HV_REPS(1), input, output);
	if (result == HV_RESULT(HV_SUCCESS, 1)) {
		value[0] = output[0];
		value[1] = output[1];
	}
	return result;
}

uint64_t vtl_register_set(uint8_t vtl, uint32_t name, uint64_t low, uint64_t high)
{
	uint64_t *input = vtl_input();

	input[0] = HV_SELF;
	input[1] = HV_VP_SELF | (uint64_t)vtl << 32;
	input[2] = name;
	input[3] = 0;
	input[4] = low;
	input[5] = high;
	return vtl_hypercall(HV_SET_REGISTERS | HV_REPS(1), input, NULL);
}

static uint64_t code_page_offsets(void)
{
	uint64_t value[2];

	if (vtl_register_get(HV_VTL_OWN, HV_REGISTER_VSM_CODE_PAGE_OFFSETS, value) !=
		HV_RESULT(HV_SUCCESS, 1))
		tap_bail("no offsets of the code for VTL calls");
	return value[0];
}

/* --- coming up -------------------------------------------------------------------------------- */

uint64_t vtl_partition_enable(uint32_t vtl)
{
	uint64_t *input = vtl_input();

	input[0] = HV_SELF;
	input[1] = vtl;
	return vtl_hypercall(HV_ENABLE_PARTITION_VTL, input, NULL);
}

static void segment_set(struct hv_segment *segment, uint16_t selector, uint16_t attributes)
{
	*segment = (struct hv_segment){0, 0xffffffff, selector, attributes};
}

void vtl_context(struct hv_context *context, uint32_t cpu)
{
	struct cpu *upper = &vtl1_cpus[cpu];
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr;

	cpu_prepare(upper, cpu, cpus[cpu].apic_id);
	__asm__ volatile("sidt %0" : "=m"(idtr));
	memset(context, 0, sizeof(*context));
	context->rip = (uint64_t)vtl1_entry;
	context->rsp = upper->stack_top;
	context->rflags = RFLAGS_FIXED;
	segment_set(&context->cs, SEGMENT_CODE64, SEGMENT_CODE);
	segment_set(&context->ds, SEGMENT_DATA, SEGMENT_FLAT);
	segment_set(&context->es, SEGMENT_DATA, SEGMENT_FLAT);
	segment_set(&context->ss, SEGMENT_DATA, SEGMENT_FLAT);
	segment_set(&context->fs, SEGMENT_DATA, SEGMENT_FLAT);
	segment_set(&context->gs, SEGMENT_DATA, SEGMENT_FLAT);
	context->gs.base = (uint64_t)upper;
	segment_set(&context->tr, SEGMENT_TSS, SEGMENT_IS_TSS);
	context->tr.base = (uint64_t)&upper->tss;
	context->tr.limit = sizeof(upper->tss) - 1;
	segment_set(&context->ldtr, 0, SEGMENT_IS_LDT);
	context->ldtr.limit = 0;
	context->idtr.base = idtr.base;
	context->idtr.limit = idtr.limit;
	context->gdtr.base = (uint64_t)upper->gdt;
	context->gdtr.limit = sizeof(upper->gdt) - 1;
	context->efer = msr_read(MSR_EFER);
	context->cr0 = cr0_read();
	context->cr3 = (uint64_t)page_tables;
	context->cr4 = cr4_read();
	context->pat = msr_read(MSR_PAT);
}

uint64_t vtl_vp_enable(uint32_t cpu)
{
	uint64_t *input = vtl_input();
	struct hv_context context;

	vtl_context(&context, cpu);
	input[0] = HV_SELF;
	input[1] = hv_index_of(cpu) | 1ull << 32;
	memcpy(&input[2], &context, sizeof(context));
	return vtl_hypercall(HV_ENABLE_VP_VTL, input, NULL);
}

uint64_t vtl_start(uint32_t cpu, uint32_t vtl)
{
	uint64_t *input = vtl_input();
	struct hv_context context;

	vtl_context(&context, cpu);
	if (!vtl)
		context.rip = (uint64_t)start64_ap;
	input[0] = HV_SELF;
	input[1] = hv_index_of(cpu) | (uint64_t)vtl << 32;
	memcpy(&input[2], &context, sizeof(context));
	return vtl_hypercall(HV_START_VP, input, NULL);
}

static uint64_t others_enable(uint64_t unused)
{
	(void)unused;
	for (uint32_t i = 1; i < cpu_count(); i++) {
		uint64_t status = vtl_vp_enable(i);

		if (status)
			return status | (uint64_t)i << 16;
	}
	return 0;
}

static uint64_t nothing_run(uint64_t argument)
{
	return argument;
}

void vtl_bring_up(void)
{
	uint64_t result = vtl_partition_enable(1);

	if (result)
		tap_bail("VTL1 of the partition cannot be enabled: status %lu", result);
	result = vtl_vp_enable(0);
	if (result)
		tap_bail("VTL1 of the first processor cannot be enabled: status %lu", result);
	vtl_finish_bring_up(NULL);
}

void vtl_finish_bring_up(void (*start)(void))
{
	uint64_t result;

	if (vtl_run(nothing_run, 42) != 42)
		tap_bail("VTL1 of the first processor does not answer");
	result = vtl_run(others_enable, 0);
	if (result)
		tap_bail("VTL1 of processor %lu cannot be enabled: status %lu", result >> 16,
			result & 0xffff);
	if (start)
		start();
	for (uint32_t i = 1; i < cpu_count(); i++)
		if (vtl_run_on(i, nothing_run, i) != i)
			tap_bail("VTL1 of processor %u does not answer", i);
}

/* --- VTL0 ------------------------------------------------------------------------------------- */

uint64_t vtl_call_address(void)
{
	/* Every processor finds the same. */
	if (!call_address)
		call_address = (uint64_t)hv_page + OFFSETS_CALL(code_page_offsets());
	return call_address;
}

void vtl_call_bare(struct vtl_registers *registers)
{
	vtl_switch(registers, vtl_call_address());
}

void vtl_request(uint64_t (*function)(uint64_t), uint64_t argument)
{
	struct request *request = &requests[cpu_self()->number];

	request->argument = argument;
	request->function = function;
}

uint64_t vtl_run(uint64_t (*function)(uint64_t), uint64_t argument)
{
	struct vtl_registers registers = {0};

	vtl_request(function, argument);
	vtl_call_bare(&registers);
	return vtl_result();
}

uint64_t vtl_result(void)
{
	return requests[cpu_self()->number].result;
}

static void run_on(void *argument)
{
	struct request *request = argument;

	vtl_run(request->function, request->argument);
}

uint64_t vtl_run_on(uint32_t cpu, uint64_t (*function)(uint64_t), uint64_t argument)
{
	struct request request = {.function = function, .argument = argument};

	if (cpu == cpu_self()->number)
		return vtl_run(function, argument);
	cpu_call(&cpus[cpu], run_on, &request);
	return requests[cpu].result;
}

uint32_t vtl_entry_reason(void)
{
	return requests[cpu_self()->number].reason;
}

uint32_t vtl_entry_reason_of(uint32_t cpu)
{
	return requests[cpu].reason;
}

uint64_t vtl_entries(uint32_t cpu)
{
	return requests[cpu].entries;
}

/* --- VTL1 ------------------------------------------------------------------------------------- */

struct vtl_registers *vtl_lower(void)
{
	return lowers[cpu_self()->number];
}

static uint64_t intercept_set(uint64_t handler)
{
	intercept_handler = (vtl_intercept_t)handler;
	return 0;
}

void vtl_intercept_set(vtl_intercept_t handler)
{
	vtl_run(intercept_set, (uint64_t)handler);
}

uint64_t vtl_protect(const volatile void *address, uint32_t count, uint32_t flags)
{
	uint64_t *input = vtl_input();

	input[0] = HV_SELF;
	input[1] = flags;
	for (uint32_t i = 0; i < count; i++)
		input[2 + i] = ((uint64_t)address >> 12) + i;
	return vtl_hypercall(HV_MODIFY_PROTECTION | HV_REPS(count), input, NULL);
}

static void message_handle(struct trap_frame *frame)
{
	(void)frame;
	/* The slot is looked at after every entry. */
	msr_write(HV_MSR_EOI, 0);
}

/* What VTL1 of a processor does before anything else. */
static void upper_start(uint32_t self)
{
	/* The code page is the partition's: the first one brings it. */
	msr_write(HV_MSR_GUEST_OS_ID, HV_GUEST_OS_ID);
	msr_write(HV_MSR_HYPERCALL, (uint64_t)code_page | HV_ENABLE);
	if (!return_address)
		return_address = (uint64_t)code_page + OFFSETS_RETURN(code_page_offsets());
	msr_write(HV_MSR_VP_ASSIST_PAGE, (uint64_t)&assist_pages[self] | HV_ENABLE);
	trap_handler_set(SINT_VECTOR, message_handle);
	apic_write(APIC_SVR, APIC_SVR_ENABLE | VECTOR_SPURIOUS);
	msr_write(HV_MSR_SIMP, (uint64_t)message_pages[self] | HV_ENABLE);
	msr_write(HV_MSR_SINT0, SINT_VECTOR);
	msr_write(HV_MSR_SCONTROL, HV_ENABLE);
}

static void message_serve(uint32_t self, struct vtl_registers *lower)
{
	volatile struct hv_message *slot = (volatile struct hv_message *)message_pages[self];
	struct hv_message message;

	if (!slot->type)
		return;
	message = *(struct hv_message *)message_pages[self];
	slot->type = 0;
	if (message.flags & SIM_SLOT_PENDING)
		msr_write(HV_MSR_EOM, 0);
	if (!intercept_handler)
		tap_bail("an intercept nobody waits for: type 0x%x, rip 0x%lx, address 0x%lx",
			message.type, message.header.rip, message.memory.gpa);
	intercept_handler(lower, &message);
}

static void request_serve(struct request *request)
{
	uint64_t (*function)(uint64_t) = request->function;

	if (!function)
		return;
	request->function = NULL;
	request->result = function(request->argument);
}

void vtl1_main(struct vtl_registers *lower)
{
	uint32_t self = cpu_self()->number;
	struct assist_page *assist = &assist_pages[self];
	struct request *request = &requests[self];

	lowers[self] = lower;
	upper_start(self);
	/* Entered before there was a page to say why. */
	assist->entry_reason = request->function ? VTL_ENTRY_CALL : VTL_ENTRY_INTERRUPT;
	for (;;) {
		bool called = assist->entry_reason == VTL_ENTRY_CALL;

		request->reason = assist->entry_reason;
		request->entries++;
		/* Pending interrupts come here, and nowhere else. */
		__asm__ volatile("sti; nop; cli" : : : "memory");
		message_serve(self, lower);
		if (called)
			request_serve(request);
		assist->return_rax = lower->rax;
		assist->return_rcx = lower->rcx;
		/* Who called has nothing in those two. */
		lower->rcx = called ? RETURN_FAST : 0;
		vtl_switch(lower, return_address);
	}
}
