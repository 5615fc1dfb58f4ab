#include "daemon/scheduler.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "daemon/slot.h"

#define SWEEP_MS 20

struct scheduler {
    struct scheduler_options options;
    pthread_mutex_t lock; /* protects what follows; never held while computing */
    pthread_cond_t wanted, idle;
    struct sched_work *first, **last; /* all that waits, oldest first */
    unsigned n_waiting, n_busy, n_slots;
    uint64_t rested_ns; /* when the last work ended */
    unsigned n_trims;   /* how often slots were asked to let memory go */
    bool is_draining, is_ending;
    pthread_t sweeper;
    pthread_t *threads;
};

struct slot_start {
    struct scheduler *s;
    struct slot *slot;
};

/* Ends a work that was taken off the queue and never ran. */
static void refuse(struct scheduler *s, struct sched_work *w, int e, const char *code, const char *text) {
    struct resident *r = w->resident;
    struct error err = {0};

    activity_end(s->options.activity, 1);
    w->timing.queue_ns = clock_now_ns() - w->queued_ns;
    error_code(&err, e, code, "%s", text);
    w->finish(w, NULL, 0, &err);
    resident_unref(r);
}

static bool is_late(const struct sched_work *w, uint64_t now) {
    return w->deadline_ns && now > w->deadline_ns;
}

/* Takes *at out of the list. Lock held. */
static struct sched_work *unlink_at(struct scheduler *s, struct sched_work **at) {
    struct sched_work *w = *at;

    *at = w->next;
    if (s->last == &w->next)
        s->last = at;
    w->next = NULL;
    s->n_waiting--;
    return w;
}

/* 1 is highest; 0, the default, stands in the middle. */
static unsigned rank(const struct sched_work *w) {
    return w->priority ? w->priority * 2 : 100;
}

static struct sched_work **best_locked(struct scheduler *s) {
    struct sched_work **best = &s->first;

    for (struct sched_work **p = &s->first; *p; p = &(*p)->next)
        if (rank(*p) < rank(*best))
            best = p;
    return best;
}

static bool fits_together(const struct sched_work *a, const struct sched_work *b) {
    return !a->task && !b->task && a->max_batch > 1 && b->max_batch > 1 && a->resident && b->resident &&
           a->resident->net == b->resident->net;
}

/* The next piece of work: the best waiting one, and others that can run in its batch when no slot is idle for
 * them, or when they were waited for. A list. */
static struct sched_work *take_locked(struct scheduler *s) {
    struct sched_work *head = unlink_at(s, best_locked(s)), **tail = &head->next;
    unsigned n = 1;

    if (!s->options.batch_delay_us && s->n_busy + 1 < s->n_slots)
        return head;
    for (struct sched_work **p = &s->first; *p && n < head->max_batch;) {
        if (!fits_together(head, *p)) {
            p = &(*p)->next;
            continue;
        }
        *tail = unlink_at(s, p);
        tail = &(*tail)->next;
        n++;
    }
    return head;
}

/* Waits for work or the end. Lock held, but not while memory goes back. */
static void wait_for_work(struct scheduler *s, struct slot *slot, unsigned *n_trims) {
    while (!s->first && !s->is_ending) {
        if (*n_trims == s->n_trims) {
            pthread_cond_wait(&s->wanted, &s->lock);
            continue;
        }
        *n_trims = s->n_trims;
        pthread_mutex_unlock(&s->lock);
        slot_trim(slot);
        pthread_mutex_lock(&s->lock);
    }
}

static unsigned count_works(const struct sched_work *list) {
    unsigned n = 0;

    for (; list; list = list->next)
        n++;
    return n;
}

