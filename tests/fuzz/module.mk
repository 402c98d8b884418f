# Fuzzing of what reads hostile bytes, with clang's libFuzzer. What it finds stays
# under build/fuzz.

FUZZ_SECONDS ?= 10
FUZZ_CC      ?= clang
FUZZ_CFLAGS  := -std=c11 -O1 -g -Wall -Wextra -Werror -D_GNU_SOURCE \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-Iinclude -I.

$(B)/fuzz/fuzz_load: tests/fuzz/fuzz_load.c tests/unit/load_arena.h $(wildcard boot/load/*.[ch])
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_CFLAGS) $(filter %.c,$^) -o $@

.PHONY: fuzz-load
fuzz-load: $(B)/fuzz/fuzz_load
	@mkdir -p $(B)/fuzz/corpus_load
	cd $(B)/fuzz && ./fuzz_load -max_total_time=$(FUZZ_SECONDS) -max_len=8192 \
		-print_final_stats=1 corpus_load
