/* What each layer can spare. Damage of a strength: the mean over samples of the Kullback-Leibler divergence
 * of the answers with only this layer pruned from those of the network as it is; of networks that are no
 * classifiers, the relative squared error of the outputs.
 *
 * Shares from damages: the lower convex hull of each layer's curve is a row of pieces, each of so many
 * weights (or MACs) at so much damage; pieces are taken in the order of damage a weight until the budget is
 * met, which is the least sum of damages there is on the hulls (the continuous knapsack: Dantzig 1957). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/prune_weight.h"
#include "compress/sensitivity.h"

static const double strengths[] = {0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995};
#define N_STRENGTHS (int)(sizeof(strengths) / sizeof(strengths[0]))

/* ---- curves ---- */

struct curve {
    double damage[N_STRENGTHS + 1], share[N_STRENGTHS + 1]; /* from 0 */
    int n;
};

static int measure(struct work *work, struct prune_set *s, struct prune_layer *l, struct sensitivity *judge,
    struct curve *ret, struct error *err) {
    struct prune_set alone = {.o = s->o, .layer = l, .n = 1};

    *ret = (struct curve){.n = 1};
    for (int k = 0; k < N_STRENGTHS; k++) {
        _cleanup_(graph_freep) struct graph *g = NULL;
        _cleanup_(sensitivity_damage_done) struct sensitivity_damage d = {0};
        int r = prune_choose_share(l, strengths[k], err);

        if (r == 0)
            r = graph_clone(work->graph, &g, err);
        if (r == 0)
            r = prune_write_zeros(g, &alone, err);
        if (r == 0)
            r = sensitivity_judge(judge, 0, g, &d, err);
        if (r < 0)
            return r;
        ret->damage[ret->n] = sensitivity_cost(&d);
        ret->share[ret->n++] = strengths[k];
    }
    return 0;
}

static int report_curve(const struct prune_layer *l, const struct curve *c, json_t *list, struct error *err) {
    json_t *points = json_array();

    for (int k = 1; k < c->n; k++)
        json_array_append_new(
            points, json_pack("{s:f, s:f}", "sparsity", c->share[k], "damage", c->damage[k]));
    return json_array_append_new(list, json_pack("{s:s, s:o}", "id", l->id, "damage", points)) < 0
               ? error_oom(err)
               : 0;
}

/* Drops points above the line between their neighbours; damage never falls with strength. */
static void make_convex(struct curve *c) {
    int n = 0;

    for (int k = 0; k < c->n; k++) {
        c->damage[k] = fmax(c->damage[k], n ? c->damage[n - 1] : 0);
        while (n >= 2 && (c->damage[n - 1] - c->damage[n - 2]) * (c->share[k] - c->share[n - 1]) >=
                             (c->damage[k] - c->damage[n - 1]) * (c->share[n - 1] - c->share[n - 2]))
            n--;
        c->damage[n] = c->damage[k];
        c->share[n++] = c->share[k];
    }
    c->n = n;
}

/* ---- shares ---- */

struct piece {
    struct prune_layer *layer;
    double share, cost, slope; /* of the layer's units; what goes with it; damage a cost */
    size_t order;
};

static int by_slope(const void *a, const void *b) {
    const struct piece *x = a, *y = b;

    return x->slope > y->slope ? 1 : x->slope < y->slope ? -1 : (x->order > y->order) - (x->order < y->order);
}

static double cost_of(const struct prune_set *s, const struct prune_layer *l) {
    return s->o->macs > 0 ? l->macs : (double)l->n;
}

static double budget_of(const struct prune_set *s) {
    double all = 0;

    if (s->o->macs > 0)
        return (1 - s->o->macs) * s->macs;
    for (size_t i = 0; i < s->n; i++)
        all += s->layer[i].is_alone ? 0 : cost_of(s, &s->layer[i]);
    return s->o->sparsity * all;
}

static int share_out(struct prune_set *s, const struct curve *curves, struct error *err) {
    _cleanup_(freep) struct piece *pieces = calloc(s->n * N_STRENGTHS + 1, sizeof(*pieces));
    double left = budget_of(s);
    size_t n = 0;

    if (!pieces)
        return error_oom(err);
    for (size_t i = 0; i < s->n; i++) {
        s->layer[i].most = 0;
        for (int k = 1; !s->layer[i].is_alone && k < curves[i].n; k++) {
            double share = curves[i].share[k] - curves[i].share[k - 1];
            double cost = share * cost_of(s, &s->layer[i]);

            pieces[n] = (struct piece){.layer = &s->layer[i], .share = share, .cost = cost, .order = n};
            pieces[n++].slope = (curves[i].damage[k] - curves[i].damage[k - 1]) / fmax(cost, 1e-30);
        }
    }
    qsort(pieces, n, sizeof(*pieces), by_slope);
    for (size_t i = 0; i < n && left > 0; i++) {
        double part = pieces[i].cost <= left ? 1 : left / pieces[i].cost;

        pieces[i].layer->most += part * pieces[i].share;
        left -= part * pieces[i].cost;
    }
    if (left <= 1e-6 * budget_of(s))
        return 0;
    return error_code(err, -EBADMSG, "requirement_not_met",
        "the budget cannot be reached by the layers that the step touches; the most that can go of each is %g",
        strengths[N_STRENGTHS - 1]);
}

int prune_sensitivity(struct work *work, struct prune_set *s, json_t *report, struct error *err) {
    _cleanup_(sensitivity_freep) struct sensitivity *judge = NULL;
    _cleanup_(freep) struct curve *curves = calloc(s->n + 1, sizeof(*curves));
    json_t *list = json_array();
    int r;

    if (!curves || json_object_set_new(report, "sensitivity", list) < 0)
        return error_oom(err);
    if (!work->samples)
        return error_code(err, -EBADMSG, "data_required", ".scope: 'sensitivity' is measured on samples");
    r = sensitivity_open(
        work->graph, work->samples, &(struct sensitivity_options){.progress = work->progress}, &judge, err);
    for (size_t i = 0; r == 0 && i < s->n; i++) {
        struct prune_layer *l = &s->layer[i];

        r = progress_at(work->progress, (double)i / (double)s->n, "measuring what each layer can spare", err);
        if (r == 0)
            r = measure(work, s, l, judge, &curves[i], err);
        if (r == 0)
            r = report_curve(l, &curves[i], list, err);
        memset(l->keep, 1, (size_t)l->n);
        l->n_kept = l->n;
        make_convex(&curves[i]);
    }
    return r == 0 ? share_out(s, curves, err) : r;
}
