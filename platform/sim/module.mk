# The machine of threads: for the unit tests, under ThreadSanitizer, and for hours.

SIM_SRCS := $(sort $(filter-out %/sim_main.c,$(wildcard platform/sim/*.c)))
SIM_CORE := $(sort $(foreach room,vpset run flush tlblock protect trace,$(wildcard core/$(room)/*.c)))
SIM_UNIT_OBJS := $(SIM_SRCS:%.c=$(B)/unit/obj/%.o)
SIM_CFLAGS := $(filter-out -MMD -MP,$(HOST_CFLAGS)) -pthread -DPARAPET_SIM
SIM_DEPS := $(SIM_SRCS) $(SIM_CORE) platform/sim/sim_main.c $(RULES) \
	$(wildcard platform/sim/*.h core/*.h core/*/*.h include/parapet/*.h)

# The test links the machine's objects, which need the core's.
UNIT_LIBS_sim = $(SIM_UNIT_OBJS) $(B)/unit/libportable.a
$(B)/unit/test_sim: $(SIM_UNIT_OBJS)
-include $(SIM_UNIT_OBJS:.o=.d)

$(B)/sim/sim: $(SIM_DEPS)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(SIM_CFLAGS) $(filter %.c,$^) -o $@

# It does not model fences, so it says nothing about the protocol; it does see plain data that two
# threads share.
$(B)/sim/sim-tsan: $(SIM_DEPS)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(SIM_CFLAGS) -fsanitize=thread -Wno-tsan $(filter %.c,$^) -o $@

SIM_MINUTES ?= 10
SIM_FLIPS   ?= 100000000

.PHONY: sim sim-tsan sim-flips stress-sim
sim: $(B)/sim/sim
	$(Q)$< --vps 2 --seconds 10
	$(Q)$< --vps 3 --protect 10

sim-tsan: $(B)/sim/sim-tsan
	$(Q)$< --vps 3 --seconds 10
	$(Q)$< --vps 3 --flips 1000000

# The short run of `make check`.
check-programs: $(B)/sim/sim-tsan

# SIM_FLIPS changes of a page's permission against attackers; says how far it has come.
sim-flips: $(B)/sim/sim
	$(Q)$< --vps 3 --flips $(SIM_FLIPS)

# One minute each with 2 to 6 VPs and a new seed, SIM_MINUTES altogether.
stress-sim: $(B)/sim/sim
	$(Q)for minute in $$(seq 1 $(SIM_MINUTES)); do \
		$< --vps $$((2 + minute % 5)) --seconds 60 --seed $$minute || exit 1; \
	done

stress: stress-sim sim-flips
