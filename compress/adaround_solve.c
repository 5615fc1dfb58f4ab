#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/adaround.h"
#include "compress/linalg.h"

#define RATE      0.01f
#define LAMBDA    0.3f /* of a weight, where turning one round costs 1 on the average */
#define WARM      0.2  /* share of the steps before rounding is asked for */
#define BETA_HIGH 20.0
#define BETA_LOW  2.0
#define SWEEPS    4
#define STRETCH   1.2f /* zeta - gamma */
#define BELOW     0.1f /* - gamma */

struct solver {
    const struct adaround_problem *p;
    int64_t n;          /* rows k */
    float *v, *m1, *m2; /* what is moved, and Adam's moments */
    float *low;         /* floor(w / s) */
    float *w;           /* W~ */
    float *residual;    /* W~ g - c */
    float normal;       /* 1 / mean of s² g_ii */
};

static void solver_done(struct solver *s) {
    free(s->v);
    free(s->m1);
    free(s->m2);
    free(s->low);
    free(s->w);
    free(s->residual);
}

static float sigmoid(float v) {
    return 1 / (1 + expf(-v));
}

static float rectified(float v) {
    return fminf(fmaxf(STRETCH * sigmoid(v) - BELOW, 0), 1);
}

static int solver_init(struct solver *s, const struct adaround_problem *p, struct error *err) {
    size_t n = (size_t)(p->rows * p->k) + 1;
    double sum = 0;

    *s = (struct solver){.p = p,
        .n = p->rows * p->k,
        .v = malloc(n * sizeof(float)),
        .m1 = calloc(n, sizeof(float)),
        .m2 = calloc(n, sizeof(float)),
        .low = malloc(n * sizeof(float)),
        .w = malloc(n * sizeof(float)),
        .residual = malloc(n * sizeof(float))};
    if (!s->v || !s->m1 || !s->m2 || !s->low || !s->w || !s->residual)
        return error_oom(err);
    for (int64_t i = 0; i < s->n; i++) {
        float quotient = p->w[i] / p->s[i], share;

        s->low[i] = floorf(quotient);
        share = fminf(fmaxf(quotient - s->low[i], 0.001f), 0.999f);
        s->v[i] = -logf(STRETCH / (share + BELOW) - 1);
        sum += (double)p->s[i] * (double)p->s[i] * (double)p->g[i % p->k * (p->k + 1)];
    }
    s->normal = sum > 0 ? (float)((double)s->n / sum) : 0;
    return 0;
}

static void find_residual(struct solver *s) {
    int64_t k = s->p->k;

    memcpy(s->residual, s->p->c, (size_t)s->n * sizeof(float));
    linalg_multiply_floats(s->p->rows, k, k, 1, s->w, false, s->p->g, false, -1, s->residual);
}

static float clipped(const struct solver *s, float code) {
    return fminf(fmaxf(code, (float)s->p->least), (float)s->p->most);
}

/* One step of Adam; beta 0: rounding is not asked for yet. */
static void step(struct solver *s, int t, double beta) {
    const struct adaround_problem *p = s->p;
    float correct1 = 1 - powf(0.9f, (float)t), correct2 = 1 - powf(0.999f, (float)t);

    for (int64_t i = 0; i < s->n; i++)
        s->w[i] = p->s[i] * clipped(s, s->low[i] + rectified(s->v[i]));
    find_residual(s);
    for (int64_t i = 0; i < s->n; i++) {
        float share = sigmoid(s->v[i]), h = STRETCH * share - BELOW, code = s->low[i] + h, slope = 0, off, g;

        if (h <= 0 || h >= 1)
            continue;
        if (code > (float)p->least && code < (float)p->most)
            slope = 2 * p->s[i] * s->residual[i] * s->normal;
        off = 2 * h - 1;
        if (beta > 0)
            slope -= LAMBDA * 2 * (float)beta * copysignf(powf(fabsf(off), (float)beta - 1), off);
        g = slope * STRETCH * share * (1 - share);
        s->m1[i] = 0.9f * s->m1[i] + 0.1f * g;
        s->m2[i] = 0.999f * s->m2[i] + 0.001f * g * g;
        s->v[i] -= RATE * (s->m1[i] / correct1) / (sqrtf(s->m2[i] / correct2) + 1e-8f);
    }
}

/* w~ g w~ - 2 w~ c of a row, its residual known. */
static double row_error(const struct solver *s, int64_t row) {
    const float *w = s->w + row * s->p->k, *r = s->residual + row * s->p->k, *c = s->p->c + row * s->p->k;
    double sum = 0;

    for (int64_t i = 0; i < s->p->k; i++)
        sum += (double)w[i] * ((double)r[i] - (double)c[i]);
    return sum;
}

/* Turns weights of a row round, one by one, where that lowers its error. */
static void polish(struct solver *s, int64_t row) {
    const struct adaround_problem *p = s->p;
    float *w = s->w + row * p->k, *r = s->residual + row * p->k;
    const float *scale = p->s + row * p->k, *low = s->low + row * p->k;
    bool has_changed = true;

    for (int sweep = 0; sweep < SWEEPS && has_changed; sweep++) {
        has_changed = false;
        for (int64_t i = 0; i < p->k; i++) {
            float a = clipped(s, low[i]), b = clipped(s, low[i] + 1), now = nearbyintf(w[i] / scale[i]);
            float d = scale[i] * ((now == a ? b : a) - now),
                  gain = 2 * d * r[i] + d * d * p->g[i * (p->k + 1)];

            if (a == b || gain >= -1e-6f * d * d * p->g[i * (p->k + 1)])
                continue;
            w[i] += d;
            for (int64_t j = 0; j < p->k; j++)
                r[j] += d * p->g[i * p->k + j];
            has_changed = true;
        }
    }
}

static void take_codes(struct solver *s, const int8_t *q) {
    for (int64_t i = 0; i < s->n; i++)
        s->w[i] = s->p->s[i] * (float)q[i];
    find_residual(s);
}

int adaround_solve(
    const struct adaround_problem *p, int8_t *q, double *ret_before, double *ret_after, struct error *err) {
    _cleanup_(solver_done) struct solver s = {0};
    _cleanup_(freep) double *nearest = calloc((size_t)p->rows + 1, sizeof(*nearest));
    int warm = (int)(WARM * p->iterations), r = solver_init(&s, p, err);

    if (r < 0 || !nearest)
        return r < 0 ? r : error_oom(err);
    *ret_before = *ret_after = 0;
    take_codes(&s, q);
    for (int64_t row = 0; row < p->rows; row++) {
        nearest[row] = row_error(&s, row);
        *ret_before += nearest[row];
    }
    for (int t = 0; t < p->iterations && s.normal > 0; t++) {
        double at = warm < p->iterations ? (double)(t - warm) / (p->iterations - warm) : 1;

        step(&s, t + 1, t < warm ? 0 : BETA_LOW + (BETA_HIGH - BETA_LOW) * (1 - at));
    }
    for (int64_t i = 0; i < s.n; i++)
        s.w[i] = p->s[i] * clipped(&s, s.low[i] + (rectified(s.v[i]) >= 0.5f));
    find_residual(&s);
    for (int64_t row = 0; row < p->rows && s.normal > 0; row++) {
        double after;

        polish(&s, row);
        after = row_error(&s, row);
        *ret_after += after < nearest[row] ? after : nearest[row];
        for (int64_t i = row * p->k; after < nearest[row] && i < (row + 1) * p->k; i++)
            q[i] = (int8_t)nearbyintf(s.w[i] / p->s[i]);
    }
    if (s.normal <= 0)
        *ret_after = *ret_before;
    return 0;
}
