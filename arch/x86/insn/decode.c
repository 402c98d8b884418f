/*
 * Instruction decoder: prefixes, then the opcode looked up in one table, then operands by its row.
 * Opcode knowledge belongs in the table; the functions know only the encoding.
 */
#include "arch/x86/insn/decode.h"

/* Opcodes of the two-byte map, 0F xx, are 0x1xx here. */
#define TWO_BYTE 0x100

/* How the operands are encoded. */
enum form {
	FORM_PLAIN, /* none, or implied */
	FORM_PORT, /* an immediate byte that is a port or a vector */
	FORM_OFFSET, /* the accumulator, and memory at an absolute offset */
	FORM_SOURCE, /* string: memory at rSI */
	FORM_TARGET, /* string: memory at rDI */
	FORM_MODRM, /* from here on there is a ModRM byte; r/m alone */
	FORM_REGISTER, /* r/m and a general register */
	FORM_VECTOR, /* r/m and a vector register */
	FORM_CONTROL, /* a general register in r/m, whatever mod says, and a control register */
	FORM_DEBUG, /* the same with a debug register */
	FORM_FIXED, /* the ModRM byte is part of the opcode */
	FORM_BYTE, /* r/m and an immediate byte */
	FORM_IMMEDIATE, /* r/m and an immediate of the operand size, at most four bytes */
};

/* Bytes of the operand, and of memory where that differs. */
enum size {
	SIZE_NONE,
	SIZE_1,
	SIZE_2,
	SIZE_4,
	SIZE_8,
	SIZE_16,
	SIZE_V, /* by prefixes and mode */
	SIZE_W, /* one byte, or SIZE_V if the opcode is odd */
	SIZE_IO, /* as SIZE_W, at most four */
	SIZE_EXTEND, /* operand SIZE_V; memory one byte, or two if the opcode is odd */
	SIZE_EXTEND_4, /* operand SIZE_V; memory at most four bytes */
	SIZE_SELECTOR, /* operand SIZE_V; memory two bytes */
	SIZE_NO_16, /* eight under REX.W, else four */
	SIZE_STACK, /* as SIZE_V; eight for four in long mode */
	SIZE_REGISTER, /* eight in long mode, else four */
	SIZE_TABLE, /* base and limit: ten in long mode, else six */
};

/* Which of the prefixes that can select an instruction a row allows. */
#define P_NO  (1u << 0)
#define P_66  (1u << 1)
#define P_F3  (1u << 2)
#define P_F2  (1u << 3)
#define P_ANY (P_NO | P_66 | P_F3 | P_F2)

/* Row traits, beside INSN_READ, INSN_WRITE and INSN_REG_FIRST. */
#define PAIR	(1u << 0) /* this opcode and the next */
#define LONG	(1u << 3) /* in long mode only */
#define NO_REAL (1u << 4) /* not in real mode */
#define NO_REG	(1u << 5) /* memory forms only */
#define LOCK	(1u << 6) /* may have a LOCK prefix */

#define RD INSN_READ
#define TO (RD | INSN_REG_FIRST) /* memory to register */
#define WR INSN_WRITE
#define RW (RD | WR)

#define ANY_DIGIT 8 /* ModRM's reg field is not part of the opcode; at 0xC0, the whole byte is */

struct row {
	uint16_t opcode;
	uint8_t digit;
	uint8_t op;
	uint8_t form;
	uint8_t size;
	uint8_t traits;
	uint8_t prefixes;
};

#define ROW(opcode, digit, op, form, size, traits, prefixes)                                       \
	{                                                                                          \
		opcode, digit, INSN_##op, FORM_##form, SIZE_##size, traits, prefixes               \
	}
#define ONE(opcode, op, form, size, traits) ROW(opcode, ANY_DIGIT, op, form, size, traits, P_ANY)
#define TWO(opcode, op, form, size, traits, prefixes)                                              \
	ROW(TWO_BYTE | (opcode), ANY_DIGIT, op, form, size, traits, prefixes)
