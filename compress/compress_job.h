/* One compression: a model file, a recipe and data in, a variant file out. What `bonsai-worker run` and a
 * compress job do. */
#ifndef COMPRESS_COMPRESS_JOB_H
#define COMPRESS_COMPRESS_JOB_H

#include <jansson.h>

#include "compress/job_io.h"
#include "compress/samples.h"

#define CHECKPOINT_SECONDS 30 /* usual */

struct compress_job {
    const char *input, *output; /* paths */
    const json_t *steps;
    const struct samples *samples; /* NULL: no data */
    const char *parent_digest;     /* NULL: unknown */
    uint64_t seed;
    const char *checkpoint; /* folder, made if it is not there; NULL: none */
    int checkpoint_seconds; /* at least so often; 0: whenever it can be */
    uint64_t memory_bytes;  /* most that a step may take; 0: any */
};

/* *ret (new reference): {"layers":[{id,form}],"steps":[report…]}. */
int compress_job_run(const struct compress_job *job, struct job_io *io, json_t **ret, struct error *err);

#endif
