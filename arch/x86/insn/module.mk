# The instruction decoder, the emulator of trapped accesses and the guest page-table walker.
PORTABLE_SRCS += $(wildcard arch/x86/insn/*.c)

# `make fuzz-insn` runs the fuzzer for FUZZ_SECONDS (default 60).
$(B)/fuzz/fuzz_insn: tests/fuzz/fuzz_insn.c $(wildcard arch/x86/insn/*.[ch])
	@mkdir -p $(@D)
	clang -std=c11 -O1 -g -Wall -Wextra -Werror -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all -Iinclude -I. $(filter %.c,$^) -o $@

.PHONY: fuzz-insn
fuzz-insn: $(B)/fuzz/fuzz_insn
	$< -max_len=512 -max_total_time=$(or $(FUZZ_SECONDS),60) -print_final_stats=1
