/* A path for an uploaded body, so that the worker can open it. */
#ifndef API_UPLOAD_PATH_H
#define API_UPLOAD_PATH_H

#include "api/request.h"

/* The file's own name, or a fresh one in the store's temporary folder for a file without (O_TMPFILE). The
 * caller unlinks it when 0 was returned. */
int upload_path(const struct request *r, const char *suffix, char *ret, size_t size, struct error *err);

#endif
