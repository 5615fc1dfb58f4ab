/* Codes of stored elements: the nearest value that the code can say. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/encode.h"
#include "engine/ops/element.h"

#define N_BINS       4096
#define SAMPLE_WORDS 8192

static bool is(const struct encode_job *j, const char *code) {
    return strcmp(j->form.code->name, code) == 0;
}

static int put_tensor(struct tensor *t, enum dtype dtype, const struct shape *s, struct error *err) {
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
    int r = put_tensor(&ret->codes, is_f32 ? DT_F32 : is(j, "bf16") ? DT_BF16 : DT_F16, stored, err);

    for (int64_t i = 0; r == 0 && i < n; i++) {
        float v = encode_number(j->w, encoded_at(ret, i));

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
    int r = put_tensor(&ret->codes, is_u8 ? DT_U8 : DT_S8, stored, err);

    for (int64_t i = 0; r == 0 && i < n; i++)
        ((uint8_t *)ret->codes.data)[i] = (uint8_t)(rounded(encoded_quotient(j, ret, i), 127) + 128 * is_u8);
    if (r < 0 || !is_u8)
        return r;
    r = put_tensor(&ret->zero, DT_U8, &ret->scale.shape, err);
    if (r == 0 && shape_count(&ret->zero.shape, &n_zero))
        memset(ret->zero.data, 128, (size_t)n_zero);
    ret->w.zero = &ret->zero;
    return r;
}

/* Room for codes of `bits` bits, packed where that many divide a byte. */
static int put_codes(struct encoded *ret, unsigned bits, const struct shape *stored, struct error *err) {
    struct shape packed = {.rank = 1};

    if (bits != 1 && bits != 2 && bits != 4)
        return put_tensor(&ret->codes, DT_U8, stored, err);
    ret->w.stored_bits = bits;
    packed.dim[0] = (weight_count_stored(&ret->w) * bits + 7) / 8;
    return put_tensor(&ret->codes, DT_U8, &packed, err);
}

static void set_code(struct encoded *ret, int64_t i, unsigned code) {
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
    int r = j->form.group ? put_tensor(&ret->codes, DT_S4, stored, err) : put_codes(ret, 4, stored, err);

    for (int64_t i = 0; r == 0 && i < n; i++) {
        int q = rounded(encoded_quotient(j, ret, i), 7);

        if (j->form.group)
            element_set_int(&ret->codes, i, q);
        else
            set_code(ret, i, (unsigned)q & 15);
    }
    return r;
}

static int put_book(struct encoded *ret, enum dtype t, const struct shape *s, struct error *err) {
    ret->w.book = &ret->book;
    return put_tensor(&ret->book, t, s, err);
}

/* -1 and 1 for bits; 0, 1, 0, -1 for two. */
static int signs(
    const struct encode_job *j, struct encoded *ret, const struct shape *stored, struct error *err) {
    static const int8_t words[2][4] = {{-1, 1}, {0, 1, 0, -1}};
    bool is_trit = is(j, "trit");
    int64_t n = weight_count_stored(&ret->w);
    int r = put_book(ret, DT_S8, &(struct shape){.rank = 1, .dim = {is_trit ? 4 : 2}}, err);

    if (r == 0)
        r = put_codes(ret, is_trit ? 2 : 1, stored, err);
    if (r < 0)
        return r;
    memcpy(ret->book.data, words[is_trit], is_trit ? 4 : 2);
    for (int64_t i = 0; i < n; i++) {
        float v = encoded_quotient(j, ret, i);

        set_code(ret, i, !is_trit ? v >= 0 : v > 0.5f ? 1 : v < -0.5f ? 3 : 0);
    }
    return 0;
}

/* Bins over what the numbers can be: integers one each, floats evenly between the ends. */
struct bins {
    int n;
    float low, step;
    double count[N_BINS];
    uint8_t code[N_BINS];
};

static void set_range(const struct encode_job *j, const struct encoded *e, struct bins *b) {
    int64_t n = weight_count_stored(&e->w);
    float most = 0;

    if (j->o->entries == ENTRIES_INT8) {
        b->n = 255;
        b->low = -127;
        b->step = 1;
        return;
    }
    for (int64_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(encoded_quotient(j, e, i)));
    most = most > 0 ? most : 1;
    b->n = N_BINS;
    b->low = -most;
    b->step = 2 * most / (N_BINS - 1);
}

static int bin_of(const struct bins *b, float v) {
    int i = (int)nearbyintf((v - b->low) / b->step);

    return i < 0 ? 0 : i >= b->n ? b->n - 1 : i;
}

static void set_nearest(struct bins *b, const float *words, int n) {
    for (int i = 0; i < b->n; i++) {
        float v = b->low + b->step * (float)i;

        b->code[i] = (uint8_t)encode_nearest_word(&v, 1, words, n);
    }
}

static void store_words(struct tensor *book, const float *words, int64_t n) {
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
    _cleanup_(freep) struct bins *b = calloc(1, sizeof(*b));
    float words[256];

    if (!b)
        return error_oom(err);
    set_range(j, ret, b);
    for (int64_t i = 0; i < n; i++)
        b->count[bin_of(b, encoded_quotient(j, ret, i))]++;
    encode_kmeans(b->count, b->n, b->low, b->step, words, n_words);
    set_nearest(b, words, n_words);
    r = put_book(ret, t, &(struct shape){.rank = 1, .dim = {n_words}}, err);
    if (r == 0)
        r = put_codes(ret, j->form.code->bits, stored, err);
    if (r < 0)
        return r;
    store_words(&ret->book, words, n_words);
    for (int64_t i = 0; i < n; i++)
        set_code(ret, i, b->code[bin_of(b, encoded_quotient(j, ret, i))]);
    return 0;
}

static int words(const struct encode_job *j, struct encoded *ret, struct error *err) {
    enum dtype t = j->o->entries == ENTRIES_FLOAT ? DT_F32 : DT_S8;
    int dim = j->o->dim, n_words = j->o->words, r;
    int64_t n = weight_count_stored(&ret->w) / dim, step = (n + SAMPLE_WORDS - 1) / SAMPLE_WORDS;
    int64_t n_sample = (n + step - 1) / step;
    _cleanup_(freep) float *sample = malloc((size_t)(n_sample * dim) * sizeof(*sample) + 1);
    _cleanup_(freep) float *book = malloc((size_t)(n_words * dim) * sizeof(*book) + 1);
    float v[64];

    if (!sample || !book)
        return error_oom(err);
    for (int64_t i = 0; i < n_sample * dim; i++)
        sample[i] = encoded_quotient(j, ret, i / dim * step * dim + i % dim);
    r = encode_kmeans_words(sample, n_sample, dim, book, n_words, j->seed, err);
    if (r == 0)
        r = put_book(ret, t, &(struct shape){.rank = 2, .dim = {n_words, dim}}, err);
    if (r == 0)
        r = put_tensor(&ret->codes, DT_U8, &(struct shape){.rank = 1, .dim = {n}}, err);
    if (r < 0)
        return r;
    store_words(&ret->book, book, (int64_t)n_words * dim);
    for (int64_t i = 0; i < n; i++) {
        for (int k = 0; k < dim; k++)
            v[k] = encoded_quotient(j, ret, i * dim + k);
        ((uint8_t *)ret->codes.data)[i] = (uint8_t)encode_nearest_word(v, dim, book, n_words);
    }
    return 0;
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
