#include "compress/importance.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/batches.h"
#include "compress/chance.h"
#include "engine/train/trainer.h"

#define MINIBATCH 16
#define LANES     4

struct run {
    struct work *work;
    struct batches *batches;
    struct trainer *trainer;
    struct pool *pool;
    struct loss loss;
    int64_t classes, n; /* n: minibatches */
    bool has_labels;
    float *targets; /* [MINIBATCH][classes] */
    float *gradient;
    importance_fn *fn;
    void *ctx;
};

static void run_done(struct run *r) {
    batches_free(r->batches);
    trainer_free(r->trainer);
    pool_free(r->pool);
    free(r->targets);
    free(r->gradient);
}

static bool has_labels(const struct pack *p) {
    for (uint32_t split = 0; split < pack_n_splits(p); split++) {
        if (strcmp(pack_split(p, split), "train") != 0)
            continue;
        for (uint64_t i = 0; i < pack_count(p, split); i++) {
            struct pack_item item;

            pack_item(p, split, i, &item);
            if (item.label == PACK_NO_LABEL)
                return false;
        }
    }
    return true;
}

static float *input_of(void *ctx, int64_t i) {
    struct run *r = ctx;

    return trainer_input(r->trainer, i);
}

/* A class drawn from softmax(o). */
static int64_t draw_class(const float *o, int64_t n, uint64_t key) {
    double sum = 0, left;
    float most = o[0];

    for (int64_t k = 1; k < n; k++)
        most = fmaxf(most, o[k]);
    for (int64_t k = 0; k < n; k++)
        sum += exp((double)(o[k] - most));
    left = chance_unit(key, 0) * sum;
    for (int64_t k = 0; k < n; k++) {
        left -= exp((double)(o[k] - most));
        if (left < 0)
            return k;
    }
    return n - 1;
}

static void draw_labels(struct run *r, int64_t minibatch) {
    trainer_forward(r->trainer, r->pool);
    memset(r->targets, 0, (size_t)(MINIBATCH * r->classes) * sizeof(*r->targets));
    for (int64_t i = 0; i < MINIBATCH; i++) {
        uint64_t key = chance_key(r->work->seed, (uint64_t)minibatch, (uint64_t)i);

        r->targets[i * r->classes + draw_class(trainer_output(r->trainer, i), r->classes, key)] = 1;
    }
}

static int show_minibatch(struct run *r, int64_t k, struct error *err) {
    int e = batches_read(r->batches, 0, k, input_of, r, r->has_labels ? r->targets : NULL, err);

    if (e < 0)
        return e;
    if (!r->has_labels)
        draw_labels(r, k);
    if (!isfinite(trainer_gradients(r->trainer, r->pool, &r->loss, r->targets)))
        return error_code(
            err, -EBADMSG, "method_not_applicable", "the loss of the network as it is is no number");
    for (size_t i = 0; i < trainer_n_params(r->trainer); i++) {
        const struct train_param *p = trainer_param(r->trainer, i);

        if (p->is_stat || p->value < 0)
            continue;
        trainer_gradient(r->trainer, i, r->gradient);
        r->fn(r->ctx, k, p->value, p->data, r->gradient, p->n);
    }
    return 0;
}

static int64_t largest_param(const struct trainer *t) {
    int64_t most = 1;

    for (size_t i = 0; i < trainer_n_params(t); i++)
        most = trainer_param(t, i)->n > most ? trainer_param(t, i)->n : most;
    return most;
}

static int open_run(struct run *r, struct graph *g, int64_t pictures, struct error *err) {
    const struct feed_source *source = r->work->samples->source;
    const struct progress *p = r->work->progress;
    struct batches_options b = {.batch = MINIBATCH, .seed = r->work->seed};
    struct trainer_options t = {.batch = MINIBATCH, .lanes = LANES};
    int e = batches_open(source, &g->values[g->inputs[0]], &b, &r->batches, err);

    if (e == 0)
        e = trainer_new(g, batches_shape(r->batches), &t, &r->trainer, err);
    if (e < 0)
        return e;
    r->classes = trainer_n_outputs(r->trainer);
    r->has_labels = has_labels(source->pack);
    r->n = (pictures + MINIBATCH - 1) / MINIBATCH;
    if (r->n > batches_per_epoch(r->batches))
        r->n = batches_per_epoch(r->batches);
    if (r->has_labels)
        e = batches_map_classes(r->batches, source->labels, r->classes, err);
    r->targets = calloc((size_t)(MINIBATCH * r->classes), sizeof(*r->targets));
    r->gradient = malloc((size_t)largest_param(r->trainer) * sizeof(*r->gradient));
    if (e == 0 && (!r->targets || !r->gradient))
        e = error_oom(err);
    if (e == 0)
        e = pool_new(p && p->threads ? p->threads : 1, &r->pool, err);
    if (e == 0 && p && p->allowed)
        pool_follow(r->pool, p->allowed, p->ctx);
    return e;
}

