#include "real.h"

#include "boot.h"
#include "cpu.h"
#include "machine.h"
#include "print.h"
#include "trap.h"

#define VECTOR 0x60

extern const char real_start[], real_handler[], real_undefined[], real_data[], real_end[];
void real_enter(uint64_t page);

/* At real_data in the copy. */
struct real_data {
	uint32_t wanted;
	struct real_result result;
};

bool real_mode_visit(uint32_t interrupts, struct real_result *result)
{
	volatile uint32_t *entry = (volatile uint32_t *)(VECTOR * 4ull);
	uint64_t page = boot_low_page_take();
	volatile uint32_t *undefined = (volatile uint32_t *)(TRAP_UD * 4ull);
	uint32_t before = *entry, undefined_before = *undefined;
	struct real_data *data;

	if (!page)
		return false;
	memcpy((void *)page, real_start, (size_t)(real_end - real_start));
	data = (struct real_data *)(page + (uint64_t)(real_data - real_start));
	data->wanted = interrupts;
	*entry = (uint32_t)(page + (uint64_t)(real_handler - real_start));
	*undefined = (uint32_t)(page + (uint64_t)(real_undefined - real_start));
	real_enter(page);
	msr_write(MSR_GS_BASE, (uint64_t)&cpus[0]);
	*entry = before;
	*undefined = undefined_before;
	*result = data->result;
	return true;
}
