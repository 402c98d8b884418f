/*
 * The decoder against Zydis, over random and structured bytes in every mode: what it takes has the
 * same length, operation and operands there; what Zydis rejects it rejects; and what it claims to
 * know it accepts whenever Zydis does. INSN_ROUNDS=n in the environment sets the strings per mode.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <Zydis/Zydis.h>

#include "arch/x86/insn/decode.h"

#define ROUNDS_DEFAULT 500000

static uint64_t random_state = 0x9E3779B97F4A7C15ull;

static uint32_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 16);
}

static unsigned long rounds(void)
{
	const char *text = getenv("INSN_ROUNDS");

	return text != NULL ? strtoul(text, NULL, 0) : ROUNDS_DEFAULT;
}

/* --- what Zydis calls things -------------------------------------------------------------- */

static const struct {
	ZydisMnemonic mnemonic;
	enum insn_op op;
} names[] = {
	{ZYDIS_MNEMONIC_ADD, INSN_ADD},
	{ZYDIS_MNEMONIC_OR, INSN_OR},
	{ZYDIS_MNEMONIC_ADC, INSN_ADC},
	{ZYDIS_MNEMONIC_SBB, INSN_SBB},
	{ZYDIS_MNEMONIC_AND, INSN_AND},
	{ZYDIS_MNEMONIC_SUB, INSN_SUB},
	{ZYDIS_MNEMONIC_XOR, INSN_XOR},
	{ZYDIS_MNEMONIC_CMP, INSN_CMP},
	{ZYDIS_MNEMONIC_BT, INSN_BT},
	{ZYDIS_MNEMONIC_BTS, INSN_BTS},
	{ZYDIS_MNEMONIC_BTR, INSN_BTR},
	{ZYDIS_MNEMONIC_BTC, INSN_BTC},
	{ZYDIS_MNEMONIC_MOVNTI, INSN_MOV},
	{ZYDIS_MNEMONIC_MOVZX, INSN_MOVZX},
	{ZYDIS_MNEMONIC_MOVSX, INSN_MOVSX},
	{ZYDIS_MNEMONIC_MOVSXD, INSN_MOVSX},
	{ZYDIS_MNEMONIC_XCHG, INSN_XCHG},
	{ZYDIS_MNEMONIC_TEST, INSN_TEST},
	{ZYDIS_MNEMONIC_NOT, INSN_NOT},
	{ZYDIS_MNEMONIC_NEG, INSN_NEG},
	{ZYDIS_MNEMONIC_INC, INSN_INC},
	{ZYDIS_MNEMONIC_DEC, INSN_DEC},
	{ZYDIS_MNEMONIC_CMPXCHG, INSN_CMPXCHG},
	{ZYDIS_MNEMONIC_XADD, INSN_XADD},
	{ZYDIS_MNEMONIC_MOVSB, INSN_MOVS},
	{ZYDIS_MNEMONIC_MOVSW, INSN_MOVS},
	{ZYDIS_MNEMONIC_MOVSQ, INSN_MOVS},
	{ZYDIS_MNEMONIC_STOSB, INSN_STOS},
	{ZYDIS_MNEMONIC_STOSW, INSN_STOS},
	{ZYDIS_MNEMONIC_STOSD, INSN_STOS},
	{ZYDIS_MNEMONIC_STOSQ, INSN_STOS},
	{ZYDIS_MNEMONIC_LODSB, INSN_LODS},
	{ZYDIS_MNEMONIC_LODSW, INSN_LODS},
	{ZYDIS_MNEMONIC_LODSD, INSN_LODS},
	{ZYDIS_MNEMONIC_LODSQ, INSN_LODS},
	{ZYDIS_MNEMONIC_INSB, INSN_INS},
	{ZYDIS_MNEMONIC_INSW, INSN_INS},
	{ZYDIS_MNEMONIC_INSD, INSN_INS},
	{ZYDIS_MNEMONIC_OUTSB, INSN_OUTS},
	{ZYDIS_MNEMONIC_OUTSW, INSN_OUTS},
	{ZYDIS_MNEMONIC_OUTSD, INSN_OUTS},
	{ZYDIS_MNEMONIC_MOVUPS, INSN_VECTOR},
	{ZYDIS_MNEMONIC_MOVUPD, INSN_VECTOR},
	{ZYDIS_MNEMONIC_MOVSS, INSN_VECTOR},
	{ZYDIS_MNEMONIC_MOVAPS, INSN_VECTOR},
	{ZYDIS_MNEMONIC_MOVAPD, INSN_VECTOR},
	{ZYDIS_MNEMONIC_MOVDQA, INSN_VECTOR},
	{ZYDIS_MNEMONIC_MOVDQU, INSN_VECTOR},
	{ZYDIS_MNEMONIC_MOVNTDQ, INSN_VECTOR},
	{ZYDIS_MNEMONIC_IN, INSN_IN},
	{ZYDIS_MNEMONIC_OUT, INSN_OUT},
	{ZYDIS_MNEMONIC_CPUID, INSN_CPUID},
	{ZYDIS_MNEMONIC_RDMSR, INSN_RDMSR},
	{ZYDIS_MNEMONIC_WRMSR, INSN_WRMSR},
	{ZYDIS_MNEMONIC_RDTSC, INSN_RDTSC},
	{ZYDIS_MNEMONIC_RDTSCP, INSN_RDTSCP},
	{ZYDIS_MNEMONIC_RDPMC, INSN_RDPMC},
	{ZYDIS_MNEMONIC_HLT, INSN_HLT},
	{ZYDIS_MNEMONIC_PAUSE, INSN_PAUSE},
	{ZYDIS_MNEMONIC_MONITOR, INSN_MONITOR},
	{ZYDIS_MNEMONIC_MWAIT, INSN_MWAIT},
	{ZYDIS_MNEMONIC_INVD, INSN_INVD},
	{ZYDIS_MNEMONIC_WBINVD, INSN_WBINVD},
	{ZYDIS_MNEMONIC_INVLPG, INSN_INVLPG},
	{ZYDIS_MNEMONIC_XSETBV, INSN_XSETBV},
	{ZYDIS_MNEMONIC_XGETBV, INSN_XGETBV},
	{ZYDIS_MNEMONIC_RSM, INSN_RSM},
	{ZYDIS_MNEMONIC_UD2, INSN_UD2},
	{ZYDIS_MNEMONIC_CLTS, INSN_CLTS},
	{ZYDIS_MNEMONIC_CLI, INSN_CLI},
	{ZYDIS_MNEMONIC_STI, INSN_STI},
	{ZYDIS_MNEMONIC_PUSHF, INSN_PUSHF},
	{ZYDIS_MNEMONIC_PUSHFD, INSN_PUSHF},
	{ZYDIS_MNEMONIC_PUSHFQ, INSN_PUSHF},
	{ZYDIS_MNEMONIC_POPF, INSN_POPF},
	{ZYDIS_MNEMONIC_POPFD, INSN_POPF},
	{ZYDIS_MNEMONIC_POPFQ, INSN_POPF},
	{ZYDIS_MNEMONIC_IRET, INSN_IRET},
	{ZYDIS_MNEMONIC_IRETD, INSN_IRET},
	{ZYDIS_MNEMONIC_IRETQ, INSN_IRET},
	{ZYDIS_MNEMONIC_INT3, INSN_INT3},
	{ZYDIS_MNEMONIC_INT, INSN_INT},
	{ZYDIS_MNEMONIC_VMRUN, INSN_VMRUN},
	{ZYDIS_MNEMONIC_VMMCALL, INSN_VMMCALL},
	{ZYDIS_MNEMONIC_VMCALL, INSN_VMCALL},
	{ZYDIS_MNEMONIC_VMLOAD, INSN_VMLOAD},
	{ZYDIS_MNEMONIC_VMSAVE, INSN_VMSAVE},
	{ZYDIS_MNEMONIC_STGI, INSN_STGI},
	{ZYDIS_MNEMONIC_CLGI, INSN_CLGI},
	{ZYDIS_MNEMONIC_SKINIT, INSN_SKINIT},
	{ZYDIS_MNEMONIC_INVLPGA, INSN_INVLPGA},
	{ZYDIS_MNEMONIC_SGDT, INSN_SGDT},
	{ZYDIS_MNEMONIC_SIDT, INSN_SIDT},
	{ZYDIS_MNEMONIC_LGDT, INSN_LGDT},
	{ZYDIS_MNEMONIC_LIDT, INSN_LIDT},
	{ZYDIS_MNEMONIC_SLDT, INSN_SLDT},
	{ZYDIS_MNEMONIC_STR, INSN_STR},
	{ZYDIS_MNEMONIC_LLDT, INSN_LLDT},
	{ZYDIS_MNEMONIC_LTR, INSN_LTR},
	{ZYDIS_MNEMONIC_SMSW, INSN_SMSW},
	{ZYDIS_MNEMONIC_LMSW, INSN_LMSW},
};

