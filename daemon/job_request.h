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

/* The job line for `kind` (compress, plan); `output`: where the worker writes, or NULL. */
int job_request_for_worker(struct store *s, const json_t *doc, const char *kind, const char *output,
    json_t **ret, struct error *err);

/* {"variants":[{name,path}],"reference",…} for an evaluation of these variants' documents. */
int job_request_evaluate(struct store *s, const char *model, const json_t *variants, const char *dataset,
    const char *split, json_t **ret, struct error *err);

#endif
