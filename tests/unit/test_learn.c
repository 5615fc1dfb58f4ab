/* The loop that trains, on a little data: what it does when the loss is no number, when memory is short, and
 * with a teacher. (That it goes on from a checkpoint: tests/cli/test_resume.py.) */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "compress/learn.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"
#include "tests/unit/rows_pack.h"

static struct learn_options options(void) {
    struct learn_options o = {0};

    assert_int_equal(param_defaults(&learn_table, &o, NULL), 0);
    o.batch = 16;
    o.epochs = 4;
    return o;
}

static struct graph *net(const char *text) {
    return net_text_read(text).graph;
}

static int train(struct graph *g, const struct learn_run *run, const struct learn_options *o, json_t **report,
    struct error *err) {
    *report = json_object();
    return learn(g, run, o, *report, err);
}

static double last(const json_t *report, const char *key) {
    const json_t *epochs = json_object_get(report, "epochs");

    return json_number_value(json_object_get(json_array_get(epochs, json_array_size(epochs) - 1), key));
}

static double worst(const json_t *report) {
    double most = 0;
    const json_t *epoch;
    size_t i;

    json_array_foreach(json_object_get(report, "epochs"), i, epoch) most =
        fmax(most, json_number_value(json_object_get(epoch, "loss")));
    return most;
}

#define LINEAR "Flatten x=1x1x4x4; Gemm $ w=16x3 b=3"

/* A quadratic loss diverges beyond a learning rate and falls below it, so that half of one is enough for it.
 */
static struct learn_options quadratic(double lr) {
    struct learn_options o = options();

    o.loss = 3;     /* l2 */
    o.schedule = 3; /* constant */
    o.warmup = o.momentum = o.weight_decay = 0;
    o.nesterov = false;
    o.lr = lr;
    o.epochs = 40;
    return o;
}

static void test_a_loss_that_is_no_number_is_tried_once_more_with_half_the_rate(void **state) {
    _cleanup_(pack_freep) struct pack *p = rows_pack(true);
    struct feed_source source = {.pack = p};
    struct learn_run run = {.source = &source};
    bool was_halved = false;

    (void)state;
    for (double lr = 0.1; lr < 1 && !was_halved; lr *= 1.15) {
        struct learn_options o = quadratic(lr);
        struct graph *g = net(LINEAR);
        struct error err = {0};
        json_t *report = NULL;

        if (train(g, &run, &o, &report, &err) == 0 && json_object_get(report, "halved_at_step")) {
            was_halved = true;
            assert_true(last(report, "loss") < 1e-3 * worst(report));
            assert_true(fabs(last(report, "learning_rate") - lr / 2) < 1e-6);
        }
        json_decref(report);
        graph_free(g);
    }
    assert_true(was_halved);
}

static void test_a_loss_that_stays_no_number_names_step_and_tensor(void **state) {
    _cleanup_(pack_freep) struct pack *p = rows_pack(true);
    struct feed_source source = {.pack = p};
    struct learn_run run = {.source = &source};
    struct learn_options o = quadratic(50);
    struct graph *g = net(LINEAR);
    struct error err = {0};
    json_t *report;

    (void)state;
    assert_true(train(g, &run, &o, &report, &err) < 0);
    assert_string_equal(err.code, "method_not_applicable");
    assert_non_null(strstr(err.text, "also with half the learning rate"));
    assert_non_null(strstr(err.text, "at step "));
    assert_non_null(strstr(err.text, "tensor '"));
    json_decref(report);
    graph_free(g);
}

static void test_little_memory_cuts_the_minibatch_and_too_little_is_told(void **state) {
    static const char wide[] =
        "Conv x=1x1x4x4 w=64x1x3x3 b=64 pads=1,1,1,1; Relu $; Flatten $; Gemm $ w2=1024x3 b2=3";
    _cleanup_(pack_freep) struct pack *p = rows_pack(true);
    struct feed_source source = {.pack = p};
    struct learn_run run = {.source = &source};
    struct learn_options o = options();
    double loss[2] = {0, 0};
    uint64_t limits[2] = {0, 0}, low = 1, high = 64 << 20;
    struct error err = {0};
    json_t *report;

    (void)state;
    o.epochs = 1;
    while (high - low > 1024) { /* the least that is enough: the minibatch is in as many parts as can be */
        struct graph *g = net(wide);

        run.memory_bytes = (low + high) / 2;
        err = (struct error){0};
        if (train(g, &run, &o, &report, &err) == 0)
            high = run.memory_bytes;
        else {
            assert_string_equal(err.code, "memory_budget");
            low = run.memory_bytes;
        }
        json_decref(report);
        graph_free(g);
    }
    assert_true(low > 1);
    limits[1] = high;
    for (int i = 0; i < 2; i++) {
        struct graph *g = net(wide);

        run.memory_bytes = limits[i];
        assert_int_equal(train(g, &run, &o, &report, NULL), 0);
        loss[i] = last(report, "loss");
        json_decref(report);
        graph_free(g);
    }
    assert_true(fabs(loss[0] - loss[1]) < 1e-4 * loss[0]);
    run.memory_bytes = 100000;
    err = (struct error){0};
    {
        struct graph *g = net(wide);

        assert_true(train(g, &run, &o, &report, &err) < 0);
        assert_string_equal(err.code, "memory_budget");
        assert_non_null(strstr(err.text, "and may take 100000"));
        json_decref(report);
        graph_free(g);
    }
}

