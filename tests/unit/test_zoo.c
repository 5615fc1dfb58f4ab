/* The zoo: sizes as published, every network on small and large pictures in the engine and in the trainer,
 * the same bytes from the same seed, refusals. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/session.h"
#include "compress/zoo.h"
#include "engine/onnx.h"
#include "engine/summary.h"
#include "engine/train/trainer.h"
#include "tests/unit/cmocka_all.h"

static struct zoo_spec spec_of(int64_t channels, int64_t side, int64_t n_classes) {
    return (struct zoo_spec){.width = 1,
        .depth = 1,
        .channels = channels,
        .height = side,
        .width_px = side,
        .n_classes = n_classes,
        .seed = 1};
}

static struct graph *make(const char *name, struct zoo_spec spec) {
    const struct zoo_net *net = zoo_find(name);
    struct error err = {0};
    struct graph *g = NULL;

    assert_non_null(net);
    if (zoo_new(net, &spec, &g, &err) < 0)
        fail_msg("%s: %s", name, err.text);
    return g;
}

/* What papers count: without the running statistics and the bounds of ReLU6. */
static int64_t learned(const struct graph *g) {
    int64_t all = 0;

    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        bool is_norm = !strcmp(n->op_type, "BatchNormalization");

        for (int k = 1; k < n->n_in && !(is_norm && k > 2); k++) {
            const struct tensor *t = n->in[k] < 0 ? NULL : g->values[n->in[k]].init;
            int64_t count;

            if (t && t->dtype == DT_F32 && t->shape.rank > 0 && shape_count(&t->shape, &count))
                all += count;
        }
    }
    return all;
}

static int64_t macs_of_layers(const struct graph *g) {
    struct summary *s = NULL;
    struct error err = {0};
    int64_t macs = 0;

    if (summary_new(g, &s, &err) < 0)
        fail_msg("%s: %s", g->name, err.text);
    for (size_t i = 0; i < s->n_layers; i++)
        if (!strcmp(s->layers[i].op_type, "Conv") || !strcmp(s->layers[i].op_type, "Gemm"))
            macs += s->layers[i].macs;
    summary_free(s);
    return macs;
}

/* Parameters exactly (0: not published so); MACs as papers and torchvision round them, in millions, within
 * half of the last digit. */
static const struct {
    const char *name;
    double width, depth;
    int64_t channels, side, classes, parameters;
    double mmacs, within;
} published[] = {
    {"lenet300", 1, 1, 1, 28, 10, 266610, 0.2662, 0.0001},
    {"lenet5", 1, 1, 1, 28, 10, 431080, 2.293, 0.0005}, /* Han et al. 2016: 431 K */
    {"vgg8", 1, 1, 3, 32, 10, 0, 153, 0.5},
    {"resnet20", 1, 1, 3, 32, 10, 272474, 41, 0.5},            /* 0.27 M, option B */
    {"resnet32", 1, 1, 3, 32, 10, 466906, 69, 1},              /* 0.46 M */
    {"resnet56", 1, 1, 3, 32, 10, 855770, 126, 1},             /* 0.85 M */
    {"mobilenet_v1", 1, 1, 3, 224, 1000, 4231976, 569, 0.5},   /* Howard et al.: 569 M, 4.2 M */
    {"mobilenet_v1", 0.5, 1, 3, 224, 1000, 1331592, 149, 0.5}, /* 149 M, 1.3 M */
    {"mobilenet_v2", 1, 1, 3, 224, 1000, 3504872, 300, 1},     /* Sandler et al.: 300 M, 3.4 M */
    {"mobilenet_v2", 1.4, 1, 3, 224, 1000, 0, 585, 5},         /* 585 M */
    {"squeezenet", 1, 1, 3, 224, 1000, 1235496, 350, 5},       /* torchvision's 1.1: 0.35 G */
    {"shufflenet_v2", 1, 1, 3, 224, 1000, 2278604, 146, 2}, /* Ma et al.: 146 M with norms and pools, 2.3 M */
    {"shufflenet_v2", 0.5, 1, 3, 224, 1000, 1366792, 41, 2},  /* 41 M */
    {"shufflenet_v2", 1.5, 1, 3, 224, 1000, 3503624, 299, 4}, /* 299 M */
    {"shufflenet_v2", 2, 1, 3, 224, 1000, 7393996, 591, 8},   /* 591 M */
};

