# The command `parapet`: starts the machine, talks to Parapet while it runs, and tells how it went.

# Free of processes, files and terminals: these are unit-tested on their own.
TOOL_PORTABLE_SRCS := tools/tool_error.c tools/tool_text.c tools/line_buffer.c tools/run_options.c \
	tools/guest_check.c tools/qemu_args.c tools/channel_line.c tools/block_read.c \
	tools/stats_json.c tools/trace_export.c tools/verdict.c tools/summary.c
PORTABLE_SRCS += $(TOOL_PORTABLE_SRCS)

# core/trace is here for the names of the trace events and the reader of the rings.
TOOL_SRCS := $(TOOL_PORTABLE_SRCS) tools/main.c tools/help.c tools/message.c tools/run.c \
	tools/run_loop.c tools/run_machine.c tools/stage.c tools/qemu.c tools/qmp.c \
	tools/channel.c tools/console.c tools/output_file.c tools/image_file.c tools/host.c tools/doctor.c core/trace/trace.c
TOOL_OBJS := $(TOOL_SRCS:%.c=$(B)/host/%.o)

$(B)/host/%.o: %.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(HOST_CFLAGS) -c $< -o $@

$(B)/parapet: $(TOOL_OBJS) $(RULES)
	$(call say,LD,$@)
	$(Q)$(CC) $(HOST_CFLAGS) $(TOOL_OBJS) -ljansson -lm -o $@

all: $(B)/parapet

UNIT_LIBS_tools_stats := -ljansson -lm

# Scripts that start the command against a stand-in for QEMU; each prints TAP.
$(B)/tests/fake-qemu: tests/tools/fake_qemu.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(HOST_CFLAGS) $(PROGRAM_DEPS) $< -o $@

# Plays Parapet's part in a real QEMU.
$(B)/tests/probe.elf: tests/tools/probe.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) -std=gnu11 -O1 -Wall -Wextra -Werror -m32 -march=i686 -ffreestanding -fno-pic -no-pie \
		-fno-stack-protector -fcf-protection=none -nostdlib -static -Iinclude \
		-Wl,-Ttext=0x100000,--section-start=.multiboot=0xff000,--build-id=none,-z,noexecstack \
		-Wl,--no-warn-rwx-segments,-z,max-page-size=4096 -MMD -MP $(PROGRAM_DEPS) $< -o $@

.PHONY: tool-tests check-tools
tool-tests: $(B)/parapet $(B)/tests/fake-qemu $(B)/tests/probe.elf
check-programs: tool-tests
check-tools: tool-tests
	$(Q)B='$(B)' tests/run tools

-include $(TOOL_OBJS:.o=.d) \
	$(B)/tests/fake-qemu.d $(B)/tests/probe.elf.d
