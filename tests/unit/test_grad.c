/* Gradients of the operators against finite differences: each row with `backward` has a line here, and each
 * element of each float input of the line's last node is moved both ways. The loss is a random weighting of
 * the outputs, summed in double precision; Richardson's extrapolation takes the error of the difference to
 * the fourth power of the step, so that forward in floats is good for 1e-4. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ops.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"

#define STEP      0.01
#define TOLERANCE 1e-4
#define MAX_IO    8

static const struct {
    const char *net;
    float low, high; /* of the inputs; 0, 0: -1 to 1 */
} cases[] = {
    {"Abs x=2x3x4", 0, 0},
    {"Add x=2x3x4 x2=3x1", 0, 0},
    {"AveragePool x=2x3x5x6 kernel_shape=3,2 strides=2,1 pads=1,0,1,1", 0, 0},
    {"AveragePool x=1x2x5x5 kernel_shape=3,3 strides=2,2 pads=1,1,1,1 count_include_pad=1 ceil_mode=1", 0, 0},
    {"AveragePool x=1x2x3x4x4 kernel_shape=2,2,2", 0, 0},
    {"BatchNormalization x=3x4x2x3 w=4 b=4 m=4 v:0.8,1.25,1.5,2", 0, 0},
    {"Celu x=2x3x4 alpha=1.5", 0, 0},
    {"Clip x=2x3x4 a:-0.55 b:0.45", 0, 0},
    {"Concat x=2x3x4 x2=2x1x4 x3=2x2x4 axis=1", 0, 0},
    {"Conv x=2x4x6x5 w=6x2x3x3 b=6 group=2 pads=1,0,2,1 strides=2,1", 0, 0},
    {"Conv x=1x3x7x7 w=3x1x3x3 group=3 dilations=2,2 pads=2,2,2,2", 0, 0},
    {"Conv x=2x3x9 w=4x3x3 b=4 strides=2, pads=1,1", 0, 0},
    {"Conv x=1x2x3x4x4 w=2x2x2x2x2", 0, 0},
    {"Conv x=1x2x6x6 w=2x2x3x3 auto_pad=SAME_UPPER strides=2,2", 0, 0},
    {"ConvTranspose x=2x4x3x4 w=4x3x3x3 b=3 strides=2,2 pads=1,1,1,1 output_padding=1,1", 0, 0},
    {"ConvTranspose x=1x4x4x3 w=4x2x2x2 group=2 dilations=2,1", 0, 0},
    {"DepthToSpace x=1x8x2x3 blocksize=2", 0, 0},
    {"DepthToSpace x=1x8x2x3 blocksize=2 mode=CRD", 0, 0},
    {"Div x=2x3x4 x2=2x1x4", 0.8f, 1.5f},
    {"Dropout x=2x3", 0, 0},
    {"Elu x=2x3x4", 0, 0},
    {"Erf x=2x3x4", 0, 0},
    {"Exp x=2x3x4", 0, 0},
    {"Expand x=3x1 s:2,3,4i", 0, 0},
    {"Flatten x=2x3x4 axis=1", 0, 0},
    {"Gather x=4x3 n:2,0,2,-1i axis=0", 0, 0},
    {"GatherElements x=5 n:0,2,2,-1,4i", 0, 0},
    {"Reshape n:0,2,1,-1,0,2i s:2,3i; GatherElements x=2x3 $ axis=1", 0, 0},
    {"Gelu x=2x3x4", -3, 3},
    {"Gelu x=2x3x4 approximate=tanh", -3, 3},
    {"Gemm x=3x4 w=4x5 b=5", 0, 0},
    {"Gemm x=4x3 w=5x4 c=3x1 transA=1 transB=1 alpha=0.5 beta=1.5", 0, 0},
    {"GlobalAveragePool x=2x3x4x5", 0, 0},
    {"GlobalLpPool x=2x3x3x2", 0, 0},
    {"GlobalLpPool x=2x3x3x2 .p=3", 0, 0},
    {"GlobalLpPool x=2x3x3x2 .p=1", 0, 0},
    {"GlobalMaxPool x=2x3x4x5", 0, 0},
    {"opset 18; GroupNormalization x=2x6x3x2 w=3 b=3 num_groups=3", 0, 0},
    {"opset 21; GroupNormalization x=2x6x3x2 w=6 b=6 num_groups=2 epsilon=0.1", 0, 0},
    {"HardSigmoid x=2x3x4", -4, 4},
    {"HardSwish x=2x3x4", -5, 5},
    {"Identity x=2x3", 0, 0},
    {"LRN x=2x7x2x2 size=5 alpha=0.9 beta=0.75 bias=1.5", 0, 0},
    {"LRN x=1x6x1x2 size=4 alpha=0.9 beta=0.5", 0, 0},
    {"InstanceNormalization x=2x3x4x2 w=3 b=3", 0, 0},
    {"InstanceNormalization x=2x3x5 w=3 b=3 epsilon=0.1", 0, 0},
    {"opset 17; LayerNormalization x=3x4x5 w=5 b=5", 0, 0},
    {"opset 17; LayerNormalization x=3x4x5 w=4x5 axis=1 epsilon=0.1", 0, 0},
    {"opset 17; LayerNormalization x=3x4x5 w=5 b=5 >3", 0, 0},
    {"LeakyRelu x=2x3x4 alpha=0.1", 0, 0},
    {"Log x=2x3x4", 0.6f, 2},
    {"LogSoftmax x=3x5", 0, 0},
    {"LpNormalization x=2x3x4 axis=1", 0, 0},
    {"LpNormalization x=2x3x4 .p=1", 0, 0},
    {"LpPool x=2x3x5x6 kernel_shape=3,2 strides=2,1 pads=1,0,1,1", 0, 0},
    {"LpPool x=1x2x5x5 kernel_shape=2,2 .p=3", 0, 0},
    {"LpPool x=1x2x7 kernel_shape=3, dilations=2, .p=1", 0, 0},
    {"MatMul x=2x3x4 w=4x5", 0, 0},
    {"MatMul x=2x1x3x4 x2=3x4x2", 0, 0},
    {"MatMul x=4 w=4x3", 0, 0},
    {"Max x=2x3x4 x2=3x4 x3=1x4", 0, 0},
    {"MaxPool x=2x3x6x5 kernel_shape=3,2 strides=2,2 pads=1,0,1,1", 0, 0},
    {"Mean x=2x3x4 x2=3x4 x3=1x4", 0, 0},
    {"MeanVarianceNormalization x=2x3x4x2", 0, 0},
    {"MeanVarianceNormalization x=3x4x2 axes=1,", 0, 0},
    {"Min x=2x3x4 x2=3x4", 0, 0},
    {"Mish x=2x3x4", -3, 3},
    {"Mul x=2x3x4 x2=2x3x1", 0, 0},
    {"Neg x=2x3x4", 0, 0},
    {"PRelu x=2x3x4 w=3x1", 0, 0},
    {"Pad x=2x3x4 pads:0,1,2,1,0,1i c:0.5", 0, 0},
    {"Pad x=2x3x4 pads=0,1,2,0,0,1 mode=reflect", 0, 0},
    {"Pad x=2x3x4 pads=0,1,2,0,0,1 mode=edge", 0, 0},
    {"Pow x=2x3x4 x2=4", 0.4f, 1.6f},
    {"Reciprocal x=2x3x4", 0.8f, 1.5f},
    {"ReduceL1 x=2x3x4 axes=1, keepdims=0", 0, 0},
    {"ReduceL2 x=2x3x4 axes=0,2", 0, 0},
    {"ReduceLogSum x=2x3x4 axes=1,", 0.6f, 2},
    {"ReduceLogSumExp x=2x2x4 axes=1,", -0.5f, 0.5f},
    {"ReduceMax x=2x3x4 axes=1,2", 0, 0},
    {"ReduceMean x=2x3x4 axes=1,2", 0, 0},
    {"ReduceMin x=2x3x4", 0, 0},
    {"ReduceProd x=2x3x2 axes=1,", 0, 0},
    {"ReduceSum x=2x3x4 s:0,2i", 0, 0},
    {"ReduceSumSquare x=2x3x4 axes=2,", 0, 0},
    {"Relu x=2x3x4", 0, 0},
    {"Reshape x=2x3x4 s:4,6i", 0, 0},
    {"Resize x=1x2x3x4 _ s:1,1,2,2", 0, 0},
    {"Resize x=1x2x6x5 _ _ s:1,2,3,7i nearest_mode=ceil coordinate_transformation_mode=asymmetric", 0, 0},
    {"Resize x=1x2x3x4 _ s:1,1,2,2.5 mode=linear", 0, 0},
    {"Resize x=2x1x5x4 _ _ s:2,1,8,9i mode=linear coordinate_transformation_mode=align_corners", 0, 0},
    {"Resize x=1x2x7x6 _ _ s:1,2,3,9i mode=linear coordinate_transformation_mode=pytorch_half_pixel", 0, 0},
    {"Resize x=2x3x5 _ _ s:2,3,8i mode=linear", 0, 0},
    {"Resize x=1x1x4x5 _ s:1,1,1.5,2 mode=cubic", 0, 0},
    {"opset 18; Resize x=1x1x8x6 _ s:1,1,0.5,0.5 mode=linear antialias=1", 0, 0},
    {"Resize x=1x2x5x5 c:0,0,0.2,-0.3,1,1,0.8,0.9 _ s:1,2,4,6i mode=linear "
     "coordinate_transformation_mode=tf_crop_and_resize extrapolation_value=3.5",
        0, 0},
    {"Resize x=1x2x3x4 _ s:1,1,1,1", 0, 0},
    {"Selu x=2x3x4", 0, 0},
    {"Sigmoid x=2x3x4", -3, 3},
    {"Slice x=4x5x3 starts=1,-1 ends=4,-6 axes=0,1", 0, 0},
    {"Slice x=4x5x3 s:3,0i e:0,5i a:0,1i s:-2,2i", 0, 0},
    {"Softmax x=3x4x2 axis=1", 0, 0},
    {"Softplus x=2x3x4", -3, 3},
    {"Softsign x=2x3x4", 0, 0},
    {"SpaceToDepth x=1x2x4x6 blocksize=2", 0, 0},
    {"Split x=2x6x3 axis=1 >3", 0, 0},
    {"Sqrt x=2x3x4", 0.3f, 2},
    {"Squeeze x=2x1x4 s:1i", 0, 0},
    {"Sub x=2x3x4 x2=3x4", 0, 0},
    {"Sum x=2x3x4 x2=3x4 x3=4", 0, 0},
    {"Swish x=2x3x4 alpha=1.5", -3, 3},
    {"Tanh x=2x3x4", 0, 0},
    {"Tile x=2x3 n:2,3i", 0, 0},
    {"ThresholdedRelu x=2x3x4 alpha=0.3", 0, 0},
    {"Transpose x=2x3x4 perm=2,0,1", 0, 0},
    {"Unsqueeze x=2x3 s:1i", 0, 0},
    {"opset 9; Upsample x=1x2x3x4 s:1,1,2,3", 0, 0},
    {"opset 9; Upsample x=1x2x3x4 s:1,1,2,3 mode=linear", 0, 0},
    {"Greater x=2x3x4 x2=2x3x4; Where $ x3=2x3x4 x4=3x1", 0, 0},
};
#define N_CASES (sizeof(cases) / sizeof(cases[0]))

