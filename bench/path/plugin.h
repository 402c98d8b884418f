/*
 * What the plugins use of QEMU's interface for plugins, version 1. QEMU's packages bring no header for it.
 */
#ifndef PARAPET_BENCH_PLUGIN_H
#define PARAPET_BENCH_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

#define PLUGIN_READ_OR_WRITE 3 /* enum qemu_plugin_mem_rw */
#define PLUGIN_ADD	     0 /* enum qemu_plugin_op */

struct qemu_plugin_tb;
struct qemu_plugin_insn;

/* The plugin's own: which version it speaks, and where it begins. */
extern EXPORT int qemu_plugin_version;
EXPORT int qemu_plugin_install(uint64_t id, const void *info, int count, char **arguments);

void qemu_plugin_register_vcpu_tb_trans_cb(
	uint64_t id, void (*call)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
	void (*call)(unsigned int vcpu, void *data), int flags, void *data);
void qemu_plugin_register_vcpu_tb_exec_inline(
	struct qemu_plugin_tb *tb, int operation, void *target, uint64_t operand);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
	void (*call)(unsigned int vcpu, void *data), int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
	void (*call)(unsigned int vcpu, uint32_t info, uint64_t address, void *data), int flags,
	int access, void *data);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*call)(uint64_t id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);

#endif
