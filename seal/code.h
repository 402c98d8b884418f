/*
 * The few x86 instructions that a Linux kernel patches in and out of itself: their bytes, and where
 * the ones with a displacement lead.
 */
#ifndef PARAPET_SEAL_CODE_H
#define PARAPET_SEAL_CODE_H

#include "parapet/types.h"

#define CODE_INT3    0xcc
#define CODE_CALL    0xe8
#define CODE_JMP     0xe9
#define CODE_JMP8    0xeb
#define CODE_RET     0xc3
#define CODE_JCC     0x0f /* followed by 0x80 to 0x8f */
#define CODE_JCC8_NZ 0x75

static const uint8_t code_nop2[2] = {0x66, 0x90};
static const uint8_t code_nop5[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
static const uint8_t code_return_0[5] = {0x2e, 0x2e, 0x2e, 0x31, 0xc0}; /* in place of a call */
static const uint8_t code_return[5] = {0xc3, 0xcc, 0xcc, 0xcc, 0xcc}; /* in place of a jump */
static const uint8_t code_trampoline_mark[3] = {0x0f, 0xb9, 0xcc}; /* after a static call's jump */

static inline bool code_is(const uint8_t *bytes, const uint8_t *code, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (bytes[i] != code[i]) {
			return false;
		}
	}
	return true;
}

/*
 * Where an instruction of `length` bytes at `at` leads whose last four bytes are its displacement.
 */
static inline int64_t code_target(const uint8_t *bytes, int64_t at, uint32_t length)
{
	uint32_t displacement = 0;

	for (uint32_t i = 0; i < 4; i++) {
		displacement |= (uint32_t)bytes[length - 4 + i] << (8 * i);
	}
	return at + length + (int32_t)displacement;
}

static inline bool code_is_jcc(const uint8_t *bytes)
{
	return bytes[0] == CODE_JCC && (bytes[1] & 0xf0) == 0x80;
}

#endif
