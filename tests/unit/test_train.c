/* Training steps: the gradients of whole small nets against finite differences, the same bytes from any
 * number of threads, losses and optimisers against numbers worked out by hand, and that something is learnt.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/pass.h"
#include "engine/train/average.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"

#define BATCH 8

/* Every training kernel, small and crooked. */
static const char *const nets[] = {
    "Conv x=1x3x9x8 w=8x3x3x3 pads=1,1,1,1; BatchNormalization $ s=8 b=8 m=8 p=8; Relu $; "
    "MaxPool $ kernel_shape=3,3 strides=2,2 pads=1,1,1,1; Conv $ w2=8x8x3x3 b2=8 pads=1,1,1,1; Add $ y3; "
    "Relu $; GlobalAveragePool $; Flatten $; Gemm $ w3=5x8 b3=5 transB=1",
    "Conv x=1x2x6x7 w=6x2x3x3 b=6; Relu $; Conv $ w2=4x6x1x1 b2=4; Conv y1 w3=4x6x1x1; Concat y2 y3 axis=1; "
    "AveragePool $ kernel_shape=2,2; Flatten $; MatMul $ w4=96x4; Softmax $ axis=1",
    "Conv x=1x4x6x6 w=8x2x3x3 group=2; Sigmoid $; ConvTranspose $ w2=8x3x2x2 strides=2,2; Tanh $; "
    "GlobalMaxPool $; Flatten $; Gemm $ w3=3x4 b3=4",
    "Gemm x=1x6 w=6x10 b=10; BatchNormalization $ s=10 b2=10 m=10 p=10; Relu $; Add $ $; Gemm $ w2=10x3 b3=3",
    "Conv x=1x3x9x8 w=21x3x1x1 b=21; MaxPool $ kernel_shape=2,2 strides=2,2; Clip $ lo:-0.1 hi:0.3; "
    "MaxPool $ kernel_shape=3,2 strides=1,1 dilations=1,2 pads=1,1,1,1; Flatten $; Gemm $ w2=336x4",
    "Conv x=1x2x5x5 w=4x2x3x3 pads=1,1,1,1; PRelu $ a=4x1x1; Mul $ $; Transpose $ perm=0,2,3,1; "
    "ReduceMean $ axes=1,2 keepdims=0; Gemm $ w2=4x3",
};
#define N_NETS (sizeof(nets) / sizeof(nets[0]))

/* What stands behind a batch norm is done with it; the second of a pair says the same and keeps it apart. */
static const char *const tails[][2] = {
    {"Conv x=1x3x7x6 w=40x3x3x3; BatchNormalization $ s=40 b=40 m=40 p=40; Relu $; Conv $ w2=24x40x1x1; "
     "BatchNormalization $ s2=24 b2=24 m2=24 p2=24; Clip $ lo:-0.2 hi:0.4; GlobalAveragePool $; Flatten $; "
     "Gemm $ w3=24x4",
        "Conv x=1x3x7x6 w=40x3x3x3; BatchNormalization $ s=40 b=40 m=40 p=40; Identity $; Relu $; "
        "Conv $ w2=24x40x1x1; BatchNormalization $ s2=24 b2=24 m2=24 p2=24; Identity $; Clip $ lo:-0.2 hi:0.4; "
        "GlobalAveragePool $; Flatten $; Gemm $ w3=24x4"},
    /* two batch norms added, a block's input added behind its last, a residual that others read too */
    {"Conv x=1x3x7x6 w=17x3x3x3 pads=1,1,1,1; BatchNormalization $ s=17 b=17 m=17 p=17; "
     "Conv y0 w2=17x17x1x1; BatchNormalization $ s2=17 b2=17 m2=17 p2=17; Add y1 $; Relu $; Conv $ w3=17x17x1x1; "
     "BatchNormalization $ s3=17 b3=17 m3=17 p3=17; Add $ y5; Add $ y0; GlobalAveragePool $; Flatten $; "
     "Gemm $ w4=17x4",
        "Conv x=1x3x7x6 w=17x3x3x3 pads=1,1,1,1; BatchNormalization $ s=17 b=17 m=17 p=17; "
        "Conv y0 w2=17x17x1x1; BatchNormalization $ s2=17 b2=17 m2=17 p2=17; Identity y1; Identity y3; Add y4 $; "
        "Identity $; Relu $; Conv $ w3=17x17x1x1; BatchNormalization $ s3=17 b3=17 m3=17 p3=17; Identity $; "
        "Add $ y8; Add $ y0; GlobalAveragePool $; Flatten $; Gemm $ w4=17x4"},
};
#define N_TAILS (sizeof(tails) / sizeof(tails[0]))

