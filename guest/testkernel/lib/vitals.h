/*
 * Whether all processors are still well: used after everything that might have hurt one. Counts
 * NMIs; nothing here provokes any.
 */
#ifndef TK_VITALS_H
#define TK_VITALS_H

#include <stdbool.h>
#include <stdint.h>

/* Starts all processors and takes the NMI vector and VITALS_VECTOR. Leaves interrupts enabled. */
void vitals_start(void);

/* Takes the present processors as good, after a test that restarted some on purpose. */
void vitals_start_again(void);

#define VITALS_VECTOR 0x4d

/* NMIs since the start, on all processors together. */
uint32_t vitals_nmis(void);

/* Interrupts of VITALS_VECTOR since the start, on all processors together. */
uint32_t vitals_interrupts(void);

/*
 * Does every processor answer a call, without having been restarted since vitals_start? Processors
 * that are gone are started again, so that one loss is reported once.
 */
bool vitals_good(void);

/* vitals_good, and no NMI since the number given: after an attempt that must have no effect. */
bool vitals_untouched(uint32_t nmis);

/* Reports that the timer, IPIs to everybody and NMIs to everybody still work: three results. */
void vitals_check(void);

#endif
