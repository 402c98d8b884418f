/*
 * Debug registers and single steps, also over instructions that a hypervisor intercepts: what the
 * processor answers, to the last bit of DR6. What the manual says is checked; everything is also
 * printed as "# answer", so that the bare machine and a paravisor can be compared line by line.
 *
 *	storm=N		hits for each processor while IPIs and NMIs storm (2000)
 *	sweep=N		step in bytes through the linear addresses of a paravisor's text (41)
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

#define FLAG_RF (1ull << 16)
#define CR4_DE	(1ull << 3)

#define DR6_STEP  0x4000u
#define DR7_FIXED 0x400u

#define ON_EXECUTE 0u
#define ON_WRITE   1u
#define ON_PORT	   2u
#define ON_ACCESS  3u

#define VECTOR_STORM 0x42
#define VECTOR_TICK  0x43
#define TICK_US	     1000u

/* DR7 for one breakpoint; `size` is 1, 2, 4 or 8 bytes. */
static uint64_t arm(uint32_t index, uint32_t type, uint32_t size)
{
	uint64_t length = size == 8 ? 2 : size - 1;

	return DR7_FIXED | 2ull << 2 * index | (uint64_t)(type | length << 2) << (16 + 4 * index);
}

#define DEBUG_REGISTER(number)                                                                     \
	static inline uint64_t dr##number##_read(void)                                             \
	{                                                                                          \
		uint64_t value;                                                                    \
                                                                                                   \
		__asm__ volatile("mov %%db" #number ", %0" : "=r"(value) : : "memory");            \
		return value;                                                                      \
	}                                                                                          \
	static inline void dr##number##_write(uint64_t value)                                      \
	{                                                                                          \
		__asm__ volatile("mov %0, %%db" #number : : "r"(value) : "memory");                \
	}

DEBUG_REGISTER(0)
DEBUG_REGISTER(1)
DEBUG_REGISTER(2)
DEBUG_REGISTER(3)
DEBUG_REGISTER(6)
DEBUG_REGISTER(7)
#undef DEBUG_REGISTER

/* --- what #DB leaves behind, on each processor ------------------------------------------------------ */

#define EVENTS 24u

struct seen {
	_Alignas(64) uint64_t count; /* of #DB */
	uint64_t strange; /* with a DR6 that was not `wanted` */
	uint64_t wanted;
	uint64_t strange_rip, strange_dr6; /* of the first of them */
	uint64_t nmis;
	uint64_t nmis_stepping; /* that came while TF was set */
	struct {
		uint64_t rip, dr6, flags;
	} event[EVENTS];
};

static struct seen all_seen[CPU_COUNT_MAX];

/* #DB and interrupts in the order of their coming, while the first processor is alone. */
static struct {
	bool on;
	uint32_t count;
	struct event {
		uint64_t vector, rip, dr6, flags;
	} event[EVENTS];
} order;

static void order_note(const struct trap_frame *frame, uint64_t dr6)
{
	if (!order.on)
		return;
	if (order.count < EVENTS)
		order.event[order.count] =
			(struct event){frame->vector, frame->rip, dr6, frame->rflags};
	order.count++;
}

static void debug_handle(struct trap_frame *frame)
{
	struct seen *seen = &all_seen[cpu_self()->number];
	uint64_t dr6 = dr6_read();

	order_note(frame, dr6);
	if (seen->count < EVENTS) {
		seen->event[seen->count].rip = frame->rip;
		seen->event[seen->count].dr6 = dr6;
		seen->event[seen->count].flags = frame->rflags;
	}
	seen->count++;
	if ((dr6 & 0xe00f) != seen->wanted && seen->strange++ == 0) {
		seen->strange_rip = frame->rip;
		seen->strange_dr6 = dr6;
	}
	dr6_write(0);
	/* A breakpoint on an instruction comes before it: do not stop there again. */
	frame->rflags |= FLAG_RF;
}

static void nmi_handle(struct trap_frame *frame)
{
	struct seen *seen = &all_seen[cpu_self()->number];

	seen->nmis++;
	seen->nmis_stepping += (frame->rflags & FLAG_TF) != 0;
}

static volatile uint32_t interrupts;

static void interrupt_handle(struct trap_frame *frame)
{
	order_note(frame, 0);
	interrupts++;
	apic_eoi();
}

/* What ends a HLT, without being among what is compared. */
static _Atomic uint32_t ticks;

static void tick_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add(&ticks, 1);
	apic_eoi();
}

static void ticks_start(void)
{
	atomic_store(&ticks, 0);
	apic_timer_start(VECTOR_TICK | LVT_PERIODIC, TICK_US);
}

static struct seen *seen_reset(void)
{
	struct seen *seen = &all_seen[cpu_self()->number];

	memset(seen, 0, sizeof(*seen));
	dr6_write(0);
	return seen;
}

/* Shows what has happened since seen_reset; addresses count from `origin` where they are near. */
static void answer(const char *name, uint64_t origin)
{
	const struct seen *seen = &all_seen[cpu_self()->number];

	print("# answer %s: %lu #DB", name, seen->count);
	for (uint32_t i = 0; i < seen->count && i < EVENTS; i++) {
		uint64_t distance = seen->event[i].rip - origin;

		if (distance < 256)
			print(" +%lu/%lx%s", distance, seen->event[i].dr6,
				seen->event[i].flags & FLAG_TF ? "t" : "");
		else
			print(" -/%lx", seen->event[i].dr6);
	}
	print("\n");
}

static void answer_value(const char *name, uint64_t value)
{
	print("# answer %s: %lx\n", name, value);
}

/* --- code to be watched ------------------------------------------------------------------------------ */

/* Each is called with RDI = port or address; labels that end in _at are where breakpoints go. */
#define SNIPPET(name, before, instruction)                                                         \
	extern const char name[], name##_at[], name##_next[];                                      \
	__asm__(".pushsection .text\n" #name ":\n" before "\n" #name "_at:\n" instruction          \
		"\n" #name "_next:\n\tnop\n\tret\n.popsection\n")

SNIPPET(snippet_nop, "nop", "nop");
SNIPPET(snippet_cpuid, "xor %eax, %eax; xor %ecx, %ecx", "cpuid");
SNIPPET(snippet_in_open, "mov $0x61, %edx", "in %dx, %al");
SNIPPET(snippet_in_closed, "mov $0xcf8, %edx", "in %dx, %eax");
SNIPPET(snippet_out_open, "mov $0x80, %edx", "out %al, %dx");
SNIPPET(snippet_out_closed, "mov $0xcf8, %edx; xor %eax, %eax", "out %eax, %dx");
SNIPPET(snippet_rdmsr, "mov $0xc0000080, %ecx", "rdmsr");
SNIPPET(snippet_wrmsr, "mov $0xc0000080, %ecx; rdmsr", "wrmsr");
SNIPPET(snippet_rdmsr_open, "mov $0xc0000100, %ecx", "rdmsr");
SNIPPET(snippet_rdtsc, "nop", "rdtsc");
SNIPPET(snippet_apic_write, "mov $0xfee000b0, %edx; xor %eax, %eax", "mov %eax, (%rdx)");
SNIPPET(snippet_apic_read, "mov $0xfee00020, %edx", "mov (%rdx), %eax");
SNIPPET(snippet_apic_add, "mov $0xfee00080, %edx", "addl $0, (%rdx)");
SNIPPET(snippet_apic_from_memory, "mov $0xfee00080, %edi; lea watched(%rip), %rsi", "movsl");
SNIPPET(snippet_insl, "mov $0xcf8, %edx; lea watched(%rip), %rdi", "insl");
SNIPPET(snippet_rep_insl, "mov $0xcf8, %edx; lea watched(%rip), %rdi; mov $4, %ecx", "rep insl");
SNIPPET(snippet_rep_stosl, "mov $0xfee00080, %edi; mov $3, %ecx; xor %eax, %eax", "rep stosl");
SNIPPET(snippet_sti, "nop", "sti; nop; cli");
SNIPPET(snippet_sti_cpuid, "xor %eax, %eax; xor %ecx, %ecx", "sti; cpuid; cli");
SNIPPET(snippet_mov_ss, "mov %ss, %edx; xor %eax, %eax; xor %ecx, %ecx", "mov %edx, %ss; cpuid");
SNIPPET(snippet_pop_ss_watch, "mov $0x10, %eax; mov %eax, watched(%rip)",
	"mov watched(%rip), %ss; nop; nop");
SNIPPET(snippet_mov_dr, "mov $0x1234000, %eax", "mov %rax, %db1");
SNIPPET(snippet_mov_from_dr, "nop", "mov %db1, %rax");
SNIPPET(snippet_pushf, "pushfq", "popfq");
SNIPPET(snippet_hlt, "sti", "hlt; cli");
SNIPPET(snippet_hlt_open, "sti; nop", "hlt; cli");
SNIPPET(snippet_hlt_one, "sti", "hlt");
SNIPPET(snippet_sti_wrmsr, "mov $0xc0000080, %ecx; rdmsr", "sti; wrmsr; cli");
SNIPPET(snippet_sti_mov_ss, "mov %ss, %edx; xor %eax, %eax; xor %ecx, %ecx",
	"sti; mov %edx, %ss; cpuid; cli");
SNIPPET(snippet_popf_cpuid, "xor %eax, %eax; xor %ecx, %ecx; pushfq; orq $0x300, (%rsp)",
	"popfq; cpuid; pushfq; andq $~0x300, (%rsp); popfq");
SNIPPET(snippet_popf_wrmsr, "mov $0xc0000080, %ecx; rdmsr; pushfq; orq $0x300, (%rsp)",
	"popfq; wrmsr; pushfq; andq $~0x300, (%rsp); popfq");
/* VECTOR_STORM to oneself: by the APIC's page, and by a synthetic MSR (only under a paravisor). */
SNIPPET(snippet_self_ipi, "sti; mov $0xfee00300, %edx; mov $0x44042, %eax",
	"mov %eax, (%rdx); nop; cli");
SNIPPET(snippet_self_ipi_one, "sti; mov $0xfee00300, %edx; mov $0x44042, %eax", "mov %eax, (%rdx)");
SNIPPET(snippet_self_ipi_msr, "sti; mov $0x40000071, %ecx; xor %edx, %edx; mov $0x44042, %eax",
	"wrmsr; nop; cli");
SNIPPET(snippet_self_nmi, "mov $0xfee00300, %edx; mov $0x44400, %eax", "mov %eax, (%rdx)");
SNIPPET(snippet_write, "nop", "movq $1, watched(%rip)");
SNIPPET(snippet_read, "nop", "mov watched(%rip), %rax");
SNIPPET(snippet_wbinvd, "nop", "wbinvd");

/* HV_FLUSH_SPACE, through the page. */
SNIPPET(snippet_hypercall, "mov $2, %ecx; lea flush_input(%rip), %rdx; mov $0x5a5a5a5a, %eax",
	"call hv_page; mov %rax, flush_result(%rip)");

volatile uint64_t watched[8] __attribute__((aligned(64)));
uint64_t flush_input[4] __attribute__((aligned(64)));
volatile uint64_t flush_result;

static void call(const void *code)
{
	__asm__ volatile(
		"push %%rbx; call *%0; pop %%rbx"
		:
		: "r"(code)
		: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
}

/* Calls it with TF set. */
static void step(const void *code)
{
	__asm__ volatile(
		"push %%rbx\n"
		"pushfq\n"
		"orq $0x100, (%%rsp)\n"
		"popfq\n"
		"call *%0\n"
		"pushfq\n"
		"andq $~0x100, (%%rsp)\n"
		"popfq\n"
		"pop %%rbx\n"
		:
		: "r"(code)
		: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
}

struct piece {
	const char *name;
	const char *code, *at, *next;
};

#define PIECE(text, name)                                                                          \
	{                                                                                          \
		text, name, name##_at, name##_next                                                 \
	}

static const struct piece pieces[] = {
	PIECE("NOP", snippet_nop),
	PIECE("CPUID", snippet_cpuid),
	PIECE("IN, open port", snippet_in_open),
	PIECE("IN, mediated port", snippet_in_closed),
	PIECE("OUT, open port", snippet_out_open),
	PIECE("OUT, mediated port", snippet_out_closed),
	PIECE("RDMSR", snippet_rdmsr),
	PIECE("WRMSR", snippet_wrmsr),
	PIECE("RDMSR, open", snippet_rdmsr_open),
	PIECE("RDTSC", snippet_rdtsc),
	PIECE("write to the APIC", snippet_apic_write),
	PIECE("read from the APIC", snippet_apic_read),
	PIECE("read, change and write in the APIC", snippet_apic_add),
	PIECE("MOVS to the APIC", snippet_apic_from_memory),
	PIECE("INS", snippet_insl),
	PIECE("MOV to DR1", snippet_mov_dr),
	PIECE("MOV from DR1", snippet_mov_from_dr),
	PIECE("WBINVD", snippet_wbinvd),
};

#define PIECES (sizeof(pieces) / sizeof(pieces[0]))

/* --- single steps ------------------------------------------------------------------------------------ */

static bool stepped_once(const struct seen *seen, const char *address)
{
	uint32_t times = 0;

	for (uint32_t i = 0; i < seen->count && i < EVENTS; i++)
		times += seen->event[i].rip == (uint64_t)address &&
			(seen->event[i].dr6 & 0xe00f) == DR6_STEP;
	return times == 1;
}

static void step_test(void)
{
	for (uint32_t i = 0; i < PIECES; i++) {
		struct seen *seen = seen_reset();

		seen->wanted = DR6_STEP;
		step(pieces[i].code);
		answer(pieces[i].name, (uint64_t)pieces[i].code);
		tap_check(stepped_once(seen, pieces[i].at) && stepped_once(seen, pieces[i].next) &&
				!seen->strange,
			"single step over %s: one trap before, one after", pieces[i].name);
	}
	dr1_write(0);
}

static void step_special(const char *name, const char *code)
{
	seen_reset();
	step(code);
	answer(name, (uint64_t)code);
}

static void step_special_test(void)
{
	static const char *const cut[] = {snippet_rep_insl, snippet_rep_stosl};
	struct seen *seen = &all_seen[0];

	for (uint32_t i = 0; i < 2; i++) {
		uint32_t times = 0;
		const char *at = i ? snippet_rep_stosl_at : snippet_rep_insl_at;

		step_special(i ? "REP STOS to the APIC" : "REP INS", cut[i]);
		for (uint32_t n = 0; n < seen->count && n < EVENTS; n++)
			times += seen->event[n].rip == (uint64_t)at;
		tap_equal(times, i ? 3 : 4,
			i ? "REP STOS to the APIC: a trap after each element"
			  : "REP INS: a trap after each element");
	}
	step_special("STI", snippet_sti);
	step_special("STI, CPUID", snippet_sti_cpuid);
	step_special("MOV SS, CPUID", snippet_mov_ss);
	step_special("PUSHF, POPF", snippet_pushf);

	/* The timer ends the HLT; where it comes is not always the same, the traps are. */
	interrupts = 0;
	seen = seen_reset();
	apic_timer_start(VECTOR_STORM, 20000);
	step(snippet_hlt);
	tap_check(clock_wait_for(interrupts == 1, 1000000) || interrupts == 1,
		"single step over HLT: the interrupt comes");
	print("# answer HLT: %lu #DB\n", seen->count);

	seen = seen_reset();
	step(snippet_self_nmi);
	clock_wait_for(seen->nmis != 0, 1000000);
	answer("an NMI to oneself", (uint64_t)snippet_self_nmi);
	tap_equal(seen->nmis, 1, "single step over an NMI to oneself: the NMI comes");
	tap_check(stepped_once(seen, snippet_self_nmi_next),
		"and the trap after the instruction that sent it");
}

/* --- steps and interrupts at the same time ------------------------------------------------------------- */

static void order_start(void)
{
	seen_reset();
	interrupts = 0;
	order.count = 0;
	order.on = true;
}

static void order_end(void)
{
	order.on = false;
	interrupts_disable();
}

/* Shows what came, with TF and RF of the flags that were saved. */
static void order_answer(const char *name, const char *origin)
{
	order_end();
	print("# answer order, %s: %u", name, order.count);
	for (uint32_t i = 0; i < order.count && i < EVENTS; i++) {
		const struct event *event = &order.event[i];
		uint64_t distance = event->rip - (uint64_t)origin;

		print(event->vector == TRAP_DB ? " #DB" : " interrupt");
		if (distance < 256)
			print(" +%lu", distance);
		print("/%lx%s%s", event->dr6, event->flags & FLAG_TF ? "t" : "",
			event->flags & FLAG_RF ? "r" : "");
	}
	print("\n");
}

/* How many of those of a kind came with the instruction at `at` next. */
static uint32_t order_count(uint64_t vector, const char *at)
{
	uint32_t times = 0;

	for (uint32_t i = 0; i < order.count && i < EVENTS; i++)
		times += order.event[i].vector == vector && order.event[i].rip == (uint64_t)at;
	return times;
}

/* With an interrupt that waits for IF; the piece itself makes the steps if it is not stepped. */
static void order_pending(const char *name, const char *code, bool stepped)
{
	order_start();
	apic_ipi_send(0, ICR_SELF | ICR_ASSERT | VECTOR_STORM);
	if (stepped)
		step(code);
	else
		call(code);
	order_answer(name, code);
	tap_equal(interrupts, 1, "steps, and an interrupt that waits: it comes");
}

/* What a step over an instruction that sends an interrupt to oneself must give: the trap goes first. */
static void order_sent(const char *name, const char *code, const char *at)
{
	const char *next = at + 2; /* both instructions have two bytes */
	uint32_t trap = 0;

	order_start();
	step(code);
	order_end();
	while (trap < order.count && trap < EVENTS - 2 && order.event[trap].rip != (uint64_t)next)
		trap++;
	tap_check(order_count(TRAP_DB, next) == 1 && order_count(VECTOR_STORM, next) == 1 &&
			order.event[trap].vector == TRAP_DB &&
			(order.event[trap].dr6 & 0xe00f) == DR6_STEP &&
			(order.event[trap + 1].flags & FLAG_TF) && interrupts == 1,
		"single step over %s: the trap, then the interrupt, both behind it", name);
}

static void order_test(void)
{
	order_pending("STI, CPUID", snippet_sti_cpuid, true);
	order_pending("STI, WRMSR", snippet_sti_wrmsr, true);
	order_pending("STI, MOV SS, CPUID", snippet_sti_mov_ss, true);
	order_pending("POPF, CPUID", snippet_popf_cpuid, false);
	order_pending("POPF, WRMSR", snippet_popf_wrmsr, false);
	order_sent("an IPI to oneself", snippet_self_ipi, snippet_self_ipi_at);
	order_answer("an IPI to oneself", snippet_self_ipi);

	/* An interrupt comes before a breakpoint on the same instruction. */
	order_start();
	dr0_write((uint64_t)snippet_self_ipi_one_next);
	dr7_write(arm(0, ON_EXECUTE, 1));
	call(snippet_self_ipi_one);
	dr7_write(DR7_FIXED);
	dr0_write(0);
	order_answer("an IPI to oneself, a breakpoint behind it", snippet_self_ipi_one);
	tap_check(order.count == 2 && order_count(TRAP_DB, snippet_self_ipi_one_next) == 1 &&
			order_count(VECTOR_STORM, snippet_self_ipi_one_next) == 1 &&
			order.event[0].vector == VECTOR_STORM,
		"a breakpoint behind an IPI to oneself: the interrupt, then the hit");

	/* In the shadow of STI it is the other way round, and the HLT sleeps until something else comes. */
	ticks_start();
	order_start();
	apic_ipi_send(0, ICR_SELF | ICR_ASSERT | VECTOR_STORM);
	dr0_write((uint64_t)snippet_hlt_at);
	dr7_write(arm(0, ON_EXECUTE, 1));
	call(snippet_hlt);
	dr7_write(DR7_FIXED);
	dr0_write(0);
	apic_timer_stop();
	order_answer("STI, a breakpoint on HLT", snippet_hlt);
	tap_check(order.count == 2 && order_count(TRAP_DB, snippet_hlt_at) == 1 &&
			order_count(VECTOR_STORM, snippet_hlt_at) == 1 &&
			order.event[0].vector == TRAP_DB,
		"a breakpoint on HLT behind STI: the hit, then the interrupt that waits");
	tap_check(atomic_load(&ticks) > 0, "and then it halts");
}

/* An instruction that faults has no trap behind it. */
static void vmmcall_run(void *argument)
{
	(void)argument;
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; vmmcall" : : : "rax", "memory", "cc");
}

static void icebp_run(void *argument)
{
	(void)argument;
	__asm__ volatile(".byte 0xf1" : : : "memory");
}

static void faults_test(void)
{
	seen_reset();
	answer_value("ICEBP raises", (uint64_t)trap_catch(icebp_run, NULL));
	answer_value("VMMCALL under TF raises", (uint64_t)trap_catch(vmmcall_run, NULL));
}

static void hypercall_test(void)
{
	const uint8_t *at = hv_page;
	struct seen *seen;

	if (!boot_has_paravisor())
		return;
	hv_start();
	while (at < hv_page + sizeof(hv_page) - 3 && memcmp(at, "\x0f\x01\xd9", 3))
		at++;
	flush_input[0] = cr3_read();
	flush_input[1] = HV_ALL_PROCESSORS;
	flush_result = ~0ull;
	seen = seen_reset();
	seen->wanted = DR6_STEP;
	step(snippet_hypercall);
	if (!tap_check(stepped_once(seen, (const char *)at) &&
			    stepped_once(seen, (const char *)at + 3) && !seen->strange,
		    "single step over a hypercall: one trap before, one after"))
		answer("hypercall", (uint64_t)hv_page);
	tap_equal(flush_result, HV_SUCCESS, "and the call succeeds");
	order_sent("an IPI to oneself by MSR", snippet_self_ipi_msr, snippet_self_ipi_msr_at);
}

/* --- breakpoints on instructions ----------------------------------------------------------------------- */

/* Not among those that `step_test` steps over. */
static const struct piece more_pieces[] = {
	PIECE("STI", snippet_sti),
	PIECE("MOV SS", snippet_mov_ss),
	PIECE("POPF", snippet_pushf),
};

static const struct piece halts[] = {
	PIECE("HLT", snippet_hlt_open),
	PIECE("HLT behind STI", snippet_hlt),
	{"what follows HLT", snippet_hlt_one, snippet_hlt_one_next, snippet_hlt_one_next},
};

static void execute(const struct piece *piece, uint32_t index)
{
	struct seen *seen = seen_reset();
	uint32_t right = 0;

	seen->wanted = 1u << index;
	if (index == 0)
		dr0_write((uint64_t)piece->at);
	else if (index == 2)
		dr2_write((uint64_t)piece->at);
	else
		dr3_write((uint64_t)piece->at);
	dr7_write(arm(index, ON_EXECUTE, 1));
	for (uint32_t n = 0; n < 20; n++)
		call(piece->code);
	dr7_write(DR7_FIXED);
	for (uint32_t n = 0; n < 20; n++)
		right += seen->event[n].rip == (uint64_t)piece->at;
	answer_value(piece->name, seen->count);
	tap_check(seen->count == 20 && right == 20 && !seen->strange,
		"breakpoint on %s: hit before it, each time", piece->name);
}

static void execute_test(void)
{
	/* DR1 is written by one of the pieces. */
	for (uint32_t i = 0; i < PIECES; i++)
		execute(&pieces[i], i % 4 == 1 ? 2 : i % 4);
	for (uint32_t i = 0; i < sizeof(more_pieces) / sizeof(more_pieces[0]); i++)
		execute(&more_pieces[i], i % 4 == 1 ? 2 : i % 4);
	/* Something must end each HLT, and nothing but what comes after it does. */
	for (uint32_t i = 0; i < sizeof(halts) / sizeof(halts[0]); i++) {
		ticks_start();
		execute(&halts[i], i % 4 == 1 ? 2 : i % 4);
		apic_timer_stop();
		interrupts_disable();
		tap_check(atomic_load(&ticks) >= 20, "breakpoint on %s: it halts each time",
			halts[i].name);
	}
	dr0_write(0);
	dr1_write(0);
	dr2_write(0);
	dr3_write(0);
}

/* --- watchpoints ---------------------------------------------------------------------------------------- */

static void watch(const char *name, const char *code, uint64_t address, uint32_t type,
	uint32_t size, uint64_t hits)
{
	struct seen *seen = seen_reset();

	seen->wanted = 1;
	dr0_write(address);
	dr7_write(arm(0, type, size));
	for (uint32_t n = 0; n < 5; n++)
		call(code);
	dr7_write(DR7_FIXED);
	dr0_write(0);
	answer(name, (uint64_t)code);
	tap_check(seen->count == hits && !seen->strange, "%s: %lu hits (%lu)", name, hits,
		seen->count);
}

static void watch_test(void)
{
	uint64_t memory = (uint64_t)watched;

	watch("write, watched for writes", snippet_write, memory, ON_WRITE, 8, 5);
	watch("write, watched for any access", snippet_write, memory, ON_ACCESS, 8, 5);
	watch("read, watched for writes", snippet_read, memory, ON_WRITE, 8, 0);
	watch("read, watched for any access", snippet_read, memory, ON_ACCESS, 8, 5);
	watch("write, its last byte watched", snippet_write, memory + 7, ON_WRITE, 1, 5);
	watch("write, the byte behind watched", snippet_write, memory + 8, ON_WRITE, 1, 0);
	watch("write, four bytes watched", snippet_write, memory + 4, ON_WRITE, 4, 5);
	watch("EOI, watched for writes", snippet_apic_write, 0xfee000b0, ON_WRITE, 4, 5);
	watch("EOI, its neighbour watched", snippet_apic_write, 0xfee000b4, ON_WRITE, 4, 0);
	watch("APIC id, watched for any access", snippet_apic_read, 0xfee00020, ON_ACCESS, 4, 5);
	watch("APIC id, watched for writes", snippet_apic_read, 0xfee00020, ON_WRITE, 4, 0);
	watch("TPR changed, watched for writes", snippet_apic_add, 0xfee00080, ON_WRITE, 4, 5);
	watch("MOVS to the APIC, target watched", snippet_apic_from_memory, 0xfee00080, ON_WRITE, 4,
		5);
	watch("MOVS to the APIC, source watched", snippet_apic_from_memory, memory, ON_ACCESS, 4,
		5);
	watch("INS, target watched", snippet_insl, memory, ON_WRITE, 4, 5);
	watch("CPUID with a watchpoint", snippet_cpuid, memory, ON_ACCESS, 8, 0);

	/* A watchpoint and a step at the same instruction: one trap that tells of both. */
	seen_reset();
	dr0_write(0xfee000b0);
	dr7_write(arm(0, ON_WRITE, 4));
	step(snippet_apic_write);
	dr7_write(DR7_FIXED);
	/* QEMU 7.2's own processor raises a second #DB inside the first one's handler. */
	tap_note("EOI, watched and stepped: %lu #DB", all_seen[0].count);
	seen_reset();
	dr0_write(memory);
	dr7_write(arm(0, ON_ACCESS, 4));
	call(snippet_pop_ss_watch);
	dr7_write(DR7_FIXED);
	answer("MOV SS from watched memory", (uint64_t)snippet_pop_ss_watch);
	dr0_write(0);
}

static void port_test(void)
{
	uint64_t cr4 = cr4_read();

	cr4_write(cr4 | CR4_DE);
	watch("OUT, open port watched", snippet_out_open, 0x80, ON_PORT, 1, 5);
	watch("IN, open port watched", snippet_in_open, 0x61, ON_PORT, 1, 5);
	watch("IN, open port's neighbour watched", snippet_in_open, 0x62, ON_PORT, 1, 0);
	watch("OUT, mediated port watched", snippet_out_closed, 0xcf8, ON_PORT, 4, 5);
	watch("IN, mediated port watched", snippet_in_closed, 0xcf8, ON_PORT, 4, 5);
	watch("IN, mediated port's neighbour watched", snippet_in_closed, 0xcfc, ON_PORT, 4, 0);
	watch("INS, mediated port watched", snippet_insl, 0xcf8, ON_PORT, 4, 5);
	cr4_write(cr4);
}

/* --- the registers themselves ----------------------------------------------------------------------------- */

static void dr4_run(void *argument)
{
	uint64_t value;

	/* MOV from DR4 and DR5: older assemblers have no names for them. */
	if (argument)
		__asm__ volatile(".byte 0x0f, 0x21, 0xe8" : "=a"(value) : : "memory");
	else
		__asm__ volatile(".byte 0x0f, 0x21, 0xe0" : "=a"(value) : : "memory");
	watched[7] = value;
}

static void dr6_high_run(void *argument)
{
	dr6_write((uint64_t)argument);
}

static void dr7_high_run(void *argument)
{
	dr7_write((uint64_t)argument);
}

static void dr0_run(void *argument)
{
	(void)argument;
	watched[7] = dr0_read();
}

static void registers_test(void)
{
	static const uint32_t reserved[] = {11, 12, 14, 15};
	uint64_t cr4 = cr4_read();
	uint32_t kept = 0;

	for (uint32_t i = 0; i < 64; i++) {
		uint64_t value = 0x123456789abcdef0ull ^ 1ull << i;

		dr0_write(value);
		dr1_write(value + 1);
		dr2_write(value + 2);
		dr3_write(value + 3);
		cpuid_get(0, 0);
		kept += dr0_read() == value && dr1_read() == value + 1 && dr2_read() == value + 2 &&
			dr3_read() == value + 3;
	}
	tap_equal(kept, 64, "DR0 to DR3 keep 64 bits over exits");
	dr0_write(0);
	dr1_write(0);
	dr2_write(0);
	dr3_write(0);
	dr6_write(0);
	answer_value("DR6 after writing 0", dr6_read());
	dr6_write(0xffffffff);
	answer_value("DR6 after writing ones", dr6_read());
	cpuid_get(0, 0);
	answer_value("DR6 after an exit", dr6_read());
	dr6_write(0);
	dr7_write(0);
	answer_value("DR7 after writing 0", dr7_read());
	dr7_write(0xdfff0000 | 0x300); /* all but the enable bits, GD, and I/O types without DE */
	answer_value("DR7 after writing types and lengths", dr7_read());
	cpuid_get(0, 0);
	answer_value("DR7 after an exit", dr7_read());
	dr7_write(DR7_FIXED);

	cr4_write(cr4 & ~CR4_DE);
	dr6_write(0xffff0ff1);
	tap_equal((uint64_t)trap_catch(dr4_run, NULL), (uint64_t)TRAP_NONE, "without DE, DR4...");
	tap_equal(watched[7], 0xffff0ff1, "... is DR6");
	dr6_write(0);
	dr7_write(0xd0000400);
	tap_equal((uint64_t)trap_catch(dr4_run, (void *)1), (uint64_t)TRAP_NONE,
		"without DE, DR5...");
	tap_equal(watched[7], 0xd0000400, "... is DR7");
	dr7_write(DR7_FIXED);
	cr4_write(cr4 | CR4_DE);
	tap_equal((uint64_t)trap_catch(dr4_run, NULL), TRAP_UD, "with DE, DR4 is #UD");
	tap_equal((uint64_t)trap_catch(dr4_run, (void *)1), TRAP_UD, "with DE, DR5 is #UD");
	cr4_write(cr4);
	tap_equal((uint64_t)trap_catch(dr6_high_run, (void *)(1ull << 32)), TRAP_GP,
		"a high bit of DR6 is #GP");
	tap_equal((uint64_t)trap_catch(dr7_high_run, (void *)(1ull << 63)), TRAP_GP,
		"a high bit of DR7 is #GP");
	/* Reserved in DR7, or RTM's (11); in DR6 RTM's (16): each alone set, then alone clear. */
	for (uint32_t i = 0; i < 2 * sizeof(reserved) / sizeof(reserved[0]); i++) {
		uint64_t bit = 1ull << reserved[i / 2];

		dr7_write(DR7_FIXED | (i % 2 ? 0xd800 & ~bit : bit));
		print("# answer DR7, bit %u %s: %lx", reserved[i / 2], i % 2 ? "clear" : "set",
			dr7_read());
		cpuid_get(0, 0);
		print(", after an exit %lx\n", dr7_read());
	}
	dr7_write(DR7_FIXED);
	for (uint32_t i = 0; i < 2; i++) {
		dr6_write(0xfffe0ff0 | i << 16);
		print("# answer DR6, bit 16 %s: %lx", i ? "set" : "clear", dr6_read());
		cpuid_get(0, 0);
		print(", after an exit %lx\n", dr6_read());
	}
	dr6_write(0);
	/* DR7.GD: #DB at any MOV with a debug register, on processors that have it. */
	dr7_write(DR7_FIXED | 1u << 13);
	answer_value("DR7.GD set, MOV from DR0 raises", (uint64_t)trap_catch(dr0_run, NULL));
	dr7_write(DR7_FIXED);
	dr6_write(0);
}

/* --- a paravisor's own addresses ---------------------------------------------------------------------------- */

#define THEIR_TEXT  0xffffffff80000000ull /* where Parapet's image is in its own address space */
#define THEIR_DENSE 0x1400u
#define THEIR_BYTES 0x20000u

static void exits_make(void)
{
	cpuid_get(0, 0);
	apic_write(APIC_EOI, 0);
	io_read32(0xcf8);
}

static void sweep_test(uint64_t step_bytes)
{
	struct seen *seen = seen_reset();
	uint64_t kept = 0, tried = 0;

	for (uint64_t offset = 0; offset < THEIR_BYTES; tried++) {
		uint64_t next = offset + (offset < THEIR_DENSE ? 4 : 4 * step_bytes);
		uint64_t gap = (next - offset) / 4;
		uint64_t address = THEIR_TEXT + offset;

		dr0_write(address);
		dr1_write(address + gap);
		dr2_write(address + 2 * gap);
		dr3_write(address + 3 * gap);
		dr7_write(DR7_FIXED | 0xaa); /* all four, on execution */
		exits_make();
		kept += dr0_read() == address && dr1_read() == address + gap &&
			dr2_read() == address + 2 * gap && dr3_read() == address + 3 * gap;
		dr7_write(DR7_FIXED);
		offset = next;
	}
	tap_equal(kept, tried, "breakpoints at a paravisor's addresses: registers keep them");
	tap_equal(seen->count, 0, "and none is hit from there");

	kept = tried = 0;
	for (uint64_t offset = 0; offset < 4 * THEIR_BYTES; offset += 4096 / 8, tried++) {
		dr0_write(THEIR_TEXT + offset);
		dr7_write(arm(0, ON_ACCESS, 8));
		exits_make();
		dr7_write(DR7_FIXED);
	}
	tap_equal(seen->count, 0, "nor are watchpoints");
	dr0_write(0);
	dr1_write(0);
	dr2_write(0);
	dr3_write(0);
}

static _Alignas(4096) uint64_t their_tables[3][512];
static _Alignas(4096) uint8_t their_page[4096];

/* The same addresses are the guest's too, in its own address space: there its breakpoints work. */
static void their_address_test(void)
{
	uint64_t *top = (uint64_t *)cr3_read();
	uint64_t at = THEIR_TEXT + 0x8000 + 0x120;
	struct seen *seen;

	their_tables[0][510] = (uint64_t)their_tables[1] | 3;
	their_tables[1][0] = (uint64_t)their_tables[2] | 3;
	for (uint32_t i = 0; i < 64; i++)
		their_tables[2][i] = (uint64_t)their_page | 3;
	top[511] = (uint64_t)their_tables[0] | 3;
	cr3_write(cr3_read());
	memset(their_page, 0x90, sizeof(their_page));
	their_page[0x130] = 0xc3;

	seen = seen_reset();
	seen->wanted = 1;
	dr0_write(at);
	dr7_write(arm(0, ON_EXECUTE, 1));
	for (uint32_t i = 0; i < 100; i++) {
		call((const void *)(at - 8));
		exits_make();
	}
	dr7_write(DR7_FIXED);
	tap_check(seen->count == 100 && !seen->strange,
		"a breakpoint of the guest's at such an address: 100 hits (%lu)", seen->count);

	seen = seen_reset();
	seen->wanted = 1;
	at = THEIR_TEXT + 0x20000 + 0x800;
	dr0_write(at);
	dr7_write(arm(0, ON_WRITE, 8));
	for (uint32_t i = 0; i < 100; i++) {
		*(volatile uint64_t *)at = i;
		exits_make();
	}
	dr7_write(DR7_FIXED);
	dr0_write(0);
	tap_check(seen->count == 100 && !seen->strange,
		"a watchpoint of the guest's there: 100 hits (%lu)", seen->count);
	top[511] = 0;
	cr3_write(cr3_read());
}

/* --- storms -------------------------------------------------------------------------------------------------- */

static uint64_t storm_hits = 2000;
static _Atomic uint32_t storm_done;

struct storm {
	_Alignas(64) volatile uint64_t variable;
	uint64_t writes, hits, strange, steps, nmis, nmis_stepping;
};

static struct storm storms[CPU_COUNT_MAX];

/* Others are disturbed every now and then: by an interrupt, or by an NMI. */
static void disturb(uint64_t turn)
{
	if (cpu_count() == 1) {
		if (turn % 16 == 0)
			apic_ipi_send(0, ICR_SELF | ICR_ASSERT | VECTOR_STORM);
		return;
	}
	if (turn % 16 == 0)
		apic_ipi_send(0, ICR_OTHERS | ICR_ASSERT | VECTOR_STORM);
	else if (turn % 16 == 8)
		apic_ipi_send(0, ICR_OTHERS | ICR_ASSERT | ICR_NMI);
}

/* One write to the watched variable, and one call of a function with a breakpoint, for each turn. */
static void storm_run(void *argument)
{
	struct storm *storm = argument;
	struct seen *seen = seen_reset();

	dr0_write((uint64_t)&storm->variable);
	dr1_write((uint64_t)snippet_nop_at);
	dr7_write(arm(0, ON_WRITE, 8));
	seen->wanted = 1;
	for (uint64_t i = 0; i < storm_hits; i++) {
		storm->variable = i;
		disturb(i);
	}
	storm->hits = seen->count;
	seen->count = 0;
	seen->wanted = 2;
	dr7_write(arm(1, ON_EXECUTE, 1));
	for (uint64_t i = 0; i < storm_hits; i++) {
		call(snippet_nop);
		disturb(i);
	}
	storm->writes = seen->count;
	dr7_write(DR7_FIXED);
	/* Ten steps each: CALL, NOP, NOP, NOP, RET, PUSHF, AND, POPF; the POPF that starts has none. */
	dr0_write(0);
	dr1_write(0); /* DR6 may tell of a match that is not enabled */
	seen->count = 0;
	seen->wanted = DR6_STEP;
	for (uint64_t i = 0; i < storm_hits; i++) {
		step(snippet_nop);
		disturb(i);
	}
	storm->steps = seen->count;
	storm->strange = seen->strange;
	storm->nmis = seen->nmis;
	storm->nmis_stepping = seen->nmis_stepping;
	/* Nobody leaves while others still disturb. */
	atomic_fetch_add_explicit(&storm_done, 1, memory_order_acq_rel);
	while (atomic_load_explicit(&storm_done, memory_order_acquire) != cpu_count())
		cpu_relax();
}

static void storm_test(void)
{
	uint64_t nmis = 0, stepping = 0, steps;
	struct seen *seen = seen_reset();

	step(snippet_nop);
	steps = seen->count;
	answer_value("traps for stepping through three NOPs", steps);
	for (uint32_t i = 1; i < cpu_count(); i++)
		cpu_call_start(&cpus[i], storm_run, &storms[i]);
	interrupts_enable();
	storm_run(&storms[0]);
	interrupts_disable();
	for (uint32_t i = 1; i < cpu_count(); i++)
		cpu_call_wait(&cpus[i]);
	for (uint32_t i = 0; i < cpu_count(); i++) {
		tap_equal(storms[i].hits, storm_hits, "a watchpoint in the storm: each write");
		tap_equal(storms[i].writes, storm_hits, "a breakpoint in the storm: each call");
		tap_equal(storms[i].steps, storm_hits * steps,
			"single steps in the storm: each instruction");
		if (!tap_equal(storms[i].strange, 0, "and DR6 says the right thing each time"))
			tap_note("first at 0x%lx, DR6 0x%lx", all_seen[i].strange_rip,
				all_seen[i].strange_dr6);
		nmis += storms[i].nmis;
		stepping += storms[i].nmis_stepping;
	}
	tap_note("%lu NMIs came, %lu of them between two steps", nmis, stepping);
}

/* --- a breakpoint on HLT while NMIs and flushes kick ----------------------------------------------------- */

#define HALTS 1000u

static _Atomic uint32_t halting;

/*
 * QEMU looks for interrupts between its blocks of translated code. So that a kick often finds the guest
 * between STI and HLT, a long block ends with the STI; where no other page begins, there would be a block
 * for each instruction, because of the breakpoint.
 */
extern const char late_hlt[], late_hlt_at[];
__asm__(".pushsection .text\n"
	".balign 4096\n"
	".skip 4096 - 300 * 2 - 1\n"
	"late_hlt:\n"
	".rept 300; rdtsc; .endr\n"
	"sti\n"
	"late_hlt_at: hlt; cli; ret\n"
	".popsection\n");

static void halt_run(void *argument)
{
	struct storm *storm = argument;
	struct seen *seen = seen_reset();

	seen->wanted = 1;
	dr0_write((uint64_t)late_hlt_at);
	dr7_write(arm(0, ON_EXECUTE, 1));
	apic_timer_start(VECTOR_TICK | LVT_PERIODIC, TICK_US);
	for (uint32_t i = 0; i < HALTS; i++)
		call(late_hlt);
	apic_timer_stop();
	dr7_write(DR7_FIXED);
	dr0_write(0);
	storm->hits = seen->count;
	storm->strange = seen->strange;
	storm->nmis = seen->nmis;
	atomic_fetch_sub(&halting, 1);
}

/* Nothing but the interrupt that waits at the STI ends the HLT: it must not come before. */
static void halt_wake_run(void *argument)
{
	(void)argument;
	interrupts_disable();
	for (uint32_t i = 0; i < HALTS; i++) {
		apic_ipi_send(0, ICR_SELF | ICR_ASSERT | VECTOR_STORM);
		call(late_hlt);
	}
	atomic_fetch_sub(&halting, 1);
}

/* On all others, while this one kicks them; says whether they come back. */
static bool halt_everywhere(void (*function)(void *), bool nmis)
{
	uint64_t end = clock_deadline(20000000);

	atomic_store(&halting, cpu_count() - 1);
	for (uint32_t i = 1; i < cpu_count(); i++)
		cpu_call_start(&cpus[i], function, &storms[i]);
	while (atomic_load(&halting)) {
		if (nmis)
			apic_ipi_send(0, ICR_OTHERS | ICR_ASSERT | ICR_NMI);
		clock_delay(20);
		if (boot_has_paravisor())
			hv_call(HV_FLUSH_SPACE, (uint64_t)flush_input);
		if (clock_passed(end))
			return false;
	}
	for (uint32_t i = 1; i < cpu_count(); i++)
		cpu_call_wait(&cpus[i]);
	return true;
}

static void halt_storm_test(void)
{
	uint64_t nmis = 0;

	if (cpu_count() == 1)
		return;
	if (!halt_everywhere(halt_run, true))
		tap_bail("%u processors halt for ever", atomic_load(&halting));
	for (uint32_t i = 1; i < cpu_count(); i++) {
		tap_equal(storms[i].hits, HALTS, "a breakpoint on HLT in the storm: each HLT");
		tap_equal(storms[i].strange, 0, "and DR6 says so");
		nmis += storms[i].nmis;
	}
	tap_note("%lu NMIs came to those that halt", nmis);
	tap_check(halt_everywhere(halt_wake_run, false),
		"an interrupt that waits at STI ends the HLT behind it, each time");
}

void kernel_main(void)
{
	uint64_t sweep = 41;

	apic_enable();
	trap_handler_set(TRAP_DB, debug_handle);
	trap_handler_set(TRAP_NMI, nmi_handle);
	trap_handler_set(VECTOR_STORM, interrupt_handle);
	trap_handler_set(VECTOR_TICK, tick_handle);
	boot_number_get("storm", &storm_hits);
	boot_number_get("sweep", &sweep);
	tap_note("%s", boot_has_paravisor() ? "under a paravisor" : "on the bare machine");
	step_test();
	step_special_test();
	order_test();
	faults_test();
	hypercall_test();
	execute_test();
	watch_test();
	port_test();
	registers_test();
	sweep_test(sweep);
	their_address_test();
	cpu_all_start();
	storm_test();
	halt_storm_test();
}
