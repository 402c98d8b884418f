/*
 * Whether permissions hold: VTL1 changes at random what VTL0 may do with pages, while VTL0 of every
 * processor, with a warm TLB and without an exit, does it. Once a change has returned, nobody may get
 * through what the new permissions forbid.
 *
 * VTL1 publishes for each page what holds: "unknown" before it asks for a change, the new permissions
 * after that has returned. An attacker looks, tries, and looks again: if the same was published both
 * times, an access that it forbids must not have happened. What is forbidden comes to VTL1 as an
 * intercept, which sends VTL0 past its tries and counts.
 *
 * ms=N for each of the two parts (1500), or flips=N in all, whatever it takes; seed=N.
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

#define PAGES	   384u
#define PAGES_FEW  96u
#define BATCH_MAX  256u
#define LIMIT_US   20000000u
#define ROUNDS_MIN 8u
#define WARM	   8u /* bursts at a page in a row: the TLB has it */

/* What is published: a number that changes each time, and the permissions; or that nobody knows. */
#define UNKNOWN		      0xffu
#define STATE(number, flags)  ((uint64_t)(number) << 8 | (flags))
#define STATE_FLAGS(state)    ((uint32_t)((state)&0xff))
#define STATE_NUMBER(state)   ((state) >> 8)
#define STATE_IS_KNOWN(state) (STATE_FLAGS(state) != UNKNOWN)

static _Alignas(4096) volatile uint8_t pages[PAGES][4096];

/* Kept apart from the pages, a line each: attackers read them all the time. */
static struct {
	_Alignas(64) _Atomic uint64_t state;
} published[PAGES];

enum attack {
	ATTACK_READ,
	ATTACK_WRITE,
	ATTACK_MODIFY, /* one locked instruction that reads and writes */
	ATTACK_EXECUTE,
	ATTACK_DEVICE, /* a device register gets it: Parapet makes the access */
	ATTACK_INPUT, /* a hypercall's input */
	ATTACK_COUNT,
};

static const char *const attack_names[] = {"reads", "writes", "locked accesses", "executions",
	"reads by Parapet for a device", "reads by Parapet of hypercall input"};
static const uint32_t attack_needs[] = {HV_MAP_READ, HV_MAP_WRITE, HV_MAP_READ | HV_MAP_WRITE,
	HV_MAP_EXECUTE, HV_MAP_READ, HV_MAP_READ};

static const uint32_t choices[] = {0, HV_MAP_READ, HV_MAP_READ | HV_MAP_WRITE,
	HV_MAP_READ | HV_MAP_EXECUTE, HV_MAP_ALL, HV_MAP_ALL};

/* What each processor did and saw; written by it alone. */
static struct attacker {
	_Alignas(64) _Atomic uint64_t rounds;
	uint64_t passed[ATTACK_COUNT]; /* completed where it was allowed */
	uint64_t stopped[ATTACK_COUNT]; /* intercepted */
	uint64_t stale[ATTACK_COUNT]; /* completed where it was forbidden */
	uint64_t lost; /* intercepted where it was allowed, and known to be */
	uint64_t seed;
} attackers[CPU_COUNT_MAX];

static _Atomic uint64_t flips, calls, wrong_results;
static uint64_t flips_wanted = ~0ull, part_ms = 1500, first_seed = 1;
static atomic_bool leave;
static uint32_t total;
static uint32_t page_count = PAGES_FEW; /* all of them where it is about many flips */

static uint32_t random(uint64_t *seed)
{
	/* Marsaglia's xorshift. */
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return (uint32_t)(*seed >> 32);
}

/* --- VTL0: attacks ---------------------------------------------------------------------------- */

/* What a burst of tries at one page came to. */
struct burst {
	uint32_t stale; /* completed where it was forbidden */
	uint32_t passed; /* completed where it was allowed */
	uint32_t stopped; /* 1: VTL1 has ended the burst */
};

/*
 * A burst: look, try, look again, eight times over without a jump. Straight code, because an emulated
 * processor takes a kick between blocks: only in the middle of one can it still be in VTL0 after a change
 * that did not wait for it has returned. RDI: the page, RSI: what is published about it, RDX: the result.
 * EAX counts what was stale, R10 what was allowed, R11 is VTL1's mark. MFENCE keeps the second look
 * behind the try.
 */