struct reference {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	const ZydisDecodedOperand *memory; /* the operand of struct insn, or NULL */
	const ZydisDecodedOperand *other; /* first visible register or immediate beside it */
	enum insn_op op;
};

static bool is_register(const ZydisDecodedOperand *operand, ZydisRegisterClass class)
{
	return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		ZydisRegisterGetClass(operand->reg.value) == class;
}

static enum insn_op reference_op(const struct reference *z)
{
	const ZydisDecodedOperand *to = &z->operands[0];
	const ZydisDecodedOperand *from = &z->operands[1];

	if (z->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return INSN_UNKNOWN;
	switch (z->insn.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		if (is_register(to, ZYDIS_REGCLASS_CONTROL))
			return INSN_MOV_TO_CR;
		if (is_register(from, ZYDIS_REGCLASS_CONTROL))
			return INSN_MOV_FROM_CR;
		if (is_register(to, ZYDIS_REGCLASS_DEBUG))
			return INSN_MOV_TO_DR;
		if (is_register(from, ZYDIS_REGCLASS_DEBUG))
			return INSN_MOV_FROM_DR;
		if (is_register(to, ZYDIS_REGCLASS_SEGMENT) ||
			is_register(from, ZYDIS_REGCLASS_SEGMENT))
			return INSN_UNKNOWN;
		return INSN_MOV;
	case ZYDIS_MNEMONIC_MOVSD:
		return z->insn.opcode_map == ZYDIS_OPCODE_MAP_0F ? INSN_VECTOR : INSN_MOVS;
	case ZYDIS_MNEMONIC_MOVQ:
		if (z->insn.opcode == 0xD6 ||
			(z->insn.opcode == 0x7E && is_register(to, ZYDIS_REGCLASS_XMM)))
			return INSN_VECTOR;
		return INSN_UNKNOWN;
	default:
		break;
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].mnemonic == z->insn.mnemonic)
			return names[i].op;
	return INSN_UNKNOWN;
}

