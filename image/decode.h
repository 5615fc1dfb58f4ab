/* JPEG and PNG to pixels: what Pillow's Image.open(…).convert("RGB") or ("L") gives, byte for byte
 * (libjpeg-turbo with its accurate DCT and smooth upsampling; 16-bit RGB by its high bytes, 16-bit gray
 * clipped at 255 as Pillow does; transparency dropped; CMYK taken as Adobe's inverted one). A file that ends
 * early is an error, damage that the libraries only warn of is not. */
#ifndef IMAGE_DECODE_H
#define IMAGE_DECODE_H

#include "image/picture.h"

enum decode_kind { DECODE_NONE, DECODE_JPEG, DECODE_PNG };

/* By the first bytes alone. */
enum decode_kind decode_kind(const void *data, size_t size);

#define DECODE_MAX_PIXELS 50000000
#define DECODE_MAX_SCANS  100

struct decode_options {
    int channels;       /* of the result, 1 or 3; 0: as the file has it (palette and CMYK: 3) */
    bool is_turned;     /* by the EXIF orientation */
    int64_t max_pixels; /* 0: DECODE_MAX_PIXELS; checked before anything is decoded */
    int max_scans;      /* of a JPEG; 0: DECODE_MAX_SCANS */
};

struct decode_info {
    enum decode_kind kind;
    int width, height; /* as stored, before turning */
    int orientation;   /* 0: none */
    int channels;      /* 1 or 3: the file's own */
};

/* Errors: too_large (-EFBIG: pixels, scans), bad_request (-EINVAL) with the library's words. `ret_info` may
 * be NULL. picture_done(ret) afterwards. */
int decode_picture(const void *data, size_t size, const struct decode_options *o, struct picture *ret,
    struct decode_info *ret_info, struct error *err);

/* What the header says, nothing decoded. */
int decode_header(const void *data, size_t size, struct decode_info *ret, struct error *err);

#endif
