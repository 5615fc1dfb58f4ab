/* How important units are, by the criteria that judge weights. All scores are ≥ 0; a unit of zeros has 0.
 *
 *   magnitude  |w|, of a block the L2 or L1 norm (Han et al. 2015)
 *   lamp       w² / the sum of the layer's squares that are not smaller (Lee et al. 2021, equation 4): what a
 * layer has little of is dear, so that one threshold over all layers gives each its share taylor     mean
 * over minibatches of |sum over the unit of g w| hessian    sum over the unit of w² mean(g²) / 2 random     a
 * number drawn from seed, layer and unit */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/chance.h"
#include "compress/importance.h"
#include "compress/prune_weight.h"

/* The unit's sum of squares, or of magnitudes. */
static double norm_of(const struct prune_layer *l, const void *w, int64_t u, bool is_l1) {
    double sum = 0;

    for (int64_t k = 0; k < l->unit; k++) {
        double v = (double)prune_weight(w, prune_element(l, u, k));

        sum += is_l1 ? fabs(v) : v * v;
    }
    return sum;
}

/* Scores are of units, in a tile of n:m of weights. */
static bool by_weight(const struct prune_layer *l) {
    return l->unit == 1 || l->o->granularity == PRUNE_NM;
}

static int64_t n_scores(const struct prune_layer *l) {
    return by_weight(l) ? l->n : l->n_units;
}

static void score_magnitude(struct prune_layer *l, const void *w) {
    bool is_l1 = l->o->norm == PRUNE_L1;

    for (int64_t i = 0; i < n_scores(l); i++)
        if (by_weight(l))
            l->score[i] = fabsf(prune_weight(w, i));
        else
            l->score[i] = (float)(is_l1 ? norm_of(l, w, i, true) : sqrt(norm_of(l, w, i, false)));
}

/* ---- lamp ---- */

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* First place in sorted[n] that is not less than v. */
static int64_t find_first(const float *sorted, int64_t n, float v) {
    int64_t low = 0, high = n;

    while (low < high) {
        int64_t mid = low + (high - low) / 2;

        if (sorted[mid] < v)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* From magnitudes. */
static int score_lamp(struct prune_layer *l, struct error *err) {
    int64_t n = n_scores(l);
    _cleanup_(freep) float *sorted = malloc((size_t)n * sizeof(*sorted) + 1);
    _cleanup_(freep) double *above = malloc((size_t)(n + 1) * sizeof(*above));

    if (!sorted || !above)
        return error_oom(err);
    memcpy(sorted, l->score, (size_t)n * sizeof(*sorted));
    qsort(sorted, (size_t)n, sizeof(*sorted), by_value);
    above[n] = 0;
    for (int64_t i = n; i-- > 0;)
        above[i] = above[i + 1] + (double)sorted[i] * (double)sorted[i];
    for (int64_t i = 0; i < n; i++) {
        double square = (double)l->score[i] * (double)l->score[i];

        l->score[i] = square > 0 ? (float)(square / above[find_first(sorted, n, l->score[i])]) : 0;
    }
    return 0;
}

/* ---- random ---- */

static void score_random(struct prune_layer *l, const void *w, uint64_t seed, size_t index) {
    for (int64_t i = 0; i < n_scores(l); i++) {
        bool is_zero = by_weight(l) ? prune_weight(w, i) == 0 : norm_of(l, w, i, false) <= 0;

        l->score[i] = is_zero ? 0 : (float)chance_between(chance_key(seed, index, 0), (uint64_t)i, 0.001, 1);
    }
}

int prune_score_weights(
    struct prune_layer *l, const void *w, uint64_t seed, size_t index, struct error *err) {
    if (l->o->criterion == PRUNE_RANDOM) {
        score_random(l, w, seed, index);
        return 0;
    }
    score_magnitude(l, w);
    return l->o->criterion == PRUNE_LAMP ? score_lamp(l, err) : 0;
}

/* ---- gradients ---- */

static void add_minibatch(
    void *ctx, int64_t minibatch, int value, const float *w, const float *g, int64_t n) {
    struct prune_set *s = ctx;
    struct prune_layer *l = s->layer;

    (void)minibatch;
    for (; l < s->layer + s->n && l->value != value; l++)
        ;
    if (l == s->layer + s->n || l->n != n)
        return;
    for (int64_t i = 0; i < n_scores(l); i++) {
        int64_t size = by_weight(l) ? 1 : l->unit;
        float sum = 0;

        for (int64_t k = 0; k < size; k++) {
            int64_t at = by_weight(l) ? i : prune_element(l, i, k);
            float change = w[at] * g[at];

            sum += l->o->criterion == PRUNE_HESSIAN ? 0.5f * change * change : change;
        }
        l->score[i] += fabsf(sum);
    }
}

static int score_gradients(struct work *work, struct prune_set *s, struct error *err) {
    int64_t minibatches;
    int r;

    for (size_t i = 0; i < s->n; i++)
        memset(s->layer[i].score, 0, (size_t)n_scores(&s->layer[i]) * sizeof(float));
    r = importance_run(work, work->graph, IMPORTANCE_PICTURES, add_minibatch, s, &minibatches, err);
    for (size_t k = 0; r == 0 && k < s->n; k++)
        for (int64_t i = 0; i < n_scores(&s->layer[k]); i++)
            s->layer[k].score[i] /= (float)minibatches;
    return r;
}

int prune_score(struct work *work, struct prune_set *s, struct error *err) {
    int r = progress_at(work->progress, 0, "judging importance", err);

    if (r == 0 && prune_criterion_of(s->o)->needs_gradients)
        return score_gradients(work, s, err);
    for (size_t i = 0; r == 0 && i < s->n; i++) {
        struct prune_layer *l = &s->layer[i];

        r = prune_score_weights(l, work->graph->values[l->value].init->data, work->seed, i, err);
    }
    return r;
}
