/* Jobs of kind `sensitivity`: what each layer of a variant bears, of several steps. Nothing is made but the
 * table (compress/sensitivity_table.h), which is the job's `result` with `model`, `from`, `digest` and
 * `dataset` before it.
 *
 * The same question (the variant's content, the pictures, how they are fed, steps, samples, seed, version of
 * the program) that a job which is still there has answered is answered from it at once; `answered_by` names
 * that job. */
#ifndef DAEMON_JOB_SENSITIVITY_H
#define DAEMON_JOB_SENSITIVITY_H

#include "daemon/jobs_priv.h"

bool job_is_sensitivity(const json_t *doc);

/* As job_request_check(): model, from, dataset and limits; the rest is the worker's dry run. */
int job_sensitivity_check(struct store *s, const json_t *body, json_t **ret, struct error *err);

/* The worker's line for `kind` (sensitivity, plan). */
int job_sensitivity_request(
    struct store *s, const json_t *doc, const char *kind, json_t **ret, struct error *err);

/* Ends the job, which is running, if its question was answered before. 1: it is; 0: it was not. */
int job_sensitivity_answer(struct jobs *j, const json_t *doc, struct error *err);

/* A job that was just queued: succeeded before its turn comes, if its question was answered before. */
void job_sensitivity_try(struct jobs *j, const char *id);

/* The worker's table becomes the result. Sets the job's final state. */
int job_finish_sensitivity(struct jobs *j, const json_t *doc, const json_t *done, struct error *err);

/* The result as lists of jobs show it. New reference. */
json_t *job_sensitivity_row(const json_t *result);

#endif
