/* What kernels cost, as measured on this machine: times by key, kept in a file. A key says all that the time
 * depends on (plan_time.c writes it); the file says the processor and the set of kernels, and is of no use
 * for another one. Any number of nets and threads share one tuner.
 *
 *   bonsaid timings 1
 *   cpu Intel(R) Xeon(R) Platinum 8581C
 *   kernels 5e0f9c3107d2b846
 *   t 2 208.4 211.9 conv_f32_onednn nhwc>nhwc 1 Conv …      microseconds of two rounds, key
 *
 * A file that cannot be read is not an error of anybody's: it is measured anew. */
#ifndef ENGINE_TUNE_H
#define ENGINE_TUNE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/error.h"

struct tuner;

/* A choice is replaced only by what is surely faster: in each of two rounds, measured apart. */
#define TUNE_ROUNDS  2
#define TUNE_KEY_MAX 1024

struct timing {
    int n_rounds;          /* measured so far, 0 to TUNE_ROUNDS */
    float us[TUNE_ROUNDS]; /* INFINITY: the kernel refuses the layer after all */
};

/* `path` NULL: nothing is read or kept. `why`, if there is a file and it is not taken, says so; may be NULL.
 * 0 or -ENOMEM. */
int tuner_new(const char *path, struct tuner **ret, struct error *why);
struct tuner *tuner_free(struct tuner *t);
DEFINE_CLEANUP(struct tuner *, tuner_free)

/* When to leave off. What was measured until then stays. */
struct tune_limits {
    double seconds;                 /* of this call */
    bool (*should_stop)(void *ctx); /* asked between kernels; NULL: never */
    void *ctx;
};

/* All zero when nothing is known. */
struct timing tuner_get(struct tuner *t, const char *key);
/* Keys have no line breaks and are shorter than TUNE_KEY_MAX. 0 or -ENOMEM; beyond a great many keys nothing
 * more is kept. */
int tuner_put(struct tuner *t, const char *key, const struct timing *timing);
size_t tuner_count(struct tuner *t);

/* Writes the file anew, if anything was put since the last time: a reader sees the old one or the new one. */
int tuner_save(struct tuner *t, struct error *err);

#endif
