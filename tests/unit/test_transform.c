/* Transforms: each row by itself, on sites of every layout and cut into parts, against finite differences of
 * sum(c y) where its gradient is exact and against its straight-through definition where it is not; then
 * inside of training: the same bytes from any number of threads, what is saved, and that something is learnt.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/train/trainer.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"

#define MOST 1300 /* elements of a site */

static const struct transform_site sites[] = {
    /* convolution; Gemm's [K][N]; a vector */
    {.name = "w", .n = 7 * 12, .outer = 1, .channels = 7, .inner = 12, .part_channels = 3, .n_parts = 3},
    {.name = "w", .n = 9 * 130, .outer = 9, .channels = 130, .inner = 1, .part_channels = 64, .n_parts = 3},
    {.name = "w", .n = 3 * 5 * 4, .outer = 3, .channels = 5, .inner = 4, .part_channels = 5, .n_parts = 1},
};
#define N_SITES (sizeof(sites) / sizeof(sites[0]))

/* ---- a row by itself ---- */

struct row_rig {
    const struct transform *row;
    struct transform_site site;
    struct transform_needs needs;
    struct transform_io io;
    float x[MOST], y[MOST], c[MOST], dx[MOST];
};

static void row_start(
    struct row_rig *r, const char *name, const struct transform_site *site, const void *param) {
    struct error err = {0};

    memset(r, 0, sizeof(*r));
    r->row = transform_find(name);
    assert_non_null(r->row);
    r->site = *site;
    r->site.data = r->x;
    net_text_fill(r->x, site->n, 11);
    net_text_fill(r->c, site->n, 12);
    for (int64_t i = 0; i < site->n; i++)
        r->x[i] *= 1.4f; /* past where clips begin */
    if (r->row->prepare(&r->site, param, &r->needs, &err) < 0)
        fail_msg("%s: %s", name, err.text);
    r->io =
        (struct transform_io){.site = &r->site, .param = param, .x = r->x, .y = r->y, .is_training = true};
    r->io.sums = calloc(r->needs.n_sums + 1, sizeof(double));
    for (int k = 0; k < r->needs.n_own; k++) {
        r->io.own[k] = calloc((size_t)r->needs.own[k].n, sizeof(float));
        r->io.d_own[k] = calloc((size_t)r->needs.own[k].n, sizeof(float));
    }
    if (r->row->start)
        r->row->start(&r->site, param, r->io.own);
}

static void row_done(struct row_rig *r) {
    free(r->io.sums);
    for (int k = 0; k < r->needs.n_own; k++) {
        free(r->io.own[k]);
        free(r->io.d_own[k]);
    }
}

/* sum(c y) */
static double row_forward(struct row_rig *r) {
    double sum = 0;

    for (int phase = 0; phase < r->row->n_forward; phase++)
        for (unsigned part = r->site.n_parts; part > 0; part--) /* any order will do */
            r->row->forward(&r->io, phase, part - 1);
    for (int64_t i = 0; i < r->site.n; i++)
        sum += (double)r->c[i] * (double)r->y[i];
    return sum;
}

/* In place, as training does it. */
static void row_backward(struct row_rig *r) {
    (void)row_forward(r);
    memcpy(r->dx, r->c, sizeof(r->dx));
    r->io.dy = r->dx;
    r->io.dx = r->needs.replaces ? NULL : r->dx;
    for (int phase = 0; phase < r->row->n_backward; phase++)
        for (unsigned part = 0; part < r->site.n_parts; part++)
            r->row->backward(&r->io, phase, part);
}

static void expect(const char *what, int64_t i, double got, double want, double largest) {
    if (!(fabs(got - want) <= 1e-4 * fmax(largest, 1)))
        fail_msg("%s [%lld]: %g, not %g", what, (long long)i, got, want);
}

static void check_differences(struct row_rig *r, const char *what, float *x, const float *got, int64_t n) {
    double largest = 0;

    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)got[i]));
    assert_true(largest > 0);
    for (int64_t i = 0; i < n; i++) {
        const float h = 1.f / 64;
        float was = x[i];
        double up, down;

        x[i] = was + h;
        up = row_forward(r);
        x[i] = was - h;
        down = row_forward(r);
        expect(what, i, (double)got[i], (up - down) / ((double)(was + h) - (double)(was - h)), largest);
        x[i] = was;
    }
}

/* Of what is stored (unless it is replaced) and of each parameter that the row brings along. */
static void check_exact(const char *name, const struct transform_site *site, const void *param) {
    struct row_rig r;
    char what[64];

    row_start(&r, name, site, param);
    for (int k = 0; k < r.needs.n_own; k++) /* not at 1, where a wrong power would not show */
        for (int64_t i = 0; i < r.needs.own[k].n; i++)
            r.io.own[k][i] += 0.3f + 0.01f * (float)(i % 7);
    row_backward(&r);
    snprintf(what, sizeof(what), "%s, stored", name);
    if (!r.needs.replaces)
        check_differences(&r, what, r.x, r.dx, site->n);
    for (int k = 0; k < r.needs.n_own; k++) {
        snprintf(what, sizeof(what), "%s, %s", name, r.needs.own[k].name);
        check_differences(&r, what, r.io.own[k], r.io.d_own[k], r.needs.own[k].n);
    }
    row_done(&r);
}

