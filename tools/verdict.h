/*
 * How a run ended, and what that means: the exit status of the command and a sentence. No output.
 */
#ifndef PARAPET_TOOLS_VERDICT_H
#define PARAPET_TOOLS_VERDICT_H

#include <stdint.h>

#include "tools/block_read.h"
#include "tools/run_options.h"

enum exit_status {
	EXIT_STATUS_WELL = 0, /* the guest ended well */
	EXIT_STATUS_GUEST_FAILED = 1,
	EXIT_STATUS_REFUSED = 2, /* usage or environment */
	EXIT_STATUS_TIMEOUT = 3,
	EXIT_STATUS_PARAPET_FAILED = 4,
};

enum run_end {
	RUN_END_NONE,
	RUN_END_POWER_OFF,
	RUN_END_RESET,
	RUN_END_TRIPLE_FAULT,
	RUN_END_EXIT_PORT, /* code: what the guest wrote */
	RUN_END_REFUSED,
	RUN_END_PARAPET_FAULT,
	RUN_END_TIMEOUT,
	RUN_END_HANG_AFTER_PANIC,
	RUN_END_SIGNAL, /* code: the signal's number */
	RUN_END_LEFT, /* Ctrl-A X */
	RUN_END_NO_OUTPUT, /* nobody reads the console any more */
	RUN_END_NOT_STARTED, /* QEMU ended before the machine ran; code: its wait status */
	RUN_END_DIED, /* QEMU ended by itself; code: its wait status */
	RUN_END_SILENT, /* Parapet never said a word; code: seconds waited */
	RUN_END_UNANNOUNCED, /* the machine ended under Parapet without its word */
	RUN_END_BROKEN, /* the command itself could not go on */
};

/* All that is known about a run once it is over. */
struct run_result {
	enum run_end end;
	uint64_t code;
	bool panic; /* "Kernel panic" was seen on the console */
	bool paravisor;
	enum run_accel accel; /* not auto */
	unsigned cpus;
	uint64_t memory_bytes;
	uint64_t timeout_ms;
	uint64_t wall_us; /* from the machine's start to its end */
	char qemu_version[32]; /* empty if not known */
	const struct block_view *block; /* NULL if there is none */
	struct tool_error detail; /* what else there is to say about the end; may be empty */
};

struct verdict {
	int status;
	char text[1280];
};

/* What to say and which status to exit with. */
struct verdict verdict_decide(const struct run_result *result);

/* A word for the end, for the statistics: "power-off", "timeout" and so on. */
const char *verdict_end_name(enum run_end end);

#endif