static void test_sizes_are_as_published(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(published) / sizeof(published[0]); i++) {
        struct zoo_spec spec = spec_of(published[i].channels, published[i].side, published[i].classes);
        struct graph *g;
        double mmacs;

        spec.width = published[i].width;
        spec.depth = published[i].depth;
        g = make(published[i].name, spec);
        mmacs = (double)macs_of_layers(g) / 1e6;
        if (published[i].parameters && learned(g) != published[i].parameters)
            fail_msg("%s x %g: %lld parameters, published are %lld", published[i].name, published[i].width,
                (long long)learned(g), (long long)published[i].parameters);
        if (fabs(mmacs - published[i].mmacs) > published[i].within)
            fail_msg("%s x %g: %g M MACs, published are %g", published[i].name, published[i].width, mmacs,
                published[i].mmacs);
        graph_free(g);
    }
}

static const struct { int64_t channels, side; } pictures[] = {{1, 28}, {3, 32}, {3, 96}, {3, 224}};
#define N_PICTURES (sizeof(pictures) / sizeof(pictures[0]))

static void fill(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((i * 7919 + i / 13 * 31) % 255) / 127.0f - 1;
}

static bool all_finite(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Takes the graph. */
static void run_in_engine(struct graph *g, const struct shape *shape) {
    struct session s = {0};
    struct error err = {0};
    struct tensor in = {.dtype = DT_F32, .shape = *shape};
    int64_t n;

    assert_true(shape_count(shape, &n));
    in.data = alloc_aligned((size_t)n * sizeof(float));
    assert_non_null(in.data);
    fill(in.data, n);
    if (session_open_graph(g, &s, &err) < 0 || session_plan(&s, shape, 1, &err) < 0)
        fail_msg("%s", err.text);
    session_run(&s, &in);
    assert_int_equal(s.out[0].shape.rank, 2);
    assert_int_equal(s.out[0].shape.dim[0], shape->dim[0]);
    assert_int_equal(s.out[0].shape.dim[1], 7);
    assert_true(all_finite(s.out[0].data, shape->dim[0] * 7));
    session_done(&s);
    free(in.data);
}

/* Two steps on one minibatch: gradients are finite, and reach every parameter but those in front of a dead
 * ReLU. */
static void learn_a_step(const struct graph *g, const struct shape *item) {
    struct trainer_options o = {.batch = 2, .lanes = 2, .uses_batch_stats = true};
    struct loss loss = {.kind = loss_find("cross_entropy")};
    struct optim_param p = optim_defaults();
    struct trainer *t = NULL;
    struct error err = {0};
    struct optim optim;
    float targets[2 * 7] = {[0] = 1, [7 + 3] = 1};
    int64_t n;
    double first;

    assert_true(shape_count(item, &n));
    if (trainer_new(g, item, &o, &t, &err) < 0)
        fail_msg("%s: %s", g->name, err.text);
    assert_int_equal(optim_init(&optim, optim_find("sgd"), &p, trainer_n_gradients(t), &err), 0);
    for (int64_t i = 0; i < 2; i++) {
        fill(trainer_input(t, i), n);
        trainer_input(t, i)[0] = (float)i;
        for (int64_t k = 0; i == 1 && k < n; k += 3)
            trainer_input(t, i)[k] *= -1;
    }
    first = trainer_gradients(t, NULL, &loss, targets);
    assert_true(isfinite(first) && first > 0.01 && first < 20);
    assert_true(trainer_move(t, NULL, &optim, 1e-3f));
    assert_true(isfinite(trainer_gradients(t, NULL, &loss, targets)));
    optim_done(&optim);
    trainer_free(t);
}

static void test_every_net_runs_and_learns_on_every_picture(void **state) {
    (void)state;
    for (size_t i = 0; i < zoo_table_size; i++)
        for (size_t k = 0; k < N_PICTURES; k++) {
            struct zoo_spec spec = spec_of(pictures[k].channels, pictures[k].side, 7);
            struct shape item = {
                .rank = 4, .dim = {1, pictures[k].channels, pictures[k].side, pictures[k].side}};
            struct shape two = item;
            struct graph *g = make(zoo_table[i]->name, spec);

            two.dim[0] = 2;
            learn_a_step(g, &item);
            run_in_engine(g, &two);
        }
}

/* Crooked ones, at the least size and at the ends of width and depth. */
static void test_ends_of_the_ranges_can_be_built(void **state) {
    (void)state;
    for (size_t i = 0; i < zoo_table_size; i++) {
        const struct zoo_net *net = zoo_table[i];
        struct zoo_spec spec = spec_of(1, net->min_side, 7);
        struct shape item = {.rank = 4, .dim = {1, 1, net->min_side, net->min_side + 5}};

        spec.width = net->min_width;
        spec.depth = net->min_depth;
        spec.width_px = net->min_side + 5;
        run_in_engine(make(net->name, spec), &item);
        spec.width = net->max_width > 2 ? 2 : net->max_width;
        spec.depth = net->max_depth;
        run_in_engine(make(net->name, spec), &item);
    }
}

struct text {
    uint8_t *data;
    size_t size;
};

static struct text bytes_of(const struct graph *g) {
    FILE *f = tmpfile();
    struct error err = {0};
    struct text t;

    assert_non_null(f);
    assert_int_equal(onnx_write_fd(g, fileno(f), &err), 0);
    fseek(f, 0, SEEK_END);
    t.size = (size_t)ftell(f);
    t.data = malloc(t.size);
    assert_non_null(t.data);
    rewind(f);
    assert_int_equal(fread(t.data, 1, t.size, f), t.size);
    fclose(f);
    return t;
}

static void test_a_seed_gives_the_same_bytes(void **state) {
    struct text t[3];

    (void)state;
    for (size_t i = 0; i < zoo_table_size; i++) {
        for (uint64_t k = 0; k < 3; k++) {
            struct zoo_spec spec = spec_of(3, 32, 10);
            struct graph *g;

            spec.seed = k / 2;
            g = make(zoo_table[i]->name, spec);
            t[k] = bytes_of(g);
            graph_free(g);
        }
        assert_int_equal(t[0].size, t[1].size);
        assert_memory_equal(t[0].data, t[1].data, t[0].size);
        assert_int_equal(t[0].size, t[2].size);
        assert_memory_not_equal(t[0].data, t[2].data, t[0].size);
        for (int k = 0; k < 3; k++)
            free(t[k].data);
    }
}

/* Variance 2 / fan_in in front of a ReLU, mean 0, nothing beyond the bound. */
static void test_weights_start_as_he_says(void **state) {
    struct graph *g = make("vgg8", spec_of(3, 32, 10));
    const struct tensor *w = g->values[graph_find_value(g, "conv2_2.weight")].init;
    const float *x = w->data;
    double sum = 0, squares = 0, fan_in = 128 * 9;
    int64_t n;

    (void)state;
    assert_true(shape_count(&w->shape, &n));
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
        assert_true(fabs((double)x[i]) <= sqrt(6 / fan_in));
    }
    assert_true(fabs(sum / (double)n) < 4 * sqrt(2 / fan_in / (double)n));
    assert_true(fabs(squares / (double)n * fan_in / 2 - 1) < 0.02);
    graph_free(g);
}

