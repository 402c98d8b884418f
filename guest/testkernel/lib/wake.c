#include "wake.h"

#include "boot.h"
#include "clock.h"
#include "machine.h"
#include "print.h"
#include "tap.h"

_Static_assert(sizeof(struct wake_state) == 128, "wake_entry.S");

extern const char wake_entry[], wake_low_start[], wake_low_counter[], wake_low_end[];
void wake_jump(uint64_t vector);

/* A few bytes for each processor, before it has a stack: wake_entry.S. */
uint64_t wake_flag_stacks[256];
static uint64_t flag_stack_space[256][4];

static struct acpi_wakeup wakeup;
static uint64_t low_page;

bool wake_find(struct acpi_wakeup *found)
{
	bool there = acpi_wakeup_get(&wakeup);

	for (uint32_t i = 0; i < 256; i++)
		wake_flag_stacks[i] = (uint64_t)(&flag_stack_space[i][4]);
	*found = wakeup;
	return there;
}

volatile struct wake_mailbox *wake_mailbox(void)
{
	return (volatile struct wake_mailbox *)wakeup.mailbox;
}

uint64_t wake_vector_high(void)
{
	return (uint64_t)wake_entry;
}

uint64_t wake_vector_low(void)
{
	if (!low_page) {
		low_page = boot_low_page_take();
		if (!low_page)
			tap_bail("no RAM below 640 KiB for a wakeup vector");
		memcpy((void *)low_page, wake_low_start, (size_t)(wake_low_end - wake_low_start));
	}
	return low_page;
}

uint32_t wake_low_count(void)
{
	return *(const volatile uint32_t *)(wake_vector_low() +
		(uint64_t)(wake_low_counter - wake_low_start));
}

void wake_command_write(uint32_t apic_id, uint64_t vector, uint16_t command)
{
	volatile struct wake_mailbox *mailbox = wake_mailbox();

	mailbox->apic_id = apic_id;
	mailbox->vector = vector;
	/* The specification's order: whoever sees the command sees what it is about. */
	atomic_store_explicit(&mailbox->command, command, memory_order_release);
}

bool wake_command_taken(uint64_t us)
{
	return clock_wait_for(atomic_load_explicit(&wake_mailbox()->command,
				      memory_order_acquire) == WAKE_COMMAND_NONE,
		us);
}

void wake_expect(struct cpu *cpu)
{
	atomic_store_explicit(&cpu->state, CPU_ABSENT, memory_order_relaxed);
	atomic_store_explicit(&cpu->function, NULL, memory_order_release);
}

bool wake_cpu(struct cpu *cpu, uint64_t vector)
{
	wake_expect(cpu);
	wake_command_write(cpu->apic_id, vector, WAKE_COMMAND_WAKEUP);
	return wake_command_taken(WAKE_LIMIT_US) && cpu_idle_wait(cpu, WAKE_LIMIT_US);
}

/* Whoever wakes this processor, and however soon, it comes back with nothing to do. */
static void leave(void)
{
	wake_expect(cpu_self());
	wake_jump(wakeup.reset_vector);
}

static void offline_run(void *argument)
{
	(void)argument;
	leave();
}

void wake_offline_start(struct cpu *cpu)
{
	cpu_call_start(cpu, offline_run, NULL);
}

bool wake_test(struct cpu *cpu, uint64_t us)
{
	wake_command_write(cpu->apic_id, 0, WAKE_COMMAND_TEST);
	return wake_command_taken(us);
}

static void *resume[5];

void wake_self_offline(void)
{
	/* Comes back a second time, on this stack, from wake_self_return. */
	if (!__builtin_setjmp(resume))
		leave();
	atomic_store_explicit(&cpu_self()->function, NULL, memory_order_relaxed);
}

void wake_self_return(void *argument)
{
	(void)argument;
	__builtin_longjmp(resume, 1);
}
