#include "engine/kernel/s8_pack.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/pack.h"

int32_t s8_code(const struct weight *w, const struct s8_shape *sh, int64_t oc, int64_t k) {
    size_t at = (size_t)(sh->is_kn ? k * sh->oc + oc : oc * sh->ic * sh->taps + k);
    const uint8_t *p = w->codes->data;
    int32_t zero = w->zero ? weight_zero_at(w, w->scales->n(w) == 1 ? 0 : oc) : 0;

    return (w->codes->dtype == DT_S8 ? (int8_t)p[at] : p[at]) - zero;
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

    if (!w || (w->code->dtype != DT_S8 && w->code->dtype != DT_U8) || !bias_fits(l, oc) || !sum_fits(w, sh))
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

struct packer {
    const struct weight *w;
    const struct s8_isa *isa;
    const struct s8_shape *sh;
    uint8_t *to;
};

static void put(struct packer *p, int32_t code) {
    if (p->isa->element == 1) {
        *p->to++ = (uint8_t)code;
    } else {
        int16_t v = (int16_t)code;

        memcpy(p->to, &v, sizeof(v));
        p->to += sizeof(v);
    }
}

/* Element k of piece `seg`: 0 behind the last real one. */
static int32_t piece_code(const struct packer *p, int64_t oc, int seg, int64_t k) {
    const struct s8_shape *sh = p->sh;
    int64_t tap = (int64_t)seg * sh->seg_taps + k / sh->ic;

    if (k >= sh->ic * sh->seg_taps)
        return 0;
    return s8_code(p->w, sh, oc, k % sh->ic * sh->taps + tap);
}

/* [seg][k / step][channel][k % step] of channels c0 to c0 + n of group g; n is what the block holds, channels
 * behind the group's last are zero. Vectors of 16 channels that would be empty are left out. */
static void pack_block(struct packer *p, int64_t g, int64_t c0, int64_t n) {
    const struct s8_shape *sh = p->sh;
    int step = p->isa->step;

    for (int seg = 0; seg < sh->n_seg; seg++)
        for (int64_t k = 0; k < sh->seg_len; k += step)
            for (int64_t c = c0; c < c0 + n; c++)
                for (int i = 0; i < step; i++)
                    put(p, c < sh->oc ? piece_code(p, g * sh->oc + c, seg, k + i) : 0);
}

static int64_t block_channels(const struct s8_isa *isa, int64_t left) {
    return left <= 16 && isa->block > 16 ? 16 : isa->block;
}

static void pack_weights(const struct layer *l, const struct s8_isa *isa, const struct s8_shape *sh,
    const struct s8_weights *sizes, uint8_t *to) {
    struct packer p = {.w = l->node->weight, .isa = isa, .sh = sh};

    for (int64_t g = 0; g < sh->groups; g++)
        for (int64_t b = 0; b < sizes->n_blocks; b++) {
            p.to = to + (size_t)g * sizes->group + (size_t)b * sizes->block;
            pack_block(&p, g, b * isa->block, block_channels(isa, sh->oc - b * isa->block));
        }
}

/* sum w (x - zero) = sum w x - zero sum w; the border of a picture holds `zero` and so adds nothing. */
static void pack_bias(const struct layer *l, const struct s8_shape *sh, const struct s8_weights *sizes,
    int32_t *bias, float *scale) {
    const struct quant *x = &l->in_type[0].quant, *y = &l->out_type[0].quant;
    const struct weight *w = l->node->weight;

    for (int64_t oc = 0; oc < sh->groups * sh->oc; oc++) {
        int64_t at = oc / sh->oc * sizes->padded + oc % sh->oc, sum = 0;
        float s = x->scale * s8_channel_scale(w, oc);

        for (int64_t k = 0; k < sh->ic * sh->taps; k++)
            sum += s8_code(w, sh, oc, k);
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

int s8_pack(const struct layer *l, struct pack_cache *packs, const struct s8_isa *isa,
    const struct s8_shape *sh, struct s8_weights *ret, struct error *err) {
    struct s8_weights w = {0};
    const struct pack *found;
    struct pack *p;
    char key[512];
    size_t total = 0;
    int r = pack_sizes(isa, sh, &w, &total, err);

    if (r < 0)
        return r;
    snprintf(key, sizeof(key), "s8/%s/%d/%.400s", isa->name, sh->n_seg, l->node->id);
    found = pack_find(packs, key);
    if (!found) {
        r = pack_new(key, NULL, 0, total, &p, err);
        if (r < 0)
            return r;
        set_pointers(sh, p, &w);
        pack_weights(l, isa, sh, &w, p->data);
        pack_bias(l, sh, &w, (int32_t *)((uint8_t *)p->data + ((const uint8_t *)w.bias - w.w)),
            (float *)(void *)((uint8_t *)p->data + ((const uint8_t *)w.scale - w.w)));
        found = pack_publish(packs, p);
    }
    set_pointers(sh, found, &w);
    *ret = w;
    return 0;
}
