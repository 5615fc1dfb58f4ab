/* Codes of one byte: s8 (ours, symmetric) and u8 (files of others), and their form in a file:
 *
 *    initialiser int8 ── DequantizeLinear(scale[1 or channels], zero point) ── in[1] of the layer
 *
 * (ONNX DequantizeLinear, opset 10 per tensor, 13 per axis: y = (x - zero) * scale). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/weight_rows.h"

static int32_t code_at(const struct tensor *t, int64_t i) {
    const uint8_t *p = t->data;

    return t->dtype == DT_S8 ? (int8_t)p[i] : p[i];
}

int32_t weight_zero_at(const struct weight *w, int64_t row) {
    return w->zero ? code_at(w->zero, w->scales == &weight_scales_layer ? 0 : row) : 0;
}

static size_t byte_bytes(const struct weight *w) {
    return (size_t)w->structure->n_stored(w);
}

static void byte_decode(const struct weight *w, float *ret) {
    int64_t outer, inner, at = 0;

    weight_strides(w, &outer, &inner);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t row = 0; row < w->rows; row++) {
            int32_t zero = weight_zero_at(w, row);

            for (int64_t i = 0; i < inner; i++, at++)
                ret[at] = (float)(code_at(w->codes, at) - zero);
        }
}

bool weight_is_integer(const struct weight *w) {
    return w->code == &weight_code_s8 || w->code == &weight_code_u8;
}

int weight_get_codes(const struct weight *w, int16_t *ret, struct error *err) {
    int64_t outer, inner, at = 0;

    (void)err;
    weight_strides(w, &outer, &inner);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t row = 0; row < w->rows; row++) {
            int16_t *to = ret + row * w->cols + o * inner;
            int32_t zero = weight_zero_at(w, row);

            for (int64_t i = 0; i < inner; i++, at++)
                to[i] = (int16_t)(code_at(w->codes, at) - zero);
        }
    return 0;
}

const struct weight_code weight_code_s8 = {
    .name = "s8",
    .dtype = DT_S8,
    .bytes = byte_bytes,
    .decode = byte_decode,
};

const struct weight_code weight_code_u8 = {
    .name = "u8",
    .dtype = DT_U8,
    .bytes = byte_bytes,
    .decode = byte_decode,
};

static const struct tensor *constant_input(const struct graph *g, const struct node *n, int i) {
    const struct tensor *t = i < n->n_in && n->in[i] >= 0 ? g->values[n->in[i]].init : NULL;

    return t && t->data && t->layout == LAYOUT_PLAIN ? t : NULL;
}

/* Scale and zero point: one each, or one a row each. */
static bool match_scales(struct weight *w, int64_t axis) {
    int64_t n_scales, n_zeros = 0;

    if (w->scale->dtype != DT_F32 || !shape_count(&w->scale->shape, &n_scales) || w->scale->shape.rank > 1)
        return false;
    if (w->zero && (w->zero->dtype != w->codes->dtype || !shape_count(&w->zero->shape, &n_zeros)))
        return false;
    if (w->scale->shape.rank == 0 || (n_scales == 1 && !w->zero)) {
        w->scales = &weight_scales_layer;
        return (!w->zero || n_zeros == 1) && weight_set_rows(w, 0) == 0;
    }
    axis = axis < 0 ? axis + w->shape.rank : axis;
    if (axis < 0 || axis >= w->shape.rank || weight_set_rows(w, (int)axis) < 0 || n_scales != w->rows)
        return false;
    w->scales = &weight_scales_channel;
    return !w->zero || n_zeros == w->rows;
}

static bool all_zero(const struct tensor *t) {
    int64_t n;

    if (!shape_count(&t->shape, &n))
        return false;
    for (int64_t i = 0; i < n; i++)
        if (code_at(t, i))
            return false;
    return true;
}

static int byte_match(struct graph *g, int v, const struct weight_code *code, struct weight *w, int *codes) {
    const struct node *n = g->values[v].producer >= 0 ? &g->nodes[g->values[v].producer] : NULL;
    const struct attr *block;

    if (!n || strcmp(n->op_type, "DequantizeLinear") != 0 || *n->domain || n->n_in < 2)
        return 0;
    block = node_attr(n, "block_size");
    if (block && block->i != 0)
        return 0;
    *w = (struct weight){.structure = &weight_structure_dense, .code = code};
    w->codes = constant_input(g, n, 0);
    w->scale = constant_input(g, n, 1);
    w->zero = constant_input(g, n, 2);
    if (!w->codes || !w->scale || w->codes->dtype != code->dtype || w->codes->shape.rank < 1)
        return 0;
    if (n->n_in > 2 && n->in[2] >= 0 && !w->zero)
        return 0;
    w->shape = w->codes->shape;
    if (!match_scales(w, node_attr_int(n, "axis", 1)))
        return 0;
    if (w->zero && all_zero(w->zero))
        w->zero = NULL;
    *codes = n->in[0];
    return 1;
}

static int int8_match(struct graph *g, int v, struct weight *w, int *codes) {
    return byte_match(g, v, &weight_code_s8, w, codes);
}

static int uint8_match(struct graph *g, int v, struct weight *w, int *codes) {
    return byte_match(g, v, &weight_code_u8, w, codes);
}

static int add_init(struct graph *g, const char *name, const char *suffix, const struct tensor *t) {
    char text[512];
    const char *unique;

    snprintf(text, sizeof(text), "%.400s_%s", name, suffix);
    unique = graph_unique_name(g, text);
    return unique ? graph_add_init(g, unique, t, /* data_lives= */ false) : -ENOMEM;
}

/* A zero point is always written, zeros where the form has none: the type of the codes is then plain to
 * every reader. */
static int add_zeros(struct graph *g, const char *name, const struct weight *w) {
    struct tensor t = {.dtype = w->codes->dtype, .shape = w->scale->shape};
    size_t size;

    if (w->zero)
        return add_init(g, name, "zero_point", w->zero);
    if (!shape_bytes(&t.shape, t.dtype, &size))
        return -EINVAL;
    t.data = graph_alloc(g, size + 1);
    return t.data ? add_init(g, name, "zero_point", &t) : -ENOMEM;
}

static int byte_emit(struct graph *g, size_t before, const char *name, const struct weight *w) {
    int in[3], out, node;
    char text[512];
    const char *unique;

    in[0] = add_init(g, name, "quantized", w->codes);
    if (in[0] < 0)
        return in[0];
    in[1] = add_init(g, name, "scale", w->scale);
    if (in[1] < 0)
        return in[1];
    in[2] = add_zeros(g, name, w);
    if (in[2] < 0)
        return in[2];
    snprintf(text, sizeof(text), "%.400s_dequantized", name);
    unique = graph_unique_name(g, text);
    out = unique ? graph_add_value(g, unique, DT_F32, &w->shape) : -ENOMEM;
    if (out < 0)
        return out;
    node = graph_insert_node(g, before, "DequantizeLinear", unique, in, 3, &out, 1);
    if (node >= 0 && w->scales == &weight_scales_channel)
        node = graph_set_attr_int(g, &g->nodes[node], "axis", w->axis);
    return node < 0 ? node : out;
}

const struct weight_form weight_form_int8 = {
    .name = "int8",
    .structure = &weight_structure_dense,
    .code = &weight_code_s8,
    .match = int8_match,
    .emit = byte_emit,
};

const struct weight_form weight_form_uint8 = {
    .name = "uint8",
    .structure = &weight_structure_dense,
    .code = &weight_code_u8,
    .match = uint8_match,
    .emit = byte_emit,
};
