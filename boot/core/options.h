/* Parapet's own options: words separated by blanks, as the boot loader passes them. */
#ifndef PARAPET_BOOT_CORE_OPTIONS_H
#define PARAPET_BOOT_CORE_OPTIONS_H

#include "partition/partition.h"

/*
 * Understands: verbose, ap-start=mailbox|sipi, tlb-flush=auto|hypercall|ipi, allow-io=FIRST-LAST (hex),
 * exit-port=PORT, interrupt-exits, vsm=on|off, vp-stride=N (hex, 1 to 40: the guest's VP indexes are N apart, so that it needs
 * sparse sets), test-fault=page|text|data|stack|stop (at the first CPUID exit). Returns false and the start of the first word that it does not understand.
 */
bool options_parse(const char *text, struct partition_options *options, const char **wrong);

#endif
