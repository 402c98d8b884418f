/* `parapet run`: prepares a run, watches it, tells how it went. The run itself is in run_loop.c. */
#include "tools/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/help.h"
#include "tools/host.h"
#include "tools/image_file.h"
#include "tools/message.h"
#include "tools/output_file.h"
#include "tools/qemu_args.h"
#include "tools/run_loop.h"
#include "tools/stats_json.h"
#include "tools/summary.h"
#include "tools/trace_export.h"

#define LINUX_APPEND_DEFAULT "console=ttyS0 panic=-1"

/* What a run is made from, found and checked before anything is started. */
struct run_inputs {
	char qemu[PATH_MAX];
	struct image_places places;
	const char *kernel;
	const char *initrd; /* NULL: none */
	const char *append;
	struct guest_info guest;
	enum run_accel accel; /* not auto */
};

static bool find_acceleration(
	const struct run_options *options, enum run_accel *accel, struct tool_error *error)
{
	const char *reason;

	*accel = options->accel;
	if (*accel == RUN_ACCEL_TCG || *accel == RUN_ACCEL_TCG_SINGLE)
		return true;

	enum host_kvm found = host_find_kvm(&reason);

	if (*accel == RUN_ACCEL_AUTO) {
		*accel = found == HOST_KVM_WITH_SVM ? RUN_ACCEL_KVM : RUN_ACCEL_TCG;
		return true;
	}
	/* The bare guest needs no SVM. */
	return found == HOST_KVM_WITH_SVM || (options->no_paravisor && found != HOST_KVM_MISSING) ||
		tool_error_set(error, "--accel kvm: %s; use --accel tcg",
			found == HOST_KVM_MISSING
				? reason
				: "KVM on this computer offers no SVM to a guest");
}

static bool find_demo(
	const struct run_options *options, struct run_inputs *inputs, struct tool_error *error)
{
	inputs->kernel = options->kernel;
	inputs->initrd = options->initrd;
	if (inputs->kernel)
		return true;
	inputs->kernel = inputs->places.demo_kernel;
	if (access(inputs->kernel, F_OK) != 0)
		return tool_error_set(error,
			"the demo guest is not built (no %s): run make, or name a --kernel",
			inputs->kernel);
	if (inputs->initrd)
		return true;
	inputs->initrd = inputs->places.demo_initrd;
	if (access(inputs->initrd, F_OK) != 0)
		return tool_error_set(error,
			"the demo guest is not built (no %s): run make, or name a --kernel",
			inputs->initrd);
	return true;
}

static bool check_guest(
	const struct run_options *options, struct run_inputs *inputs, struct tool_error *error)
{
	uint64_t kernel_bytes = 0;
	uint64_t initrd_bytes = 0;

	if (!image_file_check_kernel(
		    "kernel", inputs->kernel, &inputs->guest, &kernel_bytes, error))
		return false;
	if (inputs->initrd && !image_file_check("initrd", inputs->initrd, &initrd_bytes, error))
		return false;
	if (kernel_bytes + initrd_bytes >= options->memory_bytes)
		return tool_error_set(error,
			"kernel and initrd have %llu MiB and do not fit in %llu MiB of memory; "
			"give "
			"more with --memory",
			(unsigned long long)(kernel_bytes + initrd_bytes) >> 20,
			(unsigned long long)options->memory_bytes >> 20);

	inputs->append = options->append;
	if (!inputs->append)
		inputs->append = inputs->guest.kind == GUEST_LINUX ? LINUX_APPEND_DEFAULT : "";
	if (strlen(inputs->append) > inputs->guest.command_line_max)
		return tool_error_set(error,
			"the command line of --append has %zu bytes, this kernel takes %llu; "
			"shorten it",
			strlen(inputs->append), (unsigned long long)inputs->guest.command_line_max);
	if (strpbrk(inputs->append, "\n\r"))
		return tool_error_set(error, "the command line of --append has a line break in it");
	return true;
}

