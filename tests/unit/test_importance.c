/* Sums over gradients: what has no influence counts nothing, what they promise, and the same from any
 * threads. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/feed.h"
#include "compress/importance.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"
#include "tests/unit/rows_pack.h"

#define HIDDEN "Flatten x=1x1x4x4; Gemm $ w=16x8 b=8; Tanh $; Gemm $ w2=8x3 b2=3"

struct sums {
    struct graph *g;
    struct importance i;
};

static void sums_done(struct sums *s) {
    importance_done(&s->i);
    graph_free(s->g);
}

/* Of both matrices of HIDDEN, whose hidden unit 5 nobody listens to. */
static struct sums sums_of(bool has_labels, unsigned threads, uint64_t seed) {
    _cleanup_(pack_freep) struct pack *p = rows_pack(has_labels);
    struct feed_source source = {.pack = p};
    struct samples samples = {.source = &source};
    struct progress progress = {.threads = threads};
    struct work work = {.samples = &samples, .progress = &progress, .seed = seed};
    struct sums s = {.g = net_text_read(HIDDEN).graph};
    int values[2] = {s.g->nodes[1].in[1], s.g->nodes[3].in[1]};
    float *w2 = s.g->values[values[1]].init->data;
    struct error err = {0};

    memset(w2 + 5 * 3, 0, 3 * sizeof(*w2));
    if (importance_sums(&work, s.g, values, 2, 128, &s.i, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(s.i.n, 2);
    return s;
}

static void test_weights_that_nobody_listens_to_count_nothing(void **state) {
    (void)state;
    for (int labels = 0; labels < 2; labels++) {
        _cleanup_(sums_done) struct sums s = sums_of(labels, 1, 7);

        assert_int_equal(s.i.of[0].n, 16 * 8);
        for (int64_t k = 0; k < s.i.of[0].n; k++) {
            assert_int_equal(s.i.of[0].change[k] == 0, k % 8 == 5);
            assert_int_equal(s.i.of[0].fisher[k] == 0, k % 8 == 5);
        }
        for (int64_t k = 0; k < s.i.of[1].n;
             k++) { /* a weight of 0 changes nothing by going, but may be wanted */
            assert_int_equal(s.i.of[1].change[k] == 0, k / 3 == 5);
            assert_true(s.i.of[1].fisher[k] > 0);
        }
    }
}

struct seen {
    int64_t minibatches, n;
    double change[24], fisher[24];
    int value;
};

static void see(void *ctx, int64_t minibatch, int value, const float *w, const float *g, int64_t n) {
    struct seen *s = ctx;

    if (value != s->value)
        return;
    assert_int_equal(minibatch, s->minibatches++);
    s->n = n;
    for (int64_t k = 0; k < n; k++) {
        s->change[k] += fabs((double)w[k] * (double)g[k]);
        s->fisher[k] += (double)g[k] * (double)g[k];
    }
}

static void test_sums_are_means_over_the_minibatches_that_are_shown(void **state) {
    _cleanup_(pack_freep) struct pack *p = rows_pack(true);
    _cleanup_(sums_done) struct sums s = sums_of(true, 1, 7);
    struct feed_source source = {.pack = p};
    struct samples samples = {.source = &source};
    struct work work = {.samples = &samples, .seed = 7};
    struct seen seen = {.value = s.i.of[1].value};
    int64_t n;

    (void)state;
    assert_int_equal(importance_run(&work, s.g, 128, see, &seen, &n, NULL), 0);
    assert_int_equal(n, 8);
    assert_int_equal(seen.minibatches, 8);
    assert_int_equal(seen.n, 24);
    for (int k = 0; k < 24; k++) {
        assert_true(fabs(seen.change[k] / 8 - (double)s.i.of[1].change[k]) < 1e-6);
        assert_true(fabs(seen.fisher[k] / 8 - (double)s.i.of[1].fisher[k]) < 1e-6);
    }
}

static void test_threads_do_not_show_and_the_seed_draws_labels(void **state) {
    for (int labels = 0; labels < 2; labels++) {
        _cleanup_(sums_done) struct sums one = sums_of(labels, 1, 7), three = sums_of(labels, 3, 7),
                                         other = sums_of(labels, 1, 8);

        (void)state;
        for (int k = 0; k < 2; k++) {
            size_t size = (size_t)one.i.of[k].n * sizeof(float);

            assert_memory_equal(one.i.of[k].change, three.i.of[k].change, size);
            assert_memory_equal(one.i.of[k].fisher, three.i.of[k].fisher, size);
            assert_memory_not_equal(one.i.of[k].fisher, other.i.of[k].fisher, size);
        }
    }
}

static void test_without_pictures_it_says_what_it_needs(void **state) {
    struct work work = {0};
    struct graph *g = net_text_read(HIDDEN).graph;
    struct error err = {0};

    (void)state;
    assert_int_equal(importance_run(&work, g, 128, see, NULL, NULL, &err), -EBADMSG);
    assert_string_equal(err.code, "data_required");
    graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_that_nobody_listens_to_count_nothing),
        cmocka_unit_test(test_sums_are_means_over_the_minibatches_that_are_shown),
        cmocka_unit_test(test_threads_do_not_show_and_the_seed_draws_labels),
        cmocka_unit_test(test_without_pictures_it_says_what_it_needs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
