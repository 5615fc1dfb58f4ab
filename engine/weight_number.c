/* Codes that are numbers themselves: f32, bf16 and f16 (cast to float), s8 and u8, and s4 in ONNX's own type,
 * two a byte. */
#include <errno.h>
#include <string.h>

#include "engine/weight_rows.h"

/* Two's complement of `bits` bits. */
static int64_t sign_extend(uint64_t v, unsigned bits) {
    uint64_t top = (uint64_t)1 << (bits - 1);

    return bits == 64 ? (int64_t)v : (int64_t)(v ^ top) - (int64_t)top;
}

void weight_read(const struct tensor *t, unsigned bits, int64_t first, int64_t n, int64_t *ret) {
    const struct dtype_info *info = dtype_info(t->dtype);
    const uint8_t *p = t->data;
    unsigned size = bits ? bits : info->bits, mask = (1u << (size & 7)) - 1;
    bool is_signed = info->is_signed && !bits;

    if (size == 8 && !is_signed) {
        for (int64_t i = 0; i < n; i++)
            ret[i] = p[first + i];
    } else if (size == 8) {
        for (int64_t i = 0; i < n; i++)
            ret[i] = (int8_t)p[first + i];
    } else if (size < 8) {
        for (int64_t i = 0; i < n; i++) {
            uint64_t at = (uint64_t)(first + i) * size;

            ret[i] = (int64_t)((unsigned)p[at / 8] >> at % 8 & mask);
            ret[i] = is_signed ? sign_extend((uint64_t)ret[i], size) : ret[i];
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            uint64_t v = 0;

            memcpy(&v, p + (size_t)(first + i) * (size / 8), size / 8);
            ret[i] = is_signed ? sign_extend(v, size) : (int64_t)v;
        }
    }
}

static int fill(struct graph *g, int v, const struct weight_code *code, struct weight *w,
    struct shape *ret_shape, int *ret_codes) {
    w->codes = g->values[v].init;
    w->code = code;
    *ret_shape = w->codes->shape;
    *ret_codes = v;
    return 1;
}

/* The constant at v is stored as one of `types`, NULL-terminated, perhaps cast to `to`. */
static int match_number(struct graph *g, int v, const struct weight_code *code, const enum dtype *types,
    struct weight *w, struct shape *ret_shape, int *ret_codes) {
    enum dtype to;
    int codes = weight_match_cast(g, v, &to);

    if (codes < 0 || (to != DT_NONE && to != code->dtype && to != DT_F32))
        return 0;
    for (; *types; types++)
        if (g->values[codes].init->dtype == *types)
            return fill(g, codes, code, w, ret_shape, ret_codes);
    return 0;
}

static int emit_init(struct weight_writer *to, const struct weight *w) {
    return weight_write_init(to, "quantized", w->codes);
}

/* f32: as it is, not cast. */
static int f32_match(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *ret_codes) {
    const struct tensor *t = g->values[v].init;

    if (!t || t->dtype != DT_F32 || !t->data || t->layout != LAYOUT_PLAIN)
        return 0;
    return fill(g, v, &weight_code_f32, w, ret_shape, ret_codes);
}

static int f32_emit(struct weight_writer *to, const struct weight *w, const struct shape *stored) {
    const char *unique;

    if (w->structure != &weight_structure_dense || w->scale)
        return weight_write_init(to, "values", w->codes);
    (void)stored;
    unique = graph_unique_name(to->g, to->name);
    return unique ? graph_add_init(to->g, unique, w->codes, /* data_lives= */ false) : -ENOMEM;
}

static int half_match(struct graph *g, int v, const struct weight_code *code, const enum dtype *types,
    struct weight *w, struct shape *ret_shape, int *ret_codes) {
    /* a layer cannot take halves: they are cast */
    if (!weight_producer(g, v, "Cast"))
        return 0;
    return match_number(g, v, code, types, w, ret_shape, ret_codes);
}

static int bf16_match(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *ret_codes) {
    static const enum dtype types[] = {DT_BF16, DT_NONE};

    return half_match(g, v, &weight_code_bf16, types, w, ret_shape, ret_codes);
}

static int f16_match(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *ret_codes) {
    static const enum dtype types[] = {DT_F16, DT_NONE};

    return half_match(g, v, &weight_code_f16, types, w, ret_shape, ret_codes);
}

static int half_emit(struct weight_writer *to, const struct weight *w, const struct shape *stored) {
    int v = weight_write_init(to, "values", w->codes);

    return v < 0 ? v : weight_write_cast(to, "float", v, DT_F32, stored);
}

static int s8_match(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *ret_codes) {
    static const enum dtype types[] = {DT_S8, DT_NONE};

    return match_number(g, v, &weight_code_s8, types, w, ret_shape, ret_codes);
}

static int u8_match(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *ret_codes) {
    static const enum dtype types[] = {DT_U8, DT_U4, DT_U2, DT_NONE};

    return match_number(g, v, &weight_code_u8, types, w, ret_shape, ret_codes);
}

/* Also what DequantizeLinear takes as it is, and what is cast to int8 first. */
static int s4_match(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *ret_codes) {
    static const enum dtype types[] = {DT_S4, DT_S2, DT_NONE};

    return match_number(g, v, &weight_code_s4, types, w, ret_shape, ret_codes);
}

static int byte_emit(struct weight_writer *to, const struct weight *w, const struct shape *stored) {
    int v = emit_init(to, w);

    return v >= 0 && w->codes->dtype != w->code->dtype && !w->group
               ? weight_write_cast(to, "cast", v, w->code->dtype, stored)
               : v;
}

/* int8: foreign runtimes fuse DequantizeLinear of int4 with matrix products of blocks only, so elsewhere the
 * codes become int8 first; packed in bytes through a table, which opset 13 can hold. */
static int s4_emit(struct weight_writer *to, const struct weight *w, const struct shape *stored) {
    int8_t values[16];
    struct tensor book = {.dtype = DT_S8, .shape = {.rank = 1, .dim = {16}}, .data = values};

    if (w->codes->dtype != DT_U8)
        return byte_emit(to, w, stored);
    for (int i = 0; i < 16; i++)
        values[i] = (int8_t)(i < 8 ? i : i - 16);
    return weight_write_unpack(to, "quantized", w->codes, 4, &book, stored);
}

const struct weight_code weight_code_f32 = {
    .name = "f32", .dtype = DT_F32, .bits = 32, .match = f32_match, .emit = f32_emit};
const struct weight_code weight_code_bf16 = {
    .name = "bf16", .dtype = DT_F32, .bits = 16, .match = bf16_match, .emit = half_emit};
const struct weight_code weight_code_f16 = {
    .name = "f16", .dtype = DT_F32, .bits = 16, .match = f16_match, .emit = half_emit};
const struct weight_code weight_code_s8 = {
    .name = "s8", .dtype = DT_S8, .bits = 8, .match = s8_match, .emit = byte_emit};
const struct weight_code weight_code_u8 = {
    .name = "u8", .dtype = DT_U8, .bits = 8, .match = u8_match, .emit = byte_emit};
const struct weight_code weight_code_s4 = {
    .name = "s4", .dtype = DT_S8, .bits = 4, .match = s4_match, .emit = s4_emit};
