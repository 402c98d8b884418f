/*
 * The end of Parapet itself: a report with registers, the exit that was being handled, and a
 * symbolised backtrace, then the machine is stopped. Nothing here returns.
 */
#ifndef PARAPET_ARCH_X86_FAULT_H
#define PARAPET_ARCH_X86_FAULT_H

#include "arch/x86/interrupt.h"

/* What else is to be reported and done; set once by the run loop. */
struct fault_hooks {
	/* Describes the exit that `context` (struct cpu's) was handling, with log_line. */
	void (*describe)(void *context);
	/* Stops the other processors, tells the listener, and ends the machine. */
	__attribute__((noreturn)) void (*finish)(void);
};

void fault_set_hooks(const struct fault_hooks *hooks);

/* An exception that Parapet itself raised. */
void fault_exception(const struct interrupt_frame *frame) __attribute__((noreturn));

/* Something that must be true is not. One sentence without a full stop. */
void fault_stop(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Faults on purpose, for tests of the report. They do not return. */
void fault_test_page(void);
void fault_test_text(void);
void fault_test_data(void);
void fault_test_stack(void);

/* Moves RIP to the failure path if the exception hit one of the two functions below. */
bool fault_resume(struct interrupt_frame *frame);

/* Read or write an MSR that may not exist (fault_msr.S). False if it does not. */
bool fault_safe_rdmsr(uint32_t index, uint64_t *value);
bool fault_safe_wrmsr(uint32_t index, uint64_t value);

#endif
