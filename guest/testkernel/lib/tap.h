/*
 * What a test says to its runner: lines of the Test Anything Protocol, then the exit. Every way out
 * of the machine that means "finished" is here; ways out that are themselves under test are not.
 */
#ifndef TK_TAP_H
#define TK_TAP_H

#include <stdbool.h>
#include <stdint.h>

/* One numbered result. Only the first processor calls these. Returns what it was given. */
bool tap_check(bool passed, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Compares and, when different, shows both. */
bool tap_equal(uint64_t found, uint64_t wanted, const char *name);

void tap_skip(const char *name, const char *reason);

/*
 * For checks that only a paravisor promises, or that QEMU's processor answers less strictly than
 * its manual: true when there is one, otherwise reports the check as skipped.
 */
bool tap_wants_paravisor(const char *name);

/* A line for the human reader. */
void tap_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints the plan and ends the machine: status 0 when nothing failed, 1 otherwise. */
_Noreturn void tap_finish(void);

/* Cannot go on: says why and ends the machine with status 1. Any processor. */
_Noreturn void tap_bail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Ends the machine through isa-debug-exit at port 0xf4 (QEMU then exits with status * 2 + 1). Where
 * no such device answers: status 0 powers off; anything else stops with a triple fault.
 */
_Noreturn void machine_exit(uint8_t status);

#endif
