#include "compress/fold.h"

#include <errno.h>

#include "base/cleanup.h"
#include "engine/pass.h"
#include "engine/shape_infer.h"

static const struct {
    int (*run)(struct graph *, struct error *);
    bool is_norms;
} passes[] = {
    {pass_fold_constants, false},
    {pass_remove_identities, false},
    {pass_fold_batch_norm, true},
    {pass_merge_pads, false},
};

static int fold(struct graph *g, bool norms, struct error *err) {
    for (size_t i = 0; i < sizeof(passes) / sizeof(passes[0]); i++) {
        int r = passes[i].is_norms && !norms ? 0 : passes[i].run(g, err);

        if (r < 0)
            return r;
    }
    return graph_finish(g, err);
}

int fold_graph(struct graph *g, struct error *err) {
    return fold(g, true, err);
}

int fold_but_norms(struct graph *g, struct error *err) {
    return fold(g, false, err);
}

int fold_infer_shapes(struct graph *g, const struct shape *input, struct error *err) {
    struct shapes s;
    int r;

    if (g->n_inputs != 1)
        return error_code(err, -EBADMSG, "method_not_applicable",
            "the model has %zu inputs; methods that look at data work on networks of one input", g->n_inputs);
    r = shapes_infer(g, input, &s, err);
    if (r < 0)
        return r;
    for (size_t v = 0; v < g->n_values; v++) {
        struct value *to = &g->values[v];

        if (s.value[v].shape.rank < 0 || to->init)
            continue;
        to->dtype = s.value[v].dtype;
        if (to->shape.rank >= 0)
            continue;
        /* the sizes belong to this input only: the file keeps them free */
        to->shape.rank = s.value[v].shape.rank;
        for (int i = 0; i < to->shape.rank; i++)
            to->shape.dim[i] = -1;
    }
    shapes_done(&s);
    return 0;
}
