#include "engine/tensor.h"

#include <stdio.h>
#include <string.h>

/* sorted by dtype */
static const struct dtype_info infos[] = {
    {DT_F32, "float", "FP32", 32, true, true},
    {DT_U8, "uint8", "UINT8", 8, false, false},
    {DT_S8, "int8", "INT8", 8, false, true},
    {DT_U16, "uint16", "UINT16", 16, false, false},
    {DT_S16, "int16", "INT16", 16, false, true},
    {DT_S32, "int32", "INT32", 32, false, true},
    {DT_S64, "int64", "INT64", 64, false, true},
    {DT_BOOL, "bool", "BOOL", 8, false, false},
    {DT_F16, "float16", "FP16", 16, true, true},
    {DT_F64, "double", "FP64", 64, true, true},
    {DT_U32, "uint32", "UINT32", 32, false, false},
    {DT_U64, "uint64", "UINT64", 64, false, false},
    {DT_BF16, "bfloat16", "BF16", 16, true, true},
    {DT_U4, "uint4", NULL, 4, false, false},
    {DT_S4, "int4", NULL, 4, false, true},
    {DT_U2, "uint2", NULL, 2, false, false},
    {DT_S2, "int2", NULL, 2, false, true},
};

#define N_INFOS (sizeof(infos) / sizeof(infos[0]))

const struct dtype_info *dtype_info(enum dtype t) {
    for (size_t i = 0; i < N_INFOS; i++)
        if (infos[i].dtype == t)
            return &infos[i];
    return NULL;
}

const struct dtype_info *dtype_by_v2(const char *v2) {
    for (size_t i = 0; i < N_INFOS; i++)
        if (infos[i].v2 && strcmp(infos[i].v2, v2) == 0)
            return &infos[i];
    return NULL;
}

bool shape_equal(const struct shape *a, const struct shape *b) {
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

bool shape_count(const struct shape *s, int64_t *ret) {
    bool is_empty = false;
    int64_t n = 1;

    if (s->rank < 0)
        return false;
    for (int i = 0; i < s->rank; i++) {
        is_empty |= s->dim[i] == 0;
        if (s->dim[i] < 0 || __builtin_mul_overflow(n, s->dim[i] ? s->dim[i] : 1, &n))
            return false;
    }
    if (is_empty && n > SHAPE_MAX_COUNT)
        return false;
    *ret = is_empty ? 0 : n;
    return true;
}

bool shape_bytes(const struct shape *s, enum dtype t, size_t *ret) {
    const struct dtype_info *info = dtype_info(t);
    int64_t n;
    size_t bits;

    if (!info || !shape_count(s, &n))
        return false;
    if (info->bits >= 8)
        return !__builtin_mul_overflow((size_t)n, (size_t)info->bits / 8, ret);
    if (__builtin_mul_overflow((size_t)n, (size_t)info->bits, &bits) ||
        __builtin_add_overflow(bits, (size_t)7, &bits))
        return false;
    *ret = bits / 8;
    return true;
}

const char *shape_text(const struct shape *s, char buf[static SHAPE_TEXT_MAX]) {
    size_t at = 0;

    if (s->rank < 0)
        return "[unknown]";
    buf[at++] = '[';
    for (int i = 0; i < s->rank; i++) {
        /* 8 dimensions of at most 20 characters and a comma fit */
        if (i)
            buf[at++] = ',';
        if (s->dim[i] < 0)
            buf[at++] = '?';
        else
            at += (size_t)snprintf(buf + at, SHAPE_TEXT_MAX - at, "%lld", (long long)s->dim[i]);
    }
    buf[at++] = ']';
    buf[at] = 0;
    return buf;
}

const char *layout_name(enum layout l) {
    static const char *const names[LAYOUT_COUNT] = {
        [LAYOUT_PLAIN] = "plain",
        [LAYOUT_NHWC] = "nhwc",
        [LAYOUT_nChw16c] = "nChw16c",
        [LAYOUT_BITS] = "bits",
    };

    return l < LAYOUT_COUNT ? names[l] : "?";
}

struct tensor tensor_view(enum dtype t, const struct shape *shape, const void *data) {
    struct tensor view = {.dtype = t, .shape = *shape, .layout = LAYOUT_PLAIN};

    /* drops const: a tensor is one type for both; only outputs are ever written */
    memcpy(&view.data, &data, sizeof(data));
    return view;
}
