#include "engine/kernel/xnor_pack.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/binarize.h"
#include "engine/kernel/s8.h"
#include "engine/kernel/weights.h"
#include "engine/kernel/xnor_tile.h"

/* ---- what becomes of a sum ---- */

static const struct post *binarize_post(const struct layer *l) {
    const struct node *n = l->node;

    return n->n_post && n->post[n->n_post - 1].op == &op_binarize ? &n->post[n->n_post - 1] : NULL;
}

static bool add_clamp(const struct post *p, float *low, float *high) {
    float l, h;

    if (!s8_clamp_bounds(p, &l, &h))
        return false;
    *low = xnor_clamp(*low, l, h);
    *high = xnor_clamp(*high, l, h);
    return true;
}

static bool is_residual(const struct layer *l, int i) {
    const struct post *p = &l->node->post[i];

    return p->other >= 0 && strcmp(p->op->name, "Add") == 0 && !l->post_in[i].data &&
           l->post_type[i].dtype == DT_F32 && shape_equal(&l->post_in[i].shape, &l->out[0].shape);
}

bool xnor_output_read(const struct layer *l, struct xnor_output *ret, int *ret_residual) {
    struct xnor_output o = {.low = -INFINITY, .high = INFINITY, .low2 = -INFINITY, .high2 = INFINITY};
    int residual = -1;

    o.is_bits = binarize_post(l) != NULL;
    for (int i = 0; i < l->node->n_post - o.is_bits; i++) {
        if (residual < 0 && is_residual(l, i))
            residual = i;
        else if (residual < 0 ? !add_clamp(&l->node->post[i], &o.low, &o.high)
                              : !add_clamp(&l->node->post[i], &o.low2, &o.high2))
            return false;
    }
    o.has_residual = residual >= 0;
    if (o.is_bits && o.has_residual)
        return false;
    *ret = o;
    *ret_residual = residual;
    return true;
}

/* ---- packing ---- */

/* Where things are in a pack: behind the words two tables, scale and bias or limit and flip. */
struct places {
    size_t scale, bias, limit, flip, size;
};

static bool find_places(const struct xnor_shape *sh, int64_t n_blocks, struct places *ret) {
    size_t table = (size_t)n_blocks * XNOR_BLOCK * sizeof(float), w;

    if (__builtin_mul_overflow(
            (size_t)n_blocks * XNOR_BLOCK * sizeof(uint64_t), (size_t)sh->taps * (size_t)sh->words, &w))
        return false;
    ret->scale = ret->limit = w;
    ret->bias = ret->flip = w + table;
    ret->size = w + 2 * table;
    return ret->size < SIZE_MAX / 2;
}

static uint64_t word_of(const struct xnor_shape *sh, const float *w, int64_t oc, int64_t tap, int64_t word) {
    int64_t first = 64 * word, n = sh->ic - first < 64 ? sh->ic - first : 64;
    uint64_t bits = 0;

    for (int64_t i = 0; i < n; i++) {
        int64_t ci = first + i, at = sh->is_kn ? ci * sh->oc + oc : (oc * sh->ic + ci) * sh->taps + tap;

        bits |= (uint64_t)(w[at] > 0) << i;
    }
    return bits;
}

static void pack_channel(const struct xnor_shape *sh, const float *w, int64_t oc, uint64_t *to) {
    for (int64_t tap = 0; tap < sh->taps; tap++)
        for (int64_t k = 0; k < sh->words; k++, to += XNOR_BLOCK)
            *to = word_of(sh, w, oc, tap, k);
}

static float bias_of(const struct layer *l, int64_t oc) {
    int64_t n = 0;
    float v = 0;

    if (l->n_in < 3 || !l->in[2] || !shape_count(&l->in[2]->shape, &n))
        return 0;
    memcpy(&v, (const char *)l->in[2]->data + (n > 1 ? (size_t)oc * sizeof(v) : 0), sizeof(v));
    return v;
}

/* Is the sum's channel +1? In the very order of roundings that xnor_store has. */
static bool is_one(const struct binarize_param *p, const struct xnor_output *o, int64_t oc, float scale,
    float bias, int64_t sum) {
    return binarize_at(p, oc, xnor_clamp((float)sum * scale + bias, o->low, o->high));
}

