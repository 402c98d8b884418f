/*
 * The wakeup mailbox as ACPI describes it (6.6, section 5.2.12.19), every way in which a guest may
 * get it wrong, and processors that come and go through it. Only a paravisor offers one; on a
 * machine of one processor there is none to offer.
 *
 * The last lines say how many starts and refusals there were: Parapet's counters must agree.
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
#include "wake.h"

#define PAGE	 4096ull
#define LARGE	 0x200000ull
#define MIB	 0x100000ull
#define FOUR_GIB 0x100000000ull

#define QUIET_US 10000u /* that long nothing happens: nothing will */
#define CYCLES	 100u /* unless the command line says cycles=N */
#define RACES	 20u

#define PTE_PRESENT  0x001ull
#define PTE_WRITE    0x002ull
#define PTE_ACCESSED 0x020ull
#define PTE_DIRTY    0x040ull
#define PTE_LARGE    0x080ull
#define PTE_ADDRESS  0x000ffffffffff000ull
#define PTE_NX	     (1ull << 63)

static struct acpi_wakeup wakeup;
static uint32_t cpu_total;
static struct cpu *victim; /* the last processor: most tests are done to it */
static uint32_t refusals; /* that Parapet must have counted, at least */

/* --- is everybody as well as before? ---------------------------------------------------------- */

static uint32_t starts_known[CPU_COUNT_MAX];

static uint32_t starts_get(const struct cpu *cpu)
{
	return atomic_load_explicit(&cpu->starts, memory_order_acquire);
}

static bool is_idle(const struct cpu *cpu)
{
	return atomic_load_explicit(&cpu->state, memory_order_acquire) == CPU_IDLE;
}

static void starts_remember(void)
{
	for (uint32_t i = 0; i < cpu_total; i++)
		starts_known[i] = starts_get(&cpus[i]);
}

static uint8_t pattern_byte(uint32_t offset)
{
	return (uint8_t)(offset * 37 + 11);
}

static void pattern_write(void)
{
	for (uint32_t i = 0; i < sizeof(wake_mailbox()->os); i++)
		wake_mailbox()->os[i] = pattern_byte(i);
}

static bool pattern_holds(void)
{
	for (uint32_t i = 0; i < sizeof(wake_mailbox()->os); i++)
		if (wake_mailbox()->os[i] != pattern_byte(i))
			return false;
	return true;
}

static void nothing_run(void *argument)
{
	(void)argument;
}

/* Nobody has come up since starts_remember, whoever was there answers, the kernel's half is whole. */
static bool undisturbed(void)
{
	bool right = true;

	clock_delay(QUIET_US);
	for (uint32_t i = 1; i < cpu_total; i++) {
		if (starts_get(&cpus[i]) != starts_known[i]) {
			tap_note("processor %u has started", i);
			right = false;
		}
		if (is_idle(&cpus[i])) {
			cpu_call_start(&cpus[i], nothing_run, NULL);
			right &= cpu_call_done(&cpus[i], WAKE_LIMIT_US);
		}
	}
	return pattern_holds() && right;
}

static bool victim_offline(void)
{
	wake_offline_start(victim);
	return wake_test(victim, WAKE_LIMIT_US);
}

/* --- the tables ------------------------------------------------------------------------------- */

static uint32_t type_find(uint64_t page, uint64_t bytes)
{
	for (uint32_t i = 0; i < boot_memory_count(); i++) {
		const struct memory_range *range = boot_memory_get(i);

		if (range->start <= page && page + bytes <= range->end)
			return range->type;
	}
	return 0;
}

static bool firmware_half_is_readable(void)
{
	for (uint32_t i = 0; i < sizeof(wake_mailbox()->firmware); i++)
		(void)wake_mailbox()->firmware[i];
	return true;
}

static void tables_test(void)
{
	tap_check(wakeup.sums_right, "RSDP, root table and MADT have the right sums");
	tap_equal(wakeup.length, 24, "the structure has 24 bytes");
	tap_equal(wakeup.version, 1, "its version is 1");
	tap_equal(wakeup.processors, cpu_total, "the MADT still names all processors");
	tap_check(wakeup.mailbox % PAGE == 0 && wakeup.mailbox < FOUR_GIB,
		"the mailbox is on a page boundary");
	tap_equal(type_find(wakeup.mailbox, PAGE), MEMORY_NVS, "in NVS memory");
	tap_equal(type_find(wakeup.reset_vector, PAGE), MEMORY_RESERVED,
		"the reset vector is in reserved memory");
	tap_check(firmware_half_is_readable(), "the firmware's half can be read");
	tap_equal(atomic_load(&wake_mailbox()->command), WAKE_COMMAND_NONE,
		"no command to begin with");
}

/* --- refusals --------------------------------------------------------------------------------- */