#define BURST(name, needs, access)                                                                 \
	__asm__(".text\n"                                                                          \
		"attack_" #name ":\n\t"                                                            \
		"pushq %rbx\n\t"                                                                   \
		"movq %rdx, %rbx\n\t"                                                              \
		"xorl %eax, %eax\n\t"                                                              \
		"xorl %r10d, %r10d\n\t"                                                            \
		"xorl %r11d, %r11d\n\t"                                                            \
		".rept 8\n\t"                                                                      \
		"movq (%rsi), %r8\n\t" access "\n\t"                                               \
		"mfence\n\t"                                                                       \
		"movq (%rsi), %r9\n\t"                                                             \
		"xorl %ecx, %ecx\n\t"                                                              \
		"cmpq %r8, %r9\n\t"                                                                \
		"sete %cl\n\t"                                                                     \
		"addl %ecx, %r10d\n\t"                                                             \
		"xorl %edx, %edx\n\t"                                                              \
		"testb $" #needs ", %r8b\n\t"                                                      \
		"sete %dl\n\t"                                                                     \
		"andl %ecx, %edx\n\t"                                                              \
		"addl %edx, %eax\n\t"                                                              \
		".endr\n"                                                                          \
		"attack_" #name "_end:\n\t"                                                        \
		"subl %eax, %r10d\n\t"                                                             \
		"movl %eax, (%rbx)\n\t"                                                            \
		"movl %r10d, 4(%rbx)\n\t"                                                          \
		"movl %r11d, 8(%rbx)\n\t"                                                          \
		"popq %rbx\n\t"                                                                    \
		"ret\n");                                                                          \
	void attack_##name(const volatile void *page, const void *state, struct burst *burst);     \
	extern const char attack_##name##_end[]

/* Who may write or execute may read: one bit of the permissions is enough to look at. */
BURST(read, 1, "movzbl (%rdi), %ecx");
BURST(write, 2, "movb $1, 64(%rdi)");
BURST(modify, 2, "lock incl 128(%rdi)");
BURST(execute, 4, "call *%rdi");

static const struct {
	void (*burst)(const volatile void *page, const void *state, struct burst *burst);
	const char *end;
} attacks[] = {{attack_read, attack_read_end}, {attack_write, attack_write_end},
	{attack_modify, attack_modify_end}, {attack_execute, attack_execute_end}};

/* uint64_t attack_device(const volatile void *page, uint64_t device): 0, or 1 if VTL1 has ended it. */
__asm__(".text\n"
	"attack_device:\n\t"
	"xorl %r11d, %r11d\n\t"
	"xchgq %rdi, %rsi\n\t"
	"movsl\n"
	"attack_device_end:\n\t"
	"movq %r11, %rax\n\t"
	"ret\n");
uint64_t attack_device(const volatile void *page, uint64_t device);
extern const char attack_device_end[];

/* --- VTL1: intercepts ------------------------------------------------------------------------- */

static void send_to(struct vtl_registers *lower, uint64_t rip)
{
	if (vtl_register_set(HV_VTL(0), HV_REGISTER_RIP, rip, 0) != HV_RESULT(HV_SUCCESS, 1))
		atomic_fetch_add(&wrong_results, 1);
	lower->r11 = 1;
}

/* The call that went there has left its return address on the stack. */
static void stack_drop(void)
{
	uint64_t rsp[2];

	if (vtl_register_get(HV_VTL(0), HV_REGISTER_RSP, rsp) != HV_RESULT(HV_SUCCESS, 1) ||
		vtl_register_set(HV_VTL(0), HV_REGISTER_RSP, rsp[0] + 8, 0) !=
			HV_RESULT(HV_SUCCESS, 1))
		atomic_fetch_add(&wrong_results, 1);
}

/* What the burst had looked up is still in R8: was it allowed, and is it still what is published? */
static void lost_count(const struct vtl_registers *lower, enum attack kind)
{
	const _Atomic uint64_t *state = (const _Atomic uint64_t *)lower->rsi;

	if (lower->r8 == atomic_load(state) && STATE_IS_KNOWN(lower->r8) &&
		(STATE_FLAGS(lower->r8) & attack_needs[kind]) == attack_needs[kind])
		attackers[cpu_self()->number].lost++;
}

