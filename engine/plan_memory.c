#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "engine/plan.h"

static void use(struct plan *p, int form, int step, bool defines) {
    struct buffer *b;

    if (form < 0)
        return;
    b = &p->buffers[p->forms[form].buffer];
    if (defines && b->last < 0 && b->kind == BUFFER_ARENA)
        b->first = step;
    if (b->last < step)
        b->last = step;
}

static void find_lifetimes(struct plan *p) {
    for (size_t i = 0; i < p->n_steps; i++) {
        const struct step *s = &p->steps[i];

        for (int k = 0; k < s->n_out; k++)
            use(p, s->out[k], (int)i, true);
        for (int k = 0; k < s->n_in; k++)
            use(p, s->in[k], (int)i, false);
        for (int k = 0; k < s->n_post; k++)
            use(p, s->post_in[k], (int)i, false);
    }
    for (size_t i = 0; i < p->n_outputs; i++)
        use(p, p->output_forms[i], (int)p->n_steps, false);
}

/* How often the step reads buffer `b`. */
static int count_reads(const struct plan *p, const struct step *s, int b) {
    int n = 0;

    for (int k = 0; k < s->n_in; k++)
        n += s->in[k] >= 0 && p->forms[s->in[k]].buffer == b;
    for (int k = 0; k < s->n_post; k++)
        n += s->post_in[k] >= 0 && p->forms[s->post_in[k]].buffer == b;
    return n;
}

/* May the result of step `index` be written over form `over`, which the step reads? */
static bool can_overwrite(const struct plan *p, int index, int over) {
    const struct step *s = &p->steps[index];
    const struct buffer *b;

    if (over < 0 || s->n_out < 1 || s->out[0] < 0)
        return false;
    b = &p->buffers[p->forms[over].buffer];
    return b->kind == BUFFER_ARENA && b->last == index &&
           p->forms[over].type.layout == p->forms[s->out[0]].type.layout &&
           b->size == p->buffers[p->forms[s->out[0]].buffer].size &&
           count_reads(p, s, p->forms[over].buffer) == 1;
}

static void merge(struct plan *p, int from, int into) {
    p->buffers[from].shared = into;
    if (p->buffers[into].last < p->buffers[from].last)
        p->buffers[into].last = p->buffers[from].last;
    for (size_t i = 0; i < p->n_forms; i++) {
        if (p->forms[i].buffer == from)
            p->forms[i].buffer = into;
    }
}

static void share_step(struct plan *p, int index) {
    struct step *s = &p->steps[index];

    for (int k = 0; s->kernel->can_sum_in_place && k < s->n_post; k++) {
        if (can_overwrite(p, index, s->post_in[k])) {
            s->in_place_post = k;
            merge(p, p->forms[s->out[0]].buffer, p->forms[s->post_in[k]].buffer);
            return;
        }
    }
    if (s->kernel->can_run_in_place && s->n_in > 0 && can_overwrite(p, index, s->in[0]))
        merge(p, p->forms[s->out[0]].buffer, p->forms[s->in[0]].buffer);
}

int plan_share_buffers(struct plan *p) {
    find_lifetimes(p);
    for (size_t i = 0; i < p->n_steps; i++)
        share_step(p, (int)i);
    return 0;
}

static bool overlap_in_time(const struct buffer *a, const struct buffer *b) {
    return a->first <= b->last && b->first <= a->last;
}

static int by_offset(const void *a, const void *b) {
    const struct buffer *x = *(const struct buffer *const *)a, *y = *(const struct buffer *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int by_size(const void *a, const void *b) {
    const struct buffer *x = *(const struct buffer *const *)a, *y = *(const struct buffer *const *)b;

    if (x->size != y->size)
        return x->size > y->size ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* The lowest gap among buffers that live at the same time (`near`, sorted by offset). */
static size_t find_gap(const struct buffer *const *near, size_t n, size_t size, size_t start) {
    size_t at = start;

    for (size_t i = 0; i < n; i++) {
        size_t end = near[i]->offset + (near[i]->size + 63) / 64 * 64;

        if (near[i]->offset >= at && near[i]->offset - at >= size)
            break;
        if (end > at)
            at = end;
    }
    return at;
}

static bool is_in_arena(const struct buffer *b) {
    return b->kind != BUFFER_CONST && b->shared < 0 && b->last >= 0;
}

/* Largest first, each at the lowest offset free during its life: within a few per cent of the optimum on
 * CNNs (Pisarchyk and Lee 2020, "greedy by size"). */
int plan_place_buffers(struct plan *p, struct error *err) {
    _cleanup_(freep) struct buffer **order = calloc(p->n_buffers + 1, sizeof(struct buffer *));
    _cleanup_(freep) const struct buffer **near = calloc(p->n_buffers + 1, sizeof(struct buffer *));
    size_t n = 0;

    if (!order || !near)
        return error_oom(err);
    for (size_t i = 0; i < p->n_buffers; i++) {
        if (is_in_arena(&p->buffers[i]))
            order[n++] = &p->buffers[i];
    }
    qsort(order, n, sizeof(struct buffer *), by_size);
    p->table_size = (p->n_buffers * sizeof(void *) + p->n_counted * sizeof(struct shape) + 63) / 64 * 64;
    p->arena_size = p->table_size;
    for (size_t i = 0; i < n; i++) {
        size_t n_near = 0, end;

        for (size_t k = 0; k < i; k++) {
            if (overlap_in_time(order[i], order[k]))
                near[n_near++] = order[k];
        }
        qsort(near, n_near, sizeof(struct buffer *), by_offset);
        order[i]->offset = find_gap(near, n_near, order[i]->size, p->table_size);
        if (__builtin_add_overflow(order[i]->offset, order[i]->size, &end))
            return error_set(err, -EFBIG, "the model needs too much memory");
        if (end > p->arena_size)
            p->arena_size = end;
    }
    return 0;
}