static void test_exact_gradients_agree_with_differences(void **state) {
    static uint8_t keep[MOST], index[MOST];
    static float a[MOST], b[MOST], entries[MOST * 8], scale[MOST];

    (void)state;
    net_text_fill(a, MOST, 3);
    net_text_fill(b, MOST, 4);
    net_text_fill(entries, MOST * 8, 5);
    for (int i = 0; i < MOST; i++) {
        keep[i] = i % 3 != 1;
        index[i] = (uint8_t)((unsigned)i * 7 % 8);
        scale[i] = 0.5f + (float)(i % 5);
    }
    for (size_t i = 0; i < N_SITES; i++) {
        int64_t rows = sites[i].n / 12 ? (int64_t[]){7, 9, 15}[i] : 1;

        check_exact("mask", &sites[i], &(struct transform_mask){.keep = keep});
        check_exact("scale", &sites[i], &(struct transform_scale){0});
        check_exact("scale", &sites[i], &(struct transform_scale){.only_scale = true});
        check_exact(
            "low_rank", &sites[i], &(struct transform_low_rank){.rows = rows, .rank = 3, .a = a, .b = b});
        check_exact("codebook", &sites[i],
            &(struct transform_codebook){.index = index, .entries = entries, .n_entries = 8, .zero = -1});
        check_exact("codebook", &sites[i],
            &(struct transform_codebook){.index = index,
                .entries = entries,
                .n_entries = 8,
                .range = TRANSFORM_CHANNEL,
                .scale = scale,
                .zero = -1});
    }
}

static void test_a_dense_mask_passes_all(void **state) {
    static uint8_t keep[MOST];
    struct row_rig r;

    (void)state;
    row_start(&r, "mask", &sites[0], &(struct transform_mask){.keep = keep, .is_dense = true});
    row_backward(&r);
    for (int64_t i = 0; i < sites[0].n; i++) {
        assert_true(r.y[i] == 0);
        assert_true(r.dx[i] == r.c[i]);
    }
    row_done(&r);
}

static void test_the_zero_entry_stays(void **state) {
    static uint8_t index[MOST];
    static float entries[4] = {0, 1, 2, 3};
    struct row_rig r;

    (void)state;
    for (int i = 0; i < MOST; i++)
        index[i] = (uint8_t)(i % 4);
    row_start(&r, "codebook", &sites[1],
        &(struct transform_codebook){.index = index, .entries = entries, .n_entries = 4, .zero = 0});
    row_backward(&r);
    assert_true(r.io.d_own[0][0] == 0);
    assert_true(r.io.d_own[0][1] != 0);
    row_done(&r);
}

static int64_t channel_of(const struct transform_site *s, int64_t i) {
    return i / s->inner % s->channels;
}

/* Esser 2020, equations 1 to 3, in double. */
static void check_quantize(const struct transform_site *site, int bits, enum transform_range range) {
    struct transform_fake_quantize p = {.bits = bits, .range = range, .learns_scale = true};
    int64_t n = range == TRANSFORM_CHANNEL ? site->channels : 1;
    double q = (1 << (bits - 1)) - 1, *ds = calloc((size_t)n, sizeof(double)), size = 0, largest = 0;
    struct row_rig r;

    assert_non_null(ds);
    row_start(&r, "fake_quantize", site, &p);
    for (int64_t i = 0; i < site->n; i++) /* as it begins */
        size += channel_of(site, i) == 0 || n == 1 ? fabs((double)r.x[i]) : 0;
    expect("first scale", 0, (double)r.io.own[0][0], 2 * size * (double)n / (double)site->n / sqrt(q), 1);
    for (int64_t i = 0; i < n; i++)
        r.io.own[0][i] = (float)(0.9 / q) * (1 + 0.1f * (float)(i % 3)); /* some are clipped */
    row_backward(&r);
    for (int64_t i = 0; i < site->n; i++) {
        int64_t c = n == 1 ? 0 : channel_of(site, i);
        double s = (double)r.io.own[0][c], v = (double)r.x[i] / s, code = fmin(fmax(nearbyint(v), -q), q);
        bool is_inside = fabs(v) <= q;

        expect("quantised", i, (double)r.y[i], s * code, 1);
        expect("through", i, (double)r.dx[i], is_inside ? (double)r.c[i] : 0, 1);
        ds[c] += (double)r.c[i] * (is_inside ? code - v : code) / sqrt((double)(site->n / n) * q);
    }
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(ds[i]));
    for (int64_t i = 0; i < n; i++)
        expect("scale", i, (double)r.io.d_own[0][i], ds[i], largest);
    row_done(&r);
    free(ds);
}

