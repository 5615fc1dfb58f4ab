/* Jobs: a state table and one runner thread. jobs.c knows states, documents and events; job_run.c runs the
 * present one through spawn.h; job_finish.c turns a result into a variant. Documents (STORE_JOB) are what the
 * API shows, with two members of their own: "request" (the body as posted) and "owner".
 *
 *   queued → running → succeeded | failed | cancelled          running → interrupted → queued (a new start)
 *   failed, cancelled → queued (retry)
 */
#ifndef DAEMON_JOBS_H
#define DAEMON_JOBS_H

#include <jansson.h>

#include "base/error.h"
#include "daemon/residency.h"
#include "daemon/store.h"

struct activity;
struct job_key;
struct jobs;

enum job_state {
    JOB_QUEUED,
    JOB_RUNNING,
    JOB_SUCCEEDED,
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_INTERRUPTED,
    JOB_STATES
};
extern const char *const job_state_names[JOB_STATES];

struct jobs_options {
    const char *worker;        /* path of bonsai-worker */
    unsigned max_queued;       /* unfinished jobs; more is queue_full */
    unsigned check_limit_s;    /* of uploads and dry runs */
    unsigned max_attempts;     /* crashes of the worker until it is failed: 3 */
    unsigned seconds;          /* of a job that names no limit; 0: none */
    unsigned threads;          /* of a worker while nothing is served */
    struct activity *activity; /* what workers give way to; NULL: to nothing */
    uint64_t memory_bytes;     /* address space of a worker whose job names none; 0: what there is */
    uint64_t cache_bytes;      /* that decoded pictures may take; 0: none are kept */
};

/* Makes what was running (a kill, a power cut) queued again. The runner starts with jobs_start. */
int jobs_new(
    struct store *s, struct residency *r, const struct jobs_options *o, struct jobs **ret, struct error *err);
int jobs_start(struct jobs *j, struct error *err);
/* A running job is interrupted. */
struct jobs *jobs_free(struct jobs *j);

/* Validates the body (JSON path in errors), reserves the variant's name, queues. *ret: the job (new
 * reference), or the one that was made with the same key before. `key`: NULL: none. */
int jobs_create(
    struct jobs *j, const json_t *body, const struct job_key *key, json_t **ret, struct error *err);
/* The same checks and the worker's dry run. */
int jobs_plan(struct jobs *j, const json_t *body, json_t **ret, struct error *err);
/* queued: cancelled at once; running: asked, then killed within 10 s; cancelled: fine; else job_finished. */
int jobs_cancel(struct jobs *j, const char *id, json_t **ret, struct error *err);
int jobs_retry(struct jobs *j, const char *id, json_t **ret, struct error *err);
/* Forgets a finished one. in_use otherwise. */
int jobs_delete(struct jobs *j, const char *id, struct error *err);

/* The job with its present progress (kept in memory only). New reference, NULL: none. */
json_t *jobs_get(struct jobs *j, const char *id);
/* All, newest first; state and model may be NULL. */
json_t *jobs_list(struct jobs *j, const char *state, const char *model);
void jobs_count(struct jobs *j, unsigned ret[static JOB_STATES]);

/* Cancels a model's unfinished jobs and waits for the running one to let go. */
void jobs_cancel_model(struct jobs *j, const char *model);

/* Tells the listener of every new event of any job: the event is in the store already. Called on any thread,
 * briefly, in the order of the ids, with the store's lock held. */
typedef void jobs_listener_fn(void *ctx, const char *job, int64_t id, const char *type, const json_t *data);
void jobs_listen(struct jobs *j, jobs_listener_fn *fn, void *ctx);

/* A worker's short work for the API: the check of an uploaded model, the import of a data set. Blocking. */
int jobs_check_model(struct jobs *j, const char *path, json_t **ret_summary, struct error *err);
int jobs_import_dataset(struct jobs *j, const json_t *request, json_t **ret, struct error *err);

/* "methods" and "recipes" as bonsai-worker prints them; borrowed; loaded by jobs_new. */
const json_t *jobs_methods(const struct jobs *j);
const json_t *jobs_recipes(const struct jobs *j);

#endif
