/* The options of `parapet run`, the first look at a kernel, and QEMU's argument vector. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tools/guest_check.h"
#include "tools/qemu_args.h"
#include "tools/run_options.h"

/* Parses words up to a NULL, "run" in front of them. */
static bool parse(struct run_options *options, struct tool_error *error, const char *const *words)
{
	static char *arguments[40];
	int count = 1;

	arguments[0] = (char *)"run";
	for (; words[count - 1]; count++)
		arguments[count] = (char *)words[count - 1];
	arguments[count] = NULL;
	return run_options_parse(count, arguments, options, error);
}

#define PARSE(options, ...) parse(options, &error, (const char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
	struct run_options options;
	struct tool_error error;

	(void)state;
	assert_true(parse(&options, &error, (const char *const[]){NULL}));
	assert_int_equal(options.cpus, RUN_CPUS_DEFAULT);
	assert_int_equal(options.memory_bytes, RUN_MEMORY_DEFAULT);
	assert_int_equal(options.ap_start, RUN_AP_START_DEFAULT);
	assert_int_equal(options.tlb_flush, RUN_TLB_FLUSH_DEFAULT);
	assert_int_equal(options.vp_stride, 1);
	assert_false(options.vsm);
	assert_int_equal(options.accel, RUN_ACCEL_AUTO);
	assert_int_equal(options.protect, RUN_PROTECT_NOTHING);
	assert_null(options.kernel);
	assert_null(options.append);
	assert_int_equal(options.timeout_ms, 0);
	assert_int_equal(options.qemu_argument_count, 0);
}

static void test_all(void **state)
{
	struct run_options options;
	struct tool_error error;

	(void)state;
	assert_true(PARSE(&options, "--cpus", "64", "--memory=2G", "--kernel", "k", "--initrd", "i",
		"--append", "--", "--platform", "svm", "--accel", "tcg", "--ap-start", "mailbox",
		"--tlb-flush", "hypercall", "--vp-stride", "64", "--vsm", "--no-paravisor",
		"--stats", "s", "--trace", "t", "--timeout", "2.5", "-v", "--", "-device",
		"--cpus"));
	assert_int_equal(options.cpus, 64);
	assert_int_equal(options.memory_bytes, 2ull << 30);
	assert_string_equal(options.kernel, "k");
	assert_string_equal(options.initrd, "i");
	assert_string_equal(options.append, "--");
	assert_int_equal(options.accel, RUN_ACCEL_TCG);
	assert_int_equal(options.ap_start, RUN_AP_START_MAILBOX);
	assert_int_equal(options.tlb_flush, RUN_TLB_FLUSH_HYPERCALL);
	assert_int_equal(options.vp_stride, 64);
	assert_true(options.vsm);
	assert_true(options.no_paravisor);
	assert_true(options.verbose);
	assert_int_equal(options.timeout_ms, 2500);
	assert_int_equal(options.qemu_argument_count, 2);
	assert_string_equal(options.qemu_arguments[0], "-device");
	assert_string_equal(options.qemu_arguments[1], "--cpus");
}

static void test_protect(void **state)
{
	struct run_options options;
	struct tool_error error;

	(void)state;
	assert_true(PARSE(&options, "--protect", "kernel"));
	assert_int_equal(options.protect, RUN_PROTECT_KERNEL);
	assert_false(PARSE(&options, "--protect", "kernels"));
	assert_string_equal(error.text, "--protect kernels: must be kernel");
	assert_false(PARSE(&options, "--protect"));
	assert_false(PARSE(&options, "--protect", "kernel", "--no-paravisor"));
	assert_false(PARSE(&options, "--no-paravisor", "--protect", "kernel"));
	assert_false(PARSE(&options, "--protect", "kernel", "--vsm"));
}

static void test_refused(void **state)
{
	struct run_options options;
	struct tool_error error;

	(void)state;
	assert_false(PARSE(&options, "--cpu", "0"));
	assert_false(PARSE(&options, "--memroy=1G"));
	assert_non_null(strstr(error.text, "--memroy: did you mean --memory?"));
	assert_false(PARSE(&options, "-x"));
	assert_false(PARSE(&options, "kernel"));
	assert_false(PARSE(&options, "--t", "1"));
	assert_false(PARSE(&options, "--no-paravisor=1"));
	assert_non_null(strstr(error.text, "takes no value"));
	assert_false(PARSE(&options, "--kernel"));
	assert_string_equal(error.text, "option --kernel needs a value");
	assert_false(PARSE(&options, "--kernel", ""));
}

