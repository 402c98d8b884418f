/*
 * Exceptions and interrupts: one table for all processors, and a way to find out which exception a
 * piece of code raises. Nothing that knows an interrupt controller may enter.
 */
#ifndef TK_TRAP_H
#define TK_TRAP_H

#include <stdint.h>

#define TRAP_NONE (-1)

enum trap_vector {
	TRAP_DE = 0,
	TRAP_DB = 1,
	TRAP_NMI = 2,
	TRAP_BP = 3,
	TRAP_UD = 6,
	TRAP_NM = 7,
	TRAP_DF = 8,
	TRAP_TS = 10,
	TRAP_NP = 11,
	TRAP_SS = 12,
	TRAP_GP = 13,
	TRAP_PF = 14,
	TRAP_MC = 18,
	TRAP_EXCEPTIONS = 32,
};

/* As trap_entry.S pushes it. */
struct trap_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
	uint64_t rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

/* What a caught exception looked like. */
struct trap_record {
	uint64_t vector, error, rip, cr2;
};

/* Loads the table on this processor. */
void trap_load(void);

/* Who answers a vector, on every processor. An exception's handler runs when nothing catches it. */
typedef void (*trap_handler_t)(struct trap_frame *frame);
void trap_handler_set(uint32_t vector, trap_handler_t handler);

/*
 * Runs function(argument). If it raises an exception (not an NMI), gives up the call there and
 * returns the vector, with the details in cpu_self()->trap; otherwise returns TRAP_NONE. Nests.
 */
int trap_catch(void (*function)(void *), void *argument);

/* MSR accesses that may fault: the vector, or TRAP_NONE. *value is only written on success. */
int msr_read_catch(uint32_t msr, uint64_t *value);
int msr_write_catch(uint32_t msr, uint64_t value);

/* Ends this processor, and with it the machine, with an exception that nobody can take. */
_Noreturn void trap_triple_fault(void);

#endif
