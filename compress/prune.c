#include "compress/prune.h"

#include <errno.h>

#include "compress/recover.h"

static const char *const granularities[] = {"channel", "weight", "block", "nm", NULL};
static const char *const criteria[] = {
    "magnitude", "lamp", "bn_scale", "fpgm", "apoz", "taylor", "hessian", "thinet", "random", NULL};
static const char *const norms[] = {"l2", "l1", NULL};
static const char *const scopes[] = {"global", "layer", "sensitivity", NULL};
static const char *const schedules[] = {"oneshot", "iterative", "gradual", NULL};
static const char *const regularizers[] = {"l1", "group_lasso", "slimming", NULL};

#define BIT(granularity) (1u << (granularity))
#define WEIGHTS          (BIT(PRUNE_WEIGHT) | BIT(PRUNE_BLOCK) | BIT(PRUNE_NM))

const struct prune_criterion prune_criteria[] = {
    [PRUNE_MAGNITUDE] = {"magnitude", BIT(PRUNE_CHANNEL) | WEIGHTS, false, false,
        "Han et al. 2015; Li et al. 2017, Pruning filters for efficient convnets"},
    [PRUNE_LAMP] = {"lamp", BIT(PRUNE_CHANNEL) | WEIGHTS, false, false,
        "Lee et al. 2021, Layer-adaptive sparsity for the magnitude-based pruning, equation 4"},
    [PRUNE_BN_SCALE] = {"bn_scale", BIT(PRUNE_CHANNEL), false, false,
        "Liu et al. 2017, Learning efficient convolutional networks through network slimming"},
    [PRUNE_FPGM] = {"fpgm", BIT(PRUNE_CHANNEL), false, false,
        "He et al. 2019, Filter pruning via geometric median, equation 6"},
    [PRUNE_APOZ] = {"apoz", BIT(PRUNE_CHANNEL), true, false, "Hu et al. 2016, Network trimming, equation 1"},
    [PRUNE_TAYLOR] = {"taylor", BIT(PRUNE_CHANNEL) | WEIGHTS, true, true,
        "Molchanov et al. 2019, Importance estimation for neural network pruning, equation 8"},
    [PRUNE_HESSIAN] = {"hessian", BIT(PRUNE_CHANNEL) | WEIGHTS, true, true,
        "LeCun, Denker and Solla 1990, Optimal brain damage, equation 5"},
    [PRUNE_THINET] = {"thinet", BIT(PRUNE_CHANNEL), true, false, "Luo, Wu and Lin 2017, ThiNet, algorithm 1"},
    [PRUNE_RANDOM] = {"random", BIT(PRUNE_CHANNEL) | WEIGHTS, false, false,
        "what a criterion is held against"},
};
const size_t prune_criteria_size = sizeof(prune_criteria) / sizeof(prune_criteria[0]);

#define AT(field) offsetof(struct prune_options, field)

static const struct param schedule_rows[] = {
    {
        .name = "kind",
        .type = PARAM_ENUM,
        .at = AT(schedule.kind) - AT(schedule),
        .choices = schedules,
        .dflt = "oneshot",
        .doc = "oneshot: all at once; iterative: judge, remove a part, fine-tune, again; gradual: sparsity "
               "rises with the cube of what is left over the epochs of recover.finetune",
        .source = "Han et al. 2015; Zhu and Gupta 2017, To prune, or not to prune, equation 1",
    },
    {
        .name = "rounds",
        .type = PARAM_INT,
        .at = AT(schedule.rounds) - AT(schedule),
        .min = 2,
        .max = 100,
        .dflt = "5",
        .when = "kind=iterative",
        .doc = "how often; recover.finetune.epochs are of each round",
    },
    {
        .name = "max_drop",
        .type = PARAM_REAL,
        .at = AT(schedule.max_drop) - AT(schedule),
        .min = 0,
        .max = 1,
        .dflt = "0.02",
        .when = "kind=iterative",
        .doc =
            "a round after whose training the accuracy on held-out pictures is lower by more than this than before the first "
            "one is undone, and the last",
    },
};
static const struct param_table schedule_table = {
    schedule_rows, sizeof(schedule_rows) / sizeof(schedule_rows[0])};

