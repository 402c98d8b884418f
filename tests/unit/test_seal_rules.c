/*
 * Which writes to a sealed kernel are its own patching, and which copies of the function tracer's
 * entries are true ones: step by step, and at random against an invariant written down anew here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "seal/rules.h"
#include "seal/trampoline.h"
#include "tests/unit/seal_kernel.h"

#define OUTSIDE 0xffffffffc0345000ull

static struct kernel kernel;

static int setup(void **state)
{
	(void)state;
	kernel_make(&kernel);
	assert_int_equal(kernel_find(&kernel), SEAL_FOUND);
	kernel.image.text_end = TEXT_END;
	return 0;
}

static struct seal_judgement judge(uint32_t at, const void *bytes, uint32_t size)
{
	uint64_t value = 0;

	memcpy(&value, bytes, size);
	return seal_judge(&kernel.image, &kernel.sites, at, size, value);
}

static void allow(uint32_t at, const void *bytes, uint32_t size)
{
	assert_int_equal(judge(at, bytes, size).verdict, SEAL_ALLOW);
	put(&kernel, at, bytes, size);
}

static void deny(uint32_t at, const void *bytes, uint32_t size)
{
	assert_int_equal(judge(at, bytes, size).verdict, SEAL_DENY);
}

static const uint8_t int3 = CODE_INT3;

/* As the kernel does it: with a store of four bytes, done twice, or byte by byte. */
static void patch(uint32_t at, const uint8_t *to, uint32_t bytes, bool byte_by_byte)
{
	allow(at, &int3, 1);
	if (byte_by_byte || bytes != 5) {
		for (uint32_t i = 1; i < bytes; i++)
			allow(at + i, to + i, 1);
	} else {
		allow(at + 1, to + 1, 4);
		allow(at + 1, to + 1, 4);
	}
	allow(at, to, 1);
	assert_memory_equal(kernel.bytes + at, to, bytes);
}

static void branch_bytes(uint8_t *bytes, uint32_t at, uint8_t opcode, uint64_t target)
{
	uint32_t displacement;

	if ((opcode & 0xf0) == 0x80) {
		*bytes++ = 0x0f;
		at++;
	}
	*bytes = opcode;
	displacement = (uint32_t)(target - (KERNEL_BASE + at + 5));
	memcpy(bytes + 1, &displacement, 4);
}

static void test_static_keys(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < JUMPS; i++) {
		uint8_t nop[5], jump[5];
		uint32_t bytes = seal_kind_bytes(jump_kind(i));

		memcpy(nop, jump_kind(i) == SEAL_JUMP2 ? code_nop2 : code_nop5, bytes);
		branch_bytes(jump, JUMP(i), CODE_JMP, KERNEL_BASE + jump_target(i));
		if (bytes == 2) {
			jump[0] = CODE_JMP8;
			jump[1] = (uint8_t)(jump_target(i) - JUMP(i) - 2);
		}
		for (uint32_t turn = 0; turn < 4; turn++) {
			patch(JUMP(i), jump, bytes, turn % 2);
			patch(JUMP(i), nop, bytes, turn / 2);
		}
	}
}

static void test_static_key_attacks(void **state)
{
	uint8_t jump[5], elsewhere[5], bytes[8];
	const uint8_t nop = 0x90, mov[4] = {0xb8, 1, 0, 0}, value[4] = {1, 2, 3, 4};

	(void)state;
	branch_bytes(jump, JUMP(0), CODE_JMP, KERNEL_BASE + jump_target(0));
	branch_bytes(elsewhere, JUMP(0), CODE_JMP, KERNEL_BASE + jump_target(0) + 1);
	deny(JUMP(0), jump, 4); /* not through an INT3 */
	deny(JUMP(0) + 1, jump + 1, 4);
	deny(JUMP(0), &nop, 1);
	deny(JUMP(0), mov, 4);
	bytes[0] = CODE_INT3; /* an INT3 and what follows at once */
	memcpy(bytes + 1, jump + 1, 4);
	deny(JUMP(0), bytes, 4);
	allow(JUMP(0), &int3, 1);
	deny(JUMP(0), jump, 1); /* the rest is still the NOP's */
	deny(JUMP(0) + 1, elsewhere + 1, 4);
	deny(JUMP(0) + 1, value, 4);
	allow(JUMP(0) + 1, jump + 1, 1); /* half of it */
	deny(JUMP(0), jump, 1);
	deny(JUMP(0), code_nop5, 1);
	deny(JUMP(0), jump, 4);
	memset(bytes, 0x90, sizeof(bytes));
	memcpy(bytes, jump, 5);
	bytes[5] = 0xf4; /* one byte too many */
	deny(JUMP(0), bytes, 8);
	allow(JUMP(0) + 1, jump + 1, 4);
	deny(JUMP(0), code_nop5, 1);
	allow(JUMP(0), jump, 1);
	/* The site of another key, where this key's jump does not belong. */
	allow(JUMP(4), &int3, 1);
	deny(JUMP(4) + 1, jump + 1, 4);
}

