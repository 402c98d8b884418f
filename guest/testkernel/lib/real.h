/*
 * A visit to real mode and back, on the first processor.
 */
#ifndef TK_REAL_H
#define TK_REAL_H

#include <stdbool.h>
#include <stdint.h>

struct real_result {
	uint32_t interrupts; /* times the real-mode interrupt handler ran */
	uint32_t cpuid_ebx; /* leaf 0, asked in real mode */
	uint32_t cr0; /* as read in real mode */
	uint32_t wrapped; /* the word at ffff:0010, which is linear 0x100000 with A20 on */
	uint32_t undefined; /* times the one VMMCALL raised #UD */
};

/*
 * Leaves long mode, protection and paging; raises a software interrupt so many times, executes
 * CPUID and VMMCALL, comes back. False when there is no page for it.
 */
bool real_mode_visit(uint32_t interrupts, struct real_result *result);

#endif
