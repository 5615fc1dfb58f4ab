#include "api/upload_path.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "api/api.h"
#include "daemon/store.h"
#include "daemon/uuid.h"

int upload_path(const struct request *r, const char *suffix, char *ret, size_t size, struct error *err) {
    char from[64], id[UUID_MAX];

    if (r->file.name) {
        snprintf(ret, size, "%s", r->file.name);
        return 0;
    }
    uuid_v7(id); /* two clients may send the same Request-Id */
    snprintf(ret, size, "%s/upload-%s.%s", store_tmp(r->api->store), id, suffix);
    snprintf(from, sizeof(from), "/proc/self/fd/%d", r->file.fd);
    return linkat(AT_FDCWD, from, AT_FDCWD, ret, AT_SYMLINK_FOLLOW) < 0 ? error_errno(err, "the upload") : 0;
}
