# The thread tests of mailbox, trace and protect under the thread sanitizer. GCC cannot follow fences and
# says so (-Wtsan); all that they order are atomics, which it does follow.
TSAN_CFLAGS := $(filter-out -fsanitize=% -fno-sanitize-recover=%,$(UNIT_CFLAGS)) \
	-fsanitize=thread -Wno-tsan

TSAN_TESTS    := $(B)/tsan/test_mailbox $(B)/tsan/test_trace $(B)/tsan/test_protect
TSAN_LIB_OBJS := $(patsubst %.c,$(B)/tsan/obj/%.o,$(wildcard core/*/*.c platform/svm/npt*.c))
TSAN_OBJS     := $(TSAN_TESTS:$(B)/tsan/%=$(B)/tsan/obj/tests/unit/%.o)

$(B)/tsan/obj/%.o: %.c $(RULES)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(TSAN_CFLAGS) -c $< -o $@

$(B)/tsan/test_%: $(B)/tsan/obj/tests/unit/test_%.o $(TSAN_LIB_OBJS) $(LISTS)
	$(call say,LD,$@)
	$(Q)$(CC) $(TSAN_CFLAGS) $(filter %.o,$^) -lcmocka -o $@

.PHONY: tsan
tsan: $(TSAN_TESTS)
check-programs: tsan

-include $(TSAN_LIB_OBJS:.o=.d) $(TSAN_OBJS:.o=.d)
