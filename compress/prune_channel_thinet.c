/* ThiNet (Luo, Wu and Lin 2017, algorithm 1): a layer's channels go one after the other, always the one
 * without which what the next layers compute changes least, given those that are gone.
 *
 * At drawn outputs of the layers behind, x[c] is what channel c adds to the sum. Without the set T the error
 * is (sum over T of x[c])²: only the sums of products G[a][b] = sum x[a] x[b] are needed, over the energy of
 * the outputs, so that layers can be compared. A channel's score is what it adds to the error when it goes.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/chance.h"
#include "compress/encode.h"
#include "compress/patches.h"
#include "compress/probe.h"
#include "compress/prune_channel.h"
#include "engine/kernel/window.h"

#define ROWS          4096 /* drawn outputs of a layer, about … */
#define MOST_PRODUCTS 3e9  /* … less when it reads so many channels that sums of products took long */

/* Products of one family. */
struct products {
    int n;
    double *g; /* [n][n], owned */
};

/* A layer that reads channels. */
struct reader {
    const struct node *node;
    const struct coupling_site *site;
    const struct tensor *w;
    int64_t outputs, taps; /* W[outputs][site->n][taps], or as turned, [site->n][outputs] */
    bool is_turned;
    int *channel; /* [n] each one that it reads, once; owned */
    int n;
    double energy;
    int64_t n_drawn;
};

struct thinet {
    struct channel_net *net;
    struct reader *reader; /* [n] */
    size_t n;
    int64_t per_sample;
    uint64_t seed;
    const struct tensor *input; /* of the reader that is shown */
    int *place;                 /* [c.n] of a channel in its family */
    struct products *products;  /* [n_families] */
    struct products *own;       /* of the reader that is looked at, [n_families] */
    double *x;                  /* [c.n] what each channel adds */
};

/* Convolutions of one group, and matrices. */
static bool can_read(const struct channel_net *net, const struct coupling_site *s, struct reader *ret) {
    const struct node *n = &net->g->nodes[s->node];
    const struct tensor *w = net->g->values[n->in[1]].init;
    bool is_conv = !strcmp(n->op_type, "Conv") && node_attr_int(n, "group", 1) == 1;
    int64_t count;

    if (s->role != COUPLING_COLUMN || (!is_conv && w->shape.rank != 2) ||
        !strcmp(n->op_type, "ConvTranspose") || !shape_count(&w->shape, &count) || s->n < 1)
        return false;
    if (!is_conv && net->c.value[n->in[0]].rank != 2)
        return false;
    *ret = (struct reader){.node = n, .site = s, .w = w, .is_turned = !is_conv && s->axis == 0};
    ret->outputs = w->shape.dim[ret->is_turned ? 1 : 0];
    ret->taps = count / ret->outputs / s->n;
    return true;
}

static double weight_at(const struct reader *r, int64_t output, int64_t i, int64_t tap) {
    return (double)encode_number(
        r->w->data, r->is_turned ? i * r->outputs + output : (output * r->site->n + i) * r->taps + tap);
}

/* What each channel adds to one output at one pixel. */
static void add_window(const struct thinet *t, const struct reader *r, const struct kernel_window *w,
    const struct shape *out, const float *x, int64_t pixel, int64_t output) {
    struct patch p;

    patch_init(&p, w, &t->input->shape, out, pixel);
    for (int64_t tap = 0; tap < r->taps; tap++) {
        int64_t at = patch_tap(&p, tap);

        for (int64_t i = 0; at >= 0 && i < r->site->n; i++)
            t->x[r->site->channel[i]] += weight_at(r, output, i, tap) * (double)x[i * p.plane + at];
    }
}

/* The products of what the reader's channels add, family by family. */
static void add_products(struct thinet *t, struct reader *r) {
    double all = 0;

    for (int i = 0; i < r->n; i++) {
        int a = r->channel[i], f = t->net->family[a];
        struct products *p = f < 0 ? NULL : &t->own[f];

        all += t->x[a];
        for (int j = 0; p && j < r->n; j++) {
            int b = r->channel[j];

            if (t->net->family[b] == f)
                p->g[t->place[a] * p->n + t->place[b]] += t->x[a] * t->x[b];
        }
    }
    r->energy += all * all;
    for (int i = 0; i < r->n; i++)
        t->x[r->channel[i]] = 0;
}

static void look(struct thinet *t, struct reader *r, const struct tensor *y) {
    const struct tensor *x = t->input;
    struct kernel_window w = {0};
    int64_t pixels = 1, item = 1;
    bool is_conv = x->shape.rank > 2;

    for (int d = 2; d < y->shape.rank; d++)
        pixels *= y->shape.dim[d];
    for (int d = 1; d < x->shape.rank; d++)
        item *= x->shape.dim[d];
    if (x->shape.dim[0] != y->shape.dim[0] || x->shape.dim[1] != r->site->n ||
        (is_conv && !kernel_window_read(r->node, &x->shape, &y->shape, &r->w->shape, &w)) ||
        (double)r->n * r->n * (double)r->n_drawn > MOST_PRODUCTS)
        return;
    for (int64_t i = 0; i < y->shape.dim[0] * t->per_sample; i++, r->n_drawn++) {
        uint64_t key = chance_key(t->seed, (uint64_t)r->site->node, (uint64_t)r->n_drawn);
        int64_t output = (int64_t)chance_below(key, 0, (uint64_t)r->outputs);
        int64_t pixel = (int64_t)chance_below(key, 1, (uint64_t)pixels);
        const float *from = (const float *)x->data + i / t->per_sample * item;

        if (is_conv)
            add_window(t, r, &w, &y->shape, from, pixel, output);
        else
            for (int64_t k = 0; k < r->site->n; k++)
                t->x[r->site->channel[k]] += weight_at(r, output, k, 0) * (double)from[k];
        add_products(t, r);
    }
}

