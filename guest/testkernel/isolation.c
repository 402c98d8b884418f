/*
 * What a hostile guest tries with its processor: memory that is not its own, SVM, machine
 * registers, the APIC. Checks that only a paravisor can pass are skipped on the bare machine; the
 * word "paravisor" on the command line has them run there too, and fail. Devices have devices.c.
 */
#include "acpi.h"
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "cpu.h"
#include "machine.h"
#include "print.h"
#include "tap.h"
#include "trap.h"
#include "vitals.h"

#define PAGE	4096ull
#define MIB	0x100000ull
#define PATTERN 0x6b6f6b6f6b6f6b6full

/* --- memory that the memory map does not call RAM --------------------------------------------- */

static uint8_t cmos_read(uint8_t index)
{
	io_write8(0x70, index | 0x80);
	return io_read8(0x71);
}

/* RAM below 4 GiB as the machine's maker reports it: CMOS 0x34/0x35, in 64 KiB above 16 MiB. */
static uint64_t memory_top(void)
{
	uint64_t units = (uint64_t)cmos_read(0x35) << 8 | cmos_read(0x34);
	uint64_t top = 16 * MIB;

	/* All ones: nobody answers at these ports. */
	if (units && units != 0xffff)
		return top + units * 0x10000;
	for (uint32_t i = 0; i < boot_memory_count(); i++) {
		const struct memory_range *range = boot_memory_get(i);

		if (range->type == MEMORY_RAM && range->end <= 1ull << 32 && range->end > top)
			top = range->end;
	}
	return top;
}

static const struct memory_range *range_find(uint64_t page)
{
	for (uint32_t i = 0; i < boot_memory_count(); i++)
		if (boot_memory_get(i)->start <= page && page < boot_memory_get(i)->end)
			return boot_memory_get(i);
	return NULL;
}

/*
 * Firmware keeps its tables in reserved memory too, in one piece at the upper end of a range. What
 * lies below the first table of a range is not the firmware's. ACPI memory (types 3 and 4) is for
 * the guest to read.
 */
static bool page_is_firmware(uint64_t page, const struct memory_range *range)
{
	const struct acpi_machine *machine = acpi_machine_get();
	uint64_t first = ~0ull;

	if (range->type == 3 || range->type == 4)
		return true;
	for (uint32_t i = 0; i < machine->table_count; i++) {
		uint64_t start = machine->tables[i].start;

		if (start >= range->start && start < range->end && start < first)
			first = start;
	}
	return first != ~0ull && page >= (first & ~(PAGE - 1));
}

/*
 * What a paravisor shows of itself on purpose: the page at the reset vector (whoever executes it goes
 * offline) and, right below it, the page tables that processors start with.
 */
static bool page_is_for_starting(uint64_t page)
{
	enum {
		TABLES_MAX = 8
	};
	static struct acpi_wakeup wakeup;
	static bool looked, found;

	if (!looked) {
		looked = true;
		found = acpi_wakeup_get(&wakeup);
	}
	return found && page <= wakeup.reset_vector &&
		page + TABLES_MAX * PAGE > wakeup.reset_vector;
}

static bool page_is_hidden(uint64_t page)
{
	const struct memory_range *range = range_find(page);

	if (boot_memory_is_ram(page, page + PAGE) || page_is_for_starting(page))
		return false;
	return !range || !page_is_firmware(page, range);
}

/* The next hidden page from here on: below the BIOS data of 640 KiB, or from 1 MiB to the top. */
static uint64_t hidden_next(uint64_t page)
{
	static uint64_t top;

	if (!top)
		top = memory_top();
	for (; page < top; page += PAGE) {
		if (page >= 0x9f000 && page < MIB)
			page = MIB;
		if (page && page_is_hidden(page))
			return page;
	}
	return 0;
}

struct access {
	uint64_t address;
	uint64_t value;
};

static void read_run(void *argument)
{
	struct access *access = argument;

	access->value = *(const volatile uint64_t *)access->address;
}

