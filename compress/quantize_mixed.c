/* Bits for each layer under a budget (`mixed`). With each layer's weights alone rounded to each number of
 * bits, how far the network's answers move is measured (sensitivity.h); such small damages add up nearly.
 * From 8 bits everywhere, the layer whose next step down costs least for the bytes it saves goes first (the
 * convex hull of each layer's costs, so that a dear step does not hide a cheap one behind it; as of Shoham
 * and Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers"; bits from measured
 * sensitivity as Dong et al. 2019, "HAWQ"). Bytes are those of the weights in the file, in which 4 and 2 bits
 * are packed and all others would take a byte. A budget of bytes ends the walk where they fit; one of
 * accuracy is bisected along it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/fold.h"
#include "compress/held_out.h"
#include "compress/quantize.h"
#include "compress/sensitivity.h"
#include "engine/ops.h"

#define SAMPLES 128 /* that damage is measured on */

static const int choices[] = {8, 4, 2};

#define N_CHOICES ((int)(sizeof(choices) / sizeof(choices[0])))

struct mixed_layer {
    char *id;
    int64_t params, scales;
    double damage[N_CHOICES];
    int at; /* index of choices */
};

struct step {
    size_t layer;
    int from, to;
};

struct mixed {
    size_t n;
    struct mixed_layer *layer;
    int64_t fixed_bytes, parent_bytes; /* of layers that are not touched; of all in floats */
    size_t n_steps;
    struct step *step; /* down from 8 bits everywhere, in order */
};

static void mixed_done(struct mixed *m) {
    for (size_t i = 0; i < m->n; i++)
        free(m->layer[i].id);
    free(m->layer);
    free(m->step);
}

static int check(const struct quantize_options *o, struct error *err) {
    if (!o->has_budget || (o->budget.bytes > 0) == (o->budget.max_drop > 0))
        return error_set(err, -EINVAL, ".budget: either bytes or max_drop is needed");
    if (o->budget.max_drop > 0 && o->has_accuracy_control)
        return error_set(err, -EINVAL, ".accuracy_control: budget.max_drop holds the accuracy already");
    if (o->budget.max_drop > 0 && o->has_qat)
        return error_set(err, -EINVAL, ".qat: bits are not chosen by the accuracy before a training");
    return 0;
}

static bool wants_data(const struct quantize_options *o) {
    (void)o;
    return true;
}

static int64_t scales_of(const struct quantize_options *o, const struct layer_entry *e) {
    return quantize_options_of(o, e)->per_channel ? e->rows : 1;
}

/* Bytes asked for; 0: any. */
static int64_t budget_bytes(const struct quantize_options *o, int64_t parent) {
    return o->budget.bytes <= 1 ? (int64_t)(o->budget.bytes * (double)parent) : (int64_t)o->budget.bytes;
}

static int refuse_budget(int64_t wanted, int64_t least, int64_t parent, struct error *err) {
    return error_code(err, -EBADMSG, "requirement_not_met",
        ".budget.bytes: %lld bytes cannot be reached; the least is %lld (%.4f of the parent)",
        (long long)wanted, (long long)least, (double)least / (double)(parent > 0 ? parent : 1));
}

static int64_t least_bytes(int64_t params, int64_t scales) {
    int64_t least = INT64_MAX;

    for (int k = 0; k < N_CHOICES; k++) {
        int64_t n = quantize_codes_bytes(choices[k], params, scales);

        least = n < least ? n : least;
    }
    return least;
}

/* What each layer gets is known once its sensitivity is: here all shrink alike. */
static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    const struct quantize_options *o = options;
    int64_t parent = 0, rest = 0, most = 0, least = 0, wanted;
    int r = quantize_scheme_int8.plan(g, options, layers, NULL, err);

    for (size_t i = 0; r == 0 && i < layers->n; i++) {
        const struct layer_entry *e = &layers->entry[i];

        parent += e->form ? e->bytes : 4 * e->params;
        rest += e->is_selected ? 0 : e->bytes;
        most += e->is_selected ? quantize_codes_bytes(8, e->params, scales_of(o, e)) : 0;
        least += e->is_selected ? least_bytes(e->params, scales_of(o, e)) : 0;
    }
    if (r < 0 || !effects)
        return r;
    wanted = budget_bytes(o, parent);
    if (wanted > 0 && least > 0 && wanted < rest + least)
        return refuse_budget(wanted, rest + least, parent, err);
    for (size_t i = 0; i < layers->n; i++) {
        const struct layer_entry *e = &layers->entry[i];
        double all = (double)quantize_codes_bytes(8, e->params, scales_of(o, e));
        double share = wanted > 0 && wanted - rest < most ? (double)(wanted - rest) / (double)most : 1;

        if (e->is_selected)
            effects[i] = (struct effect){.form = "mixed", .bytes = (int64_t)(all * share), .macs = -1};
    }
    return 0;
}

/* ---- sensitivity ---- */

