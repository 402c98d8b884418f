/* QEMU's argument vector for a run. Builds strings; starts nothing and touches no file. */
#include "tools/qemu_args.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_DEVICE	  "isa-debug-exit"
#define EXIT_PORT_DEFAULT 0x501

/* Takes over `word`, which may be NULL for want of memory. */
static void args_add_owned(struct qemu_args *args, char *word)
{
	if (!word || args->failed)
		goto fail;
	if (args->count + 2 > args->room) {
		size_t room = args->room ? 2 * args->room : 64;
		char **grown = realloc(args->words, room * sizeof(*grown));

		if (!grown)
			goto fail;
		args->words = grown;
		args->room = room;
	}
	args->words[args->count++] = word;
	args->words[args->count] = NULL;
	return;
fail:
	free(word);
	args->failed = true;
}

static void args_add(struct qemu_args *args, const char *word)
{
	args_add_owned(args, strdup(word));
}

__attribute__((format(printf, 2, 3))) static void args_addf(
	struct qemu_args *args, const char *format, ...)
{
	va_list arguments;
	char *word;

	va_start(arguments, format);
	if (vasprintf(&word, format, arguments) < 0)
		word = NULL;
	va_end(arguments);
	args_add_owned(args, word);
}

void qemu_args_free(struct qemu_args *args)
{
	for (size_t i = 0; i < args->count; i++)
		free(args->words[i]);
	free(args->words);
	*args = (struct qemu_args){0};
}

/* Whether `text` (a value of -device) is an exit device, and its port. */
static bool parse_exit_device(const char *text, uint16_t *port)
{
	/* NAME,key=value... or driver=NAME,...; or the same as JSON, where quotes end a word. */
	const char *name = strstr(text, EXIT_DEVICE);

	if (!name)
		return false;
	if (text[0] != '{' && name != text && strncmp(text, "driver=", 7) != 0)
		return false;

	const char *base = strstr(text, "iobase");
	char number[16];
	size_t length;
	uint64_t value;

	*port = EXIT_PORT_DEFAULT;
	if (!base)
		return true;
	base += strlen("iobase");
	base += strspn(base, "\"=: ");
	length = strspn(base, "0123456789abcdefxABCDEFX");
	if (length >= sizeof(number))
		return true;
	memcpy(number, base, length);
	number[length] = '\0';
	if (text_parse_unsigned(number, UINT16_MAX, &value))
		*port = (uint16_t)value;
	return true;
}

bool qemu_args_find_exit_port(const struct run_options *options, uint16_t *port)
{
	for (size_t i = 0; i + 1 < options->qemu_argument_count; i++) {
		const char *word = options->qemu_arguments[i];

		if (strcmp(word, "-device") != 0 && strcmp(word, "--device") != 0)
			continue;
		if (parse_exit_device(options->qemu_arguments[i + 1], port))
			return true;
	}
	return false;
}

char *qemu_args_paravisor_options(const struct run_options *options)
{
	char *text = NULL;
	size_t bytes = 0;
	uint16_t port;
	FILE *out = open_memstream(&text, &bytes);

	if (!out)
		return NULL;
	fprintf(out, "ap-start=%s tlb-flush=%s", run_ap_start_name(options->ap_start),
		run_tlb_flush_name(options->tlb_flush));
	if (options->protect == RUN_PROTECT_KERNEL)
		fputs(" protect=kernel", out);
	if (options->vp_stride != 1)
		fprintf(out, " vp-stride=%x", options->vp_stride);
	for (size_t i = 0; i < options->allow_io_count; i++)
		fprintf(out, " allow-io=0x%x-0x%x", options->allow_io[i].first,
			options->allow_io[i].last);
	if (qemu_args_find_exit_port(options, &port))
		fprintf(out, " exit-port=0x%x", port);
	if (options->interrupt_exits)
		fputs(" interrupt-exits", out);
	if (options->vsm)
		fputs(" vsm=on", out);
	if (options->verbose)
		fputs(" verbose", out);

	/* Options of the image that are for tests and have no word on the command line. */
	const char *extra = getenv("PARAPET_OPTIONS");

	if (extra && *extra)
		fprintf(out, " %s", extra);

	bool failed = ferror(out);

	if (fclose(out) != 0 || failed) {
		free(text);
		return NULL;
	}
	return text;
}