static bool check_paravisor(const struct run_inputs *inputs, struct tool_error *error)
{
	uint64_t bytes;

	if (access(inputs->places.paravisor, F_OK) != 0)
		return tool_error_set(
			error, "Parapet's image %s is missing: run make", inputs->places.paravisor);
	return image_file_check("Parapet's image", inputs->places.paravisor, &bytes, error);
}

/* All that can be found wrong before a machine is started. */
static bool prepare_inputs(
	const struct run_options *options, struct run_inputs *inputs, struct tool_error *error)
{
	if (options->stats && !output_file_check("--stats", options->stats, error))
		return false;
	if (options->trace && !output_file_check("--trace", options->trace, error))
		return false;
	if (!image_places_find(&inputs->places, error) || !find_demo(options, inputs, error) ||
		!check_guest(options, inputs, error))
		return false;
	if (!options->no_paravisor && !check_paravisor(inputs, error))
		return false;
	return qemu_find(inputs->qemu, error) && find_acceleration(options, &inputs->accel, error);
}

static bool stage_inputs(struct stage *stage, const struct run_inputs *inputs, bool paravisor,
	struct tool_error *error)
{
	if (!stage_open(stage, error) ||
		!stage_link(stage, inputs->kernel, "kernel", stage->kernel, error))
		return false;
	if (inputs->initrd && !stage_link(stage, inputs->initrd, "initrd", stage->initrd, error))
		return false;
	return !paravisor ||
		stage_link(stage, inputs->places.paravisor, "paravisor", stage->paravisor, error);
}

/* Reads the copy of the block as it lies in the stage and checks it. The caller frees *bytes. */
static bool load_block(
	const char *path, uint8_t **bytes, struct block_view *view, struct tool_error *error)
{
	FILE *file = fopen(path, "rbe");
	struct stat status;

	*bytes = NULL;
	if (!file || fstat(fileno(file), &status) != 0) {
		tool_error_set(error, "its copy cannot be opened: %s", strerror(errno));
		if (file)
			fclose(file);
		return false;
	}

	/* One alignment more than needed, so that an empty file is memory too. */
	*bytes = aligned_alloc(64, ALIGN_DOWN((size_t)status.st_size, (size_t)64) + 64);
	if (!*bytes) {
		fclose(file);
		return tool_error_set(error, "there is no memory to read its copy");
	}

	size_t count = fread(*bytes, 1, (size_t)status.st_size, file);

	fclose(file);
	return block_read(*bytes, count, view, error);
}

static bool start_run(struct run_loop *loop, const struct run_inputs *inputs,
	const struct stage *stage, struct tool_error *error)
{
	const struct run_options *options = loop->options;
	struct qemu_args args;
	uint16_t port;

	if (!qemu_connect(&loop->qemu, !options->no_paravisor, error))
		return false;

	struct qemu_plan plan = {
		.options = options,
		.qemu = inputs->qemu,
		.accel = inputs->accel,
		.paravisor = options->no_paravisor ? NULL : stage->paravisor,
		.kernel = stage->kernel,
		.initrd = inputs->initrd ? stage->initrd : NULL,
		.append = inputs->append,
		.kind = inputs->guest.kind,
		.console_fd = loop->qemu.its_console_fd,
		.channel_fd = loop->qemu.its_channel_fd,
		.qmp_fd = loop->qemu.its_qmp_fd,
	};

	if (!qemu_args_build(&plan, &args)) {
		qemu_args_free(&args);
		return tool_error_set(error, "out of memory");
	}
	if (options->verbose) {
		message_print("QEMU is %s on %s", inputs->qemu,
			inputs->accel == RUN_ACCEL_KVM ? "KVM" : "its own software CPU");
		for (size_t i = 0; i < args.count; i++)
			message_print("  argument %zu: %s", i, args.words[i]);
	}
	loop->exit_port = qemu_args_find_exit_port(options, &port);
	run_loop_run(loop, args.words);
	qemu_args_free(&args);
	return true;
}

/*
 * Writes the files that were asked for. False if one could not be written; that has been said then.
 */
