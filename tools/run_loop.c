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
#include <time.h>
#include <unistd.h>

#include "tools/channel_line.h"
#include "tools/message.h"

#define PANIC_WAIT_MS	 3000
#define PROGRESS_WAIT_MS 2000
#define STEP_LIMIT_MS	 10000 /* for QEMU to answer a command */
#define SIGNAL_LIMIT_MS	 2000 /* the same once somebody wants us gone */
#define LEAVE_LIMIT_MS	 5000
#define QUIT_LIMIT_MS	 5000
#define FLUSH_LIMIT_MS	 5000 /* for a slow reader of the console, after a timeout or a signal */
#define START_LIMIT_MS	 30000

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t now_ms(void)
{
	return now_us() / 1000;
}

/* A line on standard error, on a line of its own even if the console shares the screen. */
static void say_line(struct run_loop *loop, bool with_name, const char *text)
{
	if (!loop->console.at_line_start && isatty(STDOUT_FILENO) && isatty(STDERR_FILENO))
		message_print_raw("");
	loop->console.at_line_start = true;
	if (with_name)
		message_print("%s", text);
	else
		message_print_raw(text);
}

static void enter_phase(struct run_loop *loop, enum run_phase phase, uint64_t limit_ms)
{
	loop->phase = phase;
	loop->phase_limit_ms = limit_ms ? now_ms() + limit_ms : 0;
}

static void kill_machine(struct run_loop *loop)
{
	if (loop->qemu.pid > 0)
		kill(loop->qemu.pid, SIGKILL);
	enter_phase(loop, RUN_KILLING, 0);
}

static void quit_machine(struct run_loop *loop)
{
	if (qmp_send(&loop->qmp, "quit"))
		enter_phase(loop, RUN_QUITTING, QUIT_LIMIT_MS);
	else
		kill_machine(loop);
}

/* The machine stands still and the block is copied, or there is none: let it end. */
static void finish_machine(struct run_loop *loop)
{
	if (loop->announced && !loop->machine_ended && qmp_send(&loop->qmp, "cont"))
		enter_phase(loop, RUN_RESUMING, STEP_LIMIT_MS);
	else
		quit_machine(loop);
}

static void save_block(struct run_loop *loop)
{
	if (loop->block_known && qmp_send_memory_save(&loop->qmp, loop->block_address,
					 loop->block_bytes, loop->stage->block))
		enter_phase(loop, RUN_SAVING, STEP_LIMIT_MS);
	else
		finish_machine(loop);
}

/* The run is to end, for this reason; the first one counts. */
static void begin_end(struct run_loop *loop, enum run_end end, uint64_t code)
{
	if (loop->phase > RUN_RUNNING)
		return;
	loop->result->end = end;
	loop->result->code = code;
	if (loop->running_us)
		loop->result->wall_us = now_us() - loop->running_us;
	if (loop->phase == RUN_CONNECTING || !qmp_send(&loop->qmp, "stop"))
		kill_machine(loop);
	else
		enter_phase(loop, RUN_STOPPING,
			end == RUN_END_SIGNAL || end == RUN_END_LEFT ? SIGNAL_LIMIT_MS
								     : STEP_LIMIT_MS);
}

/* --- Parapet's channel --------------------------------------------------------------------------- */

static enum run_end announced_end(enum block_end reason)
{
	switch (reason) {
	case BLOCK_END_POWER_OFF:
		return RUN_END_POWER_OFF;
	case BLOCK_END_RESET:
		return RUN_END_RESET;
	case BLOCK_END_TRIPLE_FAULT:
		return RUN_END_TRIPLE_FAULT;
	case BLOCK_END_EXIT_PORT:
		return RUN_END_EXIT_PORT;
	case BLOCK_END_REFUSED:
		return RUN_END_REFUSED;
	default:
		return RUN_END_PARAPET_FAULT;
	}
}

