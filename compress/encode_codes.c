/* Codes of stored elements: the nearest value that the code can say. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/codebook_words.h"
#include "compress/encode.h"
#include "engine/ops/element.h"

#define N_BINS 4096

static bool is(const struct encode_job *j, const char *code) {
    return strcmp(j->form.code->name, code) == 0;
}

int encoded_put_tensor(struct tensor *t, enum dtype dtype, const struct shape *s, struct error *err) {
    size_t size;

    *t = (struct tensor){.dtype = dtype, .shape = *s};
    if (!shape_bytes(s, dtype, &size))
        return error_set(err, -EFBIG, "its weights are too large");
    t->data = calloc(size + 1, 1);
    return t->data ? 0 : error_oom(err);
}

static int floats(
    const struct encode_job *j, struct encoded *ret, const struct shape *stored, struct error *err) {
    bool is_f32 = is(j, "f32");
    int64_t n = weight_count_stored(&ret->w);
    int r = encoded_put_tensor(&ret->codes, is_f32 ? DT_F32 : is(j, "bf16") ? DT_BF16 : DT_F16, stored, err);

    for (int64_t i = 0; r == 0 && i < n; i++) {
        float v = encoded_quotient(j, ret, i);

        if (is_f32)
            ((float *)ret->codes.data)[i] = v;
        else
            element_set(&ret->codes, i, (double)v);
    }
    return r;
}

static int rounded(float v, int most) {
    return (int)fminf(fmaxf(nearbyintf(v), (float)-most), (float)most);
}

/* s8, and u8 with its zero at 128. */
static int bytes(
    const struct encode_job *j, struct encoded *ret, const struct shape *stored, struct error *err) {
    bool is_u8 = is(j, "u8");
    int64_t n = weight_count_stored(&ret->w), n_zero;
    int r = encoded_put_tensor(&ret->codes, is_u8 ? DT_U8 : DT_S8, stored, err);

    for (int64_t i = 0; r == 0 && i < n; i++)
        ((uint8_t *)ret->codes.data)[i] = (uint8_t)(rounded(encoded_quotient(j, ret, i), 127) + 128 * is_u8);
    if (r < 0 || !is_u8)
        return r;
    r = encoded_put_tensor(&ret->zero, DT_U8, &ret->scale.shape, err);
    if (r == 0 && shape_count(&ret->zero.shape, &n_zero))
        memset(ret->zero.data, 128, (size_t)n_zero);
    ret->w.zero = &ret->zero;
    return r;
}

int encoded_put_codes(struct encoded *ret, unsigned bits, const struct shape *stored, struct error *err) {
    struct shape packed = {.rank = 1};

    if (bits != 1 && bits != 2 && bits != 4)
        return encoded_put_tensor(&ret->codes, DT_U8, stored, err);
    ret->w.stored_bits = bits;
    packed.dim[0] = (weight_count_stored(&ret->w) * bits + 7) / 8;
    return encoded_put_tensor(&ret->codes, DT_U8, &packed, err);
}

void encoded_set_code(struct encoded *ret, int64_t i, unsigned code) {
    uint8_t *p = ret->codes.data;
    unsigned bits = ret->w.stored_bits;

    if (bits)
        p[(uint64_t)i * bits / 8] |= (uint8_t)(code << (uint64_t)i * bits % 8);
    else
        p[i] = (uint8_t)code;
}

/* Blocks of scales are for ONNX's own type, which DequantizeLinear takes as it is. */
static int nibbles(
    const struct encode_job *j, struct encoded *ret, const struct shape *stored, struct error *err) {
    int64_t n = weight_count_stored(&ret->w);
    int r = j->form.group ? encoded_put_tensor(&ret->codes, DT_S4, stored, err)
                          : encoded_put_codes(ret, 4, stored, err);

    for (int64_t i = 0; r == 0 && i < n; i++) {
        int q = rounded(encoded_quotient(j, ret, i), 7);

        if (j->form.group)
            element_set_int(&ret->codes, i, q);
        else
            encoded_set_code(ret, i, (unsigned)q & 15);
    }
    return r;
}

int encoded_put_book(struct encoded *ret, enum dtype t, const struct shape *s, struct error *err) {
    ret->w.book = &ret->book;
    return encoded_put_tensor(&ret->book, t, s, err);
}

/* -1 and 1 for bits; 0, 1, 0, -1 for two. */
static int signs(
    const struct encode_job *j, struct encoded *ret, const struct shape *stored, struct error *err) {
    static const int8_t words[2][4] = {{-1, 1}, {0, 1, 0, -1}};
    bool is_trit = is(j, "trit");
    int64_t n = weight_count_stored(&ret->w);
    int r = encoded_put_book(ret, DT_S8, &(struct shape){.rank = 1, .dim = {is_trit ? 4 : 2}}, err);

    if (r == 0)
        r = encoded_put_codes(ret, is_trit ? 2 : 1, stored, err);
    if (r < 0)
        return r;
    memcpy(ret->book.data, words[is_trit], is_trit ? 4 : 2);
    for (int64_t i = 0; i < n; i++) {
        float v = encoded_quotient(j, ret, i);

        encoded_set_code(ret, i, !is_trit ? v >= 0 : v > 0.5f ? 1 : v < -0.5f ? 3 : 0);
    }
    return 0;
}

