/* Compiles, and must not link: nothing in Parapet asks the host for a register. */
#include "core/regs/regs.h"

int main(void)
{
	return (int)regs_query_host(&regs_svm, 0, REGS_DR6);
}
