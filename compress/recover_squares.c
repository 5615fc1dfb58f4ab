/* `recover.calibrate.least_squares`: a layer's weights and bias changed by what, on the samples, brings its
 * outputs nearest to the parent's, given the inputs that it has now (He, Zhang and Sun 2017, Channel pruning
 * for accelerating very deep neural networks, equation 3; Luo 2017, ThiNet, equation 7). Solved for the
 * change, so that the ridge keeps weights near to what they are.
 *
 * Rows are outputs at a few pixels of each sample: X the inputs under the window and a 1 for the bias, E what
 * is missing to the parent. A quarter of them is kept apart: a change that does not help there is not made.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/least_squares.h"
#include "compress/patches.h"
#include "compress/probe.h"
#include "compress/recover.h"
#include "engine/ops.h"

#define MIN_ROWS  2048
#define MAX_ROWS  16384
#define RIDGE     1e-3
#define BLOCK     64
#define CHECKED   4   /* one row in so many is kept apart */
#define MIN_ZEROS 0.2 /* of which on exact zeros are kept (methods.md, Composition) */

struct squares {
    const struct graph *g;
    const struct node *node;
    const struct tensor *weight;
    int64_t channels, inputs; /* W[channels][inputs] */
    bool is_turned;           /* stored as [inputs][channels] */
    bool has_bias;
    int64_t k;                       /* inputs and the 1 of the bias */
    int64_t per_sample, n_rows, at;  /* rows of a sample, in all, filled so far */
    float *x, *now, *want;           /* [n_rows][k], [n_rows][channels] */
    const struct recover_kept *kept; /* which of the parent's channels these are; NULL: all */
    const struct tensor *input;      /* of the batch */
    bool is_odd;                     /* outputs are not one a sample: nothing is taken */
    struct error *err;
};

static void squares_done(struct squares *s) {
    free(s->x);
    free(s->now);
    free(s->want);
}

static const struct tensor *init_of(const struct squares *s, int input) {
    return s->node->n_in > input && s->node->in[input] >= 0 ? s->g->values[s->node->in[input]].init : NULL;
}

static bool is_plain_gemm(const struct node *n) {
    return !strcmp(n->op_type, "Gemm") && !node_attr_int(n, "transA", 0) &&
           node_attr_float(n, "alpha", 1) == 1.0f && node_attr_float(n, "beta", 1) == 1.0f;
}

static bool is_plain_conv(const struct node *n) {
    return !strcmp(n->op_type, "Conv") && node_attr_int(n, "group", 1) == 1;
}

static bool is_float(const struct tensor *t) {
    int64_t count;

    return t && t->dtype == DT_F32 && shape_count(&t->shape, &count) && count > 0;
}

/* Dense float weights, one group, few enough inputs. */
static bool can_solve(struct squares *s) {
    const struct tensor *w = init_of(s, 1), *b = init_of(s, 2);
    int64_t count = 0;

    if (!is_float(w) || !(is_plain_conv(s->node) || is_plain_gemm(s->node)))
        return false;
    if (s->node->n_in > 2 && s->node->in[2] >= 0 && !is_float(b))
        return false;
    shape_count(&w->shape, &count);
    s->weight = w;
    s->is_turned = !strcmp(s->node->op_type, "Gemm") && !node_attr_int(s->node, "transB", 0);
    s->channels = w->shape.dim[s->is_turned ? 1 : 0];
    s->inputs = count / s->channels;
    s->has_bias = b && b->shape.rank == 1 && b->shape.dim[0] == s->channels;
    s->k = s->inputs + s->has_bias;
    return s->k <= LEAST_SQUARES_MAX;
}

static int64_t pixels_of(const struct tensor *y, int64_t channels) {
    int64_t n = 0;

    shape_count(&y->shape, &n);
    return n / (y->shape.dim[0] * channels);
}

/* Outputs of the layer's channels at the rows' pixels; `kept`: where they stand in y, NULL: at their own
 * place. */
static void take_outputs(const struct squares *s, const struct tensor *y, const int *kept, float *to) {
    int64_t channels = y->shape.dim[1], pixels = pixels_of(y, channels);
    const float *data = y->data;

    for (int64_t i = 0; i < y->shape.dim[0] * s->per_sample; i++) {
        int64_t row = s->at + i, pixel = patch_pixel(row, pixels), sample = i / s->per_sample;

        for (int64_t c = 0; c < s->channels; c++)
            to[row * s->channels + c] =
                data[(sample * channels + (kept ? (int64_t)kept[c] : c)) * pixels + pixel];
    }
}

