/* Slots, queues and what is in memory, with many threads at once; run under TSan too. */
#include "base/clock.h"
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <semaphore.h>

#include "daemon/residency.h"
#include "daemon/scheduler.h"
#include "daemon/tuning.h"
#include "tests/unit/model_file.h"
#include "tests/unit/net_text.h"
#include "tests/unit/state_dir.h"

#define IN_SIZE  64
#define OUT_SIZE 4

struct fixture {
    char dir[64];
    struct store *store;
    struct residency *residency;
    struct scheduler *scheduler;
    struct tuner *tuner;
};

/* A net with a free first dimension: x[n][1][8][8] → y[n][4]. Sub runs in several layouts: there is something
 * to tune. */
static uint8_t *net_bytes(size_t *ret_size) {
    struct net_text t = net_text_read(
        "Conv x=1x1x8x8 w=4x1x3x3 b=4 pads=1,1,1,1; Relu $; Sub $ s:0.5; GlobalAveragePool $; Flatten $");
    struct error err = {0};
    uint8_t *p;

    t.graph->values[t.graph->inputs[0]].shape.dim[0] = -1;
    p = written_bytes(t.graph, ret_size, &err);
    if (!p)
        fail_msg("%s", err.text);
    graph_free(t.graph);
    return p;
}

/* As the daemon does: every unloading in these tests also takes the slots' arenas away. */
static void trim(void *scheduler) {
    scheduler_trim(scheduler);
}

static int setup_with(void **state, uint64_t budget) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct scheduler_options o = {.slots = 2, .threads_per_slot = 1, .queue_limit = 4096};
    struct residency_options r = {.budget = budget, .slots = o.slots, .threads = 1};
    size_t size = 0;
    uint8_t *bytes = net_bytes(&size);
    bool is_new;

    temp_dir_make(f->dir);
    f->store = state_dir_open(f->dir);
    assert_int_equal(state_dir_model(f->store, "m", bytes, size, &is_new, NULL), 0);
    free(bytes);
    assert_int_equal(tuner_new(NULL, &f->tuner, NULL), 0);
    r.tuner = f->tuner;
    assert_int_equal(residency_new(f->store, &r, &f->residency, NULL), 0);
    assert_int_equal(scheduler_new(&o, &f->scheduler, NULL), 0);
    residency_on_unload(f->residency, trim, f->scheduler);
    *state = f;
    return 0;
}

static int setup(void **state) {
    return setup_with(state, 1u << 30);
}

static int teardown(void **state) {
    struct fixture *f = *state;

    scheduler_free(f->scheduler);
    residency_free(f->residency);
    tuner_free(f->tuner);
    store_free(f->store);
    temp_dir_remove(f->dir);
    free(f);
    return 0;
}

static struct resident *acquire(struct fixture *f) {
    struct resident *r = NULL;
    struct error err = {0};

    if (residency_acquire(f->residency, "m/1", true, &r, &err) < 0)
        fail_msg("%s", err.text);
    return r;
}

struct request {
    struct sched_work work; /* first: a request is its work */
    float in[8 * IN_SIZE], out[8 * OUT_SIZE];
    int64_t rows;
    unsigned seed;
    int error;
    const char *code;
    atomic_int n_prepared, n_finished;
    sem_t *done; /* posted by finish */
    int *order;  /* where finish notes its number, may be NULL */
    int number;
    atomic_int *at;
};

static int prepare(struct sched_work *w, struct tensor *in, struct error *err) {
    struct request *r = (struct request *)w;

    (void)err;
    r->n_prepared++;
    net_text_fill(r->in, r->rows * IN_SIZE, r->seed);
    in[0] = (struct tensor){.dtype = DT_F32, .shape = {.rank = 4, .dim = {r->rows, 1, 8, 8}}, .data = r->in};
    return 0;
}

static void finish(struct sched_work *w, const struct tensor *out, size_t n_out, const struct error *err) {
    struct request *r = (struct request *)w;

    r->error = err ? err->err : 0;
    r->code = err ? err->code : NULL;
    if (n_out)
        memcpy(r->out, out[0].data, (size_t)r->rows * OUT_SIZE * sizeof(float));
    if (r->order)
        r->order[(*r->at)++] = r->number;
    r->n_finished++;
    sem_post(r->done);
}

static void request_init(struct request *r, struct resident *x, int64_t rows, unsigned seed, sem_t *done) {
    *r = (struct request){.work = {.resident = x, .max_batch = 8, .prepare = prepare, .finish = finish},
        .rows = rows,
        .seed = seed,
        .done = done};
}

