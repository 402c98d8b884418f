/* AMD SVM as a platform: Parapet is the hypervisor itself, nested paging holds the isolation. */
#ifndef PARAPET_SVM_H
#define PARAPET_SVM_H

#include <parapet/platform.h>

/*
 * `vtls`: 2 if the guest may have a VTL1, else 1. Checks that this processor can do it and prepares what all VPs share. Returns NULL and a sentence
 * for the user in *why if it cannot.
 */
const struct platform_ops *svm_platform(uint32_t vps, uint32_t vtls, const char **why);

#endif
