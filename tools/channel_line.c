/* The lines that Parapet writes on its channel, taken apart. No input, no output. */
#include "tools/channel_line.h"

#include <parapet/types.h>

#include <stdio.h>
#include <string.h>

#include "tools/tool_text.h"

static const char *const end_names[] = {
	[BLOCK_END_NOT_YET] = "none",
	[BLOCK_END_POWER_OFF] = "power-off",
	[BLOCK_END_RESET] = "reset",
	[BLOCK_END_TRIPLE_FAULT] = "triple-fault",
	[BLOCK_END_EXIT_PORT] = "exit-port",
	[BLOCK_END_REFUSED] = "refused",
	[BLOCK_END_PARAPET_FAULT] = "parapet-fault",
};

const char *channel_end_name(enum block_end reason)
{
	return (size_t)reason < ARRAY_SIZE(end_names) ? end_names[reason] : "unknown";
}

static bool parse_block(const char *first, const char *second, struct channel_line *result)
{
	return text_parse_hex(first, UINT64_MAX, &result->address) &&
		text_parse_hex(second, UINT64_MAX, &result->bytes);
}

static bool parse_end(const char *reason, const char *code, struct channel_line *result)
{
	if (*code && !text_parse_unsigned(code, UINT64_MAX, &result->code))
		return false;
	for (size_t i = BLOCK_END_POWER_OFF; i < ARRAY_SIZE(end_names); i++) {
		if (strcmp(reason, end_names[i]) == 0) {
			result->reason = (enum block_end)i;
			return true;
		}
	}
	return false;
}

static struct channel_line parse_command(const char *line)
{
	struct channel_line result = {.kind = CHANNEL_UNKNOWN, .text = line};
	char word[3][40] = {"", "", ""};
	char more[2];
	int words = sscanf(line, "%39s %39s %39s %1s", word[0], word[1], word[2], more);

	if (words == 1 && strcmp(word[0], "@guest") == 0)
		result.kind = CHANNEL_GUEST;
	else if (words == 3 && strcmp(word[0], "@block") == 0 &&
		parse_block(word[1], word[2], &result))
		result.kind = CHANNEL_BLOCK;
	else if ((words == 2 || words == 3) && strcmp(word[0], "@end") == 0 &&
		parse_end(word[1], word[2], &result))
		result.kind = CHANNEL_END;
	return result;
}

struct channel_line channel_line_parse(const char *line)
{
	static const struct {
		char letter;
		enum channel_line_kind kind;
	} kinds[] = {
		{'E', CHANNEL_ERROR},
		{'W', CHANNEL_WARNING},
		{'N', CHANNEL_NOTICE},
		{'I', CHANNEL_INFO},
		{'D', CHANNEL_DETAIL},
	};

	if (line[0] == '@')
		return parse_command(line);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (line[0] == kinds[i].letter && line[1] == ' ')
			return (struct channel_line){.kind = kinds[i].kind, .text = line + 2};
	}
	return (struct channel_line){.kind = CHANNEL_REPORT, .text = line};
}
