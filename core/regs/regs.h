/*
 * Which register of a lower trust level is where: shared between the levels and live in the
 * processor, private and kept by the platform's control block, or owned by the paravisor. A platform
 * declares what its hardware does (struct regs_platform); the table says what follows for each
 * register, and why. Every access of the paravisor to a debug register passes one gate, which says
 * which way it goes and counts it.
 *
 * What may not enter: the accesses themselves (a platform's), any policy, any allocation, and any
 * way of asking the layer below for a register's value: see "the host" at the end.
 */
#ifndef PARAPET_CORE_REGS_H
#define PARAPET_CORE_REGS_H

#include <parapet/block.h>
#include <parapet/types.h>

enum regs_name {
	REGS_DR0,
	REGS_DR1,
	REGS_DR2,
	REGS_DR3,
	REGS_DR6,
	REGS_DR7,
	/* From here on: not debug registers. */
	REGS_GENERAL, /* all but the two below */
	REGS_RAX,
	REGS_RSP,
	REGS_RIP_RFLAGS,
	REGS_CR0_CR3_CR4,
	REGS_CR2,
	REGS_CR8,
	REGS_XCR0,
	REGS_VECTOR, /* x87, SSE, AVX and what XSAVE knows besides */
	REGS_EFER,
	REGS_SEGMENTS, /* ES, CS, SS, DS and CPL */
	REGS_FS_GS_TR_LDTR,
	REGS_GDTR_IDTR,
	REGS_SYSCALL, /* STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE */
	REGS_SYSENTER,
	REGS_PAT,
	REGS_TSC_AUX,
	REGS_TSC,
	REGS_XSS,
	REGS_SPEC_CTRL,
	REGS_DEBUG_CTL,
	REGS_MTRR,
	REGS_APIC_BASE,
	REGS_HYPERV,
	REGS_COUNT,
};

#define REGS_DEBUG_COUNT REGS_GENERAL /* the debug registers come first */

/* Where a lower level's value is while the paravisor runs. */
enum regs_home {
	REGS_LIVE, /* in the processor itself: shared, read and written with instructions */
	REGS_CONTROL_BLOCK, /* in the platform's control block: private, exchanged at entry and exit */
	REGS_PARAVISOR, /* in memory of the paravisor, which exchanges it or answers in its place */
};

/* What differs between platforms. Facts of the hardware, declared once by each platform. */
struct regs_capabilities {
	const char *name;
	bool dr6_in_block; /* SVM and SNP: yes. TDX: levels share it */
	bool general_in_block; /* TDX, SNP: yes. SVM: entry code exchanges all but RAX and RSP */
	bool system_in_block; /* CR2, syscall MSRs: VMSAVE's part or saved with the block */
	bool pat_in_block;
	bool tsc_aux_in_block;
	bool vector_in_block;
	bool xss_in_block;
	bool spec_ctrl_in_block;
	bool debug_ctl_in_block;
};

/*
 * A platform where the host may know the guest's registers, and one where it may not. Two types that
 * do not convert into each other: what takes the one cannot be called with the other.
 */
struct regs_plain_platform {
	struct regs_capabilities capabilities;
};

struct regs_confidential_platform {
	struct regs_capabilities capabilities;
};

/* Parapet is the hypervisor itself there: nobody is below whom it could ask. */
extern const struct regs_plain_platform regs_svm;
extern const struct regs_confidential_platform regs_tdx;
extern const struct regs_confidential_platform regs_snp;

/* A row of the table: for one register on one platform. */
struct regs_entry {
	const char *name;
	enum regs_home home;
	const char *reason;
	const char *specification;
};

/* The row; `name` is below REGS_COUNT. The strings live for ever. */
struct regs_entry regs_look_up(const struct regs_capabilities *platform, enum regs_name name);

/* --- the gate -------------------------------------------------------------------------------------- */

/*
 * One for each VP, used by that VP only. `counter` is block_vp.counter; `entry_is_near` says that the
 * latest exit was one after which nothing may touch a debug register until the next entry: a hardware
 * interrupt, an NMI or kick, CPUID, a hypercall that does not ask for one.
 */
struct regs_gate {
	const struct regs_capabilities *platform;
	uint64_t *counter;
	bool entry_is_near;
};

/* `counter`: COUNTER_ROOM counters that outlive the gate, written by this VP only. */
void regs_gate_init(
	struct regs_gate *gate, const struct regs_capabilities *platform, uint64_t *counter);

/* An exit has come; `quiet` if it is of the kinds named above. Never counts. */
void regs_gate_note_exit(struct regs_gate *gate, bool quiet);

/*
 * The caller is about to read or write debug register `name` of the guest once: counts that, and says
 * where the register is. `name` is below REGS_DEBUG_COUNT.
 */
enum regs_home regs_gate_pass(struct regs_gate *gate, enum regs_name name);

/* --- breakpoints ----------------------------------------------------------------------------------- */

/* What an instruction does that a breakpoint may wait for (AMD64 APM volume 2, 13.1.1.4). */
enum regs_access {
	REGS_EXECUTE,
	REGS_READ,
	REGS_WRITE,
	REGS_PORT, /* the address is an I/O port */
};

/* Does DR7 enable any breakpoint other than on execution? Only then can regs_match find one. */
bool regs_watches(uint64_t dr7);

/*
 * The breakpoints, as bits 0-3 of DR6, that an access to `size` bytes (1 to 8) at `address` hits.
 * `dr`: DR0 to DR3. I/O breakpoints count only if `io_breakpoints` (CR4.DE). A breakpoint covers the
 * naturally aligned bytes of its length (APM volume 2, 13.1.1.4; Intel SDM volume 3, 17.2.5).
 */
uint64_t regs_match(const uint64_t dr[4], uint64_t dr7, bool io_breakpoints,
	enum regs_access access, uint64_t address, uint32_t size);

/* Of `hits` (bits 0-3 of DR6): those that DR7 enables on data, whichever way. */
uint64_t regs_data_hits(uint64_t dr7, uint64_t hits);

/*
 * The host. There is no function here, in struct platform_ops or anywhere in Parapet that asks the
 * layer below for a register of a lower level. An embedder whose own platform is not confidential may
 * bring one; this is its only permitted form, and Parapet's libraries do not define it: a confidential
 * platform cannot be passed to it (the compiler refuses), and an image that calls it with a plain one
 * does not link unless the embedder wrote it. tests/unit/refused holds both attempts.
 */
uint64_t regs_query_host(
	const struct regs_plain_platform *platform, vp_id_t vp, enum regs_name name);

#endif
