# Parapet. `make run` and `make check` are all that a new user needs; `make help` lists the rest.
# Every room has a module.mk of its own; this file holds what they share.

B      := build
CC     := gcc
VERSION := 0.1.0

# Freestanding: the paravisor itself. No vector registers: they hold the guest's state.
MACHINE_CFLAGS := -std=c11 -O2 -g -Wall -Wextra -Werror -Wmissing-prototypes -Wvla \
	-ffreestanding -fno-pic -no-pie -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fno-omit-frame-pointer -fno-strict-aliasing -fno-common -mno-red-zone -mgeneral-regs-only -mpopcnt \
	-ffunction-sections -fdata-sections -mcmodel=kernel -fcf-protection=none \
	-Iinclude -I. -MMD -MP -DPARAPET_VERSION='"$(VERSION)"'

# Hosted: tools.
HOST_CFLAGS := -std=c11 -O2 -g -Wall -Wextra -Werror -Wmissing-prototypes -D_GNU_SOURCE \
	-Iinclude -I. -MMD -MP -DPARAPET_VERSION='"$(VERSION)"'

# Hosted and watched: the same sources under the sanitizers, for the unit tests.
UNIT_CFLAGS := -std=c11 -O1 -g -Wall -Wextra -Werror -D_GNU_SOURCE -fsanitize=address,undefined \
	-fno-sanitize-recover=all -fno-omit-frame-pointer -Iinclude -I. -MMD -MP -pthread

# A program compiled and linked in one go: its dependency file is PROGRAM.d.
PROGRAM_DEPS = -MF $@.d -MT $@

# One short line for each step; V=1 shows the commands instead, -s nothing.
#	$(call say,CC,$<)
#	$(Q)$(CC) ...
ifeq ($(V),1)
Q   :=
say  = @:
else ifneq ($(findstring s,$(firstword -$(MAKEFLAGS))),)
Q   := @
say  = @:
else
Q   := @
say  = @printf '  %-7s %s\n' '$(1)' '$(2)'
endif

.DELETE_ON_ERROR:
.SECONDARY:

.PHONY: all
all: ## build everything that `make run` needs

# What compiles for the host as well as for the machine. A room adds its files in module.mk.
PORTABLE_SRCS := $(wildcard core/*/*.c)

# The rules themselves and the list of all files: what is built from a list depends on these, so
# that a changed flag, a new file or one that is gone never leaves anything stale.
RULES := Makefile $(sort $(wildcard */module.mk */*/module.mk */*/*/module.mk))
LISTS := $(B)/sources.list

include $(filter %/module.mk,$(RULES))

ROOMS := arch bench boot core guest hv include partition platform seal tests tools verify
FILES := $(sort $(foreach room,$(ROOMS),$(wildcard $(room)/*.[chS] $(room)/*/*.[chS] \
	$(room)/*/*/*.[chS])))
ifneq ($(filter-out clean help format,$(or $(MAKECMDGOALS),all)),)
LISTED := $(shell mkdir -p $(B); echo '$(FILES)' | cmp -s - $(LISTS) || \
	echo '$(FILES)' >$(LISTS))
endif
$(LISTS):
	$(Q)mkdir -p $(B)
	$(Q)echo '$(FILES)' >$@

# --- unit tests: tests/unit/test_*.c, one cmocka program each, linked with all portable code ------
UNIT_SRCS  := $(wildcard tests/unit/test_*.c)
UNIT_TESTS := $(UNIT_SRCS:tests/unit/%.c=$(B)/unit/%)
UNIT_TEST_OBJS := $(UNIT_SRCS:%.c=$(B)/unit/obj/%.o)
UNIT_LIB_OBJS  := $(sort $(PORTABLE_SRCS:%.c=$(B)/unit/obj/%.o))

$(B)/unit/obj/%.o: %.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(UNIT_CFLAGS) -c $< -o $@

# Two objects may share a base name: a new archive each time, and append without looking.
$(B)/unit/libportable.a: $(UNIT_LIB_OBJS) $(LISTS)
	$(call say,AR,$@)
	$(Q)rm -f $@
	$(Q)ar qcs $@ $(UNIT_LIB_OBJS)

$(B)/unit/test_%: $(B)/unit/obj/tests/unit/test_%.o $(B)/unit/libportable.a
	$(call say,LD,$@)
	$(Q)$(CC) $(UNIT_CFLAGS) $< $(B)/unit/libportable.a -lcmocka -lfdt -lZydis $(UNIT_LIBS_$*) -o $@

.PHONY: unit
unit: $(UNIT_TESTS)

-include $(UNIT_LIB_OBJS:.o=.d) $(UNIT_TEST_OBJS:.o=.d)

# --- the two commands, and what else a person calls -----------------------------------------------
.PHONY: run check packages-run packages-check packages-bench format lint clean help

# All processors build, unless -j says how many.
PARALLEL = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

run: packages-run ## install what is missing, build, boot the demo guest (ARGS='--cpus 8': options)
	$(Q)$(MAKE) --no-print-directory $(PARALLEL) all
	$(Q)$(B)/parapet run $(ARGS)

packages-run:
	$(Q)scripts/install-packages run

packages-check:
	$(Q)scripts/install-packages run check

packages-bench:
	$(Q)scripts/install-packages run bench

# PARTS='unit lint' runs a part of it; tests/run says which parts there are.
check: packages-check ## install what is missing, build, run all tests (PARTS='unit qemu': some)
	$(Q)$(MAKE) --no-print-directory $(PARALLEL) check-programs
	$(Q)B='$(B)' tests/run $(PARTS)

# What tests/run runs.
.PHONY: check-programs
check-programs: all unit

lint: packages-check ## clang-format, cppcheck and shellcheck over everything
	$(Q)scripts/lint

format: ## give all C files the form of .clang-format
	$(Q)scripts/lint --format

clean: ## remove all that was built
	$(Q)rm -rf $(B)

help: ## this list
	@echo 'Parapet $(VERSION): make TARGET'
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' $(RULES) | sort | \
		awk -F '|' '{ printf "  %-14s %s\n", $$1, $$2 }'
	@echo 'V=1 shows every command. Everything is built under $(B)/.'
