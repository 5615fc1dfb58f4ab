/* Jobs of kind `train`: a new model from a data set's pictures. The body is the training's specification
 * (compress/train_spec.h, which the worker reads) with members of the daemon's own: kind, model, dataset,
 * limits, priority. */
#ifndef DAEMON_JOB_TRAIN_H
#define DAEMON_JOB_TRAIN_H

#include "daemon/jobs_priv.h"

/* As job_request_check(): model, dataset, from and limits; the rest is the worker's dry run. */
int job_train_check(struct store *s, const json_t *body, json_t **ret, struct error *err);
/* May it run once more? Errors: not_found, name_taken. */
int job_train_check_again(struct store *s, const json_t *doc, struct error *err);

/* The worker's line for `kind` (train, plan). `output`: where it writes, or NULL. */
int job_train_request(struct store *s, const json_t *doc, const char *kind, const char *output, json_t **ret,
    struct error *err);

/* The worker's file becomes a model: checked like an upload, then model, variant, evaluation and the job's
 * end in one transaction. */
int job_finish_train(struct jobs *j, json_t *job, const char *path, json_t *done, struct error *err);

#endif
