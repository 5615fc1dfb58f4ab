/* Derivatives of the elementwise functions. Those that are flat almost everywhere (Ceil, Floor, Round, Sign)
 * have none: training through them is a method's business (straight-through estimators). */
#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/unary.h"

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double d_abs(double x, const struct unary_param *p) {
    (void)p;
    return x > 0 ? 1 : x < 0 ? -1 : 0;
}

static double d_celu(double x, const struct unary_param *p) {
    return x < 0 ? exp(x / (double)p->alpha) : 1;
}

static double d_clip(double x, const struct unary_param *p) {
    return x >= (double)p->alpha && x <= (double)p->beta ? 1 : 0;
}

static double d_elu(double x, const struct unary_param *p) {
    return x > 0 ? 1 : (double)p->alpha * exp(x);
}

static double d_erf(double x, const struct unary_param *p) {
    (void)p;
    return M_2_SQRTPI * exp(-x * x);
}

static double d_exp(double x, const struct unary_param *p) {
    (void)p;
    return exp(x);
}

static double d_gelu(double x, const struct unary_param *p) {
    (void)p;
    return 0.5 * (1 + erf(x * M_SQRT1_2)) + x * 0.5 * M_2_SQRTPI * M_SQRT1_2 * exp(-x * x / 2);
}

static double d_gelu_tanh(double x, const struct unary_param *p) {
    double c = M_2_SQRTPI * M_SQRT1_2, t = tanh(c * (x + 0.044715 * x * x * x));

    (void)p;
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
}

static double d_hard_sigmoid(double x, const struct unary_param *p) {
    double y = (double)p->alpha * x + (double)p->beta;

    return y > 0 && y < 1 ? (double)p->alpha : 0;
}

static double d_hard_swish(double x, const struct unary_param *p) {
    double y = (double)p->alpha * x + (double)p->beta;

    return (y < 0 ? 0 : y > 1 ? 1 : y) + x * d_hard_sigmoid(x, p);
}

static double d_leaky_relu(double x, const struct unary_param *p) {
    return x > 0 ? 1 : (double)p->alpha;
}

static double d_log(double x, const struct unary_param *p) {
    (void)p;
    return 1 / x;
}

static double d_mish(double x, const struct unary_param *p) {
    double t = tanh(x > 20 ? x : log1p(exp(x)));

    (void)p;
    return t + x * (1 - t * t) * sigmoid(x);
}

static double d_neg(double x, const struct unary_param *p) {
    (void)x;
    (void)p;
    return -1;
}

static double d_reciprocal(double x, const struct unary_param *p) {
    (void)p;
    return -1 / (x * x);
}

static double d_relu(double x, const struct unary_param *p) {
    (void)p;
    return x > 0 ? 1 : 0;
}

static double d_selu(double x, const struct unary_param *p) {
    return (double)p->beta * (x > 0 ? 1 : (double)p->alpha * exp(x));
}

static double d_sigmoid(double x, const struct unary_param *p) {
    double s = sigmoid(x);

    (void)p;
    return s * (1 - s);
}

static double d_softplus(double x, const struct unary_param *p) {
    (void)p;
    return sigmoid(x);
}

static double d_softsign(double x, const struct unary_param *p) {
    double a = 1 + fabs(x);

    (void)p;
    return 1 / (a * a);
}

static double d_sqrt(double x, const struct unary_param *p) {
    (void)p;
    return 0.5 / sqrt(x);
}

static double d_swish(double x, const struct unary_param *p) {
    double s = sigmoid((double)p->alpha * x);

    return s + (double)p->alpha * x * s * (1 - s);
}

static double d_tanh(double x, const struct unary_param *p) {
    double t = tanh(x);

    (void)p;
    return 1 - t * t;
}

static double d_thresholded_relu(double x, const struct unary_param *p) {
    return x > (double)p->alpha ? 1 : 0;
}

static const struct {
    const char *name;
    double (*d)(double x, const struct unary_param *p);
} derivatives[] = {
    {"Abs", d_abs},
    {"Celu", d_celu},
    {"Clip", d_clip},
    {"Elu", d_elu},
    {"Erf", d_erf},
    {"Exp", d_exp},
    {"Gelu", d_gelu},
    {"HardSigmoid", d_hard_sigmoid},
    {"HardSwish", d_hard_swish},
    {"LeakyRelu", d_leaky_relu},
    {"Log", d_log},
    {"Mish", d_mish},
    {"Neg", d_neg},
    {"Reciprocal", d_reciprocal},
    {"Relu", d_relu},
    {"Selu", d_selu},
    {"Sigmoid", d_sigmoid},
    {"Softplus", d_softplus},
    {"Softsign", d_softsign},
    {"Sqrt", d_sqrt},
    {"Swish", d_swish},
    {"Tanh", d_tanh},
    {"ThresholdedRelu", d_thresholded_relu},
};

void unary_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    double (*d)(double x, const struct unary_param *p) = NULL;
    struct unary_param p = *(const struct unary_param *)n->param;
    const float *x = in[0]->data, *dy = d_out[0].data;
    int64_t count = op_count(&out[0]);
    float *dx;

    (void)scratch;
    if (!d_in[0])
        return;
    dx = d_in[0]->data;
    for (size_t i = 0; i < sizeof(derivatives) / sizeof(derivatives[0]); i++)
        if (!strcmp(derivatives[i].name, n->op->name))
            d = derivatives[i].d;
    if (!strcmp(n->op->name, "Gelu") && !strcmp(node_attr_string(n, "approximate", "none"), "tanh"))
        d = d_gelu_tanh;
    if (n->n_in > 1 && in[1] && in[1]->data)
        memcpy(&p.alpha, in[1]->data, sizeof(float));
    if (n->n_in > 2 && in[2] && in[2]->data)
        memcpy(&p.beta, in[2]->data, sizeof(float));
    for (int64_t i = 0; i < count; i++)
        dx[i] += (float)((double)dy[i] * d((double)x[i], &p));
}
