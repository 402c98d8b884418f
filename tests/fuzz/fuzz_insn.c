/*
 * libFuzzer target: hostile instruction bytes through decoder and emulator, and hostile page tables
 * through the walker. Besides what the sanitizers see: a result is complete or nothing has changed.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/insn/emulate.h"
#include "arch/x86/insn/walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is left of the input: it answers every read, and decides what is refused. */
struct supply {
	const uint8_t *data;
	size_t size;
};

static void supply_take(struct supply *supply, void *to, size_t size)
{
	size_t there = supply->size < size ? supply->size : size;

	memset(to, 0, size);
	if (there != 0)
		memcpy(to, supply->data, there);
	supply->data += there;
	supply->size -= there;
}

static bool supply_agrees(struct supply *supply)
{
	uint8_t byte;

	supply_take(supply, &byte, 1);
	return byte % 16 != 1;
}

static bool emulator_read(void *arg, gva_t address, unsigned int size, uint64_t *value)
{
	(void)address;
	if (size != 1 && size != 2 && size != 4 && size != 8)
		abort();
	supply_take(arg, value, sizeof(*value)); /* more than asked for: must be cut off */
	return supply_agrees(arg);
}

static bool emulator_write(void *arg, gva_t address, unsigned int size, uint64_t value)
{
	(void)address;
	if (size < 8 && value >> (8 * size) != 0)
		abort();
	return supply_agrees(arg);
}

static void fuzz_instruction(struct supply *supply, enum insn_mode mode)
{
	struct insn_registers registers, before;
	struct insn_context context = {.registers = &registers,
		.arg = supply,
		.read = emulator_read,
		.write = emulator_write};
	uint8_t count;
	uint8_t *bytes;
	struct insn insn;
	bool known;

	supply_take(supply, &count, 1);
	count %= 20;
	bytes = malloc(count + 1u);
	if (bytes == NULL)
		abort();
	supply_take(supply, bytes, count);
	bytes = realloc(bytes, count != 0 ? count : 1);
	if (bytes == NULL)
		abort();
	known = insn_decode(bytes, count, mode, &insn);
	if (known != (insn.op > INSN_TRUNCATED) || known != (insn.length != 0) ||
		insn.length > count || insn.length > INSN_BYTES_MAX)
		abort();
	if (insn_length(bytes, count, mode) != insn.length)
		abort();
	free(bytes);
	if (!known)
		return;

	supply_take(supply, &registers, sizeof(registers));
	supply_take(supply, context.segment_base, sizeof(context.segment_base));
	before = registers;
	switch (insn_emulate(&insn, &context)) {
	case INSN_DONE:
		if (registers.rip == before.rip)
			abort();
		break;
	case INSN_AGAIN:
		if (registers.rip != before.rip || registers.gpr[INSN_RCX] == before.gpr[INSN_RCX])
			abort();
		break;
	case INSN_FAULT:
	case INSN_UNSUPPORTED:
		if (memcmp(&registers, &before, sizeof(before)) != 0)
			abort();
		break;
	}
}

static bool walker_read(void *arg, gpa_t gpa, void *data, size_t size)
{
	if ((size != 4 && size != 8) || gpa.value % size != 0)
		abort();
	supply_take(arg, data, size);
	return supply_agrees(arg);
}

static enum walk_exchange walker_exchange(
	void *arg, gpa_t gpa, uint64_t expected, uint64_t desired, size_t size)
{
	/* Only accessed and dirty bits are ever set, and none is ever cleared. */
	if (gpa.value % size != 0 || (desired & expected) != expected ||
		((desired ^ expected) & ~0x60ull) != 0 || desired == expected)
		abort();
	if (supply_agrees(arg))
		return WALK_EXCHANGED;
	return supply_agrees(arg) ? WALK_DIFFERS : WALK_REFUSED;
}

static void fuzz_walk(struct supply *supply)
{
	struct walk_registers registers;
	const struct walk_memory memory = {supply, walker_read, walker_exchange};
	struct walk_result result;
	uint8_t small[3];
	uint64_t gva;

	supply_take(supply, small, sizeof(small));
	supply_take(supply, &gva, sizeof(gva));
	memset(&registers, 0, sizeof(registers));
	supply_take(supply, &registers.cr0, 8);
	supply_take(supply, &registers.cr3, 8);
	supply_take(supply, &registers.cr4, 8);
	supply_take(supply, &registers.efer, 8);
	supply_take(supply, &registers.rflags, 8);
	supply_take(supply, &registers.pkru, 4);
	registers.physical_bits = 32 + small[0] % 21;
	registers.huge_pages = (small[1] & 1) != 0;
	if (walk_guest_tables(&registers, &memory, GVA(gva), small[2], &result) != WALK_OK)
		return;
	if (result.error_code != 0 || result.page_size < PAGE_SIZE || result.page_size > SIZE_1G ||
		((result.gpa.value ^ gva) & (PAGE_SIZE - 1)) != 0 || result.gpa.value >> 52 != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct supply supply = {data, size};
	uint8_t what;

	supply_take(&supply, &what, 1);
	if (what % 5 == 4)
		fuzz_walk(&supply);
	else
		fuzz_instruction(&supply, (enum insn_mode)(what % 5));
	return 0;
}
