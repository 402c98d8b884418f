/*
 * A plugin of QEMU's: how many instructions the machine executes from power-on to its end, whoever's
 * they are. One processor.
 */
#include <inttypes.h>

#include "bench/path/plugin.h"

static uint64_t instructions;

void plugin_translated(struct qemu_plugin_tb *tb)
{
	qemu_plugin_register_vcpu_tb_exec_inline(
		tb, PLUGIN_ADD, &instructions, qemu_plugin_tb_n_insns(tb));
}

void plugin_write(FILE *file)
{
	fprintf(file, "%" PRIu64 "\n", instructions);
}
