/* Pictures against what Pillow says about them: tests/data/decode/manifest.json, and that of the folder
 * BONSAI_SHARED/decode when it is set. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/decode.h"
#include "image/exif.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/sha256.h"

static void *read_file(const char *path, size_t *ret_size) {
    _cleanup_(fclosep) FILE *f = fopen(path, "rbe");
    void *data;
    long n;

    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    n = ftell(f);
    rewind(f);
    data = malloc((size_t)n + 1);
    assert_int_equal(fread(data, 1, (size_t)n, f), n);
    *ret_size = (size_t)n;
    return data;
}

static bool is_supported(const json_t *row) {
    const char *format = json_string_value(json_object_get(row, "format"));

    return format && (!strcmp(format, "JPEG") || !strcmp(format, "PNG"));
}

static int count_sha(const char *name, const char *key, const json_t *row, const struct picture *p) {
    const char *want = json_string_value(json_object_get(row, key));
    char got[17];

    if (!want || !strcmp(want, sha256_short(p->pixels, picture_bytes(p), got)))
        return 0;
    printf("%s: %s is %s, not %s\n", name, key, got, want);
    return 1;
}

static int count_mean(const char *name, const json_t *row, const struct picture *p) {
    const json_t *mean = json_object_get(row, "rgb_mean");
    double sum[3] = {0};
    size_t n = (size_t)p->width * (size_t)p->height;
    int bad = 0;

    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < 3; c++)
            sum[c] += p->pixels[3 * i + c];
    for (size_t c = 0; c < 3; c++)
        bad += fabs(sum[c] / (double)n - json_number_value(json_array_get(mean, c))) > 0.0051;
    if (bad)
        printf(
            "%s: means %.2f %.2f %.2f\n", name, sum[0] / (double)n, sum[1] / (double)n, sum[2] / (double)n);
    return bad;
}

static int check_header(const char *name, const json_t *row, const struct decode_info *info) {
    const json_t *size = json_object_get(row, "size"), *o = json_object_get(row, "orientation");

    if (info->width == json_integer_value(json_array_get(size, 0)) &&
        info->height == json_integer_value(json_array_get(size, 1)) &&
        info->orientation == json_integer_value(o))
        return 0;
    printf("%s: %d x %d, orientation %d\n", name, info->width, info->height, info->orientation);
    return 1;
}

/* The wanted channels, turned or not. Returns the number of complaints. */
static int check_one(const char *name, const json_t *row, const void *data, size_t size) {
    static const struct variant {
        struct decode_options o;
        const char *key;
    } variants[] = {{{.channels = 3}, "rgb_sha256"}, {{.channels = 1}, "l_sha256"},
        {{.channels = 3, .is_turned = true}, "turned_sha256"}};
    bool is_good = json_is_true(json_object_get(row, "decoded")) && is_supported(row);
    int bad = 0;

    for (size_t i = 0; i < 3; i++) {
        _cleanup_(picture_done) struct picture p = {0};
        struct decode_info info;
        struct error err = {0};
        int r = decode_picture(data, size, &variants[i].o, &p, &info, &err);

        if ((r == 0) != is_good) {
            printf("%s: %s\n", name, r ? err.text : "decoded, but Pillow does not");
            return bad + 1;
        }
        if (r < 0) {
            assert_true(r == -EINVAL || r == -EFBIG);
            assert_int_equal(err.err, r);
            continue;
        }
        bad += count_sha(name, variants[i].key, row, &p);
        if (i == 0)
            bad += count_mean(name, row, &p) + check_header(name, row, &info);
    }
    return bad;
}

static int check_folder(const char *folder, const char *manifest) {
    char path[4096];
    json_t *rows, *row;
    const char *name;
    int bad = 0;

    snprintf(path, sizeof(path), "%s/%s", folder, manifest);
    rows = json_load_file(path, 0, NULL);
    assert_non_null(rows);
    json_object_foreach(rows, name, row) {
        _cleanup_(freep) void *data = NULL;
        size_t size;

        snprintf(path, sizeof(path), "%s/%s", folder, name);
        data = read_file(path, &size);
        bad += check_one(name, row, data, size);
    }
    json_decref(rows);
    return bad;
}