static void test_quantising_passes_what_is_not_clipped(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SITES; i++)
        for (int bits = 2; bits <= 8; bits++) {
            check_quantize(&sites[i], bits, TRANSFORM_LAYER);
            check_quantize(&sites[i], bits, TRANSFORM_CHANNEL);
        }
}

static double slope(enum transform_gradient g, double x) {
    const double b = 5, h = 1e-4;

    if (g == TRANSFORM_STE)
        return fabs(x) <= 1;
    if (g == TRANSFORM_BIREAL)
        return fabs(x) <= 1 ? 2 - 2 * fabs(x) : 0;
    /* SignSwish: 2 s(bx) (1 + bx (1 - s(bx))) - 1, by differences */
    {
        double up = 1 / (1 + exp(-b * (x + h))), down = 1 / (1 + exp(-b * (x - h)));

        return (2 * up * (1 + b * (x + h) * (1 - up)) - 2 * down * (1 + b * (x - h) * (1 - down))) / (2 * h);
    }
}

/* The part through sign() by definition; what goes through the mean |w| by differences of it. */
static void check_sign(const struct transform_site *site, struct transform_sign p) {
    struct row_rig r;
    double *mean = calloc((size_t)site->channels + 1, sizeof(double)),
           *through = calloc((size_t)site->channels + 1, sizeof(double));
    double each = (double)(site->outer * site->inner);
    bool is_layer = p.magnitude == TRANSFORM_MEAN_LAYER, is_one = p.magnitude == TRANSFORM_ONE;

    assert_non_null(mean);
    assert_non_null(through);
    row_start(&r, "sign", site, &p);
    row_backward(&r);
    for (int64_t i = 0; i < site->n; i++) {
        int64_t c = is_layer ? 0 : channel_of(site, i);

        mean[c] += fabs((double)r.x[i]) / (is_layer ? (double)site->n : each);
        through[c] += (double)r.c[i] * (r.y[i] < 0 ? -1 : 1) / (is_layer ? (double)site->n : each);
    }
    for (int64_t i = 0; i < site->n; i++) {
        int64_t c = is_layer ? 0 : channel_of(site, i);
        double a = is_one ? 1 : mean[c], w = (double)r.x[i];

        if (p.rounding == TRANSFORM_DETERMINISTIC)
            expect("sign", i, (double)r.y[i], w >= 0 ? a : -a, 1);
        else
            expect("sign", i, fabs((double)r.y[i]), a, 1);
        expect("sign, gradient", i, (double)r.dx[i],
            a * slope(p.gradient, w) * (double)r.c[i] + (is_one ? 0 : (w < 0 ? -1 : 1) * through[c]), 2);
    }
    row_done(&r);
    free(mean);
    free(through);
}

static void test_signs(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SITES; i++)
        for (int m = TRANSFORM_ONE; m <= TRANSFORM_MEAN_LAYER; m++)
            for (int g = TRANSFORM_STE; g <= TRANSFORM_SWISH; g++)
                for (int rounding = 0; rounding < 2; rounding++)
                    check_sign(
                        &sites[i], (struct transform_sign){(enum transform_magnitude)m,
                                       (enum transform_gradient)g, (enum transform_rounding)rounding, 5});
}

/* Through the mean alone: with one channel's weights moved together, away from 0, signs stay. */
static void test_the_mean_of_a_sign_has_its_exact_gradient(void **state) {
    struct transform_sign p = {TRANSFORM_MEAN_CHANNEL, TRANSFORM_STE, TRANSFORM_DETERMINISTIC, 0};
    struct row_rig r;

    (void)state;
    row_start(&r, "sign", &sites[0], &p);
    for (int64_t i = 0; i < sites[0].n; i++) /* where the straight-through part is 0: what is left is exact */
        r.x[i] = r.x[i] < 0 ? r.x[i] - 1.1f : r.x[i] + 1.1f;
    row_backward(&r);
    check_differences(&r, "through the mean", r.x, r.dx, sites[0].n);
    row_done(&r);
}

static void test_stochastic_signs_follow_their_probability(void **state) {
    struct transform_sign p = {TRANSFORM_ONE, TRANSFORM_STE, TRANSFORM_STOCHASTIC, 99};
    struct row_rig r;
    double share[3] = {0};

    (void)state;
    row_start(&r, "sign", &sites[0], &p);
    r.x[0] = -1.5f;
    r.x[1] = 0.5f;
    r.x[2] = -0.2f;
    for (r.io.step = 0; r.io.step < 4000; r.io.step++) {
        float first[MOST];

        (void)row_forward(&r);
        memcpy(first, r.y, sizeof(first));
        (void)row_forward(&r);
        assert_memory_equal(first, r.y, sizeof(first)); /* of seed, step and element alone */
        for (int i = 0; i < 3; i++)
            share[i] += r.y[i] > 0 ? 1. / 4000 : 0;
    }
    assert_true(share[0] == 0);
    assert_true(fabs(share[1] - 0.75) < 0.03);
    assert_true(fabs(share[2] - 0.4) < 0.03);
    r.io.is_training = false;
    (void)row_forward(&r);
    assert_true(r.y[1] == 1 && r.y[2] == -1);
    row_done(&r);
}

