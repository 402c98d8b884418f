/* Formatting for the log: the few conversions that reports need, into a buffer of fixed size. */
#include "arch/x86/log.h"
#include "arch/x86/string.h"

struct output {
	char *text;
	size_t size;
	size_t length;
};

static void put(struct output *out, char character)
{
	if (out->length + 1 < out->size) {
		out->text[out->length++] = character;
	}
}

static void put_number(struct output *out, uint64_t value, unsigned int base, bool negative,
	unsigned int width, char pad)
{
	char digits[24];
	unsigned int count = 0;

	do {
		digits[count++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	if (negative) {
		digits[count++] = '-';
	}
	for (unsigned int i = count; i < width; i++) {
		put(out, pad);
	}
	while (count > 0) {
		put(out, digits[--count]);
	}
}

size_t print_format_list(char *text, size_t size, const char *format, va_list arguments)
{
	struct output out = {.text = text, .size = size};

	for (; *format; format++) {
		if (*format != '%') {
			put(&out, *format);
			continue;
		}
		format++;

		char pad = ' ';
		unsigned int width = 0;
		unsigned int longs = 0;

		if (*format == '0') {
			pad = '0';
			format++;
		}
		while (*format >= '0' && *format <= '9') {
			width = width * 10 + (unsigned int)(*format++ - '0');
		}
		while (*format == 'l') {
			longs++;
			format++;
		}
		switch (*format) {
		case 'd': {
			int64_t value = longs ? va_arg(arguments, int64_t) : va_arg(arguments, int);
			uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

			put_number(&out, magnitude, 10, value < 0, width, pad);
			break;
		}
		case 'u':
		case 'x': {
			uint64_t value =
				longs ? va_arg(arguments, uint64_t) : va_arg(arguments, unsigned);

			put_number(&out, value, *format == 'x' ? 16 : 10, false, width, pad);
			break;
		}
		case 'c':
			put(&out, (char)va_arg(arguments, int));
			break;
		case 's': {
			const char *string = va_arg(arguments, const char *);
			size_t length = strlen(string);

			for (size_t i = 0; i < length; i++) {
				put(&out, string[i]);
			}
			for (size_t i = length; i < width; i++) {
				put(&out, ' ');
			}
			break;
		}
		case '%':
			put(&out, '%');
			break;
		default: /* the compiler checks formats: not reached */
			put(&out, '?');
			break;
		}
	}
	if (size > 0) {
		text[out.length] = '\0';
	}
	return out.length;
}

size_t print_format(char *text, size_t size, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	size_t length = print_format_list(text, size, format, arguments);
	va_end(arguments);
	return length;
}