static void intercept_handle(struct vtl_registers *lower, const struct hv_message *message)
{
	uint64_t rip = message->header.rip;
	enum attack kind = ATTACK_COUNT;

	if (rip >= (uint64_t)pages && rip < (uint64_t)pages + sizeof(pages)) {
		kind = ATTACK_EXECUTE;
		stack_drop();
	}
	for (uint32_t i = 0; i < ATTACK_EXECUTE; i++)
		if (rip > (uint64_t)attacks[i].burst && rip < (uint64_t)attacks[i].end)
			kind = (enum attack)i;
	if (rip > (uint64_t)attack_device && rip < (uint64_t)attack_device_end) {
		send_to(lower, (uint64_t)attack_device_end);
		return;
	}
	if (kind == ATTACK_COUNT)
		tap_bail("an intercept from elsewhere: rip 0x%lx, type 0x%x, address 0x%lx", rip,
			message->type, message->memory.gpa);
	lost_count(lower, kind);
	send_to(lower, (uint64_t)attacks[kind].end);
}

/* --- VTL0: attackers -------------------------------------------------------------------------- */

/* Was Parapet stopped? Whatever the page holds, it is no partition: nothing else comes of the call. */
static bool input_is_refused(uint32_t page)
{
	uint64_t result = vtl_hypercall(HV_ENABLE_PARTITION_VTL, (const void *)pages[page], NULL);

	if (result != HV_INVALID_PARTITION_ID && result != HV_INVALID_INPUT)
		atomic_fetch_add(&wrong_results, 1);
	return result == HV_INVALID_INPUT;
}

/* What Parapet does for VTL0: an exit each, so one look, one try, one look. */
static bool deputy(struct attacker *self, uint32_t page, enum attack kind)
{
	uint64_t before = atomic_load(&published[page].state);
	bool stopped = kind == ATTACK_INPUT
		? input_is_refused(page)
		: attack_device(pages[page], APIC_BASE_ADDRESS + APIC_TIMER_START) != 0;
	bool known = before == atomic_load(&published[page].state) && STATE_IS_KNOWN(before);
	bool allowed = STATE_FLAGS(before) & HV_MAP_READ;

	self->stopped[kind] += stopped;
	self->passed[kind] += known && allowed && !stopped;
	self->stale[kind] += known && !allowed && !stopped;
	self->lost += known && allowed && stopped;
	return !stopped;
}

/* True if nothing of it was stopped. */
static bool attack(struct attacker *self, uint32_t page, enum attack kind)
{
	struct burst burst;

	if (kind >= ATTACK_DEVICE)
		return deputy(self, page, kind);
	attacks[kind].burst(pages[page], &published[page].state, &burst);
	self->stale[kind] += burst.stale;
	self->passed[kind] += burst.passed;
	self->stopped[kind] += burst.stopped;
	return !burst.stopped;
}

/* A page that lets it through is tried again and again: a warm TLB is what makes a stale access. */
static void attack_some(struct attacker *self)
{
	uint32_t page = random(&self->seed) % page_count;
	enum attack kind = random(&self->seed) % ATTACK_DEVICE;
	uint32_t bursts = WARM;

	/* Parapet's own accesses are exits: few, to leave time for the others. */
	if (random(&self->seed) % 8 == 0) {
		kind = ATTACK_DEVICE + random(&self->seed) % (ATTACK_COUNT - ATTACK_DEVICE);
		bursts = 1;
	}
	while (bursts-- && attack(self, page, kind))
		;
	atomic_fetch_add_explicit(&self->rounds, 1, memory_order_relaxed);
}

static void attack_run(void *argument)
{
	struct attacker *self = &attackers[cpu_self()->number];

	(void)argument;
	while (!atomic_load_explicit(&leave, memory_order_acquire))
		attack_some(self);
}

/* --- VTL1: changes ---------------------------------------------------------------------------- */

/* Has each kind been both allowed and intercepted? On a slow computer that takes longer. */
static bool all_tried(void)
{
	for (uint32_t kind = 0; kind < ATTACK_COUNT; kind++) {
		bool passed = false, stopped = false;

		for (uint32_t i = 0; i < total; i++) {
			passed |= attackers[i].passed[kind] > 0;
			stopped |= attackers[i].stopped[kind] > 0;
		}
		if (!passed || !stopped)
			return false;
	}
	return true;
}

static bool goes_on(uint64_t rounds, uint64_t deadline)
{
	if (flips_wanted != ~0ull)
		return atomic_load(&flips) < flips_wanted;
	return rounds < ROUNDS_MIN || !clock_passed(deadline) || !all_tried();
}

