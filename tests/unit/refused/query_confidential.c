/* Must not compile: asking the host for a register of a confidential machine. */
#include "core/regs/regs.h"

int main(void)
{
	return (int)regs_query_host(&regs_tdx, 0, REGS_DR6);
}
