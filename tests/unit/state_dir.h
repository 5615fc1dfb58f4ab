/* A state directory (in a temporary folder, temp_dir.h) for a test, and models in it. */
#ifndef TESTS_UNIT_STATE_DIR_H
#define TESTS_UNIT_STATE_DIR_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/models.h"
#include "daemon/store.h"
#include "tests/unit/temp_dir.h"

static inline struct store *state_dir_open(const char *dir) {
    struct store *s = NULL;
    struct error err = {0};

    if (store_open(dir, 1.0, &s, &err) < 0)
        fail_msg("%s", err.text);
    return s;
}

/* Keeps these bytes as a blob. */
static inline int state_dir_keep(
    struct store *s, const void *data, size_t size, char digest[static DIGEST_MAX], struct error *err) {
    char path[4096];
    uint64_t kept;
    int fd, r;

    snprintf(path, sizeof(path), "%s/XXXXXX", store_tmp(s));
    fd = mkstemp(path);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        return error_errno(err, "a temporary file");
    close(fd);
    r = store_blob_keep_path(s, path, digest, &kept, err);
    unlink(path);
    return r;
}

/* A model of these bytes, as an upload makes it: file and documents under the writer's lock. */
static inline int state_dir_model(
    struct store *s, const char *name, const void *data, size_t size, bool *ret_is_new, struct error *err) {
    json_t *summary = json_pack("{s:[], s:[]}", "inputs", "outputs");
    char digest[DIGEST_MAX];
    int r;

    store_lock(s);
    r = state_dir_keep(s, data, size, digest, err);
    if (r == 0)
        r = models_create(s, name, digest, size, summary, ret_is_new, err);
    if (r < 0)
        store_blob_release(s, digest);
    store_unlock(s);
    json_decref(summary);
    return r;
}

#endif
