#include "engine/kernel/s8_pack.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/pack.h"

int32_t s8_code(const struct weight *w, const struct s8_shape *sh, int64_t oc, int64_t k) {
    size_t at = (size_t)(sh->is_kn ? k * sh->oc + oc : oc * sh->ic * sh->taps + k);
    const uint8_t *p = w->codes->data;

    if (w->codes->dtype == DT_S8 && !w->zero)
        return (int8_t)p[at];
    return (w->codes->dtype == DT_S8 ? (int8_t)p[at] : p[at]) -
           (w->zero ? weight_zero_at(w, w->scales->n(w) == 1 ? 0 : oc) : 0);
}

float s8_channel_scale(const struct weight *w, int64_t oc) {
    return weight_scale_at(w, w->scales->n(w) == 1 ? 0 : oc);
}

static bool bias_fits(const struct layer *l, int64_t oc) {
    const struct tensor *b = l->n_in > 2 ? l->in[2] : NULL;
    int64_t n;

    return !b || (b->data && b->dtype == DT_F32 && shape_count(&b->shape, &n) && (n == oc || n == 1));
}

/* No sum of products leaves int32, with room for the bias: 65,000 inputs of signed weights. */
static bool sum_fits(const struct weight *w, const struct s8_shape *sh) {
    int64_t largest = w->code->dtype == DT_S8 && !w->zero ? 128 : 255;

    return sh->oc > 0 && sh->ic > 0 && sh->taps > 0 &&
           sh->ic <= (INT32_MAX - (1 << 24)) / (255 * largest) / sh->taps;
}

bool s8_weights_fit(const struct layer *l, const struct s8_isa *isa, const struct s8_shape *sh) {
    const struct weight *w = l->node->weight;
    int64_t oc = sh->groups * sh->oc, n_scales;

    if (!w || !weight_is_integer(w) || !bias_fits(l, oc) || !sum_fits(w, sh))
        return false;
    n_scales = w->scales->n(w);
    if (n_scales != 1 && (n_scales != oc || w->axis != (sh->is_kn ? 1 : 0)))
        return false;
    if (isa->element > 1 || (w->code->dtype == DT_S8 && !w->zero))
        return true;
    for (int64_t i = 0; i < n_scales; i++)
        if (w->code->dtype == DT_S8 || weight_zero_at(w, i) != 128)
            return false;
    return true;
}

int32_t s8_bias(const struct layer *l, int64_t oc, float scale) {
    const struct tensor *b = l->n_in > 2 ? l->in[2] : NULL;
    int64_t n = 0;
    double v;
    float f;

    if (!b || !shape_count(&b->shape, &n))
        return 0;
    memcpy(&f, (const char *)b->data + (n == 1 ? 0 : (size_t)oc) * sizeof(f), sizeof(f));
    v = nearbyint((double)f / (double)scale);
    return (int32_t)fmin(fmax(v, INT32_MIN), INT32_MAX);
}

/* Input of the layer (ci * taps + tap) that element k of piece `seg` multiplies; -1: padding. */
static int32_t input_of(const struct s8_shape *sh, int seg, int64_t k) {
    int64_t tap = (int64_t)seg * sh->seg_taps + k / sh->ic;

    return (int32_t)(k >= sh->ic * sh->seg_taps ? -1 : k % sh->ic * sh->taps + tap);
}

/* One channel's codes into its place in a block of `width` channels: [k / step][channel][k % step]. Returns
 * their sum. `input`: of each of the n_k elements. */
static int64_t pack_channel(const struct weight *w, const struct s8_isa *isa, const struct s8_shape *sh,
    int64_t oc, const int32_t *input, int64_t n_k, int64_t width, uint8_t *to) {
    int64_t sum = 0;

    for (int64_t k = 0; k < n_k; k += isa->step, to += (size_t)(width * isa->step) * isa->element)
        for (int i = 0; i < isa->step; i++) {
            int16_t code = (int16_t)(input[k + i] < 0 ? 0 : s8_code(w, sh, oc, input[k + i]));

            sum += code;
            if (isa->element == 1)
                to[i] = (uint8_t)code;
            else
                memcpy(to + 2 * i, &code, sizeof(code));
        }
    return sum;
}

/* Channels a block holds: vectors of 16 that would be empty are left out. */
static int64_t block_channels(const struct s8_isa *isa, int64_t left) {
    return left <= 16 && isa->block > 16 ? 16 : isa->block;
}

