/* Second moments of a layer's inputs and outputs on samples, and what is best for the outputs given them.
 *
 * y: the outputs that the layer had in the network as it was; x: the inputs that it has now, the layers
 * before being factorised already (Zhang et al. 2015, section 3.3). A few windows of each sample are looked
 * at. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/linalg.h"
#include "compress/lowrank.h"
#include "compress/patches.h"
#include "compress/probe.h"

#define ROWS_PER_INPUT 16
#define MIN_ROWS       4096
#define MAX_ROWS       32768
#define BLOCK          128
#define RIDGE          1e-4 /* of the inputs' mean variance */
#define JITTER         1e-9 /* of the features' mean variance: such as are one another's sums have no inverse */

void lowrank_stats_done(struct lowrank_stats *s) {
    free(s->cov);
    free(s->cross);
    free(s->cov_out);
    free(s->mean_in);
    free(s->mean_out);
    *s = (struct lowrank_stats){0};
}

/* ---- looking ---- */

struct look {
    const struct lowrank_layer *l;
    const struct graph *now;
    struct lowrank_stats *s;
    int64_t per_sample, n_rows, at; /* windows of a sample, in all, seen so far */
    float *wanted;                  /* [n_rows][outputs] */
    float *patch;                   /* [n] */
    double *x, *y;                  /* [BLOCK][n], [BLOCK][outputs] */
    int64_t n_block;
    const struct tensor *input; /* of the batch */
    struct error *err;
};

static void look_done(struct look *k) {
    free(k->wanted);
    free(k->patch);
    free(k->x);
    free(k->y);
}

/* Pixels (or rows) of one sample's output. */
static int64_t pixels_of(const struct look *k, const struct tensor *y) {
    int64_t n = 0;

    shape_count(&y->shape, &n);
    return n / (y->shape.dim[0] * k->l->outputs);
}

static bool is_odd(struct look *k, const struct tensor *y) {
    int channels = k->l->is_conv ? 1 : y->shape.rank - 1;

    if (y->dtype == DT_F32 && y->shape.rank >= 2 && y->shape.dim[channels] == k->l->outputs &&
        y->shape.dim[0] > 0 && k->at + y->shape.dim[0] * k->per_sample <= k->n_rows)
        return false;
    error_code(k->err, -EBADMSG, "method_not_applicable",
        "layer '%s': its outputs are not one set a sample; \"data_aware\": false factorises it by its weights alone",
        k->l->id);
    return true;
}

/* Output `c` of window `pixel` of sample i. */
static float output_at(
    const struct look *k, const struct tensor *y, int64_t pixels, int64_t i, int64_t pixel, int64_t c) {
    const float *data = y->data;

    return k->l->is_conv ? data[(i * k->l->outputs + c) * pixels + pixel]
                         : data[(i * pixels + pixel) * k->l->outputs + c];
}

static void on_original(void *ctx, size_t v, const struct tensor *y) {
    struct look *k = ctx;

    (void)v;
    if (k->err->err || is_odd(k, y))
        return;
    for (int64_t i = 0; i < y->shape.dim[0] * k->per_sample; i++, k->at++) {
        int64_t pixels = pixels_of(k, y), pixel = patch_pixel(k->at, pixels);

        for (int64_t c = 0; c < k->l->outputs; c++)
            k->wanted[k->at * k->l->outputs + c] = output_at(k, y, pixels, i / k->per_sample, pixel, c);
    }
}

static void add_block(struct look *k) {
    struct lowrank_stats *s = k->s;

    if (s->cov) {
        linalg_add_gram(k->n_block, s->n, k->x, s->cov);
        linalg_add_product(k->n_block, s->outputs, s->n, k->y, k->x, s->cross);
    } else {
        linalg_add_gram(k->n_block, s->outputs, k->y, s->cov_out);
    }
    for (int64_t row = 0; row < k->n_block; row++) {
        for (int64_t i = 0; i < s->n; i++)
            s->mean_in[i] += k->x[row * s->n + i];
        for (int64_t c = 0; c < s->outputs; c++)
            s->mean_out[c] += k->y[row * s->outputs + c];
    }
    k->n_block = 0;
}

static void add_row(struct look *k) {
    const struct lowrank_stats *s = k->s;

    for (int64_t i = 0; i < s->n; i++)
        k->x[k->n_block * s->n + i] = (double)k->patch[i];
    for (int64_t c = 0; c < s->outputs; c++)
        k->y[k->n_block * s->outputs + c] = (double)k->wanted[k->at * s->outputs + c];
    k->at++;
    if (++k->n_block == BLOCK)
        add_block(k);
}

