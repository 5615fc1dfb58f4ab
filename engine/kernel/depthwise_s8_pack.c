/* Filters of a depthwise convolution for the plain loop: s16 [tap][channel], then bias, then scale. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/depthwise_s8.h"
#include "engine/kernel/s8_codes.h"
#include "engine/pack.h"

static void fill(
    const struct layer *l, const struct depthwise *d, const struct s8_codes *codes, uint8_t *data) {
    const struct conv_geometry *g = &d->g;
    int64_t taps = g->kh * g->kw;
    int16_t *w = (int16_t *)(void *)data;
    int32_t *bias = (int32_t *)(void *)(w + (taps * g->c + 1) / 2 * 2);
    float *scale = (float *)(void *)(bias + g->c);

    for (int64_t c = 0; c < g->c; c++) {
        float s = l->in_type[0].quant.scale * s8_channel_scale(l->node->weight, c);

        for (int64_t t = 0; t < taps; t++)
            w[t * g->c + c] = s8_codes_at(codes, c, t);
        bias[c] = s8_bias(l, c, s);
        scale[c] = s / l->out_type[0].quant.scale;
    }
}

int depthwise_pack(const struct layer *l, struct pack_cache *packs, struct depthwise *d, struct error *err) {
    int64_t taps = d->g.kh * d->g.kw;
    size_t weights = (size_t)((taps * d->g.c + 1) / 2 * 2) * sizeof(int16_t);
    size_t size = weights + (size_t)d->g.c * (sizeof(int32_t) + sizeof(float));
    const struct pack *found;
    struct conv_geometry g;
    struct s8_shape sh;
    struct pack *p;
    char key[512];
    const uint8_t *data;

    (void)depthwise_shape(l, &g, &sh);
    snprintf(key, sizeof(key), "depthwise_s8/%.400s", l->node->id);
    found = pack_find(packs, key);
    if (!found) {
        struct s8_codes codes = {0};
        int r = s8_codes_read(l->node->weight, &sh, &codes, err);

        if (r == 0)
            r = pack_new(key, NULL, 0, size, &p, err);
        if (r == 0)
            fill(l, d, &codes, p->data);
        free(codes.code);
        if (r < 0)
            return r;
        found = pack_publish(packs, p);
    }
    data = found->data;
    d->w = data;
    d->bias = (const int32_t *)(const void *)(data + weights);
    d->scale = (const float *)(const void *)(d->bias + d->g.c);
    return 0;
}
