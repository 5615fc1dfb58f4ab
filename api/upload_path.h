/* Uploaded bodies: room for them, and a path so that the worker can open them. */
#ifndef API_UPLOAD_PATH_H
#define API_UPLOAD_PATH_H

#include "api/reply.h"
#include "api/request.h"

/* Before the body: disk_budget with its details when what Content-Length says does not fit. */
int upload_check_disk(const struct request *r, struct reply *p, struct error *err);

/* The file's own name, or a fresh one in the store's temporary folder for a file without (O_TMPFILE). The
 * caller unlinks it when 0 was returned. */
int upload_path(const struct request *r, const char *suffix, char *ret, size_t size, struct error *err);

#endif
