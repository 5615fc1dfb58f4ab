/* How much the outputs change when a part of one family's channels goes and nothing else: the squared error
 * of all outputs over their energy, on samples (Li et al. 2017, section 3.2, measures accuracy instead, which
 * needs labels and says less from few samples). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/probe.h"
#include "compress/prune_channel.h"
#include "compress/prune_remove.h"

#define SAMPLES 128

struct outputs {
    float *data; /* owned: of all samples, output by output */
    size_t n, cap;
    int e;
};

static void outputs_done(struct outputs *o) {
    free(o->data);
}

static void on_output(void *ctx, size_t k, const struct tensor *x) {
    struct outputs *o = ctx;
    int64_t count;

    (void)k;
    if (x->dtype != DT_F32 || !shape_count(&x->shape, &count) || o->e < 0)
        return;
    if (o->n + (size_t)count > o->cap) {
        size_t cap = 2 * (o->n + (size_t)count);
        float *more = reallocarray(o->data, cap, sizeof(*more));

        if (!more) {
            o->e = -ENOMEM;
            return;
        }
        o->data = more;
        o->cap = cap;
    }
    memcpy(o->data + o->n, x->data, (size_t)count * sizeof(float));
    o->n += (size_t)count;
}

static int run(const struct graph *g, const struct work *work, struct outputs *ret, struct error *err) {
    struct samples s = *work->samples;
    int r;

    s.n = s.n < SAMPLES ? s.n : SAMPLES;
    r = probe_run(g, g->outputs, g->n_outputs, &s, NULL, on_output, ret, err);
    return r < 0 ? r : ret->e < 0 ? error_oom(err) : 0;
}

static double damage(const struct outputs *a, const struct outputs *b) {
    double energy = 0, error = 0;

    for (size_t i = 0; i < a->n && i < b->n; i++) {
        double d = (double)a->data[i] - (double)b->data[i];

        energy += (double)a->data[i] * (double)a->data[i];
        error += d * d;
    }
    return energy > 0 ? error / energy : error;
}

/* With the first `n` of the family's channels gone. */
static int measure(const struct channel_net *net, const struct work *work, const struct channel_family *of,
    int n, const struct outputs *whole, double *ret, struct error *err) {
    _cleanup_(freep) bool *goes = calloc((size_t)net->c.n + 1, sizeof(*goes));
    _cleanup_(graph_freep) struct graph *copy = NULL;
    _cleanup_(outputs_done) struct outputs some = {0};
    int r = goes ? graph_clone(net->g, &copy, err) : error_oom(err);

    for (int i = 0; r == 0 && i < n; i++)
        goes[of->order[i]] = true;
    if (r == 0)
        r = prune_remove(copy, &net->c, goes, err);
    if (r == 0)
        r = run(copy, work, &some, err);
    if (r == 0)
        *ret = damage(whole, &some);
    return r;
}

int channel_sensitivity(struct channel_net *net, struct work *work, double **ret, struct error *err) {
    size_t n = (size_t)net->n_families * CHANNEL_STEPS;
    _cleanup_(freep) double *all = malloc((n + 1) * sizeof(*all));
    _cleanup_(outputs_done) struct outputs whole = {0};
    int r = all ? channel_sort(net, err) : error_oom(err);

    if (r == 0)
        r = run(net->g, work, &whole, err);
    for (int f = 0; f < net->n_families && r == 0; f++) {
        const struct channel_family *of = &net->of[f];

        r = progress_at(work->progress, (double)f / net->n_families, "measuring sensitivity", err);
        for (int step = 0; step < CHANNEL_STEPS && r == 0; step++) {
            int gone = of->n * (step + 1) / CHANNEL_STEPS;
            double *at = &all[f * CHANNEL_STEPS + step], least = step ? at[-1] : 0;

            *at = 1e30;
            if (gone == 0)
                *at = 0;
            else if (gone <= of->n_free && gone < of->n) {
                struct error e = {0};

                r = measure(net, work, of, gone, &whole, at, &e);
                if (r == -ESTALE)
                    r = 0; /* a value without channels */
                else if (r < 0)
                    error_copy(err, &e);
            }
            *at = *at < least ? least : *at;
        }
    }
    if (r == 0)
        *ret = TAKE(all);
    return r;
}
