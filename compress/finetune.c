#include "compress/finetune.h"

#include <errno.h>

#include "base/cleanup.h"
#include "compress/learn.h"
#include "engine/ops.h"
#include "engine/pass.h"

static const struct param rows[] = {
    {
        .name = "loss",
        .type = PARAM_ENUM,
        .at = offsetof(struct learn_options, loss),
        .choices = learn_losses,
        .dflt = "auto",
        .doc = "auto: cross entropy; bce and l2 take the classes as 0 and 1",
    },
    {
        .name = "epochs",
        .type = PARAM_INT,
        .at = offsetof(struct learn_options, epochs),
        .min = 1,
        .max = 10000,
        .dflt = "5",
        .doc = "times that all pictures are seen",
    },
    {
        .name = "optimizer",
        .type = PARAM_ENUM,
        .at = offsetof(struct learn_options, optimizer),
        .choices = learn_optimizers,
        .dflt = "sgd",
        .doc = "how weights move",
        .source = "Sutskever et al. 2013; Kingma and Ba 2015; Loshchilov and Hutter 2019",
    },
    {
        .name = "lr",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, lr),
        .min = 1e-8,
        .max = 100,
        .dflt = "0.01",
        .doc = "largest learning rate",
    },
    {
        .name = "schedule",
        .type = PARAM_ENUM,
        .at = offsetof(struct learn_options, schedule),
        .choices = learn_schedules,
        .dflt = "cosine",
        .doc = "of the learning rate over all steps; step: a tenth after half and after three quarters",
        .source = "Loshchilov and Hutter 2017; Smith 2018",
    },
    {
        .name = "warmup",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, warmup),
        .min = 0,
        .max = 1,
        .dflt = "0.05",
        .doc = "share of the steps over which the learning rate rises from 0",
    },
    {
        .name = "batch",
        .type = PARAM_INT,
        .at = offsetof(struct learn_options, batch),
        .min = 1,
        .max = 4096,
        .dflt = "128",
        .doc = "pictures a step; what does not fill one at an epoch's end is left out of that epoch",
    },
    {
        .name = "momentum",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, momentum),
        .min = 0,
        .max = 0.9999,
        .dflt = "0.9",
        .doc = "of sgd",
    },
    {
        .name = "nesterov",
        .type = PARAM_BOOL,
        .at = offsetof(struct learn_options, nesterov),
        .dflt = "true",
        .doc = "of sgd",
    },
    {
        .name = "weight_decay",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, weight_decay),
        .min = 0,
        .max = 10,
        .dflt = "5e-4",
        .doc = "of weights; biases and norms do not decay",
    },
    {
        .name = "label_smoothing",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, label_smoothing),
        .min = 0,
        .max = 0.99,
        .dflt = "0",
        .doc = "share of the target that all classes have alike (cross entropy)",
        .source = "Szegedy et al. 2016, Rethinking the Inception architecture for computer vision",
    },
    {
        .name = "clip",
        .type = PARAM_REAL,
        .at = offsetof(struct learn_options, clip),
        .min = 0,
        .max = 1e6,
        .dflt = "0",
        .doc = "largest norm of all gradients together; 0: none",
        .source = "Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
    },
    {
        .name = "batch_norm",
        .type = PARAM_ENUM,
        .at = offsetof(struct learn_options, batch_norm),
        .choices = learn_batch_norms,
        .dflt = "auto",
        .doc = "keep (auto): normalises by the minibatch and learns its statistics; none: leaves them",
        .source = "Ioffe and Szegedy 2015",
    },
};

static const struct param_table table = {rows, sizeof(rows) / sizeof(rows[0])};

static int refuse_choice(struct error *err) {
    return error_code(err, -EBADMSG, "method_not_applicable",
        "finetune learns all layers: `layers` cannot choose some of them");
}

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    (void)options;
    for (size_t i = 0; i < layers->n; i++) {
        struct layer_entry *e = &layers->entry[i];
        const struct tensor *w = g->values[g->nodes[e->node].in[1]].init;

        if (e->form)
            continue;
        if (!e->is_selected)
            return refuse_choice(err);
        if (w->dtype != DT_F32)
            layer_skip(e, "its weights are not float");
        else if (effects)
            effects[i] = (struct effect){.form = "dense", .bytes = 4 * e->params, .macs = -1};
    }
    return 0;
}

static int check_float(struct graph *g, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    int r = layers_list(g, NULL, &layers, err);

    for (size_t i = 0; r == 0 && i < layers.n; i++)
        if (layers.entry[i].form)
            return error_code(err, -EBADMSG, "method_not_applicable",
                "node '%s': its weights are encoded (%s); finetune needs float weights and comes before the "
                "steps that encode them",
                layers.entry[i].id, layers.entry[i].form);
    for (size_t i = 0; r == 0 && i < g->n_nodes; i++)
        if (g->nodes[i].op->sees_codes)
            return error_code(err, -EBADMSG, "method_not_applicable",
                "node '%s': the network is quantised; finetune comes before the steps that encode weights",
                g->nodes[i].id);
    return r;
}

static int apply(
    struct work *work, const void *options, const struct scope *scope, json_t *report, struct error *err) {
    struct learn_run run = {.seed = work->seed, .progress = work->progress};
    int r = check_float(work->graph, err);

    if (r == 0 && (scope->exclude || (scope->include && scope->include[0])))
        r = refuse_choice(err);
    if (r == 0 && !work->samples->source)
        r = error_code(
            err, -EBADMSG, "data_required", "finetune needs a labelled data set, not ready inputs");
    if (r == 0)
        r = pass_remove_identities(work->graph, err);
    if (r == 0)
        r = pass_fold_constants(work->graph, err);
    if (r < 0)
        return r;
    run.source = work->samples->source;
    return learn(work->graph, &run, options, report, err);
}

const struct method method_finetune = {
    .name = "finetune",
    .summary = "Goes on training on labelled data",
    .source = "LeCun et al. 1998; Ioffe and Szegedy 2015; Sutskever et al. 2013",
    .options = &table,
    .options_size = sizeof(struct learn_options),
    .needs_data = true,
    .plan = plan,
    .apply = apply,
};
