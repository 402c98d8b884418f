/* An instruction that may fault, as the attacks that main.c and deputy.c make. */
#ifndef ATTEMPT_H
#define ATTEMPT_H

#include <asm/asm.h>

/* `faulted`, an int that is 1 before, is 0 if it has not. What follows are further operands, from %1 on. */
#define ATTEMPT(faulted, instruction, ...)                                                         \
	asm volatile("1: " instruction "\n\txorl %0, %0\n2:\n" _ASM_EXTABLE(1b, 2b)                \
		     : "+r"(faulted), __VA_ARGS__)

#endif
