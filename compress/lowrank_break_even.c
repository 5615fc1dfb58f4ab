/* Fewer MACs are no gain where they take longer. Each chosen layer is timed against its parts; one that gains
 * nothing stays as it is, and a budget is met again by the others, until all that are chosen do gain. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/lowrank_plan.h"

static const char slower[] = "no gain: its parts take as long in this engine";

static bool is_about(
    const struct lowrank_item *i, const char *layer, int decomposition, const json_t *ranks) {
    size_t n = i->choice.rank[1] ? 2 : 1;

    if (!layer || strcmp(layer, i->layer.id) || decomposition != i->choice.decomposition ||
        json_array_size(ranks) != n)
        return false;
    for (size_t k = 0; k < n; k++)
        if (json_integer_value(json_array_get(ranks, k)) != i->choice.rank[k])
            return false;
    return true;
}

static bool find_given(const struct lowrank_options *o, struct lowrank_item *i) {
    const struct lowrank_latency *l = o->latencies.item;

    for (size_t k = 0; k < o->latencies.n; k++)
        if (is_about(i, l[k].layer, l[k].decomposition, l[k].ranks)) {
            i->dense_us = l[k].dense_us;
            i->factors_us = l[k].factors_us;
            return true;
        }
    return false;
}

static int decomposition_of(const json_t *row) {
    const char *name = json_string_value(json_object_get(row, "decomposition"));

    for (int k = 0; name && lowrank_decompositions[k]; k++)
        if (!strcmp(name, lowrank_decompositions[k]))
            return k;
    return -1;
}

static bool find_known(const json_t *list, struct lowrank_item *i) {
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *row = json_array_get(list, k);

        if (!is_about(i, json_string_value(json_object_get(row, "layer")), decomposition_of(row),
                json_object_get(row, "ranks")))
            continue;
        i->dense_us = json_number_value(json_object_get(row, "dense_us"));
        i->factors_us = json_number_value(json_object_get(row, "factors_us"));
        return true;
    }
    return false;
}

static json_t *row_of(const struct lowrank_item *i) {
    json_t *ranks = json_pack("[I]", (json_int_t)i->choice.rank[0]);

    if (ranks && i->choice.rank[1])
        json_array_append_new(ranks, json_integer(i->choice.rank[1]));
    return json_pack("{s:s, s:s, s:o, s:f, s:f}", "layer", i->layer.id, "decomposition",
        lowrank_decompositions[i->choice.decomposition], "ranks", ranks, "dense_us", i->dense_us,
        "factors_us", i->factors_us);
}

static int measure(const struct graph *g, const struct lowrank_plan *p, struct lowrank_item *i,
    const struct progress *progress, struct error *err) {
    int r = progress_at(progress, 0, "timing layers", err);

    return r < 0 ? r
                 : lowrank_time(g, &i->layer, &p->shapes.value[g->nodes[i->layer.node].in[0]].shape,
                       &i->choice, &i->dense_us, &i->factors_us, err);
}

/* Times of the layer and its parts: as looked at before, given, known, or measured now. None: both stay 0. */
static int look_up(const struct graph *g, struct lowrank_plan *p, const struct lowrank_options *o,
    const json_t *known, bool measures, struct lowrank_item *i, const struct progress *progress,
    struct error *err) {
    int r = 0;

    i->dense_us = i->factors_us = 0;
    if (find_known(p->latencies, i))
        return 0;
    if (!find_given(o, i) && !find_known(known, i) && measures)
        r = measure(g, p, i, progress, err);
    if (r == 0 && i->dense_us > 0 && json_array_append_new(p->latencies, row_of(i)) < 0)
        r = error_oom(err);
    return r;
}

/* One pass over the chosen layers; *ret_kept: how many were found to be no gain. */
static int check_all(const struct graph *g, struct lowrank_plan *p, const struct lowrank_options *o,
    const json_t *known, bool measures, const struct progress *progress, size_t *ret_kept,
    struct error *err) {
    *ret_kept = 0;
    for (size_t k = 0; k < p->n; k++) {
        struct lowrank_item *i = &p->item[k];
        int r;

        if (!i->is_chosen || i->options->break_even != BREAK_EVEN_LATENCY)
            continue;
        r = look_up(g, p, o, known, measures, i, progress, err);
        if (r < 0)
            return r;
        if (i->dense_us > 0 && i->factors_us >= i->dense_us) {
            lowrank_keep(i, slower);
            ++*ret_kept;
        }
    }
    return 0;
}

int lowrank_break_even(const struct graph *g, struct lowrank_plan *p, const struct lowrank_options *o,
    const json_t *known, bool measures, const struct progress *progress, struct error *err) {
    size_t kept = 1;
    int r = 0;

    /* each pass but the last keeps a layer more: it ends */
    while (r == 0 && kept) {
        r = check_all(g, p, o, known, measures, progress, &kept, err);
        if (r == 0 && kept)
            r = lowrank_choose(p, o, /* is_strict= */ false, err);
    }
    return r;
}
