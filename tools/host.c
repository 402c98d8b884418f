/* What this computer offers: hardware acceleration and memory. */
#include "tools/host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CPUID_ENTRIES  256
#define CPUID_EXTENDED 0x80000001u
#define CPUID_ECX_SVM  (1u << 2)
#define CPUID_SVM      0x8000000au
#define CPUID_EDX_NPT  (1u << 0)

/* Whether a guest of this KVM would see SVM with nested paging (AMD APM volume 3, appendix E.4). */
static bool kvm_offers_svm(int fd)
{
	struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2));
	bool svm = false;
	bool npt = false;

	if (!cpuid)
		return false;
	cpuid->nent = CPUID_ENTRIES;
	if (ioctl(fd, KVM_GET_SUPPORTED_CPUID, cpuid) == 0) {
		for (unsigned i = 0; i < cpuid->nent; i++) {
			const struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];

			if (entry->function == CPUID_EXTENDED)
				svm = entry->ecx & CPUID_ECX_SVM;
			if (entry->function == CPUID_SVM)
				npt = entry->edx & CPUID_EDX_NPT;
		}
	}
	free(cpuid);
	return svm && npt;
}

enum host_kvm host_find_kvm(const char **reason)
{
	const char *ignored;
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (!reason)
		reason = &ignored;
	if (fd < 0) {
		*reason = errno == EACCES ? "/dev/kvm may not be opened by this user"
					  : "there is no usable /dev/kvm";
		return HOST_KVM_MISSING;
	}
	if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		close(fd);
		*reason = "/dev/kvm does not answer as KVM does";
		return HOST_KVM_MISSING;
	}

	bool svm = kvm_offers_svm(fd);

	close(fd);
	*reason = svm ? "offers SVM to a guest" : "does not offer SVM to a guest";
	return svm ? HOST_KVM_WITH_SVM : HOST_KVM_WITHOUT_SVM;
}

uint64_t host_free_memory(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	unsigned long long kib = 0;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	}
	fclose(file);
	return kib << 10;
}
