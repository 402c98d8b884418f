/*
 * Where things are in Parapet's own address space. Shared by the boot shim, which builds the page
 * tables, the linker script, and the core, which runs in them. Assembly includes it too.
 *
 *   IMAGE_BASE   Parapet's region: image (text RX, read-only data R, data RW), then page tables and
 *                everything set aside at start; 4 KiB pages, so that guard pages can be taken out
 *   DIRECT_BASE  all RAM of the machine but Parapet's region, RW, never executable; what lies below
 *                4 GiB and is not RAM is mapped there too, uncached
 */
#ifndef PARAPET_ARCH_X86_LAYOUT_H
#define PARAPET_ARCH_X86_LAYOUT_H

#define IMAGE_BASE  0xffffffff80000000
#define DIRECT_BASE 0xffff800000000000

#define REGION_BYTES_MAX 0x40000000 /* one page directory's worth */

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define SELECTOR_TSS  0x18

#define STACK_BYTES	  16384 /* the run loop's */
#define FAULT_STACK_BYTES 8192 /* NMI, #DF, #MC, #DB: one each */

/* Offsets in struct cpu, for assembly; cpu.h asserts them. */
#define CPU_STACK_TOP 8

#endif
