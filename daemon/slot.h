/* A slot's side of the scheduler: one thread's arena and buffers, and how a list of works is run on them. */
#ifndef DAEMON_SLOT_H
#define DAEMON_SLOT_H

#include "daemon/scheduler.h"

int slot_new(unsigned threads, struct slot **ret, struct error *err);
struct slot *slot_free(struct slot *s);

/* Gives arena and buffers back; the next work takes anew what it needs. */
void slot_trim(struct slot *s);

/* Prepares, runs (together where they fit) and finishes all works of the list, dropping their references. */
void slot_work(struct slot *s, struct sched_work *list);

#endif
