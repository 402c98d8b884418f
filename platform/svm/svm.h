/* AMD SVM as a platform: Parapet is the hypervisor itself, nested paging holds the isolation. */
#ifndef PARAPET_SVM_H
#define PARAPET_SVM_H

#include <parapet/platform.h>

/*
 * Checks that this processor can do it and prepares what all VPs share. Returns NULL and a sentence
 * for the user in *why if it cannot.
 */
const struct platform_ops *svm_platform(uint32_t vps, const char **why);

#endif
