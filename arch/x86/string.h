/*
 * The part of <string.h> that freestanding code and libfdt need. Plain byte semantics; sizes in
 * bytes. Nothing else of a C library exists inside Parapet.
 */
#ifndef PARAPET_ARCH_X86_STRING_H
#define PARAPET_ARCH_X86_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *a, const void *b, size_t count);
void *memchr(const void *in, int byte, size_t count);
size_t strlen(const char *text);
size_t strnlen(const char *text, size_t max);
char *strchr(const char *text, int character);
char *strrchr(const char *text, int character);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t max);

#endif
