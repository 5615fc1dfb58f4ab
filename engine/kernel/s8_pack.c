#include "engine/kernel/s8_pack.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/s8_codes.h"
#include "engine/pack.h"

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
    int64_t largest = w->code->dtype == DT_S8 && !w->zero && !w->book ? 128 : 255;

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
    return isa->element > 1 || s8_codes_are_bytes(w);
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

/* What packing one layer needs. */
struct packing {
    const struct layer *l;
    const struct s8_isa *isa;
    const struct s8_shape *sh;
    struct s8_codes codes;
    int32_t *input;     /* of each of the n_k elements */
    int64_t n_k;        /* padded */
    uint8_t place[256]; /* of a value + 128 in the loader's table */
    uint8_t *panel;     /* a block as numbers, on its way to codes */
};

static void packing_done(struct packing *p) {
    free(p->codes.code);
    free(p->input);
    free(p->panel);
}

/* As below for bytes in steps of four and inputs next to each other, as nearly all are. */
static int64_t pack_channel_bytes(const struct packing *p, int64_t oc, int64_t width, uint8_t *to) {
    const struct s8_codes *codes = &p->codes;
    int64_t first = oc * codes->oc_stride, sum = 0;

    for (int64_t k = 0; k < p->n_k; k += 4, to += width * 4) {
        const int32_t *in = p->input + k;
        int16_t c[4];

        for (int i = 0; i < 4; i++)
            c[i] = in[i] < 0 ? 0 : codes->bytes ? codes->bytes[first + in[i]] : codes->code[first + in[i]];
        for (int i = 0; i < 4; i++)
            to[i] = (uint8_t)c[i];
        sum += c[0] + c[1] + c[2] + c[3];
    }
    return sum;
}

/* One channel's numbers into its place in a block of `width` channels: [k / step][channel][k % step]. Returns
 * their sum. */
static int64_t pack_channel(const struct packing *p, int64_t oc, int64_t width, uint8_t *to) {
    const struct s8_isa *isa = p->isa;
    int64_t sum = 0;

    if (isa->element == 1 && isa->step == 4 && p->codes.k_stride == 1)
        return pack_channel_bytes(p, oc, width, to);
    for (int64_t k = 0; k < p->n_k; k += isa->step, to += (size_t)(width * isa->step) * isa->element)
        for (int i = 0; i < isa->step; i++) {
            int16_t code = 0;

            if (p->input[k + i] >= 0)
                code = s8_codes_at(&p->codes, oc, p->input[k + i]);
            sum += code;
            if (isa->element == 1)
                to[i] = (uint8_t)code;
            else
                memcpy(to + 2 * i, &code, sizeof(code));
        }
    return sum;
}

/* Codes of a block, in planes (s8.h). */
static void encode_block(const struct packing *p, int bits, size_t n_weights, uint8_t *to) {
    size_t unit = (size_t)p->isa->unit, element = p->isa->element;

    for (size_t at = 0; at < n_weights; at++) {
        size_t u = at / unit % S8_GROUP, i = at % unit;
        uint8_t *plane = to + at / (unit * S8_GROUP) * unit * (size_t)bits;
        unsigned code = p->place[(uint8_t)(p->panel[at * element] + 128)];

        for (unsigned width = 4; width > 0; width /= 2) {
            if (!((unsigned)bits & width))
                continue;
            plane[u / (8 / width) * unit + i] |=
                (uint8_t)((code & ((1u << width) - 1)) << (u % (8 / width) * width));
            plane += width * unit;
            code >>= width;
        }
    }
}

/* Channels a block holds: vectors of 16 that would be empty are left out. */
static int64_t block_channels(const struct s8_isa *isa, int64_t left) {
    return left <= 16 && isa->block > 16 ? 16 : isa->block;
}

