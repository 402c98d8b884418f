/*
 * A second kernel in VTL1 (TLFS, chapter "Virtual Secure Mode"), on every processor: how it comes up, how
 * VTL0 has it run a function, and what it does about interrupts and intercepts. It has stacks, tables and
 * pages of its own, between vtl1_start and vtl1_end; its code and its page tables are VTL0's. Nothing
 * that judges may enter.
 */
#ifndef TK_VTL_H
#define TK_VTL_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu.h"
#include "hv.h"
#include "layout.h"

#define HV_SELF	   (~0ull) /* the caller's partition */
#define HV_VP_SELF 0xfffffffeu

/* HV_INPUT_VTL. */
#define HV_VTL_OWN  0x00u
#define HV_VTL(vtl) (0x10u | (vtl))

/* HV_MAP_GPA_FLAGS. */
#define HV_MAP_READ    1u
#define HV_MAP_WRITE   2u
#define HV_MAP_KERNEL  4u
#define HV_MAP_USER    8u
#define HV_MAP_EXECUTE (HV_MAP_KERNEL | HV_MAP_USER)
#define HV_MAP_ALL     (HV_MAP_READ | HV_MAP_WRITE | HV_MAP_EXECUTE)

/* HV_REGISTER_NAME. */
enum hv_register {
	HV_REGISTER_PENDING_EVENT0 = 0x00010004,
	HV_REGISTER_RAX = 0x00020000,
	HV_REGISTER_RCX,
	HV_REGISTER_RDX,
	HV_REGISTER_RBX,
	HV_REGISTER_RSP,
	HV_REGISTER_RBP,
	HV_REGISTER_RSI,
	HV_REGISTER_RDI,
	HV_REGISTER_R8,
	HV_REGISTER_R15 = 0x0002000f,
	HV_REGISTER_RIP,
	HV_REGISTER_RFLAGS,
	HV_REGISTER_CR0 = 0x00040000,
	HV_REGISTER_CR2,
	HV_REGISTER_CR3,
	HV_REGISTER_CR4,
	HV_REGISTER_CR8,
	HV_REGISTER_DR0 = 0x00050000,
	HV_REGISTER_DR6 = 0x00050004,
	HV_REGISTER_DR7,
	HV_REGISTER_ES = 0x00060000,
	HV_REGISTER_CS,
	HV_REGISTER_SS,
	HV_REGISTER_DS,
	HV_REGISTER_FS,
	HV_REGISTER_GS,
	HV_REGISTER_LDTR,
	HV_REGISTER_TR,
	HV_REGISTER_IDTR = 0x00070000,
	HV_REGISTER_GDTR,
	HV_REGISTER_EFER = 0x00080001,
	HV_REGISTER_KERNEL_GS_BASE,
	HV_REGISTER_APIC_BASE,
	HV_REGISTER_PAT,
	HV_REGISTER_SYSENTER_CS,
	HV_REGISTER_SYSENTER_EIP,
	HV_REGISTER_SYSENTER_ESP,
	HV_REGISTER_STAR,
	HV_REGISTER_LSTAR,
	HV_REGISTER_CSTAR,
	HV_REGISTER_SFMASK,
	HV_REGISTER_VP_INDEX = 0x00090003,
	HV_REGISTER_VP_ASSIST_PAGE = 0x00090013,
	HV_REGISTER_SINT0 = 0x000a0000,
	HV_REGISTER_SCONTROL = 0x000a0010,
	HV_REGISTER_VSM_CODE_PAGE_OFFSETS = 0x000d0002,
	HV_REGISTER_VSM_VP_STATUS,
	HV_REGISTER_VSM_PARTITION_STATUS,
	HV_REGISTER_VSM_VINA,
	HV_REGISTER_VSM_CAPABILITIES,
	HV_REGISTER_VSM_PARTITION_CONFIG,
	HV_REGISTER_VSM_SECURE_CONFIG_VTL0 = 0x000d0010,
	HV_REGISTER_CR_INTERCEPT_CONTROL = 0x000e0000,
	HV_REGISTER_CR_INTERCEPT_CR0_MASK,
	HV_REGISTER_CR_INTERCEPT_CR4_MASK,
	HV_REGISTER_CR_INTERCEPT_MISC_ENABLE_MASK,
};

/* HV_X64_SEGMENT_REGISTER and HV_X64_TABLE_REGISTER. */
struct hv_segment {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint16_t attributes;
};

struct hv_table {
	uint16_t pad[3];
	uint16_t limit;
	uint64_t base;
};

/* HV_INITIAL_VP_CONTEXT. */
struct hv_context {
	uint64_t rip, rsp, rflags;
	struct hv_segment cs, ds, es, fs, gs, ss, tr, ldtr;
	struct hv_table idtr, gdtr;
	uint64_t efer, cr0, cr3, cr4, pat;
};
_Static_assert(sizeof(struct hv_context) == 224, "HV_INITIAL_VP_CONTEXT");

/* HV_MESSAGE with the two payloads that intercepts have. */
#define HV_MESSAGE_MEMORY   0x80000001u /* HvMessageTypeGpaIntercept */
#define HV_MESSAGE_MSR	    0x80010001u
#define HV_MESSAGE_REGISTER 0x80010006u

#define HV_ACCESS_READ	  0u
#define HV_ACCESS_WRITE	  1u
#define HV_ACCESS_EXECUTE 2u

