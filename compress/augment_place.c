/* Flip, rotate, scale and crop: one mapping from places of the result to places of the picture. */
#include <math.h>
#include <string.h>

#include "compress/augment.h"

/* n pixels from `s` on, backwards to `to`. */
static void copy_backwards(const uint8_t *s, int n, int channels, uint8_t *to) {
    if (channels == 1)
        for (int i = 0; i < n; i++)
            to[i] = s[-i];
    else
        for (int i = 0; i < 3 * n; i += 3) {
            to[i] = s[-i];
            to[i + 1] = s[1 - i];
            to[i + 2] = s[2 - i];
        }
}

/* By whole pixels: rows are copied, or read backwards. */
static void copy_whole(const struct picture *from, const struct augment_place *place, uint8_t *ret) {
    int w = from->width, h = from->height, n = from->channels;
    /* columns first .. end-1 of the result lie in the picture */
    int first = place->right < 0 ? -place->right : 0, end = place->right > 0 ? w - place->right : w;
    size_t row = (size_t)w * (size_t)n;

    memset(ret, 0, row * (size_t)h);
    if (first >= end)
        return;
    for (int y = 0; y < h; y++) {
        int row_from = y + place->down, column = first + place->right;
        uint8_t *to = ret + (size_t)y * row + (size_t)first * (size_t)n;
        const uint8_t *s;

        if (row_from < 0 || row_from >= h)
            continue;
        s = from->pixels + (size_t)row_from * row;
        if (place->is_flipped)
            copy_backwards(s + (size_t)(w - 1 - column) * (size_t)n, end - first, n, to);
        else
            memcpy(to, s + (size_t)column * (size_t)n, (size_t)(end - first) * (size_t)n);
    }
}

/* Places are whole numbers of 2^-32 pixels, weights of 2^-11. */
#define ONE  ((int64_t)1 << 32)
#define BITS 11

static size_t clamp(int64_t v, int size) {
    return v < 0 ? 0 : v >= size ? (size_t)size - 1 : (size_t)v;
}

/* The picture at (x, y), pixel centres at halves: the mean of the four around, by nearness. */
static inline void sample(const struct picture *p, size_t n, int64_t x, int64_t y, uint8_t *ret) {
    int64_t x0 = (x - ONE / 2) >> 32, y0 = (y - ONE / 2) >> 32;
    uint32_t dx = (uint32_t)(x - ONE / 2) >> (32 - BITS), dy = (uint32_t)(y - ONE / 2) >> (32 - BITS);
    size_t left = clamp(x0, p->width) * n, right = clamp(x0 + 1, p->width) * n, row = (size_t)p->width * n;
    const uint8_t *top = p->pixels + clamp(y0, p->height) * row;
    const uint8_t *bottom = p->pixels + clamp(y0 + 1, p->height) * row;

    for (size_t c = 0; c < n; c++) {
        uint32_t above = top[left + c] * ((1u << BITS) - dx) + top[right + c] * dx;
        uint32_t below = bottom[left + c] * ((1u << BITS) - dx) + bottom[right + c] * dx;

        ret[c] = (uint8_t)((above * ((1u << BITS) - dy) + below * dy + (1u << (2 * BITS - 1))) >> (2 * BITS));
    }
}

/* (x, y) of the result comes from x * a + y * b + c of the picture, in both directions. */
struct mapping {
    double a[2], b[2], c[2];
};

/* y points down, so that a turn against the clock is this one. */
static struct mapping mapping_of(const struct picture *from, const struct augment_place *place) {
    double middle[2] = {from->width / 2.0, from->height / 2.0}, turn = place->angle * M_PI / 180;
    double cosine = cos(turn) / place->factor, sine = sin(turn) / place->factor;
    struct mapping m = {.a = {cosine, sine}, .b = {-sine, cosine}};

    for (int k = 0; k < 2; k++)
        m.c[k] = m.a[k] * (place->right - middle[0]) + m.b[k] * (place->down - middle[1]) + middle[k];
    if (place->is_flipped) {
        m.a[0] = -m.a[0];
        m.b[0] = -m.b[0];
        m.c[0] = from->width - m.c[0];
    }
    return m;
}

static int64_t whole(double v) {
    return (int64_t)llrint(v * (double)ONE);
}

/* `n`: the channels, known where it is called. */
static inline void sample_all(const struct picture *from, const struct mapping *m, size_t n, uint8_t *ret) {
    uint64_t w = (uint64_t)from->width << 32, h = (uint64_t)from->height << 32;
    int64_t step_x = whole(m->a[0]), step_y = whole(m->a[1]);

    for (int row = 0; row < from->height; row++) {
        int64_t x = whole(0.5 * m->a[0] + (row + 0.5) * m->b[0] + m->c[0]);
        int64_t y = whole(0.5 * m->a[1] + (row + 0.5) * m->b[1] + m->c[1]);

        for (int i = 0; i < from->width; i++, ret += n, x += step_x, y += step_y) {
            if ((uint64_t)x < w && (uint64_t)y < h)
                sample(from, n, x, y, ret);
            else
                memset(ret, 0, n);
        }
    }
}

void augment_move(const struct picture *from, const struct augment_place *place, uint8_t *ret) {
    struct mapping m = mapping_of(from, place);

    if (place->angle == 0 && place->factor == 1)
        copy_whole(from, place, ret);
    else if (from->channels == 1)
        sample_all(from, &m, 1, ret);
    else
        sample_all(from, &m, 3, ret);
}
