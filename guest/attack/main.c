/*
 * A module for a stock Linux guest that does what an attacker in the kernel would: it writes to the
 * kernel's code and read-only data, past the protection of the kernel's own page tables, on every
 * processor. It says of each attempt whether it landed, and undoes what did.
 *
 * Ways: "alias", a second, writable mapping of the page; "wp", at its own address with CR0.WP
 * clear; "table", at its own address with the page-table entry changed to writable. And what it can
 * have others do: deputy.c.
 */
#include <linux/jump_label.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/smp.h>
#include <linux/vmalloc.h>
#include <asm/pgtable.h>
#include "attempt.h"
#include "deputy.h"

/* From /proc/kallsyms: modules cannot look names up. */
static ulong text, rodata, syscalls, jumps;

module_param(text, ulong, 0); /* a function that nobody calls */
module_param(rodata, ulong, 0); /* read-only data that nobody reads meanwhile */
module_param(syscalls, ulong, 0); /* the table of system calls */
module_param(jumps, ulong, 0); /* __start___jump_table */

enum store {
	STORE_MOV,
	STORE_XCHG,
	STORE_STRING,
	STORE_XADD,
	STORE_CMPXCHG,
	STORE_VECTOR,
	STORES,
};

static const char *const store_names[] = {"mov", "xchg", "stos", "xadd", "cmpxchg", "movups"};

enum way {
	WAY_ALIAS,
	WAY_WP,
	WAY_TABLE,
	WAYS,
};

static const char *const way_names[] = {"alias", "wp", "table"};

struct attempt {
	const char *what;
	u8 *target; /* as the kernel sees it */
	u8 *at; /* where the write goes */
	enum way way;
	enum store store;
	u8 flip;
	bool faulted;
	bool changed;
};

static unsigned int landed, stopped, odd;

/* True if the write faulted. */
static bool store_byte(u8 *at, u8 value, enum store store)
{
	int faulted = 1;
	u8 *to = at;
	unsigned long count = 1;
	u8 bytes[16], kept[16], added, expected;

	switch (store) {
	case STORE_MOV:
		ATTEMPT(faulted, "movb %1, (%2)", "+q"(value) : "r"(at) : "memory");
		break;
	case STORE_XCHG:
		ATTEMPT(faulted, "xchgb %1, (%2)", "+q"(value) : "r"(at) : "memory");
		break;
	case STORE_STRING:
		ATTEMPT(faulted, "rep stosb", "+D"(to), "+c"(count) : "a"(value) : "memory");
		break;
	case STORE_XADD:
		added = value - READ_ONCE(*at);
		ATTEMPT(faulted, "lock xaddb %1, (%2)", "+q"(added) : "r"(at) : "memory");
		break;
	case STORE_CMPXCHG:
		expected = READ_ONCE(*at);
		ATTEMPT(faulted, "lock cmpxchgb %2, (%3)", "+a"(expected)
			: "q"(value), "r"(at)
			: "memory");
		break;
	default:
		memcpy(bytes, at, sizeof(bytes));
		bytes[0] = value;
		/* The register is put back: whoever's it is does not notice. */
		asm volatile("movups %%xmm0, %1\n\tmovups %3, %%xmm0\n\t"
			     "1: movups %%xmm0, (%2)\n\txorl %0, %0\n"
			     "2: movups %1, %%xmm0\n" _ASM_EXTABLE(1b, 2b)
			     : "+r"(faulted), "=m"(kept)
			     : "r"(at), "m"(bytes)
			     : "memory");
		break;
	}
	return faulted;
}

/* Past the kernel's own guard of that bit. */
static void set_cr0(unsigned long cr0)
{
	asm volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
}

/* On the processor that is to try; interrupts are off. */
static void try_here(void *info)
{
	struct attempt *attempt = info;
	u8 before = READ_ONCE(*attempt->target);
	unsigned long cr0 = read_cr0();

	if (attempt->way == WAY_WP)
		set_cr0(cr0 & ~X86_CR0_WP);
	attempt->faulted = store_byte(attempt->at, before ^ attempt->flip, attempt->store);
	attempt->changed = READ_ONCE(*attempt->target) != before;
	if (attempt->changed)
		store_byte(attempt->at, before, attempt->store);
	if (attempt->way == WAY_WP)
		set_cr0(cr0);
}

