/* Ranks. `auto`, `energy` and `ratio` look at a layer by itself; `macs` weighs the layers against each other:
 *
 *   each has its choices, multiples of the kernels' block; a choice costs MACs and leaves a share E of the
 * energy maximise the product of E over the layers, that is minimise the sum of -log E, within the budget
 *   (Zhang et al. 2015, Accelerating very deep convolutional networks, section 3.2)
 *
 * From all layers as they are, the choice that loses least a saved MAC comes first: along each layer's lower
 * convex hull, which is the optimum of the Lagrangian for the MACs where it stops. What was saved too much is
 * given back. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/lowrank_plan.h"
#include "engine/summary.h"

static const char no_gain[] = "no gain: at the ranks it needs its parts have as many MACs";
static const char no_ratio[] = "no rank keeps so few of its MACs";
static const char no_rank[] = "no rank is given for it";
static const char over_budget[] = "the budget is met without it";

void lowrank_keep(struct lowrank_item *i, const char *reason) {
    i->is_kept = true;
    i->is_chosen = false;
    layer_skip(i->entry, reason);
}

/* ---- the choices of a layer ---- */

struct candidate {
    struct lowrank_choice choice;
    int64_t macs;
    double damage; /* -log of the energy left */
};

struct candidates {
    size_t n, at;           /* at: the one that it stands at */
    struct candidate *list; /* [0]: as it is; then those with fewer MACs, by falling MACs */
};

static int64_t round_up(int64_t r, int64_t multiple, int64_t full) {
    r = (r + multiple - 1) / multiple * multiple;
    return r < full ? r : full;
}

static double damage_of(const struct lowrank_item *i, const struct lowrank_choice *c) {
    return -log(fmax(lowrank_energy(&i->spectrum, c->rank), 1e-12));
}

static int by_macs(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;

    if (x->macs != y->macs)
        return x->macs < y->macs ? 1 : -1;
    return (x->damage > y->damage) - (x->damage < y->damage);
}

static size_t steps_of(int64_t full, int64_t multiple) {
    return (size_t)((full + multiple - 1) / multiple);
}

static int list_candidates(const struct lowrank_item *i, struct candidates *ret, struct error *err) {
    int64_t full[2], m = i->options->multiple;
    size_t n0, n1;

    lowrank_full(&i->layer, i->choice.decomposition, full);
    n0 = steps_of(full[0], m);
    n1 = full[1] ? steps_of(full[1], m) : 1;
    *ret = (struct candidates){.list = calloc(n0 * n1 + 1, sizeof(*ret->list))};
    if (!ret->list)
        return error_oom(err);
    ret->list[ret->n++] = (struct candidate){.macs = i->layer.macs};
    for (size_t k = 0; k < n0 * n1; k++) {
        struct candidate c = {.choice = i->choice};

        c.choice.rank[0] = round_up((int64_t)(k / n1 + 1) * m, m, full[0]);
        c.choice.rank[1] = full[1] ? round_up((int64_t)(k % n1 + 1) * m, m, full[1]) : 0;
        c.macs = lowrank_macs(&i->layer, &c.choice);
        c.damage = damage_of(i, &c.choice);
        if (c.macs < i->layer.macs)
            ret->list[ret->n++] = c;
    }
    qsort(ret->list + 1, ret->n - 1, sizeof(*ret->list), by_macs);
    return 0;
}

/* ---- layers by themselves ---- */

static void choose_ranks(struct lowrank_item *i, double energy) {
    const struct lowrank_spectrum *s = &i->spectrum;
    int64_t full[2], rank[2] = {0};

    lowrank_full(&i->layer, i->choice.decomposition, full);
    for (int k = 0; k < s->n_sides; k++)
        rank[k] = energy > 0 ? lowrank_rank_of_energy(s, k, energy)
                             : lowrank_evbmf(
                                   s->value[k], s->n[k], s->rows[k] > s->cols[k] ? s->rows[k] : s->cols[k]);
    if (!full[1]) /* cp has one rank for both sides */
        rank[0] = rank[0] > rank[1] ? rank[0] : rank[1];
    for (int k = 0; k < 2; k++)
        i->choice.rank[k] = full[k] ? round_up(rank[k] > 0 ? rank[k] : 1, i->options->multiple, full[k]) : 0;
    i->is_chosen =
        lowrank_macs(&i->layer, &i->choice) < i->layer.macs || i->options->break_even == BREAK_EVEN_NONE;
    if (!i->is_chosen)
        layer_skip(i->entry, no_gain);
}