/* A node with memory for all it reads and writes. */
struct rig {
    const struct node *n;
    struct tensor in[MAX_IO], out[MAX_IO], d_in[MAX_IO], d_out[MAX_IO];
    const struct tensor *in_ptr[MAX_IO];
    struct tensor *d_in_ptr[MAX_IO];
    void *scratch;
};

static void *room(const struct tensor *t) {
    size_t bytes = 0;
    void *p;

    assert_true(shape_bytes(&t->shape, t->dtype, &bytes));
    p = calloc(1, bytes + 64);
    assert_non_null(p);
    return p;
}

static int64_t count_of(const struct tensor *t) {
    int64_t n = 0;

    assert_true(shape_count(&t->shape, &n));
    return n;
}

/* values: of the graph's, computed so far. */
static void rig_start(
    struct rig *r, const struct node *n, const struct graph *g, const struct tensor *values) {
    struct error err = {0};
    size_t scratch = 0, backward = 0;

    memset(r, 0, sizeof(*r));
    r->n = n;
    for (int i = 0; i < n->n_in; i++) {
        const struct tensor *t = n->in[i] < 0               ? NULL
                                 : g->values[n->in[i]].init ? g->values[n->in[i]].init
                                                            : &values[n->in[i]];
        size_t bytes = 0;

        if (!t)
            continue;
        r->in[i] = *t;
        r->in[i].data = room(t);
        assert_true(shape_bytes(&t->shape, t->dtype, &bytes));
        memcpy(r->in[i].data, t->data, bytes);
        r->in_ptr[i] = &r->in[i];
    }
    if (n->op->shape(n, r->in_ptr, r->out, &err) < 0)
        fail_msg("%s: %s", n->op_type, err.text);
    for (int o = 0; o < n->n_out; o++)
        r->out[o].data = room(&r->out[o]);
    scratch = n->op->scratch ? n->op->scratch(n, r->in_ptr, r->out) : 0;
    backward = n->op->backward_scratch ? n->op->backward_scratch(n, r->in_ptr, r->out) : 0;
    r->scratch = calloc(1, (scratch > backward ? scratch : backward) + 64);
    assert_non_null(r->scratch);
}

