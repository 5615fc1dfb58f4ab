/* Regularisers as proximal steps: after each step of the optimiser with learning rate r the parameters go to
 * where strength · r · R(x) + |x - w|² / 2 is least, which has exact zeros (Parikh and Boyd 2014, "Proximal
 * algorithms", sections 6.5.2 and 6.5.4).
 *
 *   l1           R = sum |w|                            w := sign(w) max(|w| - t, 0)
 *   group_lasso  R = sum over groups sqrt(n) |group|    group := group max(1 - t sqrt(n) / |group|, 0)
 *                (Yuan and Lin 2006; Wen et al. 2016): a group is a block, or an output channel's weights
 *   slimming     l1 of the scales of batch norms (Liu et al. 2017, equation 1); those of folded ones come
 * back while it trains */
#include <math.h>
#include <string.h>

#include "compress/prune_weight.h"
#include "engine/train/trainer.h"

struct regularizer {
    const struct prune_set *s;
    const struct graph *g;
    int kind;
    double strength;
};

static void shrink(float *w, int64_t n, float t) {
    for (int64_t i = 0; i < n; i++)
        w[i] = copysignf(fmaxf(fabsf(w[i]) - t, 0), w[i]);
}

/* A group's element k: of unit `u`, or of output channel `u`. */
static int64_t group_element(const struct prune_layer *l, int64_t u, int64_t k) {
    const struct weight_rows *r = &l->rows;

    if (l->unit > 1)
        return prune_element(l, u, k);
    return (k / r->inner * r->rows + u) * r->inner + k % r->inner;
}

static void shrink_groups(const struct prune_layer *l, float *w, float t) {
    int64_t n = l->unit > 1 ? l->n_units : l->rows.rows, size = l->unit > 1 ? l->unit : l->n / l->rows.rows;

    for (int64_t u = 0; u < n; u++) {
        double sum = 0;
        float keep;

        for (int64_t k = 0; k < size; k++) {
            double v = (double)w[group_element(l, u, k)];

            sum += v * v;
        }
        keep = sum > 0 ? fmaxf(1 - t * (float)sqrt((double)size / sum), 0) : 0;
        for (int64_t k = 0; k < size; k++)
            w[group_element(l, u, k)] *= keep;
    }
}

static bool is_norm_scale(const struct graph *g, int value) {
    for (size_t i = 0; value >= 0 && i < g->n_nodes; i++)
        if (strcmp(g->nodes[i].op_type, "BatchNormalization") == 0 && g->nodes[i].in[1] == value)
            return true;
    return false;
}

static const struct prune_layer *layer_of(const struct prune_set *s, int value) {
    for (size_t i = 0; i < s->n; i++)
        if (s->layer[i].value == value)
            return &s->layer[i];
    return NULL;
}

static void moved(void *ctx, struct trainer *t, float rate) {
    const struct regularizer *r = ctx;
    float step = (float)r->strength * rate;

    for (size_t i = 0; i < trainer_n_params(t); i++) {
        const struct train_param *p = trainer_param(t, i);
        const struct prune_layer *l = layer_of(r->s, p->value);

        if (r->kind == PRUNE_REG_SLIMMING && is_norm_scale(r->g, p->value))
            shrink(p->data, p->n, step);
        if (r->kind == PRUNE_REG_L1 && l)
            shrink(p->data, p->n, step);
        if (r->kind == PRUNE_REG_GROUP_LASSO && l)
            shrink_groups(l, p->data, step);
    }
}

int prune_regularize(struct work *work, struct prune_set *s, json_t *report, struct error *err) {
    struct regularizer r = {
        .s = s, .g = work->graph, .kind = s->o->regularize.kind, .strength = s->o->regularize.strength};
    const struct learn_hook hook = {.ctx = &r, .moved = moved};
    json_t *found = json_object();
    int e = json_object_set_new(report, "regularize", found) < 0
                ? error_oom(err)
                : prune_train(work, s, &hook, s->o->regularize.epochs, "regularize", found, err);

    if (e == 0)
        progress_event(work->progress, "prune: trained %d epochs with %s", s->o->regularize.epochs,
            r.kind == PRUNE_REG_L1         ? "l1"
            : r.kind == PRUNE_REG_SLIMMING ? "slimming"
                                           : "group_lasso");
    return e;
}
