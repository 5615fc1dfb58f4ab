/* What a job's body says, checked against the contract and the store, and what the worker is told. */
#ifndef DAEMON_JOB_REQUEST_H
#define DAEMON_JOB_REQUEST_H

#include <jansson.h>

#include "daemon/store.h"

/* *ret: the job's document, without an id (new reference). The variant's name is free. Call under store_lock
 * to keep it so. */
int job_request_check(struct store *s, const json_t *body, json_t **ret, struct error *err);
/* Is a finished job's request still possible? */
int job_request_check_again(struct store *s, const json_t *doc, struct error *err);

/* Of kind train: it makes a model instead of a variant. */
bool job_is_training(const json_t *doc);

/* The job line for `kind` (compress, sensitivity, train, plan); `output`: where the worker writes, or NULL.
 */
int job_request_for_worker(struct store *s, const json_t *doc, const char *kind, const char *output,
    json_t **ret, struct error *err);

/* {"variants":[{name,path}],"reference",…} for an evaluation of these variants' documents. */
int job_request_evaluate(struct store *s, const char *model, const json_t *variants, const char *dataset,
    const char *split, json_t **ret, struct error *err);

/* ---- what kinds of jobs share ---- */

/* A string member; dflt stands for null and nothing, NULL: it must be there. */
int job_request_string(
    const json_t *body, const char *key, const char *dflt, const char **ret, struct error *err);
/* `limits` and `priority`. */
int job_request_limits(const json_t *body, struct error *err);
/* `dataset` is the name of one. */
int job_request_dataset(struct store *s, const json_t *body, bool is_needed, struct error *err);
/* Path of the data set's pack, or null without a data set. New reference. */
int job_request_pack(struct store *s, const char *dataset, json_t **ret, struct error *err);
/* A queued job's document, without its id. Takes variant and steps. */
json_t *job_request_doc(
    const json_t *body, const char *kind, const char *model, json_t *variant, json_t *steps);

#endif
