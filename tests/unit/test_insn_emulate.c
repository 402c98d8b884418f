/*
 * The emulator against the processor that runs this test: random instructions, random registers,
 * flags and memory are executed for real and emulated, and all that the manual defines must agree.
 * What a 64-bit process cannot run (other modes, segment bases, faults) is in hand-made cases.
 * INSN_ROUNDS=n in the environment sets how many instructions are compared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "arch/x86/insn/emulate.h"

#define ROUNDS_DEFAULT 250000

#define CF    (1u << 0)
#define PF    (1u << 2)
#define AF    (1u << 4)
#define ZF    (1u << 6)
#define SF    (1u << 7)
#define DF    (1u << 10)
#define OF    (1u << 11)
#define RF    (1u << 16)
#define FLAGS (CF | PF | AF | ZF | SF | OF)

static uint64_t random_state = 0xD1B54A32D192ED03ull;

static uint64_t random_next(void)
{
	uint64_t value;

	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	value = random_state * 0x2545F4914F6CDD1Dull;
	return value ^ value >> 32;
}

/* Values at which carries and signs change are more likely than others. */
static uint64_t random_operand(void)
{
	static const uint64_t edges[] = {0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF,
		0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, ~0ull};
	uint64_t value = random_next();

	if (value % 3 != 0)
		return value;
	return edges[random_next() % (sizeof(edges) / sizeof(edges[0]))] + random_next() % 3 - 1;
}

/* --- the two machines --------------------------------------------------------------------- */

#define WINDOW_BYTES  4096
#define WINDOW_MARGIN 1024 /* around the address that a random instruction aims at */

/* Below 4 GiB, so that the code can reach it with absolute addresses. */
struct arena {
	uint8_t window[WINDOW_BYTES];
	uint64_t gpr[16];
	uint64_t rflags;
	uint8_t code[4096];
};

static struct arena *arena;
static uint8_t shadow[WINDOW_BYTES]; /* the emulator's window */
static uint8_t *code_end;

