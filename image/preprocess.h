/* How a picture becomes a network's input: the model's `preprocess` (api.md, section 2).
 *   pixels 0…255 → gray or coloured → resized → centre crop → (pixel * scale - mean) / std → planes or
 * interleaved The size of the result is fixed; a batch is such results one after the other. */
#ifndef IMAGE_PREPROCESS_H
#define IMAGE_PREPROCESS_H

#include <jansson.h>

#include "image/decode.h"
#include "image/resize.h"

#define PREPROCESS_MAX_SIDE 16384

enum preprocess_layout { PREPROCESS_NCHW, PREPROCESS_NHWC };
enum preprocess_color { PREPROCESS_RGB, PREPROCESS_BGR, PREPROCESS_GRAY };

struct preprocess {
    enum preprocess_layout layout;
    enum preprocess_color color;
    enum resize_mode mode;
    int height, width;           /* stretched to; 0: `shorter` stands instead */
    int shorter;                 /* the shorter side becomes this, the other int(long * shorter / short) */
    int crop_height, crop_width; /* about the centre; 0: none. What lies outside of the picture is black */
    double scale, mean[3], std[3];
    bool is_exif_ignored;
    bool is_default; /* nothing was set: derived from the shape */
};

/* `j` (NULL or null: nothing set) over what the input's shape gives: dim[0..rank-1], -1: free. Errors:
 * unknown_field, bad_request (with the JSON path), preprocess_required (free height or width and no size),
 * shape_mismatch (the input takes no picture, or not of this size or colour). */
int preprocess_from_json(
    const json_t *j, const int64_t *dim, int rank, struct preprocess *ret, struct error *err);

/* Every key, and "source":"default" when nothing was set. NULL: out of memory. */
json_t *preprocess_to_json(const struct preprocess *p);

int preprocess_channels(const struct preprocess *p); /* 1 or 3 */

/* The result's shape, first dimension 1; returns its number of elements. */
size_t preprocess_shape(const struct preprocess *p, int64_t dim[static 4]);

/* Any picture, to preprocess_shape() floats. */
int preprocess_picture(
    const struct preprocess *p, const struct picture *picture, float *ret, struct error *err);

/* JPEG or PNG bytes. `limits` may be NULL; its channels and turning are set by the preprocess. */
int preprocess_encoded(const struct preprocess *p, const void *data, size_t size,
    const struct decode_options *limits, float *ret, struct error *err);

/* The same in two steps, of which the first can be done once and kept. First to bytes: preprocess_shape()
 * many, [height][width][channels], red green blue whatever the model's order. */
int preprocess_pixels(
    const struct preprocess *p, const struct picture *picture, uint8_t *ret, struct error *err);
int preprocess_pixels_encoded(const struct preprocess *p, const void *data, size_t size,
    const struct decode_options *limits, uint8_t *ret, struct error *err);
/* Is the picture what preprocess_pixels() would make of it? */
bool preprocess_is_ready(const struct preprocess *p, const struct picture *picture);

/* [height][width][channels] of those bytes. */
void preprocess_size(const struct preprocess *p, int *ret_height, int *ret_width, int *ret_channels);
/* The bytes that come nearest to 0 as floats: the colour of the means. */
void preprocess_zero(const struct preprocess *p, uint8_t ret[static 3]);

/* Then to floats, through a table made once. */
struct preprocess_table {
    float value[3][256]; /* [c][v] = (v * scale - mean[c]) / std[c], c of the result */
};
void preprocess_table(const struct preprocess *p, struct preprocess_table *ret);
void preprocess_normalize(
    const struct preprocess *p, const struct preprocess_table *t, const uint8_t *pixels, float *ret);

/* Red, green, blue (or gray) bytes of one picture in the preprocess's own layout: [3][height][width] for
 * NCHW, [height][width][3] for NHWC. */
int preprocess_array(
    const struct preprocess *p, const uint8_t *data, int height, int width, float *ret, struct error *err);

#endif
