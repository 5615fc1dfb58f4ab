/* Evenly spaced integers as weight forms (engine/weight.h). Codes of 3, 5, 6 and 7 bits are indices into a
 * codebook of all the integers there are: no form is needed that the engine and foreign runtimes do not know.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/encode.h"
#include "compress/quantize.h"
#include "engine/ops/element.h"

const char *quantize_codes_form(int bits) {
    static const char *const names[] = {
        "codebook", "codebook", "int4", "codebook", "codebook", "codebook", "int8"};

    return names[bits - 2];
}

int64_t quantize_codes_bytes(int bits, int64_t params, int64_t n_scale) {
    bool is_packed = bits == 2 || bits == 4;
    int64_t table = is_packed ? 256 * (8 / bits) : bits == 8 ? 0 : 1 << bits;

    return (is_packed ? (params * bits + 7) / 8 : params) + table + (int64_t)sizeof(float) * n_scale;
}

static int put_bytes(
    const struct weight_rows *k, const struct quantized_weights *q, struct encoded *e, struct error *err) {
    int r = encoded_put_tensor(&e->codes, DT_S8, &k->shape, err);

    if (r == 0)
        memcpy(e->codes.data, q->q, (size_t)(k->outer * k->rows * k->inner));
    return r;
}

static int put_nibbles(
    const struct weight_rows *k, const struct quantized_weights *q, struct encoded *e, struct error *err) {
    int64_t n = k->outer * k->rows * k->inner;
    int r = q->block ? encoded_put_tensor(&e->codes, DT_S4, &k->shape, err)
                     : encoded_put_codes(e, 4, &k->shape, err);

    for (int64_t i = 0; r == 0 && i < n; i++)
        if (q->block)
            element_set_int(&e->codes, i, q->q[i]);
        else
            encoded_set_code(e, i, (unsigned)q->q[i] & 15);
    return r;
}

static int put_indices(
    const struct weight_rows *k, const struct quantized_weights *q, struct encoded *e, struct error *err) {
    int64_t n = k->outer * k->rows * k->inner;
    int least = quantized_least(q->bits);
    int r = encoded_put_tensor(&e->book, DT_S8, &(struct shape){.rank = 1, .dim = {1 << q->bits}}, err);

    e->w.book = &e->book;
    if (r == 0)
        r = encoded_put_codes(e, (unsigned)q->bits, &k->shape, err);
    if (r < 0)
        return r;
    for (int i = 0; i < 1 << q->bits; i++)
        ((int8_t *)e->book.data)[i] = (int8_t)(least + i);
    for (int64_t i = 0; i < n; i++)
        encoded_set_code(e, i, (unsigned)(q->q[i] - least));
    return 0;
}

static int put_scales(
    const struct weight_rows *k, const struct quantized_weights *q, struct encoded *e, struct error *err) {
    struct shape s = {.rank = q->n_scale > 1 ? 1 : 0, .dim = {q->n_scale}};
    int r;

    if (q->block) {
        e->w.group = q->block;
        e->w.group_axis = !k->axis;
        s = k->shape;
        s.dim[!k->axis] = (s.dim[!k->axis] + q->block - 1) / q->block;
    }
    r = encoded_put_tensor(&e->scale, DT_F32, &s, err);
    if (r == 0)
        memcpy(e->scale.data, q->scale, (size_t)q->n_scale * sizeof(float));
    e->w.scale = &e->scale;
    return r;
}

int quantize_codes_emit(struct graph *g, const char *id, const struct weight_rows *k,
    const struct quantized_weights *q, struct error *err) {
    char lut[8];
    _cleanup_(encoded_done) struct encoded e = {.w = {
                                                    .structure = weight_structure_find("dense"),
                                                    .scales = weight_scales_find(q->block         ? "group"
                                                                                 : q->n_scale > 1 ? "channel"
                                                                                                  : "layer"),
                                                    .shape = k->shape,
                                                    .rows = k->rows,
                                                    .cols = k->outer * k->inner,
                                                    .axis = k->axis,
                                                    .transposed = k->axis != 0,
                                                }};
    int r, value;

    snprintf(lut, sizeof(lut), "lut%d", q->bits);
    e.w.code = weight_code_find(q->bits == 8 ? "s8" : q->bits == 4 ? "s4" : lut);
    r = put_scales(k, q, &e, err);
    if (r == 0)
        r = q->bits == 8   ? put_bytes(k, q, &e, err)
            : q->bits == 4 ? put_nibbles(k, q, &e, err)
                           : put_indices(k, q, &e, err);
    if (r < 0)
        return r;
    e.w.codes = &e.codes;
    value = weight_emit(g, g->n_nodes, id, &e.w);
    return value < 0 ? error_set(err, value, "node '%s': its weights could not be written", id) : value;
}
