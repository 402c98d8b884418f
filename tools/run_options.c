/*
 * The options of `parapet run`, checked as far as they can be without looking at the computer.
 * No files, no processes, no output.
 */
#include "tools/run_options.h"

#include <getopt.h>
#include <string.h>

enum option_id {
	OPTION_CPUS = 256,
	OPTION_MEMORY,
	OPTION_KERNEL,
	OPTION_INITRD,
	OPTION_APPEND,
	OPTION_PLATFORM,
	OPTION_ACCEL,
	OPTION_AP_START,
	OPTION_TLB_FLUSH,
	OPTION_PROTECT,
	OPTION_INTERRUPT_EXITS,
	OPTION_VP_STRIDE,
	OPTION_VSM,
	OPTION_NO_PARAVISOR,
	OPTION_ALLOW_IO,
	OPTION_STATS,
	OPTION_TRACE,
	OPTION_TIMEOUT,
	OPTION_VERBOSE,
	OPTION_HELP,
};

static const struct option run_long_options[] = {
	{"cpus", required_argument, NULL, OPTION_CPUS},
	{"memory", required_argument, NULL, OPTION_MEMORY},
	{"kernel", required_argument, NULL, OPTION_KERNEL},
	{"initrd", required_argument, NULL, OPTION_INITRD},
	{"append", required_argument, NULL, OPTION_APPEND},
	{"platform", required_argument, NULL, OPTION_PLATFORM},
	{"accel", required_argument, NULL, OPTION_ACCEL},
	{"ap-start", required_argument, NULL, OPTION_AP_START},
	{"tlb-flush", required_argument, NULL, OPTION_TLB_FLUSH},
	{"protect", required_argument, NULL, OPTION_PROTECT},
	{"vp-stride", required_argument, NULL, OPTION_VP_STRIDE},
	{"interrupt-exits", no_argument, NULL, OPTION_INTERRUPT_EXITS},
	{"vsm", no_argument, NULL, OPTION_VSM},
	{"no-paravisor", no_argument, NULL, OPTION_NO_PARAVISOR},
	{"allow-io", required_argument, NULL, OPTION_ALLOW_IO},
	{"stats", required_argument, NULL, OPTION_STATS},
	{"trace", required_argument, NULL, OPTION_TRACE},
	{"timeout", required_argument, NULL, OPTION_TIMEOUT},
	{"verbose", no_argument, NULL, OPTION_VERBOSE},
	{"help", no_argument, NULL, OPTION_HELP},
	{NULL, 0, NULL, 0},
};

#define RUN_OPTION_COUNT (ARRAY_SIZE(run_long_options) - 1)

static const char *const accel_names[] = {
	[RUN_ACCEL_AUTO] = "auto",
	[RUN_ACCEL_TCG] = "tcg",
	[RUN_ACCEL_TCG_SINGLE] = "tcg-single",
	[RUN_ACCEL_KVM] = "kvm",
};
static const char *const ap_start_names[] = {
	[RUN_AP_START_MAILBOX] = "mailbox",
	[RUN_AP_START_SIPI] = "sipi",
};
static const char *const tlb_flush_names[] = {
	[RUN_TLB_FLUSH_AUTO] = "auto",
	[RUN_TLB_FLUSH_HYPERCALL] = "hypercall",
	[RUN_TLB_FLUSH_IPI] = "ipi",
};

const char *run_accel_name(enum run_accel accel)
{
	return accel_names[accel];
}

const char *run_ap_start_name(enum run_ap_start ap_start)
{
	return ap_start_names[ap_start];
}

const char *run_tlb_flush_name(enum run_tlb_flush tlb_flush)
{
	return tlb_flush_names[tlb_flush];
}

/* The index of `value` among `names`; -1 if it is none of them. */
static int name_index(const char *value, const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(value, names[i]) == 0)
			return (int)i;
	}
	return -1;
}

static bool parse_cpus(const char *value, struct run_options *options, struct tool_error *error)
{
	uint64_t cpus;

	if (!text_parse_unsigned(value, RUN_CPUS_MAX, &cpus) || cpus == 0)
		return tool_error_set(error,
			"--cpus %s: must be a number from 1 to %u, for example --cpus 4", value,
			RUN_CPUS_MAX);
	options->cpus = (unsigned)cpus;
	return true;
}

