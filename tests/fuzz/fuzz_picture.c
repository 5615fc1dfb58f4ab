/* A JPEG or PNG: decoded within small limits and made a tensor. Nothing larger than the limit may come out,
 * the header must agree with the picture. */
#include <stdlib.h>

#include "image/preprocess.h"
#include "tests/fuzz/fuzz.h"

#define PIXELS_MAX 200000

static void check_tensor(const struct picture *p) {
    static const int64_t dim[4] = {-1, 3, 9, 7};
    struct preprocess pre;
    float x[3 * 9 * 7];

    if (preprocess_from_json(NULL, dim, 4, &pre, NULL) < 0)
        abort();
    if (preprocess_picture(&pre, p, x, NULL) < 0)
        return; /* too narrow to be resized within the limit */
    for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); i++)
        if (!(x[i] >= 0 && x[i] <= 1))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct decode_options o = {.max_pixels = PIXELS_MAX, .max_scans = 20, .is_turned = size % 2};
    struct decode_info header = {0}, info;
    struct error err = {0};
    struct picture p;
    int has_header = decode_header(data, size, &header, NULL);

    if (decode_picture(data, size, &o, &p, &info, &err) < 0) {
        if (!err.text[0])
            abort();
        return 0;
    }
    if (has_header < 0 || header.width != info.width || header.height != info.height ||
        (int64_t)p.width * p.height > PIXELS_MAX ||
        (int64_t)p.width * p.height != (int64_t)info.width * info.height)
        abort();
    check_tensor(&p);
    picture_done(&p);
    return 0;
}
