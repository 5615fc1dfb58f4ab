/* Granularity channel: judge, choose, remove, once or in rounds with training in between. */
#include "compress/prune_channel.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/distil.h"
#include "compress/finetune.h"
#include "compress/held_out.h"
#include "compress/prune_remove.h"
#include "compress/prune_weight.h"
#include "compress/recover.h"
#include "engine/pass.h"
#include "engine/summary.h"

/* ---- choosing ---- */

/* What goes is taken out of a copy: do shapes that the network computes follow? */
static int try_removal(const struct channel_net *net, struct error *err) {
    _cleanup_(graph_freep) struct graph *copy = NULL;
    int r = graph_clone(net->g, &copy, err);

    return r < 0 ? r : prune_remove(copy, &net->c, net->goes, err);
}

static int judge(struct channel_net *net, struct work *work, const struct prune_options *o,
    double **ret_damage, struct error *err) {
    struct prune_options stand_in = *o;
    int r;

    /* the dry run has no data: norms say as well how many channels a budget leaves */
    if (!work && prune_criterion_of(o)->needs_data)
        stand_in.criterion = PRUNE_MAGNITUDE;
    r = work && prune_criterion_of(o)->needs_data
            ? channel_score_data(net, work, o, err)
            : channel_score_weights(net, &stand_in, work ? work->seed : 0, err);
    if (r == 0 && work && o->scope == PRUNE_SENSITIVITY)
        r = channel_sensitivity(net, work, ret_damage, err);
    return r;
}

/* Fills *net of `g`, whose channels that go can be taken out. `work` NULL: without data. */
static int choose(const struct graph *g, const struct prune_options *o, const struct layers *layers,
    const struct layers *start, const struct channel_goal *goal, struct work *work, struct channel_net *net,
    struct error *err) {
    for (int trusts = 1; trusts >= 0; trusts--) {
        _cleanup_(freep) double *damage = NULL;
        struct error e = {0};
        int r;

        channel_net_done(net);
        r = channel_net_init(net, g, trusts, layers, start, err);
        for (int f = 0; f < net->n_families; f++) /* of the step: no override */
            net->of[f].share = net->of[f].share == o->sparsity ? 0 : net->of[f].share;
        if (r == 0)
            r = judge(net, work, o, &damage, err);
        if (r == 0)
            r = channel_select(net, o, goal, damage, err);
        if (r < 0)
            return r;
        r = try_removal(net, &e);
        if (r != -ESTALE || !trusts)
            return r < 0 ? error_copy(err, &e) : 0;
    }
    return 0;
}

static int count_gone(const struct channel_net *net) {
    int n = 0;

    for (int i = 0; i < net->c.n; i++)
        n += net->goes[i];
    return n;
}

/* ---- the dry run ---- */

/* Constants and identities folded, floats dense; layers keep their ids. */
static int prepare(struct graph *g, struct error *err) {
    int r = layers_spread(g, err);

    if (r == 0)
        r = pass_remove_identities(g, err);
    return r < 0 ? r : pass_fold_constants(g, err);
}

/* The same layers in another graph; those that it lost are left out. */
static int find_layers(const struct layers *l, const struct graph *g, struct layers *ret, struct error *err) {
    ret->entry = calloc(l->n + 1, sizeof(*ret->entry));
    if (!ret->entry)
        return error_oom(err);
    for (size_t i = 0; i < l->n; i++) {
        ret->entry[ret->n] = l->entry[i];
        ret->entry[ret->n].node = graph_find_node(g, l->entry[i].id);
        ret->n += ret->entry[ret->n].node >= 0;
    }
    return 0;
}

/* Why no channel of a layer may go; NULL: some may. */
static const char *why_kept(const struct channel_net *net, int node) {
    const struct coupling_site *rows = node >= 0 ? coupling_rows(&net->c, node) : NULL;

    if (!rows)
        return "its weights are not plain floats, or the channels that it reads are not followed";
    for (int64_t i = 0; i < rows->n; i++)
        if (!net->c.reason[rows->channel[i]])
            return NULL;
    return net->c.reason[rows->channel[0]];
}

static int64_t macs_of(const struct summary *s, const char *id) {
    for (size_t i = 0; i < s->n_layers; i++)
        if (!strcmp(s->layers[i].id, id))
            return s->layers[i].macs;
    return -1;
}

static int64_t params_of(const struct graph *g, int node) {
    const struct tensor *w = node >= 0 ? g->values[g->nodes[node].in[1]].init : NULL;
    int64_t n;

    return w && shape_count(&w->shape, &n) ? n : -1;
}

