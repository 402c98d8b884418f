/*
 * The options of `parapet run`, checked as far as they can be without looking at the computer.
 * No files, no processes, no output.
 */
#ifndef PARAPET_TOOLS_RUN_OPTIONS_H
#define PARAPET_TOOLS_RUN_OPTIONS_H

#include <parapet/types.h>

#include "tools/tool_error.h"
#include "tools/tool_text.h"

#define RUN_CPUS_MAX	   VP_COUNT_MAX
#define RUN_CPUS_DEFAULT   4
#define RUN_MEMORY_MIN	   (128ull << 20)
#define RUN_MEMORY_MAX	   (512ull << 30) /* what QEMU's CPU and the identity map can address */
#define RUN_MEMORY_DEFAULT (512ull << 20)
#define RUN_ALLOW_IO_MAX   64
#define RUN_VP_STRIDE_MAX  64u /* so that the last of 64 VPs is in the last bank of a sparse set */

enum run_accel {
	RUN_ACCEL_AUTO,
	RUN_ACCEL_TCG,
	RUN_ACCEL_TCG_SINGLE, /* one thread for all processors */
	RUN_ACCEL_KVM,
};

enum run_ap_start {
	RUN_AP_START_MAILBOX,
	RUN_AP_START_SIPI,
};

enum run_tlb_flush {
	RUN_TLB_FLUSH_AUTO,
	RUN_TLB_FLUSH_HYPERCALL,
	RUN_TLB_FLUSH_IPI,
};

enum run_protect {
	RUN_PROTECT_NOTHING,
	RUN_PROTECT_KERNEL,
};

#define RUN_AP_START_DEFAULT  RUN_AP_START_MAILBOX
#define RUN_TLB_FLUSH_DEFAULT RUN_TLB_FLUSH_AUTO

/* Strings belong to the argument vector that was parsed. */
struct run_options {
	unsigned cpus;
	uint64_t memory_bytes;
	const char *kernel; /* NULL: the demo guest */
	const char *initrd;
	const char *append; /* NULL: what suits the kernel */
	enum run_accel accel;
	enum run_ap_start ap_start;
	enum run_tlb_flush tlb_flush;
	enum run_protect protect;
	unsigned vp_stride; /* between the VP indexes that the guest sees; 1 unless testing */
	bool no_paravisor;
	bool verbose;
	bool interrupt_exits;
	bool vsm;
	bool help;
	struct port_range allow_io[RUN_ALLOW_IO_MAX];
	size_t allow_io_count;
	const char *stats;
	const char *trace;
	uint64_t timeout_ms; /* 0: none */
	char *const *qemu_arguments; /* what follows -- */
	size_t qemu_argument_count;
};

/*
 * Reads `arguments` (the first is the word "run", a NULL follows the last) into *options; their
 * order may be changed. False with *error set if anything is unknown, missing, malformed or out of
 * range. With --help the rest is not looked at.
 */
bool run_options_parse(
	int count, char **arguments, struct run_options *options, struct tool_error *error);

/* The names that the options use, and Parapet's command line with them. */
const char *run_accel_name(enum run_accel accel);
const char *run_ap_start_name(enum run_ap_start ap_start);
const char *run_tlb_flush_name(enum run_tlb_flush tlb_flush);

#endif
