/* Faults on purpose: what a test asks for to see that a fault of Parapet's own is caught and reported. */
#include "arch/x86/fault.h"

static volatile uint32_t data = 0xc3c3c3c3; /* RET, should it ever be executed */

/* Found in the backtrace by their names, so never part of their callers. */
#define BY_NAME __attribute__((noinline))

BY_NAME void fault_test_page(void)
{
	volatile uint32_t *volatile nowhere = (volatile uint32_t *)0x10;

	(void)*nowhere; /* the first page is mapped nowhere */
}

BY_NAME void fault_test_text(void)
{
	volatile uint8_t *volatile text = (volatile uint8_t *)(uintptr_t)fault_test_text;

	*text = 0xc3;
}

void fault_test_data(void)
{
	void (*volatile function)(void) = (void (*)(void))(uintptr_t)&data;

	function();
}

BY_NAME static uint32_t recurse(volatile uint32_t *above)
{
	volatile uint32_t here[64];

	here[0] = *above + 1;
	return data ? recurse(here) + here[0] : 0; /* data is never 0, but who knows that */
}

void fault_test_stack(void)
{
	volatile uint32_t first = 0;

	data = recurse(&first);
}
