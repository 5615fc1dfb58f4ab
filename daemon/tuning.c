#include "daemon/tuning.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "daemon/log.h"

#define LOOK_MS      250 /* how often it looks whether it is idle */
#define IDLE_NS      500000000u
#define NET_SECONDS  5.0 /* for all kernels of a network at one image size */
#define KEY_MAX_SIZE 512

struct tuning {
    struct residency *residency;
    struct scheduler *scheduler;
    struct tuner *tuner;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ending;
    atomic_bool is_ending;
    bool has_failed; /* the file could not be written: said once */
};

/* A load may need the memory of what is being tuned. */
static bool should_stop(void *ctx) {
    struct tuning *t = ctx;

    return atomic_load(&t->is_ending) || scheduler_idle_ns(t->scheduler) == 0 ||
           residency_is_loading(t->residency);
}

/* Old and new packed weights are there together for a while. */
static bool has_room(struct tuning *t, const struct resident *x) {
    uint64_t used, budget;

    residency_count(t->residency, &used, &budget);
    return used + x->bytes <= budget;
}

static void save(struct tuning *t) {
    struct error err = {0};

    if (tuner_save(t->tuner, &err) == 0 || t->has_failed)
        return;
    log_printf(LOG_LEVEL_WARNING, "times of kernels are not kept: %s", err.text);
    t->has_failed = true;
}

/* True: to be looked at again. */
static bool tune_one(struct tuning *t, const struct resident *x) {
    struct tune_limits limits = {.seconds = NET_SECONDS, .should_stop = should_stop, .ctx = t};
    struct error err = {0};
    bool changed = false;
    int r;

    if (!has_room(t, x))
        return false;
    r = net_tune(x->net, &limits, &changed, &err);
    if (r < 0)
        log_printf(LOG_LEVEL_WARNING, "tuning '%s' of model '%s': %s", x->variant, x->model, err.text);
    if (changed)
        log_printf(
            LOG_LEVEL_INFO, "variant '%s' of model '%s' runs on other kernels now", x->variant, x->model);
    save(t);
    return r == 1;
}

/* One after the other, as long as nothing else is to do. */
static void tune_all(struct tuning *t) {
    char key[KEY_MAX_SIZE] = "";

    while (!should_stop(t)) {
        _cleanup_(resident_unrefp) struct resident *x = residency_next(t->residency, key);

        if (!x)
            return;
        if (!tune_one(t, x))
            snprintf(key, sizeof(key), "%s", x->key);
    }
}

static void *tuning_thread(void *arg) {
    struct tuning *t = arg;

    pthread_mutex_lock(&t->lock);
    while (!atomic_load(&t->is_ending)) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_MS * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&t->ending, &t->lock, &until);
        pthread_mutex_unlock(&t->lock);
        if (scheduler_idle_ns(t->scheduler) > IDLE_NS)
            tune_all(t);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

int tuning_new(
    struct residency *r, struct scheduler *s, struct tuner *tuner, struct tuning **ret, struct error *err) {
    struct tuning *t = calloc(1, sizeof(*t));

    if (!t)
        return error_oom(err);
    t->residency = r;
    t->scheduler = s;
    t->tuner = tuner;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->ending, NULL);
    if (pthread_create(&t->thread, NULL, tuning_thread, t) != 0) {
        free(t);
        return error_set(err, -EAGAIN, "no thread for tuning");
    }
    *ret = t;
    return 0;
}

struct tuning *tuning_free(struct tuning *t) {
    if (!t)
        return NULL;
    pthread_mutex_lock(&t->lock);
    atomic_store(&t->is_ending, true);
    pthread_cond_signal(&t->ending);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->ending);
    pthread_mutex_destroy(&t->lock);
    free(t);
    return NULL;
}
