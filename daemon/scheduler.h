/* Slots: threads that scan, compute and encode. Each has an arena of its own; a request waits in its
 * variant's bounded queue until a slot is free, then everything of that variant that waits and fits together
 * runs as one batch. A deadline that passes or a cancellation removes a request before it computes. Higher
 * priority (1 is highest, 0 the default between) goes first. */
#ifndef DAEMON_SCHEDULER_H
#define DAEMON_SCHEDULER_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/activity.h"
#include "daemon/residency.h"

struct scheduler;
struct slot;

struct sched_timing {
    uint64_t queue_ns, decode_ns, infer_ns;
    unsigned batch; /* how many items (first dimension) ran together */
    bool is_first;  /* of the works that this execution served: count it once */
};

#define SCHED_MAX_IO 64

/* One request's work. Filled in by the submitter, who keeps it alive until finish() was called; finish() is
 * called exactly once, on a slot thread (or on the submitting or cancelling thread, when it never ran). */
struct sched_work {
    struct resident *resident; /* reference owned by the work; dropped after finish */
    unsigned priority;
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */
    unsigned max_batch;   /* items that may run together; 0: never with others */
    unsigned queue_limit; /* waiting requests of this variant, else queue_full; 0: the default */

    /* On the slot, before running: fills in[] (one per input of the net, plain layout; data stays valid until
     * finish). */
    int (*prepare)(struct sched_work *w, struct tensor *in, struct error *err);
    /* The work's own rows of the outputs (plain layout), valid during the call; or the error that ended it.
     */
    void (*finish)(struct sched_work *w, const struct tensor *out, size_t n_out, const struct error *err);
    /* In place of both: anything else that should run on a slot (compare, bench). NULL: the usual. */
    void (*task)(struct sched_work *w, struct slot *slot);

    struct sched_timing timing;
    atomic_bool is_cancelled;

    /* the scheduler's own */
    struct sched_work *next;
    uint64_t queued_ns;
    struct tensor in[SCHED_MAX_IO];
};

struct scheduler_options {
    unsigned slots;
    unsigned threads_per_slot; /* pool threads of a run: latency mode */
    unsigned queue_limit;
    unsigned batch_delay_us;   /* waits that long for more; 0: never */
    struct activity *activity; /* is told of what waits and runs; NULL: nobody */
};

int scheduler_new(const struct scheduler_options *o, struct scheduler **ret, struct error *err);
/* Waits for what runs; what is queued ends with `draining`. */
struct scheduler *scheduler_free(struct scheduler *s);

/* queue_full when the queue is at its limit (finish is not called then, and the reference stays the
 * caller's), draining after scheduler_drain. */
int scheduler_submit(struct scheduler *s, struct sched_work *w, struct error *err);

/* Removes it when it still waits: finish is called with code "cancelled" by this call. Running work is not
 * touched. */
void scheduler_cancel(struct scheduler *s, struct sched_work *w);

/* No new work; returns when all is done or after timeout_ms; true: all done. */
bool scheduler_drain(struct scheduler *s, unsigned timeout_ms);

/* A network has gone: slots that are idle, or as soon as they are, let go of the memory they ran it in. */
void scheduler_trim(struct scheduler *s);

unsigned scheduler_waiting(struct scheduler *s); /* all queues */
unsigned scheduler_waiting_for(struct scheduler *s, const char *key);
bool scheduler_is_busy(struct scheduler *s);     /* a slot runs something */
uint64_t scheduler_idle_ns(struct scheduler *s); /* since the last work ended; 0: something runs or waits */

/* For tasks: runs a net on this slot's arena. `in` as plan_run; out[] is filled with views that live until
 * the next call on the slot. Returns microseconds in *ret_us. */
int slot_run(struct slot *slot, struct net *net, const struct tensor *in, struct tensor *out, size_t max_out,
    size_t *ret_n_out, double *ret_us, struct error *err);

#endif
