#include "compress/probe.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/session.h"

#define PROBE_BATCH 8

/* A copy of the graph whose outputs are the probed values, without what none of them needs. */
static int copy_with_outputs(
    const struct graph *g, const int *values, size_t n, struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *copy = NULL;
    int r = graph_clone(g, &copy, err);

    if (r < 0)
        return r;
    for (size_t k = 0; k < copy->n_outputs; k++)
        copy->values[copy->outputs[k]].is_output = false;
    copy->n_outputs = 0;
    for (size_t k = 0; k < n; k++) {
        if (graph_add_output(copy, values[k]) < 0)
            return error_oom(err);
    }
    if (graph_drop_unused(copy) < 0)
        return error_oom(err);
    *ret = TAKE(copy);
    return 0;
}

static int run_batch(
    struct session *session, const struct samples *s, struct tensor *in, int64_t first, struct error *err) {
    int r = session_plan(session, &in->shape, 1, err);

    if (r < 0)
        return r;
    r = s->read(s->ctx, first, in->shape.dim[0], in->data, err);
    if (r < 0)
        return r;
    session_run(session, in);
    return 0;
}

int probe_run(const struct graph *g, const int *values, size_t n_values, const struct samples *s,
    const struct progress *progress, probe_fn *fn, void *ctx, struct error *err) {
    _cleanup_(session_done) struct session session = {0};
    int64_t item, batch = g->values[g->inputs[0]].shape.dim[0] > 0 ? 1 : PROBE_BATCH;
    struct tensor in = {.dtype = DT_F32, .shape = s->item};
    _cleanup_(freep) float *data = NULL;
    struct graph *copy = NULL;
    int r = copy_with_outputs(g, values, n_values, &copy, err);

    if (r < 0)
        return r;
    r = session_open_graph(copy, &session, err);
    if (r < 0)
        return r;
    if (!shape_count(&s->item, &item) || item > INT32_MAX)
        return error_set(err, -EFBIG, "the network's input is too large to calibrate");
    in.data = data = alloc_aligned((size_t)(item * batch) * sizeof(float));
    if (!data)
        return error_oom(err);
    for (int64_t first = 0; first < s->n; first += batch) {
        in.shape.dim[0] = s->n - first < batch ? s->n - first : batch;
        r = run_batch(&session, s, &in, first, err);
        if (r < 0)
            return r;
        for (size_t k = 0; k < n_values; k++)
            fn(ctx, k, &session.out[k]);
        r = progress_at(progress, (double)(first + in.shape.dim[0]) / (double)s->n, "calibrating", err);
        if (r < 0)
            return r;
    }
    return 0;
}
