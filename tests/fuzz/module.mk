# Fuzzing of what reads hostile bytes, with clang's libFuzzer. What it finds stays
# under build/fuzz.

FUZZ_SECONDS ?= 60
FUZZ_CC      ?= clang
FUZZ_CFLAGS  := -std=c11 -O1 -g -Wall -Wextra -Werror -D_GNU_SOURCE \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-Iinclude -I. -MMD -MP

# tests/fuzz/fuzz_NAME.c, and what it reads with.
FUZZ_NAMES   := load insn seal
FUZZ_load    := $(wildcard boot/load/*.c)
FUZZ_insn    := $(wildcard arch/x86/insn/*.c)
FUZZ_seal    := $(wildcard seal/*.c)
FUZZ_MAX_load := 8192
FUZZ_MAX_insn := 512
FUZZ_MAX_seal := 1024

FUZZ_objects = $(patsubst %.c,$(B)/fuzz/obj/%.o,tests/fuzz/fuzz_$(1).c $(FUZZ_$(1)))
FUZZ_OBJS := $(foreach name,$(FUZZ_NAMES),$(call FUZZ_objects,$(name)))

$(B)/fuzz/obj/%.o: %.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) -c $< -o $@

$(B)/fuzz/fuzz_load: $(call FUZZ_objects,load)
$(B)/fuzz/fuzz_insn: $(call FUZZ_objects,insn)
$(B)/fuzz/fuzz_seal: $(call FUZZ_objects,seal)
$(B)/fuzz/fuzz_%: $(LISTS)
	$(call say,LD,$@)
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) $(filter %.o,$^) -o $@

.PHONY: fuzz fuzz-programs $(FUZZ_NAMES:%=fuzz-%)
fuzz: packages-check ## fuzz the loaders and the decoder (FUZZ_SECONDS=60 each)
	$(Q)$(MAKE) --no-print-directory $(PARALLEL) $(FUZZ_NAMES:%=fuzz-%)
fuzz-programs: $(FUZZ_NAMES:%=$(B)/fuzz/fuzz_%)
check-programs: fuzz-programs

$(FUZZ_NAMES:%=fuzz-%): fuzz-%: $(B)/fuzz/fuzz_%
	@mkdir -p $(B)/fuzz/corpus_$*
	$(call say,FUZZ,$* for $(FUZZ_SECONDS) s)
	$(Q)cd $(B)/fuzz && ./fuzz_$* -max_total_time=$(FUZZ_SECONDS) -max_len=$(FUZZ_MAX_$*) \
		-print_final_stats=1 corpus_$*

-include $(FUZZ_OBJS:.o=.d)