static void test_many_ranges(void **state)
{
	const char *words[2 * (RUN_ALLOW_IO_MAX + 1) + 2] = {"run"};
	struct run_options options;
	struct tool_error error;
	int count = 1;

	(void)state;
	for (int i = 0; i < RUN_ALLOW_IO_MAX; i++) {
		words[count++] = "--allow-io";
		words[count++] = "10-1f";
	}
	assert_true(run_options_parse(count, (char **)words, &options, &error));
	assert_int_equal(options.allow_io_count, RUN_ALLOW_IO_MAX);
	words[count++] = "--allow-io";
	words[count++] = "20";
	assert_false(run_options_parse(count, (char **)words, &options, &error));
}

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

/* A Linux image of 2 KiB: one sector of setup and 1 KiB behind it. */
static void make_linux(uint8_t head[2048])
{
	memset(head, 0, 2048);
	head[0x1f1] = 1;
	put(head + 0x1f4, 64, 4);
	put(head + 0x1fe, 0xaa55, 2);
	memcpy(head + 0x202, "HdrS", 4);
	put(head + 0x206, 0x20f, 2);
	put(head + 0x236, 3, 2);
	put(head + 0x238, 2047, 4);
}

static void test_linux(void **state)
{
	uint8_t head[2048];
	struct guest_info info;
	struct tool_error error;

	(void)state;
	make_linux(head);
	assert_true(guest_check_kernel(head, 2048, 2048, &info, &error));
	assert_int_equal(info.kind, GUEST_LINUX);
	assert_int_equal(info.command_line_max, 2047);
	assert_false(guest_check_kernel(head, 2032, 2032, &info, &error));
	assert_non_null(strstr(error.text, "cut off"));
	assert_false(guest_check_kernel(head, 0x240, 0x240, &info, &error));
	assert_false(guest_check_kernel(head, 0x204, 0x204, &info, &error));
	assert_false(guest_check_kernel(head, 1, 1, &info, &error));
	put(head + 0x236, 2, 2);
	assert_false(guest_check_kernel(head, 2048, 2048, &info, &error));
	assert_non_null(strstr(error.text, "no 64-bit entry"));
	put(head + 0x206, 0x203, 2);
	assert_false(guest_check_kernel(head, 2048, 2048, &info, &error));
	assert_non_null(strstr(error.text, "2.03"));
}

static void make_multiboot(uint8_t head[GUEST_HEAD_BYTES], size_t at, uint32_t flags)
{
	memset(head, 0, GUEST_HEAD_BYTES);
	memcpy(head, "\177ELF\1\1\1", 7);
	put(head + 18, 3, 2);
	put(head + at, 0x1badb002, 4);
	put(head + at + 4, flags, 4);
	put(head + at + 8, -(0x1badb002u + flags), 4);
}

static void test_multiboot(void **state)
{
	uint8_t head[GUEST_HEAD_BYTES];
	struct guest_info info;
	struct tool_error error;

	(void)state;
	make_multiboot(head, 4096, 3);
	assert_true(guest_check_kernel(head, sizeof(head), 100000, &info, &error));
	assert_int_equal(info.kind, GUEST_MULTIBOOT);
	make_multiboot(head, GUEST_HEAD_BYTES - 12, 0);
	assert_true(guest_check_kernel(head, sizeof(head), 100000, &info, &error));
	assert_false(guest_check_kernel(head, sizeof(head) - 1, 100000, &info, &error));
	head[GUEST_HEAD_BYTES - 1] ^= 1;
	assert_false(guest_check_kernel(head, sizeof(head), 100000, &info, &error));
	make_multiboot(head, 64, 0);
	head[4] = 2;
	assert_false(guest_check_kernel(head, sizeof(head), 100000, &info, &error));
	assert_non_null(strstr(error.text, "64-bit ELF"));
	make_multiboot(head, 64, 0x10000);
	memset(head, 0, 8);
	assert_true(guest_check_kernel(head, sizeof(head), 100000, &info, &error));
	make_multiboot(head, 64, 0);
	put(head + 18, 40, 2);
	assert_false(guest_check_kernel(head, sizeof(head), 100000, &info, &error));
}

