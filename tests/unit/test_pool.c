/* Threads that come and go while the work goes on; run under TSan too. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "base/clock.h"
#include "engine/pool.h"
#include "tests/unit/cmocka_all.h"

#define PATIENCE_S 20

struct team {
    struct pool *pool;
    atomic_uint allowed;
    atomic_uint n_run, n_left, n_on_caller;
    pthread_t caller;
};

static unsigned allowed(void *ctx) {
    struct team *t = ctx;

    return atomic_load(&t->allowed);
}

static void start(struct team *t, unsigned threads, unsigned n) {
    t->caller = pthread_self();
    atomic_store(&t->allowed, n);
    assert_int_equal(pool_new(threads, &t->pool, NULL), 0);
    pool_follow(t->pool, allowed, t);
}

static bool is_caller(const struct team *t) {
    return pthread_equal(t->caller, pthread_self());
}

static bool wait_for(atomic_uint *n, unsigned least) {
    struct timespec pause = {0, 100000};
    double end = clock_now_s() + PATIENCE_S;

    while (atomic_load(n) < least && clock_now_s() < end)
        nanosleep(&pause, NULL);
    return atomic_load(n) >= least;
}

static void note_thread(void *ctx, unsigned part) {
    struct team *t = ctx;

    (void)part;
    atomic_fetch_add(&t->n_run, 1);
    atomic_fetch_add(&t->n_on_caller, is_caller(t));
}

static void test_one_allowed_thread_is_the_caller(void **state) {
    struct team t = {0};

    (void)state;
    start(&t, 4, 1);
    for (int i = 0; i < 50; i++)
        pool_run(t.pool, 20, note_thread, &t);
    assert_int_equal(atomic_load(&t.n_run), 1000);
    assert_int_equal(atomic_load(&t.n_on_caller), 1000);
    pool_free(t.pool);
}

/* The caller's part ends only when another thread has done the other one. */
static void call_another(void *ctx, unsigned part) {
    struct team *t = ctx;

    note_thread(ctx, part);
    if (!is_caller(t))
        return;
    atomic_store(&t->allowed, 2);
    assert_false(pool_should_leave(t->pool));
    assert_true(wait_for(&t->n_run, 2));
}

static void test_a_thread_joins_in_the_middle_of_the_work(void **state) {
    struct team t = {0};

    (void)state;
    start(&t, 3, 1);
    pool_run(t.pool, 2, call_another, &t);
    assert_int_equal(atomic_load(&t.n_on_caller), 1);
    pool_free(t.pool);
}

/* Both threads are at work when one of them becomes too many. */
static void leave(void *ctx, unsigned part) {
    struct team *t = ctx;

    if (atomic_load(&t->n_left)) { /* the third part */
        note_thread(ctx, part);
        return;
    }
    note_thread(ctx, part);
    assert_true(wait_for(&t->n_run, 2));
    if (is_caller(t)) {
        atomic_store(&t->allowed, 1);
        assert_false(pool_should_leave(t->pool));
        assert_true(wait_for(&t->n_left, 1));
        return;
    }
    while (!pool_should_leave(t->pool))
        ;
    atomic_fetch_add(&t->n_left, 1);
}

static void test_a_thread_too_many_leaves_the_rest_to_the_caller(void **state) {
    struct team t = {0};

    (void)state;
    start(&t, 2, 2);
    pool_run(t.pool, 6, leave, &t);
    assert_int_equal(atomic_load(&t.n_run), 6);
    assert_int_equal(atomic_load(&t.n_on_caller), 5);
    pool_free(t.pool);
}

static unsigned fickle(void *ctx) {
    struct team *t = ctx;

    return 1 + atomic_fetch_add(&t->allowed, 1) * 2654435761u % 4;
}

static void test_every_part_runs_once_however_often_it_changes(void **state) {
    struct team t = {0};

    (void)state;
    start(&t, 4, 4);
    pool_follow(t.pool, fickle, &t);
    for (int i = 0; i < 500; i++)
        pool_run(t.pool, 40, note_thread, &t);
    assert_int_equal(atomic_load(&t.n_run), 500 * 40);
    pool_free(t.pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_allowed_thread_is_the_caller),
        cmocka_unit_test(test_a_thread_joins_in_the_middle_of_the_work),
        cmocka_unit_test(test_a_thread_too_many_leaves_the_rest_to_the_caller),
        cmocka_unit_test(test_every_part_runs_once_however_often_it_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
