/* See plugin.h. */
#include <string.h>

#include "bench/path/plugin.h"

#define EXPORT __attribute__((visibility("default")))

/* What QEMU looks for. */
extern EXPORT int qemu_plugin_version;
EXPORT int qemu_plugin_install(uint64_t id, const void *info, int count, char **arguments);

EXPORT int qemu_plugin_version = 1;

static const char *file_name;

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	plugin_translated(tb);
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
	plugin_write(file);
	if (fclose(file) != 0)
		perror(file_name);
}

int qemu_plugin_install(uint64_t id, const void *info, int count, char **arguments)
{
	(void)info;
	if (count != 1 || strncmp(arguments[0], "out=", 4) != 0) {
		fprintf(stderr, "plugin: say -plugin NAME.so,out=FILE\n");
		return 1;
	}
	file_name = strdup(arguments[0] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, ended, NULL);
	return 0;
}
