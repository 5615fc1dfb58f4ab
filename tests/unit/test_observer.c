#include "tests/unit/cmocka_all.h"

#include <math.h>
#include <stdlib.h>

#include "compress/observer.h"

static uint32_t random_next(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Sum of twelve uniforms minus six: mean 0, variance 1. */
static float random_normal(uint32_t *state) {
    float sum = 0;

    for (int i = 0; i < 12; i++)
        sum += (float)random_next(state) / (float)(1 << 24);
    return sum - 6;
}

static double error_of(const float *x, int n, struct quant q, int low, int high) {
    double sum = 0;

    for (int i = 0; i < n; i++) {
        double stored = fmin(fmax(nearbyint((double)(x[i] / q.scale)) + q.zero, low), high);
        double e = (double)x[i] - (double)q.scale * (stored - q.zero);

        sum += e * e;
    }
    return sum;
}

static void observe(struct observer *o, const float *x, int n) {
    observer_init(o);
    observer_range(o, x, n);
    observer_count(o, x, n);
}

static void test_zero_is_exactly_representable(void **state) {
    static const struct {
        float low, high;
        enum dtype dtype;
        int32_t zero;
        float scale;
    } cases[] = {
        {0, 255, DT_U8, 0, 1},
        {-1, 1.55f, DT_U8, 100, 0.01f},
        {-2, 0, DT_U8, 255, 2.0f / 255},
        {-127, 10, DT_S8, 0, 1},
        {0, 0, DT_U8, 0, 1},
        {0, 0, DT_S8, 0, 1},
        {-1e-38f, 0, DT_U8, 0, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct quant q = quant_of_range(cases[i].low, cases[i].high, cases[i].dtype);

        assert_int_equal(q.zero, cases[i].zero);
        assert_true(fabsf(q.scale - cases[i].scale) < 1e-6f);
    }
}

static void test_mse_clips_an_outlier_and_minmax_keeps_it(void **state) {
    enum { N = 20000 };
    float *x = malloc(N * sizeof(*x));
    struct observer *o = malloc(sizeof(*o));
    uint32_t random = 7;
    struct quant minmax, mse;

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = random_normal(&random);
    x[17] = 12;
    x[18] = -12;
    observe(o, x, N);
    minmax = observer_quant(o, OBSERVER_MINMAX, DT_S8);
    mse = observer_quant(o, OBSERVER_MSE, DT_S8);
    assert_true(fabsf(minmax.scale - 12.0f / 127) < 1e-6f);
    assert_true(mse.scale < minmax.scale);
    /* the choice is the better one on the samples themselves, not only on the histogram */
    assert_true(error_of(x, N, mse, -128, 127) < error_of(x, N, minmax, -128, 127));
    free(o);
    free(x);
}

/* A ten-thousandth of 20,001 values is two: the outlier goes, and the bin of width 100/2048 that ends above 1
 * stays. */
static void test_percentile_leaves_a_ten_thousandth_outside(void **state) {
    enum { N = 20001 };
    float *x = malloc(N * sizeof(*x));
    struct observer *o = malloc(sizeof(*o));

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = (float)(i + 1) / N;
    x[5] = 100;
    observe(o, x, N);
    assert_float_equal(observer_quant(o, OBSERVER_PERCENTILE, DT_U8).scale, 21 * 100.0f / 2048 / 255, 1e-6f);
    for (int i = 0; i < N; i++)
        x[i] = i % 2 ? x[i] : -x[i];
    x[6] = -100;
    observe(o, x, N);
    /* bins of 200/2048: zero lies between two, 1 in the eleventh from there */
    assert_float_equal(observer_quant(o, OBSERVER_PERCENTILE, DT_S8).scale, 11 * 200.0f / 2048 / 127, 1e-6f);
    free(o);
    free(x);
}

/* Recorded from the same definition in numpy, on the same 20,000 numbers. */
static void test_entropy_chooses_what_numpy_chooses(void **state) {
    enum { N = 20000 };
    float *x = malloc(N * sizeof(*x));
    struct observer *o = malloc(sizeof(*o));
    uint32_t random = 7;

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = random_normal(&random);
    x[17] = 12;
    x[18] = -12;
    observe(o, x, N);
    assert_float_equal(observer_quant(o, OBSERVER_ENTROPY, DT_S8).scale, 4.125f / 127, 1e-6f);
    for (int i = 0; i < N; i++)
        x[i] = fabsf(x[i]);
    x[18] = 0;
    observe(o, x, N);
    assert_float_equal(observer_quant(o, OBSERVER_ENTROPY, DT_U8).scale, 3.328125f / 255, 1e-6f);
    free(o);
    free(x);
}

static void test_infinite_values_do_not_spoil_the_scale(void **state) {
    const float x[] = {1, INFINITY, -1, NAN};
    struct observer *o = malloc(sizeof(*o));
    struct quant q;

    (void)state;
    observe(o, x, 4);
    q = observer_quant(o, OBSERVER_MSE, DT_U8);
    assert_true(isfinite(q.scale) && q.scale > 0);
    free(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_is_exactly_representable),
        cmocka_unit_test(test_mse_clips_an_outlier_and_minmax_keeps_it),
        cmocka_unit_test(test_percentile_leaves_a_ten_thousandth_outside),
        cmocka_unit_test(test_entropy_chooses_what_numpy_chooses),
        cmocka_unit_test(test_infinite_values_do_not_spoil_the_scale),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
