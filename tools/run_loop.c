/* A run while it lasts. Every wait in here is the one poll() of the loop. */
#include "tools/run_loop.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/run_machine.h"

#define PANIC_WAIT_MS	 3000
#define PROGRESS_WAIT_MS 2000
#define FLUSH_LIMIT_MS	 5000 /* for a slow reader of the console, after a timeout or a signal */
#define START_LIMIT_MS	 30000

static uint64_t now_ms(void)
{
	return run_machine_now_us() / 1000;
}

/* What QEMU prints is shown as it comes: it is about options that a person gave it, or its end. */
static void read_errors(struct run_loop *loop)
{
	char *line;

	channel_fill(&loop->errors);
	while ((line = channel_next(&loop->errors))) {
		char text[4200];

		snprintf(text, sizeof(text), "QEMU: %s", line);
		run_machine_say(loop, true, text);
	}
}

static void handle_signal(struct run_loop *loop, int number)
{
	switch (number) {
	case SIGCHLD:
		break; /* looked at in every round */
	case SIGTSTP:
		console_restore(&loop->console);
		kill(getpid(), SIGSTOP);
		console_make_raw(&loop->console);
		break;
	default:
		if (loop->phase > RUN_RUNNING)
			run_machine_kill(loop); /* somebody is in a hurry */
		else
			run_machine_end(loop, RUN_END_SIGNAL, (uint64_t)number);
	}
}

static void read_signals(struct run_loop *loop)
{
	struct signalfd_siginfo info;

	while (read(loop->signals, &info, sizeof(info)) == sizeof(info))
		handle_signal(loop, (int)info.ssi_signo);
}

static void note_panic(struct run_loop *loop)
{
	if (!loop->console.panic || loop->panic_limit_ms)
		return;
	loop->result->panic = true;
	loop->panic_limit_ms = now_ms() + PANIC_WAIT_MS;
}

static void tell_progress(struct run_loop *loop)
{
	if (loop->progress_told || isatty(STDOUT_FILENO))
		return;
	loop->progress_told = true;
	run_machine_say(loop, true,
		loop->result->paravisor && !loop->guest_entered
			? "the machine is starting, the guest is not running yet"
			: "the guest is booting; its console goes to standard output");
}

/*
 * Does what time asks for, and says how many milliseconds there are until it asks again (-1:
 * never).
 */
static int handle_clock(struct run_loop *loop)
{
	uint64_t now = now_ms();
	uint64_t next = UINT64_MAX;
	uint64_t timeout = loop->started_ms + loop->options->timeout_ms;
	uint64_t progress = loop->started_ms + PROGRESS_WAIT_MS;

	if (loop->phase_limit_ms && now >= loop->phase_limit_ms) {
		if (loop->phase == RUN_LEAVING)
			run_machine_quit(loop);
		else
			run_machine_kill(loop);
	}
	if (loop->phase <= RUN_RUNNING) {
		if (loop->panic_limit_ms && now >= loop->panic_limit_ms)
			run_machine_end(loop, RUN_END_HANG_AFTER_PANIC, 0);
		else if (loop->options->timeout_ms && now >= timeout)
			run_machine_end(loop, RUN_END_TIMEOUT, 0);
		else if (loop->result->paravisor && !loop->heard && loop->running_us &&
			now >= loop->start_limit_ms)
			run_machine_end(
				loop, RUN_END_SILENT, (now - loop->running_us / 1000 + 500) / 1000);
		if (now >= progress)
			tell_progress(loop);
	}

	if (loop->phase <= RUN_RUNNING) {
		if (loop->panic_limit_ms)
			next = loop->panic_limit_ms;
		if (loop->options->timeout_ms && timeout < next)
			next = timeout;
		if (loop->result->paravisor && !loop->heard && loop->running_us &&
			loop->start_limit_ms < next)
			next = loop->start_limit_ms;
		if (!loop->progress_told && progress > now && progress < next)
			next = progress;
	}
	if (loop->phase_limit_ms && loop->phase_limit_ms < next)
		next = loop->phase_limit_ms;
	if (next == UINT64_MAX)
		return -1;
	now = now_ms();
	return next <= now ? 0 : next - now > 60000 ? 60000 : (int)(next - now);
}

