/* QuantizeLinear and DequantizeLinear, per tensor, axis or block. */
#include "engine/ops/quantize.h"
#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/rows.h"

static int quantize_parse(struct graph *g, struct node *n, struct error *err) {
    struct quantize_param *p = graph_alloc(g, sizeof(*p));

    if (!p)
        return error_oom(err);
    p->axis = node_attr_int(n, "axis", 1);
    p->block = node_attr_int(n, "block_size", 0);
    n->param = p;
    return 0;
}

static bool is_code_type(enum dtype t) {
    const struct dtype_info *i = dtype_info(t);

    return i && !i->is_float && i->bits <= 16 && t != DT_BOOL;
}

static int check_scale(const struct quantize_param *p, const struct tensor *x, const struct tensor *scale,
    const struct tensor *zero, struct error *err) {
    char ts[SHAPE_TEXT_MAX], tx[SHAPE_TEXT_MAX];
    int axis;

    if (op_check_float(scale, err) < 0)
        return -EBADMSG;
    if (zero && op_count(zero) != op_count(scale))
        return error_code(err, -EBADMSG, "shape_mismatch", "scale and zero point have different sizes");
    if (op_count(scale) == 1)
        return 0;
    if (op_axis(p->axis, x->shape.rank, false, &axis, err) < 0)
        return -EBADMSG;
    if (p->block > 0 && scale->shape.rank == x->shape.rank &&
        scale->shape.dim[axis] == x->shape.dim[axis] / p->block + (x->shape.dim[axis] % p->block > 0))
        return 0;
    if (scale->shape.rank != 1 || scale->shape.dim[0] != x->shape.dim[axis])
        return error_code(err, -EBADMSG, "shape_mismatch", "scale %s does not fit axis %d of %s",
            shape_text(&scale->shape, ts), axis, shape_text(&x->shape, tx));
    return 0;
}

static int quantize_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct tensor *zero = n->n_in > 2 ? in[2] : NULL;

    if (op_check_float(in[0], err) < 0)
        return -EBADMSG;
    out[0].dtype = zero ? zero->dtype : (enum dtype)node_attr_int(n, "output_dtype", DT_U8);
    if (!zero && out[0].dtype == DT_NONE) /* the attribute's default */
        out[0].dtype = DT_U8;
    out[0].shape = in[0]->shape;
    if (!is_code_type(out[0].dtype))
        return error_code(
            err, -EBADMSG, "unsupported_operator", "only integers of up to 16 bits are supported here");
    return check_scale(n->param, in[0], in[1], zero, err);
}

static int dequantize_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    if (!is_code_type(in[0]->dtype) && in[0]->dtype != DT_S32)
        return error_code(err, -EBADMSG, "unsupported_operator",
            "only integers of up to 16 bits and int32 are supported here");
    out[0].dtype = DT_F32;
    out[0].shape = in[0]->shape;
    return check_scale(n->param, in[0], in[1], n->n_in > 2 ? in[2] : NULL, err);
}

/* Index of the scale of element i. */
struct scale_at {
    int64_t mid, inner, block, n_block; /* block 0: per axis */
    bool is_single;
};

static struct scale_at scale_walk(
    const struct quantize_param *p, const struct tensor *x, const struct tensor *scale) {
    struct scale_at s = {.is_single = op_count(scale) == 1};
    int64_t outer;
    int axis = 0;

    if (s.is_single)
        return s;
    (void)op_axis(p->axis, x->shape.rank, false, &axis, NULL);
    op_split_shape(&x->shape, axis, &outer, &s.mid, &s.inner);
    if (scale->shape.rank == x->shape.rank && p->block > 0) {
        s.block = p->block;
        s.n_block = scale->shape.dim[axis];
    }
    return s;
}

static int64_t scale_index(const struct scale_at *s, int64_t i) {
    int64_t m;

    if (s->is_single)
        return 0;
    m = i / s->inner % s->mid;
    if (!s->block)
        return m;
    return (i / (s->inner * s->mid) * s->n_block + m / s->block) * s->inner + i % s->inner;
}

static int64_t load_code(const struct tensor *t, int64_t i) {
    if (t->dtype == DT_U8)
        return ((const uint8_t *)t->data)[i];
    return t->dtype == DT_S8 ? ((const int8_t *)t->data)[i] : element_get_int(t, i);
}

static void quantize_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct tensor *zero = n->n_in > 2 ? in[2] : NULL;
    const struct dtype_info *type = dtype_info(out[0].dtype);
    struct scale_at s = scale_walk(n->param, in[0], in[1]);
    float span = (float)(1 << type->bits), low = type->is_signed ? -span / 2 : 0, high = low + span - 1;
    int64_t count = op_count(&out[0]);

    (void)scratch;
    for (int64_t i = 0; i < count; i++) {
        int64_t k = scale_index(&s, i);
        float v = nearbyintf(((const float *)in[0]->data)[i] / ((const float *)in[1]->data)[k]);

        v += zero ? (float)load_code(zero, k) : 0;
        v = v < low ? low : v > high ? high : v == v ? v : 0;
        if (type->bits == 8)
            ((uint8_t *)out[0].data)[i] = (uint8_t)(int)v;
        else
            element_set_int(&out[0], i, (int64_t)v);
    }
}

static void dequantize_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct tensor *zero = n->n_in > 2 ? in[2] : NULL;
    struct scale_at s = scale_walk(n->param, in[0], in[1]);
    int64_t count = op_count(&out[0]);

    (void)scratch;
    for (int64_t i = 0; i < count; i++) {
        int64_t k = scale_index(&s, i), v = load_code(in[0], i);

        v -= zero ? load_code(zero, k) : 0;
        ((float *)out[0].data)[i] = (float)v * ((const float *)in[1]->data)[k];
    }
}

const struct op op_quantize_linear = {
    .name = "QuantizeLinear",
    .domain = "",
    .since = 10,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    .parse = quantize_parse,
    .shape = quantize_shape,
    .forward = quantize_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_SAME,
    .quant = OP_QUANT_FLOAT,
    .sees_codes = true,
};

const struct op op_dequantize_linear = {
    .name = "DequantizeLinear",
    .domain = "",
    .since = 10,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    .parse = quantize_parse,
    .shape = dequantize_shape,
    .forward = dequantize_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_SAME,
    .quant = OP_QUANT_FLOAT,
    .sees_codes = true,
};
