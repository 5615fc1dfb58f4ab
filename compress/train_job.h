/* One training: a specification and a data set in, a model file out, with labels and preprocessing in its
 * metadata. What `bonsai-worker train` and a job of kind `train` do; and the same looked at before. */
#ifndef COMPRESS_TRAIN_JOB_H
#define COMPRESS_TRAIN_JOB_H

#include <jansson.h>

#include "compress/job_io.h"
#include "compress/picture_cache.h"
#include "image/pack.h"

struct train_job {
    const json_t *spec;          /* train_spec.h */
    struct pack *pack;           /* stays the caller's */
    const char *input;           /* the ONNX file that a spec with `from` means */
    json_t *preprocess, *labels; /* of `input`; NULL or null: as its metadata says */
    const char *dataset;         /* its name, for the evaluation; NULL: none */
    const char *output;          /* path; NULL for planning */
    const char *checkpoint;      /* folder, made if it is not there; NULL: none */
    int checkpoint_seconds;      /* at least so often; 0: after every step */
    uint64_t memory_bytes;       /* most that training may take; 0: any */
    struct picture_cache_place cache;
};

/* The dry run. *ret (new reference): {"network", "input", "classes", "parameters", "macs", "bytes",
 * "pictures", "memory_bytes", "options", "labels"}. Errors: those of train_spec_read, zoo_new
 * and train_pictures_look; unsupported_operator of a node without gradient; bad_dataset. */
int train_job_plan(const struct train_job *job, json_t **ret, struct error *err);

/* *ret (new reference): {"network", "parameters", "macs", "labels", "preprocess", "training": what learn()
 * reports, "layers": [{id, form}], "test_accuracy", "evaluation", "latency", "layer_us"}; the last four are
 * null without a split `test` of two classes. */
int train_job_run(const struct train_job *job, struct job_io *io, json_t **ret, struct error *err);

#endif