static void fill_effects(const struct channel_net *net, const struct graph *pruned, const struct summary *s,
    struct layers *layers, struct effect *effects) {
    for (size_t i = 0; i < layers->n; i++) {
        struct layer_entry *e = &layers->entry[i];
        int64_t params = params_of(pruned, graph_find_node(pruned, e->id));
        const char *reason = why_kept(net, graph_find_node(net->g, e->id));

        if (!e->is_selected && (params < 0 || params == e->params))
            continue;
        /* what reads channels that go gets smaller, whoever selected it */
        e->is_selected |= params >= 0 && params != e->params;
        if (reason && (params < 0 || params == e->params))
            layer_skip(e, reason);
        else if (effects)
            effects[i] = (struct effect){
                .form = "dense", .bytes = 4 * (params < 0 ? e->params : params), .macs = macs_of(s, e->id)};
    }
}

static double goal_macs(const struct graph *g, double share, struct error *err) {
    _cleanup_(summary_freep) struct summary *s = NULL;

    return summary_new(g, &s, err) < 0 ? -1 : share * (double)s->macs;
}

/* `g`, prepared, loses what the options say, as far as that can be known without data. */
static int shrink(struct graph *g, const struct prune_options *o, const struct layers *layers,
    struct channel_net *net, struct graph **ret, struct error *err) {
    struct channel_goal goal = {.sparsity = o->sparsity};
    int r;

    goal.macs = o->macs > 0 ? goal_macs(g, o->macs, err) : 0;
    if (goal.macs < 0)
        return -EBADMSG;
    r = choose(g, o, layers, NULL, &goal, NULL, net, err);
    if (r == 0)
        r = graph_clone(g, ret, err);
    return r < 0 ? r : prune_remove(*ret, &net->c, net->goes, err);
}

int prune_channel_plan(const struct graph *g, const struct prune_options *o, struct layers *layers,
    struct effect *effects, struct error *err) {
    _cleanup_(graph_freep) struct graph *copy = NULL, *pruned = NULL;
    _cleanup_(channel_net_done) struct channel_net net = {0};
    _cleanup_(layers_done) struct layers own = {0};
    _cleanup_(summary_freep) struct summary *s = NULL;
    int r = graph_clone(g, &copy, err);

    if (r == 0)
        r = prepare(copy, err);
    if (r == 0)
        r = find_layers(layers, copy, &own, err);
    if (r == 0)
        r = shrink(copy, o, &own, &net, &pruned, err);
    if (r == 0)
        r = summary_new(pruned, &s, err);
    if (r < 0)
        return r;
    fill_effects(&net, pruned, s, layers, effects);
    return 0;
}

int prune_channel_outline(
    struct graph *g, const struct prune_options *o, const struct layers *layers, struct error *err) {
    _cleanup_(graph_freep) struct graph *pruned = NULL;
    _cleanup_(channel_net_done) struct channel_net net = {0};
    _cleanup_(layers_done) struct layers own = {0};
    int r = prepare(g, err);

    if (r == 0)
        r = find_layers(layers, g, &own, err);
    if (r == 0)
        r = shrink(g, o, &own, &net, &pruned, err);
    return r < 0 ? r : prune_remove(g, &net.c, net.goes, err);
}

/* ---- the job ---- */

/* Training that makes small what is to go: of each output channel's weights, or of norms' scales. */
static int regularize(struct work *work, const struct prune_options *o, const struct scope *scope,
    json_t *report, struct error *err) {
    _cleanup_(prune_set_done) struct prune_set set = {0};
    _cleanup_(layers_done) struct layers layers = {0};
    struct prune_options by_weight = *o;
    int r = layers_list(work->graph, scope, &layers, err);

    by_weight.granularity = PRUNE_WEIGHT; /* whose groups are whole output channels */
    for (size_t i = 0; i < layers.n; i++)
        layers.entry[i].options = NULL;
    if (r == 0)
        r = prune_set_init(&set, work->graph, &by_weight, &layers, err);
    return r < 0 ? r : prune_regularize(work, &set, report, err);
}

struct loop {
    struct work *work;
    const struct prune_options *o;
    const struct scope *scope;
    struct graph *begin;   /* as it was before the first round, owned: ids of `start` are its */
    struct layers start;   /* its layers */
    double macs, channels; /* its multiplications; channels of all layers */
    json_t *report;
};

static void loop_done(struct loop *l) {
    layers_done(&l->start);
    graph_free(l->begin);
}

static int loop_begin(struct loop *l, struct error *err) {
    int r = graph_clone(l->work->graph, &l->begin, err);

    if (r == 0)
        r = layers_list(l->begin, NULL, &l->start, err);
    if (r < 0)
        return r;
    l->macs = goal_macs(l->begin, 1, err);
    for (size_t i = 0; i < l->start.n; i++)
        l->channels += (double)l->start.entry[i].rows;
    return l->macs < 0 ? -EBADMSG : 0;
}

/* What is left after round `round` of `rounds`: the same share of what was left each time. */
static struct channel_goal goal_of(const struct loop *l, int round, int rounds) {
    double part = (double)round / rounds;

