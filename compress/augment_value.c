/* Colours and cutout. Colours are Pillow's ImageEnhance: a step away from a dull copy of the picture, in
 * float, rounded down and clipped (Blend.c); the dull copy is black, the mean grey, the picture in grey. */
#include <string.h>

#include "compress/augment.h"

/* `step`: factor times the difference from the dull value. */
static uint8_t blend(int dull, float step) {
    int v = (int)((float)dull + step);

    return v < 0 ? 0 : v > 255 ? 255 : (uint8_t)v;
}

/* As picture_luma(), where it can be inlined. */
static int luma(const uint8_t *rgb) {
    return (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16;
}

/* Rounded to the nearest. */
static int mean_luma(const struct picture *p) {
    size_t n = (size_t)p->width * (size_t)p->height;
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += p->channels == 3 ? (uint64_t)luma(p->pixels + 3 * i) : p->pixels[i];
    return (int)((double)sum / (double)n + 0.5);
}

/* Values by a table: what brightness and contrast do to each is the same everywhere. */
static void map_values(struct picture *p, int dull, double factor) {
    size_t n = picture_bytes(p);
    uint8_t table[256];

    for (int v = 0; v < 256; v++)
        table[v] = blend(dull, (float)factor * (float)(v - dull));
    for (size_t i = 0; i < n; i++)
        p->pixels[i] = table[p->pixels[i]];
}

static void saturate(struct picture *p, double factor) {
    size_t n = (size_t)p->width * (size_t)p->height;
    float step[511];

    for (int d = -255; d <= 255; d++)
        step[d + 255] = (float)factor * (float)d;
    for (size_t i = 0; p->channels == 3 && i < n; i++) {
        uint8_t *rgb = p->pixels + 3 * i;
        int grey = luma(rgb);

        for (int c = 0; c < 3; c++)
            rgb[c] = blend(grey, step[rgb[c] - grey + 255]);
    }
}

void augment_recolor(struct picture *p, const struct augment_color *color) {
    if (color->brightness != 1)
        map_values(p, 0, color->brightness);
    if (color->contrast != 1)
        map_values(p, mean_luma(p), color->contrast);
    if (color->saturation != 1)
        saturate(p, color->saturation);
}

void augment_cut(struct picture *p, int x, int y, int side, const uint8_t fill[static 3]) {
    int left = x - side / 2, top = y - side / 2, right = left + side, bottom = top + side;

    left = left > 0 ? left : 0;
    top = top > 0 ? top : 0;
    right = right < p->width ? right : p->width;
    bottom = bottom < p->height ? bottom : p->height;
    for (int row = top; row < bottom; row++)
        for (int column = left; column < right; column++)
            memcpy(p->pixels + ((size_t)row * (size_t)p->width + (size_t)column) * (size_t)p->channels, fill,
                (size_t)p->channels);
}