static int setup(void **state)
{
	(void)state;
	arena = mmap(NULL, sizeof(*arena), PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	return arena == MAP_FAILED ? -1 : 0;
}

static uint64_t address_of(const void *pointer)
{
	return (uint64_t)(uintptr_t)pointer;
}

static void put(const void *bytes, size_t count)
{
	memcpy(code_end, bytes, count);
	code_end += count;
}

/* opcode with reg and an absolute address: a 64-bit move between the two. */
static void put_absolute(uint8_t rex, uint8_t opcode, unsigned int reg, const void *where)
{
	uint8_t bytes[8] = {
		(uint8_t)(rex | (reg >> 3) << 2), opcode, (uint8_t)(0x04 | (reg & 7) << 3), 0x25};
	uint32_t address = (uint32_t)address_of(where);

	memcpy(bytes + 4, &address, 4);
	put(bytes, sizeof(bytes));
}

/* Puts everything before the instruction; returns where it goes. */
static uint8_t *begin_native(void)
{
	static const uint8_t save[] = {
		0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57}; /* callee-saved */

	code_end = arena->code;
	put(save, sizeof(save));
	put_absolute(0x40, 0xFF, 6, &arena->rflags); /* push */
	put("\x9D", 1); /* popf */
	for (unsigned int i = 0; i < 16; i++)
		if (i != INSN_RSP)
			put_absolute(0x48, 0x8B, i, &arena->gpr[i]);
	return code_end;
}

static void run_native(const struct insn_registers *before, struct insn_registers *after)
{
	static const uint8_t restore[] = {
		0xFC, 0x41, 0x5F, 0x41, 0x5E, 0x41, 0x5D, 0x41, 0x5C, 0x5D, 0x5B, 0xC3};
	void (*enter)(void);

	for (unsigned int i = 0; i < 16; i++)
		if (i != INSN_RSP)
			put_absolute(0x48, 0x89, i, &arena->gpr[i]);
	put("\x9C", 1); /* pushf */
	put_absolute(0x40, 0x8F, 0, &arena->rflags); /* pop */
	put(restore, sizeof(restore));

	memcpy(arena->gpr, before->gpr, sizeof(arena->gpr));
	arena->rflags = before->rflags | 2;
	memcpy(&enter, &(void *){arena->code}, sizeof(enter));
	enter();
	*after = *before;
	memcpy(after->gpr, arena->gpr, sizeof(arena->gpr));
	after->rflags = arena->rflags;
}

/* Accesses of the emulator; the one numbered refuse fails. */
struct accesses {
	unsigned int count;
	unsigned int refuse;
};

static bool window_at(struct accesses *accesses, gva_t address, unsigned int size, uint8_t **where)
{
	uint64_t offset = address.value - address_of(arena->window);

	if (++accesses->count == accesses->refuse)
		return false;
	if (offset >= WINDOW_BYTES || WINDOW_BYTES - offset < size)
		return false;
	*where = shadow + offset;
	return true;
}

static bool window_read(void *arg, gva_t address, unsigned int size, uint64_t *value)
{
	uint8_t *where;

	if (!window_at(arg, address, size, &where))
		return false;
	*value = 0;
	memcpy(value, where, size);
	return true;
}

static bool window_write(void *arg, gva_t address, unsigned int size, uint64_t value)
{
	uint8_t *where;

	if (!window_at(arg, address, size, &where))
		return false;
	if (size < 8)
		assert_int_equal(value >> (8 * size), 0);
	memcpy(where, &value, size);
	return true;
}

/* --- random instructions ------------------------------------------------------------------ */

struct template
{
	uint16_t opcode; /* 0x1xx: 0F xx */
	int digit; /* -1: a register */
	int immediate; /* bytes; 4: of the operand size, at most four */
	bool lockable;
	uint32_t flags; /* that are defined afterwards */
};

#define LOGIC (FLAGS & ~AF)
#define ALU(n, flags, lock)                                                                        \
	{8 * (n), -1, 0, lock, flags}, {8 * (n) + 1, -1, 0, lock, flags},                          \
		{8 * (n) + 2, -1, 0, false, flags}, {8 * (n) + 3, -1, 0, false, flags},            \
		{0x80, n, 1, lock, flags}, {0x81, n, 4, lock, flags},                              \
	{                                                                                          \
		0x83, n, 1, lock, flags                                                            \
	}
#define BITS(n, lock)                                                                              \
	{0x183 + 8 * (n), -1, 0, lock, CF | ZF},                                                   \
	{                                                                                          \
		0x1BA, n, 1, lock, CF | ZF                                                         \
	}

static const struct template templates[] = {
	ALU(0, FLAGS, true),
	ALU(1, LOGIC, true),
	ALU(2, FLAGS, true),
	ALU(3, FLAGS, true),
	ALU(4, LOGIC, true),
	ALU(5, FLAGS, true),
	ALU(6, LOGIC, true),
	ALU(7, FLAGS, false),
	BITS(4, false),
	BITS(5, true),
	BITS(6, true),
	BITS(7, true),
	{0x63, -1, 0, false, FLAGS},
	{0x84, -1, 0, false, LOGIC},
	{0x85, -1, 0, false, LOGIC},
	{0x86, -1, 0, true, FLAGS},
	{0x87, -1, 0, true, FLAGS},
	{0x88, -1, 0, false, FLAGS},
	{0x89, -1, 0, false, FLAGS},
	{0x8A, -1, 0, false, FLAGS},
	{0x8B, -1, 0, false, FLAGS},
	{0xC6, 0, 1, false, FLAGS},
	{0xC7, 0, 4, false, FLAGS},
	{0xF6, 0, 1, false, LOGIC},
	{0xF7, 0, 4, false, LOGIC},
	{0xF6, 2, 0, true, FLAGS},
	{0xF7, 2, 0, true, FLAGS},
	{0xF6, 3, 0, true, FLAGS},
	{0xF7, 3, 0, true, FLAGS},
	{0xFE, 0, 0, true, FLAGS},
	{0xFF, 0, 0, true, FLAGS},
	{0xFE, 1, 0, true, FLAGS},
	{0xFF, 1, 0, true, FLAGS},
	{0x1B0, -1, 0, true, FLAGS},
	{0x1B1, -1, 0, true, FLAGS},
	{0x1B6, -1, 0, false, FLAGS},
	{0x1B7, -1, 0, false, FLAGS},
	{0x1BE, -1, 0, false, FLAGS},
	{0x1BF, -1, 0, false, FLAGS},
	{0x1C0, -1, 0, true, FLAGS},
	{0x1C1, -1, 0, true, FLAGS},
	{0x1C3, -1, 0, false, FLAGS},
};

struct candidate {
	uint8_t bytes[INSN_BYTES_MAX];
	size_t count;
	uint32_t flags;
	unsigned int displacement_at; /* where a displacement of at least four bytes is, or 0 */
	unsigned int displacement_bytes;
};

static void add(struct candidate *c, unsigned int byte)
{
	c->bytes[c->count++] = (uint8_t)byte;
}

static void add_random(struct candidate *c, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		add(c, (unsigned int)random_next());
}

static void add_prefixes(struct candidate *c, bool lock, bool no_operand_prefix)
{
	static const uint8_t ignored[] = {0x26, 0x2E, 0x36, 0x3E};
	uint64_t choice = random_next();

	if ((choice & 3) == 0)
		add(c, ignored[choice >> 2 & 3]);
	if ((choice & 0x30) == 0)
		add(c, 0x67);
	if ((choice & 0xC0) == 0 && !no_operand_prefix)
		add(c, 0x66);
	if (lock && (choice & 0x300) == 0)
		add(c, 0xF0);
	if ((choice & 0x400) != 0)
		add(c, 0x40 | (choice >> 12 & 15));
}

static void make_modrm(struct candidate *c)
{
	const struct template *t =
		&templates[random_next() % (sizeof(templates) / sizeof(templates[0]))];
	unsigned int digit = t->digit >= 0 ? (unsigned int)t->digit : random_next() & 7;
	unsigned int mod = random_next() % 3;
	unsigned int rm = random_next() & 7;
	unsigned int displacement = mod == 1 ? 1 : mod == 2 ? 4 : 0;
	bool wide = false;
	size_t prefixes;

	memset(c, 0, sizeof(*c));
	c->flags = t->flags;
	/* MOVNTI has no form with 66, MOVSXD none that the vendors agree on. */
	add_prefixes(c, t->lockable, t->opcode == 0x1C3 || t->opcode == 0x63);
	prefixes = c->count;
	if ((t->opcode & 0x100) != 0)
		add(c, 0x0F);
	add(c, t->opcode);
	add(c, mod << 6 | digit << 3 | rm);
	if (rm == 4) {
		unsigned int sib = random_next() & 0xFF;

		add(c, sib);
		if (mod == 0 && (sib & 7) == 5)
			displacement = 4;
	} else if (mod == 0 && rm == 5) {
		displacement = 4;
	}
	if (displacement == 4)
		c->displacement_at = (unsigned int)c->count;
	c->displacement_bytes = displacement;
	add_random(c, displacement);

	for (size_t i = 0; i < prefixes; i++)
		if (c->bytes[i] == 0x66)
			wide = true; /* here: the immediate has two bytes */
	if (prefixes != 0 && (c->bytes[prefixes - 1] & 0xF8) == 0x48)
		wide = false;
	add_random(c, (unsigned int)(t->immediate == 4 && wide ? 2 : t->immediate));
}

static void make_string(struct candidate *c)
{
	static const uint8_t opcodes[] = {0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD};

	memset(c, 0, sizeof(*c));
	c->flags = FLAGS;
	if ((random_next() & 3) != 0)
		add(c, 0xF3);
	add_prefixes(c, false, false);
	add(c, opcodes[random_next() % sizeof(opcodes)]);
}

static void make_offset(struct candidate *c)
{
	memset(c, 0, sizeof(*c));
	c->flags = FLAGS;
	add_prefixes(c, false, false);
	add(c, 0xA0 + (random_next() & 3));
	c->displacement_at = (unsigned int)c->count;
	c->displacement_bytes = memchr(c->bytes, 0x67, c->count) != NULL ? 4 : 8;
	for (unsigned int i = 0; i < 8; i++)
		add(c, 0);
}

/*
 * Makes the memory operand lie in the window, by changing the base register or the displacement.
 * False if that is not possible.
 */
static bool aim(struct candidate *c, struct insn *insn, struct insn_registers *registers)
{
	const struct insn_context context = {.registers = registers};
	uint64_t target = address_of(arena->window) + WINDOW_MARGIN +
		random_next() % (WINDOW_BYTES - 2 * WINDOW_MARGIN);
	bool atomic = (insn->flags & INSN_LOCK) != 0 || insn->op == INSN_XCHG;
	uint64_t missing;

	if (atomic)
		target &= ~7ull; /* a split lock may be punished */
	if (insn->reg == INSN_RSP && (insn->flags & INSN_HIGH_BYTE) == 0)
		return false; /* the test's own stack */
	if (insn->base == INSN_RSP)
		return false;
	if (insn->op >= INSN_BT && insn->op <= INSN_BTC && insn->reg != INSN_NONE) {
		if (insn->reg == insn->base || insn->reg == insn->index)
			return false;
		/* Not too far away; above the operand size, anything. */
		registers->gpr[insn->reg] = (uint64_t)((int64_t)(random_next() % 8192) - 4096);
		if (insn->operand_size == 2 && (random_next() & 1) != 0)
			registers->gpr[insn->reg] ^= random_next() << 16;
		if (insn->operand_size == 4 && (random_next() & 1) != 0)
			registers->gpr[insn->reg] ^= random_next() << 32;
	}
	missing = target - insn_effective_address(insn, &context).value;
	if (missing == 0)
		return true;
	if (insn->base < 16 && insn->base != insn->index) {
		registers->gpr[insn->base] += missing;
	} else if (insn->base >= 16 && c->displacement_at != 0) {
		uint64_t displacement = (uint64_t)insn->displacement + missing;

		memcpy(c->bytes + c->displacement_at, &displacement, c->displacement_bytes);
		if (!insn_decode(c->bytes, c->count, INSN_LONG64, insn))
			return false;
	} else {
		return false;
	}
	return insn_effective_address(insn, &context).value == target;
}

static void aim_string(const struct insn *insn, struct insn_registers *registers)
{
	uint64_t high = insn->address_size == 4 ? random_next() << 32 : 0;

	registers->gpr[INSN_RCX] = random_next() % 6 + high;
	registers->gpr[INSN_RSI] = address_of(arena->window) + 1024 + random_next() % 1024 + high;
	registers->gpr[INSN_RDI] = address_of(arena->window) + 1024 + random_next() % 1024 + high;
}

static void fail_candidate(
	const struct candidate *c, const char *what, uint64_t native, uint64_t emulated)
{
	for (size_t i = 0; i < c->count; i++)
		fprintf(stderr, "%02x ", c->bytes[i]);
	fail_msg("%s: %#llx natively, %#llx emulated", what, (unsigned long long)native,
		(unsigned long long)emulated);
}

static void compare(const struct candidate *c, const struct insn_registers *native,
	const struct insn_registers *emulated)
{
	uint32_t flags = c->flags | DF;

	for (unsigned int i = 0; i < 16; i++)
		if (i != INSN_RSP && native->gpr[i] != emulated->gpr[i])
			fail_candidate(c, "register", native->gpr[i], emulated->gpr[i]);
	if (((native->rflags ^ emulated->rflags) & flags) != 0)
		fail_candidate(c, "flags", native->rflags & flags, emulated->rflags & flags);
	for (unsigned int i = 0; i < WINDOW_BYTES; i++)
		if (arena->window[i] != shadow[i])
			fail_candidate(c, "memory", arena->window[i], shadow[i]);
}

/* Every access of it refused in turn: a fault, and nothing changes. */
static void check_faults(const struct insn *insn, const struct insn_registers *before)
{
	struct accesses accesses = {0};
	struct insn_registers registers;
	struct insn_context context = {.registers = &registers,
		.arg = &accesses,
		.read = window_read,
		.write = window_write};

	if ((insn->flags & INSN_REP) != 0)
		return; /* a REP that does nothing makes no access; see hand-made cases */
	for (unsigned int refuse = 1; refuse <= 2; refuse++) {
		bool both = (insn->flags & INSN_READ) != 0 && (insn->flags & INSN_WRITE) != 0;

		if (refuse == 2 && !both)
			break;
		registers = *before;
		accesses = (struct accesses){.refuse = refuse};
		assert_int_equal(insn_emulate(insn, &context), INSN_FAULT);
		assert_int_equal(accesses.count, refuse);
		assert_memory_equal(&registers, before, sizeof(registers));
		assert_memory_equal(shadow, arena->window, WINDOW_BYTES);
	}
}

static bool try_candidate(struct candidate *c)
{
	struct accesses accesses = {0};
	struct insn_registers before = {.rip = 0};
	struct insn_registers native, emulated;
	struct insn_context context = {.registers = &emulated,
		.arg = &accesses,
		.read = window_read,
		.write = window_write};
	uint8_t *at = begin_native();
	enum insn_result result;
	struct insn insn;

	if (!insn_decode(c->bytes, c->count, INSN_LONG64, &insn))
		return false;
	c->count = insn.length;
	for (unsigned int i = 0; i < 16; i++)
		before.gpr[i] = random_operand();
	before.rip = address_of(at);
	before.rflags = random_next() & FLAGS;
	if (insn.op == INSN_MOVS || insn.op == INSN_STOS || insn.op == INSN_LODS) {
		before.rflags |= random_next() & DF;
		aim_string(&insn, &before);
	} else if (!aim(c, &insn, &before)) {
		return false;
	}
	for (unsigned int i = 0; i < WINDOW_BYTES; i += 8) {
		uint64_t value = random_operand();

		/* CMPXCHG should find what it looks for now and then. */
		if (insn.op == INSN_CMPXCHG && (value & 1) != 0)
			value = before.gpr[INSN_RAX];
		memcpy(arena->window + i, &value, 8);
	}
	memcpy(shadow, arena->window, WINDOW_BYTES);
	check_faults(&insn, &before);

	put(c->bytes, c->count);
	run_native(&before, &native);
	emulated = before;
	do {
		result = insn_emulate(&insn, &context);
	} while (result == INSN_AGAIN);
	if (result != INSN_DONE)
		fail_candidate(c, "result", INSN_DONE, result);
	if (emulated.rip != before.rip + insn.length)
		fail_candidate(c, "rip", before.rip + insn.length, emulated.rip);
	compare(c, &native, &emulated);
	return true;
}

static unsigned long rounds(void)
{
	const char *text = getenv("INSN_ROUNDS");

	return text != NULL ? strtoul(text, NULL, 0) : ROUNDS_DEFAULT;
}

static void random_instructions_agree(void (*make)(struct candidate *), unsigned long count)
{
	unsigned long compared = 0;
	struct candidate c;

	for (unsigned long i = 0; i < count; i++) {
		make(&c);
		compared += try_candidate(&c);
	}
	assert_true(compared > count / 3);
}

static void modrm_instructions_agree(void **state)
{
	(void)state;
	random_instructions_agree(make_modrm, rounds());
}

static void string_instructions_agree(void **state)
{
	(void)state;
	random_instructions_agree(make_string, rounds() / 8);
}

static void absolute_moves_agree(void **state)
{
	(void)state;
	random_instructions_agree(make_offset, rounds() / 8);
}

/* --- what cannot run here ----------------------------------------------------------------- */

static const uint64_t bases[INSN_SEGMENTS] = {
	0x10000, 0x20000, 0x30000, 0x40000, 0x50000, 0x12345678000};

static uint64_t effective(
	enum insn_mode mode, const char *bytes, size_t count, struct insn_registers *registers)
{
	struct insn_context context = {.registers = registers};
	struct insn insn;

	memcpy(context.segment_base, bases, sizeof(bases));
	assert_true(insn_decode((const uint8_t *)bytes, count, mode, &insn));
	return insn_effective_address(&insn, &context).value;
}

#define EFFECTIVE(mode, bytes, registers)                                                          \
	effective(INSN_##mode, bytes, sizeof(bytes) - 1, registers)

static void effective_addresses(void **state)
{
	struct insn_registers r = {
		.gpr = {[INSN_RBX] = 0xAAAAAAAAFFFF9000,
			[INSN_RSI] = 0x8000,
			[INSN_RBP] = 0x1234,
			[INSN_RSP] = 0x7000,
			[INSN_RDI] = 0xFFFFFFFFFFFFFFF0,
			[INSN_RAX] = 0x100},
		.rip = 0xFFFFFFFFFFFFF000,
	};

	(void)state;
	/* Sixteen bits wrap, then the base is added: [bx+si], [bp+2], [0x1234], es:[di]. */
	assert_int_equal(EFFECTIVE(REAL16, "\x8B\x00", &r), 0x41000);
	assert_int_equal(EFFECTIVE(REAL16, "\x8B\x46\x02", &r), 0x31236);
	assert_int_equal(EFFECTIVE(REAL16, "\x8B\x0E\x34\x12", &r), 0x41234);
	assert_int_equal(EFFECTIVE(PROT16, "\x26\x8B\x05", &r), 0x1FFF0);
	assert_int_equal(EFFECTIVE(PROT16, "\x66\x67\x8B\x03", &r), 0x39000); /* [ebx] */
	/* Thirty-two bits: [ebx+esi], [esp], and the sum with the base wraps. */
	assert_int_equal(EFFECTIVE(PROT32, "\x8B\x04\x33", &r), 0x41000);
	assert_int_equal(EFFECTIVE(PROT32, "\x8B\x04\x24", &r), 0x37000);
	assert_int_equal(EFFECTIVE(PROT32, "\x64\x8B\x07", &r), 0x4FFF0);
	assert_int_equal(EFFECTIVE(PROT32, "\x67\x8B\x05", &r), 0x4FFF0); /* [di] */
	assert_int_equal(EFFECTIVE(PROT32, "\x65\x8B\x00", &r), 0x45678100);
	/* Long mode: only FS and GS have a base, and it is added after truncation. */
	assert_int_equal(EFFECTIVE(LONG64, "\x26\x8B\x04\x24", &r), 0x7000);
	assert_int_equal(EFFECTIVE(LONG64, "\x65\x8B\x00", &r), 0x12345678100);
	assert_int_equal(EFFECTIVE(LONG64, "\x65\x67\x8B\x07", &r), 0x12445677FF0);
	assert_int_equal(EFFECTIVE(LONG64, "\x64\x8B\x07", &r), 0x4FFF0);
	/* RIP-relative counts from the end of the instruction, an immediate included. */
	assert_int_equal(EFFECTIVE(LONG64, "\x8B\x05\x10\x00\x00\x00", &r), 0xFFFFFFFFFFFFF016);
	assert_int_equal(EFFECTIVE(LONG64, "\xC7\x05\x10\x00\x00\x00\x01\x02\x03\x04", &r),
		0xFFFFFFFFFFFFF01A);
	assert_int_equal(EFFECTIVE(LONG64, "\x67\x8B\x05\x10\x00\x00\x00", &r), 0xFFFFF017);
	/* moffs: sixteen, thirty-two and sixty-four bits. */
	assert_int_equal(EFFECTIVE(REAL16, "\xA1\xFF\xFF", &r), 0x4FFFF);
	assert_int_equal(EFFECTIVE(PROT32, "\xA1\x00\x00\xE0\xFE", &r), 0xFEE40000);
	assert_int_equal(
		EFFECTIVE(LONG64, "\xA1\xF0\xDE\xBC\x9A\x78\x56\x34\x12", &r), 0x123456789ABCDEF0);
	assert_int_equal(EFFECTIVE(LONG64, "\x67\xA1\x00\x00\xE0\xFE", &r), 0xFEE00000);
}

/* A memory of sixteen bytes at base that counts and can refuse. */
struct cell {
	uint64_t base;
	uint8_t bytes[16];
	unsigned int reads, writes;
	bool refuse_writes;
};

static bool cell_read(void *arg, gva_t address, unsigned int size, uint64_t *value)
{
	struct cell *cell = arg;

	cell->reads++;
	if (address.value < cell->base || address.value + size > cell->base + 16)
		return false;
	*value = 0;
	memcpy(value, cell->bytes + (address.value - cell->base), size);
	return true;
}

static bool cell_write(void *arg, gva_t address, unsigned int size, uint64_t value)
{
	struct cell *cell = arg;

	cell->writes++;
	if (cell->refuse_writes || address.value < cell->base ||
		address.value + size > cell->base + 16)
		return false;
	memcpy(cell->bytes + (address.value - cell->base), &value, size);
	return true;
}

static enum insn_result emulate(enum insn_mode mode, const char *bytes, size_t count,
	struct insn_registers *registers, struct cell *cell)
{
	struct insn_context context = {
		.registers = registers, .arg = cell, .read = cell_read, .write = cell_write};
	struct insn insn;

	memcpy(context.segment_base, bases, sizeof(bases));
	assert_true(insn_decode((const uint8_t *)bytes, count, mode, &insn));
	return insn_emulate(&insn, &context);
}

#define EMULATE(mode, bytes, registers, cell)                                                      \
	emulate(INSN_##mode, bytes, sizeof(bytes) - 1, registers, cell)

static void instruction_pointer_and_resume_flag(void **state)
{
	struct insn_registers r = {.rip = 0xFFFFFFFE, .rflags = RF | CF | 2};
	struct cell cell = {.base = 0x40000, .bytes = {0x78, 0x56, 0x34, 0x12}};

	(void)state;
	assert_int_equal(EMULATE(PROT32, "\x8B\x00", &r, &cell), INSN_DONE);
	assert_int_equal(r.gpr[INSN_RAX], 0x12345678);
	assert_int_equal(r.rip, 0);
	assert_int_equal(r.rflags, CF | 2);

	r = (struct insn_registers){.rip = 0xFFFFFFFE, .gpr[INSN_RAX] = 0x40000};
	assert_int_equal(EMULATE(LONG64, "\x8B\x08", &r, &cell), INSN_DONE);
	assert_int_equal(r.rip, 0x100000000);
}

static void repeats_stop_and_resume(void **state)
{
	struct cell cell = {.base = 0x1FFF0 + 0x8};
	struct insn_registers r = {
		.gpr = {[INSN_RAX] = 0xABCD, [INSN_RCX] = 0x55550003, [INSN_RDI] = 0x7777FFFC},
		.rip = 0x100,
		.rflags = RF,
	};

	(void)state;
	/* rep stosw in real mode: CX and DI only, DI wraps; the third word is not in the cell. */
	assert_int_equal(EMULATE(REAL16, "\xF3\xAB", &r, &cell), INSN_AGAIN);
	assert_int_equal(r.gpr[INSN_RCX], 0x55550002);
	assert_int_equal(r.gpr[INSN_RDI], 0x7777FFFE);
	assert_int_equal(r.rip, 0x100);
	assert_int_equal(EMULATE(REAL16, "\xF3\xAB", &r, &cell), INSN_AGAIN);
	assert_int_equal(r.gpr[INSN_RDI], 0x77770000);
	assert_int_equal(EMULATE(REAL16, "\xF3\xAB", &r, &cell), INSN_FAULT);
	assert_int_equal(r.gpr[INSN_RCX], 0x55550001);
	cell.base = 0x10000;
	assert_int_equal(EMULATE(REAL16, "\xF3\xAB", &r, &cell), INSN_DONE);
	assert_int_equal(r.gpr[INSN_RCX], 0x55550000);
	assert_int_equal(r.gpr[INSN_RDI], 0x77770002);
	assert_int_equal(r.rip, 0x102);
	/* Nothing left: no access. */
	cell.writes = 0;
	assert_int_equal(EMULATE(REAL16, "\xF3\xAB", &r, &cell), INSN_DONE);
	assert_int_equal(cell.writes, 0);
	assert_int_equal(r.rip, 0x104);
}

/* movsd fs:[esi] to es:[edi]: the override is the source's. */
static void string_move_segments(void **state)
{
	struct insn_registers r = {.gpr = {[INSN_RSI] = 0, [INSN_RDI] = 0x40004}};
	struct cell cell = {.base = 0x50000, .bytes = {1, 2, 3, 4}};

	(void)state;
	assert_int_equal(EMULATE(PROT32, "\x64\xA5", &r, &cell), INSN_DONE);
	assert_memory_equal(cell.bytes, "\1\2\3\4\1\2\3\4", 8);
	cell.refuse_writes = true;
	assert_int_equal(EMULATE(PROT32, "\x26\xA5", &r, &cell), INSN_FAULT);
	assert_int_equal(r.gpr[INSN_RSI], 4);
	assert_int_equal(r.gpr[INSN_RDI], 0x40008);
}

/* CMPXCHG writes on failure too, and only then changes the accumulator. */
static void compare_and_exchange_always_writes(void **state)
{
	struct insn_registers r = {.gpr = {[INSN_RAX] = 5, [INSN_RCX] = 9}};
	struct cell cell = {.base = 0x40000, .bytes = {7}};

	(void)state;
	assert_int_equal(EMULATE(PROT32, "\xF0\x0F\xB1\x0D\x00\x00\x00\x00", &r, &cell), INSN_DONE);
	assert_int_equal(cell.writes, 1);
	assert_int_equal(cell.bytes[0], 7);
	assert_int_equal(r.gpr[INSN_RAX], 7);
	assert_false(r.rflags & ZF);
	assert_int_equal(EMULATE(PROT32, "\xF0\x0F\xB1\x0D\x00\x00\x00\x00", &r, &cell), INSN_DONE);
	assert_int_equal(cell.bytes[0], 9);
	assert_true(r.rflags & ZF);
}

static void others_are_unsupported(void **state)
{
	struct insn_registers r = {.rip = 1, .rflags = RF};
	struct insn_registers before = r;
	struct cell cell = {0};

	(void)state;
	assert_int_equal(EMULATE(LONG64, "\x0F\xA2", &r, &cell), INSN_UNSUPPORTED); /* CPUID */
	assert_int_equal(EMULATE(LONG64, "\x0F\x28\x00", &r, &cell), INSN_UNSUPPORTED); /* MOVAPS */
	assert_int_equal(EMULATE(LONG64, "\xF3\x6D", &r, &cell), INSN_UNSUPPORTED); /* INSD */
	assert_int_equal(EMULATE(LONG64, "\x0F\x01\x10", &r, &cell), INSN_UNSUPPORTED); /* LGDT */
	assert_memory_equal(&r, &before, sizeof(r));
	assert_int_equal(cell.reads + cell.writes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(effective_addresses),
		cmocka_unit_test(instruction_pointer_and_resume_flag),
		cmocka_unit_test(repeats_stop_and_resume),
		cmocka_unit_test(string_move_segments),
		cmocka_unit_test(compare_and_exchange_always_writes),
		cmocka_unit_test(others_are_unsupported),
		cmocka_unit_test(modrm_instructions_agree),
		cmocka_unit_test(string_instructions_agree),
		cmocka_unit_test(absolute_moves_agree),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
