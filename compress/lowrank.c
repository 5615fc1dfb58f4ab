#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/fold.h"
#include "compress/linalg.h"
#include "compress/lowrank_plan.h"
#include "compress/lowrank_saved.h"
#include "engine/summary.h"

static const char *const rank_words[] = {"auto", NULL};
static const char *const break_evens[] = {"latency", "macs", "none", NULL};

#define AT(field) offsetof(struct lowrank_options, field)
#define IN(field) (AT(rank.field) - AT(rank))

static const struct param rank_rows[] = {
    {
        .name = "energy",
        .type = PARAM_REAL,
        .at = IN(energy),
        .min = 0.01,
        .max = 1,
        .doc = "each layer: the least rank that keeps this share of the squared singular values",
    },
    {
        .name = "ratio",
        .type = PARAM_REAL,
        .at = IN(ratio),
        .min = 0.001,
        .max = 0.999,
        .doc = "each layer: the rank that keeps most energy with at most this share of its MACs",
    },
    {
        .name = "macs",
        .type = PARAM_REAL,
        .at = IN(macs),
        .min = 0.001,
        .max = 0.999,
        .doc = "share of the whole network's MACs that is kept; the ranks of all layers are chosen together",
        .source = "Zhang et al. 2015, Accelerating very deep convolutional networks, section 3.2",
    },
    {
        .name = "layers",
        .type = PARAM_JSON,
        .at = IN(layers),
        .doc = "ranks by layer: {glob: [rank]}, of tucker2 [in, out]; other layers stay as they are",
    },
};
static const struct param_table rank_table = {rank_rows, sizeof(rank_rows) / sizeof(rank_rows[0])};

static const struct param latency_rows[] = {
    {
        .name = "layer",
        .type = PARAM_STRING,
        .at = offsetof(struct lowrank_latency, layer),
        .doc = "its id",
    },
    {
        .name = "decomposition",
        .type = PARAM_ENUM,
        .at = offsetof(struct lowrank_latency, decomposition),
        .choices = lowrank_decompositions,
        .dflt = "tucker2",
        .doc = "that was timed",
    },
    {
        .name = "ranks",
        .type = PARAM_JSON,
        .at = offsetof(struct lowrank_latency, ranks),
        .doc = "at these ranks",
    },
    {
        .name = "dense_us",
        .type = PARAM_REAL,
        .at = offsetof(struct lowrank_latency, dense_us),
        .max = 1e12,
        .doc = "microseconds of the layer as it is",
    },
    {
        .name = "factors_us",
        .type = PARAM_REAL,
        .at = offsetof(struct lowrank_latency, factors_us),
        .max = 1e12,
        .doc = "microseconds of its parts",
    },
};
static const struct param_table latency_table = {
    latency_rows, sizeof(latency_rows) / sizeof(latency_rows[0])};

