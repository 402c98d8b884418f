/* The attacks that main.c and deputy.c share nothing of but the targets. */
#ifndef DEPUTY_H
#define DEPUTY_H

#include <linux/types.h>

/*
 * On every processor: has what is below the kernel write into the pages of a function that nobody calls
 * and of read-only data, which goes on to `rodata_end`. Says of each attempt what came of it; undoes it.
 */
void deputy_attack(u8 *text, u8 *rodata, u8 *rodata_end);

#endif
