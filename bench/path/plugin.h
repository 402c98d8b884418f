/*
 * What the plugins share: a plugin sees every block that QEMU translates, and writes a file at the end.
 *
 *	-plugin NAME.so,out=FILE
 *
 * And what they use of QEMU's interface, version 1: QEMU's packages bring no header for it.
 */
#ifndef PARAPET_BENCH_PLUGIN_H
#define PARAPET_BENCH_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;

/* The plugin's: what to do with a block when it is translated, and what to write at the end. */
void plugin_translated(struct qemu_plugin_tb *tb);
void plugin_write(FILE *file);

#define PLUGIN_READ_OR_WRITE 3 /* enum qemu_plugin_mem_rw */
#define PLUGIN_ADD	     0 /* enum qemu_plugin_op */

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
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);

#endif