static void refuse(struct zoo_spec spec, const char *name, int code, const char *part) {
    struct graph *g = NULL;
    struct error err = {0};

    assert_int_equal(zoo_new(zoo_find(name), &spec, &g, &err), code);
    assert_non_null(strstr(err.text, part));
}

static void test_what_cannot_be_is_refused(void **state) {
    struct zoo_spec spec = spec_of(3, 32, 10);

    (void)state;
    assert_null(zoo_find("resnet21"));
    spec.width = 0.01;
    refuse(spec, "resnet20", -EINVAL, "network.width: 0.01 is not from 0.25 to 8");
    spec = spec_of(3, 32, 10);
    spec.depth = 2;
    refuse(spec, "lenet5", -EINVAL, "network.depth: 'lenet5' has only 1");
    spec.depth = (double)NAN;
    refuse(spec, "vgg8", -EINVAL, "network.depth");
    refuse(spec_of(3, 7, 10), "vgg8", -EBADMSG, "sides of 8 to 1024 pixels, not 7 x 7");
    refuse(spec_of(3, 1025, 10), "vgg8", -EBADMSG, "1025 x 1025");
    refuse(spec_of(2, 32, 10), "vgg8", -EBADMSG, "1 or 3 channels");
    refuse(spec_of(3, 32, 1), "vgg8", -EBADMSG, "2 to 65536 classes");
}

static void test_the_table_is_sorted_and_complete(void **state) {
    json_auto_t *list = zoo_list();

    (void)state;
    assert_int_equal(json_array_size(list), zoo_table_size);
    for (size_t i = 0; i < zoo_table_size; i++) {
        const struct zoo_net *n = zoo_table[i];

        assert_true(i == 0 || strcmp(zoo_table[i - 1]->name, n->name) < 0);
        assert_ptr_equal(zoo_find(n->name), n);
        assert_true(n->summary && n->source && n->min_width <= 1 && n->max_width >= 1);
        assert_true(n->min_depth <= 1 && n->max_depth >= 1);
        assert_true(json_is_object(json_object_get(json_array_get(list, i), "defaults")));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_are_as_published),
        cmocka_unit_test(test_every_net_runs_and_learns_on_every_picture),
        cmocka_unit_test(test_ends_of_the_ranges_can_be_built),
        cmocka_unit_test(test_a_seed_gives_the_same_bytes),
        cmocka_unit_test(test_weights_start_as_he_says),
        cmocka_unit_test(test_what_cannot_be_is_refused),
        cmocka_unit_test(test_the_table_is_sorted_and_complete),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
