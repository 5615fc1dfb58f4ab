/* Resize and Upsample: one dimension after the other, those that shrink first. */
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

static int parse_names(const struct node *n, bool is_old, struct resize_param *p, struct error *err) {
    static const char *const modes[] = {"nearest", "linear", "cubic", NULL};
    static const char *const coordinates[] = {"half_pixel", "asymmetric", "align_corners",
        "pytorch_half_pixel", "half_pixel_symmetric", "tf_crop_and_resize", NULL};
    static const char *const rounds[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil", NULL};
    static const char *const policies[] = {"stretch", "not_larger", "not_smaller", NULL};
    int mode = RESIZE_LINEAR, coordinate = 0, round = 0, policy = 0, r = 0;

    if (strcmp(node_attr_string(n, "mode", ""), "bilinear") != 0) /* opset 1 */
        r = pick(n, "mode", "nearest", modes, &mode, err);
    if (r == 0)
        r = pick(n, "coordinate_transformation_mode", is_old ? "asymmetric" : "half_pixel", coordinates,
            &coordinate, err);
    if (r == 0)
        r = pick(n, "nearest_mode", is_old ? "floor" : "round_prefer_floor", rounds, &round, err);
    if (r == 0)
        r = pick(n, "keep_aspect_ratio_policy", "stretch", policies, &policy, err);
    p->mode = (enum resize_mode)mode;
    p->coordinate = (enum resize_coordinate)coordinate;
    p->round = (enum resize_round)round;
    p->policy = (enum resize_policy)policy;
    return r;
}

static int resize_parse(struct graph *g, struct node *n, struct error *err) {
    bool is_old = g->opset < 11 || n->op == &op_upsample;
    struct resize_param *p = graph_alloc(g, sizeof(*p));
    const struct attr *axes = node_attr(n, "axes");

    if (!p)
        return error_oom(err);
    p->is_antialias = node_attr_int(n, "antialias", 0) != 0;
    p->excludes_outside = node_attr_int(n, "exclude_outside", 0) != 0;
    p->cubic_a = node_attr_float(n, "cubic_coeff_a", -0.75f);
    p->extrapolation = node_attr_float(n, "extrapolation_value", 0);
    if (axes && (axes->type != ATTR_INTS || axes->n > SHAPE_MAX_RANK || axes->n == 0))
        return error_code(err, -EBADMSG, "invalid_model", "axes are not 1 to %d integers", SHAPE_MAX_RANK);
    p->axes = axes ? axes->ints : NULL;
    p->n_axes = axes ? axes->n : 0;
    n->param = p;
    return parse_names(n, is_old, p, err);
}

static const struct tensor *input_at(const struct node *n, const struct tensor *const *in, int i) {
    return n->n_in > i && in[i] && op_count(in[i]) > 0 ? in[i] : NULL;
}

/* The dimensions that sizes, scales and roi speak of, in their order; how many. A negative errno: axes that
 * are none of the input's or given twice. */
static int read_axes(const struct resize_param *p, int rank, int *ret, struct error *err) {
    unsigned seen = 0;

    for (int i = 0; !p->axes && i < rank; i++)
        ret[i] = i;
    for (size_t i = 0; p->axes && i < p->n_axes; i++) {
        int r = op_axis(p->axes[i], rank, false, &ret[i], err);

        if (r < 0)
            return r;
        if (seen & 1u << ret[i])
            return error_code(err, -EBADMSG, "invalid_model", "axis %d is given twice", ret[i]);
        seen |= 1u << ret[i];
    }
    return p->axes ? (int)p->n_axes : rank;
}

static int place_by_scales(const struct tensor *x, const void *scales, const int *axes, int n,
    struct shape *ret, float *scale, struct error *err) {
    float given[SHAPE_MAX_RANK];

    memcpy(given, scales, (size_t)n * sizeof(*given)); /* unaligned in the file */
    for (int i = 0; i < n; i++) {
        double d = floor((double)x->shape.dim[axes[i]] * (double)given[i]);

        if (!(given[i] > 0) || !(d <= INT32_MAX))
            return error_code(
                err, -EBADMSG, "invalid_model", "the scale of dimension %d is %g", axes[i], (double)given[i]);
        ret->dim[axes[i]] = (int64_t)d;
        scale[axes[i]] = given[i];
    }
    return 0;
}

static int place_by_sizes(const struct resize_param *p, const struct tensor *x, const struct tensor *sizes,
    const int *axes, int n, struct shape *ret, float *scale, struct error *err) {
    int64_t want[SHAPE_MAX_RANK];
    double common = 0;
    int count = 0, r = op_read_ints(sizes, want, SHAPE_MAX_RANK, &count, err);

    if (r < 0)
        return r;
    if (count != n)
        return error_code(err, -EBADMSG, "invalid_model", "%d sizes for %d dimensions", count, n);
    for (int i = 0; i < n; i++) {
        double s = (double)want[i] / (double)x->shape.dim[axes[i]];

        if (want[i] < 1 || want[i] > INT32_MAX || x->shape.dim[axes[i]] < 1)
            return error_code(err, -EBADMSG, "shape_mismatch", "dimension %d cannot become %lld", axes[i],
                (long long)want[i]);
        if (i == 0 || (p->policy == POLICY_NOT_LARGER ? s < common : s > common))
            common = s;
    }
    for (int i = 0; i < n; i++) {
        int d = axes[i];

        ret->dim[d] = want[i];
        scale[d] = (float)want[i] / (float)x->shape.dim[d];
        if (p->policy == POLICY_STRETCH)
            continue;
        scale[d] = (float)common;
        ret->dim[d] = (int64_t)floor(common * (double)x->shape.dim[d] + 0.5);
    }
    return 0;
}

int resize_place(const struct node *n, const struct tensor *const *in, struct shape *ret, float *scale,
    struct error *err) {
    const struct resize_param *p = n->param;
    bool has_roi = n->op == &op_resize && n->n_in > 2;
    const struct tensor *scales = input_at(n, in, has_roi ? 2 : 1),
                        *sizes = has_roi ? input_at(n, in, 3) : NULL;
    const struct attr *a = node_attr(n, "scales");
    int axes[SHAPE_MAX_RANK], count = read_axes(p, in[0]->shape.rank, axes, err);

    if (count < 0)
        return count;
    *ret = in[0]->shape;
    for (int i = 0; i < ret->rank; i++)
        scale[i] = 1;
    if (sizes)
        return place_by_sizes(p, in[0], sizes, axes, count, ret, scale, err);
    if (scales && (scales->dtype != DT_F32 || op_count(scales) != count))
        return error_code(err, -EBADMSG, "invalid_model", "the scales are not %d floats", count);
    if (scales && !scales->data)
        return -EAGAIN;
    if (!scales && (!a || a->type != ATTR_FLOATS || a->n != (size_t)count))
        return error_code(err, -EBADMSG, "invalid_model", "neither scales nor sizes are given");
    return place_by_scales(
        in[0], scales ? scales->data : (const void *)a->floats, axes, count, ret, scale, err);
}

/* The crop: for each axis where it starts, then for each where it ends. */
static int check_roi(const struct node *n, const struct tensor *const *in, struct error *err) {
    const struct resize_param *p = n->param;
    const struct tensor *roi = input_at(n, in, 1);
    int64_t want = 2 * (p->axes ? (int64_t)p->n_axes : in[0]->shape.rank);

    if (p->coordinate != COORD_CROP)
        return 0;
    if (!roi || roi->dtype != DT_F32 || op_count(roi) != want)
        return error_code(err, -EBADMSG, "invalid_model", "the roi is not %lld floats", (long long)want);
    return roi->data ? 0 : -EAGAIN;
}

static int resize_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    float scale[SHAPE_MAX_RANK];
    int r = op_check_float(in[0], err);

    if (r == 0)
        r = check_roi(n, in, err);
    out[0].dtype = in[0]->dtype;
    return r < 0 ? r : resize_place(n, in, &out[0].shape, scale, err);
}

