/*
 * A stand-in for QEMU in the tests of the command: answers the machine protocol, plays Parapet's
 * side of its channel, and does what a script says. Starts nothing; the only file it writes is the
 * memory copy that it is asked for, and its own arguments if $FAKE_ARGS names a file.
 *
 * $FAKE_SCRIPT is the script itself, one step a line. Steps run once the machine was told to run:
 *   console TEXT    prints on the guest's console (\n, \r and \e are understood)
 *   channel TEXT    prints a line on Parapet's channel; %BLOCK is the block's size in hexadecimal
 *   errors TEXT     prints a line on standard error
 *   flood KIB       prints so many KiB of lines on the console
 *   sleep MS        waits
 *   wait-k          waits for Parapet's answer byte on the channel
 *   wait-input WORD waits until the word has been typed on the console
 *   shutdown REASON the machine ends: an event, then it stands still
 *   event NAME      another event
 *   exit STATUS     ends at once
 *   signal NUMBER   ends by a signal
 * and these take effect from the start:
 *   early-exit STATUS, early-mute (never answers), mute (stops answering when it is told to stop),
 *   refuse-save, block KIND (whole, magic, version, short, vps, offset, rings, empty), hold-quit
 */
#include <parapet/block.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/trace/trace.h"

#define VPS	      2
#define TRACE_ENTRIES 8
#define TSC_HZ	      1000000000ull

struct fake_block {
	struct block_header header;
	uint8_t padding[24];
	struct block_vp vp[VPS];
	struct {
		uint64_t count;
		uint64_t padding[7];
		struct trace_record record[TRACE_ENTRIES];
	} ring[VPS];
};