/* sum w (x - zero) = sum w x - zero sum w; the border of a picture holds `zero` and so adds nothing. */
static void pack_block(const struct packing *p, const struct s8_weights *w, int64_t g, int64_t b, uint8_t *to,
    int32_t *bias, float *scale) {
    const struct quant *x = &p->l->in_type[0].quant, *y = &p->l->out_type[0].quant;
    int64_t c0 = b * p->isa->block, left = p->sh->oc - c0, width = block_channels(p->isa, left);
    uint8_t *numbers = w->loader ? p->panel : to;

    for (int64_t c = 0; c < left && c < width; c++) {
        int64_t oc = g * p->sh->oc + c0 + c, at = g * w->padded + c0 + c;
        float s = x->scale * s8_channel_scale(p->l->node->weight, oc);
        int64_t sum = pack_channel(p, oc, width, numbers + (size_t)(c * p->isa->step) * p->isa->element);

        bias[at] = (int32_t)(uint32_t)(s8_bias(p->l, oc, s) - x->zero * sum);
        scale[at] = p->l->out_type[0].dtype == DT_F32 ? s : s / y->scale;
    }
    if (w->loader)
        encode_block(p, w->loader->bits, (size_t)(p->n_k * width), to);
}

/* Bytes of a block of `width` channels with n_k inputs. */
static int block_bytes(
    const struct s8_isa *isa, const struct s8_loader *loader, size_t n_k, int64_t width, size_t *ret) {
    size_t n;

    if (__builtin_mul_overflow(n_k, (size_t)width, &n))
        return -EFBIG;
    if (!loader)
        return __builtin_mul_overflow(n, isa->element, ret) ? -EFBIG : 0;
    *ret = s8_div_up(n, (size_t)isa->unit * S8_GROUP) * (size_t)(isa->unit * loader->bits);
    return 0;
}

static int pack_sizes(const struct s8_isa *isa, const struct s8_shape *sh, struct s8_weights *w,
    size_t *ret_total, struct error *err) {
    size_t n_k = (size_t)sh->n_seg * (size_t)sh->seg_len, last, total, tables, panel;

    w->n_blocks = (sh->oc + isa->block - 1) / isa->block;
    w->padded = w->n_blocks * isa->block;
    if (block_bytes(isa, w->loader, n_k, isa->block, &w->block) < 0 ||
        block_bytes(
            isa, w->loader, n_k, block_channels(isa, sh->oc - (w->n_blocks - 1) * isa->block), &last) < 0 ||
        block_bytes(isa, NULL, n_k + (size_t)isa->step * S8_GROUP, isa->block, &panel) < 0 ||
        __builtin_mul_overflow(w->block, (size_t)(w->n_blocks - 1), &w->group) ||
        __builtin_add_overflow(w->group, last, &w->group) ||
        __builtin_mul_overflow(w->group, (size_t)sh->groups, &total) ||
        __builtin_mul_overflow((size_t)(sh->groups * w->padded), 2 * sizeof(float), &tables) ||
        __builtin_add_overflow(total, (size_t)64 + S8_TABLE, &total) ||
        __builtin_add_overflow(total, tables, ret_total))
        return error_set(err, -EFBIG, "weights are too large");
    w->panel = w->loader ? (panel + 63) / 64 * 64 : 0;
    return 0;
}

/* Weights, bias, scales, table. */
static void set_pointers(const struct s8_shape *sh, const struct pack *p, struct s8_weights *w) {
    size_t weights = (w->group * (size_t)sh->groups + 63) / 64 * 64;
    const uint8_t *data = p->data;

    w->w = data;
    w->bias = (const int32_t *)(const void *)(data + weights);
    w->scale = (const float *)(const void *)(w->bias + sh->groups * w->padded);
    w->table = (const int8_t *)(w->scale + sh->groups * w->padded);
}

/* A fully connected layer's codes are read at the memory's speed, so fewer bits are faster; in a convolution
 * decoding costs a few percent and is worth it where memory counts. */
