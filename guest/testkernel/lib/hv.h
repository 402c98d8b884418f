/*
 * The guest interface of the Hyper-V TLFS from the guest's side: MSRs, the hypercall page, and calls
 * in each of their forms, right or wrong. Nothing that judges may enter.
 */
#ifndef TK_HV_H
#define TK_HV_H

#include <stdbool.h>
#include <stdint.h>

#define HV_MSR_GUEST_OS_ID    0x40000000
#define HV_MSR_HYPERCALL      0x40000001
#define HV_MSR_VP_INDEX	      0x40000002
#define HV_MSR_TIME_REF_COUNT 0x40000020
#define HV_MSR_REFERENCE_TSC  0x40000021
#define HV_MSR_TSC_FREQUENCY  0x40000022
#define HV_MSR_APIC_FREQUENCY 0x40000023
#define HV_MSR_EOI	      0x40000070
#define HV_MSR_ICR	      0x40000071
#define HV_MSR_TPR	      0x40000072
#define HV_MSR_VP_ASSIST_PAGE 0x40000073
#define HV_MSR_SCONTROL	      0x40000080
#define HV_MSR_SVERSION	      0x40000081
#define HV_MSR_SIEFP	      0x40000082
#define HV_MSR_SIMP	      0x40000083
#define HV_MSR_EOM	      0x40000084
#define HV_MSR_SINT0	      0x40000090
#define HV_MSR_TSC_INVARIANT  0x40000118

#define HV_ENABLE 1ull
#define HV_LOCKED 2ull /* of the hypercall MSR */

#define HV_GUEST_OS_ID 0x8100000000000000ull /* open source, Linux's number */

enum hv_code {
	HV_FLUSH_SPACE = 0x0002,
	HV_FLUSH_LIST = 0x0003,
	HV_SEND_IPI = 0x000b,
	HV_MODIFY_PROTECTION = 0x000c,
	HV_ENABLE_PARTITION_VTL = 0x000d,
	HV_ENABLE_VP_VTL = 0x000f,
	HV_VTL_CALL = 0x0011,
	HV_VTL_RETURN = 0x0012,
	HV_FLUSH_SPACE_EX = 0x0013,
	HV_FLUSH_LIST_EX = 0x0014,
	HV_SEND_IPI_EX = 0x0015,
	HV_GET_REGISTERS = 0x0050,
	HV_SET_REGISTERS = 0x0051,
	HV_TRANSLATE = 0x0052,
	HV_START_VP = 0x0099,
	HV_GET_VP_INDEX = 0x009a,
	HV_TRANSLATE_EX = 0x00ac,
};

enum hv_status {
	HV_SUCCESS = 0,
	HV_INVALID_CODE = 2,
	HV_INVALID_INPUT = 3,
	HV_INVALID_ALIGNMENT = 4,
	HV_INVALID_PARAMETER = 5,
	HV_ACCESS_DENIED = 6,
	HV_OPERATION_DENIED = 8,
	HV_INVALID_PARTITION_ID = 13,
	HV_INVALID_VP_INDEX = 14,
	HV_INVALID_VP_STATE = 21,
	HV_INVALID_REGISTER_VALUE = 80,
	HV_INVALID_VTL_STATE = 81,
	HV_VTL_ALREADY_ENABLED = 134,
};

/* The hypercall input value. */
#define HV_FAST		   (1ull << 16)
#define HV_VARIABLE(words) ((uint64_t)(words) << 17)
#define HV_REPS(count)	   ((uint64_t)(count) << 32)
#define HV_START(index)	   ((uint64_t)(index) << 48)

/* The result value of a call that ended so, after so many elements. */
#define HV_RESULT(status, reps) ((uint64_t)(status) | (uint64_t)(reps) << 32)

/* HV_FLUSH_FLAGS. */
#define HV_ALL_PROCESSORS  1ull
#define HV_ALL_SPACES	   2ull
#define HV_NON_GLOBAL_ONLY 4ull
#define HV_EXTENDED_RANGES 8ull

/* HV_GENERIC_SET_FORMAT. */
#define HV_SET_SPARSE 0ull
#define HV_SET_ALL    1ull

#define HV_BANKS_MAX   64
#define HV_INPUT_WORDS 512
#define HV_FAST_WORDS  14

/* Says who the guest is and puts the hypercall page into the kernel's image. Once. */
void hv_start(void);

/* The hypercall page, by hv_start or to be put to use by the caller. */
extern uint8_t hv_page[4096];

/* A call through the page: input value, address of the input (ignored: of the output). */
uint64_t hv_call(uint64_t value, uint64_t input);

/* The same through another page of such code, and with an address for the output. */
uint64_t hv_call_in(const void *page, uint64_t value, uint64_t input, uint64_t output);

/* The same with the input in RDX, R8 and XMM0 to XMM5. */
uint64_t hv_call_fast(uint64_t value, const uint64_t words[HV_FAST_WORDS]);

/* The same from 32-bit code, in its registers; the input's address, or two words. */
uint64_t hv_call_32(uint64_t value, uint64_t input, uint64_t second);

/* VMMCALL where it stands, not in the page. */
uint64_t hv_call_bare(uint64_t value, uint64_t input);

/* The VP index of the calling processor. */
uint32_t hv_index(void);

/* Reads the index of every started processor; hv_index_of afterwards. First processor only. */
void hv_indexes_read(void);
uint32_t hv_index_of(uint32_t cpu);

/* Asks for the index of every processor, started or not, where that can be asked. */
void hv_indexes_find(void);

/* A sparse set of processors (bit n: cpus[n]) as format, bank mask and banks. Returns the banks. */
uint32_t hv_set_write(uint64_t *words, uint64_t cpus);

/* A plain mask of VP indexes, if all these processors have one below 64. */
bool hv_mask_get(uint64_t cpus, uint64_t *mask);

#endif
