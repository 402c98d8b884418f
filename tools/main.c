/* `parapet`: which command is meant. The commands themselves have files of their own. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <parapet/types.h>

#include "tools/doctor.h"
#include "tools/help.h"
#include "tools/message.h"
#include "tools/run.h"
#include "tools/tool_text.h"
#include "tools/verdict.h"

static int print_version(void)
{
	printf("parapet %s\n", PARAPET_VERSION);
	return fflush(stdout) == 0 ? EXIT_STATUS_WELL : EXIT_STATUS_REFUSED;
}

static int refuse_command(const char *word)
{
	static const char *const words[] = {
		"run", "doctor", "help", "version", "--help", "--version"};
	const char *nearest = text_nearest(word, words, ARRAY_SIZE(words));

	if (nearest)
		message_print("unknown command %s: did you mean `parapet %s`?", word, nearest);
	else
		message_print("unknown command %s: `parapet help` lists the commands", word);
	return EXIT_STATUS_REFUSED;
}

static int help_command(int count, char **arguments)
{
	if (count > 2) {
		message_print("help takes one command: `parapet help run`");
		return EXIT_STATUS_REFUSED;
	}
	if (count == 1)
		help_print(stdout);
	else if (strcmp(arguments[1], "run") == 0)
		help_print_run(stdout);
	else if (strcmp(arguments[1], "doctor") == 0)
		help_print_doctor(stdout);
	else
		return refuse_command(arguments[1]);
	return fflush(stdout) == 0 ? EXIT_STATUS_WELL : EXIT_STATUS_REFUSED;
}

/* A closed standard descriptor would be given to the next file that is opened. */
static bool fill_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
			open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY) != fd)
			return false;
	}
	return true;
}

int main(int count, char **arguments)
{
	if (!fill_standard_descriptors())
		return EXIT_STATUS_REFUSED;
	if (count < 2) {
		help_print(stderr);
		return EXIT_STATUS_REFUSED;
	}

	const char *word = arguments[1];

	if (strcmp(word, "run") == 0)
		return run_command(count - 1, arguments + 1);
	if (strcmp(word, "doctor") == 0)
		return doctor_command(count - 1, arguments + 1);
	if (strcmp(word, "help") == 0)
		return help_command(count - 1, arguments + 1);
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
		help_print(stdout);
		return fflush(stdout) == 0 ? EXIT_STATUS_WELL : EXIT_STATUS_REFUSED;
	}
	if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0)
		return print_version();
	return refuse_command(word);
}