#define GROUP(opcode, digit, op, form, size, traits)                                               \
	ROW(opcode, digit, op, form, size, traits, P_ANY)
#define FIXED(modrm, op, traits, prefixes)                                                         \
	ROW(TWO_BYTE | 0x01, modrm, op, FIXED, NONE, traits, prefixes)
#define VECTOR(opcode, size, traits, prefixes)                                                     \
	ROW(TWO_BYTE | (opcode), ANY_DIGIT, VECTOR, VECTOR, size, (traits) | NO_REG, prefixes)

#define ARITHMETIC(digit, op, traits)                                                              \
	ONE(8 * (digit), op, REGISTER, W, PAIR | NO_REG | (traits)),                               \
		ONE(8 * (digit) + 2, op, REGISTER, W, PAIR | NO_REG | TO),                         \
		GROUP(0x80, digit, op, IMMEDIATE, W, PAIR | NO_REG | (traits)),                    \
		GROUP(0x83, digit, op, BYTE, V, NO_REG | (traits))
#define BIT_TEST(digit, op, traits)                                                                \
	TWO(0x83 + 8 * (digit), op, REGISTER, V, NO_REG | (traits), P_ANY),                        \
		GROUP(TWO_BYTE | 0xBA, digit, op, BYTE, V, NO_REG | (traits))