static const struct param rows[] = {
    {
        .name = "decomposition",
        .type = PARAM_ENUM,
        .at = AT(decomposition),
        .choices = lowrank_decompositions,
        .dflt = "tucker2",
        .per_layer = true,
        .doc =
            "what a layer becomes: tucker2 1x1, window, 1x1; svd (1x1 and fully connected layers) two of them; "
            "spatial k x 1, 1 x k; channel window, 1x1; cp 1x1, k x 1, 1 x k, 1x1 with channels apart. 1x1 and "
            "fully connected layers are svd in all of them",
        .source =
            "Kim et al. 2016; Xue et al. 2013; Jaderberg et al. 2014; Zhang et al. 2015; Lebedev et al. 2015",
    },
    {
        .name = "rank",
        .type = PARAM_OBJECT,
        .at = AT(rank),
        .table = &rank_table,
        .choices = rank_words,
        .word_at = AT(rank_word),
        .dflt = "auto",
        .given_at = NO_OFFSET,
        .per_layer = true,
        .doc = "how much is kept: auto, what stands out of the noise; or one of energy, ratio, macs, layers",
        .source =
            "Nakajima et al. 2013, Global analytic solution of fully-observed variational Bayesian matrix "
            "factorization",
    },
    {
        .name = "data_aware",
        .type = PARAM_JSON,
        .at = AT(data_aware),
        .per_layer = true,
        .doc =
            "true or false: parts are made best for the layer's outputs on calibration samples, not for its "
            "weights; default: if there is data",
        .source = "Zhang et al. 2015, sections 3.1 and 3.3; Izenman 1975, Reduced-rank regression",
    },
    {
        .name = "multiple",
        .type = PARAM_INT,
        .at = AT(multiple),
        .min = 1,
        .max = 64,
        .dflt = "16",
        .per_layer = true,
        .doc =
            "ranks are multiples of it, the kernels' block of channels, or full; explicit ones are as they stand",
    },
    {
        .name = "sweeps",
        .type = PARAM_INT,
        .at = AT(sweeps),
        .max = 100,
        .dflt = "2",
        .per_layer = true,
        .doc = "tucker2: how often its sides are improved in turns (HOOI); 0: truncated HOSVD",
        .source = "De Lathauwer, De Moor and Vandewalle 2000",
    },
    {
        .name = "break_even",
        .type = PARAM_ENUM,
        .at = AT(break_even),
        .choices = break_evens,
        .dflt = "latency",
        .per_layer = true,
        .doc =
            "a layer stays as it is when its parts gain nothing: latency, as timed in this engine; macs; none",
    },
    {
        .name = "latencies",
        .type = PARAM_OBJECTS,
        .at = AT(latencies),
        .table = &latency_table,
        .item_size = sizeof(struct lowrank_latency),
        .max = 10000,
        .doc =
            "times that are taken for measured ones: what the report of an earlier job has, for the same bytes",
    },
};
static const struct param_table table = {rows, sizeof(rows) / sizeof(rows[0])};

/* ---- checks ---- */

static int check_ranks(const json_t *layers, struct error *err) {
    json_t *object = (json_t *)(uintptr_t)layers,
           *value; /* the iterator wants it mutable and changes nothing */
    const char *glob;

    if (!json_is_object(layers) || json_object_size(layers) < 1)
        return error_set(err, -EINVAL, ".rank.layers is not an object of globs with their ranks");
    json_object_foreach(object, glob, value) {
        size_t n = json_array_size(value);

        if (n < 1 || n > 2)
            return error_set(err, -EINVAL, ".rank.layers.%.100s is not a list of one or two ranks", glob);
        for (size_t i = 0; i < n; i++)
            if (json_integer_value(json_array_get(value, i)) < 1)
                return error_set(
                    err, -EINVAL, ".rank.layers.%.100s[%zu] is not a rank, a whole number from 1", glob, i);
    }
    return 0;
}

static int check(const void *options, struct error *err) {
    const struct lowrank_options *o = options;
    int given = (o->rank.energy > 0) + (o->rank.ratio > 0) + (o->rank.macs > 0) + (o->rank.layers != NULL);

    if (o->data_aware && !json_is_boolean(o->data_aware))
        return error_set(err, -EINVAL, ".data_aware is not true or false");
    if (o->rank_word < 0 && given != 1)
        return error_set(
            err, -EINVAL, ".rank: one of energy, ratio, macs and layers is needed, here are %d", given);
    return o->rank_word < 0 && o->rank.layers ? check_ranks(o->rank.layers, err) : 0;
}

static bool wants_data(const void *options) {
    return json_is_true(((const struct lowrank_options *)options)->data_aware);
}

/* Globs of explicit ranks are held to the layers like those of `layers`. */
static int check_globs(const struct lowrank_options *o, const struct layers *layers, struct error *err) {
    const char *globs[2] = {NULL, NULL};
    struct scope scope = {.include = globs};
    json_t *value;

    if (o->rank_word >= 0 || !o->rank.layers)
        return 0;
    json_object_foreach(o->rank.layers, globs[0], value) {
        struct error e = {0};
        int r = layers_check_scope(layers, &scope, &e);
        const char *rest = strchr(e.text, ':');

        if (r < 0)
            return error_code(err, r, e.code, ".rank.layers%s", rest ? rest : "");
    }
    return 0;
}

/* ---- dry run ---- */

static void free_plan(void *kept) {
    lowrank_plan_done(kept);
    free(kept);
}

