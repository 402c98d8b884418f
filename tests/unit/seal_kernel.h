/* A small kernel image made for tests: code with patch sites, and the tables that record them. */
#ifndef PARAPET_TESTS_SEAL_KERNEL_H
#define PARAPET_TESTS_SEAL_KERNEL_H

#include <string.h>

#include "seal/code.h"
#include "seal/sites.h"

#define KERNEL_BASE  0xffffffff9a200000ull
#define KERNEL_BYTES 0x10000u
#define TEXT_END     0x8000u /* what is sealed as code; before the seal, all is */

#define NO_TRACER                                                                                  \
	0x0f0u /* the kernel's function that returns at once: called while nobody traces */
#define FENTRY	   0x100u
#define TRACER	   0x140u
#define TRACER_END 0x168u
#define REGS	   0x180u
#define REGS_END   0x1c0u

#define FUNCTIONS     100u
#define FUNCTION(i)   (0x1000u + (i)*0x20u)
#define JUMPS	      120u
#define JUMP(i)	      (0x3000u + (i)*0x10u)
#define CALLS	      100u
#define CALL(i)	      (0x5000u + (i)*0x10u)
#define TRAMPOLINE(i) (0x6000u + (i)*8u)

#define JUMP_TABLE  0xa008u
#define CALL_TABLE  0xb010u
#define ENTRY_TABLE 0xc020u
#define KEYS	    0xe000u

#define SITES (FUNCTIONS + JUMPS + CALLS + 2)

struct kernel {
	uint8_t bytes[KERNEL_BYTES];
	struct seal_site site[SITES + 8];
	struct seal_image image;
	struct seal_sites sites;
};

static inline void put(struct kernel *kernel, uint32_t at, const void *bytes, size_t count)
{
	memcpy(kernel->bytes + at, bytes, count);
}

static inline void put_u32(struct kernel *kernel, uint32_t at, uint32_t value)
{
	put(kernel, at, &value, 4);
}

static inline void put_u64(struct kernel *kernel, uint32_t at, uint64_t value)
{
	put(kernel, at, &value, 8);
}

/* CALL or JMP rel32; opcode 0x80 to 0x8f: Jcc of six bytes. */
static inline void put_branch(struct kernel *kernel, uint32_t at, uint8_t opcode, uint32_t target)
{
	if ((opcode & 0xf0) == 0x80) {
		kernel->bytes[at++] = 0x0f;
	}
	kernel->bytes[at] = opcode;
	put_u32(kernel, at + 1, target - at - 5);
}

static inline enum seal_kind jump_kind(uint32_t i)
{
	return i % 4 < 2 ? SEAL_JUMP5 : SEAL_JUMP2;
}

static inline uint32_t jump_target(uint32_t i)
{
	return jump_kind(i) == SEAL_JUMP2 ? JUMP(i) + 0x55 : 0x7000 + 3 * i;
}

static inline enum seal_kind call_kind(uint32_t i)
{
	return i % 3 == 0 ? SEAL_CALL : i % 3 == 1 ? SEAL_TAIL : SEAL_JCC;
}

/* The tracer's entries, as short as they can be: its data, its last argument, its call, its end. */
static inline void put_tracers(struct kernel *kernel)
{
	static const uint8_t load[] = {0x48, 0x8b, 0x15, 0x11, 0x22, 0x33, 0x00};
	static const uint8_t argument[] = {0x48, 0x8d, 0x0c, 0x24};

	put_branch(kernel, FENTRY, CODE_JMP, 0x7f00);
	memset(kernel->bytes + TRACER, 0x51, TRACER_END - TRACER);
	put(kernel, TRACER + 4, load, sizeof(load));
	put(kernel, TRACER + 12, argument, sizeof(argument));
	put_branch(kernel, TRACER + 20, CODE_CALL, NO_TRACER);
	put_branch(kernel, TRACER_END, CODE_JMP, 0x7f00);

	memset(kernel->bytes + REGS, 0x52, REGS_END - REGS);
	put(kernel, REGS + 6, load, sizeof(load));
	put(kernel, REGS + 20, argument, sizeof(argument));
	put_branch(kernel, REGS + 30, CODE_CALL, NO_TRACER);
	kernel->bytes[REGS + 44] = CODE_JCC8_NZ;
	kernel->bytes[REGS + 45] = 0x20;
	put_branch(kernel, REGS_END, CODE_JMP, 0x7f00);
}

static inline void put_jump_record(struct kernel *kernel, uint32_t at, uint32_t i)
{
	put_u32(kernel, at, JUMP(i) - at);
	put_u32(kernel, at + 4, jump_target(i) - at - 4);
	put_u64(kernel, at + 8, (uint64_t)(KEYS + 8 * (i % 32) + i % 4) - at - 8);
}

static inline void put_jumps(struct kernel *kernel, uint32_t table)
{
	for (uint32_t i = 0; i < JUMPS; i++) {
		if (i % 4 == 0) {
			put(kernel, JUMP(i), code_nop5, 5);
		} else if (i % 4 == 1) {
			put_branch(kernel, JUMP(i), CODE_JMP, jump_target(i));
		} else if (i % 4 == 2) {
			put(kernel, JUMP(i), code_nop2, 2);
		} else {
			kernel->bytes[JUMP(i)] = CODE_JMP8;
			kernel->bytes[JUMP(i) + 1] = (uint8_t)(jump_target(i) - JUMP(i) - 2);
		}
		/* In the order of the keys, not of the code. */
		put_jump_record(kernel, table + 16 * i, i * 7 % JUMPS);
	}
}

static inline void put_calls(struct kernel *kernel, uint32_t table)
{
	for (uint32_t i = 0; i < CALLS; i++) {
		uint32_t at = table + 8 * i;

		put_branch(kernel, TRAMPOLINE(i), CODE_JMP, 0x7000 + i);
		put(kernel, TRAMPOLINE(i) + 5, code_trampoline_mark, 3);
		put_branch(kernel, CALL(i),
			call_kind(i) == SEAL_CALL	    ? CODE_CALL
				: call_kind(i) == SEAL_TAIL ? CODE_JMP
							    : 0x84,
			TRAMPOLINE(i));
		put_u32(kernel, at, CALL(i) - at);
		put_u32(kernel, at + 4, KEYS + 16 * (i % 16) + i % 4 - at - 4);
	}
}

static inline void put_entries(struct kernel *kernel, uint32_t table)
{
	for (uint32_t i = 0; i < FUNCTIONS; i++) {
		put_branch(kernel, FUNCTION(i), CODE_CALL, FENTRY);
		put_u64(kernel, table + 8 * i, KERNEL_BASE + FUNCTION(i));
	}
}

static inline void kernel_make(struct kernel *kernel)
{
	*kernel = (struct kernel){
		.image = {.base = KERNEL_BASE, .size = KERNEL_BYTES, .text_end = KERNEL_BYTES}};
	kernel->image.bytes = kernel->bytes;
	kernel->sites.site = kernel->site;
	kernel->sites.room = SITES;
	memset(kernel->bytes, 0x90, TEXT_END);
	put_tracers(kernel);
	put_jumps(kernel, JUMP_TABLE);
	put_calls(kernel, CALL_TABLE);
	put_entries(kernel, ENTRY_TABLE);
}

static inline enum seal_find kernel_find(struct kernel *kernel)
{
	kernel->sites = (struct seal_sites){.site = kernel->site, .room = kernel->sites.room};
	return seal_sites_find(&kernel->sites, &kernel->image);
}

#endif
