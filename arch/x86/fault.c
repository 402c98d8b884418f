/* Reports of Parapet's own faults. See fault.h. */
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/fault.h"
#include "arch/x86/log.h"
#include "arch/x86/symbols.h"
#include "core/atomic.h"

#define BACKTRACE_MAX 24

extern const uint8_t image_text_start[];
extern const uint8_t image_text_end[];
extern const uint8_t fault_rdmsr_at[], fault_rdmsr_failed[];
extern const uint8_t fault_wrmsr_at[], fault_wrmsr_failed[];

static const struct fault_hooks *hooks;
static struct atomic_u32 reporting;

void fault_set_hooks(const struct fault_hooks *new_hooks)
{
	hooks = new_hooks;
}

const char *symbol_find(uint64_t address, uint64_t *offset)
{
	uint64_t in_text = address - (uint64_t)image_text_start;
	uint32_t low = 0;
	uint32_t high = symbol_count;

	if (in_text >= (uint64_t)(image_text_end - image_text_start)) {
		return NULL;
	}
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (symbol_table[middle].offset <= in_text) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	if (low == 0) {
		return NULL;
	}
	*offset = in_text - symbol_table[low - 1].offset;
	return &symbol_names[symbol_table[low - 1].name];
}

static void report_address(uint64_t address)
{
	uint64_t offset = 0;
	const char *name = symbol_find(address, &offset);

	if (name) {
		log_line("  0x%016lx %s+0x%lx", address, name, offset);
	} else {
		log_line("  0x%016lx", address);
	}
}

/* Frame pointers lead up the stack; every step must go up and stay close. */
static void report_backtrace(uint64_t rip, uint64_t frame, uint64_t stack)
{
	log_line("backtrace:");
	report_address(rip);
	if (rip - (uint64_t)image_text_start >= (uint64_t)(image_text_end - image_text_start) &&
		stack >= IMAGE_BASE && stack % 8 == 0) {
		report_address(*(const uint64_t *)stack - 1); /* a call that led out of the text */
	}
	for (int depth = 0; depth < BACKTRACE_MAX; depth++) {
		if (frame < IMAGE_BASE || frame % 8 != 0) {
			break;
		}

		const uint64_t *words = (const uint64_t *)frame;
		uint64_t next = words[0];

		if (!words[1]) {
			break;
		}
		report_address(words[1] - 1);
		if (next <= frame || next - frame > STACK_BYTES) {
			break;
		}
		frame = next;
	}
}

/* The first processor to get here reports; any other one waits for its end. */
static void begin_report(void)
{
	/* Acquire and release only to be read as a lock: the winner is whoever finds 0. */
	if (atomic_u32_exchange(&reporting, 1, memory_order_acq_rel)) {
		asm_halt_forever();
	}
	log_take_over();
}

static void __attribute__((noreturn)) finish(void)
{
	struct cpu *cpu = cpu_this();

	if (hooks) {
		hooks->describe(cpu->context);
		hooks->finish();
	}
	log_line("@end parapet-fault 0");
	asm_halt_forever();
}

bool fault_resume(struct interrupt_frame *frame)
{
	if (frame->rip == (uint64_t)fault_rdmsr_at) {
		frame->rip = (uint64_t)fault_rdmsr_failed;
		return true;
	}
	if (frame->rip == (uint64_t)fault_wrmsr_at) {
		frame->rip = (uint64_t)fault_wrmsr_failed;
		return true;
	}
	return false;
}

void fault_exception(const struct interrupt_frame *f)
{
	static const char *const names[32] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD",
		"#NM", "#DF", "9", "#TS", "#NP", "#SS", "#GP", "#PF", "15", "#MF", "#AC", "#MC",
		"#XM"};
	const char *name = names[f->vector & 31];

	begin_report();
	log_line("E Parapet itself faulted: %s, error code 0x%lx, on processor %u",
		name ? name : "?", f->error, cpu_this()->id);
	log_line("  rip 0x%016lx  rsp 0x%016lx  rflags 0x%lx", f->rip, f->rsp, f->rflags);
	log_line("  rax 0x%016lx  rbx 0x%016lx  rcx 0x%016lx", f->rax, f->rbx, f->rcx);
	log_line("  rdx 0x%016lx  rsi 0x%016lx  rdi 0x%016lx", f->rdx, f->rsi, f->rdi);
	log_line("  rbp 0x%016lx  r8  0x%016lx  r9  0x%016lx", f->rbp, f->r8, f->r9);
	log_line("  r10 0x%016lx  r11 0x%016lx  r12 0x%016lx", f->r10, f->r11, f->r12);
	log_line("  r13 0x%016lx  r14 0x%016lx  r15 0x%016lx", f->r13, f->r14, f->r15);
	log_line("  cr0 0x%lx  cr2 0x%016lx  cr3 0x%lx  cr4 0x%lx", asm_read_cr0(), asm_read_cr2(),
		asm_read_cr3(), asm_read_cr4());
	report_backtrace(f->rip, f->rbp, f->rsp);
	finish();
}

void fault_stop(const char *format, ...)
{
	char text[160];
	va_list arguments;

	va_start(arguments, format);
	print_format_list(text, sizeof(text), format, arguments);
	va_end(arguments);
	begin_report();
	log_line("E Parapet stops: %s", text);
	report_backtrace((uint64_t)__builtin_return_address(0) - 1,
		*(const uint64_t *)__builtin_frame_address(0), 0);
	finish();
}
