/* quantize with codebooks and with words of several weights: what stands in the file is what was found, zeros
 * stay, other steps' numbers are met. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/recipe.h"
#include "compress/session.h"
#include "compress/trainable.h"
#include "engine/pass.h"
#include "engine/train/trainer.h"
#include "engine/weight.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"

#define NET                                                                                                  \
    "Conv x=1x3x12x12 w=16x3x3x3 b=16 pads=1,1,1,1; Relu $; Conv $ v=24x16x3x3 pads=1,1,1,1; Relu $; "       \
    "GlobalAveragePool $; Flatten $; Gemm $ g=24x32 e=32; Relu $; Gemm $ m=10x32 f=10 transB=1"

enum { SAMPLES = 12, ITEM = 3 * 12 * 12 };

static int read_samples(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    (void)ctx;
    (void)err;
    for (int64_t i = 0; i < count; i++)
        net_text_fill(ret + i * ITEM, ITEM, (uint32_t)(1000 + first + i));
    return 0;
}

static const struct samples samples = {
    .n = SAMPLES, .item = {.rank = 4, .dim = {1, 3, 12, 12}}, .read = read_samples};

struct result {
    struct graph *graph;
    json_t *report;
};

static void result_done(struct result *r) {
    graph_free(r->graph);
    json_decref(r->report);
}

static struct graph *net(void) {
    struct graph *g = net_text_read(NET).graph;

    g->values[g->inputs[0]].shape.dim[0] = -1;
    return g;
}

/* Takes `g`. */
static struct result run(struct graph *g, const char *steps, const struct samples *data, uint64_t seed) {
    struct work work = {.graph = g, .samples = data, .seed = seed};
    json_t *list = json_loads(steps, 0, NULL);
    _cleanup_(recipe_freep) struct recipe *recipe = NULL;
    struct graph *parent = NULL;
    struct error err = {0};
    json_t *report = NULL;

    assert_non_null(list);
    assert_int_equal(graph_clone(g, &parent, &err), 0);
    work.parent = parent;
    if (recipe_new(list, &recipe, &err) < 0 || recipe_run(recipe, &work, NULL, &report, &err) < 0)
        fail_msg("%s", err.text);
    graph_free(parent);
    json_decref(list);
    return (struct result){work.graph, report};
}

static const struct weight *weight_of(struct graph *g, int layer) {
    const struct weight *w = NULL;

    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        if ((strcmp(n->op_type, "Conv") != 0 && strcmp(n->op_type, "Gemm") != 0) || layer-- > 0)
            continue;
        assert_int_equal(weight_match(g, n->in[1], &w, NULL, NULL), 0);
        assert_non_null(w);
        return w;
    }
    fail();
    return NULL;
}

static float *decoded(struct graph *g, int layer, int64_t *ret_n) {
    const struct weight *w = weight_of(g, layer);
    float *v = malloc((size_t)(w->rows * w->cols) * sizeof(*v) + 1);

    assert_non_null(v);
    assert_int_equal(weight_decode(w, v, NULL), 0);
    *ret_n = w->rows * w->cols;
    return v;
}

static double distance(struct graph *g, int layer) {
    _cleanup_(graph_freep) struct graph *parent = net();
    int64_t n = 0;
    _cleanup_(freep) float *is = decoded(g, layer, &n), *was = decoded(parent, layer, &n);
    double sum = 0, all = 0;

    for (int64_t i = 0; i < n; i++) {
        sum += pow((double)(is[i] - was[i]), 2);
        all += pow((double)was[i], 2);
    }
    return sqrt(sum / all);
}