static void rig_done(struct rig *r) {
    for (int i = 0; i < MAX_IO; i++) {
        free(r->in[i].data);
        free(r->out[i].data);
        free(r->d_in[i].data);
        free(r->d_out[i].data);
    }
    free(r->scratch);
}

static double loss_of(struct rig *r) {
    double loss = 0;

    r->n->op->forward(r->n, r->in_ptr, r->out, r->scratch);
    for (int o = 0; o < r->n->n_out; o++)
        for (int64_t i = 0; i < count_of(&r->out[o]); i++)
            loss += (double)((const float *)r->d_out[o].data)[i] * (double)((const float *)r->out[o].data)[i];
    return loss;
}

static double central(struct rig *r, float *x, double h) {
    volatile float high, low; /* the distance there really is */
    float was = *x;
    double up, down;

    high = *x = (float)((double)was + h);
    up = loss_of(r);
    low = *x = (float)((double)was - h);
    down = loss_of(r);
    *x = was;
    return (up - down) / ((double)high - (double)low);
}

/* Elements whose two differences disagree stand within a step of a kink; few may. */
static void check_input(struct rig *r, int k, const char *net) {
    int64_t n = count_of(&r->in[k]), n_kinks = 0;
    const float *got = r->d_in[k].data;
    double largest = 1e-3;

    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)got[i]));
    for (int64_t i = 0; i < n; i++) {
        float *x = (float *)r->in[k].data + i;
        double whole = central(r, x, STEP), half = central(r, x, STEP / 2), want = (4 * half - whole) / 3;

        if (fabs(half - whole) > 3e-4 * largest) {
            n_kinks++;
            continue;
        }
        if (!(fabs(want - (double)got[i]) <= TOLERANCE * largest))
            fail_msg("%s: input %d, element %lld: %g, by differences %g", net, k, (long long)i,
                (double)got[i], want);
    }
    if (n_kinks * 4 > n)
        fail_msg(
            "%s: input %d: %lld of %lld elements stand at a kink", net, k, (long long)n_kinks, (long long)n);
}

