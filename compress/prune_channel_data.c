/* Criteria that look at activations, and at gradients. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/importance.h"
#include "compress/probe.h"
#include "compress/prune_channel.h"
#include "engine/ops.h"

/* ---- activations: the average share that is not zero (Hu et al. 2016, equation 1, of what stays) ---- */

struct activity {
    const struct channel_net *net;
    const struct coupling_site **site; /* of columns, one a probed value */
    double *active, *all;              /* [c.n] */
};

/* Channels of a value that a layer reads: dimension 1, or the last of a matrix. */
static void on_value(void *ctx, size_t k, const struct tensor *x) {
    struct activity *a = ctx;
    const struct coupling_value *v = &a->net->c.value[a->net->g->nodes[a->site[k]->node].in[0]];
    const float *data = x->data;
    int64_t count = 0, inner = 1;

    if (!shape_count(&x->shape, &count) || v->last >= x->shape.rank || x->shape.dim[v->last] != v->n)
        return;
    for (int d = v->last + 1; d < x->shape.rank; d++)
        inner *= x->shape.dim[d];
    for (int64_t i = 0; i < count; i++) {
        int channel = v->channel[i / inner % v->n];

        a->active[channel] += data[i] != 0;
        a->all[channel]++;
    }
}

static int score_apoz(struct channel_net *net, struct work *work, struct error *err) {
    size_t n = (size_t)net->c.n + 1, n_values = 0;
    _cleanup_(freep) double *active = calloc(n, sizeof(*active)), *all = calloc(n, sizeof(*all));
    _cleanup_(freep) const struct coupling_site **site = calloc(net->c.n_sites + 1, sizeof(*site));
    _cleanup_(freep) int *values = calloc(net->c.n_sites + 1, sizeof(*values));
    struct activity a = {net, site, active, all};
    int r;

    if (!active || !all || !site || !values)
        return error_oom(err);
    for (size_t s = 0; s < net->c.n_sites; s++)
        if (net->c.site[s].role == COUPLING_COLUMN) {
            site[n_values] = &net->c.site[s];
            values[n_values++] = net->g->nodes[net->c.site[s].node].in[0];
        }
    r = n_values ? probe_run(net->g, values, n_values, work->samples, work->progress, on_value, &a, err) : 0;
    if (r < 0)
        return r;
    net->is_relative = true;
    for (int i = 0; i < net->c.n; i++)
        net->score[i] = (all[i] > 0 ? active[i] / all[i] : 1) * net->n_rows[i];
    return 0;
}

/* ---- gradients ---- */

/* A parameter and the channels that its elements make. */
struct watched {
    int value;
    const struct coupling_site *site;
    int64_t inner;
};

struct gradients {
    struct channel_net *net;
    struct watched *watched; /* [n] */
    size_t n;
    bool is_hessian;
    double *now; /* [c.n], of the present minibatch */
    int64_t minibatch;
};

/* Molchanov et al. 2019, equation 8: the change of the loss without the channel, to first order: the sum over
 * all that makes it, squared for each minibatch. */
static void end_minibatch(struct gradients *g) {
    for (int i = 0; i < g->net->c.n && !g->is_hessian; i++) {
        g->net->score[i] += g->now[i] * g->now[i];
        g->now[i] = 0;
    }
}

static void on_gradient(
    void *ctx, int64_t minibatch, int value, const float *w, const float *gradient, int64_t n) {
    struct gradients *g = ctx;

    if (minibatch != g->minibatch)
        end_minibatch(g);
    g->minibatch = minibatch;
    for (size_t k = 0; k < g->n; k++) {
        const struct watched *at = &g->watched[k];

        if (at->value != value)
            continue;
        for (int64_t i = 0; i < n; i++) {
            double change = (double)w[i] * (double)gradient[i];
            int channel = at->site->channel[i / at->inner % at->site->n];

            /* LeCun 1990, equation 5, with the Fisher matrix for the Hessian: w² g² / 2 of each weight */
            if (g->is_hessian)
                g->net->score[channel] += change * change / 2;
            else
                g->now[channel] += change;
        }
    }
}

/* Rows of layers; where a batch norm follows, its scale instead: it carries all that varies in the channel,
 * and what stands before it counts once. Biases and shifts are left out: what they give stays in the next
 * layers' biases (prune_channel_constants.c). */
static bool is_watched(const struct channel_net *net, const struct coupling_site *s) {
    const struct node *n = &net->g->nodes[s->node];
    _cleanup_(freep) double *factor = malloc(((size_t)s->n + 1) * sizeof(*factor));

    if (!factor || s->role == COUPLING_COLUMN)
        return false;
    if (!strcmp(n->op_type, "BatchNormalization"))
        return s->input == 1;
    return s->role == COUPLING_ROW && !channel_norm_factors(net->g, s->node, s->n, factor, NULL);
}

static int score_gradients(struct channel_net *net, struct work *work, bool is_hessian, struct error *err) {
    _cleanup_(freep) struct watched *watched = calloc(net->c.n_sites + 1, sizeof(*watched));
    _cleanup_(freep) double *now = calloc((size_t)net->c.n + 1, sizeof(*now));
    struct gradients g = {.net = net, .watched = watched, .is_hessian = is_hessian, .now = now};
    int64_t n_minibatches = 0;
    int r;

    if (!watched || !now)
        return error_oom(err);
    for (size_t s = 0; s < net->c.n_sites; s++) {
        const struct coupling_site *site = &net->c.site[s];
        int value = net->g->nodes[site->node].in[site->input];
        const struct shape *shape = &net->g->values[value].init->shape;
        int64_t inner = 1;

        if (!is_watched(net, site))
            continue;
        for (int d = site->axis + 1; d < shape->rank; d++)
            inner *= shape->dim[d];
        watched[g.n++] = (struct watched){value, site, inner};
    }
    r = importance_run(work, work->graph, IMPORTANCE_PICTURES, on_gradient, &g, &n_minibatches, err);
    if (r < 0)
        return r;
    end_minibatch(&g);
    net->is_relative = false;
    for (int i = 0; i < net->c.n && n_minibatches > 0; i++)
        net->score[i] /= (double)n_minibatches;
    return 0;
}

int channel_score_data(
    struct channel_net *net, struct work *work, const struct prune_options *o, struct error *err) {
    memset(net->score, 0, (size_t)net->c.n * sizeof(*net->score));
    switch (o->criterion) {
    case PRUNE_APOZ: return score_apoz(net, work, err);
    case PRUNE_TAYLOR: return score_gradients(net, work, false, err);
    case PRUNE_HESSIAN: return score_gradients(net, work, true, err);
    case PRUNE_THINET: return channel_score_thinet(net, work, err);
    default: return error_set(err, -EINVAL, "the criterion needs no data");
    }
}
