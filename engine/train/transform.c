#include "engine/train/transform.h"

#include <math.h>
#include <string.h>

#include "engine/train/transform_rows.h"

const struct transform *transform_find(const char *name) {
    static const struct transform *const rows[] = {
        &transform_codebook_row,
        &transform_fake_quantize_row,
        &transform_low_rank_row,
        &transform_mask_row,
        &transform_scale_row,
        &transform_sign_row,
        &transform_ternary_row,
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i]->name, name) == 0)
            return rows[i];
    return NULL;
}

const struct activation *activation_find(const char *name) {
    static const struct activation *const rows[] = {
        &activation_clip_quantize_row,
        &activation_lsq_row,
        &activation_pact_row,
        &activation_sign_row,
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i]->name, name) == 0)
            return rows[i];
    return NULL;
}

float transform_sign_slope(enum transform_gradient g, float x) {
    const double b = 5;
    double at = b * (double)x;

    switch (g) {
    case TRANSFORM_BIREAL: return fabsf(x) <= 1 ? 2 - 2 * fabsf(x) : 0;
    case TRANSFORM_SWISH: return (float)(b * (2 - at * tanh(at / 2)) / (1 + cosh(at)));
    case TRANSFORM_STE:
    default: return fabsf(x) <= 1 ? 1 : 0;
    }
}

void transform_copy_part(const struct transform_site *s, unsigned part, const float *x, float *y) {
    for (int64_t o = 0; o < s->outer && x != y; o++) {
        int64_t first = transform_at(s, o, transform_first_channel(s, part)),
                end = transform_at(s, o, transform_first_channel(s, part + 1));

        memcpy(y + first, x + first, (size_t)(end - first) * sizeof(*y));
    }
}

double transform_sum(const double *x, int64_t n) {
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}
