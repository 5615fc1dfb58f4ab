#include "compress/job_io.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define PROGRESS_EVERY_S 0.1

/* One whole line in one write: lines of several threads never mix. */
static bool write_line(json_t *j) {
    _cleanup_(freep) char *text = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    bool ok;

    json_decref(j);
    if (!text)
        return false;
    flockfile(stdout);
    ok = fputs(text, stdout) != EOF && putchar('\n') != EOF && fflush(stdout) != EOF;
    funlockfile(stdout);
    return ok;
}

static void report(void *ctx, double fraction, const char *message) {
    struct job_io *io = ctx;
    double now = clock_now_s(), elapsed = now - io->started_s;
    json_t *eta = json_null();

    if (now - io->last_s < PROGRESS_EVERY_S && fraction < 1)
        return;
    io->last_s = now;
    if (fraction > 0.01 && elapsed > 0.5)
        eta = json_real(elapsed * (1 - fraction) / fraction);
    write_line(
        json_pack("{s:{s:i, s:i, s:f, s:s, s:o}}", "progress", "step", io->step, "of", io->of, "fraction",
            fraction < 0   ? 0
            : fraction > 1 ? 1
                           : fraction,
            "message", message ? message : "", "eta_seconds", eta));
}

static bool is_cancelled(void *ctx) {
    struct job_io *io = ctx;

    return atomic_load(&io->is_cancelled);
}

static unsigned allowed(void *ctx) {
    const struct job_io *io = ctx;
    unsigned threads = atomic_load_explicit(&io->threads, memory_order_relaxed);
    unsigned now =
        io->activity ? atomic_load_explicit(&io->activity->threads, memory_order_relaxed) : threads;

    return now < threads ? now : threads;
}

static void metric(void *ctx, const char *name, double value, int epoch) {
    (void)ctx;
    job_io_metric(name, value, epoch);
}

static void event(void *ctx, const char *text) {
    (void)ctx;
    job_io_log("info", "%s", text);
}

void job_io_init(struct job_io *io, unsigned threads) {
    *io = (struct job_io){.of = 1, .started_s = clock_now_s()};
    atomic_init(&io->threads, threads);
    io->progress = (struct progress){.ctx = io,
        .threads = threads,
        .allowed = allowed,
        .report = report,
        .is_cancelled = is_cancelled,
        .metric = metric,
        .event = event};
}

int job_io_follow(struct job_io *io, const json_t *job, struct error *err) {
    json_int_t threads = json_integer_value(json_object_get(job, "threads"));

    if (threads > 0 && threads <= 1024) {
        io->progress.threads = (unsigned)threads;
        atomic_store(&io->threads, (unsigned)threads);
    }
    return json_is_true(json_object_get(job, "has_page")) ? activity_map(JOB_PAGE_FD, &io->activity, err) : 0;
}

static void take_control(struct job_io *io, const char *line) {
    json_t *j = json_loads(line, JSON_REJECT_DUPLICATES, NULL), *threads = json_object_get(j, "threads");

    if (json_is_true(json_object_get(j, "cancel")))
        atomic_store(&io->is_cancelled, true);
    if (json_is_integer(threads) && json_integer_value(threads) > 0 && json_integer_value(threads) <= 1024)
        atomic_store(&io->threads, (unsigned)json_integer_value(threads));
    json_decref(j);
}

static void *listen_thread(void *ctx) {
    struct job_io *io = ctx;
    char line[4096];

    while (fgets(line, sizeof(line), stdin))
        take_control(io, line);
    atomic_store(&io->is_cancelled, true);
    return NULL;
}

int job_io_listen(struct job_io *io, struct error *err) {
    pthread_t thread;
    int r = pthread_create(&thread, NULL, listen_thread, io);

    if (r)
        return error_set(
            err, r == EAGAIN ? -ENOMEM : -r, "no memory for the thread that reads control lines");
    pthread_detach(thread);
    return 0;
}

void job_io_step(struct job_io *io, int step, int of, const char *message) {
    io->step = step;
    io->of = of;
    io->started_s = clock_now_s();
    io->last_s = 0;
    report(io, 0, message);
}

void job_io_log(const char *level, const char *fmt, ...) {
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    write_line(json_pack("{s:{s:s, s:s}}", "log", "level", level, "text", text));
}

void job_io_metric(const char *name, double value, int epoch) {
    write_line(json_pack("{s:{s:s, s:f, s:i}}", "metric", "name", name, "value", value, "epoch", epoch));
}

int job_io_done(json_t *result) {
    return write_line(json_pack("{s:o}", "done", result)) ? EXIT_SUCCESS : EXIT_FAILURE;
}

const char *job_error_code(const struct error *err) {
    static const struct {
        int err;
        const char *code;
    } codes[] = {{-EINVAL, "bad_request"}, {-EFBIG, "too_large"}, {-ENOMEM, "memory_budget"},
        {-ENOSPC, "disk_budget"}, {-EOPNOTSUPP, "not_implemented"}, {-ECANCELED, "cancelled"}};

    if (err->code)
        return err->code;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].err == err->err)
            return codes[i].code;
    return "internal";
}

int job_io_fail(const struct error *err) {
    write_line(json_pack("{s:{s:s, s:s}}", "error", "code", job_error_code(err), "message", err->text));
    return EXIT_FAILURE;
}

int job_io_read(json_t **ret, struct error *err) {
    _cleanup_(freep) char *line = NULL;
    json_error_t where;
    size_t cap = 0;
    ssize_t n = getline(&line, &cap, stdin);

    if (n <= 0 || n > (ssize_t)JOB_LINE_MAX)
        return error_set(err, -EINVAL, "no job on standard input");
    *ret = json_loadb(line, (size_t)n, JSON_REJECT_DUPLICATES, &where);
    if (!*ret)
        return error_code(err, -EINVAL, "bad_json", "the job is not JSON: %s", where.text);
    return 0;
}