static int make_plan(const struct graph *g, const struct lowrank_options *o, struct layers *layers,
    struct lowrank_plan *p, struct error *err) {
    int r = check_globs(o, layers, err);

    if (r == 0)
        r = lowrank_plan_init(g, o, layers, p, err);
    return r < 0 ? r : lowrank_choose(p, o, /* is_strict= */ true, err);
}

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    struct lowrank_plan *p = calloc(1, sizeof(*p));
    int r;

    if (!p)
        return error_oom(err);
    layers->kept = p;
    layers->kept_done = free_plan;
    r = make_plan(g, options, layers, p, err);
    if (r == 0)
        r = lowrank_break_even(g, p, options, NULL, /* measures= */ false, NULL, err);
    if (r < 0)
        return r;
    lowrank_settle(p);
    for (size_t k = 0; k < p->n; k++) {
        const struct lowrank_item *i = &p->item[k];

        if (i->is_chosen)
            effects[k] = (struct effect){.form = "dense",
                .bytes = 4 * lowrank_params(&i->layer, &i->choice),
                .macs = lowrank_macs(&i->layer, &i->choice)};
    }
    return 0;
}

/* Nodes move as others before them become several. */
static int find_node(const struct graph *g, struct lowrank_item *i, struct error *err) {
    i->layer.node = graph_find_node(g, i->layer.id);
    return i->layer.node >= 0 ? 0 : error_set(err, -EINVAL, "layer '%.100s' is gone", i->layer.id);
}

static int outline(struct graph *g, const void *options, const struct layers *layers, struct error *err) {
    struct lowrank_plan *p = layers->kept;
    int r = 0;

    (void)options;
    for (size_t k = 0; r == 0 && k < p->n; k++) {
        _cleanup_(lowrank_factors_done) struct lowrank_factors f = {0};
        struct lowrank_item *i = &p->item[k];

        if (!i->is_chosen)
            continue;
        r = find_node(g, i, err);
        if (r == 0)
            r = lowrank_factors_init(&i->layer, &i->choice, &f, err);
        if (r == 0)
            r = lowrank_replace(g, &i->layer, &f, NULL, err);
    }
    return r < 0 ? r : graph_finish(g, err);
}

/* ---- doing it ---- */

struct run {
    struct work *work;
    struct graph *original; /* as the step found it */
    struct lowrank_plan plan;
    json_t *rows; /* of the report */
};

static void run_done(struct run *r) {
    graph_free(r->original);
    lowrank_plan_done(&r->plan);
}

/* A batch norm behind the layer says how much each output counts: its scale over its deviation. NULL: there
 * is none, or no memory, which only makes all count alike. */
static double *find_gain(const struct graph *g, const struct lowrank_layer *l) {
    int user, value = g->nodes[l->node].out[0];
    const struct node *n;
    const struct tensor *scale, *variance;
    double epsilon, most = 0, *gain;

    if (graph_consumers(g, value, &user, 1) != 1 || strcmp(g->nodes[user].op_type, "BatchNormalization"))
        return NULL;
    n = &g->nodes[user];
    scale = g->values[n->in[1]].init;
    variance = g->values[n->in[4]].init;
    if (!scale || !variance || scale->dtype != DT_F32 || variance->dtype != DT_F32 ||
        scale->shape.rank != 1 || variance->shape.rank != 1 || scale->shape.dim[0] != l->outputs ||
        variance->shape.dim[0] != l->outputs)
        return NULL;
    gain = linalg_new(l->outputs, 1);
    epsilon = (double)node_attr_float(n, "epsilon", 1e-5f);
    for (int64_t t = 0; gain && t < l->outputs; t++) {
        float s, v;

        memcpy(&s, (const char *)scale->data + (size_t)t * sizeof(s), sizeof(s));
        memcpy(&v, (const char *)variance->data + (size_t)t * sizeof(v), sizeof(v));
        gain[t] = fabs((double)s) / sqrt(fmax((double)v, 0) + epsilon);
        most = fmax(most, gain[t]);
    }
    /* a channel that the norm turns off still has to be computed somehow */
    for (int64_t t = 0; gain && t < l->outputs; t++)
        gain[t] = most > 0 ? fmax(gain[t], 1e-3 * most) : 1;
    return gain;
}

