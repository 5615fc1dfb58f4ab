/* Flip, rotate, scale and crop: one mapping from places of the result to places of the picture. */
#include <math.h>
#include <string.h>

#include "compress/augment.h"

/* By whole pixels: rows are copied, or read backwards. */
static void copy_whole(const struct picture *from, const struct augment_place *place, uint8_t *ret) {
    int w = from->width, h = from->height, n = from->channels;
    /* columns first .. end-1 of the result lie in the picture */
    int first = place->right < 0 ? -place->right : 0, end = place->right > 0 ? w - place->right : w;
    size_t row = (size_t)w * (size_t)n;

    first = first < w ? first : w;
    end = end > first ? end : first;
    memset(ret, 0, row * (size_t)h);
    for (int y = 0; y < h; y++) {
        int source = y + place->down;
        uint8_t *to = ret + (size_t)y * row + (size_t)first * (size_t)n;
        const uint8_t *s;

        if (source < 0 || source >= h)
            continue;
        s = from->pixels + (size_t)source * row;
        if (!place->is_flipped) {
            memcpy(to, s + (size_t)(first + place->right) * (size_t)n, (size_t)(end - first) * (size_t)n);
            continue;
        }
        for (int x = first; x < end; x++, to += n)
            memcpy(to, s + (size_t)(w - 1 - x - place->right) * (size_t)n, (size_t)n);
    }
}

static int clamp(int v, int size) {
    return v < 0 ? 0 : v >= size ? size - 1 : v;
}

/* The picture at (x, y), pixel centres at halves. */
static void sample(const struct picture *p, double x, double y, uint8_t *ret) {
    int x0, y0, n = p->channels;
    const uint8_t *top, *bottom;
    float dx, dy;
    size_t left, right, row = (size_t)p->width * (size_t)n;

    x -= 0.5;
    y -= 0.5;
    x0 = (int)floor(x);
    y0 = (int)floor(y);
    dx = (float)(x - x0);
    dy = (float)(y - y0);
    left = (size_t)clamp(x0, p->width) * (size_t)n;
    right = (size_t)clamp(x0 + 1, p->width) * (size_t)n;
    top = p->pixels + (size_t)clamp(y0, p->height) * row;
    bottom = p->pixels + (size_t)clamp(y0 + 1, p->height) * row;
    for (int c = 0; c < n; c++) {
        float a = (float)top[left + (size_t)c], b = (float)top[right + (size_t)c];
        float d = (float)bottom[left + (size_t)c], e = (float)bottom[right + (size_t)c];
        float above = a + (b - a) * dx, below = d + (e - d) * dx;

        ret[c] = (uint8_t)(above + (below - above) * dy + 0.5F);
    }
}

static void sample_all(const struct picture *from, const struct augment_place *place, uint8_t *ret) {
    double w = from->width, h = from->height, turn = place->angle * M_PI / 180;
    double cosine = cos(turn) / place->factor, sine = sin(turn) / place->factor;
    size_t n = (size_t)from->channels;

    for (int y = 0; y < from->height; y++)
        for (int x = 0; x < from->width; x++, ret += n) {
            /* from the middle; y points down, so that a turn against the clock is this one */
            double u = x + 0.5 + place->right - w / 2, v = y + 0.5 + place->down - h / 2;
            double at_x = cosine * u - sine * v + w / 2, at_y = sine * u + cosine * v + h / 2;

            if (place->is_flipped)
                at_x = w - at_x;
            if (at_x >= 0 && at_x < w && at_y >= 0 && at_y < h)
                sample(from, at_x, at_y, ret);
            else
                memset(ret, 0, n);
        }
}

void augment_move(const struct picture *from, const struct augment_place *place, uint8_t *ret) {
    if (place->angle == 0 && place->factor == 1)
        copy_whole(from, place, ret);
    else
        sample_all(from, place, ret);
}