/* A copy of the graph in which one layer's weights are what `bits` leave of them. */
static int round_layer(const struct graph *g, const struct quantize_options *o, const struct layer_entry *e,
    int bits, struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *copy = NULL;
    _cleanup_(quantized_weights_done) struct quantized_weights q = {0};
    _cleanup_(freep) float *w = NULL;
    struct weight_rounding how = {
        .bits = bits, .per_channel = quantize_options_of(o, e)->per_channel, .group = 1};
    struct weight_rows rows;
    struct tensor t;
    int r = graph_clone(g, &copy, err), value;

    if (r == 0)
        r = weight_rows_of(g, &g->nodes[e->node], &rows, err);
    if (r < 0)
        return r;
    t = *g->values[g->nodes[e->node].in[1]].init;
    r = quantize_weights(t.data, &rows, &how, &q, err);
    if (r < 0)
        return error_prefix(err, r, "node '%s'", e->id);
    w = malloc((size_t)e->params * sizeof(*w) + 1);
    if (!w)
        return error_oom(err);
    for (int64_t i = 0; i < e->params; i++)
        w[i] = q.scale[quantized_scale_of(&q, &rows, i)] * (float)q.q[i];
    t.data = w;
    value = graph_add_init(copy, graph_unique_name(copy, "rounded"), &t, false);
    if (value < 0)
        return error_oom(err);
    copy->nodes[e->node].in[1] = value;
    r = graph_finish(copy, err);
    *ret = TAKE(copy);
    return r;
}

static int find_damages(struct work *work, const struct quantize_options *o, struct sensitivity *judge,
    const struct layer_entry *e, struct mixed_layer *layer, struct error *err) {
    for (int k = 0; k < N_CHOICES; k++) {
        _cleanup_(graph_freep) struct graph *rounded = NULL;
        _cleanup_(sensitivity_damage_done) struct sensitivity_damage d = {0};
        int r = round_layer(work->graph, o, e, choices[k], &rounded, err);

        if (r == 0)
            r = sensitivity_judge(judge, 0, rounded, &d, err);
        if (r < 0)
            return r;
        layer->damage[k] = sensitivity_cost(&d);
        /* fewer bits are not better: what measures so is noise */
        if (k > 0 && layer->damage[k] < layer->damage[k - 1])
            layer->damage[k] = layer->damage[k - 1];
    }
    return 0;
}

static int find_sensitivity(struct work *work, const struct quantize_options *o, const struct scope *scope,
    struct mixed *m, struct error *err) {
    const struct sensitivity_options options = {.samples = SAMPLES, .progress = work->progress};
    _cleanup_(sensitivity_freep) struct sensitivity *judge = NULL;
    _cleanup_(layers_done) struct layers layers = {0};
    int r = layers_list(work->graph, scope, &layers, err);

    if (r == 0)
        r = plan(work->graph, o, &layers, NULL, err);
    if (r == 0)
        r = sensitivity_open(work->graph, work->samples, &options, &judge, err);
    m->layer = calloc(layers.n + 1, sizeof(*m->layer));
    if (r == 0 && !m->layer)
        return error_oom(err);
    for (size_t i = 0; r == 0 && i < layers.n; i++) {
        const struct layer_entry *e = &layers.entry[i];
        struct mixed_layer *to = &m->layer[m->n];

        m->parent_bytes += e->form ? e->bytes : 4 * e->params;
        if (!e->is_selected) {
            m->fixed_bytes += e->bytes;
            continue;
        }
        *to = (struct mixed_layer){.id = strdup(e->id), .params = e->params, .scales = scales_of(o, e)};
        m->n++;
        if (!to->id)
            return error_oom(err);
        r = progress_at(work->progress, (double)i / (double)layers.n, "how many bits layers need", err);
        if (r == 0)
            r = find_damages(work, o, judge, e, to, err);
    }
    return r;
}

/* ---- the walk ---- */

static int64_t layer_bytes(const struct mixed_layer *l, int at) {
    return quantize_codes_bytes(choices[at], l->params, l->scales);
}

static int64_t total_bytes(const struct mixed *m) {
    int64_t n = m->fixed_bytes;

    for (size_t i = 0; i < m->n; i++)
        n += layer_bytes(&m->layer[i], m->layer[i].at);
    return n;
}

/* The cheapest step down of a layer, whatever it leaves out; -1: it is at the end. */
static int next_of(const struct mixed_layer *l, double *ret_cost) {
    int best = -1;

    for (int k = l->at + 1; k < N_CHOICES; k++) {
        int64_t saved = layer_bytes(l, l->at) - layer_bytes(l, k);
        double cost = (l->damage[k] - l->damage[l->at]) / (double)saved;

        if (saved <= 0) /* the table of packed codes is larger than what they save */
            continue;
        if (best < 0 || cost < *ret_cost) {
            *ret_cost = cost;
            best = k;
        }
    }
    return best;
}

static int find_walk(struct mixed *m, struct error *err) {
    m->step = calloc(m->n * N_CHOICES + 1, sizeof(*m->step));
    if (!m->step)
        return error_oom(err);
    for (;;) {
        struct step s = {.layer = m->n};
        double least = 0;

        for (size_t i = 0; i < m->n; i++) {
            double cost = 0;
            int to = next_of(&m->layer[i], &cost);

            if (to >= 0 && (s.layer == m->n || cost < least)) {
                least = cost;
                s = (struct step){.layer = i, .from = m->layer[i].at, .to = to};
            }
        }
        if (s.layer == m->n)
            return 0;
        m->layer[s.layer].at = s.to;
        m->step[m->n_steps++] = s;
    }
}