/* The most energy within the ratio. Of one matrix that is the largest rank, the first in the list. */
static int choose_ratio(struct lowrank_item *i, struct error *err) {
    struct candidates c;
    const struct candidate *best = NULL;
    int r = list_candidates(i, &c, err);

    if (r < 0)
        return r;
    for (size_t k = 1; k < c.n; k++)
        if ((double)c.list[k].macs <= i->options->rank.ratio * (double)i->layer.macs &&
            (!best || c.list[k].damage < best->damage))
            best = &c.list[k];
    i->is_chosen = best;
    if (best)
        i->choice = best->choice;
    else
        layer_skip(i->entry, no_ratio);
    free(c.list);
    return 0;
}

static const json_t *ranks_for(const json_t *layers, const char *id, const char **ret_glob) {
    json_t *object = (json_t *)(uintptr_t)layers,
           *value; /* the iterator wants it mutable and changes nothing */
    const json_t *found = NULL;
    const char *glob;

    json_object_foreach(object, glob, value) {
        if (!layer_matches(glob, id))
            continue;
        found = value;
        *ret_glob = glob;
    }
    return found;
}

static int choose_explicit(struct lowrank_item *i, struct error *err) {
    const char *glob = NULL, *name = lowrank_decompositions[i->choice.decomposition];
    const json_t *ranks = ranks_for(i->options->rank.layers, i->layer.id, &glob);
    int64_t full[2];
    size_t n = json_array_size(ranks), wanted;

    if (!ranks) {
        layer_skip(i->entry, no_rank);
        return 0;
    }
    lowrank_full(&i->layer, i->choice.decomposition, full);
    wanted = full[1] ? 2 : 1;
    if (n != wanted)
        return error_set(err, -EINVAL,
            ".rank.layers.%.100s: %s takes %s for layer '%.100s', here are %zu numbers", glob, name,
            wanted == 2 ? "two ranks, [in, out]" : "one rank", i->layer.id, n);
    for (size_t k = 0; k < n; k++) {
        i->choice.rank[k] = json_integer_value(json_array_get(ranks, k));
        /* cp may have more terms than channels */
        if (i->choice.rank[k] > full[k] && i->choice.decomposition != LOWRANK_CP)
            return error_set(err, -EINVAL,
                ".rank.layers.%.100s: rank %lld is larger than the matrix of layer '%.100s' allows: %s has at most "
                "%lld there",
                glob, (long long)i->choice.rank[k], i->layer.id, name, (long long)full[k]);
    }
    i->is_chosen =
        lowrank_macs(&i->layer, &i->choice) < i->layer.macs || i->options->break_even == BREAK_EVEN_NONE;
    if (!i->is_chosen)
        layer_skip(i->entry, no_gain);
    return 0;
}

static bool is_in_budget(const struct lowrank_item *i) {
    return i->is_wanted && i->options->rank_word < 0 && i->options->rank.macs > 0;
}

static int choose_one(struct lowrank_item *i, struct error *err) {
    const struct lowrank_options *o = i->options;

    if (o->rank_word >= 0)
        choose_ranks(i, 0);
    else if (o->rank.energy > 0)
        choose_ranks(i, o->rank.energy);
    else if (o->rank.ratio > 0)
        return choose_ratio(i, err);
    else
        return choose_explicit(i, err);
    return 0;
}

/* ---- the budget ---- */

struct budget {
    size_t n;
    struct candidates *of; /* [n], empty for layers that are not in it */
    int64_t macs, most;    /* of the network as it stands, and may have */
};

static void budget_done(struct budget *b) {
    for (size_t i = 0; b->of && i < b->n; i++)
        free(b->of[i].list);
    free(b->of);
}

static int budget_init(struct budget *b, const struct lowrank_plan *p, double share, struct error *err) {
    int r = 0;

    *b = (struct budget){.of = calloc(p->n + 1, sizeof(*b->of)),
        .n = p->n,
        .macs = p->summary->macs,
        .most = (int64_t)(share * (double)p->summary->macs)};
    if (!b->of)
        return error_oom(err);
    for (size_t i = 0; r == 0 && i < p->n; i++) {
        const struct lowrank_item *item = &p->item[i];

        if (is_in_budget(item) && !item->is_kept)
            r = list_candidates(item, &b->of[i], err);
        else if (item->is_chosen)
            b->macs += lowrank_macs(&item->layer, &item->choice) - item->layer.macs;
    }
    return r;
}

static const struct candidate *now_of(const struct candidates *c) {
    return &c->list[c->at];
}

