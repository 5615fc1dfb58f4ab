/* Where the values of a tape lie: each span of time and size gets the lowest place that nothing alive at the
 * same time takes; the largest choose first. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/train/tape.h"

static void extend(struct tape_span *s, int time) {
    if (s->first < 0 || time < s->first)
        s->first = time;
    if (time > s->last)
        s->last = time;
}

static size_t lane_bytes(const struct tape_value *v) {
    size_t n = 0;

    (void)shape_bytes(&v->t.shape, v->t.dtype, &n); /* shapes_infer limits sizes */
    return (n + 63) / 64 * 64;
}

static void find_spans(struct tape *t) {
    int n = t->n_steps;

    extend(&t->value[t->input].span, 0);
    extend(&t->value[t->logits].span, 2 * n); /* trainer_output() reads it afterwards */
    extend(&t->value[t->logits].d_span, n);
    for (int i = n - 1; i >= 0; i--) { /* from behind: what comes back is known before its maker */
        struct tape_step *s = &t->step[i];

        for (int k = 0; k < s->n_in; k++) {
            struct tape_value *v = s->in[k] < 0 ? NULL : &t->value[s->in[k]];

            if (!v || !v->is_lane)
                continue;
            extend(&v->span, i);
            if (s->kernel->saves_in)
                extend(&v->span, 2 * n - i);
            if (s->wants[k])
                extend(&v->d_span, 2 * n - i);
        }
        for (int k = 0; k < s->n_out; k++) {
            struct tape_value *v = s->out[k] < 0 ? NULL : &t->value[s->out[k]];

            if (!v)
                continue;
            extend(&v->span, i);
            if (s->kernel->saves_out || s->needs.saves_out)
                extend(&v->span, 2 * n - i);
            if (v->d_span.first >= 0)
                extend(&v->d_span, 2 * n - i);
        }
        s->saved = (struct tape_span){
            .first = i, .last = 2 * n - i, .size = (s->needs.saved + 63) / 64 * 64, .shares = -1};
    }
}

static int root_of(const struct tape *t, int v, bool is_gradient) {
    for (;;) {
        int next = is_gradient ? t->value[v].d_span.shares : t->value[v].span.shares;

        if (next < 0)
            return v;
        v = next;
    }
}

/* What is not read any more after a step that can work in place is overwritten by it. */
static void share(struct tape *t) {
    int n = t->n_steps;

    for (int i = 0; i < n; i++) {
        struct tape_step *s = &t->step[i];
        int v = s->n_in ? s->in[s->needs.in_place] : -1, y = s->out[0];

        if (!s->kernel->is_in_place || v < 0 || y < 0 || !t->value[v].is_lane || v == t->input ||
            lane_bytes(&t->value[v]) != lane_bytes(&t->value[y]))
            continue;
        if (t->value[v].span.last <= i) {
            int root = root_of(t, v, false);

            t->value[y].span.shares = root;
            extend(&t->value[root].span, t->value[y].span.last);
        }
    }
    for (int i = n - 1; i >= 0; i--) {
        struct tape_step *s = &t->step[i];
        int k = s->needs.in_place, v = s->n_in ? s->in[k] : -1, y = s->out[0];

        if (!s->kernel->is_in_place || v < 0 || y < 0 || !t->value[v].is_lane || !s->wants[k] || s->adds[k] ||
            lane_bytes(&t->value[v]) != lane_bytes(&t->value[y]) || t->value[y].d_span.first < 0)
            continue;
        int root = root_of(t, y, true);

        t->value[v].d_span.shares = root;
        extend(&t->value[root].d_span, t->value[v].d_span.last);
    }
}

struct placing {
    struct tape_span **span;
    size_t n, cap;
};

static void list_span(struct placing *p, struct tape_span *s, size_t size) {
    if (s->first < 0 || s->shares >= 0 || size == 0)
        return;
    s->size = size;
    p->span[p->n++] = s;
}

static int by_size(const void *a, const void *b) {
    const struct tape_span *x = *(struct tape_span *const *)a, *y = *(struct tape_span *const *)b;

    if (x->size != y->size)
        return x->size < y->size ? 1 : -1;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* The lowest offset at which none of the first k spans is in the way. */
static size_t lowest(const struct placing *p, size_t k) {
    const struct tape_span *s = p->span[k];
    size_t at = 0;
    bool moved = true;

    while (moved) {
        moved = false;
        for (size_t i = 0; i < k; i++) {
            const struct tape_span *o = p->span[i];

            if (o->first > s->last || s->first > o->last || o->at >= at + s->size || at >= o->at + o->size)
                continue;
            at = o->at + o->size;
            moved = true;
        }
    }
    return at;
}

int tape_place(struct tape *t, struct error *err) {
    _cleanup_(freep) struct tape_span **list =
        calloc(2 * t->n_values + (size_t)t->n_steps + 1, sizeof(*list));
    struct placing p = {.span = list};
    size_t scratch = 0;

    if (!list)
        return error_oom(err);
    find_spans(t);
    share(t);
    for (size_t i = 0; i < t->n_values; i++) {
        if (!t->value[i].is_lane)
            continue;
        list_span(&p, &t->value[i].span, lane_bytes(&t->value[i]));
        list_span(&p, &t->value[i].d_span, lane_bytes(&t->value[i]));
    }
    for (int i = 0; i < t->n_steps; i++) {
        list_span(&p, &t->step[i].saved, t->step[i].saved.size);
        scratch = t->step[i].needs.scratch > scratch ? t->step[i].needs.scratch : scratch;
    }
    qsort(p.span, p.n, sizeof(*p.span), by_size);
    for (size_t i = 0; i < p.n; i++) {
        p.span[i]->at = lowest(&p, i);
        if (p.span[i]->at + p.span[i]->size > t->arena_size)
            t->arena_size = p.span[i]->at + p.span[i]->size;
    }
    for (size_t i = 0; i < t->n_values; i++) {
        t->value[i].span.at = t->value[root_of(t, (int)i, false)].span.at;
        t->value[i].d_span.at = t->value[root_of(t, (int)i, true)].d_span.at;
    }
    t->scratch_at = t->arena_size;
    t->arena_size += (scratch + 63) / 64 * 64;
    return 0;
}
