/* Choosing kernels by their times: the search over a table of made-up times, the file of times, and that
 * tuning for real changes how a network runs but not what it answers. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/net.h"
#include "engine/net_priv.h"
#include "tests/unit/net_text.h"

/* Conv takes NHWC alone, Sub takes both. */
#define NET                                                                                                  \
    "Conv x=1x16x8x8 w=16x16x3x3 pads=1,1,1,1; Sub $ x; Conv $ v=16x16x3x3 pads=1,1,1,1; Sub $ y1; "         \
    "GlobalAveragePool $; Flatten $; Gemm $ g=16x10 b=10"

struct fixture {
    struct tuner *tuner;
    struct net *net;
    struct shape input;
};

static void open_net(struct fixture *f, const char *text, const char *path) {
    struct net_options o = {0};
    struct net_text t = net_text_read(text);
    struct error err = {0};

    assert_int_equal(tuner_new(path, &f->tuner, NULL), 0);
    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    o.tuner = f->tuner;
    f->input = t.input[0];
    t.graph->values[t.graph->inputs[0]].shape.dim[0] = -1;
    assert_int_equal(net_new(t.graph, &o, &f->net, &err), 0);
}

static void close_net(struct fixture *f) {
    net_unref(f->net);
    tuner_free(f->tuner);
}

/* Times by a rule, for all the search may ask. */
struct rule {
    const char *slow_op;
    enum layout slow_in; /* the operator costs 1000 us there, everything else 10 */
    float convert_us;
};

static void put_time(struct tuner *t, const char *key, float us) {
    struct timing timing = {.n_rounds = TUNE_ROUNDS, .us = {us, us}};

    assert_int_equal(tuner_put(t, key, &timing), 0);
}

static void put_node(const struct fixture *f, const struct plan *p, const struct plan_env *env,
    const struct node *n, const struct rule *rule) {
    struct plan_choice c[PLAN_MAX_CANDIDATES];
    size_t count = plan_candidates(p, env, n, c);
    char key[TUNE_KEY_MAX];

    for (size_t i = 0; i < count; i++) {
        bool slow = strcmp(n->op_type, rule->slow_op) == 0 && c[i].in == rule->slow_in;

        assert_true(plan_time_key(p, env, n, &c[i], key));
        put_time(f->tuner, key, slow ? 1000 : 10);
    }
}

static void put_rule(const struct fixture *f, const struct rule *rule) {
    struct pack_cache *packs = pack_cache_new(NULL);
    struct net_build b = {0};
    struct plan *p = NULL;
    struct error err = {0};
    char key[TUNE_KEY_MAX];

    assert_int_equal(net_begin_build(f->net, packs, &b, &err), 0);
    assert_int_equal(plan_sketch(&b.env, &f->input, 1, &p, &err), 0);
    for (size_t k = 0; k < b.env.graph->n_nodes; k++)
        put_node(f, p, &b.env, &b.env.graph->nodes[k], rule);
    for (size_t v = 0; v < b.env.graph->n_values; v++) {
        for (int pair = 0; pair < LAYOUT_COUNT * LAYOUT_COUNT; pair++) {
            if (plan_conversion_key(p, &b.env, (int)v, (enum layout)(pair / LAYOUT_COUNT),
                    (enum layout)(pair % LAYOUT_COUNT), key))
                put_time(f->tuner, key, rule->convert_us);
        }
    }
    plan_free(p);
    net_build_done(&b);
    pack_cache_free(packs);
}

static struct plan *plan_of(const struct fixture *f, int64_t batch) {
    struct shape s = f->input;
    struct plan *p = NULL;
    struct error err = {0};

    s.dim[0] = batch;
    if (net_plan(f->net, &s, 1, &p, &err) < 0)
        fail_msg("%s", err.text);
    return p;
}

static size_t count_conversions(const struct plan *p) {
    size_t n = 0;

    for (size_t i = 0; i < plan_n_steps(p); i++) {
        struct plan_step s;

        plan_get_step(p, i, &s);
        n += strcmp(s.id, "convert") == 0;
    }
    return n;
}

