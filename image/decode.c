#include "image/decode.h"

#include <errno.h>
#include <string.h>

#include "image/decode_format.h"

enum decode_kind decode_kind(const void *data, size_t size) {
    if (size >= 3 && !memcmp(data, "\xff\xd8\xff", 3))
        return DECODE_JPEG;
    if (size >= 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8))
        return DECODE_PNG;
    return DECODE_NONE;
}

int decode_check_pixels(int64_t width, int64_t height, const struct decode_options *o, struct error *err) {
    if (width < 1 || height < 1)
        return error_set(err, -EINVAL, "the picture has no pixels");
    if (width > INT32_MAX || height > INT32_MAX || width > o->max_pixels / height)
        return error_set(err, -EFBIG, "the picture has %lld x %lld pixels, the limit is %lld in all",
            (long long)width, (long long)height, (long long)o->max_pixels);
    return 0;
}

static int decode_any(const void *data, size_t size, const struct decode_options *o, struct picture *ret,
    struct decode_info *ret_info, struct error *err) {
    struct decode_options filled = o ? *o : (struct decode_options){0};

    if (!filled.max_pixels)
        filled.max_pixels = DECODE_MAX_PIXELS;
    if (!filled.max_scans)
        filled.max_scans = DECODE_MAX_SCANS;
    switch (decode_kind(data, size)) {
    case DECODE_JPEG: return decode_jpeg(data, size, &filled, ret, ret_info, err);
    case DECODE_PNG: return decode_png(data, size, &filled, ret, ret_info, err);
    case DECODE_NONE: break;
    }
    return error_set(err, -EINVAL, "this is neither a JPEG nor a PNG picture");
}

int decode_picture(const void *data, size_t size, const struct decode_options *o, struct picture *ret,
    struct decode_info *ret_info, struct error *err) {
    struct decode_info info = {0};
    struct picture p = {0};
    int r = decode_any(data, size, o, &p, &info, err);

    if (r == 0 && o && o->is_turned)
        r = picture_orient(&p, info.orientation, err);
    if (r < 0) {
        picture_done(&p);
        return r;
    }
    *ret = p;
    if (ret_info)
        *ret_info = info;
    return 0;
}

int decode_header(const void *data, size_t size, struct decode_info *ret, struct error *err) {
    struct decode_options any = {.max_pixels = INT64_MAX};

    return decode_any(data, size, &any, NULL, ret, err);
}
