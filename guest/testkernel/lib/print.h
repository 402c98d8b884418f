/*
 * Text out of the first serial port, and the few string functions that a kernel without a C library
 * needs. No input, no formatting beyond what print_format lists.
 */
#ifndef TK_PRINT_H
#define TK_PRINT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sets COM1 to 115200 8N1, polled. */
void print_start(void);

/* %s %c %d %u %x %p %%, with l or ll, a width and a leading 0. Any processor; calls do not mix. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void print_list(const char *format, va_list list);

bool string_equal(const char *a, const char *b, size_t length);
size_t string_length(const char *string);
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);

#endif
