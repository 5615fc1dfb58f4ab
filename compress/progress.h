/* What a long computation tells its caller, and how the caller stops it. */
#ifndef COMPRESS_PROGRESS_H
#define COMPRESS_PROGRESS_H

#include <stdbool.h>

#include "base/error.h"

struct progress {
    void *ctx;
    unsigned threads;
    /* How many of them may work now: asked again and again, never 0. NULL: all. */
    unsigned (*allowed)(void *ctx);
    /* fraction of the present step in [0, 1]. */
    void (*report)(void *ctx, double fraction, const char *message);
    bool (*is_cancelled)(void *ctx);
    /* A figure of an epoch (from 1): "loss", "val_accuracy" …. NULL: nobody is interested. */
    void (*metric)(void *ctx, const char *name, double value, int epoch);
    /* A sentence that stays among the job's events. NULL: nobody is interested. */
    void (*event)(void *ctx, const char *text);
};

/* Reports, and fails with code "cancelled" (-ECANCELED) when the caller wants no more. `p` may be NULL. */
int progress_at(const struct progress *p, double fraction, const char *message, struct error *err);

/* What a loop did ("round 2 of 5: …"), at most 255 bytes of it. `p` may be NULL. */
void progress_event(const struct progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A piece of a longer computation that reports as if it were all: its 0 to 1 is `first` to first + share of
 * the whole. Epochs' figures are not passed on: each piece counts them from 1. */
struct progress_part {
    struct progress progress; /* for the piece; as long as this lives */
    const struct progress *whole;
    double first, share;
};

/* `whole` may be NULL; it and `ret` stay where they are. */
void progress_part_init(struct progress_part *ret, const struct progress *whole, double first, double share);

#endif
