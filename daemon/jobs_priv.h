/* What the three files of jobs share. */
#ifndef DAEMON_JOBS_PRIV_H
#define DAEMON_JOBS_PRIV_H

#include <pthread.h>

#include "daemon/job_metrics.h"
#include "daemon/jobs.h"

struct jobs {
    struct store *store;
    struct residency *residency;
    struct jobs_options options;
    double end_s; /* when the running job's time is over; the runner's own */
    char *worker;
    json_t *methods, *recipes;
    pthread_mutex_t lock; /* protects what follows */
    pthread_cond_t changed;
    char running[40]; /* id of the present job, "" */
    bool cancel_running, is_ending;
    json_t *progress;            /* of the running job */
    struct job_metrics *metrics; /* the same; they come into its document with its next state */
    jobs_listener_fn *listener;
    void *listener_ctx;
    pthread_t runner;
    bool has_runner;
};

bool job_is_final(const json_t *doc);
enum job_state job_state_of(const json_t *doc);

/* The only function that changes a state. `more` (may be NULL): members to set besides; `changes`: applied in
 * the same transaction. -EEXIST (job_finished) when the table has no such transition. */
int job_set_state(struct jobs *j, const char *id, enum job_state to, const json_t *more,
    struct store_change *changes, size_t n_changes, struct error *err);
void job_event(struct jobs *j, const char *id, const char *type, json_t *data); /* takes data */

/* Runs the job to its end: a final state, or interrupted. */
void job_run(struct jobs *j, const char *id);

/* The worker's result becomes a variant; *ret: the job's `result`. Sets the job's final state. */
int job_finish_compress(struct jobs *j, json_t *job, const char *path, json_t *done, struct error *err);
/* Checks a worker's file like an upload and keeps it. */
int job_keep_file(struct jobs *j, const char *path, char digest[static DIGEST_MAX], uint64_t *ret_bytes,
    json_t **ret_summary, struct error *err);
int job_finish_evaluate(struct jobs *j, json_t *job, json_t *done, struct error *err);

/* One more conversation with a worker as part of a running job: its progress and cancellation are the job's.
 */
int job_call(struct jobs *j, const char *id, const json_t *request, json_t **ret, struct error *err);

/* A copy of a worker's request in which limits.memory_bytes stands, at its default if the job names none, and
 * how many threads there are. */
json_t *job_limited(const struct jobs *j, const json_t *request);

bool job_must_stop(struct jobs *j); /* cancelled, or the daemon ends */

#endif
