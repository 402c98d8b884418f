/* Brings the machine's other processors from INIT into Parapet, all at the same time. */
#ifndef PARAPET_ARCH_X86_AP_START_H
#define PARAPET_ARCH_X86_AP_START_H

#include <parapet/types.h>

struct cpu;

/*
 * Starts every processor that has a struct cpu and runs `entry` on it; returns once all are there.
 * `page` is a free page of RAM below 1 MiB; it is left as it was found. Stops Parapet with the list of
 * those that did not come within a second.
 */
void ap_start_all(hpa_t page, uint64_t tsc_hz, void (*entry)(struct cpu *cpu));

/* Called by ap_start.S on each processor's own stack. */
void ap_main(struct cpu *cpu) __attribute__((noreturn));

#endif
