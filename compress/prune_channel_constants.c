/* The constant that a removed channel leaves (Molchanov et al. 2019; Hu et al. 2016 leave it out): the layers
 * that read it miss, in the mean, the sum of their weights for it times its mean. Exact away from padded
 * borders for channels that are constant; in the mean for all others. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/affine.h"
#include "compress/channel_stats.h"
#include "compress/encode.h"
#include "compress/probe.h"
#include "compress/prune_channel.h"
#include "compress/prune_remove.h"
#include "engine/ops.h"

void channel_constants_done(struct channel_constants *c) {
    for (size_t i = 0; i < c->n; i++)
        free(c->of[i].add);
    free(c->of);
    *c = (struct channel_constants){0};
}

/* ---- means of what layers read ---- */

struct means {
    const struct coupling_site **site; /* [n] of columns that lose some */
    int *value;                        /* [n] */
    struct channel_stats *stats;       /* [n] */
    size_t n;
    struct error *err;
};

static void means_done(struct means *m) {
    for (size_t i = 0; i < m->n && m->stats; i++)
        channel_stats_done(&m->stats[i]);
    free(m->site);
    free(m->value);
    free(m->stats);
}

static void on_value(void *ctx, size_t k, const struct tensor *x) {
    struct means *m = ctx;

    channel_stats_add(&m->stats[k], x, m->err);
}

static int list_readers(const struct channel_net *net, struct means *m, struct error *err) {
    m->site = calloc(net->c.n_sites + 1, sizeof(*m->site));
    m->value = calloc(net->c.n_sites + 1, sizeof(*m->value));
    m->stats = calloc(net->c.n_sites + 1, sizeof(*m->stats));
    if (!m->site || !m->value || !m->stats)
        return error_oom(err);
    for (size_t s = 0; s < net->c.n_sites; s++) {
        const struct coupling_site *site = &net->c.site[s];
        const struct coupling_value *v = &net->c.value[net->g->nodes[site->node].in[0]];

        /* channels lie where channel_stats looks for them */
        if (site->role != COUPLING_COLUMN || v->first != (v->rank > 2 ? 1 : v->rank - 1) ||
            prune_count_kept(site->channel, site->n, net->goes) == site->n)
            continue;
        m->site[m->n] = site;
        m->value[m->n++] = net->g->nodes[site->node].in[0];
    }
    return 0;
}

static int read_zeros(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    const struct samples *s = ctx;
    int64_t n;

    (void)first;
    if (!shape_count(&s->item, &n))
        return error_set(err, -EFBIG, "the network's input is too large");
    memset(ret, 0, (size_t)(n * count) * sizeof(*ret));
    return 0;
}

/* A copy in which the channels that go have weights of zero, but their biases, or shifts of batch norms. */
static int silence(const struct channel_net *net, struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(freep) double *factor = malloc(((size_t)net->c.n + 1) * sizeof(*factor));
    int r = factor ? graph_clone(net->g, &g, err) : error_oom(err);

    for (size_t s = 0; r == 0 && s < net->c.n_sites; s++) {
        const struct coupling_site *site = &net->c.site[s];
        struct node *n = &g->nodes[site->node];
        bool is_norm = !strcmp(n->op_type, "BatchNormalization") && site->input == 1;
        struct tensor t = *g->values[n->in[site->input]].init;
        int64_t count, inner = 1;
        float *w;
        int v;

        if (site->role != COUPLING_ROW && !is_norm)
            continue;
        for (int d = site->axis + 1; d < t.shape.rank; d++)
            inner *= t.shape.dim[d];
        if (!shape_count(&t.shape, &count))
            return error_set(err, -EFBIG, "node '%s': its weights are too large", n->id);
        w = graph_alloc(g, (size_t)count * sizeof(*w) + 1);
        if (!w)
            return error_oom(err);
        memcpy(w, t.data, (size_t)count * sizeof(*w));
        for (int64_t i = 0; i < count; i++)
            w[i] = net->goes[site->channel[i / inner % site->n]] ? 0 : w[i];
        t.data = w;
        v = graph_add_init(g, graph_unique_name(g, "silenced"), &t, /* data_lives= */ true);
        if (v < 0)
            return error_oom(err);
        g->nodes[site->node].in[site->input] = v;
    }
    *ret = TAKE(g);
    return r;
}

static int measure(
    const struct channel_net *net, const struct work *work, struct means *m, struct error *err) {
    _cleanup_(graph_freep) struct graph *silent = NULL;
    const struct graph *g = net->g;
    struct samples zeros = {.n = 1, .item = net->c.sample[0], .read = read_zeros, .ctx = &zeros};
    struct error seen = {0};
    int r = 0;

    m->err = &seen;
    zeros.item.dim[0] = g->values[g->inputs[0]].shape.dim[0] > 0 ? zeros.item.dim[0] : 1;
    if (!work->samples) {
        r = silence(net, &silent, err);
        g = silent;
    }
    if (r == 0)
        r = probe_run(g, m->value, m->n, work->samples ? work->samples : &zeros, NULL, on_value, m, err);
    return r == 0 && seen.err ? error_copy(err, &seen) : r;
}

/* ---- what that adds up to ---- */

