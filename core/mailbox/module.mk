# The thread tests of mailbox and trace under the thread sanitizer. GCC cannot follow fences and
# says so (-Wtsan); all that they order are atomics, which it does follow.
TSAN_CFLAGS := $(filter-out -fsanitize=% -fno-sanitize-recover=%,$(UNIT_CFLAGS)) \
	-fsanitize=thread -Wno-tsan

$(B)/tsan/test_%: tests/unit/test_%.c $(wildcard core/mailbox/*.[ch] core/trace/*.[ch]) \
		core/atomic.h
	@mkdir -p $(@D)
	$(CC) $(TSAN_CFLAGS) $< core/mailbox/*.c core/trace/*.c -lcmocka -o $@

.PHONY: tsan-mailbox
tsan-mailbox: $(B)/tsan/test_mailbox $(B)/tsan/test_trace
	$(B)/tsan/test_trace
	$(B)/tsan/test_mailbox
