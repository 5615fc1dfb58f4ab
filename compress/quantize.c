#include "compress/quantize.h"

#include "engine/ops.h"

static const char *const schemes[] = {"int8", NULL};
static const char *const activations[] = {"u8", "s8", "float", NULL};
static const char *const observers[] = {"mse", "minmax", NULL};

static const struct param rows[] = {
    {
        .name = "scheme",
        .type = PARAM_ENUM,
        .at = offsetof(struct quantize_options, scheme),
        .choices = schemes,
        .dflt = "int8",
        .doc = "int8: weights and activations in 8 bits, static scales",
        .source =
            "Jacob et al. 2018, Quantization and training of neural networks for integer-arithmetic-only inference",
    },
    {
        .name = "activations",
        .type = PARAM_ENUM,
        .at = offsetof(struct quantize_options, activations),
        .choices = activations,
        .dflt = "u8",
        .doc =
            "u8: zero point as the range needs; s8: symmetric; float: weights only. Without data only float is possible",
    },
    {
        .name = "observer",
        .type = PARAM_ENUM,
        .at = offsetof(struct quantize_options, observer),
        .choices = observers,
        .dflt = "mse",
        .doc = "how an activation's range is chosen: the least squared error, or everything seen",
        .source = "Banner et al. 2019, Post training 4-bit quantization of convolutional networks",
    },
    {
        .name = "per_channel",
        .type = PARAM_BOOL,
        .at = offsetof(struct quantize_options, per_channel),
        .dflt = "true",
        .doc = "one weight scale for each output channel rather than for each layer",
        .source = "Krishnamoorthi 2018, Quantizing deep convolutional networks for efficient inference",
    },
    {
        .name = "bias_correct",
        .type = PARAM_BOOL,
        .at = offsetof(struct quantize_options, bias_correct),
        .dflt = "true",
        .doc = "takes the mean shift that rounding the weights causes out of the bias (needs data)",
        .source = "Nagel et al. 2019, Data-free quantization through weight equalization and bias correction",
    },
};

static const struct param_table table = {rows, sizeof(rows) / sizeof(rows[0])};

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    (void)options;
    (void)err;
    for (size_t i = 0; i < layers->n; i++) {
        struct layer_entry *e = &layers->entry[i];
        const struct node *n = &g->nodes[e->node];

        if (e->form)
            continue;
        if (n->op->quant != OP_QUANT_OWN)
            layer_skip(e, "the operator runs in float only");
        else if (g->values[n->in[1]].init->dtype != DT_F32)
            layer_skip(e, "its weights are not float");
        else if (effects && e->is_selected)
            effects[i] = (struct effect){.form = "int8", .bytes = e->params + 4 * e->rows, .macs = -1};
    }
    return 0;
}

static int apply(
    struct work *work, const void *options, const struct scope *scope, json_t *report, struct error *err) {
    return quantize_int8(work, options, NULL, scope, report, err);
}

const struct method method_quantize = {
    .name = "quantize",
    .summary = "Fewer bits for weights and activations",
    .source = "Jacob et al. 2018; Krishnamoorthi 2018",
    .options = &table,
    .options_size = sizeof(struct quantize_options),
    .folds = true,
    .plan = plan,
    .apply = apply,
};
