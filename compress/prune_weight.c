#include "compress/prune_weight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/fold.h"
#include "compress/recover.h"
#include "engine/ops.h"
#include "engine/summary.h"

/* ---- which layers ---- */

static struct weight_tile tile_of(const struct prune_options *o, int out_axis) {
    bool is_block = o->granularity == PRUNE_BLOCK;

    return (struct weight_tile){.out = is_block ? o->block[0] : 1,
        .in = is_block ? o->block[1] : o->nm[1],
        .kept = is_block ? (int64_t)o->block[0] * o->block[1] : o->nm[0],
        .out_axis = out_axis};
}

static bool is_depthwise(const struct node *n, const struct layer_entry *e) {
    return node_attr_int(n, "group", 1) > 1 && e->params == e->rows * e->cols &&
           node_attr_int(n, "group", 1) == e->rows;
}

static bool is_first_conv(const struct graph *g, const struct node *n) {
    int v = n->in[0];

    /* what normalises the picture may stand before it */
    while (v >= 0 && g->values[v].producer >= 0 &&
           g->nodes[g->values[v].producer].op->couple != OP_COUPLE_FREE &&
           g->nodes[g->values[v].producer].n_in > 0)
        v = g->nodes[g->values[v].producer].in[0];
    return strcmp(n->op_type, "Conv") == 0 && v >= 0 && g->values[v].producer < 0;
}

static const char *misfit(const struct graph *g, const struct prune_options *o, const struct layer_entry *e,
    const struct weight_rows *k) {
    const struct node *n = &g->nodes[e->node];
    struct weight_tile tile = tile_of(o, k->axis);

    if (e->params < 2)
        return "it has no weights to choose from";
    if (k->axis > 1 || k->shape.rank < 2)
        return "its weights are more than one matrix";
    if (o->granularity != PRUNE_WEIGHT && !weight_count_tiles(&k->shape, &tile))
        return "its channels cannot be cut into such blocks";
    if (is_depthwise(n, e) && !e->is_named)
        return "depthwise layers have few weights and lose much; naming it in layers.include prunes it";
    if (o->scope == PRUNE_LAYER && is_first_conv(g, n) && !e->is_named)
        return "the first convolution has few weights and sees the picture itself (Zhu and Gupta 2017 leave it); "
               "naming it in layers.include prunes it";
    return NULL;
}

/* The layer before that has the same weights. */
static const struct layer_entry *shares_with(
    const struct graph *g, const struct layers *layers, const struct layer_entry *e) {
    for (const struct layer_entry *b = layers->entry; b < e; b++)
        if (b->is_selected && g->nodes[b->node].in[1] == g->nodes[e->node].in[1])
            return b;
    return NULL;
}

static int select_layers(
    const struct graph *g, const struct prune_options *o, struct layers *layers, struct error *err) {
    for (size_t i = 0; i < layers->n; i++) {
        struct layer_entry *e = &layers->entry[i];
        const struct node *n = &g->nodes[e->node];
        struct weight_rows k;
        const char *reason;
        int r;

        if (e->form || !e->is_selected)
            continue;
        if (g->values[n->in[1]].init->dtype != DT_F32) {
            layer_skip(e, "its weights are not float");
            continue;
        }
        r = weight_rows_of(g, n, &k, err);
        if (r < 0)
            return r;
        reason = misfit(g, o, e, &k);
        if (reason || shares_with(g, layers, e))
            layer_skip(e, reason ? reason : "an earlier layer has the same weights, which go with it");
    }
    return 0;
}

/* ---- the set ---- */

static double macs_of(const struct summary *s, const char *id) {
    for (size_t i = 0; i < s->n_layers; i++)
        if (!strcmp(s->layers[i].id, id))
            return (double)s->layers[i].macs;
    return 0;
}

static int fill_layer(const struct graph *g, const struct layer_entry *e, const struct prune_options *step,
    struct prune_layer *l, struct error *err) {
    const struct node *n = &g->nodes[e->node];
    struct weight_tile tile;
    int r;

    *l = (struct prune_layer){.id = strdup(e->id),
        .node = e->node,
        .value = n->in[1],
        .o = e->options ? e->options : step,
        .n = e->params,
        .n_units = e->params,
        .unit = 1};
    l->is_alone = l->o != step && l->o->sparsity > 0;
    r = weight_rows_of(g, n, &l->rows, err);
    if (r < 0)
        return r;
    tile = tile_of(step, l->rows.axis);
    if (step->granularity != PRUNE_WEIGHT) {
        weight_tiles_init(&l->tiles, &l->rows.shape, &tile);
        l->n_units = weight_count_tiles(&l->rows.shape, &tile);
        l->unit = tile.out * tile.in;
    }
    l->n_kept = l->n;
    l->score = calloc((size_t)l->n + 1, sizeof(*l->score));
    return l->score && l->id ? 0 : error_oom(err);
}

static int make_masks(struct prune_set *s, struct error *err) {
    uint8_t *at;

    for (size_t i = 0; i < s->n; i++)
        s->masks_bytes += (size_t)s->layer[i].n;
    s->masks = at = malloc(s->masks_bytes + 1);
    if (!s->masks)
        return error_oom(err);
    memset(s->masks, 1, s->masks_bytes);
    for (size_t i = 0; i < s->n; at += s->layer[i++].n)
        s->layer[i].keep = at;
    return 0;
}

