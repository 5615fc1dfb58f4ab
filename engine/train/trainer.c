#include "engine/train/trainer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "engine/hugemem.h"
#include "engine/train/bf16.h"
#include "engine/train/session.h"
#include "engine/train/trainer_priv.h"

static void *at(const struct trainer *t, unsigned lane, size_t offset) {
    return t->arena[lane] + offset;
}

/* Bytes of a lane's outputs and their gradient in plain layout, where they lie channels last; 0: they do not.
 */
static size_t turned_size(const struct trainer *t) {
    const struct shape *s = &t->tape.value[t->tape.logits].t.shape;
    int64_t plane = 1;

    for (int i = 2; i < s->rank; i++)
        plane *= s->dim[i];
    return plane > 1 && s->dim[1] > 1 ? (size_t)train_count(s) * 2 * sizeof(float) : 0;
}

static void lanes_free(struct trainer *t) {
    for (unsigned i = 0; i < t->options.lanes && i < TRAINER_MAX_LANES; i++) {
        if (t->arena[i])
            hugemem_free(t->arena[i], t->lane_size);
        if (t->plain[i])
            hugemem_free(t->plain[i], (size_t)(t->lane_batch * t->item) * sizeof(float));
        if (t->grad[i])
            hugemem_free(t->grad[i], (size_t)t->tape.n_block * sizeof(float));
        if (t->turned[i])
            hugemem_free(t->turned[i], turned_size(t));
    }
}

struct trainer *trainer_free(struct trainer *t) {
    if (!t)
        return NULL;
    lanes_free(t);
    if (t->kept)
        hugemem_free(t->kept, (size_t)t->tape.n_grad * sizeof(float));
    free(t->us);
    tape_done(&t->tape);
    graph_free(t->session);
    free(t);
    return NULL;
}

static int lanes_new(struct trainer *t, struct error *err) {
    t->lane_size = t->tape.arena_size + 64;
    for (unsigned i = 0; i < t->options.lanes; i++) {
        t->arena[i] = hugemem_new(t->lane_size);
        t->plain[i] = hugemem_new((size_t)(t->lane_batch * t->item) * sizeof(float));
        t->grad[i] = hugemem_new((size_t)t->tape.n_block * sizeof(float));
        t->turned[i] = turned_size(t) ? hugemem_new(turned_size(t)) : NULL;
        if (!t->arena[i] || !t->plain[i] || !t->grad[i] || (turned_size(t) && !t->turned[i]))
            return error_oom(err);
    }
    return 0;
}

/* The processor, the library or the network may not know bfloat16: then the same in floats, and why. */
static int build(struct trainer *t, const struct graph *g, const struct shape *item, struct error *err) {
    struct trainer_options o = t->options;
    struct error why = {0};
    struct cpu cpu;
    int r = 0;

    if (!o.bf16)
        return tape_build(g, item, &o, &t->tape, err);
    if (!o.cpu)
        r = cpu_detect(NULL, &cpu, err);
    if (r < 0)
        return r;
    if (!(o.cpu ? o.cpu : &cpu)->avx512_bf16)
        r = error_set(&why, -EOPNOTSUPP, "this processor has no instructions for bfloat16");
    if (r == 0)
        r = tape_build(g, item, &o, &t->tape, &why);
    if (r == 0 && t->tape.n_bf16 == 0)
        r = error_set(&why, -EOPNOTSUPP, "no value lies between layers that know bfloat16");
    if (r == 0)
        return 0;
    if (r != -EOPNOTSUPP)
        return error_copy(err, &why);
    tape_done(&t->tape);
    o.bf16 = false;
    t->why_float = why;
    return tape_build(g, item, &o, &t->tape, err);
}

