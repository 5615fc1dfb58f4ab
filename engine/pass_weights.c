/* Recognises the stored form of each layer's weights. The graph stays: in[1] still says the floats, which the
 * plan computes only where a kernel cannot take the codes. */
#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/weight.h"

int pass_match_weights(struct graph *g, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        struct node *n = &g->nodes[i];
        int r;

        if (n->op->couple != OP_COUPLE_FREE || n->n_in < 2 || n->in[1] < 0 || n->weight)
            continue;
        r = weight_match(g, n->in[1], &n->weight, NULL, err);
        if (r < 0)
            return error_prefix(err, r, "node '%s'", n->id);
        if (n->weight && n->weight->shape.rank < 2)
            n->weight = NULL;
    }
    return 0;
}
