/* Colours and cutout. Colours are Pillow's ImageEnhance: a step away from a dull copy of the picture, in
 * float, rounded down and clipped (Blend.c); the dull copy is black, the mean grey, the picture in grey. */
#include <string.h>

#include "compress/augment.h"

static uint8_t blend(int dull, int value, float factor) {
    float v = (float)dull + factor * (float)(value - dull);

    return v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)v;
}

static uint8_t luma(const uint8_t *rgb) {
    uint8_t grey;

    picture_luma(rgb, 1, &grey);
    return grey;
}

/* Rounded to the nearest. */
static int mean_luma(const struct picture *p) {
    size_t n = (size_t)p->width * (size_t)p->height;
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += p->channels == 3 ? luma(p->pixels + 3 * i) : p->pixels[i];
    return (int)((double)sum / (double)n + 0.5);
}

/* Values by a table: what brightness and contrast do to each is the same everywhere. */
static void map_values(struct picture *p, int dull, double factor) {
    size_t n = picture_bytes(p);
    uint8_t table[256];

    for (int v = 0; v < 256; v++)
        table[v] = blend(dull, v, (float)factor);
    for (size_t i = 0; i < n; i++)
        p->pixels[i] = table[p->pixels[i]];
}

static void saturate(struct picture *p, double factor) {
    size_t n = (size_t)p->width * (size_t)p->height;

    for (size_t i = 0; p->channels == 3 && i < n; i++) {
        uint8_t *rgb = p->pixels + 3 * i, grey = luma(rgb);

        for (int c = 0; c < 3; c++)
            rgb[c] = blend(grey, rgb[c], (float)factor);
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
