#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "compress/learn_norms.h"
#include "compress/learn_priv.h"

#define FIRST_LOSSES 20 /* in the report */

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

void learner_count_time(struct learner *l) {
    double now_us = clock_now_us();

    l->place.seconds += (now_us - l->counted_us) / 1e6;
    l->counted_us = now_us;
}

bool learner_is_time_over(const struct learner *l) {
    return l->run->seconds > 0 && l->place.seconds >= l->run->seconds;
}

int64_t learner_schedule_at(const struct learner *l, int64_t step) {
    double by_time = l->run->seconds > 0 ? l->place.seconds / l->run->seconds : 0;
    int64_t at = (int64_t)((by_time < 1 ? by_time : 1) * (double)(l->n_steps - 1));

    return at > step ? at : step;
}

float learner_rate_at(const struct learner *l, int64_t step) {
    return (float)l->place.rate * schedule_rate(schedule_find(learn_schedules[l->o->schedule]),
                                      (float)learn_rate(l->o), l->o->warmup, learner_schedule_at(l, step),
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

/* The loss of the minibatch, its gradients in the trainer. */
static int find_gradients(struct learner *l, double *ret_loss, int64_t *ret_correct, struct error *err) {
    double loss = 0;
    int64_t correct = 0;
    int r = 0;

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
    *ret_loss = loss;
    *ret_correct = correct;
    return r;
}

int learner_step(struct learner *l, struct error *err) {
    const struct learn_hook *hook = l->run->hook;
    float rate = learner_rate_at(l, l->place.step);
    int r = batches_read(l->batches, l->place.epoch, l->place.minibatch, place_of, l, l->labels, err);
    int64_t correct = 0;
    double loss = 0;

    if (r == 0 && hook && hook->begin)
        r = hook->begin(hook->ctx, l->trainer, learner_schedule_at(l, l->place.step), l->n_steps, err);
    if (r == 0)
        r = find_gradients(l, &loss, &correct, err);
    if (r < 0)
        return r;
    if (!trainer_move(l->trainer, l->pool, &l->optim, rate))
        return not_finite(l, err);
    if (hook && hook->moved)
        hook->moved(hook->ctx, l->trainer, rate);
    if (l->o->ema > 0)
        average_update(&l->average, l->trainer, l->pool, l->optim.step);
    if (l->place.step < FIRST_LOSSES)
        json_array_append_new(json_object_get(l->state.report, "first_losses"), json_real(loss));
    l->place.loss += loss;
    l->place.correct += correct;
    l->place.step++;
    l->place.minibatch++;
    learner_count_time(l);
    return 0;
}