static void note_output_failure(struct run_loop *loop)
{
	if (!loop->console.output_failed || loop->phase > RUN_RUNNING)
		return;
	tool_error_set(&loop->result->detail, "%s", strerror(loop->console.output_error));
	run_machine_end(loop, RUN_END_NO_OUTPUT, 0);
}

enum poll_slot {
	SLOT_SIGNALS,
	SLOT_CHANNEL,
	SLOT_QMP,
	SLOT_ERRORS,
	SLOT_CONSOLE,
	SLOT_INPUT,
	SLOT_OUTPUT,
	SLOT_COUNT,
};

static void fill_slots(const struct run_loop *loop, struct pollfd slots[SLOT_COUNT])
{
	const struct console *console = &loop->console;

	for (int i = 0; i < SLOT_COUNT; i++)
		slots[i] = (struct pollfd){.fd = -1, .events = POLLIN};
	slots[SLOT_SIGNALS].fd = loop->signals;
	slots[SLOT_CHANNEL].fd = loop->channel.fd;
	slots[SLOT_QMP].fd = loop->qmp.fd;
	slots[SLOT_ERRORS].fd = loop->errors.fd;
	if (console->fd >= 0 && (console_wants_guest(console) || console->in_used > 0)) {
		slots[SLOT_CONSOLE].fd = console->fd;
		slots[SLOT_CONSOLE].events = (short)((console_wants_guest(console) ? POLLIN : 0) |
			(console->in_used > 0 ? POLLOUT : 0));
	}
	if (console_wants_input(console))
		slots[SLOT_INPUT].fd = console->input_fd;
	if (console_wants_output(console)) {
		slots[SLOT_OUTPUT].fd = console->output_fd;
		slots[SLOT_OUTPUT].events = POLLOUT;
	}
}

/* The channel comes before the monitor: Parapet announces an end before the machine makes it. */
static void handle_slots(struct run_loop *loop, const struct pollfd slots[SLOT_COUNT])
{
	struct console *console = &loop->console;

	if (slots[SLOT_SIGNALS].revents)
		read_signals(loop);
	if (slots[SLOT_CONSOLE].revents & (POLLIN | POLLHUP | POLLERR))
		console_read_guest(console);
	if (slots[SLOT_CONSOLE].revents & POLLOUT)
		console_send_input(console);
	if (slots[SLOT_OUTPUT].revents)
		console_write_output(console);
	note_panic(loop);
	if (slots[SLOT_CHANNEL].revents)
		run_machine_read_channel(loop);
	if (slots[SLOT_QMP].revents)
		run_machine_read_qmp(loop);
	if (slots[SLOT_ERRORS].revents)
		read_errors(loop);
	if (slots[SLOT_INPUT].revents)
		console_read_input(console);
	if (console->leave)
		run_machine_end(loop, RUN_END_LEFT, 0);
	note_output_failure(loop);
}

/* QEMU ended without having been asked to: was that the guest's exit device, or an accident? */
static void judge_exit(struct run_loop *loop)
{
	int status = loop->qemu.wait_status;

	if (loop->phase > RUN_RUNNING)
		return;
	if (loop->running_us)
		loop->result->wall_us = run_machine_now_us() - loop->running_us;
	if (!loop->running_us) {
		loop->result->end = RUN_END_NOT_STARTED;
		loop->result->code = (uint64_t)(unsigned)status;
	} else if (loop->exit_port && WIFEXITED(status) && (WEXITSTATUS(status) & 1)) {
		/* hw/misc/debugexit.c: the process ends with value * 2 + 1. */
		loop->result->end = RUN_END_EXIT_PORT;
		loop->result->code = (uint64_t)WEXITSTATUS(status) >> 1;
	} else {
		loop->result->end = RUN_END_DIED;
		loop->result->code = (uint64_t)(unsigned)status;
	}
}

