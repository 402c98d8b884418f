/*
 * What VTL1 has of the machine: its local APIC by memory and by CR8, halting, notification of VTL0's
 * interrupts, message slots that are taken, every register that it can watch; and that VTL0's NMIs,
 * breakpoints, timer and registers come through it all. vsm.c has what both levels share.
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

#define VECTOR_LOW    0x51 /* for VTL1, by priority */
#define VECTOR_MIDDLE 0x81
#define VECTOR_HIGH   0xb1
#define VECTOR_VINA   0xc1
#define VECTOR_LOWER  0x92 /* for VTL0 */
#define VECTOR_LOWER2 0x93
#define VECTOR_TIMER  0x94

#define LIMIT_US  10000000u
#define SETTLE_US 20000u
#define STORM_US  400000u
#define TIMER_US  300u
#define PATTERN	  0x9e3779b97f4a7c15ull

#define ICR_LOGICAL (1u << 11)

#define VINA_ENABLED	(1ull << 8)
#define VINA_AUTO_RESET (1ull << 9)

#define CONFIG_PROTECT 1ull
#define CONFIG_ALL     (0xfull << 1)

static uint32_t total;

static bool done(uint64_t result)
{
	return result == HV_RESULT(HV_SUCCESS, 1);
}

/* --- VTL1's handlers ------------------------------------------------------------------------------ */

static _Atomic uint32_t taken[256]; /* by vector, in VTL1 of whichever processor */
static _Atomic uint32_t taken_by[CPU_COUNT_MAX];
static _Atomic uint32_t wrong_level;
static _Atomic uint32_t order; /* the vectors in the order of their handlers, a byte each */
static atomic_bool eoi_by_memory;

static void secure_handle(struct trap_frame *frame)
{
	if (!vtl_is_secure())
		atomic_fetch_add(&wrong_level, 1);
	atomic_store(&order, atomic_load(&order) << 8 | (uint32_t)frame->vector);
	atomic_fetch_add(&taken[frame->vector], 1);
	atomic_fetch_add(&taken_by[cpu_self()->number], 1);
	if (atomic_load(&eoi_by_memory))
		apic_eoi();
	else
		msr_write(HV_MSR_EOI, 0);
}

static _Atomic uint32_t lower_taken[256];

static void lower_handle(struct trap_frame *frame)
{
	if (vtl_is_secure())
		atomic_fetch_add(&wrong_level, 1);
	atomic_fetch_add(&lower_taken[frame->vector], 1);
	if (frame->vector == VECTOR_TIMER)
		apic_timer_start(VECTOR_TIMER, TIMER_US);
	msr_write(HV_MSR_EOI, 0);
}

/* --- the APIC in memory -------------------------------------------------------------------------- */

static uint64_t cr8_get(void)
{
	uint64_t value;

	__asm__ volatile("mov %%cr8, %0" : "=r"(value));
	return value;
}

static void cr8_set(uint64_t value)
{
	__asm__ volatile("mov %0, %%cr8" : : "r"(value));
}

/* A set of things that were wrong; what each bit is stands in the check. */
static uint64_t apic_run(uint64_t unused)
{
	uint64_t wrong = 0;

	(void)unused;
	wrong |= (uint64_t)(apic_read(APIC_ID) >> 24 != cpu_self()->apic_id) << 0;
	wrong |= (uint64_t)((apic_read(APIC_VERSION) & 0xff) < 0x10) << 1;
	apic_write(APIC_TPR, 0x30);
	wrong |= (uint64_t)(cr8_get() != 3 || apic_read(APIC_PPR) != 0x30) << 2;
	cr8_set(5);
	wrong |= (uint64_t)(apic_read(APIC_TPR) != 0x50) << 3;
	/* Held by TPR, though IF is set. */
	interrupts_enable();
	apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR_LOW);
	__asm__ volatile("nop; nop");
	wrong |= (uint64_t)(atomic_load(&taken[VECTOR_LOW]) != 0) << 4;
	wrong |= (uint64_t)(!apic_bit_get(APIC_IRR, VECTOR_LOW)) << 5;
	/* Lowered without an exit. */
	cr8_set(4);
	__asm__ volatile("nop; nop");
	wrong |= (uint64_t)(atomic_load(&taken[VECTOR_LOW]) != 1) << 6;
	interrupts_disable();
	wrong |=
		(uint64_t)(apic_bit_get(APIC_IRR, VECTOR_LOW) || apic_bit_get(APIC_ISR, VECTOR_LOW))
		<< 7;
	cr8_set(0);
	return wrong;
}

