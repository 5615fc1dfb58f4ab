/* Single training steps against PyTorch's, recorded in tests/data/train (tests/tools/make_train_goldens.py):
 * loss, gradients of all parameters and running statistics of whole nets, and the weights after some steps of
 * each optimiser. PyTorch computed in double precision. */
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/onnx.h"
#include "engine/pass.h"
#include "engine/train/trainer.h"
#include "tests/unit/cmocka_all.h"

#define FOLDER TEST_DATA "/train/"
#define LIMIT  1e-4 /* of the largest number of a tensor */

struct golden {
    const json_t *j;
    const char *name;
    int64_t batch, classes;
    float *data; /* its .f32 */
    size_t n;
    struct graph *graph;
    struct trainer *trainer;
    struct loss loss;
};

static const char *text(const json_t *j, const char *key) {
    const char *s = json_string_value(json_object_get(j, key));

    assert_non_null(s);
    return s;
}

static float number(const json_t *j, const char *key) {
    return (float)json_number_value(json_object_get(j, key));
}

static FILE *open_file(const char *name, const char *suffix) {
    char path[4096];
    FILE *f;

    snprintf(path, sizeof(path), FOLDER "%s%s", name, suffix);
    f = fopen(path, "rbe");
    if (!f)
        fail_msg("%s is missing", path);
    return f;
}

static void read_floats(struct golden *c) {
    _cleanup_(fclosep) FILE *f = open_file(c->name, ".f32");
    size_t i, expected = 0;
    const json_t *t;

    json_array_foreach(json_object_get(c->j, "tensors"), i, t) expected +=
        (size_t)json_integer_value(json_object_get(t, "n"));
    c->data = calloc(expected + 1, sizeof(float));
    assert_non_null(c->data);
    c->n = fread(c->data, sizeof(float), expected + 1, f);
    assert_int_equal(c->n, expected);
}

/* The recorded tensor, NULL: there is none. */
static const float *recorded(const struct golden *c, const char *what, const char *name, int64_t n) {
    const float *at = c->data;
    const json_t *t;
    size_t i;

    json_array_foreach(json_object_get(c->j, "tensors"), i, t) {
        json_int_t count = json_integer_value(json_object_get(t, "n"));

        if (!strcmp(text(t, "what"), what) && !strcmp(text(t, "name"), name)) {
            assert_int_equal(count, n);
            return at;
        }
        at += count;
    }
    return NULL;
}

static void read_graph(struct golden *c) {
    _cleanup_(fclosep) FILE *f = open_file(text(c->j, "net"), "");
    struct error err = {0};

    if (onnx_read_fd(fileno(f), &c->graph, &err) < 0 || pass_fold_constants(c->graph, &err) < 0)
        fail_msg("%s: %s", c->name, err.text);
}

static void golden_open(struct golden *c, const json_t *all, const json_t *j, unsigned lanes) {
    struct trainer_options o = {.lanes = lanes, .uses_batch_stats = true};
    const json_t *item = json_object_get(j, "item"), *loss = json_object_get(j, "loss");
    struct shape shape = {.rank = 1 + (int)json_array_size(item), .dim = {1}};
    const float *x, *last;
    struct error err = {0};
    int64_t n = 1;

    *c = (struct golden){.j = j, .name = text(j, "name")};
    o.batch = c->batch = json_integer_value(json_object_get(all, "batch"));
    c->classes = json_integer_value(json_object_get(all, "classes"));
    for (int i = 1; i < shape.rank; i++)
        n *= shape.dim[i] = json_integer_value(json_array_get(item, (size_t)i - 1));
    read_floats(c);
    read_graph(c);
    if (trainer_new(c->graph, &shape, &o, &c->trainer, &err) < 0)
        fail_msg("%s: %s", c->name, err.text);
    assert_int_equal(trainer_n_outputs(c->trainer), c->classes);
    x = recorded(c, "input", "", c->batch * n);
    assert_non_null(x);
    for (last = x + c->batch * n; x < last; x += n)
        memcpy(trainer_input(c->trainer, c->batch - (last - x) / n), x, (size_t)n * sizeof(float));
    c->loss.kind = loss_find(text(loss, "kind"));
    assert_non_null(c->loss.kind);
    c->loss.param.smoothing = number(loss, "smoothing");
    c->loss.param.temperature = number(loss, "temperature");
}

static void golden_done(struct golden *c) {
    trainer_free(c->trainer);
    graph_free(c->graph);
    free(c->data);
}