struct showing {
    struct thinet *t;
    struct reader *r;
};

static void on_value(void *ctx, size_t k, const struct tensor *x) {
    struct showing *s = ctx;

    if (k == 0)
        s->t->input = x;
    else
        look(s->t, s->r, x);
}

/* Adds what one reader says to the families' products, over its energy. */
static int look_at(struct thinet *t, struct reader *r, const struct work *work, struct error *err) {
    int values[2] = {r->node->in[0], r->node->out[0]};
    struct showing s = {t, r};
    int e;

    for (int f = 0; f < t->net->n_families; f++)
        memset(t->own[f].g, 0, (size_t)t->own[f].n * (size_t)t->own[f].n * sizeof(double));
    e = probe_run(t->net->g, values, 2, work->samples, work->progress, on_value, &s, err);
    if (e < 0 || r->energy <= 0)
        return e;
    for (int f = 0; f < t->net->n_families; f++)
        for (int i = 0; i < t->own[f].n * t->own[f].n; i++)
            t->products[f].g[i] += t->own[f].g[i] / r->energy;
    return 0;
}

/* Algorithm 1. What goes last may lower the error again; scores do not fall. */
static int order_family(struct thinet *t, int f, struct error *err) {
    const struct products *p = &t->products[f];
    const struct channel_family *of = &t->net->of[f];
    _cleanup_(freep) double *with = calloc((size_t)p->n + 1, sizeof(*with)); /* sum over T of G[c][.] */
    _cleanup_(freep) bool *is_gone = calloc((size_t)p->n + 1, sizeof(*is_gone));
    double most = 0;

    if (!with || !is_gone)
        return error_oom(err);
    for (int k = 0; k < of->n_free; k++) {
        int best = -1;
        double least = HUGE_VAL;

        for (int i = 0; i < of->n_free; i++) {
            int c = t->place[of->order[i]];
            double error = p->g[c * p->n + c] + 2 * with[c];

            if (!is_gone[c] && error < least) {
                least = error;
                best = i;
            }
        }
        if (best < 0)
            break;
        most = fmax(most * (1 + 1e-9), least);
        t->net->score[of->order[best]] = most;
        is_gone[t->place[of->order[best]]] = true;
        for (int c = 0; c < p->n; c++)
            with[c] += p->g[t->place[of->order[best]] * p->n + c];
    }
    return 0;
}

/* The channels that a reader reads, each once. */
static int list_channels(struct reader *r, int n_all) {
    _cleanup_(freep) bool *is_listed = calloc((size_t)n_all + 1, sizeof(*is_listed));

    r->channel = calloc((size_t)r->site->n + 1, sizeof(*r->channel));
    if (!is_listed || !r->channel)
        return -ENOMEM;
    for (int64_t i = 0; i < r->site->n; i++) {
        int c = r->site->channel[i];

        if (!is_listed[c])
            r->channel[r->n++] = c;
        is_listed[c] = true;
    }
    return 0;
}

static void products_free(struct products *p, int n) {
    for (int f = 0; p && f < n; f++)
        free(p[f].g);
    free(p);
}

static struct products *products_new(const struct channel_net *net) {
    struct products *p = calloc((size_t)net->n_families + 1, sizeof(*p));

    for (int f = 0; p && f < net->n_families; f++) {
        p[f].n = net->of[f].n;
        p[f].g = calloc((size_t)p[f].n * (size_t)p[f].n + 1, sizeof(double));
        if (!p[f].g) {
            products_free(p, net->n_families);
            return NULL;
        }
    }
    return p;
}

static int run(struct thinet *t, const struct work *work, struct error *err) {
    _cleanup_(freep) int *count = calloc((size_t)t->net->n_families + 1, sizeof(*count));
    int r = 0;

    if (!count)
        return error_oom(err);
    for (int i = 0; i < t->net->c.n; i++)
        t->place[i] = t->net->family[i] < 0 ? 0 : count[t->net->family[i]]++;
    for (size_t k = 0; k < t->n && r == 0; k++)
        r = list_channels(&t->reader[k], t->net->c.n) < 0 ? error_oom(err) : 0;
    for (size_t k = 0; k < t->n && r == 0; k++)
        r = look_at(t, &t->reader[k], work, err);
    for (int f = 0; f < t->net->n_families && r == 0; f++)
        r = order_family(t, f, err);
    return r;
}

int channel_score_thinet(struct channel_net *net, struct work *work, struct error *err) {
    struct thinet t = {.net = net, .seed = work->seed};
    int r;

    net->is_relative = false;
    t.per_sample = (ROWS + work->samples->n - 1) / work->samples->n;
    t.reader = calloc(net->c.n_sites + 1, sizeof(*t.reader));
    t.place = calloc((size_t)net->c.n + 1, sizeof(*t.place));
    t.x = calloc((size_t)net->c.n + 1, sizeof(*t.x));
    t.products = products_new(net);
    t.own = products_new(net);
    for (size_t s = 0; t.reader && s < net->c.n_sites; s++)
        t.n += can_read(net, &net->c.site[s], &t.reader[t.n]);
    r = t.reader && t.place && t.x && t.products && t.own ? run(&t, work, err) : error_oom(err);
    products_free(t.products, net->n_families);
    products_free(t.own, net->n_families);
    for (size_t k = 0; k < t.n; k++)
        free(t.reader[k].channel);
    free(t.reader);
    free(t.place);
    free(t.x);
    return r;
}