static void test_pictures_decode_as_pillow_says(void **state) {
    (void)state;
    assert_int_equal(check_folder(TEST_DATA "/decode", "manifest.json"), 0);
}

/* The larger set, when it is there. */
static void test_more_pictures_decode_as_pillow_says(void **state) {
    char folder[4096];

    (void)state;
    if (!getenv("BONSAI_SHARED"))
        skip();
    snprintf(folder, sizeof(folder), "%s/decode", getenv("BONSAI_SHARED"));
    assert_int_equal(check_folder(folder, "manifest.json"), 0);
}

static void test_pictures_cut_anywhere_are_refused_or_whole(void **state) {
    static const char *const names[] = {"made/gray.jpg", "pillow/pil136.png", "made/cmyk_progressive.jpg"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        _cleanup_(picture_done) struct picture whole = {0};
        _cleanup_(freep) void *data = NULL;
        char path[4096];
        size_t size;

        snprintf(path, sizeof(path), TEST_DATA "/decode/%s", names[i]);
        data = read_file(path, &size);
        assert_int_equal(decode_picture(data, size, NULL, &whole, NULL, NULL), 0);
        for (size_t cut = 0; cut < size; cut += 1 + size / 97) {
            _cleanup_(picture_done) struct picture p = {0};
            struct error err = {0};
            int r = decode_picture(data, cut, NULL, &p, NULL, &err);

            assert_true(r == -EINVAL || (r == 0 && !memcmp(p.pixels, whole.pixels, picture_bytes(&whole))));
        }
    }
}

static void test_pixels_and_scans_have_limits(void **state) {
    struct decode_options few_pixels = {.max_pixels = 240 * 320 - 1}, few_scans = {.max_scans = 3};
    _cleanup_(freep) void *data = NULL;
    struct picture p = {0};
    struct decode_info info;
    struct error err = {0};
    size_t size;

    (void)state;
    data = read_file(TEST_DATA "/decode/made/progressive.jpg", &size);
    assert_int_equal(decode_picture(data, size, &few_pixels, &p, NULL, &err), -EFBIG);
    error_clear(&err);
    assert_int_equal(decode_picture(data, size, &few_scans, &p, NULL, &err), -EFBIG);
    assert_null(p.pixels);
    assert_int_equal(decode_header(data, size, &info, NULL), 0);
    assert_int_equal(info.width * 1000 + info.height, 240320);
}

static void test_orientation_is_read_within_bounds(void **state) {
    static const uint8_t intel[] = "II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
    static const uint8_t motorola[] = "Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
    static const char hex[] = "\nexif\n 26\n49492a0008000000 0100\n12010300010000000300 0000";
    uint8_t damaged[sizeof(intel)];

    (void)state;
    assert_int_equal(exif_orientation(intel, sizeof(intel) - 1), 6);
    assert_int_equal(exif_orientation(motorola, sizeof(motorola) - 1), 8);
    assert_int_equal(exif_orientation_hex(hex, strlen(hex)), 3);
    for (size_t n = 0; n < sizeof(intel) - 1; n++) {
        _cleanup_(freep) uint8_t *copy = malloc(n + 1);

        memcpy(copy, intel, n);
        assert_int_equal(exif_orientation(copy, n), 0);
    }
    for (size_t i = 4; i < 8; i++) { /* an offset past the end */
        memcpy(damaged, intel, sizeof(intel));
        damaged[i] = 0xff;
        assert_int_equal(exif_orientation(damaged, sizeof(intel) - 1), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures_decode_as_pillow_says),
        cmocka_unit_test(test_more_pictures_decode_as_pillow_says),
        cmocka_unit_test(test_pictures_cut_anywhere_are_refused_or_whole),
        cmocka_unit_test(test_pixels_and_scans_have_limits),
        cmocka_unit_test(test_orientation_is_read_within_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
