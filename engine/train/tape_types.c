/* Which values between layers are kept as bfloat16: pictures whose makers and readers all are convolutions,
 * batch norms with their tails, and global averages, which read them. Parameters, statistics, gradients of
 * parameters and all sums stay floats. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/train/tape.h"

struct choice {
    struct tape *t;
    bool *is_bf16; /* [values] */
    bool is_changed;
};

static void keep_float(struct choice *c, int v) {
    if (v < 0 || !c->is_bf16[v])
        return;
    c->is_bf16[v] = false;
    c->is_changed = true;
}

/* All of them or none. */
static void keep_alike(struct choice *c, const int *v, int n) {
    bool all = true;

    for (int i = 0; i < n; i++)
        all = all && (v[i] < 0 || c->is_bf16[v[i]]);
    for (int i = 0; !all && i < n; i++)
        keep_float(c, v[i]);
}

static void visit(struct choice *c, const struct node *n) {
    if (strcmp(n->op_type, "Conv") == 0 || strcmp(n->op_type, "BatchNormalization") == 0) {
        keep_alike(c, (int[]){n->in[0], n->out[0]}, 2);
        return;
    }
    for (int k = 0; k < n->n_in && strcmp(n->op_type, "GlobalAveragePool") != 0; k++)
        keep_float(c, n->in[k]);
    for (int k = 0; k < n->n_out; k++)
        keep_float(c, n->out[k]);
}

static void visit_tail(struct choice *c, const struct tape_tail *tail) {
    const struct node *nodes = c->t->graph->nodes;

    keep_alike(c, (int[]){nodes[tail->head].in[0], nodes[tail->last].out[0], tail->other}, 3);
}

static bool is_picture(const struct tape *t, int v) {
    const struct tensor *x = &t->value[v].t;

    return !x->data && x->dtype == DT_F32 && x->shape.rank == 4 && v != t->logits &&
           (v == t->input || t->graph->values[v].producer >= 0);
}

int tape_choose_types(
    struct tape *t, const bool *is_needed, const struct tape_tail *tail, struct error *err) {
    _cleanup_(freep) bool *is_bf16 = calloc(t->n_values + 1, sizeof(bool));
    struct choice c = {.t = t, .is_bf16 = is_bf16, .is_changed = true};

    if (!is_bf16)
        return error_oom(err);
    for (size_t v = 0; v < t->n_values; v++)
        is_bf16[v] = is_picture(t, (int)v);
    while (c.is_changed) { /* each round makes a value a float for good */
        c.is_changed = false;
        for (size_t i = 0; i < t->graph->n_nodes; i++) {
            if (tail[i].head >= 0)
                visit_tail(&c, &tail[i]);
            else if (is_needed[i])
                visit(&c, &t->graph->nodes[i]);
        }
    }
    for (size_t v = 0; v < t->n_values; v++)
        if (is_bf16[v])
            t->value[v].t.dtype = DT_BF16;
    for (size_t v = 0; v < t->n_values; v++)
        t->n_bf16 += is_bf16[v];
    return 0;
}