static const struct row rows[] = {
	/* clang-format off */
	/* What exits most is found first. */
	TWO(0x30, WRMSR,  PLAIN, NONE, 0, P_ANY),
	ONE(0x88, MOV,  REGISTER, W, WR  | NO_REG | PAIR),
	ONE(0x8A, MOV,  REGISTER, W, TO | NO_REG | PAIR),
	GROUP(0xC6, 0, MOV, IMMEDIATE, W, WR | NO_REG | PAIR),
	TWO(0x32, RDMSR,  PLAIN, NONE, 0, P_ANY),
	TWO(0xA2, CPUID,  PLAIN, NONE, 0, P_ANY),
	ONE(0xF4, HLT,   PLAIN, NONE, 0),

	ARITHMETIC(0, ADD, RW | LOCK),
	ARITHMETIC(1, OR,  RW | LOCK),
	ARITHMETIC(2, ADC, RW | LOCK),
	ARITHMETIC(3, SBB, RW | LOCK),
	ARITHMETIC(4, AND, RW | LOCK),
	ARITHMETIC(5, SUB, RW | LOCK),
	ARITHMETIC(6, XOR, RW | LOCK),
	ARITHMETIC(7, CMP, RD),
	BIT_TEST(4, BT,  RD),
	BIT_TEST(5, BTS, RW | LOCK),
	BIT_TEST(6, BTR, RW | LOCK),
	BIT_TEST(7, BTC, RW | LOCK),
	ONE(0x63, MOVSX, REGISTER, EXTEND_4, TO | NO_REG | LONG),
	ONE(0x6C, INS,  TARGET, IO, WR | PAIR),
	ONE(0x6E, OUTS, SOURCE, IO, RD | PAIR),
	ONE(0x84, TEST, REGISTER, W, RD | NO_REG | PAIR),
	ONE(0x86, XCHG, REGISTER, W, RW | NO_REG | PAIR | LOCK),
	ONE(0xA0, MOV,  OFFSET, W, TO | PAIR),
	ONE(0xA2, MOV,  OFFSET, W, WR  | PAIR),
	ONE(0xA4, MOVS, SOURCE, W, RW | PAIR),
	ONE(0xAA, STOS, TARGET, W, WR  | PAIR),
	ONE(0xAC, LODS, SOURCE, W, TO | PAIR),
	GROUP(0xF6, 0, TEST, IMMEDIATE, W, RD | NO_REG | PAIR),
	GROUP(0xF6, 2, NOT, MODRM, W, RW | NO_REG | PAIR | LOCK),
	GROUP(0xF6, 3, NEG, MODRM, W, RW | NO_REG | PAIR | LOCK),
	GROUP(0xFE, 0, INC, MODRM, W, RW | NO_REG | PAIR | LOCK),
	GROUP(0xFE, 1, DEC, MODRM, W, RW | NO_REG | PAIR | LOCK),
	TWO(0xB0, CMPXCHG, REGISTER, W, RW | NO_REG | PAIR | LOCK, P_ANY),
	TWO(0xB6, MOVZX, REGISTER, EXTEND, TO | NO_REG | PAIR, P_ANY),
	TWO(0xBE, MOVSX, REGISTER, EXTEND, TO | NO_REG | PAIR, P_ANY),
	TWO(0xC0, XADD, REGISTER, W, RW | NO_REG | PAIR | LOCK, P_ANY),
	TWO(0xC3, MOV, REGISTER, NO_16, WR | NO_REG, P_NO), /* MOVNTI */

	VECTOR(0x10, 16, TO, P_NO | P_66),
	VECTOR(0x10, 4,  TO, P_F3),
	VECTOR(0x10, 8,  TO, P_F2),
	VECTOR(0x11, 16, WR, P_NO | P_66),
	VECTOR(0x11, 4,  WR, P_F3),
	VECTOR(0x11, 8,  WR, P_F2),
	VECTOR(0x28, 16, TO, P_NO | P_66),
	VECTOR(0x29, 16, WR, P_NO | P_66),
	VECTOR(0x6F, 16, TO, P_66 | P_F3),
	VECTOR(0x7E, 8,  TO, P_F3),
	VECTOR(0x7F, 16, WR, P_66 | P_F3),
	VECTOR(0xD6, 8,  WR, P_66),
	VECTOR(0xE7, 16, WR, P_66),

	ROW(0x90, ANY_DIGIT, PAUSE, PLAIN, NONE, 0, P_F3),
	ONE(0x9C, PUSHF, PLAIN, STACK, 0),
	ONE(0x9D, POPF,  PLAIN, STACK, 0),
	ONE(0xCC, INT3,  PLAIN, NONE, 0),
	ONE(0xCD, INT,   PORT, NONE, 0),
	ONE(0xCF, IRET,  PLAIN, V, 0),
	ONE(0xE4, IN,    PORT, IO, PAIR),
	ONE(0xE6, OUT,   PORT, IO, PAIR),
	ONE(0xEC, IN,    PLAIN, IO, PAIR),
	ONE(0xEE, OUT,   PLAIN, IO, PAIR),
	ONE(0xFA, CLI,   PLAIN, NONE, 0),
	ONE(0xFB, STI,   PLAIN, NONE, 0),
	TWO(0x06, CLTS,   PLAIN, NONE, 0, P_ANY),
	TWO(0x08, INVD,   PLAIN, NONE, 0, P_ANY),
	TWO(0x09, WBINVD, PLAIN, NONE, 0, P_ANY), /* under F3, WBNOINVD */
	TWO(0x0B, UD2,    PLAIN, NONE, 0, P_ANY),
	TWO(0x31, RDTSC,  PLAIN, NONE, 0, P_ANY),
	TWO(0x33, RDPMC,  PLAIN, NONE, 0, P_ANY),
	TWO(0xAA, RSM,    PLAIN, NONE, 0, P_ANY),
	TWO(0x20, MOV_FROM_CR, CONTROL, REGISTER, 0, P_ANY),
	TWO(0x21, MOV_FROM_DR, DEBUG,   REGISTER, 0, P_ANY),
	TWO(0x22, MOV_TO_CR,   CONTROL, REGISTER, 0, P_ANY),
	TWO(0x23, MOV_TO_DR,   DEBUG,   REGISTER, 0, P_ANY),
	GROUP(TWO_BYTE | 0x00, 0, SLDT, MODRM, SELECTOR, WR | NO_REAL),
	GROUP(TWO_BYTE | 0x00, 1, STR,  MODRM, SELECTOR, WR | NO_REAL),
	GROUP(TWO_BYTE | 0x00, 2, LLDT, MODRM, 2, RD | NO_REAL),
	GROUP(TWO_BYTE | 0x00, 3, LTR,  MODRM, 2, RD | NO_REAL),
	FIXED(0xC1, VMCALL, 0, P_NO),
	FIXED(0xC8, MONITOR, 0, P_NO),
	FIXED(0xC9, MWAIT, 0, P_NO),
	FIXED(0xD0, XGETBV, 0, P_NO),
	FIXED(0xD1, XSETBV, 0, P_NO),
	FIXED(0xD8, VMRUN, NO_REAL, P_ANY),
	FIXED(0xD9, VMMCALL, 0, P_ANY), /* under F2 or F3, VMGEXIT: the same outside SEV-ES */
	FIXED(0xDA, VMLOAD, NO_REAL, P_ANY),
	FIXED(0xDB, VMSAVE, NO_REAL, P_ANY),
	FIXED(0xDC, STGI, NO_REAL, P_ANY),
	FIXED(0xDD, CLGI, NO_REAL, P_ANY),
	FIXED(0xDE, SKINIT, NO_REAL, P_ANY),
	FIXED(0xDF, INVLPGA, NO_REAL, P_ANY),
	FIXED(0xF9, RDTSCP, 0, P_ANY),
	GROUP(TWO_BYTE | 0x01, 0, SGDT, MODRM, TABLE, WR | NO_REG),
	GROUP(TWO_BYTE | 0x01, 1, SIDT, MODRM, TABLE, WR | NO_REG),
	GROUP(TWO_BYTE | 0x01, 2, LGDT, MODRM, TABLE, RD | NO_REG),
	GROUP(TWO_BYTE | 0x01, 3, LIDT, MODRM, TABLE, RD | NO_REG),
	GROUP(TWO_BYTE | 0x01, 4, SMSW, MODRM, SELECTOR, WR),
	GROUP(TWO_BYTE | 0x01, 6, LMSW, MODRM, 2, RD),
	GROUP(TWO_BYTE | 0x01, 7, INVLPG, MODRM, NONE, NO_REG),
	/* clang-format on */
};

