/*
 * Emulator of one decoded instruction with a memory operand: arithmetic, flags and the order of
 * effects. Registers change only after the last memory access has succeeded.
 */
#include "arch/x86/insn/emulate.h"

#define FLAG_CF (1ull << 0)
#define FLAG_PF (1ull << 2)
#define FLAG_AF (1ull << 4)
#define FLAG_ZF (1ull << 6)
#define FLAG_SF (1ull << 7)
#define FLAG_DF (1ull << 10)
#define FLAG_OF (1ull << 11)
#define FLAG_RF (1ull << 16)

#define FLAGS_RESULT	 (FLAG_PF | FLAG_ZF | FLAG_SF)
#define FLAGS_ARITHMETIC (FLAGS_RESULT | FLAG_CF | FLAG_AF | FLAG_OF)

static uint64_t size_mask(unsigned int size)
{
	return ~0ull >> (64 - 8 * size);
}

static uint64_t sign_extend(uint64_t value, unsigned int size)
{
	unsigned int unused = 64 - 8 * size;

	return (uint64_t)((int64_t)(value << unused) >> unused);
}

/* --- addresses ---------------------------------------------------------------------------- */

static gva_t linear_address(const struct insn *insn, const struct insn_context *context,
	unsigned int segment, uint64_t offset)
{
	offset &= size_mask(insn->address_size);
	if (insn->mode != INSN_LONG64)
		return GVA((context->segment_base[segment] + offset) & size_mask(4));
	if (segment == INSN_FS || segment == INSN_GS)
		offset += context->segment_base[segment];
	return GVA(offset);
}

/* Byte offset, from the operand's address, of the word with the bit that a register selects. */
static uint64_t bit_word_offset(const struct insn *insn, const struct insn_registers *registers)
{
	uint64_t bit = sign_extend(registers->gpr[insn->reg], insn->operand_size);

	return (uint64_t)((int64_t)bit >> 3) & ~(uint64_t)(insn->operand_size - 1);
}

gva_t insn_effective_address(const struct insn *insn, const struct insn_context *context)
{
	const struct insn_registers *registers = context->registers;
	uint64_t offset = (uint64_t)insn->displacement;

	if (insn->base == INSN_RIP)
		offset += registers->rip + insn->length;
	else if (insn->base != INSN_NONE)
		offset += registers->gpr[insn->base];
	if (insn->index != INSN_NONE)
		offset += registers->gpr[insn->index] * insn->scale;
	if (insn->op >= INSN_BT && insn->op <= INSN_BTC && (insn->flags & INSN_IMMEDIATE) == 0)
		offset += bit_word_offset(insn, registers);
	return linear_address(insn, context, insn->segment, offset);
}

gva_t insn_destination_address(const struct insn *insn, const struct insn_context *context)
{
	return linear_address(insn, context, INSN_ES, context->registers->gpr[INSN_RDI]);
}

/* --- registers ---------------------------------------------------------------------------- */

/* Eight and sixteen bits leave the rest of a register alone, thirty-two clear it. */
static uint64_t merge_register(uint64_t old, unsigned int size, uint64_t value)
{
	uint64_t mask = size_mask(size);

	return size >= 4 ? value & mask : (old & ~mask) | (value & mask);
}

static uint64_t operand_read(const struct insn *insn, const struct insn_registers *registers)
{
	uint64_t value;

	if ((insn->flags & INSN_IMMEDIATE) != 0)
		value = (uint64_t)insn->immediate;
	else if (insn->reg == INSN_NONE)
		return 0; /* NOT, NEG, INC, DEC have no other operand */
	else
		value = registers->gpr[insn->reg] >> ((insn->flags & INSN_HIGH_BYTE) != 0 ? 8 : 0);
	return value & size_mask(insn->operand_size);
}

static void operand_write(const struct insn *insn, struct insn_registers *registers, uint64_t value)
{
	uint64_t *reg = &registers->gpr[insn->reg];

	if ((insn->flags & INSN_HIGH_BYTE) != 0)
		*reg = (*reg & ~0xFF00ull) | (value & 0xFF) << 8;
	else
		*reg = merge_register(*reg, insn->operand_size, value);
}

static enum insn_result complete(const struct insn *insn, struct insn_registers *registers)
{
	registers->rip += insn->length;
	if (insn->mode != INSN_LONG64)
		registers->rip &= size_mask(4);
	registers->rflags &= ~FLAG_RF;
	return INSN_DONE;
}

/* --- arithmetic --------------------------------------------------------------------------- */

/* An operand size, flags in and out. */
struct alu {
	unsigned int size;
	uint64_t flags;
};

static void alu_set_flags(struct alu *alu, uint64_t affected, uint64_t set)
{
	alu->flags = (alu->flags & ~affected) | (set & affected);
}

