/* Recognises the stored form of each layer's weights. The graph stays: in[1] still says the floats, which the
 * plan computes only where a kernel cannot take the codes. */
#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/weight.h"

static int match(struct graph *g, struct node *n, struct error *err) {
    int r = weight_match(g, n->in[1], &n->weight, NULL, err);

    if (r == 0 && n->weight && n->weight->shape.rank < 2)
        n->weight = NULL;
    if (r == 0 && n->weight)
        r = weight_check(n->weight, err);
    return r < 0 ? error_prefix(err, r, "node '%s'", n->id) : 0;
}

/* The nodes behind weights that were recognised. Nodes are sorted: one walk back. */
static void mark_encodings(struct graph *g) {
    for (size_t i = g->n_nodes; i-- > 0;) {
        const struct node *n = &g->nodes[i];

        for (int k = 0; k < n->n_in; k++) {
            int p = n->in[k] < 0 ? -1 : g->values[n->in[k]].producer;

            if (p >= 0 && (n->is_encoding || (n->weight && k == 1)))
                g->nodes[p].is_encoding = true;
        }
    }
}

int pass_match_weights(struct graph *g, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        struct node *n = &g->nodes[i];
        int r;

        if (n->op->couple != OP_COUPLE_FREE || n->n_in < 2 || n->in[1] < 0 || n->weight)
            continue;
        r = match(g, n, err);
        if (r < 0)
            return r;
    }
    mark_encodings(g);
    return 0;
}
