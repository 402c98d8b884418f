/* The gate for debug registers, and which breakpoint an access hits. See regs.h. */
#include "core/regs/regs.h"

/* Fields of DR7 for breakpoint `i` (AMD64 APM volume 2, 13.1.1.4). */
#define DR7_ENABLE(i)	   (3ull << (2 * (i)))
#define DR7_TYPE(dr7, i)   ((dr7) >> (16 + 4 * (i)) & 3)
#define DR7_LENGTH(dr7, i) ((dr7) >> (18 + 4 * (i)) & 3)

#define BREAKPOINTS 4

enum type {
	TYPE_EXECUTE,
	TYPE_WRITE,
	TYPE_PORT,
	TYPE_READ_WRITE,
};

void regs_gate_init(
	struct regs_gate *gate, const struct regs_capabilities *platform, uint64_t *counter)
{
	*gate = (struct regs_gate){.platform = platform, .counter = counter};
}

void regs_gate_note_exit(struct regs_gate *gate, bool quiet)
{
	gate->entry_is_near = quiet;
}

enum regs_home regs_gate_pass(struct regs_gate *gate, enum regs_name name)
{
	gate->counter[COUNTER_DEBUG_ACCESSES]++;
	if (gate->entry_is_near) {
		gate->counter[COUNTER_DEBUG_INTERRUPT_EXIT_ACCESSES]++;
	}
	return regs_look_up(gate->platform, name).home;
}

bool regs_watches(uint64_t dr7)
{
	for (unsigned int i = 0; i < BREAKPOINTS; i++) {
		if ((dr7 & DR7_ENABLE(i)) && DR7_TYPE(dr7, i) != TYPE_EXECUTE) {
			return true;
		}
	}
	return false;
}

static bool type_waits_for(enum type type, enum regs_access access, bool io_breakpoints)
{
	switch (type) {
	case TYPE_EXECUTE:
		return access == REGS_EXECUTE;
	case TYPE_WRITE:
		return access == REGS_WRITE;
	case TYPE_PORT:
		return access == REGS_PORT && io_breakpoints;
	case TYPE_READ_WRITE:
		return access == REGS_READ || access == REGS_WRITE;
	}
	return false;
}

uint64_t regs_match(const uint64_t dr[4], uint64_t dr7, bool io_breakpoints,
	enum regs_access access, uint64_t address, uint32_t size)
{
	static const uint8_t bytes[] = {1, 2, 8, 4};
	uint64_t hits = 0;

	for (unsigned int i = 0; i < BREAKPOINTS; i++) {
		uint64_t length = bytes[DR7_LENGTH(dr7, i)];
		uint64_t first = dr[i] & ~(length - 1);

		if (!(dr7 & DR7_ENABLE(i)) ||
			!type_waits_for((enum type)DR7_TYPE(dr7, i), access, io_breakpoints)) {
			continue;
		}
		/* Distances, not ends: neither range wraps the comparison at the top of memory. */
		if (address - first < length || first - address < size) {
			hits |= 1ull << i;
		}
	}
	return hits;
}

uint64_t regs_data_hits(uint64_t dr7, uint64_t hits)
{
	for (unsigned int i = 0; i < BREAKPOINTS; i++) {
		enum type type = (enum type)DR7_TYPE(dr7, i);

		if (!(dr7 & DR7_ENABLE(i)) || (type != TYPE_WRITE && type != TYPE_READ_WRITE)) {
			hits &= ~(1ull << i);
		}
	}
	return hits & 0xf;
}
