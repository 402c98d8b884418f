/* Reading numbers that people type and writing numbers that people read. No files, no output. */
#include "tools/tool_text.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* The digits of `text`, all of them and at least one, in the given base. */
static bool parse_digits(
	const char *text, size_t length, unsigned base, uint64_t max, uint64_t *value)
{
	uint64_t sum = 0;

	if (length == 0)
		return false;
	for (size_t i = 0; i < length; i++) {
		unsigned char letter = (unsigned char)text[i];
		unsigned digit;

		if (isdigit(letter))
			digit = letter - '0';
		else if (base == 16 && isxdigit(letter))
			digit = tolower(letter) - 'a' + 10;
		else
			return false;
		if (sum > (UINT64_MAX - digit) / base)
			return false;
		sum = sum * base + digit;
	}
	if (sum > max)
		return false;
	*value = sum;
	return true;
}

static bool has_hex_prefix(const char *text)
{
	return text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
}

bool text_parse_unsigned(const char *text, uint64_t max, uint64_t *value)
{
	if (has_hex_prefix(text))
		return parse_digits(text + 2, strlen(text + 2), 16, max, value);
	return parse_digits(text, strlen(text), 10, max, value);
}

bool text_parse_hex(const char *text, uint64_t max, uint64_t *value)
{
	if (has_hex_prefix(text))
		text += 2;
	return parse_digits(text, strlen(text), 16, max, value);
}

bool text_parse_memory(const char *text, uint64_t *bytes)
{
	size_t length = strlen(text);
	unsigned shift = 20;
	uint64_t number;

	if (length == 0)
		return false;
	switch (toupper((unsigned char)text[length - 1])) {
	case 'K':
		shift = 10;
		length--;
		break;
	case 'M':
		length--;
		break;
	case 'G':
		shift = 30;
		length--;
		break;
	}
	if (!parse_digits(text, length, 10, UINT64_MAX >> shift, &number))
		return false;
	*bytes = number << shift;
	return true;
}

bool text_parse_seconds(const char *text, uint64_t *milliseconds)
{
	const char *point = strchr(text, '.');
	size_t whole = point ? (size_t)(point - text) : strlen(text);
	uint64_t seconds;
	uint64_t thousandths = 0;

	if (!parse_digits(text, whole, 10, 10000000, &seconds))
		return false;
	if (point) {
		size_t decimals = strlen(point + 1);

		if (decimals > 3 || !parse_digits(point + 1, decimals, 10, 999, &thousandths))
			return false;
		for (; decimals < 3; decimals++)
			thousandths *= 10;
	}
	*milliseconds = seconds * 1000 + thousandths;
	return *milliseconds != 0;
}

enum text_port_fault text_parse_port_range(const char *text, struct port_range *range)
{
	const char *dash = strchr(text, '-');
	char first_text[24];
	size_t length = dash ? (size_t)(dash - text) : strlen(text);
	uint64_t first;
	uint64_t last;

	if (length >= sizeof(first_text))
		return TEXT_PORT_MALFORMED;
	memcpy(first_text, text, length);
	first_text[length] = '\0';
	if (!text_parse_hex(first_text, UINT64_MAX, &first))
		return TEXT_PORT_MALFORMED;
	last = first;
	if (dash && !text_parse_hex(dash + 1, UINT64_MAX, &last))
		return TEXT_PORT_MALFORMED;
	if (first > UINT16_MAX || last > UINT16_MAX)
		return TEXT_PORT_TOO_HIGH;
	if (first > last)
		return TEXT_PORT_REVERSED;
	*range = (struct port_range){.first = (uint16_t)first, .last = (uint16_t)last};
	return TEXT_PORT_OK;
}

char *text_group_digits(uint64_t value, char buffer[TEXT_NUMBER_BYTES])
{
	char digits[TEXT_NUMBER_BYTES];
	int length = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
	char *to = buffer;

	for (int i = 0; i < length; i++) {
		if (i > 0 && (length - i) % 3 == 0)
			*to++ = ',';
		*to++ = digits[i];
	}
	*to = '\0';
	return buffer;
}

#define NEAREST_LETTERS 31

static unsigned smallest(unsigned a, unsigned b, unsigned c)
{
	unsigned least = a < b ? a : b;

	return least < c ? least : c;
}

/* Edit distance in which a swap of neighbours counts as one. Words up to NEAREST_LETTERS long. */
static unsigned edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
	unsigned cost[NEAREST_LETTERS + 1][NEAREST_LETTERS + 1];

	for (size_t i = 0; i <= a_length; i++)
		cost[i][0] = (unsigned)i;
	for (size_t j = 0; j <= b_length; j++)
		cost[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a_length; i++) {
		for (size_t j = 1; j <= b_length; j++) {
			unsigned change = cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			cost[i][j] = smallest(change, cost[i - 1][j] + 1, cost[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
				cost[i - 2][j - 2] + 1 < cost[i][j])
				cost[i][j] = cost[i - 2][j - 2] + 1;
		}
	}
	return cost[a_length][b_length];
}

const char *text_nearest(const char *word, const char *const *words, size_t count)
{
	size_t length = strlen(word);
	const char *nearest = NULL;
	unsigned nearest_distance = 0;

	if (length == 0 || length > NEAREST_LETTERS)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		size_t other_length = strlen(words[i]);

		if (other_length > NEAREST_LETTERS)
			continue;
		unsigned distance = edit_distance(word, length, words[i], other_length);
		unsigned most = length < 4 ? 1 : 1 + (unsigned)length / 4;

		if (distance > most || (nearest && distance >= nearest_distance))
			continue;
		nearest = words[i];
		nearest_distance = distance;
	}
	return nearest;
}
