/*
 * One processor as its manual describes it: exceptions, paging, registers that an exit must not
 * disturb, timers, halting, priorities, real mode. All of it holds on the bare machine.
 */
#include "acpi.h"
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "machine.h"
#include "print.h"
#include "real.h"
#include "tap.h"
#include "trap.h"

#define VECTOR_LOW   0x41
#define VECTOR_HIGH  0x81
#define VECTOR_TIMER 0x51
#define VECTOR_PIT   0x61

#define HALTS 5000u

static volatile uint32_t counts[256];
static volatile uint64_t marker, marker_seen;

static void count_handle(struct trap_frame *frame)
{
	counts[frame->vector]++;
	marker_seen = marker;
	apic_eoi();
}

/* --- exceptions ------------------------------------------------------------------------------- */

static void divide_run(void *argument)
{
	(void)argument;
	__asm__ volatile("xor %%eax, %%eax; xor %%edx, %%edx; xor %%ecx, %%ecx; div %%ecx"
			 :
			 :
			 : "eax", "ecx", "edx", "cc");
}

static void breakpoint_run(void *argument)
{
	(void)argument;
	__asm__ volatile("int3");
}

static void undefined_run(void *argument)
{
	(void)argument;
	__asm__ volatile("ud2");
}

static void step_run(void *argument)
{
	(void)argument;
	__asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop" : : : "memory", "cc");
}

static void read_run(void *argument)
{
	*(volatile uint64_t *)argument;
}

static void write_run(void *argument)
{
	*(volatile uint64_t *)argument = 1;
}

static void execute_run(void *argument)
{
	((void (*)(void))argument)();
}

static void segment_run(void *argument)
{
	__asm__ volatile("mov %w0, %%es" : : "r"(argument));
}

static void exceptions_test(void)
{
	struct trap_record *trap = &cpu_self()->trap;
	uint32_t caught = 0;

	tap_equal((uint64_t)trap_catch(divide_run, NULL), TRAP_DE, "division by zero is #DE");
	tap_equal((uint64_t)trap_catch(step_run, NULL), TRAP_DB, "a single step is #DB");
	tap_equal((uint64_t)trap_catch(breakpoint_run, NULL), TRAP_BP, "INT3 is #BP");
	tap_equal((uint64_t)trap_catch(undefined_run, NULL), TRAP_UD, "UD2 is #UD");
	tap_check(trap->rip >= (uint64_t)undefined_run && trap->rip < (uint64_t)undefined_run + 32,
		"#UD names the instruction");
	tap_equal((uint64_t)trap_catch(read_run, (void *)0x1000000000000000), TRAP_GP,
		"a non-canonical address is #GP");
	tap_equal((uint64_t)trap_catch(segment_run, (void *)0x1000), TRAP_GP,
		"a selector past the table is #GP");
	tap_equal(trap->error, 0x1000, "#GP carries the selector");
	tap_equal((uint64_t)trap_catch(write_run, (void *)0x4000000123), TRAP_PF,
		"an address without translation is #PF");
	tap_check(trap->cr2 == 0x4000000123 && trap->error == 2,
		"#PF carries address and error code");
	for (uint32_t i = 0; i < 10000; i++)
		caught += trap_catch(i % 2 ? undefined_run : divide_run, NULL) ==
			(i % 2 ? TRAP_UD : TRAP_DE);
	tap_equal(caught, 10000, "ten thousand exceptions in a row");
	if (tap_wants_paravisor("reserved bits of EFER are #GP"))
		tap_equal((uint64_t)msr_write_catch(MSR_EFER, msr_read(MSR_EFER) | 1ull << 63),
			TRAP_GP, "reserved bits of EFER are #GP");
}

/* --- paging ----------------------------------------------------------------------------------- */

#define WINDOW	  0x8000000000ull /* entry 1 of the top table, not in use otherwise */
#define PRESENT	  0x1ull
#define WRITABLE  0x2ull
#define ACCESSED  0x20ull
#define DIRTY	  0x40ull
#define NOEXECUTE (1ull << 63)
#define EFER_NXE  (1ull << 11)
#define CR0_WP	  (1ull << 16)

