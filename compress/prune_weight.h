/* Pruning of single weights, blocks and n:m patterns: a mask over each layer's weights. Private to
 * prune_weight.c, prune_score.c, prune_choose.c, prune_sensitivity.c, prune_schedule.c, prune_regularize.c,
 * prune_store.c.
 *
 *     score (criterion)  ->  choose (scope and budget)  ->  mask  ->  train with it  ->  store
 *
 * A unit is what comes and goes together: one weight, or a block of them. With granularity nm it is a tile,
 * in which single weights are chosen. Zeros that are there have score 0: they go first, and what an earlier
 * step took out stays out. */
#ifndef COMPRESS_PRUNE_WEIGHT_H
#define COMPRESS_PRUNE_WEIGHT_H

#include "compress/learn.h"
#include "compress/prune.h"
#include "compress/quantize.h"
#include "engine/weight_tile.h"

struct prune_layer {
    char *id;                      /* owned: the graph may become another one */
    int node, value;               /* value: the initialiser of the weights; both of the present graph */
    const struct prune_options *o; /* with the layer's overrides */
    struct weight_rows rows;
    struct weight_tiles tiles; /* granularities block and nm */
    int64_t n, n_units, unit;  /* weights; units; weights of a unit */
    double macs;               /* with all weights */
    double most;               /* scope sensitivity: share of the units that goes in the end */
    bool is_alone;             /* its share is its own, whatever the scope: an override says it */
    float *score;              /* [n_units], nm: [n] */
    uint8_t *keep;             /* [n] 1: stays; a part of the set's masks */
    int64_t n_kept;            /* ones in keep */
};

struct prune_set {
    const struct prune_options *o; /* of the step */
    struct prune_layer *layer;
    size_t n;
    double macs;    /* of the whole network, with all weights */
    uint8_t *masks; /* of all layers, one after the other */
    size_t masks_bytes;
};

/* The layers that are selected, with all weights kept. */
int prune_set_init(struct prune_set *s, const struct graph *g, const struct prune_options *o,
    const struct layers *layers, struct error *err);
void prune_set_done(struct prune_set *s);

/* Counts n_kept again, after the masks were changed as a whole. */
void prune_set_count(struct prune_set *s);

/* After training: nodes and values by their ids. */
int prune_set_find(struct prune_set *s, const struct graph *g, struct error *err);

/* Element k of unit u in the tensor's own order. */
static inline int64_t prune_element(const struct prune_layer *l, int64_t u, int64_t k) {
    return l->unit == 1 ? u : weight_tile_element(&l->tiles, u, k);
}

/* Weight i; the tensor's data may be unaligned. */
static inline float prune_weight(const void *w, int64_t i) {
    float v;

    __builtin_memcpy(&v, (const char *)w + (size_t)i * sizeof(v), sizeof(v));
    return v;
}

/* ---- prune_score.c ---- */

/* Scores of one layer's weights `w` by a criterion that needs no data: magnitude, lamp, random. */
int prune_score_weights(struct prune_layer *l, const void *w, uint64_t seed, size_t index, struct error *err);

/* Of all layers of work->graph (prepared for training where the criterion looks at gradients). */
int prune_score(struct work *work, struct prune_set *s, struct error *err);

/* ---- prune_choose.c ---- */

/* Fills the masks with what stays when `x` of what goes in the end (0 to 1) goes: so much of the budget. */
int prune_choose(struct prune_set *s, double x, struct error *err);

/* One layer by itself without `share` (0 to 1) of its units. */
int prune_choose_share(struct prune_layer *l, double share, struct error *err);

/* The budget that cannot be met, refused with the best reachable one. */
int prune_check_budget(const struct prune_set *s, struct error *err);

/* Share of all weights that the masks leave out, and of the network's MACs that stay. */
double prune_sparsity(const struct prune_set *s);
double prune_macs_kept(const struct prune_set *s);

/* ---- prune_sensitivity.c ---- */

/* Scope sensitivity: how much the answers on samples change when a layer loses a share of its units by
 * their scores, layer by layer; then each layer's `most`, so that the sum of the damages is least at the
 * budget. `report` gets "sensitivity": [{"id", "damage": [{"sparsity", "damage"}…]}…]. */
int prune_sensitivity(struct work *work, struct prune_set *s, json_t *report, struct error *err);

/* ---- prune_store.c ---- */

/* Zeros into the graph, as they are. */
int prune_write_zeros(struct graph *g, const struct prune_set *s, struct error *err);

/* Bytes of the weights that stay of a layer in the smallest form, and the form's name. */
int64_t prune_bytes(const struct prune_layer *l, const char **ret_form);

/* Weights into the smallest form; `list` gets an object each. */
int prune_store(struct work *work, struct prune_set *s, json_t *list, struct error *err);

/* ---- prune_train.c ---- */

/* Trains work->graph as the step's `recover` says, for `epochs` (0: its own number), with the masks of the
 * set, which `hook` (may be NULL) may change between steps: what is left out does not move and comes back as
 * it was (Zhu and Gupta 2017, section 3). In all layers of 20% zeros and more what is zero stays so. name: of
 * the checkpoint, unique in the step. */
int prune_train(struct work *work, struct prune_set *s, const struct learn_hook *hook, int epochs,
    const char *name, json_t *report, struct error *err);

/* ---- prune_schedule.c ---- */

/* How much of what goes has gone after round `round` of `rounds`, the same share of what is left each time.
 */
double prune_round_share(const struct prune_options *o, int round);

/* Zhu and Gupta 2017, equation 1, from 0: what has gone at `progress` (0 to 1) of the schedule. */
double prune_gradual_share(double progress);

int prune_oneshot(struct work *work, struct prune_set *s, json_t *report, struct error *err);
int prune_iterative(struct work *work, struct prune_set *s, json_t *report, struct error *err);
int prune_gradual(struct work *work, struct prune_set *s, json_t *report, struct error *err);

/* ---- prune_regularize.c ---- */

/* Training that makes small what is not needed, before anything goes. */
int prune_regularize(struct work *work, struct prune_set *s, json_t *report, struct error *err);

#endif
