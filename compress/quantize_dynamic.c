/* Weights in 8 bits, and inputs of layers in 8 bits whose scale is found in each run (`dynamic`): nothing is
 * calibrated, no data are needed. Values between layers stay float.
 *
 *     x ─ DynamicQuantizeLinear ─ codes ─ ConvInteger ─ Cast ─ Mul(scale of x) ─ Mul(scales of W) ─ Add(b)
 *                                W uint8 ┘
 *
 * Weights are uint8 with zero point 128: foreign runtimes multiply uint8 by uint8 fast, by int8 with the
 * plainest of loops. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/equalize.h"
#include "compress/fold.h"
#include "compress/quantize.h"
#include "engine/ops.h"
#include "engine/pass.h"

#define WEIGHT_ZERO 128

struct writer {
    struct graph *g;
    const char *id; /* of the layer, which the new nodes are called after */
    int *dynamic;   /* [values before]: the DynamicQuantizeLinear of a value, -1: none yet */
    struct error *err;
};

static bool is_matrix(const struct node *n) {
    return !strcmp(n->op_type, "MatMul") ||
           (!strcmp(n->op_type, "Gemm") && !node_attr_int(n, "transA", 0) &&
               node_attr_float(n, "alpha", 1) == 1 && node_attr_float(n, "beta", 1) == 1);
}

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    int r = quantize_scheme_int8.plan(g, options, layers, NULL, err);

    for (size_t i = 0; r == 0 && i < layers->n; i++) {
        struct layer_entry *e = &layers->entry[i];
        const struct node *n = &g->nodes[e->node];
        int64_t scales = quantize_options_of(options, e)->per_channel ? e->rows : 1;

        if (e->is_selected && strcmp(n->op_type, "Conv") != 0 && !is_matrix(n))
            layer_skip(e, "there is no such operator on integers");
        else if (e->is_selected && n->n_in > 2 && n->in[2] >= 0 && !g->values[n->in[2]].init)
            layer_skip(e, "its bias is computed");
        if (e->is_selected && effects)
            effects[i] = (struct effect){
                .form = "uint8", .bytes = quantize_codes_bytes(8, e->params, scales), .macs = -1};
    }
    return r;
}

static int add_init(struct writer *w, const char *suffix, const struct tensor *t) {
    char name[512];
    const char *unique;
    int id;

    snprintf(name, sizeof(name), "%.400s_%s", w->id, suffix);
    unique = graph_unique_name(w->g, name);
    id = unique ? graph_add_init(w->g, unique, t, false) : -ENOMEM;
    return id < 0 ? error_oom(w->err) : id;
}

/* A node with one output of type t, called after the layer; returns the output. */
static int add_node(struct writer *w, const char *op, const char *suffix, const int *in, int n_in,
    enum dtype t, const struct shape *shape, int *ret_node) {
    char name[512];
    const char *unique;
    int out, node;

    snprintf(name, sizeof(name), "%.400s_%s", w->id, suffix);
    unique = graph_unique_name(w->g, name);
    out = unique ? graph_add_value(w->g, unique, t, shape) : -ENOMEM;
    node = out < 0 ? out : graph_insert_node(w->g, w->g->n_nodes, op, unique, in, n_in, &out, 1);
    if (node < 0)
        return error_oom(w->err);
    if (ret_node)
        *ret_node = node;
    return out;
}

/* Codes, scale, zero point of a value; once for all its readers. *ret_first: the first of the three. */
static int quantize_input(struct writer *w, int value, int *ret_first) {
    static const char *const names[] = {"codes", "scale", "zero"};
    static const struct shape scalar = {.rank = 0};
    const struct shape shape = w->g->values[value].shape;
    int out[3];

    if (w->dynamic[value] >= 0) {
        *ret_first = w->dynamic[value];
        return 0;
    }
    for (int i = 0; i < 3; i++) {
        char name[512];
        const char *unique;

        snprintf(name, sizeof(name), "%.400s_%s", w->g->values[value].name, names[i]);
        unique = graph_unique_name(w->g, name);
        out[i] =
            unique ? graph_add_value(w->g, unique, i == 1 ? DT_F32 : DT_U8, i ? &scalar : &shape) : -ENOMEM;
        if (out[i] < 0)
            return error_oom(w->err);
    }
    if (graph_insert_node(
            w->g, w->g->n_nodes, "DynamicQuantizeLinear", w->g->values[out[0]].name, &value, 1, out, 3) < 0)
        return error_oom(w->err);
    *ret_first = w->dynamic[value] = out[0];
    return 0;
}

