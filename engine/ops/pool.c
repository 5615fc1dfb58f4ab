/* MaxPool, AveragePool, LpPool and their global versions. Padding never wins a maximum. */
#include "engine/ops/pool.h"

#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

static int pool_parse(struct graph *g, struct node *n, struct error *err) {
    struct pool_param *p = graph_alloc(g, sizeof(*p));

    if (!p)
        return error_oom(err);
    p->count_include_pad = node_attr_int(n, "count_include_pad", 0) != 0;
    p->is_column_major = node_attr_int(n, "storage_order", 0) != 0;
    p->norm = n->op == &op_lp_pool ? (int)node_attr_int(n, "p", 2) : 0;
    n->param = p;
    if (n->op == &op_lp_pool && p->norm < 1)
        return error_code(err, -EBADMSG, "invalid_model", "p is %d", p->norm);
    return window_parse(n, &p->window, err);
}

int pool_place(const struct node *n, const struct shape *x, struct window_at *ret, struct error *err) {
    return window_place(&((const struct pool_param *)n->param)->window, x, NULL, ret, err);
}

/* A maximum is one of the elements, whatever their type. */
static int check_type(const struct node *n, const struct tensor *x, struct error *err) {
    if (n->op == &op_max_pool && element_is_known(x->dtype) && x->dtype != DT_BOOL)
        return 0;
    return op_check_float(x, err);
}

static int pool_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    struct window_at at;
    int r = check_type(n, in[0], err);

    if (r == 0)
        r = pool_place(n, &in[0]->shape, &at, err);
    if (r < 0)
        return r;
    for (int k = 0; k < n->n_out; k++) {
        out[k].dtype = k ? DT_S64 : in[0]->dtype;
        out[k].shape = in[0]->shape;
        for (int i = 0; i < at.dims; i++)
            out[k].shape.dim[i + 2] = at.out[i];
    }
    return 0;
}

struct pooled {
    double max, sum, norm;       /* norm: sum of |x|^p, when the pool has one */
    int64_t best, count, padded; /* elements of the input, and with the padding, under the window */
};

/* One window at output coordinates o[] of the plane that begins at element `first`. */
static struct pooled pool_window(
    const struct window_at *p, const struct tensor *x, int64_t first, const int64_t *o, int norm) {
    struct pooled r = {.max = -HUGE_VAL, .best = -1};
    const float *floats = x->dtype == DT_F32 ? (const float *)x->data + first : NULL;
    int64_t taps = 1;

    for (int d = 0; d < p->dims; d++)
        taps *= p->kernel[d];
    for (int64_t t = 0; t < taps; t++) {
        int64_t rest = t, at[WINDOW_MAX_DIMS], index = 0;
        bool is_inside = true, is_padded = true;
        double v;

        for (int d = p->dims - 1; d >= 0; d--) {
            at[d] = o[d] * p->stride[d] + rest % p->kernel[d] * p->dilation[d] - p->begin[d];
            rest /= p->kernel[d];
            is_inside = is_inside && at[d] >= 0 && at[d] < p->in[d];
            is_padded = is_padded && at[d] < p->in[d] + p->end[d];
        }
        r.padded += is_padded;
        if (!is_inside)
            continue;
        for (int d = 0; d < p->dims; d++)
            index = index * p->in[d] + at[d];
        v = floats ? (double)floats[index] : element_get(x, first + index);
        r.count++;
        r.sum += v;
        r.norm += norm ? pow(fabs(v), norm) : 0;
        if (v > r.max || r.best < 0) {
            r.max = v;
            r.best = index;
        }
    }
    return r;
}

struct pool_run {
    struct window_at at;
    int64_t planes, plane_in, plane_out;
};

static bool pool_start(const struct node *n, const struct tensor *x, struct pool_run *r) {
    if (pool_place(n, &x->shape, &r->at, NULL) < 0)
        return false; /* shape() placed it before */
    r->planes = x->shape.dim[0] * x->shape.dim[1];
    r->plane_in = r->plane_out = 1;
    for (int d = 0; d < r->at.dims; d++) {
        r->plane_in *= r->at.in[d];
        r->plane_out *= r->at.out[d];
    }
    return true;
}

static void coordinates(const struct window_at *at, int64_t i, int64_t *o) {
    for (int d = at->dims - 1; d >= 0; d--) {
        o[d] = i % at->out[d];
        i /= at->out[d];
    }
}

/* The index, in the plane, of element `i` when columns are stored one after the other. */
static int64_t column_major(const struct window_at *at, int64_t i) {
    int64_t c[WINDOW_MAX_DIMS], index = 0;

    for (int d = at->dims - 1; d >= 0; d--) {
        c[d] = i % at->in[d];
        i /= at->in[d];
    }
    for (int d = at->dims - 1; d >= 0; d--)
        index = index * at->in[d] + c[d];
    return index;
}

static void max_pool_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct pool_param *param = n->param;
    struct pool_run r;

    (void)scratch;
    if (!pool_start(n, in[0], &r))
        return;
    for (int64_t c = 0; c < r.planes; c++)
        for (int64_t i = 0; i < r.plane_out; i++) {
            int64_t o[WINDOW_MAX_DIMS], at;
            struct pooled p;

            coordinates(&r.at, i, o);
            p = pool_window(&r.at, in[0], c * r.plane_in, o, 0);
            element_set(&out[0], c * r.plane_out + i, p.max);
            if (n->n_out < 2 || !out[1].data)
                continue;
            at = param->is_column_major && p.best >= 0 ? column_major(&r.at, p.best) : p.best;
            ((int64_t *)out[1].data)[c * r.plane_out + i] = c * r.plane_in + at;
        }
}

