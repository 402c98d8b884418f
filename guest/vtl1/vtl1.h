/* What VTL1's code and its module must agree on. Read by the assembler too. */
#ifndef VTL1_H
#define VTL1_H

/* Where things are in struct record, which VTL1 has behind its GS. */
#define RECORD_ENTRIES 0
#define RECORD_CHANGED 8

/*
 * VTL1's own DR7: four watchpoints of eight bytes, none enabled. QEMU 7.2 keeps one breakpoint for each
 * of DR0 to DR3, of the kind that the DR7 of the moment says: two levels that enable different kinds
 * would have it take one for the other.
 */
#define VTL1_DR7 0x99990400

/* VTL1's own DR6: after a step. Linux leaves none of those bits set. */
#define VTL1_DR6 0xffff4ff0

#endif