static void test_elsewhere(void **state)
{
	const uint8_t nop = 0x90, value[8] = {1, 2, 3, 4, 5, 6, 7, 8};

	(void)state;
	deny(0x7800, value, 8);
	deny(0x7800, &int3, 1);
	allow(0x7800, &nop, 1); /* changes nothing */
	deny(JUMP(0) - 1, &int3, 1);
	deny(JUMP(0) + 5, &int3, 1);
	deny(0x9000, value, 4); /* not code */
	deny(JUMP_TABLE, value, 4);
	deny(KERNEL_BYTES - 8, value, 8);
	/* A recorded site that is not in the sealed code: the kernel's start, which is over. */
	kernel.image.text_end = JUMP(3);
	deny(JUMP(5), &int3, 1);
	allow(JUMP(2), &int3, 1);
}

static void test_static_calls(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < CALLS; i++) {
		uint8_t to[6], away[6];
		uint8_t opcode = call_kind(i) == SEAL_CALL ? CODE_CALL
			: call_kind(i) == SEAL_TAIL	   ? CODE_JMP
							   : 0x84;
		uint32_t bytes = seal_kind_bytes(call_kind(i));

		branch_bytes(to, CALL(i), opcode, KERNEL_BASE + 0x7777);
		branch_bytes(away, CALL(i), opcode, OUTSIDE);
		patch(CALL(i), to, bytes, i % 2);
		allow(CALL(i), &int3, 1);
		for (uint32_t b = 1; b < bytes; b++)
			allow(CALL(i) + b, away + b, 1);
		deny(CALL(i), away, 1);
		for (uint32_t b = 1; b < bytes; b++)
			allow(CALL(i) + b, to + b, 1);
		allow(CALL(i), to, 1);
		if (call_kind(i) == SEAL_CALL) {
			patch(CALL(i), code_nop5, 5, false);
			patch(CALL(i), code_return_0, 5, false);
			to[0] = CODE_JMP;
		} else if (call_kind(i) == SEAL_TAIL) {
			patch(CALL(i), code_return, 5, true);
			to[0] = CODE_CALL;
		} else {
			to[0] = 0x0f, to[1] = 0x05; /* SYSCALL */
		}
		/* Complete, and another kind of instruction. */
		allow(CALL(i), &int3, 1);
		for (uint32_t b = 1; b < bytes; b++)
			allow(CALL(i) + b, to + b, 1);
		deny(CALL(i), to, 1);
	}
}

static void test_static_call_trampolines(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < CALLS; i++) {
		uint8_t to[5];

		branch_bytes(to, TRAMPOLINE(i), CODE_JMP, KERNEL_BASE + 0x4321);
		patch(TRAMPOLINE(i), to, 5, false);
		patch(TRAMPOLINE(i), code_return, 5, true);
		branch_bytes(to, TRAMPOLINE(i), CODE_JMP, OUTSIDE);
		allow(TRAMPOLINE(i), &int3, 1);
		allow(TRAMPOLINE(i) + 1, to + 1, 4);
		deny(TRAMPOLINE(i), to, 1);
		deny(TRAMPOLINE(i) + 5, &int3, 1); /* its mark */
	}
}

/*
 * A trampoline's mark that the attacker has made, behind an INT3, makes no trampoline of what is
 * there.
 */
static void test_forged_mark(void **state)
{
	uint8_t tail[4] = {0x0f, 0xb9, 0xcc, 0x90}, to[5];

	(void)state;
	allow(FUNCTION(9), &int3, 1);
	allow(FUNCTION(9) + 1, tail, 4);
	branch_bytes(to, FUNCTION(9) - 4, CODE_JMP, KERNEL_BASE + 0x4321);
	deny(FUNCTION(9) - 4, &int3, 1);
	deny(FUNCTION(9) - 4, to, 4);
	deny(TRAMPOLINE(0) - 8, &int3, 1);
	deny(TRAMPOLINE(CALLS), &int3, 1);
}

