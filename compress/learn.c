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
#include "compress/learn_norms.h"
#include "compress/learn_state.h"
#include "compress/teacher.h"
#include "engine/train/trainer.h"

#define MAX_LANES    4
#define FIRST_LOSSES 20 /* in the report */

struct learner {
    const struct learn_options *o;
    const struct learn_run *run;
    const struct progress *p;
    struct batches *batches;
    struct trainer *trainer; /* of a part of the minibatch */
    struct pool *pool;
    struct optim optim;
    struct average average;
    struct teacher *teacher; /* NULL: none */
    struct loss loss;
    int parts;                /* that a minibatch is cut into, for the memory's sake */
    int64_t part;             /* pictures of one */
    int64_t item;             /* floats of a picture */
    float *waiting;           /* [batch][item] of parts that are not run yet; NULL: one part */
    float *labels;            /* [batch][classes]; NULL: none are needed */
    float *targets;           /* [part][loss.kind->n_targets][classes] */
    int64_t classes, n_steps; /* n_steps: of all epochs */
    struct learn_place place;
    struct learn_state state;
    double counted_us; /* until when time is in place.seconds */
    double begin_us;   /* since when the pictures a second are counted */
    int64_t begin_step;
};

static void learner_done(struct learner *l) {
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

/* ---- a step ---- */

static float *place_of(void *ctx, int64_t i) {
    struct learner *l = ctx;

    return l->waiting ? l->waiting + i * l->item : trainer_input(l->trainer, i);
}

/* What the loss wants of picture i of the minibatch, to row k of the part. */
static void put_targets(const struct learner *l, int64_t i, int64_t k, const float *logits) {
    size_t size = (size_t)l->classes * sizeof(float);
    float *to = l->targets + k * l->classes * l->loss.kind->n_targets;

    if (l->labels)
        memcpy(to, l->labels + i * l->classes, size);
    if (logits)
        memcpy(l->labels ? to + l->classes : to, logits + k * l->classes, size);
}

static int fill_part(struct learner *l, int part, struct error *err) {
    const float *logits = NULL;

    for (int64_t k = 0; l->waiting && k < l->part; k++)
        memcpy(trainer_input(l->trainer, k), l->waiting + (part * l->part + k) * l->item,
            (size_t)l->item * sizeof(float));
    for (int64_t k = 0; l->teacher && k < l->part; k++)
        memcpy(teacher_input(l->teacher, k), trainer_input(l->trainer, k), (size_t)l->item * sizeof(float));
    if (l->teacher && !(logits = teacher_logits(l->teacher)))
        return error_oom(err);
    for (int64_t k = 0; k < l->part; k++)
        put_targets(l, part * l->part + k, k, logits);
    return 0;
}

static int64_t best_of(const float *y, int64_t n) {
    int64_t best = 0;

    for (int64_t k = 1; k < n; k++)
        best = y[k] > y[best] ? k : best;
    return best;
}

/* Where labels are, against them; else against the teacher. */
static int64_t count_correct(const struct learner *l) {
    int64_t n = 0, step = l->classes * l->loss.kind->n_targets;

    for (int64_t k = 0; k < l->part; k++)
        n += best_of(trainer_output(l->trainer, k), l->classes) == best_of(l->targets + k * step, l->classes);
    return n;
}

/* Time since the last call counts to the training. */
static void count_time(struct learner *l) {
    double now_us = clock_now_us();

    l->place.seconds += (now_us - l->counted_us) / 1e6;
    l->counted_us = now_us;
}

static bool is_time_over(const struct learner *l) {
    return l->run->seconds > 0 && l->place.seconds >= l->run->seconds;
}

/* Where the schedule is: at this step, or further where the time runs out before the steps do. */
static int64_t schedule_at(const struct learner *l, int64_t step) {
    double by_time = l->run->seconds > 0 ? l->place.seconds / l->run->seconds : 0;
    int64_t at = (int64_t)((by_time < 1 ? by_time : 1) * (double)(l->n_steps - 1));

    return at > step ? at : step;
}

static float rate_at(const struct learner *l, int64_t step) {
    return (float)l->place.rate * schedule_rate(schedule_find(learn_schedules[l->o->schedule]),
                                      (float)learn_rate(l->o), l->o->warmup, schedule_at(l, step),
                                      l->n_steps);
}

/* The loss is no number: which value was it first? */
static int not_finite(struct learner *l, struct error *err) {
    const char *name = trainer_find_not_finite(l->trainer, l->pool, &l->loss, l->targets);

    return error_code(err, -EDOM, "method_not_applicable",
        "the loss is not finite any more at step %lld, tensor '%.128s' first: a lower learning rate than %g, or "
        "clip, may help",
        (long long)l->place.step + 1, name ? name : "of a gradient", learn_rate(l->o) * l->place.rate);
}

/* -EDOM: the loss is no number. */
static int one_step(struct learner *l, struct error *err) {
    double loss = 0;
    int r = batches_read(l->batches, l->place.epoch, l->place.minibatch, place_of, l, l->labels, err);
    int64_t correct = 0;

    for (int part = 0; r == 0 && part < l->parts; part++) {
        double mean;

        r = fill_part(l, part, err);
        if (r < 0)
            return r;
        mean = trainer_gradients(l->trainer, l->pool, &l->loss, l->targets);
        if (!isfinite(mean))
            return not_finite(l, err);
        loss += mean / l->parts;
        correct += count_correct(l);
        if (part + 1 < l->parts && !trainer_keep_gradients(l->trainer, l->pool))
            return error_oom(err);
    }
    if (r < 0)
        return r;
    if (!trainer_move(l->trainer, l->pool, &l->optim, rate_at(l, l->place.step)))
        return not_finite(l, err);
    if (l->o->ema > 0)
        average_update(&l->average, l->trainer, l->pool, l->optim.step);
    if (l->place.step < FIRST_LOSSES)
        json_array_append_new(json_object_get(l->state.report, "first_losses"), json_real(loss));
    l->place.loss += loss;
    l->place.correct += correct;
    l->place.step++;
    l->place.minibatch++;
    count_time(l);
    return 0;
}

/* ---- epochs ---- */

/* Puts the averaged weights into `g` where there are any. */
static int save(struct learner *l, struct graph *g, struct error *err) {
    int r;

    if (l->o->ema > 0)
        average_swap(&l->average, l->trainer);
    r = trainer_save(l->trainer, g, err);
    if (l->o->ema > 0)
        average_swap(&l->average, l->trainer);
    return r;
}

/* Accuracy on what is held out; -1: nothing is. */
static int judge(struct learner *l, const struct graph *g, double *ret, struct error *err) {
    _cleanup_(evaluation_done) struct evaluation e = {0};
    struct progress quiet = {0}; /* the fraction is that of the steps */
    struct feed *val = batches_val(l->batches);
    struct session s = {0};
    struct graph *copy = NULL;
    int r;

    if (l->p)
        quiet = (struct progress){.ctx = l->p->ctx, .is_cancelled = l->p->is_cancelled};
    *ret = -1;
    if (val->n == 0 || !l->labels)
        return 0;
    r = graph_clone(g, &copy, err);
    if (r == 0)
        r = save(l, copy, err);
    if (r < 0) {
        graph_free(copy);
        return r;
    }
    r = session_open_graph(copy, &s, err);
    if (r == 0)
        r = evaluate(&s, val, l->run->source->labels, &quiet, &e, err);
    if (r == 0)
        *ret = (double)e.n_correct / (double)e.n;
    session_done(&s);
    return r;
}

static double pictures_a_second(const struct learner *l) {
    double us = clock_now_us() - l->begin_us;

    return us > 0 ? (double)((l->place.step - l->begin_step) * l->o->batch) / (us / 1e6) : 0;
}

static int tell(struct learner *l, struct error *err) {
    char text[128];

    snprintf(text, sizeof(text), "epoch %d of %d, loss %.4f, %.0f pictures a second", l->place.epoch + 1,
        l->o->epochs, l->place.loss / (double)l->place.minibatch, pictures_a_second(l));
    return progress_at(l->p, (double)schedule_at(l, l->place.step) / (double)l->n_steps, text, err);
}

/* What is left of the epoch, or of the time. */
static int run_epoch(struct learner *l, struct error *err) {
    l->begin_us = clock_now_us();
    l->begin_step = l->place.step;
    while (l->place.minibatch < batches_per_epoch(l->batches)) {
        int r = one_step(l, err);

        if (r < 0)
            return r;
        r = tell(l, err);
        if (r == -ECANCELED || (r == 0 && learn_state_is_due(&l->state))) {
            int e = learn_state_keep_step(&l->state, r == 0 ? err : NULL);

            r = r < 0 ? r : e;
        }
        if (r < 0 || is_time_over(l))
            return r;
    }
    return 0;
}

/* The figures of the epoch that is over, in the report and to whoever follows. */
static void report_epoch(struct learner *l, double val_accuracy) {
    double loss = l->place.loss / (double)l->place.minibatch;
    double rate = (double)rate_at(l, l->place.step - 1);
    double accuracy = (double)l->place.correct / (double)(l->place.minibatch * l->o->batch);
    json_t *row = json_pack("{s:i, s:f, s:f, s:f}", "epoch", l->place.epoch + 1, "loss", loss,
        "train_accuracy", accuracy, "learning_rate", rate);
    const struct {
        const char *name;
        double value;
    } metrics[] = {{"loss", loss}, {"accuracy", accuracy}, {"learning_rate", rate},
        {"images_per_second", pictures_a_second(l)}, {"val_accuracy", val_accuracy}};

    if (val_accuracy >= 0)
        json_object_set_new(row, "val_accuracy", json_real(val_accuracy));
    json_array_append_new(json_object_get(l->state.report, "epochs"), row);
    for (size_t i = 0; l->p && l->p->metric && i < sizeof(metrics) / sizeof(metrics[0]); i++)
        if (metrics[i].value >= 0)
            l->p->metric(l->p->ctx, metrics[i].name, metrics[i].value, l->place.epoch + 1);
}

/* Once: back to where the epoch began, with half the learning rate. */
static int calm_down(struct learner *l, struct error *err) {
    int64_t at = l->place.step + 1;
    int r;

    if (l->place.rate < 1)
        return error_prefix(err, -EBADMSG, "also with half the learning rate");
    error_clear(err);
    r = learn_state_go_back(&l->state, err);
    l->place.rate = 0.5;
    json_object_set_new(l->state.report, "halved_at_step", json_integer((json_int_t)at));
    return r == 0 ? learn_state_keep_epoch(&l->state, err) : r;
}

static int run_epochs(struct learner *l, struct graph *g, struct error *err) {
    int r = learn_state_load(&l->state) ? 0 : learn_state_keep_epoch(&l->state, err);

    while (r == 0 && l->place.epoch < l->o->epochs && !is_time_over(l)) {
        double accuracy;

        r = run_epoch(l, err);
        if (r == -EDOM) {
            r = calm_down(l, err);
            continue;
        }
        if (r == 0)
            r = judge(l, g, &accuracy, err);
        if (r < 0)
            break;
        report_epoch(l, accuracy);
        count_time(l);
        l->place = (struct learn_place){.epoch = l->place.epoch + 1,
            .step = l->place.step,
            .rate = l->place.rate,
            .seconds = l->place.seconds};
        r = learn_state_keep_epoch(&l->state, err);
    }
    return r == 0 ? save(l, g, err) : r;
}

/* ---- before the first step ---- */

static size_t bytes_needed(const struct learner *l) {
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
        need = bytes_needed(l);
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

static int start(struct learner *l, struct graph *g, struct error *err) {
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

static int check_input(const struct graph *g, struct error *err) {
    if (g->n_inputs == 1 && g->values[g->inputs[0]].shape.rank >= 1)
        return 0;
    return error_code(err, -EBADMSG, "method_not_applicable",
        "the model has %zu inputs; only one of known rank can be fed with pictures", g->n_inputs);
}

/* Many files say a batch of 1: free while it learns. Returns what stood there. */
static int64_t set_batch(struct graph *g, int64_t batch) {
    int64_t *at = &g->values[g->inputs[0]].shape.dim[0], was = *at;

    *at = batch;
    return was;
}

int learn_plan(struct graph *g, const struct learn_run *run, const struct learn_options *o,
    struct learn_plan *ret, struct error *err) {
    _cleanup_(norm_insert_done) struct norm_insert norms = {0};
    _cleanup_(learner_done) struct learner l = {.o = o, .run = run, .p = run->progress};
    int64_t fixed;
    int r = check_input(g, err);

    if (r == 0)
        r = learn_insert_norms(g, run, o, /* measures= */ false, &norms, err);
    if (r < 0)
        return r;
    fixed = set_batch(g, -1);
    r = start(&l, g, err);
    set_batch(g, fixed);
    norm_insert_undo(&norms, g);
    if (r == 0)
        *ret = (struct learn_plan){.pictures = batches_per_epoch(l.batches) * o->batch,
            .steps = l.n_steps,
            .bytes = bytes_needed(&l)};
    return r;
}

static int report_bf16(const struct learner *l, struct error *err) {
    const char *why = trainer_why_float(l->trainer);

    if (json_object_set_new(l->state.report, "bf16", json_boolean(!why)) < 0 ||
        (why && json_object_set_new(l->state.report, "why_float", json_string(why)) < 0))
        return error_oom(err);
    return 0;
}

int learn(struct graph *g, const struct learn_run *run, const struct learn_options *o, json_t *report,
    struct error *err) {
    _cleanup_(norm_insert_done) struct norm_insert norms = {0};
    _cleanup_(learner_done) struct learner l = {.o = o, .run = run, .p = run->progress};
    int64_t fixed;
    int r = check_input(g, err);

    if (r == 0)
        r = learn_insert_norms(g, run, o, /* measures= */ true, &norms, err);
    if (r < 0)
        return r;
    l.state.report = report;
    if (json_object_set_new(report, "epochs", json_array()) < 0 ||
        json_object_set_new(report, "first_losses", json_array()) < 0)
        return learn_fold_norms(&norms, g, error_oom(err), err);
    if (norms.n)
        json_object_set_new(report, "batch_norms_inserted", json_integer((json_int_t)norms.n));
    fixed = set_batch(g, -1);
    r = start(&l, g, err);
    if (r == 0 && o->bf16)
        r = report_bf16(&l, err);
    if (r == 0)
        r = run_epochs(&l, g, err);
    set_batch(g, fixed);
    return learn_fold_norms(&norms, g, r, err);
}