struct fake {
	int qmp_fd;
	int console_fd;
	int channel_fd;
	char *step; /* the next one; NULL: no more */
	bool running;
	bool answered; /* the byte came */
	bool mute;
	bool mute_on_stop;
	bool refuse_save;
	bool hold_quit;
	const char *block_kind;
	uint64_t wake_ms;
	char qmp_input[65536];
	size_t qmp_used;
	char typed[65536];
	size_t typed_used;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void write_all(int fd, const char *text, size_t size)
{
	while (fd >= 0 && size > 0) {
		ssize_t count = write(fd, text, size);

		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			_exit(0); /* nobody is listening any more */
		text += count;
		size -= (size_t)count;
	}
}

__attribute__((format(printf, 2, 3))) static void print(int fd, const char *format, ...)
{
	char text[8192];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	write_all(fd, text, strlen(text));
}

static void fill_block(struct fake_block *block)
{
	*block = (struct fake_block){
		.header =
			{
				.magic = BLOCK_MAGIC,
				.version = BLOCK_VERSION,
				.header_bytes = sizeof(struct block_header),
				.bytes = sizeof(*block),
				.platform = "svm",
				.ap_start_method = "sipi",
				.vps = VPS,
				.counters = COUNTER_COUNT,
				.vp_offset = offsetof(struct fake_block, vp),
				.vp_bytes = sizeof(struct block_vp),
				.trace_offset = offsetof(struct fake_block, ring),
				.trace_ring_bytes = sizeof(block->ring[0]),
				.trace_entries = TRACE_ENTRIES,
				.tsc_hz = TSC_HZ,
				.boot_tsc = TSC_HZ / 2,
				.end_reason = BLOCK_END_POWER_OFF,
				.end_tsc = TSC_HZ * 5 / 2,
				.ap_first_request_tsc = TSC_HZ,
				.ap_last_online_tsc = TSC_HZ + TSC_HZ / 100,
				.text_bytes = 65536,
				.memory_bytes = 4 << 20,
			},
	};
	for (unsigned vp = 0; vp < VPS; vp++) {
		for (unsigned counter = 0; counter <= COUNTER_EXIT_OTHER; counter++)
			block->vp[vp].counter[counter] = 1000 * (vp + 1) + counter;
		block->vp[vp].counter[COUNTER_DENIED_IO] = 3;
		block->vp[vp].apic_id = vp;
		block->ring[vp].count = 2;
		block->ring[vp].record[0] = (struct trace_record){
			.tsc = TSC_HZ, .event = TRACE_AP_REQUEST, .vp = vp, .a = 1, .b = 4096};
		block->ring[vp].record[1] = (struct trace_record){
			.tsc = TSC_HZ + 500, .event = TRACE_AP_RUNNING, .vp = vp, .a = 1};
	}
	block->vp[1].ap_request_tsc = TSC_HZ;
	block->vp[1].ap_start_tsc = TSC_HZ + TSC_HZ / 1000;
}

static void save_block(const struct fake *fake, const char *path)
{
	struct fake_block block;
	const char *kind = fake->block_kind;
	size_t bytes = sizeof(block);
	FILE *file = fopen(path, "wb");

	fill_block(&block);
	if (strcmp(kind, "magic") == 0)
		block.header.magic ^= 1;
	else if (strcmp(kind, "version") == 0)
		block.header.version++;
	else if (strcmp(kind, "vps") == 0)
		block.header.vps = 100000;
	else if (strcmp(kind, "offset") == 0)
		block.header.vp_offset = UINT64_MAX - 63;
	else if (strcmp(kind, "rings") == 0)
		block.header.trace_entries = 1ull << 60;
	else if (strcmp(kind, "short") == 0)
		bytes = 1000;
	else if (strcmp(kind, "empty") == 0)
		bytes = 0;
	if (!file || fwrite(&block, 1, bytes, file) != bytes || fclose(file) != 0)
		exit(99);
}

/* Commands come as the command writes them: compact, one a line. */
static void answer(struct fake *fake, const char *line)
{
	char path[4096];
	const char *name = strstr(line, "\"filename\":\"");

	if (fake->mute)
		return;
	if (strstr(line, "\"execute\":\"pmemsave\"")) {
		if (fake->refuse_save || !name || sscanf(name + 12, "%4095[^\"]", path) != 1) {
			print(fake->qmp_fd,
				"{\"error\": {\"class\": \"GenericError\", \"desc\": "
				"\"no such memory\"}}\r\n");
			return;
		}
		save_block(fake, path);
	} else if (strstr(line, "\"execute\":\"cont\"")) {
		fake->running = true;
		print(fake->qmp_fd, "{\"event\": \"RESUME\"}\r\n");
	} else if (strstr(line, "\"execute\":\"stop\"")) {
		fake->running = false;
		if (fake->mute_on_stop) {
			fake->mute = true;
			return;
		}
		print(fake->qmp_fd, "{\"event\": \"STOP\"}\r\n");
	}
	if (strstr(line, "\"execute\":\"quit\"") && fake->hold_quit)
		return;
	print(fake->qmp_fd, "{\"return\": {}}\r\n");
	if (strstr(line, "\"execute\":\"quit\""))
		exit(0);
}

static void read_qmp(struct fake *fake)
{
	ssize_t count = read(fake->qmp_fd, fake->qmp_input + fake->qmp_used,
		sizeof(fake->qmp_input) - 1 - fake->qmp_used);
	char *end;

	if (count <= 0)
		exit(0);
	fake->qmp_used += (size_t)count;
	fake->qmp_input[fake->qmp_used] = '\0';
	while ((end = strchr(fake->qmp_input, '\n'))) {
		*end = '\0';
		answer(fake, fake->qmp_input);
		fake->qmp_used -= (size_t)(end + 1 - fake->qmp_input);
		memmove(fake->qmp_input, end + 1, fake->qmp_used + 1);
	}
}

static void read_channel(struct fake *fake)
{
	char byte;

	if (read(fake->channel_fd, &byte, 1) == 1 && byte == 'k')
		fake->answered = true;
}

static void read_console(struct fake *fake)
{
	ssize_t count = read(fake->console_fd, fake->typed + fake->typed_used,
		sizeof(fake->typed) - 1 - fake->typed_used);

	if (count > 0)
		fake->typed_used += (size_t)count;
	fake->typed[fake->typed_used] = '\0';
}

static void print_escaped(int fd, const char *text)
{
	char out[4096];
	size_t used = 0;

	for (; *text && used < sizeof(out) - 1; text++) {
		if (*text != '\\' || !text[1]) {
			out[used++] = *text;
			continue;
		}
		text++;
		out[used++] = *text == 'n' ? '\n' : *text == 'r' ? '\r' : *text == 'e' ? 27 : *text;
	}
	write_all(fd, out, used);
}

static void print_channel(struct fake *fake, const char *text)
{
	const char *mark = strstr(text, "%BLOCK");

	if (mark)
		print(fake->channel_fd, "%.*s0x%zx%s\n", (int)(mark - text), text,
			sizeof(struct fake_block), mark + 6);
	else
		print(fake->channel_fd, "%s\n", text);
}

static void flood(struct fake *fake, unsigned kib)
{
	for (unsigned i = 0; i < kib * 16; i++)
		print(fake->console_fd, "%062u\n", i % 1000000);
}

/* One step; false if it is not over yet. */
static bool do_step(struct fake *fake, const char *word, const char *rest)
{
	if (strcmp(word, "console") == 0)
		print_escaped(fake->console_fd, rest);
	else if (strcmp(word, "channel") == 0)
		print_channel(fake, rest);
	else if (strcmp(word, "errors") == 0)
		print(STDERR_FILENO, "%s\n", rest);
	else if (strcmp(word, "flood") == 0)
		flood(fake, (unsigned)atoi(rest));
	else if (strcmp(word, "wait-k") == 0)
		return fake->answered;
	else if (strcmp(word, "wait-input") == 0)
		return strstr(fake->typed, rest) != NULL;
	else if (strcmp(word, "exit") == 0)
		exit(atoi(rest));
	else if (strcmp(word, "signal") == 0)
		raise(atoi(rest));
	else if (strcmp(word, "event") == 0)
		print(fake->qmp_fd, "{\"event\": \"%s\"}\r\n", rest);
	else if (strcmp(word, "shutdown") == 0) {
		fake->running = false;
		print(fake->qmp_fd,
			"{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": "
			"\"%s\"}}\r\n",
			rest);
	} else if (strcmp(word, "sleep") == 0) {
		if (!fake->wake_ms)
			fake->wake_ms = now_ms() + (uint64_t)atoi(rest);
		if (now_ms() < fake->wake_ms)
			return false;
		fake->wake_ms = 0;
	}
	return true;
}

/* Takes the step at `from` apart. Returns where the next one starts; NULL: there is none. */
static char *split_step(char *from, char word[32], char rest[4096])
{
	size_t length = strcspn(from, "\n");

	word[0] = '\0';
	rest[0] = '\0';
	char line[4096];

	snprintf(line, sizeof(line), "%.*s", (int)length, from);
	sscanf(line, "%31s %4095[^\n]", word, rest);
	return from[length] ? from + length + 1 : NULL;
}

static void run_steps(struct fake *fake)
{
	char word[32];
	char rest[4096];

	while (fake->running && fake->step) {
		char *next = split_step(fake->step, word, rest);

		if (!do_step(fake, word, rest))
			return;
		fake->step = next;
	}
}

static void apply_settings(struct fake *fake)
{
	static char kind[4096] = "whole";
	char word[32];
	char rest[4096];

	for (char *step = fake->step; step;) {
		step = split_step(step, word, rest);
		if (strcmp(word, "early-exit") == 0) {
			fprintf(stderr,
				"qemu-system-x86_64: something is wrong with the machine\n");
			exit(atoi(rest));
		}
		fake->mute |= strcmp(word, "early-mute") == 0;
		fake->mute_on_stop |= strcmp(word, "mute") == 0;
		fake->refuse_save |= strcmp(word, "refuse-save") == 0;
		fake->hold_quit |= strcmp(word, "hold-quit") == 0;
		if (strcmp(word, "block") == 0)
			strcpy(kind, rest);
	}
	fake->block_kind = kind;
}

static void find_descriptor(const char *argument, const char *id, int *fd)
{
	char prefix[64];

	snprintf(prefix, sizeof(prefix), "socket,id=%s,fd=", id);
	if (strncmp(argument, prefix, strlen(prefix)) == 0)
		*fd = atoi(argument + strlen(prefix));
}

static void note_arguments(int count, char **arguments)
{
	const char *path = getenv("FAKE_ARGS");
	FILE *file = path ? fopen(path, "w") : NULL;

	for (int i = 1; file && i < count; i++)
		fprintf(file, "%s\n", arguments[i]);
	if (file)
		fclose(file);
}

int main(int count, char **arguments)
{
	struct fake fake = {.qmp_fd = -1, .console_fd = -1, .channel_fd = -1};
	const char *script = getenv("FAKE_SCRIPT");

	if (count == 2 && strcmp(arguments[1], "--version") == 0)
		return puts("QEMU emulator version 7.2.0 (stand-in)") < 0;
	if (count > 2 && strcmp(arguments[count - 1], "stdio") == 0)
		return puts("{\"return\": {\"model\": {\"npt\": true, \"svm\": true}}}") < 0;
	note_arguments(count, arguments);
	fake.step = strdup(script ? script : "");
	for (int i = 1; i < count; i++) {
		find_descriptor(arguments[i], "parapet-qmp", &fake.qmp_fd);
		find_descriptor(arguments[i], "parapet-console", &fake.console_fd);
		find_descriptor(arguments[i], "parapet-channel", &fake.channel_fd);
	}
	apply_settings(&fake);
	if (fake.qmp_fd < 0 || fake.console_fd < 0)
		return 98;
	print(fake.qmp_fd,
		"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}, "
		"\"package\": \"\"}, \"capabilities\": []}}\r\n");
	for (;;) {
		struct pollfd slots[3] = {
			{.fd = fake.qmp_fd, .events = POLLIN},
			{.fd = fake.channel_fd, .events = POLLIN},
			{.fd = fake.console_fd, .events = POLLIN},
		};

		run_steps(&fake);
		if (poll(slots, 3, 10) < 0)
			return 97;
		if (slots[0].revents)
			read_qmp(&fake);
		if (slots[1].revents)
			read_channel(&fake);
		if (slots[2].revents)
			read_console(&fake);
	}
}