static void test_a_codebook_has_so_many_words_and_is_near(void **state) {
    (void)state;
    for (int bits = 1; bits <= 8; bits++)
        for (int data = 0; data < 2; data++) {
            char steps[200];
            _cleanup_(result_done) struct result r = {0};
            const struct weight *w;

            snprintf(steps, sizeof(steps), "[{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":%d}]",
                bits);
            r = run(net(), steps, data ? &samples : NULL, 1);
            w = weight_of(r.graph, 1);
            assert_true(w->code->is_looked_up && w->book->dtype == DT_S8);
            assert_int_equal(w->code->bits, bits);
            assert_string_equal(w->scales->name, "channel");
            /* evenly drawn weights: each bit halves the distance, int8 ends it */
            assert_true(distance(r.graph, 1) < (bits < 8 ? 0.75 / (1 << (bits - 1)) : 0.008));
        }
}

static void test_words_of_floats_need_no_scales(void **state) {
    _cleanup_(result_done) struct result r = run(net(),
        "[{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":5,\"codebook\":{\"entries\":\"float\",\"init\":"
        "\"kmeans++\"},\"overrides\":{\"y8\":{\"bits\":3}}}]",
        &samples, 1);
    const struct weight *conv = weight_of(r.graph, 1), *gemm = weight_of(r.graph, 3);

    (void)state;
    assert_int_equal(conv->code->bits, 5);
    assert_int_equal(gemm->code->bits, 3);
    assert_int_equal(conv->book->dtype, DT_F32);
    assert_null(conv->scale);
    assert_true(distance(r.graph, 1) < 0.05);
}

static void zero_most(struct graph *g, int layer, int keep_each) {
    const struct weight *w = weight_of(g, layer);
    float *v = w->codes->data;

    for (int64_t i = 0; i < w->rows * w->cols; i++)
        v[i] = i % keep_each ? 0 : v[i];
}

static void test_zeros_of_a_pruned_layer_stay(void **state) {
    static const char *const forms[] = {
        "[{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":5}]",
        "[{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":5,\"codebook\":{\"entries\":\"float\"}}]",
        "[{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":1}]",
    };

    (void)state;
    for (size_t k = 0; k < 3; k++)
        for (int each = 2; each <= 400; each += each < 10 ? 5 : 393) { /* 2, 7, 12, 405: gaps past a byte */
            struct graph *g = net();
            _cleanup_(result_done) struct result r = {0};
            _cleanup_(freep) float *v = NULL;
            int64_t n;

            zero_most(g, 1, each);
            r = run(g, forms[k], &samples, 1);
            v = decoded(r.graph, 1, &n);
            for (int64_t i = 0; i < n; i++)
                if (i % each)
                    assert_true(v[i] == 0);
            assert_string_equal(weight_of(r.graph, 1)->structure->name,
                each > 2 && !(k == 2 && each < 12) ? "sparse" : "dense");
        }
}

static void test_a_product_has_words_of_several_weights(void **state) {
    (void)state;
    for (int data = 0; data < 2; data++) {
        _cleanup_(result_done) struct result r = run(net(),
            "[{\"method\":\"quantize\",\"scheme\":\"product\",\"product\":{\"dim\":4,\"words\":128},\"layers\":{"
            "\"include\":[\"*\"]}}]",
            data ? &samples : NULL, 1);
        const struct weight *w = weight_of(r.graph, 1);

        assert_string_equal(w->code->name, "product");
        assert_int_equal(w->book->shape.dim[0], 128);
        assert_int_equal(w->book->shape.dim[1], 4);
        assert_true(distance(r.graph, 1) < 0.6);
        /* the first convolution is smaller than its codebook would be */
        assert_string_equal(weight_of(r.graph, 0)->code->name, "f32");
    }
}

/* Every fourth input is bright. */
static int read_dark(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    (void)ctx;
    (void)err;
    for (int64_t i = 0; i < count; i++) {
        net_text_fill(ret + i * 64, 64, (uint32_t)(first + i));
        for (int k = 0; k < 64; k++)
            ret[i * 64 + k] *= k % 4 == 1 ? 1 : 0.05f;
    }
    return 0;
}