static void average_pool_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct pool_param *param = n->param;
    struct pool_run r;

    (void)scratch;
    if (!pool_start(n, in[0], &r))
        return;
    for (int64_t c = 0; c < r.planes; c++)
        for (int64_t i = 0; i < r.plane_out; i++) {
            int64_t o[WINDOW_MAX_DIMS], divisor;
            struct pooled p;

            coordinates(&r.at, i, o);
            p = pool_window(&r.at, in[0], c * r.plane_in, o, 0);
            divisor = param->count_include_pad ? p.padded : p.count;
            ((float *)out[0].data)[c * r.plane_out + i] = divisor ? (float)(p.sum / (double)divisor) : 0;
        }
}

/* (sum of |x|^p)^(1/p) */
static void norm_pool_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct pool_param *param = n->param;
    struct pool_run r;

    (void)scratch;
    if (!pool_start(n, in[0], &r))
        return;
    for (int64_t c = 0; c < r.planes; c++)
        for (int64_t i = 0; i < r.plane_out; i++) {
            int64_t o[WINDOW_MAX_DIMS];
            struct pooled p;

            coordinates(&r.at, i, o);
            p = pool_window(&r.at, in[0], c * r.plane_in, o, param->norm);
            ((float *)out[0].data)[c * r.plane_out + i] = (float)pow(p.norm, 1.0 / param->norm);
        }
}

static int global_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int r = op_check_float(in[0], err);

    (void)n;
    if (r < 0)
        return r;
    if (in[0]->shape.rank < 3)
        return error_code(err, -EBADMSG, "shape_mismatch", "the input has rank %d, at least 3 is needed",
            in[0]->shape.rank);
    out[0].dtype = in[0]->dtype;
    out[0].shape = in[0]->shape;
    for (int i = 2; i < out[0].shape.rank; i++)
        out[0].shape.dim[i] = 1;
    return 0;
}

static int64_t plane_of(const struct shape *s) {
    int64_t n = 1;

    for (int i = 2; i < s->rank; i++)
        n *= s->dim[i];
    return n;
}

static void global_average_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t plane = plane_of(&in[0]->shape), count = op_count(&out[0]);

    (void)n;
    (void)scratch;
    for (int64_t c = 0; c < count; c++) {
        const float *x = (const float *)in[0]->data + c * plane;
        double sum = 0;

        for (int64_t i = 0; i < plane; i++)
            sum += (double)x[i];
        ((float *)out[0].data)[c] = (float)(sum / (double)plane);
    }
}

static void global_max_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t plane = plane_of(&in[0]->shape), count = op_count(&out[0]);

    (void)n;
    (void)scratch;
    for (int64_t c = 0; c < count; c++) {
        const float *x = (const float *)in[0]->data + c * plane;
        float max = plane ? x[0] : 0;

        for (int64_t i = 1; i < plane; i++)
            max = x[i] > max ? x[i] : max;
        ((float *)out[0].data)[c] = max;
    }
}

static int global_norm_parse(struct graph *g, struct node *n, struct error *err) {
    struct pool_param *p = graph_alloc(g, sizeof(*p));

    if (!p)
        return error_oom(err);
    p->norm = (int)node_attr_int(n, "p", 2);
    n->param = p;
    if (p->norm < 1)
        return error_code(err, -EBADMSG, "invalid_model", "p is %d", p->norm);
    return 0;
}

static void global_norm_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct pool_param *p = n->param;
    int64_t plane = plane_of(&in[0]->shape), count = op_count(&out[0]);

    (void)scratch;
    for (int64_t c = 0; c < count; c++) {
        const float *x = (const float *)in[0]->data + c * plane;
        double sum = 0;

        for (int64_t i = 0; i < plane; i++)
            sum += pow(fabs((double)x[i]), p->norm);
        ((float *)out[0].data)[c] = (float)pow(sum, 1.0 / p->norm);
    }
}

#define POOL_ROW(variable, onnx_name, outputs, parse_fn, shape_fn, run, gradient, how)                       \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = 1,                                                                                          \
        .until = OPSET_LAST,                                                                                 \
        .min_in = 1,                                                                                         \
        .max_in = 1,                                                                                         \
        .min_out = 1,                                                                                        \
        .max_out = outputs,                                                                                  \
        .parse = parse_fn,                                                                                   \
        .shape = shape_fn,                                                                                   \
        .forward = run,                                                                                      \
        .backward = gradient,                                                                                \
        .cost = op_cost_move,                                                                                \
        .saves = OP_SAVES_IN,                                                                                \
        .couple = OP_COUPLE_SAME,                                                                            \
        .quant = how,                                                                                        \
    }

POOL_ROW(op_average_pool, "AveragePool", 1, pool_parse, pool_shape, average_pool_forward,
    average_pool_backward, OP_QUANT_OWN);
POOL_ROW(op_global_average_pool, "GlobalAveragePool", 1, NULL, global_shape, global_average_forward,
    global_average_backward, OP_QUANT_OWN);
POOL_ROW(op_global_lp_pool, "GlobalLpPool", 1, global_norm_parse, global_shape, global_norm_forward,
    global_norm_backward, OP_QUANT_FLOAT);
POOL_ROW(
    op_lp_pool, "LpPool", 1, pool_parse, pool_shape, norm_pool_forward, norm_pool_backward, OP_QUANT_FLOAT);
POOL_ROW(op_global_max_pool, "GlobalMaxPool", 1, NULL, global_shape, global_max_forward, global_max_backward,
    OP_QUANT_SAME);
POOL_ROW(
    op_max_pool, "MaxPool", 2, pool_parse, pool_shape, max_pool_forward, max_pool_backward, OP_QUANT_SAME);