/* The word after `option`; NULL if the option is not there. */
static const char *value_of(const struct qemu_args *args, const char *option)
{
	for (size_t i = 0; i + 1 < args->count; i++) {
		if (strcmp(args->words[i], option) == 0)
			return args->words[i + 1];
	}
	return NULL;
}

static void test_arguments(void **state)
{
	struct run_options options;
	struct tool_error error;
	struct qemu_args args;

	(void)state;
	assert_true(PARSE(&options, "--cpus", "3", "--allow-io", "f4-f7", "--", "-device",
		"isa-debug-exit,iobase=0xf4,iosize=4"));

	struct qemu_plan plan = {
		.options = &options,
		.qemu = "qemu",
		.accel = RUN_ACCEL_TCG,
		.paravisor = "/t/parapet.elf",
		.kernel = "/t/vmlinuz",
		.initrd = "/t/initrd",
		.append = "console=ttyS0,115200",
		.console_fd = 5,
		.channel_fd = 6,
		.qmp_fd = 7,
	};

	assert_true(qemu_args_build(&plan, &args));
	assert_string_equal(args.words[0], "qemu");
	assert_null(args.words[args.count]);
	assert_string_equal(value_of(&args, "-kernel"), "/t/parapet.elf");
	assert_string_equal(value_of(&args, "-append"),
		"ap-start=mailbox tlb-flush=auto allow-io=0xf4-0xf7 exit-port=0xf4");
	assert_string_equal(
		value_of(&args, "-initrd"), "/t/vmlinuz console=ttyS0,,115200,/t/initrd");
	assert_string_equal(value_of(&args, "-accel"), "tcg,thread=multi");
	assert_string_equal(value_of(&args, "-smp"), "3");
	assert_string_equal(args.words[args.count - 2], "-device");
	qemu_args_free(&args);

	plan.paravisor = NULL;
	plan.append = "";
	plan.accel = RUN_ACCEL_KVM;
	assert_true(qemu_args_build(&plan, &args));
	assert_string_equal(value_of(&args, "-kernel"), "/t/vmlinuz");
	assert_string_equal(value_of(&args, "-initrd"), "/t/initrd");
	assert_null(value_of(&args, "-append"));
	assert_string_equal(value_of(&args, "-accel"), "kvm");
	qemu_args_free(&args);

	plan.accel = RUN_ACCEL_TCG_SINGLE;
	assert_true(qemu_args_build(&plan, &args));
	assert_string_equal(value_of(&args, "-accel"), "tcg,thread=single");
	qemu_args_free(&args);
}

static void test_exit_port(void **state)
{
	static const struct {
		const char *device;
		int port; /* -1: none */
	} cases[] = {
		{"isa-debug-exit", 0x501},
		{"isa-debug-exit,iobase=0xf4,iosize=0x04", 0xf4},
		{"driver=isa-debug-exit,iobase=244", 0xf4},
		{"{\"driver\": \"isa-debug-exit\", \"iobase\": 244}", 0xf4},
		{"isa-debug-exit,iobase=999999999999999999999999", 0x501},
		{"e1000e,id=isa-debug-exit", -1},
		{"pci-testdev", -1},
	};
	struct run_options options;
	struct tool_error error;
	uint16_t port;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_true(PARSE(&options, "--", "-device", cases[i].device));
		assert_int_equal(qemu_args_find_exit_port(&options, &port), cases[i].port >= 0);
		if (cases[i].port >= 0)
			assert_int_equal(port, cases[i].port);
	}
	assert_true(PARSE(&options, "--", "-device"));
	assert_false(qemu_args_find_exit_port(&options, &port));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_protect),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_many_ranges),
		cmocka_unit_test(test_linux),
		cmocka_unit_test(test_multiboot),
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_exit_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
