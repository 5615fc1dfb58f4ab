#include "compress/session.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/pool.h"

void *alloc_aligned(size_t size) {
    return size > SIZE_MAX - 64 ? NULL : aligned_alloc(64, (size + 64) & ~(size_t)63);
}

static void free_outputs(struct session *s) {
    for (size_t i = 0; s->out && i < s->n_out; i++)
        free(s->out[i].data);
    free(s->out);
    s->out = NULL;
    s->n_out = 0;
}

void session_done(struct session *s) {
    free_outputs(s);
    arena_done(&s->arena);
    plan_unref(s->plan);
    net_unref(s->net);
    pool_free(s->pool);
    *s = (struct session){0};
}

int session_open_file(
    const char *path, const struct net_options *o, unsigned threads, struct session *ret, struct error *err) {
    _cleanup_(session_done) struct session s = {.threads = threads ? threads : 1};
    struct net_options options = o ? *o : (struct net_options){0};
    _cleanup_(closep) int fd = -1;
    int r = cpu_detect(getenv("BONSAI_CPU_HIDE"), &options.cpu, err);

    if (r < 0)
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, "the model file cannot be opened");
    r = net_open_fd(fd, &options, &s.net, err);
    if (r < 0)
        return r;
    if (s.threads > 1) {
        r = pool_new(s.threads, &s.pool, err);
        if (r < 0)
            return r;
    }
    *ret = s;
    s = (struct session){0};
    return 0;
}

int session_open_graph(struct graph *g, struct session *ret, struct error *err) {
    struct session s = {.threads = 1};
    struct net_options options = {0};
    int r = cpu_detect(getenv("BONSAI_CPU_HIDE"), &options.cpu, err);

    if (r < 0) {
        graph_free(g);
        return r;
    }
    r = net_new(g, &options, &s.net, err);
    if (r < 0)
        return r;
    *ret = s;
    return 0;
}

static int alloc_outputs(struct session *s, struct error *err) {
    free_outputs(s);
    s->out = calloc(plan_n_outputs(s->plan) + 1, sizeof(*s->out));
    if (!s->out)
        return error_oom(err);
    s->n_out = plan_n_outputs(s->plan);
    for (size_t i = 0; i < s->n_out; i++) {
        size_t size;

        s->out[i] = *plan_output(s->plan, i);
        s->out[i].data = NULL;
        if (!shape_bytes(&s->out[i].shape, s->out[i].dtype, &size))
            return error_set(err, -EFBIG, "output %zu is too large", i);
        s->out[i].data = alloc_aligned(size);
        if (!s->out[i].data)
            return error_oom(err);
    }
    return 0;
}

int session_plan(struct session *s, const struct shape *inputs, size_t n, struct error *err) {
    struct plan *plan = NULL;
    int r;

    if (n != net_graph(s->net)->n_inputs)
        return error_set(
            err, -EINVAL, "the model has %zu inputs, %zu were given", net_graph(s->net)->n_inputs, n);
    r = net_plan(s->net, inputs, s->threads, &plan, err);
    if (r < 0)
        return r;
    if (plan == s->plan) { /* the net's cache gave the same one */
        plan_unref(plan);
        return 0;
    }
    plan_unref(s->plan);
    s->plan = plan;
    r = arena_reserve(&s->arena, plan_arena_size(plan), err);
    return r < 0 ? r : alloc_outputs(s, err);
}

void session_run(struct session *s, const struct tensor *in) {
    plan_run(s->plan, &s->arena, in, s->out, s->pool, NULL);
}
