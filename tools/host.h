/* What this computer offers: hardware acceleration and memory. Looks; changes nothing. */
#ifndef PARAPET_TOOLS_HOST_H
#define PARAPET_TOOLS_HOST_H

#include <stdbool.h>
#include <stdint.h>

enum host_kvm {
	HOST_KVM_MISSING, /* no /dev/kvm, or it is not ours to open */
	HOST_KVM_WITHOUT_SVM, /* works, but gives a guest no SVM with nested paging */
	HOST_KVM_WITH_SVM,
};

/* What KVM offers here; `reason` (may be NULL) is set to a few words about it. */
enum host_kvm host_find_kvm(const char **reason);

/* Memory that could be used now, in bytes; 0 if not known. */
uint64_t host_free_memory(void);

#endif
