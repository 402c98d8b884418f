#include "print.h"

#include <stdatomic.h>

#include "machine.h"

#define COM1		 0x3f8
#define LINE_STATUS	 5
#define TRANSMITTER_FREE 0x20

static atomic_flag print_lock = ATOMIC_FLAG_INIT;

void print_start(void)
{
	io_write8(COM1 + 1, 0x00); /* no interrupts */
	io_write8(COM1 + 3, 0x80); /* divisor latch */
	io_write8(COM1 + 0, 0x01);
	io_write8(COM1 + 1, 0x00);
	io_write8(COM1 + 3, 0x03); /* 8N1 */
	io_write8(COM1 + 2, 0x07); /* FIFO on and empty */
	io_write8(COM1 + 4, 0x03);
}

static void character_print(char character)
{
	/* Bounded: a port that is not there must not hang the test that says so. */
	for (uint32_t i = 0; i < 1000000; i++)
		if (io_read8(COM1 + LINE_STATUS) & TRANSMITTER_FREE)
			break;
	io_write8(COM1, (uint8_t)character);
}

static void string_print(const char *string)
{
	for (; *string; string++) {
		if (*string == '\n')
			character_print('\r');
		character_print(*string);
	}
}

static void number_print(uint64_t value, bool negative, uint32_t base, uint32_t width, char fill)
{
	char digits[24];
	uint32_t count = 0;

	do {
		digits[count++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	if (negative)
		digits[count++] = '-';
	for (; width > count; width--)
		character_print(fill);
	while (count)
		character_print(digits[--count]);
}

static void conversion_print(const char **format, va_list *list)
{
	uint32_t width = 0, longs = 0;
	char fill = ' ';
	uint64_t value;
	bool negative;

	if (**format == '0')
		fill = *(*format)++;
	while (**format >= '0' && **format <= '9')
		width = width * 10 + (uint32_t)(*(*format)++ - '0');
	for (; **format == 'l' || **format == 'z'; (*format)++)
		longs++;
	switch (*(*format)++) {
	case 's':
		string_print(va_arg(*list, const char *));
		return;
	case 'c':
		character_print((char)va_arg(*list, int));
		return;
	case 'd':
		value = longs ? va_arg(*list, uint64_t) : (uint64_t)va_arg(*list, int);
		negative = (int64_t)value < 0;
		number_print(negative ? -value : value, negative, 10, width, fill);
		return;
	case 'u':
		value = longs ? va_arg(*list, uint64_t) : va_arg(*list, uint32_t);
		number_print(value, false, 10, width, fill);
		return;
	case 'x':
		value = longs ? va_arg(*list, uint64_t) : va_arg(*list, uint32_t);
		number_print(value, false, 16, width, fill);
		return;
	case 'p':
		string_print("0x");
		number_print((uint64_t)va_arg(*list, void *), false, 16, 0, fill);
		return;
	default:
		character_print((*format)[-1]);
	}
}

void print_list(const char *format, va_list list)
{
	uint64_t flags = flags_read();
	va_list copy;

	va_copy(copy, list);
	interrupts_disable();
	/* Pairs with the release below: output of one processor at a time. */
	while (atomic_flag_test_and_set_explicit(&print_lock, memory_order_acquire))
		cpu_relax();
	while (*format) {
		char character = *format++;

		if (character == '%') {
			conversion_print(&format, &copy);
		} else {
			if (character == '\n')
				character_print('\r');
			character_print(character);
		}
	}
	atomic_flag_clear_explicit(&print_lock, memory_order_release);
	if (flags & FLAG_IF)
		interrupts_enable();
	va_end(copy);
}

void print(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	print_list(format, list);
	va_end(list);
}

bool string_equal(const char *a, const char *b, size_t length)
{
	return memcmp(a, b, length) == 0;
}

size_t string_length(const char *string)
{
	size_t length = 0;

	while (string[length])
		length++;
	return length;
}

void *memcpy(void *to, const void *from, size_t size)
{
	void *result = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return result;
}

void *memset(void *to, int value, size_t size)
{
	void *result = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
	return result;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const uint8_t *left = a, *right = b;

	for (size_t i = 0; i < size; i++)
		if (left[i] != right[i])
			return left[i] < right[i] ? -1 : 1;
	return 0;
}
