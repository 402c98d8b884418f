/* The QEMU process: found, started, watched, ended. */
#include "tools/qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define QEMU_PROGRAM "qemu-system-x86_64"
#define EXEC_FAILED  127

static bool is_program(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

bool qemu_find(char path[static PATH_MAX], struct tool_error *error)
{
	const char *named = getenv("PARAPET_QEMU");
	const char *search = getenv("PATH");

	if (named && *named) {
		if (snprintf(path, PATH_MAX, "%s", named) < PATH_MAX && is_program(path))
			return true;
		return tool_error_set(error,
			"PARAPET_QEMU is %s, which is not a program; correct or unset it", named);
	}
	for (const char *from = search ? search : ""; *from;) {
		size_t length = strcspn(from, ":");

		if (snprintf(path, PATH_MAX, "%.*s/%s", (int)length, from, QEMU_PROGRAM) <
				PATH_MAX &&
			is_program(path))
			return true;
		from += length + (from[length] == ':');
	}
	return tool_error_set(error, "%s was not found: apt install qemu-system-x86", QEMU_PROGRAM);
}

static bool connect_pair(int *ours, int *its, struct tool_error *error)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return tool_error_set(error, "cannot make a socket: %s", strerror(errno));
	*ours = pair[0];
	*its = pair[1];
	if (fcntl(*ours, F_SETFL, O_NONBLOCK) != 0)
		return tool_error_set(error, "cannot set up a socket: %s", strerror(errno));
	return true;
}

bool qemu_connect(struct qemu *qemu, bool with_channel, struct tool_error *error)
{
	*qemu = (struct qemu){
		.console_fd = -1,
		.channel_fd = -1,
		.qmp_fd = -1,
		.errors_fd = -1,
		.its_console_fd = -1,
		.its_channel_fd = -1,
		.its_qmp_fd = -1,
		.its_errors_fd = -1,
	};
	if (with_channel && !connect_pair(&qemu->channel_fd, &qemu->its_channel_fd, error))
		return false;
	return connect_pair(&qemu->console_fd, &qemu->its_console_fd, error) &&
		connect_pair(&qemu->qmp_fd, &qemu->its_qmp_fd, error) &&
		connect_pair(&qemu->errors_fd, &qemu->its_errors_fd, error);
}

static void inherit(int fd)
{
	if (fd >= 0)
		fcntl(fd, F_SETFD, 0);
}

/* In the child: becomes QEMU, or ends with EXEC_FAILED. */
static void become_qemu(const struct qemu *qemu, char *const *words, pid_t parent)
{
	sigset_t none;
	int null = open("/dev/null", O_RDONLY);

	/* If we are killed, QEMU goes too; the second look is for a parent that died before. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXEC_FAILED);
	setpgid(0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
		dup2(qemu->its_errors_fd, STDOUT_FILENO) < 0 ||
		dup2(qemu->its_errors_fd, STDERR_FILENO) < 0)
		_exit(EXEC_FAILED);
	close(null);
	inherit(qemu->its_console_fd);
	inherit(qemu->its_channel_fd);
	inherit(qemu->its_qmp_fd);
	execv(words[0], words);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", words[0], strerror(errno));
	_exit(EXEC_FAILED);
}

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_its_ends(struct qemu *qemu)
{
	close_end(&qemu->its_console_fd);
	close_end(&qemu->its_channel_fd);
	close_end(&qemu->its_qmp_fd);
	close_end(&qemu->its_errors_fd);
}

bool qemu_start(struct qemu *qemu, char *const *words, struct tool_error *error)
{
	pid_t self = getpid();
	pid_t pid = fork();

	if (pid < 0)
		return tool_error_set(error, "cannot start a process: %s", strerror(errno));
	if (pid == 0)
		become_qemu(qemu, words, self);
	qemu->pid = pid;
	close_its_ends(qemu);
	return true;
}

bool qemu_reap(struct qemu *qemu)
{
	if (qemu->pid > 0 && waitpid(qemu->pid, &qemu->wait_status, WNOHANG) == qemu->pid)
		qemu->pid = 0;
	return qemu->pid <= 0;
}

void qemu_kill(struct qemu *qemu)
{
	if (qemu->pid <= 0)
		return;
	kill(qemu->pid, SIGKILL);
	while (waitpid(qemu->pid, &qemu->wait_status, 0) < 0 && errno == EINTR)
		;
	qemu->pid = 0;
}

void qemu_close(struct qemu *qemu)
{
	qemu_kill(qemu);
	close_its_ends(qemu);
	close_end(&qemu->console_fd);
	close_end(&qemu->channel_fd);
	close_end(&qemu->qmp_fd);
	close_end(&qemu->errors_fd);
}
