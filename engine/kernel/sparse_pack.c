#include "engine/kernel/sparse_pack.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/s8_pack.h"
#include "engine/kernel/weights.h"

#define CHUNK_DWORDS (SPARSE_SLICE * SPARSE_CHUNK)

/* Dense weights as they are read. */
struct source {
    const struct sparse_shape *sh;
    const char *floats; /* unaligned; or */
    const int16_t *codes;
    float factor;
};

/* What the pack's meta says. */
struct sizes {
    size_t n_spans, n_rows, n_values, n_padded;
};

static size_t index_of(const struct sparse_shape *sh, int64_t oc, int64_t ic, int64_t tap) {
    return (size_t)(sh->is_kn ? ic * sh->groups * sh->oc + oc : (oc * sh->ic + ic) * sh->taps + tap);
}

static uint32_t dword_at(const struct source *s, int64_t oc, int64_t dword, int64_t tap) {
    uint32_t bits = 0;
    float f;

    if (s->codes) {
        for (int i = 0; i < 4; i++)
            bits |= (uint32_t)(uint8_t)s->codes[index_of(s->sh, oc, 4 * dword + i, tap)] << 8 * i;
        return bits;
    }
    memcpy(&f, s->floats + sizeof(f) * index_of(s->sh, oc, dword, tap), sizeof(f));
    f *= s->factor;
    if (f == 0) /* -0 too */
        return 0;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

/* Output `oc` (of all) in a chunk: places and values of what is not zero. */
static int read_row(const struct source *s, int64_t oc, int64_t chunk, uint8_t at[CHUNK_DWORDS],
    uint32_t value[CHUNK_DWORDS]) {
    int64_t per_tap = sparse_tap_slices(s->sh), n_dwords = sparse_dwords(s->sh);
    int n = 0;

    for (int i = 0; i < SPARSE_CHUNK; i++) {
        int64_t slice = chunk * SPARSE_CHUNK + i, first = slice % per_tap * SPARSE_SLICE;

        if (slice >= per_tap * s->sh->taps)
            break;
        for (int64_t d = first; d < first + SPARSE_SLICE && d < n_dwords; d++) {
            value[n] = dword_at(s, oc, d, slice / per_tap);
            at[n] = (uint8_t)(i * SPARSE_SLICE + d - first);
            n += value[n] != 0;
        }
    }
    for (; n % SPARSE_STEP; n++) {
        value[n] = 0;
        at[n] = 0;
    }
    return n;
}

static void count_blocks(const struct sparse_shape *sh, struct sparse_weights *w) {
    w->n_blocks = (sh->oc + SPARSE_OUTPUTS - 1) / SPARSE_OUTPUTS;
    w->n_chunks = (sparse_tap_slices(sh) * sh->taps + SPARSE_CHUNK - 1) / SPARSE_CHUNK;
}

static int64_t block_outputs(const struct sparse_shape *sh, int64_t block) {
    int64_t left = sh->oc - block * SPARSE_OUTPUTS;

    return left < SPARSE_OUTPUTS ? left : SPARSE_OUTPUTS;
}

/* counts[group * oc][chunk] */
static int count_values(const struct source *s, const struct sparse_weights *w, uint8_t *counts,
    struct sizes *ret, struct error *err) {
    uint8_t at[CHUNK_DWORDS + 1];
    uint32_t value[CHUNK_DWORDS + 1];

    for (int64_t oc = 0; oc < s->sh->groups * s->sh->oc; oc++)
        for (int64_t c = 0; c < w->n_chunks; c++) {
            int n = read_row(s, oc, c, at, value);

            counts[oc * w->n_chunks + c] = (uint8_t)n;
            ret->n_values += (size_t)n;
            ret->n_rows += n > 0 || c == 0;
        }
    if (ret->n_values > UINT32_MAX)
        return error_set(err, -EFBIG, "weights are too large");
    return 0;
}

static int total_bytes(const struct sizes *z, bool has_scale, size_t *ret, struct error *err) {
    size_t total = 0, n;

    /* spans, values, biases and scales are of 4 bytes or 8; rows 2, places 1 */
    if (__builtin_mul_overflow(z->n_values, sizeof(uint32_t) + 1, &total) ||
        __builtin_mul_overflow(z->n_rows, sizeof(struct sparse_row), &n) ||
        __builtin_add_overflow(total, n, &total) ||
        __builtin_mul_overflow(z->n_spans, sizeof(struct sparse_span), &n) ||
        __builtin_add_overflow(total, n, &total) ||
        __builtin_mul_overflow(z->n_padded, has_scale ? 2 * sizeof(float) : sizeof(float), &n) ||
        __builtin_add_overflow(total, n, &total))
        return error_set(err, -EFBIG, "weights are too large");
    *ret = total;
    return 0;
}

static void set_pointers(const void *data, const struct sizes *z, bool has_scale, struct sparse_weights *w) {
    w->span = data;
    w->bias = (const uint32_t *)(w->span + z->n_spans);
    w->scale = (const float *)(const void *)(w->bias + z->n_padded);
    w->value = (const uint32_t *)(const void *)(w->scale + (has_scale ? z->n_padded : 0));
    w->row = (const struct sparse_row *)(const void *)(w->value + z->n_values);
    w->at = (const uint8_t *)(w->row + z->n_rows);
}

/* Where the writer is. */
struct cursor {
    struct sparse_row *row;
    uint32_t *value;
    uint8_t *at;
};

/* Rows of a block's chunk by their counts. */
static void fill_chunk(const struct source *s, const struct sparse_weights *w, const uint8_t *counts,
    int64_t first_oc, int64_t n_outputs, int64_t chunk, struct cursor *to) {
    uint8_t at[CHUNK_DWORDS + 1];
    uint32_t value[CHUNK_DWORDS + 1];

    for (int n = chunk == 0 ? 0 : 1; n <= CHUNK_DWORDS; n++)
        for (int64_t i = 0; i < n_outputs; i++) {
            if (counts[(first_oc + i) * w->n_chunks + chunk] != n)
                continue;
            read_row(s, first_oc + i, chunk, at, value);
            *to->row++ = (struct sparse_row){.output = (uint8_t)i, .count = (uint8_t)n};
            memcpy(to->value, value, sizeof(*value) * (size_t)n);
            memcpy(to->at, at, (size_t)n);
            to->value += n;
            to->at += n;
        }
}

static void fill_all(
    const struct source *s, const struct sparse_weights *w, const uint8_t *counts, char *data) {
    const char *base = (const char *)w->span;
    struct sparse_span *span = (struct sparse_span *)(void *)data;
    struct cursor to = {
        .row = (struct sparse_row *)(void *)(data + ((const char *)w->row - base)),
        .value = (uint32_t *)(void *)(data + ((const char *)w->value - base)),
        .at = (uint8_t *)data + ((const char *)w->at - base),
    };

    for (int64_t g = 0; g < s->sh->groups; g++)
        for (int64_t b = 0; b < w->n_blocks; b++)
            for (int64_t c = 0; c < w->n_chunks; c++) {
                *span++ = (struct sparse_span){(uint32_t)(to.row - w->row), (uint32_t)(to.value - w->value)};
                fill_chunk(s, w, counts, g * s->sh->oc + b * SPARSE_OUTPUTS, block_outputs(s->sh, b), c, &to);
            }
    *span = (struct sparse_span){(uint32_t)(to.row - w->row), (uint32_t)(to.value - w->value)};
}

/* An unpublished pack with all but biases and scales; pointers in *w. */
static int pack_make(const struct source *s, const char *key, bool has_scale, struct sparse_weights *w,
    struct pack **ret, struct error *err) {
    const struct sparse_shape *sh = s->sh;
    _cleanup_(freep) uint8_t *counts = NULL;
    struct sizes z = {
        .n_spans = (size_t)(sh->groups * w->n_blocks * w->n_chunks + 1),
        .n_padded = (size_t)(sh->groups * w->n_blocks * SPARSE_OUTPUTS),
    };
    size_t total = 0;
    int r;

    counts = calloc((size_t)(sh->groups * sh->oc), (size_t)w->n_chunks);
    if (!counts)
        return error_oom(err);
    r = count_values(s, w, counts, &z, err);
    if (r == 0)
        r = total_bytes(&z, has_scale, &total, err);
    if (r == 0)
        r = pack_new(key, &z, sizeof(z), total, ret, err);
    if (r < 0)
        return r;
    set_pointers((*ret)->data, &z, has_scale, w);
    fill_all(s, w, counts, (*ret)->data);
    return 0;
}

static bool find(struct pack_cache *packs, const char *key, bool has_scale, struct sparse_weights *w) {
    const struct pack *p = pack_find(packs, key);
    struct sizes z;

    if (!p)
        return false;
    memcpy(&z, p->meta, sizeof(z));
    set_pointers(p->data, &z, has_scale, w);
    return true;
}

/* Another thread's pack may have been first: the same bytes elsewhere. */
static void publish(struct pack_cache *packs, struct pack *p, bool has_scale, struct sparse_weights *w) {
    const struct pack *kept = pack_publish(packs, p);
    struct sizes z;

    memcpy(&z, kept->meta, sizeof(z));
    set_pointers(kept->data, &z, has_scale, w);
}

static float bias_at(const struct layer *l, int64_t oc) {
    const struct tensor *b = l->n_in > 2 ? l->in[2] : NULL;
    int64_t n = 0;
    float f;

    if (!b || !shape_count(&b->shape, &n))
        return 0;
    memcpy(&f, (const char *)b->data + (n == 1 ? 0 : (size_t)oc) * sizeof(f), sizeof(f));
    return f;
}

int sparse_pack_f32(const struct layer *l, const struct sparse_shape *sh, float factor, float bias_factor,
    struct pack_cache *packs, struct sparse_weights *ret, struct error *err) {
    _cleanup_(freep) float *decoded = NULL;
    struct source s = {.sh = sh, .floats = kernel_plain_weights(l), .factor = factor};
    struct sparse_weights w = {0};
    char key[PACK_KEY_MAX];
    struct pack *p = NULL;
    float *bias;
    size_t bytes;
    int r;

    count_blocks(sh, &w);
    kernel_pack_key(key, "sparse_f32", l, "w");
    if (find(packs, key, false, &w)) {
        *ret = w;
        return 0;
    }
    if (!s.floats) {
        if (!shape_bytes(kernel_weight_shape(l), DT_F32, &bytes))
            return error_set(err, -EFBIG, "weights are too large");
        decoded = malloc(bytes);
        if (!decoded)
            return error_oom(err);
        r = kernel_copy_weights(l, decoded, err);
        if (r < 0)
            return r;
        s.floats = (const char *)decoded;
    }
    r = pack_make(&s, key, false, &w, &p, err);
    if (r < 0)
        return r;
    bias = (float *)(void *)((char *)p->data + ((const char *)w.bias - (const char *)w.span));
    for (int64_t oc = 0; oc < sh->groups * sh->oc; oc++)
        bias[oc / sh->oc * w.n_blocks * SPARSE_OUTPUTS + oc % sh->oc] = bias_factor * bias_at(l, oc);
    publish(packs, p, false, &w);
    *ret = w;
    return 0;
}

/* sum w (x - zero) = sum w x - zero sum w; the gathering gives `zero` for what lies outside the picture. */
static void fill_scales(const struct layer *l, const struct source *s, const struct sparse_weights *w,
    int32_t *bias, float *scale) {
    const struct sparse_shape *sh = s->sh;
    const struct quant *x = &l->in_type[0].quant, *y = &l->out_type[0].quant;

    for (int64_t oc = 0; oc < sh->groups * sh->oc; oc++) {
        int64_t at = oc / sh->oc * w->n_blocks * SPARSE_OUTPUTS + oc % sh->oc, sum = 0;
        float f = x->scale * s8_channel_scale(l->node->weight, oc);

        for (int64_t ic = 0; ic < sh->ic; ic++)
            for (int64_t tap = 0; tap < sh->taps; tap++)
                sum += s->codes[index_of(sh, oc, ic, tap)];
        bias[at] = (int32_t)(uint32_t)(s8_bias(l, oc, f) - x->zero * sum);
        scale[at] = l->out_type[0].dtype == DT_F32 ? f : f / y->scale;
    }
}

int sparse_pack_s8(const struct layer *l, const struct sparse_shape *sh, struct pack_cache *packs,
    struct sparse_weights *ret, struct error *err) {
    _cleanup_(freep) int16_t *codes = NULL;
    struct source s = {.sh = sh};
    struct sparse_weights w = {0};
    char key[PACK_KEY_MAX];
    struct pack *p = NULL;
    char *data;
    int r;

    count_blocks(sh, &w);
    kernel_pack_key(key, "sparse_s8", l, "w");
    if (find(packs, key, true, &w)) {
        *ret = w;
        return 0;
    }
    codes = calloc((size_t)(sh->groups * sh->oc * sh->taps), sizeof(*codes) * (size_t)sh->ic);
    if (!codes)
        return error_oom(err);
    r = weight_get_codes(l->node->weight, codes, err);
    if (r < 0)
        return r;
    s.codes = codes;
    r = pack_make(&s, key, true, &w, &p, err);
    if (r < 0)
        return r;
    data = p->data;
    fill_scales(l, &s, &w, (int32_t *)(void *)(data + ((const char *)w.bias - (const char *)w.span)),
        (float *)(void *)(data + ((const char *)w.scale - (const char *)w.span)));
    publish(packs, p, true, &w);
    *ret = w;
    return 0;
}
