/*
 * QEMU's argument vector for a run: the only place that knows its options. Builds strings; starts
 * nothing and touches no file.
 */
#ifndef PARAPET_TOOLS_QEMU_ARGS_H
#define PARAPET_TOOLS_QEMU_ARGS_H

#include "tools/guest_check.h"
#include "tools/run_options.h"

/*
 * What the machine is made of. Paths are plain: no space and no comma (tools/stage.h sees to it).
 */
struct qemu_plan {
	const struct run_options *options;
	const char *qemu;
	enum run_accel accel; /* not auto */
	const char *paravisor; /* NULL with --no-paravisor */
	const char *kernel;
	const char *initrd; /* NULL: none */
	const char *append;
	enum guest_kind kind;
	int console_fd; /* connected sockets that QEMU inherits */
	int channel_fd; /* -1 with --no-paravisor */
	int qmp_fd;
};

/* A NULL-terminated vector that owns its strings. */
struct qemu_args {
	char **words;
	size_t count;
	size_t room;
	bool failed; /* no memory at some point: the vector is not complete */
};

/*
 * Builds the whole vector. False if there is no memory. Free it with qemu_args_free() either way.
 */
bool qemu_args_build(const struct qemu_plan *plan, struct qemu_args *args);

void qemu_args_free(struct qemu_args *args);

/*
 * Whether the QEMU options after -- add an isa-debug-exit device; if so *port is its I/O base
 * (0x501 unless said otherwise).
 */
bool qemu_args_find_exit_port(const struct run_options *options, uint16_t *port);

/* Parapet's own command line for these options. The caller frees it; NULL if there is no memory. */
char *qemu_args_paravisor_options(const struct run_options *options);

#endif