static bool is_string(enum insn_op op)
{
	return op == INSN_MOVS || op == INSN_STOS || op == INSN_LODS || op == INSN_INS ||
		op == INSN_OUTS;
}

static bool reference_decode(
	const ZydisDecoder *decoder, const uint8_t *bytes, size_t count, struct reference *z)
{
	memset(z, 0, sizeof(*z));
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, count, &z->insn, z->operands)))
		return false;
	z->op = reference_op(z);
	for (unsigned int i = 0; i < z->insn.operand_count; i++) {
		const ZydisDecodedOperand *operand = &z->operands[i];

		/* PUSHF and the like reach the stack besides: not an operand here. */
		if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY &&
			(is_string(z->op) ||
				operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)) {
			if (z->memory == NULL || z->op == INSN_MOVS)
				z->memory = operand;
		} else if (operand->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
			z->other == NULL) {
			z->other = operand;
		}
	}
	return true;
}

/* Instructions that Zydis accepts under a name of ours, and that we refuse on purpose. */
static bool refused_on_purpose(const struct reference *z)
{
	if (z->op == INSN_UNKNOWN)
		return true;
	if (z->op <= INSN_OUTS && z->memory == NULL)
		return true; /* register forms */
	if (z->insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && z->insn.opcode == 0x82)
		return true; /* an alias of 80 */
	if ((z->insn.opcode & 0xFE) == 0xF6 && z->insn.raw.modrm.reg == 1)
		return true; /* an alias of /0 */
	if (z->op == INSN_MOV_FROM_CR || z->op == INSN_MOV_TO_CR)
		return (z->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0; /* AMD's way to CR8 */
	return z->insn.mnemonic == ZYDIS_MNEMONIC_MOVSXD && z->insn.operand_width == 16;
}

/* --- comparison --------------------------------------------------------------------------- */

static uint8_t register_number(ZydisRegister reg)
{
	if (reg == ZYDIS_REGISTER_NONE)
		return INSN_NONE;
	if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
		return INSN_RIP;
	if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_R15B) {
		unsigned int number = reg - ZYDIS_REGISTER_AL;

		return (uint8_t)(number < 4 ? number : number < 8 ? number - 4 : number - 4);
	}
	return (uint8_t)ZydisRegisterGetId(reg);
}

