/* Augmentation: places and colours against Pillow's own results (tests/tools/make_augment_goldens.py), each
 * kind by what must hold of it, and chance: the same from the same key, another in another epoch. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/augment.h"
#include "compress/chance.h"
#include "tests/unit/cmocka_all.h"

#define SIDE 8
#define MOST 1024 /* bytes of a picture here */

static const uint8_t gray[3] = {7, 8, 9};

/* Byte i is the top byte of a 32-bit LCG, as in the goldens. */
static struct picture noise(int channels, int width, int height, uint8_t *pixels) {
    struct picture p = {pixels, width, height, channels};
    uint32_t v = 12345;

    for (size_t i = 0; i < picture_bytes(&p); i++) {
        v = v * 1664525u + 1013904223u;
        pixels[i] = (uint8_t)(v >> 24);
    }
    return p;
}

static uint8_t at(const uint8_t *pixels, const struct picture *p, int x, int y, int c) {
    return x < 0 || y < 0 || x >= p->width || y >= p->height
               ? 0
               : pixels[((size_t)y * (size_t)p->width + (size_t)x) * (size_t)p->channels + (size_t)c];
}

/* The golden's bytes and what came out: at most `most` above, never below. */
static void check_hex(const char *line, const char *hex, const uint8_t *got, size_t n, int most) {
    for (size_t i = 0; i < n; i++) {
        unsigned want;

        assert_int_equal(sscanf(hex + 2 * i, "%2x", &want), 1);
        if (got[i] < want || got[i] > (int)want + most)
            fail_msg("%.60s: byte %zu is %d, Pillow has %u", line, i, got[i], want);
    }
}

static int check_golden(const char *line) {
    static const int rounding = 1; /* Pillow rounds down, we to the nearest */
    struct augment_place place = {.factor = 1};
    struct augment_color color;
    uint8_t pixels[MOST], result[MOST];
    int channels, width, height, flip, skip = 0;
    struct picture p;

    if (sscanf(line, "%*s %d %d %d", &channels, &width, &height) != 3)
        return 0;
    p = noise(channels, width, height, pixels);
    if (sscanf(line, "rotate %*d %*d %*d %lf %n", &place.angle, &skip) == 1 && skip) {
        augment_move(&p, &place, result);
        check_hex(line, line + skip, result, picture_bytes(&p), rounding);
    } else if (sscanf(line, "place %*d %*d %*d %d %d %d %lf %lf %n", &flip, &place.right, &place.down,
                   &place.angle, &place.factor, &skip) == 5 &&
               skip) {
        place.is_flipped = flip;
        augment_move(&p, &place, result);
        check_hex(line, line + skip, result, picture_bytes(&p), rounding);
    } else if (sscanf(line, "color %*d %*d %*d %lf %lf %lf %n", &color.brightness, &color.contrast,
                   &color.saturation, &skip) == 3 &&
               skip) {
        augment_recolor(&p, &color);
        check_hex(line, line + skip, pixels, picture_bytes(&p), 0);
    } else {
        return 0;
    }
    return 1;
}

static void test_places_and_colors_are_those_of_pillow(void **state) {
    _cleanup_(fclosep) FILE *f = fopen(TEST_DATA "/augment/goldens.txt", "re");
    char line[2 * MOST + 256];
    int n = 0;

    (void)state;
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        n += check_golden(line);
    assert_int_equal(n, 45);
}

static void test_whole_pixels_are_moved_and_mirrored(void **state) {
    uint8_t pixels[MOST], result[MOST], twice[MOST];

    (void)state;
    for (int channels = 1; channels <= 3; channels += 2) {
        struct picture p = noise(channels, SIDE, SIDE + 3, pixels), moved = p;

        for (int right = -SIDE - 2; right <= SIDE + 2; right++)
            for (int down = -4; down <= 4; down++)
                for (int flip = 0; flip < 2; flip++) {
                    struct augment_place place = {flip, right, down, 0, 1};

                    augment_move(&p, &place, result);
                    for (int y = 0; y < p.height; y++)
                        for (int x = 0; x < SIDE; x++)
                            for (int c = 0; c < channels; c++) {
                                int from = flip ? SIDE - 1 - x - right : x + right;

                                assert_int_equal(at(result, &p, x, y, c), at(pixels, &p, from, y + down, c));
                            }
                }
        augment_move(&p, &(struct augment_place){true, 0, 0, 0, 1}, result);
        assert_memory_not_equal(result, pixels, picture_bytes(&p));
        moved.pixels = result;
        augment_move(&moved, &(struct augment_place){true, 0, 0, 0, 1}, twice);
        assert_memory_equal(twice, pixels, picture_bytes(&p));
    }
}