int trainer_new(const struct graph *g, const struct shape *item, const struct trainer_options *o,
    struct trainer **ret, struct error *err) {
    _cleanup_(trainer_freep) struct trainer *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return error_oom(err);
    t->options = *o;
    t->options.lanes = o->lanes ? o->lanes : 4;
    if (t->options.lanes > TRAINER_MAX_LANES || o->batch < 1 || o->batch % t->options.lanes)
        return error_set(err, -EINVAL, "a batch of %lld cannot be cut into %u lanes", (long long)o->batch,
            t->options.lanes);
    t->lane_batch = o->batch / t->options.lanes;
    t->item = train_count(item);
    r = session_graph_new(g, item, o, &t->session, err);
    if (r == 0)
        r = build(t, t->session ? t->session : g, item, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < t->tape.n_params; i++)
        if (t->tape.param[i].value >= (int)g->n_values) /* of a node that the session added */
            t->tape.param[i].value = -1;
    t->outputs = train_count(&t->tape.value[t->tape.logits].t.shape) / t->lane_batch;
    r = lanes_new(t, err);
    if (r < 0)
        return r;
    *ret = TAKE(t);
    return 0;
}

const char *trainer_why_float(const struct trainer *t) {
    return t->why_float.text[0] ? t->why_float.text : NULL;
}

size_t trainer_bytes(const struct trainer *t) {
    size_t lane = t->lane_size + (size_t)(t->lane_batch * t->item + t->tape.n_block) * sizeof(float) +
                  turned_size(t),
           all = t->tape.transforms.bytes;

    for (size_t i = 0; i < t->tape.n_params; i++)
        all += (size_t)t->tape.param[i].n * sizeof(float);
    return all + lane * t->options.lanes;
}

float *trainer_input(struct trainer *t, int64_t i) {
    return t->plain[i / t->lane_batch] + i % t->lane_batch * t->item;
}

const float *trainer_output(const struct trainer *t, int64_t i) {
    unsigned lane = (unsigned)(i / t->lane_batch);
    const struct tape_value *v = &t->tape.value[t->tape.logits];
    const float *first = t->turned[lane] ? t->turned[lane] : at(t, lane, v->span.at);

    return first + i % t->lane_batch * t->outputs;
}

int64_t trainer_n_outputs(const struct trainer *t) {
    return t->outputs;
}

/* ---- running the program ---- */

struct call {
    struct trainer *t;
    const struct loss *loss;
    const float *targets;
    struct pool *pool;
    size_t last;                    /* items of the program: up to here */
    size_t next[TRAINER_MAX_LANES]; /* where each lane is */
};

/* Pointers of a step in a lane. */
struct bound {
    const void *in[TRAIN_MAX_IO], *d_out[TRAIN_MAX_IO];
    void *out[TRAIN_MAX_IO], *d_in[TRAIN_MAX_IO], *stats[TRAIN_MAX_IO];
};

static void bind(const struct trainer *t, const struct tape_step *s, unsigned lane, struct bound *b) {
    const struct tape *tape = &t->tape;

    for (int k = 0; k < s->n_in; k++) {
        const struct tape_value *v = s->in[k] < 0 ? NULL : &tape->value[s->in[k]];

        b->in[k] = !v ? NULL : v->is_lane ? at(t, lane, v->span.at) : v->t.data;
        b->d_in[k] = b->stats[k] = NULL;
        if (!v)
            continue;
        if (v->param >= 0 && tape->param[v->param].is_stat && !v->wants)
            b->stats[k] = v->t.data;
        if (s->wants[k])
            b->d_in[k] = v->param >= 0 ? (void *)(t->grad[lane] + tape->param_at[v->param])
                                       : at(t, lane, v->d_span.at);
    }
    for (int k = 0; k < s->n_out; k++) {
        const struct tape_value *v = s->out[k] < 0 ? NULL : &tape->value[s->out[k]];

        b->out[k] = v ? at(t, lane, v->span.at) : NULL;
        b->d_out[k] = v && v->d_span.first >= 0 ? at(t, lane, v->d_span.at) : NULL;
    }
}