static void test_function_entries(void **state)
{
	uint8_t to[5], away[5], nop[5];
	struct seal_judgement judgement;

	(void)state;
	memcpy(nop, code_nop5, 5);
	branch_bytes(to, FUNCTION(7), CODE_CALL, KERNEL_BASE + TRACER);
	branch_bytes(away, FUNCTION(7), CODE_CALL, OUTSIDE);
	patch(FUNCTION(7), nop, 5, false);
	patch(FUNCTION(7), to, 5, true);
	allow(FUNCTION(7), &int3, 1);
	allow(FUNCTION(7) + 1, away + 1, 4);
	judgement = judge(FUNCTION(7), away, 1);
	assert_int_equal(judgement.verdict, SEAL_ASK_TRAMPOLINE);
	assert_int_equal(judgement.outside, OUTSIDE);
	assert_int_equal(judgement.left, 0);
	put(&kernel, FUNCTION(7), away, 5);
	/* Taken away again: whoever counts its callers is told. */
	judgement = judge(FUNCTION(7), &int3, 1);
	assert_int_equal(judgement.verdict, SEAL_ALLOW);
	assert_int_equal(judgement.left, OUTSIDE);
	patch(FUNCTION(7), nop, 5, false);
	/* A jump is not what is there. */
	allow(FUNCTION(7), &int3, 1);
	branch_bytes(to, FUNCTION(7), CODE_JMP, KERNEL_BASE + TRACER);
	allow(FUNCTION(7) + 1, to + 1, 4);
	deny(FUNCTION(7), to, 1);
}

static void test_tracer_calls(void **state)
{
	uint8_t to[5], nop[5];

	(void)state;
	branch_bytes(to, TRACER + 20, CODE_CALL, KERNEL_BASE + 0x7abc);
	patch(TRACER + 20, to, 5, false);
	branch_bytes(to, TRACER + 20, CODE_CALL, OUTSIDE);
	allow(TRACER + 20, &int3, 1);
	allow(TRACER + 21, to + 1, 4);
	deny(TRACER + 20, to, 1);
	memcpy(nop, code_nop5, 5);
	allow(TRACER + 21, nop + 1, 4);
	deny(TRACER + 20, nop, 1);
}

/* --- at random -------------------------------------------------------------------------------- */

static uint64_t random_state = 0x9E3779B97F4A7C15ull;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545F4914F6CDD1Dull;
}

static int64_t where(const uint8_t *code, uint32_t at, uint32_t bytes)
{
	int32_t displacement;

	memcpy(&displacement, code + bytes - 4, 4);
	return (int64_t)at + bytes + displacement;
}

static bool in_text(int64_t target)
{
	return target >= 0 && target < TEXT_END;
}

/* What a processor may find at a site, said once more. */
static bool is_fit(uint32_t at, enum seal_kind kind, uint32_t target, const uint8_t *code)
{
	bool nop5 = memcmp(code, "\x0f\x1f\x44\0\0", 5) == 0;

	if (code[0] == 0xcc)
		return true;
	switch (kind) {
	case SEAL_JUMP2:
		return (code[0] == 0x66 && code[1] == 0x90) ||
			(code[0] == 0xeb && at + 2 + (int8_t)code[1] == target);
	case SEAL_JUMP5:
		return nop5 || (code[0] == 0xe9 && where(code, at, 5) == target);
	case SEAL_ENTRY:
		return nop5 || (code[0] == 0xe8 && in_text(where(code, at, 5)));
	case SEAL_CALL:
		return nop5 || memcmp(code, "\x2e\x2e\x2e\x31\xc0", 5) == 0 ||
			(code[0] == 0xe8 && in_text(where(code, at, 5)));
	case SEAL_TAIL:
		return memcmp(code, "\xc3\xcc\xcc\xcc\xcc", 5) == 0 ||
			(code[0] == 0xe9 && in_text(where(code, at, 5)));
	case SEAL_JCC:
		return code[0] == 0x0f && code[1] >> 4 == 8 && in_text(where(code, at, 6));
	default:
		return code[0] == 0xe8 && in_text(where(code, at, 5));
	}
}

static bool is_site_byte(uint32_t at)
{
	return seal_sites_at(&kernel.sites, at) ||
		(at >= TRAMPOLINE(0) && at < TRAMPOLINE(CALLS) && at % 8 < 5);
}

static void check_site(const struct kernel *k, uint32_t code, enum seal_kind kind, uint32_t target)
{
	assert_true(is_fit(code, kind, target, k->bytes + code));
}

