#include "compress/input_energy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/channel_stats.h"
#include "compress/probe.h"

/* Of the mean: what the samples leave dark may be bright in other pictures. */
#define LEAST_SHARE 0.01

struct seen {
    size_t n;
    int *value; /* [n]: inputs of layers, each once */
    struct channel_stats *stats;
    struct error *err;
};

static void seen_done(struct seen *s) {
    for (size_t i = 0; s->stats && i < s->n; i++)
        channel_stats_done(&s->stats[i]);
    free(s->stats);
    free(s->value);
}

static void on_value(void *ctx, size_t k, const struct tensor *x) {
    struct seen *s = ctx;

    if (x->dtype == DT_F32 && x->shape.rank > 0)
        channel_stats_add(&s->stats[k], x, s->err);
}

static int take(const struct channel_stats *s, struct input_energy *ret, struct error *err) {
    double mean = 0;

    if (s->n == 0)
        return 0;
    ret->channel = malloc((size_t)s->n * sizeof(*ret->channel) + 1);
    if (!ret->channel)
        return error_oom(err);
    ret->n = s->n;
    for (int64_t c = 0; c < s->n; c++)
        mean += s->square[c] / s->count / (double)s->n;
    for (int64_t c = 0; c < s->n; c++)
        ret->channel[c] = (float)fmax(s->square[c] / s->count, LEAST_SHARE * mean);
    return 0;
}

static size_t place_of(struct seen *s, int value) {
    for (size_t k = 0; k < s->n; k++)
        if (s->value[k] == value)
            return k;
    s->value[s->n] = value;
    return s->n++;
}

int input_energies_find(
    struct work *work, const struct layers *layers, struct input_energies *ret, struct error *err) {
    _cleanup_(seen_done) struct seen s = {.err = err};
    _cleanup_(input_energies_done) struct input_energies e = {0};
    _cleanup_(freep) size_t *place = calloc(layers->n + 1, sizeof(*place));
    const struct graph *g = work->graph;
    int r = 0;

    s.value = calloc(layers->n + 1, sizeof(*s.value));
    s.stats = calloc(layers->n + 1, sizeof(*s.stats));
    e.layer = calloc(layers->n + 1, sizeof(*e.layer));
    if (!place || !s.value || !s.stats || !e.layer)
        return error_oom(err);
    for (size_t i = 0; i < layers->n; i++)
        if (layers->entry[i].is_selected) {
            place[e.n] = place_of(&s, g->nodes[layers->entry[i].node].in[0]);
            e.layer[e.n++].id = layers->entry[i].id;
        }
    if (s.n > 0)
        r = probe_run(g, s.value, s.n, work->samples, work->progress, on_value, &s, err);
    if (r == 0 && err && err->err)
        r = err->err;
    for (size_t i = 0; r == 0 && i < e.n; i++)
        r = take(&s.stats[place[i]], &e.layer[i], err);
    if (r < 0)
        return r;
    *ret = e;
    e = (struct input_energies){0};
    return 0;
}

void input_energies_done(struct input_energies *e) {
    for (size_t i = 0; i < e->n; i++)
        free(e->layer[i].channel);
    free(e->layer);
    *e = (struct input_energies){0};
}

const struct input_energy *input_energy_of(const struct input_energies *e, const char *id) {
    for (size_t i = 0; e && i < e->n; i++)
        if (strcmp(e->layer[i].id, id) == 0)
            return e->layer[i].channel ? &e->layer[i] : NULL;
    return NULL;
}