static uint64_t alu_result_flags(const struct alu *alu, uint64_t result)
{
	uint64_t flags = 0;
	unsigned int nibble = (result ^ result >> 4) & 15;

	if ((result & size_mask(alu->size)) == 0)
		flags |= FLAG_ZF;
	if ((result >> (8 * alu->size - 1) & 1) != 0)
		flags |= FLAG_SF;
	if ((0x9669u >> nibble & 1) != 0) /* bit n is set where n has an even number of bits */
		flags |= FLAG_PF;
	return flags;
}

/* Bit n of carries is the carry, or borrow, out of bit n. */
static uint64_t alu_set_arithmetic(struct alu *alu, uint64_t result, uint64_t carries)
{
	unsigned int top = 8 * alu->size - 1;
	uint64_t flags = alu_result_flags(alu, result);

	if ((carries >> top & 1) != 0)
		flags |= FLAG_CF;
	if ((carries >> 3 & 1) != 0)
		flags |= FLAG_AF;
	if (((carries >> top ^ carries >> (top - 1)) & 1) != 0)
		flags |= FLAG_OF;
	alu_set_flags(alu, FLAGS_ARITHMETIC, flags);
	return result;
}

static uint64_t alu_add(struct alu *alu, uint64_t a, uint64_t b, uint64_t carry)
{
	uint64_t result = a + b + carry;

	return alu_set_arithmetic(alu, result, (a & b) | ((a | b) & ~result));
}

static uint64_t alu_subtract(struct alu *alu, uint64_t a, uint64_t b, uint64_t borrow)
{
	uint64_t result = a - b - borrow;

	return alu_set_arithmetic(alu, result, (~a & b) | ((~a | b) & result));
}

static uint64_t alu_logic(struct alu *alu, uint64_t result)
{
	alu_set_flags(alu, FLAGS_RESULT | FLAG_CF | FLAG_OF, alu_result_flags(alu, result));
	return result;
}

/* INC and DEC leave CF alone. */
static uint64_t alu_step(struct alu *alu, uint64_t a, bool up)
{
	uint64_t carry = alu->flags & FLAG_CF;
	uint64_t result = up ? alu_add(alu, a, 1, 0) : alu_subtract(alu, a, 1, 0);

	alu_set_flags(alu, FLAG_CF, carry);
	return result;
}

static uint64_t alu_bit(struct alu *alu, enum insn_op op, uint64_t a, uint64_t b)
{
	unsigned int number = b & (8 * alu->size - 1);
	uint64_t bit = 1ull << number;

	alu_set_flags(alu, FLAG_CF, a >> number & 1);
	if (op == INSN_BTS)
		return a | bit;
	if (op == INSN_BTR)
		return a & ~bit;
	return op == INSN_BTC ? a ^ bit : a;
}

/* What a binary or unary instruction makes of a and b, in that order; CMP, TEST and BT included. */
static uint64_t alu_compute(struct alu *alu, enum insn_op op, uint64_t a, uint64_t b)
{
	uint64_t carry = alu->flags & FLAG_CF;

	switch (op) {
	case INSN_ADD:
		return alu_add(alu, a, b, 0);
	case INSN_ADC:
		return alu_add(alu, a, b, carry);
	case INSN_SUB:
	case INSN_CMP:
		return alu_subtract(alu, a, b, 0);
	case INSN_SBB:
		return alu_subtract(alu, a, b, carry);
	case INSN_OR:
		return alu_logic(alu, a | b);
	case INSN_AND:
	case INSN_TEST:
		return alu_logic(alu, a & b);
	case INSN_XOR:
		return alu_logic(alu, a ^ b);
	case INSN_NOT:
		return ~a;
	case INSN_NEG:
		return alu_subtract(alu, 0, a, 0);
	case INSN_INC:
	case INSN_DEC:
		return alu_step(alu, a, op == INSN_INC);
	default: /* BT, BTS, BTR, BTC: the caller passes no other */
		return alu_bit(alu, op, a, b);
	}
}

/* --- instructions ------------------------------------------------------------------------- */

static bool memory_read(
	const struct insn_context *context, gva_t address, unsigned int size, uint64_t *value)
{
	*value = 0;
	if (!context->read(context->arg, address, size, value))
		return false;
	*value &= size_mask(size);
	return true;
}

static bool memory_write(
	const struct insn_context *context, gva_t address, unsigned int size, uint64_t value)
{
	return context->write(context->arg, address, size, value & size_mask(size));
}

static enum insn_result emulate_move(const struct insn *insn, const struct insn_context *context)
{
	struct insn_registers *registers = context->registers;
	gva_t address = insn_effective_address(insn, context);
	uint64_t value;

	if ((insn->flags & INSN_WRITE) != 0) {
		value = operand_read(insn, registers);
		if (!memory_write(context, address, insn->memory_size, value))
			return INSN_FAULT;
		return complete(insn, registers);
	}
	if (!memory_read(context, address, insn->memory_size, &value))
		return INSN_FAULT;
	if (insn->op == INSN_MOVSX)
		value = sign_extend(value, insn->memory_size);
	operand_write(insn, registers, value);
	return complete(insn, registers);
}

