#include "compress/prune_remove.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/ops/common.h"
#include "engine/shape_infer.h"

int64_t prune_count_kept(const int *channel, int64_t n, const bool *goes) {
    int64_t kept = 0;

    for (int64_t i = 0; i < n; i++)
        kept += !goes[channel[i]];
    return kept;
}

/* ---- constants ---- */

/* `t` becomes what input `input` of the node reads. An initialiser of this node alone keeps its name. Takes
 * bytes of the graph's arena. */
static int put(struct graph *g, int node, int input, const struct tensor *t, struct error *err) {
    int value = g->nodes[node].in[input], uses = 0, made;

    for (int i = 0; i < g->nodes[node].n_in; i++)
        uses += g->nodes[node].in[i] == value;
    if (uses == 1 && graph_consumers(g, value, NULL, 0) == 1 && !g->values[value].is_output) {
        made = graph_set_init(g, value, t);
        return made < 0 ? error_oom(err) : 0;
    }
    made = graph_add_init(g, graph_unique_name(g, g->values[value].name), t, /* data_lives= */ true);
    if (made < 0)
        return error_oom(err);
    g->nodes[node].in[input] = made;
    return 0;
}

static int cut(struct graph *g, const struct coupling_site *s, const bool *goes, struct error *err) {
    struct tensor t = *g->values[g->nodes[s->node].in[s->input]].init;
    size_t inner = dtype_info(t.dtype)->bits / 8, outer = 1;
    const char *from = t.data;
    char *to;

    for (int d = 0; d < t.shape.rank; d++)
        if (d < s->axis)
            outer *= (size_t)t.shape.dim[d];
        else if (d > s->axis)
            inner *= (size_t)t.shape.dim[d];
    t.shape.dim[s->axis] = prune_count_kept(s->channel, s->n, goes);
    if (t.shape.dim[s->axis] == s->n)
        return 0;
    t.data = to = graph_alloc(g, outer * (size_t)t.shape.dim[s->axis] * inner + 1);
    if (!to)
        return error_oom(err);
    for (size_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < s->n; i++, from += inner)
            if (!goes[s->channel[i]]) {
                memcpy(to, from, inner);
                to += inner;
            }
    return put(g, s->node, s->input, &t, err);
}

/* Element `at` of a constant vector of whole numbers, an input or an attribute. */
static int edit_int(
    struct graph *g, int node, int input, const char *attribute, int at, int64_t to, struct error *err) {
    struct node *n = &g->nodes[node];
    const struct tensor *old = n->n_in > input && n->in[input] >= 0 ? g->values[n->in[input]].init : NULL;
    const struct attr *a = attribute ? node_attr(n, attribute) : NULL;
    int64_t ints[2 * SHAPE_MAX_RANK], count;
    struct tensor t;
    size_t size;
    void *copy;

    if (old) {
        size = old->dtype == DT_S64 ? sizeof(int64_t) : sizeof(int32_t);
        if (!shape_count(&old->shape, &count) || at >= count)
            return error_set(err, -ESTALE, "node '%s': a list of numbers is too short", n->id);
        t = *old;
        t.data = copy = graph_alloc(g, (size_t)count * size);
        if (!copy)
            return error_oom(err);
        memcpy(copy, old->data, (size_t)count * size);
        if (old->dtype == DT_S64)
            ((int64_t *)copy)[at] = to;
        else
            ((int32_t *)copy)[at] = (int32_t)to;
        return put(g, node, input, &t, err);
    }
    if (!a || a->type != ATTR_INTS || a->n > 2 * SHAPE_MAX_RANK || (size_t)at >= a->n)
        return error_set(err, -ESTALE, "node '%s': a list of numbers is not there", n->id);
    memcpy(ints, a->ints, a->n * sizeof(*ints));
    ints[at] = to;
    return graph_set_attr_ints(g, n, attribute, ints, a->n) < 0 ? error_oom(err) : 0;
}

/* ---- numbers of channels that nodes have ---- */

struct removal {
    struct graph *g;
    const struct coupling *c;
    const bool *goes;
};

static const struct coupling_value *value_of(const struct removal *m, int value) {
    return value >= 0 && m->c->value[value].n > 0 ? &m->c->value[value] : NULL;
}

static int64_t kept(const struct removal *m, const struct coupling_value *v) {
    return prune_count_kept(v->channel, v->n, m->goes);
}

static const struct tensor *init_of(const struct removal *m, int node, int input) {
    const struct node *n = &m->g->nodes[node];

    return n->n_in > input && n->in[input] >= 0 ? m->g->values[n->in[input]].init : NULL;
}

/* Groups of one input channel each: as many as there are inputs. */
static int edit_group(const struct removal *m, int node, struct error *err) {
    struct node *n = &m->g->nodes[node];
    const struct coupling_value *x = value_of(m, n->in[0]);
    int64_t groups = node_attr_int(n, "group", 1);

    if (!x || groups == 1 || groups != x->n || kept(m, x) == groups)
        return 0;
    return graph_set_attr_int(m->g, n, "group", kept(m, x)) < 0 ? error_oom(err) : 0;
}