/* What is done, dimension by dimension. */
struct resize {
    struct shape in, out;
    struct resize_axis axis[SHAPE_MAX_RANK];
    int order[SHAPE_MAX_RANK], n; /* dimensions that change */
};

static int resize_read(const struct node *n, const struct tensor *const *in, struct resize *r) {
    const struct resize_param *p = n->param;
    int axes[SHAPE_MAX_RANK], count = read_axes(p, in[0]->shape.rank, axes, NULL), e;
    bool is_crop = p->coordinate == COORD_CROP;
    float scale[SHAPE_MAX_RANK], roi[2 * SHAPE_MAX_RANK];

    *r = (struct resize){.in = in[0]->shape};
    e = resize_place(n, in, &r->out, scale, NULL);
    if (e < 0 || count < 0)
        return -EINVAL;
    for (int d = 0; d < r->in.rank; d++)
        r->axis[d] = (struct resize_axis){p, r->in.dim[d], r->out.dim[d], scale[d], 0, 1};
    if (is_crop)
        memcpy(roi, in[1]->data, 2 * (size_t)count * sizeof(*roi)); /* unaligned in the file */
    for (int i = 0; is_crop && i < count; i++) {
        r->axis[axes[i]].start = roi[i];
        r->axis[axes[i]].end = roi[count + i];
    }
    for (int pass = 0; pass < 2; pass++)
        for (int d = 0; d < r->in.rank; d++) {
            const struct resize_axis *a = &r->axis[d];
            bool stays = a->in == a->out && a->start == 0 && a->end == 1, grows = a->out >= a->in;

            if (!stays && grows == (pass == 1))
                r->order[r->n++] = d;
        }
    return 0;
}

