/* seen = keep ? w : 0. */
#include <errno.h>

#include "engine/train/transform_rows.h"

static int mask_prepare(
    const struct transform_site *site, const void *param, struct transform_needs *ret, struct error *err) {
    const struct transform_mask *p = param;

    (void)ret;
    return p->keep ? 0 : error_set(err, -EINVAL, "parameter '%s': the mask is missing", site->name);
}

static void mask_part(
    const struct transform_site *s, unsigned part, const uint8_t *keep, const float *x, float *y) {
    for (int64_t o = 0; o < s->outer; o++) {
        int64_t first = transform_at(s, o, transform_first_channel(s, part)),
                end = transform_at(s, o, transform_first_channel(s, part + 1));

        for (int64_t i = first; i < end; i++)
            y[i] = keep[i] ? x[i] : 0;
    }
}

static void mask_forward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_mask *p = io->param;

    (void)phase;
    mask_part(io->site, part, p->keep, io->x, io->y);
}

static void mask_backward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_mask *p = io->param;

    (void)phase;
    if (io->dx && !p->is_dense)
        mask_part(io->site, part, p->keep, io->dy, io->dx);
    else if (io->dx)
        transform_copy_part(io->site, part, io->dy, io->dx);
}

const struct transform transform_mask_row = {
    .name = "mask",
    .n_forward = 1,
    .n_backward = 1,
    .prepare = mask_prepare,
    .forward = mask_forward,
    .backward = mask_backward,
};
