/* Descriptor tables, stacks and control registers of each processor. */
#include "arch/x86/asm.h"
#include "arch/x86/cpu.h"
#include "arch/x86/interrupt.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"

#define GDT_CODE 0x00af9b000000ffffull /* 64-bit, ring 0 */
#define GDT_DATA 0x00cf93000000ffffull
#define GDT_TSS	 0x0000890000000000ull /* available 64-bit TSS */

/* Of each APIC id; ap_start.S finds a processor's own here. */
struct cpu *cpu_of_apic[256];

static struct cpu *cpus[VP_COUNT_MAX];
static uint32_t count;

bool cpu_is_tcg(void)
{
	struct cpuid_result hypervisor = asm_cpuid(0x40000000, 0);

	/* CPUID says "TCGTCGTCGTCG". */
	return (asm_cpuid(1, 0).ecx & (1u << 31)) && hypervisor.ebx == 0x54474354 &&
		hypervisor.ecx == 0x43544743 && hypervisor.edx == 0x47435447;
}

struct cpu *cpu_by_id(uint32_t id)
{
	return id < count ? cpus[id] : NULL;
}

struct cpu *cpu_by_apic_id(uint32_t apic_id)
{
	return apic_id < ARRAY_SIZE(cpu_of_apic) ? cpu_of_apic[apic_id] : NULL;
}

uint32_t cpu_count(void)
{
	return count;
}

struct cpu *cpu_create(uint32_t id, uint32_t apic_id)
{
	/* On top of its stack: what runs at every exit finds both in one page. */
	struct cpu *cpu = (struct cpu *)memory_take_stack(STACK_BYTES) - 1;
	uint64_t tss = (uint64_t)&cpu->tss;

	cpu->self = cpu;
	cpu->id = id;
	cpu->apic_id = apic_id;
	cpu->stack_top = cpu;
	cpu->tss.io_map = sizeof(struct tss);
	for (int i = IST_NMI; i < IST_COUNT; i++) {
		cpu->tss.ist[i - 1] = (uint64_t)memory_take_stack(FAULT_STACK_BYTES);
	}
	cpu->gdt[SELECTOR_CODE / 8] = GDT_CODE;
	cpu->gdt[SELECTOR_DATA / 8] = GDT_DATA;
	cpu->gdt[SELECTOR_TSS / 8] = GDT_TSS | (sizeof(struct tss) - 1) | (tss & 0xffffff) << 16 |
		(tss >> 24 & 0xff) << 56;
	cpu->gdt[SELECTOR_TSS / 8 + 1] = tss >> 32;
	cpus[id] = cpu;
	cpu_of_apic[apic_id] = cpu;
	count = id + 1;
	return cpu;
}

/*
 * MCE: a #MC is not a shutdown. OSFXSR: hypercalls may bring their input in XMM registers, which are
 * only read. The rest guards nothing here, where no page is a user's or global; but it is what guests
 * run with, and QEMU's processor flushes its TLB once more at every entry and exit that changes it.
 */
static uint64_t wanted_cr4(void)
{
	uint32_t features = asm_cpuid(7, 0).ebx;

	return CR4_PAE | CR4_MCE | CR4_OSFXSR | CR4_PSE | CR4_PGE |
		(features & (1u << 7) ? CR4_SMEP : 0) | (features & (1u << 20) ? CR4_SMAP : 0);
}

void cpu_activate(struct cpu *cpu)
{
	struct descriptor_pointer gdt = {
		.limit = sizeof(cpu->gdt) - 1,
		.base = (uint64_t)cpu->gdt,
	};

	asm_lgdt(&gdt);
	cpu_load_segments();
	cpu->gdt[SELECTOR_TSS / 8] &= ~(2ull << 40); /* not busy: LTR marks it so */
	asm_ltr(SELECTOR_TSS);
	interrupt_load_idt();
	asm_wrmsr(MSR_GS_BASE, (uint64_t)cpu);
	asm_write_cr0(CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG);
	asm_write_cr4(asm_read_cr4() | wanted_cr4());
}