static bool write_results(const struct run_options *options, const struct run_result *result,
	const struct verdict *verdict)
{
	struct tool_error error;
	bool written = true;

	if (options->stats) {
		char *text = stats_json_make(result, verdict);

		if (!text)
			tool_error_set(&error, "out of memory for the statistics");
		if (!text ||
			!output_file_write("--stats", options->stats, text, strlen(text), &error)) {
			message_print("%s", error.text);
			written = false;
		}
		free(text);
	}
	if (options->trace) {
		struct trace_export export = trace_export_make(result->block);

		if (!export.text)
			tool_error_set(&error, "out of memory for the trace");
		if (!export.text ||
			!output_file_write("--trace", options->trace, export.text,
				strlen(export.text), &error)) {
			message_print("%s", error.text);
			written = false;
		}
		free(export.text);
	}
	return written;
}

/* The run is over and QEMU is gone: what is there to tell? Returns the exit status. */
static int conclude(struct run_loop *loop, struct run_result *result, struct block_view *view)
{
	const struct run_options *options = loop->options;
	struct tool_error error;
	uint8_t *bytes = NULL;
	bool broken = false;

	if (loop->block_saved) {
		if (load_block(loop->stage->block, &bytes, view, &error)) {
			result->block = view;
		} else {
			message_print("Parapet's block is broken: %s", error.text);
			broken = true;
		}
	}

	struct verdict verdict = verdict_decide(result);

	/* A guest cannot break the block: whatever else happened, this is Parapet's own fault. */
	if (broken && verdict.status == EXIT_STATUS_WELL) {
		verdict.status = EXIT_STATUS_PARAPET_FAILED;
		snprintf(verdict.text, sizeof(verdict.text),
			"Parapet failed: it left a broken block behind");
	}
	if (verdict.status == EXIT_STATUS_REFUSED) {
		message_print("%s", verdict.text);
	} else {
		if (!write_results(options, result, &verdict) && verdict.status == EXIT_STATUS_WELL)
			verdict.status = EXIT_STATUS_REFUSED;
		summary_print(stderr, isatty(STDERR_FILENO), result, &verdict);
	}
	result->block = NULL;
	free(bytes);
	return verdict.status;
}

/* Everything that has to be undone again is made and undone here, whatever happens in between. */
static int run_prepared(const struct run_options *options, const struct run_inputs *inputs)
{
	struct run_result result = {
		.paravisor = !options->no_paravisor,
		.accel = inputs->accel,
		.cpus = options->cpus,
		.memory_bytes = options->memory_bytes,
		.timeout_ms = options->timeout_ms,
	};
	struct stage stage = {.directory = ""};
	struct block_view view;
	struct tool_error error;
	int status = EXIT_STATUS_REFUSED;
	struct run_loop *loop = calloc(1, sizeof(*loop));

	if (!loop) {
		message_print("out of memory");
		return status;
	}
	loop->options = options;
	loop->stage = &stage;
	loop->result = &result;
	loop->signals = -1;
	if (run_loop_catch_signals(loop, &error) &&
		stage_inputs(&stage, inputs, result.paravisor, &error) &&
		start_run(loop, inputs, &stage, &error))
		status = conclude(loop, &result, &view);
	else
		message_print("%s", error.text);
	stage_close(&stage);
	run_loop_close(loop);
	free(loop);
	return status;
}

int run_command(int count, char **arguments)
{
	struct run_options options;
	struct run_inputs *inputs;
	struct tool_error error;
	int status = EXIT_STATUS_REFUSED;

	if (!run_options_parse(count, arguments, &options, &error)) {
		message_print("%s", error.text);
		return status;
	}
	if (options.help) {
		help_print_run(stdout);
		return fflush(stdout) == 0 ? EXIT_STATUS_WELL : status;
	}
	inputs = calloc(1, sizeof(*inputs));
	if (inputs && prepare_inputs(&options, inputs, &error))
		status = run_prepared(&options, inputs);
	else
		message_print("%s", inputs ? error.text : "out of memory");
	free(inputs);
	return status;
}
