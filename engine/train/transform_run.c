#include "engine/train/transform_run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/hugemem.h"
#include "engine/train/tape.h"

#define PART 16384 /* elements of a part, at least */
#define RUN  64    /* channels that lie side by side in a part, at least */

/* ---- sites ---- */

/* The dimension of output channels in a parameter, as the operator reads it that comes first. */
static int channel_axis(const struct graph *g, int value, int rank) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        if (n->n_in < 2 || n->in[1] != value)
            continue;
        if (!strcmp(n->op_type, "ConvTranspose"))
            return 1;
        if (!strcmp(n->op_type, "MatMul") || (!strcmp(n->op_type, "Gemm") && !node_attr_int(n, "transB", 0)))
            return rank - 1;
        return 0;
    }
    return 0;
}

static void site_init(
    struct transform_site *s, const struct graph *g, int value, const float *data, int64_t n) {
    const struct shape *shape = &g->values[value].init->shape;
    int axis = shape->rank ? channel_axis(g, value, shape->rank) : 0;
    int64_t each;

    *s = (struct transform_site){.name = g->values[value].name, .data = data, .n = n};
    s->outer = s->inner = s->channels = 1;
    for (int i = 0; i < shape->rank; i++)
        *(i < axis ? &s->outer : i == axis ? &s->channels : &s->inner) *= shape->dim[i];
    each = s->outer * s->inner;
    s->part_channels = (PART + each - 1) / each;
    if (s->inner < 16 && s->part_channels < RUN)
        s->part_channels = RUN;
    s->n_parts = (unsigned)((s->channels + s->part_channels - 1) / s->part_channels);
}

/* ---- building ---- */

static int add_own(struct tape *t, struct transform_link *l, int k, struct error *err) {
    size_t size = strlen(l->site.name) + strlen(l->needs.own[k].name) + 2;
    struct train_param *p = reallocarray(t->param, t->n_params + 1, sizeof(*p));

    if (!p)
        return error_oom(err);
    t->param = p;
    p = &t->param[t->n_params];
    *p = (struct train_param){.value = -1, .n = l->needs.own[k].n, .decays = l->needs.own[k].decays};
    l->own_name[k] = malloc(size);
    if (!l->own_name[k])
        return error_oom(err);
    snprintf(l->own_name[k], size, "%s/%s", l->site.name, l->needs.own[k].name);
    p->name = l->own_name[k];
    p->data = hugemem_new((size_t)p->n * sizeof(float));
    if (!p->data)
        return error_oom(err);
    l->own[k] = (int)t->n_params++;
    return 0;
}

static int find_before(const struct transforms *t, int stored) {
    for (int i = t->n - 1; i >= 0; i--)
        if (t->link[i].stored == stored)
            return i;
    return -1;
}

static void fill_own(const struct tape *t, const struct transform_link *l, float **own) {
    for (int k = 0; k < l->needs.n_own; k++)
        own[k] = t->param[l->own[k]].data;
}

/* What was stored does not learn or decay any more where the row says so. */
static void change_stored(struct tape *t, struct transforms *all, struct transform_link *l) {
    struct train_param *p = &t->param[l->stored];

    if (l->needs.replaces) {
        p->is_stat = true;
        for (int i = l->before; i >= 0; i = all->link[i].before)
            all->link[i].is_behind = true;
    }
    p->decays = p->decays && !l->row->stops_decay;
}

static int add_link(struct tape *t, const struct weight_transform *w, struct error *err) {
    struct transforms *all = &t->transforms;
    struct transform_link *l = &all->link[all->n];
    bool is_value = w->value >= 0 && (size_t)w->value < t->graph->n_values;
    int stored = is_value ? t->value[w->value].param : -1, r;
    float *own[TRANSFORM_MAX_OWN];

    if (stored < 0 || (t->param[stored].is_stat && find_before(all, stored) < 0))
        return error_set(err, -EINVAL, "'%s' is no parameter that this session learns",
            is_value ? t->graph->values[w->value].name : "?");
    *l = (struct transform_link){.row = w->row, .param = w->param, .stored = stored};
    l->before = find_before(all, stored);
    l->depth = l->before < 0 ? 0 : all->link[l->before].depth + 1;
    all->n++; /* what it holds is freed from here on */
    site_init(&l->site, t->graph, w->value, t->param[stored].data, t->param[stored].n);
    r = l->row->prepare(&l->site, l->param, &l->needs, err);
    for (int k = 0; r == 0 && k < l->needs.n_own; k++)
        r = add_own(t, l, k, err);
    if (r < 0)
        return r;
    l->y = hugemem_new((size_t)l->site.n * sizeof(float));
    l->sums = calloc(l->needs.n_sums + 1, sizeof(*l->sums));
    if (!l->y || !l->sums)
        return error_oom(err);
    fill_own(t, l, own);
    if (l->row->start)
        l->row->start(&l->site, l->param, own);
    change_stored(t, all, l);
    t->value[w->value].t.data = l->y;
    all->n_depths = l->depth >= all->n_depths ? l->depth + 1 : all->n_depths;
    all->n_units += l->site.n_parts;
    all->bytes += (size_t)l->site.n * sizeof(float) + l->needs.n_sums * sizeof(double);
    return 0;
}

