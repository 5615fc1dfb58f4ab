#include "daemon/activity.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"

#define MS           1000000u /* in nanoseconds */
#define STOPPED_POLL (1 * MS) /* how often the watch looks whether it may go on … */
#define RUNNING_POLL (20 * MS)

#define MAX_THREADS 256

struct activity {
    unsigned cores, cores_a_request;
    struct activity_page *page;
    int fd;                    /* of the page, read only */
    atomic_uint n_requests;    /* that wait or run */
    atomic_ullong full_ns;     /* when no core was free, last; of some end or begin */
    atomic_ullong served_ns;   /* when a request ended, last */
    atomic_bool may_run;       /* a worker is there and not stopped: written with the lock held */
    pthread_mutex_t lock;      /* protects what follows */
    pthread_cond_t changed;    /* a worker has come or was stopped, or the end */
    pid_t worker;              /* 0: none */
    pid_t thread[MAX_THREADS]; /* of the worker, as seen last */
    unsigned n_threads;
    uint64_t stopped_ns;    /* since when; 0: not */
    uint64_t granted_until; /* a share in spite of requests; 0: none */
    bool is_ending;
    pthread_t watch;
};

/* Would a worker's thread have a core of its own? */
static bool is_full(const struct activity *a, unsigned n_requests) {
    return (uint64_t)n_requests * a->cores_a_request >= a->cores;
}

static void list_threads_locked(struct activity *a) {
    char path[64];
    struct dirent *e;
    DIR *d;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)a->worker);
    d = opendir(path);
    a->n_threads = 0;
    while (d && a->n_threads < MAX_THREADS && (e = readdir(d)))
        if (e->d_name[0] != '.')
            a->thread[a->n_threads++] = atoi(e->d_name);
    if (d)
        closedir(d);
}

/* SIGSTOP stops all threads of a process, but only when the thread that was chosen to receive it takes it: as
 * long as that one waits for a core, the others go on computing. So each of them gets one; who runs takes it
 * at once and stops all. SIGCONT clears what is left over. */
static void stop_locked(struct activity *a, uint64_t now) {
    if (!a->worker || a->stopped_ns)
        return;
    atomic_store(&a->may_run, false);
    atomic_store(&a->page->threads, 1);
    atomic_fetch_add(&a->page->n_pauses, 1);
    a->stopped_ns = now;
    for (unsigned i = 0; i < a->n_threads; i++)
        (void)tgkill(a->worker, a->thread[i], SIGSTOP); /* it may have ended: then it needs none */
    if (a->n_threads == 0)
        (void)kill(a->worker, SIGSTOP);
    pthread_cond_signal(&a->changed);
}

static void go_on_locked(struct activity *a) {
    if (!a->worker || !a->stopped_ns)
        return;
    (void)kill(a->worker, SIGCONT);
    a->stopped_ns = 0;
    atomic_store(&a->may_run, true);
}

void activity_begin(struct activity *a) {
    unsigned n;

    if (!a)
        return;
    n = atomic_fetch_add(&a->n_requests, 1) + 1;
    if (is_full(a, n))
        atomic_store(&a->full_ns, clock_now_ns());
    if (!atomic_load(&a->may_run) || (!is_full(a, n) && atomic_load(&a->page->threads) == 1))
        return;
    pthread_mutex_lock(&a->lock);
    if (!a->granted_until)
        stop_locked(a, clock_now_ns());
    pthread_mutex_unlock(&a->lock);
}

void activity_end(struct activity *a, unsigned n) {
    uint64_t now;

    if (!a || !n)
        return;
    now = clock_now_ns();
    if (is_full(a, atomic_load(&a->n_requests)))
        atomic_store(&a->full_ns, now);
    atomic_store(&a->served_ns, now);
    atomic_fetch_sub(&a->n_requests, n);
}

static uint64_t since(uint64_t now, uint64_t then) {
    return now > then ? now - then : 0;
}

