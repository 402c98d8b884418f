#include "cpu.h"

#include "acpi.h"
#include "apic.h"
#include "boot.h"
#include "clock.h"
#include "machine.h"
#include "print.h"
#include "tap.h"

_Static_assert(offsetof(struct cpu, self) == CPU_SELF, "layout.h");
_Static_assert(offsetof(struct cpu, stack_top) == CPU_STACK_TOP, "layout.h");
_Static_assert(offsetof(struct cpu, catch_stack) == CPU_CATCH_STACK, "layout.h");
_Static_assert(sizeof(struct tss) == 104, "AMD64 volume 2, section 12.2.5");

struct cpu cpus[CPU_COUNT_MAX];
struct cpu *cpu_by_apic_id[256];

extern const uint64_t boot_gdt[];
extern const char trampoline_start[], trampoline_end[];

static uint32_t count = 1;
static uint64_t trampoline;

void cpu_enter(struct cpu *self);

void cpu_prepare(struct cpu *cpu, uint32_t number, uint32_t apic_id)
{
	uint64_t tss = (uint64_t)&cpu->tss;

	cpu->self = cpu;
	cpu->number = number;
	cpu->apic_id = apic_id;
	cpu->stack_top = (uint64_t)cpu->stack + sizeof(cpu->stack);
	for (uint32_t i = 0; i < 3; i++)
		cpu->tss.ist[i] = (uint64_t)cpu->ist_stacks[i] + sizeof(cpu->ist_stacks[i]);
	cpu->tss.io_map = sizeof(struct tss);
	memcpy(cpu->gdt, boot_gdt, SEGMENT_TSS);
	cpu->gdt[6] = (sizeof(struct tss) - 1) | (tss & 0xffffff) << 16 | 0x89ull << 40 |
		(tss >> 24 & 0xff) << 56;
	cpu->gdt[7] = tss >> 32;
}

static void tables_load(struct cpu *self)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = {sizeof(self->gdt) - 1, (uint64_t)self->gdt};

	/* An earlier life of this processor left its TSS marked busy. */
	self->gdt[6] &= ~(2ull << 40);
	__asm__ volatile("lgdt %0; ltr %w1" : : "m"(pointer), "r"(SEGMENT_TSS) : "memory");
	msr_write(MSR_GS_BASE, (uint64_t)self);
	self->catch_stack = 0;
	trap_load();
}

void cpu_first_start(void)
{
	struct cpu *self = &cpus[0];

	cpu_prepare(self, 0, cpuid_get(1, 0).ebx >> 24);
	cpu_by_apic_id[self->apic_id] = self;
	tables_load(self);
	atomic_store_explicit(&self->state, CPU_WORKING, memory_order_relaxed);
}

static void wake_handle(struct trap_frame *frame)
{
	(void)frame;
	apic_eoi();
}

/* A started processor's life: halt, be woken, work. */
void cpu_enter(struct cpu *self)
{
	tables_load(self);
	apic_enable();
	atomic_fetch_add_explicit(&self->starts, 1, memory_order_relaxed);
	/* Pairs with the acquire in cpu_start: whoever sees it idle may call it. */
	atomic_store_explicit(&self->state, CPU_IDLE, memory_order_release);
	for (;;) {
		void (*function)(void *);

		interrupts_disable();
		/* Pairs with the release in cpu_call_start, which wrote the argument before. */
		while (!(function = atomic_load_explicit(&self->function, memory_order_acquire)))
			interrupt_wait();
		interrupts_enable();
		function(self->argument);
		interrupts_disable();
		atomic_store_explicit(&self->function, NULL, memory_order_relaxed);
		/* Pairs with the acquire in cpu_call_wait: results are visible to the caller. */
		atomic_store_explicit(&self->state, CPU_IDLE, memory_order_release);
	}
}

uint64_t cpu_trampoline_get(void)
{
	if (!trampoline) {
		trampoline = boot_low_page_take();
		if (!trampoline)
			tap_bail("no RAM below 640 KiB for starting processors");
		memcpy((void *)trampoline, trampoline_start,
			(size_t)(trampoline_end - trampoline_start));
	}
	return trampoline;
}

static bool state_wait(struct cpu *cpu, enum cpu_state state, uint64_t us)
{
	uint64_t end = clock_deadline(us);

	while (atomic_load_explicit(&cpu->state, memory_order_acquire) != state) {
		if (clock_passed(end))
			return false;
		cpu_relax();
	}
	return true;
}

bool cpu_idle_wait(struct cpu *cpu, uint64_t us)
{
	return state_wait(cpu, CPU_IDLE, us);
}

bool cpu_start(struct cpu *cpu)
{
	uint64_t page = cpu_trampoline_get();

	atomic_store_explicit(&cpu->state, CPU_ABSENT, memory_order_relaxed);
	atomic_store_explicit(&cpu->function, NULL, memory_order_relaxed);
	apic_ipi_send(cpu->apic_id, ICR_INIT | ICR_ASSERT);
	clock_delay(10000);
	apic_ipi_send(cpu->apic_id, ICR_SIPI | ICR_ASSERT | (uint32_t)(page >> 12));
	if (state_wait(cpu, CPU_IDLE, 100000))
		return true;
	apic_ipi_send(cpu->apic_id, ICR_SIPI | ICR_ASSERT | (uint32_t)(page >> 12));
	return state_wait(cpu, CPU_IDLE, 2000000);
}

uint32_t cpu_all_find(void)
{
	const struct acpi_machine *machine = acpi_machine_get();

	trap_handler_set(VECTOR_WAKE, wake_handle);
	apic_enable();
	for (uint32_t i = 0; i < machine->cpu_count; i++) {
		uint32_t id = machine->apic_ids[i];

		if (id == cpus[0].apic_id)
			continue;
		if (count == CPU_COUNT_MAX)
			tap_bail("more than %u processors", CPU_COUNT_MAX);
		cpu_prepare(&cpus[count], count, id);
		cpu_by_apic_id[id] = &cpus[count];
		count++;
	}
	return count;
}

uint32_t cpu_all_start(void)
{
	cpu_all_find();
	for (uint32_t i = 1; i < count; i++)
		if (!cpu_start(&cpus[i]))
			tap_bail("processor %u (APIC id %u) does not start", i, cpus[i].apic_id);
	return count;
}

uint32_t cpu_count(void)
{
	return count;
}

void cpu_call_start(struct cpu *cpu, void (*function)(void *), void *argument)
{
	cpu->argument = argument;
	atomic_store_explicit(&cpu->state, CPU_WORKING, memory_order_relaxed);
	/* Pairs with the acquire in cpu_enter. */
	atomic_store_explicit(&cpu->function, function, memory_order_release);
	apic_ipi_send(cpu->apic_id, VECTOR_WAKE | ICR_ASSERT);
}

bool cpu_call_done(struct cpu *cpu, uint64_t us)
{
	return state_wait(cpu, CPU_IDLE, us);
}

void cpu_call_wait(struct cpu *cpu)
{
	if (!state_wait(cpu, CPU_IDLE, 10000000))
		tap_bail("processor %u does not come back from its work", cpu->number);
}