static void check_invariant(const struct kernel *before)
{
	for (uint32_t i = 0; i < kernel.sites.count; i++) {
		const struct seal_site *site = &kernel.site[i];

		check_site(&kernel, site->code, (enum seal_kind)site->kind, site->target);
	}
	for (uint32_t i = 0; i < CALLS; i++)
		check_site(&kernel, TRAMPOLINE(i), SEAL_TAIL, 0);
	for (uint32_t at = 0; at < KERNEL_BYTES; at++)
		assert_true(is_site_byte(at) || kernel.bytes[at] == before->bytes[at]);
}

/* Bytes that patching uses are tried more often than others, and sites more than other places. */
static uint64_t random_value(uint32_t at, uint32_t size)
{
	static const uint8_t likely[] = {0xcc, 0xe8, 0xe9, 0xeb, 0x0f, 0x66, 0xc3, 0x2e, 0x84};
	uint8_t bytes[8];
	uint64_t value;

	memcpy(bytes, kernel.bytes + at, size);
	for (uint32_t i = 0; i < size; i++) {
		if (random_next() % 2)
			bytes[i] = random_next() % 4 ? likely[random_next() % sizeof(likely)]
						     : (uint8_t)random_next();
	}
	if (size >= 4 && random_next() % 2) {
		static const uint8_t mark[4] = {0x0f, 0xb9, 0xcc, 0x90};
		uint32_t displacement = (uint32_t)(random_next() % TEXT_END - at);
		const uint8_t *tails[] = {&code_nop5[1], (uint8_t *)&displacement, mark};

		memcpy(bytes, tails[random_next() % ARRAY_SIZE(tails)], 4);
	}
	memcpy(&value, bytes, 8);
	return size < 8 ? value & ((1ull << (8 * size)) - 1) : value;
}

static void test_random_writes(void **state)
{
	static struct kernel before;
	uint64_t allowed = 0, asked = 0;

	(void)state;
	before = kernel;
	for (uint32_t round = 0; round < 2000000; round++) {
		uint32_t size = 1u << random_next() % 4;
		const struct seal_site *site = &kernel.site[random_next() % kernel.sites.count];
		uint32_t at = site->code + (uint32_t)(random_next() % 6);

		if (random_next() % 8 == 0)
			at = (uint32_t)(random_next() % (KERNEL_BYTES - 8));
		else if (random_next() % 4 == 0)
			at = TRAMPOLINE(random_next() % CALLS) + (uint32_t)(random_next() % 6);

		uint64_t value = random_value(at, size);
		struct seal_judgement judgement =
			seal_judge(&kernel.image, &kernel.sites, at, size, value);

		asked += judgement.verdict == SEAL_ASK_TRAMPOLINE;
		if (judgement.verdict == SEAL_ALLOW) {
			allowed += memcmp(kernel.bytes + at, &value, size) != 0;
			memcpy(kernel.bytes + at, &value, size);
		}
		if (round % 4096 == 0)
			check_invariant(&before);
	}
	check_invariant(&before);
	/* Else the test has tried nothing. */
	assert_true(allowed > 10000);
	assert_true(asked > 100);
}

/* --- copies of the tracer --------------------------------------------------------------------- */

static uint8_t copy[PAGE_SIZE];

/* As the kernel makes one. Returns the bytes that count. */
static uint32_t make_copy(uint32_t from, uint32_t end, uint32_t load, uint32_t call, uint32_t jump)
{
	uint32_t size = end - from;
	uint32_t displacement;

	memset(copy, 0, sizeof(copy));
	memcpy(copy, kernel.bytes + from, size);
	branch_bytes(copy + size, (uint32_t)(OUTSIDE - KERNEL_BASE) + size, CODE_JMP,
		KERNEL_BASE + 0x7f00);
	if (jump)
		memcpy(copy + jump, code_nop2, 2);
	displacement = size + 5 - (load + 7);
	memcpy(copy + load + 3, &displacement, 4);
	branch_bytes(copy + call, (uint32_t)(OUTSIDE - KERNEL_BASE) + call, CODE_CALL,
		KERNEL_BASE + 0x7123);
	return size + 5;
}

static bool check_copy(uint32_t *call)
{
	return seal_trampoline_check(
		&kernel.image, &kernel.sites, copy, OUTSIDE, sizeof(copy), call);
}

