#include "trap.h"

#include "cpu.h"
#include "machine.h"
#include "tap.h"

#define IST_NMI 1
#define IST_DF	2
#define IST_MC	3

struct gate {
	uint16_t offset_low;
	uint16_t segment;
	uint8_t ist;
	uint8_t type;
	uint16_t offset_middle;
	uint32_t offset_high;
	uint32_t reserved;
};
_Static_assert(sizeof(struct gate) == 16, "AMD64 volume 2, section 4.8.4");

#define STUB_SIZE 16
extern const char trap_stubs[], trap_catch_resume[];
void trap_dispatch(struct trap_frame *frame);

static struct gate gates[256];
static trap_handler_t handlers[256];

void trap_load(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = {sizeof(gates) - 1, (uint64_t)gates};

	/* Every processor writes the same values: no need to ask who is first. */
	for (uint32_t vector = 0; vector < 256; vector++) {
		uint64_t stub = (uint64_t)trap_stubs + vector * STUB_SIZE;

		gates[vector] = (struct gate){
			.offset_low = (uint16_t)stub,
			.segment = SEGMENT_CODE64,
			.ist = vector == TRAP_NMI   ? IST_NMI
				: vector == TRAP_DF ? IST_DF
				: vector == TRAP_MC ? IST_MC
						    : 0,
			.type = 0x8e,
			.offset_middle = (uint16_t)(stub >> 16),
			.offset_high = (uint32_t)(stub >> 32),
		};
	}
	__asm__ volatile("lidt %0" : : "m"(pointer));
}

void trap_handler_set(uint32_t vector, trap_handler_t handler)
{
	handlers[vector] = handler;
}

void trap_dispatch(struct trap_frame *frame)
{
	struct cpu *self = cpu_self();

	if (frame->vector < TRAP_EXCEPTIONS && frame->vector != TRAP_NMI && self->catch_stack) {
		self->trap =
			(struct trap_record){frame->vector, frame->error, frame->rip, cr2_read()};
		frame->rip = (uint64_t)trap_catch_resume;
		frame->cs = SEGMENT_CODE64;
		frame->ss = SEGMENT_DATA;
		frame->rsp = self->catch_stack;
		frame->rax = frame->vector;
		frame->rflags &= ~(FLAG_TF | FLAG_IF);
		return;
	}
	if (handlers[frame->vector]) {
		handlers[frame->vector](frame);
		return;
	}
	tap_bail("unexpected vector %lu on processor %u: error 0x%lx rip 0x%lx rsp 0x%lx cr2 0x%lx",
		frame->vector, self->number, frame->error, frame->rip, frame->rsp, cr2_read());
}

struct msr_access {
	uint32_t msr;
	uint64_t value;
};

static void msr_read_run(void *argument)
{
	struct msr_access *access = argument;

	access->value = msr_read(access->msr);
}

static void msr_write_run(void *argument)
{
	const struct msr_access *access = argument;

	msr_write(access->msr, access->value);
}

int msr_read_catch(uint32_t msr, uint64_t *value)
{
	struct msr_access access = {msr, 0};
	int vector = trap_catch(msr_read_run, &access);

	if (vector == TRAP_NONE)
		*value = access.value;
	return vector;
}

int msr_write_catch(uint32_t msr, uint64_t value)
{
	struct msr_access access = {msr, value};

	return trap_catch(msr_write_run, &access);
}

void trap_triple_fault(void)
{
	const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) empty = {0, 0};

	for (;;)
		__asm__ volatile("lidt %0; int3" : : "m"(empty));
}