/* Without kinks, for differences. */
static const char *const smooth[] = {
    "Conv x=1x3x9x8 w=8x3x3x3 pads=1,1,1,1; BatchNormalization $ s=8 b=8 m=8 p=8; Tanh $; "
    "AveragePool $ kernel_shape=3,3 strides=2,2 pads=1,1,1,1; Conv $ w2=8x8x3x3 b2=8 pads=1,1,1,1; Add $ y3; "
    "BatchNormalization $ s2=8 b3=8 m2=8 p2=8; Sigmoid $; GlobalAveragePool $; Flatten $; "
    "Gemm $ w3=5x8 b4=5 transB=1",
    "Gemm x=1x6 w=6x10 b=10; BatchNormalization $ s=10 b2=10 m=10 p=10; Softplus $; Add $ $; Gemm $ w2=10x3 b3=3",
    ("Conv x=1x2x5x4 w=4x2x3x3 pads=1,1,1,1; InstanceNormalization $ s=4 b=4 epsilon=0.5; Tanh $; "
     "Resize $ _ c:1,1,2,2 mode=linear; Conv $ w2=4x4x3x3 b2=4; GlobalAveragePool $; Flatten $; Gemm $ w3=4x3"),
    /* nothing comes back through two of three outputs */
    "Gemm x=1x6 w=6x9 b=9; Add $ $; Split $ axis=1 >3; Add $ $; Gemm $ w2=3x9 b2=9; Tanh $; Gemm $ w3=9x3",
};
#define N_SMOOTH (sizeof(smooth) / sizeof(smooth[0]))

struct rig {
    struct net_text text;
    struct trainer *trainer;
    float *targets;
    int64_t outputs;
};

static const struct cpu *rig_cpu; /* NULL: this one */
static bool rig_bf16;

static void rig_start(struct rig *r, const char *net, bool uses_batch_stats, bool reference) {
    struct trainer_options o = {.batch = BATCH,
        .lanes = 4,
        .uses_batch_stats = uses_batch_stats,
        .cpu = rig_cpu,
        .bf16 = rig_bf16,
        .reference = reference};
    struct error err = {0};

    memset(r, 0, sizeof(*r));
    r->text = net_text_read(net);
    r->text.graph->values[r->text.graph->inputs[0]].shape.dim[0] = -1;
    if (trainer_new(r->text.graph, &r->text.input[0], &o, &r->trainer, &err) < 0)
        fail_msg("%s: %s", net, err.text);
    r->outputs = trainer_n_outputs(r->trainer);
    r->targets = calloc((size_t)(BATCH * r->outputs), sizeof(float));
    assert_non_null(r->targets);
    for (int64_t i = 0; i < BATCH; i++) {
        int64_t n = 1;

        for (int d = 0; d < r->text.input[0].rank; d++)
            n *= r->text.input[0].dim[d];
        net_text_fill(trainer_input(r->trainer, i), n, 50 + (uint32_t)i);
        r->targets[i * r->outputs + i % r->outputs] = 1;
    }
}

static void rig_done(struct rig *r) {
    trainer_free(r->trainer);
    free(r->targets);
    graph_free(r->text.graph);
}

static struct loss cross_entropy(void) {
    return (struct loss){.kind = loss_find("cross_entropy"), .param = {.smoothing = 0.1f}};
}

static double loss_at(struct rig *r, float *x, float v) {
    struct loss loss = cross_entropy();
    float was = *x;
    double l;

    *x = v;
    l = trainer_gradients(r->trainer, NULL, &loss, r->targets);
    *x = was;
    return l;
}

static double central(struct rig *r, float *x, double h) {
    float high = (float)((double)*x + h), low = (float)((double)*x - h);

    return (loss_at(r, x, high) - loss_at(r, x, low)) / ((double)high - (double)low);
}