/* Passes on what QEMU left in the sockets when it ended. */
static void drain(struct run_loop *loop)
{
	struct console *console = &loop->console;
	bool hurry = loop->result->end == RUN_END_SIGNAL || loop->result->end == RUN_END_LEFT ||
		loop->result->end == RUN_END_TIMEOUT;

	do {
		console_read_guest(console);
		note_panic(loop);
		while (console_wants_output(console)) {
			struct pollfd slots[2] = {
				{.fd = console->output_fd, .events = POLLOUT},
				{.fd = loop->signals, .events = POLLIN},
			};
			struct signalfd_siginfo info;

			if (poll(slots, 2, hurry ? FLUSH_LIMIT_MS : -1) == 0) {
				console->out_used = 0;
				break;
			}
			if (slots[0].revents)
				console_write_output(console);
			if ((slots[1].revents & POLLIN) &&
				read(loop->signals, &info, sizeof(info)) == sizeof(info) &&
				info.ssi_signo != SIGCHLD)
				console->out_used = 0;
		}
	} while (console->fd >= 0 && recv(console->fd, &(char){0}, 1, MSG_PEEK) > 0);
}

static void finish(struct run_loop *loop)
{
	/* What came last: the channel first, for an end announced there is the guest's own. */
	run_machine_read_channel(loop);
	run_machine_read_qmp(loop);
	judge_exit(loop);
	loop->phase = RUN_OVER;
	drain(loop);
	read_errors(loop);
}

bool run_loop_catch_signals(struct run_loop *loop, struct tool_error *error)
{
	static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCHLD};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++) {
		struct sigaction action;

		/* What whoever started us ignores (nohup does) is ignored here as well. */
		if (sigaction(caught[i], NULL, &action) == 0 && action.sa_handler == SIG_IGN &&
			caught[i] != SIGCHLD)
			continue;
		sigaddset(&set, caught[i]);
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* an ignored one would lose QEMU's end */
	sigprocmask(SIG_BLOCK, &set, &loop->previous_signals);
	loop->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (loop->signals < 0)
		return tool_error_set(error, "cannot watch for signals: %s", strerror(errno));
	return true;
}

/* How long Parapet may take until its first word; a very slow computer can be given more. */
static uint64_t start_limit_ms(void)
{
	const char *text = getenv("PARAPET_START_LIMIT");
	uint64_t limit;

	return text && text_parse_seconds(text, &limit) ? limit : START_LIMIT_MS;
}

void run_loop_run(struct run_loop *loop, char *const *words)
{
	loop->qmp.fd = loop->qemu.qmp_fd;
	loop->channel.fd = loop->qemu.channel_fd;
	loop->errors.fd = loop->qemu.errors_fd;
	loop->start_limit_ms = start_limit_ms();
	loop->started_ms = now_ms();
	if (!qemu_start(&loop->qemu, words, &loop->result->detail)) {
		loop->result->end = RUN_END_BROKEN;
		return;
	}
	console_open(&loop->console, loop->qemu.console_fd);
	while (!qemu_reap(&loop->qemu)) {
		struct pollfd slots[SLOT_COUNT];

		fill_slots(loop, slots);
		if (poll(slots, SLOT_COUNT, handle_clock(loop)) > 0)
			handle_slots(loop, slots);
	}
	finish(loop);
	console_restore(&loop->console);
}

void run_loop_close(struct run_loop *loop)
{
	console_restore(&loop->console);
	qemu_close(&loop->qemu);
	qmp_close(&loop->qmp);
	channel_close(&loop->channel);
	channel_close(&loop->errors);
	if (loop->signals >= 0) {
		close(loop->signals);
		sigprocmask(SIG_SETMASK, &loop->previous_signals, NULL);
	}
	loop->signals = -1;
}
