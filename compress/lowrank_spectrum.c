#include "compress/lowrank_spectrum.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/linalg.h"

void lowrank_spectrum_done(struct lowrank_spectrum *s) {
    for (int k = 0; k < 2; k++)
        free(s->value[k]);
    *s = (struct lowrank_spectrum){0};
}

static int add_side(
    struct lowrank_spectrum *s, int64_t rows, int64_t cols, const double *m, struct error *err) {
    int k = s->n_sides;
    int64_t n = rows < cols ? rows : cols;
    _cleanup_(freep) double *gram = linalg_new(n, n);
    int e;

    s->value[k] = linalg_new(n, 1);
    if (!gram || !s->value[k])
        return error_oom(err);
    s->n_sides++;
    s->n[k] = n;
    s->rows[k] = rows;
    s->cols[k] = cols;
    linalg_gram(rows, cols, m, cols < rows, gram);
    e = linalg_eigenvalues(n, gram, s->value[k], err);
    s->total = 0;
    for (int64_t i = 0; i < n; i++) {
        s->value[k][i] = fmax(s->value[k][i], 0);
        s->total += s->value[k][i];
    }
    return e;
}

/* [s][t][k] of w[t][s][k] */
static void unfold_inputs(const struct lowrank_layer *l, const double *w, double *m) {
    for (int64_t t = 0; t < l->outputs; t++)
        for (int64_t s = 0; s < l->inputs; s++)
            memcpy(m + (s * l->outputs + t) * l->taps, w + (t * l->inputs + s) * l->taps,
                (size_t)l->taps * sizeof(*m));
}

/* [(s,i)][(t,j)] of w[t][s][i][j] */
static void unfold_columns(const struct lowrank_layer *l, const double *w, double *m) {
    int64_t tall = l->inputs * l->kernel[0], kw = l->kernel[1];

    for (int64_t t = 0; t < l->outputs; t++)
        for (int64_t i = 0; i < tall; i++)
            for (int64_t j = 0; j < kw; j++)
                m[(i * l->outputs + t) * kw + j] = w[(t * tall + i) * kw + j];
}

int lowrank_spectrum_new(const struct lowrank_layer *l, int decomposition, const double *w,
    struct lowrank_spectrum *ret, struct error *err) {
    int64_t width = l->inputs * l->taps;
    _cleanup_(freep) double *m = NULL;
    int e;

    *ret = (struct lowrank_spectrum){0};
    if (decomposition == LOWRANK_SVD || decomposition == LOWRANK_CHANNEL)
        return add_side(ret, l->outputs, width, w, err);
    m = linalg_new(l->outputs, width);
    if (!m)
        return error_oom(err);
    if (decomposition == LOWRANK_SPATIAL) {
        unfold_columns(l, w, m);
        return add_side(ret, l->inputs * l->kernel[0], l->outputs * l->kernel[1], m, err);
    }
    unfold_inputs(l, w, m);
    e = add_side(ret, l->inputs, l->outputs * l->taps, m, err);
    return e < 0 ? e : add_side(ret, l->outputs, width, w, err);
}

double lowrank_energy(const struct lowrank_spectrum *s, const int64_t rank[2]) {
    double lost = 0;

    for (int k = 0; k < s->n_sides; k++)
        for (int64_t i = rank[k] ? rank[k] : rank[0]; i < s->n[k]; i++)
            lost += s->value[k][i];
    return s->total > 0 ? fmax(0, 1 - lost / s->total) : 1;
}

int64_t lowrank_rank_of_energy(const struct lowrank_spectrum *s, int side, double share) {
    double sum = 0;
    int64_t r = 0;

    while (r < s->n[side] && (r == 0 || sum < share * s->total * (1 - 1e-12)))
        sum += s->value[side][r++];
    return r;
}

/* ---- EVBMF ---- */

struct evbmf {
    const double *square;
    int64_t n, cols;
    double alpha, edge; /* n / cols; x = square / (cols variance) above it is signal */
};

static double tau(double x, double alpha) {
    double b = x - (1 + alpha);

    return (b + sqrt(fmax(0, b * b - 4 * alpha))) / 2;
}

/* The free energy but for constants, of the noise's variance (corollary 1). */
static double free_energy(const struct evbmf *e, double variance) {
    double sum = 0;

    for (int64_t i = 0; i < e->n; i++) {
        double x = fmax(e->square[i] / ((double)e->cols * variance), 1e-300), t;

        sum += x - log(x);
        if (x <= e->edge)
            continue;
        t = tau(x, e->alpha);
        sum += log(t + 1) + e->alpha * log(t / e->alpha + 1) - t;
    }
    return sum;
}

/* Minimum over [low, high]: a grid in the logarithm, then golden section around its best point. */
static double minimise(const struct evbmf *e, double low, double high) {
    enum { POINTS = 128, STEPS = 60 };
    const double golden = 0.6180339887498949;
    double a = log(low), width = log(high) - a, best = HUGE_VAL, b, left, right;
    int at = 0;

    for (int i = 0; i <= POINTS; i++) {
        double f = free_energy(e, exp(a + width * i / POINTS));

        if (f < best) {
            best = f;
            at = i;
        }
    }
    b = a + width * (at < POINTS ? at + 1 : POINTS) / POINTS;
    a += width * (at > 0 ? at - 1 : 0) / POINTS;
    for (int i = 0; i < STEPS; i++) {
        left = b - golden * (b - a);
        right = a + golden * (b - a);
        if (free_energy(e, exp(left)) < free_energy(e, exp(right)))
            b = right;
        else
            a = left;
    }
    return exp((a + b) / 2);
}

int64_t lowrank_evbmf(const double *square, int64_t n, int64_t cols) {
    struct evbmf e = {.square = square, .n = n, .cols = cols, .alpha = (double)n / (double)cols};
    double t = 2.5129 * sqrt(e.alpha), sum = 0, rest = 0, low, high, variance;
    int64_t h, rank = 0;

    e.edge = (1 + t) * (1 + e.alpha / t);
    /* at most h values are signal */
    h = (int64_t)ceil((double)n / (1 + e.alpha)) - 1;
    h = h < 1 ? 1 : h < n ? h : n - 1;
    for (int64_t i = 0; i < n; i++) {
        sum += square[i];
        rest += i >= h ? square[i] : 0;
    }
    if (n < 2 || sum <= 0)
        return sum > 0 ? 1 : 0;
    high = sum / ((double)n * (double)cols);
    low = fmax(square[h] / ((double)cols * e.edge), rest / (double)(n - h) / (double)cols);
    low = fmin(fmax(low, 1e-12 * high), high);
    variance = minimise(&e, low, high);
    while (rank < n && square[rank] > (double)cols * variance * e.edge)
        rank++;
    return rank;
}