static bool is_data_aware(const struct run *r, const struct lowrank_item *i, const char **ret_note) {
    int64_t n = i->layer.inputs * i->layer.taps;
    bool needs_inputs = i->choice.decomposition != LOWRANK_SVD && i->choice.decomposition != LOWRANK_CHANNEL;
    double bytes = 24.0 * (double)n * (double)n;

    if (!r->work->samples || (i->options->data_aware && json_is_false(i->options->data_aware)))
        return false;
    if (needs_inputs &&
        (n > LOWRANK_MAX_WINDOW || (r->work->memory_bytes && bytes > 0.5 * (double)r->work->memory_bytes))) {
        *ret_note = "its windows are too large for their covariance: by its weights alone";
        return false;
    }
    return true;
}

static double relative_error(const double *w, const double *made, int64_t n) {
    double sum = 0, all = 0;

    for (int64_t i = 0; i < n; i++) {
        sum += (w[i] - made[i]) * (w[i] - made[i]);
        all += w[i] * w[i];
    }
    return all > 0 ? sqrt(sum / all) : 0;
}

/* The bias that keeps the outputs' means; NULL: the layer's own stays. */
static int new_bias(const struct lowrank_layer *l, const struct lowrank_stats *s, const float *old,
    const double *made, float **ret, struct error *err) {
    _cleanup_(freep) double *was = linalg_new(l->outputs, 1), *change = linalg_new(l->outputs, 1);
    float *bias = calloc((size_t)l->outputs + 1, sizeof(*bias));

    *ret = bias;
    if (!was || !change || !bias)
        return error_oom(err);
    for (int64_t t = 0; t < l->outputs; t++)
        was[t] = (double)old[t];
    lowrank_bias_change(s, was, made, change);
    for (int64_t t = 0; t < l->outputs; t++)
        bias[t] = (float)(was[t] + change[t]);
    return 0;
}

static int add_report(struct run *r, const struct lowrank_item *i, double error, bool has_data,
    const char *note, struct error *err) {
    json_t *ranks = json_pack("[I]", (json_int_t)i->choice.rank[0]), *row;

    if (ranks && i->choice.rank[1])
        json_array_append_new(ranks, json_integer(i->choice.rank[1]));
    row = json_pack("{s:s, s:s, s:s, s:o, s:I, s:I, s:f, s:b, s:s*}", "id", i->layer.id, "action",
        "factorised", "decomposition", lowrank_decompositions[i->choice.decomposition], "ranks", ranks,
        "macs_before", (json_int_t)i->layer.macs, "macs", (json_int_t)lowrank_macs(&i->layer, &i->choice),
        "weight_error", error, "data_aware", has_data, "note", note);
    if (i->dense_us > 0) {
        json_object_set_new(row, "dense_us", json_real(i->dense_us));
        json_object_set_new(row, "factors_us", json_real(i->factors_us));
    }
    return row && json_array_append_new(r->rows, row) == 0 ? 0 : error_oom(err);
}

static int factorise(struct run *r, struct lowrank_item *i, size_t index, struct error *err) {
    const struct lowrank_layer *l = &i->layer;
    struct graph *g = r->work->graph;
    _cleanup_(lowrank_factors_done) struct lowrank_factors f = {0};
    _cleanup_(lowrank_stats_done) struct lowrank_stats stats = {0};
    _cleanup_(freep) double *w = NULL, *gain = find_gain(g, l), *made = NULL;
    _cleanup_(freep) float *old = NULL, *bias = NULL;
    const char *note = NULL;
    bool has_data = is_data_aware(r, i, &note);
    struct lowrank_input in = {.layer = l, .gain = gain, .sweeps = i->options->sweeps};
    int e = lowrank_read_weights(g, l, &w, err), may = 0;

    in.w = w;
    in.seed = r->work->seed * 1000003u + index;
    made = linalg_new(l->outputs, l->inputs * l->taps);
    if (e == 0 && !made)
        e = error_oom(err);
    if (e == 0)
        may = e = lowrank_read_bias(g, l, &old, err);
    if (e >= 0 && has_data) {
        e = lowrank_observe(r->original, g, l, w, may > 0, r->work->samples, &stats, err);
        in.stats = &stats;
    }
    if (e >= 0)
        e = lowrank_factors_init(l, &i->choice, &f, err);
    if (e == 0)
        e = lowrank_decompose(&in, &f, err);
    if (e == 0)
        e = lowrank_compose(l, &f, made, err);
    if (e == 0 && has_data && may > 0)
        e = new_bias(l, &stats, old, made, &bias, err);
    if (e == 0)
        e = lowrank_replace(g, l, &f, bias, err);
    if (e == 0)
        e = graph_finish(g, err);
    return e < 0 ? e
                 : add_report(
                       r, i, relative_error(w, made, l->outputs * l->inputs * l->taps), has_data, note, err);
}