/* A command that must have no effect; `taken` says whether it is cleared all the same. */
static void refused(const char *name, uint32_t id, uint64_t vector, uint16_t command, bool taken)
{
	volatile struct wake_mailbox *mailbox = wake_mailbox();
	bool right;

	starts_remember();
	wake_command_write(id, vector, command);
	right = wake_command_taken(taken ? WAKE_LIMIT_US : QUIET_US) == taken;
	right &= undisturbed();
	/* Nothing but the command itself is ever cleared. */
	right &= mailbox->apic_id == id && mailbox->vector == vector && !mailbox->reserved;
	right &= taken || atomic_load(&mailbox->command) == command;
	tap_check(right, "%s: %s", name, taken ? "taken, no effect" : "left in place, no effect");
}

static void refused_counted(
	const char *name, uint32_t id, uint64_t vector, uint16_t command, bool taken)
{
	refused(name, id, vector, command, taken);
	refusals++;
}

/* Still to be had after what was refused. */
static void ready_check(const char *after)
{
	starts_remember();
	tap_check(wake_test(victim, WAKE_LIMIT_US) && undisturbed(),
		"a parked processor is ready, after %s", after);
}

static uint64_t hidden_find(void)
{
	uint64_t best = 0, bytes = 0;

	/* Parapet's own memory is the largest piece that is reserved below the end of the RAM. */
	for (uint32_t i = 0; i < boot_memory_count(); i++) {
		const struct memory_range *range = boot_memory_get(i);

		if (range->type == MEMORY_RESERVED && range->start >= MIB &&
			range->end <= wakeup.mailbox && range->end - range->start > bytes) {
			best = range->start;
			bytes = range->end - range->start;
		}
	}
	return best;
}

static void commands_test(void)
{
	uint64_t good = wake_vector_high();
	uint32_t id = victim->apic_id;

	refused_counted("command 3", id, good, 3, false);
	refused_counted("command 0x8001", id, good, 0x8001, false);
	refused_counted("command 0xffff", id, good, 0xffff, false);
	refused("command 0", id, good, WAKE_COMMAND_NONE, true);
	refused_counted("id 0xfe", 0xfe, good, WAKE_COMMAND_WAKEUP, false);
	refused_counted("id of all ones", 0xffffffff, good, WAKE_COMMAND_WAKEUP, false);
	refused_counted(
		"an id right in its low byte only", id | 0x100, good, WAKE_COMMAND_WAKEUP, false);
	refused_counted("test of id 0xfe", 0xfe, 0, WAKE_COMMAND_TEST, false);
	refused_counted(
		"id of the first processor", cpus[0].apic_id, good, WAKE_COMMAND_WAKEUP, true);
	refused("test of a processor that runs", cpus[0].apic_id, 0, WAKE_COMMAND_TEST, false);
	ready_check("bad commands");
}