/* Integers a bin each, floats evenly between the ends. */
static int fill_bins(
    const struct encode_job *j, const struct encoded *e, struct codebook_bins *b, struct error *err) {
    int64_t n = weight_count_stored(&e->w);
    double most = 0;
    int r;

    for (int64_t i = 0; j->o->entries == ENTRIES_FLOAT && i < n; i++)
        most = fmax(most, fabs((double)encoded_quotient(j, e, i)));
    r = j->o->entries == ENTRIES_INT8 ? codebook_bins_init(b, 255, -127, 127, err)
                                      : codebook_bins_init(b, N_BINS, -most, most, err);
    for (int64_t i = 0; r == 0 && i < n; i++)
        codebook_bins_add(b, (double)encoded_quotient(j, e, i), 1);
    return r;
}

void encoded_set_words(struct encoded *ret, const float *words) {
    struct tensor *book = &ret->book;
    int64_t n = 0;

    (void)shape_count(&book->shape, &n);
    for (int64_t i = 0; i < n; i++)
        if (book->dtype == DT_S8)
            ((int8_t *)book->data)[i] = (int8_t)rounded(words[i], 127);
        else
            ((float *)book->data)[i] = words[i];
}

static int looked_up(
    const struct encode_job *j, struct encoded *ret, const struct shape *stored, struct error *err) {
    enum dtype t = j->o->entries == ENTRIES_FLOAT ? DT_F32 : DT_S8;
    int n_words = 1 << j->form.code->bits, r;
    int64_t n = weight_count_stored(&ret->w);
    _cleanup_(codebook_bins_done) struct codebook_bins b = {0};
    const struct codebook_options o = {.init = START_LINEAR};
    float words[CODEBOOK_MAX];

    r = fill_bins(j, ret, &b, err);
    if (r == 0)
        r = codebook_find(&b, &o, words, n_words, NULL, err);
    if (r == 0)
        r = encoded_put_book(ret, t, &(struct shape){.rank = 1, .dim = {n_words}}, err);
    if (r == 0)
        r = encoded_put_codes(ret, j->form.code->bits, stored, err);
    if (r < 0)
        return r;
    encoded_set_words(ret, words);
    for (int64_t i = 0; i < n; i++)
        encoded_set_code(ret, i, (unsigned)codebook_nearest(words, n_words, encoded_quotient(j, ret, i)));
    return 0;
}

/* A layer's vectors: neighbours among the stored elements, each divided by its scale. */
struct quotients {
    const struct encode_job *j;
    const struct encoded *e;
};

static void read_quotients(const void *ctx, int64_t first, int64_t n, float *v, float *a) {
    const struct quotients *q = ctx;

    (void)a;
    for (int64_t i = 0; i < n * q->j->o->dim; i++)
        v[i] = encoded_quotient(q->j, q->e, first * q->j->o->dim + i);
}

static int words(const struct encode_job *j, struct encoded *ret, struct error *err) {
    enum dtype t = j->o->entries == ENTRIES_FLOAT ? DT_F32 : DT_S8;
    int dim = j->o->dim, n_words = j->o->words, r;
    const struct quotients q = {j, ret};
    const struct codebook_vectors v = {
        .dim = dim, .n = weight_count_stored(&ret->w) / dim, .read = read_quotients, .ctx = &q};
    const struct codebook_words_options o = {.n_words = n_words, .seed = j->seed, .is_int8 = t == DT_S8};
    _cleanup_(freep) float *book = calloc((size_t)(n_words * dim) + 1, sizeof(*book));

    if (!book)
        return error_oom(err);
    r = encoded_put_book(ret, t, &(struct shape){.rank = 2, .dim = {n_words, dim}}, err);
    if (r == 0)
        r = encoded_put_tensor(&ret->codes, DT_U8, &(struct shape){.rank = 1, .dim = {v.n}}, err);
    if (r == 0)
        r = codebook_words(&v, &o, book, ret->codes.data, err);
    if (r == 0)
        encoded_set_words(ret, book);
    return r;
}

int encode_codes(const struct encode_job *j, struct encoded *ret, struct error *err) {
    struct shape stored;
    int r;

    if (!ret->w.structure->stored_shape(&ret->w, &stored))
        return error_set(err, -EINVAL, "its shape cannot be stored so");
    if (j->form.code->dtype == DT_F32)
        r = floats(j, ret, &stored, err);
    else if (is(j, "s8") || is(j, "u8"))
        r = bytes(j, ret, &stored, err);
    else if (is(j, "s4"))
        r = nibbles(j, ret, &stored, err);
    else if (is(j, "bit") || is(j, "trit"))
        r = signs(j, ret, &stored, err);
    else if (is(j, "product"))
        r = words(j, ret, err);
    else
        r = looked_up(j, ret, &stored, err);
    ret->w.codes = &ret->codes;
    return r;
}