static void note_block(struct run_loop *loop, const struct channel_line *line)
{
	uint64_t end;

	if (line->bytes < sizeof(struct block_header) ||
		line->bytes > loop->options->memory_bytes ||
		__builtin_add_overflow(line->address, line->bytes, &end)) {
		say_line(loop, true,
			"warning: Parapet's block cannot be where it says; there will be no "
			"statistics");
		return;
	}
	loop->block_known = true;
	loop->block_address = line->address;
	loop->block_bytes = line->bytes;
}

static void handle_channel_line(struct run_loop *loop, const char *text)
{
	struct channel_line line = channel_line_parse(text);
	char longer[4200];

	loop->heard = true;
	switch (line.kind) {
	case CHANNEL_ERROR:
		say_line(loop, true, line.text);
		break;
	case CHANNEL_WARNING:
		snprintf(longer, sizeof(longer), "warning: %s", line.text);
		say_line(loop, true, longer);
		break;
	case CHANNEL_INFO:
	case CHANNEL_DETAIL:
		if (loop->options->verbose)
			say_line(loop, true, line.text);
		break;
	case CHANNEL_REPORT:
		say_line(loop, false, line.text);
		break;
	case CHANNEL_BLOCK:
		note_block(loop, &line);
		break;
	case CHANNEL_GUEST:
		if (loop->options->verbose)
			say_line(loop, true, "the guest's kernel is being entered");
		break;
	case CHANNEL_END:
		loop->announced = loop->phase == RUN_RUNNING;
		begin_end(loop, announced_end(line.reason), line.code);
		break;
	case CHANNEL_UNKNOWN:
		snprintf(longer, sizeof(longer),
			"warning: Parapet says \"%s\", which this command does not know; build "
			"both "
			"together",
			line.text);
		say_line(loop, true, longer);
		break;
	}
}

static void read_channel(struct run_loop *loop)
{
	char *line;

	channel_fill(&loop->channel);
	while ((line = channel_next(&loop->channel)))
		handle_channel_line(loop, line);
}

/* What QEMU prints is shown as it comes: it is about options that a person gave it, or its end. */
static void read_errors(struct run_loop *loop)
{
	char *line;

	channel_fill(&loop->errors);
	while ((line = channel_next(&loop->errors))) {
		char text[4200];

		snprintf(text, sizeof(text), "QEMU: %s", line);
		say_line(loop, true, text);
	}
}

/* --- QEMU's monitor ------------------------------------------------------------------------------ */

/* The machine ended by itself (QEMU keeps it as it was). */
static void handle_shutdown(struct run_loop *loop, const char *reason)
{
	loop->machine_ended = true;
	if (loop->phase == RUN_LEAVING || loop->phase == RUN_RESUMING) {
		quit_machine(loop);
		return;
	}
	if (loop->phase != RUN_RUNNING)
		return;
	if (strncmp(reason, "host-", 5) == 0) {
		tool_error_set(
			&loop->result->detail, "QEMU was told to end from outside (%s)", reason);
		begin_end(loop, RUN_END_BROKEN, 0);
	} else if (loop->result->paravisor) {
		tool_error_set(&loop->result->detail, "%s", reason);
		begin_end(loop, RUN_END_UNANNOUNCED, 0);
	} else if (strcmp(reason, "guest-reset") == 0) {
		begin_end(loop, RUN_END_RESET, 0);
	} else if (strcmp(reason, "guest-panic") == 0) {
		loop->result->panic = true;
		begin_end(loop, RUN_END_HANG_AFTER_PANIC, 0);
	} else {
		begin_end(loop, RUN_END_POWER_OFF, 0);
	}
}

static void begin_running(struct run_loop *loop)
{
	loop->running_us = now_us();
	loop->start_limit_ms = loop->running_us / 1000 + loop->start_limit_ms;
	enter_phase(loop, RUN_RUNNING, 0);
}

