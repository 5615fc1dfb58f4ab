/* x * clip(x + 3, 0, 6) / 6 in the orders exporters write it:
 *
 *   Div(Mul(x, Clip(Add(x, 3), 0, 6)), 6)      Mul(Mul(x, Clip(…)), 1/6)
 *   Mul(x, Div(Clip(Add(x, 3), 0, 6), 6))      Mul(x, HardSigmoid(x; 1/6, 1/2))
 *
 * and x * sigmoid(x). The last node becomes HardSwish or Swish; the others go when nobody else reads them. */
#include <math.h>
#include <string.h>

#include "engine/ops.h"
#include "engine/pass_fuse.h"

bool fuse_scalar(const struct graph *g, int value, float *ret) {
    const struct tensor *t = value < 0 ? NULL : g->values[value].init;
    int64_t n;

    if (!t || !t->data || t->dtype != DT_F32 || !shape_count(&t->shape, &n) || n != 1)
        return false;
    memcpy(ret, t->data, sizeof(*ret));
    return true;
}

bool fuse_clip_bounds(const struct graph *g, const struct node *n, float *ret_low, float *ret_high) {
    *ret_low = node_attr_float(n, "min", -INFINITY);
    *ret_high = node_attr_float(n, "max", INFINITY);
    if (n->n_in > 1 && n->in[1] >= 0 && !fuse_scalar(g, n->in[1], ret_low))
        return false;
    return n->n_in < 3 || n->in[2] < 0 || fuse_scalar(g, n->in[2], ret_high);
}

static bool is_near(float a, float b) {
    return fabsf(a - b) <= 1e-6f * fabsf(b);
}

/* The node of type `op` that makes the value, NULL. */
static const struct node *made_by(const struct graph *g, int value, const char *op) {
    int p = value < 0 ? -1 : g->values[value].producer;

    return p >= 0 && strcmp(g->nodes[p].op_type, op) == 0 && !*g->nodes[p].domain && !g->nodes[p].n_post
               ? &g->nodes[p]
               : NULL;
}

/* `n` multiplies or divides by a constant: *ret_factor, *ret_x. */
static bool is_scaling(const struct graph *g, const struct node *n, float *ret_factor, int *ret_x) {
    bool mul = strcmp(n->op_type, "Mul") == 0;

    if (!mul && strcmp(n->op_type, "Div") != 0)
        return false;
    for (int i = 0; i < (mul ? 2 : 1); i++) {
        if (fuse_scalar(g, n->in[1 - i], ret_factor)) {
            *ret_factor = mul ? *ret_factor : 1 / *ret_factor;
            *ret_x = n->in[i];
            return true;
        }
    }
    return false;
}

/* HardSigmoid(x) with the numbers of hard-swish. */
static bool is_gate(const struct graph *g, int value, int x) {
    const struct node *gate = made_by(g, value, "HardSigmoid");

    return gate && gate->in[0] == x && is_near(node_attr_float(gate, "alpha", 0.2f), 1.0f / 6) &&
           is_near(node_attr_float(gate, "beta", 0.5f), 0.5f);
}

/* clip(x + 3, 0, 6) */
static bool is_clipped_sum(const struct graph *g, int value, int x) {
    const struct node *clip = made_by(g, value, "Clip"), *add = clip ? made_by(g, clip->in[0], "Add") : NULL;
    float low, high, three;

    if (!add || !fuse_clip_bounds(g, clip, &low, &high) || low < 0 || low > 0 || !is_near(high, 6))
        return false;
    for (int i = 0; i < 2; i++) {
        if (add->in[i] == x && fuse_scalar(g, add->in[1 - i], &three) && is_near(three, 3))
            return true;
    }
    return false;
}

/* Is `value` clip(x + 3, 0, 6) / 6, when multiplied by `factor`? */
static bool is_ramp(const struct graph *g, int value, int x, float factor) {
    const struct node *scale = made_by(g, value, "Div");
    int inner;
    float f;

    if (is_near(factor, 1) && is_gate(g, value, x))
        return true;
    scale = scale ? scale : made_by(g, value, "Mul");
    if (scale && is_scaling(g, scale, &f, &inner)) {
        value = inner;
        factor *= f;
    }
    return is_near(factor, 1.0f / 6) && is_clipped_sum(g, value, x);
}

/* x of the hard-swish that node `n` ends, -1. */
static int match_swish(const struct graph *g, const struct node *n) {
    const struct node *mul = n;
    float factor = 1;
    int inner;

    if (is_scaling(g, n, &factor, &inner))
        mul = made_by(g, inner, "Mul");
    if (!mul || strcmp(mul->op_type, "Mul") != 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        if (is_ramp(g, mul->in[1 - i], mul->in[i], factor))
            return mul->in[i];
    }
    return -1;
}

/* x of the Swish that node `n` is, -1. */
static int match_sigmoid_product(const struct graph *g, const struct node *n) {
    if (strcmp(n->op_type, "Mul") != 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        const struct node *gate = made_by(g, n->in[1 - i], "Sigmoid");

        if (gate && gate->in[0] == n->in[i])
            return n->in[i];
    }
    return -1;
}

static bool is_float(const struct graph *g, int value) {
    return g->values[value].quant.scale <= 0;
}

/* The node becomes `op` of `x`. */
static int replace_node(struct graph *g, struct node *n, const struct op *op, int x, struct error *err) {
    n->op = op;
    n->op_type = op->name;
    n->in[0] = x;
    n->n_in = 1;
    n->n_attr = 0;
    n->param = NULL;
    return op->parse ? op->parse(g, n, err) : 0;
}

int pass_fuse_swish(struct graph *g, struct error *err) {
    const struct op *hard = op_find("", "HardSwish"), *smooth = op_find("", "Swish");
    bool found = false;

    for (size_t i = 0; i < g->n_nodes; i++) {
        struct node *n = &g->nodes[i];
        bool is_free = !*n->domain && !n->n_post && is_float(g, n->out[0]);
        int x = is_free ? match_swish(g, n) : -1, r = 0;
        const struct op *op = hard;

        if (is_free && x < 0) {
            x = match_sigmoid_product(g, n);
            op = smooth;
        }
        if (x < 0 || !op || !is_float(g, x))
            continue;
        r = replace_node(g, n, op, x, err);
        if (r < 0)
            return r;
        found = true;
    }
    return found && graph_drop_unused(g) < 0 ? error_oom(err) : 0;
}