/* Three at once, with interrupts off: the highest comes first, each after the EOI of the one before. */
static uint64_t order_run(uint64_t unused)
{
	(void)unused;
	atomic_store(&order, 0);
	apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR_MIDDLE);
	apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR_LOW);
	apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR_HIGH);
	__asm__ volatile("sti; nop; nop; nop; cli" : : : "memory");
	return atomic_load(&order);
}

/* In service, it holds back what is not above it, and lets in what is: a bit for each thing that is so. */
static _Atomic uint32_t nested_seen;

static void nested_handle(struct trap_frame *frame)
{
	(void)frame;
	nested_seen |= (uint32_t)apic_bit_get(APIC_ISR, VECTOR_MIDDLE) << 0;
	nested_seen |= (uint32_t)(apic_read(APIC_PPR) == (VECTOR_MIDDLE & 0xf0)) << 1;
	apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR_LOW);
	apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR_HIGH);
	interrupts_enable();
	__asm__ volatile("nop; nop");
	interrupts_disable();
	nested_seen |= (uint32_t)(atomic_load(&taken[VECTOR_HIGH]) == 1) << 2;
	nested_seen |= (uint32_t)(atomic_load(&taken[VECTOR_LOW]) == 0) << 3;
	apic_eoi();
}

static uint64_t nested_run(uint64_t unused)
{
	(void)unused;
	apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | VECTOR_MIDDLE);
	__asm__ volatile("sti; nop; nop; nop; cli" : : : "memory");
	return nested_seen | (uint64_t)(atomic_load(&taken[VECTOR_LOW]) == 1) << 4;
}

static uint64_t logical_set_run(uint64_t id)
{
	apic_write(APIC_DFR, ~0u);
	apic_write(APIC_LDR, (uint32_t)id << 24);
	return apic_read(APIC_LDR) >> 24;
}

static uint64_t icr_run(uint64_t value)
{
	apic_write(APIC_ICR_HIGH, (uint32_t)(value >> 32));
	apic_write(APIC_ICR, (uint32_t)value);
	return 0;
}

static uint64_t svr_run(uint64_t value)
{
	apic_write(APIC_SVR, (uint32_t)value);
	return apic_read(APIC_SVR);
}

static void counts_clear(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		atomic_store(&taken[i], 0);
		atomic_store(&lower_taken[i], 0);
	}
	for (uint32_t i = 0; i < CPU_COUNT_MAX; i++)
		atomic_store(&taken_by[i], 0);
}

static void ipi_test(void)
{
	uint64_t fixed = ICR_ASSERT | VECTOR_MIDDLE;

	tap_equal(vtl_run_on(1, logical_set_run, 0x40), 0x40, "VTL1 has a logical id");
	counts_clear();
	vtl_run(icr_run, 0x40ull << 56 | fixed | ICR_LOGICAL);
	tap_check(clock_wait_for(atomic_load(&taken_by[1]) == 1, LIMIT_US),
		"an interrupt to a logical id reaches VTL1 of that processor");
	vtl_run(icr_run, 0x40ull << 56 | fixed | ICR_LOGICAL | ICR_LOWEST);
	tap_check(
		clock_wait_for(atomic_load(&taken_by[1]) == 2, LIMIT_US), "of lowest priority too");
	vtl_run(icr_run, fixed | ICR_OTHERS);
	for (uint32_t i = 1; i < total; i++)
		tap_check(clock_wait_for(atomic_load(&taken_by[i]) == (i == 1 ? 3 : 1), LIMIT_US),
			"all but the sender: processor %u", i);
	tap_equal(atomic_load(&taken_by[0]), 0, "and not the sender");
	vtl_run_on(1, svr_run, 0xff);
	vtl_run(icr_run, (uint64_t)cpus[1].apic_id << 56 | fixed);
	clock_delay(SETTLE_US);
	vtl_run_on(1, svr_run, 0x1ff);
	clock_delay(SETTLE_US);
	tap_equal(atomic_load(&taken_by[1]), 3, "an APIC that is switched off accepts nothing");
	vtl_run(icr_run, (uint64_t)cpus[1].apic_id << 56 | ICR_ASSERT | ICR_NMI);
	vtl_run(icr_run, (uint64_t)cpus[1].apic_id << 56 | ICR_ASSERT | 15);
	clock_delay(SETTLE_US);
	tap_equal(atomic_load(&taken_by[1]), 3, "no NMI, and no vector that is an exception's");
}

static void apic_test(void)
{
	atomic_store(&eoi_by_memory, true);
	tap_equal(vtl_run(apic_run, 0), 0, "VTL1's APIC in memory, and its CR8");
	tap_equal(vtl_run(order_run, 0),
		(uint64_t)VECTOR_HIGH << 16 | VECTOR_MIDDLE << 8 | VECTOR_LOW,
		"three interrupts come in the order of their priority");
	counts_clear();
	trap_handler_set(VECTOR_MIDDLE, nested_handle);
	tap_equal(
		vtl_run(nested_run, 0), 0x1f, "what is in service holds back what is not above it");
	trap_handler_set(VECTOR_MIDDLE, secure_handle);
	if (total > 1)
		ipi_test();
	atomic_store(&eoi_by_memory, false);
}