static void check_param(struct rig *r, size_t p, const char *net) {
    const struct train_param *param = trainer_param(r->trainer, p);
    float *got = calloc((size_t)param->n, sizeof(float));
    struct loss loss = cross_entropy();
    const double h = 0.02;
    double largest = 1e-2;

    assert_non_null(got);
    (void)trainer_gradients(r->trainer, NULL, &loss, r->targets);
    trainer_gradient(r->trainer, p, got);
    for (int64_t i = 0; i < param->n; i++)
        largest = fmax(largest, fabs((double)got[i]));
    for (int64_t i = 0; i < param->n; i += 1 + param->n / 40) {
        double whole = central(r, &param->data[i], h), half = central(r, &param->data[i], h / 2);
        double want = (4 * half - whole) / 3; /* Richardson */

        if (!(fabs(want - (double)got[i]) <= 1e-3 * largest))
            fail_msg("%s: parameter %s [%lld]: %g, by differences %g", net, param->name, (long long)i,
                (double)got[i], want);
    }
    free(got);
}

static void check_net(const char *net) {
    struct rig r;

    rig_start(&r, net, true, false);
    for (size_t p = 0; p < trainer_n_params(r.trainer); p++)
        if (!trainer_param(r.trainer, p)->is_stat)
            check_param(&r, p, net);
    rig_done(&r);
}

static void test_gradients_agree_with_differences(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SMOOTH; i++)
        check_net(smooth[i]);
}

static void compare_rigs(struct rig *fast, struct rig *slow, const char *net) {
    struct loss loss = cross_entropy();

    assert_float_equal((float)trainer_gradients(fast->trainer, NULL, &loss, fast->targets),
        (float)trainer_gradients(slow->trainer, NULL, &loss, slow->targets), 1e-5f);
    assert_int_equal(trainer_n_params(fast->trainer), trainer_n_params(slow->trainer));
    for (size_t p = 0; p < trainer_n_params(fast->trainer); p++) {
        const struct train_param *param = trainer_param(fast->trainer, p);
        float *got = calloc((size_t)param->n, 2 * sizeof(float)), *want = got + param->n, most = 1e-2f;

        assert_non_null(got);
        trainer_gradient(fast->trainer, p, got);
        trainer_gradient(slow->trainer, p, want);
        for (int64_t i = 0; i < param->n; i++)
            most = fabsf(want[i]) > most ? fabsf(want[i]) : most;
        for (int64_t i = 0; i < param->n; i++)
            if (!(fabsf(got[i] - want[i]) <= 2e-5f * most))
                fail_msg("%s: parameter %s [%lld]: %g, not %g", net, param->name, (long long)i,
                    (double)got[i], (double)want[i]);
        free(got);
    }
}

/* … and, closer, against the operators' own gradients, which test_grad.c holds against differences. */
static void compare_with_reference(const char *net) {
    struct rig fast, slow;

    rig_start(&fast, net, false, false);
    rig_start(&slow, net, false, true);
    compare_rigs(&fast, &slow, net);
    rig_done(&fast);
    rig_done(&slow);
}

static void test_gradients_agree_with_the_operators(void **state) {
    (void)state;
    for (size_t i = 0; i < N_NETS; i++)
        compare_with_reference(nets[i]);
    for (size_t i = 0; i < N_TAILS; i++)
        compare_with_reference(tails[i][0]);
}

static void test_what_is_done_with_a_batch_norm_is_what_it_is_alone(void **state) {
    (void)state;
    for (size_t i = 0; i < N_TAILS; i++) {
        struct rig together, alone;

        rig_start(&together, tails[i][0], true, false);
        rig_start(&alone, tails[i][1], true, false);
        assert_true(trainer_n_steps(together.trainer) < trainer_n_steps(alone.trainer) - 3);
        compare_rigs(&together, &alone, tails[i][0]);
        rig_done(&together);
        rig_done(&alone);
    }
}

static void test_other_processors_compute_the_same(void **state) {
    static const char *const hidden[] = {"avx512", "all"};
    struct error err = {0};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct cpu cpu;

        assert_int_equal(cpu_detect(hidden[i], &cpu, &err), 0);
        for (size_t k = 0; k < N_NETS + N_TAILS; k++) {
            const char *net = k < N_NETS ? nets[k] : tails[k - N_NETS][0];
            struct rig theirs, ours;

            rig_start(&ours, net, true, false);
            rig_cpu = &cpu;
            rig_start(&theirs, net, true, false);
            rig_cpu = NULL;
            compare_rigs(&theirs, &ours, net);
            rig_done(&theirs);
            rig_done(&ours);
        }
    }
}