/* Codes as uint8, in the order that the integer operator wants: a Gemm's transposed weights turned. */
static int add_codes(struct writer *w, const struct node *n, const struct weight_rows *rows,
    const struct quantized_weights *q) {
    int64_t count = rows->outer * rows->rows * rows->inner, cols = rows->outer * rows->inner;
    bool is_turned = rows->shape.rank == 2 && rows->axis == 0 && strcmp(n->op_type, "Gemm") == 0;
    struct tensor t = {.dtype = DT_U8, .shape = rows->shape};
    _cleanup_(freep) uint8_t *codes = malloc((size_t)count + 1);

    if (!codes)
        return error_oom(w->err);
    for (int64_t i = 0; i < count; i++)
        codes[is_turned ? i % cols * rows->rows + i / cols : i] = (uint8_t)(q->q[i] + WEIGHT_ZERO);
    if (is_turned) {
        t.shape.dim[0] = cols;
        t.shape.dim[1] = rows->rows;
    }
    t.data = codes;
    return add_init(w, "codes", &t);
}

/* A vector of one a channel as it stands beside the layer's outputs: [C,1,1] of images, [C] of rows. */
static int add_channels(struct writer *w, const char *suffix, float *data, int64_t n, int rank) {
    struct tensor t = {.dtype = DT_F32, .shape = {.rank = n > 1 ? rank - 1 : 0}, .data = data};

    for (int i = 0; i < t.shape.rank; i++)
        t.shape.dim[i] = rank > 2 && i > 0 ? 1 : n;
    if (rank == 2)
        t.shape.dim[0] = n;
    return add_init(w, suffix, &t);
}

/* The integer product; its int32 sums' value id. */
static int add_product(struct writer *w, int layer, const int *in, const struct shape *out) {
    bool is_conv = !strcmp(w->g->nodes[layer].op_type, "Conv");
    int node = -1,
        sums = add_node(w, is_conv ? "ConvInteger" : "MatMulInteger", "integer", in, 4, DT_S32, out, &node);

    if (sums >= 0 && is_conv) { /* the window: the same attributes mean the same */
        w->g->nodes[node].attr = w->g->nodes[layer].attr;
        w->g->nodes[node].n_attr = w->g->nodes[layer].n_attr;
    }
    return sums;
}

/* The layer's node becomes the last one of them, with the layer's output. */
static int become(struct writer *w, int layer, const char *op, int a, int b) {
    struct node *n = &w->g->nodes[layer];
    int *in = graph_alloc(w->g, 2 * sizeof(*in));

    if (!in)
        return error_oom(w->err);
    in[0] = a;
    in[1] = b;
    n->op_type = op;
    n->in = in;
    n->n_in = 2;
    n->n_attr = 0;
    n->is_parsed = false;
    return 0;
}

/* What the sums mean, and the bias: the layer's own output in the end. */
static int add_meaning(struct writer *w, int layer, int sums, int scale_x, const struct weight_rows *rows,
    struct quantized_weights *q, float *bias) {
    struct graph *g = w->g;
    int out = g->nodes[layer].out[0], rank = rows->shape.rank;
    const struct shape shape = g->values[out].shape;
    int scales = add_channels(w, "scales", q->scale, q->n_scale, rank), cast = -1, v;
    int add = bias && scales >= 0 ? add_channels(w, "bias", bias, rows->rows, rank) : scales;

    if (scales < 0 || add < 0)
        return scales < 0 ? scales : add;
    v = add_node(w, "Cast", "sums", &sums, 1, DT_F32, &shape, &cast);
    if (v < 0 || graph_set_attr_int(g, &g->nodes[cast], "to", 1) < 0)
        return v < 0 ? v : error_oom(w->err);
    v = add_node(w, "Mul", "scaled", (int[]){v, scale_x}, 2, DT_F32, &shape, NULL);
    if (v >= 0 && bias)
        v = add_node(w, "Mul", "products", (int[]){v, scales}, 2, DT_F32, &shape, NULL);
    if (v < 0)
        return v;
    return become(w, layer, bias ? "Add" : "Mul", v, bias ? add : scales);
}

