#include <stdio.h>

#include "compress/finetune.h"
#include "compress/quantize.h"

/* Of a network that is nearly right: a tenth of what learning it takes, falling. */
#define RATE  0.002
#define BATCH 64

int quantize_qat(struct work *work, const struct quantize_options *o, const struct graph *latents,
    json_t *report, struct error *err) {
    struct learn_options learn = {0};
    char name[40];
    struct finetune_run run = {
        .latents = latents, .learns_scales = o->qat.estimator == QAT_LSQ, .name = name};
    json_t *found = json_object();
    int r = param_defaults(&learn_table, &learn, err);

    snprintf(name, sizeof(name), "step%zu.qat", work->step);
    if (!found || json_object_set_new(report, "qat", found) < 0)
        return error_oom(err);
    learn.epochs = o->qat.epochs;
    learn.lr = RATE;
    learn.batch = BATCH;
    return r < 0 ? r : finetune_graph(work, &learn, &run, found, err);
}
