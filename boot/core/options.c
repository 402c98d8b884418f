/* Parapet's own options. See options.h. */
#include "arch/x86/string.h"
#include "boot/core/options.h"

static bool word_is(const char *word, size_t length, const char *name)
{
	return strlen(name) == length && !strncmp(word, name, length);
}

static bool starts_with(const char *word, size_t length, const char *prefix, const char **rest)
{
	size_t prefix_length = strlen(prefix);

	if (length <= prefix_length || strncmp(word, prefix, prefix_length)) {
		return false;
	}
	*rest = word + prefix_length;
	return true;
}

/* A port in hexadecimal, with or without 0x; moves *text behind it. */
static bool parse_port(const char **text, uint16_t *port)
{
	uint32_t value = 0;
	int digits = 0;

	if ((*text)[0] == '0' && (*text)[1] == 'x') {
		*text += 2;
	}
	for (;; digits++) {
		char c = **text;
		uint32_t digit = c >= '0' && c <= '9' ? (uint32_t)(c - '0')
			: c >= 'a' && c <= 'f'	      ? (uint32_t)(c - 'a' + 10)
			: c >= 'A' && c <= 'F'	      ? (uint32_t)(c - 'A' + 10)
						      : 16;

		if (digit == 16 || digits == 5) {
			break;
		}
		value = value << 4 | digit;
		(*text)++;
	}
	*port = (uint16_t)value;
	return digits > 0 && value <= 0xffff;
}

static bool parse_allow_io(const char *text, struct partition_options *options)
{
	uint32_t i = options->allow_io_count;

	if (i == ARRAY_SIZE(options->allow_io) || !parse_port(&text, &options->allow_io[i].first) ||
		*text++ != '-' || !parse_port(&text, &options->allow_io[i].last) ||
		options->allow_io[i].last < options->allow_io[i].first) {
		return false;
	}
	options->allow_io_count++;
	return *text == ' ' || *text == '\0';
}

static const char *const test_faults[] = {
	[TEST_FAULT_PAGE] = "test-fault=page",
	[TEST_FAULT_TEXT] = "test-fault=text",
	[TEST_FAULT_DATA] = "test-fault=data",
	[TEST_FAULT_STACK] = "test-fault=stack",
	[TEST_FAULT_STOP] = "test-fault=stop",
};

static bool parse_word(const char *word, size_t length, struct partition_options *options)
{
	const char *rest;
	uint16_t port;

	if (word_is(word, length, "verbose")) {
		options->verbose = true;
		return true;
	}
	if (word_is(word, length, "interrupt-exits")) {
		options->interrupt_exits = true;
		return true;
	}
	if (word_is(word, length, "vsm=on") || word_is(word, length, "vsm=off")) {
		options->vsm = word[5] == 'n';
		return true;
	}
	if (word_is(word, length, "protect=kernel")) {
		options->protect_kernel = true;
		return true;
	}
	if (word_is(word, length, "ap-start=mailbox") || word_is(word, length, "ap-start=sipi")) {
		options->mailbox = word[9] == 'm';
		return true;
	}
	if (word_is(word, length, "tlb-flush=auto")) {
		options->tlb_flush = TLB_FLUSH_AUTO;
		return true;
	}
	if (word_is(word, length, "tlb-flush=ipi")) {
		options->tlb_flush = TLB_FLUSH_IPI;
		return true;
	}
	if (word_is(word, length, "tlb-flush=hypercall")) {
		options->tlb_flush = TLB_FLUSH_HYPERCALL;
		return true;
	}
	if (starts_with(word, length, "vp-stride=", &rest)) {
		if (!parse_port(&rest, &port) || port == 0 ||
			port > VPSET_INDEX_COUNT / VP_COUNT_MAX) {
			return false;
		}
		options->vp_stride = port;
		return true;
	}
	for (size_t i = TEST_FAULT_PAGE; i < ARRAY_SIZE(test_faults); i++) {
		if (word_is(word, length, test_faults[i])) {
			options->test_fault = (enum test_fault)i;
			return true;
		}
	}
	if (starts_with(word, length, "allow-io=", &rest)) {
		return parse_allow_io(rest, options);
	}
	if (starts_with(word, length, "exit-port=", &rest)) {
		if (!parse_port(&rest, &port)) {
			return false;
		}
		options->exit_port = port;
		return true;
	}
	return false;
}

bool options_parse(const char *text, struct partition_options *options, const char **wrong)
{
	while (*text) {
		size_t length = 0;

		while (*text == ' ') {
			text++;
		}
		while (text[length] && text[length] != ' ') {
			length++;
		}
		if (length && !parse_word(text, length, options)) {
			*wrong = text;
			return false;
		}
		text += length;
	}
	return true;
}