static int list_units(struct transforms *t, struct error *err) {
    size_t n = 0;

    t->unit = calloc(t->n_units + 1, sizeof(*t->unit));
    if (!t->unit)
        return error_oom(err);
    for (int depth = 0; depth < t->n_depths; depth++)
        for (int i = 0; i < t->n; i++)
            for (unsigned part = 0; t->link[i].depth == depth && part < t->link[i].site.n_parts; part++)
                t->unit[n++] = (struct transform_unit){i, part};
    return 0;
}

int transforms_build(struct tape *t, const struct weight_transform *list, size_t n, struct error *err) {
    int r = 0;

    t->transforms.link = calloc(n + 1, sizeof(*t->transforms.link));
    if (!t->transforms.link)
        return error_oom(err);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = add_link(t, &list[i], err);
    return r < 0 ? r : list_units(&t->transforms, err);
}

void transforms_done(struct transforms *t) {
    for (int i = 0; i < t->n; i++) {
        struct transform_link *l = &t->link[i];

        if (l->y)
            hugemem_free(l->y, (size_t)l->site.n * sizeof(float));
        free(l->sums);
        for (int k = 0; k < TRANSFORM_MAX_OWN; k++)
            free(l->own_name[k]);
    }
    free(t->link);
    free(t->unit);
}

/* ---- running ---- */

struct transform_run {
    const struct tape *tape;
    const struct transform_unit *unit;
    float *grad; /* backward */
    int phase;
    uint64_t step;
    bool is_training;
};

static void fill_io(
    const struct transform_run *run, const struct transform_link *l, struct transform_io *io) {
    const struct tape *t = run->tape;

    *io = (struct transform_io){.site = &l->site,
        .param = l->param,
        .x = l->before < 0 ? t->param[l->stored].data : t->transforms.link[l->before].y,
        .y = l->y,
        .sums = l->sums,
        .step = run->step,
        .is_training = run->is_training};
    fill_own(t, l, io->own);
    if (!run->grad)
        return;
    io->dy = run->grad + t->param_at[l->stored];
    io->dx = l->needs.replaces ? NULL : run->grad + t->param_at[l->stored];
    for (int k = 0; k < l->needs.n_own; k++)
        io->d_own[k] = run->grad + t->param_at[l->own[k]];
}

static void run_unit(void *ctx, unsigned i) {
    const struct transform_run *run = ctx;
    const struct transform_link *l = &run->tape->transforms.link[run->unit[i].link];
    struct transform_io io;

    if (run->phase >= (run->grad ? l->row->n_backward : l->row->n_forward) || (run->grad && l->is_behind))
        return;
    fill_io(run, l, &io);
    (run->grad ? l->row->backward : l->row->forward)(&io, run->phase, run->unit[i].part);
}

/* All transforms that stand equally far from their parameters, side by side. */
static void run_depth(struct transform_run *run, struct pool *pool, int depth) {
    const struct transforms *t = &run->tape->transforms;
    size_t first = 0, end;
    int n_phases = 0;

    while (first < t->n_units && t->link[t->unit[first].link].depth < depth)
        first++;
    for (end = first; end < t->n_units && t->link[t->unit[end].link].depth == depth; end++) {
        const struct transform *row = t->link[t->unit[end].link].row;
        int n = run->grad ? row->n_backward : row->n_forward;

        n_phases = n > n_phases ? n : n_phases;
    }
    run->unit = t->unit + first;
    for (run->phase = 0; run->phase < n_phases; run->phase++)
        pool_run(pool, (unsigned)(end - first), run_unit, run);
}

void transforms_forward(const struct tape *t, struct pool *pool, uint64_t step, bool is_training) {
    struct transform_run run = {.tape = t, .step = step, .is_training = is_training};

    for (int depth = 0; depth < t->transforms.n_depths; depth++)
        run_depth(&run, pool, depth);
}

void transforms_backward(const struct tape *t, struct pool *pool, float *grad, uint64_t step) {
    struct transform_run run = {.tape = t, .step = step, .is_training = true, .grad = grad};

    for (int depth = t->transforms.n_depths - 1; depth >= 0; depth--)
        run_depth(&run, pool, depth);
}

void transforms_confine(const struct tape *t) {
    for (int i = 0; i < t->transforms.n; i++) {
        const struct transform_link *l = &t->transforms.link[i];
        float *own[TRANSFORM_MAX_OWN];

        fill_own(t, l, own);
        if (l->row->confine)
            l->row->confine(&l->site, l->param, t->param[l->stored].data, own);
    }
}