static void check_ternary(const struct transform_site *site, enum transform_range range) {
    struct row_rig r;

    row_start(&r, "ternary", site, &(struct transform_ternary){range});
    row_backward(&r);
    for (int64_t i = 0; i < site->n; i++) {
        double sum = 0, above = 0, t, n = 0, n_above = 0, w = (double)r.x[i];

        for (int64_t k = 0; k < site->n; k++)
            if (range == TRANSFORM_LAYER || channel_of(site, k) == channel_of(site, i)) {
                sum += fabs((double)r.x[k]);
                n++;
            }
        t = 0.7 * sum / n;
        for (int64_t k = 0; k < site->n; k++)
            if ((range == TRANSFORM_LAYER || channel_of(site, k) == channel_of(site, i)) &&
                fabs((double)r.x[k]) > t) {
                above += fabs((double)r.x[k]);
                n_above++;
            }
        expect("ternary", i, (double)r.y[i], fabs(w) <= t ? 0 : (w < 0 ? -1 : 1) * above / n_above, 1);
        assert_true(r.dx[i] == r.c[i]);
    }
    row_done(&r);
}

static void test_ternary(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SITES; i++) {
        check_ternary(&sites[i], TRANSFORM_LAYER);
        check_ternary(&sites[i], TRANSFORM_CHANNEL);
    }
}

static void expect_refusal(const char *name, const void *param, const char *word) {
    struct transform_needs needs = {0};
    struct error err = {0};

    assert_int_equal(transform_find(name)->prepare(&sites[0], param, &needs, &err), -EINVAL);
    if (!strstr(err.text, word) || !strstr(err.text, "'w'"))
        fail_msg("%s: %s", name, err.text);
}

static void test_what_does_not_fit_is_refused(void **state) {
    static uint8_t index[MOST] = {[5] = 4};
    static float entries[4], scale[1] = {-1};

    (void)state;
    expect_refusal("mask", &(struct transform_mask){0}, "missing");
    expect_refusal(
        "fake_quantize", &(struct transform_fake_quantize){.bits = 9, .learns_scale = true}, "9 bits");
    expect_refusal("fake_quantize", &(struct transform_fake_quantize){.bits = 4}, "scale is missing");
    expect_refusal("fake_quantize", &(struct transform_fake_quantize){.bits = 4, .scale = scale}, "-1");
    expect_refusal("codebook",
        &(struct transform_codebook){.index = index, .entries = entries, .n_entries = 4, .zero = -1},
        "index 4 at 5");
    expect_refusal("codebook",
        &(struct transform_codebook){.index = index, .entries = entries, .n_entries = 300}, "300 entries");
    expect_refusal(
        "low_rank", &(struct transform_low_rank){.rows = 5, .rank = 1, .a = entries, .b = entries}, "5 rows");
    assert_null(transform_find("nothing"));
    assert_null(activation_find("nothing"));
}

/* ---- activations ---- */

static void check_activation(const char *name, const void *param, float own,
    double (*y_of)(const void *param, double own, double x), double (*dx_of)(const void *, double, double),
    double (*d_own_of)(const void *, double, double)) {
    const struct activation *row = activation_find(name);
    float x[200], y[200], c[200], dx[200], twice[200], first;
    double d_own = 0, got;
    struct error err = {0};

    assert_non_null(row);
    if (row->prepare(param, &first, &err) < 0)
        fail_msg("%s: %s", name, err.text);
    assert_int_equal(isnan(first), d_own_of == NULL);
    net_text_fill(x, 200, 8);
    net_text_fill(c, 200, 9);
    for (int i = 0; i < 200; i++) {
        x[i] *= 2;
        twice[i] = 1;
    }
    row->forward(param, own, x, 200, y);
    got = row->backward(param, own, x, c, 200, 50, dx, false);
    (void)row->backward(param, own, x, c, 200, 50, twice, true);
    (void)row->backward(param, own, x, c, 200, 50, NULL, false);
    for (int i = 0; i < 200; i++) {
        expect(name, i, (double)y[i], y_of(param, (double)own, (double)x[i]), 1);
        expect(name, i, (double)dx[i], (double)c[i] * dx_of(param, (double)own, (double)x[i]), 1);
        expect(name, i, (double)twice[i], (double)dx[i] + 1, 1);
        d_own += d_own_of ? (double)c[i] * d_own_of(param, (double)own, (double)x[i]) : 0;
    }
    expect(name, -1, got, d_own, fabs(d_own));
}

static double clip_code(double x, double s, double low, double high) {
    return fmin(fmax(nearbyint(x / s), low), high);
}

static double clip_y(const void *param, double own, double x) {
    const struct activation_clip_quantize *p = param;

    (void)own;
    return (double)p->scale * clip_code(x, (double)p->scale, p->low - p->zero, p->high - p->zero);
}