/* What is known half-way through. */
struct decoder {
	const uint8_t *bytes;
	size_t count;
	size_t next;
	bool over; /* a byte was wanted that is not there; it reads as 0 */
	enum insn_mode mode;
	bool operand_prefix;
	bool address_prefix;
	bool lock_prefix;
	uint8_t repeat_prefix; /* 0, 0xF2 or 0xF3 */
	uint8_t segment; /* override, or INSN_SEGMENTS */
	uint8_t rex; /* 0 if there is none */
	uint16_t opcode;
	uint8_t modrm;
};

#define REX_W(d) (((d)->rex & 8) != 0)
#define REX_R(d) (((d)->rex & 4) << 1)
#define REX_X(d) (((d)->rex & 2) << 2)
#define REX_B(d) (((d)->rex & 1) << 3)

#define MOD(d)	   ((d)->modrm >> 6)
#define REG(d)	   ((d)->modrm >> 3 & 7)
#define RM(d)	   ((d)->modrm & 7)
#define MOD_DIRECT 3

static uint8_t decoder_next_byte(struct decoder *d)
{
	if (d->next >= d->count) {
		d->over = true;
		return 0;
	}
	return d->bytes[d->next++];
}

/* A little-endian number of 0, 1, 2, 4 or 8 bytes, sign-extended. */
static int64_t decoder_next_signed(struct decoder *d, unsigned int size)
{
	uint64_t value = 0;
	unsigned int unused = 64 - 8 * size;

	if (size == 0)
		return 0;
	for (unsigned int i = 0; i < size; i++)
		value |= (uint64_t)decoder_next_byte(d) << (8 * i);
	return (int64_t)(value << unused) >> unused;
}

