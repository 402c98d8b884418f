/* How a run ended, and what that means. No output, no processes. */
#include "tools/verdict.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static const char *const end_names[] = {
	[RUN_END_NONE] = "none",
	[RUN_END_POWER_OFF] = "power-off",
	[RUN_END_RESET] = "reset",
	[RUN_END_TRIPLE_FAULT] = "triple-fault",
	[RUN_END_EXIT_PORT] = "exit-port",
	[RUN_END_REFUSED] = "refused",
	[RUN_END_PARAPET_FAULT] = "parapet-fault",
	[RUN_END_TIMEOUT] = "timeout",
	[RUN_END_HANG_AFTER_PANIC] = "panic",
	[RUN_END_SIGNAL] = "signal",
	[RUN_END_LEFT] = "left",
	[RUN_END_NO_OUTPUT] = "no-output",
	[RUN_END_NOT_STARTED] = "not-started",
	[RUN_END_DIED] = "qemu-died",
	[RUN_END_SILENT] = "silent",
	[RUN_END_UNANNOUNCED] = "unannounced",
	[RUN_END_BROKEN] = "broken",
};

const char *verdict_end_name(enum run_end end)
{
	return (size_t)end < ARRAY_SIZE(end_names) ? end_names[end] : "unknown";
}

__attribute__((format(printf, 2, 3))) static struct verdict verdict_make(
	int status, const char *format, ...)
{
	struct verdict verdict = {.status = status};
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(verdict.text, sizeof(verdict.text), format, arguments);
	va_end(arguments);
	return verdict;
}

/* "exit status 1" or "signal 9 (Killed)". */
static void describe_wait_status(int status, char *text, size_t room)
{
	if (WIFSIGNALED(status))
		snprintf(
			text, room, "signal %d, %s", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(text, room, "exit status %d", WEXITSTATUS(status));
}

static struct verdict decide_qemu_end(const struct run_result *result)
{
	char how[80];

	describe_wait_status((int)result->code, how, sizeof(how));
	if (result->end == RUN_END_NOT_STARTED)
		return verdict_make(EXIT_STATUS_REFUSED, "QEMU did not start the machine (%s)%s%s",
			how, result->detail.text[0] ? ": " : "; its messages are above",
			result->detail.text);
	return verdict_make(EXIT_STATUS_PARAPET_FAILED,
		"QEMU ended by itself while the guest ran (%s)%s%s", how,
		result->detail.text[0] ? ": " : "", result->detail.text);
}

static struct verdict decide_guest_end(const struct run_result *result)
{
	unsigned long long code = result->code;

	if (result->panic)
		return verdict_make(
			EXIT_STATUS_GUEST_FAILED, "the guest failed: its kernel panicked");
	switch (result->end) {
	case RUN_END_POWER_OFF:
		return verdict_make(EXIT_STATUS_WELL, "the guest ended well: it powered off");
	case RUN_END_RESET:
		return verdict_make(EXIT_STATUS_WELL, "the guest ended well: it asked for a reset");
	case RUN_END_TRIPLE_FAULT:
		return verdict_make(EXIT_STATUS_GUEST_FAILED, "the guest failed: triple fault");
	default:
		if (code == 0)
			return verdict_make(EXIT_STATUS_WELL,
				"the guest ended well: it wrote 0 to the exit port");
		return verdict_make(EXIT_STATUS_GUEST_FAILED,
			"the guest failed: it wrote %llu (0x%llx) to the exit port", code, code);
	}
}

struct verdict verdict_decide(const struct run_result *result)
{
	const char *detail = result->detail.text;
	const char *colon = detail[0] ? ": " : "";

	switch (result->end) {
	case RUN_END_POWER_OFF:
	case RUN_END_RESET:
	case RUN_END_TRIPLE_FAULT:
	case RUN_END_EXIT_PORT:
	case RUN_END_HANG_AFTER_PANIC:
		return decide_guest_end(result);
	case RUN_END_REFUSED:
		return verdict_make(EXIT_STATUS_REFUSED, "Parapet refused to start the guest%s%s",
			colon, detail);
	case RUN_END_PARAPET_FAULT:
		return verdict_make(
			EXIT_STATUS_PARAPET_FAILED, "Parapet itself failed; its report is above");
	case RUN_END_TIMEOUT:
		if (result->panic)
			return decide_guest_end(result);
		return verdict_make(EXIT_STATUS_TIMEOUT, "timeout: the guest still ran after %g s",
			(double)result->timeout_ms / 1000);
	case RUN_END_SIGNAL:
		return verdict_make(128 + (int)result->code, "interrupted by signal %d, %s",
			(int)result->code, strsignal((int)result->code));
	case RUN_END_LEFT:
		return verdict_make(128 + SIGINT, "ended from the keyboard with Ctrl-A X");
	case RUN_END_NO_OUTPUT:
		return verdict_make(EXIT_STATUS_REFUSED,
			"standard output cannot be written%s%s; the run was ended", colon, detail);
	case RUN_END_NOT_STARTED:
	case RUN_END_DIED:
		return decide_qemu_end(result);
	case RUN_END_SILENT:
		return verdict_make(EXIT_STATUS_PARAPET_FAILED,
			"Parapet did not say a word within %llu s: is the image whole? Run make "
			"again",
			(unsigned long long)result->code);
	case RUN_END_UNANNOUNCED:
		return verdict_make(EXIT_STATUS_PARAPET_FAILED,
			"Parapet failed: the machine ended without its word%s%s", colon, detail);
	case RUN_END_NONE:
	case RUN_END_BROKEN:
		break;
	}
	return verdict_make(EXIT_STATUS_REFUSED, "the run could not go on%s%s", colon, detail);
}