/* Every change of a bit makes it a false copy, but where the displacements still lead well. */
static void flip_bits(uint32_t bytes, uint32_t load, uint32_t call)
{
	uint32_t found;

	for (uint32_t bit = 0; bit < 8 * bytes; bit++) {
		uint32_t at = bit / 8;
		bool branch = (at > call && at <= call + 4) || at + 4 >= bytes;
		bool data = at >= load + 3 && at < load + 7;

		copy[at] ^= (uint8_t)(1 << bit % 8);

		bool good = check_copy(&found);

		if (branch || data) {
			uint32_t size = at + 4 >= bytes ? bytes - 5 : branch ? call : load;
			int64_t target = branch ? where(copy + size, (uint32_t)0, 5) + size +
					(int64_t)(OUTSIDE - KERNEL_BASE)
						: where(copy + load, load, 7);

			assert_int_equal(good,
				branch ? in_text(target)
				       : target > call && target + 8 <= (int64_t)PAGE_SIZE);
		} else {
			assert_false(good);
		}
		copy[at] ^= (uint8_t)(1 << bit % 8);
	}
}

static void test_copies(void **state)
{
	uint32_t bytes, call;

	(void)state;
	bytes = make_copy(TRACER, TRACER_END, 4, 20, 0);
	assert_true(check_copy(&call));
	assert_int_equal(call, 20);
	flip_bits(bytes, 4, 20);
	copy[bytes - 5] = CODE_RET;
	copy[bytes - 4] = CODE_INT3;
	assert_true(check_copy(&call));

	bytes = make_copy(REGS, REGS_END, 6, 30, 44);
	assert_true(check_copy(&call));
	assert_int_equal(call, 30);
	flip_bits(bytes, 6, 30);
}

static void test_false_copies(void **state)
{
	uint32_t call, bytes;

	(void)state;
	memset(copy, 0, sizeof(copy));
	assert_false(check_copy(&call));
	memset(copy, 0x90, sizeof(copy));
	assert_false(check_copy(&call));
	/* It calls something that is not sealed. */
	make_copy(TRACER, TRACER_END, 4, 20, 0);
	branch_bytes(copy + 20, (uint32_t)(OUTSIDE - KERNEL_BASE) + 20, CODE_CALL, OUTSIDE + 0x800);
	assert_false(check_copy(&call));
	/* It begins in the middle. */
	make_copy(TRACER, TRACER_END, 4, 20, 0);
	assert_false(seal_trampoline_check(
		&kernel.image, &kernel.sites, copy + 1, OUTSIDE + 1, sizeof(copy) - 1, &call));
	/* No room for it: at every end it is cut off, and nothing behind is read. */
	bytes = make_copy(TRACER, TRACER_END, 4, 20, 0);
	for (uint32_t room = 0; room < bytes; room++) {
		uint8_t *cut = malloc(room + 1);

		memcpy(cut, copy, room);
		assert_false(seal_trampoline_check(
			&kernel.image, &kernel.sites, cut, OUTSIDE, room, &call));
		free(cut);
	}
}

static void test_patched_copies(void **state)
{
	uint8_t old[5], to[5];
	int64_t at = (int64_t)(OUTSIDE - KERNEL_BASE) + 20;

	(void)state;
	branch_bytes(old, (uint32_t)at, CODE_CALL, KERNEL_BASE + 0x7123);
	memcpy(to, old, 5);
	to[0] = CODE_INT3;
	assert_int_equal(seal_judge_tracer(&kernel.image, at, old, old).verdict, SEAL_ALLOW);
	assert_int_equal(seal_judge_tracer(&kernel.image, at, old, to).verdict, SEAL_ALLOW);
	assert_int_equal(seal_judge_tracer(&kernel.image, at, to, old).verdict, SEAL_ALLOW);
	to[1] ^= 1;
	assert_int_equal(seal_judge_tracer(&kernel.image, at, old, to).verdict, SEAL_DENY);
	branch_bytes(to, (uint32_t)at, CODE_CALL, OUTSIDE);
	assert_int_equal(seal_judge_tracer(&kernel.image, at, old, to).verdict, SEAL_DENY);
	memcpy(old, to, 5);
	old[0] = CODE_INT3;
	assert_int_equal(seal_judge_tracer(&kernel.image, at, old, to).verdict, SEAL_DENY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_static_keys, setup),
		cmocka_unit_test_setup(test_static_key_attacks, setup),
		cmocka_unit_test_setup(test_elsewhere, setup),
		cmocka_unit_test_setup(test_static_calls, setup),
		cmocka_unit_test_setup(test_static_call_trampolines, setup),
		cmocka_unit_test_setup(test_forged_mark, setup),
		cmocka_unit_test_setup(test_function_entries, setup),
		cmocka_unit_test_setup(test_tracer_calls, setup),
		cmocka_unit_test_setup(test_random_writes, setup),
		cmocka_unit_test_setup(test_copies, setup),
		cmocka_unit_test_setup(test_false_copies, setup),
		cmocka_unit_test_setup(test_patched_copies, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