/* One call: some of the pages `first`, `first` + `step`, ..., all to the same permissions. */
static void flip_some(uint64_t *seed, uint32_t first, uint32_t step)
{
	uint32_t own = (page_count - first + step - 1) / step;
	uint32_t count = 1 + random(seed) % (own < BATCH_MAX ? own : BATCH_MAX);
	uint32_t start = random(seed) % own;
	uint32_t flags = choices[random(seed) % (sizeof(choices) / sizeof(choices[0]))];
	uint64_t *input = vtl_input();

	/* Half of the calls are about one page. */
	if (random(seed) & 1)
		count = 1;
	input[0] = HV_SELF;
	input[1] = flags;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t page = first + (start + i) % own * step;
		uint64_t number = STATE_NUMBER(atomic_load(&published[page].state)) + 1;

		atomic_store(&published[page].state, STATE(number, UNKNOWN));
		input[2 + i] = (uint64_t)pages[page] >> 12;
	}
	if (vtl_hypercall(HV_MODIFY_PROTECTION | HV_REPS(count), input, NULL) !=
		HV_RESULT(HV_SUCCESS, count))
		atomic_fetch_add(&wrong_results, 1);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t page = first + (start + i) % own * step;
		uint64_t number = STATE_NUMBER(atomic_load(&published[page].state)) + 1;

		atomic_store_explicit(
			&published[page].state, STATE(number, flags), memory_order_release);
	}
	atomic_fetch_add(&flips, count);
	atomic_fetch_add(&calls, 1);
}

/* All pages by one processor, which stays in VTL1. */
static uint64_t flip_all(uint64_t deadline)
{
	for (uint64_t rounds = 0; goes_on(rounds, deadline); rounds++)
		flip_some(&attackers[cpu_self()->number].seed, 0, 1);
	return 0;
}

static void flip_all_run(void *argument)
{
	vtl_run(flip_all, *(uint64_t *)argument);
}

/* A share of the pages each; between two changes every processor attacks everybody's. */
static uint64_t flip_share(uint64_t unused)
{
	uint32_t self = cpu_self()->number;

	(void)unused;
	flip_some(&attackers[self].seed, self, total);
	return 0;
}

static void flip_share_run(void *argument)
{
	struct attacker *self = &attackers[cpu_self()->number];
	uint64_t deadline = *(uint64_t *)argument;

	for (uint64_t rounds = 0; goes_on(rounds, deadline); rounds++) {
		vtl_run(flip_share, 0);
		for (uint32_t i = 0; i < 8; i++)
			attack_some(self);
	}
}

/* --- what was seen ---------------------------------------------------------------------------- */

static void attackers_clear(void)
{
	for (uint32_t i = 0; i < total; i++) {
		uint64_t seed = attackers[i].seed;

		memset(&attackers[i], 0, sizeof(attackers[i]));
		attackers[i].seed = seed ? seed : first_seed * 0x9e3779b97f4a7c15 + i + 1;
	}
	atomic_store(&leave, false);
}

static uint64_t sum(uint32_t kind, uint64_t (*of)(const struct attacker *, uint32_t))
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < total; i++)
		value += of(&attackers[i], kind);
	return value;
}

static uint64_t passed_of(const struct attacker *attacker, uint32_t kind)
{
	return attacker->passed[kind];
}

static uint64_t stopped_of(const struct attacker *attacker, uint32_t kind)
{
	return attacker->stopped[kind];
}

static uint64_t stale_of(const struct attacker *attacker, uint32_t kind)
{
	return attacker->stale[kind];
}

static uint64_t lost_of(const struct attacker *attacker, uint32_t kind)
{
	(void)kind;
	return attacker->lost;
}

static void report(const char *name, uint64_t flips_before, uint64_t calls_before)
{
	uint64_t stale = 0, tried = 1;

	tap_note("%s: %lu flips in %lu calls", name, atomic_load(&flips) - flips_before,
		atomic_load(&calls) - calls_before);
	for (uint32_t kind = 0; kind < ATTACK_COUNT; kind++) {
		uint64_t passed = sum(kind, passed_of), stopped = sum(kind, stopped_of);

		tap_note("%s: %lu allowed, %lu intercepted, %lu STALE", attack_names[kind], passed,
			stopped, sum(kind, stale_of));
		stale += sum(kind, stale_of);
		tried &= passed && stopped;
	}
	tap_equal(stale, 0, name);
	tap_check(tried, "and each kind of access was both allowed and intercepted");
	tap_equal(sum(0, lost_of), 0, "nothing was intercepted that was allowed");
	tap_equal(atomic_load(&wrong_results), 0, "every change succeeded");
}

