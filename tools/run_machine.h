/*
 * The machine's side of a run: what Parapet and QEMU say, and the steps that bring the machine to
 * its end. Never waits: the loop in tools/run_loop.c does, and calls in here when there is
 * something.
 */
#ifndef PARAPET_TOOLS_RUN_MACHINE_H
#define PARAPET_TOOLS_RUN_MACHINE_H

#include "tools/run_loop.h"

/* The monotonic clock, in microseconds. */
uint64_t run_machine_now_us(void);

/* A line on standard error, on a line of its own even if the console shares the screen. */
void run_machine_say(struct run_loop *loop, bool with_name, const char *text);

/*
 * The run is to end, for this reason: the machine is stopped, its block copied, Parapet answered if
 * it waits. Only the first reason counts; later ones are dropped.
 */
void run_machine_end(struct run_loop *loop, enum run_end end, uint64_t code);

/* Asks QEMU to end; makes it. */
void run_machine_quit(struct run_loop *loop);
void run_machine_kill(struct run_loop *loop);

/* Reads what has come from Parapet and from QEMU's monitor, and does what follows from it. */
void run_machine_read_channel(struct run_loop *loop);
void run_machine_read_qmp(struct run_loop *loop);

#endif
