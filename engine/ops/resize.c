#include "engine/ops/resize.h"

#include "engine/ops/common.h"
#include "engine/ops/rows.h"

static int pick(const struct node *n, const char *attr, const char *dflt, const char *const *names, int *ret,
    struct error *err) {
    const char *s = node_attr_string(n, attr, dflt);

    for (int i = 0; names[i]; i++)
        if (!strcmp(s, names[i])) {
            *ret = i;
            return 0;
        }
    return error_code(err, -EBADMSG, "unsupported_operator", "%s '%.32s' is not supported", attr, s);
}

static int resize_parse(struct graph *g, struct node *n, struct error *err) {
    static const char *const modes[] = {"nearest", "linear", NULL};
    static const char *const coordinates[] = {
        "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", NULL};
    static const char *const rounds[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil", NULL};
    bool is_old = g->opset < 11 || n->op == &op_upsample;
    struct resize_param *p = graph_alloc(g, sizeof(*p));
    int mode = 0, coordinate = 0, round = 0, r;

    if (!p)
        return error_oom(err);
    r = pick(n, "mode", "nearest", modes, &mode, err);
    if (r < 0 && !strcmp(node_attr_string(n, "mode", ""), "bilinear")) { /* opset 1 */
        error_clear(err);
        mode = RESIZE_LINEAR;
        r = 0;
    }
    if (r == 0)
        r = pick(n, "coordinate_transformation_mode", is_old ? "asymmetric" : "half_pixel", coordinates,
            &coordinate, err);
    if (r == 0)
        r = pick(n, "nearest_mode", is_old ? "floor" : "round_prefer_floor", rounds, &round, err);
    if (r < 0)
        return r;
    if (node_attr_int(n, "antialias", 0) || node_attr(n, "axes") ||
        strcmp(node_attr_string(n, "keep_aspect_ratio_policy", "stretch"), "stretch") != 0)
        return error_code(
            err, -EBADMSG, "unsupported_operator", "antialias, axes and aspect policies are not supported");
    *p = (struct resize_param){
        (enum resize_mode)mode, (enum resize_coordinate)coordinate, (enum resize_round)round};
    n->param = p;
    return 0;
}

static const struct tensor *input_at(const struct node *n, const struct tensor *const *in, int i) {
    return n->n_in > i && in[i] && op_count(in[i]) > 0 ? in[i] : NULL;
}

static int place_by_scales(const struct tensor *x, const float *scale, struct shape *ret, struct error *err) {
    for (int i = 0; i < x->shape.rank; i++) {
        double d = floor((double)x->shape.dim[i] * (double)scale[i]);

        if (!(scale[i] > 0) || d > INT32_MAX)
            return error_code(
                err, -EBADMSG, "invalid_model", "the scale of dimension %d is %g", i, (double)scale[i]);
        ret->dim[i] = (int64_t)d;
    }
    return 0;
}

int resize_place(const struct node *n, const struct tensor *const *in, struct shape *ret, float *scale,
    struct error *err) {
    bool has_roi = n->op == &op_resize && n->n_in > 2;
    const struct tensor *scales = input_at(n, in, has_roi ? 2 : 1),
                        *sizes = has_roi ? input_at(n, in, 3) : NULL;
    const struct attr *a = node_attr(n, "scales");
    int rank = in[0]->shape.rank, count = 0;

    *ret = in[0]->shape;
    if (sizes) {
        int64_t want[SHAPE_MAX_RANK];
        int r = op_read_ints(sizes, want, SHAPE_MAX_RANK, &count, err);

        if (r < 0)
            return r;
        if (count != rank)
            return error_code(
                err, -EBADMSG, "invalid_model", "%d sizes for an input of rank %d", count, rank);
        for (int i = 0; i < rank; i++) {
            if (want[i] < 1 || in[0]->shape.dim[i] < 1)
                return error_code(err, -EBADMSG, "shape_mismatch", "dimension %d cannot become %lld", i,
                    (long long)want[i]);
            ret->dim[i] = want[i];
            scale[i] = (float)want[i] / (float)in[0]->shape.dim[i];
        }
        return 0;
    }
    if (scales && (scales->dtype != DT_F32 || op_count(scales) != rank))
        return error_code(err, -EBADMSG, "invalid_model", "the scales are not %d floats", rank);
    if (scales && !scales->data)
        return -EAGAIN;
    if (!scales && (!a || a->type != ATTR_FLOATS || a->n != (size_t)rank))
        return error_code(err, -EBADMSG, "invalid_model", "neither scales nor sizes are given");
    memcpy(scale, scales ? scales->data : a->floats, (size_t)rank * sizeof(*scale));
    return place_by_scales(in[0], scale, ret, err);
}

static int resize_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    float scale[SHAPE_MAX_RANK];

    if (op_check_float(in[0], err) < 0)
        return -EBADMSG;
    out[0].dtype = in[0]->dtype;
    return resize_place(n, in, &out[0].shape, scale, err);
}

