#include "compress/offline_data.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "compress/command.h"
#include "compress/dataset.h"
#include "compress/job_kinds.h"
#include "compress/model_props.h"
#include "engine/onnx.h"

/* `old`: its other splits are carried over; NULL: none. */
static int import(const char *path, const char *split, const struct pack *old, struct pack **ret,
    bool *ret_divided, struct error *err) {
    const struct dataset_options o = {
        .split = split, .old = old, .max_bytes = 16ull << 30, .max_members = 1000000};
    _cleanup_(closep) int in = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_(fclosep) FILE *out = tmpfile();
    json_t *summary = NULL;
    int r;

    if (in < 0 || !out)
        return error_errno(err, "'%s'", path);
    r = dataset_import(in, fileno(out), &o, NULL, &summary, err);
    if (ret_divided)
        *ret_divided = json_is_true(json_object_get(summary, "divided"));
    json_decref(summary);
    return r < 0 ? r : pack_open(fileno(out), ret, err);
}

int offline_pack(
    const char *path, const char *split, struct pack **ret, bool *ret_divided, struct error *err) {
    return import(path, split, NULL, ret, ret_divided, err);
}

int offline_splits(const char *data, const char *test, struct pack **ret, struct error *err) {
    _cleanup_(pack_freep) struct pack *p = NULL;
    bool is_divided = false;
    int r = import(data, NULL, NULL, &p, &is_divided, err);

    if (r == 0 && is_divided && test) { /* nothing of it need be kept for judging */
        p = pack_free(p);
        r = import(data, "train", NULL, &p, NULL, err);
    } else if (r == 0 && is_divided) {
        job_io_log("info", "the archive has no splits: a fifth of it is kept as 'test'");
    }
    if (r == 0 && test)
        return import(test, "test", p, ret, NULL, err);
    if (r == 0)
        *ret = TAKE(p);
    return r;
}

int offline_preprocess(const char *path, json_t **ret, json_t **ret_labels, struct error *err) {
    json_t *file = NULL, *inner;
    int r;

    *ret = *ret_labels = NULL;
    if (!path)
        return 0;
    r = command_read_json(path, &file, err);
    if (r < 0)
        return r;
    inner = json_object_get(file, "preprocess");
    *ret = json_incref(inner ? inner : file);
    *ret_labels = inner ? json_incref(json_object_get(file, "labels")) : NULL;
    json_decref(file);
    return 0;
}

int offline_source(const char *data, const char *preprocess, struct feed_source *ret, struct error *err) {
    struct feed_source s = {.cache = {.budget = OFFLINE_CACHE_BYTES}};
    int r = offline_preprocess(preprocess, &s.preprocess, &s.labels, err);

    if (r == 0)
        r = offline_pack(data, NULL, &s.pack, NULL, err);
    if (r < 0) {
        feed_source_done(&s);
        return r;
    }
    *ret = s;
    return 0;
}

static int pack_samples(const char *model, const char *data, const char *preprocess, int64_t most,
    struct samples *ret, struct error *err) {
    _cleanup_(closep) int fd = open(model, O_RDONLY | O_CLOEXEC);
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct feed_source source = {0};
    bool is_test = false;
    int r;

    if (fd < 0)
        return error_errno(err, "'%s'", model);
    r = onnx_read_fd(fd, &g, err);
    if (r == 0)
        r = offline_source(data, preprocess, &source, err);
    if (r == 0 && !source.preprocess) /* as the file says of itself */
        model_props_read(g, &source.labels, &source.preprocess);
    if (r == 0)
        r = job_samples_of(&source, g, (uint64_t)most, ret, &is_test, err);
    if (r == 0 && is_test)
        job_io_log("warning", "the data set has no split 'train': calibrated on 'test'");
    return r;
}

int offline_samples(const char *model, const char *data, const char *preprocess, int64_t most,
    struct samples *ret, struct error *err) {
    size_t n = strlen(data);

    return n > 4 && !strcmp(data + n - 4, ".npy") ? samples_from_npy(data, ret, err)
                                                  : pack_samples(model, data, preprocess, most, ret, err);
}
