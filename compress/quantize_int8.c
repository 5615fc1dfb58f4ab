/* Static int8: calibrate, choose scales, write QuantizeLinear/DequantizeLinear pairs and int8 weights
 * (methods.md, "The file"; Jacob et al. 2018, "Quantization and training of neural networks for
 * integer-arithmetic-only inference").
 *
 *            x ─ Q ─ DQ ─┐
 *   W int8 ─────── DQ ─ Conv ─ (clamp) ─ Q ─ DQ ─ …
 *   b int32 ─────── DQ ─┘      scale of b = scale of x * scale of W
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/adaround.h"
#include "compress/calibration_check.h"
#include "compress/channel_stats.h"
#include "compress/equalize.h"
#include "compress/fold.h"
#include "compress/probe.h"
#include "compress/quantize.h"
#include "compress/quantize_file.h"
#include "compress/recover.h"
#include "engine/ops.h"
#include "engine/pass.h"

/* As many as the ranges are calibrated with by default. */
#define CORRECTION_SAMPLES 512

struct calibration {
    const struct graph *g;
    const struct qregion *region;
    size_t n_values;
    int *values;                 /* probed: every quantised value */
    struct observer *observer;   /* [class] */
    struct channel_stats *stats; /* [probed]: means for bias correction */
    bool is_counting;            /* second pass */
    struct error *err;
};

static void calibration_done(struct calibration *c) {
    for (size_t k = 0; c->stats && k < c->n_values; k++)
        channel_stats_done(&c->stats[k]);
    free(c->stats);
    free(c->observer);
    free(c->values);
}

static int calibration_init(
    struct calibration *c, const struct graph *g, const struct qregion *region, struct error *err) {
    *c = (struct calibration){.g = g, .region = region};
    c->values = calloc(g->n_values + 1, sizeof(*c->values));
    c->observer = calloc((size_t)region->n_classes + 1, sizeof(*c->observer));
    if (!c->values || !c->observer)
        return error_oom(err);
    for (size_t v = 0; v < g->n_values; v++)
        if (region->class_of[v] >= 0)
            c->values[c->n_values++] = (int)v;
    c->stats = calloc(c->n_values + 1, sizeof(*c->stats));
    if (!c->stats)
        return error_oom(err);
    for (int k = 0; k < region->n_classes; k++)
        observer_init(&c->observer[k]);
    return 0;
}

static void on_value(void *ctx, size_t k, const struct tensor *x) {
    struct calibration *c = ctx;
    struct observer *o = &c->observer[c->region->class_of[c->values[k]]];
    int64_t n;

    if (!shape_count(&x->shape, &n) || x->dtype != DT_F32)
        return;
    if (!c->is_counting) {
        observer_range(o, x->data, n);
        return;
    }
    observer_count(o, x->data, n);
    if (x->shape.rank > 0)
        channel_stats_add(&c->stats[k], x, c->err);
}

static int calibrate(struct calibration *c, struct work *work, struct error *err) {
    for (int pass = 0; pass < 2; pass++) {
        int r;

        c->is_counting = pass == 1;
        c->err = err;
        r = probe_run(c->g, c->values, c->n_values, work->samples, work->progress, on_value, c, err);
        if (r < 0)
            return r;
        if (err && err->err)
            return err->err;
    }
    return 0;
}

/* Mean of each input channel of value v as floats (free them), or NULL when it was not seen. */
static float *channel_means(const struct calibration *c, int v, int64_t *ret_n) {
    for (size_t k = 0; k < c->n_values; k++) {
        const struct channel_stats *s = &c->stats[k];
        float *ret;

        if (c->values[k] != v || !s->n)
            continue;
        ret = malloc((size_t)s->n * sizeof(*ret) + 1);
        for (int64_t i = 0; ret && i < s->n; i++)
            ret[i] = (float)channel_mean(s, i);
        *ret_n = s->n;
        return ret;
    }
    *ret_n = 0;
    return NULL;
}

struct layer_job {
    struct graph *g;
    const struct quantize_options *o;
    const struct weight_coder *coder; /* NULL: int8 */
    const struct calibration *c;      /* NULL: weights only */
    const struct quant *quant;        /* [class] */
    struct quantized_weights *kept;   /* [layers]: what was written, for adaround; NULL: not wanted */
};

/* Layers whose weights have blocks of scales run in float: their inputs are not quantised. */
static int region_of(
    const struct layer_job *j, const struct layers *layers, struct qregion *ret, struct error *err) {
    struct layers some = {.n = layers->n};
    _cleanup_(freep) struct layer_entry *entries = malloc(layers->n * sizeof(*entries) + 1);

    if (!entries)
        return error_oom(err);
    memcpy(entries, layers->entry, layers->n * sizeof(*entries));
    some.entry = entries;
    for (size_t i = 0; i < some.n; i++)
        if (j->coder && j->coder->block && j->coder->block(j->coder, j->g, &entries[i]))
            layer_skip(&entries[i], "float");
    return qregion_find(j->g, &some, ret, err);
}