/* A task that keeps a slot until it is let go. */
struct plug {
    struct sched_work work;
    sem_t held, go;
};

static void plug_task(struct sched_work *w, struct slot *slot) {
    struct plug *p = (struct plug *)w;

    (void)slot;
    sem_post(&p->held);
    sem_wait(&p->go);
}

static void never_ran(struct sched_work *w, const struct tensor *out, size_t n, const struct error *err) {
    (void)w;
    (void)out;
    (void)n;
    (void)err;
}

static void plug_in(struct fixture *f, struct plug p[static 2]) {
    for (int i = 0; i < 2; i++) {
        p[i] = (struct plug){.work = {.task = plug_task, .finish = never_ran}};
        sem_init(&p[i].held, 0, 0);
        sem_init(&p[i].go, 0, 0);
        assert_int_equal(scheduler_submit(f->scheduler, &p[i].work, NULL), 0);
    }
    for (int i = 0; i < 2; i++)
        sem_wait(&p[i].held);
}

static void pull_out(struct plug p[static 2]) {
    for (int i = 0; i < 2; i++)
        sem_post(&p[i].go);
}

/* What the engine alone gives. */
static void expected(struct fixture *f, int64_t rows, unsigned seed, float *ret) {
    struct resident *x = acquire(f);
    struct shape shape = {.rank = 4, .dim = {rows, 1, 8, 8}};
    float in[8 * IN_SIZE];
    struct tensor t = {.dtype = DT_F32, .shape = shape, .data = in}, out;
    struct plan *plan = NULL;
    struct arena arena = {0};

    net_text_fill(in, rows * IN_SIZE, seed);
    assert_int_equal(net_plan(x->net, &shape, 1, &plan, NULL), 0);
    assert_int_equal(arena_reserve(&arena, plan_arena_size(plan), NULL), 0);
    out = *plan_output(plan, 0);
    out.data = ret;
    plan_run(plan, &arena, &t, &out, NULL, NULL);
    plan_unref(plan);
    arena_done(&arena);
    resident_unref(x);
}

static void test_batches_give_what_each_request_alone_gives(void **state) {
    enum { N = 64 };
    struct fixture *f = *state;
    struct request *r = calloc(N, sizeof(*r));
    struct plug plug[2];
    unsigned largest = 0;
    sem_t done;

    sem_init(&done, 0, 0);
    plug_in(f, plug);
    for (unsigned i = 0; i < N; i++) {
        request_init(&r[i], acquire(f), 1 + i % 3, i, &done);
        assert_int_equal(scheduler_submit(f->scheduler, &r[i].work, NULL), 0);
    }
    pull_out(plug);
    for (int i = 0; i < N; i++)
        sem_wait(&done);
    for (unsigned i = 0; i < N; i++) {
        float want[8 * OUT_SIZE];

        assert_int_equal(r[i].error, 0);
        expected(f, r[i].rows, i, want);
        for (int64_t k = 0; k < r[i].rows * OUT_SIZE; k++)
            assert_true(fabsf(r[i].out[k] - want[k]) <= 1e-5f * (1 + fabsf(want[k])));
        largest = r[i].work.timing.batch > largest ? r[i].work.timing.batch : largest;
    }
    assert_true(largest > 3); /* they did run together */
    assert_true(largest <= 8);
    free(r);
}

static void test_a_deadline_in_the_queue_ends_a_request_unread(void **state) {
    struct fixture *f = *state;
    struct request r;
    struct plug plug[2];
    sem_t done;

    sem_init(&done, 0, 0);
    plug_in(f, plug);
    request_init(&r, acquire(f), 1, 1, &done);
    r.work.deadline_ns = clock_now_ns() + 1000000;
    assert_int_equal(scheduler_submit(f->scheduler, &r.work, NULL), 0);
    sem_wait(&done); /* while both slots are held */
    assert_int_equal(r.error, -ETIMEDOUT);
    assert_string_equal(r.code, "deadline");
    assert_int_equal(r.n_prepared, 0);
    pull_out(plug);
}

static void test_a_cancelled_request_never_computes(void **state) {
    struct fixture *f = *state;
    struct request r;
    struct plug plug[2];
    sem_t done;

    sem_init(&done, 0, 0);
    plug_in(f, plug);
    request_init(&r, acquire(f), 1, 1, &done);
    assert_int_equal(scheduler_submit(f->scheduler, &r.work, NULL), 0);
    assert_int_equal(scheduler_waiting_for(f->scheduler, "m/1"), 1);
    scheduler_cancel(f->scheduler, &r.work);
    assert_int_equal(r.n_finished, 1);
    assert_int_equal(r.n_prepared, 0);
    assert_int_equal(r.error, -ECANCELED);
    assert_int_equal(scheduler_waiting(f->scheduler), 0);
    pull_out(plug);
}

