#include "compress/finetune.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/learn.h"
#include "compress/norm_insert.h"
#include "compress/trainable.h"
#include "engine/ops.h"
#include "engine/pass.h"

static int refuse_encoded(const struct layer_entry *e, struct error *err) {
    return error_code(err, -EBADMSG, "method_not_applicable",
        "node '%s': its weights are encoded (%s), a form that cannot be trained: training comes before the step "
        "that encodes them",
        e->id, e->form);
}

/* Forms whose codes have no transform (trainable_layer.c); of the others zero points and blocks of scales are
 * found when the layer is opened. */
static bool is_trainable(const char *form) {
    return strcmp(form, "product") != 0 && strcmp(form, "residual") != 0 && strcmp(form, "uint8") != 0;
}

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    (void)options;
    for (size_t i = 0; i < layers->n; i++) {
        struct layer_entry *e = &layers->entry[i];
        const struct tensor *w = g->values[g->nodes[e->node].in[1]].init;

        if (e->form && !is_trainable(e->form))
            return refuse_encoded(e, err);
        if (e->is_selected && w && w->dtype != DT_F32)
            layer_skip(e, "its weights are not float");
        else if (e->is_selected && effects)
            effects[i] = (struct effect){.form = e->form ? e->form : "dense", .bytes = e->bytes, .macs = -1};
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

/* Where norms cannot be folded at the end, training goes on as it does without any. */
static void choose_norms(struct learn_options *o, const struct trainable *t, struct graph *g) {
    if (trainable_fixes_scales(t) && !strcmp(learn_batch_norms[o->batch_norm], "auto") &&
        norm_insert_is_due(g))
        for (o->batch_norm = 0; strcmp(learn_batch_norms[o->batch_norm], "none") != 0;)
            o->batch_norm++;
}

static int check_norms(const struct learn_options *o, const struct trainable *t, struct error *err) {
    if (!trainable_fixes_scales(t) || strcmp(learn_batch_norms[o->batch_norm], "insert") != 0)
        return 0;
    return error_code(err, -EBADMSG, "method_not_applicable",
        "batch_norm: norms cannot be inserted into a network whose weights or values are encoded: they could not "
        "be folded again");
}

static int train(struct work *work, struct trainable *t, struct learn_options *o,
    const struct finetune_run *f, struct learn_run *run, json_t *report, struct error *err) {
    _cleanup_(frozen_done) struct frozen frozen = {0};
    struct graph *g = trainable_graph(t), *closed = NULL;
    int r = check_norms(o, t, err);

    choose_norms(o, t, g);
    if (r == 0 && f->scope)
        r = frozen_find(g, f->scope, &frozen, err);
    run->frozen = f->scope ? &frozen : NULL;
    trainable_run(t, run);
    if (r == 0)
        r = learn(g, run, o, report, err);
    if (r == 0)
        r = trainable_close(t, g, &closed, err);
    if (r < 0)
        return r;
    graph_free(work->graph);
    work->graph = closed;
    return 0;
}

int finetune_graph(struct work *work, const struct learn_options *options, const struct finetune_run *f,
    json_t *report, struct error *err) {
    _cleanup_(trainable_freep) struct trainable *t = NULL;
    struct learn_options o = *options;
    struct learn_run run = {.seed = work->seed,
        .progress = work->progress,
        .distil = f->distil,
        .hook = f->hook,
        .checkpoint_seconds = work->checkpoint_seconds,
        .memory_bytes = work->memory_bytes};
    char checkpoint[4096];
    int r;

    if (!work->samples || !work->samples->source)
        return error_code(
            err, -EBADMSG, "data_required", "training needs a data set of pictures, not ready inputs");
    run.source = work->samples->source;
    if (work->checkpoint) {
        if (snprintf(checkpoint, sizeof(checkpoint), "%s/%s", work->checkpoint, f->name) >=
            (int)sizeof(checkpoint))
            return error_set(err, -ENAMETOOLONG, "the path of the checkpoint is too long");
        run.checkpoint = checkpoint;
    }
    r = trainable_open(work->graph,
        &(struct trainable_options){.latents = f->latents, .learns_scales = f->learns_scales}, &t, err);
    return r < 0 ? r : train(work, t, &o, f, &run, report, err);
}

static int apply(
    struct work *work, const void *options, const struct scope *scope, json_t *report, struct error *err) {
    char name[32];

    snprintf(name, sizeof(name), "step%zu", work->step);
    return finetune_graph(work, options, &(struct finetune_run){.scope = scope, .name = name}, report, err);
}

static bool trains(const void *options) {
    (void)options;
    return true;
}

const struct method method_finetune = {
    .name = "finetune",
    .summary = "Goes on training on labelled data",
    .source = "LeCun et al. 1998; Ioffe and Szegedy 2015; Sutskever et al. 2013",
    .options = &learn_table,
    .options_size = sizeof(struct learn_options),
    .needs_data = true,
    .takes_encoded = true,
    .trains = trains,
    .plan = plan,
    .apply = apply,
};
