# Part 1 of the benchmark: the flush path on the host, against two other designs.

FLUSH_BENCH_SRCS := $(sort $(wildcard bench/flush/*.c)) \
	$(sort $(foreach room,vpset run flush tlblock,$(wildcard core/$(room)/*.c)))

$(B)/bench/bench-flush: $(FLUSH_BENCH_SRCS) $(RULES) \
		$(wildcard bench/*.h bench/flush/*.h core/*.h core/*/*.h include/parapet/*.h)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(filter-out -MMD -MP,$(HOST_CFLAGS)) -pthread $(FLUSH_BENCH_SRCS) -o $@

BENCH_PARTS += bench-flush
BENCH_RESULTS += $(B)/bench/flush.json

.PHONY: bench-flush
bench-flush: $(B)/bench/bench-flush
	$(Q)$< --json $(B)/bench/flush.json
