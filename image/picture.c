#include "image/picture.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

int picture_init(struct picture *p, int width, int height, int channels, struct error *err) {
    size_t bytes;

    if (width < 1 || height < 1 || __builtin_mul_overflow((size_t)width, (size_t)height, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)channels, &bytes) || bytes > SSIZE_MAX)
        return error_set(err, -EFBIG, "a picture of %d x %d pixels cannot be held", width, height);
    *p = (struct picture){malloc(bytes), width, height, channels};
    return p->pixels ? 0 : error_oom(err);
}

void picture_done(struct picture *p) {
    free(p->pixels);
    *p = (struct picture){0};
}

void picture_luma(const uint8_t *rgb, size_t n, uint8_t *ret) {
    for (size_t i = 0; i < n; i++, rgb += 3)
        ret[i] = (uint8_t)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

int picture_set_channels(struct picture *p, int channels, struct error *err) {
    size_t n = (size_t)p->width * (size_t)p->height;
    struct picture q;
    int r;

    if (p->channels == channels)
        return 0;
    r = picture_init(&q, p->width, p->height, channels, err);
    if (r < 0)
        return r;
    if (channels == 1)
        picture_luma(p->pixels, n, q.pixels);
    else
        for (size_t i = 0; i < n; i++)
            memset(q.pixels + 3 * i, p->pixels[i], 3);
    picture_done(p);
    *p = q;
    return 0;
}

/* How orientation o is undone: rows and columns swapped first, then mirrored (EXIF 2.3, table 6). */
static const struct turn {
    bool is_swapped, is_flipped_x, is_flipped_y;
} turns[9] = {
    [2] = {false, true, false},
    [3] = {false, true, true},
    [4] = {false, false, true},
    [5] = {true, false, false},
    [6] = {true, true, false},
    [7] = {true, true, true},
    [8] = {true, false, true},
};

int picture_orient(struct picture *p, int orientation, struct error *err) {
    const struct turn *t;
    struct picture q;
    size_t c = (size_t)p->channels;
    int r;

    if (orientation < 2 || orientation > 8)
        return 0;
    t = &turns[orientation];
    r = t->is_swapped ? picture_init(&q, p->height, p->width, p->channels, err)
                      : picture_init(&q, p->width, p->height, p->channels, err);
    if (r < 0)
        return r;
    for (int y = 0; y < q.height; y++)
        for (int x = 0; x < q.width; x++) {
            size_t v = (size_t)(t->is_flipped_y ? q.height - 1 - y : y);
            size_t u = (size_t)(t->is_flipped_x ? q.width - 1 - x : x);
            size_t from = t->is_swapped ? u * (size_t)p->width + v : v * (size_t)p->width + u;

            memcpy(q.pixels + ((size_t)y * (size_t)q.width + (size_t)x) * c, p->pixels + from * c, c);
        }
    picture_done(p);
    *p = q;
    return 0;
}
