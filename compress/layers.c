#include "compress/layers.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/ops.h"
#include "engine/weight.h"

const char layer_encoded[] = "its weights are encoded already";

bool layer_matches(const char *glob, const char *id) {
    char base[256];
    const char *slash = strrchr(id, '/');

    if (fnmatch(glob, id, 0) == 0)
        return true;
    if (!slash || (size_t)(slash - id) >= sizeof(base))
        return false;
    memcpy(base, id, (size_t)(slash - id));
    base[slash - id] = 0;
    return fnmatch(glob, base, 0) == 0;
}

static const char *first_match(const char *const *globs, const char *id) {
    for (; globs && *globs; globs++)
        if (layer_matches(*globs, id))
            return *globs;
    return NULL;
}

/* 1: *ret is its weights' shape, *ret_weight their form if they are encoded; 0: no layer; negative errno. */
static int find_weight(struct graph *g, const struct node *n, const struct weight **ret_weight,
    struct shape *ret, struct error *err) {
    const struct weight *w = NULL;
    int r;

    *ret_weight = NULL;
    if (!n->op || n->op->couple != OP_COUPLE_FREE || n->n_in < 2 || n->in[1] < 0)
        return 0;
    if (g->values[n->in[1]].init) {
        *ret = g->values[n->in[1]].init->shape;
        return 1;
    }
    r = weight_match(g, n->in[1], &w, NULL, err);
    if (r < 0 || !w || !weight_is_encoded(w))
        return r;
    *ret_weight = w;
    *ret = w->shape;
    return 1;
}

/* The layer itself, or a product of it. */
static bool is_of(const char *layer, const char *id) {
    size_t n = strlen(layer);

    return !strncmp(layer, id, n) && (!id[n] || (id[n] == '/' && !strchr(id + n + 1, '/')));
}

/* What the scope says of it. `encoded` NULL: plain weights. */
static void select_entry(const struct scope *scope, const struct weight *encoded, struct layer_entry *e) {
    const char *glob = scope ? first_match(scope->include, e->id) : NULL;

    e->is_named = glob && strcmp(glob, "*") != 0;
    if (scope && scope->include && !glob)
        layer_skip(e, "not included");
    if (scope && first_match(scope->exclude, e->id))
        layer_skip(e, "excluded");
    if (scope && ((scope->only && !is_of(scope->only, e->id)) || (scope->but && is_of(scope->but, e->id))))
        layer_skip(e, "left out");
    e->options = scope ? overrides_find(scope->overrides, e->id, scope->options) : NULL;
    if (encoded && !(scope && scope->takes_encoded) &&
        !(scope && scope->takes_sparse && weight_is_sparse_float(encoded)))
        layer_skip(e, layer_encoded);
}

/* 1; 0: no layer; negative errno. */
static int fill_entry(
    struct graph *g, int node, const struct scope *scope, struct layer_entry *e, struct error *err) {
    const struct node *n = &g->nodes[node];
    const struct weight *encoded;
    struct shape shape, *w = &shape;
    int r = find_weight(g, n, &encoded, w, err);

    *e = (struct layer_entry){.node = node, .id = n->id, .is_selected = true};
    if (r <= 0)
        return r;
    if (!shape_count(w, &e->params) || w->rank < 2)
        return 0;
    e->form = encoded ? weight_form_name(encoded) : NULL;
    e->bytes = encoded ? (int64_t)weight_bytes(encoded) : 4 * e->params;
    /* Conv's rows are dimension 0; Gemm and MatMul keep outputs last unless transB says otherwise */
    e->rows = w->rank > 2 || node_attr_int(n, "transB", 0) ? w->dim[0] : w->dim[w->rank - 1];
    e->cols = e->rows > 0 ? e->params / e->rows : 0;
    select_entry(scope, encoded, e);
    return 1;
}

int layers_list(struct graph *g, const struct scope *scope, struct layers *ret, struct error *err) {
    _cleanup_(layers_done) struct layers l = {.entry = calloc(g->n_nodes + 1, sizeof(*l.entry))};

    if (!l.entry)
        return error_oom(err);
    for (size_t i = 0; i < g->n_nodes; i++) {
        int r = fill_entry(g, (int)i, scope, &l.entry[l.n], err);

        if (r < 0)
            return r;
        l.n += (size_t)r;
    }
    *ret = l;
    l = (struct layers){0};
    return 0;
}

void layers_done(struct layers *l) {
    if (l->kept)
        l->kept_done(l->kept);
    free(l->entry);
    *l = (struct layers){0};
}

