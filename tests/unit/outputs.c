#include "tests/unit/outputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/probe.h"
#include "tests/unit/cmocka_all.h"

struct outputs {
    float *data;
    int64_t n;
};

static void on_output(void *ctx, size_t k, const struct tensor *y) {
    struct outputs *o = ctx;
    int64_t n = 0;

    (void)k;
    assert_true(shape_count(&y->shape, &n));
    o->data = realloc(o->data, (size_t)(o->n + n) * sizeof(float));
    assert_non_null(o->data);
    memcpy(o->data + o->n, y->data, (size_t)n * sizeof(float));
    o->n += n;
}

static void measure(
    const struct graph *a, const struct graph *b, const struct samples *s, double *ret_apart, double *ret_b) {
    struct outputs x = {0}, y = {0};

    assert_int_equal(probe_run(a, a->outputs, 1, s, NULL, on_output, &x, NULL), 0);
    assert_int_equal(probe_run(b, b->outputs, 1, s, NULL, on_output, &y, NULL), 0);
    assert_int_equal(x.n, y.n);
    *ret_apart = *ret_b = 0;
    for (int64_t i = 0; i < x.n; i++) {
        *ret_apart += ((double)x.data[i] - (double)y.data[i]) * ((double)x.data[i] - (double)y.data[i]);
        *ret_b += (double)y.data[i] * (double)y.data[i];
    }
    free(x.data);
    free(y.data);
}

double outputs_distance(const struct graph *a, const struct graph *b, const struct samples *s) {
    double apart, all;

    measure(a, b, s, &apart, &all);
    return sqrt(apart);
}

double outputs_relative_distance(const struct graph *a, const struct graph *b, const struct samples *s) {
    double apart, all;

    measure(a, b, s, &apart, &all);
    return sqrt(apart / all);
}
