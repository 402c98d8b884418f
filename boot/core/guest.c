/* Loading the guest. See guest.h. */
#include "arch/x86/log.h"
#include "arch/x86/memory.h"
#include "arch/x86/registers.h"
#include "arch/x86/string.h"
#include "boot/core/guest.h"
#include "boot/load/linux.h"
#include "boot/load/multiboot.h"

#define ATTRIBUTES_CODE64 0xa9b /* present, ring 0, code, 64-bit, granular */
#define ATTRIBUTES_CODE32 0xc9b
#define ATTRIBUTES_DATA	  0xc93

static struct {
	struct linux_image image;
	struct linux_request request;
	struct linux_plan plan;
	struct multiboot_image multiboot_image;
	struct multiboot_request multiboot_request;
	struct multiboot_plan multiboot_plan;
} loading; /* too large for a stack */

/* Guest RAM through the direct map; never Parapet's own. */
static void *guest_pointer(void *context, gpa_t gpa, size_t bytes)
{
	(void)context;
	return memory_is_parapet(gpa.value, bytes) ? NULL : memory_pointer(HPA(gpa.value));
}

static const struct guest_memory guest_memory = {.map = guest_pointer};

static bool refuse(const char *what, enum load_error error)
{
	log_line("E %s: %s", what, load_error_text(error));
	return false;
}

static struct load_source source(const struct handover_range *range)
{
	return (struct load_source){
		.data = range->bytes ? memory_pointer(HPA(range->base)) : NULL,
		.bytes = range->bytes,
		.gpa = GPA(range->base),
	};
}

static struct vp_segment flat(uint16_t selector, uint16_t attributes)
{
	return (struct vp_segment){
		.selector = selector, .attributes = attributes, .limit = 0xffffffff};
}

static void set_data_segments(struct vp_system_state *state, uint16_t selector)
{
	state->ds = state->es = state->ss = state->fs = state->gs = flat(selector, ATTRIBUTES_DATA);
}

static void enter_linux(
	struct platform_vp *vp, const struct platform_ops *ops, const struct linux_entry *entry)
{
	struct vp_system_state state;

	ops->system_read(vp, &state);
	state.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	state.cr3 = entry->cr3.value;
	state.cr4 = CR4_PAE;
	state.efer = EFER_LME | EFER_LMA;
	state.gdtr.base = entry->gdt_base.value;
	state.gdtr.limit = entry->gdt_limit;
	state.cs = flat(entry->cs, ATTRIBUTES_CODE64);
	set_data_segments(&state, entry->ds);
	ops->system_write(vp, &state);
	memset(&vp->registers, 0, sizeof(vp->registers));
	vp->registers.rip = entry->rip;
	vp->registers.rflags = RFLAGS_FIXED;
	vp->registers.gpr[INSN_RSI] = entry->rsi.value;
}

static void enter_multiboot(
	struct platform_vp *vp, const struct platform_ops *ops, const struct multiboot_entry *entry)
{
	struct vp_system_state state;

	ops->system_read(vp, &state);
	state.cr0 = CR0_PE | CR0_ET;
	state.gdtr.base = entry->gdt_base.value;
	state.gdtr.limit = entry->gdt_limit;
	state.cs = flat(entry->cs, ATTRIBUTES_CODE32);
	set_data_segments(&state, entry->ds);
	ops->system_write(vp, &state);
	memset(&vp->registers, 0, sizeof(vp->registers));
	vp->registers.rip = entry->eip;
	vp->registers.rflags = RFLAGS_FIXED;
	vp->registers.gpr[INSN_RAX] = entry->eax;
	vp->registers.gpr[INSN_RBX] = entry->ebx;
}

static bool load_linux(struct partition *partition, const struct handover_info *handover,
	const struct memory_map *map)
{
	struct linux_request *request = &loading.request;
	struct linux_entry entry;
	enum load_error error;

	*request = (struct linux_request){
		.map = map,
		.kernel = source(&handover->kernel),
		.initrd = source(&handover->initrd),
		.command_line = handover->kernel_command_line,
		.acpi_rsdp = GPA(handover->acpi_rsdp),
	};
	request->command_line_bytes = strlen(request->command_line);
	error = linux_inspect_image(request->kernel.data, request->kernel.bytes, &loading.image);
	if (error == LOAD_OK) {
		error = linux_plan_boot(&loading.image, request, &loading.plan);
	}
	if (error == LOAD_OK) {
		error = linux_commit_boot(
			&loading.image, request, &loading.plan, &guest_memory, &entry);
	}
	if (error != LOAD_OK) {
		return refuse("guest kernel", error);
	}
	enter_linux(partition->vp[0]->platform, partition->ops, &entry);
	log_info("I guest: Linux at 0x%lx, initrd of %lu bytes", entry.rip, handover->initrd.bytes);
	return true;
}

static bool load_multiboot(struct partition *partition, const struct handover_info *handover,
	const struct memory_map *map)
{
	struct multiboot_request *request = &loading.multiboot_request;
	struct multiboot_image *image = &loading.multiboot_image;
	struct multiboot_entry entry;
	enum load_error error;

	*request = (struct multiboot_request){
		.map = map,
		.kernel = source(&handover->kernel),
		.command_line = handover->kernel_command_line,
		.command_line_bytes = strlen(handover->kernel_command_line),
	};
	if (handover->initrd.bytes) {
		request->modules[0].source = source(&handover->initrd);
		request->modules[0].command_line = "";
		request->module_count = 1;
	}
	error = multiboot_inspect_image(request->kernel.data, request->kernel.bytes, image);
	if (error == LOAD_OK) {
		error = multiboot_move_sources(image, request, &guest_memory);
	}
	if (error == LOAD_OK) {
		error = multiboot_plan_boot(image, request, &loading.multiboot_plan);
	}
	if (error == LOAD_OK) {
		error = multiboot_commit_boot(
			image, request, &loading.multiboot_plan, &guest_memory, &entry);
	}
	if (error != LOAD_OK) {
		return refuse("guest kernel", error);
	}
	enter_multiboot(partition->vp[0]->platform, partition->ops, &entry);
	log_info("I guest: Multiboot kernel at 0x%x", entry.eip);
	return true;
}

bool guest_load(struct partition *partition, const struct handover_info *handover,
	const struct memory_map *map)
{
	const void *file = memory_pointer(HPA(handover->kernel.base));

	return multiboot_find_header(file, handover->kernel.bytes)
		? load_multiboot(partition, handover, map)
		: load_linux(partition, handover, map);
}