static bool register_high(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}

static uint64_t size_mask(unsigned int size)
{
	return size == 0 ? 0 : ~0ull >> (64 - 8 * size);
}

#define DIFFERS(ours, theirs)                                                                      \
	do {                                                                                       \
		if ((uint64_t)(ours) != (uint64_t)(theirs))                                        \
			return #ours;                                                              \
	} while (0)

static const char *compare_memory(const struct insn *insn, const struct reference *z)
{
	const ZydisDecodedOperandMem *mem = &z->memory->mem;
	bool absolute = insn->base == INSN_NONE && insn->index == INSN_NONE;
	unsigned int reads = (z->memory->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
	unsigned int writes = (z->memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
	uint64_t mask = size_mask(insn->address_size);
	/*
	 * With 32-bit addresses, Zydis 4.0 forgets that SIB base 5 under mod 0 means a displacement
	 * in place of a base also when REX.B is set. The processor does not: test_insn_emulate.c
	 * asks it.
	 */
	bool forgotten = mem->base == ZYDIS_REGISTER_R13D && z->insn.raw.modrm.mod == 0 &&
		z->insn.raw.modrm.rm == 4;
	int64_t displacement = forgotten ? z->insn.raw.disp.value : mem->disp.value;

	DIFFERS(insn->flags & INSN_MEMORY, INSN_MEMORY);
	DIFFERS(insn->rm, INSN_NONE);
	DIFFERS(insn->segment, mem->segment - ZYDIS_REGISTER_ES);
	DIFFERS(insn->base, forgotten ? INSN_NONE : register_number(mem->base));
	DIFFERS(insn->index, register_number(mem->index));
	if (insn->index != INSN_NONE)
		DIFFERS(insn->scale, mem->scale);
	if (absolute)
		DIFFERS((uint64_t)insn->displacement & mask, (uint64_t)displacement & mask);
	else
		DIFFERS(insn->displacement, displacement);
	if (insn->op == INSN_INVLPG) {
		DIFFERS(insn->memory_size, 0);
		return NULL;
	}
	DIFFERS(insn->memory_size * 8, z->memory->size);
	if (insn->op == INSN_MOVS)
		writes = 1; /* the other memory operand */
	DIFFERS((insn->flags & INSN_READ) != 0, reads);
	DIFFERS((insn->flags & INSN_WRITE) != 0, writes);
	return NULL;
}

static const char *compare_other(const struct insn *insn, const struct reference *z)
{
	const ZydisDecodedOperand *other = z->other;
	bool byte_immediate = insn->op == INSN_IN || insn->op == INSN_OUT || insn->op == INSN_INT ||
		(insn->op >= INSN_BT && insn->op <= INSN_BTC);
	unsigned int size = byte_immediate ? 1 : insn->operand_size;

	if (insn->op >= INSN_IN && insn->op != INSN_IN && insn->op != INSN_OUT &&
		insn->op != INSN_INT)
		return NULL;
	if ((insn->flags & INSN_IMMEDIATE) != 0) {
		for (unsigned int i = 0; i < z->insn.operand_count_visible; i++)
			if (z->operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
				other = &z->operands[i];
		if (other == NULL || other->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
			return "no immediate there";
		DIFFERS((uint64_t)insn->immediate & size_mask(size),
			other->imm.value.u & size_mask(size));
		return NULL;
	}
	if (is_string(insn->op) || insn->op == INSN_IN || insn->op == INSN_OUT)
		return NULL;
	if (insn->op == INSN_MOV && z->insn.raw.modrm.offset == 0) {
		DIFFERS(insn->reg, INSN_RAX);
		return NULL;
	}
	if (other == NULL) {
		DIFFERS(insn->reg, INSN_NONE);
		return NULL;
	}
	if (other->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return "no register there";
	DIFFERS(insn->reg, register_number(other->reg.value));
	DIFFERS((insn->flags & INSN_HIGH_BYTE) != 0, register_high(other->reg.value));
	DIFFERS((insn->flags & INSN_REG_FIRST) != 0,
		other == &z->operands[0] && insn->op != INSN_XCHG && insn->op != INSN_TEST);
	if (insn->op != INSN_VECTOR)
		DIFFERS(insn->operand_size * 8, other->size);
	return NULL;
}

static const char *compare_system(const struct insn *insn, const struct reference *z)
{
	const ZydisDecodedOperand *to = &z->operands[0];
	const ZydisDecodedOperand *from = &z->operands[1];

	switch (insn->op) {
	case INSN_MOV_TO_CR:
	case INSN_MOV_TO_DR:
		to = &z->operands[1];
		from = &z->operands[0];
		/* fall through */
	case INSN_MOV_FROM_CR:
	case INSN_MOV_FROM_DR:
		DIFFERS(insn->rm, register_number(to->reg.value));
		DIFFERS(insn->reg, ZydisRegisterGetId(from->reg.value));
		DIFFERS(insn->operand_size * 8, to->size);
		return NULL;
	case INSN_SLDT:
	case INSN_STR:
	case INSN_SMSW:
	case INSN_LLDT:
	case INSN_LTR:
	case INSN_LMSW:
		if (z->memory == NULL)
			DIFFERS(insn->rm, register_number(to->reg.value));
		return NULL;
	case INSN_IN:
		DIFFERS(insn->operand_size * 8, to->size);
		return NULL;
	case INSN_OUT:
		DIFFERS(insn->operand_size * 8, from->size);
		return NULL;
	case INSN_IRET:
		DIFFERS(insn->operand_size * 8, z->insn.operand_width);
		return NULL;
	default:
		return NULL;
	}
}

/* NULL, or what differs. */
static const char *compare(const struct insn *insn, const struct reference *z, enum insn_mode mode)
{
	const char *difference;

	DIFFERS(insn->mode, mode);
	DIFFERS(insn->length, z->insn.length);
	DIFFERS(insn->op, z->op);
	DIFFERS(insn->address_size * 8, z->insn.address_width);
	DIFFERS((insn->flags & INSN_LOCK) != 0, (z->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0);
	if (is_string(insn->op))
		DIFFERS((insn->flags & INSN_REP) != 0,
			(z->insn.attributes &
				(ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
					ZYDIS_ATTRIB_HAS_REPNE)) != 0);
	if (z->memory != NULL)
		difference = compare_memory(insn, z);
	else
		difference = (insn->flags & (INSN_MEMORY | INSN_READ | INSN_WRITE)) != 0
			? "insn->flags has a memory operand"
			: NULL;
	if (difference == NULL)
		difference = compare_other(insn, z);
	if (difference == NULL)
		difference = compare_system(insn, z);
	return difference;
}

static void report(const uint8_t *bytes, enum insn_mode mode, const char *what)
{
	fprintf(stderr, "mode %d, bytes", mode);
	for (unsigned int i = 0; i < INSN_BYTES_MAX; i++)
		fprintf(stderr, " %02x", bytes[i]);
	fprintf(stderr, ": %s\n", what);
}

static unsigned int failures;
static unsigned long accepted;

static void fail_bytes(const uint8_t *bytes, enum insn_mode mode, const char *what)
{
	if (failures++ < 40)
		report(bytes, mode, what);
}

/* A copy of exactly count bytes, so that the sanitizer sees a read too far. */
static bool decode_exactly(
	const uint8_t *bytes, size_t count, enum insn_mode mode, struct insn *insn)
{
	uint8_t *copy = malloc(count != 0 ? count : 1);
	bool result;

	assert_non_null(copy);
	memcpy(copy, bytes, count);
	result = insn_decode(copy, count, mode, insn);
	free(copy);
	return result;
}

static void check(const ZydisDecoder *decoder, const uint8_t *bytes, enum insn_mode mode)
{
	struct reference z;
	struct insn insn, shorter;
	bool theirs = reference_decode(decoder, bytes, INSN_BYTES_MAX, &z);
	bool ours = decode_exactly(bytes, INSN_BYTES_MAX, mode, &insn);
	const char *difference;

	if (!ours) {
		if (insn.op != INSN_UNKNOWN || insn.length != 0)
			fail_bytes(bytes, mode, "refused, but not as unknown");
		if (theirs && !refused_on_purpose(&z))
			fail_bytes(bytes, mode, "refused, but Zydis knows it");
		return;
	}
	accepted++;
	if (!theirs) {
		fail_bytes(bytes, mode, "accepted, but Zydis refuses it");
		return;
	}
	difference = compare(&insn, &z, mode);
	if (difference != NULL) {
		fail_bytes(bytes, mode, difference);
		return;
	}
	if (insn_length(bytes, INSN_BYTES_MAX, mode) != insn.length)
		fail_bytes(bytes, mode, "insn_length");
	if (!decode_exactly(bytes, insn.length, mode, &shorter) ||
		memcmp(&insn, &shorter, sizeof(insn)) != 0)
		fail_bytes(bytes, mode, "different without the bytes after it");
	for (size_t count = 0; count < insn.length; count++)
		if (decode_exactly(bytes, count, mode, &shorter) || shorter.op != INSN_TRUNCATED)
			fail_bytes(bytes, mode, "cut short, but not truncated");
}

/* --- byte strings ------------------------------------------------------------------------- */

/* Opcodes of the table and their neighbours, two-byte ones with 0x100. */
static const uint16_t interesting[] = {0x00, 0x01, 0x02, 0x03, 0x08, 0x13, 0x19, 0x22, 0x29, 0x30,
	0x38, 0x3B, 0x63, 0x6C, 0x6D, 0x6E, 0x6F, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
	0x88, 0x89, 0x8A, 0x8B, 0x90, 0x9C, 0x9D, 0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xAA, 0xAB,
	0xAC, 0xAD, 0xC6, 0xC7, 0xCC, 0xCD, 0xCF, 0xE4, 0xE5, 0xE6, 0xE7, 0xEC, 0xED, 0xEE, 0xEF,
	0xF4, 0xF6, 0xF7, 0xFA, 0xFB, 0xFE, 0xFF, 0x100, 0x101, 0x101, 0x101, 0x106, 0x108, 0x109,
	0x10B, 0x110, 0x111, 0x120, 0x121, 0x122, 0x123, 0x128, 0x129, 0x130, 0x131, 0x132, 0x133,
	0x16F, 0x17E, 0x17F, 0x1A2, 0x1A3, 0x1AA, 0x1AB, 0x1B0, 0x1B1, 0x1B3, 0x1B6, 0x1B7, 0x1BA,
	0x1BB, 0x1BE, 0x1BF, 0x1C0, 0x1C1, 0x1C3, 0x1D6, 0x1E7};

static void make_bytes(uint8_t *bytes, enum insn_mode mode)
{
	static const uint8_t prefixes[] = {
		0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x48, 0x41};
	unsigned int at = 0;
	unsigned int count = random_next() % 4;
	uint32_t kind = random_next() % 8;
	uint16_t opcode;

	for (unsigned int i = 0; i < INSN_BYTES_MAX; i++)
		bytes[i] = (uint8_t)random_next();
	if (kind == 0)
		return;
	if (kind == 1)
		count = random_next() % INSN_BYTES_MAX;
	for (; at < count; at++)
		bytes[at] = prefixes[random_next() % sizeof(prefixes)];
	if (mode == INSN_LONG64 && (random_next() & 1) != 0 && at < INSN_BYTES_MAX)
		bytes[at++] = (uint8_t)(0x40 | (random_next() & 15));
	opcode = kind == 2
		? random_next() & 0x1FF
		: interesting[random_next() % (sizeof(interesting) / sizeof(interesting[0]))];
	if ((opcode & 0x100) != 0 && at < INSN_BYTES_MAX)
		bytes[at++] = 0x0F;
	if (at < INSN_BYTES_MAX)
		bytes[at++] = (uint8_t)opcode;
}

static void decoder_for(enum insn_mode mode, ZydisDecoder *decoder)
{
	static const struct {
		ZydisMachineMode machine;
		ZydisStackWidth stack;
	} modes[] = {
		{ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16},
		{ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
		{ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
		{ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
	};

	assert_true(
		ZYAN_SUCCESS(ZydisDecoderInit(decoder, modes[mode].machine, modes[mode].stack)));
}

static void decode_agrees(enum insn_mode mode)
{
	uint8_t bytes[INSN_BYTES_MAX];
	unsigned long count = rounds();
	ZydisDecoder decoder;

	decoder_for(mode, &decoder);
	failures = 0;
	accepted = 0;
	for (unsigned long i = 0; i < count; i++) {
		make_bytes(bytes, mode);
		check(&decoder, bytes, mode);
	}
	assert_int_equal(failures, 0);
	assert_true(accepted > count / 10); /* the test tests something */
}

static void real16_agrees_with_zydis(void **state)
{
	(void)state;
	decode_agrees(INSN_REAL16);
}

static void prot16_agrees_with_zydis(void **state)
{
	(void)state;
	decode_agrees(INSN_PROT16);
}

static void prot32_agrees_with_zydis(void **state)
{
	(void)state;
	decode_agrees(INSN_PROT32);
}

static void long64_agrees_with_zydis(void **state)
{
	(void)state;
	decode_agrees(INSN_LONG64);
}

/* Every opcode with every ModRM byte, under every single prefix and each REX. */
static void every_opcode_and_modrm_agrees(void **state)
{
	static const uint8_t prefixes[] = {0, 0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x64};

	(void)state;
	failures = 0;
	for (enum insn_mode mode = INSN_REAL16; mode <= INSN_LONG64; mode++) {
		ZydisDecoder decoder;

		decoder_for(mode, &decoder);
		for (unsigned int i = 0; i < 0x200 * 256 * sizeof(prefixes); i++) {
			uint8_t bytes[INSN_BYTES_MAX];
			uint8_t prefix = prefixes[i >> 17];
			unsigned int at = 0;

			for (unsigned int j = 0; j < INSN_BYTES_MAX; j++)
				bytes[j] = (uint8_t)random_next();
			if (prefix != 0)
				bytes[at++] = prefix;
			if (mode == INSN_LONG64 && (i & 1) != 0)
				bytes[at++] = (uint8_t)(0x40 | (random_next() & 15));
			if ((i >> 8 & 0x100) != 0)
				bytes[at++] = 0x0F;
			bytes[at++] = (uint8_t)(i >> 8);
			bytes[at] = (uint8_t)i;
			check(&decoder, bytes, mode);
		}
	}
	assert_int_equal(failures, 0);
}

static void expect(
	enum insn_mode mode, const char *bytes, size_t count, enum insn_op op, unsigned int length)
{
	struct insn insn;

	insn_decode((const uint8_t *)bytes, count, mode, &insn);
	assert_int_equal(insn.op, op);
	assert_int_equal(insn.length, length);
}

#define EXPECT(mode, bytes, op, length)                                                            \
	expect(INSN_##mode, bytes, sizeof(bytes) - 1, INSN_##op, length)

static void hand_made_cases(void **state)
{
	(void)state;
	EXPECT(LONG64, "\x89\x04\x25\xB0\x00\xE0\xFE", MOV, 7); /* mov [0xfee000b0], eax */
	EXPECT(LONG64, "\xF3\x66\x2E\x0F\xA2", CPUID, 5); /* redundant prefixes */
	EXPECT(LONG64, "\x0F\x01\xD9", VMMCALL, 3);
	EXPECT(REAL16, "\xF4", HLT, 1);
	EXPECT(LONG64, "", TRUNCATED, 0);
	EXPECT(LONG64, "\x0F", TRUNCATED, 0);
	EXPECT(LONG64, "\x48\xA1\x00\x00\x00\x00", TRUNCATED, 0);
	/* Fifteen bytes are an instruction, sixteen are not. */
	EXPECT(LONG64, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\xF4", HLT, 15);
	EXPECT(LONG64, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\xF4", UNKNOWN,
		0);
	EXPECT(LONG64, "\xF0\x89\x00", UNKNOWN, 0); /* LOCK MOV */
	EXPECT(LONG64, "\xF0\x39\x00", UNKNOWN, 0); /* LOCK CMP */
	EXPECT(LONG64, "\xF0\x03\x00", UNKNOWN, 0); /* LOCK ADD to a register */
	EXPECT(LONG64, "\xF0\x01\x00", ADD, 3);
	EXPECT(LONG64, "\x89\xC0", UNKNOWN, 0); /* register form */
	EXPECT(LONG64, "\xC5\xF8\x28\x00", UNKNOWN, 0); /* VEX */
	EXPECT(LONG64, "\x62\xF1\x7C\x48\x28\x00", UNKNOWN, 0);
	EXPECT(PROT32, "\x63\x00", UNKNOWN, 0); /* ARPL */
	EXPECT(LONG64, "\x48\x66\x89\x00", MOV, 4); /* this REX does not count */
	EXPECT(LONG64, "\xF3\x90", PAUSE, 2);
	EXPECT(LONG64, "\x90", UNKNOWN, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hand_made_cases),
		cmocka_unit_test(every_opcode_and_modrm_agrees),
		cmocka_unit_test(real16_agrees_with_zydis),
		cmocka_unit_test(prot16_agrees_with_zydis),
		cmocka_unit_test(prot32_agrees_with_zydis),
		cmocka_unit_test(long64_agrees_with_zydis),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