/* What the rule says now. */
static void decide_locked(struct activity *a) {
    uint64_t now = clock_now_ns();
    unsigned n = atomic_load(&a->n_requests);
    bool is_free = !is_full(a, n) && since(now, atomic_load(&a->full_ns)) >= ACTIVITY_LINGER_MS * MS;

    if (!a->worker)
        return;
    if (n == 0 && since(now, atomic_load(&a->served_ns)) >= ACTIVITY_QUIET_MS * MS)
        atomic_store(&a->page->threads, ACTIVITY_ALL_THREADS);
    if (is_free) {
        a->granted_until = 0;
        go_on_locked(a);
    } else if (a->stopped_ns && since(now, a->stopped_ns) >= (ACTIVITY_PERIOD_MS - ACTIVITY_SHARE_MS) * MS) {
        a->granted_until = now + ACTIVITY_SHARE_MS * MS;
        go_on_locked(a);
    } else if (now >= a->granted_until) {
        a->granted_until = 0;
    }
    /* a request may have come and found the worker stopped still */
    n = atomic_load(&a->n_requests);
    if (!a->granted_until && (is_full(a, n) || (n && atomic_load(&a->page->threads) != 1)))
        stop_locked(a, now);
}

static void wait_locked(struct activity *a, uint64_t ns) {
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    ns += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_cond_timedwait(&a->changed, &a->lock, &until);
}

static void *watch_thread(void *arg) {
    struct activity *a = arg;

    pthread_mutex_lock(&a->lock);
    while (!a->is_ending) {
        if (!a->worker) {
            pthread_cond_wait(&a->changed, &a->lock);
            continue;
        }
        if (!a->stopped_ns)
            list_threads_locked(a);
        decide_locked(a);
        wait_locked(a, a->stopped_ns || a->granted_until ? STOPPED_POLL : RUNNING_POLL);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* The page, writable here; *ret_fd can only be read, by whomever, and its size is for good. */
static int make_page(struct activity_page **ret, int *ret_fd, struct error *err) {
    _cleanup_(closep) int fd = memfd_create("activity", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    char path[64];
    void *page;

    if (fd < 0 || ftruncate(fd, sizeof(**ret)) < 0)
        return error_errno(err, "a page for workers");
    page = mmap(NULL, sizeof(**ret), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return error_errno(err, "a page for workers");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    *ret_fd = fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0
                  ? -1
                  : open(path, O_RDONLY | O_CLOEXEC);
    if (*ret_fd < 0) {
        error_errno(err, "a page for workers");
        munmap(page, sizeof(**ret));
        return -EIO;
    }
    *ret = page;
    return 0;
}

int activity_new(unsigned cores, unsigned cores_a_request, struct activity **ret, struct error *err) {
    struct activity *a = calloc(1, sizeof(*a));
    pthread_condattr_t monotonic;
    int r;

    if (!a)
        return error_oom(err);
    a->cores = cores;
    a->cores_a_request = cores_a_request;
    r = make_page(&a->page, &a->fd, err);
    if (r < 0) {
        free(a);
        return r;
    }
    atomic_store(&a->page->threads, ACTIVITY_ALL_THREADS);
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&a->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    r = -pthread_create(&a->watch, NULL, watch_thread, a);
    if (r < 0) {
        munmap(a->page, sizeof(*a->page));
        close(a->fd);
        free(a);
        return error_set(err, r, "no thread to watch workers");
    }
    *ret = a;
    return 0;
}

struct activity *activity_free(struct activity *a) {
    if (!a)
        return NULL;
    activity_detach(a);
    pthread_mutex_lock(&a->lock);
    a->is_ending = true;
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->watch, NULL);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    munmap(a->page, sizeof(*a->page));
    close(a->fd);
    free(a);
    return NULL;
}

int activity_fd(const struct activity *a) {
    return a->fd;
}

void activity_attach(struct activity *a, pid_t pid) {
    pthread_mutex_lock(&a->lock);
    a->worker = pid;
    a->stopped_ns = 0;
    a->granted_until = 0;
    list_threads_locked(a);
    atomic_store(&a->may_run, true);
    decide_locked(a);
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

void activity_detach(struct activity *a) {
    pthread_mutex_lock(&a->lock);
    go_on_locked(a);
    atomic_store(&a->may_run, false);
    a->worker = 0;
    pthread_mutex_unlock(&a->lock);
}

unsigned activity_pauses(const struct activity *a) {
    return atomic_load(&a->page->n_pauses);
}
