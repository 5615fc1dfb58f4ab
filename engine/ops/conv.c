/* Conv and ConvTranspose.
 * y[n][o][p] = b[o] + sum over i, k of w[o][i][k] x[n][g I + i][p stride + k dilation - begin] */
#include "engine/ops/conv.h"

#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

int conv_parse(struct graph *g, struct node *n, struct error *err) {
    struct conv_param *p = graph_alloc(g, sizeof(*p));
    static const struct {
        const char *name;
        size_t at;
    } lists[] = {
        {"output_padding", offsetof(struct conv_param, output_padding)},
        {"output_shape", offsetof(struct conv_param, output_shape)},
    };

    if (!p)
        return error_oom(err);
    p->group = node_attr_int(n, "group", 1);
    if (p->group < 1)
        return error_code(err, -EBADMSG, "invalid_model", "group is %lld", (long long)p->group);
    for (size_t k = 0; k < sizeof(lists) / sizeof(lists[0]); k++) {
        const struct attr *a = node_attr(n, lists[k].name);
        int64_t *to = (int64_t *)((char *)p + lists[k].at);

        for (size_t i = 0; a && a->type == ATTR_INTS && i < a->n && i < WINDOW_MAX_DIMS; i++) {
            if (a->ints[i] < 0 || a->ints[i] > INT32_MAX)
                return error_code(
                    err, -EBADMSG, "invalid_model", "%s has the entry %lld", a->name, (long long)a->ints[i]);
            to[i] = a->ints[i];
        }
    }
    n->param = p;
    return window_parse(n, &p->window, err);
}

int conv_place(const struct node *n, const struct shape *x, const struct shape *w, struct window_at *ret,
    struct error *err) {
    const struct conv_param *p = n->param;

    return window_place(&p->window, x, w->dim + 2, ret, err);
}

static int check_weights(const struct conv_param *p, const struct tensor *const *in, int n_in,
    bool is_transposed, struct error *err) {
    const struct shape *x = &in[0]->shape, *w = &in[1]->shape;
    char tx[SHAPE_TEXT_MAX], tw[SHAPE_TEXT_MAX];
    int64_t outputs;

    if (op_check_float(in[0], err) < 0 || op_check_float(in[1], err) < 0)
        return -EBADMSG;
    if (x->rank != w->rank || x->rank < 3)
        return error_code(
            err, -EBADMSG, "shape_mismatch", "weights have %d dims, input has %d", w->rank, x->rank);
    if (is_transposed ? x->dim[1] != w->dim[0] || w->dim[0] % p->group
                      : x->dim[1] != w->dim[1] * p->group || w->dim[0] % p->group)
        return error_code(err, -EBADMSG, "shape_mismatch",
            "weights %s with %lld groups do not fit the input %s", shape_text(w, tw), (long long)p->group,
            shape_text(x, tx));
    outputs = is_transposed ? w->dim[1] * p->group : w->dim[0];
    if (n_in > 2 && in[2] &&
        (in[2]->shape.rank != 1 || in[2]->shape.dim[0] != outputs || in[2]->dtype != DT_F32))
        return error_code(err, -EBADMSG, "shape_mismatch",
            "the bias %s is not one float for each of the %lld outputs", shape_text(&in[2]->shape, tx),
            (long long)outputs);
    return 0;
}

static int conv_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct conv_param *p = n->param;
    struct window_at at;
    int r = check_weights(p, in, n->n_in, false, err);

    if (r == 0)
        r = conv_place(n, &in[0]->shape, &in[1]->shape, &at, err);
    if (r < 0)
        return r;
    out[0].dtype = DT_F32;
    out[0].shape =
        (struct shape){.rank = in[0]->shape.rank, .dim = {in[0]->shape.dim[0], in[1]->shape.dim[0]}};
    for (int i = 0; i < at.dims; i++)
        out[0].shape.dim[i + 2] = at.out[i];
    return 0;
}

/* Adds one tap of one input channel to a whole output plane: rows of the inner loop are contiguous in x. */
static void add_tap(const struct window_at *p, const float *x, float w, const int64_t k[3], float *y) {
    int64_t first = 0, last = p->out[2], shift = k[2] * p->dilation[2] - p->begin[2];

    while (first < last && first * p->stride[2] + shift < 0)
        first++;
    while (last > first && (last - 1) * p->stride[2] + shift >= p->in[2])
        last--;
    for (int64_t d = 0; d < p->out[0]; d++)
        for (int64_t h = 0; h < p->out[1]; h++) {
            int64_t sd = d * p->stride[0] + k[0] * p->dilation[0] - p->begin[0];
            int64_t sh = h * p->stride[1] + k[1] * p->dilation[1] - p->begin[1];
            const float *row;
            float *to = y + (d * p->out[1] + h) * p->out[2];

            if (sd < 0 || sd >= p->in[0] || sh < 0 || sh >= p->in[1])
                continue;
            row = x + (sd * p->in[1] + sh) * p->in[2] + shift;
            if (p->stride[2] == 1)
                for (int64_t i = first; i < last; i++)
                    to[i] += w * row[i];
            else
                for (int64_t i = first; i < last; i++)
                    to[i] += w * row[i * p->stride[2]];
        }
}