static void write_run(void *argument)
{
	const struct access *access = argument;

	*(volatile uint64_t *)access->address = access->value;
}

static bool reads_ones(uint64_t address)
{
	struct access access = {address, 0};

	return trap_catch(read_run, &access) == TRAP_NONE && access.value == ~0ull;
}

static void execute_run(void *argument)
{
	((void (*)(void))argument)();
}

/* A fault before the first instruction is over. */
static bool execution_fails(uint64_t page)
{
	return trap_catch(execute_run, (void *)page) != TRAP_NONE && cpu_self()->trap.rip == page;
}

static void exchange_run(void *argument)
{
	__asm__ volatile("lock xaddq %%rax, (%0)" : : "r"(argument), "a"(PATTERN) : "memory", "cc");
}

static void compare_run(void *argument)
{
	__asm__ volatile("lock cmpxchgq %1, (%0)"
			 :
			 : "r"(argument), "r"(PATTERN), "a"(~0ull)
			 : "memory", "cc");
}

static void string_write_run(void *argument)
{
	uint64_t count = 64;

	__asm__ volatile("rep stosb" : "+D"(argument), "+c"(count) : "a"(0x6b) : "memory");
}

static void string_move_run(void *argument)
{
	static uint64_t source[8] = {PATTERN, PATTERN, PATTERN, PATTERN};
	const void *from = source;
	uint64_t count = 8;

	__asm__ volatile("rep movsq" : "+D"(argument), "+S"(from), "+c"(count) : : "memory");
}

static void string_input_run(void *argument)
{
	uint64_t count = 8;

	__asm__ volatile("rep insb" : "+D"(argument), "+c"(count) : "d"(0x61) : "memory");
}

static void narrow_write_run(void *argument)
{
	*(volatile uint8_t *)argument = 0x6b;
	*(volatile uint16_t *)((uint64_t)argument + 2) = 0x6b6b;
	*(volatile uint32_t *)((uint64_t)argument + 4) = 0x6b6b6b6b;
}

static void hidden_pages_test(void)
{
	uint64_t pages = 0, bad_reads = 0, bad_writes = 0, bad_executions = 0, first_bad = 0;

	for (uint64_t page = hidden_next(PAGE); page; page = hidden_next(page + PAGE)) {
		struct access access = {page + 0x100, PATTERN};
		bool good, all = true;

		pages++;
		all &= good =
			reads_ones(page) && reads_ones(page + 0x7fc) && reads_ones(page + PAGE - 8);
		bad_reads += !good;
		trap_catch(write_run, &access);
		all &= good = reads_ones(access.address);
		bad_writes += !good;
		all &= good = execution_fails(page);
		bad_executions += !good;
		if (!all && !first_bad)
			first_bad = page;
	}
	tap_note("%lu pages below 0x%lx are nobody's RAM", pages, memory_top());
	if (first_bad)
		tap_note("the first that leaks is 0x%lx", first_bad);
	tap_equal(bad_reads, 0, "hidden memory: every page reads as all ones");
	tap_equal(bad_writes, 0, "hidden memory: writes to every page are lost");
	tap_equal(bad_executions, 0, "hidden memory: no page executes");
	if (tap_wants_paravisor("hidden memory: there is some"))
		tap_check(pages > 0, "hidden memory: there is some");
}

static void hidden_ways_test(void)
{
	static const struct {
		void (*run)(void *);
		const char *name;
	} ways[] = {
		{narrow_write_run, "by 1, 2 and 4 bytes"},
		{exchange_run, "by XADD"},
		{compare_run, "by CMPXCHG"},
		{string_write_run, "by REP STOS"},
		{string_move_run, "by REP MOVS"},
		{string_input_run, "by REP INS"},
	};
	uint64_t page = hidden_next(MIB);

	for (uint32_t i = 0; page && i < sizeof(ways) / sizeof(ways[0]); i++) {
		trap_catch(ways[i].run, (void *)(page + 0x200));
		tap_check(reads_ones(page + 0x200) && reads_ones(page + 0x220),
			"hidden memory: nothing gets in %s", ways[i].name);
	}
}

