/* Event streams: the hub between the daemon's jobs and the clients that watch. */
#ifndef API_EVENTS_H
#define API_EVENTS_H

#include "daemon/jobs.h"

struct events;

/* Listens to the jobs. */
struct events *events_new(struct jobs *j, struct store *s);
struct events *events_free(struct events *e);

#endif