/* Takes all prefixes and the opcode. A REX that is not the last prefix does not count. */
static void decode_opcode(struct decoder *d)
{
	uint8_t byte;

	for (;;) {
		byte = decoder_next_byte(d);
		if (d->mode == INSN_LONG64 && (byte & 0xF0) == 0x40) {
			d->rex = byte;
			continue;
		}
		if (byte == 0x66)
			d->operand_prefix = true;
		else if (byte == 0x67)
			d->address_prefix = true;
		else if (byte == 0xF0)
			d->lock_prefix = true;
		else if (byte == 0xF2 || byte == 0xF3)
			d->repeat_prefix = byte;
		else if (byte == 0x64 || byte == 0x65)
			d->segment = (uint8_t)(INSN_FS + (byte & 1));
		else if ((byte & 0xE7) != 0x26)
			break;
		else if (d->mode != INSN_LONG64) /* there, these four change nothing */
			d->segment = byte >> 3 & 3;
		d->rex = 0;
	}
	d->opcode = byte;
	if (byte == 0x0F)
		d->opcode = TWO_BYTE | decoder_next_byte(d);
}

static bool row_fits(const struct row *row, const struct decoder *d)
{
	unsigned int selecting = P_NO;

	if (d->repeat_prefix != 0)
		selecting = d->repeat_prefix == 0xF3 ? P_F3 : P_F2;
	else if (d->operand_prefix)
		selecting = P_66;
	if ((row->prefixes & selecting) == 0)
		return false;
	if ((row->traits & LONG) != 0 && d->mode != INSN_LONG64)
		return false;
	if ((row->traits & NO_REAL) != 0 && d->mode == INSN_REAL16)
		return false;
	if (row->form < FORM_MODRM)
		return true;
	if (row->form == FORM_FIXED)
		return d->modrm == row->digit;
	if (row->digit != ANY_DIGIT && row->digit != REG(d))
		return false;
	return (row->traits & NO_REG) == 0 || MOD(d) != MOD_DIRECT;
}

/* The row of the opcode, and its ModRM byte if it has one; or NULL. */
static const struct row *decode_row(struct decoder *d)
{
	bool has_modrm = false;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];

		if ((d->opcode & ~(row->traits & PAIR)) != row->opcode)
			continue;
		if (row->form >= FORM_MODRM && !has_modrm) {
			d->modrm = decoder_next_byte(d);
			has_modrm = true;
		}
		if (row_fits(row, d))
			return row;
	}
	return NULL;
}

static void decode_sizes(const struct decoder *d, const struct row *row, struct insn *insn)
{
	bool long_mode = d->mode == INSN_LONG64;
	bool wide = d->mode >= INSN_PROT32;
	uint8_t v = wide != d->operand_prefix ? 4 : 2;
	uint8_t size = v;

	if (long_mode)
		insn->address_size = d->address_prefix ? 4 : 8;
	else
		insn->address_size = wide != d->address_prefix ? 4 : 2;
	if (REX_W(d))
		size = v = 8;

	switch ((enum size)row->size) {
	case SIZE_NONE:
		size = 0;
		break;
	case SIZE_1:
	case SIZE_2:
	case SIZE_4:
	case SIZE_8:
	case SIZE_16:
		size = (uint8_t)(1 << (row->size - SIZE_1));
		break;
	case SIZE_W:
	case SIZE_IO:
		if ((d->opcode & 1) == 0)
			size = 1;
		else if (row->size == SIZE_IO && size == 8)
			size = 4;
		break;
	case SIZE_NO_16:
		size = REX_W(d) ? 8 : 4;
		break;
	case SIZE_STACK:
		size = long_mode && v == 4 ? 8 : v;
		break;
	case SIZE_REGISTER:
		size = long_mode ? 8 : 4;
		break;
	case SIZE_TABLE:
		size = long_mode ? 10 : 6;
		break;
	case SIZE_V:
	case SIZE_EXTEND:
	case SIZE_EXTEND_4:
	case SIZE_SELECTOR:
		break;
	}
	insn->operand_size = size;
	insn->memory_size = size;
	if (row->size == SIZE_EXTEND)
		insn->memory_size = (uint8_t)(1 + (d->opcode & 1));
	else if (row->size == SIZE_EXTEND_4 && size == 8)
		insn->memory_size = 4;
	else if (row->size == SIZE_SELECTOR)
		insn->memory_size = 2;
}