/* The next choice on the layer's hull: of all with fewer MACs, the one that loses least a MAC. */
static size_t next_of(const struct candidates *c, double *ret_price) {
    size_t best = 0;

    *ret_price = HUGE_VAL;
    for (size_t k = 1; k < c->n; k++) {
        double price;

        if (c->list[k].macs >= now_of(c)->macs)
            continue;
        price = (c->list[k].damage - now_of(c)->damage) / (double)(now_of(c)->macs - c->list[k].macs);
        if (price < *ret_price || (price == *ret_price && c->list[k].macs < c->list[best].macs)) {
            *ret_price = price;
            best = k;
        }
    }
    return best;
}

static void move(struct budget *b, struct candidates *c, size_t to) {
    b->macs += c->list[to].macs - now_of(c)->macs;
    c->at = to;
}

/* False: nothing is left to save. */
static bool save(struct budget *b) {
    struct candidates *best = NULL;
    double least = HUGE_VAL;
    size_t to = 0;

    for (size_t i = 0; i < b->n; i++) {
        double price;
        size_t next = b->of[i].n ? next_of(&b->of[i], &price) : 0;

        if (next && price < least) {
            least = price;
            best = &b->of[i];
            to = next;
        }
    }
    if (best)
        move(b, best, to);
    return best;
}

/* False: nothing can be given back within the budget. */
static bool give_back(struct budget *b) {
    struct candidates *best = NULL;
    double most = 0;
    size_t to = 0;

    for (size_t i = 0; i < b->n; i++)
        for (size_t k = 0; k < b->of[i].n; k++) {
            struct candidates *c = &b->of[i];
            double won = now_of(c)->damage - c->list[k].damage;

            if (b->macs + c->list[k].macs - now_of(c)->macs > b->most || won <= most)
                continue;
            most = won;
            best = c;
            to = k;
        }
    if (best)
        move(b, best, to);
    return best;
}

static int refuse_budget(
    const struct budget *b, const struct lowrank_plan *p, double share, struct error *err) {
    return error_code(err, -EBADMSG, "requirement_not_met",
        ".rank.macs: %.4g of the network's MACs cannot be reached; the least with these layers, decomposition and "
        "multiple is %.4f",
        share, (double)b->macs / (double)p->summary->macs);
}

static void take_budget(struct lowrank_plan *p, const struct budget *b) {
    for (size_t i = 0; i < p->n; i++) {
        struct lowrank_item *item = &p->item[i];

        if (!b->of[i].n)
            continue;
        item->is_chosen = b->of[i].at > 0;
        if (item->is_chosen)
            item->choice = now_of(&b->of[i])->choice;
    }
}

static int meet_budget(struct lowrank_plan *p, double share, bool is_strict, struct error *err) {
    _cleanup_(budget_done) struct budget b = {0};
    int r = budget_init(&b, p, share, err);

    if (share <= 0)
        return error_set(err, -EINVAL,
            ".overrides: rank.macs is a budget of the whole network and stands in the step's own rank");
    if (r < 0)
        return r;
    while (b.macs > b.most && save(&b))
        ;
    p->is_missed = b.macs > b.most;
    if (p->is_missed && is_strict)
        return refuse_budget(&b, p, share, err);
    while (!p->is_missed && give_back(&b))
        ;
    take_budget(p, &b);
    return 0;
}

/* Layers that the budget leaves alone are skipped only when it stands: ranks may be chosen again. */
void lowrank_settle(struct lowrank_plan *p) {
    for (size_t i = 0; i < p->n; i++)
        if (p->item[i].is_wanted && !p->item[i].is_chosen)
            layer_skip(p->item[i].entry, over_budget);
}

int lowrank_choose(
    struct lowrank_plan *p, const struct lowrank_options *o, bool is_strict, struct error *err) {
    bool has_budget = false;
    int r = 0;

    for (size_t i = 0; r == 0 && i < p->n; i++) {
        struct lowrank_item *item = &p->item[i];

        if (!item->is_wanted || item->is_kept)
            continue;
        if (is_in_budget(item))
            has_budget = true;
        else if (!item->is_chosen)
            r = choose_one(item, err);
    }
    if (r == 0 && has_budget)
        r = meet_budget(p, o->rank_word < 0 ? o->rank.macs : 0, is_strict, err);
    p->macs = p->summary->macs;
    for (size_t i = 0; r == 0 && i < p->n; i++)
        if (p->item[i].is_chosen)
            p->macs += lowrank_macs(&p->item[i].layer, &p->item[i].choice) - p->item[i].layer.macs;
    return r;
}