static void test_a_full_queue_refuses_and_keeps_nothing(void **state) {
    struct fixture *f = *state;
    struct request r[4];
    struct plug plug[2];
    struct error err = {0};
    sem_t done;

    sem_init(&done, 0, 0);
    plug_in(f, plug);
    for (unsigned i = 0; i < 4; i++) {
        request_init(&r[i], acquire(f), 1, i, &done);
        r[i].work.queue_limit = 3;
        assert_int_equal(scheduler_submit(f->scheduler, &r[i].work, &err), i < 3 ? 0 : -EAGAIN);
    }
    assert_string_equal(err.code, "queue_full");
    resident_unref(r[3].work.resident);
    pull_out(plug);
    for (int i = 0; i < 3; i++)
        sem_wait(&done);
    assert_int_equal(r[3].n_finished, 0);
}

static void test_higher_priority_goes_first(void **state) {
    static const unsigned priority[] = {0, 90, 1, 0, 2};
    static const int want[] = {2, 4, 0, 3, 1};
    struct fixture *f = *state;
    struct request r[5];
    struct plug plug[2];
    int order[5];
    atomic_int at = 0;
    sem_t done;

    sem_init(&done, 0, 0);
    plug_in(f, plug);
    for (int i = 0; i < 5; i++) {
        request_init(&r[i], acquire(f), 1, 1, &done);
        r[i].work.max_batch = 0;
        r[i].work.priority = priority[i];
        r[i].order = order;
        r[i].number = i;
        r[i].at = &at;
        assert_int_equal(scheduler_submit(f->scheduler, &r[i].work, NULL), 0);
    }
    sem_post(&plug[0].go); /* one slot only */
    for (int i = 0; i < 5; i++)
        sem_wait(&done);
    sem_post(&plug[1].go);
    assert_memory_equal(order, want, sizeof(want));
}

static void test_draining_refuses_what_comes_and_ends_what_waits(void **state) {
    struct fixture *f = *state;
    struct request r[2];
    struct error err = {0};
    struct plug plug[2];
    sem_t done;

    sem_init(&done, 0, 0);
    plug_in(f, plug);
    request_init(&r[0], acquire(f), 1, 1, &done);
    assert_int_equal(scheduler_submit(f->scheduler, &r[0].work, NULL), 0);
    assert_false(scheduler_drain(f->scheduler, 1));
    request_init(&r[1], acquire(f), 1, 1, &done);
    assert_int_equal(scheduler_submit(f->scheduler, &r[1].work, &err), -ESHUTDOWN);
    resident_unref(r[1].work.resident);
    pull_out(plug);
    assert_true(scheduler_drain(f->scheduler, 60000));
    assert_int_equal(r[0].n_finished, 1);
    assert_int_equal(r[0].error, 0);
}

#define CLIENTS    6
#define PER_CLIENT 60

struct client {
    struct fixture *f;
    unsigned number, n_ok, n_cancelled;
};

/* Requests one after the other, every fifth cancelled at once: finished exactly once each. */
static void *client_thread(void *arg) {
    struct client *c = arg;
    sem_t done;

    sem_init(&done, 0, 0);
    for (unsigned i = 0; i < PER_CLIENT; i++) {
        struct resident *x = NULL;
        struct request r;

        if (residency_acquire(c->f->residency, "m/1", true, &x, NULL) < 0)
            continue;
        request_init(&r, x, 1 + i % 2, c->number * 1000 + i, &done);
        if (scheduler_submit(c->f->scheduler, &r.work, NULL) < 0) {
            resident_unref(x);
            continue;
        }
        if (i % 5 == 0)
            scheduler_cancel(c->f->scheduler, &r.work);
        sem_wait(&done);
        c->n_ok += r.error == 0 && r.n_finished == 1;
        c->n_cancelled += r.error == -ECANCELED && r.n_finished == 1;
    }
    return NULL;
}