/* A network may fold pixels into the batch: then its rows are not the samples that room was made for. */
static bool is_odd(struct squares *s, const struct tensor *y, const struct recover_kept *kept) {
    s->is_odd |= y->shape.rank < 2 || (kept ? kept->n : y->shape.dim[1]) != s->channels ||
                 y->shape.dim[0] * s->per_sample > s->n_rows - s->at;
    return s->is_odd;
}

static void on_parent(void *ctx, size_t k, const struct tensor *y) {
    struct squares *s = ctx;

    (void)k;
    if (is_odd(s, y, s->kept))
        return;
    take_outputs(s, y, s->kept ? s->kept->channel : NULL, s->want);
    s->at += y->shape.dim[0] * s->per_sample;
}

static void take_inputs(struct squares *s, const struct tensor *y) {
    const struct tensor *x = s->input;
    int64_t pixels = pixels_of(y, s->channels), item = 0;
    struct kernel_window w = {0};
    bool is_conv = x->shape.rank > 2;

    shape_count(&x->shape, &item);
    item /= x->shape.dim[0];
    if (is_conv && !kernel_window_read(s->node, &x->shape, &y->shape, &s->weight->shape, &w)) {
        error_set(s->err, -EINVAL, "node '%s': its window is not known", s->node->id);
        return;
    }
    for (int64_t i = 0; i < y->shape.dim[0] * s->per_sample; i++) {
        int64_t row = s->at + i, sample = i / s->per_sample;
        const float *from = (const float *)x->data + sample * item;
        float *to = s->x + row * s->k;

        if (is_conv)
            patch_take(&w, &x->shape, &y->shape, from, patch_pixel(row, pixels), to);
        else
            memcpy(to, from, (size_t)s->inputs * sizeof(*to));
        if (s->has_bias)
            to[s->inputs] = 1;
    }
}

/* Value 0 is the layer's input, 1 its output. */
static void on_layer(void *ctx, size_t k, const struct tensor *t) {
    struct squares *s = ctx;

    if (k == 0) {
        s->input = t;
        return;
    }
    s->is_odd |= s->input->shape.dim[0] != t->shape.dim[0];
    if (is_odd(s, t, NULL))
        return;
    take_outputs(s, t, NULL, s->now);
    take_inputs(s, t);
    s->at += t->shape.dim[0] * s->per_sample;
}

static int make_room(struct squares *s, const struct samples *samples, struct error *err) {
    int64_t rows = 4 * s->k < MIN_ROWS ? MIN_ROWS : 4 * s->k > MAX_ROWS ? MAX_ROWS : 4 * s->k;

    s->per_sample = (rows + samples->n - 1) / samples->n;
    s->n_rows = s->per_sample * samples->n;
    s->x = malloc((size_t)(s->n_rows * s->k) * sizeof(float));
    s->now = malloc((size_t)(s->n_rows * s->channels) * sizeof(float));
    s->want = malloc((size_t)(s->n_rows * s->channels) * sizeof(float));
    return s->x && s->now && s->want ? 0 : error_oom(err);
}

/* ---- solving ---- */

static int add_rows(const struct squares *s, struct least_squares *sums, struct error *err) {
    _cleanup_(freep) double *x = malloc((size_t)(BLOCK * s->k) * sizeof(*x));
    _cleanup_(freep) double *e = malloc((size_t)(BLOCK * s->channels) * sizeof(*e));
    int64_t n = 0;

    if (!x || !e)
        return error_oom(err);
    for (int64_t row = 0; row < s->n_rows; row++) {
        if (row % CHECKED != 0) {
            for (int64_t i = 0; i < s->k; i++)
                x[n * s->k + i] = (double)s->x[row * s->k + i];
            for (int64_t c = 0; c < s->channels; c++)
                e[n * s->channels + c] =
                    (double)s->want[row * s->channels + c] - (double)s->now[row * s->channels + c];
            n++;
        }
        if (n == BLOCK || row + 1 == s->n_rows) {
            least_squares_add(sums, n, x, e);
            n = 0;
        }
    }
    return 0;
}

static float *weight_at(const struct squares *s, float *w, int64_t c, int64_t i) {
    return s->is_turned ? w + i * s->channels + c : w + c * s->inputs + i;
}