/* QEMU has done (or failed to do) what it was asked for last. */
static void handle_reply(struct run_loop *loop, bool done, const char *why)
{
	char answer = CHANNEL_CONTINUE;

	switch (loop->phase) {
	case RUN_CONNECTING:
		/* First the reply to qmp_capabilities, then that to cont: both lead on. */
		if (!loop->running_us && qmp_send(&loop->qmp, "cont"))
			begin_running(loop);
		break;
	case RUN_STOPPING:
		save_block(loop);
		break;
	case RUN_SAVING:
		loop->block_saved = done;
		if (!done) {
			char text[400];

			snprintf(text, sizeof(text),
				"warning: QEMU cannot copy Parapet's block: %s", why);
			say_line(loop, true, text);
		}
		finish_machine(loop);
		break;
	case RUN_RESUMING:
		if (loop->channel.fd >= 0)
			send(loop->channel.fd, &answer, 1, MSG_NOSIGNAL);
		enter_phase(loop, RUN_LEAVING, LEAVE_LIMIT_MS);
		break;
	default:
		break;
	}
}

static void handle_message(struct run_loop *loop, const struct qmp_message *message)
{
	switch (message->kind) {
	case QMP_GREETING:
		snprintf(loop->result->qemu_version, sizeof(loop->result->qemu_version), "%.31s",
			message->name);
		qmp_send(&loop->qmp, "qmp_capabilities");
		break;
	case QMP_REPLY:
	case QMP_FAILURE:
		handle_reply(loop, message->kind == QMP_REPLY, message->name);
		break;
	case QMP_EVENT:
		if (strcmp(message->name, "SHUTDOWN") == 0)
			handle_shutdown(loop, message->reason);
		else if (strcmp(message->name, "GUEST_PANICKED") == 0)
			loop->console.panic = true;
		break;
	}
}

static void read_qmp(struct run_loop *loop)
{
	struct qmp_message message;

	qmp_fill(&loop->qmp);
	while (qmp_next(&loop->qmp, &message))
		handle_message(loop, &message);
}

/* --- signals, clock, end ------------------------------------------------------------------------- */

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
			kill_machine(loop); /* somebody is in a hurry */
		else
			begin_end(loop, RUN_END_SIGNAL, (uint64_t)number);
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
	say_line(loop, true, "the guest is booting; its console goes to standard output");
}

/* Does what time asks for, and says how many milliseconds there are until it asks again (-1: never). */
static int handle_clock(struct run_loop *loop)
{
	uint64_t now = now_ms();
	uint64_t next = UINT64_MAX;
	uint64_t timeout = loop->started_ms + loop->options->timeout_ms;
	uint64_t progress = loop->started_ms + PROGRESS_WAIT_MS;

	if (loop->phase_limit_ms && now >= loop->phase_limit_ms) {
		if (loop->phase == RUN_LEAVING)
			quit_machine(loop);
		else
			kill_machine(loop);
	}
	if (loop->phase <= RUN_RUNNING) {
		if (loop->panic_limit_ms && now >= loop->panic_limit_ms)
			begin_end(loop, RUN_END_HANG_AFTER_PANIC, 0);
		else if (loop->options->timeout_ms && now >= timeout)
			begin_end(loop, RUN_END_TIMEOUT, 0);
		else if (loop->result->paravisor && !loop->heard && loop->running_us &&
			 now >= loop->start_limit_ms)
			begin_end(
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
	begin_end(loop, RUN_END_NO_OUTPUT, 0);
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
		read_channel(loop);
	if (slots[SLOT_QMP].revents)
		read_qmp(loop);
	if (slots[SLOT_ERRORS].revents)
		read_errors(loop);
	if (slots[SLOT_INPUT].revents)
		console_read_input(console);
	if (console->leave)
		begin_end(loop, RUN_END_LEFT, 0);
	note_output_failure(loop);
}

/* QEMU ended without having been asked to: was that the guest's exit device, or an accident? */
static void judge_exit(struct run_loop *loop)
{
	int status = loop->qemu.wait_status;

	if (loop->phase > RUN_RUNNING)
		return;
	if (loop->running_us)
		loop->result->wall_us = now_us() - loop->running_us;
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
	read_channel(loop);
	read_qmp(loop);
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
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
		sigaddset(&set, caught[i]);
	signal(SIGPIPE, SIG_IGN);
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
