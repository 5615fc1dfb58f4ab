/* The kinds of jobs the daemon gives to a worker: one row each. */
#ifndef COMPRESS_JOB_KINDS_H
#define COMPRESS_JOB_KINDS_H

#include <jansson.h>

#include "compress/feed.h"
#include "compress/job_io.h"

struct job_kind {
    const char *name;
    /* *ret: the result (new reference). */
    int (*run)(const json_t *job, struct job_io *io, json_t **ret, struct error *err);
};

extern const struct job_kind job_check, job_compress, job_dataset, job_evaluate, job_methods, job_plan,
    job_sensitivity, job_train;

/* A string member that must be there. */
int job_string(const json_t *job, const char *key, const char **ret, struct error *err);

/* The job's `steps`, or those of its `recipe`. New reference. */
int job_steps(const json_t *job, json_t **ret, struct error *err);

/* Where a job that is told of a `cache` keeps decoded pictures. Its strings are the job's. */
struct picture_cache_place job_cache(const json_t *job);

/* {"methods", "recipes"} as the API shows them: beside the methods' items the zoo's `networks`, and as
 * `train` the JSON Schema of a training. New reference. */
json_t *methods_json(void);

/* The file of a pack; data_required for a path of NULL. */
int job_pack_open(const char *path, struct pack **ret, struct error *err);

/* The dry run of a job with a member `sensitivity` (sensitivity_job.h). */
int job_sensitivity_plan(const json_t *job, json_t **ret, struct error *err);

/* The dry run of a job with a member `train` (train_spec.h). */
int job_train_plan(const json_t *job, json_t **ret, struct error *err);

/* Calibration samples for a network: the split `train`, or without one `test` (*ret_is_test). `source`
 * becomes theirs, with its pack and JSON references, also on failure; samples_done. */
int job_samples_of(struct feed_source *source, const struct graph *g, uint64_t most, struct samples *ret,
    bool *ret_is_test, struct error *err);

/* The same from a job's `pack`, `preprocess`, `labels` and `cache`; `job` must live as long. */
int job_samples_open(const json_t *job, const struct graph *g, uint64_t most, struct samples *ret,
    bool *ret_is_test, struct error *err);

#endif