/* Sum of a reader's weights of output o for column i, over all taps. */
static double sum_taps(const struct node *n, const struct tensor *w, int axis, int64_t o, int64_t i) {
    int64_t count = 1, columns = w->shape.dim[axis], taps;
    double sum = 0;

    if (w->shape.rank == 2 && axis == 0) /* [in][out] */
        return (double)encode_number(w->data, i * w->shape.dim[1] + o);
    (void)n;
    shape_count(&w->shape, &count);
    taps = count / w->shape.dim[0] / columns;
    for (int64_t t = 0; t < taps; t++)
        sum += (double)encode_number(w->data, (o * columns + i) * taps + t);
    return sum;
}

/* The outputs of a reader: rows of its weights, and which of them stay. */
static int add_up(const struct channel_net *net, const struct coupling_site *s,
    const struct channel_stats *stats, struct channel_constant *ret, struct error *err) {
    const struct node *n = &net->g->nodes[s->node];
    const struct tensor *w = net->g->values[n->in[1]].init;
    const struct coupling_site *rows = coupling_rows(&net->c, s->node);
    int64_t outputs = w->shape.dim[w->shape.rank == 2 && s->axis == 0 ? 1 : 0];
    int64_t groups = w->shape.rank > 2 ? node_attr_int(n, "group", 1) : 1;

    *ret = (struct channel_constant){.node = s->node, .add = calloc((size_t)outputs + 1, sizeof(*ret->add))};
    if (!ret->add)
        return error_oom(err);
    for (int64_t o = 0; o < outputs; o++) {
        double sum = 0;

        if (rows && net->goes[rows->channel[o]])
            continue;
        for (int64_t i = 0; i < s->n; i++)
            if (net->goes[s->channel[i]])
                sum += sum_taps(n, w, s->axis, o, i) * channel_mean(stats, o / (outputs / groups) * s->n + i);
        ret->add[ret->n++] = (float)sum;
    }
    return 0;
}

int channel_constants_find(const struct channel_net *net, const struct work *work,
    struct channel_constants *ret, struct error *err) {
    _cleanup_(channel_constants_done) struct channel_constants c = {0};
    _cleanup_(means_done) struct means m = {0};
    int r = list_readers(net, &m, err);

    if (r == 0 && m.n > 0 && (work->samples || net->g->n_inputs == 1))
        r = measure(net, work, &m, err);
    c.of = calloc(m.n + 1, sizeof(*c.of));
    if (r == 0 && !c.of)
        r = error_oom(err);
    for (size_t i = 0; i < m.n && r == 0; i++) {
        const struct node *n = &net->g->nodes[m.site[i]->node];

        if (!strcmp(n->op_type, "ConvTranspose") || m.stats[i].n != net->c.value[m.value[i]].n)
            continue;
        r = add_up(net, m.site[i], &m.stats[i], &c.of[c.n], err);
        c.n += r == 0;
    }
    if (r < 0)
        return r;
    *ret = c;
    c = (struct channel_constants){0};
    return 0;
}

/* ---- where it goes ---- */

/* A vector of a node less, or plus, `add`. False: it is none of n numbers. */
static int shift_vector(struct graph *g, int node, int input, const float *add, int64_t n, float sign) {
    const struct tensor *t = g->values[g->nodes[node].in[input]].init;
    struct tensor made;
    int64_t count;
    float *v;
    int value;

    if (!t || t->dtype != DT_F32 || !shape_count(&t->shape, &count) || count != n ||
        t->shape.dim[t->shape.rank - 1] != n)
        return 1;
    made = *t;
    made.data = v = graph_alloc(g, (size_t)n * sizeof(*v));
    if (!v)
        return -ENOMEM;
    memcpy(v, t->data, (size_t)n * sizeof(*v));
    for (int64_t i = 0; i < n; i++)
        v[i] += sign * add[i];
    value = graph_add_init(g, graph_unique_name(g, g->values[g->nodes[node].in[input]].name), &made, true);
    if (value < 0)
        return value;
    g->nodes[node].in[input] = value;
    return 0;
}

/* Addition of a constant behind a matrix; -1: none. */
static int find_addition(const struct graph *g, int node, int *ret_input) {
    int reader[2], value = g->nodes[node].out[0];

    if (graph_consumers(g, value, reader, 2) != 1 || strcmp(g->nodes[reader[0]].op_type, "Add") != 0)
        return -1;
    *ret_input = g->nodes[reader[0]].in[0] == value ? 1 : 0;
    return reader[0];
}

static int put(struct graph *g, const struct channel_constant *c, struct error *err) {
    _cleanup_(freep) double *factor = malloc(((size_t)c->n + 1) * sizeof(*factor));
    _cleanup_(freep) float *ones = malloc(((size_t)c->n + 1) * sizeof(*ones));
    int norm, input, r = 1;

    if (!factor || !ones)
        return error_oom(err);
    if (channel_norm_factors(g, c->node, c->n, factor, &norm)) {
        r = shift_vector(g, norm, 3, c->add, c->n, -1); /* of the mean that is taken away */
    } else if (affine_can_fold(g, c->node)) {
        for (int64_t i = 0; i < c->n; i++)
            ones[i] = 1;
        return affine_fold(g, c->node, ones, c->add, c->n, err);
    } else if ((norm = find_addition(g, c->node, &input)) >= 0) {
        r = shift_vector(g, norm, input, c->add, c->n, 1);
    }
    return r < 0 ? error_oom(err) : 0;
}

int channel_constants_put(struct graph *g, const struct channel_constants *c, struct error *err) {
    for (size_t i = 0; i < c->n; i++) {
        int r = put(g, &c->of[i], err);

        if (r < 0)
            return r;
    }
    return graph_finish(g, err);
}