static void go_to(struct mixed *m, size_t n_steps) {
    for (size_t i = 0; i < m->n; i++)
        m->layer[i].at = 0;
    for (size_t i = 0; i < n_steps; i++)
        m->layer[m->step[i].layer].at = m->step[i].to;
}

/* ---- quantising as chosen ---- */

static int bits_of(const struct weight_coder *c, const struct layer_entry *e) {
    const struct mixed *m = c->ctx;

    for (size_t i = 0; i < m->n; i++)
        if (!strcmp(m->layer[i].id, e->id))
            return choices[m->layer[i].at];
    return 8;
}

static int write_layers(struct work *work, const struct quantize_options *o, const struct mixed *m,
    const struct scope *scope, json_t *report, struct error *err) {
    struct weight_coder c = {
        .plan = quantize_scheme_int8.plan, .options = o, .seed = work->seed, .bits = bits_of, .ctx = m};
    int r = quantize_int8(work, o, &c, scope, report, err);

    json_object_set_new(report, "weight_bytes", json_integer(total_bytes(m)));
    json_object_set_new(report, "weight_bytes_before", json_integer(m->parent_bytes));
    return r;
}

static int meet_bytes(struct work *work, const struct quantize_options *o, struct mixed *m,
    const struct scope *scope, json_t *report, struct error *err) {
    int64_t wanted = budget_bytes(o, m->parent_bytes);
    size_t n = 0;

    for (go_to(m, 0); total_bytes(m) > wanted && n < m->n_steps;)
        go_to(m, ++n);
    if (total_bytes(m) > wanted)
        return refuse_budget(wanted, total_bytes(m), m->parent_bytes, err);
    return write_layers(work, o, m, scope, report, err);
}

static int try_walk(struct work *work, const struct quantize_options *o, struct mixed *m,
    const struct graph *start, size_t n_steps, const struct scope *scope, json_t *report, double *ret,
    struct error *err) {
    struct graph *copy;
    int r = graph_clone(start, &copy, err);

    if (r < 0)
        return r;
    graph_free(work->graph);
    work->graph = copy;
    go_to(m, n_steps);
    json_object_clear(report);
    r = write_layers(work, o, m, scope, report, err);
    return r < 0 ? r : held_out_accuracy(work, work->graph, ret, err);
}

/* The furthest on the walk that keeps the accuracy, by bisection. */
static int meet_drop(struct work *work, const struct quantize_options *o, struct mixed *m,
    const struct scope *scope, json_t *report, struct error *err) {
    _cleanup_(graph_freep) struct graph *start = NULL;
    size_t good = 0, bad = m->n_steps + 1, last = 0;
    double before, accuracy;
    int r = graph_clone(work->graph, &start, err);

    if (r == 0)
        r = held_out_accuracy(work, start, &before, err);
    if (r == 0 && before < 0)
        return error_code(err, -EBADMSG, "data_required",
            "budget.max_drop needs labelled pictures, of which some are held out of the training split");
    if (r == 0)
        r = try_walk(work, o, m, start, 0, scope, report, &accuracy, err);
    if (r == 0 && accuracy < before - o->budget.max_drop)
        return error_code(err, -EBADMSG, "method_not_applicable",
            "budget.max_drop: with 8 bits everywhere held-out accuracy falls from %.4f to %.4f", before,
            accuracy);
    while (r == 0 && bad - good > 1) {
        last = good + (bad - good) / 2;
        r = progress_at(work->progress, (double)good / (double)m->n_steps, "fewer bits", err);
        if (r == 0)
            r = try_walk(work, o, m, start, last, scope, report, &accuracy, err);
        if (accuracy < before - o->budget.max_drop)
            bad = last;
        else
            good = last;
    }
    if (r == 0 && last != good)
        r = try_walk(work, o, m, start, good, scope, report, &accuracy, err);
    if (r == 0)
        json_object_set_new(report, "held_out",
            json_pack(
                "{s:f, s:f, s:f}", "before", before, "accuracy", accuracy, "max_drop", o->budget.max_drop));
    return r;
}

static int apply(struct work *work, const struct quantize_options *o, const struct scope *scope,
    json_t *report, struct error *err) {
    _cleanup_(mixed_done) struct mixed m = {0};
    int r = fold_graph(work->graph, err);

    if (r == 0)
        r = fold_infer_shapes(work->graph, &work->samples->item, err);
    if (r == 0)
        r = find_sensitivity(work, o, scope, &m, err);
    if (r == 0)
        r = find_walk(&m, err);
    if (r < 0)
        return r;
    return o->budget.bytes > 0 ? meet_bytes(work, o, &m, scope, report, err)
                               : meet_drop(work, o, &m, scope, report, err);
}

const struct quantize_scheme quantize_scheme_mixed = {
    .name = "mixed", .check = check, .wants_data = wants_data, .plan = plan, .apply = apply};