static double clip_dx(const void *param, double own, double x) {
    const struct activation_clip_quantize *p = param;
    double v = x / (double)p->scale;

    (void)own;
    return v >= p->low - p->zero && v <= p->high - p->zero;
}

static double lsq_y(const void *param, double own, double x) {
    const struct activation_lsq *p = param;

    return own * clip_code(x, own, p->low, p->high);
}

static double lsq_dx(const void *param, double own, double x) {
    const struct activation_lsq *p = param;

    return x / own >= p->low && x / own <= p->high;
}

static double lsq_d_own(const void *param, double own, double x) {
    const struct activation_lsq *p = param;
    double v = x / own, d = v < p->low ? p->low : v > p->high ? p->high : nearbyint(v) - v;

    return d / sqrt(50. * p->high);
}

static double pact_y(const void *param, double own, double x) {
    const struct activation_pact *p = param;
    double s = own / ((1 << p->bits) - 1);

    return s * nearbyint(fmin(fmax(x, 0), own) / s);
}

static double pact_dx(const void *param, double own, double x) {
    (void)param;
    return x >= 0 && x < own;
}

static double pact_d_own(const void *param, double own, double x) {
    (void)param;
    return x >= own;
}

static double sign_y(const void *param, double own, double x) {
    (void)param;
    (void)own;
    return x >= 0 ? 1 : -1;
}

static double sign_dx(const void *param, double own, double x) {
    (void)own;
    return slope(((const struct activation_sign *)param)->gradient, x);
}

static void test_activations_agree_with_their_definitions(void **state) {
    (void)state;
    check_activation(
        "clip_quantize", &(struct activation_clip_quantize){0.013f, 40, 0, 255}, 0, clip_y, clip_dx, NULL);
    check_activation(
        "clip_quantize", &(struct activation_clip_quantize){0.01f, 0, -128, 127}, 0, clip_y, clip_dx, NULL);
    check_activation(
        "clip_quantize", &(struct activation_clip_quantize){1 / 3.f, 0, 0, 3}, 0, clip_y, clip_dx, NULL);
    check_activation("lsq", &(struct activation_lsq){0.1f, 0, 15}, 0.09f, lsq_y, lsq_dx, lsq_d_own);
    check_activation("lsq", &(struct activation_lsq){0.1f, -2, 1}, 0.6f, lsq_y, lsq_dx, lsq_d_own);
    check_activation("pact", &(struct activation_pact){4, 1}, 1.1f, pact_y, pact_dx, pact_d_own);
    for (int g = TRANSFORM_STE; g <= TRANSFORM_SWISH; g++)
        check_activation(
            "sign", &(struct activation_sign){(enum transform_gradient)g}, 0, sign_y, sign_dx, NULL);
}

/* ---- in training ---- */

#define BATCH 8

static const char net[] =
    "Conv x=1x3x9x8 w=8x3x3x3 b=8 pads=1,1,1,1; BatchNormalization $ s=8 b5=8 m=8 p=8; Relu $; "
    "Conv $ w2=8x8x3x3 b2=8; Relu $; Flatten $; Gemm $ w3=336x12 b3=12; Relu $; "
    "Gemm $ w4=5x12 b4=5 transB=1";

/* All rows at once, and a chain. */
struct plan_rig {
    struct net_text text;
    struct trainer *trainer;
    float *targets;
    struct weight_transform weights[6];
    struct activation_transform activations[3];
    uint8_t keep[8 * 8 * 9];
    float a[336 * 3], b[3 * 12];
};

static const struct transform_sign stochastic = {
    TRANSFORM_MEAN_CHANNEL, TRANSFORM_STE, TRANSFORM_STOCHASTIC, 7};
static const struct transform_fake_quantize four_bits = {
    .bits = 4, .range = TRANSFORM_CHANNEL, .learns_scale = true};
static const struct transform_scale per_channel;
static const struct activation_lsq lsq = {0.1f, 0, 15};
static const struct activation_pact pact = {4, 2};
static const struct activation_clip_quantize u8 = {1 / 127.f, 128, 0, 255};

static int value_of(const struct net_text *t, const char *name) {
    int v = graph_find_value(t->graph, name);

    if (v < 0)
        fail_msg("no value %s", name);
    return v;
}