static void test_pictures_without_labels_are_learned_from_a_teacher(void **state) {
    _cleanup_(pack_freep) struct pack *labelled = rows_pack(true), *bare = rows_pack(false);
    struct feed_source source = {.pack = labelled}, no_labels = {.pack = bare};
    struct learn_run run = {.source = &source};
    struct learn_options o = options();
    struct graph *teacher = net(LINEAR),
                 *student = net("Flatten x=1x1x4x4; Gemm $ w=16x8 b=8; Tanh $; Gemm $ w2=8x3 b2=3");
    struct learn_distil distil = {.teacher = teacher, .weight = 0.9, .temperature = 2};
    struct error err = {0};
    json_t *report;

    (void)state;
    o.epochs = 12;
    o.lr = 0.05;
    if (train(teacher, &run, &o, &report, &err) < 0)
        fail_msg("%s", err.text);
    json_decref(report);
    run = (struct learn_run){.source = &no_labels, .distil = &distil};
    if (train(student, &run, &o, &report, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(last(report, "train_accuracy") > 0.9); /* of the teacher's answers */
    json_decref(report);
    run.distil = NULL;
    assert_true(train(student, &run, &o, &report, &err) < 0);
    assert_string_equal(err.code, "bad_dataset");
    json_decref(report);
    graph_free(teacher);
    graph_free(student);
}

/* A network goes on learning with its first layer and the norm behind it as they are. */
static void test_layers_that_are_not_chosen_stay_as_they_are(void **state) {
    static const char deep[] =
        "Conv x=1x1x4x4 w=4x1x3x3 pads=1,1,1,1; BatchNormalization $ s=4 b=4 m=4 p=4; Relu $; "
        "Flatten $; Gemm $ w2=64x3 b2=3";
    _cleanup_(pack_freep) struct pack *p = rows_pack(true);
    _cleanup_(frozen_done) struct frozen frozen = {0};
    struct graph *g = net(deep), *was = net(deep);
    const struct scope scope = {.exclude = (const char *const[]){g->nodes[0].id, NULL}};
    struct feed_source source = {.pack = p};
    struct learn_run run = {.source = &source, .frozen = &frozen};
    struct learn_options o = options();
    struct error err = {0};
    json_t *report;

    (void)state;
    assert_int_equal(frozen_find(g, &scope, &frozen, &err), 0);
    assert_int_equal(frozen.n, 5);
    if (train(g, &run, &o, &report, &err) < 0)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 1; k < g->nodes[i].n_in; k++) {
            const struct tensor *now = g->values[g->nodes[i].in[k]].init;
            const struct tensor *then = was->values[was->nodes[i].in[k]].init;
            size_t size;

            assert_true(shape_bytes(&now->shape, now->dtype, &size));
            assert_int_equal(memcmp(now->data, then->data, size) == 0, i < 2);
        }
    json_decref(report);
    graph_free(g);
    graph_free(was);
}

/* Whatever this processor can: the report says what was done, and that is what is learnt well. */
static void test_bfloat16_learns_or_says_why_not(void **state) {
    static const char *const nets[] = {
        "Conv x=1x1x4x4 w=8x1x3x3 pads=1,1,1,1; BatchNormalization $ s=8 b=8 m=8 p=8; Relu $; "
        "Conv $ w2=8x8x4x4; BatchNormalization $ s2=8 b2=8 m2=8 p2=8; Relu $; GlobalAveragePool $; Flatten $; "
        "Gemm $ w3=8x3 b3=3",
        LINEAR,
    };
    _cleanup_(pack_freep) struct pack *p = rows_pack(true);
    struct feed_source source = {.pack = p};
    const struct learn_run run = {.source = &source};
    struct learn_options o = options();
    struct error err = {0};

    (void)state;
    o.bf16 = true;
    o.epochs = 12;
    o.lr = 0.05;
    for (int i = 0; i < 2; i++) {
        struct graph *g = net(nets[i]);
        json_t *report;
        bool is_bf16;

        if (train(g, &run, &o, &report, &err) < 0)
            fail_msg("%s", err.text);
        is_bf16 = json_is_true(json_object_get(report, "bf16"));
        assert_true(is_bf16 != json_is_string(json_object_get(report, "why_float")));
        assert_true(i == 0 || !is_bf16); /* no pictures between layers */
        assert_true(last(report, "train_accuracy") > 0.9);
        json_decref(report);
        graph_free(g);
    }
}

#define CONVOLUTIONS                                                                                         \
    "Conv x=1x1x4x4 w=4x1x3x3 b=4 pads=1,1,1,1; Relu $; Conv $ w2=6x4x3x3 pads=1,1,1,1; Relu $; "            \
    "Flatten $; Gemm $ w3=96x3 b3=3"

/* Norms are there while the net learns and folded afterwards; the threads do not show. */
static void test_inserted_norms_are_gone_in_the_end(void **state) {
    _cleanup_(pack_freep) struct pack *p = rows_pack(true);
    struct feed_source source = {.pack = p};
    struct learn_options o = options();
    struct graph *g[2];

    (void)state;
    while (strcmp(learn_batch_norms[o.batch_norm], "insert") != 0)
        o.batch_norm++;
    for (int i = 0; i < 2; i++) {
        struct progress progress = {.threads = i ? 3 : 1};
        struct learn_run run = {.source = &source, .progress = &progress};
        struct learn_plan plan;
        struct error err = {0};
        json_t *report = NULL;

        g[i] = net(CONVOLUTIONS);
        if (learn_plan(g[i], &run, &o, &plan, &err) < 0 || train(g[i], &run, &o, &report, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(json_integer_value(json_object_get(report, "batch_norms_inserted")), 2);
        assert_true(last(report, "loss") <
                    0.5 * json_number_value(json_array_get(json_object_get(report, "first_losses"), 0)));
        assert_int_equal(g[i]->n_nodes, 6);
        json_decref(report);
    }
    for (size_t n = 0; n < 6; n++)
        for (int k = 1; k < g[0]->nodes[n].n_in; k++) {
            const struct tensor *one = g[0]->values[g[0]->nodes[n].in[k]].init;
            size_t size;

            assert_true(shape_bytes(&one->shape, one->dtype, &size));
            assert_memory_equal(one->data, g[1]->values[g[1]->nodes[n].in[k]].init->data, size);
        }
    graph_free(g[0]);
    graph_free(g[1]);
}

static bool is_cancelled(void *ctx) {
    int *left = ctx;

    return --*left < 0;
}

/* In the middle of measuring, or of learning. */
static void test_a_cancelled_training_leaves_no_norms_behind(void **state) {
    _cleanup_(pack_freep) struct pack *p = rows_pack(true);
    struct feed_source source = {.pack = p};
    struct learn_options o = options();

    (void)state;
    while (strcmp(learn_batch_norms[o.batch_norm], "insert") != 0)
        o.batch_norm++;
    for (int after = 1; after < 60; after += 29) {
        int left = after;
        struct progress progress = {.ctx = &left, .threads = 1, .is_cancelled = is_cancelled};
        struct learn_run run = {.source = &source, .progress = &progress};
        struct graph *g = net(CONVOLUTIONS);
        const void *w = g->values[g->nodes[2].in[1]].init->data;
        struct error err = {0};
        json_t *report = NULL;

        assert_int_equal(train(g, &run, &o, &report, &err), -ECANCELED);
        assert_int_equal(g->n_nodes, 6);
        assert_int_equal(g->nodes[2].n_in, 2);
        assert_ptr_equal(g->values[g->nodes[2].in[1]].init->data, w);
        json_decref(report);
        graph_free(g);
    }
}

static void test_without_norms_rate_and_clip_are_lower_unless_given(void **state) {
    _cleanup_(pack_freep) struct pack *p = rows_pack(true);
    struct feed_source source = {.pack = p};
    struct learn_run run = {.source = &source};
    double first[2] = {0.01, 0.002};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct learn_options o = options();
        struct graph *g = net(CONVOLUTIONS);
        struct error err = {0};
        json_t *report = NULL;

        while (i && strcmp(learn_batch_norms[o.batch_norm], "none") != 0)
            o.batch_norm++;
        o.schedule = 3; /* constant */
        o.lr = i == 2 ? 0.03 : o.lr;
        if (train(g, &run, &o, &report, &err) < 0)
            fail_msg("%s", err.text);
        assert_true(fabs(last(report, "learning_rate") - (i == 2 ? 0.03 : first[i])) < 1e-7);
        assert_null(json_object_get(report, "batch_norms_inserted"));
        json_decref(report);
        graph_free(g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_loss_that_is_no_number_is_tried_once_more_with_half_the_rate),
        cmocka_unit_test(test_a_loss_that_stays_no_number_names_step_and_tensor),
        cmocka_unit_test(test_little_memory_cuts_the_minibatch_and_too_little_is_told),
        cmocka_unit_test(test_bfloat16_learns_or_says_why_not),
        cmocka_unit_test(test_layers_that_are_not_chosen_stay_as_they_are),
        cmocka_unit_test(test_inserted_norms_are_gone_in_the_end),
        cmocka_unit_test(test_a_cancelled_training_leaves_no_norms_behind),
        cmocka_unit_test(test_without_norms_rate_and_clip_are_lower_unless_given),
        cmocka_unit_test(test_pictures_without_labels_are_learned_from_a_teacher),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