/* Memory at an address with 16-bit components. */
static void decode_address_16(struct decoder *d, struct insn *insn)
{
	static const uint8_t bases[8] = {
		INSN_RBX, INSN_RBX, INSN_RBP, INSN_RBP, INSN_RSI, INSN_RDI, INSN_RBP, INSN_RBX};
	static const uint8_t indexes[4] = {INSN_RSI, INSN_RDI, INSN_RSI, INSN_RDI};
	unsigned int displacement = MOD(d);

	insn->base = bases[RM(d)];
	if (RM(d) < 4)
		insn->index = indexes[RM(d)];
	if (MOD(d) == 0 && RM(d) == 6) {
		insn->base = INSN_NONE;
		displacement = 2;
	}
	insn->displacement = decoder_next_signed(d, displacement);
}

/* Memory at an address with 32-bit or 64-bit components. */
static void decode_address_32(struct decoder *d, struct insn *insn)
{
	unsigned int displacement = MOD(d) == 2 ? 4 : MOD(d);
	unsigned int base = RM(d);

	if (base == 4) {
		uint8_t sib = decoder_next_byte(d);
		unsigned int index = (unsigned int)(REX_X(d) | (sib >> 3 & 7));

		base = sib & 7;
		if (index != INSN_RSP) {
			insn->index = (uint8_t)index;
			insn->scale = (uint8_t)(1 << (sib >> 6));
		}
	}
	insn->base = (uint8_t)(REX_B(d) | base);
	if (base == 5 && MOD(d) == 0) {
		bool relative = d->mode == INSN_LONG64 && RM(d) == 5;

		insn->base = relative ? INSN_RIP : INSN_NONE;
		displacement = 4;
	}
	insn->displacement = decoder_next_signed(d, displacement);
}

/* The r/m operand: a register, or the parts of an address. */
static void decode_rm(struct decoder *d, const struct row *row, struct insn *insn)
{
	if (MOD(d) == MOD_DIRECT || row->form == FORM_CONTROL || row->form == FORM_DEBUG) {
		insn->rm = (uint8_t)(REX_B(d) | RM(d));
		insn->memory_size = 0;
		return;
	}
	insn->flags |= INSN_MEMORY;
	if (insn->address_size == 2)
		decode_address_16(d, insn);
	else
		decode_address_32(d, insn);
	insn->segment = insn->base == INSN_RSP || insn->base == INSN_RBP ? INSN_SS : INSN_DS;
}

/* The general register in ModRM's reg field, with the old names of byte registers 4 to 7. */
static void decode_reg(const struct decoder *d, const struct row *row, struct insn *insn)
{
	insn->reg = (uint8_t)(REX_R(d) | REG(d));
	if (row->form == FORM_REGISTER && insn->operand_size == 1 && d->rex == 0 &&
		insn->reg >= 4) {
		insn->reg -= 4;
		insn->flags |= INSN_HIGH_BYTE;
	}
}

