/* Weights of few bits, evenly spaced: `fixed` (2 to 8 bits in every layer) and `int4` (4 bits; fully
 * connected layers with a scale for each block of inputs, which other runtimes multiply as they are). With
 * data, what travels between the layers is in 8 bits, as in int8. */
#include <errno.h>
#include <string.h>

#include "compress/quantize.h"
#include "engine/ops.h"

static int bits_fixed(const struct weight_coder *c, const struct layer_entry *e) {
    return quantize_options_of(c->options, e)->bits;
}

/* A matrix with a float input: what DequantizeLinear of blocks is for. */
static int64_t block_int4(const struct weight_coder *c, const struct graph *g, const struct layer_entry *e) {
    const struct node *n = &g->nodes[e->node];
    int64_t block = quantize_options_of(c->options, e)->block;

    return strcmp(n->op_type, "Conv") != 0 && e->cols >= 2 * block ? block : 0;
}

static int bits_int4(const struct weight_coder *c, const struct layer_entry *e) {
    (void)c;
    (void)e;
    return 4;
}

static int check_bits(const struct quantize_options *o, struct error *err) {
    return o->bits >= 2 ? 0 : error_set(err, -EINVAL, ".bits: evenly spaced weights need at least 2 bits");
}

static int plan_bits(const struct graph *g, const struct weight_coder *c, struct layers *layers,
    struct effect *effects, struct error *err) {
    int r = quantize_scheme_int8.plan(g, c->options, layers, NULL, err);

    for (size_t i = 0; r == 0 && effects && i < layers->n; i++) {
        const struct layer_entry *e = &layers->entry[i];
        int bits = c->bits(c, e);
        int64_t block = c->block ? c->block(c, g, e) : 0;
        int64_t scales = block ? (e->cols + block - 1) / block * e->rows
                         : quantize_options_of(c->options, e)->per_channel ? e->rows
                                                                           : 1;

        if (e->is_selected)
            effects[i] = (struct effect){.form = quantize_codes_form(bits),
                .bytes = quantize_codes_bytes(bits, e->params, scales),
                .macs = -1};
    }
    return r;
}

static struct weight_coder coder_fixed(const void *options) {
    return (struct weight_coder){.plan = quantize_scheme_int8.plan, .options = options, .bits = bits_fixed};
}

static struct weight_coder coder_int4(const void *options) {
    return (struct weight_coder){
        .plan = quantize_scheme_int8.plan, .options = options, .bits = bits_int4, .block = block_int4};
}

static int plan_fixed(const struct graph *g, const void *options, struct layers *layers,
    struct effect *effects, struct error *err) {
    struct weight_coder c = coder_fixed(options);

    return plan_bits(g, &c, layers, effects, err);
}

static int apply_fixed(struct work *work, const struct quantize_options *o, const struct scope *scope,
    json_t *report, struct error *err) {
    struct weight_coder c = coder_fixed(o);

    return quantize_int8(work, o, &c, scope, report, err);
}

static int plan_int4(const struct graph *g, const void *options, struct layers *layers,
    struct effect *effects, struct error *err) {
    struct weight_coder c = coder_int4(options);

    return plan_bits(g, &c, layers, effects, err);
}

/* Blocks need opset 21; a network without such layers stays at 13. */
static bool has_blocks(const struct weight_coder *c, struct graph *g, const struct scope *scope) {
    _cleanup_(layers_done) struct layers layers = {0};
    bool has = false;

    if (layers_list(g, scope, &layers, NULL) < 0)
        return true;
    for (size_t i = 0; i < layers.n; i++)
        has |= layers.entry[i].is_selected && c->block(c, g, &layers.entry[i]);
    return has;
}

static int apply_int4(struct work *work, const struct quantize_options *o, const struct scope *scope,
    json_t *report, struct error *err) {
    struct weight_coder c = coder_int4(o);

    if (has_blocks(&c, work->graph, scope))
        c.opset = 21;
    return quantize_int8(work, o, &c, scope, report, err);
}

bool quantize_wants_data(const struct quantize_options *o) {
    return o->adaround || o->has_accuracy_control || o->has_qat;
}

const struct quantize_scheme quantize_scheme_fixed = {.name = "fixed",
    .check = check_bits,
    .wants_data = quantize_wants_data,
    .plan = plan_fixed,
    .apply = apply_fixed};

const struct quantize_scheme quantize_scheme_int4 = {
    .name = "int4", .wants_data = quantize_wants_data, .plan = plan_int4, .apply = apply_int4};