static bool parse_memory(const char *value, struct run_options *options, struct tool_error *error)
{
	uint64_t bytes;

	if (!text_parse_memory(value, &bytes))
		return tool_error_set(error,
			"--memory %s: not a size; write a number with K, M or G, for example "
			"--memory 512M (a plain number is MiB)",
			value);
	if (bytes < RUN_MEMORY_MIN)
		return tool_error_set(error,
			"--memory %s: too little, Parapet and a guest need at least %lluM", value,
			RUN_MEMORY_MIN >> 20);
	if (bytes > RUN_MEMORY_MAX)
		return tool_error_set(error, "--memory %s: too much, the limit is %lluG", value,
			RUN_MEMORY_MAX >> 30);
	options->memory_bytes = bytes;
	return true;
}

static bool parse_platform(const char *value, struct tool_error *error)
{
	if (strcmp(value, "svm") != 0)
		return tool_error_set(error,
			"--platform %s: not available, this version runs on svm only", value);
	return true;
}

static bool parse_vp_stride(
	const char *value, struct run_options *options, struct tool_error *error)
{
	uint64_t stride;

	if (!text_parse_unsigned(value, RUN_VP_STRIDE_MAX, &stride) || stride == 0)
		return tool_error_set(error,
			"--vp-stride %s: must be a number from 1 to %u, for example --vp-stride 64",
			value, RUN_VP_STRIDE_MAX);
	options->vp_stride = (unsigned)stride;
	return true;
}

static bool parse_allow_io(const char *value, struct run_options *options, struct tool_error *error)
{
	struct port_range range;

	switch (text_parse_port_range(value, &range)) {
	case TEXT_PORT_OK:
		break;
	case TEXT_PORT_TOO_HIGH:
		return tool_error_set(error, "--allow-io %s: ports go up to ffff", value);
	case TEXT_PORT_REVERSED:
		return tool_error_set(
			error, "--allow-io %s: the first port is above the last; swap them", value);
	case TEXT_PORT_MALFORMED:
		return tool_error_set(error,
			"--allow-io %s: must be FIRST-LAST in hexadecimal, for example "
			"--allow-io f4-f7",
			value);
	}
	if (options->allow_io_count == RUN_ALLOW_IO_MAX)
		return tool_error_set(error,
			"--allow-io %s: more than %d ranges; join some of them", value,
			RUN_ALLOW_IO_MAX);
	options->allow_io[options->allow_io_count++] = range;
	return true;
}

static bool parse_timeout(const char *value, struct run_options *options, struct tool_error *error)
{
	if (!text_parse_seconds(value, &options->timeout_ms))
		return tool_error_set(error,
			"--timeout %s: must be a number of seconds above 0, for example "
			"--timeout 60",
			value);
	return true;
}

/* A file or text that must not be empty. */
static bool parse_file(
	const char *name, const char *value, const char **file, struct tool_error *error)
{
	if (value[0] == '\0')
		return tool_error_set(error, "--%s: the file's name is empty", name);
	*file = value;
	return true;
}

static bool parse_option(
	int id, const char *value, struct run_options *options, struct tool_error *error)
{
	int index;

	switch (id) {
	case OPTION_CPUS:
		return parse_cpus(value, options, error);
	case OPTION_MEMORY:
		return parse_memory(value, options, error);
	case OPTION_KERNEL:
		return parse_file("kernel", value, &options->kernel, error);
	case OPTION_INITRD:
		return parse_file("initrd", value, &options->initrd, error);
	case OPTION_APPEND:
		options->append = value;
		return true;
	case OPTION_PLATFORM:
		return parse_platform(value, error);
	case OPTION_ACCEL:
		index = name_index(value, accel_names, ARRAY_SIZE(accel_names));
		if (index < 0)
			return tool_error_set(
				error, "--accel %s: must be auto, tcg, tcg-single or kvm", value);
		options->accel = (enum run_accel)index;
		return true;
	case OPTION_AP_START:
		index = name_index(value, ap_start_names, ARRAY_SIZE(ap_start_names));
		if (index < 0)
			return tool_error_set(
				error, "--ap-start %s: must be mailbox or sipi", value);
		options->ap_start = (enum run_ap_start)index;
		return true;
	case OPTION_TLB_FLUSH:
		index = name_index(value, tlb_flush_names, ARRAY_SIZE(tlb_flush_names));
		if (index < 0)
			return tool_error_set(
				error, "--tlb-flush %s: must be auto, hypercall or ipi", value);
		options->tlb_flush = (enum run_tlb_flush)index;
		return true;
	case OPTION_PROTECT:
		if (strcmp(value, "kernel") != 0)
			return tool_error_set(error, "--protect %s: must be kernel", value);
		options->protect = RUN_PROTECT_KERNEL;
		return true;
	case OPTION_VP_STRIDE:
		return parse_vp_stride(value, options, error);
	case OPTION_INTERRUPT_EXITS:
		options->interrupt_exits = true;
		return true;
	case OPTION_VSM:
		options->vsm = true;
		return true;
	case OPTION_NO_PARAVISOR:
		options->no_paravisor = true;
		return true;
	case OPTION_ALLOW_IO:
		return parse_allow_io(value, options, error);
	case OPTION_STATS:
		return parse_file("stats", value, &options->stats, error);
	case OPTION_TRACE:
		return parse_file("trace", value, &options->trace, error);
	case OPTION_TIMEOUT:
		return parse_timeout(value, options, error);
	case OPTION_VERBOSE:
		options->verbose = true;
		return true;
	}
	options->help = true;
	return true;
}

