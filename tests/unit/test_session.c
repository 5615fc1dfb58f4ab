/* Training sessions on a part of a graph: what is fed in the middle, what is seen in the middle, what is held
 * still. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/train/trainer.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"

#define BATCH 8

/* y0 … y7; the block from y1 to y5 has a residual of its own. */
static const char net[] =
    "Conv x=1x3x8x7 w=6x3x3x3 b=6 pads=1,1,1,1; Tanh $; Conv $ w2=6x6x3x3 b2=6 pads=1,1,1,1; "
    "Tanh $; Conv $ w3=6x6x3x3 b3=6 pads=1,1,1,1; Add $ y1; Flatten $; Gemm $ w4=336x4 b4=4; "
    "Softmax $ axis=1";
#define Y_ITEM (6 * 8 * 7)

struct rig {
    struct net_text text;
    struct trainer *trainer;
};

static int open_rig(struct rig *r, struct trainer_options *o, const struct shape *item, struct error *err) {
    memset(r, 0, sizeof(*r));
    r->text = net_text_read(net);
    r->text.graph->values[r->text.graph->inputs[0]].shape.dim[0] = -1;
    o->batch = BATCH;
    o->lanes = 4;
    return trainer_new(r->text.graph, item ? item : &r->text.input[0], o, &r->trainer, err);
}

static void rig_start(struct rig *r, struct trainer_options o, const struct shape *item) {
    struct error err = {0};

    if (open_rig(r, &o, item, &err) < 0)
        fail_msg("%s", err.text);
}

static void rig_done(struct rig *r) {
    trainer_free(r->trainer);
    graph_free(r->text.graph);
}

static const struct train_param *param_of(const struct trainer *t, const char *name) {
    for (size_t i = 0; i < trainer_n_params(t); i++)
        if (!strcmp(trainer_param(t, i)->name, name))
            return trainer_param(t, i);
    return NULL;
}

static const struct shape block_input = {.rank = 4, .dim = {1, 6, 8, 7}};

/* Values named `name` of the net for BATCH fixed inputs, in plain layout. */
static float *record(const char *name) {
    float *all = calloc(BATCH * Y_ITEM, sizeof(float));
    struct rig r;

    assert_non_null(all);
    rig_start(&r, (struct trainer_options){.tap = name}, NULL);
    for (int64_t i = 0; i < BATCH; i++)
        net_text_fill(trainer_input(r.trainer, i), 3 * 8 * 7, 20 + (uint32_t)i);
    trainer_forward(r.trainer, NULL);
    assert_int_equal(trainer_n_outputs(r.trainer), Y_ITEM);
    for (int64_t i = 0; i < BATCH; i++)
        memcpy(all + i * Y_ITEM, trainer_output(r.trainer, i), Y_ITEM * sizeof(float));
    rig_done(&r);
    return all;
}

/* The convolution of one element by hand: a tap lies plain. */
static void test_a_tap_shows_what_the_graph_computes(void **state) {
    float *y1 = record("y1");
    struct rig r;

    (void)state;
    rig_start(&r, (struct trainer_options){0}, NULL);
    for (int64_t i = 0; i < BATCH; i += 3) {
        const float *w = param_of(r.trainer, "w")->data, *b = param_of(r.trainer, "b")->data;
        float x[3 * 8 * 7];

        net_text_fill(x, 3 * 8 * 7, 20 + (uint32_t)i);
        for (int c = 0; c < 6; c++) { /* in the middle, where no padding is */
            double sum = (double)b[c];

            for (int k = 0; k < 27; k++)
                sum += (double)w[c * 27 + k] * (double)x[k / 9 * 56 + (3 + k / 3 % 3) * 7 + 2 + k % 3];
            assert_true(fabs(tanh(sum) - (double)y1[i * Y_ITEM + c * 56 + 4 * 7 + 3]) < 1e-5);
        }
    }
    rig_done(&r);
    free(y1);
}

static void feed_block(struct rig *r, const float *y1) {
    for (int64_t i = 0; i < BATCH; i++)
        memcpy(trainer_input(r->trainer, i), y1 + i * Y_ITEM, Y_ITEM * sizeof(float));
}