static void run_item(const struct call *c, const struct tape_item *item, unsigned lane) {
    struct trainer *t = c->t;
    const struct tape_step *s = &t->tape.step[item->step];
    struct bound b;
    struct train_io io = {.lane = lane,
        .in = b.in,
        .out = b.out,
        .d_out = b.d_out,
        .d_in = b.d_in,
        .adds = s->adds,
        .stats = b.stats,
        .scratch = at(t, lane, t->tape.scratch_at),
        .saved = at(t, lane, s->saved.at),
        .shared = s->shared};

    bind(t, s, lane, &b);
    if (item->pass == TAPE_FORWARD)
        s->kernel->forward(s->state, &io, item->phase);
    else
        s->kernel->backward(s->state, &io, item->phase);
}

/* Outputs where trainer_output() reads them. */
static void show_outputs(struct trainer *t, unsigned lane) {
    const struct tape_value *v = &t->tape.value[t->tape.logits];

    if (t->turned[lane])
        train_to_plain(&v->t.shape, at(t, lane, v->span.at), t->turned[lane], false);
}

static void run_loss(const struct call *c, unsigned lane) {
    struct trainer *t = c->t;
    const struct tape_value *v = &t->tape.value[t->tape.logits];
    int64_t n_targets = t->outputs * c->loss->kind->n_targets, first = (int64_t)lane * t->lane_batch;
    const float *o = trainer_output(t, first), *y = c->targets + first * n_targets;
    float *d = t->turned[lane] ? t->turned[lane] + t->lane_batch * t->outputs : at(t, lane, v->d_span.at);
    float scale = 1 / (float)t->options.batch;
    double sum = 0;

    show_outputs(t, lane);
    for (int64_t i = 0; i < t->lane_batch; i++)
        sum += c->loss->kind->run(
            &c->loss->param, o + i * t->outputs, y + i * n_targets, t->outputs, scale, d + i * t->outputs);
    if (t->turned[lane])
        train_from_plain(&v->t.shape, d, at(t, lane, v->d_span.at), false);
    t->loss[lane] = sum;
}

/* Up to c->last, or to where this thread is one too many: another one goes on with the lane. */
static void run_lane(void *ctx, unsigned lane) {
    struct call *c = ctx;
    size_t *next = &c->next[lane];

    if (*next == 0) {
        const struct tape_value *v = &c->t->tape.value[c->t->tape.input];

        if (v->t.dtype == DT_BF16)
            train_from_plain_bf16(&v->t.shape, c->t->plain[lane], at(c->t, lane, v->span.at));
        else
            train_from_plain(&v->t.shape, c->t->plain[lane], at(c->t, lane, v->span.at), false);
    }
    while (*next < c->last) {
        const struct tape_item *item = &c->t->tape.program[*next];
        double begin = c->t->us ? clock_now_us() : 0;

        if (item->pass == TAPE_LOSS)
            run_loss(c, lane);
        else
            run_item(c, item, lane);
        if (c->t->us)
            c->t->us[lane * c->t->tape.n_items + *next] += clock_now_us() - begin;
        ++*next;
        if (pool_should_leave(c->pool))
            return;
    }
}

static bool all_lanes_there(const struct call *c) {
    for (unsigned lane = 0; lane < c->t->options.lanes; lane++)
        if (c->next[lane] < c->last)
            return false;
    return true;
}

static void run_lanes(struct call *c, struct pool *pool) {
    c->pool = pool;
    do
        pool_run(pool, c->t->options.lanes, run_lane, c);
    while (!all_lanes_there(c));
}

static void pack_step(void *ctx, unsigned i) {
    struct trainer *t = ctx;
    const struct tape_step *s = &t->tape.step[i];
    struct bound b;

    if (!s->kernel->pack)
        return;
    bind(t, s, 0, &b);
    s->kernel->pack(s->state, b.in);
}