static _Alignas(4096) uint64_t tables[3][512];
static _Alignas(4096) uint64_t frames[2][512];

static void window_set(uint64_t flags, uint32_t frame)
{
	tables[2][0] = (uint64_t)frames[frame] | flags;
	page_invalidate(WINDOW);
}

static void paging_test(void)
{
	volatile uint64_t *window = (volatile uint64_t *)WINDOW;
	uint64_t *top = (uint64_t *)cr3_read();
	uint32_t right = 0;

	tables[0][0] = (uint64_t)tables[1] | PRESENT | WRITABLE;
	tables[1][0] = (uint64_t)tables[2] | PRESENT | WRITABLE;
	top[1] = (uint64_t)tables[0] | PRESENT | WRITABLE;
	frames[0][0] = 0x1111;
	frames[1][0] = 0x2222;

	window_set(PRESENT | WRITABLE, 0);
	tap_equal(*window, 0x1111, "a new 4 KiB page shows its frame");
	tap_equal(tables[2][0] & (ACCESSED | DIRTY), ACCESSED, "a read sets the accessed bit");
	*window = 0x3333;
	tap_check((tables[2][0] & DIRTY) && frames[0][0] == 0x3333,
		"a write sets the dirty bit and goes to the frame");
	for (uint32_t i = 0; i < 1000; i++) {
		frames[i & 1][0] = i;
		window_set(PRESENT | WRITABLE, i & 1);
		right += *window == i;
	}
	tap_equal(right, 1000, "INVLPG makes each of 1000 new translations seen");

	cr0_write(cr0_read() | CR0_WP);
	window_set(PRESENT, 0);
	tap_equal((uint64_t)trap_catch(write_run, (void *)WINDOW), TRAP_PF,
		"a write to a read-only page is #PF");
	tap_equal(cpu_self()->trap.error, 3, "its error code says present and write");
	cr0_write(cr0_read() & ~CR0_WP);
	tap_equal((uint64_t)trap_catch(write_run, (void *)WINDOW), (uint64_t)TRAP_NONE,
		"without CR0.WP the kernel may write");

	((uint8_t *)frames[0])[0] = 0xc3; /* RET */
	msr_write(MSR_EFER, msr_read(MSR_EFER) | EFER_NXE);
	window_set(PRESENT | NOEXECUTE, 0);
	tap_equal((uint64_t)trap_catch(execute_run, (void *)WINDOW), TRAP_PF,
		"executing a no-execute page is #PF");
	tap_equal(cpu_self()->trap.error, 0x11, "its error code says present and fetch");
	window_set(PRESENT, 0);
	tap_equal((uint64_t)trap_catch(execute_run, (void *)WINDOW), (uint64_t)TRAP_NONE,
		"an executable page executes");
	window_set(0, 0);
	tap_equal((uint64_t)trap_catch(read_run, (void *)WINDOW), TRAP_PF,
		"a page taken away is gone");
	top[1] = 0;
	cr3_write(cr3_read());
}

/* --- registers that nobody may disturb -------------------------------------------------------- */

static void cpuid_test(void)
{
	struct cpuid first = cpuid_get(0, 0), features = cpuid_get(1, 0);
	struct cpuid extended = cpuid_get(0x80000001, 0);
	uint32_t same = 0;

	tap_check(first.eax >= 1 && cpuid_get(0x80000000, 0).eax >= 0x80000008,
		"CPUID has the usual leaves");
	tap_check(extended.edx & 1u << 29, "CPUID has long mode");
	tap_check(features.edx & 1u << 9, "CPUID has an APIC");
	tap_equal(features.ebx >> 24, apic_read(APIC_ID) >> 24, "CPUID and APIC agree on the id");
	for (uint32_t i = 0; i < 1000; i++) {
		struct cpuid again = cpuid_get(1, 0);

		same += again.eax == features.eax && again.ebx == features.ebx &&
			again.ecx == features.ecx && again.edx == features.edx;
	}
	tap_equal(same, 1000, "CPUID gives the same a thousand times");
	if (features.ecx & 1u << 31) {
		struct cpuid id = cpuid_get(0x40000000, 0);
		char name[13] = {0};

		memcpy(name, &id.ebx, 4);
		memcpy(name + 4, &id.ecx, 4);
		memcpy(name + 8, &id.edx, 4);
		tap_note("hypervisor \"%s\", leaves to 0x%x", name, id.eax);
	}
}