/* How many threads may work: another number each time somebody asks. */
static unsigned fickle(void *ctx) {
    atomic_uint *n_asked = ctx;

    return 1 + atomic_fetch_add(n_asked, 1) * 2654435761u % 3;
}

/* bfloat16 keeps 8 bits, so a gradient is as near as a rounding of each value on the way lets it be: seen as
 * vectors, the parameters' gradients point the same way. */
static void compare_directions(struct rig *half, struct rig *whole, const char *net) {
    struct loss loss = cross_entropy();
    double difference = 0, all = 0, l[2];

    l[0] = trainer_gradients(half->trainer, NULL, &loss, half->targets);
    l[1] = trainer_gradients(whole->trainer, NULL, &loss, whole->targets);
    if (!(fabs(l[0] - l[1]) < 0.01 * l[1]))
        fail_msg("%s: a loss of %g, not %g", net, l[0], l[1]);
    for (size_t p = 0; p < trainer_n_params(half->trainer); p++) {
        const struct train_param *param = trainer_param(half->trainer, p);
        float *got = calloc((size_t)param->n, 2 * sizeof(float)), *want = got + param->n;

        assert_non_null(got);
        trainer_gradient(half->trainer, p, got);
        trainer_gradient(whole->trainer, p, want);
        for (int64_t i = 0; i < param->n; i++) {
            difference += pow((double)got[i] - (double)want[i], 2);
            all += pow((double)want[i], 2);
        }
        free(got);
    }
    if (!(sqrt(difference / all) < 0.05))
        fail_msg("%s: gradients differ by %g of their length", net, sqrt(difference / all));
}

/* Through floats, and by products of bfloat16. */
static void test_bfloat16_comes_near(void **state) {
    struct error err = {0};
    struct cpu cpu;

    (void)state;
    assert_int_equal(cpu_detect(NULL, &cpu, &err), 0);
    if (!cpu.avx512_bf16)
        skip();
    for (size_t i = 0; i < 2 * N_TAILS; i++) {
        struct rig half, whole;

        rig_start(&whole, tails[i / 2][0], true, false);
        cpu.bf16_products = i % 2;
        rig_cpu = &cpu;
        rig_bf16 = true;
        rig_start(&half, tails[i / 2][0], true, false);
        rig_cpu = NULL;
        rig_bf16 = false;
        assert_null(trainer_why_float(half.trainer));
        compare_directions(&half, &whole, tails[i / 2][0]);
        rig_done(&half);
        rig_done(&whole);
    }
}

static void test_where_bfloat16_cannot_be_it_says_so(void **state) {
    struct error err = {0};
    struct cpu cpu;
    struct rig r;

    (void)state;
    rig_bf16 = true;
    assert_int_equal(cpu_detect("avx512_bf16", &cpu, &err), 0);
    rig_cpu = &cpu;
    rig_start(&r, tails[0][0], true, false);
    assert_non_null(strstr(trainer_why_float(r.trainer), "processor"));
    rig_done(&r);
    cpu.avx512_bf16 = true;
    rig_start(&r, nets[3], true, false); /* has no pictures */
    assert_non_null(strstr(trainer_why_float(r.trainer), "no value"));
    rig_done(&r);
    rig_cpu = NULL;
    rig_bf16 = false;
    rig_start(&r, nets[3], true, false);
    assert_null(trainer_why_float(r.trainer));
    rig_done(&r);
}

/* Ten steps; the weights afterwards, one after the other. */
static float *learn_on(
    struct pool *pool, const char *net, const char *kind, int64_t *ret_n, double *ret_loss) {
    struct optim_param p = optim_defaults();
    struct loss loss = cross_entropy();
    struct error err = {0};
    struct optim o;
    float *all = NULL;
    struct rig r;

    rig_start(&r, net, true, false);
    p.weight_decay = 1e-3f;
    p.clip = 5;
    assert_int_equal(optim_init(&o, optim_find(kind), &p, trainer_n_gradients(r.trainer), &err), 0);
    for (int i = 0; i < 10; i++) {
        ret_loss[i != 0] = trainer_gradients(r.trainer, pool, &loss, r.targets);
        assert_true(trainer_move(r.trainer, pool, &o, 0.02f));
    }
    *ret_n = 0;
    for (size_t k = 0; k < trainer_n_params(r.trainer); k++) {
        const struct train_param *param = trainer_param(r.trainer, k);

        all = realloc(all, (size_t)(*ret_n + param->n) * sizeof(float));
        assert_non_null(all);
        memcpy(all + *ret_n, param->data, (size_t)param->n * sizeof(float));
        *ret_n += param->n;
    }
    optim_done(&o);
    rig_done(&r);
    return all;
}

