/* Networks of float16 and bfloat16: computed in float, with the file's types outside (pass_widen). */
#include "tests/unit/cmocka_all.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/net.h"
#include "engine/onnx.h"
#include "engine/ops/element.h"
#include "engine/pass.h"
#include "tests/unit/net_text.h"

/* A residual block with batch norm, a Constant of halves, an output that is read again, a fully connected
 * end. */
#define NET                                                                                                  \
    "Conv x=1x3x12x12 w=16x3x3x3 b=16 pads=1,1,1,1; BatchNormalization $ p=16 c=16 d=16 pv=16; Relu $; "     \
    "Conv $ v=16x16x3x3 pads=1,1,1,1; Add $ y2; Clip $ lo:0 hi:6; MaxPool $ kernel_shape=2,2 strides=2,2; "  \
    "Mul $ k=1x16x1x1; GlobalAveragePool $; Flatten $; Gemm $ g=16x10 e=10"

static const enum dtype half_types[] = {DT_F16, DT_BF16};

static float round_to(enum dtype t, float x) {
    uint32_t code = 0;
    struct tensor one = {.dtype = t, .data = &code};

    element_set(&one, 0, (double)x);
    return (float)element_get(&one, 0);
}

static int64_t count(const struct shape *s) {
    int64_t n = 0;

    assert_true(shape_count(s, &n));
    return n;
}

/* Rounds the floats of all initialisers. */
static void round_inits(struct graph *g, enum dtype t) {
    for (size_t v = 0; v < g->n_values; v++) {
        const struct tensor *init = g->values[v].init;

        for (int64_t i = 0; init && init->dtype == DT_F32 && i < count(&init->shape); i++)
            ((float *)init->data)[i] = round_to(t, ((float *)init->data)[i]);
    }
}

/* The same network as an exporter of halves writes it. */
static void make_halves(struct graph *g, enum dtype t) {
    for (size_t v = 0; v < g->n_values; v++) {
        struct value *value = &g->values[v];
        struct tensor code;
        int64_t n;

        if (value->dtype == DT_F32 && !value->init)
            value->dtype = t;
        if (!value->init || value->init->dtype != DT_F32)
            continue;
        code = *value->init;
        n = count(&code.shape);
        code.dtype = t;
        code.data = graph_alloc(g, (size_t)n * 2 + 1);
        for (int64_t i = 0; i < n; i++)
            element_set(&code, i, (double)((const float *)value->init->data)[i]);
        assert_int_equal(graph_set_init(g, (int)v, &code), 0);
    }
    for (size_t i = 0; i < g->n_outputs; i++)
        g->values[g->outputs[i]].dtype = t;
}

struct pair {
    struct graph *whole, *half; /* taken by nets */
    struct shape input;
};

static struct pair make_pair(const char *text, enum dtype t) {
    struct net_text n = net_text_read(text);
    struct pair p = {.whole = n.graph, .input = n.input[0]};
    struct error err = {0};

    round_inits(p.whole, t);
    assert_int_equal(graph_clone(p.whole, &p.half, &err), 0);
    make_halves(p.half, t);
    return p;
}

#define MAX_FLOATS 4096

struct answer {
    enum dtype type;
    int64_t n;
    float y[MAX_FLOATS];
    size_t n_steps;
    char form[32]; /* of the first layer's weights */
};

/* Takes the graph. The input's numbers, in [-1, 1), are rounded to `round`. */
static void run(
    struct graph *g, const struct shape *s, enum dtype round, struct net_options o, struct answer *ret) {
    struct error err = {0};
    struct net *net = NULL;
    struct plan *plan = NULL;
    struct arena arena = {0};
    int64_t n = count(s);
    float *x = calloc((size_t)n, sizeof(*x));
    struct tensor in = {.dtype = o.float_io ? DT_F32 : g->values[g->inputs[0]].dtype, .shape = *s}, out;

    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    if (net_new(g, &o, &net, &err) < 0 || net_plan(net, s, 1, &plan, &err) < 0)
        fail_msg("%s", err.text);
    in.data = calloc((size_t)n, sizeof(float));
    net_text_fill(x, n, 3);
    for (int64_t i = 0; i < n; i++)
        element_set(&in, i, (double)round_to(round, x[i]));
    out = *plan_output(plan, 0);
    ret->n = count(&out.shape);
    ret->type = out.dtype;
    assert_true(ret->n <= MAX_FLOATS);
    out.data = calloc((size_t)ret->n, sizeof(float));
    assert_int_equal(arena_reserve(&arena, plan_arena_size(plan), &err), 0);
    plan_run(plan, &arena, &in, &out, NULL, NULL);
    for (int64_t i = 0; i < ret->n; i++)
        ret->y[i] = (float)element_get(&out, i);
    ret->n_steps = plan_n_steps(plan);
    ret->form[0] = 0;
    for (size_t i = plan_n_steps(plan); i-- > 0;) {
        struct plan_step step;

        plan_get_step(plan, i, &step);
        if (*step.form)
            snprintf(ret->form, sizeof(ret->form), "%s", step.form);
    }
    free(x);
    free(in.data);
    free(out.data);
    arena_done(&arena);
    plan_unref(plan);
    net_unref(net);
}