/* sum w (x - zero) = sum w x - zero sum w; the border of a picture holds `zero` and so adds nothing. */
static void pack_all(const struct layer *l, const struct s8_isa *isa, const struct s8_shape *sh,
    const struct s8_weights *sizes, const int32_t *input, uint8_t *to, int32_t *bias, float *scale) {
    const struct quant *x = &l->in_type[0].quant, *y = &l->out_type[0].quant;
    const struct weight *w = l->node->weight;
    int64_t n_k = (int64_t)sh->n_seg * sh->seg_len;

    for (int64_t oc = 0; oc < sh->groups * sh->oc; oc++) {
        int64_t g = oc / sh->oc, c = oc % sh->oc, b = c / isa->block, at = g * sizes->padded + c;
        uint8_t *block = to + (size_t)g * sizes->group + (size_t)b * sizes->block;
        float s = x->scale * s8_channel_scale(w, oc);
        int64_t sum = pack_channel(w, isa, sh, oc, input, n_k, block_channels(isa, sh->oc - b * isa->block),
            block + (size_t)(c % isa->block * isa->step) * isa->element);

        bias[at] = (int32_t)(uint32_t)(s8_bias(l, oc, s) - x->zero * sum);
        scale[at] = l->out_type[0].dtype == DT_F32 ? s : s / y->scale;
    }
}

static int pack_sizes(const struct s8_isa *isa, const struct s8_shape *sh, struct s8_weights *w,
    size_t *ret_total, struct error *err) {
    size_t k, last, total, tables;

    w->n_blocks = (sh->oc + isa->block - 1) / isa->block;
    w->padded = w->n_blocks * isa->block;
    last = (size_t)block_channels(isa, sh->oc - (w->n_blocks - 1) * isa->block);
    if (__builtin_mul_overflow((size_t)sh->n_seg * isa->element, (size_t)sh->seg_len, &k) ||
        __builtin_mul_overflow(k, (size_t)isa->block, &w->block) ||
        __builtin_mul_overflow(w->block, (size_t)(w->n_blocks - 1), &w->group) ||
        __builtin_add_overflow(w->group, k * last, &w->group) ||
        __builtin_mul_overflow(w->group, (size_t)sh->groups, &total) ||
        __builtin_mul_overflow((size_t)(sh->groups * w->padded), 2 * sizeof(float), &tables) ||
        __builtin_add_overflow(total, (size_t)64, &total) || __builtin_add_overflow(total, tables, ret_total))
        return error_set(err, -EFBIG, "weights are too large");
    return 0;
}

static void set_pointers(const struct s8_shape *sh, const struct pack *p, struct s8_weights *w) {
    size_t weights = (w->group * (size_t)sh->groups + 63) / 64 * 64;
    const uint8_t *data = p->data;

    w->w = data;
    w->bias = (const int32_t *)(const void *)(data + weights);
    w->scale = (const float *)(const void *)(w->bias + sh->groups * w->padded);
}

static int pack_make(const struct layer *l, const struct s8_isa *isa, const struct s8_shape *sh,
    struct s8_weights *w, const char *key, size_t total, struct pack **ret, struct error *err) {
    _cleanup_(freep) int32_t *input = calloc((size_t)sh->n_seg * (size_t)sh->seg_len, sizeof(*input));
    struct pack *p;
    uint8_t *data;
    int r;

    if (!input)
        return error_oom(err);
    for (int seg = 0; seg < sh->n_seg; seg++)
        for (int64_t k = 0; k < sh->seg_len; k++)
            input[seg * (int64_t)sh->seg_len + k] = input_of(sh, seg, k);
    r = pack_new(key, NULL, 0, total, &p, err);
    if (r < 0)
        return r;
    set_pointers(sh, p, w);
    data = p->data;
    pack_all(l, isa, sh, w, input, data, (int32_t *)(void *)(data + ((const uint8_t *)w->bias - data)),
        (float *)(void *)(data + ((const uint8_t *)w->scale - data)));
    *ret = p;
    return 0;
}

int s8_pack(const struct layer *l, struct pack_cache *packs, const struct s8_isa *isa,
    const struct s8_shape *sh, struct s8_weights *ret, struct error *err) {
    struct s8_weights w = {0};
    const struct pack *found;
    struct pack *p = NULL;
    char key[512];
    size_t total = 0;
    int r = pack_sizes(isa, sh, &w, &total, err);

    if (r < 0)
        return r;
    snprintf(key, sizeof(key), "s8/%s/%d/%.400s", isa->name, sh->n_seg, l->node->id);
    found = pack_find(packs, key);
    if (!found) {
        r = pack_make(l, isa, sh, &w, key, total, &p, err);
        if (r < 0)
            return r;
        found = pack_publish(packs, p);
    }
    set_pointers(sh, found, &w);
    *ret = w;
    return 0;
}
