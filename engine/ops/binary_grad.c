/* Gradients of the elementwise operators of two or more operands. An operand that was broadcast gets the sum
 * over all the places it stood at. */
#include "engine/ops/binary_fn.h"
#include "engine/ops/common.h"
#include "engine/ops/grad.h"

/* Partial derivatives of y = f(a, b). */
struct partial {
    double a, b;
};

static struct partial d_add(double a, double b) {
    (void)a;
    (void)b;
    return (struct partial){1, 1};
}

static struct partial d_sub(double a, double b) {
    (void)a;
    (void)b;
    return (struct partial){1, -1};
}

static struct partial d_mul(double a, double b) {
    return (struct partial){b, a};
}

static struct partial d_div(double a, double b) {
    return (struct partial){1 / b, -a / (b * b)};
}

static struct partial d_pow(double a, double b) {
    return (struct partial){b == 0 ? 0 : b * pow(a, b - 1), a > 0 ? pow(a, b) * log(a) : 0};
}

static struct partial d_prelu(double a, double b) {
    return a > 0 ? (struct partial){1, 0} : (struct partial){b, a};
}

static const struct {
    const char *name;
    struct partial (*d)(double a, double b);
} partials[] = {
    {"Add", d_add},
    {"Div", d_div},
    {"Mul", d_mul},
    {"PRelu", d_prelu},
    {"Pow", d_pow},
    {"Sub", d_sub},
};

static void add_to(struct tensor *t, int64_t i, double v) {
    if (t)
        ((float *)t->data)[i] += (float)v;
}

void binary_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    struct partial (*d)(double a, double b) = NULL;
    struct shape second = binary_second_shape(n, &in[0]->shape, &in[1]->shape);
    const struct shape *s = &out[0].shape;
    int64_t count = op_count(&out[0]);

    (void)scratch;
    for (size_t i = 0; i < sizeof(partials) / sizeof(partials[0]); i++)
        if (!strcmp(partials[i].name, n->op->name))
            d = partials[i].d;
    for (int64_t i = 0; i < count; i++) {
        int64_t a = op_broadcast_index(&in[0]->shape, s, i), b = op_broadcast_index(&second, s, i);
        double dy = (double)((const float *)d_out[0].data)[i];
        struct partial v =
            d((double)((const float *)in[0]->data)[a], (double)((const float *)in[1]->data)[b]);

        add_to(d_in[0], a, dy * v.a);
        add_to(d_in[1], b, dy * v.b);
    }
}

/* The operand whose element is the result: the first of equal ones. */
static int winner(const struct node *n, const struct tensor *const *in, const struct shape *s, int64_t i,
    double y, int64_t *ret_at) {
    for (int k = 0; k < n->n_in; k++) {
        *ret_at = op_broadcast_index(&in[k]->shape, s, i);
        if ((double)((const float *)in[k]->data)[*ret_at] == y)
            return k;
    }
    return n->n_in - 1; /* NaN */
}

/* Max and Min: the operand that won; Sum and Mean: each. */
void variadic_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    bool picks = !strcmp(n->op->name, "Max") || !strcmp(n->op->name, "Min");
    double share = !strcmp(n->op->name, "Mean") ? 1.0 / n->n_in : 1;
    const struct shape *s = &out[0].shape;
    int64_t count = op_count(&out[0]), at = 0;

    (void)scratch;
    for (int64_t i = 0; i < count; i++) {
        double dy = (double)((const float *)d_out[0].data)[i];

        if (picks) {
            int k = winner(n, in, s, i, (double)((const float *)out[0].data)[i], &at);

            add_to(d_in[k], at, dy);
            continue;
        }
        for (int k = 0; k < n->n_in; k++)
            add_to(d_in[k], op_broadcast_index(&in[k]->shape, s, i), dy * share);
    }
}

void where_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct shape *s = &out[0].shape;
    int64_t count = op_count(&out[0]);

    (void)n;
    (void)scratch;
    for (int64_t i = 0; i < count; i++) {
        bool is_first = ((const uint8_t *)in[0]->data)[op_broadcast_index(&in[0]->shape, s, i)];
        int k = is_first ? 1 : 2;

        add_to(d_in[k], op_broadcast_index(&in[k]->shape, s, i), (double)((const float *)d_out[0].data)[i]);
    }
}