/* An access that starts in our RAM and ends in memory that is not ours. */
static void hidden_edge_test(void)
{
	uint64_t page = hidden_next(MIB);
	struct access access;

	if (!page || !boot_memory_is_ram(page - PAGE, page) || page - PAGE < (uint64_t)image_end)
		return;
	access = (struct access){page - 4, PATTERN};
	trap_catch(write_run, &access);
	tap_check(reads_ones(page), "hidden memory: nothing gets in across the edge");
	if (trap_catch(read_run, &access) == TRAP_NONE)
		tap_check(access.value >> 32 == 0xffffffff,
			"hidden memory: nothing gets out across the edge");
}

/* Page tables that lie in hidden memory: the walker must not read them either. */
static void hidden_tables_test(void)
{
	uint64_t page = hidden_next(MIB), *top = (uint64_t *)cr3_read();
	struct access access = {0x8000000000ull, 0};
	int vector;

	if (!page)
		return;
	top[1] = page | 7;
	vector = trap_catch(read_run, &access);
	top[1] = 0;
	cr3_write(cr3_read());
	tap_check(vector != TRAP_NONE, "hidden memory: page tables in it translate nothing");
}

/* --- SVM -------------------------------------------------------------------------------------- */

static _Alignas(4096) uint8_t control_block[4096];

#define SVM_RUN(name, instruction)                                                                 \
	static void name##_run(void *argument)                                                     \
	{                                                                                          \
		__asm__ volatile(instruction : : "a"(argument), "c"(0) : "memory", "cc");          \
	}

SVM_RUN(vmrun, "vmrun")
SVM_RUN(vmload, "vmload")
SVM_RUN(vmsave, "vmsave")
SVM_RUN(stgi, "stgi")
SVM_RUN(clgi, "clgi")
SVM_RUN(invlpga, "invlpga %%rax, %%ecx")
SVM_RUN(skinit, "skinit")

static const struct {
	void (*run)(void *);
	const char *name;
} svm_instructions[] = {
	{vmrun_run, "VMRUN"},
	{vmload_run, "VMLOAD"},
	{vmsave_run, "VMSAVE"},
	{stgi_run, "STGI"},
	{clgi_run, "CLGI"},
	{invlpga_run, "INVLPGA"},
	{skinit_run, "SKINIT"},
};

#define EFER_SVME (1ull << 12)

static void svm_instructions_test(void)
{
	for (uint32_t i = 0; i < sizeof(svm_instructions) / sizeof(svm_instructions[0]); i++) {
		int vector = trap_catch(svm_instructions[i].run, control_block);

		tap_check(vector == TRAP_UD, "%s is #UD (vector %d)", svm_instructions[i].name,
			vector);
	}
}

/* A hypercall is an answer; anything else is #UD. Either way the machine goes on. */
static void vmmcall_run(void *argument)
{
	(void)argument;
	__asm__ volatile("vmmcall"
			 :
			 : "a"(0), "c"(0xffffull), "d"(0)
			 : "memory", "r8", "r9", "r10", "r11");
}

