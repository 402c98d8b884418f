/* The IDT and what happens behind it: kicks are counted, everything else is Parapet's own fault. */
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/interrupt.h"
#include "arch/x86/registers.h"

struct gate {
	uint16_t offset_low;
	uint16_t selector;
	uint8_t ist;
	uint8_t type;
	uint16_t offset_middle;
	uint32_t offset_high;
	uint32_t reserved;
};

_Static_assert(sizeof(struct gate) == 16, "AMD64 APM volume 2, 4.8.4");

#define GATE_INTERRUPT 0x8e /* present, ring 0, 64-bit interrupt gate */
#define ENTRY_BYTES    16

extern const uint8_t interrupt_entries[];
extern const uint8_t interrupt_external_entries[];
extern const uint8_t interrupt_idle_end[];
extern const uint8_t interrupt_idle_window_open[], interrupt_idle_window_end[];
extern const uint8_t interrupt_window_open[], interrupt_window_end[], interrupt_window_low[];

uint64_t interrupt_window(void);
uint64_t interrupt_idle_window(void);

#define EXCEPTIONS 32

static struct gate idt[256];

static uint8_t ist_of(unsigned int vector)
{
	switch (vector) {
	case VECTOR_NMI:
		return IST_NMI;
	case VECTOR_DF:
		return IST_DF;
	case VECTOR_MC:
		return IST_MC;
	case VECTOR_DB:
		return IST_DB;
	default:
		return IST_NONE;
	}
}

void interrupt_init(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(idt); i++) {
		uint64_t entry = i < EXCEPTIONS
			? (uint64_t)interrupt_entries + i * ENTRY_BYTES
			: (uint64_t)interrupt_external_entries + (i - EXCEPTIONS) * ENTRY_BYTES;

		idt[i] = (struct gate){
			.offset_low = (uint16_t)entry,
			.selector = SELECTOR_CODE,
			.ist = ist_of(i),
			.type = GATE_INTERRUPT,
			.offset_middle = (uint16_t)(entry >> 16),
			.offset_high = (uint32_t)(entry >> 32),
		};
	}
}

void interrupt_load_idt(void)
{
	struct descriptor_pointer pointer = {.limit = sizeof(idt) - 1, .base = (uint64_t)idt};

	asm_lidt(&pointer);
}

bool interrupt_take(uint8_t *vector)
{
	uint64_t taken = interrupt_window();

	*vector = (uint8_t)taken;
	return taken != ~0ull;
}

bool interrupt_idle_take(uint8_t *vector)
{
	uint64_t taken = interrupt_idle_window();

	*vector = (uint8_t)taken;
	return taken != ~0ull;
}

static bool is_in_window(uint64_t rip)
{
	return (rip >= (uint64_t)interrupt_window_open && rip <= (uint64_t)interrupt_window_end) ||
		(rip >= (uint64_t)interrupt_idle_window_open &&
			rip <= (uint64_t)interrupt_idle_window_end);
}

/* An NMI ends a sleep, also one that is only about to begin: nobody is woken twice. */
__attribute__((section(".text.guarded"))) static void end_sleep(struct interrupt_frame *frame)
{
	if (frame->rip - (uint64_t)interrupt_idle <
		(uint64_t)interrupt_idle_end - (uint64_t)interrupt_idle) {
		frame->rip = (uint64_t)interrupt_idle_end;
	} else if (frame->rip - (uint64_t)interrupt_idle_window_open <
		(uint64_t)interrupt_idle_window_end - (uint64_t)interrupt_idle_window_open) {
		frame->rip = (uint64_t)interrupt_idle_window_end;
	}
}

/*
 * An external interrupt with an exception's number, which an old 8259 set-up may deliver. Where the
 * exception would have an error code, there is none: what is on the stack is one word further down.
 */
static bool take_low_vector(struct interrupt_frame *frame)
{
	if (is_in_window(frame->rip)) {
		frame->rip = (uint64_t)interrupt_window_low;
		frame->rflags &= ~RFLAGS_IF;
	} else if (is_in_window(frame->error) && frame->rip == SELECTOR_CODE) {
		uint64_t stack = frame->rflags;

		frame->rflags = RFLAGS_FIXED;
		frame->rsp = stack;
		frame->cs = SELECTOR_CODE;
		frame->ss = SELECTOR_DATA;
		frame->rip = (uint64_t)interrupt_window_low;
	} else {
		return false;
	}
	frame->rax = frame->vector;
	return true;
}

/*
 * A breakpoint that the guest has armed can match in Parapet too where the processor does not disable
 * it at the exit (QEMU 7.2): #DB goes on past it. That works everywhere but where the guest's own TR
 * and GS are still loaded, on the way here, and on the way of an NMI: all of that is in .text.guarded,
 * and the platform sees to it that no breakpoint is armed there (platform/svm/debug.c).
 */
__attribute__((section(".text.guarded"))) void interrupt_handle(struct interrupt_frame *frame)
{
	struct cpu *cpu = cpu_this();

	switch (frame->vector) {
	case VECTOR_NMI:
		/*
		 * A kick leaves its mark before it sends (apic_kick), and nobody sends while the
		 * mark is there: an NMI that finds none is from outside.
		 */
		if (!cpu_take_kick(cpu)) {
			cpu->outside_nmis++;
		}
		end_sleep(frame);
		return;
	case VECTOR_DB:
		cpu->debug_traps++;
		frame->rflags |= RFLAGS_RF;
		return;
	case VECTOR_GP:
		if (fault_resume(frame)) {
			return;
		}
		break;
	default:
		break;
	}
	if (!take_low_vector(frame)) {
		fault_exception(frame);
	}
}