void layer_skip(struct layer_entry *e, const char *reason) {
    if (!e->is_selected)
        return;
    e->is_selected = false;
    e->reason = reason;
}

struct layer_entry *layers_find(const struct layers *l, int node) {
    for (size_t i = 0; i < l->n; i++)
        if (l->entry[i].node == node)
            return &l->entry[i];
    return NULL;
}

static int spread_layer(struct graph *g, int node, const struct weight *w, struct error *err) {
    struct tensor t = {.dtype = DT_F32, .shape = w->shape};
    _cleanup_(freep) float *dense = NULL;
    char name[512];
    const char *unique;
    int64_t n;
    int value, r;

    if (!shape_count(&w->shape, &n) || !(dense = calloc((size_t)n + 1, sizeof(*dense))))
        return error_oom(err);
    r = weight_decode(w, dense, err);
    if (r < 0)
        return r;
    t.data = dense;
    snprintf(name, sizeof(name), "%.400s_weight", g->nodes[node].id);
    unique = graph_unique_name(g, name);
    value = unique ? graph_add_init(g, unique, &t, /* data_lives= */ false) : -ENOMEM;
    if (value < 0)
        return error_oom(err);
    g->nodes[node].in[1] = value;
    return 0;
}

int layers_spread(struct graph *g, struct error *err) {
    size_t n_nodes = g->n_nodes;
    bool is_changed = false;

    for (size_t i = 0; i < n_nodes; i++) {
        const struct weight *w = NULL;
        struct shape shape;
        int r = find_weight(g, &g->nodes[i], &w, &shape, err);

        if (r > 0 && w && weight_is_sparse_float(w)) {
            r = spread_layer(g, (int)i, w, err);
            is_changed = true;
        }
        if (r < 0)
            return r;
    }
    if (is_changed && graph_drop_unused(g) < 0)
        return error_oom(err);
    return is_changed ? graph_finish(g, err) : 0;
}

/* Edits that make one of the other (Levenshtein 1965), of the first 64 bytes. */
static size_t distance(const char *a, const char *b) {
    size_t row[65], n = strnlen(b, 64);

    for (size_t k = 0; k <= n; k++)
        row[k] = k;
    for (size_t i = 0; a[i] && i < 64; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t k = 1; k <= n; k++) {
            size_t change = diagonal + (a[i] != b[k - 1]), least = row[k] < row[k - 1] ? row[k] : row[k - 1];

            diagonal = row[k];
            row[k] = change < least + 1 ? change : least + 1;
        }
    }
    return row[n];
}

/* The layer whose id is nearest to the glob of those further away than `beyond`, or as far and after it. */
static const struct layer_entry *nearest(
    const struct layers *l, const char *glob, const struct layer_entry *beyond) {
    const struct layer_entry *best = NULL;

    for (const struct layer_entry *e = l->entry; e < l->entry + l->n; e++) {
        size_t d = distance(glob, e->id), least = beyond ? distance(glob, beyond->id) : 0;

        if (beyond && (d < least || (d == least && e <= beyond)))
            continue;
        if (!best || d < distance(glob, best->id))
            best = e;
    }
    return best;
}

static int refuse_glob(const struct layers *l, const char *key, const char *glob, struct error *err) {
    const struct layer_entry *e = NULL;
    char list[300] = "";
    size_t at = 0;

    for (int k = 0; k < 3 && at < sizeof(list) && (e = nearest(l, glob, e)); k++)
        at += (size_t)snprintf(list + at, sizeof(list) - at, "%s'%.80s'", k ? ", " : "", e->id);
    return error_set(err, -EINVAL, ".%s: '%.100s' matches no layer%s%s", key, glob,
        *list ? "; the nearest are " : "", list);
}

static bool matches_any(const struct layers *l, const char *glob) {
    for (size_t i = 0; i < l->n; i++)
        if (layer_matches(glob, l->entry[i].id))
            return true;
    return false;
}

int layers_check_scope(const struct layers *l, const struct scope *scope, struct error *err) {
    for (const char *const *g = scope->include; g && *g; g++)
        if (!matches_any(l, *g))
            return refuse_glob(l, "layers.include", *g, err);
    for (const char *const *g = scope->exclude; g && *g; g++)
        if (!matches_any(l, *g))
            return refuse_glob(l, "layers.exclude", *g, err);
    for (size_t i = 0; scope->overrides && i < scope->overrides->n; i++)
        if (!matches_any(l, scope->overrides->item[i].glob))
            return refuse_glob(l, "overrides", scope->overrides->item[i].glob, err);
    return 0;
}