static void run(const struct plan *p, const float *x, int64_t batch, const struct shape *image, float *y) {
    struct tensor in = {.dtype = DT_F32, .shape = *image, .data = (void *)(uintptr_t)x}, out = {.data = y};
    struct arena a = {0};
    struct error err = {0};

    in.shape.dim[0] = batch;
    assert_int_equal(arena_reserve(&a, plan_arena_size(p), &err), 0);
    plan_run(p, &a, &in, &out, NULL, NULL);
    arena_done(&a);
}

static float *noise(size_t n) {
    float *x = calloc(n, sizeof(*x));
    uint32_t state = 7;

    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) / 8388608.0f - 1;
    }
    return x;
}

static size_t conversions_under(const struct rule *rule) {
    struct fixture f = {0};
    struct plan *p;
    size_t n;

    open_net(&f, NET, NULL);
    put_rule(&f, rule);
    p = plan_of(&f, 1);
    n = count_conversions(p);
    plan_unref(p);
    close_net(&f);
    return n;
}

static void test_an_operator_is_left_in_its_layout_when_conversions_are_dear(void **unused) {
    (void)unused;
    /* the one of the input, which is plain */
    assert_int_equal(conversions_under(&(struct rule){"Sub", LAYOUT_NHWC, 4000}), 1);
}

/* Each Sub asks for its inputs in plain order and the Conv behind the first for channels last again: of x
 * once, which both Conv and Sub read. */
static void test_conversions_are_put_where_they_pay(void **unused) {
    (void)unused;
    assert_int_equal(conversions_under(&(struct rule){"Sub", LAYOUT_NHWC, 5}), 5);
}

static void test_equal_times_leave_the_default(void **unused) {
    (void)unused;
    assert_int_equal(conversions_under(&(struct rule){"Sub", LAYOUT_COUNT, 0}), 1);
}

static void test_answers_do_not_depend_on_the_layouts_chosen(void **unused) {
    float *x = noise(16 * 8 * 8), y[2][10];

    (void)unused;
    for (int i = 0; i < 2; i++) {
        struct rule rule = {"Sub", i ? LAYOUT_NHWC : LAYOUT_PLAIN, 1};
        struct fixture f = {0};
        struct plan *p;

        open_net(&f, NET, NULL);
        put_rule(&f, &rule);
        p = plan_of(&f, 1);
        run(p, x, 1, &f.input, y[i]);
        plan_unref(p);
        close_net(&f);
    }
    for (int k = 0; k < 10; k++)
        assert_float_equal(y[0][k], y[1][k], 1e-5f * (1 + fabsf(y[0][k])));
    free(x);
}

static int tune_all(struct net *n, bool *ret_changed) {
    struct tune_limits limits = {.seconds = 20};
    struct error err = {0};
    int r = net_tune(n, &limits, ret_changed, &err);

    if (r < 0)
        fail_msg("%s", err.text);
    return r;
}

static void test_tuning_ends_and_says_so(void **unused) {
    struct fixture f = {0};
    bool changed;

    (void)unused;
    open_net(&f, NET, NULL);
    assert_int_equal(tune_all(f.net, &changed), 0); /* nothing planned: nothing to tune */
    assert_int_equal(tuner_count(f.tuner), 0);
    plan_unref(plan_of(&f, 1));
    assert_int_equal(tune_all(f.net, &changed), 0);
    assert_true(tuner_count(f.tuner) > 0);
    assert_int_equal(tune_all(f.net, &changed), 0);
    assert_false(changed);
    close_net(&f);
}

/* Whatever was chosen: by bits, a batch is its images. */
static void test_batches_answer_as_single_images_after_tuning(void **unused) {
    const size_t image = 16 * 8 * 8;
    float *x = noise(8 * image), one[10], all[80];
    struct fixture f = {0};
    struct plan *p;
    bool changed;

    (void)unused;
    open_net(&f, NET, NULL);
    put_rule(&f, &(struct rule){"Sub", LAYOUT_NHWC, 1});
    plan_unref(plan_of(&f, 1));
    tune_all(f.net, &changed);
    p = plan_of(&f, 8);
    assert_int_equal(count_conversions(p), 5);
    run(p, x, 8, &f.input, all);
    plan_unref(p);
    p = plan_of(&f, 1);
    for (size_t i = 0; i < 8; i++) {
        run(p, x + i * image, 1, &f.input, one);
        assert_memory_equal(one, all + i * 10, sizeof(one));
    }
    plan_unref(p);
    free(x);
    close_net(&f);
}

