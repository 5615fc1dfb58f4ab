#include "compress/probe.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/net.h"

#define PROBE_BATCH 8

struct probe {
    struct net *net;
    struct plan *plan;
    struct arena arena;
    struct tensor *out;  /* all outputs of the copy, the graph's own first */
    size_t n_out, first; /* first: index of the first probed one */
    float *batch;
    int64_t planned; /* batch size of the plan */
};

static void probe_done(struct probe *p) {
    for (size_t i = 0; p->out && i < p->n_out; i++)
        free(p->out[i].data);
    free(p->out);
    free(p->batch);
    arena_done(&p->arena);
    plan_unref(p->plan);
    net_unref(p->net);
}

static int probe_open(
    struct probe *p, const struct graph *g, const int *values, size_t n, struct error *err) {
    struct net_options options = {0};
    struct graph *copy = NULL;
    int *outputs, r;

    r = cpu_detect(NULL, &options.cpu, err);
    if (r < 0)
        return r;
    r = graph_clone(g, &copy, err);
    if (r < 0)
        return r;
    p->first = copy->n_outputs;
    outputs = graph_alloc(copy, (copy->n_outputs + n) * sizeof(*outputs));
    if (!outputs) {
        graph_free(copy);
        return error_oom(err);
    }
    memcpy(outputs, copy->outputs, copy->n_outputs * sizeof(*outputs));
    for (size_t k = 0; k < n; k++) {
        outputs[copy->n_outputs + k] = values[k];
        copy->values[values[k]].is_output = true;
    }
    copy->outputs = outputs;
    copy->n_outputs += n;
    return net_new(copy, &options, &p->net, err);
}

static int probe_plan(struct probe *p, const struct samples *s, int64_t batch, struct error *err) {
    struct shape shape = s->item;
    int r;

    shape.dim[0] = batch;
    p->plan = plan_unref(p->plan);
    r = net_plan(p->net, &shape, 1, &p->plan, err);
    if (r < 0)
        return r;
    r = arena_reserve(&p->arena, plan_arena_size(p->plan), err);
    if (r < 0)
        return r;
    for (size_t i = 0; p->out && i < p->n_out; i++)
        free(p->out[i].data);
    free(p->out);
    p->n_out = plan_n_outputs(p->plan);
    p->out = calloc(p->n_out, sizeof(*p->out));
    if (!p->out)
        return error_oom(err);
    for (size_t i = 0; i < p->n_out; i++) {
        size_t size;

        p->out[i] = *plan_output(p->plan, i);
        if (!shape_bytes(&p->out[i].shape, p->out[i].dtype, &size))
            return error_set(err, -EFBIG, "a calibrated value is too large");
        p->out[i].data = aligned_alloc(64, (size + 64) & ~(size_t)63);
        if (!p->out[i].data)
            return error_oom(err);
    }
    p->planned = batch;
    return 0;
}

static int run_batch(
    struct probe *p, const struct samples *s, int64_t first, int64_t count, struct error *err) {
    struct tensor in = {.dtype = DT_F32, .shape = s->item, .data = p->batch};
    int r;

    in.shape.dim[0] = count;
    if (p->planned != count) {
        r = probe_plan(p, s, count, err);
        if (r < 0)
            return r;
    }
    r = s->read(s->ctx, first, count, p->batch, err);
    if (r < 0)
        return r;
    plan_run(p->plan, &p->arena, &in, p->out, NULL, NULL);
    return 0;
}

int probe_run(const struct graph *g, const int *values, size_t n_values, const struct samples *s,
    const struct progress *progress, probe_fn *fn, void *ctx, struct error *err) {
    _cleanup_(probe_done) struct probe p = {0};
    int64_t item, batch = g->values[g->inputs[0]].shape.dim[0] > 0 ? 1 : PROBE_BATCH;
    int r = probe_open(&p, g, values, n_values, err);

    if (r < 0)
        return r;
    if (!shape_count(&s->item, &item) || item > INT32_MAX)
        return error_set(err, -EFBIG, "the network's input is too large to calibrate");
    p.batch = aligned_alloc(64, ((size_t)(item * batch) * sizeof(float) + 64) & ~(size_t)63);
    if (!p.batch)
        return error_oom(err);
    for (int64_t first = 0; first < s->n; first += batch) {
        int64_t count = s->n - first < batch ? s->n - first : batch;

        r = run_batch(&p, s, first, count, err);
        if (r < 0)
            return r;
        for (size_t k = 0; k < n_values; k++)
            fn(ctx, k, &p.out[p.first + k]);
        r = progress_at(progress, (double)(first + count) / (double)s->n, "calibrating", err);
        if (r < 0)
            return r;
    }
    return 0;
}