static const struct s8_loader *choose_loader(const struct packing *p, int bits) {
    if (bits > S8_MAX_LOADER || !(p->l->is_compact || (p->sh->is_matrix && bits <= 4)))
        return NULL;
    return s8_loader_find(p->isa, p->l->cpu, bits);
}

static int packing_init(struct packing *p, struct s8_weights *w, int8_t table[S8_TABLE], struct error *err) {
    const struct s8_shape *sh = p->sh;
    bool is_padded = false;
    size_t panel;
    int r;

    p->n_k = (int64_t)sh->n_seg * sh->seg_len;
    p->input = calloc((size_t)p->n_k, sizeof(*p->input));
    if (!p->input)
        return error_oom(err);
    for (int64_t k = 0; k < p->n_k; k++) {
        p->input[k] = input_of(sh, (int)(k / sh->seg_len), k % sh->seg_len);
        is_padded = is_padded || p->input[k] < 0;
    }
    r = s8_codes_read(p->l->node->weight, sh, &p->codes, err);
    if (r < 0)
        return r;
    w->loader = choose_loader(p, s8_codes_table(&p->codes, p->l->node->weight, is_padded, table, p->place));
    if (!w->loader)
        return 0;
    if (__builtin_mul_overflow((size_t)(p->n_k * p->isa->block), p->isa->element, &panel))
        return error_set(err, -EFBIG, "weights are too large");
    /* channels that do not exist are any code: their sums are not stored */
    p->panel = calloc(panel, 1);
    return p->panel ? 0 : error_oom(err);
}

static int pack_make(const struct layer *l, const struct s8_isa *isa, const struct s8_shape *sh,
    struct s8_weights *w, const char *key, struct pack **ret, struct error *err) {
    _cleanup_(packing_done) struct packing p = {.l = l, .isa = isa, .sh = sh};
    int8_t table[S8_TABLE] = {0};
    size_t total = 0;
    struct pack *pack;
    uint8_t *data;
    int32_t bits;
    int r;

    r = packing_init(&p, w, table, err);
    if (r == 0)
        r = pack_sizes(isa, sh, w, &total, err);
    bits = w->loader ? w->loader->bits : 0;
    if (r == 0)
        r = pack_new(key, &bits, sizeof(bits), total, &pack, err);
    if (r < 0)
        return r;
    set_pointers(sh, pack, w);
    data = pack->data;
    memcpy(data + ((const uint8_t *)w->table - data), table, sizeof(table));
    for (int64_t g = 0; g < sh->groups; g++)
        for (int64_t b = 0; b < w->n_blocks; b++)
            pack_block(&p, w, g, b, data + (size_t)g * w->group + (size_t)b * w->block,
                (int32_t *)(void *)(data + ((const uint8_t *)w->bias - data)),
                (float *)(void *)(data + ((const uint8_t *)w->scale - data)));
    *ret = pack;
    return 0;
}

int s8_pack(const struct layer *l, struct pack_cache *packs, const struct s8_isa *isa,
    const struct s8_shape *sh, struct s8_weights *ret, struct error *err) {
    struct s8_weights w = {0};
    const struct pack *found;
    struct pack *p = NULL;
    char key[512];
    int32_t bits;
    size_t total;
    int r;

    snprintf(key, sizeof(key), "s8/%s/%d/%.400s", isa->name, sh->n_seg, l->node->id);
    found = pack_find(packs, key);
    if (!found) {
        r = pack_make(l, isa, sh, &w, key, &p, err);
        if (r < 0)
            return r;
        found = pack_publish(packs, p);
    }
    memcpy(&bits, found->meta, sizeof(bits));
    w.loader = bits ? s8_loader_find(isa, l->cpu, bits) : NULL;
    r = pack_sizes(isa, sh, &w, &total, err);
    if (r < 0)
        return r;
    set_pointers(sh, found, &w);
    *ret = w;
    return 0;
}
