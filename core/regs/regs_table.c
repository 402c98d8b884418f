/* The table of registers: home, reason and specification, by platform. See regs.h. No accesses. */
#include "core/regs/regs.h"

const struct regs_plain_platform regs_svm = {
	.capabilities = {.name = "svm",
		.dr6_in_block = true,
		.general_in_block = false,
		.system_in_block = true,
		.pat_in_block = true},
};

const struct regs_confidential_platform regs_tdx = {
	.capabilities = {.name = "tdx",
		.dr6_in_block = false,
		.general_in_block = true,
		.system_in_block = false,
		.pat_in_block = true,
		.debug_ctl_in_block = true},
};

const struct regs_confidential_platform regs_snp = {
	.capabilities = {.name = "snp",
		.dr6_in_block = true,
		.general_in_block = true,
		.system_in_block = true,
		.pat_in_block = true,
		.tsc_aux_in_block = true,
		.vector_in_block = true,
		.xss_in_block = true,
		.spec_ctrl_in_block = true,
		.debug_ctl_in_block = true},
};

/* Which capability decides; the two at the top are decided for all platforms. */
enum rule {
	ALWAYS_LIVE,
	ALWAYS_BLOCK,
	ALWAYS_PARAVISOR,
	BLOCK_IF_DR6,
	BLOCK_IF_GENERAL, /* else the paravisor's entry code exchanges them */
	BLOCK_IF_SYSTEM,
	BLOCK_IF_PAT,
	BLOCK_IF_TSC_AUX,
	BLOCK_IF_VECTOR,
	BLOCK_IF_XSS,
	BLOCK_IF_SPEC_CTRL,
	BLOCK_IF_DEBUG_CTL, /* else the paravisor answers: there are no last-branch records */
};

