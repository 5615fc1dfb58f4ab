/* Trained numbers, back in the forms they came from. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compress/quantize_file.h"
#include "compress/recode.h"
#include "compress/trainable_priv.h"
#include "engine/ops.h"
#include "engine/pass.h"

static const float *constant(const struct graph *g, int v, int64_t *ret_n) {
    const struct tensor *t = v >= 0 ? g->values[v].init : NULL;

    return t && t->dtype == DT_F32 && shape_count(&t->shape, ret_n) ? t->data : NULL;
}

/* Entries of a trained codebook: what the weights of each code are, divided by their scale. `w` as the
 * operator sees it. Codes that no weight has keep their entry. */
static void find_entries(const struct trainable_layer *l, const float *w, float *entries) {
    const struct weight *form = l->form;
    float of_layer = !l->scale && form->scale ? weight_scale_at(form, 0) : 1;
    int64_t inner = 1;

    for (int i = form->axis + 1; i < form->shape.rank; i++)
        inner *= form->shape.dim[i];
    for (int k = 0; k < l->param.book.n_entries; k++)
        entries[k] = l->entries[k] * l->unit / of_layer;
    for (int64_t i = 0; i < l->n; i++) {
        float scale = l->scale ? l->scale[i / inner % form->rows] : of_layer;

        if (!l->keep || l->keep[i])
            entries[l->index[i]] = w[i] / scale * l->unit;
    }
}

/* The magnitudes of signs and trits: of each row, or of all. */
static void find_magnitudes(const struct trainable_layer *l, const float *w, float *scale) {
    const struct weight *form = l->form;
    bool per_channel = strcmp(form->scales->name, "channel") == 0;
    int64_t inner = 1;

    for (int i = form->axis + 1; i < form->shape.rank; i++)
        inner *= form->shape.dim[i];
    for (int64_t i = 0; i < l->n; i++)
        if (w[i] != 0)
            scale[per_channel ? i / inner % form->rows : 0] = __builtin_fabsf(w[i]);
}

/* Scale of the layer's input where that is quantised and its bias, too; 0: the bias is float. */
static float input_scale(const struct graph *g, const struct node *n) {
    const struct node *bias = n->n_in > 2 && n->in[2] >= 0 && g->values[n->in[2]].producer >= 0
                                  ? &g->nodes[g->values[n->in[2]].producer]
                                  : NULL;
    const struct node *in =
        g->values[n->in[0]].producer >= 0 ? &g->nodes[g->values[n->in[0]].producer] : NULL;
    const float *at;
    float scale;
    int64_t count;

    if (!bias || !in || strcmp(bias->op_type, "DequantizeLinear") != 0 ||
        strcmp(in->op_type, "DequantizeLinear") != 0)
        return 0;
    at = constant(g, in->in[1], &count);
    if (!at || count != 1)
        return 0;
    memcpy(&scale, at, sizeof(scale)); /* unaligned in a mapped file */
    return scale;
}

static int put_bias(struct graph *g, int node, const struct trainable_layer *l, const struct graph *trained,
    const struct node *from, const float *scale, int64_t n_scale, struct error *err) {
    struct weight_rows rows = {.shape = l->form->shape, .axis = l->form->axis, .rows = l->form->rows};
    float scale_x = input_scale(g, &g->nodes[node]);
    int64_t n = 0;
    const float *bias = from->n_in > 2 && from->in[2] >= 0 ? constant(trained, from->in[2], &n) : NULL;

    if (!bias || n != rows.rows || scale_x == 0 || n_scale == 0)
        return 0;
    return quantize_file_bias(
        g, node, &rows, &(struct row_scales){.scale = scale, .n = n_scale}, bias, scale_x, err);
}

static int close_layer(
    struct graph *g, const struct trainable_layer *l, const struct graph *trained, struct error *err) {
    int node = graph_find_node(g, l->id), from = graph_find_node(trained, l->id);
    struct recode_options o = {.scale = l->learned};
    _cleanup_(freep) float *entries = NULL, *magnitudes = NULL, *scale = NULL;
    int64_t n = 0, n_scale = 0;
    const float *w = from >= 0 ? constant(trained, trained->nodes[from].in[1], &n) : NULL;
    int r;

    if (node < 0 || !w || n != l->n)
        return error_set(err, -EINVAL, "layer '%s' is not in the trained network", l->id);
    if (l->index) {
        o.entries = entries = malloc((size_t)l->param.book.n_entries * sizeof(*entries));
        if (!entries)
            return error_oom(err);
        find_entries(l, w, entries);
    } else if (l->form->code->is_looked_up && l->form->scale) {
        o.scale = magnitudes = malloc((size_t)l->form->rows * sizeof(*magnitudes) + 1);
        if (!magnitudes)
            return error_oom(err);
        for (int64_t i = 0; i < l->form->rows; i++)
            magnitudes[i] = weight_scale_at(l->form, i);
        find_magnitudes(l, w, magnitudes);
    }
    r = recode_layer(g, node, l->form, w, &o, &scale, &n_scale, err);
    return r < 0 ? r : put_bias(g, node, l, trained, &trained->nodes[from], scale, n_scale, err);
}

/* Parameters that both have by name: of layers and norms that are not encoded, float biases. */
static int copy_plain(struct graph *g, const struct graph *trained, struct error *err) {
    for (size_t v = 0; v < g->n_values; v++) {
        const struct tensor *to = g->values[v].init;
        int from = to && to->dtype == DT_F32 ? graph_find_value(trained, g->values[v].name) : -1;
        const struct tensor *t = from >= 0 ? trained->values[from].init : NULL;

        if (t && t->dtype == DT_F32 && shape_equal(&t->shape, &to->shape) && graph_set_copy(g, (int)v, t) < 0)
            return error_oom(err);
    }
    return 0;
}

/* The scales that values learned. */
static int put_scales(struct graph *g, const struct trainable *t, struct error *err) {
    for (size_t i = 0; i < t->n_values; i++) {
        const struct trainable_value *v = &t->value[i];
        int value = v->learned > 0 ? graph_find_value(g, v->scale) : -1;
        struct tensor scale;
        float learned = v->learned;

        if (value < 0)
            continue;
        scale = *g->values[value].init;
        scale.data = &learned;
        if (graph_set_copy(g, value, &scale) < 0)
            return error_oom(err);
    }
    return 0;
}

/* Forms go into the trained graph itself where values are not quantised (training may have given layers a
 * bias); else trained numbers go into the encoded graph, whose pairs on values are all there. */
int trainable_close(struct trainable *t, const struct graph *trained, struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = graph_clone(t->n_values ? t->encoded : trained, &g, err);

    if (r == 0 && t->n_values)
        r = copy_plain(g, trained, err);
    if (r == 0)
        r = put_scales(g, t, err);
    if (r == 0 && !t->n_values)
        r = pass_raise_opset(g, t->encoded->opset, err);
    for (size_t i = 0; r == 0 && i < t->n_layers; i++)
        if (t->layer[i].form)
            r = close_layer(g, &t->layer[i], trained, err);
    if (r == 0 && graph_drop_unused(g) < 0)
        r = error_oom(err);
    if (r == 0)
        r = graph_finish(g, err);
    if (r < 0)
        return r;
    *ret = TAKE(g);
    return 0;
}