static void test_loading_and_unloading_never_stop_the_clients(void **state) {
    struct fixture *f = *state;
    struct client c[CLIENTS];
    pthread_t t[CLIENTS];
    unsigned sum = 0;

    for (unsigned i = 0; i < CLIENTS; i++) {
        c[i] = (struct client){.f = f, .number = i};
        assert_int_equal(pthread_create(&t[i], NULL, client_thread, &c[i]), 0);
    }
    for (int i = 0; i < 40; i++) {
        assert_int_equal(residency_unload(f->residency, "m/1", false, NULL), 0);
        assert_int_equal(residency_load(f->residency, "m/1", false, NULL, NULL, NULL), 0);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(t[i], NULL);
        sum += c[i].n_ok + c[i].n_cancelled;
        assert_true(c[i].n_ok >= PER_CLIENT * 4 / 5 - 40);
    }
    assert_true(sum > 0);
}

static void test_what_was_unloaded_by_request_stays_out(void **state) {
    struct fixture *f = *state;
    char reason[RESIDENCY_REASON_MAX];
    struct resident *x = NULL;
    struct error err = {0};
    uint64_t bytes = 1, used, budget;

    resident_unref(acquire(f));
    assert_int_equal(residency_state(f->residency, "m/1", &bytes, reason), VARIANT_READY);
    residency_count(f->residency, &used, &budget);
    assert_true(bytes > 0 && used == bytes);
    assert_int_equal(residency_unload(f->residency, "m/1", true, NULL), 0);
    assert_int_equal(residency_state(f->residency, "m/1", &bytes, reason), VARIANT_UNLOADED);
    assert_int_equal(bytes, 0);
    assert_true(residency_acquire(f->residency, "m/1", true, &x, &err) < 0);
    assert_string_equal(err.code, "not_loaded");
    residency_restore(f->residency); /* as after a restart */
    assert_int_equal(residency_state(f->residency, "m/1", &bytes, reason), VARIANT_UNLOADED);
    assert_int_equal(residency_load(f->residency, "m/1", true, NULL, NULL, NULL), 0);
    resident_unref(acquire(f));
}

/* Variants 2 … n+1 of the same file. */
static void add_variants(struct fixture *f, int n) {
    json_t *original = store_get(f->store, STORE_VARIANT, "m/1");

    for (int i = 2; i < n + 2; i++) {
        json_t *copy = json_copy(original);
        char key[32], name[16];

        snprintf(name, sizeof(name), "v%d", i);
        variant_key("m", i, key, sizeof(key));
        json_object_set_new(copy, "number", json_integer(i));
        json_object_set_new(copy, "name", json_string(name));
        assert_int_equal(store_apply(f->store, &(struct store_change){STORE_VARIANT, key, copy}, 1, NULL), 0);
        json_decref(copy);
    }
    json_decref(original);
}

static enum variant_state state_of(struct fixture *f, struct residency *r, int number) {
    char reason[RESIDENCY_REASON_MAX], key[32];
    uint64_t bytes;

    (void)f;
    variant_key("m", number, key, sizeof(key));
    return residency_state(r, key, &bytes, reason);
}

static void test_the_least_recently_used_makes_room(void **state) {
    struct fixture *f = *state;
    struct residency *r = NULL;
    char reason[RESIDENCY_REASON_MAX];
    uint64_t one, needed = 0, available = 0;
    struct residency_options o = {.slots = 2, .threads = 1};
    struct resident *busy;
    struct error err = {0};

    add_variants(f, 3);
    resident_unref(acquire(f));
    assert_int_equal(residency_state(f->residency, "m/1", &one, reason), VARIANT_READY);
    o.budget = one * 3 + one / 2;
    assert_int_equal(residency_new(f->store, &o, &r, NULL), 0);
    for (int i = 1; i <= 3; i++) {
        char key[32];

        variant_key("m", i, key, sizeof(key));
        assert_int_equal(residency_load(r, key, false, NULL, NULL, NULL), 0);
    }
    busy = residency_get(r, "m/2"); /* 3 is now the one used longest ago, and 2 is in use */
    assert_int_equal(residency_load(r, "m/4", false, NULL, NULL, NULL), 0);
    assert_int_equal(state_of(f, r, 3), VARIANT_UNLOADED);
    assert_int_equal(state_of(f, r, 1), VARIANT_READY);
    resident_unref(busy);

    struct resident *all[] = {residency_get(r, "m/2"), residency_get(r, "m/4")};
    assert_true(residency_load(r, "m/3", true, &needed, &available, &err) < 0);
    assert_string_equal(err.code, "memory_budget");
    assert_true(needed > available);
    assert_int_equal(state_of(f, r, 2), VARIANT_READY);
    assert_int_equal(state_of(f, r, 4), VARIANT_READY);
    resident_unref(all[0]);
    resident_unref(all[1]);
    residency_free(r);
}