/* New size of axis d of a value. */
static int64_t size_of_axis(const struct removal *m, const struct coupling_value *v, int d, int64_t now) {
    int64_t all = kept(m, v);

    if (v->first == v->last)
        return all;
    /* a grid: rows stay, whole columns go */
    if (d == v->first)
        return now;
    return all * now / v->n;
}

static int edit_reshape(const struct removal *m, int node, struct error *err) {
    const struct node *n = &m->g->nodes[node];
    const struct coupling_value *y = value_of(m, n->out[0]);
    const struct tensor *t = init_of(m, node, 1);
    const struct attr *a = node_attr(n, "shape");
    int64_t target[SHAPE_MAX_RANK];
    int count = 0, r = 0;

    if (!y || kept(m, y) == y->n)
        return 0;
    if (t && op_read_ints(t, target, SHAPE_MAX_RANK, &count, NULL) < 0)
        return error_set(err, -ESTALE, "node '%s': its target is not known", n->id);
    if (!t && a && a->type == ATTR_INTS && a->n <= SHAPE_MAX_RANK)
        memcpy(target, a->ints, (size_t)(count = (int)a->n) * sizeof(*target));
    for (int d = y->first; d <= y->last && d < count && r == 0; d++)
        if (target[d] > 0)
            r = edit_int(m->g, node, 1, "shape", d, size_of_axis(m, y, d, target[d]), err);
    return r;
}

static int put_sizes(struct graph *g, int node, const int64_t *size, int n, struct error *err) {
    struct node *at = &g->nodes[node];
    struct tensor t = {.dtype = DT_S64, .shape = {.rank = 1, .dim = {n}}, .data = (void *)(uintptr_t)size};
    char base[300];
    int *in, value;

    if (g->opset < 13)
        return graph_set_attr_ints(g, at, "split", size, (size_t)n) < 0 ? error_oom(err) : 0;
    snprintf(base, sizeof(base), "%.250s_sizes", at->id);
    in = graph_alloc(g, 2 * sizeof(*in));
    value = in ? graph_add_init(g, graph_unique_name(g, base), &t, /* data_lives= */ false) : -ENOMEM;
    if (value < 0)
        return error_oom(err);
    at = &g->nodes[node];
    in[0] = at->in[0];
    in[1] = value;
    at->in = in;
    at->n_in = 2;
    for (size_t i = 0; i < at->n_attr; i++)
        if (!strcmp(at->attr[i].name, "num_outputs")) {
            memmove(&at->attr[i], &at->attr[i + 1], (at->n_attr - i - 1) * sizeof(*at->attr));
            at->n_attr--;
            at->is_parsed = false;
        }
    return 0;
}

static int edit_split(const struct removal *m, int node, struct error *err) {
    const struct node *n = &m->g->nodes[node];
    const struct coupling_value *x = value_of(m, n->in[0]);
    int64_t size[64], all = 0;
    bool is_even = true;

    if (!x || kept(m, x) == x->n)
        return 0;
    for (int i = 0; i < n->n_out; i++) {
        const struct coupling_value *y = value_of(m, n->out[i]);

        if (!y || n->n_out > 64)
            return error_set(err, -ESTALE, "node '%s': its parts cannot be followed", n->id);
        all += y->n;
        size[i] = kept(m, y);
        is_even &= size[i] == size[0];
    }
    if (all != x->n || (is_even && !init_of(m, node, 1) && !node_attr(n, "split")))
        return 0; /* along another axis, or equal parts */
    return put_sizes(m->g, node, size, n->n_out, err);
}

/* Place of `axis` in the node's list of axes; -1: not there. */
static int place_of_axis(const struct removal *m, int node, int rank, int axis) {
    const struct node *n = &m->g->nodes[node];
    const struct tensor *t = init_of(m, node, 3);
    const struct attr *a = node_attr(n, "axes");
    int64_t axes[SHAPE_MAX_RANK];
    int count = 0;

    if (t && op_read_ints(t, axes, SHAPE_MAX_RANK, &count, NULL) < 0)
        return -1;
    if (!t && !a)
        return axis;
    if (!t && a->n <= SHAPE_MAX_RANK)
        memcpy(axes, a->ints, (size_t)(count = (int)a->n) * sizeof(*axes));
    for (int i = 0; i < count; i++)
        if (axes[i] == axis || axes[i] + rank == axis)
            return i;
    return -1;
}

