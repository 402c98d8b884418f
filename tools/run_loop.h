/*
 * A run while it lasts: one loop that waits for QEMU, Parapet, the guest's console, the person at
 * the keyboard, signals and the clock, and brings the machine to its end. Preparing the run and
 * judging it happens in tools/run.c.
 */
#ifndef PARAPET_TOOLS_RUN_LOOP_H
#define PARAPET_TOOLS_RUN_LOOP_H

#include <signal.h>

#include "tools/channel.h"
#include "tools/console.h"
#include "tools/qemu.h"
#include "tools/qmp.h"
#include "tools/stage.h"
#include "tools/verdict.h"

/* How far the run has come. */
enum run_phase {
	RUN_CONNECTING, /* QEMU starts, the machine stands still */
	RUN_RUNNING,
	RUN_STOPPING, /* the end has come: the machine is being stopped, */
	RUN_SAVING, /* the block copied, */
	RUN_RESUMING, /* the machine let go on, */
	RUN_LEAVING, /* so that Parapet does what the guest asked for; */
	RUN_QUITTING, /* QEMU is asked to end; */
	RUN_KILLING, /* or made to, */
	RUN_OVER, /* and has ended. */
};

struct run_loop {
	const struct run_options *options;
	const struct stage *stage;
	struct run_result *result;
	struct qemu qemu;
	struct qmp qmp;
	struct channel channel;
	struct channel errors; /* what QEMU prints */
	struct console console;
	int signals; /* a signalfd */
	sigset_t previous_signals;
	enum run_phase phase;
	uint64_t started_ms; /* when QEMU was started */
	uint64_t running_us; /* when the machine began to run; 0: not yet */
	uint64_t phase_limit_ms; /* when the phase has lasted too long; 0: never */
	uint64_t panic_limit_ms; /* when to stop waiting after a panic; 0: no panic */
	uint64_t start_limit_ms; /* for Parapet's first word */
	bool exit_port; /* the machine has an isa-debug-exit device */
	bool heard; /* Parapet has said something */
	bool guest_entered; /* its first instruction follows */
	bool announced; /* Parapet said "@end" and waits */
	bool machine_ended; /* QEMU says that the machine shut down */
	bool progress_told;
	bool block_known;
	bool block_saved;
	uint64_t block_address;
	uint64_t block_bytes;
};

/*
 * Blocks the signals that end a run and makes them readable. To be called before anything is made
 * that a signal must not leave behind. False with *error set.
 */
bool run_loop_catch_signals(struct run_loop *loop, struct tool_error *error);

/*
 * Starts QEMU with `words`, connections made (loop->qemu), and stays until it has ended. Fills the
 * result's end, code, panic, times and QEMU's version.
 */
void run_loop_run(struct run_loop *loop, char *const *words);

/* Frees all and gives terminal and signals back. Also after a run that never started. */
void run_loop_close(struct run_loop *loop);

#endif
