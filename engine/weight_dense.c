/* Structure `dense` (every element is stored) and the form of plain floats: an initialiser. */
#include <errno.h>
#include <string.h>

#include "engine/weight_rows.h"

static int64_t dense_n_stored(const struct weight *w) {
    return w->rows * w->cols;
}

static void dense_expand(const struct weight *w, const float *stored, float *ret) {
    memcpy(ret, stored, (size_t)(w->rows * w->cols) * sizeof(*ret));
}

const struct weight_structure weight_structure_dense = {
    .name = "dense",
    .n_stored = dense_n_stored,
    .expand = dense_expand,
};

static size_t f32_bytes(const struct weight *w) {
    return (size_t)w->structure->n_stored(w) * sizeof(float);
}

static void f32_decode(const struct weight *w, float *ret) {
    memcpy(ret, w->codes->data, f32_bytes(w));
}

const struct weight_code weight_code_f32 = {
    .name = "f32",
    .dtype = DT_F32,
    .bytes = f32_bytes,
    .decode = f32_decode,
};

static int dense_match(struct graph *g, int v, struct weight *w, int *codes) {
    const struct tensor *t = g->values[v].init;

    if (!t || t->dtype != DT_F32 || !t->data || t->layout != LAYOUT_PLAIN)
        return 0;
    *w = (struct weight){.shape = t->shape, .codes = t};
    w->structure = &weight_structure_dense;
    w->code = &weight_code_f32;
    w->scales = &weight_scales_layer;
    *codes = v;
    return weight_set_rows(w, 0) < 0 ? 0 : 1;
}

static int dense_emit(struct graph *g, size_t before, const char *name, const struct weight *w) {
    const char *unique = graph_unique_name(g, name);

    (void)before;
    return unique ? graph_add_init(g, unique, w->codes, /* data_lives= */ false) : -ENOMEM;
}

const struct weight_form weight_form_dense = {
    .name = "dense",
    .structure = &weight_structure_dense,
    .code = &weight_code_f32,
    .match = dense_match,
    .emit = dense_emit,
};