int prune_set_init(struct prune_set *s, const struct graph *g, const struct prune_options *o,
    const struct layers *layers, struct error *err) {
    _cleanup_(summary_freep) struct summary *now = NULL;
    int r = summary_new(g, &now, err);

    *s = (struct prune_set){.o = o, .layer = calloc(layers->n + 1, sizeof(*s->layer))};
    if (!s->layer)
        return error_oom(err);
    for (size_t i = 0; r == 0 && i < layers->n; i++) {
        const struct layer_entry *e = &layers->entry[i];

        if (!e->is_selected)
            continue;
        r = fill_layer(g, e, o, &s->layer[s->n++], err);
        s->layer[s->n - 1].macs = macs_of(now, e->id);
    }
    s->macs = r == 0 ? (double)now->macs : 0;
    return r == 0 ? make_masks(s, err) : r;
}

void prune_set_done(struct prune_set *s) {
    for (size_t i = 0; i < s->n; i++) {
        free(s->layer[i].score);
        free(s->layer[i].id);
    }
    free(s->layer);
    free(s->masks);
    *s = (struct prune_set){0};
}

void prune_set_count(struct prune_set *s) {
    for (struct prune_layer *l = s->layer; l < s->layer + s->n; l++) {
        l->n_kept = 0;
        for (int64_t i = 0; i < l->n; i++)
            l->n_kept += l->keep[i];
    }
}

int prune_set_find(struct prune_set *s, const struct graph *g, struct error *err) {
    for (size_t i = 0; i < s->n; i++) {
        struct prune_layer *l = &s->layer[i];

        l->node = graph_find_node(g, l->id);
        if (l->node < 0)
            return error_code(err, -EIO, "internal", "layer '%s' is gone", l->id);
        l->value = g->nodes[l->node].in[1];
    }
    return 0;
}

/* ---- the dry run ---- */

/* What the weights as they are say; where data decide, every layer is told the share of all. */
static int choose_now(const struct graph *g, struct prune_set *s, struct error *err) {
    struct prune_options o = *s->o;
    int r = 0;

    if (prune_criterion_of(&o)->needs_gradients)
        o.criterion = PRUNE_RANDOM;
    for (size_t i = 0; r == 0 && i < s->n; i++) {
        struct prune_layer *l = &s->layer[i];
        const struct prune_options *was = l->o;

        l->most = o.scope == PRUNE_SENSITIVITY ? (o.sparsity > 0 ? o.sparsity : 1) : 0;
        l->o = &o;
        r = prune_score_weights(l, g->values[l->value].init->data, 1, i, err);
        l->o = was;
    }
    return r == 0 ? prune_choose(s, 1, err) : r;
}

int prune_weight_plan(const struct graph *g, const struct prune_options *o, struct layers *layers,
    struct effect *effects, struct error *err) {
    _cleanup_(prune_set_done) struct prune_set s = {0};
    int r = select_layers(g, o, layers, err);

    if (r == 0)
        r = prune_set_init(&s, g, o, layers, err);
    if (r == 0)
        r = prune_check_budget(&s, err);
    if (r == 0)
        r = choose_now(g, &s, err);
    for (size_t i = 0, k = 0; r == 0 && i < layers->n; i++) {
        const struct prune_layer *l = &s.layer[k];

        if (!layers->entry[i].is_selected)
            continue;
        effects[i].bytes = prune_bytes(l, &effects[i].form);
        effects[i].macs = (int64_t)(l->macs * (double)l->n_kept / (double)l->n);
        k++;
    }
    return r;
}

/* ---- the step ---- */

static int run_schedule(struct work *work, struct prune_set *s, json_t *report, struct error *err) {
    switch ((enum prune_schedule_kind)s->o->schedule.kind) {
    case PRUNE_ITERATIVE: return prune_iterative(work, s, report, err);
    case PRUNE_GRADUAL: return prune_gradual(work, s, report, err);
    case PRUNE_ONESHOT:
    default: return prune_oneshot(work, s, report, err);
    }
}

static int list_skipped(const struct layers *layers, json_t *list, struct error *err) {
    for (size_t i = 0; i < layers->n; i++) {
        const struct layer_entry *e = &layers->entry[i];

        if (!e->is_selected && json_array_append_new(list, json_pack("{s:s, s:s, s:s?}", "id", e->id,
                                                               "action", "skipped", "reason", e->reason)) < 0)
            return error_oom(err);
    }
    return 0;
}

int prune_weight_apply(struct work *work, const struct prune_options *o, const struct scope *scope,
    json_t *report, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    _cleanup_(prune_set_done) struct prune_set s = {0};
    json_t *list = json_array();
    int r = json_object_set_new(report, "layers", list) < 0 ? error_oom(err) : fold_graph(work->graph, err);

    if (r == 0)
        r = layers_list(work->graph, scope, &layers, err);
    if (r == 0)
        r = select_layers(work->graph, o, &layers, err);
    if (r == 0)
        r = prune_set_init(&s, work->graph, o, &layers, err);
    if (r == 0)
        r = list_skipped(&layers, list, err);
    if (r == 0)
        r = prune_check_budget(&s, err);
    if (r == 0 && o->has_regularize)
        r = prune_regularize(work, &s, report, err);
    if (r == 0)
        r = run_schedule(work, &s, report, err);
    return r == 0 ? prune_store(work, &s, list, err) : r;
}