static const struct param regularize_rows[] = {
    {
        .name = "kind",
        .type = PARAM_ENUM,
        .at = AT(regularize.kind) - AT(regularize),
        .choices = regularizers,
        .dflt = "l1",
        .doc =
            "l1: of weights; group_lasso: the length of each channel's weights; slimming: l1 of batch norm "
            "scales",
        .source = "Wen et al. 2016, Learning structured sparsity; Liu et al. 2017, network slimming",
    },
    {
        .name = "strength",
        .type = PARAM_REAL,
        .at = AT(regularize.strength) - AT(regularize),
        .min = 1e-9,
        .max = 1,
        .dflt = "1e-4",
        .doc = "by which it is multiplied in the loss",
    },
    {
        .name = "epochs",
        .type = PARAM_INT,
        .at = AT(regularize.epochs) - AT(regularize),
        .min = 1,
        .max = 10000,
        .dflt = "3",
        .doc = "of training with it, before anything is removed",
    },
};
static const struct param_table regularize_table = {
    regularize_rows, sizeof(regularize_rows) / sizeof(regularize_rows[0])};

static const struct param rows[] = {
    {
        .name = "granularity",
        .type = PARAM_ENUM,
        .at = AT(granularity),
        .choices = granularities,
        .dflt = "channel",
        .doc = "channel: whole channels, with all that is tied to them, the network gets smaller; weight: "
               "single ones; block: neighbours together; nm: a fixed number of every few",
        .source = "Fang et al. 2023, DepGraph; Mishra et al. 2021, Accelerating sparse deep neural networks",
    },
    {
        .name = "block",
        .type = PARAM_PAIR,
        .at = AT(block),
        .min = 1,
        .max = 64,
        .dflt = "1,4",
        .when = "granularity=block",
        .per_layer = true,
        .doc = "output channels, and consecutive input channels of one tap; int8 kernels want [1,4]",
    },
    {
        .name = "nm",
        .type = PARAM_PAIR,
        .at = AT(nm),
        .min = 1,
        .max = 16,
        .dflt = "2,4",
        .when = "granularity=nm",
        .per_layer = true,
        .doc = "weights that stay, of so many consecutive input channels of one tap: 2, 4 or 16",
    },
    {
        .name = "criterion",
        .type = PARAM_ENUM,
        .at = AT(criterion),
        .choices = criteria,
        .dflt = "magnitude",
        .doc =
            "what is important: apoz, taylor, hessian and thinet need data; bn_scale, fpgm, apoz and thinet "
            "judge channels only; lamp is magnitude with each layer's own share found by itself",
        .source = "each criterion's paper stands at its row in compress/prune.c",
    },
    {
        .name = "norm",
        .type = PARAM_ENUM,
        .at = AT(norm),
        .choices = norms,
        .dflt = "l2",
        .when = "criterion=magnitude",
        .doc = "of the weights of a channel or block",
    },
    {
        .name = "scope",
        .type = PARAM_ENUM,
        .at = AT(scope),
        .choices = scopes,
        .dflt = "global",
        .doc = "global: the least important of the whole network; layer: the same share of each layer; "
               "sensitivity: less of layers whose loss hurts more, as measured on samples",
        .source = "Han et al. 2015, section 3.4; Li et al. 2017, section 3.2",
    },
    {
        .name = "sparsity",
        .type = PARAM_REAL,
        .at = AT(sparsity),
        .min = 0.001,
        .max = 0.999,
        .per_layer = true,
        .doc = "share of the channels, or of the weights, that goes",
    },
    {
        .name = "macs",
        .type = PARAM_REAL,
        .at = AT(macs),
        .min = 0.001,
        .max = 0.999,
        .doc = "share of the whole network's multiplications that stays",
    },
    {
        .name = "threshold_sigma",
        .type = PARAM_REAL,
        .at = AT(threshold_sigma),
        .min = 0.001,
        .max = 10,
        .per_layer = true,
        .doc = "granularity weight: weights smaller than this many standard deviations of their layer go",
        .source = "Han et al. 2015, Learning both weights and connections, section 3.4",
    },
    {
        .name = "schedule",
        .type = PARAM_OBJECT,
        .at = AT(schedule),
        .table = &schedule_table,
        .given_at = NO_OFFSET,
        .doc = "in how many rounds",
    },
    {
        .name = "regularize",
        .type = PARAM_OBJECT,
        .at = AT(regularize),
        .table = &regularize_table,
        .given_at = AT(has_regularize),
        .doc = "training that makes the unimportant small, before it goes",
    },
};
static const struct param_table table = {rows, sizeof(rows) / sizeof(rows[0])};