static void svm_registers_test(void)
{
	static const struct {
		uint32_t msr;
		const char *name;
	} registers[] = {
		{0xc0010114, "VM_CR"},
		{0xc0010115, "IGNNE"},
		{0xc0010116, "SMM_CTL"},
		{0xc0010117, "VM_HSAVE_PA"},
		{0xc0010118, "SVM_KEY"},
		{0xc0010119, "SMM_KEY"},
	};
	uint64_t value;
	int vector = trap_catch(vmmcall_run, NULL);

	tap_check(vector == TRAP_UD || vector == TRAP_NONE, "VMMCALL is #UD or a hypercall");
	if (!boot_has_paravisor()) {
		tap_skip("EFER.SVME and the SVM registers are refused", "not under a paravisor");
		return;
	}
	tap_equal((uint64_t)msr_write_catch(MSR_EFER, msr_read(MSR_EFER) | EFER_SVME), TRAP_GP,
		"setting EFER.SVME is #GP");
	tap_equal(msr_read(MSR_EFER) & EFER_SVME, 0, "EFER.SVME reads as zero");
	for (uint32_t i = 0; i < sizeof(registers) / sizeof(registers[0]); i++)
		tap_check(msr_read_catch(registers[i].msr, &value) == TRAP_GP &&
				msr_write_catch(registers[i].msr, 0) == TRAP_GP,
			"%s is #GP", registers[i].name);
	tap_equal(cpuid_get(0x80000001, 0).ecx & 4, 0, "CPUID does not show SVM");
	value = 0;
	for (uint32_t i = 0; i < 4; i++) {
		struct cpuid leaf = cpuid_get(0x8000000a, i);

		value |= leaf.eax | leaf.ebx | leaf.ecx | leaf.edx;
	}
	tap_equal(value, 0, "CPUID leaf 8000000A is zero");
	tap_check(cpuid_get(1, 0).ecx >> 31, "CPUID shows a hypervisor");
}

/* --- registers of the machine ----------------------------------------------------------------- */

struct remote_read {
	uint32_t msr;
	int vector;
	uint64_t value;
};

static void remote_read_run(void *argument)
{
	struct remote_read *read = argument;

	read->vector = msr_read_catch(read->msr, &read->value);
}

/* What another processor sees; this one's own view where there is no other. */
static struct remote_read msr_read_elsewhere(uint32_t msr)
{
	struct remote_read read = {.msr = msr};

	if (cpu_count() > 1)
		cpu_call(&cpus[1], remote_read_run, &read);
	else
		remote_read_run(&read);
	return read;
}

/*
 * Refused, without effect, or a private copy that no other processor sees: a write must be one of
 * these. The value differs from the present one in a bit that the register may hold.
 */
static void machine_register_test(
	uint32_t msr, uint64_t flip, bool private_allowed, const char *name)
{
	struct remote_read before = msr_read_elsewhere(msr), after;
	uint64_t own = 0, now = 0;
	bool readable = msr_read_catch(msr, &own) == TRAP_NONE;
	int vector = msr_write_catch(msr, own ^ flip);

	after = msr_read_elsewhere(msr);
	if (vector == TRAP_NONE && readable)
		msr_read_catch(msr, &now);
	tap_check(vector == TRAP_GP ||
			(after.vector == before.vector && after.value == before.value &&
				(private_allowed || now == own)),
		"%s cannot be changed", name);
	if (vector == TRAP_NONE && readable)
		msr_write_catch(msr, own);
}

static void machine_registers_test(void)
{
	static const struct {
		uint32_t msr;
		uint64_t flip;
		bool private_allowed; /* operating systems write these at start */
		const char *name;
	} registers[] = {
		{0xc0010010, 1ull << 18, false, "SYSCFG"},
		{0xc0010015, 1ull << 4, false, "HWCR"},
		{0xc0010016, 0x1000, false, "IORRBase0"},
		{0xc0010017, 1ull << 11, false, "IORRMask0"},
		{0xc001001a, 0x800000, false, "TOP_MEM"},
		{0xc001001d, 0x800000, false, "TOP_MEM2"},
		{0xc0010020, 0x1000, false, "the microcode loader"},
		{0xc0010111, 0x10000, false, "SMM_BASE"},
		{0xc0010112, 0x20000, false, "SMM_ADDR"},
		{0xc0010113, 1, false, "SMM_MASK"},
		{0x200, 0x1000, true, "MTRR base 0"},
		{0x201, 0x800, true, "MTRR mask 0"},
		{0x250, 0x6, true, "the fixed MTRR of low memory"},
		{0x26f, 0x6, true, "the fixed MTRR of the BIOS"},
		{0x2ff, 0x800, true, "MTRR default type"},
	};

	if (!boot_has_paravisor()) {
		tap_skip("the machine's registers cannot be changed", "not under a paravisor");
		return;
	}
	for (uint32_t i = 0; i < sizeof(registers) / sizeof(registers[0]); i++) {
		/* One processor alone cannot tell a private copy from the register. */
		if (registers[i].private_allowed && cpu_count() == 1)
			continue;
		machine_register_test(registers[i].msr, registers[i].flip,
			registers[i].private_allowed, registers[i].name);
	}
}

