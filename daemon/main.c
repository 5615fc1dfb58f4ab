/* bonsaid: reads its options, opens its parts, listens, and goes down in order:
 * readiness off → no new work → what runs ends → the store closes. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/app.h"
#include "daemon/log.h"
#include "daemon/notify.h"

extern char **environ;

/* libgomp reads its variables when it is loaded, and the pool of libuv when it starts: threads that spin ruin
 * a shared machine, so the program starts again with the right ones when they are missing. */
static void ensure_environment(char **argv) {
    if (getenv("OMP_WAIT_POLICY") && getenv("UV_THREADPOOL_SIZE"))
        return;
    setenv("OMP_WAIT_POLICY", "passive", 0);
    setenv("OMP_NUM_THREADS", "1", 0);
    setenv("OPENBLAS_NUM_THREADS", "1", 0);
    setenv("UV_THREADPOOL_SIZE", "16", 0);
    execv("/proc/self/exe", argv);
}

/* What loading needs for a moment comes in megabytes, on any thread. The C library would learn to keep such
 * memory for later (its thresholds grow), once for each thread's heap, and malloc_trim() does not reach the
 * end of those. A request's body stays below: fresh pages for each would cost more than its plan. */
#define KEPT_BYTES (2 << 20)
#define N_HEAPS    2

static void return_memory_at_once(void) {
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
    mallopt(M_ARENA_MAX, N_HEAPS);
}

static int print_help(void) {
    struct buf text;

    buf_init(&text, 1 << 20);
    if (config_help(&text) == 0)
        fputs(text.data, stdout);
    buf_done(&text);
    return EXIT_SUCCESS;
}

static void close_handles(struct app *a) {
    uv_close((uv_handle_t *)&a->on_term, NULL);
    uv_close((uv_handle_t *)&a->on_int, NULL);
    uv_close((uv_handle_t *)&a->on_hup, NULL);
    uv_close((uv_handle_t *)&a->watchdog, NULL);
}

static void on_drained(void *ctx) {
    struct app *a = ctx;

    close_handles(a);
    uv_stop(&a->loop);
}

/* The orderly end; a second signal changes nothing, kill -9 is always safe. */
static void drain(void *ctx) {
    struct app *a = ctx;

    if (a->is_ending)
        return;
    a->is_ending = true;
    atomic_store(&a->api.is_draining, true);
    notify_send("STOPPING=1\nSTATUS=draining");
    log_printf(LOG_LEVEL_INFO, "draining");
    server_drain(a->server, (unsigned)a->config.drain_timeout_ms, on_drained, a);
}

static void on_signal(uv_signal_t *h, int signal) {
    struct app *a = h->data;

    if (signal != SIGHUP) {
        drain(a);
        return;
    }
    /* what can change while running is the level of the log; everything else is read at the start */
    log_set_level((enum log_level)a->config.log);
    log_printf(LOG_LEVEL_INFO, "SIGHUP: the log level is %s again", log_level_names[a->config.log]);
}

static void on_watchdog(uv_timer_t *t) {
    (void)t;
    notify_send("WATCHDOG=1");
}

static void start_handles(struct app *a) {
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    uv_signal_t *handles[] = {&a->on_term, &a->on_int, &a->on_hup};
    uint64_t watchdog = notify_watchdog_ms();

    for (int i = 0; i < 3; i++) {
        uv_signal_init(&a->loop, handles[i]);
        handles[i]->data = a;
        uv_signal_start(handles[i], on_signal, signals[i]);
    }
    uv_timer_init(&a->loop, &a->watchdog);
    if (watchdog)
        uv_timer_start(&a->watchdog, on_watchdog, 0, watchdog / 2);
}

static void announce(const struct app *a) {
    printf("listening on %s\n", server_url(a->server, 0));
    fflush(stdout);
    for (unsigned i = 0; server_url(a->server, i); i++)
        log_printf(LOG_LEVEL_INFO, "listening on %s", server_url(a->server, i));
    notify_send("READY=1\nSTATUS=serving");
}

static int serve(struct app *a, struct error *err) {
    int r;

    uv_loop_init(&a->loop);
    r = app_open(a, err);
    if (r == 0)
        r = app_listen(a, err);
    if (r < 0)
        return r;
    a->api.drain = drain;
    a->api.drain_ctx = a;
    start_handles(a);
    announce(a);
    uv_run(&a->loop, UV_RUN_DEFAULT);
    scheduler_drain(a->scheduler, (unsigned)a->config.drain_timeout_ms);
    server_free(a->server);
    uv_run(&a->loop, UV_RUN_DEFAULT);
    uv_loop_close(&a->loop);
    return 0;
}

int main(int argc, char **argv) {
    static struct app app; /* big; lives as long as the program */
    enum config_action action;
    struct error err = {0};
    int r;

    ensure_environment(argv);
    return_memory_at_once();
    signal(SIGPIPE, SIG_IGN);
    r = config_load(argc, argv, environ, &app.config, &action, &err);
    if (r < 0) {
        fprintf(stderr, "bonsaid: %s\n", err.text);
        return 2;
    }
    if (action == CONFIG_HELP)
        return print_help();
    if (action == CONFIG_VERSION)
        return puts("bonsaid " BONSAI_VERSION) == EOF;
    if (action == CONFIG_CHECK)
        return puts("the configuration is fine") == EOF;
    log_set_level((enum log_level)app.config.log);
    r = serve(&app, &err);
    app_close(&app);
    if (r < 0) {
        log_printf(LOG_LEVEL_ERROR, "bonsaid: %s", err.text);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
