/* Ends that come without a running VP. */
#ifndef PARAPET_PARTITION_END_H
#define PARAPET_PARTITION_END_H

#include "partition/partition.h"

/* Faults of Parapet are reported with this partition from now on. */
void end_init(struct partition *partition);

/* The guest cannot be started; why has been logged. */
void end_refuse(struct partition *partition) __attribute__((noreturn));

#endif
