/* Between decode.c and the two formats. */
#ifndef IMAGE_DECODE_FORMAT_H
#define IMAGE_DECODE_FORMAT_H

#include "image/decode.h"

/* The limits of `o` are filled in; `ret` NULL: the header only. Turning is left to the caller. */
int decode_jpeg(const void *data, size_t size, const struct decode_options *o, struct picture *ret,
    struct decode_info *ret_info, struct error *err);
int decode_png(const void *data, size_t size, const struct decode_options *o, struct picture *ret,
    struct decode_info *ret_info, struct error *err);

/* 0, or too_large. */
int decode_check_pixels(int64_t width, int64_t height, const struct decode_options *o, struct error *err);

#endif
