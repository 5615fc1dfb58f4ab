/* The method `prune`: what matters least is taken out.
 *
 *   prune.c           options, their check, the criteria, which back end
 *   prune_channel*.c  whole channels, tied through the graph (coupling.h), removed physically
 * (prune_remove.c) prune_weight*.c   single weights, blocks, n of m: zeros, stored sparsely where that is
 * smaller
 *
 * A criterion says how important a weight, or a channel, is; scope and budget turn importance into what goes;
 * the schedule says in how many rounds, with training in between. Pruning never touches what it cannot
 * follow: the layer is skipped, with the reason in the dry run. */
#ifndef COMPRESS_PRUNE_H
#define COMPRESS_PRUNE_H

#include "compress/method.h"

enum prune_granularity {
    PRUNE_CHANNEL,
    PRUNE_WEIGHT,
    PRUNE_BLOCK, /* block[0] output channels x block[1] consecutive input channels of one tap */
    PRUNE_NM,    /* nm[0] stay of every nm[1] consecutive input channels of one tap */
};

/* Places in prune_criteria. */
enum prune_criterion_kind {
    PRUNE_MAGNITUDE,
    PRUNE_LAMP,
    PRUNE_BN_SCALE,
    PRUNE_FPGM,
    PRUNE_APOZ,
    PRUNE_TAYLOR,
    PRUNE_HESSIAN,
    PRUNE_THINET,
    PRUNE_RANDOM,
};

enum prune_norm { PRUNE_L2, PRUNE_L1 };
enum prune_scope { PRUNE_GLOBAL, PRUNE_LAYER, PRUNE_SENSITIVITY };
enum prune_schedule_kind { PRUNE_ONESHOT, PRUNE_ITERATIVE, PRUNE_GRADUAL };
enum prune_regularizer { PRUNE_REG_L1, PRUNE_REG_GROUP_LASSO, PRUNE_REG_SLIMMING };

struct prune_options {
    int granularity; /* enum prune_granularity */
    int block[2], nm[2];
    int criterion;                          /* enum prune_criterion_kind */
    int norm;                               /* enum prune_norm, of magnitude */
    int scope;                              /* enum prune_scope */
    double sparsity, macs, threshold_sigma; /* the budget; 0: not this one */
    struct {
        int kind; /* enum prune_schedule_kind */
        int rounds;
        double max_drop; /* of accuracy on what is held out: a round beyond it is undone and the last */
    } schedule;
    bool has_regularize;
    struct {
        int kind; /* enum prune_regularizer */
        double strength;
        int epochs;
    } regularize;
};

/* One criterion: what it can judge, and what it has to see for that. */
struct prune_criterion {
    const char *name;
    unsigned granularities; /* bits 1u << enum prune_granularity */
    bool needs_data;        /* activations on samples, or gradients */
    bool needs_gradients;   /* of the loss over minibatches of the train split (importance.h) */
    const char *source;
};
extern const struct prune_criterion prune_criteria[]; /* in the order of enum prune_criterion_kind */
extern const size_t prune_criteria_size;

static inline const struct prune_criterion *prune_criterion_of(const struct prune_options *o) {
    return &prune_criteria[o->criterion];
}

/* A back end: plan and apply as struct method has them. */
int prune_channel_plan(const struct graph *g, const struct prune_options *o, struct layers *layers,
    struct effect *effects, struct error *err);
int prune_channel_outline(
    struct graph *g, const struct prune_options *o, const struct layers *layers, struct error *err);
int prune_channel_apply(struct work *work, const struct prune_options *o, const struct scope *scope,
    json_t *report, struct error *err);
int prune_weight_plan(const struct graph *g, const struct prune_options *o, struct layers *layers,
    struct effect *effects, struct error *err);
int prune_weight_apply(struct work *work, const struct prune_options *o, const struct scope *scope,
    json_t *report, struct error *err);

extern const struct method method_prune;

#endif
