/* What a server tells the processes that work for it in the background: how many threads they may use now.
 * One page of shared memory; the server writes it, a worker inherits a descriptor that can only be read. */
#ifndef BASE_ACTIVITY_H
#define BASE_ACTIVITY_H

#include <stdatomic.h>

#include "base/error.h"

#define ACTIVITY_ALL_THREADS 0xffffffffu

struct activity_page {
    atomic_uint threads;  /* that may work; ACTIVITY_ALL_THREADS while nobody is served */
    atomic_uint n_pauses; /* how often the process was stopped: what it timed meanwhile is worth nothing */
};

/* Maps what the descriptor holds, which is then closed. The page stays as long as the process. */
int activity_map(int fd, const struct activity_page **ret, struct error *err);

#endif