static int load_bias(
    const struct graph *g, const struct node *n, int64_t rows, float **ret, struct error *err) {
    const struct tensor *t = n->n_in > 2 && n->in[2] >= 0 ? g->values[n->in[2]].init : NULL;
    int64_t count;

    if (!t || !shape_count(&t->shape, &count) || (count != rows && count != 1))
        return 0;
    *ret = malloc((size_t)rows * sizeof(**ret) + 1);
    if (!*ret)
        return error_oom(err);
    for (int64_t i = 0; i < rows; i++)
        memcpy(*ret + i, (const char *)t->data + (count == 1 ? 0 : (size_t)i) * sizeof(float), sizeof(float));
    return 0;
}

static int write_layer(struct writer *w, const struct quantize_options *o, const struct layer_entry *e) {
    struct graph *g = w->g;
    _cleanup_(quantized_weights_done) struct quantized_weights q = {0};
    _cleanup_(freep) float *bias = NULL;
    struct weight_rounding how = {
        .bits = 8, .per_channel = quantize_options_of(o, e)->per_channel, .group = 1};
    uint8_t zero = WEIGHT_ZERO;
    struct tensor zero_tensor = {.dtype = DT_U8, .shape = {.rank = 0}, .data = &zero};
    struct weight_rows rows;
    int in[4], first = -1, sums, r = weight_rows_of(g, &g->nodes[e->node], &rows, w->err);

    if (r == 0)
        r = quantize_weights(g->values[g->nodes[e->node].in[1]].init->data, &rows, &how, &q, w->err);
    if (r == 0)
        r = load_bias(g, &g->nodes[e->node], rows.rows, &bias, w->err);
    if (r == 0)
        r = quantize_input(w, g->nodes[e->node].in[0], &first);
    if (r < 0)
        return error_prefix(w->err, r, "node '%s'", e->id);
    in[0] = first;
    in[1] = add_codes(w, &g->nodes[e->node], &rows, &q);
    in[2] = first + 2;
    in[3] = in[1] < 0 ? in[1] : add_init(w, "zero", &zero_tensor);
    if (in[3] < 0)
        return in[3];
    sums = add_product(w, e->node, in, &g->values[g->nodes[e->node].out[0]].shape);
    return sums < 0 ? sums : add_meaning(w, e->node, sums, first + 1, &rows, &q, bias);
}

static int write_layers(struct work *work, const struct quantize_options *o, const struct layers *layers,
    json_t *report, struct error *err) {
    struct graph *g = work->graph;
    _cleanup_(freep) int *dynamic = malloc((g->n_values + 1) * sizeof(*dynamic));
    struct writer w = {.g = g, .dynamic = dynamic, .err = err};
    json_t *list = json_array();

    json_object_set_new(report, "layers", list);
    if (!dynamic)
        return error_oom(err);
    for (size_t v = 0; v < g->n_values; v++)
        dynamic[v] = -1;
    for (size_t i = 0; i < layers->n; i++) {
        const struct layer_entry *e = &layers->entry[i];
        int r = 0;

        w.id = e->id;
        if (e->is_selected)
            r = write_layer(&w, o, e);
        if (r < 0)
            return r;
        json_array_append_new(list, json_pack("{s:s, s:s, s:s?}", "id", e->id, "action",
                                        e->is_selected ? "quantized" : "skipped", "reason", e->reason));
    }
    return graph_finish(g, err);
}

static int apply(struct work *work, const struct quantize_options *o, const struct scope *scope,
    json_t *report, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    int r = fold_graph(work->graph, err);

    if (r == 0 && work->samples)
        r = fold_infer_shapes(work->graph, &work->samples->item, err);
    if (r == 0 && o->equalize)
        r = equalize(work->graph, work->samples, report, err);
    if (r == 0)
        r = pass_raise_opset(work->graph, 13, err);
    if (r == 0)
        r = layers_list(work->graph, scope, &layers, err);
    if (r == 0)
        r = plan(work->graph, o, &layers, NULL, err);
    return r < 0 ? r : write_layers(work, o, &layers, report, err);
}

const struct quantize_scheme quantize_scheme_dynamic = {.name = "dynamic", .plan = plan, .apply = apply};