int importance_run(struct work *work, struct graph *g, int64_t pictures, importance_fn *fn, void *ctx,
    int64_t *ret_minibatches, struct error *err) {
    _cleanup_(run_done) struct run r = {
        .work = work, .fn = fn, .ctx = ctx, .loss.kind = loss_find("cross_entropy")};
    int64_t *batch, was;
    int e;

    if (!work->samples || !work->samples->source)
        return error_code(err, -EBADMSG, "data_required",
            "importance by gradients needs a data set of pictures, not ready inputs");
    if (g->n_inputs != 1 || g->values[g->inputs[0]].shape.rank < 1)
        return error_code(err, -EBADMSG, "method_not_applicable",
            "the model has %zu inputs; only one of known rank can be fed with pictures", g->n_inputs);
    batch = &g->values[g->inputs[0]].shape.dim[0];
    was = *batch;
    *batch = -1;
    e = open_run(&r, g, pictures, err);
    for (int64_t k = 0; e == 0 && k < r.n; k++) {
        e = show_minibatch(&r, k, err);
        if (e == 0 && work->progress && work->progress->is_cancelled &&
            work->progress->is_cancelled(work->progress->ctx))
            e = error_code(err, -ECANCELED, "cancelled", "cancelled");
    }
    *batch = was;
    if (e == 0 && ret_minibatches)
        *ret_minibatches = r.n;
    return e;
}

/* ---- sums over all minibatches ---- */

static void add(void *ctx, int64_t minibatch, int value, const float *w, const float *g, int64_t n) {
    const struct importance_of *of = importance_find(ctx, value);

    (void)minibatch;
    for (int64_t i = 0; of && i < n; i++) {
        of->change[i] += fabsf(w[i] * g[i]);
        of->fisher[i] += g[i] * g[i];
    }
}

static int make_room(
    const struct graph *g, const int *values, size_t n, struct importance *ret, struct error *err) {
    ret->of = calloc(n + 1, sizeof(*ret->of));
    if (!ret->of)
        return error_oom(err);
    for (; ret->n < n; ret->n++) {
        struct importance_of *of = &ret->of[ret->n];

        of->value = values[ret->n];
        shape_count(&g->values[of->value].init->shape, &of->n);
        of->change = calloc((size_t)of->n + 1, sizeof(*of->change));
        of->fisher = calloc((size_t)of->n + 1, sizeof(*of->fisher));
        if (!of->change || !of->fisher) {
            ret->n++;
            return error_oom(err);
        }
    }
    return 0;
}

int importance_sums(struct work *work, struct graph *g, const int *values, size_t n_values, int64_t pictures,
    struct importance *ret, struct error *err) {
    _cleanup_(importance_done) struct importance sums = {0};
    int64_t minibatches = 1;
    int e = make_room(g, values, n_values, &sums, err);

    if (e == 0)
        e = importance_run(work, g, pictures, add, &sums, &minibatches, err);
    if (e < 0)
        return e;
    for (size_t k = 0; k < sums.n; k++)
        for (int64_t i = 0; i < sums.of[k].n; i++) {
            sums.of[k].change[i] /= (float)minibatches;
            sums.of[k].fisher[i] /= (float)minibatches;
        }
    *ret = sums;
    sums = (struct importance){0};
    return 0;
}

void importance_done(struct importance *i) {
    for (size_t k = 0; k < i->n; k++) {
        free(i->of[k].change);
        free(i->of[k].fisher);
    }
    free(i->of);
    *i = (struct importance){0};
}

const struct importance_of *importance_find(const struct importance *i, int value) {
    for (size_t k = 0; k < i->n; k++)
        if (i->of[k].value == value)
            return &i->of[k];
    return NULL;
}