/* NULL: there are few zeros, all weights may change. */
static bool *find_kept(const struct squares *s) {
    float *w = s->weight->data;
    bool *keeps = malloc((size_t)(s->k * s->channels));
    int64_t zeros = 0;

    for (int64_t i = 0; keeps && i < s->k; i++)
        for (int64_t c = 0; c < s->channels; c++) {
            bool is_zero = i < s->inputs && *weight_at(s, w, c, i) == 0;

            keeps[i * s->channels + c] = !is_zero;
            zeros += is_zero;
        }
    if (keeps && (double)zeros >= MIN_ZEROS * (double)(s->inputs * s->channels))
        return keeps;
    free(keeps);
    return NULL;
}

/* Does the change help on the rows that were kept apart? */
static bool helps(const struct squares *s, const double *change) {
    double before = 0, after = 0;

    for (int64_t row = 0; row < s->n_rows; row += CHECKED)
        for (int64_t c = 0; c < s->channels; c++) {
            double e = (double)s->want[row * s->channels + c] - (double)s->now[row * s->channels + c], d = 0;

            for (int64_t i = 0; i < s->k; i++)
                d += (double)s->x[row * s->k + i] * change[i * s->channels + c];
            before += e * e;
            after += (e - d) * (e - d);
        }
    return after < before;
}

static int put(struct graph *g, int *value, const struct tensor *old, const float *data, struct error *err) {
    struct tensor made = *old;
    int v;

    made.data = (void *)(uintptr_t)data;
    v = graph_add_init(g, graph_unique_name(g, g->values[*value].name), &made, false);
    if (v < 0)
        return error_oom(err);
    *value = v;
    return 0;
}

static int change_layer(
    struct graph *g, struct node *n, const struct squares *s, const double *change, struct error *err) {
    size_t count = (size_t)(s->inputs * s->channels);
    _cleanup_(freep) float *w = malloc(count * sizeof(*w)), *b = calloc((size_t)s->channels, sizeof(*b));
    int r;

    if (!w || !b)
        return error_oom(err);
    memcpy(w, s->weight->data, count * sizeof(*w));
    for (int64_t c = 0; c < s->channels; c++)
        for (int64_t i = 0; i < s->inputs; i++) {
            float *at = weight_at(s, w, c, i);

            *at = (float)((double)*at + change[i * s->channels + c]);
        }
    r = put(g, &n->in[1], s->weight, w, err);
    if (r < 0 || !s->has_bias)
        return r;
    memcpy(b, g->values[n->in[2]].init->data, (size_t)s->channels * sizeof(*b));
    for (int64_t c = 0; c < s->channels; c++)
        b[c] = (float)((double)b[c] + change[s->inputs * s->channels + c]);
    return put(g, &n->in[2], g->values[n->in[2]].init, b, err);
}

static int solve(struct graph *g, struct node *n, const struct squares *s, struct error *err) {
    _cleanup_(least_squares_done) struct least_squares sums = {0};
    _cleanup_(freep) double *change = malloc((size_t)(s->k * s->channels) * sizeof(*change));
    _cleanup_(freep) bool *keeps = find_kept(s);
    struct error singular = {0};
    int r = least_squares_init(&sums, s->k, s->channels, err);

    if (r == 0 && !change)
        r = error_oom(err);
    if (r == 0)
        r = add_rows(s, &sums, err);
    if (r < 0)
        return r;
    r = least_squares_solve(&sums, RIDGE, keeps, change, &singular);
    if (r == -EDOM)
        return 0;
    if (r < 0)
        return error_copy(err, &singular);
    return helps(s, change) ? change_layer(g, n, s, change, err) : 0;
}

int recover_squares(struct work *work, const struct graph *parent, int node, int parent_value,
    const struct recover_kept *kept, const struct samples *samples, struct error *err) {
    struct graph *g = work->graph;
    struct samples some = *samples;
    struct error seen = {0};
    _cleanup_(squares_done) struct squares s = {.g = g, .node = &g->nodes[node], .kept = kept, .err = &seen};
    int values[2] = {g->nodes[node].in[0], g->nodes[node].out[0]}, r;

    if (some.n < 1 || !can_solve(&s))
        return 0;
    if (some.n > MAX_ROWS)
        some.n = MAX_ROWS;
    r = make_room(&s, &some, err);
    if (r == 0)
        r = probe_run(parent, &parent_value, 1, &some, NULL, on_parent, &s, err);
    s.at = 0;
    if (r == 0)
        r = probe_run(g, values, 2, &some, NULL, on_layer, &s, err);
    if (r == 0 && seen.err)
        r = error_copy(err, &seen);
    return r == 0 && !s.is_odd ? solve(g, &g->nodes[node], &s, err) : r;
}