static void *slot_thread(void *arg) {
    struct slot_start *start = arg;
    struct scheduler *s = start->s;
    struct slot *slot = start->slot;
    unsigned n_trims = 0;

    free(start);
    pthread_mutex_lock(&s->lock);
    for (;;) {
        struct sched_work *list;

        wait_for_work(s, slot, &n_trims);
        if (!s->first)
            break;
        if (s->options.batch_delay_us && s->first->max_batch > 1 && !s->first->task) {
            struct timespec delay = {
                s->options.batch_delay_us / 1000000, (long)(s->options.batch_delay_us % 1000000) * 1000};

            pthread_mutex_unlock(&s->lock);
            nanosleep(&delay, NULL);
            pthread_mutex_lock(&s->lock);
            if (!s->first)
                continue;
        }
        list = take_locked(s);
        s->n_busy++;
        pthread_mutex_unlock(&s->lock);
        activity_end(s->options.activity, count_works(list) - 1); /* a batch is one */
        slot_work(slot, list);
        activity_end(s->options.activity, 1);
        pthread_mutex_lock(&s->lock);
        s->n_busy--;
        s->rested_ns = clock_now_ns();
        if (!s->n_busy && !s->first)
            pthread_cond_broadcast(&s->idle);
    }
    pthread_mutex_unlock(&s->lock);
    slot_free(slot);
    return NULL;
}