static void check_rig(struct rig *r, const char *net) {
    const struct op *op = r->n->op;

    assert_non_null(op->backward);
    for (int o = 0; o < r->n->n_out; o++) {
        r->d_out[o] = r->out[o];
        r->d_out[o].data = room(&r->out[o]);
        net_text_fill(r->d_out[o].data, count_of(&r->out[o]), 77 + (uint32_t)o);
    }
    for (int i = 0; i < r->n->n_in; i++) {
        if (!r->in_ptr[i] || r->in[i].dtype != DT_F32)
            continue;
        r->d_in[i] = r->in[i];
        r->d_in[i].data = room(&r->in[i]);
        r->d_in_ptr[i] = &r->d_in[i];
    }
    (void)loss_of(r);
    op->backward(r->n, r->in_ptr, r->out, r->d_out, r->d_in_ptr, r->scratch);
    for (int i = 0; i < r->n->n_in; i++) {
        bool is_parameter = i > 0 && (!strcmp(op->name, "Clip") || !strcmp(op->name, "Pad") ||
                                         !strcmp(op->name, "Resize") || !strcmp(op->name, "Upsample"));

        if (r->d_in_ptr[i] && !is_parameter)
            check_input(r, i, net);
    }
}

static void fill(struct tensor *t, uint32_t seed, float low, float high) {
    float *x = t->data;
    int64_t n = count_of(t);

    net_text_fill(x, n, seed);
    for (int64_t i = 0; high > low && i < n; i++)
        x[i] = low + (high - low) * (x[i] + 1) / 2;
}