/* --- halting, and notification ------------------------------------------------------------------- */

static atomic_bool there, leave;

static uint64_t halt_run(uint64_t vector)
{
	uint32_t before = atomic_load(&taken[vector]);

	atomic_store(&there, true);
	while (atomic_load(&taken[vector]) == before) {
		interrupts_disable();
		if (atomic_load(&taken[vector]) == before)
			__asm__ volatile("sti; hlt" : : : "memory");
	}
	interrupts_disable();
	return 1;
}

static uint64_t vina_set_run(uint64_t value)
{
	return done(vtl_register_set(HV_VTL_OWN, HV_REGISTER_VSM_VINA, value, 0));
}

static volatile uint8_t *vina_byte(void)
{
	return (volatile uint8_t *)(msr_read(HV_MSR_VP_ASSIST_PAGE) & ~0xfffull) + 12;
}

static uint64_t vina_byte_run(uint64_t unused)
{
	(void)unused;
	return *vina_byte();
}

static uint64_t vina_clear_run(uint64_t unused)
{
	(void)unused;
	*vina_byte() = 0;
	return 0;
}

/* In VTL1, with interrupts on, until told to leave. */
static uint64_t stay_run(uint64_t unused)
{
	(void)unused;
	interrupts_enable();
	atomic_store(&there, true);
	while (!atomic_load(&leave))
		cpu_relax();
	interrupts_disable();
	return *vina_byte();
}

static void on_upper_halt(void *argument)
{
	*(uint64_t *)argument = vtl_run(halt_run, VECTOR_MIDDLE);
}

static void on_upper_vina_halt(void *argument)
{
	*(uint64_t *)argument = vtl_run(halt_run, VECTOR_VINA);
}

static void on_upper_stay(void *argument)
{
	*(uint64_t *)argument = vtl_run(stay_run, 0);
}

static uint64_t place;

static void occupy(void (*function)(void *))
{
	atomic_store(&leave, false);
	atomic_store(&there, false);
	place = ~0ull;
	cpu_call_start(&cpus[1], function, &place);
	if (!clock_wait_for(atomic_load(&there), LIMIT_US))
		tap_bail("processor 1 does not begin");
	/* It may be on its way to a halt still. */
	clock_delay(SETTLE_US);
}

static void halt_test(void)
{
	counts_clear();
	occupy(on_upper_halt);
	vtl_run(icr_run, (uint64_t)cpus[1].apic_id << 56 | ICR_ASSERT | VECTOR_MIDDLE);
	cpu_call_wait(&cpus[1]);
	tap_equal(place, 1, "VTL1 halts, and an interrupt for it ends that");
}

static void vina_test(void)
{
	uint32_t to_lower = ICR_ASSERT | VECTOR_LOWER;

	counts_clear();
	tap_equal(vtl_run_on(1, vina_set_run, VECTOR_VINA | VINA_ENABLED), 1, "VTL1 asks for VINA");
	occupy(on_upper_stay);
	tap_equal(atomic_load(&taken[VECTOR_VINA]), 0, "nothing to notify of: no interrupt");
	apic_ipi_send(cpus[1].apic_id, to_lower);
	tap_check(clock_wait_for(atomic_load(&taken[VECTOR_VINA]) == 1, LIMIT_US),
		"an interrupt for VTL0 waits: VTL1 is notified");
	apic_ipi_send(cpus[1].apic_id, ICR_ASSERT | VECTOR_LOWER2);
	clock_delay(SETTLE_US);
	tap_check(atomic_load(&taken[VECTOR_VINA]) == 1 && !atomic_load(&lower_taken[VECTOR_LOWER]),
		"once, and VTL0's wait on");
	atomic_store(&leave, true);
	cpu_call_wait(&cpus[1]);
	tap_check(clock_wait_for(atomic_load(&lower_taken[VECTOR_LOWER]) == 1 &&
				  atomic_load(&lower_taken[VECTOR_LOWER2]) == 1,
			  LIMIT_US),
		"until it returns");
	tap_equal(vtl_run_on(1, vina_byte_run, 0), 1, "the notification stays asserted");
	vtl_run_on(1, vina_clear_run, 0);
	occupy(on_upper_vina_halt);
	apic_ipi_send(cpus[1].apic_id, to_lower);
	cpu_call_wait(&cpus[1]);
	tap_equal(atomic_load(&taken[VECTOR_VINA]), 2, "cleared, it comes again, and ends a halt");
	vtl_run_on(1, vina_set_run, VECTOR_VINA | VINA_ENABLED | VINA_AUTO_RESET);
	tap_equal(vtl_run_on(1, vina_byte_run, 0), 0, "with auto-reset an entry clears it");
	vtl_run_on(1, vina_set_run, 0);
	counts_clear();
	occupy(on_upper_stay);
	apic_ipi_send(cpus[1].apic_id, to_lower);
	clock_delay(SETTLE_US);
	atomic_store(&leave, true);
	cpu_call_wait(&cpus[1]);
	tap_check(!atomic_load(&taken[VECTOR_VINA]) &&
			clock_wait_for(atomic_load(&lower_taken[VECTOR_LOWER]) == 1, LIMIT_US),
		"not asked for, it does not come");
}

