/* The metrics of one job as the API shows them, however many its worker tells: at most JOB_METRICS_MAX,
 * spread evenly. Of each name every stride-th is kept and always the last; when there are too many, the
 * stride doubles. All of them are among the job's events, from which the list is made again after a kill. Not
 * locked. */
#ifndef DAEMON_JOB_METRICS_H
#define DAEMON_JOB_METRICS_H

#include <jansson.h>

#include "base/cleanup.h"
#include "daemon/store.h"

#define JOB_METRICS_MAX  1000
#define JOB_METRIC_NAMES 32 /* metrics of further ones are events only */

struct job_metrics;

/* Of what the job has told so far. NULL: no memory. */
struct job_metrics *job_metrics_new(struct store *s, const char *job);
struct job_metrics *job_metrics_free(struct job_metrics *m);
DEFINE_CLEANUP(struct job_metrics *, job_metrics_free)

/* {"name", "value", "epoch", "at"}; keeps a reference of its own. */
void job_metrics_add(struct job_metrics *m, json_t *metric);

/* In the order in which they came. New array. */
json_t *job_metrics_list(const struct job_metrics *m);

#endif
