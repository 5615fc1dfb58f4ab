/* What sensitivity.c, sensitivity_run.c and sensitivity_score.c share. */
#ifndef COMPRESS_SENSITIVITY_PRIV_H
#define COMPRESS_SENSITIVITY_PRIV_H

#include "compress/graph_cut.h"
#include "compress/sensitivity.h"
#include "engine/shape_infer.h"

/* Values of a base for all samples, in batches. */
struct kept {
    size_t n;
    int *value;       /* [n] ids in the base: the first of those with the same digest */
    struct tensor *t; /* [n_batches][n], data owned */
    size_t n_tensors;
    uint64_t bytes;
};

struct sensitivity_base {
    struct graph *graph; /* owned */
    struct cut_digests digests;
    struct shapes shapes; /* of a batch of two samples */
    bool *is_cuttable;    /* by value id: floats of each sample that no rounding follows */
    float **answers;      /* [n_outputs][n samples][per_sample] */
    struct kept kept;
};

#define SENSITIVITY_MAX_BASES 96

struct sensitivity {
    const struct samples *samples;
    struct sensitivity_options o;
    struct sensitivity_facts facts;
    int64_t batch; /* samples in one run */
    int64_t item;  /* numbers of a sample */
    float *x;      /* [n][item] all samples, when they fit; NULL: they are read again and again */
    size_t n_bases;
    struct sensitivity_base base[SENSITIVITY_MAX_BASES];
    int64_t *per_sample; /* [n_outputs] numbers */
    bool is_softmax;     /* the answers are probabilities; else logits */
    int32_t *answer;
    int64_t *label;
};

/* ---- sensitivity_run.c ---- */

/* out[k] of wanted[k]; samples first … first + count - 1. */
typedef int sensitivity_sink(
    void *ctx, int64_t first, int64_t count, const struct tensor *out, struct error *err);

/* Computes values `wanted` of `g` for all samples. `d`: digests of `g`, by which what the base has in common
 * is not computed again; NULL: from the input on. */
int sensitivity_run(struct sensitivity *s, struct sensitivity_base *b, const struct graph *g,
    const struct cut_digests *d, const int *wanted, size_t n_wanted, sensitivity_sink *sink, void *ctx,
    struct error *err);
void kept_done(struct kept *k);

/* ---- sensitivity_score.c ---- */

/* What kind of answers the parent's are; its classes. */
int score_parent(struct sensitivity *s, struct error *err);

struct score {
    struct sensitivity *s;
    struct sensitivity_damage *d;
    double *error, *size; /* [n_outputs] sums of squares */
    double *p;            /* room for two distributions */
};

int score_begin(struct sensitivity *s, struct sensitivity_damage *d, struct score *ret, struct error *err);
/* y[o]: output o of `count` samples from `first` on. */
void score_add(struct score *c, int64_t first, int64_t count, const float *const *y);
void score_end(struct score *c);
void score_done(struct score *c);

#endif
