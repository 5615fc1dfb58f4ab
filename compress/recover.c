#include "compress/recover.h"

#include <stdio.h>

#include "compress/finetune.h"

static const struct param calibrate_rows[] = {
    {
        .name = "samples",
        .type = PARAM_INT,
        .at = offsetof(struct recover_calibrate, samples),
        .min = 1,
        .max = 100000,
        .dflt = "512",
        .doc = "calibration samples",
    },
    {
        .name = "bias",
        .type = PARAM_BOOL,
        .at = offsetof(struct recover_calibrate, bias),
        .dflt = "true",
        .doc = "match each channel's mean",
    },
    {
        .name = "variance",
        .type = PARAM_BOOL,
        .at = offsetof(struct recover_calibrate, variance),
        .dflt = "true",
        .doc = "match each channel's deviation",
    },
    {
        .name = "least_squares",
        .type = PARAM_BOOL,
        .at = offsetof(struct recover_calibrate, least_squares),
        .dflt = "false",
        .doc =
            "first, weights of float layers are solved for the parent's outputs; zeros of sparse ones stay",
        .source =
            "He et al. 2017, Channel pruning for accelerating very deep neural networks; Luo et al. 2017",
    },
};
static const struct param_table calibrate_table = {calibrate_rows, 4};

static const struct param recover_rows[] = {
    {
        .name = "calibrate",
        .type = PARAM_OBJECT,
        .at = offsetof(struct recover, calibrate),
        .table = &calibrate_table,
        .given_at = offsetof(struct recover, calibrate.is_wanted),
        .doc = "statistics of the parent's pre-activations restored, without training",
        .source = "Nagel et al. 2019; Finkelstein et al. 2019, Fighting quantization bias with bias",
    },
    {
        .name = "finetune",
        .type = PARAM_OBJECT,
        .at = offsetof(struct recover, finetune),
        .table = &learn_table,
        .given_at = offsetof(struct recover, has_finetune),
        .doc = "training afterwards, with labels unless distill says otherwise; its options as of the method",
    },
    {
        .name = "distill",
        .type = PARAM_OBJECT,
        .at = offsetof(struct recover, distill),
        .table = &distil_table,
        .given_at = offsetof(struct recover, has_distill),
        .doc = "training afterwards that meets the parent's answers; finetune's options hold for it",
        .source = "Hinton, Vinyals and Dean 2015",
    },
};
const struct param_table recover_table = {recover_rows, sizeof(recover_rows) / sizeof(recover_rows[0])};

bool recover_trains(const struct recover *r) {
    return r->has_finetune || r->has_distill;
}

/* What calibration moved is not what latents of before would go to. */
static int train(struct work *work, const struct graph *before, const struct recover *o, json_t *report,
    struct error *err) {
    json_t *found = json_object();
    struct learn_distil distil;
    struct finetune_run run = {.latents = o->calibrate.is_wanted ? NULL : before};
    char name[40];
    int r = o->has_distill ? distil_read(&o->distill, work->parent, &distil, err) : 0;

    snprintf(name, sizeof(name), "step%zu.recover", work->step);
    json_object_set_new(report, "finetune", found);
    run.name = name;
    run.distil = o->has_distill ? &distil : NULL;
    return r < 0 ? r : finetune_graph(work, &o->finetune, &run, found, err);
}

int recover_run(struct work *work, const struct graph *before, const struct recover *o, json_t *report,
    struct error *err) {
    int r = o->calibrate.is_wanted && !work->has_calibrated
                ? recover_calibrate(work, work->parent, &o->calibrate, err)
                : 0;

    return r == 0 && recover_trains(o) && !work->has_trained ? train(work, before, o, report, err) : r;
}
