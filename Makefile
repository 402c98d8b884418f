# Parapet. `make run` and `make check` are all that a new user needs; `make help` lists the rest.
# Every room has a module.mk of its own; this file holds what they share.

B      := build
CC     := gcc
VERSION := 0.1.0

# Freestanding: the paravisor itself. No vector registers: they hold the guest's state.
MACHINE_CFLAGS := -std=c11 -O2 -g -Wall -Wextra -Werror -Wmissing-prototypes -Wvla \
	-ffreestanding -fno-pic -no-pie -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fno-omit-frame-pointer -fno-strict-aliasing -fno-common -mno-red-zone -mgeneral-regs-only \
	-ffunction-sections -fdata-sections -mcmodel=kernel -fcf-protection=none \
	-Iinclude -I. -MMD -MP -DPARAPET_VERSION='"$(VERSION)"'

# Hosted: tools.
HOST_CFLAGS := -std=c11 -O2 -g -Wall -Wextra -Werror -Wmissing-prototypes -D_GNU_SOURCE \
	-Iinclude -I. -MMD -MP -DPARAPET_VERSION='"$(VERSION)"'

# Hosted and watched: the same sources under the sanitizers, for the unit tests.
UNIT_CFLAGS := -std=c11 -O1 -g -Wall -Wextra -Werror -D_GNU_SOURCE -fsanitize=address,undefined \
	-fno-sanitize-recover=all -fno-omit-frame-pointer -Iinclude -I. -MMD -MP -pthread

.PHONY: all
all:

# What compiles for the host as well as for the machine. A room adds its files in module.mk.
PORTABLE_SRCS := $(wildcard core/*/*.c)

include $(sort $(wildcard */module.mk */*/module.mk */*/*/module.mk))

# --- unit tests: tests/unit/test_*.c, one cmocka program each, linked with all portable code ------
UNIT_SRCS  := $(wildcard tests/unit/test_*.c)
UNIT_TESTS := $(UNIT_SRCS:tests/unit/%.c=$(B)/unit/%)
UNIT_LIB_OBJS := $(PORTABLE_SRCS:%.c=$(B)/unit/obj/%.o)

$(B)/unit/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(UNIT_CFLAGS) -c $< -o $@

$(B)/unit/libportable.a: $(UNIT_LIB_OBJS)
	@rm -f $@
	ar rcs $@ $^

$(B)/unit/test_%: tests/unit/test_%.c $(B)/unit/libportable.a
	@mkdir -p $(@D)
	$(CC) $(UNIT_CFLAGS) $< $(B)/unit/libportable.a -lcmocka -lfdt -lZydis $(UNIT_LIBS_$*) -o $@

.PHONY: unit
unit: $(UNIT_TESTS)

-include $(UNIT_LIB_OBJS:.o=.d) $(UNIT_TESTS:=.d)

.PHONY: clean
clean:
	rm -rf $(B)
