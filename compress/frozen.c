#include "compress/frozen.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/ops.h"

void frozen_done(struct frozen *f) {
    free(f->value);
    *f = (struct frozen){0};
}

/* Each value is of the layer it comes from: its own output and what follows up to the next layer. */
static void find_owners(const struct graph *g, const struct layers *layers, const struct layer_entry **ret) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        const struct layer_entry *e = layers_find(layers, (int)i);

        for (int k = 0; !e && k < n->n_in; k++)
            e = n->in[k] >= 0 ? ret[n->in[k]] : NULL;
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] >= 0)
                ret[n->out[k]] = e;
    }
}

enum use { USE_NONE, USE_FROZEN, USE_LEARNED };

static void mark(const struct graph *g, const struct node *n, const struct layer_entry *owner, char *use) {
    for (int k = 0; k < n->n_in && k < 32; k++) {
        int v = n->in[k];

        if (v < 0 || !g->values[v].init || !((n->op->params | n->op->stats) & 1u << k))
            continue;
        if (!owner || owner->is_selected)
            use[v] = USE_LEARNED;
        else if (use[v] == USE_NONE)
            use[v] = USE_FROZEN;
    }
}

int frozen_find(struct graph *g, const struct scope *scope, struct frozen *ret, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    _cleanup_(freep) const struct layer_entry **owner = calloc(g->n_values + 1, sizeof(*owner));
    _cleanup_(freep) char *use = calloc(g->n_values + 1, 1);
    int r = layers_list(g, scope, &layers, err);

    *ret = (struct frozen){.value = calloc(g->n_values + 1, sizeof(*ret->value))};
    if (r < 0)
        return r;
    if (!owner || !use || !ret->value)
        return error_oom(err);
    find_owners(g, &layers, owner);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].n_out > 0 && g->nodes[i].out[0] >= 0)
            mark(g, &g->nodes[i], owner[g->nodes[i].out[0]], use);
    for (size_t v = 0; v < g->n_values; v++)
        if (use[v] == USE_FROZEN)
            ret->value[ret->n++] = (int)v;
    return 0;
}
