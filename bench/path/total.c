/*
 * A plugin of QEMU's: how many instructions the machine executes from power-on to its end, whoever's
 * they are. At the end the number, in FILE. One processor.
 *
 *	-plugin total.so,out=FILE
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/path/plugin.h"

EXPORT int qemu_plugin_version = 1;

static uint64_t instructions;
static const char *file_name;

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	qemu_plugin_register_vcpu_tb_exec_inline(
		tb, PLUGIN_ADD, &instructions, qemu_plugin_tb_n_insns(tb));
}

static void ended(uint64_t id, void *data)
{
	FILE *file = fopen(file_name, "w");

	(void)id;
	(void)data;
	if (!file) {
		perror(file_name);
		return;
	}
	fprintf(file, "%" PRIu64 "\n", instructions);
	fclose(file);
}

int qemu_plugin_install(uint64_t id, const void *info, int count, char **arguments)
{
	(void)info;
	if (count != 1 || strncmp(arguments[0], "out=", 4) != 0) {
		fprintf(stderr, "total.so: out=FILE is missing\n");
		return 1;
	}
	file_name = strdup(arguments[0] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, ended, NULL);
	return 0;
}
