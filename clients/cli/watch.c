/* A job followed by its events (server-sent events). On a terminal one line is written over; elsewhere each
 * piece of news is a line. A broken connection is taken up again where it broke (Last-Event-ID). */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clients/cli/cli.h"

#define MAX_EVENT    ((size_t)16 << 20)
#define MAX_ATTEMPTS 30 /* reconnections without an event between, a second apart */
#define BAR_WIDTH    30

struct watch {
    struct cli *cli;
    struct buf line; /* not yet ended */
    struct buf data; /* of the event so far */
    char type[32], id[32];
    char last_id[32]; /* of the last whole event */
    bool is_terminal, is_bar_open;
    double last_fraction;
    char last_message[128];
    json_t *done; /* the job at its end */
    unsigned n_events;
};

static void close_bar(struct watch *w) {
    if (w->is_bar_open)
        fputc('\n', stderr);
    w->is_bar_open = false;
}

static void show_bar(struct watch *w, double fraction, const char *text, double eta) {
    char bar[BAR_WIDTH + 1];

    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < fraction * BAR_WIDTH ? '#' : '.';
    bar[BAR_WIDTH] = 0;
    fprintf(stderr, "\r[%s] %3.0f%% %.40s", bar, 100 * fraction, text);
    if (eta > 0)
        fprintf(stderr, ", %.0f s left", eta);
    fputs("\033[K", stderr);
    fflush(stderr);
    w->is_bar_open = true;
}

/* {"step":0,"of":2,"fraction":0.4,"message":"…","eta_seconds":12} */
static void show_progress(struct watch *w, const json_t *p) {
    double fraction = json_number_value(json_object_get(p, "fraction"));
    const char *message = json_string_value(json_object_get(p, "message"));

    message = message ? message : "";
    if (w->is_terminal) {
        show_bar(w, fraction, message, json_number_value(json_object_get(p, "eta_seconds")));
        return;
    }
    /* lines are for logs: one each five per cent and when the message changes */
    if (fraction < w->last_fraction + 0.05 && !strcmp(message, w->last_message))
        return;
    w->last_fraction = fraction;
    snprintf(w->last_message, sizeof(w->last_message), "%s", message);
    printf("%3.0f%% %s\n", 100 * fraction, message);
}

static void show_event(struct watch *w, const json_t *data) {
    if (!strcmp(w->type, "progress")) {
        show_progress(w, data);
    } else if (!strcmp(w->type, "state")) {
        close_bar(w);
        printf("%s\n", json_string_value(json_object_get(data, "state")));
    } else if (!strcmp(w->type, "log")) {
        const char *text = json_string_value(json_object_get(data, "text"));

        close_bar(w);
        printf("%s\n", text ? text : "");
    } else if (!strcmp(w->type, "metric")) {
        const char *name = json_string_value(json_object_get(data, "name"));

        close_bar(w);
        printf("%s %.6g\n", name ? name : "metric", json_number_value(json_object_get(data, "value")));
    }
    fflush(stdout);
}

static int print_json_event(const struct watch *w, json_t *data) {
    json_t *line = json_pack("{s:s, s:O}", "event", w->type, "data", data);

    if (!line)
        return -ENOMEM;
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(line);
    return 0;
}

/* An empty line ended the event. */
static int end_event(struct watch *w) {
    _cleanup_(json_decrefp) json_t *data = NULL;

    if (w->data.size)
        data = json_loadb(w->data.data, w->data.size, JSON_DECODE_ANY, NULL);
    w->data.size = 0;
    memcpy(w->last_id, w->id, sizeof(w->id));
    if (!data)
        return 0;
    w->n_events++;
    if (w->cli->is_json)
        print_json_event(w, data);
    else
        show_event(w, data);
    if (!strcmp(w->type, "done")) {
        w->done = TAKE(data);
        return -ECANCELED; /* nothing more is of interest */
    }
    return 0;
}

static const char *field(const char *line, const char *name) {
    size_t size = strlen(name);

    if (strncmp(line, name, size) || line[size] != ':')
        return NULL;
    return line + size + 1 + (line[size + 1] == ' ');
}

static int take_line(struct watch *w, const char *line) {
    const char *value;

    if (!*line)
        return end_event(w);
    if ((value = field(line, "event")))
        snprintf(w->type, sizeof(w->type), "%s", value);
    else if ((value = field(line, "id")))
        snprintf(w->id, sizeof(w->id), "%s", value);
    else if ((value = field(line, "data")))
        return (w->data.size && buf_puts(&w->data, "\n") < 0) || buf_puts(&w->data, value) < 0 ? -ENOMEM : 0;
    return 0;
}

