/* One compression: a model file, a recipe and data in, a variant file out. What `bonsai-worker run` and a
 * compress job do. */
#ifndef COMPRESS_COMPRESS_JOB_H
#define COMPRESS_COMPRESS_JOB_H

#include <jansson.h>

#include "compress/job_io.h"
#include "compress/samples.h"

struct compress_job {
    const char *input, *output; /* paths */
    const json_t *steps;
    const struct samples *samples; /* NULL: no data */
    const char *parent_digest;     /* NULL: unknown */
    uint64_t seed;
};

/* *ret (new reference): {"layers":[{id,form}],"steps":[report…]}. */
int compress_job_run(const struct compress_job *job, struct job_io *io, json_t **ret, struct error *err);

#endif
