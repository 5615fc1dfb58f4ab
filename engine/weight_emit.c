/* Writes a form as its pattern: codes, structure, scales. */
#include <errno.h>

#include "engine/weight_rows.h"

/* A zero point is always written, zeros where the form has none: the type of the codes is then plain to
 * every reader. Groups have a scale each few codes: none. */
static int write_zeros(struct weight_writer *to, const struct weight *w) {
    struct tensor t = {.dtype = w->code->dtype, .shape = w->scale->shape};
    size_t size;

    if (w->zero)
        return weight_write_init(to, "zero_point", w->zero);
    if (!shape_bytes(&t.shape, t.dtype, &size))
        return -EINVAL;
    t.data = graph_alloc(to->g, size + 1);
    return t.data ? weight_write_init(to, "zero_point", &t) : -ENOMEM;
}

static int write_dequantize(struct weight_writer *to, const struct weight *w, int value) {
    int in[3] = {value, weight_write_init(to, "scale", w->scale), -1}, n_in = 2, v, r = 0;

    if (!w->group || w->zero) {
        in[2] = write_zeros(to, w);
        n_in = 3;
        if (in[2] < 0)
            return in[2];
    }
    v = weight_write_node(to, "DequantizeLinear", "dequantized", in, n_in, DT_F32, &w->shape);
    if (v < 0)
        return v;
    if (w->scales == &weight_scales_channel)
        r = weight_write_attr(to, "axis", w->axis);
    if (w->group) {
        r = weight_write_attr(to, "axis", w->group_axis);
        r = r < 0 ? r : weight_write_attr(to, "block_size", w->group);
    }
    return r < 0 ? r : v;
}

/* The same numbers, as many dimensions as the weights. */
static int write_mul(struct weight_writer *to, const struct weight *w, int value) {
    struct tensor scale = *w->scale;
    int in[2] = {value, -ENOMEM};

    if (w->scales == &weight_scales_channel) {
        scale.shape.rank = w->shape.rank;
        for (int i = 0; i < scale.shape.rank; i++)
            scale.shape.dim[i] = i == w->axis ? w->rows : 1;
    }
    in[1] = weight_write_init(to, "scale", &scale);
    return weight_write_node(to, "Mul", "scaled", in, 2, DT_F32, &w->shape);
}

int weight_emit(struct graph *g, size_t before, const char *name, const struct weight *w) {
    struct weight_writer to = {.g = g, .before = before, .name = name};
    struct shape stored;
    int v;

    if (!w->structure->stored_shape(w, &stored))
        return -EINVAL;
    v = w->code->emit(&to, w, &stored);
    if (v >= 0)
        v = w->structure->emit(&to, w, v);
    if (v < 0 || !w->scale)
        return v;
    return weight_codes_are_integers(w) ? write_dequantize(&to, w, v) : write_mul(&to, w, v);
}