static float *learn(const char *net, unsigned threads, const char *kind, int64_t *ret_n, double *ret_loss) {
    struct pool *pool = NULL;
    float *all;

    assert_int_equal(pool_new(threads, &pool, NULL), 0);
    all = learn_on(pool, net, kind, ret_n, ret_loss);
    pool_free(pool);
    return all;
}

static void test_threads_do_not_change_a_byte(void **state) {
    static const char *const kinds[] = {"sgd", "adam", "adamw"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        int64_t n = 0, m = 0;
        double loss[2];
        float *one = learn(nets[0], 1, kinds[i], &n, loss), *three = learn(nets[0], 3, kinds[i], &m, loss);

        assert_int_equal(n, m);
        assert_memory_equal(one, three, (size_t)n * sizeof(float));
        free(one);
        free(three);
    }
}

static void test_threads_that_come_and_go_do_not_change_a_byte(void **state) {
    struct pool *pool = NULL;
    atomic_uint n_asked = 0;

    (void)state;
    assert_int_equal(pool_new(3, &pool, NULL), 0);
    pool_follow(pool, fickle, &n_asked);
    for (size_t i = 0; i < N_NETS; i++) {
        int64_t n = 0, m = 0;
        double loss[2];
        float *one = learn(nets[i], 1, "sgd", &n, loss), *some = learn_on(pool, nets[i], "sgd", &m, loss);

        assert_int_equal(n, m);
        assert_memory_equal(one, some, (size_t)n * sizeof(float));
        free(one);
        free(some);
    }
    assert_true(atomic_load(&n_asked) > 1000);
    pool_free(pool);
}

static void test_threads_do_not_change_a_byte_of_bfloat16(void **state) {
    int64_t n = 0, m = 0;
    double loss[2];
    float *one, *three;

    (void)state;
    rig_bf16 = true;
    one = learn(tails[1][0], 1, "sgd", &n, loss);
    three = learn(tails[1][0], 3, "sgd", &m, loss);
    rig_bf16 = false;
    assert_int_equal(n, m);
    assert_memory_equal(one, three, (size_t)n * sizeof(float));
    free(one);
    free(three);
}

/* Gradients are moved in pieces that know nothing of where a parameter begins. */
static void test_a_step_moves_every_element(void **state) {
    struct optim_param p = optim_defaults();
    struct loss loss = cross_entropy();
    struct error err = {0};
    struct pool *pool = NULL;
    float *moved[4];
    struct optim o;
    struct rig r;

    (void)state;
    rig_start(&r, "Gemm x=1x7 w=7x4999 b=4999; Tanh $; Gemm $ w2=4999x3 b2=3", false, false);
    assert_int_equal(pool_new(2, &pool, &err), 0);
    assert_int_equal(optim_init(&o, optim_find("sgd"), &p, trainer_n_gradients(r.trainer), &err), 0);
    (void)trainer_gradients(r.trainer, pool, &loss, r.targets);
    assert_int_equal(trainer_n_params(r.trainer), 4);
    for (size_t i = 0; i < 4; i++) {
        const struct train_param *param = trainer_param(r.trainer, i);
        float *want = calloc((size_t)param->n, sizeof(float));

        assert_non_null(want);
        trainer_gradient(r.trainer, i, want);
        for (int64_t k = 0; k < param->n; k++) /* the first of Nesterov's steps */
            want[k] = param->data[k] - 0.5f * (want[k] + 0.9f * want[k]);
        moved[i] = want;
    }
    assert_true(trainer_move(r.trainer, pool, &o, 0.5f));
    for (size_t i = 0; i < 4; i++) {
        const struct train_param *param = trainer_param(r.trainer, i);

        for (int64_t k = 0; k < param->n; k++)
            if (!(fabsf(param->data[k] - moved[i][k]) <= 1e-6f))
                fail_msg("%s [%lld]: %g, not %g", param->name, (long long)k, (double)param->data[k],
                    (double)moved[i][k]);
        free(moved[i]);
    }
    optim_done(&o);
    pool_free(pool);
    rig_done(&r);
}

