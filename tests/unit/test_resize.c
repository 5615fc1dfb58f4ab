/* Resampling against Pillow: hashes of resized noise (tests/tools/make_resize_goldens.py). */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/resize.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/sha256.h"

static void make_noise(struct picture *p) {
    uint32_t v = 12345;

    for (size_t i = 0; i < picture_bytes(p); i++) {
        v = v * 1664525u + 1013904223u;
        p->pixels[i] = (uint8_t)(v >> 24);
    }
}

static enum resize_mode mode_of(const char *name) {
    return !strcmp(name, "bilinear")  ? RESIZE_BILINEAR
           : !strcmp(name, "bicubic") ? RESIZE_BICUBIC
                                      : RESIZE_NEAREST;
}

static void test_resized_noise_is_pillows(void **state) {
    _cleanup_(fclosep) FILE *f = fopen(TEST_DATA "/resize/goldens.txt", "re");
    int c, w, h, nw, nh, n = 0;
    char mode[16], want[17], got[17];

    (void)state;
    assert_non_null(f);
    for (; fscanf(f, "%15s %d %d %d %d %d %16s", mode, &c, &w, &h, &nw, &nh, want) == 7; n++) {
        _cleanup_(picture_done) struct picture p = {0}, q = {0};

        assert_int_equal(picture_init(&p, w, h, c, NULL), 0);
        make_noise(&p);
        assert_int_equal(resize_picture(&p, nw, nh, mode_of(mode), &q, NULL), 0);
        if (strcmp(sha256_short(q.pixels, picture_bytes(&q), got), want))
            fail_msg("%s %d channels %dx%d -> %dx%d differs from Pillow", mode, c, w, h, nw, nh);
    }
    assert_int_equal(n, 120);
}

static void test_a_result_too_large_is_refused(void **state) {
    uint8_t pixels[6] = {0};
    struct picture p = {pixels, 1, 6, 1}, q;
    struct error err = {0};

    (void)state;
    assert_int_equal(resize_picture(&p, 20000, 20000, RESIZE_BILINEAR, &q, &err), -EFBIG);
    p.height = 50000000; /* refused by the picture between the passes, before a pixel is read */
    error_clear(&err);
    assert_int_equal(resize_picture(&p, 224, 224, RESIZE_BILINEAR, &q, &err), -EFBIG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resized_noise_is_pillows),
        cmocka_unit_test(test_a_result_too_large_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