static void test_loops_convert_as_single_elements_do(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++)
        for (uint32_t i = 0; i < 65536; i++) {
            uint16_t code = (uint16_t)i, back = 0;
            struct tensor t = {.dtype = half_types[k], .data = &code},
                          u = {.dtype = half_types[k], .data = &back};
            float f = 0, want = (float)element_get(&t, 0);

            assert_true(element_read_floats(&t, 0, 1, &f));
            assert_true(memcmp(&f, &want, sizeof(f)) == 0 || (f != f && want != want));
            assert_true(element_write_floats(&u, 0, 1, &f));
            if (f == f)
                assert_int_equal(back, code);
            else
                assert_true(isnan(element_get(&u, 0)));
        }
}

/* Also halfway between two halves, below the smallest and above the largest. */
static void test_loops_round_as_single_elements_do(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++)
        for (uint64_t i = 0; i < (uint64_t)1 << 32; i += 997) {
            uint32_t bits = (uint32_t)(i % 3 ? i : i & ~(uint64_t)0xfff);
            uint16_t a = 0, b = 0;
            struct tensor t = {.dtype = half_types[k], .data = &a}, u = {.dtype = half_types[k], .data = &b};
            float f;

            memcpy(&f, &bits, sizeof(f));
            element_set(&t, 0, (double)f);
            (void)element_write_floats(&u, 0, 1, &f);
            if (f == f)
                assert_int_equal(a, b);
            else
                assert_true(isnan(element_get(&u, 0)));
        }
}

/* A sum in another order may round to the neighbour: relative distance. */
static float neighbour(enum dtype t) {
    return t == DT_F16 ? 0x1.1p-10f : 0x1.1p-7f;
}

static void compare(const char *text, const struct net_options *o, const char *form) {
    for (size_t k = 0; k < 2; k++) {
        struct pair p = make_pair(text, half_types[k]);
        static struct answer whole, half;

        run(p.whole, &p.input, half_types[k], *o, &whole);
        run(p.half, &p.input, half_types[k], *o, &half);
        assert_int_equal(half.type, half_types[k]);
        assert_int_equal(half.n, whole.n);
        for (int64_t i = 0; i < half.n; i++) {
            float want = round_to(half_types[k], whole.y[i]);

            if (fabsf(half.y[i] - want) > neighbour(half_types[k]) * fabsf(want) + 1e-6f)
                fail_msg("value %lld of %s: %g, expected %g", (long long)i, dtype_info(half.type)->name,
                    (double)half.y[i], (double)want);
        }
        if (form)
            assert_string_equal(half.form, k == 0 ? "f16" : "bf16");
    }
}

static void test_a_network_of_halves_answers_as_its_float_twin(void **state) {
    (void)state;
    compare(NET, &(struct net_options){.policy = NET_SPEED}, NULL);
    compare(NET, &(struct net_options){.policy = NET_MEMORY}, NULL);
    compare(NET, &(struct net_options){.reference = true}, NULL);
}

static void test_weights_stay_halves(void **state) {
    (void)state;
    compare("Conv x=1x3x8x8 w=16x3x3x3 b=16; Relu $; Conv $ v=16x16x3x3", &(struct net_options){0}, "f16");
}

static void test_movers_and_integers_take_halves(void **state) {
    (void)state;
    compare("Transpose x=2x3x4 perm=2,0,1; Reshape $ s:-1,6i; Concat $ $ axis=1; Softmax $ axis=1",
        &(struct net_options){0}, NULL);
    compare("Conv x=1x4x6x6 w=8x4x1x1; Resize $ _ f:1,1,2,2; Pad $ p:0,0,1,1,0,0,1,1i; ReduceMean $ axes=2,3",
        &(struct net_options){0}, NULL);
}

static void test_float_io_rounds_nothing(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        struct pair p = make_pair(NET, half_types[k]);
        static struct answer whole, half;

        run(p.whole, &p.input, DT_F32, (struct net_options){0}, &whole);
        run(p.half, &p.input, DT_F32, (struct net_options){.float_io = true}, &half);
        assert_int_equal(half.type, DT_F32);
        for (int64_t i = 0; i < half.n; i++)
            assert_true(fabsf(half.y[i] - whole.y[i]) <= 1e-5f * fabsf(whole.y[i]) + 1e-6f);
    }
}

static struct graph *write_and_read(struct graph *g) {
    char path[] = "/tmp/bonsai-halves-XXXXXX";
    int fd = mkstemp(path);
    struct graph *again = NULL;
    struct error err = {0};

