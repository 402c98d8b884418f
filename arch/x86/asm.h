/*
 * The instructions that C has no words for. Inline assembly of one instruction each lives here and
 * nowhere else; sequences live in .S files.
 */
#ifndef PARAPET_ARCH_X86_ASM_H
#define PARAPET_ARCH_X86_ASM_H

#include <parapet/types.h>

static inline uint8_t asm_in8(uint16_t port)
{
	uint8_t value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint16_t asm_in16(uint16_t port)
{
	uint16_t value;
	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint32_t asm_in32(uint16_t port)
{
	uint32_t value;
	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void asm_out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static inline void asm_out16(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port));
}

static inline void asm_out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port));
}

static inline uint64_t asm_rdmsr(uint32_t msr)
{
	uint32_t low, high;
	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void asm_wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
			 : "memory");
}

struct cpuid_result {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid_result asm_cpuid(uint32_t leaf, uint32_t subleaf)
{
	struct cpuid_result r;
	__asm__ volatile("cpuid"
			 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
			 : "a"(leaf), "c"(subleaf));
	return r;
}

static inline uint64_t asm_rdtsc(void)
{
	uint32_t low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
	return (uint64_t)high << 32 | low;
}

#define ASM_CONTROL_REGISTER(n)                                                                    \
	static inline uint64_t asm_read_cr##n(void)                                                \
	{                                                                                          \
		uint64_t value;                                                                    \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(value)::"memory");                    \
		return value;                                                                      \
	}                                                                                          \
	static inline void asm_write_cr##n(uint64_t value)                                         \
	{                                                                                          \
		__asm__ volatile("mov %0, %%cr" #n ::"r"(value) : "memory");                       \
	}

ASM_CONTROL_REGISTER(0)
ASM_CONTROL_REGISTER(2)
ASM_CONTROL_REGISTER(3)
ASM_CONTROL_REGISTER(4)
ASM_CONTROL_REGISTER(8) /* upper half of the APIC's task priority; a write clears the lower */
#undef ASM_CONTROL_REGISTER

#define ASM_DEBUG_REGISTER(n)                                                                      \
	static inline uint64_t asm_read_dr##n(void)                                                \
	{                                                                                          \
		uint64_t value;                                                                    \
		__asm__ volatile("mov %%db" #n ", %0" : "=r"(value)::"memory");                    \
		return value;                                                                      \
	}                                                                                          \
	static inline void asm_write_dr##n(uint64_t value)                                         \
	{                                                                                          \
		__asm__ volatile("mov %0, %%db" #n ::"r"(value) : "memory");                       \
	}

ASM_DEBUG_REGISTER(0)
ASM_DEBUG_REGISTER(1)
ASM_DEBUG_REGISTER(2)
ASM_DEBUG_REGISTER(3)
#undef ASM_DEBUG_REGISTER

static inline void asm_pause(void)
{
	__asm__ volatile("pause" ::: "memory");
}

static inline void asm_wbinvd(void)
{
	__asm__ volatile("wbinvd" ::: "memory");
}

/* Never returns: interrupts are off in Parapet, and an NMI comes back to the loop. */
static inline void __attribute__((noreturn)) asm_halt_forever(void)
{
	for (;;) {
		__asm__ volatile("cli; hlt" ::: "memory");
	}
}

static inline void asm_clgi(void)
{
	__asm__ volatile("clgi" ::: "memory");
}

static inline void asm_cli(void)
{
	__asm__ volatile("cli" ::: "memory");
}

static inline void asm_sti(void)
{
	__asm__ volatile("sti" ::: "memory");
}

static inline void asm_stgi(void)
{
	__asm__ volatile("stgi" ::: "memory");
}

struct __attribute__((packed)) descriptor_pointer {
	uint16_t limit;
	uint64_t base;
};

static inline void asm_lgdt(const struct descriptor_pointer *pointer)
{
	__asm__ volatile("lgdt %0" ::"m"(*pointer) : "memory");
}

static inline void asm_lidt(const struct descriptor_pointer *pointer)
{
	__asm__ volatile("lidt %0" ::"m"(*pointer) : "memory");
}

static inline void asm_ltr(uint16_t selector)
{
	__asm__ volatile("ltr %0" ::"r"(selector) : "memory");
}

/* Device registers: exactly one access of exactly this width. */
static inline uint32_t mmio_read32(uint64_t address)
{
	return *(volatile uint32_t *)address;
}

static inline void mmio_write32(uint64_t address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
}

#endif
