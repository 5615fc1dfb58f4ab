#include "daemon/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"

/* A worker that reads nothing for so long hangs. */
#define SEND_MS 5000

extern char **environ;

struct spawn {
    pid_t pid; /* 0: reaped */
    int to, from;
    struct buf in;
    size_t line_start;
};

static int open_pipes(int in[2], int out[2], struct error *err) {
    if (pipe2(in, O_CLOEXEC) < 0)
        return error_errno(err, "no pipe for the worker");
    if (pipe2(out, O_CLOEXEC) < 0) {
        close(in[0]);
        close(in[1]);
        return error_errno(err, "no pipe for the worker");
    }
    return 0;
}

static int start(const char *program, int in, int out, int page, pid_t *ret) {
    char *argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t) "job", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;
    int r;

    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    if (page >= 0)
        posix_spawn_file_actions_adddup2(&actions, page, SPAWN_PAGE_FD);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    r = posix_spawn(ret, program, &actions, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return -r;
}

int spawn_start(const char *program, int page, struct spawn **ret, struct error *err) {
    struct spawn *s = calloc(1, sizeof(*s));
    int in[2], out[2], r;

    if (!s)
        return error_oom(err);
    r = open_pipes(in, out, err);
    if (r < 0) {
        free(s);
        return r;
    }
    r = start(program, in[0], out[1], page, &s->pid);
    close(in[0]);
    close(out[1]);
    if (r < 0) {
        close(in[1]);
        close(out[0]);
        free(s);
        return error_set(err, r, "the worker cannot be started: %s", strerrordesc_np(-r));
    }
    (void)fcntl(in[1], F_SETFL, O_NONBLOCK); /* this end only; the worker's reads block */
    s->to = in[1];
    s->from = out[0];
    buf_init(&s->in, SPAWN_LINE_MAX);
    *ret = s;
    return 0;
}

struct spawn *spawn_free(struct spawn *s) {
    if (!s)
        return NULL;
    close(s->to);
    close(s->from);
    if (s->pid) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
    }
    buf_done(&s->in);
    free(s);
    return NULL;
}

int spawn_send(struct spawn *s, const json_t *line) {
    _cleanup_(freep) char *text = json_dumps(line, JSON_COMPACT);
    size_t size, at = 0;

    if (!text)
        return -ENOMEM;
    size = strlen(text);
    text[size++] = '\n'; /* in place of the final zero */
    while (at < size) {
        struct pollfd p = {.fd = s->to, .events = POLLOUT};
        ssize_t n = write(s->to, text + at, size - at);

        if (n >= 0)
            at += (size_t)n;
        else if (errno == EAGAIN && poll(&p, 1, SEND_MS) == 0)
            return -ETIMEDOUT; /* it does not read: the caller ends it */
        else if (errno != EAGAIN && errno != EINTR)
            return -errno;
    }
    return 0;
}

/* A whole line from what was read, or -EAGAIN. */
static int next_line(struct spawn *s, json_t **ret) {
    char *from = s->in.data ? s->in.data + s->line_start : NULL;
    char *end = from ? memchr(from, '\n', s->in.size - s->line_start) : NULL;

    if (!end)
        return -EAGAIN;
    *ret = json_loadb(from, (size_t)(end - from), 0, NULL);
    s->line_start = (size_t)(end + 1 - s->in.data);
    if (s->line_start == s->in.size)
        s->line_start = s->in.size = 0;
    return *ret ? 1 : -EBADMSG;
}

int spawn_read(struct spawn *s, int timeout_ms, json_t **ret) {
    for (;;) {
        struct pollfd p = {.fd = s->from, .events = POLLIN};
        char block[65536];
        ssize_t n;
        int r = next_line(s, ret);

        if (r != -EAGAIN)
            return r;
        r = poll(&p, 1, timeout_ms);
        if (r == 0 || (r < 0 && errno == EINTR))
            return -EAGAIN;
        n = r < 0 ? -1 : read(s->from, block, sizeof(block));
        if (n <= 0)
            return 0;
        if (s->line_start) {
            memmove(s->in.data, s->in.data + s->line_start, s->in.size - s->line_start);
            s->in.size -= s->line_start;
            s->line_start = 0;
        }
        if (buf_append(&s->in, block, (size_t)n) < 0)
            return -EBADMSG;
    }
}