static void vectors_test(void)
{
	uint64_t hidden = hidden_find();
	const struct {
		const char *name;
		uint64_t vector;
	} bad[] = {
		{"a vector in the mailbox, kernel's half", wakeup.mailbox + 64},
		{"a vector in the mailbox, firmware's half", wakeup.mailbox + 2048},
		{"a vector at the reset vector", wakeup.reset_vector},
		{"a vector in the initial tables", wakeup.reset_vector - PAGE},
		{"a vector in the ACPI tables", wakeup.rsdp},
		{"a vector in Parapet's memory", hidden},
		{"a vector in the middle of Parapet's memory", hidden + MIB},
		{"a vector in the local APIC", APIC_BASE_ADDRESS},
		{"a vector in the I/O APIC", 0xfec00000},
		{"a vector in the HPET", 0xfed00000},
		{"a vector in video memory", 0xa0000},
		{"a vector in the firmware's ROM", 0xffff0},
		{"a vector in nothing", 0xc0000000},
		{"a vector at the last byte below 4 GiB", FOUR_GIB - 1},
		{"a vector at 4 GiB", FOUR_GIB},
		{"a vector in RAM but for bit 32", FOUR_GIB | wake_vector_high()},
		{"a vector in RAM but for bit 51", 1ull << 51 | wake_vector_high()},
		{"a vector in RAM but for bit 52", 1ull << 52 | wake_vector_high()},
		{"a vector in RAM but for bit 63", 1ull << 63 | wake_vector_high()},
		{"a vector of all ones", ~0ull},
	};

	tap_check(hidden != 0, "Parapet's memory is reserved in the memory map");
	for (uint32_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refused_counted(
			bad[i].name, victim->apic_id, bad[i].vector, WAKE_COMMAND_WAKEUP, true);
	ready_check("bad vectors");
}

/* --- the first start, and what a processor is started with ------------------------------------ */

/* All are asked for before any is waited for. */
static void start_test(void)
{
	uint64_t begin = tsc_read(), asked;
	bool right = true;

	starts_remember();
	for (uint32_t i = 1; i < cpu_total; i++)
		wake_expect(&cpus[i]);
	for (uint32_t i = 1; i < cpu_total; i++) {
		wake_command_write(cpus[i].apic_id, wake_vector_high(), WAKE_COMMAND_WAKEUP);
		right &= wake_command_taken(WAKE_LIMIT_US);
	}
	asked = tsc_read();
	for (uint32_t i = 1; i < cpu_total; i++)
		right &= cpu_idle_wait(&cpus[i], WAKE_LIMIT_US) &&
			starts_get(&cpus[i]) == starts_known[i] + 1;
	tap_note("asked for %u in %lu us, all there after %lu us", cpu_total - 1,
		(asked - begin) / (clock_frequency() / 1000000 + 1),
		(tsc_read() - begin) / (clock_frequency() / 1000000 + 1));
	if (!tap_check(right, "all processors start, asked for without waiting"))
		tap_bail("without processors there is nothing more to test");
}

static atomic_bool spin_over;

static void spin_run(void *argument)
{
	(void)argument;
	while (!atomic_load_explicit(&spin_over, memory_order_acquire))
		cpu_relax();
}

/* One store for each request, one after the other: the next may come before the last has started. */
static bool burst(uint32_t first)
{
	volatile uint64_t *head = (volatile uint64_t *)wakeup.mailbox;
	bool right = true;

	starts_remember();
	for (uint32_t i = first; i < cpu_total; i++)
		wake_expect(&cpus[i]);
	wake_mailbox()->vector = wake_vector_high();
	for (uint32_t i = first; i < cpu_total; i++) {
		*head = (uint64_t)cpus[i].apic_id << 32 | WAKE_COMMAND_WAKEUP;
		right &= wake_command_taken(WAKE_LIMIT_US);
	}
	for (uint32_t i = first; i < cpu_total; i++)
		right &= cpu_idle_wait(&cpus[i], WAKE_LIMIT_US) &&
			starts_get(&cpus[i]) == starts_known[i] + 1;
	return right;
}

/*
 * For a trace that shows starts side by side. A start is quicker than the next request, unless the
 * runner's processors have other work: half of the machine gives them some.
 */
static void burst_test(void)
{
	uint32_t half = cpu_total / 2;
	bool right = burst(1);

	for (uint32_t i = 1; i < half; i++)
		cpu_call_start(&cpus[i], spin_run, NULL);
	for (uint32_t round = 0; round < RACES && right; round++) {
		for (uint32_t i = half; i < cpu_total; i++) {
			wake_offline_start(&cpus[i]);
			right &= wake_test(&cpus[i], WAKE_LIMIT_US);
		}
		right &= burst(half);
	}
	atomic_store_explicit(&spin_over, true, memory_order_release);
	for (uint32_t i = 1; i < half; i++)
		cpu_call_wait(&cpus[i]);
	tap_check(right, "all start, each asked for by one store, while others work");
}

static void identity_run(void *argument)
{
	*(bool *)argument = apic_read(APIC_ID) >> 24 == cpu_self()->apic_id &&
		cpuid_get(1, 0).ebx >> 24 == cpu_self()->apic_id;
}

static bool state_is_right(const struct wake_state *state)
{
	return (state->cr0 & 0xe0010001) == 0x80010001 && /* PG, WP, PE; caches on */
		state->cr4 == CR4_PAE && state->efer == 0xd00 && /* NXE, LMA, LME */
		state->rflags == 2 && state->cs && state->ss == state->ds &&
		state->es == state->ds && state->fs == state->ds && state->gs == state->ds &&
		!state->ldtr && !(state->dr7 & 0xff);
}

static void state_test(void)
{
	bool right = true, itself = true;

	for (uint32_t i = 1; i < cpu_total; i++) {
		const struct wake_state *state = &wake_states[cpus[i].apic_id];
		bool knows = false;

		if (!state_is_right(state)) {
			tap_note("cr0 %lx cr4 %lx efer %lx rflags %lx cs %lx ss %lx ds %lx dr7 %lx",
				state->cr0, state->cr4, state->efer, state->rflags, state->cs,
				state->ss, state->ds, state->dr7);
			right = false;
		}
		cpu_call(&cpus[i], identity_run, &knows);
		itself &= knows;
	}
	tap_check(right, "64-bit mode, paging, WP, NXE, no interrupts, flat selectors");
	tap_check(itself, "the processor that was named is the one that starts");
}

/* What the walk of an address through the initial tables ends with; 0 when it is not mapped. */
static uint64_t leaf_get(uint64_t root, uint64_t address)
{
	uint64_t table = root & PTE_ADDRESS;
	uint64_t rights = PTE_WRITE, nx = 0;

	for (uint32_t shift = 39;; shift -= 9) {
		uint64_t entry = ((const volatile uint64_t *)table)[address >> shift & 511];

		if (!(entry & PTE_PRESENT))
			return 0;
		rights &= entry;
		nx |= entry & PTE_NX;
		if (shift == 12 || (entry & PTE_LARGE)) {
			uint64_t low = (1ull << shift) - 1;

			return ((entry & PTE_ADDRESS & ~low) | (address & low & PTE_ADDRESS)) |
				(entry & (PTE_PRESENT | PTE_ACCESSED | PTE_DIRTY)) | rights | nx;
		}
		table = entry & PTE_ADDRESS;
	}
}

static void initial_tables_test(void)
{
	uint64_t root = wake_states[victim->apic_id].cr3;
	bool identity = true, executable = true, writable = true, marked = true, bounded = true;

	for (uint64_t page = 0; page < FOUR_GIB; page += page < LARGE ? PAGE : LARGE) {
		uint64_t leaf = leaf_get(root, page);
		bool ram = page < MIB && boot_memory_is_ram(page, page + PAGE);

		identity &= (leaf & PTE_PRESENT) && (leaf & PTE_ADDRESS) == page;
		executable &= !(leaf & PTE_NX);
		writable &= !(leaf & PTE_WRITE) == !ram;
		marked &= (leaf & PTE_ACCESSED) && (leaf & PTE_DIRTY);
	}
	for (uint64_t address = FOUR_GIB; address < 1ull << 39; address += 1ull << 30)
		bounded &= !leaf_get(root, address);
	for (uint64_t address = 1ull << 39; address < 1ull << 48; address += 1ull << 39)
		bounded &= !leaf_get(root, address);
	tap_equal(type_find(root & PTE_ADDRESS, PAGE), MEMORY_RESERVED,
		"the initial tables are in reserved memory");
	tap_check(identity, "they map the first 4 GiB one to one");
	tap_check(bounded, "and nothing else");
	tap_check(executable, "all of it executable");
	tap_check(writable, "writable is usable memory below 1 MiB, nothing else");
	tap_check(marked, "accessed and dirty are set beforehand");
}

static void low_vector_test(void)
{
	uint32_t count = wake_low_count();
	bool right = victim_offline();

	right &= wake_cpu(victim, wake_vector_low());
	tap_check(right && wake_low_count() == count + 1,
		"a trampoline below 1 MiB can write to itself");
}

/* --- who commands whom ------------------------------------------------------------------------ */

static void wake_run(void *argument)
{
	*(bool *)argument = wake_cpu(victim, wake_vector_high());
}

static void offline_run(void *argument)
{
	*(bool *)argument = wake_test(victim, WAKE_LIMIT_US);
}

static void other_sender_test(void)
{
	bool tested = false, woken = false;

	wake_offline_start(victim);
	cpu_call(&cpus[1], offline_run, &tested);
	cpu_call(&cpus[1], wake_run, &woken);
	tap_check(tested && woken, "a processor that was started so starts another");
}

static void running_test(void)
{
	for (uint32_t i = 0; i < cpu_total; i += cpu_total - 1)
		refused_counted(i ? "id of a running processor" : "id of the first, once more",
			cpus[i].apic_id, wake_vector_high(), WAKE_COMMAND_WAKEUP, true);
	/* A test of somebody who runs waits for him; another command takes its place. */
	starts_remember();
	wake_command_write(victim->apic_id, 0, WAKE_COMMAND_TEST);
	tap_check(!wake_command_taken(QUIET_US) && undisturbed(),
		"the test of a running processor is not answered");
	wake_offline_start(victim);
	tap_check(wake_command_taken(WAKE_LIMIT_US), "but when it has gone offline");
	tap_check(wake_cpu(victim, wake_vector_high()), "and it starts again");
}

/* --- how a command may be written ------------------------------------------------------------- */

/* Another mapping of the mailbox, behind a page of RAM: 4 GiB and up. */
#define ALIAS (FOUR_GIB)

extern uint64_t page_tables[];
static _Alignas(4096) uint64_t alias_directory[512], alias_table[512];
static _Alignas(4096) uint8_t alias_ram[4096], image[4096];

static void alias_map(void)
{
	alias_table[0] = (uint64_t)alias_ram | PTE_PRESENT | PTE_WRITE;
	alias_table[1] = wakeup.mailbox | PTE_PRESENT | PTE_WRITE;
	alias_directory[0] = (uint64_t)alias_table | PTE_PRESENT | PTE_WRITE;
	page_tables[512 + 4] = (uint64_t)alias_directory | PTE_PRESENT | PTE_WRITE;
	cr3_write(cr3_read());
}

static void store(uint64_t address, uint64_t value, uint32_t bytes)
{
	switch (bytes) {
	case 1:
		*(volatile uint8_t *)address = (uint8_t)value;
		break;
	case 2:
		*(volatile uint16_t *)address = (uint16_t)value;
		break;
	case 4:
		*(volatile uint32_t *)address = (uint32_t)value;
		break;
	default:
		*(volatile uint64_t *)address = value;
		break;
	}
}

/* In pieces, the last of them with the command in it. */
static void pieces_write(uint64_t base, uint32_t bytes)
{
	uint64_t head = (uint64_t)victim->apic_id << 32 | WAKE_COMMAND_WAKEUP;
	uint64_t vector = wake_vector_high();

	for (uint32_t at = 0; at < 8; at += bytes)
		store(base + 8 + at, vector >> 8 * at, bytes);
	for (uint32_t at = 8; at > 0; at -= bytes)
		store(base + at - bytes, head >> 8 * (at - bytes), bytes);
}

/* Runs a way to write a wakeup of the victim, and checks that it leads to one start. */
static void way_test(const char *name, void (*write)(uint64_t), uint64_t base)
{
	bool right = victim_offline();

	starts_remember();
	wake_expect(victim);
	write(base);
	right &= wake_command_taken(WAKE_LIMIT_US) && cpu_idle_wait(victim, WAKE_LIMIT_US);
	starts_known[victim->number]++;
	right &= undisturbed();
	tap_check(right, "%s: one start", name);
	if (!is_idle(victim) && !wake_cpu(victim, wake_vector_high()))
		tap_bail("the processor does not come back");
}

static void bytes_write(uint64_t base)
{
	pieces_write(base, 1);
}

static void words_write(uint64_t base)
{
	pieces_write(base, 2);
}

static void dwords_write(uint64_t base)
{
	pieces_write(base, 4);
}

static void qwords_write(uint64_t base)
{
	pieces_write(base, 8);
}

static void fields_write(uint64_t base)
{
	volatile struct wake_mailbox *mailbox = (volatile struct wake_mailbox *)base;

	mailbox->apic_id = victim->apic_id;
	mailbox->vector = wake_vector_high();
}

static void exchange_write(uint64_t base)
{
	uint16_t command = WAKE_COMMAND_WAKEUP;

	fields_write(base);
	__asm__ volatile("xchgw %0, (%1)" : "+r"(command) : "r"(base) : "memory");
}

static void compare_write(uint64_t base)
{
	fields_write(base);
	__asm__ volatile("lock cmpxchgw %1, (%0)"
			 :
			 : "r"(base), "r"((uint16_t)WAKE_COMMAND_WAKEUP), "a"((uint16_t)0)
			 : "memory", "cc");
}

static void bit_write(uint64_t base)
{
	fields_write(base);
	__asm__ volatile("lock btsl $0, (%0)" : : "r"(base) : "memory", "cc");
}

/* The whole page in one instruction; the vector must be there before the command comes. */
static void move_write(uint64_t base)
{
	void *to = (void *)base;
	const void *from = image;
	uint64_t count = PAGE / 8;

	for (uint32_t i = 0; i < PAGE; i++)
		image[i] = *(const volatile uint8_t *)(base + i);
	fields_write((uint64_t)image);
	fields_write(base);
	image[0] = WAKE_COMMAND_WAKEUP;
	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

/* Downwards, so that the command comes last. */
static void fill_write(uint64_t base)
{
	void *to = (void *)(base + 1);
	uint64_t count = 1;

	fields_write(base);
	__asm__ volatile("std; rep stosb; sub $0, %0; mov $1, %1; movb $1, %%al; rep stosb; cld"
			 : "+D"(to), "+c"(count)
			 : "a"(0)
			 : "memory", "cc");
}

/* The last four bytes of one page and the first four of the mailbox in one store. */
static void straddle_write(uint64_t base)
{
	fields_write(base);
	*(volatile uint64_t *)(base - 4) = (uint64_t)WAKE_COMMAND_WAKEUP << 32 | 0x12345678;
}

static void ways_test(void)
{
	uint64_t base = wakeup.mailbox;

	way_test("a byte at a time", bytes_write, base);
	way_test("two bytes at a time", words_write, base);
	way_test("four bytes at a time", dwords_write, base);
	way_test("eight bytes at a time", qwords_write, base);
	way_test("XCHG", exchange_write, base);
	way_test("LOCK CMPXCHG", compare_write, base);
	way_test("LOCK BTS", bit_write, base);
	way_test("REP STOSB", fill_write, base);
	way_test("REP MOVSQ over the whole page", move_write, base);
	way_test("through another mapping", qwords_write, ALIAS + PAGE);
	way_test("a store across the page's start", straddle_write, ALIAS + PAGE);
	tap_equal(*(uint32_t *)(alias_ram + PAGE - 4), 0x12345678,
		"that store's other half is where it belongs");
}

static void order_test(void)
{
	volatile struct wake_mailbox *mailbox = wake_mailbox();
	bool right = victim_offline();

	/* The command before its vector: the vector that is there counts, not the one to come. */
	starts_remember();
	mailbox->apic_id = victim->apic_id;
	mailbox->vector = wakeup.mailbox;
	mailbox->command = WAKE_COMMAND_WAKEUP;
	mailbox->vector = wake_vector_high();
	refusals++;
	right &= wake_command_taken(WAKE_LIMIT_US) && undisturbed();
	tap_check(right, "a vector written after its command is not used");

	/* The command before its id. */
	mailbox->apic_id = 0xfe;
	mailbox->command = WAKE_COMMAND_WAKEUP;
	mailbox->apic_id = victim->apic_id;
	refusals++;
	tap_check(!wake_command_taken(QUIET_US) && undisturbed(),
		"nor is an id written after its command");

	/* A compare-and-exchange that fails writes back what it found: the same command again. */
	mailbox->command = 3;
	*(volatile uint8_t *)(wakeup.mailbox + 1) = 0x80;
	refusals += 2;
	tap_check(mailbox->command == 0x8003 && undisturbed(),
		"half a command changes the other half's meaning only");
	/* Not a write of the command: bytes 2 and 3. */
	mailbox->command = WAKE_COMMAND_NONE;
	mailbox->reserved = WAKE_COMMAND_WAKEUP;
	tap_check(undisturbed() && mailbox->reserved == WAKE_COMMAND_WAKEUP,
		"the reserved field is no command");
	mailbox->reserved = 0;
	tap_check(wake_cpu(victim, wake_vector_high()), "and the processor starts");
}

/* --- the page as something else --------------------------------------------------------------- */

static void read_run(void *argument)
{
	(void)*(const volatile uint64_t *)argument;
}

static void write_run(void *argument)
{
	*(volatile uint64_t *)argument = 0x6b6b6b6b6b6b6b6b;
}

static void execute_run(void *argument)
{
	((void (*)(void))argument)();
}

/* The walker of a processor would set accessed and dirty bits: in the mailbox it may not. */
static void page_table_test(void)
{
	volatile uint64_t *table = (volatile uint64_t *)wakeup.mailbox;
	uint64_t entry = (uint64_t)alias_ram | PTE_PRESENT | PTE_WRITE;
	uint64_t before = table[16];
	int read, write, head;

	starts_remember();
	table[16] = entry;
	alias_directory[1] = wakeup.mailbox | PTE_PRESENT | PTE_WRITE;
	cr3_write(cr3_read());
	read = trap_catch(read_run, (void *)(ALIAS + LARGE + 16 * PAGE));
	write = trap_catch(write_run, (void *)(ALIAS + LARGE + 16 * PAGE));
	head = trap_catch(read_run, (void *)(ALIAS + LARGE));
	tap_check(read == TRAP_PF && write == TRAP_PF && head == TRAP_PF,
		"the mailbox as a page table: page faults");
	tap_equal(table[16], entry, "no accessed or dirty bit is set in it");
	table[16] = before;
	alias_directory[1] = wakeup.reset_vector | PTE_PRESENT | PTE_WRITE;
	cr3_write(cr3_read());
	tap_check(trap_catch(read_run, (void *)(ALIAS + LARGE)) == TRAP_PF,
		"the reset vector's page as a page table: a page fault");
	alias_directory[1] = 0;
	cr3_write(cr3_read());
	tap_check(undisturbed(), "neither does anything else");
}

static void protection_test(void)
{
	const volatile uint8_t *code = (const volatile uint8_t *)wakeup.reset_vector;
	uint8_t before[16];
	bool same = true;

	starts_remember();
	tap_check(trap_catch(execute_run, (void *)(wakeup.mailbox + 64)) != TRAP_NONE &&
			cpu_self()->trap.rip == wakeup.mailbox + 64,
		"the kernel's half cannot be executed");
	tap_check(trap_catch(execute_run, (void *)(wakeup.mailbox + 2048)) != TRAP_NONE &&
			cpu_self()->trap.rip == wakeup.mailbox + 2048,
		"nor can the firmware's");
	for (uint32_t i = 0; i < sizeof(before); i++)
		before[i] = code[i];
	trap_catch(write_run, (void *)wakeup.reset_vector);
	trap_catch(write_run, (void *)(wakeup.reset_vector + 8));
	for (uint32_t i = 0; i < sizeof(before); i++)
		same &= code[i] == before[i];
	tap_check(same && undisturbed(), "the code at the reset vector cannot be changed");
}

/* --- many times ------------------------------------------------------------------------------- */

static uint64_t random_state = 88172645463325252ull;

static uint32_t random_get(uint32_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 33) % below;
}

static void cycles_test(void)
{
	uint32_t low = wake_low_count(), expected = 0, bad = 0;
	uint64_t cycles = CYCLES;

	boot_number_get("cycles", &cycles);
	for (uint64_t i = 0; i < cycles && !bad; i++) {
		struct cpu *cpu = &cpus[1 + random_get(cpu_total - 1)];
		uint32_t starts = starts_get(cpu);
		bool use_low = random_get(2);
		/* The kernel's test may come before or after the processor has parked. */
		bool soon = random_get(2);

		wake_offline_start(cpu);
		if (!soon)
			clock_delay(2000);
		bad += !wake_test(cpu, WAKE_LIMIT_US);
		bad += !wake_cpu(cpu, use_low ? wake_vector_low() : wake_vector_high());
		bad += starts_get(cpu) != starts + 1 || !state_is_right(&wake_states[cpu->apic_id]);
		expected += use_low;
	}
	tap_check(!bad, "%lu times offline and online, in any order, by either vector", cycles);
	tap_equal(wake_low_count() - low, expected, "each by the vector that was asked for");
	starts_remember();
	tap_check(undisturbed(), "and everybody is well");
}

/* Some go without a test after them, as they do when a machine is switched off. */
static void no_test_test(void)
{
	bool right = true;

	starts_remember();
	for (uint32_t i = 1; i < cpu_total; i++)
		wake_offline_start(&cpus[i]);
	clock_delay(50000);
	right &= undisturbed();
	for (uint32_t i = cpu_total - 1; i > 0; i--)
		right &= wake_cpu(&cpus[i], wake_vector_high());
	tap_check(right, "all offline without a test, and back in reverse order");
}

/* --- several at a time ------------------------------------------------------------------------ */

struct sender {
	struct cpu *target;
	bool right;
};

/* Without a lock, a command may be lost under another one: ask again until it has been heard. */
static void insist_run(void *argument)
{
	struct sender *sender = argument;
	uint64_t deadline = clock_deadline(WAKE_LIMIT_US);

	while (!is_idle(sender->target) && !clock_passed(deadline)) {
		wake_command_write(
			sender->target->apic_id, wake_vector_high(), WAKE_COMMAND_WAKEUP);
		wake_command_taken(1000);
		clock_wait_for(is_idle(sender->target), 1000);
	}
	sender->right = is_idle(sender->target);
}

static bool all_offline(uint32_t first, uint32_t last)
{
	bool right = true;

	for (uint32_t i = first; i <= last; i++) {
		wake_offline_start(&cpus[i]);
		right &= wake_test(&cpus[i], WAKE_LIMIT_US);
	}
	return right;
}

/* Two processors start two others, or both the same one, each once. */
static bool race(struct cpu *one, struct cpu *two)
{
	struct sender here = {one, false}, there = {two, false};
	bool right = all_offline(one->number, two->number);

	starts_remember();
	cpu_call_start(&cpus[1], insist_run, &there);
	insist_run(&here);
	cpu_call_wait(&cpus[1]);
	starts_known[one->number]++;
	if (one != two)
		starts_known[two->number]++;
	return right && here.right && there.right && undisturbed();
}

static void race_test(void)
{
	bool right = true;

	for (uint32_t i = 0; i < RACES; i++)
		right &= race(victim, victim);
	tap_check(right, "two start the same one at the same time: one start");
	if (cpu_total < 4)
		return;
	right = true;
	for (uint32_t i = 0; i < RACES; i++)
		right &= race(&cpus[2], &cpus[3]);
	tap_check(right, "two start two others at the same time: one start each");
}

static atomic_bool storm_over;
static _Atomic uint32_t storm_writes;

/*
 * Every width and every order, but no vector that would lead astray: whatever mixture of halves is
 * in the page, it names the kernel's own entry or something that must be refused.
 */
static void storm_run(void *argument)
{
	static const uint16_t commands[] = {0, 1, 1, 2, 3, 0x101, 0xffff};
	uint64_t base = wakeup.mailbox;

	(void)argument;
	while (!atomic_load_explicit(&storm_over, memory_order_acquire)) {
		uint16_t command = commands[random_get(7)];
		uint32_t id = random_get(8) ? cpus[random_get(cpu_total)].apic_id : random_get(256);
		uint32_t low = (uint32_t)(random_get(2) ? wake_vector_low() : wake_vector_high());

		switch (random_get(8)) {
		case 0:
			store(base, command, 1);
			break;
		case 1:
			store(base, command, 2);
			break;
		case 2:
			store(base, command, 4);
			break;
		case 3:
			store(base, (uint64_t)id << 32 | command, 8);
			break;
		case 4:
			store(base + 4, id, 4);
			break;
		case 5:
			store(base + 8, low, 4);
			break;
		case 6:
			store(base + 12, random_get(2), 1 + 3 * random_get(2));
			break;
		case 7:
			store(base + 8, (uint64_t)random_get(2) << 32 | low, 8);
			break;
		}
		atomic_fetch_add_explicit(&storm_writes, 1, memory_order_relaxed);
	}
}

/* The others come and go meanwhile, by the storm's commands or by proper ones. */
static void storm_test(void)
{
	uint64_t deadline = clock_deadline(2000000);
	uint32_t rounds = 0;
	bool right = true;

	atomic_store(&storm_over, false);
	/* Its high half may be left over from another test. */
	wake_mailbox()->vector = wake_vector_high();
	cpu_call_start(&cpus[1], storm_run, NULL);
	while (!clock_passed(deadline) && right) {
		struct cpu *cpu = &cpus[2 + random_get(cpu_total - 2)];
		struct sender sender = {cpu, false};

		wake_offline_start(cpu);
		clock_delay(random_get(3000));
		insist_run(&sender);
		right = sender.right;
		rounds++;
	}
	atomic_store_explicit(&storm_over, true, memory_order_release);
	cpu_call_wait(&cpus[1]);
	tap_note("%u writes of the storm, %u rounds", atomic_load(&storm_writes), rounds);
	tap_check(right,
		"somebody else writes into the page at random: every start comes in the end");
	starts_remember();
	tap_check(undisturbed(), "nothing else is hurt");
	right = all_offline(2, cpu_total - 1);
	for (uint32_t i = 2; i < cpu_total; i++)
		right &= wake_cpu(&cpus[i], wake_vector_high());
	tap_check(right, "and the mailbox is as good as before");
}

/* --- the first processor, and the old way of starting ----------------------------------------- */

static void watch_run(void *argument)
{
	bool *right = argument;

	*right = wake_test(&cpus[0], WAKE_LIMIT_US) && wake_cpu(&cpus[0], wake_vector_low());
	cpu_call_start(&cpus[0], wake_self_return, NULL);
}

static void first_offline_test(void)
{
	bool right = false;

	cpu_call_start(&cpus[1], watch_run, &right);
	wake_self_offline();
	cpu_call_wait(&cpus[1]);
	tap_check(right && state_is_right(&wake_states[cpus[0].apic_id]),
		"the first processor goes offline and is brought back by another");
	starts_remember();
	tap_check(undisturbed(), "and everybody is well");
}

/* A kernel may mix the two: whoever runs is not to be woken, and whoever left is. */
static void sipi_test(void)
{
	uint32_t starts = starts_get(victim);
	bool right = cpu_start(victim);

	tap_check(right && starts_get(victim) == starts + 1,
		"INIT and SIPI restart a processor that the mailbox has started");
	refused_counted("id of a processor that SIPI has started", victim->apic_id,
		wake_vector_high(), WAKE_COMMAND_WAKEUP, true);
	tap_check(victim_offline(), "it goes offline through the reset vector");
	clock_delay(QUIET_US);
	tap_check(wake_cpu(victim, wake_vector_high()), "and comes back through the mailbox");
	right = victim_offline();
	right &= cpu_start(victim);
	tap_check(right, "one that is offline answers INIT and SIPI too");
	refused_counted("id of a processor that SIPI has started from there", victim->apic_id,
		wake_vector_high(), WAKE_COMMAND_WAKEUP, true);
	starts = starts_get(victim);
	right = victim_offline();
	clock_delay(QUIET_US);
	right &= starts_get(victim) == starts;
	tap_check(right, "after that it stays offline until it is woken");
	tap_check(wake_cpu(victim, wake_vector_high()), "and is woken");
}

/* Before anybody was ever started by the mailbox. */
static void sipi_first_test(void)
{
	bool right = cpu_start(victim);

	tap_check(right, "a kernel that does not know the mailbox starts a processor by SIPI");
	refused_counted("id of a processor that only SIPI has started", victim->apic_id,
		wake_vector_high(), WAKE_COMMAND_WAKEUP, true);
	tap_check(victim_offline(), "the reset vector takes it as well");
	starts_remember();
	tap_check(undisturbed(), "and keeps it");
}

/* --- locked instructions ---------------------------------------------------------------------- */

#define LOCKED_ROUNDS 200u

static void locked_run(void *argument)
{
	for (uint32_t i = 0; i < LOCKED_ROUNDS; i++)
		__asm__ volatile("lock incl (%0)" : : "r"(argument) : "memory", "cc");
}

/* A kernel may keep a lock in its half. */
static void locked_test(void)
{
	volatile uint32_t *word = (volatile uint32_t *)&wake_mailbox()->os[1000];
	uint32_t before = *word;

	*word = 0;
	for (uint32_t i = 1; i < cpu_total; i++)
		cpu_call_start(&cpus[i], locked_run, (void *)word);
	locked_run((void *)word);
	for (uint32_t i = 1; i < cpu_total; i++)
		cpu_call_wait(&cpus[i]);
	tap_equal(*word, LOCKED_ROUNDS * cpu_total, "locked instructions are atomic in the page");
	*word = before;
}

void kernel_main(void)
{
	uint32_t starts = 0;
	uint64_t seed;

	cpu_total = cpu_all_find();
	tap_note("%s, %u processors",
		boot_has_paravisor() ? "under a paravisor" : "on the bare machine", cpu_total);
	if (!wake_find(&wakeup)) {
		tap_equal(cpu_total, 1, "no mailbox, and nobody to start");
		return;
	}
	victim = &cpus[cpu_total - 1];
	if (boot_number_get("seed", &seed))
		random_state += seed;
	alias_map();
	interrupts_enable();

	/* The word "burst": nothing but that, for a trace that is easy to read. */
	if (boot_word_find("burst")) {
		burst_test();
		return;
	}
	tables_test();
	pattern_write();
	commands_test();
	vectors_test();
	sipi_first_test();
	start_test();
	state_test();
	initial_tables_test();
	low_vector_test();
	running_test();
	if (cpu_total > 2)
		other_sender_test();
	ways_test();
	order_test();
	page_table_test();
	protection_test();
	cycles_test();
	no_test_test();
	if (cpu_total > 2) {
		race_test();
		storm_test();
	}
	first_offline_test();
	sipi_test();
	locked_test();
	tap_check(pattern_holds(), "the kernel's half is what the kernel has written");
	for (uint32_t i = 0; i < cpu_total; i++)
		starts += starts_get(&cpus[i]);
	tap_note("starts %u, refusals at least %u", starts, refusals);
}
