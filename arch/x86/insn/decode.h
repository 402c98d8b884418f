/*
 * Instruction decoder: what a trapped guest instruction does to memory, and how long it is. For
 * processors that give neither decode assistance nor the next instruction's address.
 *
 * It knows the instructions that Parapet emulates or steps over, and no others: everything else is
 * INSN_UNKNOWN. Every byte is hostile. No globals, no allocation and no guest memory in here: the
 * caller has copied the bytes once and hands them in.
 *
 * Specification: AMD64 APM volume 3, chapter 1 (encoding) and appendix A (opcode maps).
 */
#ifndef PARAPET_INSN_DECODE_H
#define PARAPET_INSN_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INSN_BYTES_MAX 15 /* a longer instruction is a #GP, whatever it says */

/*
 * How the bytes are read: LONG64 when CS.L is set under EFER.LMA; REAL16 in real and virtual-8086
 * mode; else PROT32 or PROT16 by CS.D, in compatibility mode too.
 */
enum insn_mode {
	INSN_REAL16,
	INSN_PROT16,
	INSN_PROT32,
	INSN_LONG64,
};

/* Hardware order of segment registers, and of the bases in struct insn_context. */
enum insn_segment {
	INSN_ES,
	INSN_CS,
	INSN_SS,
	INSN_DS,
	INSN_FS,
	INSN_GS,
	INSN_SEGMENTS,
};

/* Hardware order of general registers; 8 to 15 are R8 to R15. */
enum insn_register {
	INSN_RAX,
	INSN_RCX,
	INSN_RDX,
	INSN_RBX,
	INSN_RSP,
	INSN_RBP,
	INSN_RSI,
	INSN_RDI,
	INSN_RIP = 16, /* only as a base: the address counts from the next instruction */
	INSN_NONE = 17, /* no such register in this instruction */
};

enum insn_op {
	INSN_UNKNOWN = 0, /* not ours, or not an instruction at all */
	INSN_TRUNCATED, /* the bytes end before the instruction does, and more may follow */

	/* With a memory operand; insn_emulate() does these. ADD-CMP, BT-BTC: encoding order. */
	INSN_ADD,
	INSN_OR,
	INSN_ADC,
	INSN_SBB,
	INSN_AND,
	INSN_SUB,
	INSN_XOR,
	INSN_CMP,
	INSN_BT,
	INSN_BTS,
	INSN_BTR,
	INSN_BTC,
	INSN_MOV, /* MOVNTI too */
	INSN_MOVZX,
	INSN_MOVSX, /* MOVSXD too */
	INSN_XCHG,
	INSN_TEST,
	INSN_NOT,
	INSN_NEG,
	INSN_INC,
	INSN_DEC,
	INSN_CMPXCHG,
	INSN_XADD,
	INSN_MOVS,
	INSN_STOS,
	INSN_LODS,

	/* With a memory operand, recognised only. */
	INSN_VECTOR, /* an SSE move: reg is the XMM register, memory_size 4, 8 or 16 */
	INSN_INS,
	INSN_OUTS,

