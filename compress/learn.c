#include "compress/learn.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "compress/batches.h"
#include "compress/evaluate.h"
#include "engine/train/trainer.h"

#define VAL_SHARE    10 /* one in so many */
#define FIRST_LOSSES 20 /* in the report */

struct learner {
    const struct learn_options *o;
    const struct learn_run *run;
    const struct progress *p;
    struct batches *batches;
    struct trainer *trainer;
    struct pool *pool;
    struct optim optim;
    struct loss loss;
    float *targets;
    int64_t classes, step, n_steps; /* n_steps: of all epochs */
    json_t *first_losses;           /* the report's */
};

static void learner_done(struct learner *l) {
    batches_free(l->batches);
    trainer_free(l->trainer);
    pool_free(l->pool);
    optim_done(&l->optim);
    free(l->targets);
}

/* ---- epochs ---- */

static int64_t count_correct(const struct learner *l) {
    int64_t n = 0;

    for (int64_t i = 0; i < l->o->batch; i++) {
        const float *y = trainer_output(l->trainer, i), *target = l->targets + i * l->classes;
        int64_t best = 0;

        for (int64_t k = 1; k < l->classes; k++)
            best = y[k] > y[best] ? k : best;
        n += target[best] == 1;
    }
    return n;
}

static float rate_at(const struct learner *l) {
    return schedule_rate(
        schedule_find(learn_schedules[l->o->schedule]), (float)l->o->lr, l->o->warmup, l->step, l->n_steps);
}

static float *input_of(void *ctx, int64_t i) {
    return trainer_input(ctx, i);
}

static int one_step(struct learner *l, int epoch, int64_t k, double *ret_loss, struct error *err) {
    int r = batches_read(l->batches, epoch, k, input_of, l->trainer, l->targets, err);

    if (r < 0)
        return r;
    *ret_loss = trainer_gradients(l->trainer, l->pool, &l->loss, l->targets);
    if (!isfinite(*ret_loss) || !trainer_move(l->trainer, l->pool, &l->optim, rate_at(l)))
        return error_code(err, -EBADMSG, "method_not_applicable",
            "the loss is not finite any more at step %lld: a lower learning rate than %g, or clip, may help",
            (long long)l->step + 1, l->o->lr);
    if (l->step < FIRST_LOSSES)
        json_array_append_new(l->first_losses, json_real(*ret_loss));
    l->step++;
    return 0;
}

/* Accuracy on what is held out; -1: nothing is. */
static int judge(
    struct learner *l, const struct graph *g, const json_t *labels, double *ret, struct error *err) {
    _cleanup_(evaluation_done) struct evaluation e = {0};
    struct progress quiet = {0}; /* the fraction is that of the steps */
    struct session s = {0};
    struct graph *copy = NULL;
    int r;

    if (l->p)
        quiet = (struct progress){.ctx = l->p->ctx, .is_cancelled = l->p->is_cancelled};
    *ret = -1;
    if (batches_val(l->batches)->n == 0)
        return 0;
    r = graph_clone(g, &copy, err);
    if (r == 0)
        r = trainer_save(l->trainer, copy, err);
    if (r < 0) {
        graph_free(copy);
        return r;
    }
    r = session_open_graph(copy, &s, err);
    if (r == 0)
        r = evaluate(&s, batches_val(l->batches), labels, &quiet, &e, err);
    if (r == 0)
        *ret = (double)e.n_correct / (double)e.n;
    session_done(&s);
    return r;
}

static int one_epoch(struct learner *l, int epoch, json_t *report, struct error *err) {
    int64_t batches = batches_per_epoch(l->batches);
    double sum = 0, loss = 0, begin = clock_now_us();
    int64_t correct = 0;
    int r = 0;

    for (int64_t i = 0; r == 0 && i < batches; i++) {
        char text[96];

        r = one_step(l, epoch, i, &loss, err);
        if (r < 0)
            return r;
        sum += loss;
        correct += count_correct(l);
        snprintf(text, sizeof(text), "epoch %d of %d, loss %.4f, %.0f pictures a second", epoch + 1,
            l->o->epochs, sum / (double)(i + 1),
            (double)(i + 1) * l->o->batch / ((clock_now_us() - begin) / 1e6));
        r = progress_at(l->p, (double)l->step / (double)l->n_steps, text, err);
    }
    if (r == 0)
        json_array_append_new(
            report, json_pack("{s:i, s:f, s:f, s:f}", "epoch", epoch + 1, "loss", sum / (double)batches,
                        "train_accuracy", (double)correct / (double)(batches * l->o->batch), "learning_rate",
                        (double)rate_at(l)));
    return r;
}