/* --- VTL0's NMI ---------------------------------------------------------------------------------- */

static _Atomic uint32_t nmis, nmis_secure;

static void nmi_handle(struct trap_frame *frame)
{
	(void)frame;
	atomic_fetch_add(vtl_is_secure() ? &nmis_secure : &nmis, 1);
}

static void nmi_test(void)
{
	trap_handler_set(TRAP_NMI, nmi_handle);
	occupy(on_upper_stay);
	apic_ipi_send(cpus[1].apic_id, ICR_ASSERT | ICR_NMI);
	clock_delay(SETTLE_US);
	tap_check(!atomic_load(&nmis) && !atomic_load(&nmis_secure),
		"an NMI for VTL0 waits while VTL1 runs");
	atomic_store(&leave, true);
	cpu_call_wait(&cpus[1]);
	tap_check(clock_wait_for(atomic_load(&nmis) == 1, LIMIT_US) && !atomic_load(&nmis_secure),
		"and comes once, to VTL0, afterwards");
}

/* --- breakpoints --------------------------------------------------------------------------------- */

static _Atomic uint32_t traps, traps_secure;

static void debug_handle(struct trap_frame *frame)
{
	atomic_fetch_add(vtl_is_secure() ? &traps_secure : &traps, 1);
	frame->rflags |= 1ull << 16; /* RF: go on past it */
	__asm__ volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ull));
}

static __attribute__((noinline)) uint64_t target(uint64_t value)
{
	__asm__ volatile("" : "+r"(value));
	return value + 1;
}

static void breakpoint_test(void)
{
	trap_handler_set(TRAP_DB, debug_handle);
	__asm__ volatile("mov %0, %%dr1; mov %1, %%dr7" : : "r"((uint64_t)target), "r"(0x404ull));
	tap_check(target(1) == 2 && atomic_load(&traps) == 1, "VTL0's breakpoint hits in VTL0");
	tap_check(vtl_run(target, 2) == 3 && !atomic_load(&traps_secure), "and not in VTL1");
	tap_check(target(3) == 4 && atomic_load(&traps) == 2, "and in VTL0 again");
	__asm__ volatile("mov %0, %%dr7" : : "r"(0x400ull));
	tap_check(target(4) == 5 && atomic_load(&traps) == 2, "until it is disarmed");
}

/* --- intercepts ---------------------------------------------------------------------------------- */

static _Alignas(4096) uint8_t page[4096];
static struct hv_message last;
static _Atomic uint32_t intercepts;
static uint64_t failures;
static atomic_bool skips;

/* Skips what the message says was there, so that its length is tested too. */
static void intercept_handle(struct vtl_registers *lower, const struct hv_message *message)
{
	last = *message;
	atomic_fetch_add(&intercepts, 1);
	if (message->type == 1)
		return; /* the one that a test has put there itself */
	if (!atomic_load(&skips)) {
		failures += !done(vtl_register_set(
			HV_VTL(0), HV_REGISTER_PENDING_EVENT0, 1ull | 1ull << 8 | 13ull << 16, 0));
		return;
	}
	failures += !message->header.instruction_bytes;
	failures += !done(vtl_register_set(HV_VTL(0), HV_REGISTER_RIP,
		message->header.rip + message->header.instruction_bytes, 0));
	(void)lower;
}

static uint64_t watch_run(uint64_t set)
{
	return done(vtl_register_set(HV_VTL_OWN, HV_REGISTER_CR_INTERCEPT_CONTROL, set, 0));
}

static uint64_t mask_run(uint64_t mask)
{
	return done(vtl_register_set(HV_VTL_OWN, HV_REGISTER_CR_INTERCEPT_CR0_MASK, mask, 0)) &&
		done(vtl_register_set(HV_VTL_OWN, HV_REGISTER_CR_INTERCEPT_CR4_MASK, mask, 0)) &&
		done(vtl_register_set(
			HV_VTL_OWN, HV_REGISTER_CR_INTERCEPT_MISC_ENABLE_MASK, mask, 0));
}