static void tsc_read_run(void *argument)
{
	*(uint64_t *)argument = tsc_read();
}

/* Far ahead, by a day or so. Only this processor may ever notice, and it is put back. */
static void tsc_test(void)
{
	static const uint32_t msrs[] = {0x10, 0x3b}; /* TSC, TSC_ADJUST */
	const uint64_t jump = 1ull << 48;
	bool private = true;

	for (uint32_t i = 0; i < 2 && cpu_count() > 1; i++) {
		uint64_t value = 0, there = 0, before = tsc_read();

		if (msr_read_catch(msrs[i], &value) != TRAP_NONE)
			continue;
		if (msr_write_catch(msrs[i], value + jump) != TRAP_NONE)
			continue;
		cpu_call_start(&cpus[1], tsc_read_run, &there);
		for (uint64_t n = 0; n < 1000000000 && atomic_load(&cpus[1].state) != CPU_IDLE; n++)
			cpu_relax();
		private &= there - before < jump / 2;
		msr_write_catch(msrs[i], i ? value : tsc_read() - (tsc_read() > jump ? jump : 0));
	}
	tap_check(private, "writing the TSC moves no other processor's");
}

/* --- the APIC --------------------------------------------------------------------------------- */

static void apic_base_test(void)
{
	uint64_t base = msr_read(MSR_APIC_BASE);
	uint32_t id = apic_read(APIC_ID);

	if (!boot_has_paravisor()) {
		tap_skip("the APIC stays where it is", "not under a paravisor");
		return;
	}
	tap_equal((uint64_t)msr_write_catch(MSR_APIC_BASE, base + 0x1000), TRAP_GP,
		"moving the APIC is #GP");
	tap_equal(
		(uint64_t)msr_write_catch(MSR_APIC_BASE, (base & 0xfff) | (uint64_t)control_block),
		TRAP_GP, "moving the APIC over RAM is #GP");
	tap_equal((uint64_t)msr_write_catch(MSR_APIC_BASE, base & ~(uint64_t)APIC_BASE_ENABLE),
		TRAP_GP, "disabling the APIC is #GP");
	tap_check(msr_read(MSR_APIC_BASE) == base && apic_read(APIC_ID) == id,
		"the APIC is still there");
}

/* Local interrupts whose delivery mode is SMI or INIT. */
static void lvt_test(void)
{
	static const struct {
		uint32_t offset;
		const char *name;
	} entries[] = {
		{APIC_LVT_TIMER, "timer"},
		{APIC_LVT_LINT0, "LINT0"},
		{APIC_LVT_LINT1, "LINT1"},
		{APIC_LVT_PERF, "performance counter"},
		{APIC_LVT_THERMAL, "thermal"},
		{APIC_LVT_ERROR, "error"},
	};
	static const uint32_t modes[] = {ICR_SMI, ICR_INIT};
	uint32_t nmis = vitals_nmis();

	if (!boot_has_paravisor()) {
		tap_skip("local interrupts cannot be SMI or INIT", "not under a paravisor");
		return;
	}
	for (uint32_t i = 0; i < 6; i++) {
		bool harmless = true;

		for (uint32_t m = 0; m < 2; m++) {
			uint32_t now;

			apic_write(entries[i].offset, modes[m] | 0x40);
			now = apic_read(entries[i].offset);
			harmless &= (now & LVT_MASKED) || (now & 0x700) != modes[m];
			if (entries[i].offset == APIC_LVT_TIMER)
				apic_write(APIC_TIMER_START, 1000);
			clock_delay(1000);
			apic_write(entries[i].offset, LVT_MASKED);
		}
		tap_check(harmless, "the %s interrupt cannot be SMI or INIT", entries[i].name);
	}
	tap_check(vitals_untouched(nmis), "and nothing came of it");
}