/* Nothing has changed for long: says who still does what, and gives up. */
static void hang_report(void)
{
	for (uint32_t i = 0; i < total; i++)
		tap_note("processor %u: state %u, %lu rounds", i,
			(uint32_t)atomic_load(&cpus[i].state), atomic_load(&attackers[i].rounds));
	for (uint32_t kind = 0; kind < ATTACK_COUNT; kind++)
		tap_note("%s: %lu stale", attack_names[kind], sum(kind, stale_of));
	tap_bail("no change returns any more after %lu", atomic_load(&flips));
}

/* Attacks on this processor until another one has come back; notices if changes stop. */
static void attack_until_idle(uint32_t cpu)
{
	uint64_t seen = atomic_load(&flips), deadline = clock_deadline(LIMIT_US);

	while (atomic_load_explicit(&cpus[cpu].state, memory_order_acquire) != CPU_IDLE) {
		for (uint32_t i = 0; i < 64; i++)
			attack_some(&attackers[0]);
		if (seen != atomic_load(&flips)) {
			seen = atomic_load(&flips);
			deadline = clock_deadline(LIMIT_US);
		} else if (clock_passed(deadline) &&
			!clock_wait_for(seen != atomic_load(&flips) ||
					atomic_load(&cpus[cpu].state) == CPU_IDLE,
				LIMIT_US / 10)) {
			hang_report();
		}
	}
}

static void one_test(void)
{
	uint64_t flips_before = atomic_load(&flips), calls_before = atomic_load(&calls);
	uint64_t deadline;

	attackers_clear();
	for (uint32_t i = 2; i < total; i++)
		cpu_call_start(&cpus[i], attack_run, NULL);
	deadline = clock_deadline(part_ms * 1000);
	cpu_call_start(&cpus[1], flip_all_run, &deadline);
	attack_until_idle(1);
	atomic_store(&leave, true);
	for (uint32_t i = 2; i < total; i++)
		cpu_call_wait(&cpus[i]);
	report("one processor changes, the others attack", flips_before, calls_before);
}

static void all_test(void)
{
	uint64_t flips_before = atomic_load(&flips), calls_before = atomic_load(&calls);
	uint64_t deadline = clock_deadline(part_ms * 1000);

	attackers_clear();
	for (uint32_t i = 1; i < total; i++)
		cpu_call_start(&cpus[i], flip_share_run, &deadline);
	flip_share_run(&deadline);
	for (uint32_t i = 1; i < total; i++)
		if (!cpu_call_done(&cpus[i], LIMIT_US))
			hang_report();
	report("every processor changes and attacks", flips_before, calls_before);
}

static void timer_off_run(void *argument)
{
	(void)argument;
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_WAKE);
}

static uint64_t protect_enable(uint64_t unused)
{
	(void)unused;
	return vtl_register_set(HV_VTL_OWN, HV_REGISTER_VSM_PARTITION_CONFIG, 1 | 0xf << 1, 0);
}

void kernel_main(void)
{
	uint64_t wanted = 0;

	if (!boot_has_paravisor()) {
		tap_note("on the bare machine: nothing to test");
		tap_skip("flips", "not under a paravisor");
		return;
	}
	if (!vtl_is_offered())
		tap_bail("VSM is not offered: vsm=on?");
	total = cpu_all_start();
	if (total < 2)
		tap_bail("one processor is not enough");
	interrupts_enable();
	tap_note("under a paravisor, %u processors", total);
	boot_number_get("ms", &part_ms);
	boot_number_get("seed", &first_seed);
	clock_frequency();
	hv_start();
	hv_indexes_read();
	for (uint32_t i = 0; i < PAGES; i++) {
		pages[i][0] = 0xc3; /* ret */
		atomic_store(&published[i].state, STATE(0, HV_MAP_ALL));
	}
	vtl_bring_up();
	if (vtl_run(protect_enable, 0) != HV_RESULT(HV_SUCCESS, 1))
		tap_bail("protection cannot be enabled");
	vtl_intercept_set(intercept_handle);
	timer_off_run(NULL);
	for (uint32_t i = 1; i < total; i++)
		cpu_call(&cpus[i], timer_off_run, NULL);
	if (boot_number_get("flips", &wanted)) {
		/* A small share for the second part: there all processors wait for one another. */
		flips_wanted = wanted - wanted / 50;
		page_count = PAGES;
	}
	one_test();
	if (wanted)
		flips_wanted = wanted;
	all_test();
	tap_note("%lu flips in %lu calls", atomic_load(&flips), atomic_load(&calls));
}