static void test_the_loss_falls(void **state) {
    (void)state;
    for (size_t i = 0; i < N_NETS; i++) {
        double loss[2];
        int64_t n;

        free(learn(nets[i], 2, "sgd", &n, loss));
        if (!(loss[1] < 0.9 * loss[0]))
            fail_msg("%s: the loss was %g and became %g", nets[i], loss[0], loss[1]);
    }
}

static void test_running_statistics_are_kept(void **state) {
    struct rig r;
    struct loss loss = cross_entropy();
    const struct train_param *mean = NULL, *var = NULL;
    float before[2];

    (void)state;
    rig_start(&r, nets[3], true, false);
    for (size_t i = 0; i < trainer_n_params(r.trainer); i++) {
        const struct train_param *p = trainer_param(r.trainer, i);

        if (p->is_stat && !mean)
            mean = p;
        else if (p->is_stat)
            var = p;
    }
    assert_non_null(mean);
    assert_non_null(var);
    before[0] = mean->data[0];
    before[1] = var->data[0];
    for (int i = 0; i < 300; i++)
        (void)trainer_gradients(r.trainer, NULL, &loss, r.targets);
    /* after so long they are the minibatch's own: the mean of x W + b in the first channel, by hand */
    {
        const struct train_param *w = trainer_param(r.trainer, 0), *b = trainer_param(r.trainer, 1);
        double sum = 0, square = 0;

        for (int64_t i = 0; i < BATCH; i++) {
            double y = (double)b->data[0];

            for (int k = 0; k < 6; k++)
                y += (double)trainer_input(r.trainer, i)[k] * (double)w->data[k * 10];
            sum += y;
            square += y * y;
        }
        sum /= BATCH;
        assert_true(fabs((double)mean->data[0] - sum) < 1e-4);
        assert_true(fabs((double)var->data[0] - (square / BATCH - sum * sum) * BATCH / (BATCH - 1)) < 1e-4);
    }
    assert_true(before[0] != mean->data[0] && before[1] != var->data[0]);
    rig_done(&r);
}

static void is_near(double got, double want) {
    if (!(fabs(got - want) < 1e-6))
        fail_msg("%.9g, not %.9g", got, want);
}

static void test_losses(void **state) {
    const float o[3] = {1, 2, 0.5f}, y[3] = {0, 1, 0}, teacher[3] = {2, 1, 0};
    struct loss_param p = {.smoothing = 0, .temperature = 2};
    double sum = exp(1) + exp(2) + exp(0.5), h = 1e-3;
    float d[3], x[3];

    (void)state;
    is_near(loss_find("cross_entropy")->run(&p, o, y, 3, 1, d), log(sum) - 2);
    is_near((double)d[0], exp(1) / sum);
    is_near(loss_find("l2")->run(&p, o, y, 3, 1, d), 0.5 * (1 + 1 + 0.25));
    for (int k = 0; k < 4; k++) {
        const char *name = (const char *[]){"bce", "cross_entropy", "kl", "l2"}[k];
        const float *target = k == 2 ? teacher : y;

        p.smoothing = 0.2f;
        (void)loss_find(name)->run(&p, o, target, 3, 2, d);
        for (int i = 0; i < 3; i++) {
            float unused[3];
            double up, down;

            memcpy(x, o, sizeof(x));
            x[i] = o[i] + (float)h;
            up = loss_find(name)->run(&p, x, target, 3, 2, unused);
            x[i] = o[i] - (float)h;
            down = loss_find(name)->run(&p, x, target, 3, 2, unused);
            assert_true(fabs((double)d[i] - 2 * (up - down) / (2 * h)) < 2e-3);
        }
    }
    assert_null(loss_find("hinge"));
}