    assert_true(fd >= 0);
    unlink(path);
    if (onnx_write_fd(g, fd, &err) < 0 || onnx_read_fd(fd, &again, &err) < 0)
        fail_msg("%s", err.text);
    close(fd);
    graph_free(g);
    return again;
}

/* What a method of compression sees and writes. */
static void test_types_are_restored(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        struct pair p = make_pair(NET, half_types[k]), q = make_pair(NET, half_types[k]);
        static struct answer before, after;
        struct error err = {0};

        graph_free(p.whole);
        graph_free(q.whole);
        assert_int_equal(pass_widen_all(p.half, &err), 0);
        assert_int_equal(pass_float_io(p.half, &err), 0);
        for (size_t v = 0; v < p.half->n_values; v++)
            if (p.half->values[v].init)
                assert_false(element_is_half(p.half->values[v].init->dtype));
        assert_int_equal(p.half->values[p.half->inputs[0]].dtype, DT_F32);
        assert_int_equal(p.half->values[p.half->outputs[0]].dtype, DT_F32);
        assert_int_equal(pass_restore_io(p.half, &half_types[k], &half_types[k], &err), 0);
        p.half = write_and_read(p.half);
        assert_int_equal(p.half->values[p.half->inputs[0]].dtype, half_types[k]);
        assert_string_equal(p.half->values[p.half->outputs[0]].name, q.half->values[q.half->outputs[0]].name);
        run(q.half, &p.input, half_types[k], (struct net_options){0}, &before);
        run(p.half, &p.input, half_types[k], (struct net_options){0}, &after);
        assert_int_equal(after.type, half_types[k]);
        for (int64_t i = 0; i < after.n; i++)
            assert_true(
                fabsf(after.y[i] - before.y[i]) <= neighbour(half_types[k]) * fabsf(before.y[i]) + 1e-6f);
    }
}

static void make_cast(struct graph *g, int node, enum dtype t) {
    struct error err = {0};

    g->nodes[node].op_type = "Cast";
    assert_int_equal(graph_set_attr_int(g, &g->nodes[node], "to", t), 0);
    if (graph_finish(g, &err) < 0)
        fail_msg("%s", err.text);
}

/* Cast at the input and behind the last layer, as converters that keep the types of inputs and outputs write.
 */
static void test_casts_of_a_converter_cost_nothing(void **state) {
    static const char text[] =
        "Identity x=1x3x8x8; Conv $ w=16x3x3x3; Relu $; GlobalAveragePool $; Identity $";
    struct net_text n = net_text_read(text);
    static struct answer a, b;
    struct graph *plain;
    struct error err = {0};

    (void)state;
    round_inits(n.graph, DT_F16);
    assert_int_equal(graph_clone(n.graph, &plain, &err), 0);
    make_halves(n.graph, DT_F16);
    n.graph->values[n.graph->inputs[0]].dtype = DT_F32;
    n.graph->values[n.graph->outputs[0]].dtype = DT_F32;
    make_cast(n.graph, 0, DT_F16);
    make_cast(n.graph, 4, DT_F32);
    run(n.graph, &n.input[0], DT_F16, (struct net_options){0}, &a);
    run(plain, &n.input[0], DT_F16, (struct net_options){0}, &b);
    assert_int_equal(a.type, DT_F32);
    assert_int_equal(a.n_steps, b.n_steps);
    for (int64_t i = 0; i < a.n; i++)
        assert_true(fabsf(a.y[i] - b.y[i]) <= 1e-6f + 1e-5f * fabsf(b.y[i]));
}

/* A Cast to half and back rounds, as the file says. */
static void test_casts_there_and_back_round(void **state) {
    struct net_text n = net_text_read("Identity x=1x64; Identity $");
    static struct answer a;
    float x[64];

    (void)state;
    make_cast(n.graph, 0, DT_F16);
    make_cast(n.graph, 1, DT_F32);
    run(n.graph, &n.input[0], DT_F32, (struct net_options){0}, &a);
    net_text_fill(x, 64, 3);
    for (int i = 0; i < 64; i++)
        assert_true(a.y[i] == round_to(DT_F16, x[i]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loops_convert_as_single_elements_do),
        cmocka_unit_test(test_loops_round_as_single_elements_do),
        cmocka_unit_test(test_a_network_of_halves_answers_as_its_float_twin),
        cmocka_unit_test(test_weights_stay_halves),
        cmocka_unit_test(test_movers_and_integers_take_halves),
        cmocka_unit_test(test_float_io_rounds_nothing),
        cmocka_unit_test(test_types_are_restored),
        cmocka_unit_test(test_casts_of_a_converter_cost_nothing),
        cmocka_unit_test(test_casts_there_and_back_round),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
