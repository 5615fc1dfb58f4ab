/* Serving comes before everything that works in the background. A worker that computes for long follows this
 * rule:
 *
 *   nobody has been served for ACTIVITY_QUIET_MS    all threads
 *   requests come, and a core is free               one thread
 *   no core is free                                 none: the process is stopped (SIGSTOP), and goes on
 *                                                   ACTIVITY_LINGER_MS after a core was free again
 *   … without an end                                in every ACTIVITY_PERIOD_MS one thread for
 * ACTIVITY_SHARE_MS
 *
 * What may work is told through a page of shared memory, which the worker reads between two layers. What must
 * not wait for a layer's end is the kernel's business: a stop takes effect on all threads at once, whatever
 * they do, and needs nothing of the worker: no handler, no flag to look at in every loop, no call that is
 * interrupted. It costs the request that causes it a system call a thread. The worker's memory stays as it
 * is, so that its result does not know of pauses; it can be killed as ever, and dies with its parent. */
#ifndef DAEMON_ACTIVITY_H
#define DAEMON_ACTIVITY_H

#include <stdint.h>
#include <sys/types.h>

#include "base/activity.h"
#include "base/cleanup.h"

#define ACTIVITY_QUIET_MS  200
#define ACTIVITY_LINGER_MS 4
#define ACTIVITY_PERIOD_MS 500
#define ACTIVITY_SHARE_MS  10

struct activity;

/* `cores`: of the machine, for requests; `cores_a_request`: that one of them keeps busy. */
int activity_new(unsigned cores, unsigned cores_a_request, struct activity **ret, struct error *err);
struct activity *activity_free(struct activity *a);
DEFINE_CLEANUP(struct activity *, activity_free)

/* A piece of work waits or runs that needs a core; `n` of them have ended, or have been joined to others. Any
 * thread, some nanoseconds while no worker is to be stopped. `a` may be NULL. */
void activity_begin(struct activity *a);
void activity_end(struct activity *a, unsigned n);

/* A readable descriptor of the page, for a worker to inherit; close-on-exec here. */
int activity_fd(const struct activity *a);

/* From now on the process gives way to requests. One at a time. It is the caller's child and not reaped
 * before activity_detach(), which lets it go on. */
void activity_attach(struct activity *a, pid_t pid);
void activity_detach(struct activity *a);

/* For figures: how often a worker was stopped. */
unsigned activity_pauses(const struct activity *a);

#endif