#define CR4_OSFXSR (1ull << 9)
#define CR0_EM	   (1ull << 2)
#define CR0_TS	   (1ull << 3)

/* Values that the exits of CPUID, MSR and I/O accesses have to leave alone. */
static void vector_registers_test(void)
{
	static uint64_t in[32], out[32];
	uint32_t wrong = 0;

	cr0_write(cr0_read() & ~(CR0_EM | CR0_TS));
	cr4_write(cr4_read() | CR4_OSFXSR);
	for (uint32_t round = 0; round < 200; round++) {
		for (uint32_t i = 0; i < 32; i++)
			in[i] = (round + 1) * 0x9e3779b97f4a7c15ull + i;
#define EACH_REGISTER(do)                                                                          \
	do                                                                                         \
	(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11) do(12) do(13) do(  \
		14) do(15)
#define LOAD(n)	 "movups 16*" #n "(%0), %%xmm" #n "\n"
#define STORE(n) "movups %%xmm" #n ", 16*" #n "(%1)\n"
		__asm__ volatile(EACH_REGISTER(LOAD) "xor %%eax, %%eax\n"
						     "cpuid\n"
						     "mov $0x80, %%dx\n"
						     "out %%al, (%%dx)\n"
						     "mov $0xc0000080, %%ecx\n"
						     "rdmsr\n"
						     "wrmsr\n" EACH_REGISTER(STORE)
				 :
				 : "r"(in), "r"(out)
				 : "eax", "ebx", "ecx", "edx", "memory");
		wrong += memcmp(in, out, sizeof(in)) != 0;
	}
	tap_equal(wrong, 0, "vector registers survive CPUID, I/O and MSR accesses");
}

/* General registers, with a value of its own in each, over the same kinds of exits. */
static void general_registers_test(void)
{
	uint32_t wrong = 0;

	for (uint32_t round = 0; round < 1000; round++) {
		uint64_t bad;

		__asm__ volatile("push %%rbp\n"
				 "mov $0x5150, %%rsi\n"
				 "mov $0x5151, %%rdi\n"
				 "mov $0x5152, %%rbp\n"
				 "mov $0x5158, %%r8\n"
				 "mov $0x5159, %%r9\n"
				 "mov $0x515a, %%r10\n"
				 "mov $0x515b, %%r11\n"
				 "mov $0x515c, %%r12\n"
				 "mov $0x515d, %%r13\n"
				 "mov $0x515e, %%r14\n"
				 "mov $0x515f, %%r15\n"
				 "mov $1, %%eax\n"
				 "xor %%ecx, %%ecx\n"
				 "cpuid\n"
				 "in $0x61, %%al\n"
				 "mov $0xc0000080, %%ecx\n"
				 "rdmsr\n"
				 "sub $0x5150, %%rsi\n"
				 "sub $0x5151, %%rdi\n"
				 "sub $0x5152, %%rbp\n"
				 "sub $0x5158, %%r8\n"
				 "sub $0x5159, %%r9\n"
				 "sub $0x515a, %%r10\n"
				 "sub $0x515b, %%r11\n"
				 "sub $0x515c, %%r12\n"
				 "sub $0x515d, %%r13\n"
				 "sub $0x515e, %%r14\n"
				 "sub $0x515f, %%r15\n"
				 "or %%rdi, %%rsi\n"
				 "or %%rbp, %%rsi\n"
				 "or %%r8, %%rsi\n"
				 "or %%r9, %%rsi\n"
				 "or %%r10, %%rsi\n"
				 "or %%r11, %%rsi\n"
				 "or %%r12, %%rsi\n"
				 "or %%r13, %%rsi\n"
				 "or %%r14, %%rsi\n"
				 "or %%r15, %%rsi\n"
				 "pop %%rbp\n"
				 : "=&S"(bad)
				 :
				 : "rax", "rbx", "rcx", "rdx", "rdi", "r8", "r9", "r10", "r11",
				 "r12", "r13", "r14", "r15", "memory", "cc");
		wrong += bad != 0;
	}
	tap_equal(wrong, 0, "general registers survive CPUID, I/O and MSR accesses");
}

