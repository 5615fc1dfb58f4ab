#include "compress/output_damage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compress/probe.h"

struct comparison {
    const struct output_reference *to;
    size_t at;
    double apart, all; /* sums of squares */
    bool is_odd;
};

void output_reference_done(struct output_reference *r) {
    free(r->data);
    *r = (struct output_reference){0};
}

static bool count_floats(const struct tensor *t, size_t *ret) {
    int64_t n;

    if (t->dtype != DT_F32 || !shape_count(&t->shape, &n))
        return false;
    *ret = (size_t)n;
    return true;
}

static void on_parent(void *ctx, size_t k, const struct tensor *t) {
    struct output_reference *r = ctx;
    size_t n;

    (void)k;
    if (!count_floats(t, &n))
        return;
    if (r->n + n > r->room) {
        size_t room = 2 * (r->n + n);
        float *bigger = realloc(r->data, room * sizeof(*bigger));

        if (!bigger)
            return; /* what is missing makes every comparison odd */
        r->data = bigger;
        r->room = room;
    }
    memcpy(r->data + r->n, t->data, n * sizeof(float));
    r->n += n;
}

int output_reference_init(struct output_reference *r, const struct graph *parent,
    const struct samples *samples, int64_t most, struct error *err) {
    *r = (struct output_reference){.samples = *samples};
    r->samples.n = samples->n > most ? most : samples->n;
    return probe_run(parent, parent->outputs, parent->n_outputs, &r->samples, NULL, on_parent, r, err);
}

static void on_changed(void *ctx, size_t k, const struct tensor *t) {
    struct comparison *c = ctx;
    size_t n;

    (void)k;
    if (c->is_odd || !count_floats(t, &n) || c->at + n > c->to->n) {
        c->is_odd = true;
        return;
    }
    for (size_t i = 0; i < n; i++, c->at++) {
        double want = (double)c->to->data[c->at], d = (double)((const float *)t->data)[i] - want;

        c->apart += d * d;
        c->all += want * want;
    }
}

int output_damage(
    const struct output_reference *r, const struct graph *changed, double *ret, struct error *err) {
    struct comparison c = {.to = r};
    int e = probe_run(changed, changed->outputs, changed->n_outputs, &r->samples, NULL, on_changed, &c, err);

    if (e < 0)
        return e;
    if (c.is_odd || c.at != r->n)
        return error_set(err, -EINVAL, "the outputs are not the parent's any more");
    *ret = c.all > 0 ? c.apart / c.all : 0;
    return 0;
}
