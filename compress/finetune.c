#include "compress/finetune.h"

#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "compress/learn.h"
#include "engine/ops.h"
#include "engine/pass.h"

static int refuse_encoded(const struct layer_entry *e, struct error *err) {
    return error_code(err, -EBADMSG, "method_not_applicable",
        "node '%s': its weights are encoded (%s); training needs float weights and comes before the steps that "
        "encode them",
        e->id, e->form);
}

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    (void)options;
    for (size_t i = 0; i < layers->n; i++) {
        struct layer_entry *e = &layers->entry[i];
        const struct tensor *w = g->values[g->nodes[e->node].in[1]].init;

        if (e->form)
            return refuse_encoded(e, err);
        if (e->is_selected && w->dtype != DT_F32)
            layer_skip(e, "its weights are not float");
        else if (e->is_selected && effects)
            effects[i] = (struct effect){.form = "dense", .bytes = 4 * e->params, .macs = -1};
    }
    return 0;
}

static int check_float(struct graph *g, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    int r = layers_list(g, NULL, &layers, err);

    for (size_t i = 0; r == 0 && i < layers.n; i++)
        if (layers.entry[i].form)
            return refuse_encoded(&layers.entry[i], err);
    for (size_t i = 0; r == 0 && i < g->n_nodes; i++)
        if (g->nodes[i].op->sees_codes)
            return error_code(err, -EBADMSG, "method_not_applicable",
                "node '%s': the network is quantised; finetune comes before the steps that encode weights",
                g->nodes[i].id);
    return r;
}

int finetune_prepare(struct graph *g, struct error *err) {
    int r = check_float(g, err);

    if (r == 0)
        r = pass_remove_identities(g, err);
    return r < 0 ? r : pass_fold_constants(g, err);
}

int finetune_graph(struct work *work, const struct learn_options *o, const struct learn_distil *distil,
    const struct scope *scope, const char *name, json_t *report, struct error *err) {
    _cleanup_(frozen_done) struct frozen frozen = {0};
    struct learn_run run = {.seed = work->seed,
        .progress = work->progress,
        .distil = distil,
        .checkpoint_seconds = work->checkpoint_seconds,
        .memory_bytes = work->memory_bytes};
    char checkpoint[4096];
    int r;

    if (!work->samples->source)
        return error_code(
            err, -EBADMSG, "data_required", "training needs a data set of pictures, not ready inputs");
    r = finetune_prepare(work->graph, err);
    if (r == 0 && scope)
        r = frozen_find(work->graph, scope, &frozen, err);
    if (r < 0)
        return r;
    run.frozen = scope ? &frozen : NULL;
    run.source = work->samples->source;
    if (work->checkpoint) {
        if (snprintf(checkpoint, sizeof(checkpoint), "%s/%s", work->checkpoint, name) >=
            (int)sizeof(checkpoint))
            return error_set(err, -ENAMETOOLONG, "the path of the checkpoint is too long");
        run.checkpoint = checkpoint;
    }
    return learn(work->graph, &run, o, report, err);
}

static int apply(
    struct work *work, const void *options, const struct scope *scope, json_t *report, struct error *err) {
    char name[32];

    snprintf(name, sizeof(name), "step%zu", work->step);
    return finetune_graph(work, options, NULL, scope, name, report, err);
}

const struct method method_finetune = {
    .name = "finetune",
    .summary = "Goes on training on labelled data",
    .source = "LeCun et al. 1998; Ioffe and Szegedy 2015; Sutskever et al. 2013",
    .options = &learn_table,
    .options_size = sizeof(struct learn_options),
    .needs_data = true,
    .plan = plan,
    .apply = apply,
};