	/* Stepped over. In register or memory form where both exist. */
	INSN_IN, /* port: the immediate, or DX without INSN_IMMEDIATE; operand_size 1, 2 or 4 */
	INSN_OUT,
	INSN_CPUID,
	INSN_RDMSR,
	INSN_WRMSR,
	INSN_RDTSC,
	INSN_RDTSCP,
	INSN_RDPMC,
	INSN_HLT,
	INSN_PAUSE,
	INSN_MONITOR,
	INSN_MWAIT,
	INSN_INVD,
	INSN_WBINVD,
	INSN_INVLPG,
	INSN_XSETBV,
	INSN_XGETBV,
	INSN_RSM,
	INSN_UD2,
	INSN_CLTS,
	INSN_CLI,
	INSN_STI,
	INSN_PUSHF,
	INSN_POPF,
	INSN_IRET,
	INSN_INT3,
	INSN_INT, /* the immediate is the vector */
	INSN_VMRUN,
	INSN_VMMCALL, /* VMGEXIT too, which is the same outside SEV-ES */
	INSN_VMCALL, /* Intel's, which is #UD on AMD's processors: a guest may probe with it */
	INSN_VMLOAD,
	INSN_VMSAVE,
	INSN_STGI,
	INSN_CLGI,
	INSN_SKINIT,
	INSN_INVLPGA,
	INSN_SGDT,
	INSN_SIDT,
	INSN_LGDT,
	INSN_LIDT,
	INSN_SLDT,
	INSN_STR,
	INSN_LLDT,
	INSN_LTR,
	INSN_SMSW,
	INSN_LMSW,
	INSN_MOV_FROM_CR, /* rm is the general register, reg the control or debug register */
	INSN_MOV_TO_CR,
	INSN_MOV_FROM_DR,
	INSN_MOV_TO_DR,
};

/* Bits of struct insn's flags. */
#define INSN_MEMORY    (1u << 0) /* there is a memory operand; else rm says which register */
#define INSN_READ      (1u << 1) /* memory is read... */
#define INSN_WRITE     (1u << 2) /* ... or written; both: read, modified and written, or MOVS */
#define INSN_IMMEDIATE (1u << 3) /* the other operand is the immediate, not reg */
#define INSN_HIGH_BYTE (1u << 4) /* reg 0 to 3 means AH, CH, DH, BH */
#define INSN_LOCK      (1u << 5)
#define INSN_REP       (1u << 6) /* on a string instruction, by F2 as well as by F3 */
#define INSN_REG_FIRST (1u << 7) /* reg is the destination, or what CMP subtracts from */

/*
 * A decoded instruction. The memory operand of LODS, OUTS and MOVS is the source at rSI, that of
 * STOS and INS the destination at rDI; MOVS writes to ES:rDI besides.
 */
struct insn {
	uint8_t op; /* enum insn_op */
	uint8_t mode; /* enum insn_mode it was decoded for */
	uint8_t length; /* bytes, 1 to 15; 0 if op is INSN_UNKNOWN or INSN_TRUNCATED */
	uint8_t flags; /* INSN_MEMORY, ... */
	uint8_t operand_size; /* bytes of the other operand and of the result */
	uint8_t memory_size; /* bytes read from or written to memory; 0 if none (INVLPG) */
	uint8_t address_size; /* bytes of an address: 2, 4 or 8 */
	uint8_t segment; /* enum insn_segment of the memory operand, overrides applied */
	uint8_t base; /* enum insn_register, INSN_RIP or INSN_NONE */
	uint8_t index; /* enum insn_register or INSN_NONE */
	uint8_t scale; /* the index times 1, 2, 4 or 8 */
	uint8_t reg; /* the other operand's register, or INSN_NONE */
	uint8_t rm; /* register in place of the memory operand, or INSN_NONE */
	int64_t displacement; /* sign-extended */
	int64_t immediate; /* sign-extended from its encoded width */
};

/*
 * Decodes the instruction that begins at bytes[0]. Reads at most the first 15 of the count bytes.
 * Returns true and fills *insn; or returns false with insn->op INSN_UNKNOWN or, when count is below
 * 15 and more bytes might complete it, INSN_TRUNCATED, and every other field 0 except the mode.
 * INSN_UNKNOWN besides, though processors know them: register forms of instructions that exist here
 * for their memory operand, opcode aliases (82, F6 /1), LOCK MOV CR0 and MOVSXD to 16 bits.
 */
bool insn_decode(const uint8_t *bytes, size_t count, enum insn_mode mode, struct insn *insn);

/*
 * Length in bytes of the instruction at bytes[0], redundant prefixes included: what to add to rIP
 * in order to step over it. 0 if it is not one that insn_decode() knows, or is cut short.
 */
size_t insn_length(const uint8_t *bytes, size_t count, enum insn_mode mode);

#endif
