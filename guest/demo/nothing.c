/* The smallest program to fork and execute: the fork workload measures the kernel, not this. */
int main(void)
{
	return 0;
}