static void msr_test(void)
{
	/* STAR, LSTAR, CSTAR, SFMASK, FS base, kernel GS base */
	static const uint32_t msrs[] = {
		0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000102};
	uint32_t right = 0;

	for (uint32_t i = 0; i < 6; i++) {
		uint64_t before = msr_read(msrs[i]), value = 0x12345000ull + i;

		msr_write(msrs[i], value);
		cpuid_get(0, 0);
		right += msr_read(msrs[i]) == value;
		msr_write(msrs[i], before);
	}
	tap_equal(right, 6, "the system call and segment MSRs keep what was written");
	tap_check((msr_read(MSR_EFER) & 0x500) == 0x500, "EFER says long mode");
	if (tap_wants_paravisor("an MSR that does not exist is #GP"))
		tap_equal((uint64_t)msr_read_catch(0x4fffffff, &(uint64_t){0}), TRAP_GP,
			"an MSR that does not exist is #GP");
}

/* --- time ------------------------------------------------------------------------------------- */

static void clock_test(void)
{
	uint64_t last = tsc_read(), backwards = 0;

	for (uint32_t i = 0; i < 200000; i++) {
		uint64_t now = tsc_read();

		backwards += (int64_t)(now - last) < 0;
		last = now;
	}
	tap_equal(backwards, 0, "the TSC never goes back");
	tap_note("TSC at %lu kHz", clock_frequency() / 1000);
}

static void timer_test(void)
{
	uint64_t start;
	uint32_t before;
	bool late;

	interrupts_enable();
	before = counts[VECTOR_TIMER];
	start = clock_deadline(0);
	apic_timer_start(VECTOR_TIMER, 2000);
	late = !clock_wait_for(counts[VECTOR_TIMER] != before, 2000000);
	tap_check(!late, "the APIC timer interrupts once");
	tap_check(clock_deadline(0) - start >= clock_frequency() / 1000,
		"and not before half its time");
	clock_delay(20000);
	tap_equal(counts[VECTOR_TIMER] - before, 1, "one-shot means once");

	before = counts[VECTOR_TIMER];
	apic_timer_start(VECTOR_TIMER | LVT_PERIODIC, 2000);
	tap_check(clock_wait_for(counts[VECTOR_TIMER] - before >= 20, 5000000),
		"periodic means again and again");
	apic_timer_stop();
	before = counts[VECTOR_TIMER];
	clock_delay(20000);
	tap_check(counts[VECTOR_TIMER] - before <= 1, "a stopped timer is silent");
	interrupts_disable();
}

#define PIT_CHANNEL0 0x40
#define PIT_COMMAND  0x43
#define PIT_HZ	     100u

static void pit_start(void)
{
	uint32_t divider = 1193182 / PIT_HZ;
	uint32_t gsi = acpi_machine_get()->timer_gsi;

	ioapic_entry_write(gsi, (uint64_t)cpu_self()->apic_id << 56 | VECTOR_PIT);
	io_write8(PIT_COMMAND, 0x34); /* channel 0, mode 2 */
	io_write8(PIT_CHANNEL0, (uint8_t)divider);
	io_write8(PIT_CHANNEL0, (uint8_t)(divider >> 8));
}

static void pit_test(void)
{
	uint32_t before, gsi = acpi_machine_get()->timer_gsi;

	if (!acpi_machine_get()->ioapic) {
		tap_skip("PIT through the I/O APIC", "no I/O APIC");
		return;
	}
	pit_start();
	before = counts[VECTOR_PIT];
	interrupts_enable();
	tap_check(clock_wait_for(counts[VECTOR_PIT] - before >= 10, 5000000),
		"the PIT interrupts through the I/O APIC");
	interrupts_disable();
	ioapic_entry_write(gsi, IOAPIC_MASKED);
	clock_delay(20000);
	interrupts_enable();
	before = counts[VECTOR_PIT];
	clock_delay(50000);
	interrupts_disable();
	tap_check(counts[VECTOR_PIT] - before <= 1, "a masked I/O APIC entry is silent");
}