struct hv_message {
	uint32_t type;
	uint8_t payload_bytes;
	uint8_t flags;
	uint16_t reserved;
	uint64_t origin;
	struct {
		uint32_t vp_index;
		uint8_t instruction_bytes : 4;
		uint8_t cr8 : 4;
		uint8_t access;
		uint16_t execution_state;
		struct hv_segment cs;
		uint64_t rip;
		uint64_t rflags;
	} header;
	union {
		struct {
			uint32_t cache_type;
			uint8_t byte_count;
			uint8_t info;
			uint8_t tpr;
			uint8_t reserved;
			uint64_t gva;
			uint64_t gpa;
			uint8_t bytes[16];
		} memory;
		struct {
			uint32_t number;
			uint32_t reserved;
			uint64_t rdx;
			uint64_t rax;
		} msr;
		struct {
			uint8_t flags;
			uint8_t reserved[3];
			uint32_t name;
			uint64_t value[2];
		} reg;
		uint8_t room[240 - 40];
	};
};
_Static_assert(sizeof(struct hv_message) == 256, "HV_MESSAGE");

/* Why VTL1 was entered (HV_VTL_ENTRY_REASON). */
#define VTL_ENTRY_CALL	    1u
#define VTL_ENTRY_INTERRUPT 2u
#define VTL_ENTRY_INTERCEPT 3u

/* The general registers, which both levels share, as vtl_entry.S keeps them. */
struct vtl_registers {
	uint64_t rax, rcx, rdx, rbx, rsi, rdi, rbp;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
};

/* What is VTL1's alone. */
extern uint8_t vtl1_start[], vtl1_end[];

/* VTL1's own struct cpu of each processor: cpu_self() of code that runs in VTL1. */
extern struct cpu vtl1_cpus[CPU_COUNT_MAX];

/* Is the calling code in VTL1? */
static inline bool vtl_is_secure(void)
{
	struct cpu *self = cpu_self();

	return self >= vtl1_cpus && self < vtl1_cpus + CPU_COUNT_MAX;
}

/* Does CPUID offer VSM? */
bool vtl_is_offered(void);

/* A hypercall from whichever level runs, through that level's page. */
uint64_t vtl_hypercall(uint64_t value, const void *input, void *output);

/* Two pages for input and output, of this processor and this level. */
uint64_t *vtl_input(void);
uint64_t *vtl_output(void);

/*
 * One register of this processor: HV_VTL_OWN or HV_VTL(n). Returns the result value of the call; the value
 * has two words, though most registers use one.
 */
uint64_t vtl_register_get(uint8_t vtl, uint32_t name, uint64_t value[2]);
uint64_t vtl_register_set(uint8_t vtl, uint32_t name, uint64_t low, uint64_t high);

/* HvCallEnablePartitionVtl; HvCallEnableVpVtl with the context that vtl_context makes. */
uint64_t vtl_partition_enable(uint32_t vtl);
uint64_t vtl_vp_enable(uint32_t cpu);
void vtl_context(struct hv_context *context, uint32_t cpu);

/* HvCallStartVirtualProcessor: VTL1 as vtl_context has it, or VTL0 as cpu_all_start would leave it. */
uint64_t vtl_start(uint32_t cpu, uint32_t vtl);

/*
 * All of it: the partition, the first processor, from VTL1 all the others, and each one's first entry.
 * Called on the first processor with all others idle. Bails out if any of it fails.
 */
void vtl_bring_up(void);

/*
 * The rest of it, if the caller has enabled the partition's and the first processor's already. `start`,
 * or NULL: starts the other processors, which have a VTL1 then.
 */
void vtl_finish_bring_up(void (*start)(void));

/* From VTL0: runs a function in VTL1 of this processor; returns what it returned. */
uint64_t vtl_run(uint64_t (*function)(uint64_t), uint64_t argument);

/*
 * What vtl_run does before the call, and after it: VTL1 runs the function at the next one on this
 * processor; what that returned.
 */
void vtl_request(uint64_t (*function)(uint64_t), uint64_t argument);
uint64_t vtl_result(void);

/* Of the code for VTL calls, in VTL0's hypercall page. */
uint64_t vtl_call_address(void);

/* The same as vtl_run on another processor; waits. */
uint64_t vtl_run_on(uint32_t cpu, uint64_t (*function)(uint64_t), uint64_t argument);

/* In VTL1: the registers that VTL0 was left with and goes on with. */
struct vtl_registers *vtl_lower(void);

/* A VTL call with these registers, as bare as it gets; RCX is the control input. */
void vtl_call_bare(struct vtl_registers *registers);

/* The same by VMMCALL where it stands: code, RAX as control. */
void vtl_switch_vmmcall(uint64_t value, uint64_t control);

/* Who answers intercepts, in VTL1 of the processor that was stopped; may change what VTL0 goes on with. */
typedef void (*vtl_intercept_t)(struct vtl_registers *lower, const struct hv_message *message);
void vtl_intercept_set(vtl_intercept_t handler);

/* HvCallModifyVtlProtectionMask from VTL1, for `count` pages from an address: the result value. */
uint64_t vtl_protect(const volatile void *address, uint32_t count, uint32_t flags);

/* The reason of the last entry, of this processor or another, and how many there were. */
uint32_t vtl_entry_reason(void);
uint32_t vtl_entry_reason_of(uint32_t cpu);
uint64_t vtl_entries(uint32_t cpu);

#endif
