/* Operators that rearrange or repeat: DepthToSpace, SpaceToDepth, Tile. Elements of whole bytes. */
#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

static int check_bytes(const struct tensor *t, struct error *err) {
    const struct dtype_info *i = dtype_info(t->dtype);

    if (i && i->bits >= 8)
        return 0;
    return error_code(
        err, -EBADMSG, "unsupported_operator", "type %s is not supported here", i ? i->name : "?");
}

/* N C H W by blocks of b x b pixels: the two operators are each other's inverse. */
struct blocks {
    int64_t batch, channels, height, width; /* of the deep side: channels = b b shallow channels */
    int64_t size;
    bool is_crd; /* deep channel = c b b + block (else block C + c) */
};

static int blocks_read(const struct node *n, const struct shape *x, struct blocks *ret, struct error *err) {
    bool to_space = n->op == &op_depth_to_space;
    const char *mode = node_attr_string(n, "mode", "DCR");
    int64_t b = node_attr_int(n, "blocksize", 0);

    if (x->rank != 4)
        return error_code(err, -EBADMSG, "shape_mismatch", "the input has rank %d, 4 is needed", x->rank);
    if (b < 1 || b > INT16_MAX)
        return error_code(err, -EBADMSG, "invalid_model", "blocksize is %lld", (long long)b);
    if (to_space && strcmp(mode, "DCR") != 0 && strcmp(mode, "CRD") != 0)
        return error_code(err, -EBADMSG, "invalid_model", "mode is '%.32s'", mode);
    if (to_space ? x->dim[1] % (b * b) : x->dim[2] % b || x->dim[3] % b)
        return error_code(
            err, -EBADMSG, "shape_mismatch", "blocks of %lld do not divide the input", (long long)b);
    *ret = (struct blocks){x->dim[0], x->dim[1], x->dim[2], x->dim[3], b, to_space && !strcmp(mode, "CRD")};
    if (!to_space) {
        ret->height /= b;
        ret->width /= b;
        /* the caller's product check refuses what does not fit */
        if (__builtin_mul_overflow(x->dim[1], b * b, &ret->channels))
            return error_code(err, -EBADMSG, "shape_mismatch", "the result is too large");
    }
    return 0;
}

static int blocks_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    struct blocks k;
    int r = check_bytes(in[0], err);

    if (r == 0)
        r = blocks_read(n, &in[0]->shape, &k, err);
    if (r < 0)
        return r;
    out[0].dtype = in[0]->dtype;
    out[0].shape = n->op == &op_depth_to_space ? (struct shape){4, {k.batch, k.channels / (k.size * k.size),
                                                                       k.height * k.size, k.width * k.size}}
                                               : (struct shape){4, {k.batch, k.channels, k.height, k.width}};
    return 0;
}

static void blocks_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    bool to_space = n->op == &op_depth_to_space;
    size_t size = dtype_info(in[0]->dtype)->bits / 8;
    const char *from = in[0]->data;
    int64_t shallow, b, wide;
    char *to = out[0].data;
    struct blocks k;

    (void)scratch;
    if (blocks_read(n, &in[0]->shape, &k, NULL) < 0)
        return; /* shape() read it before */
    b = k.size;
    shallow = k.channels / (b * b);
    wide = k.width * b;
    for (int64_t row = 0; row < k.batch * k.channels * k.height; row++) { /* a row of the deep side */
        int64_t h = row % k.height, d = row / k.height % k.channels, s = row / k.height / k.channels;
        int64_t c = k.is_crd ? d / (b * b) : d % shallow, block = k.is_crd ? d % (b * b) : d / shallow;
        int64_t flat = ((s * shallow + c) * k.height * b + h * b + block / b) * wide + block % b;

        for (int64_t w = 0; w < k.width; w++) {
            int64_t deep = row * k.width + w, at = flat + w * b;

            memcpy(to + (size_t)(to_space ? at : deep) * size, from + (size_t)(to_space ? deep : at) * size,
                size);
        }
    }
}

/* Before opset 6 one number of tiles along one axis. */
static int tile_repeats(
    const struct node *n, const struct tensor *const *in, int64_t *repeat, struct error *err) {
    int rank = in[0]->shape.rank, count, r = op_read_ints(in[1], repeat, SHAPE_MAX_RANK, &count, err);

    if (r < 0)
        return r;
    if (n->n_in > 2)
        return error_code(
            err, -EBADMSG, "unsupported_operator", "tiles and axis of opset 1 are not supported");
    if (count != rank)
        return error_code(err, -EBADMSG, "shape_mismatch", "%d repeats for an input of rank %d", count, rank);
    for (int i = 0; i < rank; i++)
        if (repeat[i] < 0 || repeat[i] > INT32_MAX)
            return error_code(err, -EBADMSG, "invalid_model", "dimension %d is repeated %lld times", i,
                (long long)repeat[i]);
    return 0;
}

static int tile_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int64_t repeat[SHAPE_MAX_RANK];
    int r = check_bytes(in[0], err);

    if (r == 0)
        r = tile_repeats(n, in, repeat, err);
    if (r < 0)
        return r;
    out[0].dtype = in[0]->dtype;
    out[0].shape = in[0]->shape;
    for (int i = 0; i < out[0].shape.rank; i++)
        if (__builtin_mul_overflow(out[0].shape.dim[i], repeat[i], &out[0].shape.dim[i]))
            return error_code(err, -EBADMSG, "shape_mismatch", "the result is too large");
    return 0;
}

static void tile_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct shape *x = &in[0]->shape, *y = &out[0].shape;
    size_t size = dtype_info(in[0]->dtype)->bits / 8;
    int64_t run = x->rank ? x->dim[x->rank - 1] : 1, count = op_count(&out[0]);

    (void)n;
    (void)scratch;
    for (int64_t i = 0; run && i < count; i += run) { /* rows of the input, one after the other */
        int64_t rest = i, at = 0, step = 1;

        for (int d = x->rank - 1; d >= 0; d--) {
            at += rest % y->dim[d] % x->dim[d] * step;
            step *= x->dim[d];
            rest /= y->dim[d];
        }
        memcpy((char *)out[0].data + (size_t)i * size, (const char *)in[0]->data + (size_t)at * size,
            (size_t)run * size);
    }
}

#define SPACE_ROW(variable, onnx_name, least, most, shape_fn, run)                                           \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = 1,                                                                                          \
        .until = OPSET_LAST,                                                                                 \
        .min_in = least,                                                                                     \
        .max_in = most,                                                                                      \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .shape = shape_fn,                                                                                   \
        .forward = run,                                                                                      \
        .backward = move_backward,                                                                           \
        .backward_scratch = move_backward_scratch,                                                           \
        .cost = op_cost_move,                                                                                \
        .couple = OP_COUPLE_NONE,                                                                            \
        .quant = OP_QUANT_SAME,                                                                              \
    }

SPACE_ROW(op_depth_to_space, "DepthToSpace", 1, 1, blocks_shape, blocks_forward);
SPACE_ROW(op_space_to_depth, "SpaceToDepth", 1, 1, blocks_shape, blocks_forward);
SPACE_ROW(op_tile, "Tile", 2, 3, tile_shape, tile_forward);