struct table {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

#define CR4_OSXSAVE (1ull << 18)
#define CR0_MP	    2ull
#define CR0_TS	    8ull
#define CR0_WP	    (1ull << 16)

static struct table gdtr, idtr;

static void xcr0_write(uint64_t value)
{
	__asm__ volatile("xsetbv" : : "a"((uint32_t)value), "d"(0), "c"(0));
}

static uint64_t xcr0_read(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return low;
}

static void try_xcr0(void)
{
	xcr0_write(1);
}

static void try_gdtr(void)
{
	__asm__ volatile("lgdt %0" : : "m"(gdtr));
}

static void try_idtr(void)
{
	__asm__ volatile("lidt %0" : : "m"(idtr));
}

static void try_ldtr(void)
{
	__asm__ volatile("lldt %w0" : : "r"(0));
}

static void try_tr(void)
{
	/* Carried out, it would be #GP: the segment is busy. */
	__asm__ volatile("ltr %w0" : : "r"(SEGMENT_TSS));
}

static void try_clts(void)
{
	__asm__ volatile("clts");
}

static void try_lmsw(void)
{
	__asm__ volatile("lmsw %w0" : : "r"((uint16_t)cr0_read() ^ 8));
}

#define MISC_ENABLE 0x1a0
#define FAST_STRING 1ull /* of it; on at reset */

static uint32_t msr;

static void try_wrmsr(void)
{
	msr_write(msr, 0);
}

static void try_rdmsr(void)
{
	msr_read(msr);
}

struct attempt {
	const char *name;
	uint32_t bit; /* of HvRegisterCrInterceptControl */
	void (*run)(void);
	uint32_t type;
	uint32_t number; /* of the register or the MSR */
	uint32_t access;
};

#define REG(name, bit, run, number)                                                                \
	{                                                                                          \
		name, bit, run, HV_MESSAGE_REGISTER, number, HV_ACCESS_WRITE                       \
	}
#define MSR_WRITE(name, bit, number)                                                               \
	{                                                                                          \
		name, bit, try_wrmsr, HV_MESSAGE_MSR, number, HV_ACCESS_WRITE                      \
	}
#define MSR_READ(name, bit, number)                                                                \
	{                                                                                          \
		name, bit, try_rdmsr, HV_MESSAGE_MSR, number, HV_ACCESS_READ                       \
	}

static const struct attempt attempts[] = {
	REG("CLTS", 0, try_clts, HV_REGISTER_CR0),
	REG("LMSW", 0, try_lmsw, HV_REGISTER_CR0),
	REG("XSETBV", 2, try_xcr0, 0x00040005),
	REG("LGDT", 15, try_gdtr, HV_REGISTER_GDTR),
	REG("LIDT", 16, try_idtr, HV_REGISTER_IDTR),
	REG("LLDT", 17, try_ldtr, HV_REGISTER_LDTR),
	REG("LTR", 18, try_tr, HV_REGISTER_TR),
	MSR_READ("MISC_ENABLE read", 3, MISC_ENABLE),
	MSR_WRITE("MISC_ENABLE write", 4, MISC_ENABLE),
	MSR_READ("LSTAR read", 5, 0xc0000082),
	MSR_WRITE("LSTAR write", 6, 0xc0000082),
	MSR_READ("STAR read", 7, 0xc0000081),
	MSR_WRITE("STAR write", 8, 0xc0000081),
	MSR_READ("CSTAR read", 9, 0xc0000083),
	MSR_WRITE("CSTAR write", 10, 0xc0000083),
	MSR_READ("APIC_BASE read", 11, 0x1b),
	MSR_WRITE("APIC_BASE write", 12, 0x1b),
	MSR_READ("EFER read", 13, 0xc0000080),
	MSR_WRITE("EFER write", 14, 0xc0000080),
	MSR_WRITE("SYSENTER_CS write", 19, 0x174),
	MSR_WRITE("SYSENTER_EIP write", 20, 0x176),
	MSR_WRITE("SYSENTER_ESP write", 21, 0x175),
	MSR_WRITE("SFMASK write", 22, 0xc0000084),
	MSR_WRITE("TSC_AUX write", 23, 0xc0000103),
	MSR_WRITE("XSS write", 25, 0xda0),
};

static void attempt_test(const struct attempt *attempt)
{
	uint32_t before = atomic_load(&intercepts);
	uint32_t number;

	msr = attempt->number;
	if (!vtl_run(watch_run, 1ull << attempt->bit)) {
		/* QEMU's processor has no intercept for that one; it must not be promised then. */
		if (attempt->bit == 2)
			tap_skip(attempt->name, "refused: this processor cannot watch it");
		else
			tap_check(false, "%s can be watched", attempt->name);
		return;
	}
	attempt->run();
	vtl_run(watch_run, 0);
	number = attempt->type == HV_MESSAGE_MSR ? last.msr.number : last.reg.name;
	if (!tap_check(atomic_load(&intercepts) == before + 1 && last.type == attempt->type &&
			    number == attempt->number && last.header.access == attempt->access,
		    "%s is intercepted", attempt->name))
		tap_note("%u intercepts, type 0x%x, number 0x%x, access %u",
			atomic_load(&intercepts) - before, last.type, number, last.header.access);
}

static void watched_msr_test(void)
{
	uint64_t star = msr_read(0xc0000081), before = atomic_load(&intercepts);

	/* One MSR is watched: the others exit too, and are carried out all the same. */
	vtl_run(watch_run, 1ull << 6);
	msr_write(0xc0000081, 0x0018001800000000);
	tap_check(msr_read(0xc0000081) == 0x0018001800000000 &&
			msr_write_catch(0xc0000083, 1ull << 62) == TRAP_GP &&
			atomic_load(&intercepts) == before,
		"MSRs beside a watched one can be written, and must be canonical as ever");
	vtl_run(watch_run, 0);
	tap_equal(msr_read(0xc0000081), 0x0018001800000000, "and keep what was written");
	msr_write(0xc0000081, star);
}

/* Its mask says which bits are VTL1's; only what changes among them is an intercept. */
static void watched_misc_enable_test(void)
{
	uint64_t value = msr_read(MISC_ENABLE), before = atomic_load(&intercepts);

	vtl_run(mask_run, ~FAST_STRING);
	vtl_run(watch_run, 1ull << 4);
	msr_write_catch(MISC_ENABLE, value ^ FAST_STRING);
	msr_write_catch(MISC_ENABLE, value);
	tap_check(atomic_load(&intercepts) == before && msr_read(MISC_ENABLE) == value,
		"MISC_ENABLE: what is not in the mask may change");
	vtl_run(mask_run, FAST_STRING);
	msr_write_catch(MISC_ENABLE, value);
	tap_equal(atomic_load(&intercepts), before, "and what is may be written as it was");
	msr_write_catch(MISC_ENABLE, value ^ FAST_STRING);
	tap_check(atomic_load(&intercepts) == before + 1 && msr_read(MISC_ENABLE) == value,
		"but not changed");
	vtl_run(watch_run, 0);
	vtl_run(mask_run, ~0ull);
}

static void cr0_value_run(void *argument)
{
	__asm__ volatile("mov %0, %%cr0" : : "r"(*(uint64_t *)argument));
}

static void cr4_value_run(void *argument)
{
	__asm__ volatile("mov %0, %%cr4" : : "r"(*(uint64_t *)argument));
}

static void watched_control_test(void)
{
	uint64_t cr0 = cr0_read(), cr4 = cr4_read(), before = atomic_load(&intercepts), value;

	vtl_run(mask_run, CR0_WP); /* WP in CR0, nothing that matters in CR4 */
	vtl_run(watch_run, 3);
	value = cr0 & ~(1ull << 31);
	tap_equal((uint64_t)trap_catch(cr0_value_run, &value), TRAP_GP,
		"CR0 that is watched: paging off in 64-bit code is #GP");
	value = cr0 | 1ull << 40;
	tap_equal((uint64_t)trap_catch(cr0_value_run, &value), TRAP_GP, "reserved bits too");
	value = cr4 & ~(1ull << 5);
	tap_equal((uint64_t)trap_catch(cr4_value_run, &value), TRAP_GP,
		"CR4: without PAE in long mode");
	value = cr4 | 1ull << 30;
	tap_equal((uint64_t)trap_catch(cr4_value_run, &value), TRAP_GP, "reserved bits too");
	value = cr4 ^ 1ull << 7;
	tap_check(trap_catch(cr4_value_run, &value) == TRAP_NONE && cr4_read() == value,
		"another bit of it is written");
	cr4_value_run(&cr4);
	tap_check(cr0_read() == cr0 && cr4_read() == cr4 && atomic_load(&intercepts) == before,
		"none of these is an intercept");
	vtl_run(watch_run, 0);
	vtl_run(mask_run, ~0ull);
}

/* MOV CR0, RAX or MOV CR0, RBX, as another processor has it just now; then RET. */
static _Alignas(64) volatile uint8_t racing_code[4] = {0x0f, 0x22, 0xc0, 0xc3};
static atomic_bool race_over;

static void racing_run(void *argument)
{
	(void)argument;
	while (!atomic_load(&race_over)) {
		racing_code[2] = 0xc3;
		racing_code[2] = 0xc0;
	}
}

/*
 * One of the two is harmless, the other clears what is locked: what is carried out must be what was
 * looked at. Counts the times that it was not.
 */
static void race_test(void)
{
	uint64_t found = cr0_read(), cr0 = found | CR0_WP, before = atomic_load(&intercepts),
		 end = clock_deadline(STORM_US);
	uint32_t wrong = 0, turns = 0;

	cr0_write(cr0);
	vtl_run(mask_run, CR0_WP);
	vtl_run(watch_run, 1);
	cpu_call_start(&cpus[1], racing_run, NULL);
	for (; !clock_passed(end); turns++) {
		__asm__ volatile("call *%0"
				 :
				 : "r"(racing_code), "a"(cr0 ^ CR0_MP), "b"(cr0 & ~CR0_WP)
				 : "memory");
		wrong += !(cr0_read() & CR0_WP);
	}
	atomic_store(&race_over, true);
	cpu_call_wait(&cpus[1]);
	vtl_run(watch_run, 0);
	vtl_run(mask_run, ~0ull);
	cr0_write(found);
	tap_note("%u writes of CR0, %lu intercepted", turns, atomic_load(&intercepts) - before);
	tap_equal(
		wrong, 0, "a write of CR0 that becomes another one meanwhile does not get through");
}

static uint64_t config_run(uint64_t value)
{
	return vtl_register_set(HV_VTL_OWN, HV_REGISTER_VSM_PARTITION_CONFIG, value, 0);
}

static uint64_t protect_run(uint64_t flags)
{
	return vtl_protect(page, 1, (uint32_t)flags);
}

/* Takes the slot of SINT0 with something of its own. */
static uint64_t slot_take_run(uint64_t unused)
{
	volatile struct hv_message *slot =
		(volatile struct hv_message *)(msr_read(HV_MSR_SIMP) & ~0xfffull);

	(void)unused;
	slot->flags = 0;
	slot->type = 1;
	return 0;
}

static void page_write(void *argument)
{
	__asm__ volatile("movb $7, (%0)" : : "r"(argument) : "memory");
}

static void slot_test(void)
{
	uint32_t before = atomic_load(&intercepts);

	page[0] = 1;
	vtl_run(protect_run, HV_MAP_READ);
	atomic_store(&skips, true);
	/* As it returns, VTL1 leaves its slot taken. */
	vtl_run(slot_take_run, 0);
	page_write(page);
	if (!tap_check(atomic_load(&intercepts) == before + 2 && last.type == HV_MESSAGE_MEMORY &&
			    page[0] == 1,
		    "a message whose slot is taken waits, and comes when that is free"))
		tap_note("%u messages, type 0x%x, byte %u", atomic_load(&intercepts) - before,
			last.type, page[0]);
	vtl_run(protect_run, HV_MAP_ALL);
	page_write(page);
	tap_equal(page[0], 7, "and then it is over");
}

static void intercept_test(void)
{
	uint64_t ts = cr0_read();

	if (!done(vtl_run(config_run, CONFIG_PROTECT | CONFIG_ALL)))
		tap_bail("protection cannot be enabled");
	vtl_intercept_set(intercept_handle);
	vtl_run(mask_run, ~0ull);
	__asm__ volatile("sgdt %0; sidt %1" : "=m"(gdtr), "=m"(idtr));
	if (cpuid_get(1, 0).ecx >> 26 & 1)
		cr4_write(cr4_read() | CR4_OSXSAVE);
	cr0_write(ts | CR0_TS);
	atomic_store(&skips, true);
	for (uint32_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
		attempt_test(&attempts[i]);
	cr0_write(ts);
	tap_equal(xcr0_read() & 1, 1, "and XCR0 is as it was");
	watched_msr_test();
	watched_misc_enable_test();
	watched_control_test();
	if (total > 1)
		race_test();
	slot_test();
	tap_equal(failures, 0, "everything VTL1 did about intercepts succeeded");
}

/* --- everything at once -------------------------------------------------------------------------- */

static _Atomic uint64_t storm_sent[CPU_COUNT_MAX], storm_calls[CPU_COUNT_MAX];
static _Atomic uint32_t storm_wrong;
static atomic_bool storm_over;

static uint64_t storm_send_run(uint64_t cpu)
{
	apic_write(APIC_ICR_HIGH, cpus[cpu].apic_id << 24);
	apic_write(APIC_ICR, ICR_ASSERT | VECTOR_MIDDLE);
	return cpu ^ PATTERN;
}

/* VTL0's registers while VTL1 comes and goes: false if any has changed. */
static bool registers_survive(uint64_t seed)
{
	uint64_t wrong = 0;

	__asm__ volatile(
		"mov %1, %%r8; lea 1(%1), %%r9; lea 2(%1), %%r10; lea 3(%1), %%r11\n\t"
		"lea 4(%1), %%rbx; lea 5(%1), %%rdx; mov %1, %%rax; mov $200, %%ecx\n\t"
		"1: pause; dec %%ecx; jnz 1b\n\t"
		"sub %1, %%rax; or %%rax, %0; sub %1, %%r8; or %%r8, %0\n\t"
		"sub %1, %%r9; dec %%r9; or %%r9, %0; sub %1, %%r10; sub $2, %%r10; or %%r10, %0\n\t"
		"sub %1, %%r11; sub $3, %%r11; or %%r11, %0; sub %1, %%rbx; sub $4, %%rbx\n\t"
		"or %%rbx, %0; sub %1, %%rdx; sub $5, %%rdx; or %%rdx, %0; or %%rcx, %0"
		: "+r"(wrong)
		: "r"(seed)
		: "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "cc");
	return !wrong;
}

static void storm_run(void *argument)
{
	uint32_t self = cpu_self()->number;
	uint64_t random = PATTERN * (self + 1);

	(void)argument;
	apic_timer_start(VECTOR_TIMER, TIMER_US);
	while (!atomic_load(&storm_over)) {
		uint32_t to;

		random = random * 6364136223846793005ull + 1442695040888963407ull;
		to = (uint32_t)(random >> 33) % total;
		if (vtl_run(storm_send_run, to) != (to ^ PATTERN))
			atomic_fetch_add(&storm_wrong, 1);
		atomic_fetch_add(&storm_sent[to], 1);
		atomic_fetch_add(&storm_calls[self], 1);
		for (int i = 0; i < 4; i++)
			if (!registers_survive(random))
				atomic_fetch_add(&storm_wrong, 1);
	}
	apic_timer_stop();
}

static void storm_test(void)
{
	uint64_t end = clock_deadline(STORM_US);
	uint32_t ticks;
	uint64_t calls = 0;

	counts_clear();
	for (uint32_t i = 1; i < total; i++)
		cpu_call_start(&cpus[i], storm_run, NULL);
	/* This processor only waits, and is interrupted. */
	while (!clock_passed(end))
		if (!registers_survive(end))
			atomic_fetch_add(&storm_wrong, 1);
	atomic_store(&storm_over, true);
	for (uint32_t i = 1; i < total; i++)
		cpu_call_wait(&cpus[i]);
	for (uint32_t i = 0; i < total; i++)
		calls += atomic_load(&storm_calls[i]);
	ticks = atomic_load(&lower_taken[VECTOR_TIMER]);
	tap_note("%lu VTL calls, %u interrupts in VTL1, %u timer interrupts in VTL0", calls,
		atomic_load(&taken[VECTOR_MIDDLE]), ticks);
	tap_equal(atomic_load(&storm_wrong), 0,
		"no register of VTL0 changes under interrupts for VTL1, no call goes astray");
	tap_check(calls && ticks, "calls and VTL0's own interrupts go on meanwhile");
	/* They coalesce, but the last of each processor is not lost. */
	for (uint32_t i = 0; i < total; i++) {
		uint32_t before = atomic_load(&taken_by[i]);

		tap_check(!atomic_load(&storm_sent[i]) || before,
			"processor %u has been interrupted", i);
		vtl_run(icr_run, (uint64_t)cpus[i].apic_id << 56 | ICR_ASSERT | VECTOR_MIDDLE);
		tap_check(clock_wait_for(atomic_load(&taken_by[i]) > before, LIMIT_US),
			"and can be again");
	}
}

void kernel_main(void)
{
	total = cpu_all_start();
	interrupts_enable();
	tap_note("under a paravisor, %u processors", total);
	clock_frequency();
	hv_start();
	hv_indexes_read();
	for (uint32_t i = 0; i < 256; i++)
		if (i == VECTOR_LOW || i == VECTOR_MIDDLE || i == VECTOR_HIGH || i == VECTOR_VINA)
			trap_handler_set(i, secure_handle);
	trap_handler_set(VECTOR_LOWER, lower_handle);
	trap_handler_set(VECTOR_LOWER2, lower_handle);
	trap_handler_set(VECTOR_TIMER, lower_handle);
	vtl_bring_up();
	apic_test();
	if (total > 1) {
		halt_test();
		vina_test();
		nmi_test();
	}
	breakpoint_test();
	intercept_test();
	if (total > 1)
		storm_test();
	tap_equal(atomic_load(&wrong_level), 0, "no interrupt came to the wrong level");
	tap_finish();
}