static void test_a_product_says_what_counts_better(void **state) {
    static const char flat[] = "Gemm x=1x64 w=48x64 b=48 transB=1; Relu $; Gemm $ v=10x48 e=10 transB=1";
    static const char steps[] = "[{\"method\":\"quantize\",\"scheme\":\"product\",\"product\":{\"dim\":4,"
                                "\"words\":32},\"layers\":{\"include\":[\"y0\"]}}]";
    static const struct samples dark = {.n = SAMPLES, .item = {.rank = 2, .dim = {1, 64}}, .read = read_dark};
    _cleanup_(graph_freep) struct graph *parent = net_text_read(flat).graph;
    double error[2] = {0};

    (void)state;
    for (int data = 0; data < 2; data++) {
        _cleanup_(result_done) struct result r =
            run(net_text_read(flat).graph, steps, data ? &dark : NULL, 3);
        int64_t n;
        _cleanup_(freep) float *is = decoded(r.graph, 0, &n), *was = decoded(parent, 0, &n);

        for (int64_t i = 0; i < n; i++)
            if (i % 4 == 1)
                error[data] += pow((double)(is[i] - was[i]), 2);
    }
    assert_true(error[1] < error[0] * 0.5);
}

#define BOOK "[{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":3"

static void test_a_book_a_channel_is_nearer_than_one_a_layer(void **state) {
    static const char *const steps[2][2] = {
        {BOOK "}]", BOOK ",\"codebook\":{\"scope\":\"channel\"}}]"},
        {BOOK ",\"codebook\":{\"entries\":\"float\"}}]",
            BOOK ",\"codebook\":{\"scope\":\"channel\",\"entries\":\"float\"}}]"},
    };

    (void)state;
    for (int k = 0; k < 2; k++)
        for (int layer = 0; layer < 4; layer++) { /* the third has its channels last */
            _cleanup_(result_done) struct result one = run(net(), steps[k][0], &samples, 1);
            _cleanup_(result_done) struct result many = run(net(), steps[k][1], &samples, 1);

            assert_string_equal(weight_of(many.graph, layer)->code->name, "books");
            assert_string_equal(weight_form_name(weight_of(many.graph, layer)), "codebook");
            assert_true(distance(many.graph, layer) < distance(one.graph, layer));
        }
}

#define WORDS ",\"product\":{\"dim\":4,\"words\":32},\"layers\":{\"include\":[\"y2\",\"y6\"]}}]"

static void test_stages_add_up(void **state) {
    static const char product[] = "[{\"method\":\"quantize\",\"scheme\":\"product\"" WORDS;

    (void)state;
    for (int layer = 1; layer < 3; layer++) {
        _cleanup_(result_done) struct result one = run(net(), product, &samples, 1);
        double before = distance(one.graph, layer);

        for (int bits = 3; bits <= 6; bits += 3) {
            char steps[240];
            _cleanup_(result_done) struct result r = {0};
            int stages = 0;

            snprintf(steps, sizeof(steps),
                "[{\"method\":\"quantize\",\"scheme\":\"residual\",\"bits\":%d" WORDS, bits);
            r = run(net(), steps, &samples, 1);
            for (const struct weight *w = weight_of(r.graph, layer); w; w = w->more)
                stages++;
            assert_int_equal(stages, bits == 3 ? 2 : 5); /* of 1.25 bits a weight each */
            assert_string_equal(weight_form_name(weight_of(r.graph, layer)), "residual");
            assert_int_equal(weight_check(weight_of(r.graph, layer), NULL), 0);
            assert_true(distance(r.graph, layer) < 0.75 * before);
            before = distance(r.graph, layer);
        }
    }
}

