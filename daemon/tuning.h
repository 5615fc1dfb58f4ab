/* Serve first, tune when idle: a thread that measures the kernels of what is loaded while no request runs,
 * leaves off as soon as one comes, and has the plans swapped when it found better ones (net_tune). */
#ifndef DAEMON_TUNING_H
#define DAEMON_TUNING_H

#include "daemon/residency.h"
#include "daemon/scheduler.h"

struct tuning;

/* The three live longer. */
int tuning_new(
    struct residency *r, struct scheduler *s, struct tuner *t, struct tuning **ret, struct error *err);
/* Waits for the kernel that runs. */
struct tuning *tuning_free(struct tuning *t);

#endif