static void test_schedules(void **state) {
    (void)state;
    is_near((double)schedule_rate(schedule_find("constant"), 0.1f, 0, 7, 10), 0.1);
    is_near((double)schedule_rate(schedule_find("cosine"), 0.1f, 0, 50, 100), 0.05);
    is_near((double)schedule_rate(schedule_find("step"), 0.1f, 0, 60, 100), 0.01);
    is_near((double)schedule_rate(schedule_find("onecycle"), 0.1f, 0, 30, 100), 0.1);
    is_near((double)schedule_rate(schedule_find("constant"), 0.1f, 0.1, 0, 100), 0.01);
    assert_null(schedule_find("never"));
}

/* A net gone wrong must not look like one that gives zeros. */
static void test_the_loss_tells_of_what_is_no_number(void **state) {
    struct loss loss = cross_entropy();
    struct rig r;

    (void)state;
    rig_start(&r, "Gemm x=1x6 w=6x10 b=10; Relu $; Gemm $ w2=10x3 b2=3", false, false);
    trainer_param(r.trainer, 0)->data[7] = NAN;
    assert_true(isnan(trainer_gradients(r.trainer, NULL, &loss, r.targets)));
    rig_done(&r);
}

/* The first value in the order of computing is the one to look at. */
static void test_what_is_no_number_is_named(void **state) {
    static const char net[] = "Gemm x=1x6 w=6x10 b=10; Relu $; Gemm $ w2=10x3 b3=3";
    struct loss loss = cross_entropy();
    struct rig r;

    (void)state;
    rig_start(&r, net, false, false);
    assert_null(trainer_find_not_finite(r.trainer, NULL, &loss, r.targets));
    trainer_input(r.trainer, 5)[2] = INFINITY;
    assert_string_equal(trainer_find_not_finite(r.trainer, NULL, &loss, r.targets),
        r.text.graph->values[r.text.graph->nodes[0].out[0]].name);
    trainer_input(r.trainer, 5)[2] = 1;
    r.targets[4] = INFINITY; /* only what comes back is none: the last layer's first */
    assert_non_null(trainer_find_not_finite(r.trainer, NULL, &loss, r.targets));
    r.targets[4] = 0;
    trainer_param(r.trainer, 0)->data[7] = NAN;
    assert_string_equal(
        trainer_find_not_finite(r.trainer, NULL, &loss, r.targets), trainer_param(r.trainer, 0)->name);
    rig_done(&r);
}

/* A minibatch in parts moves the weights as their mean does. */
static void test_gradients_are_kept_over_parts(void **state) {
    static const char net[] = "Gemm x=1x6 w=6x10 b=10; Tanh $; Gemm $ w2=10x3 b3=3";
    struct loss loss = cross_entropy();
    struct optim_param param = optim_defaults();
    float *mean[2], lr = 0.5f;
    struct error err = {0};
    struct optim optim;
    struct rig r;

    (void)state;
    rig_start(&r, net, false, false);
    param.momentum = 0;
    param.nesterov = false;
    assert_int_equal(optim_init(&optim, optim_find("sgd"), &param, trainer_n_gradients(r.trainer), &err), 0);
    for (int part = 0; part < 2; part++) {
        for (int64_t i = 0; i < BATCH; i++)
            net_text_fill(trainer_input(r.trainer, i), 6, 300 + 50 * (uint32_t)part + (uint32_t)i);
        (void)trainer_gradients(r.trainer, NULL, &loss, r.targets);
        mean[part] = calloc(60, sizeof(float));
        assert_non_null(mean[part]);
        trainer_gradient(r.trainer, 0, mean[part]);
        if (part == 0)
            assert_true(trainer_keep_gradients(r.trainer, NULL));
    }
    for (int k = 0; k < 60; k++)
        mean[0][k] = trainer_param(r.trainer, 0)->data[k] - lr * (mean[0][k] + mean[1][k]) / 2;
    assert_true(trainer_move(r.trainer, NULL, &optim, lr));
    for (int k = 0; k < 60; k++)
        assert_float_equal(trainer_param(r.trainer, 0)->data[k], mean[0][k], 1e-6);
    free(mean[0]);
    free(mean[1]);
    optim_done(&optim);
    rig_done(&r);
}