/* The PIT runs beside it as a guard: a halt that only the guard ended was a lost wake-up. */
static void halt_test(void)
{
	uint32_t lost = 0, gsi = acpi_machine_get()->timer_gsi;

	if (acpi_machine_get()->ioapic)
		pit_start();
	for (uint32_t i = 0; i < HALTS; i++) {
		uint32_t before = counts[VECTOR_TIMER];
		uint64_t limit = clock_deadline(1000000);

		apic_timer_start(VECTOR_TIMER, 1 + i * 7 % 60);
		while (counts[VECTOR_TIMER] == before) {
			if (clock_passed(limit)) {
				lost++;
				break;
			}
			interrupt_wait();
		}
		if (lost > 3)
			break;
	}
	tap_equal(lost, 0, "STI; HLT with a short timer, 5000 times: no wake-up is lost");
	if (acpi_machine_get()->ioapic)
		ioapic_entry_write(gsi, IOAPIC_MASKED);
	/* What is still under way may arrive now. */
	interrupts_enable();
	clock_delay(20000);
	interrupts_disable();
}

/* --- interrupts and their order --------------------------------------------------------------- */

static void self_ipi(uint32_t vector)
{
	apic_ipi_send(0, ICR_SELF | ICR_ASSERT | vector);
}

static void ipi_test(void)
{
	uint32_t before = counts[VECTOR_LOW];

	self_ipi(VECTOR_LOW);
	tap_check(clock_wait_for(apic_bit_get(APIC_IRR, VECTOR_LOW), 1000000),
		"a self-IPI waits in the IRR while interrupts are disabled");
	tap_equal(counts[VECTOR_LOW], before, "and is not taken");
	interrupts_enable();
	tap_check(clock_wait_for(counts[VECTOR_LOW] == before + 1, 1000000), "then it is");
	apic_ipi_send(cpu_self()->apic_id, ICR_ASSERT | VECTOR_LOW);
	tap_check(clock_wait_for(counts[VECTOR_LOW] == before + 2, 1000000),
		"an IPI to one's own id arrives");
	for (uint32_t i = 0; i < 1000; i++) {
		self_ipi(VECTOR_LOW);
		clock_wait_for(counts[VECTOR_LOW] == before + 3 + i, 1000000);
	}
	tap_equal(counts[VECTOR_LOW] - before, 1002, "a thousand self-IPIs arrive once each");
	interrupts_disable();
	/* Two of the same vector that wait at the same time are one. */
	before = counts[VECTOR_LOW];
	self_ipi(VECTOR_LOW);
	self_ipi(VECTOR_LOW);
	interrupts_enable();
	clock_delay(10000);
	interrupts_disable();
	tap_equal(counts[VECTOR_LOW] - before, 1, "the same vector waiting twice arrives once");
}

static void shadow_test(void)
{
	uint32_t before = counts[VECTOR_LOW], taken = 0, early = 0;

	self_ipi(VECTOR_LOW);
	clock_wait_for(apic_bit_get(APIC_IRR, VECTOR_LOW), 1000000);
	for (uint32_t i = 0; i < 100; i++)
		__asm__ volatile("sti; cli" : : : "memory");
	tap_equal(counts[VECTOR_LOW], before, "STI; CLI lets no interrupt through");
	marker = 1;
	/* The instruction behind STI comes before the interrupt, the one after that does not. */
	__asm__ volatile("sti; movq $2, %0; nop; movq $3, %0; cli" : "+m"(marker) : : "memory");
	tap_check(counts[VECTOR_LOW] == before + 1 && marker_seen == 2,
		"one instruction after STI runs first (saw %lu)", marker_seen);

	for (uint32_t i = 0; i < 1000; i++) {
		before = counts[VECTOR_LOW];
		self_ipi(VECTOR_LOW);
		marker = 1;
		__asm__ volatile("sti; movq $2, %0; nop; nop; movq $3, %0; cli"
				 : "+m"(marker)
				 :
				 : "memory");
		taken += clock_wait_for(counts[VECTOR_LOW] == before + 1, 1000000);
		early += marker_seen == 1;
	}
	tap_equal(taken, 1000, "and so a thousand times");
	tap_equal(early, 0, "never before the shadow ends");
}