pid_t spawn_pid(const struct spawn *s) {
    return s->pid;
}

void spawn_kill(struct spawn *s, int signal) {
    if (s->pid)
        kill(s->pid, signal);
}

void spawn_reap(struct spawn *s, char *ret_how, size_t size) {
    struct timespec pause = {0, 10000000};
    int status = 0, left = 500;

    while (s->pid && waitpid(s->pid, &status, left > 0 ? WNOHANG : 0) != s->pid) {
        if (--left == 0)
            kill(s->pid, SIGKILL);
        nanosleep(&pause, NULL);
    }
    s->pid = 0;
    if (WIFSIGNALED(status))
        snprintf(ret_how, size, "signal %d (%s)", WTERMSIG(status), sigdescr_np(WTERMSIG(status)));
    else
        snprintf(ret_how, size, "exit status %d", WEXITSTATUS(status));
}

/* The closed list of codes is static in the API; here only those a worker says. */
static const char *const codes[] = {"bad_request", "bad_json", "unknown_field", "bad_name", "invalid_model",
    "unsupported_operator", "shape_mismatch", "method_not_applicable", "data_required", "no_train_split",
    "preprocess_required", "classes_do_not_match", "not_a_classifier", "bad_dataset", "too_large",
    "requirement_not_met", "memory_budget", "disk_budget", "not_implemented", "cancelled", "time_limit",
    "internal"};

static const struct {
    const char *code;
    int err;
} code_errno[] = {{"bad_request", -EINVAL}, {"bad_json", -EINVAL}, {"unknown_field", -EINVAL},
    {"bad_name", -EINVAL}, {"too_large", -EFBIG}, {"memory_budget", -ENOMEM}, {"disk_budget", -ENOSPC},
    {"not_implemented", -EOPNOTSUPP}, {"cancelled", -ECANCELED}, {"internal", -EIO}};

const char *spawn_known_code(const char *code) {
    for (size_t i = 0; code && i < sizeof(codes) / sizeof(codes[0]); i++)
        if (!strcmp(codes[i], code))
            return codes[i];
    return "internal";
}

static int take_error(const json_t *e, struct error *err) {
    const char *text = json_string_value(json_object_get(e, "message"));
    const char *known = spawn_known_code(json_string_value(json_object_get(e, "code")));
    int r = -EBADMSG;

    for (size_t i = 0; i < sizeof(code_errno) / sizeof(code_errno[0]); i++)
        if (!strcmp(code_errno[i].code, known))
            r = code_errno[i].err;
    return error_code(err, r, known, "%s", text ? text : "the worker failed");
}

static int crashed(struct spawn *s, struct error *err) {
    char how[96];

    spawn_reap(s, how, sizeof(how));
    return error_code(err, -EIO, "worker_crashed", "the worker ended without a result: %s", how);
}

int spawn_call(const char *program, const json_t *job, unsigned limit_s, json_t **ret, struct error *err) {
    _cleanup_(spawn_freep) struct spawn *s = NULL;
    double end = clock_now_s() + limit_s;
    int r = spawn_start(program, -1, &s, err);

    if (r < 0)
        return r;
    if (spawn_send(s, job) < 0)
        return crashed(s, err);
    for (;;) {
        json_t *line = NULL, *done;
        int left_ms = (int)((end - clock_now_s()) * 1000);

        if (left_ms <= 0)
            return error_code(err, -ETIME, "time_limit", "the worker took more than %u s", limit_s);
        r = spawn_read(s, left_ms, &line);
        if (r == -EAGAIN)
            continue;
        if (r <= 0)
            return crashed(s, err);
        done = json_object_get(line, "done");
        if (done)
            *ret = json_incref(done);
        else if (json_object_get(line, "error"))
            r = take_error(json_object_get(line, "error"), err);
        json_decref(line);
        if (done || r < 0)
            return r < 0 ? r : 0;
    }
}