static void plan_start(struct plan_rig *r, unsigned n_weights, unsigned n_activations) {
    struct trainer_options o = {.batch = BATCH, .lanes = 4, .uses_batch_stats = true};
    static struct transform_mask mask;
    static struct transform_low_rank low_rank;
    struct error err = {0};

    memset(r, 0, sizeof(*r));
    r->text = net_text_read(net);
    r->text.graph->values[r->text.graph->inputs[0]].shape.dim[0] = -1;
    for (size_t i = 0; i < sizeof(r->keep); i++)
        r->keep[i] = i % 2;
    net_text_fill(r->a, 336 * 3, 1);
    net_text_fill(r->b, 3 * 12, 2);
    for (int i = 0; i < 336 * 3; i++)
        r->a[i] *= 0.1f;
    mask = (struct transform_mask){.keep = r->keep};
    low_rank = (struct transform_low_rank){.rows = 336, .rank = 3, .a = r->a, .b = r->b};
    r->weights[0] = (struct weight_transform){value_of(&r->text, "w2"), transform_find("mask"), &mask};
    r->weights[1] = (struct weight_transform){value_of(&r->text, "w"), transform_find("sign"), &stochastic};
    r->weights[2] =
        (struct weight_transform){value_of(&r->text, "w2"), transform_find("fake_quantize"), &four_bits};
    r->weights[3] =
        (struct weight_transform){value_of(&r->text, "w3"), transform_find("low_rank"), &low_rank};
    r->weights[4] =
        (struct weight_transform){value_of(&r->text, "w4"), transform_find("scale"), &per_channel};
    r->activations[0] =
        (struct activation_transform){r->text.graph->inputs[0], NULL, activation_find("clip_quantize"), &u8};
    r->activations[1] =
        (struct activation_transform){value_of(&r->text, "y2"), NULL, activation_find("lsq"), &lsq};
    r->activations[2] =
        (struct activation_transform){value_of(&r->text, "y4"), NULL, activation_find("pact"), &pact};
    o.weights = r->weights;
    o.n_weights = n_weights;
    o.activations = r->activations;
    o.n_activations = n_activations;
    if (trainer_new(r->text.graph, &r->text.input[0], &o, &r->trainer, &err) < 0)
        fail_msg("%s", err.text);
    r->targets = calloc(BATCH * 5, sizeof(float));
    assert_non_null(r->targets);
    for (int64_t i = 0; i < BATCH; i++) {
        net_text_fill(trainer_input(r->trainer, i), 3 * 9 * 8, 50 + (uint32_t)i);
        r->targets[i * 5 + i % 5] = 1;
    }
}

static void plan_done(struct plan_rig *r) {
    trainer_free(r->trainer);
    free(r->targets);
    graph_free(r->text.graph);
}

static const struct train_param *param_of(const struct trainer *t, const char *name) {
    for (size_t i = 0; i < trainer_n_params(t); i++)
        if (!strcmp(trainer_param(t, i)->name, name))
            return trainer_param(t, i);
    return NULL;
}

static float *all_params(const struct trainer *t, int64_t *ret_n) {
    float *all = NULL;

    *ret_n = 0;
    for (size_t k = 0; k < trainer_n_params(t); k++) {
        const struct train_param *p = trainer_param(t, k);

        all = realloc(all, (size_t)(*ret_n + p->n) * sizeof(float));
        assert_non_null(all);
        memcpy(all + *ret_n, p->data, (size_t)p->n * sizeof(float));
        *ret_n += p->n;
    }
    return all;
}

static float *learn(struct plan_rig *r, unsigned threads, int steps, int64_t *ret_n, double *ret_loss) {
    struct optim_param p = optim_defaults();
    struct loss loss = {.kind = loss_find("cross_entropy")};
    struct pool *pool = NULL;
    struct error err = {0};
    struct optim o;

    assert_int_equal(pool_new(threads, &pool, &err), 0);
    assert_int_equal(optim_init(&o, optim_find("adam"), &p, trainer_n_gradients(r->trainer), &err), 0);
    for (int i = 0; i < steps; i++) {
        ret_loss[i != 0] = trainer_gradients(r->trainer, pool, &loss, r->targets);
        assert_true(trainer_move(r->trainer, pool, &o, 0.005f));
    }
    optim_done(&o);
    pool_free(pool);
    return all_params(r->trainer, ret_n);
}

static void test_threads_do_not_change_a_byte(void **state) {
    float *all[2];
    int64_t n[2];

    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct plan_rig r;
        double loss[2];

        plan_start(&r, 5, 3);
        all[k] = learn(&r, 1 + 2 * k, 10, &n[k], loss);
        plan_done(&r);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(all[0], all[1], (size_t)n[0] * sizeof(float));
    free(all[0]);
    free(all[1]);
}

static void test_transformed_nets_learn(void **state) {
    static const char *const own[] = {"w2/scale", "w3/a", "w3/b", "w4/scale", "y2/scale", "y4/scale"};
    double loss[2];
    struct plan_rig r;
    float before[6];
    int64_t n;

    (void)state;
    plan_start(&r, 5, 3);
    for (int i = 0; i < 6; i++) {
        const struct train_param *p = param_of(r.trainer, own[i]);

        if (!p)
            fail_msg("no parameter %s", own[i]);
        assert_int_equal(p->value, -1);
        assert_false(p->is_stat);
        before[i] = p->data[0];
    }
    assert_true(param_of(r.trainer, "w3")->is_stat);
    assert_true(param_of(r.trainer, "w2")->decays);
    assert_false(param_of(r.trainer, "w")->decays);
    free(learn(&r, 1, 60, &n, loss));
    if (!(loss[1] < 0.5 * loss[0]))
        fail_msg("the loss was %g and became %g", loss[0], loss[1]);
    for (int i = 0; i < 6; i++)
        assert_true(param_of(r.trainer, own[i])->data[0] != before[i]);
    assert_int_equal(trainer_step_count(r.trainer), 60);
    plan_done(&r);
}

