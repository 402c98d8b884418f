/*
 * The machine's side of a run: what Parapet and QEMU say, and the steps that bring the machine to
 * its end. Never waits: the loop in tools/run_loop.c does.
 */
#include "tools/run_machine.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tools/channel_line.h"
#include "tools/message.h"

#define STEP_LIMIT_MS	10000 /* for QEMU to answer a command */
#define SIGNAL_LIMIT_MS 2000 /* the same once somebody wants us gone */
#define LEAVE_LIMIT_MS	5000
#define QUIT_LIMIT_MS	5000
#define BLOCK_BYTES_MAX (1ull << 30) /* what can be copied and read in a reasonable time */

uint64_t run_machine_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void run_machine_say(struct run_loop *loop, bool with_name, const char *text)
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
	loop->phase_limit_ms = limit_ms ? run_machine_now_us() / 1000 + limit_ms : 0;
}

void run_machine_kill(struct run_loop *loop)
{
	if (loop->qemu.pid > 0)
		kill(loop->qemu.pid, SIGKILL);
	enter_phase(loop, RUN_KILLING, 0);
}

void run_machine_quit(struct run_loop *loop)
{
	if (qmp_send(&loop->qmp, "quit"))
		enter_phase(loop, RUN_QUITTING, QUIT_LIMIT_MS);
	else
		run_machine_kill(loop);
}

/* The machine stands still and the block is copied, or there is none: let it end. */
static void finish_machine(struct run_loop *loop)
{
	if (loop->announced && !loop->machine_ended && qmp_send(&loop->qmp, "cont"))
		enter_phase(loop, RUN_RESUMING, STEP_LIMIT_MS);
	else
		run_machine_quit(loop);
}

static void save_block(struct run_loop *loop)
{
	if (loop->block_known &&
		qmp_send_memory_save(
			&loop->qmp, loop->block_address, loop->block_bytes, loop->stage->block))
		enter_phase(loop, RUN_SAVING, STEP_LIMIT_MS);
	else
		finish_machine(loop);
}

/* The run is to end, for this reason; the first one counts. */
void run_machine_end(struct run_loop *loop, enum run_end end, uint64_t code)
{
	if (loop->phase > RUN_RUNNING)
		return;
	loop->result->end = end;
	loop->result->code = code;
	if (loop->running_us)
		loop->result->wall_us = run_machine_now_us() - loop->running_us;
	if (loop->phase == RUN_CONNECTING || !qmp_send(&loop->qmp, "stop"))
		run_machine_kill(loop);
	else
		enter_phase(loop, RUN_STOPPING,
			end == RUN_END_SIGNAL || end == RUN_END_LEFT ? SIGNAL_LIMIT_MS
								     : STEP_LIMIT_MS);
}

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
		run_machine_say(loop, true,
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
	case CHANNEL_NOTICE:
		run_machine_say(loop, true, line.text);
		break;
	case CHANNEL_WARNING:
		snprintf(longer, sizeof(longer), "warning: %s", line.text);
		run_machine_say(loop, true, longer);
		break;
	case CHANNEL_INFO:
	case CHANNEL_DETAIL:
		if (loop->options->verbose)
			run_machine_say(loop, true, line.text);
		break;
	case CHANNEL_REPORT:
		run_machine_say(loop, false, line.text);
		break;
	case CHANNEL_BLOCK:
		note_block(loop, &line);
		break;
	case CHANNEL_GUEST:
		loop->guest_entered = true;
		if (loop->options->verbose)
			run_machine_say(loop, true, "the guest's kernel is being entered");
		break;
	case CHANNEL_END:
		loop->announced |= loop->phase == RUN_RUNNING;
		run_machine_end(loop, announced_end(line.reason), line.code);
		break;
	case CHANNEL_UNKNOWN:
		snprintf(longer, sizeof(longer),
			"warning: Parapet says \"%s\", which this command does not know; build "
			"both "
			"together",
			line.text);
		run_machine_say(loop, true, longer);
		break;
	}
}

void run_machine_read_channel(struct run_loop *loop)
{
	char *line;

	channel_fill(&loop->channel);
	while ((line = channel_next(&loop->channel)))
		handle_channel_line(loop, line);
}

/* The machine ended by itself (QEMU keeps it as it was). */
static void handle_shutdown(struct run_loop *loop, const char *reason)
{
	loop->machine_ended = true;
	if (loop->phase == RUN_LEAVING || loop->phase == RUN_RESUMING) {
		run_machine_quit(loop);
		return;
	}
	if (loop->phase != RUN_RUNNING)
		return;
	if (strncmp(reason, "host-", 5) == 0) {
		tool_error_set(
			&loop->result->detail, "QEMU was told to end from outside (%s)", reason);
		run_machine_end(loop, RUN_END_BROKEN, 0);
	} else if (loop->result->paravisor) {
		tool_error_set(&loop->result->detail, "%s", reason);
		run_machine_end(loop, RUN_END_UNANNOUNCED, 0);
	} else if (strcmp(reason, "guest-reset") == 0) {
		run_machine_end(loop, RUN_END_RESET, 0);
	} else if (strcmp(reason, "guest-panic") == 0) {
		loop->result->panic = true;
		run_machine_end(loop, RUN_END_HANG_AFTER_PANIC, 0);
	} else {
		run_machine_end(loop, RUN_END_POWER_OFF, 0);
	}
}

static void begin_running(struct run_loop *loop)
{
	loop->running_us = run_machine_now_us();
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
			run_machine_say(loop, true, text);
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

void run_machine_read_qmp(struct run_loop *loop)
{
	struct qmp_message message;

	qmp_fill(&loop->qmp);
	while (qmp_next(&loop->qmp, &message))
		handle_message(loop, &message);
}