/*
 * Writes next to the APIC's registers: QEMU takes those for interrupt messages from a device, the
 * first sixteen bytes of the page included.
 */
static void message_write_run(void *argument)
{
	const struct access *access = argument;

	mmio_write32(access->address, (uint32_t)access->value);
}

static void messages_test(void)
{
	static const struct {
		uint32_t mode;
		const char *name;
	} modes[] = {{ICR_NMI, "NMI"}, {ICR_INIT, "INIT"}, {ICR_SMI, "SMI"}};

	if (!boot_has_paravisor()) {
		tap_skip("writes to the interrupt message range do nothing",
			"not under a paravisor");
		return;
	}
	for (uint32_t m = 0; m < 3; m++) {
		uint32_t nmis = vitals_nmis();

		for (uint32_t i = 0; i < cpu_count(); i++) {
			struct access access = {
				APIC_BASE_ADDRESS | cpus[i].apic_id << 12, modes[m].mode};

			/* An INIT to oneself would end the test, not tell its result. */
			if (i == 0 && modes[m].mode == ICR_INIT)
				continue;
			trap_catch(message_write_run, &access);
			access.address += 4;
			trap_catch(message_write_run, &access);
			/* The same in logical mode, with the redirection hint. */
			access.address = APIC_BASE_ADDRESS | 1u << (12 + (i & 7)) | 0xc;
			if (i)
				trap_catch(message_write_run, &access);
		}
		tap_check(vitals_untouched(nmis),
			"a message write of %s by the processor does nothing", modes[m].name);
	}
}

/* Everybody else may be stopped: that is the guest's own business, and it can start them again. */
static void init_others_test(void)
{
	bool stopped = true;

	if (cpu_count() < 2)
		return;
	apic_ipi_send(0, ICR_OTHERS | ICR_INIT | ICR_ASSERT);
	clock_delay(20000);
	for (uint32_t i = 1; i < cpu_count(); i++) {
		atomic_store(&cpus[i].state, CPU_WORKING);
		apic_ipi_send(cpus[i].apic_id, ICR_ASSERT | VECTOR_WAKE);
		stopped &= !cpu_call_done(&cpus[i], 2000);
	}
	tap_check(stopped, "INIT to all but self stops all but self");
	for (uint32_t i = 1; i < cpu_count(); i++)
		stopped &= cpu_start(&cpus[i]);
	tap_check(stopped, "and they can be started again");
	vitals_start_again();
}

/* An SMI, or a mode that does not exist, sent through the ICR. */
static void icr_modes_test(void)
{
	static const struct {
		uint32_t mode;
		const char *name;
	} modes[] = {{ICR_SMI, "SMI"}, {3u << 8, "the reserved mode"}, {ICR_EXTINT, "ExtINT"}};

	if (!boot_has_paravisor()) {
		tap_skip("IPIs of unusual modes do no harm", "firmware may not survive them");
		return;
	}
	for (uint32_t m = 0; m < 3; m++) {
		uint32_t nmis = vitals_nmis();

		apic_ipi_send(0, ICR_OTHERS | ICR_ASSERT | modes[m].mode);
		if (modes[m].mode != ICR_EXTINT)
			apic_ipi_send(cpu_self()->apic_id, ICR_ASSERT | modes[m].mode);
		tap_check(vitals_untouched(nmis), "an IPI of %s does no harm", modes[m].name);
	}
}

void kernel_main(void)
{
	vitals_start();
	tap_note("%s, %u processors",
		boot_has_paravisor() ? "under a paravisor" : "on the bare machine", cpu_count());
	svm_instructions_test();
	svm_registers_test();
	machine_registers_test();
	tsc_test();
	apic_base_test();
	lvt_test();
	messages_test();
	icr_modes_test();
	init_others_test();
	hidden_pages_test();
	hidden_ways_test();
	hidden_edge_test();
	hidden_tables_test();
	vitals_check();
}