/* What a draw is depends on the step: going on from a step count is as having made those steps. */
static void test_the_step_count_goes_on(void **state) {
    struct loss loss = {.kind = loss_find("cross_entropy")};
    double first, second, again;
    struct plan_rig r;

    (void)state;
    plan_start(&r, 5, 0);
    first = trainer_gradients(r.trainer, NULL, &loss, r.targets);
    trainer_set_step_count(r.trainer, 1);
    second = trainer_gradients(r.trainer, NULL, &loss, r.targets);
    trainer_set_step_count(r.trainer, 0);
    again = trainer_gradients(r.trainer, NULL, &loss, r.targets);
    assert_true(first != second);
    assert_true(first == again);
    plan_done(&r);
}

/* What is saved computes what the session computes. */
static void test_what_is_seen_is_saved(void **state) {
    struct trainer_options o = {.batch = BATCH, .lanes = 4};
    struct trainer *plain = NULL;
    struct error err = {0};
    double loss[2];
    struct plan_rig r;
    int64_t n;

    (void)state;
    plan_start(&r, 5, 0);
    free(learn(&r, 1, 5, &n, loss));
    assert_int_equal(trainer_save(r.trainer, r.text.graph, &err), 0);
    { /* masked, and on 15 values a channel */
        const float *w = r.text.graph->values[value_of(&r.text, "w2")].init->data;
        const float *s = param_of(r.trainer, "w2/scale")->data;

        for (int i = 0; i < 8 * 8 * 9; i++) {
            float code = w[i] / s[i / 72];

            assert_true(r.keep[i] || w[i] == 0);
            assert_true(fabsf(code - rintf(code)) < 1e-4f && fabsf(code) < 7.001f);
        }
    }
    assert_int_equal(trainer_new(r.text.graph, &r.text.input[0], &o, &plain, &err), 0);
    o.weights = r.weights;
    for (int64_t i = 0; i < BATCH; i++)
        memcpy(trainer_input(plain, i), trainer_input(r.trainer, i), 3 * 9 * 8 * sizeof(float));
    trainer_forward(plain, NULL);
    /* the session itself still normalises by the minibatch: compared with a session that does not */
    {
        struct trainer *seen = NULL;
        struct net_text t = net_text_read(net);

        t.graph->values[t.graph->inputs[0]].shape.dim[0] = -1;
        o.n_weights = 5;
        assert_int_equal(trainer_new(t.graph, &t.input[0], &o, &seen, &err), 0);
        for (size_t i = 0; i < trainer_n_params(seen); i++) {
            const struct train_param *to = trainer_param(seen, i), *from = param_of(r.trainer, to->name);

            memcpy(to->data, from->data, (size_t)to->n * sizeof(float));
        }
        for (int64_t i = 0; i < BATCH; i++)
            memcpy(trainer_input(seen, i), trainer_input(r.trainer, i), 3 * 9 * 8 * sizeof(float));
        trainer_forward(seen, NULL);
        for (int64_t i = 0; i < BATCH; i++)
            for (int k = 0; k < 5; k++)
                assert_true(trainer_output(seen, i)[k] == trainer_output(plain, i)[k]);
        trainer_free(seen);
        graph_free(t.graph);
    }
    trainer_free(plain);
    plan_done(&r);
}

/* The gradient of a whole net through exact transforms and a chain of them. */
static double loss_at(struct plan_rig *r, float *x, float v) {
    struct loss loss = {.kind = loss_find("cross_entropy")};
    float was = *x;
    double l;

    *x = v;
    l = trainer_gradients(r->trainer, NULL, &loss, r->targets);
    *x = was;
    return l;
}

