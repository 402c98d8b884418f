# How much runs between an exit and the next entry: counted, so any computer gives the same answer.

BENCH_PARTS += bench-path
BENCH_RESULTS += $(B)/bench/path.json

PATH_PLUGINS := $(B)/bench/path.so $(B)/bench/total.so

$(PATH_PLUGINS): $(B)/bench/%.so: bench/path/%.c bench/path/plugin.c bench/path/plugin.h $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(filter-out -MMD -MP,$(HOST_CFLAGS)) -fPIC -shared -fvisibility=hidden $(filter %.c,$^) -o $@

.PHONY: bench-path
bench-path: all guest $(PATH_PLUGINS) ## count instructions and pages from an exit to the next entry
	$(Q)bench/path/measure --parapet $(B)/parapet --plugins $(B)/bench \
		--output $(B)/bench/path.json --rounds $(ROUNDS)