/* The longest of the intermediate results, in elements, and of the lists of taps. */
static void resize_sizes(const struct resize *r, int64_t *ret_count, int64_t *ret_taps) {
    struct shape s = r->in;

    *ret_count = 0;
    *ret_taps = 1;
    for (int i = 0; i < r->n; i++) {
        const struct resize_axis *a = &r->axis[r->order[i]];
        int64_t n = 0, taps = resize_max_taps(a);

        s.dim[r->order[i]] = a->out;
        (void)shape_count(&s, &n);
        *ret_count = n > *ret_count ? n : *ret_count;
        *ret_taps = taps > *ret_taps ? taps : *ret_taps;
    }
    *ret_count = (*ret_count + 15) / 16 * 16;
}

/* [one intermediate][another][indices][weights] */
static size_t resize_scratch(const struct node *n, const struct tensor *const *in, const struct tensor *out) {
    int64_t count, taps;
    struct resize r;

    (void)out;
    if (resize_read(n, in, &r) < 0)
        return 0;
    resize_sizes(&r, &count, &taps);
    return (size_t)(2 * count) * sizeof(float) + (size_t)taps * (sizeof(int64_t) + sizeof(float));
}

/* y[outer][out][inner] = sum of weight x[outer][index][inner] */
static void resize_axis(const struct resize_axis *a, const float *x, float *y, int64_t outer, int64_t inner,
    int64_t *index, float *weight) {
    for (int64_t i = 0; i < a->out; i++) {
        int64_t taps = resize_taps(a, i, index, weight);

        for (int64_t o = 0; o < outer; o++) {
            float *to = y + (o * a->out + i) * inner;

            for (int64_t j = 0; j < inner; j++)
                to[j] = 0;
            for (int64_t t = 0; t < taps; t++) {
                const float *from = x + (o * a->in + index[t]) * inner;
                float w = weight[t];

                for (int64_t j = 0; j < inner; j++)
                    to[j] += w * from[j];
            }
        }
    }
}

/* What a crop reads outside of the input. */
static void extrapolate(const struct resize *r, float *y, float value, int64_t *index, float *weight) {
    for (int i = 0; i < r->n; i++) {
        int64_t outer, out, inner;

        op_split_shape(&r->out, r->order[i], &outer, &out, &inner);
        for (int64_t k = 0; k < out; k++) {
            if (resize_taps(&r->axis[r->order[i]], k, index, weight))
                continue;
            for (int64_t o = 0; o < outer * inner; o++)
                y[(o / inner * out + k) * inner + o % inner] = value;
        }
    }
}

