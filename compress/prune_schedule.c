/* When what goes: at once, in rounds of judging, removing and training, or gradually while it trains. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/held_out.h"
#include "compress/prune_weight.h"
#include "compress/recover.h"

/* Gradual: masks are made again so often, until this share of the steps; the last part trains with the mask
 * that stays. */
#define UPDATES    100
#define RAMP_SHARE 0.6

double prune_gradual_share(double progress) {
    double left = 1 - fmin(fmax(progress, 0), 1);

    return 1 - left * left * left;
}

/* The budget's own share that stays at the end; sigmas and patterns go in even steps. */
double prune_round_share(const struct prune_options *o, int round) {
    double kept = o->macs > 0 ? o->macs : o->sparsity > 0 ? 1 - o->sparsity : 0;
    double part = (double)round / o->schedule.rounds;

    return kept > 0 ? (1 - pow(kept, part)) / (1 - kept) : part;
}

/* Zeros that stayed although the mask would have them belong to it. */
static void count_zeros(const struct graph *g, struct prune_set *s) {
    for (size_t k = 0; s->o->granularity == PRUNE_WEIGHT && k < s->n; k++) {
        struct prune_layer *l = &s->layer[k];
        const struct tensor *t = g->values[l->value].init;

        for (int64_t i = 0; i < l->n; i++)
            l->keep[i] = l->keep[i] && prune_weight(t->data, i) != 0;
    }
    prune_set_count(s);
}

static int report_end(const struct graph *g, struct prune_set *s, json_t *report, struct error *err) {
    count_zeros(g, s);
    if (json_object_set_new(report, "sparsity", json_real(prune_sparsity(s))) < 0 ||
        json_object_set_new(report, "macs_kept", json_real(prune_macs_kept(s))) < 0)
        return error_oom(err);
    return 0;
}

/* Judges, and takes out; what the means were comes back where that is wanted. */
static int remove_share(struct work *work, struct prune_set *s, double x, json_t *report, struct error *err) {
    const struct recover_calibrate *c = &work->recover->calibrate;
    int r = prune_score(work, s, err);

    if (r == 0 && s->o->scope == PRUNE_SENSITIVITY && !json_object_get(report, "sensitivity"))
        r = prune_sensitivity(work, s, report, err);
    if (r == 0)
        r = prune_choose(s, x, err);
    if (r == 0)
        r = prune_write_zeros(work->graph, s, err);
    if (r == 0 && c->is_wanted) {
        work->has_calibrated = true;
        r = recover_calibrate(work, work->parent, c, err);
    }
    return r < 0 ? r : prune_set_find(s, work->graph, err);
}

int prune_oneshot(struct work *work, struct prune_set *s, json_t *report, struct error *err) {
    int r = remove_share(work, s, 1, report, err);

    if (r == 0)
        progress_event(work->progress, "prune: judged by %s, removed %.1f%% of the weights",
            prune_criterion_of(s->o)->name, 100 * prune_sparsity(s));
    return r < 0 ? r : report_end(work->graph, s, report, err);
}

/* ---- iterative ---- */

struct round {
    int n;
    double first; /* accuracy before the first round; -1: there is none */
    double before, after;
};

static void tell_round(
    const struct work *work, const struct prune_set *s, const struct round *d, json_t *rounds) {
    const struct progress *p = work->progress;
    json_t *row = json_pack(
        "{s:i, s:f, s:f}", "round", d->n, "sparsity", prune_sparsity(s), "macs_kept", prune_macs_kept(s));
    const struct {
        const char *name;
        double value;
    } metrics[] = {{"sparsity", prune_sparsity(s)}, {"accuracy_pruned", d->before}, {"accuracy", d->after}};

    if (d->after >= 0) {
        json_object_set_new(row, "accuracy_pruned", json_real(d->before));
        json_object_set_new(row, "accuracy", json_real(d->after));
    }
    json_array_append_new(rounds, row);
    for (size_t i = 0; p && p->metric && i < sizeof(metrics) / sizeof(metrics[0]); i++)
        if (metrics[i].value >= 0)
            p->metric(p->ctx, metrics[i].name, metrics[i].value, d->n);
    if (d->after >= 0)
        progress_event(p,
            "prune: round %d of %d: judged by %s, %.1f%% of the weights removed, accuracy %.4f; fine-tuned, %.4f",
            d->n, s->o->schedule.rounds, prune_criterion_of(s->o)->name, 100 * prune_sparsity(s), d->before,
            d->after);
    else
        progress_event(p, "prune: round %d of %d: judged by %s, %.1f%% of the weights removed, fine-tuned",
            d->n, s->o->schedule.rounds, prune_criterion_of(s->o)->name, 100 * prune_sparsity(s));
}

static int run_round(
    struct work *work, struct prune_set *s, struct round *d, json_t *report, struct error *err) {
    const struct progress *whole = work->progress;
    const int rounds = s->o->schedule.rounds;
    struct progress_part part;
    char name[32];
    int r;

    snprintf(name, sizeof(name), "round%d", d->n);
    progress_part_init(&part, whole, (double)(d->n - 1) / rounds, 1.0 / rounds);
    work->progress = &part.progress;
    r = remove_share(work, s, prune_round_share(s->o, d->n), report, err);
    if (r == 0)
        r = held_out_accuracy(work, work->graph, &d->before, err);
    if (r == 0)
        r = prune_train(work, s, NULL, 0, name, report, err);
    if (r == 0)
        r = held_out_accuracy(work, work->graph, &d->after, err);
    work->progress = whole;
    return r;
}

/* What a round begins with, to go back to. */
struct undo {
    struct graph *graph;
    uint8_t *masks;
};

static void undo_done(struct undo *u) {
    graph_free(u->graph);
    free(u->masks);
}