/* "unknown option", with the nearest one that exists. `text` may carry a value after '='. */
static bool refuse_unknown(const char *text, struct tool_error *error)
{
	const char *names[RUN_OPTION_COUNT];
	char word[64];
	size_t length = strcspn(text, "=");

	for (size_t i = 0; i < RUN_OPTION_COUNT; i++)
		names[i] = run_long_options[i].name;
	if (length < sizeof(word)) {
		const char *bare = text + strspn(text, "-");

		memcpy(word, text, length);
		word[length] = '\0';
		const char *nearest = text_nearest(word + (bare - text), names, RUN_OPTION_COUNT);

		if (nearest)
			return tool_error_set(
				error, "unknown option %s: did you mean --%s?", word, nearest);
	}
	return tool_error_set(
		error, "unknown option %s: `parapet help run` lists the options", text);
}

static const char *option_name(int id)
{
	for (size_t i = 0; i < RUN_OPTION_COUNT; i++) {
		if (run_long_options[i].val == id)
			return run_long_options[i].name;
	}
	return "?";
}

/* What getopt_long() did not like: `text` is the argument that it was looking at. */
static bool refuse_option(const char *text, int id, struct tool_error *error)
{
	if (id >= OPTION_CPUS)
		return tool_error_set(error, "option %s takes no value", text);
	return refuse_unknown(text, error);
}

bool run_options_parse(
	int count, char **arguments, struct run_options *options, struct tool_error *error)
{
	*options = (struct run_options){
		.cpus = RUN_CPUS_DEFAULT,
		.memory_bytes = RUN_MEMORY_DEFAULT,
		.accel = RUN_ACCEL_AUTO,
		.ap_start = RUN_AP_START_DEFAULT,
		.tlb_flush = RUN_TLB_FLUSH_DEFAULT,
		.vp_stride = 1,
	};

	optind = 0; /* start over, whatever was parsed before */
	for (;;) {
		int looking_at = optind == 0 ? 1 : optind;
		/* '-': arguments in their order; ':': a missing value is told apart. */
		int id = getopt_long(count, arguments, "-:hv", run_long_options, NULL);

		if (id == -1)
			break;
		if (id == 1)
			return tool_error_set(error,
				"unexpected argument %s: a kernel is named with --kernel, options "
				"for QEMU follow --",
				optarg);
		if (id == ':')
			return tool_error_set(
				error, "option --%s needs a value", option_name(optopt));
		if (id == '?')
			return refuse_option(arguments[looking_at], optopt, error);
		if (id == 'h')
			id = OPTION_HELP;
		if (id == 'v')
			id = OPTION_VERBOSE;
		if (!parse_option(id, optarg, options, error))
			return false;
		if (options->help)
			return true;
	}
	options->qemu_arguments = arguments + optind;
	options->qemu_argument_count = (size_t)(count - optind);

	if (options->protect && options->vsm)
		return tool_error_set(error,
			"--protect kernel cannot go with --vsm, where the kernel in VTL1 seals for "
			"itself: leave one of them out");
	if (options->protect && options->no_paravisor)
		return tool_error_set(error,
			"--protect kernel is what Parapet does: it cannot go with --no-paravisor");
	if (options->stats && options->trace && strcmp(options->stats, options->trace) == 0)
		return tool_error_set(
			error, "--stats and --trace name the same file %s", options->stats);
	return true;
}
