#include "compress/coupling_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/ops/common.h"

const char coupling_computed[] = "the shape of a Reshape or Resize behind it is computed";
const char coupling_mixed[] = "an operator behind it mixes channels";
const char coupling_unlike[] = "it meets values whose channels cannot be followed";
static const char is_output[] = "its channels are an output of the network";
static const char has_no_rows[] = "no layer of float weights makes it";

/* ---- units ---- */

int *coupler_room(struct coupler *k, int64_t n) {
    struct coupling_block *b = malloc(sizeof(*b) + (size_t)n * sizeof(b->unit[0]));

    if (!b)
        return NULL;
    b->next = k->c->blocks;
    b->n = n;
    k->c->blocks = b;
    return b->unit;
}

int *coupler_new(struct coupler *k, int64_t n) {
    int *unit;

    if (k->n_units + n > k->cap_units) {
        int64_t cap = 2 * (k->n_units + n);
        int *parent = cap > INT32_MAX ? NULL : reallocarray(k->parent, (size_t)cap, sizeof(*parent));
        const char **why;

        if (!parent)
            return NULL;
        k->parent = parent;
        why = reallocarray(k->why, (size_t)cap, sizeof(*why));
        if (!why)
            return NULL;
        k->why = why;
        k->cap_units = (int)cap;
    }
    unit = coupler_room(k, n);
    for (int64_t i = 0; unit && i < n; i++) {
        k->parent[k->n_units] = k->n_units;
        k->why[k->n_units] = NULL;
        unit[i] = k->n_units++;
    }
    return unit;
}

int coupler_root(struct coupler *k, int unit) {
    while (k->parent[unit] != unit)
        unit = k->parent[unit] = k->parent[k->parent[unit]];
    return unit;
}

void coupler_tie(struct coupler *k, int a, int b) {
    a = coupler_root(k, a);
    b = coupler_root(k, b);
    if (a == b)
        return;
    if (!k->why[a])
        k->why[a] = k->why[b];
    k->parent[b] = a;
}

void coupler_keep(struct coupler *k, int unit, const char *why) {
    unit = coupler_root(k, unit);
    if (!k->why[unit])
        k->why[unit] = why;
}

void coupler_keep_value(struct coupler *k, int value, const char *why) {
    const struct coupling_value *v = coupler_value(k, value);

    for (int64_t i = 0; v && i < v->n; i++)
        coupler_keep(k, v->channel[i], why);
}

void coupler_keep_inputs(struct coupler *k, const struct node *n, const char *why) {
    for (int i = 0; i < n->n_in; i++)
        coupler_keep_value(k, n->in[i], why);
}

const struct coupling_value *coupler_value(const struct coupler *k, int value) {
    return value >= 0 && k->c->value[value].n > 0 ? &k->c->value[value] : NULL;
}

void coupler_set(struct coupler *k, int value, int first, int last, int64_t n, int *unit) {
    if (value >= 0)
        k->c->value[value] = (struct coupling_value){
            .rank = coupler_shape(k, value)->rank, .first = first, .last = last, .n = n, .channel = unit};
}

int coupler_site(struct coupler *k, const struct node *n, int input, int axis, enum coupling_role role,
    int64_t units, const int *unit) {
    struct coupling *c = k->c;

    if (c->n_sites == k->cap_sites) {
        size_t cap = k->cap_sites ? 2 * k->cap_sites : 64;
        struct coupling_site *more = reallocarray(c->site, cap, sizeof(*more));

        if (!more)
            return -ENOMEM;
        c->site = more;
        k->cap_sites = cap;
    }
    c->site[c->n_sites++] = (struct coupling_site){.node = (int)(n - k->g->nodes),
        .input = input,
        .axis = axis,
        .role = role,
        .n = units,
        .channel = unit};
    return 0;
}

bool coupler_ints(const struct coupler *k, const struct node *n, int input, const char *attribute,
    int64_t *ret, int *ret_n) {
    const struct attr *a = attribute ? node_attr(n, attribute) : NULL;

    if (input > 0 && n->n_in > input && n->in[input] >= 0)
        return k->s.value[n->in[input]].data &&
               op_read_ints(&k->s.value[n->in[input]], ret, SHAPE_MAX_RANK, ret_n, NULL) == 0;
    if (!a || a->type != ATTR_INTS || a->n > SHAPE_MAX_RANK)
        return false;
    memcpy(ret, a->ints, a->n * sizeof(*ret));
    *ret_n = (int)a->n;
    return true;
}

/* ---- the walk ---- */

static const struct {
    const char *op_type;
    int (*couple)(struct coupler *k, const struct node *n);
} special[] = {
    {"Conv", couple_conv},
    {"ConvTranspose", couple_conv_transpose},
    {"Gemm", couple_gemm},
    {"MatMul", couple_gemm},
    {"Pad", couple_pad},
    {"Slice", couple_slice},
    {"Split", couple_split},
    {"Transpose", couple_transpose},
};

