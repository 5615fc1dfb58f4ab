#include "engine/pool.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"

/* Which thread of which pool this one is, while it works there; 0 is the caller. */
struct pool_thread {
    struct pool *pool;
    unsigned index;
};
static _Thread_local struct pool_thread self;

struct pool {
    unsigned n_workers;
    pthread_t *workers;
    struct pool_thread *names; /* [n_workers] */

    unsigned (*allowed)(void *ctx); /* NULL: all */
    void *allowed_ctx;

    pthread_mutex_t caller; /* held by the one caller whose work is being done */
    unsigned n_called;      /* … and its own: how many were allowed when it woke the workers */

    pthread_mutex_t mutex; /* protects the rest, except `next` */
    pthread_cond_t work, finished;
    void (*fn)(void *ctx, unsigned part);
    void *ctx;
    unsigned n_parts;
    bool stop;

    /* written with the mutex held, read without it while spinning */
    atomic_uint n_busy; /* workers inside the current work */
    atomic_ulong round;

    atomic_uint next; /* the next part nobody took */
};

/* The next piece of work of a net comes within microseconds, and waking a sleeping thread takes as long: some
 * time is spent looking, never more, because the cores may be needed by others. (50 us against none: 1.09x on
 * resnet18, 1.49x on mobilenet_v2 with two threads.) */
#define SPIN_US 50

static void pool_pause(void) {
#if defined(__x86_64__)
    for (int i = 0; i < 16; i++)
        __builtin_ia32_pause();
#endif
}

static void spin_for_work(struct pool *p, unsigned long seen) {
    double end = clock_now_us() + SPIN_US;

    while (atomic_load_explicit(&p->round, memory_order_relaxed) == seen && clock_now_us() < end)
        pool_pause();
}

static void spin_for_others(struct pool *p) {
    double end = clock_now_us() + SPIN_US;

    while (atomic_load_explicit(&p->n_busy, memory_order_relaxed) != 0 && clock_now_us() < end)
        pool_pause();
}

static unsigned pool_allowed(const struct pool *p) {
    unsigned n = p->allowed ? p->allowed(p->allowed_ctx) : UINT_MAX;

    return n ? n : 1;
}

static bool is_allowed(const struct pool *p) {
    return !p->allowed || self.index < pool_allowed(p);
}

/* The caller, between parts: workers that sat out are woken when more are allowed than before. */
static void call_more(struct pool *p) {
    unsigned now = pool_allowed(p);

    if (now > p->n_called) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->mutex);
    }
    p->n_called = now;
}

bool pool_should_leave(struct pool *p) {
    if (!p || !p->allowed || self.pool != p)
        return false;
    if (self.index > 0)
        return !is_allowed(p);
    call_more(p);
    return false;
}

/* False: left while there may be more to do. */
static bool pool_work(struct pool *p, void (*fn)(void *, unsigned), void *ctx, unsigned n_parts) {
    while (!pool_should_leave(p)) {
        unsigned part = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);

        if (part >= n_parts)
            return true;
        fn(ctx, part);
    }
    return false;
}

static void *pool_main(void *arg) {
    struct pool *p;
    unsigned long seen = 0;

    self = *(struct pool_thread *)arg;
    p = self.pool;
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        bool is_done;

        while (!p->stop && (atomic_load(&p->round) == seen || !p->fn || !is_allowed(p)))
            pthread_cond_wait(&p->work, &p->mutex);
        if (p->stop)
            break;
        seen = atomic_load(&p->round);
        atomic_fetch_add(&p->n_busy, 1);
        void (*fn)(void *, unsigned) = p->fn;
        void *ctx = p->ctx;
        unsigned n_parts = p->n_parts;
        pthread_mutex_unlock(&p->mutex);

        is_done = pool_work(p, fn, ctx, n_parts);

        pthread_mutex_lock(&p->mutex);
        if (atomic_fetch_sub(&p->n_busy, 1) == 1)
            pthread_cond_signal(&p->finished);
        if (!is_done) {
            seen--; /* it may come back to the same work */
            continue;
        }
        pthread_mutex_unlock(&p->mutex);
        spin_for_work(p, seen);
        pthread_mutex_lock(&p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

int pool_new(unsigned n_threads, struct pool **ret, struct error *err) {
    _cleanup_(pool_freep) struct pool *p = calloc(1, sizeof(*p));
    unsigned wanted = n_threads > 1 ? n_threads - 1 : 0;

    if (!p)
        return error_oom(err);
    pthread_mutex_init(&p->caller, NULL);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->finished, NULL);
    p->workers = calloc(wanted + 1, sizeof(*p->workers));
    p->names = calloc(wanted + 1, sizeof(*p->names));
    if (!p->workers || !p->names)
        return error_oom(err);
    for (; p->n_workers < wanted; p->n_workers++) {
        struct pool_thread *name = &p->names[p->n_workers];
        int r;

        *name = (struct pool_thread){p, p->n_workers + 1};
        r = pthread_create(&p->workers[p->n_workers], NULL, pool_main, name);

        if (r)
            return error_set(err, -r, "cannot start a compute thread");
    }
    *ret = TAKE(p);
    return 0;
}

struct pool *pool_free(struct pool *p) {
    if (!p)
        return NULL;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->n_workers; i++)
        pthread_join(p->workers[i], NULL);
    pthread_cond_destroy(&p->finished);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->mutex);
    pthread_mutex_destroy(&p->caller);
    free(p->workers);
    free(p->names);
    free(p);
    return NULL;
}

void pool_follow(struct pool *p, unsigned (*allowed)(void *ctx), void *ctx) {
    pthread_mutex_lock(&p->mutex);
    p->allowed_ctx = ctx;
    p->allowed = allowed;
    pthread_mutex_unlock(&p->mutex);
}

unsigned pool_size(const struct pool *p) {
    return p ? p->n_workers + 1 : 1;
}

void pool_run(struct pool *p, unsigned n_parts, void (*fn)(void *ctx, unsigned part), void *ctx) {
    struct pool_thread was = self;

    if (!p || p->n_workers == 0 || n_parts < 2 || pthread_mutex_trylock(&p->caller) != 0) {
        for (unsigned i = 0; i < n_parts; i++)
            fn(ctx, i);
        return;
    }
    self = (struct pool_thread){p, 0};
    p->n_called = pool_allowed(p);
    pthread_mutex_lock(&p->mutex);
    p->fn = fn;
    p->ctx = ctx;
    p->n_parts = n_parts;
    atomic_fetch_add(&p->round, 1);
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    if (p->n_called > 1)
        pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);

    pool_work(p, fn, ctx, n_parts);
    self = was;

    /* A worker that wakes from here on finds no work; the ones inside are waited for. */
    spin_for_others(p);
    pthread_mutex_lock(&p->mutex);
    p->fn = NULL;
    while (atomic_load(&p->n_busy))
        pthread_cond_wait(&p->finished, &p->mutex);
    pthread_mutex_unlock(&p->mutex);
    pthread_mutex_unlock(&p->caller);
}