/* AdaRound, ThiNet's repair and block-wise training are this. */
static void test_a_block_learns_recorded_outputs(void **state) {
    float *y1 = record("y1"), *y5 = record("y5");
    struct loss loss = {.kind = loss_find("l2")};
    struct optim_param p = optim_defaults();
    struct error err = {0};
    double first = 0, last = 0;
    struct optim o;
    struct rig r;

    (void)state;
    rig_start(&r, (struct trainer_options){.cut = "y1", .tap = "y5"}, &block_input);
    assert_int_equal(trainer_n_params(r.trainer), 4); /* w2 b2 w3 b3: the block's alone */
    feed_block(&r, y1);
    assert_true(trainer_gradients(r.trainer, NULL, &loss, y5) < 1e-8); /* the teacher itself */
    for (size_t k = 0; k < 4; k++)
        for (int64_t i = 0; i < trainer_param(r.trainer, k)->n; i++)
            trainer_param(r.trainer, k)->data[i] *= 0.7f;
    assert_int_equal(optim_init(&o, optim_find("adam"), &p, trainer_n_gradients(r.trainer), &err), 0);
    for (int i = 0; i < 400; i++) {
        last = trainer_gradients(r.trainer, NULL, &loss, y5);
        first = i ? first : last;
        assert_true(trainer_move(r.trainer, NULL, &o, i < 300 ? 0.01f : 0.001f));
    }
    if (!(last < 1e-3 * first))
        fail_msg("the loss was %g and became %g", first, last);
    { /* back in the graph: the numbers of its values are those of the session */
        float w4 = ((const float *)r.text.graph->values[graph_find_value(r.text.graph, "w4")].init->data)[0];

        assert_int_equal(trainer_save(r.trainer, r.text.graph, &err), 0);
        assert_memory_equal(r.text.graph->values[graph_find_value(r.text.graph, "w2")].init->data,
            param_of(r.trainer, "w2")->data, 6 * 6 * 9 * sizeof(float));
        assert_true(
            ((const float *)r.text.graph->values[graph_find_value(r.text.graph, "w4")].init->data)[0] == w4);
        assert_int_equal(graph_finish(r.text.graph, &err), 0);
    }
    optim_done(&o);
    rig_done(&r);
    free(y1);
    free(y5);
}

static double loss_at(struct rig *r, const float *y, float *x, float v) {
    struct loss loss = {.kind = loss_find("l2")};
    float was = *x;
    double l;

    *x = v;
    l = trainer_gradients(r->trainer, NULL, &loss, y);
    *x = was;
    return l;
}

static void test_gradients_at_a_tap_agree_with_differences(void **state) {
    float *y1 = record("y1"), *y5 = record("y5");
    struct loss loss = {.kind = loss_find("l2")};
    struct rig r;

    (void)state;
    rig_start(&r, (struct trainer_options){.cut = "y1", .tap = "y5"}, &block_input);
    feed_block(&r, y1);
    for (int64_t i = 0; i < BATCH * Y_ITEM; i++)
        y5[i] += i % 3 ? 0.5f : -0.25f;
    for (size_t k = 0; k < trainer_n_params(r.trainer); k++) {
        const struct train_param *p = trainer_param(r.trainer, k);
        float got[6 * 6 * 9];
        double largest = 0;

        (void)trainer_gradients(r.trainer, NULL, &loss, y5);
        trainer_gradient(r.trainer, k, got);
        for (int64_t i = 0; i < p->n; i++)
            largest = fmax(largest, fabs((double)got[i]));
        for (int64_t i = 0; i < p->n; i += 1 + p->n / 25) {
            float *x = &p->data[i], h = 0.02f;
            double whole = (loss_at(&r, y5, x, *x + h) - loss_at(&r, y5, x, *x - h)) / (2 * (double)h);
            double half = (loss_at(&r, y5, x, *x + h / 2) - loss_at(&r, y5, x, *x - h / 2)) / (double)h;

            if (!(fabs((4 * half - whole) / 3 - (double)got[i]) <= 1e-3 * largest))
                fail_msg("%s [%lld]: %g, by differences %g", p->name, (long long)i, (double)got[i],
                    (4 * half - whole) / 3);
        }
    }
    rig_done(&r);
    free(y1);
    free(y5);
}

