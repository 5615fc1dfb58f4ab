#include "api/upload_path.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/api.h"
#include "daemon/store.h"
#include "daemon/uuid.h"

int upload_check_disk(const struct request *r, struct reply *p, struct error *err) {
    const char *length = request_header(r, "Content-Length");
    uint64_t needed = length ? strtoull(length, NULL, 10) : 0, used, budget;
    int e = store_check_disk(r->api->store, needed, err);

    if (e == 0)
        return 0;
    store_disk(r->api->store, &used, &budget);
    return reply_details(p,
        json_pack("{s:I, s:I}", "needed_bytes", (json_int_t)needed, "available_bytes",
            (json_int_t)(budget > used ? budget - used : 0)),
        e);
}

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
