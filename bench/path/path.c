/*
 * A plugin of QEMU's: how much of Parapet runs between an exit of a guest and its next entry. Counts
 * instructions, translated blocks, and pages that are executed and that are read or written, each
 * once, and keeps stays apart by the block of the guest that exited and by their instructions. A stay
 * has more than one entry where the guest exits again before it executes anything.
 * One processor. At the end a line for each, in FILE:
 *
 *	GUEST_PC STAYS ENTRIES INSTRUCTIONS BLOCKS PAGES_EXECUTED PAGES_OTHER
 *
 *	-plugin path.so,out=FILE
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/path/plugin.h"

#define IMAGE_BASE  0xffffffff80000000u /* arch/x86/layout.h; the guest's kernel lies below */
#define PAGE_MASK   (~0xfffull)
#define NUMBERS_MAX 4096
#define STAYS_MAX   16384

/* Different numbers, each once. */
struct numbers {
	uint32_t count;
	uint64_t number[NUMBERS_MAX];
};

struct stay {
	uint64_t guest; /* the block that exited */
	uint64_t times;
	uint64_t instructions;
	uint32_t entries, blocks, executed, other;
};

static struct numbers blocks, executed, other;
static struct stay stays[STAYS_MAX];
static uint32_t stay_count, entries;
static uint64_t instructions, guest;
static bool inside;

static void note(struct numbers *numbers, uint64_t number)
{
	for (uint32_t i = numbers->count; i-- > 0;)
		if (numbers->number[i] == number)
			return;
	if (numbers->count < NUMBERS_MAX)
		numbers->number[numbers->count++] = number;
}

static void begin_stay(void)
{
	blocks.count = executed.count = other.count = 0;
	instructions = 0;
	entries = 0;
}

static void end_stay(void)
{
	struct stay *stay = stays;

	while (stay < stays + stay_count &&
		(stay->guest != guest || stay->instructions != instructions))
		stay++;
	if (stay == stays + STAYS_MAX)
		return;
	if (stay == stays + stay_count) {
		stay_count++;
		*stay = (struct stay){
			.guest = guest,
			.instructions = instructions,
			.entries = entries,
			.blocks = blocks.count,
			.executed = executed.count,
			.other = other.count,
		};
	}
	stay->times++;
}

static void block_runs(unsigned int vcpu, void *data)
{
	uint64_t pc = (uint64_t)data;
	bool parapet = pc >= IMAGE_BASE;

	(void)vcpu;
	if (parapet && !inside)
		begin_stay();
	if (!parapet && inside)
		end_stay();
	inside = parapet;
	if (parapet)
		note(&blocks, pc);
	else
		guest = pc;
}

static void instruction_runs(unsigned int vcpu, void *data)
{
	(void)vcpu;
	if (!inside)
		return;
	instructions++;
	note(&executed, (uint64_t)data & PAGE_MASK);
}

static void entry_runs(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	entries++;
}

static bool is_entry(const struct qemu_plugin_insn *insn)
{
	static const uint8_t vmrun[] = {0x0f, 0x01, 0xd8};

	return qemu_plugin_insn_size(insn) == sizeof(vmrun) &&
		memcmp(qemu_plugin_insn_data(insn), vmrun, sizeof(vmrun)) == 0;
}

static void memory_used(unsigned int vcpu, uint32_t info, uint64_t address, void *data)
{
	(void)vcpu;
	(void)info;
	(void)data;
	if (inside)
		note(&other, address & PAGE_MASK);
}

void plugin_translated(struct qemu_plugin_tb *tb)
{
	qemu_plugin_register_vcpu_tb_exec_cb(tb, block_runs, 0, (void *)qemu_plugin_tb_vaddr(tb));
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

		qemu_plugin_register_vcpu_insn_exec_cb(
			insn, instruction_runs, 0, (void *)qemu_plugin_insn_vaddr(insn));
		if (is_entry(insn))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, entry_runs, 0, NULL);
		qemu_plugin_register_vcpu_mem_cb(insn, memory_used, 0, PLUGIN_READ_OR_WRITE, NULL);
	}
}

void plugin_write(FILE *file)
{
	for (const struct stay *stay = stays; stay < stays + stay_count; stay++)
		fprintf(file, "%" PRIx64 " %" PRIu64 " %u %" PRIu64 " %u %u %u\n", stay->guest,
			stay->times, stay->entries, stay->instructions, stay->blocks,
			stay->executed, stay->other);
}
