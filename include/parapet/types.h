/*
 * The units that every room of Parapet shares. Addresses of different kinds are different types:
 * handing a guest-virtual address to something that wants a guest-physical one does not compile.
 */
#ifndef PARAPET_TYPES_H
#define PARAPET_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Guest-physical: what the guest's page tables point to. Equal to host-physical on every platform. */
typedef struct {
	uint64_t value;
} gpa_t;

/* Guest-virtual: what a guest instruction uses, after segmentation. */
typedef struct {
	uint64_t value;
} gva_t;

/* Host-physical: what the nested page tables point to. */
typedef struct {
	uint64_t value;
} hpa_t;

#define GPA(x) ((gpa_t){(x)})
#define GVA(x) ((gva_t){(x)})
#define HPA(x) ((hpa_t){(x)})

#define PAGE_BITS 12
#define PAGE_SIZE 4096ull
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define SIZE_2M	  0x200000ull
#define SIZE_1G	  0x40000000ull

/* A VP's dense number, 0 to count - 1. Not an APIC id, and not the index a guest sees. */
typedef uint32_t vp_id_t;

/* Trust levels. Parapet itself is level 2; a guest runs in 0, and its secure kernel in 1. */
enum vtl {
	VTL0 = 0,
	VTL1 = 1,
	VTL2 = 2,
};

/* What a lower VTL may do with guest-physical memory, as bits. */
#define ACCESS_NONE	      0u
#define ACCESS_READ	      1u
#define ACCESS_WRITE	      2u
#define ACCESS_EXECUTE_KERNEL 4u
#define ACCESS_EXECUTE_USER   8u
#define ACCESS_EXECUTE	      (ACCESS_EXECUTE_KERNEL | ACCESS_EXECUTE_USER)
#define ACCESS_ALL	      (ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE)

#define VP_COUNT_MAX 64 /* xAPIC ids are eight bits wide, and a VP's memory is set aside at start */

#define ARRAY_SIZE(a)	 (sizeof(a) / sizeof((a)[0]))
#define ALIGN_UP(x, a)	 (((x) + ((a)-1)) & ~((__typeof__(x))(a)-1))
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a)-1))

#endif
