/* The worker's side of the pipe to its caller: JSON lines out (progress, metric, log, done, error), control
 * lines in
 * ({"cancel":true}, {"threads":n}), read by a thread of their own. `run` at a terminal prints the same lines.
 */
#ifndef COMPRESS_JOB_IO_H
#define COMPRESS_JOB_IO_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/activity.h"
#include "compress/progress.h"

#define JOB_LINE_MAX (64u << 20)

struct job_io {
    atomic_bool is_cancelled;
    atomic_uint threads;                  /* as the last control line says */
    const struct activity_page *activity; /* of the server that this works for; NULL: none */
    int step, of;                         /* of the recipe, for progress lines */
    double started_s;                     /* of the present step, for the estimate */
    double last_s;                        /* of the last progress line: they are at least 100 ms apart */
    struct progress progress;             /* hand this to methods */
};

void job_io_init(struct job_io *io, unsigned threads);

/* The job's `threads`, and the server's page, which a worker that has it inherits as JOB_PAGE_FD. */
#define JOB_PAGE_FD 3
int job_io_follow(struct job_io *io, const json_t *job, struct error *err);

/* Starts reading control lines from standard input until its end, which also cancels: the caller is gone. */
int job_io_listen(struct job_io *io, struct error *err);

void job_io_step(struct job_io *io, int step, int of, const char *message);
void job_io_log(const char *level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void job_io_metric(const char *name, double value, int epoch);

/* The last line; both return the exit status. done takes the reference. */
int job_io_done(json_t *result);
/* Of the API's closed list, derived from the errno where the error names none. */
const char *job_error_code(const struct error *err);
int job_io_fail(const struct error *err);

/* One line from standard input as JSON. */
int job_io_read(json_t **ret, struct error *err);

#endif
