/* The same products in plain C: the meaning, and the path of processors without AVX2. */
#include <string.h>

#include "engine/kernel/s8.h"

#define BLOCK 16

static void pixel_run(const struct s8_job *j, const uint8_t *a, uint8_t *y, const uint8_t *w, int64_t oc) {
    int64_t n = j->n_channels - oc < BLOCK ? j->n_channels - oc : BLOCK;
    int32_t sum[BLOCK];

    memcpy(sum, j->bias + oc, sizeof(sum));
    for (int s = 0; s < j->n_seg; s++) {
        const uint8_t *x = a + j->seg[s];

        for (int k = 0; k < j->seg_len; k += 2, x += 4, w += 64) {
            int16_t xs[2], ws[2 * BLOCK];

            memcpy(xs, x, sizeof(xs));
            memcpy(ws, w, sizeof(ws));
            for (int c = 0; c < BLOCK; c++)
                sum[c] += xs[0] * ws[2 * c] + xs[1] * ws[2 * c + 1];
        }
    }
    for (int64_t c = 0; c < n; c++) {
        float v = (float)sum[c] * j->scale[oc + c];

        if (j->out.is_float) {
            v = s8_clamp(v, &j->out);
            memcpy(y + 4 * c, &v, sizeof(v));
        } else {
            y[c] = s8_encode(v, &j->out);
        }
    }
}

static void plain_run(const struct s8_job *j) {
    size_t n_units = (size_t)(j->n_seg * (int64_t)j->seg_len / 2);

    for (int64_t b = j->block0; b < j->block1; b++) {
        const uint8_t *w = s8_block(j, b, n_units);
        int64_t oc = b * BLOCK;

        for (int64_t r = 0; r < j->n_rows; r++)
            for (int64_t p = 0; p < j->n_pixels; p++)
                pixel_run(j, j->a + r * j->a_row + p * j->a_pixel,
                    j->y + r * j->y_row + p * j->y_pixel + oc * (j->out.is_float ? 4 : 1), w, oc);
    }
}

static bool plain_has(const struct cpu *cpu) {
    (void)cpu;
    return true;
}

const struct s8_isa s8_isa_plain = {
    .name = "plain",
    .element = 2,
    .step = 2,
    .block = BLOCK,
    .unit = 32,
    .loaders = s8_loaders_plain,
    .has = plain_has,
    .run = plain_run,
};