static const struct {
	const char *name;
	enum rule rule;
	const char *reason;
	const char *specification;
} table[REGS_COUNT] = {
	[REGS_DR0] = {"DR0", ALWAYS_LIVE, "no entry or exit touches the address registers",
		"APM volume 2, 15.5.1; TDX module ABI, L2 state"},
	[REGS_DR1] = {"DR1", ALWAYS_LIVE, "as DR0", "as DR0"},
	[REGS_DR2] = {"DR2", ALWAYS_LIVE, "as DR0", "as DR0"},
	[REGS_DR3] = {"DR3", ALWAYS_LIVE, "as DR0", "as DR0"},
	[REGS_DR6] = {"DR6", BLOCK_IF_DR6,
		"SVM exchanges it at entry and exit; on TDX the levels share it",
		"APM volume 2, 15.5.1 and table B-2; TDX module ABI, L2 state"},
	[REGS_DR7] = {"DR7", ALWAYS_BLOCK, "exchanged, so that no breakpoint fires in VTL2",
		"APM volume 2, 15.6; Intel SDM volume 3, 28.5.1"},
	[REGS_GENERAL] = {"RBX-RDI, R8-R15", BLOCK_IF_GENERAL,
		"VMRUN leaves them to software; TDX and SNP save them",
		"APM volume 2, 15.5.1 and 15.35; TDX module ABI, TDG.VP.ENTER"},
	[REGS_RAX] = {"RAX", ALWAYS_BLOCK, "VMRUN needs it for itself", "APM volume 2, table B-2"},
	[REGS_RSP] = {"RSP", ALWAYS_BLOCK, "the levels have stacks of their own",
		"APM volume 2, table B-2"},
	[REGS_RIP_RFLAGS] = {"RIP, RFLAGS", ALWAYS_BLOCK, "an entry is a jump",
		"APM volume 2, table B-2"},
	[REGS_CR0_CR3_CR4] = {"CR0, CR3, CR4", ALWAYS_BLOCK, "the levels' own address spaces",
		"APM volume 2, table B-2"},
	[REGS_CR2] = {"CR2", BLOCK_IF_SYSTEM,
		"SVM exchanges it; elsewhere a page fault in VTL2 would change it, and there is "
		"none",
		"APM volume 2, table B-2"},
	[REGS_CR8] = {"CR8", ALWAYS_LIVE,
		"VTL0 drives the processor's interrupt controller; VTL1's is in the control block",
		"APM volume 2, 15.21.1 (V_INTR_MASKING clear for VTL0)"},
	[REGS_XCR0] = {"XCR0", ALWAYS_LIVE, "VTL2 uses no extended state", "APM volume 2, 15.5.1"},
	[REGS_VECTOR] = {"x87, SSE, AVX", BLOCK_IF_VECTOR,
		"VTL2 is built without vector registers; SNP saves them all the same",
		"APM volume 2, 15.5.1 and table B-4"},
	[REGS_EFER] = {"EFER", ALWAYS_BLOCK, "SVME must be set and not be seen",
		"APM volume 2, 15.5.1"},
	[REGS_SEGMENTS] = {"ES, CS, SS, DS", ALWAYS_BLOCK, "the levels' own descriptor tables",
		"APM volume 2, table B-2"},
	[REGS_FS_GS_TR_LDTR] = {"FS, GS, TR, LDTR", ALWAYS_BLOCK,
		"VMLOAD and VMSAVE exchange them on SVM, the entry elsewhere",
		"APM volume 2, 15.5.2"},
	[REGS_GDTR_IDTR] = {"GDTR, IDTR", ALWAYS_BLOCK, "the levels' own descriptor tables",
		"APM volume 2, table B-2"},
	[REGS_SYSCALL] = {"STAR to KERNEL_GS_BASE", BLOCK_IF_SYSTEM,
		"VTL2 makes no system calls, so that they may stay where TDX leaves them",
		"APM volume 2, 15.5.2; TDX module ABI, L2 state"},
	[REGS_SYSENTER] = {"SYSENTER_CS, ESP, EIP", ALWAYS_BLOCK, "VMLOAD's part, or the entry's",
		"APM volume 2, 15.5.2"},
	[REGS_PAT] = {"PAT", BLOCK_IF_PAT, "under nested paging the guest has its own",
		"APM volume 2, 15.25.8"},
	[REGS_TSC_AUX] = {"TSC_AUX", BLOCK_IF_TSC_AUX,
		"VTL2 does not use it; exchanged where VTL0 and VTL1 take turns",
		"APM volume 2, table B-4"},
	[REGS_TSC] = {"TSC", ALWAYS_LIVE, "one counter, plus the offset of the control block",
		"APM volume 2, 15.30.5"},
	[REGS_XSS] = {"XSS", BLOCK_IF_XSS, "VTL2 uses no extended state",
		"APM volume 2, table B-4"},
	[REGS_SPEC_CTRL] = {"SPEC_CTRL", BLOCK_IF_SPEC_CTRL,
		"VTL2 runs with whatever speculation controls the guest has chosen",
		"APM volume 2, 3.2.9"},
	[REGS_DEBUG_CTL] = {"DEBUGCTL", BLOCK_IF_DEBUG_CTL,
		"no last-branch records are offered: reads as 0, and writes are dropped",
		"APM volume 2, 13.1.1.6"},
	[REGS_MTRR] = {"MTRRs", ALWAYS_PARAVISOR,
		"without effect under nested paging: each VP keeps what it writes",
		"APM volume 2, 15.25.9"},
	[REGS_APIC_BASE] = {"APIC_BASE", ALWAYS_PARAVISOR,
		"VTL2 needs the interrupt controller where it is, switched on",
		"APM volume 2, 16.3.1"},
	[REGS_HYPERV] = {"Hyper-V MSRs", ALWAYS_PARAVISOR, "they are the paravisor's own interface",
		"TLFS, synthetic MSRs"},
};

struct regs_entry regs_look_up(const struct regs_capabilities *platform, enum regs_name name)
{
	struct regs_entry entry = {
		.name = table[name].name,
		.home = REGS_LIVE,
		.reason = table[name].reason,
		.specification = table[name].specification,
	};
	bool in_block = false;

	switch (table[name].rule) {
	case ALWAYS_LIVE:
		break;
	case ALWAYS_BLOCK:
		in_block = true;
		break;
	case ALWAYS_PARAVISOR:
		entry.home = REGS_PARAVISOR;
		break;
	case BLOCK_IF_DR6:
		in_block = platform->dr6_in_block;
		break;
	case BLOCK_IF_GENERAL:
		entry.home = REGS_PARAVISOR;
		in_block = platform->general_in_block;
		break;
	case BLOCK_IF_SYSTEM:
		in_block = platform->system_in_block;
		break;
	case BLOCK_IF_PAT:
		in_block = platform->pat_in_block;
		break;
	case BLOCK_IF_TSC_AUX:
		in_block = platform->tsc_aux_in_block;
		break;
	case BLOCK_IF_VECTOR:
		in_block = platform->vector_in_block;
		break;
	case BLOCK_IF_XSS:
		in_block = platform->xss_in_block;
		break;
	case BLOCK_IF_SPEC_CTRL:
		in_block = platform->spec_ctrl_in_block;
		break;
	case BLOCK_IF_DEBUG_CTL:
		entry.home = REGS_PARAVISOR;
		in_block = platform->debug_ctl_in_block;
		break;
	}
	if (in_block) {
		entry.home = REGS_CONTROL_BLOCK;
	}
	return entry;
}