static void check_case(size_t c) {
    struct net_text t = net_text_read(cases[c].net);
    struct tensor *values = calloc(t.graph->n_values, sizeof(*values));
    struct rig r;

    assert_non_null(values);
    for (size_t i = 0; i < t.n_inputs; i++) {
        struct tensor *v = &values[t.graph->inputs[i]];

        *v = (struct tensor){.dtype = DT_F32, .shape = t.input[i]};
        v->data = room(v);
        fill(v, 1000 * (uint32_t)c + (uint32_t)i, cases[c].low, cases[c].high);
    }
    for (size_t k = 0; k < t.graph->n_nodes; k++) {
        const struct node *n = &t.graph->nodes[k];

        rig_start(&r, n, t.graph, values);
        if (k + 1 == t.graph->n_nodes) {
            check_rig(&r, cases[c].net);
        } else {
            n->op->forward(n, r.in_ptr, r.out, r.scratch);
            values[n->out[0]] = r.out[0];
            r.out[0].data = NULL;
        }
        rig_done(&r);
    }
    for (size_t i = 0; i < t.graph->n_values; i++)
        free(values[i].data);
    free(values);
    graph_free(t.graph);
}

static void test_gradients_agree_with_differences(void **state) {
    (void)state;
    for (size_t c = 0; c < N_CASES; c++)
        check_case(c);
}

/* d_in is added to, and what is NULL is let be. */
static void test_gradients_are_added(void **state) {
    struct net_text t = net_text_read("Gemm x=2x3 w=3x2 b=2");
    struct tensor values[16] = {0};
    struct rig r;

    (void)state;
    values[t.graph->inputs[0]] =
        (struct tensor){.dtype = DT_F32, .shape = t.input[0], .data = (float[6]){1, 2, 3, 4, 5, 6}};
    rig_start(&r, &t.graph->nodes[0], t.graph, values);
    r.d_out[0] = r.out[0];
    r.d_out[0].data = room(&r.out[0]);
    memcpy(r.d_out[0].data, (float[4]){1, 2, 3, 4}, 4 * sizeof(float));
    r.d_in[2] = r.in[2];
    r.d_in[2].data = room(&r.in[2]);
    memcpy(r.d_in[2].data, (float[2]){10, 20}, 2 * sizeof(float));
    r.d_in_ptr[2] = &r.d_in[2];
    r.n->op->backward(r.n, r.in_ptr, r.out, r.d_out, r.d_in_ptr, r.scratch);
    assert_float_equal(((float *)r.d_in[2].data)[0], 14, 0);
    assert_float_equal(((float *)r.d_in[2].data)[1], 26, 0);
    rig_done(&r);
    graph_free(t.graph);
}

static bool has_case(const struct op *op) {
    for (size_t c = 0; c < N_CASES; c++) {
        const char *last = strrchr(cases[c].net, ';');
        const char *name = last ? last + 2 : cases[c].net;
        size_t n = strlen(op->name);

        if (!strncmp(name, op->name, n) && name[n] == ' ')
            return true;
    }
    return false;
}

static void test_every_gradient_has_a_case(void **state) {
    (void)state;
    for (size_t i = 0; i < op_table_size; i++)
        if (op_table[i]->backward && !has_case(op_table[i]))
            fail_msg("%s has a gradient and no case here", op_table[i]->name);
}

/* What stands in CNNs that are trained. Without: operators on integers, truth values and shapes; those that
 * are flat almost everywhere (Ceil, Floor, Round, Sign, ArgMax, Hardmax: activation transforms stand for
 * them); quantised arithmetic (training is done in float, before); Cast, which no-op ones are removed before;
 * TopK, CumSum, Mod and ScatterElements, which make indices, ends of detectors and weights stored sparsely.
 */
static void test_what_is_trained_has_a_gradient(void **state) {
    static const char *const names[] = {"Abs", "Add", "AveragePool", "BatchNormalization", "Celu", "Clip",
        "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Dropout", "Elu", "Erf", "Exp", "Expand",
        "Flatten", "Gather", "GatherElements", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool",
        "GlobalMaxPool", "GroupNormalization", "HardSigmoid", "HardSwish", "Identity",
        "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax",
        "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool", "Mean", "MeanVarianceNormalization", "Min",
        "Mish", "Mul", "Neg", "PRelu", "Pad", "Pow", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
        "ReduceSumSquare", "Relu", "Reshape", "Resize", "Selu", "Sigmoid", "Slice", "Softmax", "Softplus",
        "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tanh",
        "ThresholdedRelu", "Tile", "Transpose", "Unsqueeze", "Upsample", "Where"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct op *op = op_find("", names[i]);

        if (!op || !op->backward)
            fail_msg("%s has no gradient", names[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_agree_with_differences),
        cmocka_unit_test(test_gradients_are_added),
        cmocka_unit_test(test_every_gradient_has_a_case),
        cmocka_unit_test(test_what_is_trained_has_a_gradient),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
