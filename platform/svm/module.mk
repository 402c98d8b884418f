# The nested tables compile for the tests too.
PORTABLE_SRCS += platform/svm/npt.c platform/svm/npt_pool.c