static void try_on(unsigned int cpu, struct attempt *attempt)
{
	bool good = attempt->faulted;
	const char *outcome;

	if (smp_call_function_single(cpu, try_here, attempt, 1))
		return;
	good = attempt->faulted != attempt->changed;
	outcome = !good ? "odd" : attempt->changed ? "landed" : "stopped";
	landed += good && attempt->changed;
	stopped += good && !attempt->changed;
	odd += !good;
	pr_info("attack: CPU %u, %s, %s, %s: %s\n", cpu, attempt->what, way_names[attempt->way],
		store_names[attempt->store], outcome);
}

/* Makes the entry that maps the address writable, or as it was; returns what it was. */
static pteval_t change_entry(u8 *target, pteval_t set, pteval_t value)
{
	unsigned int level;
	pte_t *entry = lookup_address((unsigned long)target, &level);
	pteval_t before;

	if (!entry)
		return 0;
	before = pte_val(*entry);
	WRITE_ONCE(*entry, __pte(value ? value : before | set));
	return before;
}

static void flush_here(void *info)
{
	unsigned long cr4 = __read_cr4();

	/* Global pages too, and with no function that modules may not call. */
	asm volatile("mov %0, %%cr4\n\tmov %1, %%cr4"
		     :
		     : "r"(cr4 & ~X86_CR4_PGE), "r"(cr4)
		     : "memory");
}

static void try_everywhere(struct attempt *attempt)
{
	struct page *page = pfn_to_page(__pa_symbol(attempt->target) >> PAGE_SHIFT);
	pteval_t entry = 0;
	void *alias = NULL;
	unsigned int cpu;

	attempt->at = attempt->target;
	if (attempt->way == WAY_ALIAS) {
		alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
		if (!alias)
			return;
		attempt->at = (u8 *)alias + offset_in_page(attempt->target);
	} else if (attempt->way == WAY_TABLE) {
		entry = change_entry(attempt->target, _PAGE_RW | _PAGE_DIRTY, 0);
		on_each_cpu(flush_here, NULL, 1);
	}
	for (cpu = 0; cpu < nr_cpu_ids; cpu++) {
		if (cpu_online(cpu))
			try_on(cpu, attempt);
	}
	if (attempt->way == WAY_TABLE) {
		change_entry(attempt->target, 0, entry);
		on_each_cpu(flush_here, NULL, 1);
	}
	if (alias)
		vunmap(alias);
}

/* A NOP of five bytes whose last one may be anything: no encoding of the key's, and harmless. */
static u8 *find_key_site(void)
{
	static const u8 nop[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
	struct jump_entry *entry = (struct jump_entry *)jumps;
	unsigned int i;

	for (i = 0; i < 4096; i++) {
		u8 *code = (u8 *)jump_entry_code(&entry[i]);

		if (!jump_entry_is_init(&entry[i]) && !memcmp(code, nop, sizeof(nop)) &&
			offset_in_page(code) < PAGE_SIZE - 16)
			return code + 4;
	}
	return NULL;
}

static int __init attack_init(void)
{
	const struct {
		const char *what;
		u8 *target;
		u8 flip;
	} targets[] = {
		{"code", (u8 *)text, 0x10},
		{"read-only data", (u8 *)rodata, 0x20},
		{"system calls", (u8 *)syscalls + 8 * 400, 0x01},
		{"static key", find_key_site(), 0x01},
	};
	unsigned int t, way, store;

	for (t = 0; t < ARRAY_SIZE(targets); t++) {
		for (way = 0; way < WAYS; way++) {
			for (store = 0; store < STORES; store++) {
				struct attempt attempt = {
					.what = targets[t].what,
					.target = targets[t].target,
					.way = way,
					.store = store,
					.flip = targets[t].flip,
				};

				if (targets[t].target)
					try_everywhere(&attempt);
			}
		}
	}
	pr_info("attack: %u landed, %u stopped, %u odd\n", landed, stopped, odd);
	deputy_attack((u8 *)text, (u8 *)rodata, (u8 *)jumps);
	return 0;
}

static void __exit attack_exit(void)
{
}

module_init(attack_init);
module_exit(attack_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Writes to sealed kernel memory, to be stopped");
