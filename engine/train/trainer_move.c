/* The parameters of a trainer: gradients of all lanes together, the step, and the way back into a graph. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/hugemem.h"
#include "engine/train/trainer_priv.h"

size_t trainer_n_params(const struct trainer *t) {
    return t->tape.n_params;
}

const struct train_param *trainer_param(const struct trainer *t, size_t i) {
    return &t->tape.param[i];
}

void trainer_gradient(const struct trainer *t, size_t i, float *ret) {
    const struct train_param *p = &t->tape.param[i];

    if (p->is_stat)
        memset(ret, 0, (size_t)p->n * sizeof(*ret));
    else
        memcpy(ret, t->grad[0] + t->tape.param_at[i], (size_t)p->n * sizeof(*ret));
}

#define CHUNK 16384 /* elements of a gradient summed or measured at a time */

static int64_t chunk_size(int64_t n, unsigned chunk) {
    int64_t left = n - (int64_t)chunk * CHUNK;

    return left < CHUNK ? left : CHUNK;
}

static unsigned n_chunks(int64_t n) {
    return (unsigned)((n + CHUNK - 1) / CHUNK);
}

static void sum_chunk(void *ctx, unsigned chunk) {
    const struct trainer *t = ctx;
    int64_t n = chunk_size(t->tape.n_block, chunk), first = (int64_t)chunk * CHUNK;

    for (unsigned lane = 1; lane < t->options.lanes; lane++)
        train_store(t->grad[0] + first, t->grad[lane] + first, n, true);
}

void trainer_sum_lanes(struct trainer *t, struct pool *pool) {
    if (t->options.lanes > 1)
        pool_run(pool, n_chunks(t->tape.n_block), sum_chunk, t);
}

static void keep_chunk(void *ctx, unsigned chunk) {
    const struct trainer *t = ctx;
    int64_t first = (int64_t)chunk * CHUNK;

    train_store(t->kept + first, t->grad[0] + first, chunk_size(t->tape.n_grad, chunk), t->n_kept > 0);
}

bool trainer_keep_gradients(struct trainer *t, struct pool *pool) {
    if (!t->kept)
        t->kept = hugemem_new((size_t)t->tape.n_grad * sizeof(float));
    if (!t->kept)
        return false;
    pool_run(pool, n_chunks(t->tape.n_grad), keep_chunk, t);
    t->n_kept++;
    return true;
}

struct move {
    struct trainer *t;
    struct optim *o;
    float lr, factor; /* of the gradient: clipping */
    double *square;   /* [chunks] */
};

/* The gradients to move by, and the sum of their squares. */
static void measure_chunk(void *ctx, unsigned chunk) {
    const struct move *m = ctx;
    int64_t n = chunk_size(m->t->tape.n_grad, chunk), first = (int64_t)chunk * CHUNK;
    float *g = m->t->grad[0] + first, share = 1 / (float)(m->t->n_kept + 1);
    double square = 0;

    for (int64_t i = 0; m->t->n_kept && i < n; i++)
        g[i] = (m->t->kept[first + i] + g[i]) * share;
    for (int64_t i = 0; i < n; i++)
        square += (double)g[i] * (double)g[i];
    m->square[chunk] = square;
}

/* n elements of parameter i, from `first` on. */
static void move_part(const struct move *m, size_t i, int64_t first, int64_t n) {
    struct trainer *t = m->t;
    const struct train_param *p = &t->tape.param[i];
    int64_t at = t->tape.param_at[i] + first;
    float *g = t->grad[0] + at, *moment[4];

    for (int64_t k = 0; m->factor != 1 && k < n; k++)
        g[k] *= m->factor;
    for (unsigned k = 0; k < m->o->kind->n_moments; k++)
        moment[k] = m->o->moment + (int64_t)k * m->o->n + at;
    m->o->kind->move(&m->o->param, m->lr, p->decays ? m->o->param.weight_decay : 0, m->o->step, n,
        p->data + first, g, moment);
}

/* The parts of parameters whose gradients lie in a chunk: one large parameter is work for all threads. */
static void move_chunk(void *ctx, unsigned chunk) {
    const struct move *m = ctx;
    const struct tape *tape = &m->t->tape;
    int64_t first = (int64_t)chunk * CHUNK, end = first + chunk_size(tape->n_grad, chunk);

    for (size_t i = 0; i < tape->n_params; i++) {
        int64_t at = tape->param_at[i], from = at > first ? at : first, to = at + tape->param[i].n;

        to = to < end ? to : end;
        if (!tape->param[i].is_stat && from < to)
            move_part(m, i, from - at, to - from);
    }
}

bool trainer_move(struct trainer *t, struct pool *pool, struct optim *o, float lr) {
    unsigned chunks = n_chunks(t->tape.n_grad);
    _cleanup_(freep) double *square = calloc(chunks + 1, sizeof(double));
    struct move m = {.t = t, .o = o, .lr = lr, .factor = 1, .square = square};
    double sum = 0;

    if (!square)
        return false;
    pool_run(pool, chunks, measure_chunk, &m);
    t->n_kept = 0;
    for (unsigned i = 0; i < chunks; i++)
        sum += square[i];
    if (!isfinite(sum))
        return false;
    if (o->param.clip > 0 && sqrt(sum) > (double)o->param.clip)
        m.factor = (float)((double)o->param.clip / sqrt(sum));
    o->step++;
    pool_run(pool, chunks, move_chunk, &m);
    transforms_confine(&t->tape);
    t->n_moves++;
    return true;
}

int64_t trainer_n_gradients(const struct trainer *t) {
    return t->tape.n_grad;
}

uint64_t trainer_step_count(const struct trainer *t) {
    return t->n_moves;
}

void trainer_set_step_count(struct trainer *t, uint64_t n) {
    t->n_moves = n;
}

int trainer_save(const struct trainer *t, struct graph *g, struct error *err) {
    const struct tape *tape = &t->tape;

    transforms_forward(tape, NULL, t->n_moves, /* is_training= */ false);
    for (size_t i = 0; i < tape->n_params; i++) {
        const struct train_param *p = &tape->param[i];
        struct tensor init;
        void *copy;

        if (p->value < 0)
            continue;
        copy = graph_alloc(g, (size_t)p->n * sizeof(float));
        if (!copy)
            return error_oom(err);
        memcpy(copy, tape->value[p->value].t.data, (size_t)p->n * sizeof(float));
        init = *tape->graph->values[p->value].init;
        init.data = copy;
        if (graph_set_init(g, p->value, &init) < 0)
            return error_oom(err);
    }
    return 0;
}
