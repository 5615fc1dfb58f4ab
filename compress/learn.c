#include "compress/learn.h"

#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "compress/evaluate.h"
#include "compress/learn_norms.h"
#include "compress/learn_priv.h"

/* Puts the averaged weights into `g` where there are any, after the hook has looked at them. */
static int save(struct learner *l, struct graph *g, struct error *err) {
    const struct learn_hook *hook = l->run->hook;
    int r = 0;

    if (l->o->ema > 0)
        average_swap(&l->average, l->trainer);
    if (hook && hook->done)
        r = hook->done(hook->ctx, l->trainer, err);
    if (r == 0)
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
    struct graph *copy = NULL, *deployed = NULL;
    int r;

    if (l->p)
        quiet = (struct progress){.ctx = l->p->ctx, .is_cancelled = l->p->is_cancelled};
    *ret = -1;
    if (val->n == 0 || !l->labels)
        return 0;
    r = graph_clone(g, &copy, err);
    if (r == 0)
        r = save(l, copy, err);
    if (r == 0 && l->run->deploy) {
        r = l->run->deploy(l->run->deploy_ctx, copy, &deployed, err);
        graph_free(copy);
        copy = deployed;
    }
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
    return progress_at(l->p, (double)learner_schedule_at(l, l->place.step) / (double)l->n_steps, text, err);
}

/* What is left of the epoch, or of the time. */
static int run_epoch(struct learner *l, struct error *err) {
    l->begin_us = clock_now_us();
    l->begin_step = l->place.step;
    while (l->place.minibatch < batches_per_epoch(l->batches)) {
        int r = learner_step(l, err);

        if (r < 0)
            return r;
        r = tell(l, err);
        if (r == -ECANCELED || (r == 0 && learn_state_is_due(&l->state))) {
            int e = learn_state_keep_step(&l->state, r == 0 ? err : NULL);

            r = r < 0 ? r : e;
        }
        if (r < 0 || learner_is_time_over(l))
            return r;
    }
    return 0;
}

/* The figures of the epoch that is over, in the report and to whoever follows. */
static void report_epoch(struct learner *l, double val_accuracy) {
    double loss = l->place.loss / (double)l->place.minibatch;
    double rate = (double)learner_rate_at(l, l->place.step - 1);
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

    while (r == 0 && l->place.epoch < l->o->epochs && !learner_is_time_over(l)) {
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
        learner_count_time(l);
        l->place = (struct learn_place){.epoch = l->place.epoch + 1,
            .step = l->place.step,
            .rate = l->place.rate,
            .seconds = l->place.seconds};
        r = learn_state_keep_epoch(&l->state, err);
    }
    return r == 0 ? save(l, g, err) : r;
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
    r = learner_start(&l, g, err);
    set_batch(g, fixed);
    norm_insert_undo(&norms, g);
    if (r == 0)
        *ret = (struct learn_plan){.pictures = batches_per_epoch(l.batches) * o->batch,
            .steps = l.n_steps,
            .bytes = learner_bytes(&l)};
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
    r = learner_start(&l, g, err);
    if (r == 0 && o->bf16)
        r = report_bf16(&l, err);
    if (r == 0)
        r = run_epochs(&l, g, err);
    set_batch(g, fixed);
    return learn_fold_norms(&norms, g, r, err);
}
