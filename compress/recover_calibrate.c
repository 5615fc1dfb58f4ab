#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/affine.h"
#include "compress/channel_stats.h"
#include "compress/fold.h"
#include "compress/probe.h"
#include "compress/recover.h"
#include "engine/ops.h"

/* A deviation ratio outside of this is a channel that the step destroyed, not one to amplify. */
#define RATIO_MIN 0.5
#define RATIO_MAX 2.0

struct pair {
    int node; /* in the working graph */
    int parent_value;
    const struct recover_kept *kept; /* NULL: all channels */
    struct channel_stats want;
};

struct pairs {
    size_t n;
    struct pair *pair;
    struct error *err;
};

static void pairs_done(struct pairs *p) {
    for (size_t i = 0; i < p->n; i++)
        channel_stats_done(&p->pair[i].want);
    free(p->pair);
}

/* The parent's layer that node `id` is, or is the last part of (lowrank.h); -1: none. */
static int find_in_parent(const struct graph *parent, const char *id) {
    size_t size = strlen(id);
    char base[512];
    int node = graph_find_node(parent, id);

    if (node >= 0 || size < 3 || size >= sizeof(base) || strcmp(id + size - 2, "/u"))
        return node;
    memcpy(base, id, size - 2);
    base[size - 2] = 0;
    return graph_find_node(parent, base);
}

static const struct recover_kept *find_kept(const struct recover_kept *kept, size_t n, const char *id) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(kept[i].id, id))
            return &kept[i];
    return NULL;
}

static int pairs_find(const struct graph *g, const struct graph *parent, const struct recover_kept *kept,
    size_t n_kept, struct pairs *ret, struct error *err) {
    ret->pair = calloc(g->n_nodes + 1, sizeof(*ret->pair));
    if (!ret->pair)
        return error_oom(err);
    for (size_t i = 0; i < g->n_nodes; i++) {
        int node;

        if (g->nodes[i].op->couple != OP_COUPLE_FREE || !affine_can_fold(g, (int)i))
            continue;
        node = find_in_parent(parent, g->nodes[i].id);
        if (node >= 0)
            ret->pair[ret->n++] = (struct pair){.node = (int)i,
                .parent_value = parent->nodes[node].out[0],
                .kept = find_kept(kept, n_kept, g->nodes[i].id)};
    }
    return 0;
}

static void on_parent_value(void *ctx, size_t k, const struct tensor *x) {
    struct pairs *p = ctx;

    channel_stats_add(&p->pair[k].want, x, p->err);
}

static int observe_parent(
    const struct graph *parent, struct pairs *p, const struct samples *s, struct error *err) {
    _cleanup_(freep) int *values = calloc(p->n + 1, sizeof(*values));
    int r;

    if (!values)
        return error_oom(err);
    for (size_t i = 0; i < p->n; i++)
        values[i] = p->pair[i].parent_value;
    p->err = err;
    r = probe_run(parent, values, p->n, s, NULL, on_parent_value, p, err);
    return r < 0 ? r : err ? err->err : 0;
}

struct single {
    struct channel_stats have;
    struct error *err;
};

static void on_value(void *ctx, size_t k, const struct tensor *x) {
    struct single *s = ctx;

    (void)k;
    channel_stats_add(&s->have, x, s->err);
}

/* Where the layer's channel c stands in the parent. */
static int64_t place_of(const struct pair *p, int64_t c) {
    return p->kept ? (int64_t)p->kept->channel[c] : c;
}

static double deviation_ratio(const struct pair *p, const struct channel_stats *have, int64_t c) {
    double h = channel_deviation(have, c), w = channel_deviation(&p->want, place_of(p, c));

    if (h < 1e-12 || w < 1e-12)
        return 1;
    return fmin(fmax(w / h, RATIO_MIN), RATIO_MAX);
}

static int correct(struct graph *g, const struct pair *p, const struct channel_stats *have,
    const struct recover_calibrate *o, struct error *err) {
    size_t n = (size_t)have->n;
    bool scales = o->variance && affine_can_scale(g, p->node);
    _cleanup_(freep) float *mul = calloc(n + 1, sizeof(*mul)), *add = calloc(n + 1, sizeof(*add));

    if (!mul || !add)
        return error_oom(err);
    for (size_t c = 0; c < n; c++) {
        double m = scales ? deviation_ratio(p, have, (int64_t)c) : 1;

        mul[c] = (float)m;
        if (o->bias)
            add[c] =
                (float)(channel_mean(&p->want, place_of(p, (int64_t)c)) - m * channel_mean(have, (int64_t)c));
        else /* keep the mean where it is */
            add[c] = (float)((1 - m) * channel_mean(have, (int64_t)c));
    }
    return affine_fold(g, p->node, mul, add, have->n, err);
}

static int correct_layer(struct work *work, const struct samples *s, const struct pair *p,
    const struct recover_calibrate *o, struct error *err) {
    int value = work->graph->nodes[p->node].out[0], r;
    struct single single = {.err = err};

    r = probe_run(work->graph, &value, 1, s, NULL, on_value, &single, err);
    if (r == 0 && err && err->err)
        r = err->err;
    if (r == 0 && single.have.n == (p->kept ? p->kept->n : p->want.n) && single.have.n > 0)
        r = correct(work->graph, p, &single.have, o, err);
    channel_stats_done(&single.have);
    return r;
}

static bool has_norms(const struct graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!strcmp(g->nodes[i].op_type, "BatchNormalization"))
            return true;
    return false;
}

int recover_calibrate(
    struct work *work, const struct graph *parent, const struct recover_calibrate *o, struct error *err) {
    return recover_calibrate_kept(work, parent, o, NULL, 0, err);
}

int recover_calibrate_kept(struct work *work, const struct graph *parent, const struct recover_calibrate *o,
    const struct recover_kept *kept, size_t n_kept, struct error *err) {
    _cleanup_(graph_freep) struct graph *folded = NULL;
    _cleanup_(pairs_done) struct pairs pairs = {0};
    struct samples s;
    int r;

    if (!work->samples)
        return error_code(err, -EBADMSG, "data_required", "recover.calibrate needs a data set");
    s = *work->samples;
    if (s.n > o->samples)
        s.n = o->samples;
    r = graph_clone(parent, &folded, err);
    /* a layer with a batch norm behind it makes other numbers than one that has it folded */
    if (r == 0)
        r = has_norms(work->graph) ? fold_but_norms(folded, err) : fold_graph(folded, err);
    if (r == 0)
        r = pairs_find(work->graph, folded, kept, n_kept, &pairs, err);
    if (r == 0)
        r = observe_parent(folded, &pairs, &s, err);
    for (size_t i = 0; r == 0 && i < pairs.n; i++) {
        r = progress_at(work->progress, (double)i / (double)pairs.n, "recovering means", err);
        if (r == 0 && o->least_squares)
            r = recover_squares(
                work, folded, pairs.pair[i].node, pairs.pair[i].parent_value, pairs.pair[i].kept, &s, err);
        if (r == 0)
            r = correct_layer(work, &s, &pairs.pair[i], o, err);
    }
    return r < 0 ? r : graph_finish(work->graph, err);
}