/* The engine's answers are those of the weights that the form means. */
static void test_the_engine_runs_what_the_forms_mean(void **state) {
    static const char *const steps[] = {
        BOOK ",\"codebook\":{\"scope\":\"channel\"}}]",
        "[{\"method\":\"quantize\",\"scheme\":\"residual\",\"bits\":4" WORDS,
    };
    static const struct shape input = {.rank = 4, .dim = {1, 3, 12, 12}};

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        _cleanup_(result_done) struct result r = run(net(), steps[k], NULL, 1);
        struct graph *plain = NULL, *copy = NULL;
        _cleanup_(session_done) struct session a = {0}, b = {0};
        _cleanup_(freep) float *x = alloc_aligned(ITEM * sizeof(*x) + 64);
        struct tensor in = {.dtype = DT_F32, .shape = input, .data = x};

        net_text_fill(x, ITEM, 77);
        assert_int_equal(graph_clone(r.graph, &plain, NULL), 0);
        assert_int_equal(graph_clone(r.graph, &copy, NULL), 0);
        assert_int_equal(pass_expand(plain, NULL), 0);
        assert_int_equal(session_open_graph(plain, &a, NULL), 0);
        assert_int_equal(session_open_graph(copy, &b, NULL), 0);
        assert_int_equal(session_plan(&a, &input, 1, NULL), 0);
        assert_int_equal(session_plan(&b, &input, 1, NULL), 0);
        session_run(&a, &in);
        session_run(&b, &in);
        for (int i = 0; i < 10; i++)
            assert_true(fabsf(((float *)a.out[0].data)[i] - ((float *)b.out[0].data)[i]) < 1e-4f);
    }
}

/* ---- training aware of the rounding ---- */

enum { BATCH = 8, CLASSES = 10 };

struct trained {
    struct trainer *trainer;
    struct trainable *t;
    struct learn_run run;
};

static void trained_done(struct trained *t) {
    trainer_free(t->trainer);
    trainable_free(t->t);
}

/* Some steps through the forms of `g` on one minibatch; losses of the first and the last. */
static void train(struct graph *g, bool learns, struct trained *ret, double *ret_first, double *ret_last) {
    const struct trainable_options to = {.learns_scales = learns};
    _cleanup_(optim_done) struct optim optim = {.kind = optim_find("sgd")};
    struct optim_param p = optim_defaults();
    const struct loss loss = {.kind = loss_find("cross_entropy")};
    struct trainer_options o = {.batch = BATCH, .lanes = 1};
    float targets[BATCH * CLASSES] = {0};
    struct error err = {0};

    if (trainable_open(g, &to, &ret->t, &err) < 0)
        fail_msg("%s", err.text);
    trainable_run(ret->t, &ret->run);
    o.weights = ret->run.weights;
    o.n_weights = ret->run.n_weights;
    o.activations = ret->run.activations;
    o.n_activations = ret->run.n_activations;
    if (trainer_new(trainable_graph(ret->t), &samples.item, &o, &ret->trainer, &err) < 0)
        fail_msg("%s", err.text);
    p.clip = 1;
    assert_int_equal(optim_init(&optim, optim.kind, &p, trainer_n_gradients(ret->trainer), &err), 0);
    for (int i = 0; i < BATCH; i++) {
        read_samples(NULL, i, 1, trainer_input(ret->trainer, i), NULL);
        targets[i * CLASSES + i * 3 % CLASSES] = 1;
    }
    for (int step = 0; step < 60; step++) {
        double found = trainer_gradients(ret->trainer, NULL, &loss, targets);

        *(step ? ret_last : ret_first) = found;
        assert_true(trainer_move(ret->trainer, NULL, &optim, 0.0005f));
        if (ret->run.hook)
            assert_int_equal(ret->run.hook->begin(ret->run.hook->ctx, ret->trainer, step, 60, &err), 0);
    }
    if (ret->run.hook)
        assert_int_equal(ret->run.hook->done(ret->run.hook->ctx, ret->trainer, &err), 0);
}

