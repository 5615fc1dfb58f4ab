#include "compress/halves.h"

#include "base/cleanup.h"
#include "engine/pass.h"

void halves_done(struct halves *h) {
    free(h->inputs);
    free(h->outputs);
    *h = (struct halves){0};
}

int halves_widen(struct graph *g, struct halves *ret, struct error *err) {
    _cleanup_(halves_done) struct halves h = {.inputs = calloc(g->n_inputs + 1, sizeof(*h.inputs)),
        .outputs = calloc(g->n_outputs + 1, sizeof(*h.outputs))};
    int r;

    if (!h.inputs || !h.outputs)
        return error_oom(err);
    for (size_t i = 0; i < g->n_inputs; i++)
        h.inputs[i] = g->values[g->inputs[i]].dtype;
    for (size_t i = 0; i < g->n_outputs; i++)
        h.outputs[i] = g->values[g->outputs[i]].dtype;
    r = pass_widen_all(g, err);
    if (r == 0)
        r = pass_float_io(g, err);
    if (r < 0)
        return r;
    *ret = h;
    h = (struct halves){0};
    return 0;
}

int halves_restore(struct graph *g, const struct halves *h, struct error *err) {
    return pass_restore_io(g, h->inputs, h->outputs, err);
}
