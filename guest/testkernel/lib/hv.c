#include "hv.h"

#include "cpu.h"
#include "machine.h"
#include "tap.h"

#define CR0_MP	   (1ull << 1)
#define CR0_EM	   (1ull << 2)
#define CR0_TS	   (1ull << 3)
#define CR4_OSFXSR (1ull << 9)

_Alignas(4096) uint8_t hv_page[4096];

static uint32_t indexes[CPU_COUNT_MAX];

uint64_t hv_call_32_enter(const uint64_t words[3]);
uint64_t hv_call_fast_enter(uint64_t value, const uint64_t *words);

void hv_start(void)
{
	msr_write(HV_MSR_GUEST_OS_ID, HV_GUEST_OS_ID);
	msr_write(HV_MSR_HYPERCALL, (uint64_t)hv_page | HV_ENABLE);
}

uint64_t hv_call_in(const void *page, uint64_t value, uint64_t input, uint64_t output)
{
	register uint64_t r8 __asm__("r8") = output;
	uint64_t result;

	/* The red zone is not used here: a call from assembly is safe. */
	__asm__ volatile("call *%5"
			 : "=a"(result), "+c"(value), "+d"(input), "+r"(r8)
			 : "a"(0x5a5a5a5a5a5a5a5aull), "r"(page)
			 : "memory", "r9", "r10", "r11", "cc");
	return result;
}

uint64_t hv_call(uint64_t value, uint64_t input)
{
	return hv_call_in(hv_page, value, input, 0);
}

uint64_t hv_call_bare(uint64_t value, uint64_t input)
{
	uint64_t result;

	__asm__ volatile("vmmcall"
			 : "=a"(result), "+c"(value), "+d"(input)
			 : "a"(0x5a5a5a5a5a5a5a5aull)
			 : "memory", "r8", "r9", "r10", "r11", "cc");
	return result;
}

uint64_t hv_call_fast(uint64_t value, const uint64_t words[HV_FAST_WORDS])
{
	/* XMM registers need switching on; the kernel itself uses none. */
	cr0_write((cr0_read() & ~(CR0_EM | CR0_TS)) | CR0_MP);
	cr4_write(cr4_read() | CR4_OSFXSR);
	return hv_call_fast_enter(value, words);
}

uint64_t hv_call_32(uint64_t value, uint64_t input, uint64_t second)
{
	uint64_t words[3] = {value, input, second};
	uint64_t flags = flags_read();
	uint64_t result;

	interrupts_disable();
	result = hv_call_32_enter(words);
	if (flags & FLAG_IF)
		interrupts_enable();
	return result;
}

uint32_t hv_index(void)
{
	return (uint32_t)msr_read(HV_MSR_VP_INDEX);
}

static void index_run(void *argument)
{
	(void)argument;
	indexes[cpu_self()->number] = hv_index();
}

void hv_indexes_read(void)
{
	index_run(NULL);
	for (uint32_t i = 1; i < cpu_count(); i++)
		cpu_call(&cpus[i], index_run, NULL);
}

void hv_indexes_find(void)
{
	static _Alignas(4096) uint64_t input[HV_INPUT_WORDS], output[HV_INPUT_WORDS];

	for (uint32_t i = 0; i < cpu_count(); i++) {
		input[0] = ~0ull;
		input[1] = 0;
		input[2] = cpus[i].apic_id;
		if (hv_call_in(hv_page, HV_GET_VP_INDEX | HV_REPS(1), (uint64_t)input,
			    (uint64_t)output) != HV_RESULT(HV_SUCCESS, 1))
			tap_bail("no VP index for APIC id %u", cpus[i].apic_id);
		indexes[i] = (uint32_t)output[0];
	}
}

uint32_t hv_index_of(uint32_t cpu)
{
	return indexes[cpu];
}

uint32_t hv_set_write(uint64_t *words, uint64_t cpus)
{
	uint64_t banks[HV_BANKS_MAX] = {0}, mask = 0;
	uint32_t count = 0;

	for (uint32_t i = 0; i < cpu_count(); i++)
		if (cpus >> i & 1) {
			banks[indexes[i] / 64] |= 1ull << indexes[i] % 64;
			mask |= 1ull << indexes[i] / 64;
		}
	words[0] = HV_SET_SPARSE;
	words[1] = mask;
	for (uint32_t i = 0; i < HV_BANKS_MAX; i++)
		if (mask >> i & 1)
			words[2 + count++] = banks[i];
	return count;
}

bool hv_mask_get(uint64_t cpus, uint64_t *mask)
{
	*mask = 0;
	for (uint32_t i = 0; i < cpu_count(); i++)
		if (cpus >> i & 1) {
			if (indexes[i] >= 64)
				return false;
			*mask |= 1ull << indexes[i];
		}
	return true;
}
