#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "compress/learn_norms.h"
#include "compress/learn_priv.h"

#define MAX_LANES 4

void learner_done(struct learner *l) {
    batches_free(l->batches);
    learn_state_done(&l->state);
    trainer_free(l->trainer);
    teacher_free(l->teacher);
    pool_free(l->pool);
    average_done(&l->average);
    optim_done(&l->optim);
    free(l->waiting);
    free(l->labels);
    free(l->targets);
}

size_t learner_bytes(const struct learner *l) {
    size_t gradients = (size_t)trainer_n_gradients(l->trainer) * sizeof(float), params = 0, all;

    for (size_t i = 0; i < trainer_n_params(l->trainer); i++)
        params += (size_t)trainer_param(l->trainer, i)->n * sizeof(float);
    all = trainer_bytes(l->trainer) + l->optim.kind->n_moments * gradients;
    if (l->o->ema > 0)
        all += params;
    if (!l->run->checkpoint)
        all += params + l->optim.kind->n_moments * gradients + (l->o->ema > 0 ? params : 0);
    if (l->parts > 1)
        all += gradients + (size_t)(l->o->batch * l->item) * sizeof(float);
    return all;
}

/* Four at most, and half of that when weights are what fills the memory. */
static unsigned lanes_of(const struct graph *g, int64_t batch) {
    int64_t n = 0;
    unsigned lanes = MAX_LANES;

    for (size_t i = 0; i < g->n_values; i++) {
        int64_t count;

        if (g->values[i].init && shape_count(&g->values[i].init->shape, &count))
            n += count;
    }
    if (n > 50000000)
        lanes = 2;
    while (batch % lanes)
        lanes /= 2;
    return lanes;
}

/* The whole minibatch at once, or, when the limit is small, in 2, 4 … parts whose gradients are added up. */
static int make_trainer(struct learner *l, const struct graph *g, struct error *err) {
    const struct shape *item = batches_shape(l->batches);
    size_t need = 0;

    shape_count(item, &l->item);
    for (l->parts = 1; l->o->batch % l->parts == 0; l->parts *= 2) {
        struct trainer_options t = {.batch = l->o->batch / l->parts,
            .lanes = lanes_of(g, l->o->batch / l->parts),
            .bf16 = l->o->bf16,
            .weights = l->run->weights,
            .n_weights = l->run->n_weights,
            .activations = l->run->activations,
            .n_activations = l->run->n_activations,
            .uses_batch_stats = learn_uses_batch_stats(l->o)};
        struct error why = {0};
        int r;

        if (l->run->frozen) {
            t.frozen = l->run->frozen->value;
            t.n_frozen = l->run->frozen->n;
        }
        r = trainer_new(g, item, &t, &l->trainer, &why);
        if (r == -ENOMEM && l->run->memory_bytes) /* the process's own limit was faster */
            continue;
        if (r < 0)
            return error_copy(err, &why);
        l->part = t.batch;
        need = learner_bytes(l);
        if (!l->run->memory_bytes || need <= l->run->memory_bytes)
            return 0;
        l->trainer = trainer_free(l->trainer);
    }
    if (need == 0)
        return error_code(err, -ENOMEM, "memory_budget",
            "training does not fit into %llu bytes, not even a picture at a time",
            (unsigned long long)l->run->memory_bytes);
    return error_code(err, -ENOMEM, "memory_budget",
        "training needs %zu bytes with a minibatch of %d in %d parts, and may take %llu", need, l->o->batch,
        l->parts / 2, (unsigned long long)l->run->memory_bytes);
}

static int make_optimizer(struct learner *l, struct error *err) {
    const struct learn_options *o = l->o;
    struct optim_param p = optim_defaults();
    int r;

    p.momentum = (float)o->momentum;
    p.nesterov = o->nesterov;
    p.weight_decay = (float)o->weight_decay;
    p.clip = (float)learn_clip(o);
    r = optim_init(&l->optim, l->optim.kind, &p, trainer_n_gradients(l->trainer), err);
    return r == 0 && o->ema > 0 ? average_init(&l->average, l->trainer, (float)o->ema, err) : r;
}

static int open_teacher(struct learner *l, struct error *err) {
    const struct learn_run *run = l->run;
    bool has_labels = !run->distil || run->distil->labels;
    const char *loss = l->o->loss == 0 ? "cross_entropy" : learn_losses[l->o->loss];

    if (run->distil)
        loss = has_labels ? "distil" : "kl";
    l->loss.kind = loss_find(loss);
    l->loss.param.smoothing = (float)l->o->label_smoothing;
    if (run->distil) {
        l->loss.param.temperature = (float)run->distil->temperature;
        l->loss.param.weight = (float)run->distil->weight;
    }
    if (has_labels && !(l->labels = calloc((size_t)(l->o->batch * l->classes), sizeof(*l->labels))))
        return error_oom(err);
    return run->distil ? teacher_open(run->distil->teacher, batches_shape(l->batches), l->part, l->classes,
                             l->p && l->p->threads ? l->p->threads : 1, &l->teacher, err)
                       : 0;
}

static int make_room(struct learner *l, struct error *err) {
    if (l->parts > 1 && !(l->waiting = calloc((size_t)(l->o->batch * l->item), sizeof(*l->waiting))))
        return error_oom(err);
    l->targets = calloc((size_t)(l->part * l->classes) * l->loss.kind->n_targets, sizeof(*l->targets));
    return l->targets ? 0 : error_oom(err);
}

/* Reading a picture is some percent of learning from it: one thread for four. */
static unsigned readers_of(unsigned threads) {
    return threads > 1 ? (threads + 3) / 4 : 0;
}

int learner_start(struct learner *l, struct graph *g, struct error *err) {
    const struct learn_options *o = l->o;
    unsigned threads = l->p && l->p->threads ? l->p->threads : 1;
    struct batches_options b = {.batch = o->batch,
        .seed = l->run->seed,
        .threads = readers_of(threads),
        .augment = o->augment,
        .allowed = l->p ? l->p->allowed : NULL,
        .ctx = l->p ? l->p->ctx : NULL};
    int r = batches_open(l->run->source, &g->values[g->inputs[0]], &b, &l->batches, err);

    l->optim.kind = optim_find(learn_optimizers[o->optimizer]);
    if (r == 0)
        r = make_trainer(l, g, err);
    if (r < 0)
        return r;
    l->classes = trainer_n_outputs(l->trainer);
    l->n_steps = batches_per_epoch(l->batches) * o->epochs;
    r = open_teacher(l, err);
    if (r == 0 && l->labels)
        r = batches_map_classes(l->batches, l->run->source->labels, l->classes, err);
    if (r == 0)
        r = make_optimizer(l, err);
    if (r == 0)
        r = make_room(l, err);
    if (r == 0)
        r = pool_new(threads, &l->pool, err);
    if (r == 0 && l->p && l->p->allowed)
        pool_follow(l->pool, l->p->allowed, l->p->ctx);
    if (r < 0)
        return r;
    l->place.rate = 1;
    l->counted_us = clock_now_us();
    l->state.trainer = l->trainer;
    l->state.optim = &l->optim;
    l->state.average = o->ema > 0 ? &l->average : NULL;
    l->state.place = &l->place;
    return learn_state_init(&l->state, l->run, o, l->parts, err);
}
