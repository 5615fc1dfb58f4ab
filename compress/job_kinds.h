/* The kinds of jobs the daemon gives to a worker: one row each. */
#ifndef COMPRESS_JOB_KINDS_H
#define COMPRESS_JOB_KINDS_H

#include <jansson.h>

#include "compress/job_io.h"
#include "compress/samples.h"
#include "engine/graph.h"
#include "image/pack.h"

struct job_kind {
    const char *name;
    /* *ret: the result (new reference). */
    int (*run)(const json_t *job, struct job_io *io, json_t **ret, struct error *err);
};

extern const struct job_kind job_check, job_compress, job_dataset, job_evaluate, job_methods, job_plan;

/* A string member that must be there. */
int job_string(const json_t *job, const char *key, const char **ret, struct error *err);

/* The job's `steps`, or those of its `recipe`. New reference. */
int job_steps(const json_t *job, json_t **ret, struct error *err);

/* Calibration samples for a network: the split `train`, or without one `test` (*ret_is_test), with
 * all of the pack as their source. Takes the pack, also on failure; samples_done. */
int job_samples_of(struct pack *pack, const struct graph *g, json_t *preprocess, json_t *labels,
    uint64_t most, struct samples *ret, bool *ret_is_test, struct error *err);

/* The same of a pack file. */
int job_samples_open(const char *pack_path, const struct graph *g, json_t *preprocess, json_t *labels,
    uint64_t most, struct samples *ret, bool *ret_is_test, struct error *err);

#endif
