#include "compress/variant_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/replace_file.h"
#include "engine/onnx.h"
#include "engine/ops.h"
#include "engine/weight.h"

json_t *variant_layers(struct graph *g, struct error *err) {
    json_t *list = json_array();

    for (size_t i = 0; list && i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        const struct weight *w = NULL;

        if (n->op->couple != OP_COUPLE_FREE || n->n_in < 2)
            continue;
        if (weight_match(g, n->in[1], &w, NULL, err) < 0) {
            json_decref(list);
            return NULL;
        }
        if (w)
            json_array_append_new(list, json_pack("{s:s, s:s}", "id", n->id, "form", weight_form_name(w)));
    }
    return list;
}

int variant_describe(struct graph *g, const json_t *steps, const char *parent_digest, struct error *err) {
    _cleanup_(freep) char *recipe = json_dumps(steps, JSON_COMPACT | JSON_SORT_KEYS), *forms = NULL;
    json_t *layers = variant_layers(g, err);

    if (layers)
        forms = json_dumps(layers, JSON_COMPACT);
    json_decref(layers);
    if (!recipe || !forms)
        return error_oom(err);
    if (graph_set_prop(g, "bonsai.recipe", recipe) < 0 || graph_set_prop(g, "bonsai.layers", forms) < 0 ||
        (parent_digest && graph_set_prop(g, "bonsai.parent", parent_digest) < 0))
        return error_oom(err);
    return 0;
}

int variant_write(const struct graph *g, const char *path, struct error *err) {
    _cleanup_(replace_file_done) struct replace_file f = {.fd = -1};
    int r = replace_file_open(path, &f, err);

    if (r == 0)
        r = onnx_write_fd(g, f.fd, err);
    return r == 0 ? replace_file_commit(&f, err) : r;
}