/* All of this is monotone in the sum, so a limit on the sum says the same. */
static void find_limit(const struct binarize_param *p, const struct xnor_output *o, int64_t oc, float scale,
    float bias, int64_t k, int32_t *ret_limit, int32_t *ret_flip) {
    bool low = is_one(p, o, oc, scale, bias, -k), high = is_one(p, o, oc, scale, bias, k);
    int64_t sign = low ? -1 : 1, no = -k, yes = k;

    *ret_flip = 0;
    *ret_limit = low ? INT32_MIN : INT32_MAX;
    if (low == high)
        return;
    while (yes - no > 1) {
        int64_t mid = no + (yes - no) / 2;

        if (is_one(p, o, oc, scale, bias, sign * mid))
            yes = mid;
        else
            no = mid;
    }
    *ret_flip = sign < 0 ? -1 : 0;
    *ret_limit = (int32_t)yes;
}

static void fill_tables(const struct layer *l, const struct xnor_shape *sh, const struct xnor_output *o,
    struct pack *p, const struct places *at) {
    char *data = p->data;
    const struct post *binarize = binarize_post(l);
    float *scale = (float *)(void *)(data + at->scale), *bias = (float *)(void *)(data + at->bias);
    int32_t *limit = (int32_t *)(void *)(data + at->limit), *flip = (int32_t *)(void *)(data + at->flip);

    for (int64_t oc = 0; oc < sh->oc; oc++) {
        float s = l->node->sign_scale[oc], b = bias_of(l, oc);

        if (binarize) {
            find_limit(binarize->param, o, oc, s, b, sh->ic * sh->taps, limit + oc, flip + oc);
            continue;
        }
        scale[oc] = s;
        bias[oc] = b;
    }
}

static int make_pack(const struct layer *l, const char *key, const struct xnor_shape *sh,
    const struct xnor_output *o, const struct places *at, struct pack **ret, struct error *err) {
    _cleanup_(freep) float *copy = NULL;
    const float *w = kernel_plain_weights(l);
    int64_t count = sh->oc * sh->ic * sh->taps, block = sh->taps * sh->words * XNOR_BLOCK;
    struct pack *p = NULL;
    int r = 0;

    if (!w || (uintptr_t)w % sizeof(float)) {
        copy = calloc((size_t)count + 1, sizeof(*copy));
        if (!copy)
            return error_oom(err);
        r = kernel_copy_weights(l, copy, err);
        w = copy;
    }
    if (r == 0)
        r = pack_new(key, NULL, 0, at->size, &p, err);
    if (r < 0)
        return r;
    for (int64_t oc = 0; oc < sh->oc; oc++)
        pack_channel(sh, w, oc, (uint64_t *)p->data + oc / XNOR_BLOCK * block + xnor_lane(oc));
    fill_tables(l, sh, o, p, at);
    *ret = p;
    return 0;
}

int xnor_pack(const struct layer *l, struct pack_cache *packs, const struct xnor_shape *sh,
    struct xnor_output *out, struct xnor_weights *ret, struct error *err) {
    int64_t n_blocks = (sh->oc + XNOR_BLOCK - 1) / XNOR_BLOCK;
    const struct pack *found;
    const char *data;
    char key[PACK_KEY_MAX];
    struct places at;

    if (!find_places(sh, n_blocks, &at))
        return error_set(err, -EFBIG, "its weights are too large");
    kernel_pack_key(key, "xnor", l, out->is_bits ? "bits" : "floats");
    found = pack_find(packs, key);
    if (!found) {
        struct pack *p = NULL;
        int r = make_pack(l, key, sh, out, &at, &p, err);

        if (r < 0)
            return r;
        found = pack_publish(packs, p);
    }
    data = found->data;
    out->scale = (const float *)(const void *)(data + at.scale);
    out->bias = (const float *)(const void *)(data + at.bias);
    out->limit = (const int32_t *)(const void *)(data + at.limit);
    out->flip = (const int32_t *)(const void *)(data + at.flip);
    *ret = (struct xnor_weights){
        .w = found->data, .n_blocks = n_blocks, .block = sh->taps * sh->words * XNOR_BLOCK};
    return 0;
}