static int undo_keep(struct undo *u, const struct work *work, const struct prune_set *s, struct error *err) {
    u->graph = graph_free(u->graph);
    if (!u->masks && !(u->masks = malloc(s->masks_bytes + 1)))
        return error_oom(err);
    memcpy(u->masks, s->masks, s->masks_bytes);
    return graph_clone(work->graph, &u->graph, err);
}

static int undo_go_back(struct undo *u, struct work *work, struct prune_set *s, struct error *err) {
    graph_free(work->graph);
    work->graph = TAKE(u->graph);
    memcpy(s->masks, u->masks, s->masks_bytes);
    prune_set_count(s);
    return prune_set_find(s, work->graph, err);
}

static int refuse_first(const struct prune_set *s, const struct round *d, struct error *err) {
    return error_code(err, -EBADMSG, "method_not_applicable",
        ".schedule.max_drop: already the first round, which removes %.0f%% of the weights, lets the accuracy fall "
        "from %.4f to %.4f; more rounds or epochs may help",
        100 * prune_sparsity(s), d->first, d->after);
}

int prune_iterative(struct work *work, struct prune_set *s, json_t *report, struct error *err) {
    _cleanup_(undo_done) struct undo undo = {0};
    struct round d = {0};
    json_t *rounds = json_array();
    int r = json_object_set_new(report, "rounds", rounds) < 0
                ? error_oom(err)
                : held_out_accuracy(work, work->graph, &d.first, err);

    work->has_trained = true;
    for (d.n = 1; r == 0 && d.n <= s->o->schedule.rounds; d.n++) {
        r = undo_keep(&undo, work, s, err);
        if (r == 0)
            r = run_round(work, s, &d, report, err);
        if (r < 0)
            return r;
        tell_round(work, s, &d, rounds);
        if (d.after < 0 || d.after >= d.first - s->o->schedule.max_drop)
            continue;
        if (d.n == 1)
            return refuse_first(s, &d, err);
        progress_event(work->progress, "prune: accuracy fell by more than %.3f, round %d is undone",
            s->o->schedule.max_drop, d.n);
        json_object_set_new(report, "stopped", json_string("accuracy fell"));
        r = undo_go_back(&undo, work, s, err);
        break;
    }
    return r < 0 ? r : report_end(work->graph, s, report, err);
}

/* ---- gradual ---- */

struct gradual {
    struct prune_set *s;
    uint64_t seed;
    int64_t *last;  /* step at which the masks were last made; before the masks in the hook's state */
    uint8_t *state; /* owned: last, masks */
    uint8_t *masks; /* the set's own, until it is over */
};

static const void *weights_of(const struct trainer *t, int value) {
    for (size_t i = 0; i < trainer_n_params(t); i++)
        if (trainer_param(t, i)->value == value)
            return trainer_param(t, i)->data;
    return NULL;
}

static int mask_again(struct gradual *a, const struct trainer *t, double progress, struct error *err) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < a->s->n; i++) {
        struct prune_layer *l = &a->s->layer[i];

        r = prune_score_weights(l, weights_of(t, l->value), a->seed, i, err);
    }
    return r == 0 ? prune_choose(a->s, prune_gradual_share(progress), err) : r;
}

static int begin_step(void *ctx, struct trainer *t, int64_t step, int64_t n_steps, struct error *err) {
    struct gradual *a = ctx;
    int64_t ramp = (int64_t)(RAMP_SHARE * (double)n_steps), every = ramp / UPDATES;

    ramp = ramp > 0 ? ramp : 1;
    every = every > 0 ? every : 1;
    if (*a->last >= ramp || (*a->last >= 0 && step < ramp && step / every == *a->last / every))
        return 0;
    *a->last = step;
    return mask_again(a, t, (double)step / (double)ramp, err);
}

/* Lets the masks stand behind `last` in one piece of memory, which goes into checkpoints. */
static int share_state(struct gradual *a, struct error *err) {
    struct prune_set *s = a->s;

    a->state = calloc(sizeof(*a->last) + s->masks_bytes + 1, 1);
    if (!a->state)
        return error_oom(err);
    a->last = (int64_t *)(void *)a->state;
    *a->last = -1;
    memcpy(a->state + sizeof(*a->last), s->masks, s->masks_bytes);
    for (size_t i = 0; i < s->n; i++)
        s->layer[i].keep = a->state + sizeof(*a->last) + (s->layer[i].keep - s->masks);
    return 0;
}

static void return_state(struct gradual *a) {
    struct prune_set *s = a->s;

    memcpy(s->masks, a->state + sizeof(*a->last), s->masks_bytes);
    for (size_t i = 0; i < s->n; i++)
        s->layer[i].keep = s->masks + (s->layer[i].keep - a->state) - sizeof(*a->last);
    prune_set_count(s);
    free(a->state);
}

int prune_gradual(struct work *work, struct prune_set *s, json_t *report, struct error *err) {
    struct gradual a = {.s = s, .seed = work->seed};
    struct learn_hook hook = {.ctx = &a, .begin = begin_step};
    int r = 0;

    work->has_trained = true;
    if (s->o->scope == PRUNE_SENSITIVITY) {
        r = prune_score(work, s, err);
        if (r == 0)
            r = prune_sensitivity(work, s, report, err);
    }
    if (r == 0)
        r = share_state(&a, err);
    if (r < 0)
        return r;
    hook.state = a.state;
    hook.state_bytes = sizeof(*a.last) + s->masks_bytes;
    r = prune_train(work, s, &hook, 0, "gradual", report, err);
    return_state(&a);
    if (r == 0)
        progress_event(
            work->progress, "prune: %.1f%% of the weights removed while it trained", 100 * prune_sparsity(s));
    return r < 0 ? r : report_end(work->graph, s, report, err);
}