static void test_a_tapped_softmax_stays(void **state) {
    struct rig r;

    (void)state;
    rig_start(&r, (struct trainer_options){.tap = "y8"}, NULL);
    for (int64_t i = 0; i < BATCH; i++)
        net_text_fill(trainer_input(r.trainer, i), 3 * 8 * 7, 20 + (uint32_t)i);
    trainer_forward(r.trainer, NULL);
    for (int64_t i = 0; i < BATCH; i++) {
        float sum = 0;

        for (int k = 0; k < 4; k++)
            sum += trainer_output(r.trainer, i)[k];
        assert_true(fabsf(sum - 1) < 1e-5f);
    }
    rig_done(&r);
}

static void test_what_is_frozen_stays(void **state) {
    struct net_text t = net_text_read(net);
    int frozen[2] = {graph_find_value(t.graph, "w2"), graph_find_value(t.graph, "b4")};
    struct loss loss = {.kind = loss_find("cross_entropy")};
    struct optim_param p = optim_defaults();
    float targets[BATCH * 4] = {0};
    struct error err = {0};
    struct optim o;
    struct rig r;

    (void)state;
    graph_free(t.graph);
    rig_start(&r, (struct trainer_options){.frozen = frozen, .n_frozen = 2}, NULL);
    assert_int_equal(trainer_n_params(r.trainer), 6);
    assert_null(param_of(r.trainer, "w2"));
    for (int64_t i = 0; i < BATCH; i++) {
        net_text_fill(trainer_input(r.trainer, i), 3 * 8 * 7, 20 + (uint32_t)i);
        targets[i * 4 + i % 4] = 1;
    }
    assert_int_equal(optim_init(&o, optim_find("sgd"), &p, trainer_n_gradients(r.trainer), &err), 0);
    {
        float w = param_of(r.trainer, "w")->data[0];
        double first = trainer_gradients(r.trainer, NULL, &loss, targets), last = first;

        for (int i = 0; i < 20; i++) {
            assert_true(trainer_move(r.trainer, NULL, &o, 0.02f));
            last = trainer_gradients(r.trainer, NULL, &loss, targets);
        }
        assert_true(last < first);
        assert_true(param_of(r.trainer, "w")->data[0] != w); /* the gradient went through what is frozen */
    }
    optim_done(&o);
    rig_done(&r);
}

static void expect_refusal(
    struct trainer_options o, const struct shape *item, const char *code, const char *word) {
    struct error err = {0};
    struct rig r;

    assert_true(open_rig(&r, &o, item, &err) < 0);
    if (code)
        assert_string_equal(err.code, code);
    if (!strstr(err.text, word))
        fail_msg("%s", err.text);
    rig_done(&r);
}

static void test_sessions_that_cannot_be_are_refused(void **state) {
    static const struct activation_sign sign;
    struct activation_transform a = {-3, NULL, activation_find("sign"), &sign};
    struct weight_transform w = {0, transform_find("scale"), &(struct transform_scale){0}};
    struct shape wrong = {.rank = 4, .dim = {1, 5, 8, 7}};

    (void)state;
    expect_refusal((struct trainer_options){.cut = "nowhere"}, NULL, "invalid_model", "'nowhere'");
    expect_refusal((struct trainer_options){.tap = "nowhere"}, NULL, "invalid_model", "'nowhere'");
    expect_refusal((struct trainer_options){.cut = "w2"}, NULL, "invalid_model", "constant");
    /* the residual goes around the cut */
    expect_refusal((struct trainer_options){.cut = "y3", .tap = "y5"}, &block_input, "invalid_model", "'x'");
    expect_refusal((struct trainer_options){.cut = "y1", .tap = "y5"}, &wrong, "shape_mismatch", "y2");
    expect_refusal((struct trainer_options){.cut = "y5", .tap = "y3"}, &block_input, "invalid_model", "");
    expect_refusal((struct trainer_options){.activations = &a, .n_activations = 1}, NULL, NULL, "-3");
    expect_refusal((struct trainer_options){.weights = &w, .n_weights = 1}, NULL, NULL, "no parameter");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tap_shows_what_the_graph_computes),
        cmocka_unit_test(test_a_block_learns_recorded_outputs),
        cmocka_unit_test(test_gradients_at_a_tap_agree_with_differences),
        cmocka_unit_test(test_a_tapped_softmax_stays),
        cmocka_unit_test(test_what_is_frozen_stays),
        cmocka_unit_test(test_sessions_that_cannot_be_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