static int edit_slice(const struct removal *m, int node, struct error *err) {
    const struct node *n = &m->g->nodes[node];
    const struct coupling_value *x = value_of(m, n->in[0]), *y = value_of(m, n->out[0]);
    int64_t start, from = 0;
    int at, r;

    if (!x || !y || x->n == y->n || kept(m, x) == x->n)
        return 0;
    start = y->channel - x->channel;
    at = place_of_axis(m, node, x->rank, x->first);
    if (at < 0)
        return error_set(err, -ESTALE, "node '%s': its axis is not known", n->id);
    from = prune_count_kept(x->channel, start, m->goes);
    r = edit_int(m->g, node, 1, "starts", at, from, err);
    return r < 0 ? r : edit_int(m->g, node, 2, "ends", at, from + kept(m, y), err);
}

static int edit_pad(const struct removal *m, int node, struct error *err) {
    const struct node *n = &m->g->nodes[node];
    const struct coupling_value *x = value_of(m, n->in[0]), *y = value_of(m, n->out[0]);
    const struct tensor *t = init_of(m, node, 1);
    const struct attr *a = node_attr(n, "pads");
    const char *name = a ? "pads" : "paddings";
    int64_t before = 0, count = 0;
    int r, rank;

    if (!x || !y || x->n == y->n)
        return 0;
    a = a ? a : node_attr(n, "paddings");
    while (before + x->n < y->n && memcmp(y->channel + before, x->channel, (size_t)x->n * sizeof(int)) != 0)
        before++;
    if (t)
        shape_count(&t->shape, &count);
    rank = (int)(t ? count : a ? (int64_t)a->n : 0) / 2;
    r = edit_int(m->g, node, 1, name, x->first, prune_count_kept(y->channel, before, m->goes), err);
    return r < 0 ? r
                 : edit_int(m->g, node, 1, name, rank + x->first,
                       prune_count_kept(y->channel + before + x->n, y->n - before - x->n, m->goes), err);
}

static int edit_resize(const struct removal *m, int node, struct error *err) {
    const struct node *n = &m->g->nodes[node];
    const struct coupling_value *y = value_of(m, n->out[0]);
    int64_t count;

    if (!y || kept(m, y) == y->n || !init_of(m, node, 3) ||
        !shape_count(&init_of(m, node, 3)->shape, &count) || count <= y->first)
        return 0;
    return edit_int(m->g, node, 3, NULL, y->first, kept(m, y), err);
}

static const struct {
    const char *op_type;
    int (*edit)(const struct removal *m, int node, struct error *err);
} edits[] = {
    {"Conv", edit_group},
    {"ConvTranspose", edit_group},
    {"Pad", edit_pad},
    {"Reshape", edit_reshape},
    {"Resize", edit_resize},
    {"Slice", edit_slice},
    {"Split", edit_split},
};

static int edit_nodes(const struct removal *m, struct error *err) {
    for (size_t i = 0; i < m->g->n_nodes; i++)
        for (size_t k = 0; k < sizeof(edits) / sizeof(edits[0]); k++)
            if (!strcmp(m->g->nodes[i].op_type, edits[k].op_type)) {
                int r = edits[k].edit(m, (int)i, err);

                if (r < 0)
                    return r;
            }
    return 0;
}

/* Declared shapes of inner values follow. */
static void edit_values(const struct removal *m) {
    for (size_t i = 0; i < m->c->n_values; i++) {
        const struct coupling_value *v = value_of(m, (int)i);
        struct shape *s = &m->g->values[i].shape;

        for (int d = v ? v->first : 0; v && d <= v->last && d < s->rank; d++)
            if (s->dim[d] > 0)
                s->dim[d] = size_of_axis(m, v, d, s->dim[d]);
    }
}

/* Every value has as many channels as stay. */
static int verify(const struct removal *m, struct error *err) {
    struct error e = {0};
    struct shapes s;
    int r = shapes_infer(m->g, m->c->sample, &s, &e);

    if (r < 0)
        return r == -ENOMEM ? error_copy(err, &e)
                            : error_set(err, -ESTALE, "without the channels it is no network: %s", e.text);
    for (size_t i = 0; i < m->c->n_values && r == 0; i++) {
        const struct coupling_value *v = value_of(m, (int)i);
        int64_t now = 1;

        for (int d = v ? v->first : 0; v && d <= v->last; d++)
            now *= d < s.value[i].shape.rank ? s.value[i].shape.dim[d] : 0;
        if (v && s.value[i].shape.rank >= 0 && now != kept(m, v))
            r = error_set(err, -ESTALE, "value '%s' has %lld channels, not %lld", m->g->values[i].name,
                (long long)now, (long long)kept(m, v));
    }
    shapes_done(&s);
    return r;
}

int prune_remove(struct graph *g, const struct coupling *c, const bool *goes, struct error *err) {
    struct removal m = {g, c, goes};
    int r = 0;

    for (size_t i = 0; i < c->n_sites && r == 0; i++)
        r = cut(g, &c->site[i], goes, err);
    if (r == 0)
        r = edit_nodes(&m, err);
    if (r < 0)
        return r;
    edit_values(&m);
    r = graph_finish(g, err); /* nodes are read anew; they keep their order */
    return r < 0 ? r : verify(&m, err);
}
