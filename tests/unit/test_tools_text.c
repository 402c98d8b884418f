/* Numbers that people type and read, lines that arrive in pieces, lines of Parapet's channel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <parapet/types.h>

#include "tools/channel_line.h"
#include "tools/line_buffer.h"
#include "tools/tool_text.h"

static void test_memory(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* 0: refused */
	} cases[] = {
		{"512", 512ull << 20},
		{"512M", 512ull << 20},
		{"1g", 1ull << 30},
		{"4096k", 4 << 20},
		{"17592186044415M", 17592186044415ull << 20},
		{"17592186044416M", 0},
		{"99999999999999999999", 0},
		{"", 0},
		{"M", 0},
		{"-1", 0},
		{" 1", 0},
		{"1 ", 0},
		{"1.5G", 0},
		{"0x10", 0},
		{"1T", 0},
		{"1MB", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t bytes = 0;

		assert_int_equal(text_parse_memory(cases[i].text, &bytes), cases[i].bytes != 0);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void test_seconds(void **state)
{
	static const struct {
		const char *text;
		uint64_t milliseconds;
	} cases[] = {
		{"1", 1000},
		{"0.5", 500},
		{"1.25", 1250},
		{"1.005", 1005},
		{"10000000", 10000000000},
		{"10000001", 0},
		{"0", 0},
		{"0.0", 0},
		{".5", 0},
		{"1.", 0},
		{"1.0005", 0},
		{"x", 0},
		{"-1", 0},
		{"1e3", 0},
		{"", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t milliseconds = 0;
		bool taken = text_parse_seconds(cases[i].text, &milliseconds);

		assert_int_equal(taken, cases[i].milliseconds != 0);
		if (taken)
			assert_int_equal(milliseconds, cases[i].milliseconds);
	}
}

static void test_ports(void **state)
{
	struct port_range range;

	(void)state;
	assert_int_equal(text_parse_port_range("f4-f7", &range), TEXT_PORT_OK);
	assert_int_equal(range.first, 0xf4);
	assert_int_equal(range.last, 0xf7);
	assert_int_equal(text_parse_port_range("0x80", &range), TEXT_PORT_OK);
	assert_int_equal(range.first, 0x80);
	assert_int_equal(range.last, 0x80);
	assert_int_equal(text_parse_port_range("0-0XFFFF", &range), TEXT_PORT_OK);
	assert_int_equal(range.last, 0xffff);
	assert_int_equal(text_parse_port_range("7-6", &range), TEXT_PORT_REVERSED);
	assert_int_equal(text_parse_port_range("10000", &range), TEXT_PORT_TOO_HIGH);
	assert_int_equal(text_parse_port_range("10001-10000", &range), TEXT_PORT_TOO_HIGH);
	static const char *const malformed[] = {"", "-", "1-", "-1", "1-2-3", "g", "0x", "1 -2",
		"11111111111111111", "111111111111111111111111111111111-2"};

	for (size_t i = 0; i < ARRAY_SIZE(malformed); i++)
		assert_int_equal(text_parse_port_range(malformed[i], &range), TEXT_PORT_MALFORMED);
}

static void test_digits(void **state)
{
	char buffer[TEXT_NUMBER_BYTES];

	(void)state;
	assert_string_equal(text_group_digits(0, buffer), "0");
	assert_string_equal(text_group_digits(999, buffer), "999");
	assert_string_equal(text_group_digits(1000, buffer), "1,000");
	assert_string_equal(text_group_digits(UINT64_MAX, buffer), "18,446,744,073,709,551,615");
}

static void test_nearest(void **state)
{
	static const char *const words[] = {"memory", "kernel", "no-paravisor", "stats"};

	(void)state;
	assert_string_equal(text_nearest("memroy", words, 4), "memory");
	assert_string_equal(text_nearest("kernal", words, 4), "kernel");
	assert_string_equal(text_nearest("noparavisor", words, 4), "no-paravisor");
	assert_null(text_nearest("zzzz", words, 4));
	assert_null(text_nearest("", words, 4));
	assert_null(text_nearest("a-word-that-is-longer-than-any-option-could-ever-be", words, 4));
}

static void test_lines(void **state)
{
	struct line_buffer buffer = {.longest = 16};

	(void)state;
	assert_null(line_buffer_next(&buffer));
	assert_true(line_buffer_add(&buffer, "one\ntw", 6));
	assert_string_equal(line_buffer_next(&buffer), "one");
	assert_null(line_buffer_next(&buffer));
	assert_true(line_buffer_add(&buffer, "o\r\n\nx\0y\n", 8));
	assert_string_equal(line_buffer_next(&buffer), "two");
	assert_string_equal(line_buffer_next(&buffer), "");
	assert_string_equal(line_buffer_next(&buffer), "x?y");
	assert_null(line_buffer_next(&buffer));
	assert_null(line_buffer_rest(&buffer));
	assert_true(line_buffer_add(&buffer, "0123456789abcdefg", 17));
	assert_string_equal(line_buffer_next(&buffer), "0123456789abcdefg");
	assert_true(line_buffer_add(&buffer, "end", 3));
	assert_null(line_buffer_next(&buffer));
	assert_string_equal(line_buffer_rest(&buffer), "end");
	line_buffer_free(&buffer);
}

static void test_channel(void **state)
{
	struct channel_line line;

	(void)state;
	line = channel_line_parse("E it is broken");
	assert_int_equal(line.kind, CHANNEL_ERROR);
	assert_string_equal(line.text, "it is broken");
	assert_int_equal(channel_line_parse("W x").kind, CHANNEL_WARNING);
	assert_int_equal(channel_line_parse("I x").kind, CHANNEL_INFO);
	assert_int_equal(channel_line_parse("D x").kind, CHANNEL_DETAIL);
	assert_int_equal(channel_line_parse("EAX 1").kind, CHANNEL_REPORT);
	assert_int_equal(channel_line_parse("").kind, CHANNEL_REPORT);
	assert_int_equal(channel_line_parse("@guest").kind, CHANNEL_GUEST);

	line = channel_line_parse("@block 0x1f000000 0x200000");
	assert_int_equal(line.kind, CHANNEL_BLOCK);
	assert_int_equal(line.address, 0x1f000000);
	assert_int_equal(line.bytes, 0x200000);

	line = channel_line_parse("@end exit-port 7");
	assert_int_equal(line.kind, CHANNEL_END);
	assert_int_equal(line.reason, BLOCK_END_EXIT_PORT);
	assert_int_equal(line.code, 7);
	assert_int_equal(channel_line_parse("@end exit-port 0xff").code, 0xff);
	for (int reason = BLOCK_END_POWER_OFF; reason <= BLOCK_END_PARAPET_FAULT; reason++) {
		char text[64] = "@end ";

		line = channel_line_parse(strcat(text, channel_end_name((enum block_end)reason)));
		assert_int_equal(line.kind, CHANNEL_END);
		assert_int_equal(line.reason, reason);
	}
	static const char *const unknown[] = {"@", "@block", "@block 1", "@block x 1",
		"@block 1 2 3", "@end", "@end none 0", "@end poweroff 0", "@end reset x",
		"@end reset -1", "@end reset 1 2", "@guest 1", "@ guest",
		"@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};

	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
		assert_int_equal(channel_line_parse(unknown[i]).kind, CHANNEL_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_seconds),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_digits),
		cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_channel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