static unsigned lanes_of(int batch) {
    return batch % 4 == 0 ? 4 : batch % 2 == 0 ? 2 : 1;
}

/* Reading a picture is some percent of learning from it: one thread for four. */
static unsigned readers_of(const struct learner *l) {
    return l->p && l->p->threads > 1 ? (l->p->threads + 3) / 4 : 0;
}

static int start(struct learner *l, struct graph *g, const struct feed_source *source, struct error *err) {
    const struct learn_options *o = l->o;
    struct trainer_options t = {.batch = o->batch,
        .lanes = lanes_of(o->batch),
        .uses_batch_stats = strcmp(learn_batch_norms[o->batch_norm], "none") != 0};
    struct optim_param p = optim_defaults();
    struct batches_options b = {.batch = o->batch, .seed = l->run->seed, .threads = readers_of(l)};
    int r = batches_open(source, &g->values[g->inputs[0]], &b, &l->batches, err);

    if (r == 0)
        r = trainer_new(g, batches_shape(l->batches), &t, &l->trainer, err);
    if (r < 0)
        return r;
    l->classes = trainer_n_outputs(l->trainer);
    r = batches_map_classes(l->batches, source->labels, l->classes, err);
    if (r < 0)
        return r;
    p.momentum = (float)o->momentum;
    p.nesterov = o->nesterov;
    p.weight_decay = (float)o->weight_decay;
    p.clip = (float)o->clip;
    r = optim_init(
        &l->optim, optim_find(learn_optimizers[o->optimizer]), &p, trainer_n_gradients(l->trainer), err);
    if (r == 0)
        r = pool_new(l->p && l->p->threads ? l->p->threads : 1, &l->pool, err);
    if (r < 0)
        return r;
    l->loss.kind = loss_find(o->loss == 0 ? "cross_entropy" : learn_losses[o->loss]);
    l->loss.param.smoothing = (float)o->label_smoothing;
    l->n_steps = batches_per_epoch(l->batches) * o->epochs;
    l->targets = calloc((size_t)(o->batch * l->classes), sizeof(*l->targets));
    return l->targets ? 0 : error_oom(err);
}

static int run_epochs(
    struct learner *l, struct graph *g, const json_t *labels, json_t *epochs, struct error *err) {
    int r = 0;

    for (int epoch = 0; r == 0 && epoch < l->o->epochs; epoch++) {
        double accuracy;

        r = one_epoch(l, epoch, epochs, err);
        if (r == 0)
            r = judge(l, g, labels, &accuracy, err);
        if (r == 0 && accuracy >= 0)
            json_object_set_new(
                json_array_get(epochs, json_array_size(epochs) - 1), "val_accuracy", json_real(accuracy));
    }
    return r == 0 ? trainer_save(l->trainer, g, err) : r;
}

int learn(struct graph *g, const struct learn_run *run, const struct learn_options *o, json_t *report,
    struct error *err) {
    _cleanup_(learner_done) struct learner l = {.o = o, .run = run, .p = run->progress};
    json_t *epochs = json_array();
    int64_t *batch, fixed;
    int r;

    l.first_losses = json_array();
    json_object_set_new(report, "epochs", epochs);
    json_object_set_new(report, "first_losses", l.first_losses);
    if (g->n_inputs != 1 || g->values[g->inputs[0]].shape.rank < 1)
        return error_code(err, -EBADMSG, "method_not_applicable",
            "the model has %zu inputs; only one of known rank can be fed with pictures", g->n_inputs);
    /* many files say 1: free while it learns */
    batch = &g->values[g->inputs[0]].shape.dim[0];
    fixed = *batch;
    *batch = -1;
    r = start(&l, g, run->source, err);
    if (r == 0)
        r = run_epochs(&l, g, run->source->labels, epochs, err);
    g->values[g->inputs[0]].shape.dim[0] = fixed;
    return r;
}