static bool stop_at_once(void *n_asked) {
    ++*(int *)n_asked;
    return true;
}

static void test_a_request_stops_the_measuring(void **unused) {
    struct fixture f = {0};
    struct error err = {0};
    int n_asked = 0;
    struct tune_limits limits = {.seconds = 20, .should_stop = stop_at_once, .ctx = &n_asked};
    bool changed = true;

    (void)unused;
    open_net(&f, NET, NULL);
    plan_unref(plan_of(&f, 1));
    assert_int_equal(net_tune(f.net, &limits, &changed, &err), 1);
    assert_false(changed);
    assert_true(n_asked > 0);
    assert_int_equal(tuner_count(f.tuner), 0);
    assert_int_equal(tune_all(f.net, &changed), 0);
    close_net(&f);
}

struct client {
    const struct fixture *f;
    const float *x;
    atomic_bool is_over;
};

static void *ask(void *arg) {
    struct client *c = arg;
    float y[20], first[20];

    for (int i = 0; !atomic_load(&c->is_over) || i == 0; i++) {
        struct plan *p = plan_of(c->f, 1 + i % 2);

        run(p, c->x, 1 + i % 2, &c->f->input, y);
        if (i == 0)
            memcpy(first, y, sizeof(first));
        for (int k = 0; k < 10; k++)
            assert_float_equal(y[k], first[k], 1e-5f * (1 + fabsf(first[k])));
        plan_unref(p);
    }
    return NULL;
}

/* The swap under the feet of those who run: plans in use stay whole, all is freed in the end (sanitizers). */
static void test_plans_are_swapped_while_they_run(void **unused) {
    float *x = noise(2 * 16 * 8 * 8);
    struct fixture f = {0};
    struct client c = {.f = &f, .x = x};
    pthread_t thread[2];

    (void)unused;
    open_net(&f, NET, NULL);
    plan_unref(plan_of(&f, 1));
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, ask, &c), 0);
    for (int i = 0; i < 20; i++) {
        struct net_packs *packs = net_packs_new(NULL);
        struct net_build b = {0};
        struct error err = {0};
        struct plan *p = NULL;

        assert_non_null(packs);
        pthread_mutex_lock(&f.net->building);
        assert_int_equal(net_begin_build(f.net, packs->cache, &b, &err), 0);
        assert_int_equal(net_build_plan(f.net, &b, NULL, &f.input, 1, &p, &err), 0);
        net_swap(f.net, p, packs);
        pthread_mutex_unlock(&f.net->building);
        plan_unref(p);
    }
    atomic_store(&c.is_over, true);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    close_net(&f);
    free(x);
}

static char *temp_path(char buf[static 64]) {
    int fd;

    strcpy(buf, "/tmp/bonsai-tune-XXXXXX");
    fd = mkstemp(buf);
    assert_true(fd >= 0);
    close(fd);
    return buf;
}

static void write_text(const char *path, const char *text, size_t size) {
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    fclose(f);
}

static char *read_text(const char *path, size_t *ret_size) {
    FILE *f = fopen(path, "re");
    char *text = calloc(1, 1 << 16);

    assert_non_null(f);
    assert_non_null(text);
    *ret_size = fread(text, 1, (1 << 16) - 1, f);
    fclose(f);
    return text;
}

static void test_times_are_there_again_after_a_save(void **unused) {
    struct timing a = {.n_rounds = 1, .us = {0.125f}}, b = {.n_rounds = 2, .us = {3.3f, INFINITY}}, got;
    struct tuner *t = NULL;
    struct error err = {0};
    char path[64];

    (void)unused;
    temp_path(path);
    unlink(path);
    assert_int_equal(tuner_new(path, &t, &err), 0);
    assert_int_equal(err.err, 0); /* no file is no fault */
    assert_int_equal(tuner_put(t, "a kernel: 1x2x3", &a), 0);
    assert_int_equal(tuner_put(t, "another", &b), 0);
    assert_int_equal(tuner_save(t, &err), 0);
    tuner_free(t);
    assert_int_equal(tuner_new(path, &t, &err), 0);
    assert_int_equal(err.err, 0);
    got = tuner_get(t, "a kernel: 1x2x3");
    assert_memory_equal(&got, &a, sizeof(a));
    got = tuner_get(t, "another");
    assert_memory_equal(&got, &b, sizeof(b));
    assert_int_equal(tuner_get(t, "a third").n_rounds, 0);
    tuner_free(t);
    unlink(path);
}

