/* Recognises the stored form of each layer's weights. A layer whose codes are not floats then reads the codes
 * themselves (graph.h, node.weight); the nodes of the pattern are left without readers and go. */
#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/weight.h"

static int match_node(struct graph *g, struct node *n, struct error *err) {
    int codes = -1, r;

    if (n->op->couple != OP_COUPLE_FREE || n->n_in < 2 || n->in[1] < 0 || n->weight ||
        g->values[n->in[1]].shape.rank < 2)
        return 0;
    r = weight_match(g, n->in[1], &n->weight, &codes, err);
    if (r < 0)
        return error_prefix(err, r, "node '%s'", n->id);
    if (n->weight && n->weight->code->dtype != DT_F32)
        n->in[1] = codes;
    return 0;
}

int pass_match_weights(struct graph *g, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        int r = match_node(g, &g->nodes[i], err);

        if (r < 0)
            return r;
    }
    return graph_drop_unused(g) < 0 ? error_oom(err) : 0;
}