static void step_loss(const struct golden *c, size_t step) {
    const float *targets = recorded(c, "targets", "", c->batch * c->classes);
    double want = json_number_value(json_array_get(json_object_get(c->j, "losses"), step)), got;

    assert_non_null(targets);
    got = trainer_gradients(c->trainer, NULL, &c->loss, targets);
    if (!(fabs(got - want) <= 1e-5 * fabs(want)))
        fail_msg("%s: step %zu: the loss is %.9g, PyTorch's %.9g", c->name, step + 1, got, want);
}

/* `base`: what both are counted from, NULL: 0. */
static void compare(const struct golden *c, const struct train_param *p, const float *got, const float *want,
    const float *base, double limit) {
    double most = 1e-6;

    if (!want)
        fail_msg("%s: parameter %s was not recorded", c->name, p->name);
    for (int64_t i = 0; i < p->n; i++)
        most = fmax(most, fabs((double)want[i] - (base ? (double)base[i] : 0)));
    for (int64_t i = 0; i < p->n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= limit * most))
            fail_msg("%s: %s [%lld]: %.9g, PyTorch's %.9g; largest %g", c->name, p->name, (long long)i,
                (double)got[i], (double)want[i], most);
}

static void check_gradients(const struct golden *c) {
    step_loss(c, 0);
    for (size_t i = 0; i < trainer_n_params(c->trainer); i++) {
        const struct train_param *p = trainer_param(c->trainer, i);
        float *got = calloc((size_t)p->n, sizeof(float));

        assert_non_null(got);
        if (!p->is_stat)
            trainer_gradient(c->trainer, i, got);
        compare(c, p, p->is_stat ? p->data : got,
            recorded(c, p->is_stat ? "statistic" : "gradient", p->name, p->n), NULL, LIMIT);
        free(got);
    }
}

/* All parameters and statistics, one after the other; the caller's. */
static float *all_values(const struct trainer *t) {
    size_t n = 0;
    float *all, *at;

    for (size_t i = 0; i < trainer_n_params(t); i++)
        n += (size_t)trainer_param(t, i)->n;
    all = at = calloc(n + 1, sizeof(float));
    assert_non_null(all);
    for (size_t i = 0; i < trainer_n_params(t); i++) {
        const struct train_param *p = trainer_param(t, i);

        memcpy(at, p->data, (size_t)p->n * sizeof(float));
        at += p->n;
    }
    return all;
}

/* What weights have moved, not what they are, is compared: most of a weight is its start. */
static void check_optimizer(const struct golden *c) {
    struct optim_param p = optim_defaults();
    const struct schedule_kind *schedule = schedule_find(text(c->j, "schedule"));
    size_t n_steps = json_array_size(json_object_get(c->j, "losses"));
    _cleanup_(freep) float *start = all_values(c->trainer);
    const float *at = start;
    struct error err = {0};
    struct optim o;

    p.nesterov = json_is_true(json_object_get(c->j, "nesterov"));
    p.weight_decay = number(c->j, "weight_decay");
    p.clip = number(c->j, "clip");
    assert_non_null(schedule);
    assert_int_equal(
        optim_init(&o, optim_find(text(c->j, "optimizer")), &p, trainer_n_gradients(c->trainer), &err), 0);
    for (size_t i = 0; i < n_steps; i++) {
        step_loss(c, i);
        assert_true(trainer_move(c->trainer, NULL, &o,
            schedule_rate(schedule, number(c->j, "lr"), 0, (int64_t)i, (int64_t)n_steps)));
    }
    for (size_t i = 0; i < trainer_n_params(c->trainer); i++) {
        const struct train_param *w = trainer_param(c->trainer, i);

        compare(c, w, w->data, recorded(c, "after", w->name, w->n), at, LIMIT);
        at += w->n;
    }
    optim_done(&o);
}

/* Every case of one kind, in different lanes. */
static void check_all(bool is_optimizer, size_t at_least) {
    _cleanup_(fclosep) FILE *f = open_file("cases.json", "");
    json_auto_t *all = json_loadf(f, 0, NULL);
    size_t i, n = 0;
    const json_t *j;

    assert_non_null(all);
    json_array_foreach(json_object_get(all, "cases"), i, j) {
        if ((json_object_get(j, "optimizer") != NULL) != is_optimizer)
            continue;
        n++;
        for (unsigned lanes = 1; lanes <= 4; lanes *= 2) {
            struct golden c;

            golden_open(&c, all, j, lanes);
            if (is_optimizer)
                check_optimizer(&c);
            else
                check_gradients(&c);
            golden_done(&c);
        }
    }
    assert_true(n >= at_least);
}

static void test_loss_gradients_and_statistics(void **state) {
    (void)state;
    check_all(false, 7);
}

static void test_optimizers(void **state) {
    (void)state;
    check_all(true, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_gradients_and_statistics),
        cmocka_unit_test(test_optimizers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
