/* QLinearConv and QLinearMatMul of constant weights become what they stand for, so that the passes and
 * kernels for quantised networks see one spelling:
 *
 *    x ─ QLinearConv ─ y         x ─ DequantizeLinear ─┐
 *                                w ─ DequantizeLinear ─ Conv ─ QuantizeLinear ─ y
 *                                b ─ DequantizeLinear ─┘
 */
#include <errno.h>
#include <string.h>

#include "engine/ops.h"
#include "engine/pass.h"

/* Inputs of the two operators. */
enum { IN_X, IN_X_SCALE, IN_X_ZERO, IN_W, IN_W_SCALE, IN_W_ZERO, IN_Y_SCALE, IN_Y_ZERO, IN_BIAS };

static const struct tensor *constant_at(const struct graph *g, const struct node *n, int i) {
    return i < n->n_in && n->in[i] >= 0 ? g->values[n->in[i]].init : NULL;
}

static int64_t count_of(const struct tensor *t) {
    int64_t n = 0;

    (void)shape_count(&t->shape, &n);
    return n;
}

static bool is_float_constant(const struct tensor *t) {
    return t && t->dtype == DT_F32 && t->data;
}

/* Is all that decides the form known? */
static bool can_expand(const struct graph *g, const struct node *n) {
    const struct tensor *w = constant_at(g, n, IN_W), *zero = constant_at(g, n, IN_W_ZERO);
    const struct tensor *x_scale = constant_at(g, n, IN_X_SCALE), *w_scale = constant_at(g, n, IN_W_SCALE);
    const struct tensor *bias = constant_at(g, n, IN_BIAS);

    if (n->n_in < IN_Y_ZERO + 1 || !w || w->shape.rank < 2 || !zero || !is_float_constant(x_scale) ||
        !is_float_constant(w_scale) || !is_float_constant(constant_at(g, n, IN_Y_SCALE)))
        return false;
    if (count_of(x_scale) != 1 || count_of(zero) != count_of(w_scale))
        return false;
    return n->n_in <= IN_BIAS || n->in[IN_BIAS] < 0 ||
           (bias && bias->data && bias->dtype == DT_S32 && bias->shape.rank == 1);
}

static int add_value(struct graph *g, const char *base, struct error *err) {
    const struct shape unknown = {.rank = -1};
    const char *name = graph_unique_name(g, base);
    int id = name ? graph_add_value(g, name, DT_F32, &unknown) : -ENOMEM;

    return id < 0 ? error_oom(err) : id;
}

/* The real numbers of the codes in[0] (scale, zero point); their value's id. Nodes go to the end:
 * graph_finish sorts. */
static int add_real(struct graph *g, const int *in, int n_in, int64_t axis, struct error *err) {
    int out = add_value(g, "dequantized", err), node;

    if (out < 0)
        return out;
    node = graph_insert_node(g, g->n_nodes, "DequantizeLinear", g->values[out].name, in, n_in, &out, 1);
    if (node < 0 || graph_set_attr_int(g, &g->nodes[node], "axis", axis) < 0)
        return error_oom(err);
    return out;
}

/* One code of the bias is one product of a code of the input and one of the weights. */
static int add_bias(struct graph *g, const struct node *n, struct error *err) {
    const struct tensor *x = constant_at(g, n, IN_X_SCALE), *w = constant_at(g, n, IN_W_SCALE);
    struct tensor t = {.dtype = DT_F32, .shape = w->shape};
    const char *name = graph_unique_name(g, "bias_scale");
    int64_t count = count_of(w);
    float a, b, *scale = graph_alloc(g, (size_t)(count + 1) * sizeof(*scale));
    int in[2] = {n->in[IN_BIAS], -1};

    if (!name || !scale)
        return error_oom(err);
    memcpy(&a, x->data, sizeof(a));
    for (int64_t i = 0; i < count; i++) {
        memcpy(&b, (const char *)w->data + (size_t)i * sizeof(b), sizeof(b));
        scale[i] = a * b;
    }
    t.data = scale;
    in[1] = graph_add_init(g, name, &t, /* data_lives= */ true);
    return in[1] < 0 ? error_oom(err) : add_real(g, in, 2, 0, err);
}

/* `real` turns to an operator on real numbers between its codes. */
static int expand(struct graph *g, size_t index, const char *real, struct error *err) {
    struct node n = g->nodes[index]; /* its arrays outlive the table's growth */
    int64_t last = constant_at(g, &n, IN_W)->shape.rank - 1;
    bool is_conv = !strcmp(real, "Conv"), has_bias = n.n_in > IN_BIAS && n.in[IN_BIAS] >= 0;
    int *in = graph_alloc(g, 4 * sizeof(*in)), back[3];

    if (!in)
        return error_oom(err);
    in[0] = add_real(g, n.in + IN_X, 3, 1, err);
    in[1] = in[0] < 0 ? in[0] : add_real(g, n.in + IN_W, 3, is_conv ? 0 : last, err);
    in[2] = in[1] < 0 || !has_bias ? in[1] : add_bias(g, &n, err);
    if (in[2] < 0)
        return in[2];
    back[0] = add_value(g, "real", err);
    if (back[0] < 0)
        return back[0];
    back[1] = n.in[IN_Y_SCALE];
    back[2] = n.in[IN_Y_ZERO];
    if (graph_insert_node(g, g->n_nodes, "QuantizeLinear", g->values[back[0]].name, back, 3, n.out, 1) < 0)
        return error_oom(err);
    n.op_type = real;
    n.is_parsed = false;
    n.in = in;
    n.n_in = has_bias ? 3 : 2;
    n.out = in + 3;
    n.out[0] = back[0];
    g->nodes[index] = n;
    g->values[back[0]].producer = (int)index;
    return 0;
}

int pass_expand_qlinear(struct graph *g, struct error *err) {
    size_t n = g->n_nodes;
    bool is_changed = false;

    for (size_t i = 0; i < n; i++) {
        const struct op *op = g->nodes[i].op;
        const char *real = !strcmp(op->name, "QLinearConv")     ? "Conv"
                           : !strcmp(op->name, "QLinearMatMul") ? "MatMul"
                                                                : NULL;
        int r;

        if (!real || !can_expand(g, &g->nodes[i]))
            continue;
        r = expand(g, i, real, err);
        if (r < 0)
            return r;
        is_changed = true;
    }
    return is_changed ? graph_finish(g, err) : 0;
}