/* XCHG, XADD, CMPXCHG: both memory and a register change. */
static enum insn_result emulate_exchange(
	const struct insn *insn, const struct insn_context *context)
{
	struct insn_registers *registers = context->registers;
	struct alu alu = {insn->operand_size, registers->rflags};
	gva_t address = insn_effective_address(insn, context);
	uint64_t operand = operand_read(insn, registers);
	uint64_t accumulator = registers->gpr[INSN_RAX] & size_mask(alu.size);
	uint64_t old;
	uint64_t new = operand;

	if (!memory_read(context, address, alu.size, &old))
		return INSN_FAULT;
	if (insn->op == INSN_XADD)
		new = alu_add(&alu, old, operand, 0);
	else if (insn->op == INSN_CMPXCHG && alu_subtract(&alu, accumulator, old, 0) != 0)
		new = old;
	if (!memory_write(context, address, alu.size, new))
		return INSN_FAULT;

	if (insn->op != INSN_CMPXCHG)
		operand_write(insn, registers, old);
	else if (accumulator != old)
		registers->gpr[INSN_RAX] = merge_register(registers->gpr[INSN_RAX], alu.size, old);
	registers->rflags = alu.flags;
	return complete(insn, registers);
}

/* One operation on memory and perhaps a register or an immediate; the result goes to either. */
static enum insn_result emulate_alu(const struct insn *insn, const struct insn_context *context)
{
	struct insn_registers *registers = context->registers;
	struct alu alu = {insn->operand_size, registers->rflags};
	gva_t address = insn_effective_address(insn, context);
	uint64_t operand = operand_read(insn, registers);
	bool discard = insn->op == INSN_CMP || insn->op == INSN_TEST || insn->op == INSN_BT;
	uint64_t memory, result;

	if (!memory_read(context, address, alu.size, &memory))
		return INSN_FAULT;
	if ((insn->flags & INSN_REG_FIRST) != 0)
		result = alu_compute(&alu, insn->op, operand, memory);
	else
		result = alu_compute(&alu, insn->op, memory, operand);
	if ((insn->flags & INSN_WRITE) != 0) {
		if (!memory_write(context, address, alu.size, result))
			return INSN_FAULT;
	} else if (!discard) {
		operand_write(insn, registers, result);
	}
	registers->rflags = alu.flags;
	return complete(insn, registers);
}

/* Moves rSI or rDI on by one element. */
static void string_advance(
	const struct insn *insn, struct insn_registers *registers, unsigned int index)
{
	uint64_t size = insn->operand_size;
	uint64_t step = (registers->rflags & FLAG_DF) != 0 ? -size : size;
	uint64_t *reg = &registers->gpr[index];

	*reg = merge_register(*reg, insn->address_size, *reg + step);
}

/* MOVS, STOS, LODS, once. */
static enum insn_result emulate_string(const struct insn *insn, const struct insn_context *context)
{
	struct insn_registers *registers = context->registers;
	unsigned int size = insn->operand_size;
	uint64_t *count = &registers->gpr[INSN_RCX];
	bool repeat = (insn->flags & INSN_REP) != 0;
	uint64_t value = registers->gpr[INSN_RAX];

	if (repeat && (*count & size_mask(insn->address_size)) == 0)
		return complete(insn, registers);
	if ((insn->flags & INSN_READ) != 0 &&
		!memory_read(context, insn_effective_address(insn, context), size, &value))
		return INSN_FAULT;
	if ((insn->flags & INSN_WRITE) != 0 &&
		!memory_write(context, insn_destination_address(insn, context), size, value))
		return INSN_FAULT;

	if (insn->op == INSN_LODS)
		operand_write(insn, registers, value);
	if ((insn->flags & INSN_READ) != 0)
		string_advance(insn, registers, INSN_RSI);
	if ((insn->flags & INSN_WRITE) != 0)
		string_advance(insn, registers, INSN_RDI);
	if (repeat) {
		*count = merge_register(*count, insn->address_size, *count - 1);
		if ((*count & size_mask(insn->address_size)) != 0)
			return INSN_AGAIN;
	}
	return complete(insn, registers);
}

enum insn_result insn_emulate(const struct insn *insn, const struct insn_context *context)
{
	if (insn->op >= INSN_ADD && insn->op <= INSN_BTC)
		return emulate_alu(insn, context);
	switch (insn->op) {
	case INSN_MOV:
	case INSN_MOVZX:
	case INSN_MOVSX:
		return emulate_move(insn, context);
	case INSN_TEST:
	case INSN_NOT:
	case INSN_NEG:
	case INSN_INC:
	case INSN_DEC:
		return emulate_alu(insn, context);
	case INSN_XCHG:
	case INSN_XADD:
	case INSN_CMPXCHG:
		return emulate_exchange(insn, context);
	case INSN_MOVS:
	case INSN_STOS:
	case INSN_LODS:
		return emulate_string(insn, context);
	default:
		return INSN_UNSUPPORTED;
	}
}
