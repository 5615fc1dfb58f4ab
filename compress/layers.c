#include "compress/layers.h"

#include <fnmatch.h>
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

/* 1; 0: no layer; negative errno. */
static int fill_entry(
    struct graph *g, int node, const struct scope *scope, struct layer_entry *e, struct error *err) {
    const struct node *n = &g->nodes[node];
    const char *glob = scope ? first_match(scope->include, n->id) : NULL;
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
    e->is_named = glob && strcmp(glob, "*") != 0;
    if (scope && scope->include && !glob)
        layer_skip(e, "not included");
    if (scope && first_match(scope->exclude, n->id))
        layer_skip(e, "excluded");
    if (encoded)
        layer_skip(e, layer_encoded);
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