/* A good file, then with every byte changed and cut at every length: never a crash, never a time that is not
 * a time. */
static void test_a_damaged_file_does_no_harm(void **unused) {
    struct timing timing = {.n_rounds = 2, .us = {12.5f, 13}};
    struct tuner *t = NULL;
    struct error err = {0};
    size_t size, n_said = 0;
    char path[64], *text;

    (void)unused;
    assert_int_equal(tuner_new(temp_path(path), &t, NULL), 0);
    assert_int_equal(tuner_put(t, "one", &timing), 0);
    assert_int_equal(tuner_put(t, "two", &timing), 0);
    assert_int_equal(tuner_save(t, &err), 0);
    tuner_free(t);
    text = read_text(path, &size);
    for (size_t i = 0; i < 2 * size; i++) {
        struct error why = {0};
        struct timing got;
        char old = text[i % size];

        text[i % size] = (char)(old ^ 1);
        write_text(path, text, i < size ? size : i - size);
        text[i % size] = old;
        assert_int_equal(tuner_new(path, &t, &why), 0);
        got = tuner_get(t, "one");
        assert_true(got.n_rounds >= 0 && got.n_rounds <= TUNE_ROUNDS);
        assert_true(got.us[0] >= 0 && got.us[1] >= 0);
        n_said += why.err != 0;
        tuner_free(t);
    }
    assert_true(n_said > size / 2);
    free(text);
    unlink(path);
}

/* Names of attributes come from a stranger's file. */
static void test_a_name_with_a_line_break_writes_no_line(void **unused) {
    static const struct rule rule = {.slow_op = "none"};
    struct fixture f = {0};
    struct tuner *again = NULL;
    struct net_text t = net_text_read("Conv x=1x16x8x8 w=16x16x3x3 pads=1,1,1,1");
    struct net_options o = {0};
    struct error err = {0};
    char path[64];
    size_t n;

    (void)unused;
    assert_int_equal(graph_set_attr_int(t.graph, &t.graph->nodes[0], "a\nt 2 0 0 b", 1), 0);
    assert_int_equal(tuner_new(temp_path(path), &f.tuner, NULL), 0);
    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    o.tuner = f.tuner;
    f.input = t.input[0];
    assert_int_equal(net_new(t.graph, &o, &f.net, &err), 0);
    put_rule(&f, &rule);
    assert_int_equal(tuner_save(f.tuner, &err), 0);
    n = tuner_count(f.tuner);
    assert_true(n > 0);
    assert_int_equal(tuner_new(path, &again, &err), 0);
    assert_int_equal(err.err, 0);
    assert_int_equal(tuner_count(again), n);
    tuner_free(again);
    close_net(&f);
    unlink(path);
}

static void test_times_of_another_processor_are_not_taken(void **unused) {
    static const char text[] = "bonsaid timings 1\ncpu Z80\nkernels 0000000000000000\nt 2 1 1 key\n";
    struct tuner *t = NULL;
    struct error why = {0};
    char path[64];

    (void)unused;
    write_text(temp_path(path), text, sizeof(text) - 1);
    assert_int_equal(tuner_new(path, &t, &why), 0);
    assert_non_null(strstr(why.text, "another processor"));
    assert_int_equal(tuner_count(t), 0);
    tuner_free(t);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_operator_is_left_in_its_layout_when_conversions_are_dear),
        cmocka_unit_test(test_conversions_are_put_where_they_pay),
        cmocka_unit_test(test_equal_times_leave_the_default),
        cmocka_unit_test(test_answers_do_not_depend_on_the_layouts_chosen),
        cmocka_unit_test(test_tuning_ends_and_says_so),
        cmocka_unit_test(test_batches_answer_as_single_images_after_tuning),
        cmocka_unit_test(test_a_request_stops_the_measuring),
        cmocka_unit_test(test_plans_are_swapped_while_they_run),
        cmocka_unit_test(test_times_are_there_again_after_a_save),
        cmocka_unit_test(test_a_damaged_file_does_no_harm),
        cmocka_unit_test(test_a_name_with_a_line_break_writes_no_line),
        cmocka_unit_test(test_times_of_another_processor_are_not_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
