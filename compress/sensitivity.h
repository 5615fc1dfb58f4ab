/* Damage: how far the answers of a changed network are from those of the one it was made from, on samples,
 * without labels. What jobs of kind `sensitivity` measure for each layer and method (sensitivity_job.h), and
 * what methods decide by (prune's scope `sensitivity`).
 *
 * Of classifiers (first output [N][K] or [N][K][1][1] of floats, K > 1) the damage is the mean over samples
 * of the Kullback-Leibler divergence KL(parent || changed) of the softmax of the answers, in nats; of others
 * the largest relative L2 error of an output, |y' - y| / |y| over all samples.
 *
 * A network is judged beside a base: a network it differs little from (the parent, the parent folded, all
 * layers compressed). What both have in common is not computed again: the values that cross the cut between
 * the common part and the rest are kept for all samples, within `cache_bytes`, and the next cut behind it is
 * computed from them; what does not fit is computed again, batch by batch, with the same answers. Judge
 * changes of layers in topological order. */
#ifndef COMPRESS_SENSITIVITY_H
#define COMPRESS_SENSITIVITY_H

#include "base/cleanup.h"
#include "compress/progress.h"
#include "compress/samples.h"
#include "engine/graph.h"

#define SENSITIVITY_SAMPLES     256
#define SENSITIVITY_CACHE_BYTES (256ull << 20)

struct sensitivity;

struct sensitivity_options {
    int64_t samples;      /* at most so many of them; 0: SENSITIVITY_SAMPLES */
    uint64_t cache_bytes; /* of kept values; 0: SENSITIVITY_CACHE_BYTES */
    bool is_uncached;     /* every network is computed from its input: to see what the cache brings */
    const struct progress *progress; /* for cancellation; may be NULL */
};

struct sensitivity_facts {
    int64_t n;         /* samples in use */
    int64_t n_classes; /* 0: no classifier */
    size_t n_outputs;
    const int32_t *answer;             /* [n] the parent's class of each sample; NULL: no classifier */
    const int64_t *label;              /* [n] the right one, -1: not known; NULL: no labels */
    int64_t n_labels, n_correct;       /* samples with a label; those that the parent has right */
    uint64_t layers_run, layers_whole; /* with weights, times samples: computed, and what it would have been
                                          with every network computed from its input */
};

struct sensitivity_damage {
    double damage;
    bool is_same;         /* the network is its base: nothing was changed */
    double kl, agreement; /* mean; share of samples with the parent's class; NAN: no classifier */
    int64_t n01, n10;     /* with labels: right before and wrong now; wrong before and right now */
    double *relative_l2;  /* [n_outputs] */
    double *sample;       /* [n] each sample's damage */
    int32_t *answer;      /* [n] its class now; NULL: no classifier */
};

/* `parent` is copied; `samples` must live as long. Labels come from samples whose `feed` is set. Errors:
 * method_not_applicable: other than one input, outputs that are not floats of each sample. */
int sensitivity_open(const struct graph *parent, const struct samples *samples,
    const struct sensitivity_options *o, struct sensitivity **ret, struct error *err);
struct sensitivity *sensitivity_free(struct sensitivity *s);
DEFINE_CLEANUP(struct sensitivity *, sensitivity_free)

const struct sensitivity_facts *sensitivity_facts(const struct sensitivity *s);
/* The parent's answers as they are in memory, for digests: output `i`, *ret_n numbers. */
const float *sensitivity_answers(const struct sensitivity *s, size_t i, int64_t *ret_n);

/* *ret: the number of a base for sensitivity_judge; 0 is the parent. `g` is copied; one that is the same as
 * an earlier base gets its number. */
int sensitivity_add_base(struct sensitivity *s, const struct graph *g, size_t *ret, struct error *err);

/* Judges `g` against the parent. sensitivity_damage_done. */
int sensitivity_judge(struct sensitivity *s, size_t base, const struct graph *g,
    struct sensitivity_damage *ret, struct error *err);
void sensitivity_damage_done(struct sensitivity_damage *d);

/* What small damages of several layers nearly add up in: the divergence, else the square of the error. */
double sensitivity_cost(const struct sensitivity_damage *d);

/* ---- all at once ---- */

struct sensitivity_ask {
    /* A changed copy of the parent (the caller frees it). */
    int (*make)(void *ctx, const struct graph *parent, struct graph **ret, struct error *err);
    void *ctx;
};

/* ret[i] (n of them) for asks[i], which come in the topological order of what they change. On failure
 * nothing is left in `ret`. */
int sensitivity_measure(const struct graph *parent, const struct samples *samples,
    const struct sensitivity_options *o, const struct sensitivity_ask *asks, size_t n,
    struct sensitivity_damage *ret, struct error *err);

#endif
