/* Byte and string functions for the image. Copies use the string instructions: small, fast enough. */
#include <stdint.h>
#include "arch/x86/string.h"

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
	void *start = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
	return start;
}

void *memmove(void *to, const void *from, size_t count)
{
	if ((uintptr_t)to - (uintptr_t)from >= count) {
		return memcpy(to, from, count);
	}

	uint8_t *target = to;
	const uint8_t *source = from;

	while (count > 0) {
		count--;
		target[count] = source[count];
	}
	return to;
}

void *memset(void *to, int byte, size_t count)
{
	void *start = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(byte) : "memory");
	return start;
}

int memcmp(const void *a, const void *b, size_t count)
{
	const uint8_t *left = a;
	const uint8_t *right = b;

	for (size_t i = 0; i < count; i++) {
		if (left[i] != right[i]) {
			return left[i] < right[i] ? -1 : 1;
		}
	}
	return 0;
}

void *memchr(const void *in, int byte, size_t count)
{
	const uint8_t *bytes = in;

	for (size_t i = 0; i < count; i++) {
		if (bytes[i] == (uint8_t)byte) {
			return (void *)(uintptr_t)&bytes[i];
		}
	}
	return NULL;
}

size_t strnlen(const char *text, size_t max)
{
	size_t length = 0;

	while (length < max && text[length]) {
		length++;
	}
	return length;
}

size_t strlen(const char *text)
{
	return strnlen(text, SIZE_MAX);
}

char *strchr(const char *text, int character)
{
	return memchr(text, character, strlen(text) + 1);
}

char *strrchr(const char *text, int character)
{
	size_t i = strlen(text) + 1;

	while (i > 0) {
		i--;
		if (text[i] == (char)character) {
			return (char *)(uintptr_t)&text[i];
		}
	}
	return NULL;
}

int strncmp(const char *a, const char *b, size_t max)
{
	for (size_t i = 0; i < max; i++) {
		if (a[i] != b[i]) {
			return (uint8_t)a[i] < (uint8_t)b[i] ? -1 : 1;
		}
		if (!a[i]) {
			return 0;
		}
	}
	return 0;
}

int strcmp(const char *a, const char *b)
{
	return strncmp(a, b, SIZE_MAX);
}
