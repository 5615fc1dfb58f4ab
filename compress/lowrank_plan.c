#include "compress/lowrank_plan.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/summary.h"

#define MIN_ZEROS 0.2 /* of the weights, from which on they are a mask that later steps keep (methods.md) */

void lowrank_plan_done(struct lowrank_plan *p) {
    for (size_t i = 0; i < p->n; i++)
        lowrank_spectrum_done(&p->item[i].spectrum);
    free(p->item);
    json_decref(p->latencies);
    shapes_done(&p->shapes);
    summary_free(p->summary);
    *p = (struct lowrank_plan){0};
}

static bool is_pruned(const struct tensor *t) {
    int64_t n, zeros = 0;

    if (!shape_count(&t->shape, &n))
        return false;
    for (int64_t i = 0; i < n; i++) {
        float v;

        memcpy(&v, (const char *)t->data + (size_t)i * sizeof(v), sizeof(v));
        zeros += v == 0;
    }
    return (double)zeros >= MIN_ZEROS * (double)n;
}

/* Explicit ranks and names are wishes: the usual skips do not hold against them. */
static bool is_asked_for(const struct lowrank_item *i) {
    const struct lowrank_options *o = i->options;

    return i->entry->is_named || (o->rank_word < 0 && o->rank.layers);
}

static const char *usual_skip(
    const struct graph *g, const struct layers *layers, const struct lowrank_item *i) {
    if (is_asked_for(i))
        return NULL;
    if (i->entry == &layers->entry[0] && i->layer.is_conv)
        return "the first convolution: named in include it is factorised";
    if (is_pruned(g->values[g->nodes[i->layer.node].in[1]].init))
        return "it is pruned, and factors would not keep its zeros: named in include it is factorised";
    return NULL;
}

/* Not for explicit ranks, nor for the ratio of one matrix: these need no energies, and large layers take
 * long. */
static int read_spectrum(const struct graph *g, struct lowrank_item *i, struct error *err) {
    const struct lowrank_options *o = i->options;
    bool is_one = i->choice.decomposition != LOWRANK_TUCKER2 && i->choice.decomposition != LOWRANK_CP;
    _cleanup_(freep) double *w = NULL;
    int r;

    if (o->rank_word < 0 && (o->rank.layers || (o->rank.ratio > 0 && is_one)))
        return 0;
    r = lowrank_read_weights(g, &i->layer, &w, err);
    if (r == 0)
        r = lowrank_spectrum_new(&i->layer, i->choice.decomposition, w, &i->spectrum, err);
    return r < 0 ? error_prefix(err, r, "layer '%.100s'", i->layer.id) : 0;
}

static int plan_layer(const struct graph *g, const struct layers *layers, const struct lowrank_plan *p,
    struct lowrank_item *i, struct error *err) {
    const char *reason = NULL;
    int r = lowrank_layer_read(g, i->entry->node, &p->shapes, &i->layer, &reason, err);

    if (r < 0)
        return r;
    if (!reason)
        i->choice.decomposition = lowrank_fit(&i->layer, i->options->decomposition, &reason);
    if (!reason)
        reason = usual_skip(g, layers, i);
    if (reason) {
        layer_skip(i->entry, reason);
        return 0;
    }
    i->is_wanted = true;
    return read_spectrum(g, i, err);
}

int lowrank_plan_init(const struct graph *g, const struct lowrank_options *o, struct layers *layers,
    struct lowrank_plan *ret, struct error *err) {
    int r;

    *ret =
        (struct lowrank_plan){.item = calloc(layers->n + 1, sizeof(*ret->item)), .latencies = json_array()};
    if (!ret->item || !ret->latencies)
        return error_oom(err);
    ret->n = layers->n;
    r = summary_new(g, &ret->summary, err);
    if (r == 0)
        r = shapes_infer(g, ret->summary->sample, &ret->shapes, err);
    for (size_t k = 0; r == 0 && k < ret->n; k++) {
        struct lowrank_item *i = &ret->item[k];

        i->entry = &layers->entry[k];
        i->options = i->entry->options ? i->entry->options : o;
        if (i->entry->is_selected)
            r = plan_layer(g, layers, ret, i, err);
    }
    return r;
}
