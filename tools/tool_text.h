/*
 * Reading numbers that people type and writing numbers that people read. No files, no output.
 */
#ifndef PARAPET_TOOLS_TOOL_TEXT_H
#define PARAPET_TOOLS_TOOL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct port_range {
	uint16_t first;
	uint16_t last;
};

/* Room for any number that text_group_digits() writes, with its terminator. */
#define TEXT_NUMBER_BYTES 32

/*
 * The whole of `text` as an unsigned number: decimal, or hexadecimal after 0x; no sign, no space.
 * False if it is anything else or above `max`.
 */
bool text_parse_unsigned(const char *text, uint64_t max, uint64_t *value);

/* As above, but always hexadecimal, with or without 0x. */
bool text_parse_hex(const char *text, uint64_t max, uint64_t *value);

/* A size in bytes: a decimal number with K, M or G (powers of 1024); without a suffix it is MiB. */
bool text_parse_memory(const char *text, uint64_t *bytes);

/* Seconds with up to three decimals, above 0 and up to ten million, in milliseconds. */
bool text_parse_seconds(const char *text, uint64_t *milliseconds);

enum text_port_fault {
	TEXT_PORT_OK,
	TEXT_PORT_MALFORMED,
	TEXT_PORT_TOO_HIGH,
	TEXT_PORT_REVERSED,
};

/* FIRST-LAST or a single port, hexadecimal with or without 0x, up to 0xffff. */
enum text_port_fault text_parse_port_range(const char *text, struct port_range *range);

/* The number with a comma between groups of three digits. Returns `buffer`. */
char *text_group_digits(uint64_t value, char buffer[TEXT_NUMBER_BYTES]);

/*
 * Which of `count` words is nearest to `word` (fewest letters changed, added, dropped or swapped);
 * NULL if none is near enough to be what was meant.
 */
const char *text_nearest(const char *word, const char *const *words, size_t count);

#endif