/* The bias must fit int32 at scale_x * scale_w: scale_w >= |b| / (scale_x * 2^31) (near-dead channels
 * otherwise wrap). */
static int bias_floor(const float *bias, int64_t rows, float scale_x, float **ret, struct error *err) {
    float *floor = malloc((size_t)rows * sizeof(*floor) + 1);

    if (!floor)
        return error_oom(err);
    for (int64_t i = 0; i < rows; i++)
        floor[i] = (float)((double)fabsf(bias[i]) / ((double)scale_x * 2147483000.0));
    *ret = floor;
    return 0;
}

static int load_bias(
    const struct graph *g, const struct node *n, int64_t rows, float **ret, struct error *err) {
    const struct tensor *t = n->n_in > 2 && n->in[2] >= 0 ? g->values[n->in[2]].init : NULL;
    float *bias = calloc((size_t)rows + 1, sizeof(*bias));
    int64_t count;

    if (!bias)
        return error_oom(err);
    if (t && shape_count(&t->shape, &count) && (count == rows || count == 1))
        for (int64_t i = 0; i < rows; i++)
            memcpy(&bias[i], (const char *)t->data + (size_t)(count == 1 ? 0 : i) * sizeof(float),
                sizeof(float));
    *ret = bias;
    return 0;
}

/* Weights in the coder's form, then the bias at their scales. */
static int code_layer(const struct layer_job *j, const struct layer_entry *e, const struct weight_rows *rows,
    const float *min_scale, const float *bias, float scale_x, struct error *err) {
    _cleanup_(freep) float *scale = NULL;
    int64_t n = 0;
    int r = j->coder->write(j->coder, j->g, e, rows, min_scale, &scale, &n, err);

    if (r < 0)
        return error_prefix(err, r, "node '%s'", e->id);
    return quantize_file_bias(
        j->g, e->node, rows, &(struct row_scales){.scale = scale, .n = n}, bias, scale_x, err);
}

static int quantize_layer(const struct layer_job *j, const struct layer_entry *e,
    struct quantized_weights *keep, struct error *err) {
    const struct node *n = &j->g->nodes[e->node];
    const struct weight_coder *coder = j->coder;
    int class = j->c ? j->c->region->class_of[n->in[0]] : -1;
    _cleanup_(quantized_weights_done) struct quantized_weights q = {0};
    _cleanup_(freep) float *bias = NULL, *floor = NULL, *mean = NULL;
    struct weight_rounding o = {.bits = coder && coder->bits ? coder->bits(coder, e) : 8,
        .block = coder && coder->block ? coder->block(coder, j->g, e) : 0,
        .group = node_attr_int(n, "group", 1)};
    struct weight_rows rows;
    int r = weight_rows_of(j->g, n, &rows, err);

    if (r == 0)
        r = load_bias(j->g, n, rows.rows, &bias, err);
    if (r < 0)
        return r;
    if (class >= 0) {
        r = bias_floor(bias, rows.rows, j->quant[class].scale, &floor, err);
        if (r < 0)
            return r;
        mean = channel_means(j->c, n->in[0], &o.n_mean);
    }
    if (coder && coder->write)
        return code_layer(j, e, &rows, floor, bias, class >= 0 ? j->quant[class].scale : 0, err);
    o.per_channel = quantize_options_of(j->o, e)->per_channel;
    o.min_scale = floor;
    o.mean = j->o->bias_correct ? mean : NULL;
    r = quantize_weights(j->g->values[n->in[1]].init->data, &rows, &o, &q, err);
    if (r < 0)
        return error_prefix(err, r, "node '%s'", n->id);
    for (int64_t i = 0; i < rows.rows; i++)
        bias[i] += q.error[i];
    r = quantize_file_layer(j->g, e->node, &rows, &q, bias, class >= 0 ? j->quant[class].scale : 0, err);
    if (r == 0 && keep) {
        *keep = q;
        q = (struct quantized_weights){0};
    }
    return r;
}

static json_t *layer_json(const struct layer_job *j, const struct layer_entry *e) {
    json_t *row = json_pack("{s:s, s:s, s:s?}", "id", e->id, "action",
        e->is_selected ? "quantized" : "skipped", "reason", e->reason);

    if (row && e->is_selected && j->coder && j->coder->bits)
        json_object_set_new(row, "bits", json_integer(j->coder->bits(j->coder, e)));
    return row;
}

static int quantize_layers(
    const struct layer_job *j, const struct layers *layers, json_t *report, struct error *err) {
    json_t *list = json_object_get(report, "layers");

    for (size_t i = 0; i < layers->n; i++) {
        const struct layer_entry *e = &layers->entry[i];

        if (e->is_selected) {
            int r = quantize_layer(j, e, j->kept ? &j->kept[i] : NULL, err);

            if (r < 0)
                return r;
        }
        if (json_array_append_new(list, layer_json(j, e)) < 0)
            return error_oom(err);
    }
    return 0;
}