static void test_weights_are_averaged(void **state) {
    struct average a;
    struct error err = {0};
    float first, moved;
    struct rig r;

    (void)state;
    rig_start(&r, "Gemm x=1x6 w=6x10 b=10; Relu $; Gemm $ w2=10x3 b3=3", false, false);
    assert_int_equal(average_init(&a, r.trainer, 0.999f, &err), 0);
    first = trainer_param(r.trainer, 2)->data[3];
    trainer_param(r.trainer, 2)->data[3] = moved = first + 1;
    average_update(&a, r.trainer, NULL, 1); /* decay 2/11 at the first step */
    average_swap(&a, r.trainer);
    assert_float_equal(trainer_param(r.trainer, 2)->data[3], first + 9.0f / 11, 1e-5);
    average_swap(&a, r.trainer);
    assert_float_equal(trainer_param(r.trainer, 2)->data[3], moved, 0);
    average_done(&a);
    rig_done(&r);
}

static void test_distillation_weighs_labels_and_teacher(void **state) {
    const float o[3] = {0.3f, -1, 2}, y[6] = {0, 1, 0, 3, 0.5f, -2};
    struct loss_param p = {.temperature = 4, .weight = 0.9f};
    float d[3], hard[3], soft[3];
    double both = loss_find("distil")->run(&p, o, y, 3, 2, d);
    double labels = loss_find("cross_entropy")->run(&p, o, y, 3, 2, hard);
    double teacher = loss_find("kl")->run(&p, o, y + 3, 3, 2, soft);

    (void)state;
    is_near(both, 0.1 * labels + 0.9 * teacher);
    for (int i = 0; i < 3; i++)
        is_near((double)d[i], 0.1 * (double)hard[i] + 0.9 * (double)soft[i]);
    assert_int_equal(loss_find("distil")->n_targets, 2);
}

static void expect_refusal_of(const char *net, enum dtype input, const char *code, const char *word) {
    struct net_text t = net_text_read(net);
    struct trainer_options o = {.batch = BATCH};
    struct trainer *trainer = NULL;
    struct error err = {0};

    t.graph->values[t.graph->inputs[0]].shape.dim[0] = -1;
    t.graph->values[t.graph->inputs[0]].dtype = input;
    assert_true(trainer_new(t.graph, &t.input[0], &o, &trainer, &err) < 0);
    assert_string_equal(err.code, code);
    if (!strstr(err.text, word))
        fail_msg("%s: %s", net, err.text);
    graph_free(t.graph);
}

static void expect_refusal(const char *net, const char *code, const char *word) {
    expect_refusal_of(net, DT_F32, code, word);
}

static void test_what_cannot_be_trained_is_refused(void **state) {
    (void)state;
    expect_refusal("Gemm x=1x3 w=3x4; Round $; Gemm $ w2=4x2", "unsupported_operator", "node 'y1'");
    expect_refusal("Relu x=1x3", "invalid_model", "no parameters");
    expect_refusal_of("Gemm x=1x3 w=3x4", DT_U8, "invalid_model", "float input");
    expect_refusal("Conv x=1x3x4x4 w=2x3x1x1", "not_a_classifier", "[2,2,4,4]");
    expect_refusal("Gemm x=1x3 w=3x4; ReduceMean $ keepdims=0", "not_a_classifier", "not one row");
    expect_refusal("Gemm x=1x3 w=3x4; Transpose $ perm=1,0", "not_a_classifier", "not one row");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_agree_with_differences),
        cmocka_unit_test(test_gradients_agree_with_the_operators),
        cmocka_unit_test(test_what_is_done_with_a_batch_norm_is_what_it_is_alone),
        cmocka_unit_test(test_other_processors_compute_the_same),
        cmocka_unit_test(test_bfloat16_comes_near),
        cmocka_unit_test(test_where_bfloat16_cannot_be_it_says_so),
        cmocka_unit_test(test_threads_do_not_change_a_byte),
        cmocka_unit_test(test_threads_do_not_change_a_byte_of_bfloat16),
        cmocka_unit_test(test_threads_that_come_and_go_do_not_change_a_byte),
        cmocka_unit_test(test_a_step_moves_every_element),
        cmocka_unit_test(test_the_loss_falls),
        cmocka_unit_test(test_running_statistics_are_kept),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_the_loss_tells_of_what_is_no_number),
        cmocka_unit_test(test_what_is_no_number_is_named),
        cmocka_unit_test(test_gradients_are_kept_over_parts),
        cmocka_unit_test(test_weights_are_averaged),
        cmocka_unit_test(test_distillation_weighs_labels_and_teacher),
        cmocka_unit_test(test_what_cannot_be_trained_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
