# What a sealed Linux kernel may rewrite of itself: computes only, so it compiles for the host too.
PORTABLE_SRCS += $(wildcard seal/*.c)