/* How far the file's answers are from the trainer's, by the largest of these. */
static double difference(struct trained *t, const struct graph *closed) {
    static const struct shape input = {.rank = 4, .dim = {1, 3, 12, 12}};
    _cleanup_(session_done) struct session s = {0};
    _cleanup_(freep) float *x = alloc_aligned(ITEM * sizeof(*x) + 64);
    struct tensor in = {.dtype = DT_F32, .shape = input, .data = x};
    struct graph *copy = NULL;
    double most = 0, largest = 0;

    assert_int_equal(graph_clone(closed, &copy, NULL), 0);
    assert_int_equal(session_open_graph(copy, &s, NULL), 0);
    assert_int_equal(session_plan(&s, &input, 1, NULL), 0);
    trainer_forward(t->trainer, NULL);
    for (int i = 0; i < BATCH; i++) {
        const float *want = trainer_output(t->trainer, i);

        read_samples(NULL, i, 1, x, NULL);
        session_run(&s, &in);
        for (int k = 0; k < CLASSES; k++) {
            most = fmax(most, fabs((double)(want[k] - ((const float *)s.out[0].data)[k])));
            largest = fmax(largest, fabs((double)want[k]));
        }
    }
    return most / largest;
}

static void test_the_file_answers_as_what_was_trained(void **state) {
    static const char *const steps[] = {
        "[{\"method\":\"quantize\",\"scheme\":\"int8\"}]",
        "[{\"method\":\"quantize\",\"scheme\":\"fixed\",\"bits\":4}]",
        "[{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":3}]",
        "[{\"method\":\"quantize\",\"scheme\":\"codebook\",\"bits\":3,\"codebook\":{\"entries\":\"float\"}}]",
    };

    (void)state;
    for (size_t k = 0; k < 4; k++)
        for (int learns = 0; learns < 2; learns++) {
            _cleanup_(result_done) struct result r = run(net(), steps[k], &samples, 1);
            _cleanup_(trained_done) struct trained t = {0};
            _cleanup_(graph_freep) struct graph *saved = NULL, *closed = NULL;
            double first = 0, last = 0;

            train(r.graph, learns, &t, &first, &last);
            assert_true(last < 0.9 * first);
            assert_int_equal(graph_clone(trainable_graph(t.t), &saved, NULL), 0);
            assert_int_equal(trainer_save(t.trainer, saved, NULL), 0);
            assert_int_equal(trainable_close(t.t, saved, &closed, NULL), 0);
            /* entries of int8 are rounded once more, the input of a layer by a step at most */
            assert_true(difference(&t, closed) < (k == 3 ? 1e-3 : 0.08));
            assert_string_equal(
                weight_form_name(weight_of(closed, 1)), weight_form_name(weight_of(r.graph, 1)));
        }
}

static void test_the_same_seed_gives_the_same_file(void **state) {
    static const char *const steps[] = {
        "[{\"method\":\"quantize\",\"scheme\":\"codebook\",\"codebook\":{\"init\":\"kmeans++\"}}]",
        "[{\"method\":\"quantize\",\"scheme\":\"product\"}]",
    };

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        _cleanup_(result_done) struct result a = run(net(), steps[k], &samples, 5),
                                             b = run(net(), steps[k], &samples, 5);
        int64_t n;
        _cleanup_(freep) float *x = decoded(a.graph, 1, &n), *y = decoded(b.graph, 1, &n);

        assert_memory_equal(x, y, (size_t)n * sizeof(*x));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_codebook_has_so_many_words_and_is_near),
        cmocka_unit_test(test_words_of_floats_need_no_scales),
        cmocka_unit_test(test_zeros_of_a_pruned_layer_stay),
        cmocka_unit_test(test_a_product_has_words_of_several_weights),
        cmocka_unit_test(test_a_product_says_what_counts_better),
        cmocka_unit_test(test_a_book_a_channel_is_nearer_than_one_a_layer),
        cmocka_unit_test(test_stages_add_up),
        cmocka_unit_test(test_the_engine_runs_what_the_forms_mean),
        cmocka_unit_test(test_the_file_answers_as_what_was_trained),
        cmocka_unit_test(test_the_same_seed_gives_the_same_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