/* Value 0 is the layer's input, 1 its output. */
static void on_layer(void *ctx, size_t v, const struct tensor *t) {
    struct look *k = ctx;
    const struct node *n = &k->now->nodes[k->l->node];
    const struct tensor *x = k->input;
    struct kernel_window window = {0};
    int64_t item = 0, pixels;

    if (v == 0) {
        k->input = t;
        return;
    }
    if (k->err->err || is_odd(k, t))
        return;
    if (k->l->is_conv &&
        !kernel_window_read(n, &x->shape, &t->shape, &k->now->values[n->in[1]].init->shape, &window)) {
        error_set(k->err, -EINVAL, "layer '%s': its window is not known", k->l->id);
        return;
    }
    pixels = pixels_of(k, t);
    shape_count(&x->shape, &item);
    item /= x->shape.dim[0];
    for (int64_t i = 0; i < t->shape.dim[0] * k->per_sample; i++) {
        const float *from = (const float *)x->data + i / k->per_sample * item;
        int64_t pixel = patch_pixel(k->at, pixels);

        if (k->l->is_conv)
            patch_take(&window, &x->shape, &t->shape, from, pixel, k->patch);
        else
            memcpy(k->patch, from + pixel * k->l->inputs, (size_t)k->l->inputs * sizeof(float));
        add_row(k);
    }
}

static int make_room(struct look *k, const struct samples *samples, struct error *err) {
    struct lowrank_stats *s = k->s;
    int64_t rows = ROWS_PER_INPUT * s->n, pixels = k->l->is_conv ? 1 : k->l->rows;

    rows = rows < MIN_ROWS ? MIN_ROWS : rows > MAX_ROWS ? MAX_ROWS : rows;
    k->per_sample = (rows + samples->n - 1) / samples->n;
    /* not more than there are */
    for (int d = 0; d < k->l->n_dims; d++)
        pixels *= k->l->out_size[d];
    if (k->per_sample > pixels)
        k->per_sample = pixels > 0 ? pixels : 1;
    k->n_rows = k->per_sample * samples->n;
    k->wanted = malloc((size_t)(k->n_rows * s->outputs) * sizeof(float));
    k->patch = malloc((size_t)s->n * sizeof(float));
    k->x = linalg_new(BLOCK, s->n);
    k->y = linalg_new(BLOCK, s->outputs);
    s->mean_in = linalg_new(s->n, 1);
    s->mean_out = linalg_new(s->outputs, 1);
    if (s->n <= LOWRANK_MAX_WINDOW) {
        s->cov = linalg_new(s->n, s->n);
        s->cross = linalg_new(s->outputs, s->n);
    } else {
        s->cov_out = linalg_new(s->outputs, s->outputs);
    }
    return k->wanted && k->patch && k->x && k->y && s->mean_in && s->mean_out &&
                   ((s->cov && s->cross) || s->cov_out)
               ? 0
               : error_oom(err);
}

/* ---- from sums to moments ---- */

static double trace(int64_t n, const double *a) {
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += a[i * n + i];
    return sum;
}

static void centre(
    int64_t rows, int64_t cols, const double *a, const double *b, double count, bool is_centred, double *m) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            m[i * cols + j] = m[i * cols + j] / count - (is_centred ? a[i] * b[j] : 0);
}

static int add_ridge(struct lowrank_stats *s, const double *w, struct error *err) {
    _cleanup_(freep) double *gram = NULL;
    double add, weights = 0;

    if (s->cov) {
        add = RIDGE * trace(s->n, s->cov) / (double)s->n;
        for (int64_t i = 0; i < s->n; i++)
            s->cov[i * s->n + i] += add;
        for (int64_t i = 0; i < s->outputs * s->n; i++)
            s->cross[i] += add * w[i];
        return 0;
    }
    /* here white inputs are known by their outputs only: w w' of them */
    gram = linalg_new(s->outputs, s->outputs);
    if (!gram)
        return error_oom(err);
    linalg_gram(s->outputs, s->n, w, false, gram);
    weights = trace(s->outputs, gram);
    add = weights > 0 ? RIDGE * trace(s->outputs, s->cov_out) / weights : 0;
    for (int64_t i = 0; i < s->outputs * s->outputs; i++)
        s->cov_out[i] += add * gram[i];
    return 0;
}

static int finish(struct look *k, const double *w, struct error *err) {
    struct lowrank_stats *s = k->s;
    double count = (double)k->at;

    if (k->n_block)
        add_block(k);
    for (int64_t i = 0; i < s->n; i++)
        s->mean_in[i] /= count;
    for (int64_t c = 0; c < s->outputs; c++)
        s->mean_out[c] /= count;
    if (s->cov) {
        linalg_mirror(s->n, s->cov);
        centre(s->n, s->n, s->mean_in, s->mean_in, count, s->is_centred, s->cov);
        centre(s->outputs, s->n, s->mean_out, s->mean_in, count, s->is_centred, s->cross);
    } else {
        linalg_mirror(s->outputs, s->cov_out);
        centre(s->outputs, s->outputs, s->mean_out, s->mean_out, count, s->is_centred, s->cov_out);
    }
    return add_ridge(s, w, err);
}