static void conv_plane(
    const struct window_at *p, const float *x, const float *w, int64_t channels, float bias, float *y) {
    int64_t in = p->in[0] * p->in[1] * p->in[2], out = p->out[0] * p->out[1] * p->out[2];
    int64_t taps = p->kernel[0] * p->kernel[1] * p->kernel[2];

    for (int64_t i = 0; i < out; i++)
        y[i] = bias;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t t = 0; t < taps; t++) {
            int64_t k[3] = {
                t / (p->kernel[1] * p->kernel[2]), t / p->kernel[2] % p->kernel[1], t % p->kernel[2]};

            add_tap(p, x + c * in, w[c * taps + t], k, y);
        }
}

static void conv_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct conv_param *p = n->param;
    const struct shape *w = &in[1]->shape;
    const float *bias = n->n_in > 2 && in[2] ? in[2]->data : NULL;
    int64_t batch = in[0]->shape.dim[0], outputs = w->dim[0], per_group = outputs / p->group;
    struct window_at at, q;
    int64_t plane_in, plane_out, taps;

    (void)scratch;
    if (conv_place(n, &in[0]->shape, w, &at, NULL) < 0)
        return; /* shape() placed it before */
    q = window_to_3d(&at);
    plane_in = q.in[0] * q.in[1] * q.in[2];
    plane_out = q.out[0] * q.out[1] * q.out[2];
    taps = q.kernel[0] * q.kernel[1] * q.kernel[2];
    for (int64_t b = 0; b < batch; b++)
        for (int64_t o = 0; o < outputs; o++)
            conv_plane(&q,
                (const float *)in[0]->data + (b * in[0]->shape.dim[1] + o / per_group * w->dim[1]) * plane_in,
                (const float *)in[1]->data + o * w->dim[1] * taps, w->dim[1], bias ? bias[o] : 0,
                (float *)out[0].data + (b * outputs + o) * plane_out);
}

static void conv_cost(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    op_cost_move(n, in, out, ret);
    /* each output element sums one filter; a transposed convolution spreads each input element over one */
    ret->macs = in[1]->shape.dim[0] ? op_count(&out[0]) * (op_count(in[1]) / in[1]->shape.dim[0]) : 0;
}

const struct op op_conv = {
    .name = "Conv",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    .parse = conv_parse,
    .shape = conv_shape,
    .forward = conv_forward,
    .backward = conv_backward,
    .params = 1u << 1 | 1u << 2,
    .cost = conv_cost,
    .saves = OP_SAVES_IN,
    .couple = OP_COUPLE_FREE,
    .quant = OP_QUANT_OWN,
};

/* out = (in - 1) stride + extent - begin - end + output_padding; with output_shape or SAME the cropping
 * follows. */
int conv_transpose_place(const struct node *n, const struct shape *x, const struct shape *w,
    struct window_at *ret, struct error *err) {
    const struct conv_param *p = n->param;
    const struct window *win = &p->window;
    struct window_at at = {.dims = x->rank - 2};

    if (at.dims > WINDOW_MAX_DIMS)
        return error_code(
            err, -EBADMSG, "unsupported_operator", "inputs of rank %d are not supported here", x->rank);
    for (int i = 0; i < at.dims; i++) {
        int64_t full, wanted = 0, crop;

        at.in[i] = x->dim[i + 2];
        at.kernel[i] = w->dim[i + 2];
        at.stride[i] = win->n_stride ? win->stride[i] : 1;
        at.dilation[i] = win->n_dilation ? win->dilation[i] : 1;
        at.begin[i] = win->n_pad ? win->pad[i] : 0;
        at.end[i] = win->n_pad ? win->pad[at.dims + i] : 0;
        full = (at.in[i] - 1) * at.stride[i] + (at.kernel[i] - 1) * at.dilation[i] + 1 + p->output_padding[i];
        if (p->output_shape[i])
            wanted = p->output_shape[i];
        else if (win->auto_pad == AUTO_PAD_SAME_UPPER || win->auto_pad == AUTO_PAD_SAME_LOWER)
            wanted = at.in[i] * at.stride[i];
        if (wanted) {
            crop = full - wanted; /* below 0: more zeros at the end */
            at.begin[i] = crop < 0 ? 0 : win->auto_pad == AUTO_PAD_SAME_UPPER ? crop / 2 : crop - crop / 2;
            at.end[i] = crop - at.begin[i];
        }
        at.out[i] = full - at.begin[i] - at.end[i];
        if (at.out[i] < 1)
            return error_code(err, -EBADMSG, "shape_mismatch", "dimension %d of the output would be %lld",
                i + 2, (long long)at.out[i]);
    }
    *ret = at;
    return 0;
}