/* Four quarter turns, and bilinear by nothing at all. */
static void test_turning_around_comes_back(void **state) {
    uint8_t pixels[MOST], a[MOST], b[MOST];
    struct picture p = noise(3, SIDE, SIDE, pixels), q = p;

    (void)state;
    memcpy(a, pixels, picture_bytes(&p));
    for (int i = 0; i < 4; i++) {
        q.pixels = a;
        augment_move(&q, &(struct augment_place){false, 0, 0, 90, 1}, b);
        assert_int_equal(b[0], at(a, &p, SIDE - 1, 0, 0)); /* right upper corner goes to the left one */
        memcpy(a, b, picture_bytes(&p));
    }
    assert_memory_equal(a, pixels, picture_bytes(&p));
    augment_move(&p, &(struct augment_place){false, 0, 0, 1e-12, 1}, a);
    assert_memory_equal(a, pixels, picture_bytes(&p));
}

static void test_cutout_is_a_square_within_the_picture(void **state) {
    uint8_t pixels[MOST], cut[MOST];

    (void)state;
    for (int side = 0; side <= SIDE; side++)
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++) {
                struct picture p = noise(3, SIDE, SIDE, pixels), q = p;

                memcpy(cut, pixels, picture_bytes(&p));
                q.pixels = cut;
                augment_cut(&q, x, y, side, gray);
                for (int v = 0; v < SIDE; v++)
                    for (int u = 0; u < SIDE; u++) {
                        bool is_cut = u >= x - side / 2 && u < x - side / 2 + side && v >= y - side / 2 &&
                                      v < y - side / 2 + side;

                        for (int c = 0; c < 3; c++)
                            assert_int_equal(
                                at(cut, &p, u, v, c), is_cut ? gray[c] : at(pixels, &p, u, v, c));
                    }
            }
}

static void test_colors_stay_where_they_are_by_factor_one(void **state) {
    uint8_t pixels[MOST], same[MOST];
    struct picture p = noise(3, SIDE, SIDE, pixels);

    (void)state;
    memcpy(same, pixels, picture_bytes(&p));
    augment_recolor(&p, &(struct augment_color){1, 1, 1});
    assert_memory_equal(pixels, same, picture_bytes(&p));
    augment_recolor(&p, &(struct augment_color){0, 1, 1});
    for (size_t i = 0; i < picture_bytes(&p); i++)
        assert_int_equal(pixels[i], 0);
}

static const struct augment_options all = {.is_wanted = true,
    .crop_padding = 2,
    .flip = true,
    .rotate = 20,
    .scale = 0.2,
    .cutout = 0.5,
    .color = 0.4,
    .mixup = 0.4};

static void test_chance_depends_on_seed_epoch_and_item(void **state) {
    uint8_t pixels[MOST], first[MOST], again[MOST], other[MOST];
    struct picture p = noise(3, SIDE, SIDE, pixels);
    const uint64_t keys[] = {chance_key(1, 2, 4), chance_key(1, 3, 3), chance_key(2, 2, 3)};

    (void)state;
    augment_picture(&all, chance_key(1, 2, 3), &p, gray, first);
    augment_picture(&all, chance_key(1, 2, 3), &p, gray, again);
    assert_memory_equal(first, again, picture_bytes(&p));
    for (size_t i = 0; i < 3; i++) {
        augment_picture(&all, keys[i], &p, gray, other);
        assert_memory_not_equal(first, other, picture_bytes(&p));
    }
}