static int factorise_all(struct run *r, struct error *err) {
    for (size_t k = 0; k < r->plan.n; k++) {
        struct lowrank_item *i = &r->plan.item[k];
        int e = progress_at(r->work->progress, (double)k / (double)r->plan.n, i->entry->id, err);

        if (e == 0 && i->is_chosen)
            e = find_node(r->work->graph, i, err);
        if (e == 0 && i->is_chosen) {
            e = factorise(r, i, k, err);
            if (e < 0 && e != -ECANCELED)
                error_prefix(err, e, "layer '%.100s'", i->layer.id);
        } else if (e == 0 &&
                   json_array_append_new(r->rows, json_pack("{s:s, s:s, s:s?}", "id", i->entry->id, "action",
                                                      "skipped", "reason", i->entry->reason)) < 0) {
            e = error_oom(err);
        }
        if (e < 0)
            return e;
    }
    return 0;
}

/* Times measured once decide this job, also when it was killed and goes on. */
static int break_even(struct run *r, const struct lowrank_options *o, struct error *err) {
    json_auto_t *known = NULL;
    int e = lowrank_saved_read(r->work, &known, err);

    if (e == 0)
        e = lowrank_break_even(r->original, &r->plan, o, known, true, r->work->progress, err);
    return e < 0 ? e : lowrank_saved_write(r->work, r->plan.latencies, err);
}

/* As the dry run refuses it where times were given. */
static int check_chosen(const struct lowrank_plan *p, struct error *err) {
    const char *reason = "";

    for (size_t k = 0; k < p->n; k++) {
        if (p->item[k].is_chosen)
            return 0;
        if (p->item[k].is_wanted)
            reason = p->item[k].entry->reason;
    }
    return error_code(err, -EBADMSG, "method_not_applicable",
        "method 'lowrank' applies to no layer: %s (\"break_even\": \"macs\" counts operations, not time)",
        reason);
}

static int apply(
    struct work *work, const void *options, const struct scope *scope, json_t *report, struct error *err) {
    const struct lowrank_options *o = options;
    _cleanup_(layers_done) struct layers layers = {0};
    _cleanup_(run_done) struct run r = {.work = work, .rows = json_array()};
    int e;

    if (!r.rows || json_object_set_new(report, "layers", r.rows) < 0)
        return error_oom(err);
    e = fold_but_norms(work->graph, err);
    if (e == 0)
        e = graph_clone(work->graph, &r.original, err);
    if (e == 0)
        e = layers_list(r.original, scope, &layers, err);
    if (e == 0)
        e = make_plan(r.original, o, &layers, &r.plan, err);
    if (e == 0)
        e = break_even(&r, o, err);
    if (e < 0)
        return e;
    lowrank_settle(&r.plan);
    e = check_chosen(&r.plan, err);
    if (e == 0)
        e = factorise_all(&r, err);
    json_object_set(report, "latencies", r.plan.latencies);
    json_object_set_new(report, "macs_before", json_integer(r.plan.summary->macs));
    json_object_set_new(report, "macs", json_integer(r.plan.macs));
    json_object_set_new(report, "budget_missed", json_boolean(r.plan.is_missed));
    return e;
}

const struct method method_lowrank = {
    .name = "lowrank",
    .summary = "Layers become chains of smaller ones: low-rank approximation of their weights",
    .source =
        "Denton et al. 2014; Jaderberg et al. 2014; Lebedev et al. 2015; Zhang et al. 2015; Kim et al. 2016",
    .options = &table,
    .options_size = sizeof(struct lowrank_options),
    .keeps_norms = true,
    .leaves_float = true,
    .wants_data = wants_data,
    .check = check,
    .plan = plan,
    .outline = outline,
    .apply = apply,
};