static int conv_transpose_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct conv_param *p = n->param;
    struct window_at at;
    int r = check_weights(p, in, n->n_in, true, err);

    if (r == 0)
        r = conv_transpose_place(n, &in[0]->shape, &in[1]->shape, &at, err);
    if (r < 0)
        return r;
    out[0].dtype = DT_F32;
    out[0].shape = (struct shape){
        .rank = in[0]->shape.rank, .dim = {in[0]->shape.dim[0], in[1]->shape.dim[1] * p->group}};
    for (int i = 0; i < at.dims; i++)
        out[0].shape.dim[i + 2] = at.out[i];
    return 0;
}

/* Spreads one input plane over an output plane through one filter. */
static void spread_plane(const struct window_at *p, const float *x, const float *w, float *y) {
    int64_t taps = p->kernel[0] * p->kernel[1] * p->kernel[2], plane = p->in[0] * p->in[1] * p->in[2];

    for (int64_t i = 0; i < plane; i++)
        for (int64_t t = 0; t < taps; t++) {
            int64_t k[3] = {
                t / (p->kernel[1] * p->kernel[2]), t / p->kernel[2] % p->kernel[1], t % p->kernel[2]};
            int64_t at[3] = {i / (p->in[1] * p->in[2]), i / p->in[2] % p->in[1], i % p->in[2]}, to = 0;
            bool is_inside = true;

            for (int d = 0; d < 3; d++) {
                int64_t o = at[d] * p->stride[d] + k[d] * p->dilation[d] - p->begin[d];

                is_inside = is_inside && o >= 0 && o < p->out[d];
                to = to * p->out[d] + o;
            }
            if (is_inside)
                y[to] += w[t] * x[i];
        }
}

static void conv_transpose_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct conv_param *p = n->param;
    const struct shape *x = &in[0]->shape, *w = &in[1]->shape;
    const float *bias = n->n_in > 2 && in[2] ? in[2]->data : NULL;
    int64_t per_group = w->dim[1], outputs = per_group * p->group, inputs = x->dim[1] / p->group;
    struct window_at at, q;
    int64_t plane_in, plane_out, taps;

    (void)scratch;
    if (conv_transpose_place(n, x, w, &at, NULL) < 0)
        return; /* shape() placed it before */
    q = window_to_3d(&at);
    plane_in = q.in[0] * q.in[1] * q.in[2];
    plane_out = q.out[0] * q.out[1] * q.out[2];
    taps = q.kernel[0] * q.kernel[1] * q.kernel[2];
    for (int64_t b = 0; b < x->dim[0]; b++)
        for (int64_t o = 0; o < outputs; o++) {
            float *y = (float *)out[0].data + (b * outputs + o) * plane_out;

            for (int64_t i = 0; i < plane_out; i++)
                y[i] = bias ? bias[o] : 0;
            for (int64_t c = 0; c < inputs; c++) {
                int64_t channel = o / per_group * inputs + c;

                spread_plane(&q, (const float *)in[0]->data + (b * x->dim[1] + channel) * plane_in,
                    (const float *)in[1]->data + (channel * per_group + o % per_group) * taps, y);
            }
        }
}

static void conv_transpose_cost(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    op_cost_move(n, in, out, ret);
    ret->macs = in[1]->shape.dim[0] ? op_count(in[0]) * (op_count(in[1]) / in[1]->shape.dim[0]) : 0;
}

const struct op op_conv_transpose = {
    .name = "ConvTranspose",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    .parse = conv_parse,
    .shape = conv_transpose_shape,
    .forward = conv_transpose_forward,
    .backward = conv_transpose_backward,
    .params = 1u << 1 | 1u << 2,
    .cost = conv_transpose_cost,
    .saves = OP_SAVES_IN,
    .couple = OP_COUPLE_FREE,
    .quant = OP_QUANT_FLOAT,
};
