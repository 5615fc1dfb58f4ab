/* k-means of numbers against the exact optimum, the codebook of a layer against one without its turns, and
 * k-means of vectors. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/chance.h"
#include "compress/codebook_fit.h"
#include "compress/codebook_words.h"
#include "tests/unit/cmocka_all.h"

#define N_INITS 4

/* Gaussian enough: the sum of twelve numbers. */
static float normal(uint64_t key, uint64_t i) {
    double sum = -6;

    for (uint64_t k = 0; k < 12; k++)
        sum += chance_unit(key, 12 * i + k);
    return (float)sum;
}

static void fill(struct codebook_bins *b, const float *v, int n) {
    float low = v[0], high = v[0];

    for (int i = 0; i < n; i++) {
        low = fminf(low, v[i]);
        high = fmaxf(high, v[i]);
    }
    assert_int_equal(codebook_bins_init(b, 4096, (double)low, (double)high, NULL), 0);
    for (int i = 0; i < n; i++)
        codebook_bins_add(b, (double)v[i], 1);
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* The least sum of squared distances there is to k words: dynamic programming over the sorted values. */
static double optimum(const float *values, int n, int k) {
    enum { MOST = 200 };
    static double best[MOST + 1], next[MOST + 1];
    float v[MOST];

    memcpy(v, values, (size_t)n * sizeof(*v));
    qsort(v, (size_t)n, sizeof(*v), by_value);
    for (int i = 0; i <= n; i++)
        best[i] = i ? (double)INFINITY : 0;
    for (int word = 0; word < k; word++) {
        for (int end = 0; end <= n; end++) {
            double sum = 0, square = 0;

            next[end] = best[end];
            for (int first = end - 1; first >= 0; first--) {
                double e;

                sum += (double)v[first];
                square += (double)v[first] * (double)v[first];
                e = best[first] + square - sum * sum / (end - first);
                next[end] = fmin(next[end], e);
            }
        }
        memcpy(best, next, sizeof(best));
    }
    return best[n];
}

static void test_groups_apart_are_found_from_any_start(void **state) {
    const float middle[] = {-3, -1, 1, 3};
    float v[200], words[4];

    (void)state;
    for (int i = 0; i < 200; i++)
        v[i] = middle[i % 4] + 0.05f * normal(7, (uint64_t)i);
    for (int init = 0; init < N_INITS; init++) {
        struct codebook_options o = {.init = (enum codebook_start)init, .seed = 3};
        _cleanup_(codebook_bins_done) struct codebook_bins b = {0};
        double inertia;

        fill(&b, v, 200);
        assert_int_equal(codebook_find(&b, &o, words, 4, &inertia, NULL), 0);
        if (init == START_RANDOM) /* may stay where two groups share a word */
            continue;
        for (int k = 0; k < 4; k++)
            assert_true(fabsf(words[k] - middle[k]) < 0.05f);
        assert_true(inertia < optimum(v, 200, 4) * 1.0001 + 1e-9);
    }
}

static void test_no_start_ends_far_from_the_optimum(void **state) {
    float v[200], words[8];

    (void)state;
    for (int i = 0; i < 200; i++)
        v[i] = normal(11, (uint64_t)i);
    for (int init = 0; init < N_INITS; init++) {
        struct codebook_options o = {.init = (enum codebook_start)init, .seed = 5};
        _cleanup_(codebook_bins_done) struct codebook_bins b = {0};
        double least = optimum(v, 200, 8), inertia, sum = 0;

        fill(&b, v, 200);
        assert_int_equal(codebook_find(&b, &o, words, 8, &inertia, NULL), 0);
        for (int i = 0; i < 200; i++) {
            double d = (double)(v[i] - words[codebook_nearest(words, 8, v[i])]);

            sum += d * d;
        }
        assert_true(fabs(sum - inertia) < 1e-3 * sum + 1e-6);
        assert_true(inertia >= least * 0.999);
        assert_true(inertia <= least * 1.6);
    }
}

static void test_each_word_is_the_mean_of_what_is_near(void **state) {
    float v[200], words[6];

    (void)state;
    for (int i = 0; i < 200; i++)
        v[i] = normal(13, (uint64_t)i);
    for (int init = 0; init < N_INITS; init++) {
        struct codebook_options o = {.init = (enum codebook_start)init, .seed = 1};
        _cleanup_(codebook_bins_done) struct codebook_bins b = {0};
        double sum[6] = {0}, count[6] = {0};

        fill(&b, v, 200);
        assert_int_equal(codebook_find(&b, &o, words, 6, NULL, NULL), 0);
        for (int i = 0; i < 200; i++) {
            int k = codebook_nearest(words, 6, v[i]);

            sum[k] += (double)v[i];
            count[k]++;
        }
        for (int k = 0; k < 6; k++) {
            assert_true(count[k] > 0);
            assert_true(fabs(sum[k] / count[k] - (double)words[k]) < 5e-3);
        }
    }
}

static void test_fewer_values_than_words_are_kept_exactly(void **state) {
    const float v[] = {-2, -2, 0.5f, 7};
    float words[16];

    (void)state;
    for (int init = 0; init < N_INITS; init++) {
        struct codebook_options o = {.init = (enum codebook_start)init, .seed = 9};
        _cleanup_(codebook_bins_done) struct codebook_bins b = {0};
        double inertia;

        fill(&b, v, 4);
        assert_int_equal(codebook_find(&b, &o, words, 16, &inertia, NULL), 0);
        assert_true(inertia < 1e-9);
        for (int i = 0; i < 4; i++)
            assert_true(fabsf(words[codebook_nearest(words, 16, v[i])] - v[i]) < 1e-6f);
    }
}

static void test_zero_stays_a_word(void **state) {
    float v[200], words[5];

    (void)state;
    for (int i = 0; i < 200; i++)
        v[i] = 4 + normal(17, (uint64_t)i);
    for (int init = 0; init < N_INITS; init++) {
        struct codebook_options o = {.init = (enum codebook_start)init, .seed = 2, .keeps_zero = true};
        _cleanup_(codebook_bins_done) struct codebook_bins b = {0};

        fill(&b, v, 200);
        assert_int_equal(codebook_find(&b, &o, words, 5, NULL, NULL), 0);
        assert_true(words[codebook_nearest(words, 5, 0)] == 0);
        for (int k = 1; k < 5; k++)
            assert_true(words[k] > words[k - 1]);
    }
}

/* ---- a layer ---- */

enum { ROWS = 12, COLS = 90, N = ROWS * COLS };

static const struct weight_rows rows = {
    .shape = {.rank = 2, .dim = {ROWS, COLS}}, .rows = ROWS, .outer = 1, .inner = COLS};

/* Rows of different magnitude. */
static void fill_layer(float *w) {
    for (int i = 0; i < N; i++)
        w[i] = normal(23, (uint64_t)i) * (0.1f + 0.3f * (float)(i / COLS));
}

/* One book of int8 over w / (largest of the row / 127): evenly started, 20 rounds, rounded. */
static double plain_error(const float *w, int n_words) {
    float scale[ROWS] = {0}, words[CODEBOOK_MAX];
    double error = 0;

    for (int i = 0; i < N; i++)
        scale[i / COLS] = fmaxf(scale[i / COLS], fabsf(w[i]) / 127);
    for (int k = 0; k < n_words; k++)
        words[k] = -127 + 254 * ((float)k + 0.5f) / (float)n_words;
    for (int round = 0; round < 20; round++) {
        double sum[CODEBOOK_MAX] = {0}, count[CODEBOOK_MAX] = {0};

        for (int i = 0; i < N; i++) {
            int k = codebook_nearest(words, n_words, w[i] / scale[i / COLS]);

            sum[k] += (double)(w[i] / scale[i / COLS]);
            count[k]++;
        }
        for (int k = 0; k < n_words; k++)
            if (count[k] > 0)
                words[k] = (float)(sum[k] / count[k]);
    }
    for (int i = 0; i < N; i++) {
        float v = w[i] / scale[i / COLS];
        double d = (double)(scale[i / COLS] * (v - rintf(words[codebook_nearest(words, n_words, v)])));

        error += d * d;
    }
    return error;
}

static double error_of(const float *w, const struct codebook_fit *f) {
    double error = 0;

    for (int i = 0; i < N; i++) {
        float s = f->scale ? f->scale[f->n_scale > 1 ? i / COLS : 0] : 1;
        double d = (double)(w[i] - s * f->words[f->code[i]]);

        error += d * d;
    }
    return error;
}

static void test_turns_leave_less_error_than_words_alone(void **state) {
    float w[N];

    (void)state;
    fill_layer(w);
    for (int bits = 1; bits <= 6; bits++) {
        struct codebook_fit_options o = {.n_words = 1 << bits, .per_channel = true};
        _cleanup_(codebook_fit_done) struct codebook_fit f = {0};

        assert_int_equal(codebook_fit(w, &rows, NULL, N, &o, &f, NULL), 0);
        assert_true(fabs(error_of(w, &f) - f.error) < 1e-4 * f.error);
        assert_true(f.error <= plain_error(w, 1 << bits) * 1.0001);
        for (int k = 0; k < f.n_words; k++)
            assert_true(f.words[k] == rintf(f.words[k]) && fabsf(f.words[k]) <= 127);
    }
}

static void test_more_bits_leave_less_error(void **state) {
    float w[N];

    (void)state;
    fill_layer(w);
    for (int kind = 0; kind < 3; kind++) {
        double before = (double)INFINITY;

        for (int bits = 1; bits <= 8; bits++) {
            struct codebook_fit_options o = {
                .n_words = 1 << bits, .per_channel = kind == 1, .is_float = kind == 2, .init = START_DENSITY};
            _cleanup_(codebook_fit_done) struct codebook_fit f = {0};

            assert_int_equal(codebook_fit(w, &rows, NULL, N, &o, &f, NULL), 0);
            assert_int_equal(f.scale ? f.n_scale : -1, kind == 0 ? 1 : kind == 1 ? ROWS : -1);
            assert_true(f.error < before);
            before = f.error;
        }
    }
}

static void test_zeros_of_a_pruned_layer_stay_zeros(void **state) {
    float w[N];

    (void)state;
    fill_layer(w);
    for (int i = 0; i < N; i++)
        w[i] = i % 3 ? 0 : w[i];
    for (int is_float = 0; is_float < 2; is_float++)
        for (int init = 0; init < N_INITS; init++) {
            struct codebook_fit_options o = {.n_words = 8,
                .per_channel = true,
                .is_float = is_float,
                .keeps_zero = true,
                .init = (enum codebook_start)init,
                .seed = 4};
            _cleanup_(codebook_fit_done) struct codebook_fit f = {0};

            assert_int_equal(codebook_fit(w, &rows, NULL, N, &o, &f, NULL), 0);
            for (int i = 0; i < N; i++)
                if (i % 3)
                    assert_true(f.words[f.code[i]] == 0);
        }
}

static void test_stored_elements_alone_count(void **state) {
    struct codebook_fit_options o = {.n_words = 4, .is_float = true};
    _cleanup_(codebook_fit_done) struct codebook_fit f = {0};
    const uint32_t at[] = {5, 90, 91, 1079};
    const float values[] = {-1, 2, 3, 8};
    float w[N] = {0};

    (void)state;
    w[3] = 100; /* is not stored */
    for (int i = 0; i < 4; i++)
        w[at[i]] = values[i];
    assert_int_equal(codebook_fit(w, &rows, at, 4, &o, &f, NULL), 0);
    for (int i = 0; i < 4; i++)
        assert_true(fabsf(f.words[f.code[i]] - values[i]) < 1e-6f);
}

static void test_scales_are_never_below_what_the_bias_needs(void **state) {
    float w[N], least[ROWS];
    struct codebook_fit_options o = {.n_words = 16, .per_channel = true, .min_scale = least};
    _cleanup_(codebook_fit_done) struct codebook_fit f = {0};

    (void)state;
    fill_layer(w);
    for (int i = 0; i < ROWS; i++)
        least[i] = i == 4 ? 1.5f : 0;
    assert_int_equal(codebook_fit(w, &rows, NULL, N, &o, &f, NULL), 0);
    assert_true(f.scale[4] >= 1.5f);
    assert_true(f.scale[5] < 1.5f);
}

static void test_the_same_seed_gives_the_same_bytes(void **state) {
    float w[N];

    (void)state;
    fill_layer(w);
    for (int init = 0; init < N_INITS; init++) {
        struct codebook_fit_options o = {
            .n_words = 16, .per_channel = true, .init = (enum codebook_start)init, .seed = 21};
        _cleanup_(codebook_fit_done) struct codebook_fit a = {0}, b = {0};

        assert_int_equal(codebook_fit(w, &rows, NULL, N, &o, &a, NULL), 0);
        assert_int_equal(codebook_fit(w, &rows, NULL, N, &o, &b, NULL), 0);
        assert_memory_equal(a.code, b.code, N);
        assert_memory_equal(a.words, b.words, sizeof(a.words));
        assert_memory_equal(a.scale, b.scale, ROWS * sizeof(*a.scale));
    }
}

static void test_a_weight_that_is_no_number_is_named(void **state) {
    struct codebook_fit_options o = {.n_words = 4};
    struct codebook_fit f = {0};
    struct error err = {0};
    float w[N] = {0};

    (void)state;
    w[77] = NAN;
    assert_true(codebook_fit(w, &rows, NULL, N, &o, &f, &err) < 0);
    assert_non_null(strstr(err.text, "77"));
}

/* ---- vectors ---- */

enum { DIM = 4, VECTORS = 3000 };

struct table {
    const float *v, *a;
};

static void read_table(const void *ctx, int64_t first, int64_t n, float *v, float *a) {
    const struct table *t = ctx;

    memcpy(v, t->v + first * DIM, (size_t)(n * DIM) * sizeof(*v));
    if (a)
        memcpy(a, t->a + first * DIM, (size_t)(n * DIM) * sizeof(*a));
}

static struct codebook_vectors vectors_of(const struct table *t) {
    return (struct codebook_vectors){
        .dim = DIM, .n = VECTORS, .read = read_table, .ctx = t, .is_weighted = t->a != NULL};
}

/* Eight places, and a little noise around them. */
static void fill_vectors(float *v, float noise) {
    for (int i = 0; i < VECTORS; i++)
        for (int d = 0; d < DIM; d++)
            v[i * DIM + d] =
                (i * 7 % 8 >> (d % 3) & 1 ? 10.0f : -10.0f) + noise * normal(31, (uint64_t)(i * DIM + d));
}

static double words_error(
    const struct table *t, const float *weight, const float *words, const uint8_t *code) {
    double sum = 0;

    for (int i = 0; i < VECTORS * DIM; i++) {
        double d = (double)(t->v[i] - words[code[i / DIM] * DIM + i % DIM]);

        sum += (double)(weight ? weight[i] : 1) * d * d;
    }
    return sum;
}

static void test_vectors_apart_are_found(void **state) {
    static float v[VECTORS * DIM];
    const struct table t = {v, NULL};
    const struct codebook_vectors vectors = vectors_of(&t);
    const struct codebook_words_options o = {.n_words = 8, .seed = 1};
    float words[8 * DIM];
    uint8_t code[VECTORS];

    (void)state;
    fill_vectors(v, 0.1f);
    assert_int_equal(codebook_words(&vectors, &o, words, code, NULL), 0);
    /* what is left is the noise */
    assert_true(words_error(&t, NULL, words, code) < VECTORS * DIM * 0.011);
    for (int i = 8; i < VECTORS; i++)
        assert_int_equal(code[i], code[i % 8]);
}

static void test_codes_are_the_nearest_words(void **state) {
    static float v[VECTORS * DIM], a[VECTORS * DIM];
    const struct table t = {v, a};
    const struct codebook_vectors vectors = vectors_of(&t);
    const struct codebook_words_options o = {.n_words = 37, .seed = 2, .is_int8 = true, .threads = 2};
    float words[37 * DIM];
    uint8_t code[VECTORS];

    (void)state;
    fill_vectors(v, 5);
    for (int i = 0; i < VECTORS * DIM; i++)
        a[i] = 0.1f + fabsf(normal(5, (uint64_t)i));
    assert_int_equal(codebook_words(&vectors, &o, words, code, NULL), 0);
    for (int i = 0; i < 37 * DIM; i++)
        assert_true(words[i] == rintf(words[i]));
    for (int i = 0; i < VECTORS; i++) {
        double least = (double)INFINITY, own = 0;

        for (int k = 0; k < 37; k++) {
            double sum = 0;

            for (int d = 0; d < DIM; d++)
                sum += (double)a[i * DIM + d] * pow((double)(v[i * DIM + d] - words[k * DIM + d]), 2);
            least = fmin(least, sum);
            own = k == code[i] ? sum : own;
        }
        assert_true(own <= least * 1.0001 + 1e-3);
    }
}

static void test_what_counts_more_is_said_better(void **state) {
    static float v[VECTORS * DIM], a[VECTORS * DIM];
    const struct table plain = {v, NULL}, weighted = {v, a};
    const struct codebook_vectors p = vectors_of(&plain), w = vectors_of(&weighted);
    const struct codebook_words_options o = {.n_words = 16, .seed = 3};
    float words[16 * DIM];
    uint8_t code[VECTORS];
    double without, with;

    (void)state;
    for (int i = 0; i < VECTORS * DIM; i++) {
        v[i] = normal(41, (uint64_t)i);
        a[i] = i % DIM == 1 ? 25 : 1;
    }
    assert_int_equal(codebook_words(&p, &o, words, code, NULL), 0);
    without = words_error(&plain, a, words, code);
    assert_int_equal(codebook_words(&w, &o, words, code, NULL), 0);
    with = words_error(&plain, a, words, code);
    assert_true(with < without * 0.8);
}

static void test_threads_do_not_change_the_bytes(void **state) {
    static float v[VECTORS * DIM];
    const struct table t = {v, NULL};
    const struct codebook_vectors vectors = vectors_of(&t);
    float words[2][64 * DIM];
    uint8_t code[2][VECTORS];

    (void)state;
    fill_vectors(v, 5);
    for (unsigned i = 0; i < 2; i++) {
        const struct codebook_words_options o = {.n_words = 64, .seed = 7, .threads = 1 + 3 * i};

        assert_int_equal(codebook_words(&vectors, &o, words[i], code[i], NULL), 0);
    }
    assert_memory_equal(words[0], words[1], sizeof(words[0]));
    assert_memory_equal(code[0], code[1], sizeof(code[0]));
}

static void test_more_words_than_vectors_are_no_harm(void **state) {
    static float v[VECTORS * DIM];
    const struct table t = {v, NULL};
    struct codebook_vectors vectors = vectors_of(&t);
    const struct codebook_words_options o = {.n_words = 256, .seed = 7};
    float words[256 * DIM];
    uint8_t code[VECTORS];

    (void)state;
    fill_vectors(v, 1);
    vectors.n = 5;
    assert_int_equal(codebook_words(&vectors, &o, words, code, NULL), 0);
    for (int i = 0; i < 5 * DIM; i++)
        assert_true(fabsf(v[i] - words[code[i / DIM] * DIM + i % DIM]) < 1e-5f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_apart_are_found_from_any_start),
        cmocka_unit_test(test_no_start_ends_far_from_the_optimum),
        cmocka_unit_test(test_each_word_is_the_mean_of_what_is_near),
        cmocka_unit_test(test_fewer_values_than_words_are_kept_exactly),
        cmocka_unit_test(test_zero_stays_a_word),
        cmocka_unit_test(test_turns_leave_less_error_than_words_alone),
        cmocka_unit_test(test_more_bits_leave_less_error),
        cmocka_unit_test(test_zeros_of_a_pruned_layer_stay_zeros),
        cmocka_unit_test(test_stored_elements_alone_count),
        cmocka_unit_test(test_scales_are_never_below_what_the_bias_needs),
        cmocka_unit_test(test_the_same_seed_gives_the_same_bytes),
        cmocka_unit_test(test_a_weight_that_is_no_number_is_named),
        cmocka_unit_test(test_vectors_apart_are_found),
        cmocka_unit_test(test_codes_are_the_nearest_words),
        cmocka_unit_test(test_what_counts_more_is_said_better),
        cmocka_unit_test(test_threads_do_not_change_the_bytes),
        cmocka_unit_test(test_more_words_than_vectors_are_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