static int couple_node(struct coupler *k, const struct node *n) {
    for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
        if (!n->domain[0] && !strcmp(special[i].op_type, n->op_type))
            return special[i].couple(k, n);
    if (n->op->reads_shape_only)
        return 0;
    if (!strncmp(n->op_type, "Reduce", 6))
        return couple_reduce(k, n);
    if (n->op->is_view)
        return couple_view(k, n);
    switch (n->op->couple) {
    case OP_COUPLE_SAME: return couple_same(k, n);
    case OP_COUPLE_JOIN: return couple_join(k, n);
    case OP_COUPLE_CONCAT: return couple_concat(k, n);
    case OP_COUPLE_FLATTEN:
    case OP_COUPLE_FREE:
    case OP_COUPLE_NONE:
    default: coupler_keep_inputs(k, n, coupling_mixed); return 0;
    }
}

static int walk(struct coupler *k) {
    const struct graph *g = k->g;

    for (size_t i = 0; i < g->n_nodes; i++) {
        int r = couple_node(k, &g->nodes[i]);

        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < g->n_outputs; i++)
        coupler_keep_value(k, g->outputs[i], is_output);
    return 0;
}

/* Units that are tied become one channel; channels are numbered in the order in which rows make them. */
static int number(struct coupler *k) {
    struct coupling *c = k->c;
    _cleanup_(freep) int *of = malloc(((size_t)k->n_units + 1) * sizeof(*of));
    int n_made;

    c->reason = calloc((size_t)k->n_units + 1, sizeof(*c->reason));
    if (!of || !c->reason)
        return -ENOMEM;
    for (int u = 0; u < k->n_units; u++)
        of[u] = -1;
    for (size_t s = 0; s < c->n_sites; s++)
        for (int64_t i = 0; c->site[s].role == COUPLING_ROW && i < c->site[s].n; i++) {
            int root = coupler_root(k, c->site[s].channel[i]);

            if (of[root] < 0)
                of[root] = c->n++;
        }
    n_made = c->n;
    for (int u = 0; u < k->n_units; u++) {
        int root = coupler_root(k, u);

        if (of[root] < 0)
            of[root] = c->n++;
        c->reason[of[root]] = k->why[root] ? k->why[root] : of[root] < n_made ? NULL : has_no_rows;
    }
    for (struct coupling_block *b = c->blocks; b; b = b->next)
        for (int64_t i = 0; i < b->n; i++)
            b->unit[i] = of[coupler_root(k, b->unit[i])];
    return 0;
}

/* A batch of two tells samples from channels of one; not every network takes it. */
static int infer(const struct graph *g, struct coupling *c, struct shapes *ret, struct error *err) {
    static const int64_t batch[] = {2, 1}, side[] = {0, 32, 64, 224, 256, 48, 320};
    struct shape *in = c->sample = calloc(g->n_inputs + 1, sizeof(*in));
    int r = 0;

    if (!in)
        return error_oom(err);
    for (size_t b = 0; b < 2; b++)
        for (size_t i = 0; i < sizeof(side) / sizeof(side[0]); i++) {
            struct error e = {0};

            shapes_sample(g, batch[b], side[i] ? side[i] : 128, in);
            r = shapes_infer(g, in, ret, &e);
            if (r == 0)
                return 0;
            if (b == 1 && i + 1 == sizeof(side) / sizeof(side[0]))
                return error_copy(err, &e);
        }
    return r;
}

int coupling_find(const struct graph *g, bool trusts_computed, struct coupling *ret, struct error *err) {
    struct coupling c = {.n_values = g->n_values, .value = calloc(g->n_values + 1, sizeof(*c.value))};
    struct coupler k = {.g = g, .c = &c, .trusts_computed = trusts_computed};
    int r = c.value ? infer(g, &c, &k.s, err) : error_oom(err);

    if (r == 0) {
        r = walk(&k);
        if (r == 0)
            r = number(&k);
        if (r < 0)
            r = error_oom(err);
        shapes_done(&k.s);
    }
    free(k.parent);
    free(k.why);
    if (r < 0)
        coupling_done(&c);
    else
        *ret = c;
    return r;
}

void coupling_done(struct coupling *c) {
    while (c->blocks) {
        struct coupling_block *next = c->blocks->next;

        free(c->blocks);
        c->blocks = next;
    }
    free(c->sample);
    free(c->reason);
    free(c->value);
    free(c->site);
    *c = (struct coupling){0};
}

const struct coupling_site *coupling_rows(const struct coupling *c, int node) {
    for (size_t i = 0; i < c->n_sites; i++)
        if (c->site[i].node == node && c->site[i].role == COUPLING_ROW)
            return &c->site[i];
    return NULL;
}