static int quantize_activations(
    struct work *work, struct layer_job *j, const struct layers *layers, json_t *report, struct error *err) {
    enum dtype t = j->o->activations == ACTIVATIONS_S8 ? DT_S8 : DT_U8;
    _cleanup_(calibration_done) struct calibration c = {0};
    _cleanup_(qregion_done) struct qregion region = {0};
    _cleanup_(freep) struct quant *quant = NULL;
    int r = region_of(j, layers, &region, err);

    if (r == 0)
        r = calibration_init(&c, work->graph, &region, err);
    if (r == 0)
        r = calibration_check(work->graph, work->samples, report, err);
    if (r == 0)
        r = calibrate(&c, work, err);
    if (r < 0)
        return r;
    quant = calloc((size_t)region.n_classes + 1, sizeof(*quant));
    if (!quant)
        return error_oom(err);
    for (int k = 0; k < region.n_classes; k++)
        quant[k] = observer_quant(&c.observer[k], (enum observer_kind)j->o->observer, t);
    j->c = &c;
    j->quant = quant;
    r = quantize_layers(j, layers, report, err);
    j->c = NULL;
    j->quant = NULL;
    return r < 0 ? r : quantize_file_values(work->graph, &region, quant, t, err);
}

/* What the analytic correction of each layer leaves: the shift that a layer's quantised input brings. Layer
 * by layer the means of the float network are restored (Nagel et al. 2019, section 4.2, with data). Few
 * levels also make signals smaller, the more so the deeper: means alone would then leave nothing but
 * themselves. */
static int correct_means(
    struct work *work, const struct graph *parent, bool has_few_levels, struct error *err) {
    const struct recover_calibrate o = {
        .samples = CORRECTION_SAMPLES, .bias = true, .variance = has_few_levels};

    return recover_calibrate(work, parent, &o, err);
}

/* Folded, with types and ranks, at an opset that knows scales per axis. */
static int prepare(struct work *work, const struct quantize_options *o, const struct weight_coder *coder,
    json_t *report, struct error *err) {
    int r = fold_graph(work->graph, err);

    if (r == 0 && work->samples)
        r = fold_infer_shapes(work->graph, &work->samples->item, err);
    if (r == 0 && o->equalize)
        r = equalize(work->graph, work->samples, report, err);
    return r < 0 ? r : pass_raise_opset(work->graph, coder && coder->opset ? coder->opset : 13, err);
}

struct kept {
    size_t n;
    struct quantized_weights *layer;
};

static void kept_done(struct kept *k) {
    for (size_t i = 0; i < k->n; i++)
        quantized_weights_done(&k->layer[i]);
    free(k->layer);
}

/* Weights and activations of the selected layers; then what is made good of the rounding. */
static int quantize_graph(struct work *work, struct layer_job *j, const struct graph *parent,
    const struct layers *layers, json_t *report, struct error *err) {
    bool with_activations = j->o->activations != ACTIVATIONS_FLOAT && work->samples;
    struct adaround a = {.layers = layers, .parent = parent, .is_centred = j->o->bias_correct};
    _cleanup_(kept_done) struct kept kept = {0};
    int r;

    if (j->o->adaround) {
        kept.layer = a.weights = j->kept = calloc(layers->n + 1, sizeof(*kept.layer));
        if (!kept.layer)
            return error_oom(err);
        kept.n = layers->n;
    }
    if (with_activations)
        r = quantize_activations(work, j, layers, report, err);
    else
        r = quantize_layers(j, layers, report, err);
    if (r == 0)
        r = graph_finish(work->graph, err);
    if (r == 0 && j->o->adaround)
        r = adaround(work, &a, report, err);
    if (r == 0 && work->samples && j->o->bias_correct && (with_activations || j->o->adaround))
        r = correct_means(work, parent, j->coder && !j->o->adaround, err);
    return r;
}

int quantize_int8(struct work *work, const struct quantize_options *o, const struct weight_coder *coder,
    const struct scope *scope, json_t *report, struct error *err) {
    struct layer_job j = {.g = work->graph, .o = o, .coder = coder};
    _cleanup_(layers_done) struct layers layers = {0};
    _cleanup_(graph_freep) struct graph *parent = NULL;
    int r = prepare(work, o, coder, report, err);

    if (r == 0)
        r = graph_clone(work->graph, &parent, err);
    if (r == 0)
        r = layers_list(work->graph, scope, &layers, err);
    if (r == 0)
        r = coder ? coder->plan(work->graph, coder->options, &layers, NULL, err)
                  : quantize_scheme_int8.plan(work->graph, o, &layers, NULL, err);
    if (r < 0)
        return r;
    if (json_object_set_new(report, "layers", json_array()) < 0)
        return error_oom(err);
    return quantize_graph(work, &j, parent, &layers, report, err);
}

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

static int apply(struct work *work, const struct quantize_options *o, const struct scope *scope,
    json_t *report, struct error *err) {
    return quantize_int8(work, o, NULL, scope, report, err);
}

const struct quantize_scheme quantize_scheme_int8 = {
    .name = "int8", .wants_data = quantize_wants_data, .plan = plan, .apply = apply};