/* One of sparsity, macs and threshold_sigma, and one that the granularity can meet. */
static int check_budget(const struct prune_options *o, struct error *err) {
    int n = (o->sparsity > 0) + (o->macs > 0) + (o->threshold_sigma > 0);

    if (o->granularity == PRUNE_NM)
        return n == 0 ? 0
                      : error_set(err, -EINVAL,
                            ".nm says how much stays with granularity 'nm': no sparsity, macs or "
                            "threshold_sigma beside it");
    if (n != 1)
        return error_set(
            err, -EINVAL, "one of sparsity, macs and threshold_sigma is required, %d are given", n);
    if (o->threshold_sigma > 0 && (o->granularity != PRUNE_WEIGHT || o->criterion != PRUNE_MAGNITUDE))
        return error_set(err, -EINVAL,
            ".threshold_sigma is for granularity 'weight' and criterion 'magnitude', not '%s' and '%s'",
            granularities[o->granularity], criteria[o->criterion]);
    return 0;
}

static int check(const void *options, struct error *err) {
    const struct prune_options *o = options;
    const struct prune_criterion *c = prune_criterion_of(o);
    int r = check_budget(o, err);

    if (r < 0)
        return r;
    if (!(c->granularities & BIT(o->granularity)))
        return error_set(err, -EINVAL, ".criterion: '%s' judges channels, not granularity '%s'", c->name,
            granularities[o->granularity]);
    if (o->granularity == PRUNE_NM &&
        (o->nm[0] > o->nm[1] || (o->nm[1] != 2 && o->nm[1] != 4 && o->nm[1] != 16)))
        return error_set(
            err, -EINVAL, ".nm: [%d, %d] cannot be: 1 to all stay, of 2, 4 or 16", o->nm[0], o->nm[1]);
    if (o->schedule.kind == PRUNE_GRADUAL && c->needs_gradients)
        return error_set(err, -EINVAL,
            ".schedule.kind: 'gradual' judges while it trains, by magnitude, lamp or random; '%s' goes with 'oneshot' "
            "and 'iterative'",
            c->name);
    if (o->granularity != PRUNE_CHANNEL && o->scope == PRUNE_SENSITIVITY && o->threshold_sigma > 0)
        return error_set(
            err, -EINVAL, ".scope: 'sensitivity' shares out sparsity or macs, no threshold_sigma");
    if (o->granularity == PRUNE_CHANNEL && o->schedule.kind == PRUNE_GRADUAL)
        return error_set(err, -EINVAL,
            ".schedule.kind: channels are removed in rounds ('iterative'); 'gradual' is for weights");
    return 0;
}

static bool wants_data(const void *options) {
    const struct prune_options *o = options;

    return prune_criterion_of(o)->needs_data || o->scope == PRUNE_SENSITIVITY || o->has_regularize;
}

static int check_recover(const void *options, const struct recover *recover, struct error *err) {
    const struct prune_options *o = options;

    if (o->schedule.kind != PRUNE_ONESHOT && !recover_trains(recover))
        return error_set(err, -EINVAL,
            ".schedule.kind: '%s' trains while it prunes: recover.finetune or recover.distill is missing",
            schedules[o->schedule.kind]);
    if (o->schedule.kind == PRUNE_GRADUAL && recover->calibrate.is_wanted)
        return error_set(err, -EINVAL,
            ".recover.calibrate: with schedule 'gradual' the network is the parent's when its training begins, and its own "
            "afterwards; nothing is to be calibrated");
    return 0;
}

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    const struct prune_options *o = options;

    return o->granularity == PRUNE_CHANNEL ? prune_channel_plan(g, o, layers, effects, err)
                                           : prune_weight_plan(g, o, layers, effects, err);
}

static int outline(struct graph *g, const void *options, const struct layers *layers, struct error *err) {
    const struct prune_options *o = options;

    return o->granularity == PRUNE_CHANNEL ? prune_channel_outline(g, o, layers, err) : 0;
}

static int apply(
    struct work *work, const void *options, const struct scope *scope, json_t *report, struct error *err) {
    const struct prune_options *o = options;

    return o->granularity == PRUNE_CHANNEL ? prune_channel_apply(work, o, scope, report, err)
                                           : prune_weight_apply(work, o, scope, report, err);
}

static bool trains(const void *options) {
    return ((const struct prune_options *)options)->has_regularize;
}

const struct method method_prune = {
    .name = "prune",
    .summary = "Takes out the weights or channels that matter least",
    .source = "Han et al. 2015; Li et al. 2017; Fang et al. 2023, DepGraph",
    .options = &table,
    .options_size = sizeof(struct prune_options),
    .takes_sparse = true,
    .leaves_float = true,
    .wants_data = wants_data,
    .check = check,
    .check_recover = check_recover,
    .trains = trains,
    .plan = plan,
    .outline = outline,
    .apply = apply,
};
