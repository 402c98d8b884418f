/*
 * Writes an initial RAM disk (cpio "newc") from a short list on standard input, so that building
 * one needs neither root nor mknod, and gives the same bytes every time: no times, no owners, inode
 * numbers in order. Nothing that depends on the machine it runs on may enter.
 *
 *	dir PATH MODE
 *	file PATH MODE SOURCE
 *	link PATH TARGET
 *	char PATH MODE MAJOR MINOR
 *
 * Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ALIGNMENT 4

struct entry {
	const char *path;
	uint32_t mode; /* type and permissions, as in struct stat */
	uint32_t major, minor;
	const void *data;
	uint32_t size;
};

static uint32_t inode_next = 1;

static void stop(const char *what, const char *name)
{
	fprintf(stderr, "mkcpio: %s: %s\n", name, what);
	exit(2);
}

static void output_write(const void *data, size_t size)
{
	static const char zeros[ALIGNMENT];
	size_t padding = -size % ALIGNMENT;

	if (fwrite(data, 1, size, stdout) != size || fwrite(zeros, 1, padding, stdout) != padding)
		stop(strerror(errno), "output");
}

/* The header is 110 bytes of ASCII; the name follows at once and both are padded together. */
static void entry_write(const struct entry *entry)
{
	char header[110 + 256 + 1];
	size_t name_size = strlen(entry->path) + 1;
	int length;

	if (name_size > 256)
		stop("name too long", entry->path);
	length = snprintf(header, sizeof(header),
		"070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s", inode_next++,
		entry->mode, 0, 0, S_ISDIR(entry->mode) ? 2 : 1, 0, entry->size, 0, 0, entry->major,
		entry->minor, (unsigned int)name_size, 0, entry->path);
	output_write(header, (size_t)length + 1);
	output_write(entry->data, entry->size);
}

static void *file_read(const char *name, uint32_t *size)
{
	FILE *file = fopen(name, "rb");
	long length;
	char *data;

	if (!file || fseek(file, 0, SEEK_END) || (length = ftell(file)) < 0 || length > 0x7fffffff)
		stop(strerror(errno), name);
	rewind(file);
	data = malloc((size_t)length + 1);
	if (!data || fread(data, 1, (size_t)length, file) != (size_t)length)
		stop("cannot read", name);
	fclose(file);
	*size = (uint32_t)length;
	return data;
}

static void line_handle(char *line)
{
	static const char blanks[] = " \t\n";
	char *words[6] = {NULL};
	unsigned int count = 0;
	struct entry entry = {0};
	void *contents = NULL;

	for (char *word = strtok(line, blanks); word && count < 6; word = strtok(NULL, blanks))
		words[count++] = word;
	if (count == 0 || words[0][0] == '#')
		return;
	if (count >= 2)
		entry.path = words[1];
	if (count >= 3)
		entry.mode = (uint32_t)strtoul(words[2], NULL, 8) & 07777;
	if (count == 3 && !strcmp(words[0], "dir")) {
		entry.mode |= S_IFDIR;
	} else if (count == 4 && !strcmp(words[0], "file")) {
		entry.mode |= S_IFREG;
		entry.data = contents = file_read(words[3], &entry.size);
	} else if (count == 3 && !strcmp(words[0], "link")) {
		entry.mode = S_IFLNK | 0777;
		entry.data = words[2];
		entry.size = (uint32_t)strlen(words[2]);
	} else if (count == 5 && !strcmp(words[0], "char")) {
		entry.mode |= S_IFCHR;
		entry.major = (uint32_t)strtoul(words[3], NULL, 10);
		entry.minor = (uint32_t)strtoul(words[4], NULL, 10);
	} else {
		stop("bad line", words[0]);
	}
	entry_write(&entry);
	free(contents);
}

int main(void)
{
	char line[1024];

	while (fgets(line, sizeof(line), stdin))
		line_handle(line);
	/* The end mark is an entry of its own, without data. */
	entry_write(&(struct entry){.path = "TRAILER!!!"});
	if (fflush(stdout))
		stop(strerror(errno), "output");
	return 0;
}