static void resize_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct resize_param *p = n->param;
    int64_t count, taps, *index;
    const float *x = in[0]->data;
    float *spare[2], *weight;
    struct shape s;
    struct resize r;

    if (resize_read(n, in, &r) < 0 || op_count(&out[0]) == 0)
        return; /* shape() placed it before */
    resize_sizes(&r, &count, &taps);
    spare[0] = scratch;
    spare[1] = spare[0] + count;
    index = (int64_t *)(void *)(spare[1] + count);
    weight = (float *)(void *)(index + taps);
    s = r.in;
    if (r.n == 0)
        memcpy(out[0].data, x, op_bytes(&out[0]));
    for (int i = 0; i < r.n; i++) {
        const struct resize_axis *a = &r.axis[r.order[i]];
        float *y = i + 1 == r.n ? out[0].data : spare[i % 2];
        int64_t outer, mid, inner;

        op_split_shape(&s, r.order[i], &outer, &mid, &inner);
        resize_axis(a, x, y, outer, inner, index, weight);
        s.dim[r.order[i]] = a->out;
        x = y;
    }
    if (p->coordinate == COORD_CROP)
        extrapolate(&r, out[0].data, p->extrapolation, index, weight);
}

/* The transpose of resize_axis: dx[outer][index][inner] += weight dy[outer][out][inner] */
static void spread_axis(const struct resize_axis *a, const float *dy, float *dx, int64_t outer, int64_t inner,
    int64_t *index, float *weight) {
    for (int64_t i = 0; i < a->out; i++) {
        int64_t taps = resize_taps(a, i, index, weight);

        for (int64_t o = 0; o < outer; o++)
            for (int64_t t = 0; t < taps; t++) {
                const float *from = dy + (o * a->out + i) * inner;
                float *to = dx + (o * a->in + index[t]) * inner, w = weight[t];

                for (int64_t j = 0; j < inner; j++)
                    to[j] += w * from[j];
            }
    }
}

/* Linear in the input: its transpose, the last dimension first. What a crop reads outside goes nowhere. */
static void resize_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    int64_t count, taps, *index;
    const float *dy = d_out[0].data;
    float *spare[2], *weight;
    struct shape s;
    struct resize r;

    if (!d_in[0] || resize_read(n, in, &r) < 0 || op_count(&out[0]) == 0)
        return;
    resize_sizes(&r, &count, &taps);
    spare[0] = scratch;
    spare[1] = spare[0] + count;
    index = (int64_t *)(void *)(spare[1] + count);
    weight = (float *)(void *)(index + taps);
    s = r.out;
    for (int64_t i = 0; r.n == 0 && i < op_count(&out[0]); i++)
        ((float *)d_in[0]->data)[i] += dy[i];
    for (int i = r.n - 1; i >= 0; i--) {
        const struct resize_axis *a = &r.axis[r.order[i]];
        float *dx = i == 0 ? d_in[0]->data : spare[i % 2];
        int64_t outer, mid, inner;

        op_split_shape(&s, r.order[i], &outer, &mid, &inner);
        if (i > 0)
            memset(dx, 0, (size_t)(outer * a->in * inner) * sizeof(*dx));
        spread_axis(a, dy, dx, outer, inner, index, weight);
        s.dim[r.order[i]] = a->in;
        dy = dx;
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
        .scratch = resize_scratch,                                                                           \
        .forward = resize_forward,                                                                           \
        .backward = resize_backward,                                                                         \
        .backward_scratch = resize_scratch,                                                                  \
        .cost = op_cost_elementwise,                                                                         \
        .couple = OP_COUPLE_SAME,                                                                            \
        .quant = OP_QUANT_SAME,                                                                              \
    }

RESIZE_ROW(op_resize, "Resize", 10, OPSET_LAST, 4);
RESIZE_ROW(op_upsample, "Upsample", 7, 9, 2);