/* Nothing asked for: the very same bytes. */
static void test_what_is_off_changes_nothing(void **state) {
    static const struct augment_options off = {.is_wanted = true}, absent = {.flip = true, .mixup = 1};
    uint8_t pixels[MOST], result[MOST];
    struct picture p = noise(1, SIDE, SIDE, pixels);
    uint64_t other = 9;

    (void)state;
    augment_picture(&off, 5, &p, gray, result);
    assert_memory_equal(result, pixels, picture_bytes(&p));
    assert_false(augment_changes_pixels(&off) || augment_changes_pixels(&absent));
    assert_true(augment_changes_pixels(&all));
    assert_true(augment_mix(&absent, 5, 10, &other) == 1 && other == 9);
}

/* To turn one kind on leaves the others as they were. */
static void test_kinds_draw_numbers_of_their_own(void **state) {
    static const struct augment_options flip = {.is_wanted = true, .flip = true},
                                        both = {.is_wanted = true, .flip = true, .cutout = 0.2};
    uint8_t pixels[MOST], a[MOST], b[MOST];
    struct picture p = noise(1, SIDE, SIDE, pixels);
    int n_flipped = 0;

    (void)state;
    for (uint64_t key = 0; key < 400; key++) {
        size_t n_same = 0;

        augment_picture(&flip, chance_key(1, key, 1), &p, gray, a);
        augment_picture(&both, chance_key(1, key, 1), &p, gray, b);
        n_flipped += memcmp(a, pixels, picture_bytes(&p)) != 0;
        for (size_t i = 0; i < picture_bytes(&p); i++)
            n_same += a[i] == b[i];
        assert_in_range(n_same, picture_bytes(&p) - 4, picture_bytes(&p)); /* a square of 2 by 2 */
    }
    assert_in_range(n_flipped, 160, 240);
}

/* Moved by each number of pixels about equally often, cut anywhere. */
static void test_crops_reach_every_place(void **state) {
    static const struct augment_options crop = {.is_wanted = true, .crop_padding = 1};
    uint8_t pixels[MOST] = {0}, result[MOST];
    struct picture p = {pixels, 5, 5, 1};
    int count[9] = {0};

    (void)state;
    pixels[12] = 1; /* the middle */
    for (uint64_t item = 0; item < 1800; item++) {
        augment_picture(&crop, chance_key(7, 0, item), &p, gray, result);
        for (int i = 0; i < 25; i++)
            if (result[i])
                count[(i / 5 - 1) * 3 + i % 5 - 1]++;
    }
    for (int i = 0; i < 9; i++)
        assert_in_range(count[i], 140, 260); /* 200 ± 4.5 deviations */
}

static void test_shares_of_mixup_follow_beta(void **state) {
    static const double alphas[] = {0.01, 0.2, 0.5, 1};
    enum { N = 20000 };

    (void)state;
    for (size_t a = 0; a < sizeof(alphas) / sizeof(alphas[0]); a++) {
        struct augment_options o = {.is_wanted = true, .mixup = alphas[a]};
        double sum = 0, squares = 0, variance = 1 / (4 * (2 * alphas[a] + 1));
        bool is_seen[7] = {false};

        for (uint64_t i = 0; i < N; i++) {
            uint64_t other = 99;
            double share = augment_mix(&o, chance_key(3, 1, i), 7, &other);

            assert_true(share >= 0 && share <= 1);
            assert_in_range(other, 0, 6);
            is_seen[other] = true;
            sum += share;
            squares += (share - 0.5) * (share - 0.5);
        }
        assert_true(fabs(sum / N - 0.5) < 0.02);
        assert_true(fabs(squares / N - variance) < 0.01);
        for (int i = 0; i < 7; i++)
            assert_true(is_seen[i]);
    }
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places_and_colors_are_those_of_pillow),
        cmocka_unit_test(test_whole_pixels_are_moved_and_mirrored),
        cmocka_unit_test(test_turning_around_comes_back),
        cmocka_unit_test(test_cutout_is_a_square_within_the_picture),
        cmocka_unit_test(test_colors_stay_where_they_are_by_factor_one),
        cmocka_unit_test(test_chance_depends_on_seed_epoch_and_item),
        cmocka_unit_test(test_what_is_off_changes_nothing),
        cmocka_unit_test(test_kinds_draw_numbers_of_their_own),
        cmocka_unit_test(test_crops_reach_every_place),
        cmocka_unit_test(test_shares_of_mixup_follow_beta),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