static void priority_test(void)
{
	uint32_t low = counts[VECTOR_LOW], high = counts[VECTOR_HIGH];

	cr8_write(5);
	tap_equal(apic_read(APIC_TPR), 0x50, "CR8 shows in the APIC's TPR");
	apic_write(APIC_TPR, 0x30);
	tap_equal(cr8_read(), 3, "the APIC's TPR shows in CR8");
	cr8_write(VECTOR_LOW >> 4);
	interrupts_enable();
	self_ipi(VECTOR_LOW);
	self_ipi(VECTOR_HIGH);
	tap_check(clock_wait_for(counts[VECTOR_HIGH] == high + 1, 1000000),
		"an interrupt above the priority arrives");
	clock_delay(10000);
	tap_equal(counts[VECTOR_LOW], low, "one of the priority's class waits");
	cr8_write((VECTOR_LOW >> 4) - 1);
	tap_check(clock_wait_for(counts[VECTOR_LOW] == low + 1, 1000000),
		"and comes when the priority falls");
	cr8_write(15);
	self_ipi(VECTOR_HIGH);
	clock_delay(10000);
	tap_equal(counts[VECTOR_HIGH], high + 1, "priority 15 holds everything off");
	apic_write(APIC_TPR, 0);
	tap_check(clock_wait_for(counts[VECTOR_HIGH] == high + 2, 1000000),
		"until the TPR in the APIC is lowered");
	interrupts_disable();
	tap_equal((uint64_t)cr8_read(), 0, "CR8 is zero again");
}

static volatile uint32_t nested_order[4], nested_count;

static void nested_handle(struct trap_frame *frame)
{
	nested_order[nested_count++ & 3] = (uint32_t)frame->vector;
	if (frame->vector == VECTOR_LOW) {
		self_ipi(VECTOR_HIGH);
		interrupts_enable();
		clock_wait_for(nested_count >= 2, 1000000);
		interrupts_disable();
		nested_order[nested_count++ & 3] = 0;
	}
	apic_eoi();
}

static void nesting_test(void)
{
	trap_handler_set(VECTOR_LOW, nested_handle);
	trap_handler_set(VECTOR_HIGH, nested_handle);
	self_ipi(VECTOR_LOW);
	interrupts_enable();
	clock_wait_for(nested_count == 3, 2000000);
	interrupts_disable();
	tap_check(nested_count == 3 && nested_order[0] == VECTOR_LOW &&
			nested_order[1] == VECTOR_HIGH && nested_order[2] == 0,
		"a higher interrupt breaks into a lower one's handler");
	trap_handler_set(VECTOR_LOW, count_handle);
	trap_handler_set(VECTOR_HIGH, count_handle);
}

static void real_mode_test(void)
{
	struct real_result result = {0};

	if (!real_mode_visit(500, &result)) {
		tap_skip("real mode", "no low memory");
		return;
	}
	tap_equal(result.interrupts, 500, "real mode: software interrupts arrive");
	tap_equal(result.cr0 & 0x80000001, 0, "real mode: no protection, no paging");
	tap_equal(result.cpuid_ebx, cpuid_get(0, 0).ebx, "real mode: CPUID answers as ever");
	tap_equal(result.wrapped, *(const volatile uint32_t *)0x100000,
		"real mode: addresses above 1 MiB do not wrap");
	tap_equal((uint64_t)trap_catch(undefined_run, NULL), TRAP_UD, "and back: exceptions work");
}

void kernel_main(void)
{
	apic_enable();
	trap_handler_set(VECTOR_LOW, count_handle);
	trap_handler_set(VECTOR_HIGH, count_handle);
	trap_handler_set(VECTOR_TIMER, count_handle);
	trap_handler_set(VECTOR_PIT, count_handle);
	tap_note("%s", boot_has_paravisor() ? "under a paravisor" : "on the bare machine");
	exceptions_test();
	paging_test();
	cpuid_test();
	vector_registers_test();
	general_registers_test();
	msr_test();
	clock_test();
	ipi_test();
	timer_test();
	pit_test();
	halt_test();
	shadow_test();
	priority_test();
	nesting_test();
	real_mode_test();
}
