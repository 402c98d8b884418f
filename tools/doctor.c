/* `parapet doctor`: what this computer can run, and what is missing. Changes nothing. */
#include "tools/doctor.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/help.h"
#include "tools/host.h"
#include "tools/image_file.h"
#include "tools/message.h"
#include "tools/qemu.h"
#include "tools/run_options.h"
#include "tools/verdict.h"

enum finding {
	FOUND,
	MISSING, /* the demo guest cannot run */
	OPTIONAL, /* missing, but it can */
};

static void report(enum finding finding, const char *what, const char *text)
{
	static const char *const words[] = {
		[FOUND] = "ok", [MISSING] = "missing", [OPTIONAL] = "-"};

	printf("%-8s %-12s %s\n", words[finding], what, text);
}

/*
 * Runs QEMU with `words` (the program first, NULL last), hands it `input` and gives its output in
 * `text` (cut to fit). False if it could not be run or failed.
 */
static bool ask_qemu(char *const *words, const char *input, char *text, size_t room)
{
	int to[2];
	int from[2];
	size_t used = 0;
	int status;

	if (pipe(to) != 0)
		return false;
	if (pipe(from) != 0) {
		close(to[0]);
		close(to[1]);
		return false;
	}

	pid_t pid = fork();

	if (pid == 0) {
		dup2(to[0], STDIN_FILENO);
		dup2(from[1], STDOUT_FILENO);
		close(to[0]);
		close(to[1]);
		close(from[0]);
		close(from[1]);
		execv(words[0], words);
		_exit(127);
	}
	/* Little enough for the pipe: nobody has to read yet. QEMU may also be gone already. */
	signal(SIGPIPE, SIG_IGN);
	bool handed = write(to[1], input, strlen(input)) == (ssize_t)strlen(input);

	close(to[0]);
	close(to[1]);
	close(from[1]);
	while (pid > 0) {
		char more[4096];
		ssize_t count = read(from[0], more, sizeof(more));

		if (count <= 0)
			break;
		size_t take = (size_t)count < room - 1 - used ? (size_t)count : room - 1 - used;

		memcpy(text + used, more, take);
		used += take;
	}
	close(from[0]);
	text[used] = '\0';
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
		WEXITSTATUS(status) == 0 && handed;
}

/* Whether QEMU's software CPU says that it has SVM with nested paging. */
static bool has_svm(char *qemu)
{
	char *words[] = {qemu, "-nodefaults", "-no-user-config", "-display", "none", "-machine",
		"q35", "-accel", "tcg", "-S", "-qmp", "stdio", NULL};
	char text[65536];

	return ask_qemu(words,
		       "{\"execute\": \"qmp_capabilities\"}\n"
		       "{\"execute\": \"query-cpu-model-expansion\", \"arguments\": "
		       "{\"type\": \"full\", \"model\": {\"name\": \"max\"}}}\n"
		       "{\"execute\": \"quit\"}\n",
		       text, sizeof(text)) &&
		strstr(text, "\"svm\": true") && strstr(text, "\"npt\": true");
}

/* QEMU, and the SVM of its software CPU. */
static bool check_qemu(void)
{
	char qemu[PATH_MAX];
	char *version[] = {qemu, "--version", NULL};
	char text[4096];
	char line[PATH_MAX + 256];
	struct tool_error error;

	if (!qemu_find(qemu, &error)) {
		report(MISSING, "QEMU", error.text);
		return false;
	}
	if (!ask_qemu(version, "", text, sizeof(text))) {
		snprintf(line, sizeof(line),
			"%s does not run: apt install --reinstall qemu-system-x86", qemu);
		report(MISSING, "QEMU", line);
		return false;
	}
	text[strcspn(text, "\n")] = '\0';
	snprintf(line, sizeof(line), "%.200s (%s)", text, qemu);
	report(FOUND, "QEMU", line);
	if (!has_svm(qemu)) {
		report(MISSING, "SVM",
			"this QEMU's software CPU has no SVM with nested paging: use version 7.2 "
			"or "
			"later");
		return false;
	}
	report(FOUND, "SVM", "QEMU's software CPU has SVM with nested paging (--accel tcg)");
	return true;
}

static void check_kvm(void)
{
	const char *reason;
	char line[200];

	switch (host_find_kvm(&reason)) {
	case HOST_KVM_WITH_SVM:
		report(FOUND, "KVM", "offers nested SVM: --accel auto uses it");
		return;
	case HOST_KVM_WITHOUT_SVM:
		report(OPTIONAL, "KVM",
			"offers no nested SVM (an AMD processor with kvm_amd.nested=1 does); not "
			"needed");
		return;
	case HOST_KVM_MISSING:
		snprintf(line, sizeof(line), "%s; not needed, only faster", reason);
		report(OPTIONAL, "KVM", line);
		return;
	}
}

static bool check_memory(void)
{
	uint64_t bytes = host_free_memory();
	uint64_t needed = RUN_MEMORY_DEFAULT + (RUN_MEMORY_DEFAULT >> 2); /* QEMU itself too */
	char line[160];

	if (bytes == 0) {
		report(OPTIONAL, "memory",
			"how much is free cannot be found out (is /proc mounted?)");
		return true;
	}
	snprintf(line, sizeof(line), "%llu MiB free, the demo guest takes %llu MiB%s",
		(unsigned long long)bytes >> 20, (unsigned long long)needed >> 20,
		bytes < needed ? ": end other programs, or use --memory" : "");
	report(bytes < needed ? MISSING : FOUND, "memory", line);
	return bytes >= needed;
}

static bool check_image(const char *what, const char *path)
{
	struct tool_error error;
	uint64_t bytes;
	char line[PATH_MAX + 64];
	bool found = image_file_check("file", path, &bytes, &error);

	if (found)
		snprintf(line, sizeof(line), "%s (%llu KiB)", path,
			(unsigned long long)(bytes + 1023) >> 10);
	else
		snprintf(line, sizeof(line), "%s: run make", error.text);
	report(found ? FOUND : MISSING, what, line);
	return found;
}

static bool check_images(void)
{
	struct image_places places;
	struct tool_error error = {.text = ""};

	if (!image_places_find(&places, &error)) {
		report(MISSING, "image", error.text);
		return false;
	}

	bool image = check_image("image", places.paravisor);
	bool kernel = check_image("demo kernel", places.demo_kernel);
	bool initrd = check_image("demo initrd", places.demo_initrd);

	return image && kernel && initrd;
}

int doctor_command(int count, char **arguments)
{
	if (count == 2 &&
		(strcmp(arguments[1], "--help") == 0 || strcmp(arguments[1], "-h") == 0)) {
		help_print_doctor(stdout);
		return fflush(stdout) == 0 ? EXIT_STATUS_WELL : EXIT_STATUS_REFUSED;
	}
	if (count > 1) {
		message_print("doctor takes no arguments, and %s is one", arguments[1]);
		return EXIT_STATUS_REFUSED;
	}

	bool qemu = check_qemu();

	check_kvm();

	bool memory = check_memory();
	bool images = check_images();
	bool ready = qemu && memory && images;

	printf("\n%s\n",
		ready ? "The demo guest can run: parapet run"
		      : "The demo guest cannot run yet: see what is missing above.");
	fflush(stdout);
	return ready ? EXIT_STATUS_WELL : EXIT_STATUS_REFUSED;
}