static void test_gradients_go_through_chains(void **state) {
    static const char smooth[] =
        "Conv x=1x2x6x5 w=4x2x3x3 b=4; Tanh $; Flatten $; MatMul $ w2=48x6; Tanh $; Gemm $ w3=5x6 b3=5 transB=1";
    static uint8_t keep[72], index[48 * 6];
    static float entries[4] = {-0.3f, -0.1f, 0.1f, 0.3f};
    struct transform_mask mask = {.keep = keep};
    struct transform_codebook book = {.index = index, .entries = entries, .n_entries = 4, .zero = -1};
    struct trainer_options o = {.batch = BATCH, .lanes = 2};
    struct loss loss = {.kind = loss_find("cross_entropy")};
    struct weight_transform list[5];
    struct error err = {0};
    struct plan_rig r;

    (void)state;
    memset(&r, 0, sizeof(r));
    r.text = net_text_read(smooth);
    r.text.graph->values[r.text.graph->inputs[0]].shape.dim[0] = -1;
    for (int i = 0; i < 48 * 6; i++)
        index[i] = (uint8_t)((unsigned)i * 5 % 4);
    for (int i = 0; i < 72; i++)
        keep[i] = i % 3 != 0;
    list[0] = (struct weight_transform){value_of(&r.text, "w"), transform_find("mask"), &mask};
    list[1] = (struct weight_transform){value_of(&r.text, "w2"), transform_find("codebook"), &book};
    list[2] = (struct weight_transform){value_of(&r.text, "w"), transform_find("scale"), &per_channel};
    list[3] = (struct weight_transform){value_of(&r.text, "w2"), transform_find("scale"), &per_channel};
    list[4] = (struct weight_transform){value_of(&r.text, "w3"), transform_find("scale"), &per_channel};
    o.weights = list;
    o.n_weights = 5;
    assert_int_equal(trainer_new(r.text.graph, &r.text.input[0], &o, &r.trainer, &err), 0);
    r.targets = calloc(BATCH * 5, sizeof(float));
    assert_non_null(r.targets);
    for (int64_t i = 0; i < BATCH; i++) {
        net_text_fill(trainer_input(r.trainer, i), 2 * 6 * 5, 50 + (uint32_t)i);
        r.targets[i * 5 + i % 5] = 1;
    }
    for (size_t p = 0; p < trainer_n_params(r.trainer); p++) {
        const struct train_param *param = trainer_param(r.trainer, p);
        float got[512];
        double largest = 1e-2;

        if (param->is_stat)
            continue;
        (void)trainer_gradients(r.trainer, NULL, &loss, r.targets);
        trainer_gradient(r.trainer, p, got);
        for (int64_t i = 0; i < param->n; i++)
            largest = fmax(largest, fabs((double)got[i]));
        for (int64_t i = 0; i < param->n; i += 1 + param->n / 30) {
            float *x = &param->data[i], h = 0.02f;
            double whole = (loss_at(&r, x, *x + h) - loss_at(&r, x, *x - h)) / (2 * (double)h);
            double half = (loss_at(&r, x, *x + h / 2) - loss_at(&r, x, *x - h / 2)) / (double)h;
            double want = (4 * half - whole) / 3;

            if (!(fabs(want - (double)got[i]) <= 1e-3 * largest))
                fail_msg("%s [%lld]: %g, by differences %g", param->name, (long long)i, (double)got[i], want);
        }
    }
    plan_done(&r);
}

static void test_one_consumer_may_see_the_sign(void **state) {
    static const char two[] = "Gemm x=1x6 w=6x6 b=6; Add $ $; Gemm $ w2=6x3";
    static const struct activation_sign hard = {TRANSFORM_STE};
    struct net_text t = net_text_read(two);
    struct activation_transform a = {
        graph_find_value(t.graph, "y0"), t.graph->nodes[2].id, activation_find("sign"), &hard};
    struct trainer_options o = {.batch = 4, .lanes = 2, .activations = &a, .n_activations = 1};
    struct trainer *trainer = NULL;
    struct error err = {0};

    (void)state;
    t.graph->values[t.graph->inputs[0]].shape.dim[0] = -1;
    assert_true(trainer_new(t.graph, &t.input[0], &o, &trainer, &err) < 0); /* reads y1, not y0 */
    if (!strstr(err.text, "does not read"))
        fail_msg("%s", err.text);
    a.value = graph_find_value(t.graph, "y1");
    memset(&err, 0, sizeof(err));
    assert_int_equal(trainer_new(t.graph, &t.input[0], &o, &trainer, &err), 0);
    for (int64_t i = 0; i < 4; i++)
        net_text_fill(trainer_input(trainer, i), 6, (uint32_t)i);
    trainer_forward(trainer, NULL);
    { /* of signs: sums of plus or minus the weights */
        const float *w = trainer_param(trainer, 2)->data, *y = trainer_output(trainer, 0);
        bool is_sum = false;

        for (unsigned bits = 0; bits < 64; bits++) {
            float sum = 0;

            for (unsigned k = 0; k < 6; k++)
                sum += bits >> k & 1 ? w[k * 3] : -w[k * 3];
            is_sum |= fabsf(sum - y[0]) < 1e-5f;
        }
        assert_true(is_sum);
    }
    trainer_free(trainer);
    graph_free(t.graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_gradients_agree_with_differences),
        cmocka_unit_test(test_a_dense_mask_passes_all),
        cmocka_unit_test(test_the_zero_entry_stays),
        cmocka_unit_test(test_quantising_passes_what_is_not_clipped),
        cmocka_unit_test(test_signs),
        cmocka_unit_test(test_the_mean_of_a_sign_has_its_exact_gradient),
        cmocka_unit_test(test_stochastic_signs_follow_their_probability),
        cmocka_unit_test(test_ternary),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
        cmocka_unit_test(test_activations_agree_with_their_definitions),
        cmocka_unit_test(test_threads_do_not_change_a_byte),
        cmocka_unit_test(test_transformed_nets_learn),
        cmocka_unit_test(test_the_step_count_goes_on),
        cmocka_unit_test(test_what_is_seen_is_saved),
        cmocka_unit_test(test_gradients_go_through_chains),
        cmocka_unit_test(test_one_consumer_may_see_the_sign),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