/* Answers those whose deadline passes while they wait: slots may be busy for long. */
static void *sweep_thread(void *arg) {
    struct scheduler *s = arg;
    struct timespec pause = {0, SWEEP_MS * 1000000};

    pthread_mutex_lock(&s->lock);
    while (!s->is_ending) {
        struct sched_work *late = NULL;
        uint64_t now = clock_now_ns();

        for (struct sched_work **p = &s->first; *p;) {
            if (!is_late(*p, now)) {
                p = &(*p)->next;
                continue;
            }
            struct sched_work *w = unlink_at(s, p);

            w->next = late;
            late = w;
        }
        if (late && !s->n_busy && !s->first)
            pthread_cond_broadcast(&s->idle);
        pthread_mutex_unlock(&s->lock);
        while (late) {
            struct sched_work *next = late->next;

            refuse(s, late, -ETIMEDOUT, "deadline", "the deadline passed in the queue");
            late = next;
        }
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int start_slots(struct scheduler *s, struct error *err) {
    for (unsigned i = 0; i < s->options.slots; i++) {
        struct slot_start *start = malloc(sizeof(*start));
        int r;

        if (!start)
            return error_oom(err);
        start->s = s;
        r = slot_new(s->options.threads_per_slot, &start->slot, err);
        if (r == 0 && pthread_create(&s->threads[i], NULL, slot_thread, start) != 0) {
            slot_free(start->slot);
            r = error_set(err, -EAGAIN, "no thread for a slot");
        }
        if (r < 0) {
            free(start);
            return r;
        }
        s->n_slots++;
    }
    return 0;
}

int scheduler_new(const struct scheduler_options *o, struct scheduler **ret, struct error *err) {
    struct scheduler *s = calloc(1, sizeof(*s));
    int r;

    if (!s || !(s->threads = calloc(o->slots + 1, sizeof(*s->threads)))) {
        free(s);
        return error_oom(err);
    }
    s->options = *o;
    s->last = &s->first;
    s->rested_ns = clock_now_ns();
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wanted, NULL);
    pthread_cond_init(&s->idle, NULL);
    if (pthread_create(&s->sweeper, NULL, sweep_thread, s) != 0) {
        free(s->threads);
        free(s);
        return error_set(err, -EAGAIN, "no thread for the scheduler");
    }
    r = start_slots(s, err);
    if (r < 0) {
        scheduler_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

struct scheduler *scheduler_free(struct scheduler *s) {
    struct sched_work *w;

    if (!s)
        return NULL;
    pthread_mutex_lock(&s->lock);
    s->is_draining = s->is_ending = true;
    w = s->first;
    s->first = NULL;
    s->last = &s->first;
    s->n_waiting = 0;
    pthread_cond_broadcast(&s->wanted);
    pthread_mutex_unlock(&s->lock);
    while (w) {
        struct sched_work *next = w->next;

        refuse(s, w, -ESHUTDOWN, "draining", "the server is going down");
        w = next;
    }
    for (unsigned i = 0; i < s->n_slots; i++)
        pthread_join(s->threads[i], NULL);
    pthread_join(s->sweeper, NULL);
    pthread_cond_destroy(&s->wanted);
    pthread_cond_destroy(&s->idle);
    pthread_mutex_destroy(&s->lock);
    free(s->threads);
    free(s);
    return NULL;
}

static unsigned waiting_locked(const struct scheduler *s, const char *key) {
    unsigned n = 0;

    for (const struct sched_work *w = s->first; w; w = w->next)
        n += w->resident && !strcmp(w->resident->key, key);
    return n;
}

int scheduler_submit(struct scheduler *s, struct sched_work *w, struct error *err) {
    unsigned limit = w->queue_limit ? w->queue_limit : s->options.queue_limit;
    int r = 0;

    w->next = NULL;
    w->queued_ns = clock_now_ns();
    activity_begin(s->options.activity); /* before a slot is woken: it finds a core free */
    pthread_mutex_lock(&s->lock);
    if (s->is_draining)
        r = error_code(err, -ESHUTDOWN, "draining", "the server is going down");
    else if (w->resident && s->n_waiting >= limit && waiting_locked(s, w->resident->key) >= limit)
        r = error_code(err, -EAGAIN, "queue_full", "%u requests wait for this variant already", limit);
    else {
        *s->last = w;
        s->last = &w->next;
        s->n_waiting++;
    }
    pthread_mutex_unlock(&s->lock);
    if (r == 0) /* outside: a slot woken under the lock would only go to sleep on it */
        pthread_cond_signal(&s->wanted);
    else
        activity_end(s->options.activity, 1);
    return r;
}

void scheduler_cancel(struct scheduler *s, struct sched_work *w) {
    bool was_waiting = false;

    pthread_mutex_lock(&s->lock);
    for (struct sched_work **p = &s->first; *p && !was_waiting; p = &(*p)->next)
        if (*p == w) {
            unlink_at(s, p);
            was_waiting = true;
            break;
        }
    if (!was_waiting)
        atomic_store(&w->is_cancelled, true);
    else if (!s->n_busy && !s->first)
        pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
    if (was_waiting)
        refuse(s, w, -ECANCELED, "cancelled", "the client has gone");
}

bool scheduler_drain(struct scheduler *s, unsigned timeout_ms) {
    struct timespec until;
    bool done;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&s->lock);
    s->is_draining = true;
    while ((s->n_busy || s->first) && pthread_cond_timedwait(&s->idle, &s->lock, &until) == 0)
        ;
    done = !s->n_busy && !s->first;
    pthread_mutex_unlock(&s->lock);
    return done;
}

void scheduler_trim(struct scheduler *s) {
    pthread_mutex_lock(&s->lock);
    s->n_trims++;
    pthread_cond_broadcast(&s->wanted);
    pthread_mutex_unlock(&s->lock);
}

unsigned scheduler_waiting(struct scheduler *s) {
    unsigned n;

    pthread_mutex_lock(&s->lock);
    n = s->n_waiting;
    pthread_mutex_unlock(&s->lock);
    return n;
}

unsigned scheduler_waiting_for(struct scheduler *s, const char *key) {
    unsigned n;

    pthread_mutex_lock(&s->lock);
    n = waiting_locked(s, key);
    pthread_mutex_unlock(&s->lock);
    return n;
}

bool scheduler_is_busy(struct scheduler *s) {
    bool busy;

    pthread_mutex_lock(&s->lock);
    busy = s->n_busy > 0;
    pthread_mutex_unlock(&s->lock);
    return busy;
}

uint64_t scheduler_idle_ns(struct scheduler *s) {
    uint64_t idle;

    pthread_mutex_lock(&s->lock);
    idle = s->n_busy || s->first ? 0 : clock_now_ns() - s->rested_ns + 1;
    pthread_mutex_unlock(&s->lock);
    return idle;
}
