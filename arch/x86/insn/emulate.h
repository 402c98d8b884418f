/*
 * Emulator of one decoded instruction with a memory operand, for accesses to trapped memory.
 *
 * It computes: registers and flags in, registers and flags out. How memory is reached, what is
 * trapped, translation, segment limits, atomicity and the injection of faults are the caller's,
 * behind two callbacks. No globals, no allocation, no privileged state in here.
 *
 * Specification: AMD64 APM volume 3, chapter 3; addressing: volume 2, chapter 4 (segment bases).
 */
#ifndef PARAPET_INSN_EMULATE_H
#define PARAPET_INSN_EMULATE_H

#include <stdbool.h>
#include <stdint.h>

#include "parapet/types.h"
#include "arch/x86/insn/decode.h"

struct insn_registers {
	uint64_t gpr[16]; /* enum insn_register; rSP too */
	uint64_t rip; /* of the instruction */
	uint64_t rflags;
};

/*
 * What the emulator works on. The callbacks get linear addresses and sizes of 1, 2, 4 or 8 bytes;
 * values are in the low bytes, and a read must leave the others 0. An access may be unaligned and
 * cross a page, and its address need not be canonical. A callback that returns false has had no
 * effect and keeps its reason (the page fault to inject, say) behind arg.
 */
struct insn_context {
	struct insn_registers *registers;
	uint64_t segment_base[INSN_SEGMENTS];
	void *arg;
	bool (*read)(void *arg, gva_t address, unsigned int size, uint64_t *value);
	bool (*write)(void *arg, gva_t address, unsigned int size, uint64_t value);
};

enum insn_result {
	INSN_DONE, /* complete: registers, flags and RIP are those after the instruction */
	INSN_AGAIN, /* one iteration of a REP is complete and more remain: RIP stays */
	INSN_FAULT, /* a callback refused: no register has changed */
	INSN_UNSUPPORTED, /* recognised at most, not emulated: nothing was read or changed */
};

/*
 * Emulates the instruction, or one iteration of it under REP: the caller calls again on INSN_AGAIN,
 * or lets the guest run into the trap again, which bounds its time and keeps interrupts served.
 * A read-modify-write is one read, then one write of the same bytes, also where a comparison
 * (CMPXCHG) writes back what it found; nothing is read after a write, but a read whose write is
 * then refused has happened. INSN_LOCK is for the caller to act on. On INSN_DONE, RFLAGS.RF is
 * clear; a single-step trap (TF) and the end of an interrupt shadow are the caller's. Flags that
 * the manual leaves undefined keep their value.
 */
enum insn_result insn_emulate(const struct insn *insn, const struct insn_context *context);

/*
 * Linear address of the memory operand, from the registers before the instruction: the offset wraps
 * at the address size, the segment base is added (in long mode only that of FS and GS), and outside
 * long mode the sum wraps at 32 bits. For BT, BTS, BTR and BTC with a register operand: of the word
 * that holds the bit. The instruction must have INSN_MEMORY. Neither canonical form nor segment
 * limits are checked.
 */
gva_t insn_effective_address(const struct insn *insn, const struct insn_context *context);

/* Linear address that MOVS, STOS or INS writes to: ES:rDI, with the same wrapping. */
gva_t insn_destination_address(const struct insn *insn, const struct insn_context *context);

#endif