/* Returns false if the operands cannot be. */
static bool decode_operands(struct decoder *d, const struct row *row, struct insn *insn)
{
	bool possible = true;

	if (row->form >= FORM_MODRM && row->form != FORM_FIXED)
		decode_rm(d, row, insn);

	switch ((enum form)row->form) {
	case FORM_PLAIN:
	case FORM_FIXED:
		insn->memory_size = 0;
		break;
	case FORM_PORT:
		insn->memory_size = 0;
		insn->flags |= INSN_IMMEDIATE;
		insn->immediate = decoder_next_signed(d, 1);
		break;
	case FORM_OFFSET:
		insn->flags |= INSN_MEMORY;
		insn->segment = INSN_DS;
		insn->displacement = decoder_next_signed(d, insn->address_size);
		insn->reg = INSN_RAX;
		break;
	case FORM_SOURCE:
	case FORM_TARGET:
		insn->flags |= INSN_MEMORY | (d->repeat_prefix != 0 ? INSN_REP : 0);
		insn->segment = row->form == FORM_SOURCE ? INSN_DS : INSN_ES;
		insn->base = row->form == FORM_SOURCE ? INSN_RSI : INSN_RDI;
		if (insn->op == INSN_STOS || insn->op == INSN_LODS)
			insn->reg = INSN_RAX;
		break;
	case FORM_MODRM:
		break;
	case FORM_REGISTER:
		decode_reg(d, row, insn);
		/* On what MOVSXD to 16 bits reads, the manuals of the two vendors differ. */
		possible = row->size != SIZE_EXTEND_4 || insn->operand_size > 2;
		break;
	case FORM_VECTOR:
		decode_reg(d, row, insn);
		break;
	case FORM_CONTROL:
		decode_reg(d, row, insn);
		possible = (0x11Du >> insn->reg & 1) != 0; /* CR0, CR2, CR3, CR4, CR8 */
		break;
	case FORM_DEBUG:
		decode_reg(d, row, insn);
		possible = insn->reg < 8;
		break;
	case FORM_BYTE:
		insn->flags |= INSN_IMMEDIATE;
		insn->immediate = decoder_next_signed(d, 1);
		break;
	case FORM_IMMEDIATE:
		insn->flags |= INSN_IMMEDIATE;
		insn->immediate =
			decoder_next_signed(d, insn->operand_size == 8 ? 4 : insn->operand_size);
		break;
	}
	if (d->segment != INSN_SEGMENTS && row->form != FORM_TARGET)
		insn->segment = d->segment;
	return possible;
}

static bool decode_instruction(struct decoder *d, struct insn *insn)
{
	const struct row *row;

	decode_opcode(d);
	row = decode_row(d);
	if (row == NULL)
		return false;
	insn->op = row->op;
	insn->flags = row->traits & (INSN_READ | INSN_WRITE | INSN_REG_FIRST);
	insn->scale = 1;
	insn->segment = INSN_DS;
	insn->base = insn->index = insn->reg = insn->rm = INSN_NONE;
	decode_sizes(d, row, insn);
	if (!decode_operands(d, row, insn))
		return false;
	if ((insn->flags & INSN_MEMORY) == 0)
		insn->flags &= (uint8_t) ~(INSN_READ | INSN_WRITE);
	if (d->lock_prefix) {
		if ((row->traits & LOCK) == 0 || (insn->flags & INSN_WRITE) == 0)
			return false;
		insn->flags |= INSN_LOCK;
	}
	insn->length = (uint8_t)d->next;
	return !d->over;
}

bool insn_decode(const uint8_t *bytes, size_t count, enum insn_mode mode, struct insn *insn)
{
	struct decoder d = {
		.bytes = bytes,
		.count = count < INSN_BYTES_MAX ? count : INSN_BYTES_MAX,
		.mode = mode,
		.segment = INSN_SEGMENTS,
	};

	*insn = (struct insn){.mode = (uint8_t)mode};
	if (decode_instruction(&d, insn))
		return true;
	*insn = (struct insn){
		.op = d.over && count < INSN_BYTES_MAX ? INSN_TRUNCATED : INSN_UNKNOWN,
		.mode = (uint8_t)mode,
	};
	return false;
}

size_t insn_length(const uint8_t *bytes, size_t count, enum insn_mode mode)
{
	struct insn insn;

	insn_decode(bytes, count, mode, &insn);
	return insn.length;
}