#define LOADERS 4

static void *loader_thread(void *arg) {
    struct fixture *f = arg;

    while (residency_load(f->residency, "m/2", false, NULL, NULL, NULL) == 0)
        residency_unload(f->residency, "m/2", false, NULL);
    return NULL;
}

/* As DELETE does: first the document goes, then what is in memory. */
static void test_a_deleted_variant_never_comes_back(void **state) {
    struct fixture *f = *state;

    for (int i = 0; i < 50; i++) {
        uint64_t used = 1, budget;
        pthread_t t[LOADERS];

        add_variants(f, 1);
        for (int k = 0; k < LOADERS; k++)
            assert_int_equal(pthread_create(&t[k], NULL, loader_thread, f), 0);
        assert_int_equal(residency_load(f->residency, "m/2", false, NULL, NULL, NULL), 0);
        assert_int_equal(
            store_apply(f->store, &(struct store_change){STORE_VARIANT, "m/2", NULL}, 1, NULL), 0);
        residency_forget(f->residency, "m/2");
        residency_count(f->residency, &used, &budget);
        assert_int_equal(used, 0);
        for (int k = 0; k < LOADERS; k++)
            pthread_join(t[k], NULL);
        residency_count(f->residency, &used, &budget);
        assert_int_equal(used, 0);
    }
}

static int setup_with_delay(void **state) {
    int r = setup(state);
    struct fixture *f = *state;
    struct scheduler_options o = {
        .slots = 2, .threads_per_slot = 1, .queue_limit = 4096, .batch_delay_us = 1000000};

    scheduler_free(f->scheduler);
    assert_int_equal(scheduler_new(&o, &f->scheduler, NULL), 0);
    residency_on_unload(f->residency, trim, f->scheduler);
    return r;
}

static void test_with_a_delay_idle_slots_wait_for_a_batch(void **state) {
    struct fixture *f = *state;
    struct request r[4];
    sem_t done;

    sem_init(&done, 0, 0);
    for (unsigned i = 0; i < 4; i++) {
        request_init(&r[i], acquire(f), 1, i, &done);
        assert_int_equal(scheduler_submit(f->scheduler, &r[i].work, NULL), 0);
    }
    for (int i = 0; i < 4; i++)
        sem_wait(&done);
    for (int i = 0; i < 4; i++)
        assert_int_equal(r[i].work.timing.batch, 4);
}

/* One request; its answer is what the engine gives, whatever kernels run. */
static void ask_once(struct fixture *f, const float *want) {
    struct request r;
    sem_t done;

    sem_init(&done, 0, 0);
    request_init(&r, acquire(f), 1, 3, &done);
    assert_int_equal(scheduler_submit(f->scheduler, &r.work, NULL), 0);
    sem_wait(&done);
    for (int k = 0; k < OUT_SIZE; k++)
        assert_float_equal(r.out[k], want[k], 1e-5f * (1 + fabsf(want[k])));
}

/* While requests come one after the other nothing is measured; once they stop the variant is. */
static void test_variants_are_tuned_when_nobody_asks(void **state) {
    struct fixture *f = *state;
    struct tuning *t = NULL;
    float want[OUT_SIZE];
    uint64_t end;

    expected(f, 1, 3, want);
    ask_once(f, want);
    assert_int_equal(tuning_new(f->residency, f->scheduler, f->tuner, &t, NULL), 0);
    end = clock_now_ns() + 1000000000u;
    while (clock_now_ns() < end)
        ask_once(f, want);
    assert_int_equal(tuner_count(f->tuner), 0);
    end = clock_now_ns() + 30000000000u;
    while (tuner_count(f->tuner) == 0 && clock_now_ns() < end)
        sched_yield();
    assert_true(tuner_count(f->tuner) > 0);
    ask_once(f, want);
    tuning_free(t);
    ask_once(f, want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_batches_give_what_each_request_alone_gives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_deadline_in_the_queue_ends_a_request_unread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_cancelled_request_never_computes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_queue_refuses_and_keeps_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_higher_priority_goes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_draining_refuses_what_comes_and_ends_what_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loading_and_unloading_never_stop_the_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_unloaded_by_request_stays_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_least_recently_used_makes_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_deleted_variant_never_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_variants_are_tuned_when_nobody_asks, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_with_a_delay_idle_slots_wait_for_a_batch, setup_with_delay, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