    if (l->o->macs > 0)
        return (struct channel_goal){.macs = l->macs * pow(l->o->macs, part)};
    return (struct channel_goal){.sparsity = 1 - pow(1 - l->o->sparsity, part)};
}

/* What layers keep of their channels, for calibration. */
struct kept {
    struct recover_kept *of; /* [n] */
    int **channel;           /* [n] */
    size_t n;
};

static void kept_done(struct kept *k) {
    for (size_t i = 0; i < k->n; i++)
        free(k->channel[i]);
    free(k->channel);
    free(k->of);
}

static int kept_find(const struct channel_net *net, struct kept *ret, struct error *err) {
    const struct coupling *c = &net->c;

    ret->of = calloc(c->n_sites + 1, sizeof(*ret->of));
    ret->channel = calloc(c->n_sites + 1, sizeof(*ret->channel));
    if (!ret->of || !ret->channel)
        return error_oom(err);
    for (size_t s = 0; s < c->n_sites; s++) {
        const struct coupling_site *site = &c->site[s];
        struct recover_kept *k = &ret->of[ret->n];
        int *channel;

        if (site->role != COUPLING_ROW || prune_count_kept(site->channel, site->n, net->goes) == site->n)
            continue;
        channel = malloc((size_t)site->n * sizeof(*channel));
        if (!channel)
            return error_oom(err);
        k->id = net->g->nodes[site->node].id;
        k->channel = ret->channel[ret->n++] = channel;
        for (int64_t i = 0; i < site->n; i++)
            if (!net->goes[site->channel[i]])
                channel[k->n++] = (int)i;
    }
    return 0;
}

/* Judges, and takes channels out of work->graph; means and deviations of those that stay come back where that
 * is wanted. *ret: how many go. */
static int remove_part(struct loop *l, const struct channel_goal *goal, int *ret, struct error *err) {
    _cleanup_(channel_constants_done) struct channel_constants constants = {0};
    _cleanup_(channel_net_done) struct channel_net net = {0};
    _cleanup_(layers_done) struct layers layers = {0};
    _cleanup_(graph_freep) struct graph *before = NULL;
    _cleanup_(kept_done) struct kept kept = {0};
    struct work *work = l->work;
    const struct recover *recover = work->recover;
    int r = finetune_prepare(work->graph, err);

    if (r == 0)
        r = layers_list(work->graph, l->scope, &layers, err);
    if (r == 0)
        r = choose(work->graph, l->o, &layers, &l->start, goal, work, &net, err);
    if (r == 0)
        r = channel_constants_find(&net, work, &constants, err);
    if (r == 0)
        r = kept_find(&net, &kept, err);
    if (r == 0)
        r = graph_clone(work->graph, &before, err);
    if (r == 0)
        r = prune_remove(work->graph, &net.c, net.goes, err);
    if (r == 0)
        r = channel_constants_put(work->graph, &constants, err);
    if (r == 0 && recover && recover->calibrate.is_wanted) {
        work->has_calibrated = true;
        r = recover_calibrate_kept(work, before, &recover->calibrate, kept.of, kept.n, err);
    }
    *ret = r == 0 ? count_gone(&net) : 0;
    return r;
}

static int report_end(const struct loop *l, struct error *err) {
    const struct graph *g = l->work->graph;
    json_t *list = json_array();
    double macs = goal_macs(g, 1, err), channels = 0;

    for (size_t i = 0; i < l->start.n; i++) {
        const struct layer_entry *e = &l->start.entry[i];
        int node = graph_find_node(g, e->id);
        const struct tensor *w = node >= 0 ? g->values[g->nodes[node].in[1]].init : NULL;
        int64_t rows = !w ? e->rows
                          : w->shape.dim[w->shape.rank > 2 || node_attr_int(&g->nodes[node], "transB", 0)
                                             ? 0
                                             : w->shape.rank - 1];

        channels += (double)rows;
        json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "id", e->id, "channels_before",
                                        (json_int_t)e->rows, "channels", (json_int_t)rows));
    }
    if (macs < 0)
        return -EBADMSG;
    json_object_set_new(l->report, "layers", list);
    json_object_set_new(l->report, "channels_kept", json_real(channels / l->channels));
    json_object_set_new(l->report, "macs_kept", json_real(macs / l->macs));
    return 0;
}

/* ---- in rounds ---- */

struct round {
    int n, gone;
    double first;         /* accuracy before the first round; -1: there is none */
    double before, after; /* of this round: training */
};