/* `text` with its commas doubled, as QEMU wants them in a list. NULL if there is no memory. */
static char *double_commas(const char *text)
{
	char *doubled = malloc(2 * strlen(text) + 1);
	char *to = doubled;

	if (!doubled)
		return NULL;
	for (; *text; text++) {
		*to++ = *text;
		if (*text == ',')
			*to++ = ',';
	}
	*to = '\0';
	return doubled;
}

/* Parapet is the kernel of the machine; the guest's kernel and initrd are its modules. */
static void add_paravisor(struct qemu_args *args, const struct qemu_plan *plan)
{
	char *append = double_commas(plan->append);

	args_add(args, "-kernel");
	args_add(args, plan->paravisor);
	args_add(args, "-append");
	args_add_owned(args, qemu_args_paravisor_options(plan->options));
	args_add(args, "-initrd");
	if (!append)
		args->failed = true;
	else
		args_addf(args, "%s%s%s%s%s", plan->kernel, *append ? " " : "", append,
			plan->initrd ? "," : "", plan->initrd ? plan->initrd : "");
	free(append);
}

static void add_bare_guest(struct qemu_args *args, const struct qemu_plan *plan)
{
	args_add(args, "-kernel");
	args_add(args, plan->kernel);
	if (*plan->append) {
		args_add(args, "-append");
		args_add(args, plan->append);
	}
	if (plan->initrd) {
		args_add(args, "-initrd");
		args_add(args, plan->initrd);
	}
}

static void add_serial(struct qemu_args *args, const char *name, int fd)
{
	args_add(args, "-chardev");
	args_addf(args, "socket,id=%s,fd=%d", name, fd);
	args_add(args, "-serial");
	args_addf(args, "chardev:%s", name);
}

bool qemu_args_build(const struct qemu_plan *plan, struct qemu_args *args)
{
	static const char *const accels[] = {
		[RUN_ACCEL_TCG] = "tcg,thread=multi",
		[RUN_ACCEL_TCG_SINGLE] = "tcg,thread=single",
		[RUN_ACCEL_KVM] = "kvm",
	};
	const struct run_options *options = plan->options;

	*args = (struct qemu_args){0};
	args_add(args, plan->qemu);
	args_add(args, "-nodefaults");
	args_add(args, "-no-user-config");
	args_add(args, "-display");
	args_add(args, "none");
	args_add(args, "-machine");
	args_add(args, "q35");
	args_add(args, "-cpu");
	args_add(args, "max");
	args_add(args, "-accel");
	args_add(args, accels[plan->accel]);
	args_add(args, "-smp");
	args_addf(args, "%u", options->cpus);
	args_add(args, "-m");
	args_addf(args, "%lluK", (unsigned long long)(options->memory_bytes >> 10));
	/*
	 * A machine that ended stays as it is until it has been looked at; and it does not start
	 * before there is someone to tell how it ended.
	 */
	args_add(args, "-no-reboot");
	args_add(args, "-no-shutdown");
	args_add(args, "-S");
	args_add(args, "-chardev");
	args_addf(args, "socket,id=parapet-qmp,fd=%d", plan->qmp_fd);
	args_add(args, "-mon");
	args_add(args, "chardev=parapet-qmp,mode=control");
	add_serial(args, "parapet-console", plan->console_fd);
	if (plan->paravisor) {
		add_serial(args, "parapet-channel", plan->channel_fd);
		add_paravisor(args, plan);
	} else {
		add_bare_guest(args, plan);
	}
	for (size_t i = 0; i < options->qemu_argument_count; i++)
		args_add(args, options->qemu_arguments[i]);
	return !args->failed;
}