/* Items up to `end`; lanes wait for one another only where the program says so. */
static void run_program(struct call *c, struct pool *pool, size_t end) {
    struct trainer *t = c->t;

    pool_run(pool, (unsigned)t->tape.n_steps, pack_step, t);
    for (c->last = 0; c->last < end;) {
        c->last++;
        while (c->last < end && !t->tape.program[c->last].waits)
            c->last++;
        run_lanes(c, pool);
    }
}

double trainer_gradients(
    struct trainer *t, struct pool *pool, const struct loss *loss, const float *targets) {
    struct call c = {.t = t, .loss = loss, .targets = targets};
    double sum = 0;

    transforms_forward(&t->tape, pool, t->n_moves, /* is_training= */ true);
    run_program(&c, pool, t->tape.n_items);
    trainer_sum_lanes(t, pool);
    transforms_backward(&t->tape, pool, t->grad[0], t->n_moves);
    for (unsigned i = 0; i < t->options.lanes; i++)
        sum += t->loss[i];
    return sum / (double)t->options.batch;
}

static bool are_finite_bf16(const uint16_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(bf16_read(x[i])))
            return false;
    return true;
}

static bool are_finite(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static bool is_finite(const struct tape_value *v, const void *data) {
    if (v->t.dtype == DT_BF16)
        return are_finite_bf16(data, train_count(&v->t.shape));
    return v->t.dtype != DT_F32 || are_finite(data, train_count(&v->t.shape));
}

/* What an item has just written in any lane that is not finite. */
static const char *blame(const struct trainer *t, const struct tape_item *item) {
    const struct tape_step *s = &t->tape.step[item->step];
    struct bound b;

    for (unsigned lane = 0; lane < t->options.lanes; lane++) {
        bind(t, s, lane, &b);
        for (int k = 0; item->pass == TAPE_FORWARD && k < s->n_out; k++)
            if (b.out[k] && !is_finite(&t->tape.value[s->out[k]], b.out[k]))
                return t->tape.graph->values[s->out[k]].name;
        for (int k = 0; item->pass == TAPE_BACKWARD && k < s->n_in; k++)
            if (b.d_in[k] && !is_finite(&t->tape.value[s->in[k]], b.d_in[k]))
                return t->tape.graph->values[s->in[k]].name;
    }
    return NULL;
}

static bool is_last_phase(const struct tape *t, size_t i) {
    const struct tape_item *item = &t->program[i], *next = item + 1;

    return item->pass != TAPE_LOSS &&
           (i + 1 == t->n_items || next->pass != item->pass || next->step != item->step);
}

const char *trainer_find_not_finite(
    struct trainer *t, struct pool *pool, const struct loss *loss, const float *targets) {
    struct call c = {.t = t, .loss = loss, .targets = targets};
    const char *name = NULL;

    for (size_t i = 0; i < t->tape.n_params; i++)
        if (!are_finite(t->tape.param[i].data, t->tape.param[i].n))
            return t->tape.param[i].name;
    transforms_forward(&t->tape, pool, t->n_moves, /* is_training= */ true);
    pool_run(pool, (unsigned)t->tape.n_steps, pack_step, t);
    for (size_t i = 0; !name && i < t->tape.n_items; i++) {
        c.last = i + 1;
        run_lanes(&c, pool);
        name = is_last_phase(&t->tape, i) ? blame(t, &t->tape.program[i]) : NULL;
    }
    return name;
}

void trainer_forward(struct trainer *t, struct pool *pool) {
    struct call c = {.t = t};
    size_t end = 0;

    while (t->tape.program[end].pass == TAPE_FORWARD)
        end++;
    transforms_forward(&t->tape, pool, t->n_moves, /* is_training= */ false);
    run_program(&c, pool, end);
    for (unsigned lane = 0; lane < t->options.lanes; lane++)
        show_outputs(t, lane);
}
