/* QEMU's machine protocol: commands out, replies and events in, never waiting. */
#include "tools/qmp.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define QMP_LINE_LONGEST (1 << 20)

bool qmp_fill(struct qmp *qmp)
{
	char bytes[4096];

	qmp->input.longest = QMP_LINE_LONGEST;
	while (qmp->fd >= 0) {
		ssize_t count = read(qmp->fd, bytes, sizeof(bytes));

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && errno == EAGAIN)
			return true;
		if (count <= 0 || !line_buffer_add(&qmp->input, bytes, (size_t)count))
			qmp->fd = -1; /* its owner closes it */
	}
	return false;
}

static void copy_text(char *to, size_t room, const char *from)
{
	snprintf(to, room, "%s", from ? from : "");
}

static bool read_message(json_t *root, struct qmp_message *message)
{
	json_t *part;

	*message = (struct qmp_message){.name = ""};
	if ((part = json_object_get(root, "QMP"))) {
		json_t *version = json_object_get(json_object_get(part, "version"), "qemu");

		message->kind = QMP_GREETING;
		snprintf(message->name, sizeof(message->name), "%lld.%lld.%lld",
			(long long)json_integer_value(json_object_get(version, "major")),
			(long long)json_integer_value(json_object_get(version, "minor")),
			(long long)json_integer_value(json_object_get(version, "micro")));
		return true;
	}
	if ((part = json_object_get(root, "error"))) {
		message->kind = QMP_FAILURE;
		copy_text(message->name, sizeof(message->name),
			json_string_value(json_object_get(part, "desc")));
		return true;
	}
	if (json_object_get(root, "return")) {
		message->kind = QMP_REPLY;
		return true;
	}
	if ((part = json_object_get(root, "event"))) {
		json_t *data = json_object_get(root, "data");

		message->kind = QMP_EVENT;
		copy_text(message->name, sizeof(message->name), json_string_value(part));
		copy_text(message->reason, sizeof(message->reason),
			json_string_value(json_object_get(data, "reason")));
		return true;
	}
	return false;
}

bool qmp_next(struct qmp *qmp, struct qmp_message *message)
{
	char *line;

	while ((line = line_buffer_next(&qmp->input))) {
		json_t *root = json_loads(line, 0, NULL);
		bool known = root && read_message(root, message);

		json_decref(root);
		if (!known)
			continue;
		if (message->kind != QMP_REPLY && message->kind != QMP_FAILURE)
			return true;
		/* Commands are answered in their order: only the last one's answer leads on. */
		if (qmp->unanswered > 0 && --qmp->unanswered == 0)
			return true;
	}
	return false;
}

/* Commands are small and come one at a time: they fit the socket's buffer. */
static bool send_object(struct qmp *qmp, json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	bool sent = false;

	if (text && qmp->fd >= 0) {
		size_t length = strlen(text);

		text[length] = '\n'; /* in place of the terminator */
		sent = send(qmp->fd, text, length + 1, MSG_NOSIGNAL) == (ssize_t)length + 1;
		qmp->unanswered += sent;
	}
	free(text);
	json_decref(object);
	return sent;
}

bool qmp_send(struct qmp *qmp, const char *command)
{
	return send_object(qmp, json_pack("{s:s}", "execute", command));
}

bool qmp_send_memory_save(struct qmp *qmp, uint64_t address, uint64_t bytes, const char *path)
{
	return send_object(qmp,
		json_pack("{s:s, s:{s:I, s:I, s:s}}", "execute", "pmemsave", "arguments", "val",
			(json_int_t)address, "size", (json_int_t)bytes, "filename", path));
}

void qmp_close(struct qmp *qmp)
{
	line_buffer_free(&qmp->input);
	qmp->fd = -1;
}