int lowrank_observe(const struct graph *original, const struct graph *now, const struct lowrank_layer *l,
    const double *w, bool is_centred, const struct samples *samples, struct lowrank_stats *ret,
    struct error *err) {
    struct error seen = {0};
    _cleanup_(look_done) struct look k = {.l = l, .now = now, .s = ret, .err = &seen};
    const struct node *n = &now->nodes[l->node];
    int values[2] = {n->in[0], n->out[0]}, r;

    *ret = (struct lowrank_stats){.n = l->inputs * l->taps, .outputs = l->outputs, .is_centred = is_centred};
    r = make_room(&k, samples, err);
    if (r == 0)
        r = probe_run(original, &n->out[0], 1, samples, NULL, on_original, &k, err);
    k.at = 0;
    if (r == 0 && !seen.err)
        r = probe_run(now, values, 2, samples, NULL, on_layer, &k, err);
    if (r == 0 && seen.err)
        r = error_copy(err, &seen);
    if (r == 0 && k.at == 0)
        r = error_set(err, -EINVAL, "layer '%s': there are no samples", l->id);
    return r < 0 ? r : finish(&k, w, err);
}

/* ---- best factors ---- */

int lowrank_regress(const struct lowrank_stats *s, const double *b, int64_t q, double *a, double **ret_gram,
    struct error *err) {
    _cleanup_(freep) double *half = linalg_new(b ? q : 0, s->n), *gram = linalg_new(q, q),
                            *copy = linalg_new(q, q);
    double add;

    if (!half || !gram || !copy)
        return error_oom(err);
    if (b) { /* gram = b cov b', a = cross b' */
        linalg_multiply(q, s->n, s->n, b, false, s->cov, false, half);
        linalg_multiply(q, q, s->n, half, false, b, true, gram);
        linalg_multiply(s->outputs, q, s->n, s->cross, false, b, true, a);
    } else {
        memcpy(gram, s->cov, (size_t)(q * q) * sizeof(*gram));
        memcpy(a, s->cross, (size_t)(s->outputs * q) * sizeof(*a));
    }
    memcpy(copy, gram, (size_t)(q * q) * sizeof(*copy));
    add = JITTER * trace(q, gram) / (double)q;
    for (int64_t i = 0; i < q; i++)
        copy[i * q + i] += add > 0 ? add : 1;
    if (ret_gram)
        *ret_gram = TAKE(gram);
    return linalg_solve(q, copy, s->outputs, a, err);
}

/* u[t][r] = directions / gain, v[r][q] = directions gain a. */
static void project(int64_t outputs, int64_t q, int64_t r, const double *a, const double *direction,
    const double *gain, double *u, double *v, double *room) {
    for (int64_t k = 0; k < r; k++)
        for (int64_t t = 0; t < outputs; t++) {
            u[t * r + k] = direction[k * outputs + t] / (gain ? gain[t] : 1);
            room[k * outputs + t] = direction[k * outputs + t] * (gain ? gain[t] : 1);
        }
    linalg_multiply(r, q, outputs, room, false, a, false, v);
}

int lowrank_reduce_outputs(int64_t outputs, int64_t q, int64_t r, const double *a, const double *cov_out,
    const double *gain, double *u, double *v, struct error *err) {
    _cleanup_(freep) double *direction = linalg_new(outputs, outputs), *values = linalg_new(outputs, 1),
                            *room = linalg_new(r, outputs);
    int e;

    if (!direction || !values || !room)
        return error_oom(err);
    for (int64_t i = 0; i < outputs; i++)
        for (int64_t j = 0; j < outputs; j++)
            direction[i * outputs + j] = cov_out[i * outputs + j] * (gain ? gain[i] * gain[j] : 1);
    e = linalg_eigen(outputs, direction, values, err);
    if (e == 0)
        project(outputs, q, r, a, direction, gain, u, v, room);
    return e;
}

int lowrank_reduce(int64_t outputs, int64_t q, int64_t r, const double *a, const double *gram,
    const double *gain, double *u, double *v, struct error *err) {
    _cleanup_(freep) double *cov = linalg_new(outputs, outputs), *half = linalg_new(gram ? outputs : 0, q);

    if (!cov || !half)
        return error_oom(err);
    if (gram) {
        linalg_multiply(outputs, q, q, a, false, gram, false, half);
        linalg_multiply(outputs, outputs, q, half, false, a, true, cov);
    } else {
        linalg_gram(outputs, q, a, false, cov);
    }
    return lowrank_reduce_outputs(outputs, q, r, a, cov, gain, u, v, err);
}

void lowrank_bias_change(
    const struct lowrank_stats *s, const double *old_bias, const double *made, double *ret) {
    for (int64_t t = 0; t < s->outputs; t++) {
        double mean = 0;

        for (int64_t i = 0; i < s->n; i++)
            mean += made[t * s->n + i] * s->mean_in[i];
        /* the outputs' mean has the old bias in it */
        ret[t] = s->mean_out[t] - mean - (old_bias ? old_bias[t] : 0);
    }
}