float resize_source(const struct resize_param *p, int64_t i, float scale, int64_t in, int64_t out) {
    switch (p->coordinate) {
    case COORD_ASYMMETRIC: return (float)i / scale;
    case COORD_ALIGN_CORNERS: return out > 1 ? (float)i * (float)(in - 1) / (float)(out - 1) : 0;
    case COORD_PYTORCH_HALF_PIXEL: return out > 1 ? ((float)i + 0.5f) / scale - 0.5f : 0;
    case COORD_HALF_PIXEL:
    default: return ((float)i + 0.5f) / scale - 0.5f;
    }
}

int64_t resize_nearest(const struct resize_param *p, int64_t i, float scale, int64_t in, int64_t out) {
    float x = resize_source(p, i, scale, in, out), f = floorf(x);
    int64_t k;

    switch (p->round) {
    case ROUND_FLOOR: k = (int64_t)f; break;
    case ROUND_CEIL: k = (int64_t)ceilf(x); break;
    case ROUND_PREFER_CEIL: k = (int64_t)floorf(x + 0.5f); break;
    case ROUND_PREFER_FLOOR:
    default: k = x == f + 0.5f ? (int64_t)f : (int64_t)roundf(x);
    }
    return k < 0 ? 0 : k >= in ? in - 1 : k;
}

/* The value at the output coordinates c[]: nearest, or the product of linear weights over the 2^rank
 * neighbours. */
static float sample(const struct resize_param *p, const float *x, const struct shape *si,
    const struct shape *so, const float *scale, const int64_t *c) {
    int64_t low[SHAPE_MAX_RANK], high[SHAPE_MAX_RANK];
    float weight[SHAPE_MAX_RANK], sum = 0;

    for (int d = 0; d < si->rank; d++) {
        float at;

        if (p->mode == RESIZE_NEAREST || si->dim[d] == so->dim[d]) {
            low[d] = high[d] =
                si->dim[d] == so->dim[d] ? c[d] : resize_nearest(p, c[d], scale[d], si->dim[d], so->dim[d]);
            weight[d] = 0;
            continue;
        }
        at = resize_source(p, c[d], scale[d], si->dim[d], so->dim[d]);
        at = at < 0 ? 0 : at > (float)(si->dim[d] - 1) ? (float)(si->dim[d] - 1) : at;
        low[d] = (int64_t)at;
        high[d] = low[d] + 1 < si->dim[d] ? low[d] + 1 : low[d];
        weight[d] = at - (float)low[d];
    }
    for (unsigned corner = 0; corner < 1u << si->rank; corner++) {
        int64_t at = 0;
        float w = 1;

        for (int d = 0; d < si->rank; d++) {
            bool is_high = corner & 1u << d;

            w *= is_high ? weight[d] : 1 - weight[d];
            at = at * si->dim[d] + (is_high ? high[d] : low[d]);
        }
        if (w != 0)
            sum += w * x[at];
    }
    return sum;
}

static void resize_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct resize_param *p = n->param;
    float scale[SHAPE_MAX_RANK];
    struct shape s;
    int64_t count = op_count(&out[0]);

    (void)scratch;
    if (resize_place(n, in, &s, scale, NULL) < 0)
        return; /* shape() placed it before */
    for (int64_t i = 0; i < count; i++) {
        int64_t c[SHAPE_MAX_RANK], rest = i;

        for (int d = s.rank - 1; d >= 0; d--) {
            c[d] = rest % s.dim[d];
            rest /= s.dim[d];
        }
        ((float *)out[0].data)[i] = sample(p, in[0]->data, &in[0]->shape, &s, scale, c);
    }
}

#define RESIZE_ROW(variable, onnx_name, first, last, most)                                                   \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = first,                                                                                      \
        .until = last,                                                                                       \
        .min_in = 1,                                                                                         \
        .max_in = most,                                                                                      \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .parse = resize_parse,                                                                               \
        .shape = resize_shape,                                                                               \
        .forward = resize_forward,                                                                           \
        .cost = op_cost_elementwise,                                                                         \
        .couple = OP_COUPLE_SAME,                                                                            \
        .quant = OP_QUANT_SAME,                                                                              \
    }

RESIZE_ROW(op_resize, "Resize", 10, OPSET_LAST, 4);
RESIZE_ROW(op_upsample, "Upsample", 7, 9, 2);