static int on_data(void *ctx, const char *data, size_t size) {
    struct watch *w = ctx;
    int r = 0;

    for (const char *end = data + size, *nl; data < end && r == 0; data = nl ? nl + 1 : end) {
        nl = memchr(data, '\n', (size_t)(end - data));
        r = buf_append(&w->line, data, (size_t)((nl ? nl : end) - data));
        if (r == 0 && nl) {
            if (w->line.size && w->line.data[w->line.size - 1] == '\r')
                w->line.data[--w->line.size] = 0;
            r = take_line(w, w->line.data);
            w->line.size = 0;
            if (w->line.data)
                w->line.data[0] = 0;
        }
    }
    return r;
}

/* One connection, until the server or the job ends it. */
static int listen_once(struct watch *w, const char *path, long *ret_status, struct error *err) {
    struct http_request r = {
        .method = "GET", .path = path, .header = {"Accept: text/event-stream"}, .sink = on_data, .ctx = w};
    char resume[64];
    struct http_reply reply;
    int rc;

    if (w->last_id[0]) {
        snprintf(resume, sizeof(resume), "Last-Event-ID: %s", w->last_id);
        r.header[1] = resume;
    }
    rc = http_send(w->cli->http, &r, &reply, err);
    *ret_status = reply.status;
    http_reply_done(&reply);
    w->line.size = w->data.size = 0;
    return rc;
}

/* Until `done`, or 204: everything was told before. */
static int follow(struct watch *w, const char *path, struct error *err) {
    for (int attempt = 0; !w->done; attempt++) {
        unsigned before = w->n_events;
        struct error lost = {0};
        long status = 0;
        int r = listen_once(w, path, &status, &lost);

        if (r == -EPROTO && status < 500)
            return error_copy(err, &lost);
        if (w->done || (r == 0 && status == 204))
            return 0;
        if (w->n_events > before)
            attempt = 0;
        if (attempt >= MAX_ATTEMPTS)
            return error_copy(
                err, r < 0 ? &lost : &(struct error){-ECONNREFUSED, NULL, "the stream of events broke off"});
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    }
    return 0;
}

static void show_numbers(const json_t *result) {
    const json_t *e = json_object_get(result, "evaluation"), *accuracy = json_object_get(e, "accuracy");

    if (json_is_number(accuracy))
        printf("accuracy %.2f%% on %lld items\n", 100 * json_number_value(accuracy),
            (long long)json_integer_value(json_object_get(e, "n")));
}

/* The server's own text of a sensitivity job's table. */
static int show_table(struct watch *w, const char *path, struct error *err) {
    struct http_request r = {.method = "GET", .path = path, .header = {"Accept: text/plain"}};
    struct http_reply reply;
    int rc = http_send(w->cli->http, &r, &reply, err);

    if (rc == 0)
        fwrite(reply.body.data, 1, reply.body.size, stdout);
    http_reply_done(&reply);
    return rc;
}

static bool is_sensitivity(const json_t *job) {
    const char *kind = json_string_value(json_object_get(job, "kind"));

    return kind && !strcmp(kind, "sensitivity");
}

static int judge(struct watch *w, const char *job, struct error *err) {
    _cleanup_(freep) char *path = http_path(w->cli->http, "/api/v1/jobs/%", job);
    const char *state, *why;
    bool was_json = w->cli->is_json;
    int r = 0;

    w->cli->is_json = false;
    if (!w->done)
        r = cli_get(w->cli, path, &w->done, err);
    w->cli->is_json = was_json;
    if (r < 0)
        return r;
    state = json_string_value(json_object_get(w->done, "state"));
    why = json_string_value(json_object_get(json_object_get(w->done, "error"), "message"));
    if (state && !strcmp(state, "succeeded")) {
        if (!was_json && is_sensitivity(w->done))
            return show_table(w, path, err);
        if (!was_json)
            show_numbers(json_object_get(w->done, "result"));
        return 0;
    }
    return error_set(
        err, -ECANCELED, "job %s: %s%s%s", job, state ? state : "lost", why ? ": " : "", why ? why : "");
}

int cli_watch(struct cli *c, const char *job, struct error *err) {
    _cleanup_(freep) char *path = http_path(c->http, "/api/v1/jobs/%/events", job);
    struct watch w = {.cli = c, .is_terminal = isatty(STDERR_FILENO) && !c->is_json, .last_fraction = -1};
    int r;

    if (!path)
        return error_oom(err);
    buf_init(&w.line, MAX_EVENT);
    buf_init(&w.data, MAX_EVENT);
    r = follow(&w, path, err);
    close_bar(&w);
    if (r == 0)
        r = judge(&w, job, err);
    json_decref(w.done);
    buf_done(&w.line);
    buf_done(&w.data);
    return r;
}
