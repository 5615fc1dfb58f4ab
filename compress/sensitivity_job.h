/* What each layer bears: the table of a job of kind `sensitivity` and of `bonsai-worker sensitivity`. For
 * every layer that a step would touch, the damage (sensitivity.h) with only this layer compressed and with
 * all but this one, which the step touches too ("restored").
 *
 *   {"methods": [step, …], "samples": 256, "seed": 0}
 *
 * A step is one of methods.md, by itself, each measured on its own; several strengths are several steps.
 * Training is none of it: recover.finetune and recover.distill are refused. */
#ifndef COMPRESS_SENSITIVITY_JOB_H
#define COMPRESS_SENSITIVITY_JOB_H

#include <jansson.h>

#include "compress/job_io.h"
#include "compress/recipe.h"
#include "compress/samples.h"

struct sensitivity_spec {
    json_t *methods;
    int samples;
    int64_t seed;
    struct recipe *recipe; /* of the methods */
};

/* Errors carry the JSON path. sensitivity_spec_done, also on failure. */
int sensitivity_spec_read(const json_t *j, struct sensitivity_spec *ret, struct error *err);
void sensitivity_spec_done(struct sensitivity_spec *s);
/* How many samples are measured on and calibrated with, whichever is more. */
int64_t sensitivity_spec_samples(const struct sensitivity_spec *s);

struct sensitivity_job {
    const struct sensitivity_spec *spec;
    const char *input;             /* path of the network */
    const struct samples *samples; /* NULL for planning */
    const char *checkpoint;        /* folder, made if it is not there; NULL: none */
    int checkpoint_seconds;        /* a layer is kept at least so often; 0: every layer */
    uint64_t memory_bytes;         /* 0: any */
    bool is_uncached;              /* sensitivity_options */
};

/* The dry run. *ret (new reference): {"layers": [{"id", "methods": [index…]}], "methods": [{"label",
 * "affected", "skipped", "weight_bytes_before", "weight_bytes"}], "networks": how many are judged}. */
int sensitivity_job_plan(const struct sensitivity_job *job, json_t **ret, struct error *err);

/* *ret (new reference): the table (sensitivity_table.h). Killed, it goes on behind the last layer kept and
 * ends with the same table. */
int sensitivity_job_run(
    const struct sensitivity_job *job, struct job_io *io, json_t **ret, struct error *err);

#endif
