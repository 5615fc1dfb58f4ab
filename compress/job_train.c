/* The kind of job that makes a network from pictures, and its dry run. */
#include <errno.h>
#include <fcntl.h>

#include "base/cleanup.h"
#include "compress/compress_job.h"
#include "compress/job_kinds.h"
#include "compress/train_job.h"

/* The members that say what is trained, on what. Takes the pack; it stays the caller's to free. */
static int read_job(const json_t *job, struct train_job *ret, struct error *err) {
    *ret = (struct train_job){.spec = json_object_get(job, "train"),
        .input = json_string_value(json_object_get(job, "input")),
        .preprocess = json_object_get(job, "preprocess"),
        .labels = json_object_get(job, "labels"),
        .dataset = json_string_value(json_object_get(job, "dataset")),
        .checkpoint = json_string_value(json_object_get(job, "checkpoint")),
        .checkpoint_seconds = CHECKPOINT_SECONDS,
        .memory_bytes =
            (uint64_t)json_integer_value(json_object_get(json_object_get(job, "limits"), "memory_bytes"))};
    return job_pack_open(json_string_value(json_object_get(job, "pack")), &ret->pack, err);
}

int job_train_plan(const json_t *job, json_t **ret, struct error *err) {
    struct train_job t;
    int r = read_job(job, &t, err);

    if (r == 0)
        r = train_job_plan(&t, ret, err);
    pack_free(t.pack);
    return r;
}

static int run_train(const json_t *job, struct job_io *io, json_t **ret, struct error *err) {
    struct train_job t;
    int r = read_job(job, &t, err);

    if (r == 0)
        r = job_string(job, "output", &t.output, err);
    t.cache = job_cache(job); /* not for the dry run, which reads no pictures */
    if (r == 0)
        r = train_job_run(&t, io, ret, err);
    pack_free(t.pack);
    return r;
}

const struct job_kind job_train = {.name = "train", .run = run_train};
