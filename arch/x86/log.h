/*
 * What Parapet has to say, as lines on its own serial port (the machine's second one, which no guest
 * can reach). A line starts with a letter and a blank: E error, W warning, I information; or with @
 * for the program at the other end. Without a second port only errors are said, on the first.
 */
#ifndef PARAPET_ARCH_X86_LOG_H
#define PARAPET_ARCH_X86_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Finds the port. Call once, before anything else here. */
void log_init(void);

/* Information lines are dropped unless somebody asked for them. */
void log_set_verbose(bool verbose);

/* One whole line, newline added. Understands %s %c %d %u %x (with l, ll, width, 0) %%. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From here on other processors' lines may be cut: a fault report must not wait for a lock. */
void log_take_over(void);

/* True if somebody listens and sent `byte` within `microseconds` (bounded by the TSC). */
bool log_wait_byte(uint8_t byte, uint64_t microseconds, uint64_t tsc_hz);

/* Formats into text (size bytes, always terminated); returns the length it has. */
size_t print_format(char *text, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
size_t print_format_list(char *text, size_t size, const char *format, va_list arguments);

#endif
