#include "compress/lowrank_saved.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/replace_file.h"

#define MAX_PATH 4096

static int path_of(const struct work *work, char ret[static MAX_PATH], struct error *err) {
    if (snprintf(ret, MAX_PATH, "%s/step%zu.latencies.json", work->checkpoint, work->step) >= MAX_PATH)
        return error_set(err, -ENAMETOOLONG, "the path of the checkpoint is too long");
    return 0;
}

int lowrank_saved_read(const struct work *work, json_t **ret, struct error *err) {
    char path[MAX_PATH];
    int r = work->checkpoint ? path_of(work, path, err) : 0;

    *ret = r == 0 && work->checkpoint ? json_load_file(path, 0, NULL) : NULL;
    return r;
}

int lowrank_saved_write(const struct work *work, const json_t *latencies, struct error *err) {
    _cleanup_(replace_file_done) struct replace_file f = {.fd = -1};
    _cleanup_(freep) char *text = NULL;
    char path[MAX_PATH];
    int r = work->checkpoint ? path_of(work, path, err) : 0;

    if (r < 0 || !work->checkpoint)
        return r;
    text = json_dumps(latencies, JSON_COMPACT);
    r = text ? replace_file_open(path, &f, err) : error_oom(err);
    if (r == 0)
        r = replace_file_write(&f, text, strlen(text), err);
    return r == 0 ? replace_file_commit(&f, err) : r;
}
