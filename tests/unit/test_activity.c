/* A worker that gives way: a process with two threads that count, stopped and let go by the rule of
 * activity.h. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/activity.h"
#include "tests/unit/cmocka_all.h"

#define PATIENCE_S 30
#define CORES      2

struct fixture {
    atomic_ulong *beat; /* shared with the worker */
    pid_t worker;
    struct activity *activity;
};

static void *count(void *ctx) {
    atomic_ulong *beat = ctx;

    for (;;)
        atomic_fetch_add(beat, 1);
    return NULL;
}

/* Before any thread is made: of a process with threads only one is left in the copy. */
static pid_t start_worker(atomic_ulong *beat) {
    pid_t pid = fork();
    pthread_t other;

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (pthread_create(&other, NULL, count, beat) == 0)
        count(beat);
    _exit(1);
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};

    assert_non_null(f);
    f->beat = mmap(NULL, sizeof(*f->beat), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(f->beat != MAP_FAILED);
    f->worker = start_worker(f->beat);
    assert_true(f->worker > 0);
    if (activity_new(CORES, 1, &f->activity, &err) < 0)
        fail_msg("%s", err.text);
    activity_attach(f->activity, f->worker);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;

    activity_free(f->activity);
    kill(f->worker, SIGKILL);
    waitpid(f->worker, NULL, 0);
    munmap(f->beat, sizeof(*f->beat));
    free(f);
    return 0;
}

static void rest_ms(long ms) {
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&pause, NULL);
}

/* R: runs; T: stopped. */
static char process_state(pid_t pid) {
    char path[64], state = '?';
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d %*s %c", &state), 1);
    fclose(f);
    return state;
}

static bool becomes(const struct fixture *f, bool is_stopped) {
    double end = clock_now_s() + PATIENCE_S;

    while ((process_state(f->worker) == 'T') != is_stopped) {
        if (clock_now_s() > end)
            return false;
        rest_ms(1);
    }
    return true;
}

static bool moves(const struct fixture *f) {
    unsigned long was = atomic_load(f->beat);
    double end = clock_now_s() + PATIENCE_S;

    while (atomic_load(f->beat) == was && clock_now_s() < end)
        rest_ms(1);
    return atomic_load(f->beat) != was;
}

static unsigned threads(const struct fixture *f) {
    const struct activity_page *page = NULL;
    struct error err = {0};
    unsigned n;

    if (activity_map(dup(activity_fd(f->activity)), &page, &err) < 0)
        fail_msg("%s", err.text);
    n = atomic_load(&page->threads);
    munmap((void *)(uintptr_t)page, sizeof(*page));
    return n;
}

static bool threads_become(const struct fixture *f, unsigned n) {
    double end = clock_now_s() + PATIENCE_S;

    while (threads(f) != n && clock_now_s() < end)
        rest_ms(1);
    return threads(f) == n;
}

static void test_no_core_left_stops_the_worker(void **state) {
    struct fixture *f = *state;
    unsigned long was;

    assert_true(moves(f));
    activity_begin(f->activity);
    activity_begin(f->activity);
    assert_true(becomes(f, true));
    rest_ms(20); /* of the other thread nothing is known yet */
    was = atomic_load(f->beat);
    rest_ms(20);
    assert_int_equal(atomic_load(f->beat), was);
    activity_end(f->activity, 2);
    assert_true(becomes(f, false));
    assert_true(moves(f));
}

static void test_a_free_core_is_for_one_thread(void **state) {
    struct fixture *f = *state;

    assert_true(threads_become(f, ACTIVITY_ALL_THREADS));
    activity_begin(f->activity); /* all of its threads run: it is stopped for a moment */
    assert_int_equal(threads(f), 1);
    assert_true(activity_pauses(f->activity) == 1);
    assert_true(becomes(f, false));
    assert_true(moves(f));
    rest_ms(2 * ACTIVITY_QUIET_MS);
    assert_int_equal(threads(f), 1);
    assert_true(activity_pauses(f->activity) == 1);
    activity_end(f->activity, 1);
    assert_true(threads_become(f, ACTIVITY_ALL_THREADS));
}

static void test_the_worker_moves_under_a_load_without_end(void **state) {
    struct fixture *f = *state;
    double begin = clock_now_s();
    unsigned long was;

    for (int i = 0; i < 5; i++)
        activity_begin(f->activity);
    assert_true(becomes(f, true));
    for (int i = 0; i < 3; i++) {
        was = atomic_load(f->beat);
        assert_true(moves(f));
        assert_true(becomes(f, true)); /* again */
        assert_true(atomic_load(f->beat) > was);
    }
    assert_true(clock_now_s() - begin > 2 * (ACTIVITY_PERIOD_MS - ACTIVITY_SHARE_MS) / 1e3);
    activity_end(f->activity, 5);
}

static void test_a_worker_that_comes_under_load_is_stopped_and_let_go_at_the_end(void **state) {
    struct fixture *f = *state;

    activity_detach(f->activity);
    activity_begin(f->activity);
    activity_begin(f->activity);
    assert_true(moves(f));
    activity_attach(f->activity, f->worker);
    assert_true(becomes(f, true));
    activity_detach(f->activity);
    assert_true(becomes(f, false));
    rest_ms(20);
    assert_true(process_state(f->worker) != 'T');
    activity_end(f->activity, 2);
}

static void test_the_page_cannot_be_written_or_cut_by_the_worker(void **state) {
    struct fixture *f = *state;
    char path[64];
    int fd;

    assert_true(mmap(NULL, 4, PROT_READ | PROT_WRITE, MAP_SHARED, activity_fd(f->activity), 0) == MAP_FAILED);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", activity_fd(f->activity));
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        assert_true(mmap(NULL, 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
        assert_true(ftruncate(fd, 0) < 0);
        close(fd);
    }
}

struct client {
    struct fixture *f;
    unsigned seed;
};

static void *ask(void *ctx) {
    struct client *c = ctx;

    for (int i = 0; i < 300; i++) {
        activity_begin(c->f->activity);
        c->seed = c->seed * 1664525u + 1013904223u;
        if (c->seed >> 28 < 4)
            rest_ms(1);
        activity_end(c->f->activity, 1);
        if (c->seed >> 24 < 4)
            rest_ms(5);
    }
    return NULL;
}

static void test_many_requests_at_once_leave_it_running(void **state) {
    struct fixture *f = *state;
    struct client clients[4];
    pthread_t thread[4];

    for (unsigned i = 0; i < 4; i++) {
        clients[i] = (struct client){f, i};
        assert_int_equal(pthread_create(&thread[i], NULL, ask, &clients[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    assert_true(becomes(f, false));
    assert_true(threads_become(f, ACTIVITY_ALL_THREADS));
    assert_true(moves(f));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_core_left_stops_the_worker, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_free_core_is_for_one_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_worker_moves_under_a_load_without_end, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_worker_that_comes_under_load_is_stopped_and_let_go_at_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_the_page_cannot_be_written_or_cut_by_the_worker, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_requests_at_once_leave_it_running, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