static int train(struct loop *l, int round, struct error *err) {
    const struct recover *recover = l->work->recover;
    json_t *found = json_object();
    struct learn_distil distil;
    struct finetune_run run = {0};
    char name[64];
    int r = recover->has_distill ? distil_read(&recover->distill, l->work->parent, &distil, err) : 0;

    snprintf(name, sizeof(name), "step%zu.round%d", l->work->step, round);
    run.name = name;
    run.distil = recover->has_distill ? &distil : NULL;
    if (r == 0)
        r = finetune_graph(l->work, &recover->finetune, &run, found, err);
    json_object_set_new(l->report, "finetune", found);
    return r;
}

static int run_round(struct loop *l, struct round *d, struct error *err) {
    const struct progress *whole = l->work->progress;
    int rounds = l->o->schedule.rounds;
    struct progress_part part;
    struct channel_goal goal = goal_of(l, d->n, rounds);
    int r;

    progress_part_init(&part, whole, (double)(d->n - 1) / rounds, 1.0 / rounds);
    l->work->progress = &part.progress;
    r = remove_part(l, &goal, &d->gone, err);
    if (r == 0)
        r = held_out_accuracy(l->work, l->work->graph, &d->before, err);
    if (r == 0)
        r = train(l, d->n, err);
    if (r == 0)
        r = held_out_accuracy(l->work, l->work->graph, &d->after, err);
    l->work->progress = whole;
    return r;
}

static int tell_round(const struct loop *l, const struct round *d, json_t *rounds, struct error *err) {
    const struct progress *p = l->work->progress;
    double kept = goal_macs(l->work->graph, 1, err) / l->macs;
    const struct {
        const char *name;
        double value;
    } figures[] = {{"macs_kept", kept}, {"accuracy_pruned", d->before}, {"accuracy", d->after}};
    json_t *row = json_pack("{s:i, s:i}", "round", d->n, "removed", d->gone);

    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
        if (figures[i].value < 0)
            continue;
        json_object_set_new(row, figures[i].name, json_real(figures[i].value));
        if (p && p->metric)
            p->metric(p->ctx, figures[i].name, figures[i].value, d->n);
    }
    json_array_append_new(rounds, row);
    progress_event(p,
        "prune: round %d of %d: judged by %s, %d channels removed, %.1f%% of the multiplications stay, accuracy "
        "%.4f; fine-tuned, %.4f",
        d->n, l->o->schedule.rounds, prune_criterion_of(l->o)->name, d->gone, 100 * kept, d->before,
        d->after);
    return kept < 0 ? -EBADMSG : 0;
}

/* A round after which the accuracy fell too far is undone, and the last. */
static int end_early(struct loop *l, const struct round *d, struct graph **before, struct error *err) {
    if (d->n == 1)
        return error_code(err, -EBADMSG, "method_not_applicable",
            ".schedule.max_drop: already the first round lets the accuracy fall from %.4f to %.4f; more rounds or "
            "epochs may help",
            d->first, d->after);
    progress_event(l->work->progress, "prune: accuracy fell by more than %.3f, round %d is undone",
        l->o->schedule.max_drop, d->n);
    json_object_set_new(l->report, "stopped", json_string("accuracy fell"));
    graph_free(l->work->graph);
    l->work->graph = TAKE(*before);
    return 0;
}

static int run_rounds(struct loop *l, struct error *err) {
    json_t *rounds = json_array();
    struct round d = {0};
    int r = held_out_accuracy(l->work, l->work->graph, &d.first, err);

    json_object_set_new(l->report, "rounds", rounds);
    l->work->has_trained = true;
    for (d.n = 1; r == 0 && d.n <= l->o->schedule.rounds; d.n++) {
        _cleanup_(graph_freep) struct graph *before = NULL;

        r = graph_clone(l->work->graph, &before, err);
        if (r == 0)
            r = run_round(l, &d, err);
        if (r == 0)
            r = tell_round(l, &d, rounds, err);
        if (r == 0 && d.after >= 0 && d.after < d.first - l->o->schedule.max_drop)
            return end_early(l, &d, &before, err);
    }
    return r;
}

int prune_channel_apply(struct work *work, const struct prune_options *o, const struct scope *scope,
    json_t *report, struct error *err) {
    _cleanup_(loop_done) struct loop l = {.work = work, .o = o, .scope = scope, .report = report};
    int gone = 0, r = prepare(work->graph, err);

    if (r == 0 && o->has_regularize)
        r = regularize(work, o, scope, report, err);
    if (r == 0)
        r = loop_begin(&l, err);
    if (r == 0 && o->schedule.kind == PRUNE_ITERATIVE) {
        r = run_rounds(&l, err);
    } else if (r == 0) {
        struct channel_goal goal = goal_of(&l, 1, 1);

        r = remove_part(&l, &goal, &gone, err);
        if (r == 0)
            progress_event(work->progress, "prune: judged by %s, %d channels removed",
                prune_criterion_of(o)->name, gone);
    }
    return r < 0 ? r : report_end(&l, err);
}
